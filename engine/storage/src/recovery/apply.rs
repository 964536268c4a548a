//! What frames and checkpoints add up to: extents, groups, indexes, damage.
//!
//! **Invariant:** frames are applied in log order; only entries behind the newest checkpoint are replayed to the
//! owner, all others merely indexed.

use std::collections::HashMap;

use corelog_model::batch::BatchHeader;

use super::plan::Planned;
use super::scan::{Entry, entries_of};
use super::{Replay, Replayed};
use crate::checkpoint::{PartHeader, decode_state};
use crate::config::LogConfig;
use crate::extent::{Extents, FooterAt, Live};
use crate::footer::Footers;
use crate::frame::{EntryHeader, EntryKind, FrameHeader, FrameSeed};
use crate::groups::Groups;
use crate::index::{FooterHeader, OpenRuns, Run};
use crate::log::Damage;
use crate::superblock::CheckpointAt;

pub(crate) struct Applied {
    seed: FrameSeed,
    pub(crate) extents: Extents,
    pub(crate) groups: Groups,
    pub(crate) runs: OpenRuns,
    pub(crate) footers: Footers,
    pub(crate) damage: Vec<Damage>,
    /// Newest generation that a checkpoint covers.
    pub(crate) listed: u64,
    /// Log bytes behind the newest checkpoint.
    pub(crate) replayed_bytes: u64,
    /// The checkpoint whose first part starts the replay; `None` once it was passed.
    awaited: Option<u64>,
    /// Something was lost: a gap in a group's offsets is damage from here on.
    suspicious: bool,
    current: Option<Live>,
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
            damage: Vec::new(),
            listed: 0,
            replayed_bytes: 0,
            awaited: None,
            suspicious: false,
            current: None,
            met: HashMap::new(),
            config: config.clone(),
        }
    }

    /// A full checkpoint begins: nothing before it counts.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.seed, &self.config.clone());
    }

    pub(crate) fn checkpoint(&mut self, own: &[u8]) -> bool {
        let covers = decode_state(own, &mut self.extents, &mut self.groups);
        self.listed = covers.unwrap_or(0);
        covers.is_some()
    }

    pub(crate) fn expect_checkpoint(&mut self, id: Option<u64>) {
        self.awaited = id;
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
                let group = self.groups.at_mut(slot);
                (group.log_end, group.last_index) = (group.log_end.max(batch.next_offset()), entry.index);
                let (first, last) = (batch.base_offset, batch.last_offset());
                self.damage.push(Damage { slot, first, last });
                replay(Replayed::Damaged { group: Some(entry.group), first, last });
            }
        });
        if damaged && stopped < header.used as usize {
            self.suspicious = true;
            replay(Replayed::Damaged { group: None, first: header.sequence, last: header.sequence });
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
                    self.met.entry(footer.generation).or_default().push((footer, at));
                }
                return;
            }
            EntryKind::Beacon => return,
            _ => {
                let slot = self.groups.slot(entry.group);
                let group = self.groups.at_mut(slot);
                group.last_index = group.last_index.max(entry.index);
            }
        }
        if let Some(current) = self.current.as_mut() {
            current.worthy = true;
        }
        if self.awaited.is_none() {
            replay(Replayed::Entry { header: entry, payload, frame: frame.sequence });
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
        let slot = self.groups.slot(entry.group);
        let group = self.groups.at_mut(slot);
        let gap = batch.base_offset > group.log_end && self.awaited.is_none();
        if gap && self.suspicious {
            let (first, last) = (group.log_end, batch.base_offset - 1);
            self.damage.push(Damage { slot, first, last });
            replay(Replayed::Damaged { group: Some(entry.group), first, last });
        }
        let group = self.groups.at_mut(slot);
        group.log_end = group.log_end.max(batch.next_offset());
        group.last_index = group.last_index.max(entry.index);
        let run = Run {
            first_offset: batch.base_offset,
            last_offset: batch.last_offset(),
            max_timestamp_us: batch.max_timestamp_us,
            slot,
            start: at as u32,
            end: at as u32 + entry.total_bytes() as u32,
            frame: 0,
        };
        self.runs.add(&mut self.groups, run, frame.sequence);
    }

    pub(crate) fn lost(&mut self, first: u64, last: u64, replay: &mut Replay<'_>) {
        self.suspicious = true;
        replay(Replayed::Damaged { group: None, first, last });
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
        live.groups = runs.groups(&self.groups);
        live.indexed = runs.sorted.is_empty();
        if live.indexed {
            self.footers.take_back(runs.sorted);
        } else {
            self.footers.closed(generation, runs);
        }
        self.extents.live.push_back(live);
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
            let stays = live.worthy || needed(live.generation);
            if !stays {
                retired.push(live.extent);
                gone.push(live.generation);
            }
            stays
        });
        for generation in &gone {
            self.footers.forget(*generation);
        }
        for live in &mut self.extents.live {
            let Some(mut parts) = met.remove(&live.generation) else { continue };
            parts.retain(|(_, at)| !gone.contains(&at.generation));
            parts.sort_unstable_by_key(|(footer, _)| footer.part);
            parts.dedup_by_key(|(footer, _)| footer.part);
            let whole = parts.first().is_some_and(|(footer, _)| footer.parts as usize == parts.len());
            if whole && !live.indexed {
                live.footers = parts.into_iter().map(|(_, at)| at).collect();
                live.indexed = true;
                self.footers.written(live.generation);
            }
        }
        retired
    }
}
