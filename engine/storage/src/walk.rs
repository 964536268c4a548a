//! A closed extent frame by frame, as its bytes come in. Pure: what an index is derived from, and what a scrubber checks.
//!
//! **Invariant:** frames are given out in order and once; the way goes on behind the last whole one, and sector by sector
//! over what is none.

use corelog_model::limits::FRAME_ALIGN;

use crate::extent::Live;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameSeed};
use crate::settle::pack_generation;

/// How far an extent has been read.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) generation: u64,
    /// As its frames have it: those of a pack have the pack's own.
    of_frames: u64,
    pub(crate) first_sequence: u64,
    /// Where the extent ends.
    end: u64,
    /// Next byte of the extent to be looked at.
    position: u64,
    /// Of the last frame found.
    sequence: u64,
}

/// What stands at a place.
pub(crate) enum Walked<'a> {
    /// A frame whose header verifies, and its bytes.
    Frame(&'a FrameHeader, &'a [u8]),
    /// A sector where a frame should be, or go on.
    Nothing,
    /// A frame that is larger than any read: it is passed over.
    TooLong,
}

impl Walk {
    pub(crate) const fn new(live: &Live) -> Self {
        Self {
            generation: live.generation,
            of_frames: if live.pack { pack_generation(live.extent) } else { live.generation },
            first_sequence: live.first_sequence,
            end: live.end,
            position: 0,
            sequence: 0,
        }
    }

    /// What to read next, at most `bytes` of it; `None` at the extent's end.
    pub(crate) fn wanted(&self, bytes: u32) -> Option<(u64, u32)> {
        let left = self.end.saturating_sub(self.position);
        (left > 0).then(|| (self.position, left.min(u64::from(bytes)) as u32))
    }

    /// Takes what was read from the wanted position: `length` was asked for, and `bytes` came.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        length: u32,
        seed: FrameSeed,
        mut each: impl FnMut(Walked<'_>),
    ) {
        let mut at = 0;
        while bytes.len() - at >= FRAME_HEADER_BYTES {
            let position = self.position + at as u64;
            let header = FrameHeader::decode(&bytes[at..], seed, position);
            at += match header.filter(|header| self.belongs(header)).map(|header| (header, header.length)) {
                Some((header, length)) if at + length as usize <= bytes.len() => {
                    self.sequence = header.sequence;
                    each(Walked::Frame(&header, &bytes[at..at + length as usize]));
                    length as usize
                }
                // Cut off by the end of the read: it is read again, from its start.
                Some(_) if at > 0 => break,
                Some((_, length)) => {
                    each(Walked::TooLong);
                    length as usize
                }
                None => {
                    each(Walked::Nothing);
                    FRAME_ALIGN
                }
            };
            at = at.min(bytes.len());
        }
        self.position += if at > 0 { at as u64 } else { u64::from(length) };
    }

    fn belongs(&self, header: &FrameHeader) -> bool {
        header.generation == self.of_frames
            && header.sequence > self.sequence
            && header.sequence >= self.first_sequence
            && header.position + u64::from(header.length) <= self.end
    }
}
