//! Produce requests whose batches are in a frame that has not reached their level yet.
//!
//! Frames complete in order, so each level needs one queue, ordered by frame; a level's frontier passing a frame
//! makes its heads due. A retry of a batch under way is put beside the original, not behind all that came since.
//!
//! When the level of a partition becomes weaker, what waits goes on waiting for the stronger one, and what comes after
//! it waits behind it: in the same queue, and for the same frame.

use std::collections::VecDeque;

use corelog_model::Durability;

use crate::event::ConnId;
use crate::partition::PartitionId;

/// A produce request that waits for its last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// The frame of its last batch.
    pub(crate) frame: u64,
    /// The frame it waits for in its queue: its own, or that of the request it is to come after.
    pub(crate) after: u64,
    /// Its place among those that wait for the same frame; 0 before it waits for the first time.
    pub(crate) ticket: u64,
    pub(crate) partition: PartitionId,
    /// The partition is visible up to here once the frame has the level; 0 when only duplicates wait.
    pub(crate) end_offset: u64,
    /// Bytes that become visible with it.
    pub(crate) bytes: u64,
    pub(crate) conn: ConnId,
    pub(crate) correlation: u64,
    pub(crate) base_offset: u64,
    pub(crate) append_timestamp_us: u64,
    pub(crate) batches: u32,
}

/// How far the log is: both inclusive, contiguous. `durable <= written`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frontier {
    pub(crate) durable: u64,
    pub(crate) written: u64,
}

impl Frontier {
    /// Whether what is in `frame` is acknowledged and visible at this level.
    pub(crate) fn reached(self, durability: Durability, frame: u64) -> bool {
        match durability {
            Durability::Durable => frame <= self.durable,
            Durability::Written => frame <= self.written,
            Durability::Memory => true,
        }
    }
}

/// All pending requests of a shard. Nothing waits for level `memory`.
#[derive(Debug)]
pub(crate) struct PendingQueue {
    durable: VecDeque<Pending>,
    written: VecDeque<Pending>,
    bound: usize,
    last_ticket: u64,
}

impl PendingQueue {
    /// A queue for at most `bound` requests of all levels. At the bound, produce is `Blocked`.
    pub(crate) fn new(bound: u32) -> Self {
        let bound = bound as usize;
        let (durable, written) = (VecDeque::with_capacity(bound), VecDeque::with_capacity(bound));
        Self { durable, written, bound, last_ticket: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.durable.len() + self.written.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.bound
    }

    /// One that waits again, for its own frame now, keeps its place before those that were taken after it.
    pub(crate) fn push(&mut self, durability: Durability, mut pending: Pending) {
        assert!(!self.is_full(), "room was asked for before the append");
        if pending.ticket == 0 {
            self.last_ticket += 1;
            pending.ticket = self.last_ticket;
        }
        let queue = match durability {
            Durability::Durable => &mut self.durable,
            Durability::Written => &mut self.written,
            Durability::Memory => unreachable!("memory is reached at once"),
        };
        insert(queue, pending);
    }

    /// The next request whose frame has the level it waits for, and that level.
    pub(crate) fn pop_due(&mut self, frontier: Frontier) -> Option<(Durability, Pending)> {
        let durable = (Durability::Durable, &mut self.durable, frontier.durable);
        for (level, queue, reached) in [durable, (Durability::Written, &mut self.written, frontier.written)] {
            if queue.front().is_some_and(|pending| pending.after <= reached) {
                return queue.pop_front().map(|pending| (level, pending));
            }
        }
        None
    }

    /// The next request whatever its frame: the log is read-only and none will ever be due.
    pub(crate) fn pop_any(&mut self) -> Option<(Durability, Pending)> {
        let written = || self.written.pop_front().map(|pending| (Durability::Written, pending));
        self.durable.pop_front().map(|pending| (Durability::Durable, pending)).or_else(written)
    }

    /// Requests of partitions that became durable wait for that, in their order.
    pub(crate) fn strengthen(&mut self, mut is_durable: impl FnMut(&Pending) -> bool) {
        let Self { durable, written, .. } = self;
        written.retain(|pending| {
            let moves = is_durable(pending);
            if moves {
                insert(durable, Pending { after: pending.frame, ..*pending });
            }
            !moves
        });
    }

    /// All requests, with the level each waits for.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Durability, &Pending)> {
        let durable = self.durable.iter().map(|pending| (Durability::Durable, pending));
        durable.chain(self.written.iter().map(|pending| (Durability::Written, pending)))
    }

    /// Both queues are ordered by frame and within the bound.
    pub(crate) fn check(&self) {
        for queue in [&self.durable, &self.written] {
            assert!(queue.iter().is_sorted_by_key(|pending| (pending.after, pending.ticket)));
            assert!(queue.iter().all(|pending| pending.after <= pending.frame));
        }
        assert!(self.len() <= self.bound);
    }
}

/// Behind all that wait for the same frame and came before it.
fn insert(queue: &mut VecDeque<Pending>, pending: Pending) {
    let at = queue.partition_point(|other| (other.after, other.ticket) < (pending.after, pending.ticket));
    queue.insert(at, pending);
}

/// How many requests of a partition wait, by the level they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) durable: u32,
    pub(crate) written: u32,
    /// The latest frame that one of them waits for, while there is one.
    after: u64,
}

impl Owed {
    fn count(&mut self, level: Durability) -> &mut u32 {
        match level {
            Durability::Durable => &mut self.durable,
            Durability::Written => &mut self.written,
            Durability::Memory => unreachable!("nothing waits for memory"),
        }
    }

    /// What waits for a level stronger than this, if anything does: that level, and the latest frame waited for.
    pub(crate) fn stronger_than(&self, level: Durability) -> Option<(Durability, u64)> {
        let stronger = match level {
            Durability::Written | Durability::Memory if self.durable > 0 => Durability::Durable,
            Durability::Memory if self.written > 0 => Durability::Written,
            _ => return None,
        };
        Some((stronger, self.after))
    }

    /// One more waits for this frame to have the level.
    pub(crate) fn push(&mut self, level: Durability, after: u64) {
        let none_waits = self.durable + self.written == 0;
        self.after = if none_waits { after } else { self.after.max(after) };
        *self.count(level) += 1;
    }

    /// One waits no longer.
    pub(crate) fn answered(&mut self, level: Durability) {
        *self.count(level) -= 1;
    }

    /// One that waited for `written` waits for its own frame to be durable.
    pub(crate) fn strengthened(&mut self, frame: u64) {
        self.answered(Durability::Written);
        self.push(Durability::Durable, frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(frame: u64, correlation: u64) -> Pending {
        Pending {
            frame,
            after: frame,
            ticket: 0,
            partition: PartitionId { slot: 0, generation: 0 },
            end_offset: 0,
            bytes: 0,
            conn: ConnId::default(),
            correlation,
            base_offset: 0,
            append_timestamp_us: 0,
            batches: 1,
        }
    }

    #[test]
    fn each_level_follows_its_own_frontier() {
        let mut queue = PendingQueue::new(8);
        queue.push(Durability::Durable, pending(1, 1));
        queue.push(Durability::Written, pending(1, 2));
        queue.push(Durability::Durable, pending(2, 3));
        let frontier = Frontier { durable: 0, written: 1 };
        assert_eq!(queue.pop_due(frontier).map(|(_, p)| p.correlation), Some(2));
        assert_eq!(queue.pop_due(frontier), None);
        let frontier = Frontier { durable: 1, written: 2 };
        assert_eq!(queue.pop_due(frontier).map(|(_, p)| p.correlation), Some(1));
        assert_eq!(queue.pop_due(frontier), None);
    }

    #[test]
    fn a_retry_is_answered_with_its_original() {
        let mut queue = PendingQueue::new(8);
        for frame in 1..=3 {
            queue.push(Durability::Durable, pending(frame, frame));
        }
        queue.push(Durability::Durable, pending(1, 9));
        queue.check();
        let frontier = Frontier { durable: 1, written: 3 };
        assert_eq!(queue.pop_due(frontier).map(|(_, p)| p.correlation), Some(1));
        assert_eq!(queue.pop_due(frontier).map(|(_, p)| p.correlation), Some(9));
        assert_eq!(queue.pop_due(frontier), None);
    }
}
