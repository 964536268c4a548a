//! Batches on their way into a pack: verified as they come, given the sums of their new frame, never changed.
//!
//! **Invariant:** what does not verify is not copied, and neither is anything beside it: the source stays as it is, so
//! that nothing that can still be read is lost to a copy of something else.

use corelog_model::batch::BatchHeader;
use corelog_model::limits::{FRAME_ALIGN, round_up};
use corelog_model::{GroupId, LogId, Term};

use super::layout::Piece;
use super::{pack_generation, pack_sequence};
use crate::frame::{
    ENTRY_HEADER_BYTES, EntryHeader, EntryKind, FLAG_PACK, FRAME_HEADER_BYTES, FrameHeader, FrameSeed, Seal,
    chain,
};

/// The bytes of a piece do not verify, or are not what the index says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsound;

/// Copies the batches of a piece from its run, `run` and its entries under seed `from`, to its room in a frame whose entries
/// have seed `to`; how many bytes.
pub(crate) fn copy_piece(
    piece: &Piece,
    group: GroupId,
    run: &[u8],
    from: u32,
    to: u32,
    room: &mut [u8],
) -> Result<u32, Unsound> {
    let (mut position, mut used, mut next) = (0, 0, piece.first_offset);
    while position < run.len() {
        let (header, _) = EntryHeader::decode(&run[position..], from).ok_or(Unsound)?;
        let entry = &run[position..position + header.total_bytes()];
        position += entry.len();
        if header.kind != EntryKind::Batch || header.group != group {
            continue;
        }
        let payload = &entry[ENTRY_HEADER_BYTES..][..header.length as usize];
        let batch = BatchHeader::parse(payload).map_err(|_| Unsound)?;
        let sound = batch.padded_bytes() == payload.len() && batch.verify_body(payload);
        if !sound || batch.base_offset != next || used + entry.len() > room.len() {
            return Err(Unsound);
        }
        let copy = &mut room[used..used + entry.len()];
        copy.copy_from_slice(entry);
        header.encode(to, copy);
        used += entry.len();
        next = batch.next_offset();
    }
    if next == piece.last_offset + 1 { Ok(used as u32) } else { Err(Unsound) }
}

/// What the header of a frame of a pack says beside what its entries do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heading {
    pub(crate) seed: FrameSeed,
    pub(crate) log: LogId,
    pub(crate) term: Term,
    pub(crate) pack: u32,
    /// Number of the frame, and where it starts.
    pub(crate) frame: u32,
    pub(crate) position: u64,
    /// Header CRC of the frame before.
    pub(crate) previous_crc: u32,
    pub(crate) wall_us: u64,
}

impl Heading {
    /// Seals a frame whose entries end at `used`: pads it and writes its header; its length and its header's CRC.
    pub(crate) fn seal(&self, frame: &mut [u8], used: u32) -> (u32, u32) {
        let length = round_up(used as usize, FRAME_ALIGN);
        frame[used as usize..length].fill(0);
        let (mut position, mut entries, mut entries_crc) = (FRAME_HEADER_BYTES, 0, 0);
        while let Some((entry, crc)) = EntryHeader::parse(&frame[position..used as usize]) {
            (entries, entries_crc) = (entries + 1, chain(entries_crc, crc));
            position += entry.total_bytes();
        }
        assert_eq!(position, used as usize, "a frame is entries from end to end");
        let header = FrameHeader {
            crc: 0,
            flags: FLAG_PACK,
            log: self.log,
            entries,
            generation: pack_generation(self.pack),
            sequence: pack_sequence(self.pack) + u64::from(self.frame),
            position: self.position,
            length: length as u32,
            used,
            durable_sequence: 0,
            in_flight_limit: 0,
            term: self.term,
            previous_crc: self.previous_crc,
            entries_crc,
            wall_us: self.wall_us,
            seal: Seal::default(),
        };
        (length as u32, header.encode(self.seed, frame))
    }
}
