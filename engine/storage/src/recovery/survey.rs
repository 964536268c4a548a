//! Looking at a stopped log without opening it: what a start would find, and each of its files held against that.
//!
//! It is an opening that stops before anything would be written. What carries out its reads may be on a file system that
//! cannot be written to.
//!
//! **Invariant:** only reads are ever asked for.

use corelog_model::time::Now;
use corelog_model::{GroupId, Term};

use super::{Opening, Replay, Stage};
use crate::check::{Check, Tally};
use crate::config::{LogConfig, Memory};
use crate::derive::Derivation;
use crate::error::OpenError;
use crate::extent::FooterAt;
use crate::frame::{ENTRY_HEADER_BYTES, EntryHeader};
use crate::index::Runs;
use crate::op::{DiskCompletion, DiskOp, FileName, Listing};
use crate::superblock::{SUPERBLOCK_BYTES, Superblock};

/// What one copy of the superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuperblockCopy {
    /// Rises with every rewrite: the newest copy counts.
    pub version: u64,
    /// Size of the log's extents.
    pub extent_bytes: u64,
    /// Of the newest start known to it.
    pub term: Term,
}

impl SuperblockCopy {
    /// The copies of a superblock's file, in their order; `None` for what does not verify.
    pub fn all(file: &[u8]) -> Vec<Option<Self>> {
        let copies = file.chunks(SUPERBLOCK_BYTES).map(Superblock::decode);
        let read = |superblock: Superblock| Self {
            version: superblock.version,
            extent_bytes: superblock.extent_bytes,
            term: superblock.term,
        };
        copies.map(|superblock| superblock.map(read)).collect()
    }
}

/// A log on its way to be looked at.
pub struct Surveying(Opening);

/// A log that was looked at: its files, and what they should hold.
pub struct Survey(Opening);

/// A file of the log with records, or with what it notes for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Container {
    /// The file.
    pub file: FileName,
    /// Bytes of it that are in use.
    pub bytes: u64,
    /// Of its use; it rises along the log.
    pub generation: u64,
    /// Parts of its index that are written down.
    pub index_parts: u32,
}

/// Offsets of a group, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LostRange {
    /// Whose.
    pub group: GroupId,
    /// The first one.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

/// What came of checking a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Frames whose headers verify.
    pub frames: u64,
    /// Batches whose headers verify.
    pub batches: u64,
    /// Frames of which something besides the body of a batch is damaged, and places where a frame should be.
    pub broken: u64,
    /// Records that are missing.
    pub lost: Vec<LostRange>,
    /// Records that are missing, too, which an operator has accepted.
    pub accepted: Vec<LostRange>,
}

/// A file that is being checked.
pub struct ContainerCheck {
    check: Check,
    derivation: Derivation,
    lost: Vec<LostRange>,
}

impl Surveying {
    /// Prepares to look at the log whose directory holds `listing`.
    pub fn new(config: LogConfig, memory: Memory, listing: Listing, now: Now) -> Self {
        let mut opening = Opening::new(config, memory, listing, now);
        opening.surveys = true;
        Self(opening)
    }

    /// Asks for the first reads.
    pub fn start(&mut self, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        self.0.start(out)
    }

    /// Takes a completion; `replay` is told what the log's owner would be.
    pub fn on(
        &mut self,
        completion: DiskCompletion,
        now: Now,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        self.0.on(completion, now, replay, out).map(|_| ())
    }

    /// Once nothing is asked for any more: what was found.
    pub fn end(self) -> Option<Survey> {
        let Self(mut opening) = self;
        if !matches!(opening.stage, Stage::Done) {
            return None;
        }
        let places = std::mem::take(&mut opening.superblock.checkpoints);
        opening.applied.retire_empty(&places);
        opening.superblock.checkpoints = places;
        Some(Survey(opening))
    }
}

impl Survey {
    /// The files that hold the log, the oldest first.
    pub fn containers(&self) -> Vec<Container> {
        let live = self.0.applied.extents.live.iter().filter(|live| live.end > 0);
        live.map(|live| Container {
            file: live.file(),
            bytes: live.end,
            generation: live.generation,
            index_parts: live.footers.len() as u32,
        })
        .collect()
    }

    /// Begins to check a file.
    ///
    /// # Panics
    /// When it is none of [`Survey::containers`].
    pub fn check(&self, container: &Container) -> ContainerCheck {
        let live = self.0.applied.extents.by_generation(container.generation).expect("one of the log's");
        let check = Check::new(live, &self.0.applied.groups, Vec::new());
        ContainerCheck { check, derivation: Derivation::new(live), lost: Vec::new() }
    }

    /// What is written down of the index of a file: where each part lies, and how many bytes to read there.
    pub fn index_parts(&self, container: &Container) -> Vec<(FileName, u64, u32)> {
        let extents = &self.0.applied.extents;
        let live = extents.by_generation(container.generation);
        let place = |footer: &FooterAt| {
            let holder = extents.by_generation(footer.generation)?;
            let bytes = ENTRY_HEADER_BYTES as u32 + footer.length;
            Some((holder.file(), u64::from(footer.position), bytes))
        };
        live.into_iter().flat_map(|live| &live.footers).filter_map(place).collect()
    }

    /// Takes the next bytes of a file, from where [`ContainerCheck::wanted`] says.
    pub fn take(&mut self, check: &mut ContainerCheck, bytes: &[u8]) {
        let (seed, groups) = (self.0.seed, &mut self.0.applied.groups);
        check.derivation.take(bytes, bytes.len() as u32, seed, groups);
        let ContainerCheck { check, lost, .. } = check;
        check.take(bytes, seed, groups, &mut |slot, first, last| {
            lost.push(LostRange { group: groups.at(slot).id, first, last });
        });
    }

    /// The end of a file was reached. `parts` are the bytes at [`Survey::index_parts`]; whether the index that they are is
    /// that of the file. `None` where something of the file is damaged, or no index is written down: nothing is held
    /// against it.
    pub fn finish(&mut self, check: ContainerCheck, parts: &[Vec<u8>]) -> (Checked, Option<bool>) {
        let ContainerCheck { check, derivation, mut lost } = check;
        let (generation, seed, groups) = (check.generation(), self.0.seed, &mut self.0.applied.groups);
        let Tally { frames, batches, broken } = check.tally;
        check.finish(groups, &mut |slot, first, last| {
            lost.push(LostRange { group: groups.at(slot).id, first, last });
        });
        let sound = lost.is_empty() && broken == 0 && !parts.is_empty();
        let index = sound.then(|| {
            let live = self.0.applied.extents.by_generation(generation).expect("one of the log's");
            let mut written = Runs::default();
            let whole = live.footers.iter().zip(parts).zip(0..).all(|((footer, bytes), part)| {
                let decoded = EntryHeader::decode(bytes, seed.entries(footer.sequence));
                let payload =
                    decoded.and_then(|(header, _)| bytes[ENTRY_HEADER_BYTES..].get(..header.length as usize));
                payload.and_then(|bytes| written.decode_part(bytes, generation, part, groups)).is_some()
            });
            written.sort();
            whole && parts.len() == live.footers.len() && written == derivation.finish()
        });
        let (mut open, mut accepted) = (Vec::new(), Vec::new());
        lost.into_iter().for_each(|range| self.tell(range, &mut open, &mut accepted));
        (Checked { frames, batches, broken, lost: open, accepted }, index)
    }

    /// Tells what of a range is accepted from what is not.
    fn tell(&self, range: LostRange, open: &mut Vec<LostRange>, accepted: &mut Vec<LostRange>) {
        let LostRange { group, first, last } = range;
        let Some(slot) = self.0.applied.groups.find(group) else { return open.push(range) };
        let mut next = first;
        while next <= last {
            let Some((from, end)) = self.0.applied.damage.unaccepted(slot, next, last) else {
                return accepted.push(LostRange { group, first: next, last });
            };
            if from > next {
                accepted.push(LostRange { group, first: next, last: from - 1 });
            }
            open.push(LostRange { group, first: from, last: end });
            next = end + 1;
        }
    }

    /// No frame of the log is longer.
    pub const fn longest_frame_bytes(&self) -> usize {
        self.0.config.max_frame_bytes()
    }

    /// What a start would name as damaged in what it reads.
    pub fn damaged(&self) -> Vec<LostRange> {
        let of = |slot| self.0.applied.groups.at(slot).id;
        let all = self.0.applied.damage.iter();
        all.map(|damage| LostRange { group: of(damage.slot), first: damage.first, last: damage.last })
            .collect()
    }

    /// The first offset of a group that can be read, and the one behind its last record.
    pub fn offsets(&self, group: GroupId) -> Option<(u64, u64)> {
        let groups = &self.0.applied.groups;
        let group = groups.at(groups.find(group)?);
        Some((group.log_start, group.log_end))
    }
}

impl ContainerCheck {
    /// What to read next, at most `bytes` of it: where, and how much. `None` at the end.
    pub fn wanted(&self, bytes: u32) -> Option<(u64, u32)> {
        self.check.wanted(bytes)
    }
}
