//! The bytes of a frame: its header, its entries' headers, and the sums over them. FORMAT.md has the tables.
//!
//! **Invariant:** pure functions over bytes. Decoding never panics, whatever the bytes are; a header that
//! decodes is within bounds, so that arithmetic on it cannot overflow.

use corelog_model::crc::crc32c;
use corelog_model::limits::{BATCH_ALIGN, FRAME_ALIGN, MAX_BATCH_BYTES_LIMIT, round_up};
use corelog_model::{GroupId, LogId, Term};

/// Bytes before the first entry.
pub const FRAME_HEADER_BYTES: usize = 128;
/// Bytes before every payload.
pub const ENTRY_HEADER_BYTES: usize = 32;
/// The first four bytes of a frame, little-endian: "CLF1".
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"CLF1");
/// The version of frame and entry headers.
pub const FRAME_VERSION: u8 = 1;
/// How much of a batch the entry CRC covers: its header and what of a Kafka body its own CRC leaves out.
pub const ENTRY_COVERS_BYTES: usize = 128;
/// Largest frame that decodes.
pub(crate) const FRAME_BYTES_LIMIT: usize =
    round_up(MAX_BATCH_BYTES_LIMIT + FRAME_HEADER_BYTES + ENTRY_HEADER_BYTES, FRAME_ALIGN);

/// Sequences, generations and versions that decode are below it: no log lives to see one overflow.
pub(crate) const RISING_LIMIT: u64 = 1 << 56;

/// Flag: the first frame of its extent; the sealed_* fields close the previous one.
pub const FLAG_FIRST: u8 = 1;
/// Flag: the first frame of a start, durable before the log is ready.
pub const FLAG_START: u8 = 2;
/// Flag: holds nothing and proves its predecessors durable.
pub const FLAG_BEACON: u8 = 4;

/// Flag: of a pack, not of the log's own sequence.
pub const FLAG_PACK: u8 = 8;

/// What an entry is. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// Records, as the producer sealed them.
    Batch = 1,
    /// Nothing; raises a group's index.
    Noop = 2,
    /// Term, vote and commit of a replicated group.
    HardState = 3,
    /// Members of a replicated group.
    Configuration = 4,
    /// Entries of the group from an index on are void.
    TruncateFrom = 5,
    /// A snapshot of the group stands here.
    SnapshotMark = 6,
    /// A piece of a checkpoint; the log's own.
    Checkpoint = 7,
    /// Topics, configurations, producer-id ranges, groups opened and dropped.
    Metadata = 8,
    /// A committed position.
    Position = 9,
    /// Proves nothing but its predecessors; reserved, a beacon is a frame without entries.
    Beacon = 10,
    /// A piece of an earlier extent's index; the log's own.
    Footer = 11,
    /// The group's records below an offset are gone.
    Trim = 12,
    /// Offsets whose loss an operator has accepted; the log's own.
    AcceptedLoss = 13,
}

impl EntryKind {
    /// The kind with this number, or `None`: the byte came from outside.
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Batch,
            2 => Self::Noop,
            3 => Self::HardState,
            4 => Self::Configuration,
            5 => Self::TruncateFrom,
            6 => Self::SnapshotMark,
            7 => Self::Checkpoint,
            8 => Self::Metadata,
            9 => Self::Position,
            10 => Self::Beacon,
            11 => Self::Footer,
            12 => Self::Trim,
            13 => Self::AcceptedLoss,
            _ => return None,
        })
    }

    /// Whether the entry is about the log itself and never shown to the log's owner.
    pub const fn is_internal(self) -> bool {
        matches!(self, Self::Checkpoint | Self::Footer | Self::Beacon | Self::AcceptedLoss)
    }
}

/// How the first frame of an extent closes the one before it: what lies beyond `position` is void for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// Generation of the closed extent; 0 for the first extent of a log.
    pub generation: u64,
    /// Its end, bytes.
    pub position: u64,
    /// Sequence of its last frame.
    pub sequence: u64,
    /// Its number.
    pub extent: u32,
}

/// A frame header, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// CRC over the header, seeded with where it belongs.
    pub crc: u32,
    /// `FLAG_*`.
    pub flags: u8,
    /// The log.
    pub log: LogId,
    /// Entries in the frame.
    pub entries: u32,
    /// Of the extent's present use; never the same twice in a log.
    pub generation: u64,
    /// Rises by one from frame to frame; may skip at the first frame of an extent.
    pub sequence: u64,
    /// Where the frame starts in its extent, bytes.
    pub position: u64,
    /// The whole frame, padding included, bytes.
    pub length: u32,
    /// Header and entries without padding, bytes.
    pub used: u32,
    /// Every frame up to this sequence was durable when this one was written.
    pub durable_sequence: u64,
    /// Frames beyond `durable_sequence` that could be under way at once from here on.
    pub in_flight_limit: u16,
    /// Of the log when the frame was written.
    pub term: Term,
    /// Header CRC of the frame before it in the log.
    pub previous_crc: u32,
    /// CRC over the CRCs of the entries, in order.
    pub entries_crc: u32,
    /// When it was cut, microseconds since the Unix epoch.
    pub wall_us: u64,
    /// Of the previous extent, in a first frame.
    pub seal: Seal,
}

/// Where a frame belongs: the seed of its header's CRC, so that a stale or misdirected frame never verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSeed {
    /// The store's random number.
    pub store: u64,
    /// The log.
    pub log: LogId,
}

impl FrameSeed {
    fn header(self, generation: u64, position: u64) -> u32 {
        let mut seed = [0; 26];
        seed[0..8].copy_from_slice(&self.store.to_le_bytes());
        seed[8..10].copy_from_slice(&self.log.0.to_le_bytes());
        seed[10..18].copy_from_slice(&generation.to_le_bytes());
        seed[18..26].copy_from_slice(&position.to_le_bytes());
        crc32c(0, &seed)
    }

    /// The seed of the entries of one frame. Independent of the place, so that a frame can be moved whole.
    pub(crate) fn entries(self, sequence: u64) -> u32 {
        let mut seed = [0; 18];
        seed[0..8].copy_from_slice(&self.store.to_le_bytes());
        seed[8..10].copy_from_slice(&self.log.0.to_le_bytes());
        seed[10..18].copy_from_slice(&sequence.to_le_bytes());
        crc32c(0, &seed)
    }
}

/// Reads a little-endian field; the caller has checked the length once for the whole structure.
macro_rules! field {
    ($bytes:expr, $at:expr, $kind:ty) => {
        <$kind>::from_le_bytes(
            $bytes[$at..$at + size_of::<$kind>()].try_into().expect("the width is the type's"),
        )
    };
}
pub(crate) use field;

impl FrameHeader {
    /// Reads the header at `position` of an extent in the generation it claims; `None` when it does not verify.
    pub fn decode(bytes: &[u8], seed: FrameSeed, position: u64) -> Option<Self> {
        let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
        if field!(bytes, 0, u32) != FRAME_MAGIC || bytes[8] != FRAME_VERSION {
            return None;
        }
        let header = Self {
            crc: field!(bytes, 4, u32),
            flags: bytes[9],
            log: LogId(field!(bytes, 10, u16)),
            entries: field!(bytes, 12, u32),
            generation: field!(bytes, 16, u64),
            sequence: field!(bytes, 24, u64),
            position: field!(bytes, 32, u64),
            length: field!(bytes, 40, u32),
            used: field!(bytes, 44, u32),
            durable_sequence: field!(bytes, 48, u64),
            in_flight_limit: field!(bytes, 56, u16),
            term: Term(field!(bytes, 60, u32)),
            previous_crc: field!(bytes, 64, u32),
            entries_crc: field!(bytes, 68, u32),
            wall_us: field!(bytes, 72, u64),
            seal: Seal {
                generation: field!(bytes, 80, u64),
                position: field!(bytes, 88, u64),
                sequence: field!(bytes, 96, u64),
                extent: field!(bytes, 104, u32),
            },
        };
        let sum = crc32c(seed.header(header.generation, position), &bytes[8..]);
        (sum == header.crc && header.is_sound(seed.log, position)).then_some(header)
    }

    fn is_sound(&self, log: LogId, position: u64) -> bool {
        let (length, used) = (self.length as usize, self.used as usize);
        self.log == log
            && self.position == position
            && length.is_multiple_of(FRAME_ALIGN)
            && (FRAME_ALIGN..=FRAME_BYTES_LIMIT).contains(&length)
            && (FRAME_HEADER_BYTES..=length).contains(&used)
            && length - used < FRAME_ALIGN
            && self.durable_sequence < self.sequence
            && self.sequence < RISING_LIMIT
            && self.generation < RISING_LIMIT
            && self.seal.generation < self.generation
            && self.term < Term(u32::MAX)
            && position < 1 << 40
    }

    /// Writes the header and gives back its CRC, which the next frame carries.
    pub(crate) fn encode(&self, seed: FrameSeed, out: &mut [u8]) -> u32 {
        let out = &mut out[..FRAME_HEADER_BYTES];
        out.fill(0);
        out[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        out[8] = FRAME_VERSION;
        out[9] = self.flags;
        out[10..12].copy_from_slice(&self.log.0.to_le_bytes());
        out[12..16].copy_from_slice(&self.entries.to_le_bytes());
        out[16..24].copy_from_slice(&self.generation.to_le_bytes());
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        out[32..40].copy_from_slice(&self.position.to_le_bytes());
        out[40..44].copy_from_slice(&self.length.to_le_bytes());
        out[44..48].copy_from_slice(&self.used.to_le_bytes());
        out[48..56].copy_from_slice(&self.durable_sequence.to_le_bytes());
        out[56..58].copy_from_slice(&self.in_flight_limit.to_le_bytes());
        out[60..64].copy_from_slice(&self.term.0.to_le_bytes());
        out[64..68].copy_from_slice(&self.previous_crc.to_le_bytes());
        out[68..72].copy_from_slice(&self.entries_crc.to_le_bytes());
        out[72..80].copy_from_slice(&self.wall_us.to_le_bytes());
        out[80..88].copy_from_slice(&self.seal.generation.to_le_bytes());
        out[88..96].copy_from_slice(&self.seal.position.to_le_bytes());
        out[96..104].copy_from_slice(&self.seal.sequence.to_le_bytes());
        out[104..108].copy_from_slice(&self.seal.extent.to_le_bytes());
        let crc = crc32c(seed.header(self.generation, self.position), &out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Whether the frame carries `flag`.
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// An entry header, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// What the payload is.
    pub kind: EntryKind,
    /// Whose entry it is.
    pub group: GroupId,
    /// Dense per group, from 1.
    pub index: u64,
    /// In which term it was appended.
    pub term: Term,
    /// Payload bytes; the payload takes a multiple of 16.
    pub length: u32,
}

impl EntryHeader {
    /// Reads the header at the start of `bytes`, and its CRC; bounds its payload to `bytes` and checks no sum.
    pub fn parse(bytes: &[u8]) -> Option<(Self, u32)> {
        let head: &[u8; ENTRY_HEADER_BYTES] = bytes.first_chunk()?;
        let header = Self {
            kind: EntryKind::from_u8(head[5])?,
            group: GroupId(field!(head, 8, u64)),
            index: field!(head, 16, u64),
            term: Term(field!(head, 24, u32)),
            length: field!(head, 28, u32),
        };
        let fits = (header.length as usize) <= MAX_BATCH_BYTES_LIMIT && head[4] == FRAME_VERSION;
        (fits && header.total_bytes() <= bytes.len()).then_some((header, field!(head, 0, u32)))
    }

    /// Whether the entry at the start of `bytes`, of the frame with this sequence, is what was written. A batch's body is
    /// not looked at.
    pub fn verifies(bytes: &[u8], seed: FrameSeed, sequence: u64) -> bool {
        Self::decode(bytes, seed.entries(sequence)).is_some()
    }

    /// Reads and verifies the entry at the start of `bytes`. A batch's body is not looked at.
    pub(crate) fn decode(bytes: &[u8], entry_seed: u32) -> Option<(Self, u32)> {
        let (header, crc) = Self::parse(bytes)?;
        (entry_crc(entry_seed, header.kind, &bytes[..header.end()]) == crc).then_some((header, crc))
    }

    /// Writes the header before a payload that is already in `bytes`, and gives back the CRC.
    pub(crate) fn encode(&self, entry_seed: u32, bytes: &mut [u8]) -> u32 {
        bytes[4] = FRAME_VERSION;
        bytes[5] = self.kind as u8;
        bytes[6..8].fill(0);
        bytes[8..16].copy_from_slice(&self.group.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.index.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.term.0.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.length.to_le_bytes());
        let crc = entry_crc(entry_seed, self.kind, &bytes[..self.end()]);
        bytes[0..4].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    const fn end(&self) -> usize {
        ENTRY_HEADER_BYTES + self.length as usize
    }

    /// Header, payload and its padding, bytes.
    pub const fn total_bytes(&self) -> usize {
        ENTRY_HEADER_BYTES + round_up(self.length as usize, BATCH_ALIGN)
    }
}

/// The CRC of an entry: all of a control entry, and of a batch what the batch's own CRC does not cover.
fn entry_crc(seed: u32, kind: EntryKind, entry: &[u8]) -> u32 {
    let covered = match kind {
        EntryKind::Batch => entry.len().min(ENTRY_HEADER_BYTES + ENTRY_COVERS_BYTES),
        _ => entry.len(),
    };
    crc32c(seed, &entry[4..covered])
}

/// Adds an entry's CRC to the sum the frame header carries.
pub(crate) fn chain(entries_crc: u32, crc: u32) -> u32 {
    crc32c(entries_crc, &crc.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: FrameSeed = FrameSeed { store: 0xA5, log: LogId(3) };

    fn header() -> FrameHeader {
        FrameHeader {
            crc: 0,
            flags: FLAG_FIRST,
            log: LogId(3),
            entries: 2,
            generation: 9,
            sequence: 77,
            position: 8192,
            length: 4096,
            used: 1000,
            durable_sequence: 70,
            in_flight_limit: 4,
            term: Term(5),
            previous_crc: 1,
            entries_crc: 2,
            wall_us: 3,
            seal: Seal { generation: 8, position: 4096, sequence: 70, extent: 1 },
        }
    }

    fn encoded() -> (FrameHeader, [u8; FRAME_HEADER_BYTES]) {
        let mut bytes = [0xFF; FRAME_HEADER_BYTES];
        let mut header = header();
        header.crc = header.encode(SEED, &mut bytes);
        (header, bytes)
    }

    #[test]
    fn a_header_is_read_back_only_where_it_belongs() {
        let (header, bytes) = encoded();
        assert_eq!(FrameHeader::decode(&bytes, SEED, 8192), Some(header));
        assert_eq!(FrameHeader::decode(&bytes, SEED, 4096), None, "misdirected");
        assert_eq!(
            FrameHeader::decode(&bytes, FrameSeed { store: 0xA6, ..SEED }, 8192),
            None,
            "another store"
        );
        assert_eq!(
            FrameHeader::decode(&bytes, FrameSeed { log: LogId(4), ..SEED }, 8192),
            None,
            "another log"
        );
        assert_eq!(FrameHeader::decode(&bytes[..127], SEED, 8192), None, "cut short");
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let (_, bytes) = encoded();
        for bit in 0..FRAME_HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&damaged, SEED, 8192), None, "bit {bit}");
        }
    }

    #[test]
    fn a_control_entry_is_covered_whole() {
        let header =
            EntryHeader { kind: EntryKind::Metadata, group: GroupId(1), index: 4, term: Term(2), length: 21 };
        let mut bytes = vec![0; header.total_bytes()];
        bytes[ENTRY_HEADER_BYTES..][..21].copy_from_slice(b"twenty-one byte cargo");
        let crc = header.encode(7, &mut bytes);
        assert_eq!(EntryHeader::decode(&bytes, 7), Some((header, crc)));
        assert_eq!(EntryHeader::decode(&bytes, 8), None, "of another frame");
        for at in 0..ENTRY_HEADER_BYTES + 21 {
            // Flags are reserved and still covered.
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(EntryHeader::decode(&damaged, 7), None, "byte {at}");
        }
    }

    #[test]
    fn an_entry_that_claims_more_than_there_is_does_not_decode() {
        let header =
            EntryHeader { kind: EntryKind::Noop, group: GroupId(1), index: 1, term: Term(1), length: 64 };
        let mut bytes = vec![0; header.total_bytes()];
        header.encode(0, &mut bytes);
        assert!(EntryHeader::decode(&bytes, 0).is_some());
        assert!(EntryHeader::decode(&bytes[..bytes.len() - 1], 0).is_none());
        bytes[28..32].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(EntryHeader::decode(&bytes, 0).is_none());
    }
}
