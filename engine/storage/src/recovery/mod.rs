//! Opening a log: the one path from a directory to a running [`Log`], after a clean stop and after a crash.
//!
//! Superblock -> first frame of every extent -> checkpoints -> scan -> new term, fresh extent. Each step is a
//! stage that waits for completions; `plan.rs` decides which extents are the log, `scan.rs` judges frames,
//! `apply.rs` rebuilds the index from them.
//!
//! **Invariant:** nothing on the disk changes before the verdict over all of it is known.

mod apply;
mod plan;
mod reader;
mod scan;

use corelog_model::limits::FRAME_ALIGN;
use corelog_model::time::Now;
use corelog_model::{Block, GroupId, Slice, Term};

use crate::append::Queue;
use crate::arena::Arena;
use crate::checkpoint::{CheckpointKind, Checkpoints, PartHeader};
use crate::cold::Cold;
use crate::commit::Commit;
use crate::config::{ConfigError, LogConfig, Memory};
use crate::error::OpenError;
use crate::extent::{GENERATIONS_SKIPPED, RESERVE, Spare};
use crate::frame::{EntryHeader, EntryKind, FLAG_START, FrameHeader, FrameSeed};
use crate::log::Log;
use crate::op::{DiskCompletion, DiskOp, FileName, Listing, Purpose};
use crate::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_COPIES, Superblock, SuperblockWriter, slice_of};
use crate::window::Window;
use apply::Applied;
use plan::{Candidate, Planned};
use reader::Reader;
use scan::{Entry, Scan, Step, entries_of};

/// What the log's owner is told while the log opens, in this order: checkpoint parts, then what came after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed<'a> {
    /// A part of one of the owner's checkpoints; the parts of a full one replace all before them.
    Checkpoint {
        /// Full or incremental.
        kind: CheckpointKind,
        /// Its number among the owner's parts, from 0.
        part: u32,
        /// The content.
        bytes: &'a [u8],
    },
    /// An entry after the last checkpoint, in log order.
    Entry {
        /// Its header.
        header: EntryHeader,
        /// Exactly its payload.
        payload: &'a [u8],
        /// Sequence of its frame.
        frame: u64,
    },
    /// Acknowledged records that do not verify. They stay named and are never served.
    Damaged {
        /// Whose; `None` when only the frames are known.
        group: Option<GroupId>,
        /// First offset, or first frame.
        first: u64,
        /// Last offset, or last frame.
        last: u64,
    },
    /// Frames behind the log's end that were on their way when the log stopped; none was acknowledged.
    TailCut {
        /// How many left something recognisable.
        frames: u64,
    },
}

enum Stage {
    Idle,
    /// Reading copy `copy`; the others follow.
    Superblock {
        copy: u8,
        file: Vec<u8>,
    },
    /// Making the superblock of a new log and writing its copies, one by one: the next one.
    Found {
        copy: u8,
    },
    /// Creating and zeroing extents of a new log before it takes anything.
    Provision {
        extent: u32,
    },
    /// Reading the first header of each extent.
    Probe {
        next: usize,
        outstanding: usize,
    },
    Checkpoint {
        at: usize,
        scan: Scan,
        extent: u32,
        parts: Vec<Vec<u8>>,
        owner: u32,
    },
    Scan {
        at: usize,
        scan: Scan,
    },
    /// All is known; reads that are no longer needed bring their blocks back.
    Draining,
    Starting {
        log: Box<Log>,
        first: u64,
        /// It holds nothing yet: it is taken into use only with its whole reserve.
        fresh: bool,
    },
    Done,
}

/// A log on its way to be open.
pub struct Opening {
    config: LogConfig,
    /// Whether configuration and memory can work.
    checked: Result<(), ConfigError>,
    seed: FrameSeed,
    window: Vec<Block>,
    /// Blocks for reads that are not away, and how many there are in all.
    pool: Vec<Block>,
    blocks: usize,
    /// Of the superblock; the log's once it starts.
    page: Option<Block>,
    listing: Listing,
    now: Now,
    stage: Stage,
    ticket: u64,
    reader: Reader,
    superblock: Superblock,
    /// Which copy of it was the newest.
    newest_copy: u8,
    candidates: Vec<Candidate>,
    planned: Vec<Planned>,
    applied: Applied,
    /// Highest seen anywhere.
    last_sequence: u64,
    last_crc: u32,
    term: Term,
    generation: u64,
}

/// Whom the findings of an opening are told.
type Replay<'a> = dyn FnMut(Replayed<'_>) + 'a;

impl Opening {
    /// Prepares to open the log whose directory holds `listing`. Nothing is done before [`Opening::start`].
    pub fn new(config: LogConfig, memory: Memory, listing: Listing, now: Now) -> Self {
        let seed = FrameSeed { store: config.store, log: config.log };
        let superblock = Superblock::new(config.store, config.log, config.extent_bytes);
        let applied = Applied::new(seed, &config);
        let checked = config.check(&memory);
        let mut opening = Self {
            seed,
            window: memory.window,
            blocks: memory.cold.len(),
            pool: memory.cold,
            page: Some(memory.page),
            listing,
            now,
            stage: Stage::Idle,
            ticket: 0,
            reader: Reader::new(FileName::Superblock, 0, 0),
            superblock,
            newest_copy: SUPERBLOCK_COPIES - 1,
            candidates: Vec::new(),
            planned: Vec::new(),
            applied,
            last_sequence: 0,
            last_crc: 0,
            term: Term(0),
            generation: 0,
            config,
            checked,
        };
        if opening.checked.is_err() {
            opening.stage = Stage::Done;
        }
        opening
    }

    /// Asks for the first reads (or, in an empty directory, the first writes). Says at once what cannot work.
    pub fn start(&mut self, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        self.checked.map_err(OpenError::Config)?;
        let has = |wanted: fn(FileName) -> bool| self.listing.files.iter().any(|(file, _)| wanted(*file));
        let superblock = has(|file| file == FileName::Superblock);
        match (superblock, has(|file| matches!(file, FileName::Extent(_)))) {
            (false, true) => Err(OpenError::NoSuperblock),
            (false, false) => {
                self.found(out);
                Ok(())
            }
            (true, _) => {
                self.stage = Stage::Superblock { copy: 0, file: Vec::new() };
                self.read_copy(0, out);
                Ok(())
            }
        }
    }

    /// Takes a completion. `Some(log)` once the first frame of the new term is durable.
    pub fn on(
        &mut self,
        completion: DiskCompletion,
        now: Now,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<Option<Log>, OpenError> {
        self.now = now;
        match &mut self.stage {
            Stage::Idle | Stage::Done => Ok(None),
            Stage::Superblock { .. } => self.on_superblock(completion, replay, out).map(|()| None),
            Stage::Found { copy } => {
                let copy = *copy;
                self.on_found(copy, completion, replay, out).map(|()| None)
            }
            Stage::Provision { extent } => {
                let extent = *extent;
                self.on_provisioned(extent, completion, replay, out).map(|()| None)
            }
            Stage::Probe { .. } => self.on_probe(completion, replay, out).map(|()| None),
            Stage::Checkpoint { .. } | Stage::Scan { .. } | Stage::Draining => {
                let file = FileName::Extent(self.reading());
                let Some(Purpose::OpeningRead { ticket }) = Purpose::of(completion.id) else {
                    return Ok(None);
                };
                self.reader.take(ticket, completion, &mut self.pool).map_err(|error| OpenError::Disk {
                    file,
                    position: 0,
                    error,
                })?;
                self.advance(replay, out).map(|()| None)
            }
            Stage::Starting { .. } => self.on_starting(completion, out),
        }
    }

    fn on_starting(
        &mut self,
        completion: DiskCompletion,
        out: &mut Vec<DiskOp>,
    ) -> Result<Option<Log>, OpenError> {
        let Stage::Starting { log, first, fresh } = &mut self.stage else { return Ok(None) };
        let failed = completion.result.err();
        log.on(completion, self.now);
        log.cut(self.now, out);
        let extents = &log.extents;
        let durable = log.durable_frame() >= *first;
        let stuck = log.commit.submitted < *first && extents.spare.is_empty() && extents.creating.is_none();
        if *fresh && extents.refused && (stuck || (durable && extents.spare.len() < RESERVE)) {
            let extents = RESERVE as u64 + 1;
            return Err(OpenError::NoRoom { extents, extent_bytes: self.config.extent_bytes });
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

    /// The bytes of a frame that the opening log writes.
    ///
    /// # Panics
    /// When the slice is not of a write that this opening asked for.
    pub fn bytes(&self, slice: Slice) -> &[u8] {
        match (&self.stage, &self.page) {
            (Stage::Starting { log, .. }, _) => log.bytes(slice),
            (Stage::Found { .. }, Some(page)) => page.bytes(),
            _ => panic!("frames are written only once everything is known"),
        }
    }

    fn read_copy(&mut self, copy: u8, out: &mut Vec<DiskOp>) {
        let into = self.pool.pop().expect("the pool is whole between stages");
        out.push(DiskOp::Read {
            id: Purpose::OpeningRead { ticket: u64::from(copy) }.id(),
            file: FileName::Superblock,
            position: u64::from(copy) * SUPERBLOCK_BYTES as u64,
            length: SUPERBLOCK_BYTES as u32,
            into,
        });
    }

    fn on_superblock(
        &mut self,
        completion: DiskCompletion,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        let Stage::Superblock { copy, file } = &mut self.stage else { return Ok(()) };
        let Some(block) = completion.block else { return Ok(()) };
        let found = completion.result.unwrap_or(0) as usize;
        // A copy that cannot be read, or is cut short, is one that does not verify.
        file.extend_from_slice(&block.bytes()[..found.min(SUPERBLOCK_BYTES)]);
        file.resize((usize::from(*copy) + 1) * SUPERBLOCK_BYTES, 0);
        self.pool.push(block);
        *copy += 1;
        let next = *copy;
        if next < SUPERBLOCK_COPIES {
            self.read_copy(next, out);
            return Ok(());
        }
        let Some((newest, superblock)) = Superblock::newest(file) else {
            let extents = self.listing.files.iter().any(|(file, _)| matches!(file, FileName::Extent(_)));
            if extents {
                return Err(OpenError::NoSuperblock);
            }
            // The first superblock never became whole, so there is no log yet.
            self.found(out);
            return Ok(());
        };
        if (superblock.store, superblock.log) != (self.config.store, self.config.log) {
            return Err(OpenError::WrongStore { store: superblock.store, log: superblock.log.0 });
        }
        if superblock.unknown_features() != 0 {
            return Err(OpenError::Features { incompatible: superblock.unknown_features() });
        }
        if superblock.extent_bytes != self.config.extent_bytes {
            return Err(OpenError::ExtentBytes { found: superblock.extent_bytes });
        }
        (self.superblock, self.newest_copy) = (superblock, newest);
        self.term = self.superblock.term;
        self.generation = self.superblock.head_generation;
        self.probe(replay, out)
    }

    fn found(&mut self, out: &mut Vec<DiskOp>) {
        self.superblock.version = 1;
        self.superblock.encode(self.page.as_mut().expect("the log does not have it yet").bytes_mut());
        self.stage = Stage::Found { copy: 0 };
        let bytes = u64::from(SUPERBLOCK_COPIES) * SUPERBLOCK_BYTES as u64;
        out.push(DiskOp::CreateExtent {
            id: Purpose::Create { extent: 0 }.id(),
            file: FileName::Superblock,
            bytes,
        });
    }

    /// The file was made, or a copy was written.
    fn on_found(
        &mut self,
        copy: u8,
        completion: DiskCompletion,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        if let Err(error) = completion.result {
            return Err(OpenError::Disk { file: FileName::Superblock, position: 0, error });
        }
        if copy == SUPERBLOCK_COPIES {
            return self.provision(0, replay, out);
        }
        self.stage = Stage::Found { copy: copy + 1 };
        let source = slice_of(self.page.as_ref().expect("the log does not have it yet"));
        out.push(DiskOp::WriteSuperblock { id: Purpose::Superblock { copy }.id(), copy, source });
        Ok(())
    }

    fn provision(
        &mut self,
        extent: u32,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        if extent == self.config.provision_extents {
            return self.probe(replay, out);
        }
        self.stage = Stage::Provision { extent };
        let (file, bytes) = (FileName::Extent(extent), self.config.extent_bytes);
        out.push(DiskOp::CreateExtent { id: Purpose::Create { extent }.id(), file, bytes });
        Ok(())
    }

    fn on_provisioned(
        &mut self,
        extent: u32,
        completion: DiskCompletion,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        let (file, bytes) = (FileName::Extent(extent), self.config.extent_bytes);
        if let Err(error) = completion.result {
            return Err(OpenError::Disk { file, position: 0, error });
        }
        if matches!(Purpose::of(completion.id), Some(Purpose::Create { .. })) {
            out.push(DiskOp::Zero { id: Purpose::Zero { extent }.id(), file, position: 0, bytes });
            return Ok(());
        }
        self.listing.files.push((file, bytes));
        self.superblock.set_written(extent, true);
        self.provision(extent + 1, replay, out)
    }

    /// Reads the first header of every extent that has the right size.
    fn probe(&mut self, replay: &mut Replay<'_>, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        self.listing.files.sort_unstable();
        self.candidates = self
            .listing
            .files
            .iter()
            .filter_map(|(file, bytes)| match file {
                FileName::Extent(extent) if *bytes == self.config.extent_bytes => {
                    Some(Candidate { extent: *extent, first: None })
                }
                _ => None,
            })
            .collect();
        self.stage = Stage::Probe { next: 0, outstanding: 0 };
        self.pump_probe(out);
        self.end_probe(replay, out)
    }

    fn pump_probe(&mut self, out: &mut Vec<DiskOp>) {
        let Stage::Probe { next, outstanding } = &mut self.stage else { return };
        while *next < self.candidates.len() {
            let Some(into) = self.pool.pop() else { return };
            out.push(DiskOp::Read {
                id: Purpose::OpeningRead { ticket: *next as u64 }.id(),
                file: FileName::Extent(self.candidates[*next].extent),
                position: 0,
                length: FRAME_ALIGN as u32,
                into,
            });
            *next += 1;
            *outstanding += 1;
        }
    }

    fn on_probe(
        &mut self,
        completion: DiskCompletion,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        let Stage::Probe { outstanding, .. } = &mut self.stage else { return Ok(()) };
        let Some(Purpose::OpeningRead { ticket }) = Purpose::of(completion.id) else { return Ok(()) };
        let (Some(candidate), Some(block)) = (self.candidates.get_mut(ticket as usize), completion.block)
        else {
            return Ok(());
        };
        *outstanding -= 1;
        if let Err(error) = completion.result {
            let file = FileName::Extent(candidate.extent);
            return Err(OpenError::Disk { file, position: 0, error });
        }
        candidate.first = FrameHeader::decode(&block.bytes()[..FRAME_ALIGN], self.seed, 0);
        self.pool.push(block);
        self.pump_probe(out);
        self.end_probe(replay, out)
    }

    fn end_probe(&mut self, replay: &mut Replay<'_>, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        if !matches!(self.stage, Stage::Probe { outstanding: 0, .. }) {
            return Ok(());
        }
        for first in self.candidates.iter().filter_map(|candidate| candidate.first) {
            self.generation = self.generation.max(first.generation);
            self.term = self.term.max(first.term);
            self.last_sequence = self.last_sequence.max(first.sequence);
        }
        self.read_checkpoint(0, replay, out)
    }

    /// Goes through the chain of checkpoints, oldest first, then on to the scan.
    fn read_checkpoint(
        &mut self,
        at: usize,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        let Some(place) = self.superblock.checkpoints.get(at).copied() else {
            return self.plan(replay, out);
        };
        let error = OpenError::Checkpoint { extent: place.extent, position: place.position };
        let known = self.candidates.iter().any(|candidate| candidate.extent == place.extent);
        if !known
            || !place.position.is_multiple_of(FRAME_ALIGN as u64)
            || place.position >= self.config.extent_bytes
        {
            return Err(error);
        }
        let (reader, scan) = self.read_from(place.extent, place.generation, place.position);
        self.reader.replace(reader, &mut self.pool);
        self.stage = Stage::Checkpoint { at, scan, extent: place.extent, parts: Vec::new(), owner: 0 };
        self.advance(replay, out)
    }

    /// Frames of an extent from `position` to its seal, or to its end.
    fn read_from(&self, extent: u32, generation: u64, position: u64) -> (Reader, Scan) {
        let sealed = plan::successor(&self.candidates, generation).map(|(_, first)| first.seal.position);
        let end = sealed.unwrap_or(u64::MAX).min(self.config.extent_bytes);
        let reader = Reader::new(FileName::Extent(extent), position, end);
        (reader, Scan::at(self.seed, generation, position, end))
    }

    fn reading(&self) -> u32 {
        match &self.stage {
            Stage::Checkpoint { extent, .. } => *extent,
            Stage::Scan { at, .. } => self.planned[*at].extent,
            _ => 0,
        }
    }

    fn advance(&mut self, replay: &mut Replay<'_>, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        match self.stage {
            Stage::Checkpoint { .. } => self.advance_checkpoint(replay, out),
            Stage::Scan { .. } => self.advance_scan(replay, out),
            Stage::Draining if self.pool.len() == self.blocks => self.begin(out),
            _ => Ok(()),
        }
    }

    fn advance_checkpoint(
        &mut self,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        let Stage::Checkpoint { at, scan, parts, owner, .. } = &mut self.stage else { return Ok(()) };
        let at = *at;
        let place = self.superblock.checkpoints[at];
        let broken = OpenError::Checkpoint { extent: place.extent, position: place.position };
        let mut complete = false;
        while !complete {
            let header = match scan.step(self.reader.bytes(), self.reader.at_end()) {
                Step::NeedMore => {
                    self.reader.pump(&mut self.pool, &mut self.ticket, out);
                    return if self.pool.len() < self.blocks { Ok(()) } else { Err(broken) };
                }
                Step::Frame { header, damaged: false } => header,
                Step::End => return self.continue_checkpoint(broken, replay, out),
                _ => return Err(broken),
            };
            let frame = &self.reader.bytes()[..header.length as usize];
            let mut sound = true;
            entries_of(&header, self.seed, frame, |entry| {
                let Entry::Sound { header, payload, .. } = entry else { return };
                let part = match header.kind {
                    EntryKind::Checkpoint => {
                        PartHeader::decode(payload).filter(|(part, _)| part.id == place.id)
                    }
                    _ => None,
                };
                let Some((part, content)) = part else { return };
                if part.part == 0 && part.kind == CheckpointKind::Full {
                    self.applied.reset();
                }
                if part.owner {
                    replay(Replayed::Checkpoint { kind: part.kind, part: *owner, bytes: content });
                    *owner += 1;
                } else {
                    parts.push(content.to_vec());
                }
                complete = part.part + 1 == part.parts;
                sound &= !complete || self.applied.checkpoint(&parts.concat());
            });
            if !sound {
                return Err(broken);
            }
            scan.taken(&header);
            self.reader.consume(header.length as usize);
        }
        self.read_checkpoint(at + 1, replay, out)
    }

    /// The checkpoint runs on into the next extent.
    fn continue_checkpoint(
        &mut self,
        broken: OpenError,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        let Stage::Checkpoint { scan, .. } = &self.stage else { return Ok(()) };
        let Some((next, first)) = plan::successor(&self.candidates, scan.generation()) else {
            return Err(broken);
        };
        let (reader, following) = self.read_from(next, first.generation, 0);
        self.reader.replace(reader, &mut self.pool);
        if let Stage::Checkpoint { scan, extent, .. } = &mut self.stage {
            (*scan, *extent) = (following, next);
        }
        self.advance(replay, out)
    }

    fn plan(&mut self, replay: &mut Replay<'_>, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        let last = self.superblock.checkpoints.last();
        self.applied.expect_checkpoint(last.map(|place| place.id));
        for live in &self.applied.extents.live {
            let file = self.candidates.iter().find(|candidate| candidate.extent == live.extent);
            let other = |first: FrameHeader| first.generation != live.generation;
            if file.is_none_or(|candidate| candidate.first.is_some_and(other)) {
                return Err(OpenError::MissingExtent { extent: live.extent });
            }
        }
        let head = (self.superblock.head_extent, self.superblock.head_generation);
        self.planned = plan::chain(
            &self.candidates,
            self.applied.listed,
            last.map(|place| (place.extent, place.generation)),
            head,
        );
        self.scan(0, replay, out)
    }

    fn scan(&mut self, at: usize, replay: &mut Replay<'_>, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        let Some(planned) = self.planned.get(at) else {
            let nothing = Reader::new(FileName::Superblock, 0, 0);
            self.reader.replace(nothing, &mut self.pool);
            self.stage = Stage::Draining;
            return self.advance(replay, out);
        };
        if !self.candidates.iter().any(|candidate| candidate.extent == planned.extent) {
            return Err(OpenError::MissingExtent { extent: planned.extent });
        }
        let bytes = self.config.extent_bytes;
        let scan = match planned.seal {
            Some(seal) => {
                Scan::sealed(self.seed, planned.generation, seal.position.min(bytes), seal.sequence)
            }
            None => Scan::tail(self.seed, planned.generation, bytes, planned.begun),
        };
        let end = planned.seal.map_or(bytes, |seal| seal.position.min(bytes));
        let reader = Reader::new(FileName::Extent(planned.extent), 0, end);
        self.reader.replace(reader, &mut self.pool);
        self.applied.begin_extent(planned);
        self.stage = Stage::Scan { at, scan };
        self.advance(replay, out)
    }

    fn advance_scan(&mut self, replay: &mut Replay<'_>, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        loop {
            let Stage::Scan { at, scan } = &mut self.stage else { return Ok(()) };
            let at = *at;
            match scan.step(self.reader.bytes(), self.reader.at_end()) {
                Step::NeedMore => {
                    self.reader.pump(&mut self.pool, &mut self.ticket, out);
                    return Ok(());
                }
                Step::Frame { header, damaged } => {
                    let frame = &self.reader.bytes()[..header.length as usize];
                    self.term = self.term.max(header.term);
                    self.applied.frame(&header, frame, damaged, replay);
                    scan.taken(&header);
                    self.reader.consume(header.length as usize);
                }
                Step::Skipped { bytes } => self.reader.consume(bytes),
                Step::Lost { first, last } => self.applied.lost(first, last, replay),
                Step::Again { position } => {
                    let end = self.config.extent_bytes;
                    let file = FileName::Extent(self.planned[at].extent);
                    self.reader.replace(Reader::new(file, position, end), &mut self.pool);
                }
                Step::Tail { end, torn } => {
                    if torn > 0 {
                        replay(Replayed::TailCut { frames: torn });
                    }
                    let last = scan.last_sequence();
                    self.end_extent(at, end, last, replay, out)?;
                    return Ok(());
                }
                Step::End => {
                    let (end, last) = (scan.position, scan.last_sequence());
                    self.end_extent(at, end, last, replay, out)?;
                    return Ok(());
                }
            }
        }
    }

    fn end_extent(
        &mut self,
        at: usize,
        end: u64,
        last: Option<u64>,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        if let Stage::Scan { scan, .. } = &self.stage
            && let Some(last) = last
        {
            self.last_sequence = self.last_sequence.max(last);
            self.last_crc = scan.last_crc();
        }
        self.applied.end_extent(end, last);
        self.scan(at + 1, replay, out)
    }

    /// Everything is known: builds the log and appends the first frame of the new term.
    fn begin(&mut self, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        let config = self.config.clone();
        let places = std::mem::take(&mut self.superblock.checkpoints);
        let retired = self.applied.retire_empty(&places);
        self.superblock.checkpoints = places;
        let mut applied = std::mem::replace(&mut self.applied, Applied::new(self.seed, &config));
        let extents = &mut applied.extents;
        let prepared = |extent| if self.superblock.is_written(extent) { config.extent_bytes } else { 0 };
        for live in &mut extents.live {
            live.prepared = prepared(live.extent);
        }
        for candidate in &self.candidates {
            let spare = Spare { extent: candidate.extent, prepared: prepared(candidate.extent) };
            if retired.contains(&candidate.extent) {
                extents.retiring.push(spare);
            } else if extents.live.iter().all(|live| live.extent != candidate.extent) {
                extents.spare.push_back(spare);
            }
        }
        let numbers = self.listing.files.iter().filter_map(|(file, _)| match file {
            FileName::Extent(extent) => Some(*extent + 1),
            _ => None,
        });
        extents.next_number = numbers.max().unwrap_or(0);
        let scanned = extents.live.iter().map(|live| live.generation).max().unwrap_or(0);
        extents.next_generation = self.generation.max(scanned) + GENERATIONS_SKIPPED;
        // Sequences of frames that were cut are used again, in another generation.
        let listed = applied.listed;
        let term = Term(self.term.0 + 1);
        let fresh = extents.live.is_empty();
        let page = self.page.take().expect("a log begins once");
        let superblock = SuperblockWriter::new(self.superblock.clone(), self.newest_copy, page);
        let mut log = Box::new(Log {
            seed: self.seed,
            term,
            target: config.frame_target_bytes,
            arena: Arena::new(std::mem::take(&mut self.window)),
            window: Window::new(config.entries_in_window),
            groups: applied.groups,
            queue: Queue::new(self.last_sequence + 1),
            commit: Commit::new(self.last_sequence, self.last_crc, config.frames_in_flight),
            extents: applied.extents,
            runs: applied.runs,
            footers: applied.footers,
            checkpoints: Checkpoints::new(config.checkpoint_bytes, term, listed, config.max_batch_bytes),
            superblock,
            cold: Cold::new(std::mem::take(&mut self.pool)),
            damage: applied.damage,
            moved_starts: std::collections::VecDeque::new(),
            counters: crate::stats::Counters::default(),
            config,
        });
        log.checkpoints.since_bytes = applied.replayed_bytes;
        log.open_frame(0, FLAG_START);
        log.close_frame();
        log.cut(self.now, out);
        self.stage = Stage::Starting { log, first: self.last_sequence + 1, fresh };
        Ok(())
    }
}
