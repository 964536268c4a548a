//! Memory for what waits to be sent and is not in the log: heads of long replies, and bytes copied aside for connections
//! that read slowly. All connections of a core share it.
//!
//! **Invariant:** `used` is what all connections hold. A connection without anything unsent is always answered, so it may
//! go beyond the bound by one reply a connection; nothing is copied aside beyond it.

use super::Core;
use crate::status::Pool;

/// The share of a core.
#[derive(Debug)]
pub(crate) struct Replies {
    used: usize,
    bound: usize,
}

impl Replies {
    /// Nothing is held yet of so many bytes.
    pub(crate) const fn new(bound: usize) -> Self {
        Self { used: 0, bound }
    }

    /// Bytes held.
    pub(crate) const fn used(&self) -> usize {
        self.used
    }

    /// Bytes held, and the bound, which one reply of each connection may go beyond.
    pub(crate) const fn usage(&self) -> Pool {
        Pool { used_bytes: self.used as u64, limit_bytes: self.bound as u64 }
    }

    /// A connection that held so many is over.
    pub(crate) const fn forget(&mut self, extra: usize) {
        self.used -= extra;
    }

    /// Whether connections that have something unsent are to wait.
    pub(crate) const fn is_full(&self) -> bool {
        self.used >= self.bound
    }

    /// What may be copied aside in addition.
    pub(crate) const fn left(&self) -> usize {
        self.bound.saturating_sub(self.used)
    }
}

impl Core {
    /// Lets `write` append the start of a reply, which is accounted for.
    pub(super) fn push_reply(&mut self, slot: u32, write: impl FnOnce(&mut Vec<u8>)) {
        self.connection(slot).outbox.push_bytes(write);
        self.recount(slot);
    }

    /// What the connection in `slot` holds may have changed.
    pub(super) fn recount(&mut self, slot: u32) {
        let Some(connection) = &mut self.connections[slot as usize] else { return };
        let extra = connection.outbox.extra_bytes();
        self.replies.used = self.replies.used - connection.extra_bytes + extra;
        connection.extra_bytes = extra;
    }
}
