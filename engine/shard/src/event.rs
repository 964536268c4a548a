//! What can happen to a shard besides a request, and what a shard wants done: the two sides of its seam.
//!
//! Both are values. The reactor in net/server performs the actions against the ring, the simulator performs the
//! same actions against an in-memory disk; the shard cannot tell them apart.

use corelog_model::{Block, BlockId, LogId, Slice};
use corelog_storage::{DiskCompletion, DiskOp, Settings};

use crate::authorise::Principal;
use crate::mail::{Letter, Mail};
use crate::response::Response;

/// A connection of this shard. The slot is dense and reused; the generation tells its users apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Dense index, below `Limits::connections`.
    pub slot: u32,
    /// Rises each time the slot is taken again.
    pub generation: u32,
}

/// Everything that happens to a shard, requests (see [`crate::Request`]) and the passing of time excepted.
#[derive(Debug)]
pub enum Event {
    /// A connection finished its Hello. A slot at or beyond `Limits::connections` is ignored: its requests answer
    /// `UnknownConnection`.
    Connected {
        /// The new connection.
        conn: ConnId,
        /// On whose behalf it acts.
        principal: Principal,
    },
    /// A connection is gone: its handles and waits are dropped. Its appended batches stay.
    Disconnected {
        /// The connection that is gone.
        conn: ConnId,
    },
    /// A disk operation ended.
    Disk(DiskCompletion),
    /// The pin of one slice of a `Fetched` or `Pushed` response is over: sent, copied away, or dropped with its connection.
    /// One event per slice.
    Released {
        /// The block the slice named.
        block: BlockId,
    },
    /// More memory for the live window: blocks of the same size as its first ones.
    Memory(Vec<Block>),
    /// Values that may change while the shard runs.
    Settings(Settings),
    /// A letter of another log's shard. Those of one log come in the order they were written.
    Mail {
        /// That log.
        from: LogId,
        /// What it says.
        mail: Mail,
    },
}

/// One answer to one request; a `Subscribe` has many. Replies of one connection may come in another order than its requests: the
/// correlation tells which is which.
#[derive(Debug, PartialEq)]
pub struct Reply {
    /// Who asked. The connection may be gone by now; then the slices still have to be released.
    pub conn: ConnId,
    /// The correlation of the request.
    pub correlation: u64,
    /// The answer.
    pub response: Response,
}

/// What the shard wants done. The caller owns it, drains it after each call or each turn, and keeps its capacity,
/// so that a warm shard allocates nothing.
#[derive(Debug, Default)]
pub struct Actions {
    /// Disk operations to start. Their order matters only to writes of one file.
    pub disk: Vec<DiskOp>,
    /// Answers to send.
    pub replies: Vec<Reply>,
    /// The bytes of `Fetched` and `Pushed` responses; each stays pinned until [`Event::Released`] names its block.
    pub slices: Vec<Slice>,
    /// Blocks the live window needs back although a send still pins them: move those sends away or close their
    /// connections, then release.
    pub evict: Vec<BlockId>,
    /// Letters to be delivered, in this order.
    pub letters: Vec<Letter>,
}

impl Actions {
    /// Lists that need not grow while at most so many replies and slices become due in a turn.
    pub fn sized(replies: usize) -> Self {
        let (replies, slices) = (Vec::with_capacity(replies), Vec::with_capacity(replies));
        Self { replies, slices, ..Self::default() }
    }

    /// Empties all lists and keeps their memory.
    pub fn clear(&mut self) {
        self.disk.clear();
        self.replies.clear();
        self.slices.clear();
        self.evict.clear();
        self.letters.clear();
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        let Self { disk, replies, slices, evict, letters } = self;
        disk.is_empty() && replies.is_empty() && slices.is_empty() && evict.is_empty() && letters.is_empty()
    }
}

/// Whether a request was taken over by the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    /// The reply is in the actions, or will be in those of a later call.
    Done,
    /// There is no room. Nothing was changed: keep the bytes, stop reading that connection, offer the same request
    /// again next turn.
    Blocked,
}
