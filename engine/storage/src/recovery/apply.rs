//! What frames and checkpoints add up to: extents, groups, indexes, damage.
//!
//! **Invariant:** frames are applied in log order; only entries behind the newest checkpoint are replayed to the
//! owner, all others merely indexed.

use std::collections::HashMap;

use corelog_model::batch::BatchHeader;

use super::lost::Lost;
use super::plan::Planned;
use super::scan::{Entry, entries_of};
use super::{Replay, Replayed};
use crate::accept::{accept, accepted_ranges};
use crate::checkpoint::{CheckpointKind, PartHeader, decode_state};
use crate::config::LogConfig;
use crate::damage::Damages;
use crate::extent::{Extents, FooterAt, Live};
use crate::footer::Footers;
use crate::frame::{EntryHeader, EntryKind, FrameHeader, FrameSeed};
use crate::groups::{GroupSlot, Groups};
use crate::index::{FooterHeader, OpenRuns, Run, Runs};
use crate::superblock::CheckpointAt;
use crate::trim::trimmed_to;

pub(crate) struct Applied {
    seed: FrameSeed,
    pub(crate) extents: Extents,
    pub(crate) groups: Groups,
    pub(crate) runs: OpenRuns,
    pub(crate) footers: Footers,
    pub(crate) damage: Damages,
    /// Newest generation that a checkpoint covers.
    pub(crate) listed: u64,
    /// Log bytes behind the newest checkpoint.
    pub(crate) replayed_bytes: u64,
    /// The newest checkpoint restored is a full one: it lists every group.
    full: bool,
    /// Groups of which records may be lost, and from which offset on.
    pub(crate) possibly_lost: Vec<(GroupSlot, u64)>,
    /// Groups that were never met may have been in lost frames.
    pub(crate) untold: bool,
    /// The checkpoint whose first part starts the replay; `None` once it was passed.
    awaited: Option<u64>,
    /// Frames that are lost, and what is known of their records.
    lost: Lost,
    current: Option<Live>,
    /// In what is looked at, the position of a sector that could not be read.
    pub(crate) unreadable: Option<u64>,
    /// Footer parts met, by the extent they describe.
    met: HashMap<u64, Vec<(FooterHeader, FooterAt)>>,
    config: LogConfig,
}

impl Applied {
    pub(crate) fn new(seed: FrameSeed, config: &LogConfig) -> Self {
        Self {
            seed,
            extents: Extents::new(config.extent_bytes),
            groups: Groups::default(),
            runs: OpenRuns::new(config.extent_bytes),
            footers: Footers::new(config.max_batch_bytes, config.extent_bytes),
            damage: Damages::default(),
            listed: 0,
            replayed_bytes: 0,
            full: false,
            possibly_lost: Vec::new(),
            untold: false,
            awaited: None,
            lost: Lost::default(),
            current: None,
            unreadable: None,
            met: HashMap::new(),
            config: config.clone(),
        }
    }

    /// A full checkpoint begins: nothing before it counts.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.seed, &self.config.clone());
    }

    pub(crate) fn checkpoint(&mut self, kind: CheckpointKind, own: &[u8]) -> bool {
        self.full = kind == CheckpointKind::Full;
        let covers = decode_state(own, &mut self.extents, &mut self.groups);
        self.listed = covers.unwrap_or(0);
        for (slot, group) in self.groups.iter() {
            let known = |first: &u64| self.damage.passed(slot, *first).is_some();
            let new: Vec<_> = group.accepted.iter().filter(|(first, _)| !known(first)).copied().collect();
            new.into_iter().for_each(|(first, last)| self.damage.accept(slot, first, last));
        }
        covers.is_some()
    }

    pub(crate) fn expect_checkpoint(&mut self, id: Option<u64>) {
        self.awaited = id;
        for (slot, group) in self.groups.iter() {
            let listed = group.rows.back().map_or(0, |row| row.last_offset + 1);
            self.lost.listed(slot, group.log_start.max(listed));
        }
    }

    pub(crate) fn begin_extent(&mut self, planned: &Planned) {
        self.current = Some(Live::begun(planned.extent, planned.generation, 0, 0));
    }

    /// Takes a frame that verifies, or what is sound of a damaged one.
    pub(crate) fn frame(
        &mut self,
        header: &FrameHeader,
        frame: &[u8],
        damaged: bool,
        replay: &mut Replay<'_>,
    ) {
        let Some(current) = self.current.as_mut() else { return };
        let generation = current.generation;
        if self.runs.generation() != Some(generation) {
            current.first_sequence = header.sequence;
            self.runs.restart(generation, header.sequence, &mut self.groups);
        }
        if self.awaited.is_none() {
            self.replayed_bytes += u64::from(header.length);
        }
        let stopped = entries_of(header, self.seed, frame, |entry| match entry {
            Entry::Sound { header: entry, payload, position, .. } => {
                self.entry(header, entry, payload, position, replay);
            }
            Entry::BadBatch { header: entry, batch } => {
                let slot = self.groups.slot(entry.group);
                let (first, last) = (batch.base_offset, batch.last_offset());
                self.reach(slot, first, last, header.sequence, replay);
                let group = self.groups.at_mut(slot);
                group.last_index = group.last_index.max(entry.index);
                self.name(slot, first, last, replay);
            }
        });
        if damaged && stopped < header.used as usize {
            self.lost(header.sequence, header.sequence, replay);
        }
    }

    fn entry(
        &mut self,
        frame: &FrameHeader,
        entry: EntryHeader,
        payload: &[u8],
        position: usize,
        replay: &mut Replay<'_>,
    ) {
        let at = frame.position + position as u64;
        match entry.kind {
            EntryKind::Batch => self.batch(frame, entry, payload, at, replay),
            EntryKind::Checkpoint => {
                // The state is that of the first part: what lies between the others comes on top of it.
                let part = PartHeader::decode(payload);
                let begins = |awaited| part.is_some_and(|(part, _)| part.id == awaited && part.part == 0);
                if self.awaited.is_some_and(begins) {
                    self.awaited = None;
                    self.lost.passed_checkpoint(self.full);
                }
                return;
            }
            EntryKind::Footer => {
                if let Some(footer) = FooterHeader::decode(payload) {
                    let at = FooterAt {
                        generation: frame.generation,
                        sequence: frame.sequence,
                        position: at as u32,
                        length: entry.length,
                    };
                    // One that was written once more counts from its first part on, and only in one piece.
                    let parts = self.met.entry(footer.generation).or_default();
                    if footer.part as usize != parts.len() {
                        parts.clear();
                    }
                    if footer.part as usize == parts.len() {
                        parts.push((footer, at));
                    }
                    let whole = parts.len() == footer.parts as usize;
                    self.footer(&footer, payload, whole, replay);
                }
                return;
            }
            EntryKind::Beacon => return,
            EntryKind::AcceptedLoss => {
                self.accepted(payload);
                return;
            }
            _ => {
                let slot = self.groups.slot(entry.group);
                let group = self.groups.at_mut(slot);
                group.last_index = group.last_index.max(entry.index);
                if entry.kind == EntryKind::Trim {
                    self.trim(slot, payload);
                }
            }
        }
        if let Some(current) = self.current.as_mut() {
            current.worthy = true;
        }
        if self.awaited.is_none() {
            replay(Replayed::Entry { header: entry, payload, frame: frame.sequence });
        }
    }

    /// What an operator has accepted as lost; it is needed here until a checkpoint has it.
    fn accepted(&mut self, payload: &[u8]) {
        for range in accepted_ranges(payload).unwrap_or_default() {
            let slot = self.groups.slot(range.group);
            accept(&mut self.groups, &mut self.damage, slot, range.first, range.last);
        }
        if let Some(current) = self.current.as_mut() {
            current.worthy = true;
        }
    }

    fn batch(
        &mut self,
        frame: &FrameHeader,
        entry: EntryHeader,
        payload: &[u8],
        at: u64,
        replay: &mut Replay<'_>,
    ) {
        let Ok(batch) = BatchHeader::parse(payload) else { return };
        if let Some(current) = self.current.as_mut() {
            current.newest_us = current.newest_us.max(frame.wall_us);
        }
        let slot = self.groups.slot(entry.group);
        self.reach(slot, batch.base_offset, batch.last_offset(), frame.sequence, replay);
        let group = self.groups.at_mut(slot);
        group.last_index = group.last_index.max(entry.index);
        let run = Run {
            first_offset: batch.base_offset,
            last_offset: batch.last_offset(),
            max_timestamp_us: batch.max_timestamp_us,
            slot,
            start: at as u32,
            end: at as u32 + entry.total_bytes() as u32,
            frame: 0,
            bytes: entry.total_bytes() as u32,
        };
        self.runs.add(&mut self.groups, run, frame.sequence);
    }

    /// Records below an offset were taken away: nobody misses what of them is lost.
    fn trim(&mut self, slot: GroupSlot, payload: &[u8]) {
        let Some(offset) = trimmed_to(payload) else { return };
        let group = self.groups.at_mut(slot);
        group.log_end = group.log_end.max(offset);
        group.moved = true;
        let extents = &mut self.extents;
        self.groups.move_start(slot, offset, |row| extents.forget_rows([row]));
        self.lost.trimmed(slot, offset);
    }

    /// The group has records up to `last`; whether all before `first` were found, too.
    fn reach(&mut self, slot: GroupSlot, first: u64, last: u64, sequence: u64, replay: &mut Replay<'_>) {
        let group = self.groups.at_mut(slot);
        group.log_end = group.log_end.max(last + 1);
        // A group that no checkpoint lists was made after it, or dropped before it: then its past is of no interest.
        let unlisted = if self.awaited.is_some() { first } else { 0 };
        let missing = self.lost.reach(slot, unlisted, first, last, sequence);
        if let Some((first, last)) = missing {
            self.name(slot, first, last, replay);
        }
    }

    fn name(&mut self, slot: GroupSlot, first: u64, last: u64, replay: &mut Replay<'_>) {
        if self.damage.name(slot, first, last) {
            replay(Replayed::Damaged { group: Some(self.groups.at(slot).id), first, last });
        }
    }

    /// Frames are lost; `first` is 0 when they are the first of their extent.
    pub(crate) fn lost(&mut self, first: u64, last: u64, replay: &mut Replay<'_>) {
        let before = self.extents.live.back().map_or(0, |live| live.last_sequence);
        let first = if first == 0 { (before + 1).min(last) } else { first };
        let (extent, generation) =
            self.current.as_ref().map_or((0, 0), |live| (live.extent, live.generation));
        let unreadable = self.unreadable.map(|position| (extent, position));
        self.lost.add(generation, (first, last), self.awaited.is_some(), unreadable);
        replay(Replayed::Damaged { group: None, first, last });
    }

    /// A sector that could not be read, where nothing else tells what is lost with it.
    pub(crate) fn undecided(&self) -> Option<(u32, u64)> {
        self.lost.undecided()
    }

    /// The index of an extent, in a later one: it tells what lost frames held.
    fn footer(&mut self, footer: &FooterHeader, payload: &[u8], whole: bool, replay: &mut Replay<'_>) {
        if !self.lost.concerns(footer.generation) {
            return;
        }
        let mut index = Runs::default();
        if index.decode_part(payload, footer.generation, footer.part, &mut self.groups).is_none() {
            return;
        }
        for run in &index.sorted {
            let sequence = index.first_sequence + u64::from(run.frame);
            if self.lost.holds(footer.generation, sequence) {
                self.name(run.slot, run.first_offset, run.last_offset, replay);
                self.reach(run.slot, run.first_offset, run.last_offset, sequence, replay);
            }
        }
        if whole {
            self.lost.told(footer.generation);
        }
    }

    /// All was read: names what is missing at the end of groups, and the groups of which nobody can tell.
    pub(crate) fn finish(&mut self, replay: &mut Replay<'_>) {
        if self.lost.is_empty() {
            return;
        }
        self.untold = self.lost.is_untold();
        for slot in self.groups.slots() {
            let group = self.groups.at(slot);
            let (id, log_end) = (group.id, group.log_end);
            if let Some(reached) = self.lost.reached(slot).filter(|reached| *reached < log_end) {
                self.name(slot, reached, log_end - 1, replay);
            }
            if self.lost.may_concern(slot) {
                self.possibly_lost.push((slot, log_end));
                replay(Replayed::PossiblyLost { group: id, first: log_end });
            }
        }
    }

    /// The extent ends at `end`; without any frame it never came to be.
    pub(crate) fn end_extent(&mut self, end: u64, last: Option<u64>) {
        let Some(mut live) = self.current.take() else { return };
        let Some(last) = last else { return };
        if self.runs.generation() != Some(live.generation) {
            live.first_sequence = last;
            self.runs.restart(live.generation, last, &mut self.groups);
        }
        live.end = end;
        live.last_sequence = last.max(live.first_sequence);
        let generation = live.generation;
        let (_, runs) = self.runs.close(&mut self.groups, self.footers.buffer());
        runs.rows(generation, &self.groups).for_each(|row| live.add_row(row));
        live.scattered = runs.is_scattered();
        live.indexed = runs.sorted.is_empty();
        if live.indexed {
            self.footers.take_back(runs.sorted);
        } else {
            self.footers.closed(generation, runs);
        }
        self.extents.live.push_back(live);
        let repeated = self.groups.take_repeated();
        self.extents.forget_rows(repeated);
    }

    /// Takes extents that hold nothing out of the log, and settles which footers are already written. What is
    /// given back may be used again once the next start is durable.
    pub(crate) fn retire_empty(&mut self, checkpoints: &[CheckpointAt]) -> Vec<u32> {
        let mut met = std::mem::take(&mut self.met);
        let mut retired = Vec::new();
        let needed: Vec<u64> = self
            .extents
            .live
            .iter()
            .flat_map(|live| live.footers.iter().map(|footer| footer.generation))
            .collect();
        let needed = |generation: u64| {
            // What a checkpoint lists must be there until another one leaves it out.
            generation <= self.listed
                || needed.contains(&generation)
                || checkpoints.iter().any(|place| place.is_in(generation))
        };
        let mut gone = Vec::new();
        self.extents.live.retain(|live| {
            let stays = live.pack || live.worthy || needed(live.generation);
            if !stays {
                retired.push(live.extent);
                gone.push(live.generation);
            }
            stays
        });
        for generation in &gone {
            self.footers.forget(*generation);
        }
        // A pack has its index in itself; parts that were met under its generation are of an extent it was made from.
        for live in self.extents.live.iter_mut().filter(|live| !live.pack) {
            let Some(mut parts) = met.remove(&live.generation) else { continue };
            parts.retain(|(_, at)| !gone.contains(&at.generation));
            let whole = parts.first().is_some_and(|(footer, _)| footer.parts as usize == parts.len());
            if whole && (!live.indexed || !live.footers.is_empty()) {
                live.footers = parts.into_iter().map(|(_, at)| at).collect();
                live.indexed = true;
                self.footers.written(live.generation);
            }
        }
        retired
    }
}
