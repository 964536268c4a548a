//! Settling: extents whose records lie in short runs become a pack, a file that holds the same batches sorted by group.
//!
//! Sources are chosen (`choose.rs`), their indexes gathered and laid out (`layout.rs`), their batches verified and copied
//! in passes (`copy.rs`, `pass.rs`), the pack's own index put behind them, all of it flushed; then the pack takes their
//! place in the index and in the list of extents (`switch.rs`), and the full checkpoint that follows leaves them out.
//!
//! **Invariants:** until that checkpoint is named by the superblock a crash finds the sources, and the pack is a file that
//! nobody knows and the next start removes. One pack is made at a time. A source that does not verify, or that the disk
//! does not give, stays as it is. A pack never has room that an extent needs.

mod choose;
mod copy;
mod layout;
mod pace;
mod pass;
mod switch;

use std::ops::Range;

use corelog_model::time::Now;
use corelog_model::{Block, BlockId};

use crate::config::SETTLE_BLOCKS_MIN;
use crate::extent::{FooterAt, Live};
use crate::index::Runs;
use crate::log::Log;
use crate::op::{DiskError, DiskOp, FileName, Purpose, RETRY_US};
use layout::{Layout, Piece};
use pace::{Pace, QUIET_US};

/// No pack is longer: positions in it are 32 bits.
pub(crate) const PACK_BYTES_LIMIT: u64 = u32::MAX as u64;
/// Frames of a pack have generations and sequences of their own, above all that a log ever gives.
const PACK_SPACE: u64 = 1 << 55;
/// Frames that a pack may have, as bits of a sequence.
const FRAME_BITS: u32 = 24;

/// The generation that frames of a pack carry.
pub(crate) const fn pack_generation(pack: u32) -> u64 {
    PACK_SPACE | pack as u64
}

/// The sequence of a pack's first frame.
pub(crate) const fn pack_sequence(pack: u32) -> u64 {
    PACK_SPACE | (pack as u64) << FRAME_BITS
}

/// Runs of all sources of a pack, unless a single source has more.
const PIECES_MAX: usize = 128 << 10;
/// Each failure in a row doubles the time until the next attempt, so often at most: to a quarter of an hour.
const BACKOFF_MAX: u32 = 10;
/// Reads of sources under way at most.
const READERS_MAX: usize = 8;

/// Packs are numbered below this: their sequences stay in the bits that they have.
const PACKS_LIMIT: u32 = 1 << (55 - FRAME_BITS);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    /// Taking the runs of the sources, from the index of each: this one is next.
    Indexing {
        source: usize,
    },
    Creating,
    /// Filling the frames of a pass.
    Reading,
    /// Writing them.
    Writing,
    /// Writing the index of the pack: the part that is next.
    Footers {
        part: usize,
    },
    Syncing,
    /// The pack is whole and takes its place as soon as no index of a source is being loaded.
    Switching,
    /// Given up; operations that are under way still end.
    Draining,
}

/// An extent or a pack that a pack is made from.
#[derive(Clone, Copy, Debug)]
struct Source {
    generation: u64,
    file: FileName,
    first_sequence: u64,
}

/// A block for reads of the sources.
struct Reader {
    id: BlockId,
    /// `None` while a read has it.
    block: Option<Block>,
    fetch: layout::Fetch,
}

/// A block that a frame of the pack is put together in.
struct Frame {
    block: Block,
    /// It is being written.
    busy: bool,
    length: u32,
}

pub(crate) struct Settle {
    readers: Vec<Reader>,
    frames: Vec<Frame>,
    stage: Stage,
    sources: Vec<Source>,
    /// Runs of the sources; from the layout on in the order of the pack.
    pieces: Vec<Piece>,
    layout: Layout,
    /// Frames of the pass, and its pieces in the order of the sources; the next one of either.
    pass: Range<usize>,
    order: Vec<u32>,
    next: usize,
    in_flight: usize,
    pace: Pace,
    /// The file of this pack is there, and not in use yet.
    made: bool,
    pack: u32,
    /// Where the next frame goes, its number, and the header CRC of the one before it.
    end: u64,
    frame: u32,
    crc: u32,
    /// The pack's index.
    runs: Runs,
    footers: Vec<FooterAt>,
    scratch: Vec<u8>,
    /// After a failure, when to try again, monotonic microseconds; and how many there were in a row.
    retry_us: Option<u64>,
    failures: u32,
    /// There is more to do in the next turn, though no operation is under way.
    again: bool,
    /// Generations of sources that did not verify: not tried again before the next start.
    unfit: Vec<u64>,
}

impl Settle {
    pub(crate) fn new(mut blocks: Vec<Block>) -> Self {
        if blocks.len() < SETTLE_BLOCKS_MIN {
            blocks.clear();
        }
        let readers = blocks.split_off(blocks.len() - blocks.len().div_ceil(4).min(READERS_MAX));
        let fetch = layout::Fetch { from: 0, to: 0, position: 0, length: 0 };
        let reader = |block: Block| Reader { id: block.id(), block: Some(block), fetch };
        Self {
            readers: readers.into_iter().map(reader).collect(),
            frames: blocks.into_iter().map(|block| Frame { block, busy: false, length: 0 }).collect(),
            stage: Stage::Idle,
            sources: Vec::new(),
            pieces: Vec::new(),
            layout: Layout::default(),
            pass: 0..0,
            order: Vec::new(),
            next: 0,
            in_flight: 0,
            pace: Pace::default(),
            made: false,
            pack: 0,
            end: 0,
            frame: 0,
            crc: 0,
            runs: Runs::default(),
            footers: Vec::new(),
            scratch: Vec::new(),
            retry_us: None,
            failures: 0,
            again: false,
            unfit: Vec::new(),
        }
    }

    /// The bytes of a frame that is being written.
    pub(crate) fn bytes(&self, id: BlockId) -> Option<&[u8]> {
        self.frames.iter().find(|frame| frame.block.id() == id).map(|frame| frame.block.bytes())
    }

    /// Of the first and the last source.
    fn generations(&self) -> (u64, u64) {
        let of = |source: Option<&Source>| source.expect("a pack is made from something").generation;
        (of(self.sources.first()), of(self.sources.last()))
    }

    /// When it wants a turn though nothing happens: after a pack, after a failure, after a rest; monotonic microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        match self.stage {
            Stage::Idle if self.again => Some(0),
            Stage::Idle => self.retry_us,
            Stage::Reading | Stage::Writing | Stage::Footers { .. } if self.in_flight == 0 => {
                Some(self.pace.rest_us())
            }
            _ => None,
        }
    }
}

impl Log {
    /// Whatever settling can do now; part of every cut.
    pub(crate) fn settle(&mut self, now: Now, out: &mut Vec<DiskOp>) {
        self.settle.again = false;
        match self.settle.stage {
            Stage::Idle => self.begin_settling(now, out),
            Stage::Indexing { source } => self.gather(source, now, out),
            Stage::Reading => self.read_sources(now, out),
            Stage::Writing => self.write_frames(now, out),
            Stage::Footers { part } => self.write_pack_index(part, now, out),
            Stage::Switching => self.switch(now),
            Stage::Creating | Stage::Syncing | Stage::Draining => {}
        }
    }

    /// How many operations of settling may be under way, of those that there could be on a disk that nobody else needs.
    fn settling_most(&self, alone: usize, now: Now) -> usize {
        let writing = self.commit.submitted > self.commit.durable;
        let quiet = now.mono_us >= self.commit.last_durable_us.saturating_add(QUIET_US);
        match writing || !quiet {
            true if now.mono_us < self.settle.pace.rest_us() => 0,
            true => 1,
            false => alone,
        }
    }

    /// Takes the runs of the sources, as their indexes come, and lays the pack out.
    fn gather(&mut self, from: usize, now: Now, out: &mut Vec<DiskOp>) {
        if !self.are_sources_unchanged() {
            return self.give_up(now);
        }
        for source in from..self.settle.sources.len() {
            self.settle.stage = Stage::Indexing { source };
            let generation = self.settle.sources[source].generation;
            if self.extents.by_generation(generation).is_some_and(Live::is_bare) {
                continue;
            }
            let Some(runs) = self.footers.get(generation) else {
                if self.footers.failed_us.is_some_and(|at| now.mono_us < at + RETRY_US) {
                    return self.give_up(now);
                }
                if self.footers.loading.is_none() {
                    self.begin_loading(generation, None, out);
                }
                return;
            };
            let groups = &self.groups;
            let wanted = |run: &&crate::index::Run| {
                let group = groups.at(run.slot);
                !group.dropped && run.last_offset >= group.log_start
            };
            let pieces = &mut self.settle.pieces;
            let before = pieces.len();
            pieces.extend(runs.sorted.iter().filter(wanted).map(|run| Piece::of(run, source as u32)));
            // The sources from here on wait for the next pack.
            if source > 0 && pieces.len() > PIECES_MAX {
                pieces.truncate(before);
                self.settle.sources.truncate(source);
                break;
            }
        }
        self.create_pack(now, out);
    }

    fn create_pack(&mut self, now: Now, out: &mut Vec<DiskOp>) {
        if self.extents.refused.is_some() {
            return self.give_up(now);
        }
        let frame_bytes = self.config.max_frame_bytes();
        let settle = &mut self.settle;
        settle.layout.make(&mut settle.pieces, frame_bytes);
        // What it holds of a group in a frame is a run of its index, so there are fewer of them than pieces.
        let part_bytes = self.footers.part_bytes();
        let parts = settle.pieces.len() * crate::index::RUN_BYTES / (part_bytes / 2) + 1;
        let bytes =
            settle.layout.bytes + (parts * (part_bytes + 2 * corelog_model::limits::FRAME_ALIGN)) as u64;
        let bytes = bytes.next_multiple_of(corelog_model::limits::FRAME_ALIGN as u64);
        if settle.layout.frames() == 0 || bytes > PACK_BYTES_LIMIT || self.extents.next_pack >= PACKS_LIMIT {
            return self.give_up_for_good(now);
        }
        let pack = self.extents.next_pack;
        self.extents.next_pack += 1;
        (settle.pack, settle.end, settle.frame, settle.crc) = (pack, 0, 0, 0);
        settle.runs.sorted.clear();
        settle.runs.first_sequence = pack_sequence(pack);
        settle.footers.clear();
        settle.stage = Stage::Creating;
        settle.in_flight = 1;
        let (id, file) = (Purpose::CreatePack { pack }.id(), FileName::Pack(pack));
        out.push(DiskOp::CreateExtent { id, file, bytes });
    }

    pub(crate) fn on_pack_created(&mut self, pack: u32, result: Result<u32, DiskError>, now: Now) {
        if self.settle.stage != Stage::Creating || self.settle.pack != pack {
            return;
        }
        // One that could not be made may have left something behind.
        (self.settle.in_flight, self.settle.made) = (0, true);
        match result {
            Ok(_) if self.extents.refused.is_none() => self.begin_pass(0),
            _ => self.give_up(now),
        }
    }

    /// An extent found no room on the disk: the pack that is being made has perhaps taken it, and goes. One that is whole
    /// stays: it gives back more than it takes.
    pub(crate) fn make_room(&mut self, now: Now) {
        if matches!(self.settle.stage, Stage::Reading | Stage::Writing | Stage::Footers { .. }) {
            self.give_up(now);
        }
    }

    /// The pack is not to be, this time: its file goes, and after a while another attempt is made.
    fn give_up(&mut self, now: Now) {
        self.counters.packs_abandoned += 1;
        let settle = &mut self.settle;
        settle.retry_us = Some(now.mono_us + (RETRY_US << settle.failures.min(BACKOFF_MAX)));
        settle.failures += 1;
        settle.pieces.clear();
        settle.stage = Stage::Draining;
        self.end_draining();
    }

    /// The same, with sources that are not tried again.
    fn give_up_for_good(&mut self, now: Now) {
        let settle = &mut self.settle;
        settle.unfit.extend(settle.sources.iter().map(|source| source.generation));
        self.give_up(now);
    }

    /// What was given up is over once nothing of it is under way.
    fn end_draining(&mut self) {
        let settle = &mut self.settle;
        if settle.stage != Stage::Draining || settle.in_flight > 0 {
            return;
        }
        if settle.made {
            settle.made = false;
            self.extents.leftover.push(FileName::Pack(settle.pack));
        }
        settle.sources.clear();
        settle.stage = Stage::Idle;
    }
}
