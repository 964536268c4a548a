//! Reading ahead: who reads a group from the disk in order finds the next pieces there, or on their way.
//!
//! A reader is taken for one in order when it asks for what lies right behind a piece that is there. From then on the
//! pieces behind the one that it reads are asked for, each as long as a block, and the index of the extent or pack that
//! comes next; whoever else reads there finds them, too.
//!
//! **Invariants:** nobody waits for a block because of what nobody has asked for: at most half of them are on their way
//! or hold what was read ahead and not asked for yet, and a read that is asked for takes those, too. While a frame waits for the disk, one
//! piece is read ahead, not several.

use crate::cold::{Job, ReadFor};
use crate::extent::Live;
use crate::groups::GroupSlot;
use crate::log::Log;
use crate::op::{DiskOp, FileName};
use crate::read::{Found, READ_BYTES, plan};

/// Pieces read ahead.
const DEPTH: usize = 3;
const DEPTH_BUSY: usize = 1;

/// What a read of a group from an offset on comes to.
pub(crate) enum Planned {
    Read {
        job: Job,
        file: FileName,
        position: u64,
        length: u32,
    },
    /// The index of this generation is not in memory.
    NeedsIndex {
        generation: u64,
    },
    /// Nothing holds the offset; the index goes on at `behind`, if it does.
    Lost {
        behind: Option<u64>,
    },
    /// The extent is recycled.
    Gone,
}

impl Log {
    /// Plans a read of about `bytes` into the block at `at`, where its runs are kept.
    pub(crate) fn plan_read(&mut self, at: usize, slot: GroupSlot, offset: u64, bytes: u32) -> Planned {
        let mut runs = std::mem::take(&mut self.cold.blocks[at].runs);
        runs.clear();
        let found = self.find_runs(slot, offset, &mut runs);
        let first = runs.first().map(|run| run.first_offset);
        let planned = match (found, first) {
            (Found::Runs { generation }, Some(first)) if first <= offset => {
                let (position, length) = plan(&mut runs, bytes, self.cold.block_bytes(at));
                let next = runs.last().map_or(offset, |run| run.last_offset) + 1;
                let job = Job::Batches { slot, offset, next, generation };
                match self.extents.by_generation(generation).map(Live::file) {
                    Some(file) => Planned::Read { job, file, position, length },
                    None => Planned::Gone,
                }
            }
            (Found::NeedsIndex { generation }, _) => Planned::NeedsIndex { generation },
            (_, behind) => Planned::Lost { behind },
        };
        self.cold.blocks[at].runs = runs;
        planned
    }

    /// Asks for what comes at `next` and behind it, up to `end_offset`, as far as it is not there yet.
    pub(crate) fn read_ahead(
        &mut self,
        slot: GroupSlot,
        mut next: u64,
        end_offset: u64,
        out: &mut Vec<DiskOp>,
    ) {
        let busy = self.commit.submitted > self.commit.durable;
        for _ in 0..if busy { DEPTH_BUSY } else { DEPTH } {
            let group = self.groups.at(slot);
            let in_window = self.window.find(group.newest, next).is_some();
            if next >= end_offset.min(group.log_end) || in_window || self.damage.at(slot, next).is_some() {
                return;
            }
            if let Some(end) = self.cold.end_of(slot, next) {
                next = end;
                continue;
            }
            // Whoever comes there will wait for them.
            if self.meet.is_somebody_behind(slot, next, &self.cold) {
                return;
            }
            let Some(at) = self.cold.free_ahead(READ_BYTES) else { return };
            match self.plan_read(at, slot, next, u32::MAX) {
                Planned::Read { job, file, position, length } => {
                    self.issue_read(at, job, file, position, length, out);
                    self.cold.read_for(at, ReadFor::Nobody);
                    let Job::Batches { next: end, .. } = job else { return };
                    next = end;
                }
                Planned::NeedsIndex { generation } => {
                    if self.footers.loading.is_none() {
                        self.begin_loading(generation, None, out);
                    }
                    return;
                }
                Planned::Lost { .. } | Planned::Gone => return,
            }
        }
    }
}
