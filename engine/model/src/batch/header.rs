//! The 96 bytes before every body: all that a broker reads, checks and patches.
//!
//! The layout is an rkyv archive without pointers at position 0, so its offsets are those of the archived type;
//! `BATCH.md` lists them for other languages and a test compares. **Invariant:** nothing here reads the body,
//! [`BatchHeader::verify_body`] alone excepted.

use std::mem::{offset_of, size_of};

use rkyv::rancor::Failure;
use rkyv::util::Align;
use rkyv::{Archive, Serialize};

use super::codec::Codec;
use super::error::BatchError;
use crate::crc::crc32c;
use crate::id::{ProducerId, Term, TopicId};
use crate::limits::{BATCH_ALIGN, MAX_BATCH_BYTES_LIMIT, MAX_RECORDS_PER_BATCH, round_up};

/// Bytes of the header; the body follows at once.
pub const BATCH_HEADER_BYTES: usize = 96;
/// The first four bytes of a batch, little-endian: "CLB1".
pub const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"CLB1");
/// The schema of the columns that this version writes.
pub const SCHEMA_VERSION: u16 = 1;
/// Flag: the timestamp deltas are 64 bits wide.
pub const FLAG_WIDE_TIMESTAMPS: u16 = 1;
/// Flags that change how the body is read and that this version does not know.
pub(super) const UNREADABLE_FLAGS: u16 = 0x00FF & !FLAG_WIDE_TIMESTAMPS;

/// The header CRC starts after the magic number and itself.
const CRC_START: usize = 8;
/// Kafka's batch header is mutable up to and including its own CRC; the header CRC covers these bytes instead.
const KAFKA_V2_PREFIX: usize = 21;
/// The fixed part of Kafka's RecordBatch v2.
const KAFKA_V2_MIN_BODY: usize = 61;
const MAX_BODY_BYTES: usize = MAX_BATCH_BYTES_LIMIT - BATCH_HEADER_BYTES;

/// The header as it lies in memory; the archived form is the format.
#[derive(Archive, Serialize)]
pub(super) struct Layout {
    pub(super) magic: u32,
    pub(super) header_crc: u32,
    pub(super) format: u8,
    pub(super) codec: u8,
    pub(super) flags: u16,
    pub(super) schema_version: u16,
    pub(super) producer_epoch: u16,
    pub(super) body_crc: u32,
    pub(super) body_bytes: u32,
    pub(super) uncompressed_bytes: u32,
    pub(super) record_count: u32,
    pub(super) last_offset_delta: u32,
    pub(super) root_position: u32,
    pub(super) base_offset: u64,
    pub(super) base_timestamp_us: u64,
    pub(super) max_timestamp_us: u64,
    pub(super) append_timestamp_us: u64,
    pub(super) producer_id: u64,
    pub(super) base_sequence: u32,
    pub(super) leader_epoch: u32,
    pub(super) reserved: u64,
}

const _: () = assert!(size_of::<ArchivedLayout>() == BATCH_HEADER_BYTES);
const _: () = assert!(BATCH_HEADER_BYTES.is_multiple_of(BATCH_ALIGN), "an aligned batch has an aligned body");

/// Byte offsets of the fields that are touched one by one.
const HEADER_CRC_AT: usize = offset_of!(ArchivedLayout, header_crc);
const FORMAT_AT: usize = offset_of!(ArchivedLayout, format);
const BASE_OFFSET_AT: usize = offset_of!(ArchivedLayout, base_offset);
const APPEND_TIMESTAMP_AT: usize = offset_of!(ArchivedLayout, append_timestamp_us);
const LEADER_EPOCH_AT: usize = offset_of!(ArchivedLayout, leader_epoch);

/// What the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BodyFormat {
    /// One rkyv archive of columns.
    Columns = 1,
    /// A Kafka RecordBatch v2, verbatim; compressed inside or not at all.
    KafkaV2 = 2,
}

impl BodyFormat {
    /// The format with this number, or `None`: the byte came from outside.
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Columns),
            2 => Some(Self::KafkaV2),
            _ => None,
        }
    }

    /// Leading bytes of the body that the header CRC covers and the body CRC does not.
    const fn mutable_prefix(self) -> usize {
        match self {
            Self::Columns => 0,
            Self::KafkaV2 => KAFKA_V2_PREFIX,
        }
    }
}

/// The header, read. Lengths are in bytes, timestamps in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// What the body is.
    pub format: BodyFormat,
    /// How the body is compressed as a whole.
    pub codec: Codec,
    /// Bits 0..8 change how the body is read, bits 8..16 may be ignored.
    pub flags: u16,
    /// Which columns the body has; the broker does not care.
    pub schema_version: u16,
    /// CRC-32C of the body as stored (of what follows byte 21 for Kafka bodies).
    pub body_crc: u32,
    /// The body as stored, without the padding behind it.
    pub body_bytes: u32,
    /// The body after decompression; equal to `body_bytes` without a codec.
    pub uncompressed_bytes: u32,
    /// Records in the batch, at least 1.
    pub record_count: u32,
    /// Last offset less the first; larger than `record_count - 1` only after compaction.
    pub last_offset_delta: u32,
    /// Where the archive's root lies in the decompressed body.
    pub root_position: u32,
    /// Offset of the first record; the broker's.
    pub base_offset: u64,
    /// The smallest timestamp.
    pub base_timestamp_us: u64,
    /// The largest timestamp.
    pub max_timestamp_us: u64,
    /// When the batch was appended, never before its predecessor; the broker's.
    pub append_timestamp_us: u64,
    /// Who wrote it, for deduplication.
    pub producer_id: ProducerId,
    /// Which incarnation of the producer wrote it.
    pub producer_epoch: u16,
    /// Sequence number of the first record in its (producer, partition) stream.
    pub base_sequence: u32,
    /// The term in which it was appended; the broker's.
    pub leader_epoch: Term,
}

/// What the broker decides about a batch and writes into its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Offset of the first record.
    pub base_offset: u64,
    /// Append time, microseconds since the Unix epoch.
    pub append_timestamp_us: u64,
    /// The term of the log.
    pub leader_epoch: Term,
}

impl BatchHeader {
    /// Reads and bounds the header at the start of `bytes`; whatever its CRC, every length and count in the
    /// result is within the limits and offsets do not overflow. Touches 96 bytes, of any alignment.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let bytes: &[u8; BATCH_HEADER_BYTES] = bytes.first_chunk().ok_or(BatchError::Truncated)?;
        let aligned = Align(*bytes);
        let layout = rkyv::api::low::access_pos::<ArchivedLayout, Failure>(&aligned[..], 0)
            .map_err(|Failure| BatchError::Truncated)?;
        if layout.magic != BATCH_MAGIC {
            return Err(BatchError::Magic);
        }
        let header = Self {
            format: BodyFormat::from_u8(layout.format).ok_or(BatchError::Format(layout.format))?,
            codec: Codec::from_u8(layout.codec).ok_or(BatchError::Codec(layout.codec))?,
            flags: layout.flags.to_native(),
            schema_version: layout.schema_version.to_native(),
            body_crc: layout.body_crc.to_native(),
            body_bytes: layout.body_bytes.to_native(),
            uncompressed_bytes: layout.uncompressed_bytes.to_native(),
            record_count: layout.record_count.to_native(),
            last_offset_delta: layout.last_offset_delta.to_native(),
            root_position: layout.root_position.to_native(),
            base_offset: layout.base_offset.to_native(),
            base_timestamp_us: layout.base_timestamp_us.to_native(),
            max_timestamp_us: layout.max_timestamp_us.to_native(),
            append_timestamp_us: layout.append_timestamp_us.to_native(),
            producer_id: ProducerId(layout.producer_id.to_native()),
            producer_epoch: layout.producer_epoch.to_native(),
            base_sequence: layout.base_sequence.to_native(),
            leader_epoch: Term(layout.leader_epoch.to_native()),
        };
        header.check()?;
        Ok(header)
    }

    /// Whether the fields are within the limits and do not contradict each other.
    fn check(&self) -> Result<(), BatchError> {
        let (stored, plain) = (self.body_bytes as usize, self.uncompressed_bytes as usize);
        if stored == 0 || stored > MAX_BODY_BYTES || plain > MAX_BODY_BYTES {
            return Err(BatchError::Length);
        }
        if self.codec == Codec::None && stored != plain {
            return Err(BatchError::Length);
        }
        if self.root_position >= self.uncompressed_bytes {
            return Err(BatchError::Length);
        }
        if self.format == BodyFormat::KafkaV2 {
            if self.codec != Codec::None {
                return Err(BatchError::Codec(self.codec as u8));
            }
            if stored < KAFKA_V2_MIN_BODY {
                return Err(BatchError::Length);
            }
        }
        if self.record_count == 0 || self.record_count as usize > MAX_RECORDS_PER_BATCH {
            return Err(BatchError::Count);
        }
        if self.last_offset_delta < self.record_count - 1 {
            return Err(BatchError::Offsets);
        }
        // `next_offset` must exist as well.
        if self.base_offset.checked_add(u64::from(self.last_offset_delta) + 1).is_none() {
            return Err(BatchError::Offsets);
        }
        if self.base_timestamp_us > self.max_timestamp_us {
            return Err(BatchError::Timestamps);
        }
        Ok(())
    }

    /// Whether the header CRC of the batch at the start of `bytes` holds for this topic and partition: false for
    /// damage, and for a batch sealed for somebody else. For Kafka bodies it covers their first 21 bytes too.
    pub fn verify_header(bytes: &[u8], topic: TopicId, partition: u32) -> bool {
        let stored =
            bytes.get(HEADER_CRC_AT..).and_then(<[u8]>::first_chunk).map(|crc| u32::from_le_bytes(*crc));
        stored.is_some() && stored == header_crc(bytes, topic, partition)
    }

    /// Whether the body behind this header is undamaged. `bytes` is the whole batch, padded or not.
    pub fn verify_body(&self, bytes: &[u8]) -> bool {
        let from = BATCH_HEADER_BYTES + self.format.mutable_prefix();
        bytes.get(from..self.batch_bytes()).is_some_and(|body| crc32c(0, body) == self.body_crc)
    }

    /// Header and body, in bytes, without padding.
    pub const fn batch_bytes(&self) -> usize {
        BATCH_HEADER_BYTES + self.body_bytes as usize
    }

    /// What the batch takes on disk and wire: [`Self::batch_bytes`] rounded up to [`BATCH_ALIGN`].
    pub const fn padded_bytes(&self) -> usize {
        round_up(self.batch_bytes(), BATCH_ALIGN)
    }

    /// Offset of the last record.
    pub const fn last_offset(&self) -> u64 {
        self.base_offset + self.last_offset_delta as u64
    }

    /// Offset after the last record.
    pub const fn next_offset(&self) -> u64 {
        self.last_offset() + 1
    }

    /// Writes the broker's decisions into the batch at the start of `bytes` and redoes the header CRC. Touches
    /// the 96 bytes only (and reads the first 21 of a Kafka body).
    ///
    /// # Panics
    /// When `bytes` is not a batch that [`Self::parse`] accepted: patching comes after checking.
    pub fn patch(bytes: &mut [u8], patch: &Patch, topic: TopicId, partition: u32) {
        put(bytes, BASE_OFFSET_AT, &patch.base_offset.to_le_bytes());
        put(bytes, APPEND_TIMESTAMP_AT, &patch.append_timestamp_us.to_le_bytes());
        put(bytes, LEADER_EPOCH_AT, &patch.leader_epoch.0.to_le_bytes());
        seal_header(bytes, topic, partition);
    }

    /// Writes the whole header, with its CRC, to the start of `out`. The body of a Kafka batch is already there.
    ///
    /// # Panics
    /// When `out` is shorter than a header, or than the part of a Kafka body that the header CRC covers.
    pub fn write(&self, out: &mut [u8], topic: TopicId, partition: u32) {
        let layout = Layout {
            magic: BATCH_MAGIC,
            header_crc: 0,
            format: self.format as u8,
            codec: self.codec as u8,
            flags: self.flags,
            schema_version: self.schema_version,
            producer_epoch: self.producer_epoch,
            body_crc: self.body_crc,
            body_bytes: self.body_bytes,
            uncompressed_bytes: self.uncompressed_bytes,
            record_count: self.record_count,
            last_offset_delta: self.last_offset_delta,
            root_position: self.root_position,
            base_offset: self.base_offset,
            base_timestamp_us: self.base_timestamp_us,
            max_timestamp_us: self.max_timestamp_us,
            append_timestamp_us: self.append_timestamp_us,
            producer_id: self.producer_id.0,
            base_sequence: self.base_sequence,
            leader_epoch: self.leader_epoch.0,
            reserved: 0,
        };
        let mut writer = rkyv::ser::Serializer::new(
            rkyv::ser::writer::Buffer::from(&mut out[..BATCH_HEADER_BYTES]),
            rkyv::ser::allocator::SubAllocator::empty(),
            (),
        );
        let position = rkyv::api::serialize_using::<_, Failure>(&layout, &mut writer);
        assert_eq!(position, Ok(0), "96 bytes hold the header");
        seal_header(out, topic, partition);
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn seal_header(bytes: &mut [u8], topic: TopicId, partition: u32) {
    let crc = header_crc(bytes, topic, partition).expect("a header is sealed after it was checked");
    put(bytes, HEADER_CRC_AT, &crc.to_le_bytes());
}

/// The CRC of the header at the start of `bytes`, or `None` when it is cut short. Seeded, so that a batch which
/// reaches a wrong partition, or a topic created anew under the same name, does not pass.
fn header_crc(bytes: &[u8], topic: TopicId, partition: u32) -> Option<u32> {
    let format = BodyFormat::from_u8(*bytes.get(FORMAT_AT)?);
    let prefix = format.map_or(0, BodyFormat::mutable_prefix);
    let covered = bytes.get(CRC_START..BATCH_HEADER_BYTES + prefix)?;
    let mut seed = [0; 20];
    seed[..16].copy_from_slice(&topic.0.to_le_bytes());
    seed[16..].copy_from_slice(&partition.to_le_bytes());
    Some(crc32c(crc32c(0, &seed), covered))
}
