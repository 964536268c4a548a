//! Building a batch: keys and values are written where they stay, the other columns beside them;
//! [`BatchBuilder::seal`] puts everything together once.
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
use super::open::OpenBuffer;
use super::timestamps::Timestamps;
use crate::crc::crc32c;
use crate::id::{ProducerId, Term, TopicId};
use crate::limits::{MAX_BATCH_BYTES_LIMIT, MAX_RECORDS_PER_BATCH};

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
    open: OpenBuffer,
    columns: Columns,
    timestamps: Timestamps,
    count: usize,
    compressor: Compressor,
}

impl BatchBuilder {
    /// A builder of batches of at most `max_bytes`, header and padding included.
    pub fn new(max_bytes: usize) -> Self {
        let max_bytes = max_bytes.min(MAX_BATCH_BYTES_LIMIT);
        Self {
            max_bytes,
            open: OpenBuffer::new(max_bytes),
            columns: Columns::default(),
            timestamps: Timestamps::default(),
            count: 0,
            compressor: Compressor::default(),
        }
    }

    /// Takes a copy of the record, or says why not.
    #[inline]
    pub fn push(&mut self, record: RecordRef<'_>) -> Result<(), Full> {
        let value = record.value.unwrap_or_default();
        let length = record.value.map(<[u8]>::len);
        self.take(&record, length, |place| place.copy_from_slice(value))
    }

    /// Takes the record with a value of `value_bytes` bytes that `write` makes where it stays, every byte of it: what
    /// was there before is anything. `record.value` is not looked at; `write` runs only if there is room.
    #[inline]
    pub fn push_with(
        &mut self,
        record: &RecordRef<'_>,
        value_bytes: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), Full> {
        self.take(record, Some(value_bytes), write)
    }

    #[inline]
    fn take(
        &mut self,
        record: &RecordRef<'_>,
        value: Option<usize>,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), Full> {
        let (count, bytes) = (self.count + 1, value.unwrap_or(0));
        if !self.columns.fit_surely(count, record, bytes, self.max_bytes.saturating_sub(FIXED_BYTES)) {
            self.fit(record, bytes)?;
        }
        self.columns.push(self.count, record, value, write, &mut self.open);
        self.timestamps.push(record.timestamp_us);
        self.count = count;
        Ok(())
    }

    /// Whether the record fits, to the byte; asked only where a rough bound does not decide.
    #[cold]
    fn fit(&self, record: &RecordRef<'_>, value_bytes: usize) -> Result<(), Full> {
        let wide = self.timestamps.is_wide_with(record.timestamp_us);
        let columns = self.columns.estimate_with(self.count + 1, wide, record, value_bytes);
        let bytes = columns.saturating_add(FIXED_BYTES);
        if bytes <= self.max_bytes && self.count < MAX_RECORDS_PER_BATCH {
            return Ok(());
        }
        if self.count == 0 {
            Err(Full::Record { bytes, max_bytes: self.max_bytes })
        } else {
            Err(Full::Batch)
        }
    }

    /// Records taken since the last seal.
    pub fn record_count(&self) -> usize {
        self.count
    }

    /// Whether nothing was taken since the last seal.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// An upper bound, close by, of what sealing now would make, in bytes.
    pub fn estimated_bytes(&self) -> usize {
        self.columns.estimate(self.count, self.timestamps.is_wide()) + FIXED_BYTES
    }

    /// Forgets the records, keeps the memory.
    pub fn clear(&mut self) {
        self.columns.clear();
        self.timestamps.clear();
        self.count = 0;
    }

    /// Makes the batch, padded, and empties the builder. `out` is replaced by it, and its memory is what the builder
    /// collects the next records in: nothing is copied. Offsets, append time and leader epoch are the broker's to
    /// patch and zero until then. On an error the builder is as before, and `out` anything.
    pub fn seal(&mut self, seal: &Seal, out: &mut AlignedVec<16>) -> Result<BatchHeader, BatchError> {
        if self.is_empty() {
            return Err(BatchError::Empty);
        }
        let bound = self.estimated_bytes();
        let wide = self.timestamps.finish(&mut self.columns);
        self.columns.finish(self.count);
        let body = self.write_body(seal.codec, bound, out)?;
        let count = u32::try_from(self.count).expect("the count is limited");
        let header = BatchHeader {
            format: BodyFormat::Columns,
            codec: body.codec,
            flags: if wide { FLAG_WIDE_TIMESTAMPS } else { 0 },
            schema_version: SCHEMA_VERSION,
            body_crc: crc32c(0, &out[BATCH_HEADER_BYTES..]),
            body_bytes: to_u32(out.len() - BATCH_HEADER_BYTES),
            uncompressed_bytes: body.uncompressed_bytes,
            record_count: count,
            last_offset_delta: count - 1,
            root_position: body.root_position,
            base_offset: 0,
            base_timestamp_us: self.timestamps.min_us(),
            max_timestamp_us: self.timestamps.max_us(),
            append_timestamp_us: 0,
            producer_id: seal.producer_id,
            producer_epoch: seal.producer_epoch,
            base_sequence: seal.base_sequence,
            leader_epoch: Term(0),
        };
        out.resize(header.padded_bytes(), 0);
        assert!(out.len() <= bound, "the estimate is an upper bound");
        header.write(out, seal.topic, seal.partition);
        self.clear();
        Ok(header)
    }

    /// Replaces `out` by room for the header and the body, not padded; at most `bound` bytes.
    fn write_body(
        &mut self,
        codec: Codec,
        bound: usize,
        out: &mut AlignedVec<16>,
    ) -> Result<Body, BatchError> {
        let open = self.open.cut(self.columns.bytes.bytes, bound);
        let root = serialize(&self.columns, open)?;
        let uncompressed_bytes = to_u32(open.len() - OpenBuffer::BODY);
        let root_position = to_u32(root - OpenBuffer::BODY);
        let mut stored = Codec::None;
        if codec == Codec::None {
            self.open.hand_over(out);
        } else {
            out.resize(BATCH_HEADER_BYTES, 0);
            stored = self.compressor.compress(codec, &open[OpenBuffer::BODY..], out)?;
        }
        Ok(Body { codec: stored, uncompressed_bytes, root_position })
    }
}

/// A body that was just written.
struct Body {
    codec: Codec,
    uncompressed_bytes: u32,
    root_position: u32,
}

/// Appends the columns but the bytes, which are there, and the root; the position of the root in `out`. Nothing
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
    fn addresses(builder: &BatchBuilder) -> [usize; 6] {
        let columns = &builder.columns;
        [
            columns.timestamp_delta.as_ptr().addr(),
            columns.wide_timestamp_delta.as_ptr().addr(),
            columns.key_end.as_ptr().addr(),
            columns.value_end.as_ptr().addr(),
            columns.header_end.as_ptr().addr(),
            columns.key_null.as_ptr().addr(),
        ]
    }

    #[test]
    fn after_warm_up_nothing_is_allocated() {
        let mut builder = BatchBuilder::new(10_000);
        let mut out = AlignedVec::new();
        let mut warm = None;
        for round in 0..20_u64 {
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
            let now = (addresses(&builder), out.capacity());
            if round >= 2 {
                assert_eq!(*warm.get_or_insert(now), now, "round {round}");
            }
        }
    }

    #[test]
    fn a_full_batch_is_handed_over_where_its_records_were_written() {
        let max_bytes = 128 << 10;
        let mut builder = BatchBuilder::new(max_bytes);
        let mut outs: Vec<AlignedVec<16>> = (0..3).map(|_| AlignedVec::new()).collect();
        for round in 0..20 {
            let most = if round % 5 == 0 { 45 } else { usize::MAX };
            let mut last = 0;
            while builder.record_count() < most {
                let write = |place: &mut [u8]| last = place.as_ptr().addr();
                if builder.push_with(&RecordRef::default(), 1_000, write).is_err() {
                    break;
                }
            }
            let out = &mut outs[round % 3];
            builder.seal(&Seal::default(), out).expect("there are records");
            let range = out.as_ptr().addr()..out.as_ptr().addr() + out.len();
            assert!(most < usize::MAX || range.contains(&last), "round {round}: the batch was copied");
            assert!(out.capacity() <= max_bytes, "round {round}: {} bytes held", out.capacity());
        }
    }
}
