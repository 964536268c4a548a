//! When to look at which connection again. One entry per connection: looking is cheap, and the connection itself
//! knows what it is waiting for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use corelog_shard::ConnId;

/// Connections by the time they have to be looked at, in microseconds of the monotonic clock.
#[derive(Debug)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(u64, u32, u32)>>,
}

impl Deadlines {
    /// Room for one entry of each of `connections`; those that closed leave theirs until it is due.
    pub(crate) fn new(connections: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(2 * connections) }
    }

    /// Looks at `conn` again at `at_us`.
    pub(crate) fn push(&mut self, at_us: u64, conn: ConnId) {
        self.heap.push(Reverse((at_us, conn.slot, conn.generation)));
    }

    /// A connection that is due at `now_us`.
    pub(crate) fn pop_due(&mut self, now_us: u64) -> Option<ConnId> {
        let &Reverse((at_us, ..)) = self.heap.peek()?;
        if at_us > now_us {
            return None;
        }
        self.heap.pop().map(|Reverse((_, slot, generation))| ConnId { slot, generation })
    }

    /// The time of the first entry.
    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.peek().map(|&Reverse((at_us, ..))| at_us)
    }
}
