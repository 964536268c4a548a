//! Building a batch: records are collected as columns, [`BatchBuilder::seal`] turns them into bytes once.
//!
//! **Invariants:** a record is taken whole or not at all; the sealed batch is never larger than
//! [`BatchBuilder::estimated_bytes`] said; after warm-up neither pushing nor sealing allocates (with a codec,
//! LZ4's table alone excepted).

use std::fmt;

use rkyv::rancor::Failure;
use rkyv::ser::Serializer;
use rkyv::ser::allocator::SubAllocator;
use rkyv::util::AlignedVec;

use super::codec::{Codec, Compressor};
use super::columns::Columns;
use super::error::BatchError;
use super::header::{BATCH_HEADER_BYTES, BatchHeader, BodyFormat, FLAG_WIDE_TIMESTAMPS, SCHEMA_VERSION};
use crate::crc::crc32c;
use crate::id::{ProducerId, Term, TopicId};
use crate::limits::{BATCH_ALIGN, MAX_BATCH_BYTES_LIMIT, MAX_RECORDS_PER_BATCH};

/// Header, archive root, and what aligning the columns and padding the end can cost at most.
const FIXED_BYTES: usize = BATCH_HEADER_BYTES + Columns::ROOT_BYTES + 32;

/// A record on its way into a batch. `None` is null, which is not the same as empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// What the partitioner and compaction look at.
    pub key: Option<&'a [u8]>,
    /// The event itself.
    pub value: Option<&'a [u8]>,
    /// Microseconds since the Unix epoch.
    pub timestamp_us: u64,
    /// Names and values, in order; names may repeat.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// Why a record was not taken; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The batch has no room left for it: seal, then push it again.
    Batch,
    /// It would not fit an empty batch either.
    Record {
        /// What a batch of this record alone would take.
        bytes: usize,
        /// What a batch may take.
        max_bytes: usize,
    },
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch => f.write_str("the batch is full"),
            Self::Record { bytes, max_bytes } => {
                write!(f, "the record needs a batch of {bytes} bytes, the limit is {max_bytes}")
            }
        }
    }
}

impl std::error::Error for Full {}

/// What a batch is sealed with: for whom, by whom, how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// The topic it is meant for.
    pub topic: TopicId,
    /// The partition it is meant for.
    pub partition: u32,
    /// Who writes it; [`ProducerId::NONE`] for no deduplication.
    pub producer_id: ProducerId,
    /// Which incarnation of the producer.
    pub producer_epoch: u16,
    /// Sequence number of the first record.
    pub base_sequence: u32,
    /// How the body shall be compressed. A body that does not get smaller is stored plain.
    pub codec: Codec,
}

/// Collects records until they are sealed into a batch; reusable.
#[derive(Debug)]
pub struct BatchBuilder {
    max_bytes: usize,
    columns: Columns,
    timestamps_us: Vec<u64>,
    min_timestamp_us: u64,
    max_timestamp_us: u64,
    /// The body before compression; stays empty without a codec.
    plain: AlignedVec<16>,
    compressor: Compressor,
}

impl BatchBuilder {
    /// A builder of batches of at most `max_bytes`, header and padding included.
    pub fn new(max_bytes: usize) -> Self {
        let max_bytes = max_bytes.min(MAX_BATCH_BYTES_LIMIT);
        Self {
            max_bytes,
            columns: Columns { bytes: Vec::with_capacity(max_bytes), ..Columns::default() },
            timestamps_us: Vec::new(),
            min_timestamp_us: u64::MAX,
            max_timestamp_us: 0,
            plain: AlignedVec::new(),
            compressor: Compressor::default(),
        }
    }

    /// Takes a copy of the record, or says why not.
    #[inline]
    pub fn push(&mut self, record: RecordRef<'_>) -> Result<(), Full> {
        let count = self.timestamps_us.len() + 1;
        if !self.columns.fit_surely(count, &record, self.max_bytes.saturating_sub(FIXED_BYTES)) {
            self.fit(&record)?;
        }
        self.columns.push(self.timestamps_us.len(), &record);
        self.timestamps_us.push(record.timestamp_us);
        self.min_timestamp_us = self.min_timestamp_us.min(record.timestamp_us);
        self.max_timestamp_us = self.max_timestamp_us.max(record.timestamp_us);
        Ok(())
    }

    /// Whether the record fits, to the byte; asked only where a rough bound does not decide.
    #[cold]
    fn fit(&self, record: &RecordRef<'_>) -> Result<(), Full> {
        let bytes = self.estimate_with(record);
        if bytes <= self.max_bytes && self.timestamps_us.len() < MAX_RECORDS_PER_BATCH {
            return Ok(());
        }
        if self.timestamps_us.is_empty() {
            Err(Full::Record { bytes, max_bytes: self.max_bytes })
        } else {
            Err(Full::Batch)
        }
    }

    /// Records taken since the last seal.
    pub fn record_count(&self) -> usize {
        self.timestamps_us.len()
    }

    /// Whether nothing was taken since the last seal.
    pub fn is_empty(&self) -> bool {
        self.timestamps_us.is_empty()
    }

    /// An upper bound, close by, of what sealing now would append, in bytes.
    pub fn estimated_bytes(&self) -> usize {
        let wide = self.is_wide(self.min_timestamp_us, self.max_timestamp_us);
        self.columns.estimate(self.timestamps_us.len(), wide) + FIXED_BYTES
    }

    /// Forgets the records, keeps the memory.
    pub fn clear(&mut self) {
        self.columns.clear();
        self.timestamps_us.clear();
        self.min_timestamp_us = u64::MAX;
        self.max_timestamp_us = 0;
    }

    /// Appends the batch, padded, to `out` and empties the builder. Offsets, append time and leader epoch are
    /// the broker's to patch and zero until then. On an error `out` and the builder are as before.
    ///
    /// # Panics
    /// When `out` does not end on a 16-byte boundary.
    pub fn seal(&mut self, seal: &Seal, out: &mut AlignedVec<16>) -> Result<BatchHeader, BatchError> {
        let start = out.len();
        assert_eq!(start % BATCH_ALIGN, 0, "a batch starts aligned");
        if self.is_empty() {
            return Err(BatchError::Empty);
        }
        let bound = self.estimated_bytes();
        let wide = self.fill_timestamp_deltas();
        self.columns.finish(self.timestamps_us.len());
        out.reserve(bound);
        out.resize(start + BATCH_HEADER_BYTES, 0);
        let sealed = self.write_body(seal.codec, out);
        let body = match sealed {
            Ok(body) => body,
            Err(error) => {
                out.resize(start, 0);
                return Err(error);
            }
        };
        let body_start = start + BATCH_HEADER_BYTES;
        let count = u32::try_from(self.timestamps_us.len()).expect("the count is limited");
        let header = BatchHeader {
            format: BodyFormat::Columns,
            codec: body.codec,
            flags: if wide { FLAG_WIDE_TIMESTAMPS } else { 0 },
            schema_version: SCHEMA_VERSION,
            body_crc: crc32c(0, &out[body_start..]),
            body_bytes: to_u32(out.len() - body_start),
            uncompressed_bytes: body.uncompressed_bytes,
            record_count: count,
            last_offset_delta: count - 1,
            root_position: body.root_position,
            base_offset: 0,
            base_timestamp_us: self.min_timestamp_us,
            max_timestamp_us: self.max_timestamp_us,
            append_timestamp_us: 0,
            producer_id: seal.producer_id,
            producer_epoch: seal.producer_epoch,
            base_sequence: seal.base_sequence,
            leader_epoch: Term(0),
        };
        out.resize(start + header.padded_bytes(), 0);
        assert!(out.len() - start <= bound, "the estimate is an upper bound");
        header.write(&mut out[start..], seal.topic, seal.partition);
        self.clear();
        Ok(header)
    }

    fn is_wide(&self, min_us: u64, max_us: u64) -> bool {
        max_us.saturating_sub(min_us) > u64::from(u32::MAX)
    }

    /// What sealing would take if `record` were in as well.
    fn estimate_with(&self, record: &RecordRef<'_>) -> usize {
        let min_us = self.min_timestamp_us.min(record.timestamp_us);
        let max_us = self.max_timestamp_us.max(record.timestamp_us);
        let wide = self.is_wide(min_us, max_us);
        self.columns.estimate_with(self.timestamps_us.len() + 1, wide, record).saturating_add(FIXED_BYTES)
    }

    /// The minimum is known only now, so the deltas are taken here, in one pass. Whether they are wide.
    fn fill_timestamp_deltas(&mut self) -> bool {
        let base_us = self.min_timestamp_us;
        let deltas = self.timestamps_us.iter().map(|us| us - base_us);
        let wide = self.is_wide(base_us, self.max_timestamp_us);
        // A seal that failed has left its deltas behind.
        self.columns.wide_timestamp_delta.clear();
        self.columns.timestamp_delta.clear();
        if wide {
            self.columns.wide_timestamp_delta.extend(deltas);
        } else {
            // The range is at most `u32::MAX`, so nothing is cut off.
            self.columns.timestamp_delta.extend(deltas.map(|delta| delta as u32));
        }
        wide
    }

    /// Appends the body behind the header that `out` ends with.
    fn write_body(&mut self, codec: Codec, out: &mut AlignedVec<16>) -> Result<Body, BatchError> {
        let start = out.len();
        if codec == Codec::None {
            let root = serialize(&self.columns, out)?;
            let uncompressed_bytes = to_u32(out.len() - start);
            return Ok(Body { codec, uncompressed_bytes, root_position: to_u32(root - start) });
        }
        self.plain.clear();
        let root = serialize(&self.columns, &mut self.plain)?;
        let codec = self.compressor.compress(codec, &self.plain, out)?;
        Ok(Body { codec, uncompressed_bytes: to_u32(self.plain.len()), root_position: to_u32(root) })
    }
}

/// A body that was just written.
struct Body {
    codec: Codec,
    uncompressed_bytes: u32,
    root_position: u32,
}

/// Appends the archive to `out`, which must end on a 16-byte boundary; the position of the root in `out`. Nothing
/// needs rkyv's allocator: every column is copied as it is.
fn serialize(columns: &Columns, out: &mut AlignedVec<16>) -> Result<usize, BatchError> {
    let mut serializer = Serializer::new(out, SubAllocator::empty(), ());
    rkyv::api::serialize_using::<_, Failure>(columns, &mut serializer).map_err(|Failure| BatchError::Archive)
}

fn to_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a batch is limited to 16 MiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where every buffer of the builder and of its output lies: a buffer that grows moves.
    fn addresses(builder: &BatchBuilder, out: &AlignedVec<16>) -> [usize; 9] {
        let columns = &builder.columns;
        [
            builder.timestamps_us.as_ptr().addr(),
            columns.timestamp_delta.as_ptr().addr(),
            columns.wide_timestamp_delta.as_ptr().addr(),
            columns.key_end.as_ptr().addr(),
            columns.value_end.as_ptr().addr(),
            columns.header_end.as_ptr().addr(),
            columns.key_null.as_ptr().addr(),
            columns.bytes.as_ptr().addr(),
            out.as_ptr().addr(),
        ]
    }

    #[test]
    fn after_warm_up_nothing_is_allocated() {
        let mut builder = BatchBuilder::new(10_000);
        let mut out = AlignedVec::new();
        let mut warm = None;
        for round in 0..20_u64 {
            out.clear();
            for i in 0..50 {
                let key = (i % 3 > 0).then_some(&b"key"[..]);
                let headers: &[(&str, &[u8])] = if i % 10 == 0 { &[("name", b"value")] } else { &[] };
                // Every other batch has wide timestamps, and the first two rounds warm up both kinds.
                let spread_us = if round % 2 == 0 { u64::from(u32::MAX) } else { 0 };
                let timestamp_us = if i == 0 { 0 } else { spread_us + i };
                let record = RecordRef { key, value: Some(b"some value"), timestamp_us, headers };
                builder.push(record).expect("10 kB are enough");
            }
            builder.seal(&Seal::default(), &mut out).expect("there are records");
            let now = addresses(&builder, &out);
            if round >= 2 {
                assert_eq!(*warm.get_or_insert(now), now, "round {round}");
            }
        }
    }
}
