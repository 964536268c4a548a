//! One io_uring per shard: submissions in, completions out, at most one system call a turn.
//!
//! The ring owns what the kernel may touch: a block that is received or read into moves in with the submission
//! and comes back with the completion, message headers live in storage of the ring's own, and slices point into
//! the arena, whose mappings the ring keeps. Dropping the ring first ends and collects everything in flight.
//!
//! **Invariants:** a slot has at most one operation in flight; both queues have room for all slots, so that
//! pushing cannot fail and completions cannot overflow; after warm-up nothing is allocated. Created, used and
//! dropped on one thread: the kernel refuses others.

mod error;
mod instance;
mod operation;
mod prepare;
mod regions;
mod tables;
#[cfg(test)]
mod tests;

use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use corelog_model::Slice;

use crate::arena::Region;
use crate::op::{Accepted, Completion, Errno, FileId, Key, ListenerId, SocketId, Submission};
use crate::waker::Waker;

use instance::Instance;
use operation::{Held, Message, Peer, Slot};
use regions::Regions;
use tables::Tables;

pub use error::{RingError, RingOperation};
pub use regions::Registration;

/// The most slots a ring can have: the kernel's longest submission queue, less the poll of the waker and knocks.
pub const MAX_OPERATIONS: u32 = 32_768 - 1 - MAX_KNOCKS;
/// Messages kept ready for sends with several pieces; more are made when needed and then kept.
const MESSAGES: usize = 64;
/// The name of the poll of the ring's waker; a slot of this number does not exist.
const WAKE: Key = Key(u64::MAX);
/// What a knock is called where it arrives. Nobody's operation.
const KNOCK: Key = Key(WAKE.0 - 1);
/// What knocks are called where they are sent from: this and their number, up to the one above.
const KNOCKED: Key = Key(KNOCK.0 - MAX_KNOCKS as u64);
/// Knocks in one turn at most, and of those that can arrive before the next one: other rings of the process.
pub const MAX_KNOCKS: u32 = 256;
/// How long a dropped ring waits for what is in flight. A disk that takes longer keeps the memory for good.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// How large a ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Slots: operations in flight at most, and keys' slots are below it. At most [`MAX_OPERATIONS`].
    pub operations: u32,
    /// Connections at most.
    pub sockets: u32,
    /// Files and listeners at most.
    pub files: u32,
    /// Regions at most that are registered; further ones are used as plain memory.
    pub regions: u32,
    /// Whether to register buffers at all.
    pub register_buffers: bool,
}

/// What a ring has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// System calls to submit and collect.
    pub enters: u64,
    /// System calls to park.
    pub parks: u64,
    /// System calls that take files and sockets over or give them back.
    pub registrations: u64,
    /// Operations pushed.
    pub submissions: u64,
    /// Operations completed.
    pub completions: u64,
}

/// One shard's io_uring.
pub struct Ring {
    slots: Vec<Slot>,
    in_flight: u32,
    #[expect(clippy::vec_box, reason = "the kernel knows a message by its address")]
    messages: Vec<Box<Message>>,
    #[expect(clippy::vec_box, reason = "the kernel knows a peer by its address")]
    peers: Vec<Box<Peer>>,
    /// Completions of submissions that never reached the kernel.
    refused: Vec<Completion>,
    /// Knocks that failed, by their number.
    unheard: Vec<u32>,
    tables: Tables,
    regions: Regions,
    registered: u32,
    region_limit: u32,
    registration: Registration,
    counters: Counters,
    /// Other threads wake it.
    waker: Waker,
    /// It is being polled.
    attending: bool,
    instance: Instance,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { operations: 4096, sockets: 1024, files: 64, regions: 64, register_buffers: true }
    }
}

impl Ring {
    /// Sets a ring up on the calling thread, which alone may use it.
    ///
    /// # Panics
    /// When `operations` is 0 or more than [`MAX_OPERATIONS`].
    pub fn new(config: &RingConfig) -> Result<Self, RingError> {
        assert!(
            (1..=MAX_OPERATIONS).contains(&config.operations),
            "a queue has room for the slots, the waker and knocks"
        );
        let waker = Waker::new().map_err(|errno| RingError::new(RingOperation::Eventfd, errno))?;
        // More than there are slots: the poll of the waker, and knocks.
        let mut instance = Instance::new(config.operations + 1 + MAX_KNOCKS)?;
        instance.register(config, waker.signal())?;
        let registration = match config.register_buffers {
            false => Registration::Off,
            true => match instance.reserve_buffers(config.regions) {
                Ok(()) => Registration::Fixed,
                Err(error) => Registration::Refused(error.into()),
            },
        };
        Ok(Self {
            slots: (0..config.operations).map(|_| Slot::vacant()).collect(),
            in_flight: 0,
            messages: (0..MESSAGES).map(|_| Message::new()).collect(),
            peers: Vec::new(),
            refused: Vec::with_capacity(config.operations as usize),
            unheard: Vec::new(),
            tables: Tables::new(config.sockets, config.files),
            regions: Regions::new(),
            registered: 0,
            region_limit: config.regions,
            registration,
            counters: Counters::default(),
            waker,
            attending: false,
            instance,
        })
    }

    /// Tells the ring where blocks are, so that slices may name them, and registers them if it may.
    pub fn register_region(&mut self, region: &Region) {
        let mut buffer = None;
        if self.registration == Registration::Fixed && self.registered < self.region_limit {
            match self.instance.register_buffer(self.registered, region) {
                Ok(()) => {
                    buffer = Some(u16::try_from(self.registered).expect("the kernel allows 16384"));
                    self.registered += 1;
                }
                Err(error) => self.registration = Registration::Refused(error.into()),
            }
        }
        self.regions.add(region, buffer);
    }

    /// Tells the ring where blocks of another ring's are, so that slices may name them in sends.
    pub fn know_region(&mut self, region: &Region) {
        self.regions.add(region, None);
    }

    /// Whether disk operations use registered buffers.
    pub const fn registration(&self) -> Registration {
        self.registration
    }

    /// Takes a file over; the ring keeps it open until [`Ring::release_file`].
    pub fn register_file(&mut self, file: OwnedFd) -> Result<FileId, RingError> {
        let id = self.tables.take_file().ok_or_else(table_full)?;
        self.counters.registrations += 1;
        self.instance.register_file(id.0, file.as_fd()).inspect_err(|_| self.tables.give_file(id))?;
        Ok(id)
    }

    /// Closes a file, after the operations in flight on it.
    pub fn release_file(&mut self, file: FileId) -> Result<(), RingError> {
        self.counters.registrations += 1;
        self.instance.release_file(file.0)?;
        self.tables.give_file(file);
        Ok(())
    }

    /// Takes a listening socket over.
    pub fn register_listener(&mut self, listener: OwnedFd) -> Result<ListenerId, RingError> {
        let id = self.tables.take_listener().ok_or_else(table_full)?;
        self.counters.registrations += 1;
        let registered = self.instance.register_file(id.0, listener.as_fd());
        registered.inspect_err(|_| self.tables.give_file(FileId(id.0)))?;
        Ok(id)
    }

    /// Stops listening. End the outstanding accept by a cancel first: it keeps the socket open.
    pub fn release_listener(&mut self, listener: ListenerId) -> Result<(), RingError> {
        self.release_file(FileId(listener.0))
    }

    /// Takes a connected socket over that did not come from an accept.
    pub fn adopt_socket(&mut self, socket: OwnedFd) -> Result<SocketId, RingError> {
        let id = self.tables.take_socket().ok_or_else(table_full)?;
        self.counters.registrations += 1;
        self.instance.register_file(id.0, socket.as_fd()).inspect_err(|_| self.tables.give_socket(id))?;
        Ok(id)
    }

    /// Queues an operation; the next [`Ring::submit`] or [`Ring::wait`] hands it to the kernel. `slices` is the
    /// list that a send's range points into.
    ///
    /// # Panics
    /// When the key's slot is out of range or busy, or a range leaves its block: mistakes of the caller.
    pub fn push(&mut self, submission: Submission, slices: &[Slice]) {
        let key = submission.key();
        let slot = self.slots.get(key.slot() as usize).expect("a key's slot is below `operations`");
        assert!(slot.is_vacant(), "a slot has one operation in flight");
        self.counters.submissions += 1;
        self.in_flight += 1;
        self.prepare(submission, slices);
    }

    /// Hands queued operations to the kernel and lets it finish deferred work. One system call, or none when
    /// nothing is queued and the kernel holds nothing back.
    pub fn submit(&mut self) -> Result<(), RingError> {
        let queued = self.instance.queued();
        if queued == 0 && !self.instance.has_deferred() {
            return Ok(());
        }
        self.counters.enters += 1;
        self.instance.enter(queued).map_err(|error| RingError::new(RingOperation::Enter, error))
    }

    /// Like [`Ring::submit`], then blocks the thread until `want` completions are there or the time is over. For
    /// tools and measurements: a reactor parks.
    pub fn wait(&mut self, want: u32, timeout: Option<Duration>) -> Result<(), RingError> {
        if !self.refused.is_empty() {
            return self.submit();
        }
        self.counters.enters += 1;
        self.block(want.min(self.in_flight), timeout)
    }

    /// Like [`Ring::submit`], then blocks the thread until something completes, the [`Waker`] is woken, or the time
    /// is over; at once if one of them was before. Nothing else of the thread runs meanwhile.
    pub fn park(&mut self, limit: Duration) -> Result<(), RingError> {
        if !self.refused.is_empty() {
            return self.submit();
        }
        self.attend();
        self.counters.parks += 1;
        self.block(1, Some(limit))
    }

    fn block(&mut self, want: u32, timeout: Option<Duration>) -> Result<(), RingError> {
        let queued = self.instance.queued();
        let waited = self.instance.wait(queued, want, timeout);
        waited.map_err(|error| RingError::new(RingOperation::Enter, error))
    }

    /// Appends what has completed and returns how many that were. No system call.
    pub fn completions(&mut self, out: &mut Vec<Completion>) -> usize {
        let before = out.len();
        self.in_flight -= u32::try_from(self.refused.len()).expect("at most one per slot");
        out.append(&mut self.refused);
        self.instance.refresh();
        while let Some((user_data, result)) = self.instance.next() {
            match Key(user_data) {
                WAKE => self.woken(result),
                // The sleep it ended is over.
                KNOCK => {}
                Key(knocked) if knocked >= KNOCKED.0 => self.knocked(knocked - KNOCKED.0, result),
                key => out.push(self.complete(key, result)),
            }
        }
        // Gives the places just read back to the kernel.
        self.instance.refresh();
        let count = out.len() - before;
        self.counters.completions += count as u64;
        count
    }

    /// Operations that were pushed and whose completion was not yet taken.
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// What the ring has done so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// What ends a sleep of this shard; give clones to the threads that hand things over.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// A name of this ring by which other rings of the process can knock.
    pub fn fd(&self) -> Result<OwnedFd, RingError> {
        self.instance.duplicate().map_err(|error| RingError::new(RingOperation::Setup, error))
    }

    /// Ends the sleep of another ring, with the next [`Ring::submit`]: a completion arrives there that is nobody's. If it
    /// cannot arrive, [`Ring::unheard`] gives the number.
    ///
    /// # Panics
    /// When the number is not below [`MAX_KNOCKS`].
    pub fn knock(&mut self, ring: &OwnedFd, number: u32) {
        assert!(number < MAX_KNOCKS, "a knock has one of so many numbers");
        self.knock_at(ring, Key(KNOCKED.0 + u64::from(number)));
    }

    /// The number of a knock that did not arrive, as the completions taken so far say: that ring may sleep on, and is to
    /// be woken by its [`Waker`].
    pub fn unheard(&mut self) -> Option<u32> {
        self.unheard.pop()
    }

    /// Makes ready to park elsewhere: from now on the kernel adds to the [`Waker`]'s signal when something completes.
    /// True when nothing has, so that the caller may park; either way [`Ring::disarm`] comes next.
    pub fn arm(&mut self) -> Result<bool, RingError> {
        self.instance.set_eventfd(true);
        // Pairs with the kernel's: either it sees the eventfd enabled, or we see what it completed.
        fence(Ordering::SeqCst);
        self.submit()?;
        self.instance.refresh();
        Ok(!self.instance.has_completions() && !self.instance.has_deferred() && self.refused.is_empty())
    }

    /// Awake again: completions cost no eventfd signal from now on.
    pub fn disarm(&mut self) {
        self.instance.set_eventfd(false);
    }

    /// The poll of the waker is over; it is polled again before the next sleep.
    fn woken(&mut self, result: i32) {
        self.attending = false;
        if result > 0 {
            self.waker.polled().clear();
        }
    }

    /// A knock of this ring is over.
    fn knocked(&mut self, number: u64, result: i32) {
        if result < 0 {
            self.unheard.push(u32::try_from(number).expect("numbers are below `MAX_KNOCKS`"));
        }
    }

    /// Takes a slot's operation back from the kernel.
    fn complete(&mut self, key: Key, result: i32) -> Completion {
        let slot = &mut self.slots[key.slot() as usize];
        assert_eq!(slot.key, key, "a completion belongs to the operation in its slot");
        let held = mem::take(&mut slot.held);
        self.in_flight -= 1;
        let mut completion = Completion { key, result: outcome(result), block: None, accepted: None };
        match held {
            Held::Vacant => unreachable!("an operation completes once"),
            Held::Plain => {}
            Held::Block(block) => completion.block = Some(block),
            Held::Send { head, message } => {
                completion.block = head;
                self.messages.push(message);
            }
            Held::Accept { socket, peer } => {
                match completion.result {
                    Ok(_) => completion.accepted = Some(Accepted { socket, peer: peer.address() }),
                    Err(_) => self.tables.give_socket(socket),
                }
                self.peers.push(peer);
            }
            // A refused close left the place as it was: it was empty already.
            Held::Close { socket } if completion.result.is_ok() => self.tables.give_socket(socket),
            Held::Close { .. } => {}
        }
        completion
    }

    /// Ends everything in flight and waits for it; false when something did not end in time.
    fn drain(&mut self) -> bool {
        let deadline = Instant::now() + DRAIN_LIMIT;
        let mut completed = Vec::new();
        // What was queued but not submitted must reach the kernel to be ended there.
        while self.in_flight > 0 && Instant::now() < deadline {
            if self.submit().is_err() {
                return false;
            }
            self.instance.cancel_all();
            if self.wait(1, Some(Duration::from_millis(10))).is_err() {
                return false;
            }
            self.completions(&mut completed);
            completed.clear();
        }
        self.in_flight == 0
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.disarm();
        if !self.drain() {
            // The kernel may still write to these blocks: better lost than freed.
            tracing::error!(in_flight = self.in_flight, "a ring ended with operations in flight");
            mem::forget(mem::take(&mut self.slots));
            mem::forget(mem::replace(&mut self.regions, Regions::new()));
        }
        self.instance.unregister(self.registered > 0);
    }
}

fn outcome(result: i32) -> Result<u32, Errno> {
    u32::try_from(result).map_err(|_| Errno(-result))
}

fn table_full() -> RingError {
    RingError::new(RingOperation::RegisterFile, Errno::TABLE_FULL)
}
