//! A closed extent held against what level 1 of the index says it holds. Pure: bytes in, what is missing out.
//!
//! **Invariants:** every frame, entry and body is summed. What is told is missing for certain: offsets that were given,
//! are above the group's start, and are nowhere sound in the one extent that had them.

use crate::extent::Live;
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameSeed};
use crate::groups::{GroupSlot, Groups};
use crate::sound::{Sound, sound_entries};
use crate::walk::{Walk, Walked};

/// Nothing of the group was met yet.
const UNMET: u64 = u64::MAX;

/// An extent that is being checked.
#[derive(Debug)]
pub(crate) struct Check {
    walk: Walk,
    /// By slot: the offset that the next batch begins with.
    next: Vec<u64>,
    pub(crate) tally: Tally,
}

/// What was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Frames whose headers verify.
    pub frames: u64,
    /// Batches whose headers verify.
    pub batches: u64,
    /// Frames of which something besides the body of a batch is damaged, and places where a frame should be.
    pub broken: u64,
}

impl Check {
    /// Of a closed extent; `next` is memory that is used again.
    pub(crate) fn new(live: &Live, groups: &Groups, mut next: Vec<u64>) -> Self {
        next.clear();
        next.resize(groups.len(), UNMET);
        Self { walk: Walk::new(live), next, tally: Tally::default() }
    }

    pub(crate) const fn generation(&self) -> u64 {
        self.walk.generation
    }

    /// What to read next, at most `bytes` of it; `None` at the extent's end.
    pub(crate) fn wanted(&self, bytes: u32) -> Option<(u64, u32)> {
        self.walk.wanted(bytes)
    }

    /// Takes what was read from the wanted position; `lost` is told the offsets that are missing.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        seed: FrameSeed,
        groups: &Groups,
        lost: &mut impl FnMut(GroupSlot, u64, u64),
    ) {
        let (generation, mut in_gap) = (self.walk.generation, false);
        let mut held = Held { generation, groups, next: &mut self.next, tally: &mut self.tally };
        self.walk.take(bytes, bytes.len() as u32, seed, |walked| {
            let was_in_gap = std::mem::replace(&mut in_gap, matches!(walked, Walked::Nothing));
            match walked {
                Walked::Frame(header, bytes) => held.frame(header, bytes, seed, lost),
                Walked::Nothing if !was_in_gap => held.tally.broken += 1,
                Walked::Nothing | Walked::TooLong => {}
            }
        });
    }

    /// The extent's end was reached: what no frame of it held is missing. Gives the memory back.
    pub(crate) fn finish(self, groups: &Groups, lost: &mut impl FnMut(GroupSlot, u64, u64)) -> Vec<u64> {
        for (slot, group) in groups.iter() {
            let Some(row) = group.row_of(self.walk.generation) else { continue };
            let met = self.next.get(slot.0 as usize).copied().filter(|next| *next != UNMET);
            let from = met.unwrap_or(row.first_offset).max(group.log_start);
            if from <= row.last_offset {
                lost(slot, from, row.last_offset);
            }
        }
        self.next
    }
}

/// What was met so far, while a read is looked at.
struct Held<'a> {
    generation: u64,
    groups: &'a Groups,
    next: &'a mut Vec<u64>,
    tally: &'a mut Tally,
}

impl Held<'_> {
    fn frame(
        &mut self,
        header: &FrameHeader,
        bytes: &[u8],
        seed: FrameSeed,
        lost: &mut impl FnMut(GroupSlot, u64, u64),
    ) {
        self.tally.frames += 1;
        let (used, mut broken) =
            (header.used as usize, bytes[header.used as usize..].iter().any(|byte| *byte != 0));
        sound_entries(bytes, FRAME_HEADER_BYTES, used, seed.entries(header.sequence), |sound| match sound {
            Sound::Batch { entry, batch, whole, .. } => {
                self.tally.batches += 1;
                if let Some(slot) = self.groups.find(entry.group) {
                    self.batch(slot, batch.base_offset, batch.last_offset(), whole, lost);
                }
            }
            Sound::Control => {}
            Sound::Broken => broken = true,
        });
        self.tally.broken += u64::from(broken);
    }

    fn batch(
        &mut self,
        slot: GroupSlot,
        first: u64,
        last: u64,
        whole: bool,
        lost: &mut impl FnMut(GroupSlot, u64, u64),
    ) {
        let group = self.groups.at(slot);
        let Some(row) = group.row_of(self.generation) else {
            // Dropped, or before its start.
            return;
        };
        let at_slot = slot.0 as usize;
        if self.next.len() <= at_slot {
            self.next.resize(at_slot + 1, UNMET);
        }
        let met = self.next[at_slot];
        let expected = if met == UNMET { row.first_offset } else { met };
        let from = expected.max(group.log_start);
        if first > from {
            lost(slot, from, first - 1);
        }
        if !whole && last >= group.log_start {
            lost(slot, first.max(group.log_start), last);
        }
        self.next[at_slot] = expected.max(last + 1);
    }
}
