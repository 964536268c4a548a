//! What cores say to each other, beside what their shards do.
//!
//! A request for a log of another core goes there as it came: the connection's receive block visits that core, which
//! serves the frames in it that are for it and sends the block back; so nothing is copied, and the next receive waits
//! as it would for a log that has no room. Answers come back one by one as they are due. The bytes of a fetch are sent
//! from where they lie, in the memory of the core that serves the log, and released there. When that memory must go
//! before they are sent, that core copies them, and the copy goes to the connection's.

use corelog_model::{Block, BlockId, LogId, Slice};
use corelog_shard::{ConnId, Mail, Principal, Response};
use corelog_uring::arena::Region;
use corelog_wire::Status;

/// One thing that goes from a core to another.
#[derive(Debug)]
pub enum Parcel {
    /// A letter between the shards of two logs.
    Letter {
        /// The log whose shard wrote it.
        from: LogId,
        /// The log it is for.
        to: LogId,
        /// What it says.
        mail: Mail,
    },
    /// Blocks of the sender lie here: slices of them may come.
    Region(Region),
    /// A connection of the sender is open: requests of it may come.
    Known {
        /// Its name, the same on all cores.
        conn: ConnId,
        /// On whose behalf it acts.
        principal: Principal,
    },
    /// It is gone.
    Gone(ConnId),
    /// Its fetches wait no longer.
    Hurry(ConnId),
    /// It has taken what was pushed to it.
    Drained(ConnId),
    /// A handle of it leads elsewhere: a subscription of it ends.
    Unsubscribe {
        /// The connection.
        conn: ConnId,
        /// Where the handle led.
        log: LogId,
        /// The handle.
        handle: u32,
    },
    /// Requests of one of the sender's connections.
    Visit(Box<Visit>),
    /// They were taken, or their connection is gone: here is the block.
    Back(Box<Visit>),
    /// The answer to one of them.
    Reply {
        /// The connection, of the core this goes to.
        conn: ConnId,
        /// The name of the request.
        correlation: u64,
        /// The answer.
        response: Response,
        /// The bytes of a fetch, pinned until they are released.
        slices: Box<[Slice]>,
    },
    /// Somebody asks for Status: what does this core say?
    StatusWanted {
        /// The sender's name for the question.
        question: u64,
    },
    /// What a core says of itself.
    Status {
        /// The receiver's name for the question.
        question: u64,
        /// Its counters.
        status: Box<Status>,
    },
    /// One slice of a block of the receiver's is no longer needed.
    Released(BlockId),
    /// The sender's log needs this block back: what is left to be sent of it is to be copied aside.
    Evict(BlockId),
    /// These are: they are of the receiver's memory, which the sender cannot read. They are no longer needed then.
    Aside {
        /// The connection, of the sender, whose queue they stand in.
        conn: ConnId,
        /// What is left of them.
        slices: Vec<Slice>,
    },
    /// Here is what was in them.
    Copied {
        /// The connection.
        conn: ConnId,
        /// The slices, as they were named.
        slices: Vec<Slice>,
        /// Their bytes, one after the other.
        bytes: Vec<u8>,
    },
}

/// A receive block on its way, with frames for one core in it.
#[derive(Debug)]
pub struct Visit {
    /// Whose frames they are.
    pub(super) conn: ConnId,
    /// The longest answer that the connection takes, in bytes.
    pub(super) limit: usize,
    pub(super) block: Block,
    /// The frames, in order.
    pub(super) frames: Vec<Visitor>,
    /// How many of them were taken.
    pub(super) taken: usize,
    /// Its place in the line of those whose request found no room there.
    pub(super) in_line: Option<u64>,
}

/// A frame that is for another core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visitor {
    /// The log it is for.
    pub(super) log: LogId,
    /// The request's name.
    pub(super) correlation: u64,
    /// Where it lies in the block.
    pub(super) start: u32,
    pub(super) end: u32,
}
