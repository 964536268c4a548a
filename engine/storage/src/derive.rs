//! The index of an extent from its frames: what a damaged footer is replaced by. Pure: bytes in, runs out.
//!
//! **Invariants:** only what verifies makes a run; what is missing between runs is for the caller to name. What level 1 does
//! not have makes none: a start could not tell of it, behind damage, and its offsets may have been given again since.

use crate::extent::Live;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameSeed};
use crate::groups::Groups;
use crate::index::{Run, Runs};
use crate::sound::{Sound, sound_entries};
use crate::walk::{Walk, Walked};

/// How far an extent has been read, and what was found.
#[derive(Debug)]
pub(crate) struct Derivation {
    walk: Walk,
    /// One per batch, in log order.
    batches: Vec<Run>,
}

impl Derivation {
    pub(crate) const fn new(live: &Live) -> Self {
        Self { walk: Walk::new(live), batches: Vec::new() }
    }

    /// What to read next, at most `bytes` of it; `None` at the extent's end.
    pub(crate) fn wanted(&self, bytes: u32) -> Option<(u64, u32)> {
        self.walk.wanted(bytes)
    }

    /// Takes what was read from the wanted position: `length` was asked for, and `bytes` came.
    pub(crate) fn take(&mut self, bytes: &[u8], length: u32, seed: FrameSeed, groups: &Groups) {
        let Self { walk, batches } = self;
        let (generation, first_sequence) = (walk.generation, walk.first_sequence);
        let known = |batch: &Run| {
            let row = groups.at(batch.slot).row_of(generation);
            row.is_some_and(|row| {
                row.first_offset <= batch.first_offset && batch.last_offset <= row.last_offset
            })
        };
        walk.take(bytes, length, seed, |walked| {
            if let Walked::Frame(header, bytes) = walked {
                add_frame(header, bytes, seed, first_sequence, groups, |batch| {
                    batches.extend(known(&batch).then_some(batch))
                });
            }
        });
    }

    /// The index: what a frame holds of a group is one run.
    pub(crate) fn finish(mut self) -> Runs {
        self.batches.sort_unstable_by_key(|run| (run.slot, run.first_offset));
        self.batches.dedup_by(|batch, run| {
            let same = (batch.slot, batch.frame) == (run.slot, run.frame);
            if same {
                run.extend(batch);
            }
            same
        });
        Runs { sorted: self.batches, first_sequence: self.walk.first_sequence }
    }
}

/// The batches of a frame. Of one whose body is bad whoever reads it finds the damage, and names exactly that one.
fn add_frame(
    header: &FrameHeader,
    bytes: &[u8],
    seed: FrameSeed,
    first_sequence: u64,
    groups: &Groups,
    mut each: impl FnMut(Run),
) {
    let Ok(frame) = u32::try_from(header.sequence - first_sequence) else { return };
    sound_entries(bytes, FRAME_HEADER_BYTES, header.used as usize, seed.entries(header.sequence), |sound| {
        let Sound::Batch { entry, batch, position, .. } = sound else { return };
        let Some(slot) = groups.find(entry.group) else { return };
        let start = header.position as u32 + position as u32;
        each(Run {
            first_offset: batch.base_offset,
            last_offset: batch.last_offset(),
            max_timestamp_us: batch.max_timestamp_us,
            slot,
            start,
            end: start + entry.total_bytes() as u32,
            frame,
            bytes: entry.total_bytes() as u32,
        });
    });
}
