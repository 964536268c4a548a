//! The last step of an opening: the log as one value, and the first frame of its new term.

use corelog_model::Term;

use super::apply::Applied;
use super::{Opening, Stage};
use crate::append::Queue;
use crate::arena::Arena;
use crate::checkpoint::Checkpoints;
use crate::cold::Cold;
use crate::commit::Commit;
use crate::error::OpenError;
use crate::extent::{Extents, GENERATIONS_SKIPPED, RESERVE, Spare};
use crate::frame::FLAG_START;
use crate::log::Log;
use crate::meet::Meet;
use crate::op::{DiskCompletion, DiskError, DiskOp, FileName, Listing, Purpose};
use crate::scrub::Scrub;
use crate::settle::Settle;
use crate::superblock::SuperblockWriter;
use crate::window::Window;

impl Opening {
    /// Flushes every extent that was scanned. A process that was killed, with the power on, leaves frames that were
    /// written and not flushed: they were read from a cache, and from here on they count as durable.
    pub(super) fn settle(&mut self, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        if self.surveys {
            self.stage = Stage::Done;
            return Ok(());
        }
        if self.planned.is_empty() {
            return self.begin(out);
        }
        self.stage = Stage::Settling { outstanding: self.planned.len() };
        out.extend(self.planned.iter().map(|planned| {
            let extent = planned.extent;
            DiskOp::Sync { id: Purpose::OpeningSync { extent }.id(), file: FileName::Extent(extent) }
        }));
        Ok(())
    }

    /// Takes the end of a flush; the last one lets the log begin.
    pub(super) fn on_settled(
        &mut self,
        completion: DiskCompletion,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        let Some(Purpose::OpeningSync { extent }) = Purpose::of(completion.id) else { return Ok(()) };
        let Stage::Settling { outstanding } = &mut self.stage else { return Ok(()) };
        let file = FileName::Extent(extent);
        completion.result.map_err(|error| OpenError::Disk { file, position: 0, error })?;
        *outstanding -= 1;
        if *outstanding == 0 { self.begin(out) } else { Ok(()) }
    }

    /// Everything is known: builds the log and appends the first frame of the new term.
    pub(super) fn begin(&mut self, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        let config = self.config.clone();
        let places = std::mem::take(&mut self.superblock.checkpoints);
        let retired = self.applied.retire_empty(&places);
        self.superblock.checkpoints = places;
        let mut applied = std::mem::replace(&mut self.applied, Applied::new(self.seed, &config));
        let extents = &mut applied.extents;
        let prepared = |extent| if self.superblock.is_written(extent) { config.extent_bytes } else { 0 };
        for live in extents.live.iter_mut().filter(|live| !live.pack) {
            live.prepared = prepared(live.extent);
        }
        for candidate in &self.candidates {
            let spare = Spare { extent: candidate.extent, prepared: prepared(candidate.extent) };
            if retired.contains(&candidate.extent) {
                extents.retiring.push(spare);
            } else if extents.live.iter().all(|live| live.file() != FileName::Extent(candidate.extent)) {
                extents.spare.push_back(spare);
            }
        }
        let numbers = self.listing.files.iter().filter_map(|(file, _)| match file {
            FileName::Extent(extent) => Some(*extent + 1),
            _ => None,
        });
        extents.next_number = numbers.max().unwrap_or(0);
        find_packs(&self.listing, extents);
        let scanned = extents.live.iter().map(|live| live.generation).max().unwrap_or(0);
        extents.next_generation = self.generation.max(scanned) + GENERATIONS_SKIPPED;
        // Sequences of frames that were cut are used again, in another generation.
        let (listed, term) = (applied.listed, Term(self.term.0 + 1));
        let fresh = extents.live.is_empty();
        let page = self.page.take().expect("a log begins once");
        let mut log = Box::new(Log {
            seed: self.seed,
            term,
            target: config.frame_target_bytes,
            arena: Arena::new(std::mem::take(&mut self.window), self.copy),
            window: Window::new(config.entries_in_window),
            groups: applied.groups,
            queue: Queue::new(self.last_sequence + 1),
            commit: Commit::new(self.last_sequence, self.last_crc, config.frames_in_flight),
            extents: applied.extents,
            runs: applied.runs,
            footers: applied.footers,
            checkpoints: Checkpoints::new(config.checkpoint_bytes, term, listed, config.max_batch_bytes),
            superblock: SuperblockWriter::new(
                self.superblock.clone(),
                self.newest_copy,
                self.whole_copies,
                self.features,
                page,
            ),
            cold: Cold::new(std::mem::take(&mut self.pool)),
            meet: Meet::new(),
            scrub: Scrub::new(self.scrub.take(), config.scrub_us),
            settle: Settle::new(std::mem::take(&mut self.settle)),
            damage: applied.damage,
            possibly_lost: applied.possibly_lost,
            untold: applied.untold,
            moved_starts: std::collections::VecDeque::new(),
            trims: crate::trim::Trims::default(),
            counters: crate::stats::Counters::default(),
            config,
        });
        log.groups.recount();
        log.checkpoints.since_bytes = applied.replayed_bytes;
        log.open_frame(0, FLAG_START);
        log.close_frame();
        log.cut(self.now, out);
        self.stage = Stage::Starting { log, first: self.last_sequence + 1, fresh };
        Ok(())
    }

    /// Takes a completion of the first frame, or of what it waits for; the log once it is durable.
    pub(super) fn on_started(
        &mut self,
        completion: DiskCompletion,
        out: &mut Vec<DiskOp>,
    ) -> Result<Option<Log>, OpenError> {
        let now = self.now;
        let Stage::Starting { log, first, fresh } = &mut self.stage else { return Ok(None) };
        let failed = completion.result.err();
        log.on(completion, now);
        log.cut(now, out);
        let extents = &log.extents;
        let durable = log.durable_frame() >= *first;
        let stuck = log.commit.submitted < *first && extents.spare.is_empty() && extents.creating.is_none();
        let short = stuck || (durable && extents.spare.len() < RESERVE);
        if let Some(error) = extents.refused.filter(|_| *fresh && short) {
            let file = FileName::Extent(extents.next_number);
            return Err(match error {
                DiskError::NoSpace => {
                    let extents = RESERVE as u64 + 1;
                    OpenError::NoRoom { extents, extent_bytes: self.config.extent_bytes }
                }
                error => OpenError::Disk { file, position: 0, error },
            });
        }
        if durable && (!*fresh || extents.spare.len() >= RESERVE) {
            let Stage::Starting { log, .. } = std::mem::replace(&mut self.stage, Stage::Done) else {
                return Ok(None);
            };
            return Ok(Some(*log));
        }
        match failed {
            Some(error) if log.is_read_only() || stuck => {
                let file = FileName::Extent(extents.next_number);
                Err(OpenError::Disk { file, position: 0, error })
            }
            _ => Ok(None),
        }
    }
}

/// Numbers of packs go on behind those that are there; one that no checkpoint lists was being made when the log stopped:
/// what it was made from is still there, and it goes.
fn find_packs(listing: &Listing, extents: &mut Extents) {
    for file in listing.names() {
        let FileName::Pack(pack) = file else { continue };
        extents.next_pack = extents.next_pack.max(pack.saturating_add(1));
        if extents.live.iter().all(|live| live.file() != file) {
            extents.leftover.push(file);
        }
    }
}
