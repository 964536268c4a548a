//! Fetches and subscriptions that wait: for data, for the disk, for a free read, for their client.
//!
//! A fetch waits for data in the list of its partition and among the deadlines; it waits for the disk under a token, and
//! for a free read in a queue. A subscription keeps its place between two pushes: until its connection has taken the last
//! one, in a list of the connection, or until it is given credit, in one of its partition. Every wait is in a list of its
//! connection beside, so that an end of one costs as much as it has. At the bound a request is refused with `TooMany`,
//! never dropped; subscriptions have one of their own, so that they leave fetches their places. Decides nothing: `fetch`
//! and `subscription` do.

mod deadlines;
mod list;

use corelog_model::Term;

use self::deadlines::Deadlines;
pub(crate) use self::list::WaitList;
use self::list::{Chain, Links, NONE};
use crate::event::ConnId;
use crate::partition::PartitionId;
use crate::refusal::{Bounded, Refusal};

/// What a waiting request wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Batches from its offset on.
    Batches,
    /// The first record at or after this time, in microseconds since 1970.
    Time(u64),
}

/// What makes a fetch a subscription: it goes on after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    /// The handle it is the subscription of.
    pub(crate) handle: u32,
    /// Bytes that may be pushed; the last batch may go beyond.
    pub(crate) credit: i64,
    /// The client knows that it has begun.
    pub(crate) begun: bool,
    /// It is to end as soon as it waits for nothing of the broker's own.
    pub(crate) ended: bool,
}

/// A fetch as it was asked, after its handle was resolved. A look-up by time waits for the disk like one, and a
/// subscription is one whose offset moves on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    pub(crate) conn: ConnId,
    pub(crate) correlation: u64,
    pub(crate) partition: PartitionId,
    pub(crate) wanted: Wanted,
    pub(crate) offset: u64,
    pub(crate) leader_epoch: Option<Term>,
    pub(crate) max_bytes: u32,
    pub(crate) min_bytes: u32,
    /// When it is answered with what there is, in monotonic microseconds.
    pub(crate) deadline_us: u64,
    pub(crate) stream: Option<Stream>,
}

/// Names a waiting fetch; given to the log as the token of its read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitId {
    slot: u32,
    generation: u32,
}

impl WaitId {
    pub(crate) fn token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    pub(crate) fn from_token(token: u64) -> Self {
        Self { slot: token as u32, generation: (token >> 32) as u32 }
    }
}

/// Who waits for something of one partition.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waiters {
    /// For data.
    pub(crate) data: WaitList,
    /// Subscriptions, until they are given credit.
    pub(crate) credit: WaitList,
}

/// The last that was not due on a way through those that wait for data, so that it is not looked at again. It stays where it
/// is meanwhile: only what is due leaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Passed(Option<u32>);

/// What a slot's fetch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// For nothing; or the slot is free.
    Free,
    /// `due_bytes`: the partition's count of visible bytes at which there is enough. `place`: among the deadlines.
    Data { due_bytes: u64, place: u32 },
    /// Until it is given credit.
    Credit,
    /// Until its connection has taken what was pushed.
    Client,
    /// Until a read is free.
    Queued,
    /// For the disk. A slot in this state without a fetch is one whose connection is gone: it stays until the disk answers.
    Disk,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    state: State,
    /// By [`Chain`].
    links: [Links; 2],
    fetch: Option<Fetch>,
    /// Whether it holds, or held last, a subscription.
    is_stream: bool,
}

/// The waits of one connection.
#[derive(Clone, Copy, Debug, Default)]
struct OfConnection {
    all: WaitList,
    /// Subscriptions that wait until it has taken what they pushed.
    pushed: WaitList,
}

/// All waiting fetches of a shard.
#[derive(Debug)]
pub(crate) struct Waits {
    /// Reserved whole, so that none is ever moved, and made as they are needed: memory that no wait was in is not touched.
    slots: Vec<Slot>,
    max_fetches: u32,
    max_streams: u32,
    free: WaitList,
    deadlines: Deadlines,
    /// For a free read.
    queue: WaitList,
    /// By slot of the connection.
    connections: Vec<OfConnection>,
    /// Slots that are not free: those of fetches, and those of subscriptions.
    fetches: u32,
    streams: u32,
    /// Slots in state `Data`, and in states `Disk` and `Queued`.
    for_data: u32,
    for_disk: u32,
}

impl Waits {
    pub(crate) fn new(connections: u32, max_fetches: u32, max_streams: u32) -> Self {
        Self {
            slots: Vec::with_capacity(max_fetches as usize + max_streams as usize),
            max_fetches,
            max_streams,
            free: WaitList::default(),
            deadlines: Deadlines::new(max_fetches),
            queue: WaitList::default(),
            connections: vec![OfConnection::default(); connections as usize],
            fetches: 0,
            streams: 0,
            for_data: 0,
            for_disk: 0,
        }
    }

    /// Subscriptions.
    pub(crate) const fn streams(&self) -> u32 {
        self.streams
    }

    /// Fetches and subscriptions that wait for data.
    pub(crate) const fn for_data(&self) -> u32 {
        self.for_data
    }

    /// Those that wait for the disk or for a free read.
    pub(crate) const fn for_disk(&self) -> u32 {
        self.for_disk
    }

    /// Whether some wait for a free read.
    pub(crate) const fn are_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// A place for a fetch of a connection that is there, not waiting for anything yet: it is to be given to one of the
    /// `await_` functions or back to `take`.
    pub(crate) fn reserve(&mut self, fetch: Fetch) -> Result<WaitId, Refusal> {
        let (what, count, max) = match fetch.stream {
            Some(_) => (Bounded::Subscriptions, &mut self.streams, self.max_streams),
            None => (Bounded::Waits, &mut self.fetches, self.max_fetches),
        };
        if *count >= max {
            return Err(Refusal::TooMany { what, max });
        }
        *count += 1;
        let at = self.free_slot();
        let all = &mut self.connections[fetch.conn.slot as usize].all;
        all.append(&mut self.slots, Chain::Connection, at);
        let slot = &mut self.slots[at as usize];
        (slot.is_stream, slot.fetch) = (fetch.stream.is_some(), Some(fetch));
        Ok(self.id(at))
    }

    fn free_slot(&mut self) -> u32 {
        if let Some(at) = self.free.first() {
            self.free.remove(&mut self.slots, Chain::Awaited, at);
            return at;
        }
        let at = u32::try_from(self.slots.len()).expect("waits are bounded");
        let (links, fetch) = ([Links::ALONE; 2], None);
        self.slots.push(Slot { generation: 0, state: State::Free, links, fetch, is_stream: false });
        at
    }

    /// The fetch waits until its partition has shown `due_bytes`, or its deadline.
    pub(crate) fn await_data(&mut self, id: WaitId, waiters: &mut Waiters, due_bytes: u64) {
        self.set(id, State::Data { due_bytes, place: NONE });
        waiters.data.append(&mut self.slots, Chain::Awaited, id.slot);
        if !self.slots[id.slot as usize].is_stream {
            self.deadlines.insert(&mut self.slots, id.slot);
        }
        self.for_data += 1;
    }

    /// The subscription waits until it is given credit.
    pub(crate) fn await_credit(&mut self, id: WaitId, waiters: &mut Waiters) {
        self.set(id, State::Credit);
        waiters.credit.append(&mut self.slots, Chain::Awaited, id.slot);
    }

    /// The subscription waits until its connection has taken what was pushed.
    pub(crate) fn await_client(&mut self, id: WaitId) {
        let conn = self.fetch(id).conn;
        self.set(id, State::Client);
        let pushed = &mut self.connections[conn.slot as usize].pushed;
        pushed.append(&mut self.slots, Chain::Awaited, id.slot);
    }

    /// The fetch waits for the read that was started under its token.
    pub(crate) fn await_disk(&mut self, id: WaitId) {
        self.set(id, State::Disk);
        self.for_disk += 1;
    }

    /// The fetch waits until a read is free.
    pub(crate) fn await_turn(&mut self, id: WaitId) {
        self.set(id, State::Queued);
        self.queue.append(&mut self.slots, Chain::Awaited, id.slot);
        self.for_disk += 1;
    }

    /// The first that waits for data for which `visible_bytes` are enough, behind the one that was `passed` last: those
    /// between are passed, too.
    pub(crate) fn due(&self, waiters: &Waiters, visible_bytes: u64, passed: &mut Passed) -> Option<WaitId> {
        let mut next = waiters.data.after(&self.slots, Chain::Awaited, passed.0);
        while let Some(at) = next {
            match self.slots[at as usize].state {
                State::Data { due_bytes, .. } if due_bytes <= visible_bytes => return Some(self.id(at)),
                State::Data { .. } => passed.0 = Some(at),
                other => unreachable!("it waits for data, not {other:?}"),
            }
            next = waiters.data.after(&self.slots, Chain::Awaited, passed.0);
        }
        None
    }

    /// The first of those that wait for something of a partition.
    pub(crate) fn first(&self, waiters: &Waiters) -> Option<WaitId> {
        let first = waiters.data.first().or_else(|| waiters.credit.first());
        first.map(|at| self.id(at))
    }

    /// Stops waiting for something of its partition: the fetch is to be tried again, under the same name.
    pub(crate) fn wake(&mut self, id: WaitId, waiters: &mut Waiters) {
        let list = match self.state(id) {
            State::Data { place, .. } => {
                if place != NONE {
                    self.deadlines.remove(&mut self.slots, place);
                }
                self.for_data -= 1;
                &mut waiters.data
            }
            State::Credit => &mut waiters.credit,
            other => unreachable!("it waits for its partition, not {other:?}"),
        };
        list.remove(&mut self.slots, Chain::Awaited, id.slot);
        self.set(id, State::Free);
    }

    /// Whether it waits for something of its partition: data, or credit.
    pub(crate) fn is_at_partition(&self, id: WaitId) -> bool {
        matches!(self.state(id), State::Data { .. } | State::Credit)
    }

    /// Whether it waits for credit.
    pub(crate) fn is_without_credit(&self, id: WaitId) -> bool {
        self.state(id) == State::Credit
    }

    /// The earliest deadline, in monotonic microseconds.
    pub(crate) fn deadline_us(&self) -> Option<u64> {
        self.deadlines.first(&self.slots).map(|(_, deadline_us)| deadline_us)
    }

    /// The fetch whose deadline has passed, the earliest first.
    pub(crate) fn expired(&self, mono_us: u64) -> Option<WaitId> {
        let (at, deadline_us) = self.deadlines.first(&self.slots)?;
        (deadline_us <= mono_us).then(|| self.id(at))
    }

    /// The fetch that waits longest for a free read.
    pub(crate) fn next_queued(&mut self) -> Option<WaitId> {
        let id = self.id(self.queue.first()?);
        self.leave_queue(id);
        Some(id)
    }

    fn leave_queue(&mut self, id: WaitId) {
        self.queue.remove(&mut self.slots, Chain::Awaited, id.slot);
        self.for_disk -= 1;
        self.set(id, State::Free);
    }

    /// The fetch that was queued last was the first and its turn had not come: it stays the first.
    pub(crate) fn keep_turn(&mut self) {
        if let Some(last) = self.queue.last() {
            self.queue.remove(&mut self.slots, Chain::Awaited, last);
            self.queue.prepend(&mut self.slots, Chain::Awaited, last);
        }
    }

    /// The read under this token is over; who still wants it. `None` also for a token not in use.
    pub(crate) fn read_over(&mut self, token: u64) -> Option<WaitId> {
        let id = WaitId::from_token(token);
        let slot = self.slots.get(id.slot as usize)?;
        if slot.generation != id.generation || slot.state != State::Disk {
            return None;
        }
        let is_wanted = slot.fetch.is_some();
        self.for_disk -= 1;
        self.set(id, State::Free);
        if !is_wanted {
            self.release(id);
        }
        is_wanted.then_some(id)
    }

    /// The subscriptions that waited until the connection had taken what they pushed; what they push from now on waits in
    /// a list of its own.
    pub(crate) fn drain(&mut self, conn: ConnId) -> WaitList {
        match self.first_of(conn) {
            Some(_) => std::mem::take(&mut self.connections[conn.slot as usize].pushed),
            None => WaitList::default(),
        }
    }

    /// The next of them waits for nothing now.
    pub(crate) fn drained(&mut self, list: &mut WaitList) -> Option<WaitId> {
        let id = self.id(list.first()?);
        list.remove(&mut self.slots, Chain::Awaited, id.slot);
        self.set(id, State::Free);
        Some(id)
    }

    pub(crate) fn fetch(&self, id: WaitId) -> Fetch {
        let slot = &self.slots[id.slot as usize];
        assert_eq!(slot.generation, id.generation, "a waiting fetch is named once");
        slot.fetch.expect("a named slot holds a fetch")
    }

    /// The same, to be moved on.
    pub(crate) fn fetch_mut(&mut self, id: WaitId) -> &mut Fetch {
        let slot = &mut self.slots[id.slot as usize];
        assert_eq!(slot.generation, id.generation, "a waiting fetch is named once");
        slot.fetch.as_mut().expect("a named slot holds a fetch")
    }

    /// What a subscription may push and whether it goes on.
    pub(crate) fn stream_mut(&mut self, id: WaitId) -> &mut Stream {
        self.fetch_mut(id).stream.as_mut().expect("the fetch is a subscription")
    }

    /// What waits on behalf of a connection, first come first.
    pub(crate) fn of_connection(&self, conn: ConnId) -> Vec<WaitId> {
        let all = self.first_of(conn).map(|_| self.connections[conn.slot as usize].all);
        all.unwrap_or_default().iter(&self.slots, Chain::Connection).map(|at| self.id(at)).collect()
    }

    /// The first of them. All are of one connection: it takes its own along when it goes.
    pub(crate) fn first_of(&self, conn: ConnId) -> Option<WaitId> {
        let first = self.connections.get(conn.slot as usize)?.all.first().map(|at| self.id(at))?;
        (self.fetch(first).conn == conn).then_some(first)
    }

    /// It is not to wait for data any more, or to go on as a subscription. While it waits for data it has to wake first.
    pub(crate) fn hasten(&mut self, id: WaitId, mono_us: u64) {
        let fetch = self.fetch_mut(id);
        fetch.deadline_us = fetch.deadline_us.min(mono_us);
        if let Some(stream) = &mut fetch.stream {
            stream.ended = true;
        }
    }

    /// Ends the wait: the slot is free again.
    pub(crate) fn take(&mut self, id: WaitId) -> Fetch {
        assert_eq!(self.state(id), State::Free, "an answered fetch waits for nothing");
        let fetch = self.forget(id);
        self.release(id);
        fetch
    }

    /// Its connection is gone: the wait ends without an answer. One for the disk keeps its slot until that answers, and one
    /// for its partition has to wake first.
    pub(crate) fn abandon(&mut self, id: WaitId) {
        let Fetch { conn, .. } = self.forget(id);
        match self.state(id) {
            State::Disk => return,
            State::Client => {
                let pushed = &mut self.connections[conn.slot as usize].pushed;
                pushed.remove(&mut self.slots, Chain::Awaited, id.slot);
                self.set(id, State::Free);
            }
            State::Queued => self.leave_queue(id),
            State::Free => {}
            State::Data { .. } | State::Credit => unreachable!("it waits for its partition"),
        }
        self.release(id);
    }

    /// The slot holds no fetch any more, and its connection has nothing to do with it.
    fn forget(&mut self, id: WaitId) -> Fetch {
        let fetch = self.fetch(id);
        let all = &mut self.connections[fetch.conn.slot as usize].all;
        all.remove(&mut self.slots, Chain::Connection, id.slot);
        self.slots[id.slot as usize].fetch = None;
        fetch
    }

    fn release(&mut self, id: WaitId) {
        let slot = &mut self.slots[id.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        *if slot.is_stream { &mut self.streams } else { &mut self.fetches } -= 1;
        self.free.prepend(&mut self.slots, Chain::Awaited, id.slot);
    }

    fn id(&self, at: u32) -> WaitId {
        WaitId { slot: at, generation: self.slots[at as usize].generation }
    }

    fn state(&self, id: WaitId) -> State {
        self.slots[id.slot as usize].state
    }

    fn set(&mut self, id: WaitId, state: State) {
        self.slots[id.slot as usize].state = state;
    }

    /// Every slot is free, or waits for one thing and is in the list for that, and in its connection's. `waiters` are those
    /// of all partitions.
    pub(crate) fn check<'a>(&self, waiters: impl Iterator<Item = &'a Waiters>) {
        let slots = &self.slots;
        let count = |list: WaitList, fits: fn(State) -> bool| {
            list.check(slots, Chain::Awaited, |slot| fits(slot.state) && slot.fetch.is_some())
        };
        let (mut data, mut credit, mut client, mut owned) = (0, 0, 0, 0);
        for waiters in waiters {
            data += count(waiters.data, |state| matches!(state, State::Data { .. }));
            credit += count(waiters.credit, |state| state == State::Credit);
        }
        for (at, of) in self.connections.iter().enumerate() {
            client += count(of.pushed, |state| state == State::Client);
            let is_own = |slot: &Slot| slot.fetch.is_some_and(|fetch| fetch.conn.slot as usize == at);
            owned += of.all.check(slots, Chain::Connection, is_own);
        }
        let queued = count(self.queue, |state| state == State::Queued);
        let on_disk = slots.iter().filter(|slot| slot.state == State::Disk);
        let abandoned = on_disk.clone().filter(|slot| slot.fetch.is_none()).count() as u32;
        let disk = on_disk.count() as u32;
        let is_free = |slot: &Slot| slot.state == State::Free && slot.fetch.is_none();
        let free = self.free.check(slots, Chain::Awaited, is_free);
        let all = data + credit + client + queued + disk + free;
        assert_eq!(all as usize, slots.len(), "a slot is free or waits for something");
        assert_eq!((data, queued + disk), (self.for_data, self.for_disk));
        let used = slots.iter().filter(|slot| slot.state != State::Free || slot.fetch.is_some());
        let streams = used.clone().filter(|slot| slot.is_stream).count() as u32;
        assert_eq!((owned + abandoned, streams), (self.fetches + self.streams, self.streams));
        assert_eq!(used.count() as u32, self.fetches + self.streams);
        self.deadlines.check(slots);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn conn(slot: u32) -> ConnId {
        ConnId { slot, generation: slot + 1 }
    }

    fn fetch(conn: ConnId, correlation: u64, deadline_us: u64) -> Fetch {
        Fetch {
            conn,
            correlation,
            partition: PartitionId { slot: 0, generation: 0 },
            wanted: Wanted::Batches,
            offset: 0,
            leader_epoch: None,
            max_bytes: 1,
            min_bytes: 1,
            deadline_us,
            stream: None,
        }
    }

    fn stream(conn: ConnId, correlation: u64) -> Fetch {
        let stream = Stream { handle: 1, credit: 0, begun: false, ended: false };
        Fetch { stream: Some(stream), ..fetch(conn, correlation, u64::MAX) }
    }

    #[test]
    fn a_full_table_refuses_and_a_freed_place_is_taken_again() {
        let mut waits = Waits::new(2, 1, 1);
        let mut waiters = Waiters::default();
        let id = waits.reserve(fetch(conn(1), 1, 10)).unwrap();
        waits.await_data(id, &mut waiters, 100);
        let refused = waits.reserve(fetch(conn(1), 2, 10)).unwrap_err();
        assert_eq!(refused, Refusal::TooMany { what: Bounded::Waits, max: 1 });
        let subscription =
            waits.reserve(stream(conn(1), 3)).expect("subscriptions have a bound of their own");
        let refused = waits.reserve(stream(conn(0), 4)).unwrap_err();
        assert_eq!(refused, Refusal::TooMany { what: Bounded::Subscriptions, max: 1 });
        waits.await_client(subscription);
        assert_eq!(waits.due(&waiters, 99, &mut Passed::default()), None);
        assert_eq!(waits.due(&waiters, 100, &mut Passed::default()), Some(id));
        waits.wake(id, &mut waiters);
        assert_eq!(waits.take(id).correlation, 1);
        let again = waits.reserve(fetch(conn(1), 3, 10)).unwrap();
        assert_ne!(again, id, "the old name does not fit the new fetch");
    }

    /// The reader left while its disk read was under way: the slot must stay until the disk answers.
    #[test]
    fn an_abandoned_read_keeps_its_place_until_the_disk_answers() {
        let mut waits = Waits::new(2, 1, 1);
        let reading = waits.reserve(fetch(conn(1), 1, 10)).unwrap();
        waits.await_disk(reading);
        let queued = waits.reserve(stream(conn(1), 2)).unwrap();
        waits.await_turn(queued);
        while let Some(id) = waits.first_of(conn(1)) {
            waits.abandon(id);
        }
        assert_eq!(waits.for_disk(), 1);
        assert_eq!(waits.read_over(queued.token()), None);
        let next = waits.reserve(stream(conn(0), 3)).expect("what was queued is free");
        waits.await_client(next);
        assert!(waits.reserve(fetch(conn(0), 4, 10)).is_err(), "the disk still has the other");
        assert_eq!(waits.read_over(reading.token()), None, "nobody wants it");
        assert_eq!(waits.for_disk(), 0);
        assert_eq!(waits.read_over(reading.token()), None, "the slot is free");
        waits.check([].iter());
        waits.reserve(fetch(conn(0), 5, 10)).expect("a place");
    }

    /// What a connection that is gone left in its slot, the next one there neither sees nor ends.
    #[test]
    fn a_connection_has_its_own_waits_only() {
        let mut waits = Waits::new(1, 4, 4);
        let id = waits.reserve(stream(conn(0), 1)).unwrap();
        waits.await_client(id);
        let other = ConnId { slot: 0, generation: 7 };
        assert_eq!((waits.first_of(other), waits.of_connection(other)), (None, vec![]));
        assert!(waits.drain(other).is_empty());
        assert_eq!(waits.of_connection(conn(0)), [id]);
        let beyond = ConnId { slot: 1, generation: 2 };
        assert_eq!((waits.first_of(beyond), waits.of_connection(beyond)), (None, vec![]));
        assert!(!waits.drain(conn(0)).is_empty());
    }

    /// Who waits for more than ever comes is passed once a way: those behind are not found by passing it each time.
    #[test]
    fn what_is_not_due_is_passed_once() {
        let mut waits = Waits::new(1, 4, 1);
        let mut waiters = Waiters::default();
        let ids = [100, 1, 200, 1].map(|due_bytes| {
            let id = waits.reserve(fetch(conn(0), due_bytes, 10)).unwrap();
            waits.await_data(id, &mut waiters, due_bytes);
            id
        });
        let mut passed = Passed::default();
        assert_eq!(waits.due(&waiters, 1, &mut passed), Some(ids[1]));
        waits.wake(ids[1], &mut waiters);
        // Enough for the first, too; but that was passed.
        assert_eq!(waits.due(&waiters, 150, &mut passed), Some(ids[3]));
        waits.wake(ids[3], &mut waiters);
        waits.await_data(ids[3], &mut waiters, 1);
        assert_eq!(waits.due(&waiters, 150, &mut passed), Some(ids[3]), "it became the last");
        assert_eq!(
            waits.due(&waiters, 150, &mut Passed::default()),
            Some(ids[0]),
            "a way begins at the first"
        );
    }

    /// Reads of subscriptions that are gone are still with the disk: fetches have their places all the same.
    #[test]
    fn subscriptions_leave_fetches_their_places_also_when_they_are_gone() {
        let mut waits = Waits::new(2, 1, 1);
        let reading = waits.reserve(stream(conn(1), 1)).unwrap();
        waits.await_disk(reading);
        waits.abandon(reading);
        let full = Refusal::TooMany { what: Bounded::Subscriptions, max: 1 };
        assert_eq!(waits.reserve(stream(conn(0), 2)), Err(full), "the disk still has the place");
        let fetch = waits.reserve(fetch(conn(0), 3, 10)).expect("fetches have places of their own");
        waits.await_disk(fetch);
        waits.check([].iter());
        assert_eq!(waits.read_over(reading.token()), None);
        let next = waits.reserve(stream(conn(0), 4)).expect("a place");
        waits.await_client(next);
        waits.check([].iter());
    }

    /// What one of these waits for next.
    fn wait(waits: &mut Waits, id: WaitId, waiters: &mut Waiters, action: u8, value: u64) {
        let is_stream = waits.fetch(id).stream.is_some();
        match action % 5 {
            0 if is_stream => waits.await_client(id),
            1 if is_stream => waits.await_credit(id, waiters),
            0..=2 => waits.await_data(id, waiters, value),
            3 => waits.await_disk(id),
            _ => waits.await_turn(id),
        }
    }

    proptest! {
        /// Whatever comes and goes, deadlines expire in order and the lists stay whole.
        #[test]
        fn the_lists_stay_whole(steps in proptest::collection::vec((0u8..10, 0u8..5, 0u64..50), 1..300)) {
            let mut waits = Waits::new(3, 10, 6);
            let mut waiters = [Waiters::default(), Waiters::default()];
            let mut reads = Vec::new();
            for (step, action, value) in steps {
                let which = (value % 2) as usize;
                let by = conn((value % 3) as u32);
                match step {
                    0..=3 => {
                        let wanted = if step < 2 { fetch(by, which as u64, value) } else { stream(by, which as u64) };
                        if let Ok(id) = waits.reserve(wanted) {
                            wait(&mut waits, id, &mut waiters[which], action, value);
                            reads.extend((waits.state(id) == State::Disk).then_some(id));
                        }
                    }
                    4 => {
                        let mut passed = Passed::default();
                        while let Some(id) = waits.due(&waiters[which], value, &mut passed) {
                            waits.wake(id, &mut waiters[which]);
                            waits.take(id);
                        }
                        prop_assert_eq!(waits.due(&waiters[which], value, &mut Passed::default()), None, "all of them");
                    }
                    5 => {
                        let mut pushed = waits.drain(by);
                        while let Some(id) = waits.drained(&mut pushed) {
                            prop_assert_eq!(waits.fetch(id).conn, by);
                            let to = waits.fetch(id).correlation as usize;
                            wait(&mut waits, id, &mut waiters[to], 0, value);
                        }
                    }
                    6 => if let Some(id) = waits.next_queued() {
                        waits.await_turn(id);
                        waits.keep_turn();
                        prop_assert_eq!(waits.next_queued(), Some(id), "it stays the first");
                        waits.take(id);
                    },
                    7 => if let Some(id) = reads.pop() {
                        let over = waits.read_over(id.token());
                        prop_assert!(over.is_none_or(|over| over == id));
                        over.map(|id| waits.take(id));
                    },
                    8 => while let Some(id) = waits.first_of(by) {
                        if waits.is_at_partition(id) {
                            let at = waits.fetch(id).correlation as usize;
                            waits.wake(id, &mut waiters[at]);
                        }
                        waits.abandon(id);
                    },
                    _ => {
                        let mut last = 0;
                        while let Some(id) = waits.expired(value) {
                            let fetch = waits.fetch(id);
                            prop_assert!(fetch.deadline_us >= last);
                            last = fetch.deadline_us;
                            waits.wake(id, &mut waiters[fetch.correlation as usize]);
                            waits.take(id);
                        }
                        prop_assert!(waits.deadline_us().is_none_or(|deadline| deadline > value));
                    }
                }
                waits.check(waiters.iter());
            }
        }
    }
}
