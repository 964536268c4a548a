//! What goes where: the runs of several extents, in the order of a pack, cut into its frames, and the reads that bring
//! them. Pure.
//!
//! A pack is made in passes: as many frames as there are blocks for are filled from all sources, then written. The reads of
//! a pass go through each source in order and take with them what lies close together: few long ones where runs are
//! tiny, one for each run where they are not.

use std::ops::Range;

use corelog_model::limits::{FRAME_ALIGN, round_up};

use crate::frame::FRAME_HEADER_BYTES;
use crate::groups::GroupSlot;
use crate::index::Run;

/// Bytes that a read takes with it rather than leave them out.
const GAP_BYTES: u32 = 64 << 10;

/// A run of a source on its way into a pack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) first_offset: u64,
    pub(crate) last_offset: u64,
    pub(crate) max_timestamp_us: u64,
    pub(crate) slot: GroupSlot,
    /// Which of the sources.
    pub(crate) source: u32,
    /// In the source, bytes.
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// Of the frame in the source, less the source's first.
    pub(crate) frame: u32,
    /// Room kept for it.
    pub(crate) bytes: u32,
    /// Where in its frame of the pack.
    pub(crate) at: u32,
    /// Bytes that were copied there.
    pub(crate) found: u32,
}

impl Piece {
    pub(crate) const fn of(run: &Run, source: u32) -> Self {
        Self {
            first_offset: run.first_offset,
            last_offset: run.last_offset,
            max_timestamp_us: run.max_timestamp_us,
            slot: run.slot,
            source,
            start: run.start,
            end: run.end,
            frame: run.frame,
            bytes: run.own_bytes(),
            at: 0,
            found: 0,
        }
    }
}

/// The frames of a pack: which pieces each of them holds.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// Where each frame ends in the list of pieces.
    ends: Vec<u32>,
    /// Of all frames with their padding, at most.
    pub(crate) bytes: u64,
}

impl Layout {
    /// Sorts the pieces as a pack has them and fills frames of at most `frame_bytes` with them, header included.
    pub(crate) fn make(&mut self, pieces: &mut [Piece], frame_bytes: usize) {
        pieces.sort_unstable_by_key(|piece| (piece.slot, piece.first_offset));
        self.ends.clear();
        self.bytes = 0;
        let mut used = FRAME_HEADER_BYTES;
        for (index, piece) in pieces.iter_mut().enumerate() {
            if used > FRAME_HEADER_BYTES && used + piece.bytes as usize > frame_bytes {
                self.end_frame(index, used);
                used = FRAME_HEADER_BYTES;
            }
            piece.at = used as u32;
            used += piece.bytes as usize;
        }
        if used > FRAME_HEADER_BYTES {
            self.end_frame(pieces.len(), used);
        }
    }

    fn end_frame(&mut self, end: usize, used: usize) {
        self.ends.push(end as u32);
        self.bytes += round_up(used, FRAME_ALIGN) as u64;
    }

    pub(crate) fn frames(&self) -> usize {
        self.ends.len()
    }

    /// The pieces of a frame.
    pub(crate) fn frame(&self, at: usize) -> Range<usize> {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        start as usize..self.ends[at] as usize
    }

    /// The pieces of these frames.
    pub(crate) fn pieces(&self, frames: &Range<usize>) -> Range<usize> {
        if frames.is_empty() { 0..0 } else { self.frame(frames.start).start..self.frame(frames.end - 1).end }
    }

    /// Which of these frames holds a piece.
    pub(crate) fn frame_of(&self, piece: usize) -> usize {
        self.ends.partition_point(|end| *end as usize <= piece)
    }
}

/// One read: pieces `from..to` of the order of the pass, from one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fetch {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) position: u64,
    pub(crate) length: u32,
}

/// The read that brings the piece at `from` of `order`, and what lies close behind it, into a block of so many bytes.
pub(crate) fn fetch(pieces: &[Piece], order: &[u32], from: usize, block_bytes: usize) -> Fetch {
    let first = pieces[order[from] as usize];
    let start = first.start as usize & !(FRAME_ALIGN - 1);
    let length = |end: u32| round_up(end as usize - start, FRAME_ALIGN);
    let (mut to, mut end) = (from + 1, first.end);
    for at in &order[to..] {
        let piece = pieces[*at as usize];
        let near = piece.source == first.source && piece.start.saturating_sub(end) <= GAP_BYTES;
        // Runs of several groups of one frame lie across each other.
        let furthest = end.max(piece.end);
        if !near || length(furthest) > block_bytes {
            break;
        }
        (to, end) = (to + 1, furthest);
    }
    Fetch { from, to, position: start as u64, length: length(end) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(slot: u32, first_offset: u64, source: u32, start: u32, bytes: u32) -> Piece {
        let run = Run {
            first_offset,
            last_offset: first_offset + 9,
            max_timestamp_us: 0,
            slot: GroupSlot(slot),
            start,
            end: start + bytes,
            frame: 0,
            bytes,
        };
        Piece::of(&run, source)
    }

    #[test]
    fn frames_hold_whole_pieces_in_the_order_of_groups_and_offsets() {
        let mut pieces =
            vec![piece(2, 0, 0, 128, 3000), piece(1, 10, 1, 128, 3000), piece(1, 0, 0, 4096, 900)];
        let mut layout = Layout::default();
        layout.make(&mut pieces, 4096);
        let order: Vec<_> = pieces.iter().map(|piece| (piece.slot.0, piece.first_offset, piece.at)).collect();
        assert_eq!(order, [(1, 0, 128), (1, 10, 1028), (2, 0, 128)]);
        assert_eq!((layout.frames(), layout.bytes), (2, 8192));
        assert_eq!((layout.frame(0), layout.frame(1)), (0..2, 2..3));
        assert_eq!((layout.frame_of(1), layout.frame_of(2)), (0, 1));
        assert_eq!(layout.pieces(&(0..2)), 0..3);
        layout.make(&mut [], 4096);
        assert_eq!((layout.frames(), layout.bytes, layout.pieces(&(0..0))), (0, 0, 0..0));
    }

    #[test]
    fn a_read_takes_what_is_close_and_leaves_what_is_far_or_of_another_source() {
        let far = 8192 + GAP_BYTES + 1000;
        let pieces = [
            piece(1, 0, 0, 5000, 100),
            piece(2, 0, 0, 8000, 192),
            piece(3, 0, 0, far, 50),
            piece(4, 0, 1, far, 50),
        ];
        let order = [0, 1, 2, 3];
        let first = fetch(&pieces, &order, 0, 1 << 20);
        assert_eq!(first, Fetch { from: 0, to: 2, position: 4096, length: 4096 });
        assert_eq!(fetch(&pieces, &order, 2, 1 << 20).to, 3, "the next is of another source");
        let narrow = fetch(&pieces, &order, 0, 4096);
        assert_eq!((narrow.to, narrow.length), (2, 4096), "both are in one sector");
        let across = [piece(1, 0, 0, 0, 9000), piece(2, 0, 0, 100, 200)];
        assert_eq!(fetch(&across, &[0, 1], 0, 16384).length, 12288, "the longer one counts");
    }
}
