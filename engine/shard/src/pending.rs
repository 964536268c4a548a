//! Produce requests whose batches are in a frame that has not reached their level yet.
//!
//! Frames complete in order, so each level needs one queue, ordered by frame; a level's frontier passing a frame
//! makes its heads due. A retry of a batch under way is put beside the original, not behind all that came since.

use std::collections::VecDeque;

use corelog_model::Durability;

use crate::event::ConnId;
use crate::partition::PartitionId;

/// A produce request that waits for its last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// The frame of its last batch.
    pub(crate) frame: u64,
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
}

impl PendingQueue {
    /// A queue for at most `bound` requests of all levels. At the bound, produce is `Blocked`.
    pub(crate) fn new(bound: u32) -> Self {
        let bound = bound as usize;
        Self { durable: VecDeque::with_capacity(bound), written: VecDeque::with_capacity(bound), bound }
    }

    pub(crate) fn len(&self) -> usize {
        self.durable.len() + self.written.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.bound
    }

    pub(crate) fn push(&mut self, durability: Durability, pending: Pending) {
        assert!(!self.is_full(), "room was asked for before the append");
        let queue = match durability {
            Durability::Durable => &mut self.durable,
            Durability::Written => &mut self.written,
            Durability::Memory => unreachable!("memory is reached at once"),
        };
        let at = queue.partition_point(|other| other.frame <= pending.frame);
        queue.insert(at, pending);
    }

    /// The next request whose frame has its level.
    pub(crate) fn pop_due(&mut self, frontier: Frontier) -> Option<Pending> {
        for (queue, reached) in [(&mut self.durable, frontier.durable), (&mut self.written, frontier.written)]
        {
            if queue.front().is_some_and(|pending| pending.frame <= reached) {
                return queue.pop_front();
            }
        }
        None
    }

    /// The next request whatever its frame: the log is read-only and none will ever be due.
    pub(crate) fn pop_any(&mut self) -> Option<Pending> {
        self.durable.pop_front().or_else(|| self.written.pop_front())
    }

    /// Both queues are ordered by frame and within the bound.
    pub(crate) fn check(&self) {
        for queue in [&self.durable, &self.written] {
            assert!(queue.iter().is_sorted_by_key(|pending| pending.frame));
        }
        assert!(self.len() <= self.bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(frame: u64, correlation: u64) -> Pending {
        Pending {
            frame,
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
        assert_eq!(queue.pop_due(frontier).map(|p| p.correlation), Some(2));
        assert_eq!(queue.pop_due(frontier), None);
        let frontier = Frontier { durable: 1, written: 2 };
        assert_eq!(queue.pop_due(frontier).map(|p| p.correlation), Some(1));
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
        assert_eq!(queue.pop_due(frontier).map(|p| p.correlation), Some(1));
        assert_eq!(queue.pop_due(frontier).map(|p| p.correlation), Some(9));
        assert_eq!(queue.pop_due(frontier), None);
    }
}
