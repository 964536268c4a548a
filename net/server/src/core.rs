//! The reactor's decisions, as a pure type: completions and the time in, submissions out.
//!
//! | file | decides |
//! |---|---|
//! | `route`, `forward` | which log a request is for; requests for logs of other cores, and theirs for ours |
//! | `inquiry` | Status of all cores, asked at one |
//! | `serve` | from received bytes to requests of the shard; when not to read |
//! | `reply` | from the shard's actions to sends; what happens to a send whose memory is wanted back |
//! | `lifecycle` | accepting, deadlines, closing, stopping |
//! | `disk`, `logs` | which disk operation goes where; the logs of this core and whose each block is |
//! | `parcel` | what the cores say to each other |
//! | `connection`, `inbox`, `outbox` | the state of one connection |
//! | `ingest`, `ops`, `deadlines` | memory, operations and times of all of them |
//!
//! The shell (`reactor`) drives it with the real ring, the tests with a fake one that reorders, shortens, cancels
//! and delays. **Invariants:** no system call, no clock, no allocation per request once warm; every operation in
//! flight stands in the slab; a peer's bytes can harm its own connection only; nothing a peer can cause grows
//! without bound.

mod connection;
mod deadlines;
mod disk;
mod forward;
mod inbox;
mod ingest;
mod inquiry;
mod lifecycle;
mod logs;
mod opening;
mod ops;
mod outbox;
mod parcel;
mod replies;
mod reply;
mod route;
mod serve;
#[cfg(test)]
mod tests;

use std::mem;

use corelog_model::time::Now;
use corelog_model::{Block, Slice};
use corelog_shard::{ConnId, Event, Shard};
use corelog_storage::{DiskCompletion, DiskOp, FileName};
use corelog_uring::{Completion, FileId, Key, ListenerId, SEND_SLICES, Submission};

use crate::session::Identity;
use crate::status::{Machine, Pool, Reactor, Snapshot};
use crate::translate::Place;

use connection::Connection;
use deadlines::Deadlines;
use forward::Line;
use ingest::Ingest;
use inquiry::Inquiry;
use logs::{Logs, Served};
use ops::OpSlab;
use parcel::Visit;
use replies::Replies;

pub(crate) use disk::disk_error;
pub use opening::{Opening, Start};
pub use parcel::Parcel;

/// Ring slots a connection can take: a receive, a send, and one to cancel, shut down or close.
const OPERATIONS_PER_CONNECTION: u32 = 4;
/// Ring slots a log can take: frames, flushes, superblock copies, two reads, ten of settling.
const OPERATIONS_PER_LOG: u32 = 26;
/// Ring slots for everything else: accept, and the reads that a core's logs share.
const OPERATIONS_BESIDES: u32 = 256;
/// Length of the small receive block and of the head block that each connection has, in bytes.
pub const CONNECTION_BLOCK_BYTES: usize = 16 << 10;
/// Length of the smaller blocks of the ingest pool, in bytes: small enough that what was received is still in the
/// core's cache when it is summed and copied.
pub const MEDIUM_BLOCK_BYTES: usize = 256 << 10;

/// Ring slots that a core with so many connections and logs needs.
pub const fn operations(connections: u32, logs: usize) -> u32 {
    connections * OPERATIONS_PER_CONNECTION + logs as u32 * OPERATIONS_PER_LOG + OPERATIONS_BESIDES
}

/// What an operation in the ring is for.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// The one accept.
    Accept,
    /// The receive of the connection in this slot.
    Recv(u32),
    /// The send of the connection in this slot.
    Send(u32),
    /// The close of the connection in this slot.
    Close(u32),
    /// A cancel or shutdown: its effect is seen at its target.
    Aside,
    /// A disk operation of the log in this place.
    Disk(usize, disk::InFlight),
}

/// What is to be done, in order. The shell owns it and keeps its memory.
#[derive(Debug, Default)]
pub struct Output {
    /// For the ring.
    pub submissions: Vec<Submission>,
    /// What the ranges of the sends point into.
    pub slices: Vec<Slice>,
    /// For the host, each with the place of its log.
    pub background: Vec<(usize, DiskOp)>,
    /// For other cores, each with its core.
    pub parcels: Vec<(usize, Parcel)>,
}

impl Output {
    /// Lists that need not grow while at most so many operations of the ring begin in a turn.
    pub fn sized(operations: u32) -> Self {
        let operations = operations as usize;
        Self {
            submissions: Vec::with_capacity(operations),
            slices: Vec::with_capacity(operations * SEND_SLICES),
            background: Vec::new(),
            parcels: Vec::new(),
        }
    }

    /// Empties all lists and keeps their memory.
    pub fn clear(&mut self) {
        self.submissions.clear();
        self.slices.clear();
        self.background.clear();
        self.parcels.clear();
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.submissions.is_empty() && self.background.is_empty() && self.parcels.is_empty()
    }
}

/// The bounds of a core.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Connections at a time.
    pub connections: u32,
    /// Unanswered requests of a connection.
    pub requests: u32,
    /// The longest frame, in bytes.
    pub max_frame_bytes: u32,
    /// The longest batch, in bytes.
    pub max_batch_bytes: u32,
    /// What may be copied aside for a slow connection, in bytes.
    pub slow_bytes: usize,
    /// Time from accept to Hello, in microseconds.
    pub handshake_us: u64,
    /// Time between requests, in microseconds; 0: any.
    pub idle_us: u64,
    /// Memory for replies that are not slices of the log and for what is copied aside, of all connections together, in
    /// bytes.
    pub reply_bytes: usize,
    /// Time without progress of a frame received or a send, in microseconds; 0: any.
    pub stalled_us: u64,
}

/// The memory of a core. Its sends use blocks of the shard besides.
#[derive(Debug)]
pub struct Memory {
    /// Two blocks of [`CONNECTION_BLOCK_BYTES`] for each connection.
    pub connections: Vec<Block>,
    /// Ingest blocks of [`MEDIUM_BLOCK_BYTES`].
    pub medium: Vec<Block>,
    /// Ingest blocks of the longest frame.
    pub large: Vec<Block>,
}

/// The reactor's decisions.
pub struct Core {
    logs: Logs,
    identity: Identity,
    me: usize,
    homes: Vec<usize>,
    places: Vec<Place>,
    bounds: Bounds,
    listener: ListenerId,
    ops: OpSlab<Op>,
    connections: Vec<Option<Connection>>,
    /// Generation of the next user of each slot.
    generations: Vec<u32>,
    free_slots: Vec<u32>,
    blocks: Vec<Block>,
    ingest: Ingest,
    deadlines: Deadlines,
    /// What all connections have noted of their handles.
    routes: u32,
    /// Frames of other cores' connections, with the core they came from.
    guests: Vec<(usize, Box<Visit>)>,
    line: Line,
    /// A shard has answered something in this turn.
    answered: bool,
    /// Questions for Status that other cores have not all answered, and the name of the next one.
    inquiries: Vec<Inquiry>,
    questions: u64,
    /// Slots with received bytes to be served, and those being worked on in this turn.
    ready: Vec<u32>,
    serving: Vec<u32>,
    /// Slots with something to be sent.
    flush: Vec<u32>,
    accepting: Option<Key>,
    /// All logs of the store have started.
    joined: bool,
    /// When to try again after an accept failed.
    accept_at_us: Option<u64>,
    /// When a peer has kept memory that others wait for long enough.
    reclaim_at_us: Option<u64>,
    replies: Replies,
    stopping: bool,
    /// The shard was told something after its turn.
    again: bool,
    counters: Reactor,
}

/// Whether there is more to do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Turn {
    /// Take another turn without waiting.
    Again,
    /// Nothing to do before the next completion or deadline.
    Idle,
}

/// What surrounds the started shards of a core.
pub struct Parts {
    /// The store's random id.
    pub store: u64,
    /// The number of this core.
    pub me: usize,
    /// Which core serves each log, by log.
    pub homes: Vec<usize>,
    /// Where clients are to dial, by core.
    pub places: Vec<Place>,
    /// Limits.
    pub bounds: Bounds,
    /// Buffers.
    pub memory: Memory,
    /// Where to accept.
    pub listener: ListenerId,
}

impl Core {
    /// A core that serves once [`Core::turn`] is called; the rest is what the shard was started with.
    fn new(parts: Parts, logs: Logs, ops: OpSlab<Op>) -> Self {
        let Parts { store, me, homes, places, bounds, memory, listener } = parts;
        let connections = bounds.connections as usize;
        assert!(memory.connections.len() >= 2 * connections, "every connection has its own two blocks");
        let replies = Replies::new(bounds.reply_bytes);
        let identity = Identity {
            store,
            max_frame_bytes: bounds.max_frame_bytes,
            max_batch_bytes: bounds.max_batch_bytes,
        };
        Self {
            logs,
            identity,
            me,
            homes,
            places,
            bounds,
            listener,
            ops,
            connections: (0..connections).map(|_| None).collect(),
            generations: vec![0; connections],
            free_slots: (0..connections as u32).rev().collect(),
            blocks: memory.connections,
            ingest: Ingest::new(memory.medium, memory.large),
            deadlines: Deadlines::new(connections),
            routes: 0,
            guests: Vec::new(),
            line: Line::default(),
            answered: false,
            inquiries: Vec::new(),
            questions: 0,
            ready: Vec::with_capacity(connections),
            serving: Vec::with_capacity(connections),
            flush: Vec::with_capacity(connections),
            accepting: None,
            joined: false,
            accept_at_us: None,
            reclaim_at_us: None,
            replies,
            stopping: false,
            again: false,
            counters: Reactor::default(),
        }
    }

    /// Takes one completion of the ring.
    pub fn on(&mut self, now: Now, completion: Completion, out: &mut Output) {
        let Some(op) = self.ops.take(completion.key) else {
            self.counters.stray += 1;
            return;
        };
        match op {
            Op::Accept => self.on_accept(now, &completion),
            Op::Recv(slot) => self.on_received(now, slot, completion, out),
            Op::Send(slot) => self.on_sent(now, slot, completion, out),
            Op::Close(slot) => self.on_closed(now, slot),
            Op::Aside => {}
            Op::Disk(place, op) => {
                let Served { shard, disk, .. } = self.logs.at(place);
                let answer = disk.complete(op, completion);
                disk.record_end(&answer, |slice| shard.bytes(slice));
                shard.on(now, Event::Disk(answer));
            }
        }
    }

    /// Takes the end of a background operation of the log in `place`; `opened` is the file it made, as the ring knows it.
    pub fn on_background(
        &mut self,
        now: Now,
        place: usize,
        ended: DiskCompletion,
        opened: Option<(FileName, FileId)>,
    ) {
        let Served { shard, disk, .. } = self.logs.at(place);
        disk.background_ended(opened);
        disk.record_end(&ended, |slice| shard.bytes(slice));
        shard.on(now, Event::Disk(ended));
    }

    /// Whether all logs of the store have started and clients are let in.
    pub const fn is_joined(&self) -> bool {
        self.joined
    }

    /// More memory for the live window of the log in `place`; what waited for room goes on at the next turn.
    pub fn grow(&mut self, now: Now, place: usize, window: Vec<Block>) {
        self.logs.grow(now, place, window);
    }

    /// The file is about to be removed or replaced; gives what the ring is to forget.
    pub fn forget_file(&mut self, place: usize, file: FileName) -> Option<FileId> {
        self.logs.at(place).disk.removed(file)
    }

    /// The end of a turn: serves what was received, lets the shard finish, sends what became due. `machine` is
    /// asked only when somebody asks for Status.
    pub fn turn(&mut self, now: Now, machine: &mut dyn FnMut() -> Machine, out: &mut Output) -> Turn {
        self.accept(now, out);
        self.expire(now, out);
        let guests_first = self.are_guests_first();
        if guests_first {
            self.serve_guests(now);
        }
        self.serve(now, out);
        if !guests_first {
            self.serve_guests(now);
        }
        for place in 0..self.logs.len() {
            let Served { shard, actions, .. } = self.logs.at(place);
            shard.turn(now, actions);
            self.act(now, place, machine, out);
        }
        self.send_all(now, out);
        out.parcels.append(&mut self.logs.parcels);
        // What was answered made room for those who wait here.
        self.again |= mem::take(&mut self.answered) && !self.guests.is_empty();
        let more = self.ready.iter().any(|&slot| self.is_servable(slot));
        if mem::take(&mut self.again) || more { Turn::Again } else { Turn::Idle }
    }

    /// The monotonic time, in microseconds, at which a turn is due even if nothing completes.
    pub fn next_deadline(&self) -> Option<u64> {
        let own = [self.deadlines.next(), self.accept_at_us, self.reclaim_at_us];
        own.into_iter().chain([self.logs.next_deadline()]).flatten().min()
    }

    /// What has been counted.
    pub fn counters(&self) -> Reactor {
        let open = self.connections.len() - self.free_slots.len();
        Reactor { connections: open as u32, ..self.counters }
    }

    /// Says what this core counts, in a place that is kept. The loop's part is the shell's.
    pub fn say(&self, says: &mut Snapshot) {
        says.joined = self.joined;
        says.logs.clear();
        says.logs.extend(self.shards().map(Shard::status));
        says.reactor = self.counters();
        // Every connection has its own two blocks.
        let bytes = |connections: u64| 2 * connections * CONNECTION_BLOCK_BYTES as u64;
        says.connections = Pool {
            used_bytes: bytes(says.reactor.connections.into()),
            limit_bytes: bytes(self.connections.len() as u64),
        };
        says.ingest = self.ingest.usage();
        says.replies = self.replies.usage();
    }

    /// The shards, by place.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.logs.iter().map(|served| &served.shard)
    }

    /// The bytes of a slice that an operation names.
    pub fn bytes(&self, slice: Slice) -> &[u8] {
        self.logs.bytes(slice)
    }

    /// Operations in the ring.
    pub const fn in_flight(&self) -> usize {
        self.ops.live()
    }

    /// The invariants, for tests: every slot and every block of a connection is somewhere exactly once.
    ///
    /// # Panics
    /// When one is broken.
    pub fn check(&self) {
        let open = self.connections.iter().flatten().count();
        assert_eq!(open + self.free_slots.len(), self.connections.len(), "a slot is in use or free");
        let least = 2 * self.free_slots.len();
        assert!(self.blocks.len() >= least, "every free slot has its two blocks");
        let routes = self.connections.iter().flatten().map(|connection| connection.routes.len()).sum::<u32>();
        assert_eq!(routes, self.routes, "routes are counted");
        let extra = self.connections.iter().flatten().map(|connection| connection.outbox.extra_bytes());
        assert_eq!(extra.sum::<usize>(), self.replies.used(), "memory for replies is counted");
        for connection in self.connections.iter().flatten() {
            assert_eq!(
                connection.inbox.is_receiving(),
                connection.receiving.is_some() || connection.is_away,
                "a lent block is in the ring or on a visit"
            );
            assert_eq!(
                connection.outbox.is_sending(),
                connection.sending.is_some(),
                "a lent head is in the ring"
            );
            assert!(connection.unanswered() <= self.bounds.requests as usize, "requests are bounded");
        }
    }

    /// The slot of a connection of this core, as it is named on all.
    fn slot_of(&self, conn: ConnId) -> Option<u32> {
        let first = self.me as u32 * self.bounds.connections;
        conn.slot.checked_sub(first).filter(|&slot| slot < self.bounds.connections)
    }

    fn connection(&mut self, slot: u32) -> &mut Connection {
        self.connections[slot as usize].as_mut().expect("the slot is in use")
    }
}
