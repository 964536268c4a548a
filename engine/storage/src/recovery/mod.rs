//! Opening a log: the one path from a directory to a running [`Log`], after a clean stop and after a crash.
//!
//! Superblock (`superblock.rs`, or `found.rs` for a new log) -> first frame of every extent (`probe.rs`) ->
//! checkpoints (`restore.rs`) -> the extents behind them (`walk.rs`) -> new term, fresh extent (`begin.rs`). Each
//! step is a stage that waits for completions. `plan.rs` decides which extents are the log, `scan.rs` judges
//! frames, `apply.rs` rebuilds the index from them.
//!
//! **Invariant:** nothing on the disk changes before the verdict over all of it is known.

mod apply;
mod begin;
mod found;
mod lost;
mod plan;
mod probe;
mod reader;
mod restore;
mod scan;
mod superblock;
pub(crate) mod survey;
mod walk;

use corelog_model::time::Now;
use corelog_model::{Block, GroupId, Slice, Term};

use crate::checkpoint::CheckpointKind;
use crate::config::{ConfigError, Copier, LogConfig, Memory};
use crate::error::OpenError;
use crate::frame::{EntryHeader, FrameSeed};
use crate::log::Log;
use crate::op::{DiskCompletion, DiskOp, FileName, Listing, Purpose};
use crate::salvage::Salvage;
use crate::superblock::{SUPERBLOCK_COPIES, Superblock};
use apply::Applied;
use plan::{Candidate, Planned};
use reader::Reader;
use scan::Scan;

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
    /// Frames that are lost held nobody knows what, and perhaps records of this group: all before `first` is
    /// accounted for, what was behind it is not.
    PossiblyLost {
        /// Whose.
        group: GroupId,
        /// First offset that may have been given and lost; it will be given again, in a newer term.
        first: u64,
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
        /// Reads that have failed, by their tickets.
        again: Vec<(u64, Salvage)>,
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
    /// Making durable what was found: so many flushes are on their way.
    Settling {
        outstanding: usize,
    },
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
    /// It is only to be looked at: nothing is written.
    surveys: bool,
    /// Whether configuration and memory can work.
    checked: Result<(), ConfigError>,
    seed: FrameSeed,
    window: Vec<Block>,
    copy: Copier,
    /// Blocks for reads that are not away, and how many there are in all.
    pool: Vec<Block>,
    blocks: usize,
    /// The log's once it starts.
    settle: Vec<Block>,
    /// Of the superblock; the log's once it starts.
    page: Option<Block>,
    /// For the log's scrubber.
    scrub: Option<Block>,
    listing: Listing,
    now: Now,
    stage: Stage,
    ticket: u64,
    reader: Reader,
    superblock: Superblock,
    /// Its incompatible features, as they are on the disk.
    features: u64,
    /// The copy that it was read from, or written to last.
    newest_copy: u8,
    /// Which copies verify.
    whole_copies: [bool; SUPERBLOCK_COPIES as usize],
    candidates: Vec<Candidate>,
    planned: Vec<Planned>,
    applied: Applied,
    /// Highest seen anywhere.
    last_sequence: u64,
    last_crc: u32,
    /// Sequence of the last frame of the checkpoints: all up to it was durable, for the superblock names them.
    checkpointed: u64,
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
            copy: memory.copy,
            blocks: memory.cold.len(),
            pool: memory.cold,
            settle: memory.settle,
            page: Some(memory.page),
            scrub: memory.scrub,
            listing,
            now,
            stage: Stage::Idle,
            ticket: 0,
            reader: Reader::new(FileName::Superblock, 0, 0),
            superblock,
            features: 0,
            newest_copy: SUPERBLOCK_COPIES - 1,
            whole_copies: [true; SUPERBLOCK_COPIES as usize],
            candidates: Vec::new(),
            planned: Vec::new(),
            applied,
            last_sequence: 0,
            last_crc: 0,
            checkpointed: 0,
            term: Term(0),
            generation: 0,
            config,
            surveys: false,
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
                let taken = self.reader.take(ticket, completion, &mut self.pool, now, out);
                taken.map_err(|error| OpenError::Disk { file, position: 0, error })?;
                self.advance(replay, out).map(|()| None)
            }
            Stage::Settling { .. } => self.on_settled(completion, out).map(|()| None),
            Stage::Starting { .. } => self.on_started(completion, out),
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
            Stage::Draining if self.pool.len() == self.blocks => self.settle(out),
            _ => Ok(()),
        }
    }
}
