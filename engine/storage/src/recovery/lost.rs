//! Lost frames, and how far each group is accounted for in spite of them.
//!
//! Offsets of a group have no gaps, so the next batch of a group tells which are missing before it; a footer tells
//! what a frame of its extent held; a full checkpoint tells where each group ended. What none of them tells stays
//! possible: the newest records of a group may have been in the lost frame.

use crate::groups::GroupSlot;

/// How far a group is accounted for.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    /// Every offset before it was found, or named.
    offset: u64,
    /// Sequence of the newest frame known to hold records of the group.
    sequence: u64,
    known: bool,
}

/// Frames of one extent, by sequence, inclusive.
#[derive(Debug)]
struct Frames {
    generation: u64,
    first: u64,
    last: u64,
    /// Before the newest checkpoint.
    before: bool,
    /// Something tells all that they held.
    told: bool,
    /// A sector of them that could not be read: its extent and position.
    unreadable: Option<(u32, u64)>,
}

#[derive(Debug, Default)]
pub(crate) struct Lost {
    frames: Vec<Frames>,
    /// By slot.
    groups: Vec<Reached>,
}

impl Lost {
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    fn group(&mut self, slot: GroupSlot) -> &mut Reached {
        let at = slot.0 as usize;
        if self.groups.len() <= at {
            self.groups.resize(at + 1, Reached::default());
        }
        &mut self.groups[at]
    }

    /// The checkpoints account for the group up to `offset`.
    pub(crate) fn listed(&mut self, slot: GroupSlot, offset: u64) {
        *self.group(slot) = Reached { offset, sequence: 0, known: true };
    }

    /// A frame holds these records of the group; gives back the offsets missing before them, once something was
    /// lost. A group that was not met before is accounted for up to `unlisted`.
    pub(crate) fn reach(
        &mut self,
        slot: GroupSlot,
        unlisted: u64,
        first: u64,
        last: u64,
        sequence: u64,
    ) -> Option<(u64, u64)> {
        let lost = !self.is_empty();
        let group = self.group(slot);
        if !group.known {
            (group.offset, group.known) = (unlisted, true);
        }
        let missing = (lost && first > group.offset).then(|| (group.offset, first - 1));
        group.offset = group.offset.max(last + 1);
        group.sequence = group.sequence.max(sequence);
        missing
    }

    /// Records of the group below `offset` were taken away.
    pub(crate) fn trimmed(&mut self, slot: GroupSlot, offset: u64) {
        let group = self.group(slot);
        (group.offset, group.known) = (group.offset.max(offset), true);
    }

    /// How far the group is accounted for; `None` when nothing of it was ever met.
    pub(crate) fn reached(&self, slot: GroupSlot) -> Option<u64> {
        self.groups.get(slot.0 as usize).filter(|group| group.known).map(|group| group.offset)
    }

    /// Frames are lost, behind or `before` the newest checkpoint; perhaps for a sector that could not be read.
    pub(crate) fn add(
        &mut self,
        generation: u64,
        (first, last): (u64, u64),
        before: bool,
        unreadable: Option<(u32, u64)>,
    ) {
        self.frames.push(Frames { generation, first, last, before, told: false, unreadable });
    }

    /// A sector that could not be read, of a frame of which nothing tells what it held. What cannot be read today may be
    /// read tomorrow: nobody may go on as if it were gone.
    pub(crate) fn undecided(&self) -> Option<(u32, u64)> {
        self.frames.iter().filter(|frames| !frames.told).find_map(|frames| frames.unreadable)
    }

    /// Whether anything of the extent is lost.
    pub(crate) fn concerns(&self, generation: u64) -> bool {
        self.frames.iter().any(|frames| frames.generation == generation)
    }

    /// Whether a frame of the extent is lost.
    pub(crate) fn holds(&self, generation: u64, sequence: u64) -> bool {
        let holds = |frames: &Frames| (frames.first..=frames.last).contains(&sequence);
        self.frames.iter().any(|frames| frames.generation == generation && holds(frames))
    }

    /// The whole index of the extent was met.
    pub(crate) fn told(&mut self, generation: u64) {
        for frames in self.frames.iter_mut().filter(|frames| frames.generation == generation) {
            frames.told = true;
        }
    }

    /// The newest checkpoint was passed; a full one tells where every group ended.
    pub(crate) fn passed_checkpoint(&mut self, full: bool) {
        for frames in self.frames.iter_mut().filter(|frames| frames.before) {
            frames.told |= full;
        }
    }

    /// Whether something is lost of which nothing tells what it held.
    pub(crate) fn is_untold(&self) -> bool {
        self.frames.iter().any(|frames| !frames.told)
    }

    /// Whether the newest records of the group may have been in a lost frame that nothing tells of.
    pub(crate) fn may_concern(&self, slot: GroupSlot) -> bool {
        let sequence = self.groups.get(slot.0 as usize).map_or(0, |group| group.sequence);
        self.frames.iter().any(|frames| !frames.told && sequence <= frames.last)
    }
}
