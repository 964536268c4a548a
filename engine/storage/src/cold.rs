//! Blocks for reads from the disk: in flight, or holding verified batches of one group for whoever asks.
//!
//! **Invariant:** a block that is away has no pins; a filled block's batches are consecutive, verified, and
//! described by `first..next` offsets.

use corelog_model::{Block, BlockId, Now, Slice};

use crate::groups::GroupSlot;
use crate::index::Run;
use crate::op::FileName;
use crate::salvage::{Salvage, Wanted};

/// Readers may send from a block for so long before it is wanted back for others, microseconds.
const KEEP_US: u64 = 1_000_000;
/// Runs that one read covers at most.
pub(crate) const RUNS_PER_READ: usize = 64;

/// What a read was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Batches of a group, the one that holds `offset` first; `next` is behind the last run planned.
    Batches { slot: GroupSlot, offset: u64, next: u64, generation: u64 },
    /// A piece of an extent's index: of its footer, or frames that it is derived from.
    Index { generation: u64 },
    /// Nothing any more: what it reads from has been superseded.
    Void,
}

/// Whom a block was read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadFor {
    /// A reader of whom nothing else is known.
    Anybody,
    /// One that reads in order: more is read ahead.
    OneInOrder,
    /// Read ahead, and not asked for yet.
    Nobody,
}

/// A read that a reader was told to wait for is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Of the reader.
    pub token: u64,
    /// The disk did not answer: asking again may help. Otherwise it is worth while.
    pub failed: bool,
}

/// A batch in a filled block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ColdBatch {
    pub(crate) slice: Slice,
    pub(crate) last_offset: u64,
}

pub(crate) struct ColdBlock {
    id: BlockId,
    /// `None` while a read has it.
    pub(crate) block: Option<Block>,
    pub(crate) job: Option<Job>,
    /// Where the block's first byte is from.
    pub(crate) file: FileName,
    pub(crate) position: u64,
    pub(crate) length: u32,
    /// The read has failed, and is made once more in pieces.
    pub(crate) salvage: Option<Salvage>,
    /// Bytes of the read under way: a piece may be all of them.
    lent: u32,
    pub(crate) runs: Vec<Run>,
    pub(crate) batches: Vec<ColdBatch>,
    pub(crate) filled: Option<Filled>,
    pins: u32,
    /// When it was given out last: by a clock that tells any two apart, and in monotonic microseconds.
    used: u64,
    used_us: u64,
    /// Its readers were asked to make room.
    asked: bool,
    read_for: ReadFor,
    pub(crate) tokens: Vec<u64>,
}

impl ColdBlock {
    /// No read has it, and none is to have it again.
    fn is_here(&self) -> bool {
        self.block.is_some() && self.job.is_none()
    }

    /// What the read under way is to bring.
    fn coming(&self) -> Option<Filled> {
        let Some(Job::Batches { slot, offset: first, next, .. }) = self.job else { return None };
        Some(Filled { slot, first, next })
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Filled {
    pub(crate) slot: GroupSlot,
    pub(crate) first: u64,
    pub(crate) next: u64,
}

impl Filled {
    fn holds(&self, slot: GroupSlot, offset: u64) -> bool {
        self.slot == slot && self.first <= offset && offset < self.next
    }
}

pub(crate) struct Cold {
    pub(crate) blocks: Vec<ColdBlock>,
    /// Of all blocks together.
    limit_bytes: u64,
    budget: u64,
    in_flight: u64,
    clock: u64,
    /// Monotonic microseconds, as of the last turn.
    now_us: u64,
    pub(crate) finished: Vec<Finished>,
}

impl Cold {
    pub(crate) fn new(blocks: Vec<Block>) -> Self {
        let limit_bytes = blocks.iter().map(|block| block.len() as u64).sum();
        let blocks = blocks.into_iter().map(|block| ColdBlock {
            id: block.id(),
            block: Some(block),
            job: None,
            file: FileName::Superblock,
            position: 0,
            length: 0,
            salvage: None,
            lent: 0,
            runs: Vec::with_capacity(RUNS_PER_READ),
            batches: Vec::with_capacity(RUNS_PER_READ),
            filled: None,
            pins: 0,
            used: 0,
            used_us: 0,
            asked: false,
            read_for: ReadFor::Anybody,
            tokens: Vec::with_capacity(16),
        });
        Self {
            blocks: blocks.collect(),
            limit_bytes,
            budget: limit_bytes,
            in_flight: 0,
            clock: 0,
            now_us: 0,
            finished: Vec::with_capacity(64),
        }
    }

    /// Bytes that reads under way or readers have, and bytes there are.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let here = self.blocks.iter().filter_map(|cold| Some((cold.pins, cold.block.as_ref()?.len() as u64)));
        let free: u64 = here.filter(|(pins, _)| *pins == 0).map(|(_, bytes)| bytes).sum();
        (self.limit_bytes - free, self.limit_bytes)
    }

    pub(crate) fn set_budget(&mut self, bytes: u64) {
        self.budget = bytes;
    }

    /// The filled block that holds `offset` of the group.
    pub(crate) fn filled(&mut self, slot: GroupSlot, offset: u64) -> Option<usize> {
        let holds = |block: &ColdBlock| block.filled.is_some_and(|filled| filled.holds(slot, offset));
        let at = self.blocks.iter().position(holds)?;
        self.clock += 1;
        let block = &mut self.blocks[at];
        (block.used, block.used_us) = (self.clock, self.now_us);
        if block.read_for == ReadFor::Nobody {
            block.read_for = ReadFor::OneInOrder;
        }
        Some(at)
    }

    /// Where a filled block ends, if it was read for somebody who reads in order.
    pub(crate) fn end_in_order(&self, at: usize) -> Option<u64> {
        let block = &self.blocks[at];
        block.filled.filter(|_| block.read_for == ReadFor::OneInOrder).map(|filled| filled.next)
    }

    /// Whether a filled block of the group ends before `offset`: who asks for it reads in order.
    pub(crate) fn ends_at(&self, slot: GroupSlot, offset: u64) -> bool {
        let ends = |filled: Filled| filled.slot == slot && filled.next == offset;
        self.blocks.iter().any(|block| block.filled.is_some_and(ends))
    }

    /// Where the block ends that holds `offset` of the group, or will hold it.
    pub(crate) fn end_of(&self, slot: GroupSlot, offset: u64) -> Option<u64> {
        let ranges = self.blocks.iter().flat_map(|block| [block.filled, block.coming()]);
        ranges.flatten().find(|range| range.holds(slot, offset)).map(|range| range.next)
    }

    /// Whether a reader at `next` comes to `offset` through blocks that are there or on their way, so few that they stay
    /// until then.
    pub(crate) fn is_shared(&self, slot: GroupSlot, next: u64, offset: u64) -> bool {
        let mut ends = std::iter::successors(Some(next), |at| self.end_of(slot, *at));
        ends.by_ref().take(self.blocks.len() / 4 + 2).any(|at| at >= offset)
    }

    /// A block for a read of `length` bytes that nobody has asked for; `None` when too many are away or unread.
    pub(crate) fn free_ahead(&self, length: u32) -> Option<usize> {
        // Who it was for may be gone.
        let unread = |block: &ColdBlock| {
            let lately = block.used_us + KEEP_US > self.now_us;
            block.read_for == ReadFor::Nobody && block.filled.is_some() && lately
        };
        let held = |block: &&ColdBlock| !block.is_here() || unread(block);
        let held = self.blocks.iter().filter(held).count();
        let at = self.free(length).filter(|_| 2 * (held + 1) <= self.blocks.len())?;
        (!unread(&self.blocks[at])).then_some(at)
    }

    /// The read that the block has just been lent to is for them.
    pub(crate) fn read_for(&mut self, at: usize, whom: ReadFor) {
        self.clock += 1;
        let block = &mut self.blocks[at];
        (block.read_for, block.used, block.used_us) = (whom, self.clock, self.now_us);
    }

    /// The read under way that will answer for `offset` of the group.
    pub(crate) fn coming(&mut self, slot: GroupSlot, wanted: u64) -> Option<&mut ColdBlock> {
        self.blocks.iter_mut().find(|block| block.coming().is_some_and(|range| range.holds(slot, wanted)))
    }

    /// Whether a read is under way.
    pub(crate) const fn is_busy(&self) -> bool {
        self.in_flight > 0
    }

    /// Whether a piece of an index is being read.
    pub(crate) fn is_loading(&self) -> bool {
        self.blocks.iter().any(|block| matches!(block.job, Some(Job::Index { .. })))
    }

    /// A block for a read of `length` bytes, the longest unused one; `None` when the budget or the blocks are
    /// used up.
    pub(crate) fn free(&self, length: u32) -> Option<usize> {
        if self.in_flight > 0 && self.in_flight + u64::from(length) > self.budget {
            return None;
        }
        let free = self.blocks.iter().enumerate().filter(|(_, block)| block.is_here() && block.pins == 0);
        // What was read ahead goes last.
        let last = |block: &ColdBlock| (block.read_for == ReadFor::Nobody, block.used);
        free.min_by_key(|(_, block)| last(block)).map(|(at, _)| at)
    }

    pub(crate) fn block_bytes(&self, at: usize) -> u32 {
        self.blocks[at].block.as_ref().map_or(0, |block| block.len() as u32)
    }

    /// Sends a block on its way.
    pub(crate) fn lend(&mut self, at: usize, job: Job, from: Wanted) -> Block {
        let cold = &mut self.blocks[at];
        assert!(cold.pins == 0, "nobody sends from a block that is read into");
        (cold.file, cold.position, cold.length) = (from.file, from.position, from.length);
        (cold.job, cold.filled, cold.lent) = (Some(job), None, from.length);
        cold.batches.clear();
        (cold.asked, cold.read_for) = (false, ReadFor::Anybody);
        self.in_flight += u64::from(from.length);
        cold.block.take().expect("a free block is here")
    }

    /// These extents are superseded by a pack: what is being read from them is of no use.
    pub(crate) fn void(&mut self, generations: std::ops::RangeInclusive<u64>) {
        for block in &mut self.blocks {
            if let Some(Job::Batches { generation, .. }) = block.job
                && generations.contains(&generation)
            {
                block.job = Some(Job::Void);
            }
        }
    }

    /// Sends the next block on its way of which a failed read is made in pieces.
    pub(crate) fn lend_piece(&mut self) -> Option<(usize, Wanted, Block)> {
        let now_us = self.now_us;
        let due = |salvage: &Salvage| salvage.due_us() <= now_us;
        let waits = |cold: &ColdBlock| cold.block.is_some() && cold.salvage.as_ref().is_some_and(due);
        let at = self.blocks.iter().position(waits)?;
        let cold = &mut self.blocks[at];
        let wanted = cold.salvage.as_ref().expect("it was just looked at").wanted();
        cold.lent = wanted.length;
        self.in_flight += u64::from(wanted.length);
        Some((at, wanted, cold.block.take().expect("it was just looked at")))
    }

    /// When the next piece of a failed read is to be read, monotonic microseconds.
    pub(crate) fn next_piece_us(&self) -> Option<u64> {
        let waiting = self.blocks.iter().filter(|cold| cold.block.is_some());
        waiting.filter_map(|cold| Some(cold.salvage.as_ref()?.due_us())).min()
    }

    /// Takes a block back; `None` when it was not away.
    pub(crate) fn give_back(&mut self, at: usize, block: Option<Block>) -> Option<Job> {
        let cold = self.blocks.get_mut(at).filter(|cold| cold.block.is_none())?;
        let job = cold.job.take()?;
        self.in_flight -= u64::from(cold.lent);
        cold.block = block.filter(|block| block.id() == cold.id);
        Some(job)
    }

    /// Whoever waited for the block may ask again, or hears that the disk did not answer.
    pub(crate) fn finish(&mut self, at: usize, failed: bool) {
        tell(&mut self.finished, self.blocks[at].tokens.drain(..), failed);
    }

    pub(crate) const fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Time has passed.
    pub(crate) fn pass(&mut self, now: Now) {
        self.now_us = now.mono_us;
    }

    pub(crate) fn pin(&mut self, at: usize) {
        self.blocks[at].pins += 1;
    }

    pub(crate) fn unpin(&mut self, id: BlockId) {
        let block = self.blocks.iter_mut().find(|block| block.id == id);
        let block = block.expect("a pinned block is one of the log's");
        assert!(block.pins > 0, "a pin ends once");
        block.pins -= 1;
    }

    /// The block that was used least lately, where readers keep new reads from having any.
    fn kept(&self) -> Option<usize> {
        let here = || self.blocks.iter().enumerate().filter(|(_, block)| block.is_here());
        let unpinned = here().any(|(_, block)| block.pins == 0);
        here().min_by_key(|(_, block)| block.used).filter(|_| !unpinned).map(|(at, _)| at)
    }

    /// The block that must make room for reads that wait, if it was kept for long enough.
    pub(crate) fn wanted(&mut self) -> Option<BlockId> {
        let at = self.kept()?;
        let block = &mut self.blocks[at];
        block.asked |= block.used_us + KEEP_US <= self.now_us;
        block.asked.then_some(block.id)
    }

    /// When a block will have been kept for long enough, monotonic microseconds.
    pub(crate) fn next_wanted_us(&self) -> Option<u64> {
        let block = &self.blocks[self.kept()?];
        (!block.asked).then_some(block.used_us + KEEP_US)
    }

    pub(crate) fn bytes(&self, id: BlockId) -> Option<&[u8]> {
        self.blocks.iter().find(|block| block.id == id)?.block.as_ref().map(Block::bytes)
    }
}

/// Readers hear that what they waited for is over.
pub(crate) fn tell(finished: &mut Vec<Finished>, tokens: impl IntoIterator<Item = u64>, failed: bool) {
    finished.extend(tokens.into_iter().map(|token| Finished { token, failed }));
}
