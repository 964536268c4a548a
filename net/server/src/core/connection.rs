//! One connection: its socket, what it received, what it will send, which requests it waits for.
//!
//! **Invariants:** at most one receive and one send in flight; the socket is closed after both have completed;
//! every request taken has one entry in the pending table until its (last) reply is queued. Decides nothing about others.

use corelog_shard::{ConnId, Principal};
use corelog_uring::{Key, SocketId};
use corelog_wire::ReplyTo;
use corelog_wire::frame::HELLO_FRAME_BYTES;

use super::inbox::Inbox;
use super::outbox::Outbox;
use super::parcel::Visitor;
use super::route::Routes;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Accepted; Hello has not come.
    Greeting,
    /// Served.
    Open,
    /// The peer sends no more; closed once everything it asked for is answered and sent.
    Answering,
    /// Nothing more is read; closed once everything queued is sent.
    Draining,
    /// Shut down; waits for the operations in flight.
    Closing,
}

/// Why a connection is not read at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// It is read.
    No,
    /// The shard has no room: offered again each turn.
    Blocked,
    /// Too many of its requests or bytes of its replies are on their way: goes on after the next of them.
    Replies,
    /// Waits for a larger receive block.
    Memory,
    /// Its block is at another core.
    Away,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    pub(crate) socket: SocketId,
    pub(crate) phase: Phase,
    pub(crate) pause: Pause,
    pub(crate) principal: Principal,
    /// The longest frame taken now, in bytes.
    pub(crate) frame_limit: usize,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    /// What its outbox holds of the memory for replies, as it is accounted for.
    pub(crate) extra_bytes: usize,
    pub(crate) pending: Pending,
    pub(crate) routes: Routes,
    /// Its block is at another core; the cores that know it; memory for the next list of frames.
    pub(crate) is_away: bool,
    /// Its place in the line of those whose request found no room here.
    pub(crate) in_line: Option<u64>,
    pub(crate) known_to: Vec<usize>,
    /// Requests that other cores have not answered.
    pub(crate) abroad: usize,
    /// Subscriptions among its pending requests.
    pub(crate) subscriptions: usize,
    /// Something was pushed since the shards were told that the connection has taken what was.
    pub(crate) pushed: bool,
    pub(crate) frames: Vec<Visitor>,
    pub(crate) receiving: Option<Key>,
    pub(crate) sending: Option<Key>,
    /// The receive, or the send, in flight was asked to end.
    pub(crate) recv_cancelled: bool,
    pub(crate) send_cancelled: bool,
    /// It was asked to end because it took long: if nothing of it was sent, the peer does not read.
    pub(crate) stall_checked: bool,
    /// The shard knows it, although it is not open any more.
    pub(crate) was_open: bool,
    /// The socket was given up.
    pub(crate) close_sent: bool,
    /// Blocks the send in flight pins and that are wanted back.
    pub(crate) evict: Vec<corelog_model::BlockId>,
    /// Whether the slot stands in the list of connections to be served, and to be sent to.
    pub(crate) in_ready: bool,
    pub(crate) in_flush: bool,
    /// The request that is being answered, here or at another core, and whose answer can be long, by its correlation: one
    /// at a time.
    pub(crate) long: Option<u64>,
    /// Times in microseconds of the monotonic clock: accepted, last progress in receiving a request, last request,
    /// last progress of a send.
    pub(crate) accepted_us: u64,
    pub(crate) received_us: u64,
    /// Bytes received since `received_us`.
    received_bytes: usize,
    pub(crate) requested_us: u64,
    pub(crate) sent_us: u64,
}

/// Bytes of a request that have to come within `limits.stalled_ms`, or its rest ...
const PROGRESS_BYTES: usize = 64 << 10;
/// ... and this share of a long one: the memory for all of it is held meanwhile.
const PROGRESS_SHARE: usize = 8;

impl Connection {
    /// A connection that was accepted at `now_us`.
    pub(crate) fn new(
        id: ConnId,
        socket: SocketId,
        principal: Principal,
        inbox: Inbox,
        outbox: Outbox,
        pending: Pending,
        now_us: u64,
    ) -> Self {
        Self {
            id,
            socket,
            phase: Phase::Greeting,
            pause: Pause::No,
            principal,
            frame_limit: HELLO_FRAME_BYTES,
            inbox,
            outbox,
            extra_bytes: 0,
            pending,
            routes: Routes::default(),
            is_away: false,
            in_line: None,
            known_to: Vec::new(),
            abroad: 0,
            subscriptions: 0,
            pushed: false,
            frames: Vec::new(),
            receiving: None,
            sending: None,
            recv_cancelled: false,
            send_cancelled: false,
            stall_checked: false,
            was_open: false,
            close_sent: false,
            evict: Vec::new(),
            in_ready: false,
            in_flush: false,
            long: None,
            accepted_us: now_us,
            received_us: now_us,
            received_bytes: 0,
            requested_us: now_us,
            sent_us: now_us,
        }
    }

    /// Bytes were received. They count as progress when a request begins with them, or when there are enough of them:
    /// a peer that sends a request byte by byte must not hold the memory for it for ever.
    pub(crate) fn heard(&mut self, bytes: usize, begins: bool, now_us: u64) {
        self.received_bytes += bytes;
        let enough = PROGRESS_BYTES.max(self.inbox.needed() / PROGRESS_SHARE);
        if begins || self.received_bytes >= enough {
            (self.received_us, self.received_bytes) = (now_us, 0);
        }
    }

    /// Requests of it that are to be answered once, and are not answered yet.
    pub(crate) fn unanswered(&self) -> usize {
        self.pending.len() - self.subscriptions
    }

    /// When the request that is half received last made progress.
    pub(crate) fn progress_us(&self) -> u64 {
        self.received_us.max(self.requested_us)
    }

    /// Whether answers are sent to it.
    pub(crate) const fn is_answered(&self) -> bool {
        matches!(self.phase, Phase::Greeting | Phase::Open | Phase::Answering)
    }

    /// Whether nothing is left that it is to be sent before it is closed.
    pub(crate) fn is_done(&self) -> bool {
        let answered = match self.phase {
            Phase::Answering => self.pending.is_empty(),
            phase => phase == Phase::Draining,
        };
        answered && self.outbox.is_idle()
    }

    /// Whether requests of it are taken.
    pub(crate) const fn is_served(&self) -> bool {
        matches!(self.phase, Phase::Greeting | Phase::Open)
    }
}

/// The requests of a connection that are not answered yet: what their replies repeat. The index is the
/// correlation the shard sees, so clients may choose theirs freely.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    entries: Vec<Option<ReplyTo>>,
    free: Vec<u32>,
}

impl Pending {
    /// Room for `requests` at a time.
    pub(crate) fn new(requests: usize) -> Self {
        Self { entries: Vec::with_capacity(requests), free: Vec::with_capacity(requests) }
    }

    /// Requests not answered yet.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Remembers a request.
    pub(crate) fn insert(&mut self, to: ReplyTo) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as u32 - 1
        });
        self.entries[index as usize] = Some(to);
        u64::from(index)
    }

    /// What the replies to a request repeat that is answered more than once.
    ///
    /// # Panics
    /// When the shard answers what was not asked.
    pub(crate) fn get(&self, correlation: u64) -> ReplyTo {
        let entry = usize::try_from(correlation).ok().and_then(|index| self.entries.get(index).copied());
        entry.flatten().expect("the shard answers what was asked")
    }

    /// The request is answered for the last time, or was not taken.
    ///
    /// # Panics
    /// When the shard answers what was not asked.
    pub(crate) fn remove(&mut self, correlation: u64) -> ReplyTo {
        let entry = usize::try_from(correlation).ok().and_then(|index| self.entries.get_mut(index));
        let to = entry.and_then(Option::take).expect("the shard answers each request once");
        self.free.push(correlation as u32);
        to
    }
}
