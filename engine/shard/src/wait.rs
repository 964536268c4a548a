//! Fetches and subscriptions that wait: for data, for the disk, for a free read, for their client.
//!
//! A fetch waits for data in the list of its partition and in a heap by deadline; it waits for the disk under a
//! token, and for a free read in a queue. A subscription keeps its place between two pushes: until its connection has
//! taken the last one, in the list of the connection, or until it is given credit, in no list. All memory is taken at
//! the start; when it is used up a request is refused with `TooMany`, never dropped. Decides nothing: `fetch` and
//! `subscription` do.

use std::collections::VecDeque;

use corelog_model::Term;

use crate::event::ConnId;
use crate::partition::PartitionId;
use crate::refusal::{Bounded, Refusal};

const NONE: u32 = u32::MAX;

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

/// The fetches that wait for data of one partition, or the subscriptions that wait for one connection, first come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitList {
    first: u32,
    last: u32,
}

impl WaitList {
    pub(crate) fn is_empty(self) -> bool {
        self.first == NONE
    }
}

impl Default for WaitList {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

/// Neighbours in a [`WaitList`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Links {
    previous: u32,
    next: u32,
}

/// What a slot's fetch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// `due_bytes`: the partition's count of visible bytes at which there is enough.
    Data {
        due_bytes: u64,
        links: Links,
        heap: u32,
    },
    /// Its connection may be gone: the read's result is then given back at once.
    Disk {
        abandoned: bool,
    },
    Queued,
    /// Until its connection has taken what was pushed.
    Client {
        links: Links,
    },
    /// Until it is given credit.
    Credit,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    state: State,
    fetch: Option<Fetch>,
}

/// All waiting fetches of a shard.
#[derive(Debug)]
pub(crate) struct Waits {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots in state `Data`, the earliest deadline first: a binary heap whose slots know their place, so that a
    /// fetch that is answered early leaves it at once.
    heap: Vec<u32>,
    queue: VecDeque<u32>,
    disk: u32,
    /// Slots in state `Client` and in state `Credit`, and subscriptions in any.
    at_client: u32,
    without_credit: u32,
    streams: u32,
}

impl Waits {
    pub(crate) fn new(bound: u32) -> Self {
        Self {
            slots: (0..bound).map(|_| Slot { generation: 0, state: State::Free, fetch: None }).collect(),
            free: (0..bound).rev().collect(),
            heap: Vec::with_capacity(bound as usize),
            queue: VecDeque::with_capacity(bound as usize),
            disk: 0,
            at_client: 0,
            without_credit: 0,
            streams: 0,
        }
    }

    /// Subscriptions.
    pub(crate) const fn streams(&self) -> u32 {
        self.streams
    }

    /// Fetches that wait for data.
    pub(crate) fn for_data(&self) -> u32 {
        u32::try_from(self.heap.len()).expect("waits are bounded")
    }

    /// Fetches that wait for the disk or for a free read.
    pub(crate) fn for_disk(&self) -> u32 {
        self.disk + u32::try_from(self.queue.len()).expect("waits are bounded")
    }

    /// Whether fetches wait for a free read.
    pub(crate) fn are_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// A place for a fetch, not waiting for anything yet: it is to be given to one of the `await_` functions or
    /// back to `take`.
    pub(crate) fn reserve(&mut self, fetch: Fetch) -> Result<WaitId, Refusal> {
        let max = u32::try_from(self.slots.len()).expect("waits are bounded");
        let slot = self.free.pop().ok_or(Refusal::TooMany { what: Bounded::Waits, max })?;
        let entry = &mut self.slots[slot as usize];
        entry.fetch = Some(fetch);
        self.streams += u32::from(fetch.stream.is_some());
        Ok(WaitId { slot, generation: entry.generation })
    }

    /// The fetch waits until its partition has shown `due_bytes`, or its deadline.
    pub(crate) fn await_data(&mut self, id: WaitId, list: &mut WaitList, due_bytes: u64) {
        let links = self.append(id.slot, list);
        let heap = u32::try_from(self.heap.len()).expect("waits are bounded");
        self.heap.push(id.slot);
        self.slots[id.slot as usize].state = State::Data { due_bytes, links, heap };
        self.sift_up(heap as usize);
    }

    /// The subscription waits until its connection, whose list this is, has taken what was pushed.
    pub(crate) fn await_client(&mut self, id: WaitId, list: &mut WaitList) {
        let links = self.append(id.slot, list);
        self.slots[id.slot as usize].state = State::Client { links };
        self.at_client += 1;
    }

    /// The subscription waits until it is given credit.
    pub(crate) fn await_credit(&mut self, id: WaitId) {
        self.slots[id.slot as usize].state = State::Credit;
        self.without_credit += 1;
    }

    /// The fetch waits for the read that was started under its token.
    pub(crate) fn await_disk(&mut self, id: WaitId) {
        self.slots[id.slot as usize].state = State::Disk { abandoned: false };
        self.disk += 1;
    }

    /// The fetch waits until a read is free.
    pub(crate) fn await_turn(&mut self, id: WaitId) {
        self.slots[id.slot as usize].state = State::Queued;
        self.queue.push_back(id.slot);
    }

    /// The first fetch of `list` for which `visible_bytes` are enough.
    pub(crate) fn due(&self, list: WaitList, visible_bytes: u64) -> Option<WaitId> {
        let mut at = list.first;
        while let Some(slot) = self.slots.get(at as usize) {
            let State::Data { due_bytes, links, .. } = slot.state else {
                unreachable!("a listed fetch waits for data")
            };
            if due_bytes <= visible_bytes {
                return Some(WaitId { slot: at, generation: slot.generation });
            }
            at = links.next;
        }
        None
    }

    /// The first fetch of `list`.
    pub(crate) fn first(&self, list: WaitList) -> Option<WaitId> {
        let slot = self.slots.get(list.first as usize)?;
        Some(WaitId { slot: list.first, generation: slot.generation })
    }

    /// The earliest deadline, in monotonic microseconds.
    pub(crate) fn deadline_us(&self) -> Option<u64> {
        self.heap.first().map(|&slot| self.deadline_of(slot)).filter(|&deadline_us| deadline_us < u64::MAX)
    }

    /// The fetch whose deadline has passed, the earliest first.
    pub(crate) fn expired(&self, mono_us: u64) -> Option<WaitId> {
        let slot = *self.heap.first()?;
        (self.deadline_of(slot) <= mono_us)
            .then(|| WaitId { slot, generation: self.slots[slot as usize].generation })
    }

    /// The fetch that waits longest for a free read.
    pub(crate) fn next_queued(&mut self) -> Option<WaitId> {
        let slot = self.queue.pop_front()?;
        self.slots[slot as usize].state = State::Free;
        Some(WaitId { slot, generation: self.slots[slot as usize].generation })
    }

    /// The fetch that was queued last was the first and its turn had not come: it stays the first.
    pub(crate) fn keep_turn(&mut self) {
        if !self.queue.is_empty() {
            self.queue.rotate_right(1);
        }
    }

    /// The read under this token is over; `true` when someone still wants it. `None` for a token not in use.
    pub(crate) fn read_over(&mut self, token: u64) -> Option<(WaitId, bool)> {
        let id = WaitId::from_token(token);
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        let State::Disk { abandoned } = slot.state else { return None };
        slot.state = State::Free;
        self.disk -= 1;
        Some((id, !abandoned))
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

    /// Stops waiting for data: the fetch is to be tried again, under the same name.
    pub(crate) fn wake(&mut self, id: WaitId, list: &mut WaitList) {
        let State::Data { links, heap, .. } = self.slots[id.slot as usize].state else {
            unreachable!("only a fetch that waits for data wakes");
        };
        self.unlink(links, list);
        self.leave_heap(heap as usize);
        self.slots[id.slot as usize].state = State::Free;
    }

    /// The connection whose list this is has taken what was pushed to it: the next of its subscriptions that waited for
    /// that waits for nothing now.
    pub(crate) fn taken(&mut self, list: &mut WaitList) -> Option<WaitId> {
        let id = self.first(*list)?;
        let State::Client { links } = self.slots[id.slot as usize].state else {
            unreachable!("a subscription in a connection's list waits for it");
        };
        self.unlink(links, list);
        self.at_client -= 1;
        self.slots[id.slot as usize].state = State::Free;
        Some(id)
    }

    /// A subscription that waits for credit waits for nothing now; `false` when it waits for something else.
    pub(crate) fn is_given_credit(&mut self, id: WaitId) -> bool {
        let slot = &mut self.slots[id.slot as usize];
        let waited = slot.generation == id.generation && slot.state == State::Credit;
        if waited {
            slot.state = State::Free;
            self.without_credit -= 1;
        }
        waited
    }

    /// Whether a subscription waits for data.
    pub(crate) fn waits_for_data(&self, id: WaitId) -> bool {
        matches!(self.slots[id.slot as usize].state, State::Data { .. })
    }

    /// All subscriptions of a connection are to end. Gives those that wait for credit: nothing else would end them.
    pub(crate) fn end_streams(&mut self, conn: ConnId) -> Vec<WaitId> {
        let mut idle = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let fetch = slot.fetch.as_mut().filter(|fetch| fetch.conn == conn);
            let Some(stream) = fetch.and_then(|fetch| fetch.stream.as_mut()) else { continue };
            stream.ended = true;
            if slot.state == State::Credit {
                idle.push(WaitId { slot: at as u32, generation: slot.generation });
            }
        }
        idle
    }

    /// Subscriptions that wait for credit and of whose partition this is true: they wait for nothing now.
    pub(crate) fn without_credit(&mut self, is_gone: impl Fn(PartitionId) -> bool) -> Vec<WaitId> {
        if self.without_credit == 0 {
            return Vec::new();
        }
        let mut gone = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.state == State::Credit) {
            if slot.fetch.is_some_and(|fetch| is_gone(fetch.partition)) {
                slot.state = State::Free;
                self.without_credit -= 1;
                gone.push(WaitId { slot: at as u32, generation: slot.generation });
            }
        }
        gone
    }

    /// Ends the wait: the slot is free again.
    pub(crate) fn take(&mut self, id: WaitId) -> Fetch {
        let fetch = self.fetch(id);
        let slot = &mut self.slots[id.slot as usize];
        assert_eq!(slot.state, State::Free, "an answered fetch waits for nothing");
        slot.fetch = None;
        self.streams -= u32::from(fetch.stream.is_some());
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        fetch
    }

    /// A fetch of this connection that waits for data, while there is one.
    pub(crate) fn of_connection(&self, conn: ConnId) -> Option<WaitId> {
        let own = |slot: &&u32| self.slots[**slot as usize].fetch.is_some_and(|fetch| fetch.conn == conn);
        let slot = *self.heap.iter().find(own)?;
        Some(WaitId { slot, generation: self.slots[slot as usize].generation })
    }

    /// The connection's fetches that do not wait for data are not to begin to.
    pub(crate) fn hurry(&mut self, conn: ConnId, mono_us: u64) {
        let waits_for_data = |state| matches!(state, State::Data { .. });
        for slot in self.slots.iter_mut().filter(|slot| !waits_for_data(slot.state)) {
            if let Some(fetch) = slot.fetch.as_mut().filter(|fetch| fetch.conn == conn) {
                fetch.deadline_us = fetch.deadline_us.min(mono_us);
            }
        }
    }

    /// The connection is gone, and its list with it: its subscriptions and queued fetches end, its reads end when the
    /// disk answers.
    pub(crate) fn abandon(&mut self, conn: ConnId) {
        for at in 0..self.slots.len() {
            let slot = &mut self.slots[at];
            if slot.fetch.is_none_or(|fetch| fetch.conn != conn) {
                continue;
            }
            match &mut slot.state {
                State::Disk { abandoned } => *abandoned = true,
                state @ (State::Client { .. } | State::Credit) => {
                    let counted =
                        if *state == State::Credit { &mut self.without_credit } else { &mut self.at_client };
                    *counted -= 1;
                    *state = State::Free;
                    let id = WaitId { slot: at as u32, generation: slot.generation };
                    self.take(id);
                }
                _ => {}
            }
        }
        let mut queued = self.queue.len();
        while queued > 0 {
            queued -= 1;
            let id = self.next_queued().expect("the queue was counted");
            if self.fetch(id).conn == conn {
                self.take(id);
            } else {
                self.await_turn(id);
            }
        }
    }

    fn deadline_of(&self, slot: u32) -> u64 {
        self.slots[slot as usize].fetch.expect("a waiting slot holds a fetch").deadline_us
    }

    /// Becomes the last of a list.
    fn append(&mut self, slot: u32, list: &mut WaitList) -> Links {
        let previous = list.last;
        match previous {
            NONE => list.first = slot,
            _ => self.links(previous).next = slot,
        }
        list.last = slot;
        Links { previous, next: NONE }
    }

    fn unlink(&mut self, links: Links, list: &mut WaitList) {
        let Links { previous, next } = links;
        match previous {
            NONE => list.first = next,
            _ => self.links(previous).next = next,
        }
        match next {
            NONE => list.last = previous,
            _ => self.links(next).previous = previous,
        }
    }

    fn links(&mut self, slot: u32) -> &mut Links {
        match &mut self.slots[slot as usize].state {
            State::Data { links, .. } | State::Client { links } => links,
            other => unreachable!("a listed slot has neighbours: {other:?}"),
        }
    }

    fn set_heap(&mut self, at: usize) {
        let slot = self.heap[at];
        if let State::Data { heap, .. } = &mut self.slots[slot as usize].state {
            *heap = u32::try_from(at).expect("waits are bounded");
        }
    }

    fn leave_heap(&mut self, at: usize) {
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            self.set_heap(at);
            self.sift_up(at);
            self.sift_down(at);
        }
    }

    fn sift_up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.deadline_of(self.heap[parent]) <= self.deadline_of(self.heap[at]) {
                return;
            }
            self.swap(parent, at);
            at = parent;
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let earlier = |a: usize, b: usize| match (self.heap.get(a), self.heap.get(b)) {
                (Some(&x), Some(&y)) => self.deadline_of(x) < self.deadline_of(y),
                (first, _) => first.is_some(),
            };
            let child = if earlier(2 * at + 2, 2 * at + 1) { 2 * at + 2 } else { 2 * at + 1 };
            if child >= self.heap.len() || !earlier(child, at) {
                return;
            }
            self.swap(child, at);
            at = child;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.set_heap(a);
        self.set_heap(b);
    }

    /// Every slot is free, in one list, on disk, queued or without credit; the heap is one and its slots know their places.
    /// `lists` are those of the partitions, `clients` those of the connections.
    pub(crate) fn check<'a>(
        &self,
        lists: impl Iterator<Item = &'a WaitList>,
        clients: impl Iterator<Item = &'a WaitList>,
    ) {
        for (at, &slot) in self.heap.iter().enumerate() {
            assert!(
                matches!(self.slots[slot as usize].state, State::Data { heap, .. } if heap as usize == at)
            );
            assert!(self.deadline_of(self.heap[at.saturating_sub(1) / 2]) <= self.deadline_of(slot));
        }
        let listed: usize =
            lists.map(|list| self.count(list, |state| matches!(state, State::Data { .. }))).sum();
        assert_eq!(listed, self.heap.len(), "a fetch that waits for data is in one list");
        let at_client: usize =
            clients.map(|list| self.count(list, |state| matches!(state, State::Client { .. }))).sum();
        assert_eq!(
            at_client, self.at_client as usize,
            "a subscription that waits for its client is in one list"
        );
        let idle = at_client + self.without_credit as usize;
        let used = listed + self.disk as usize + self.queue.len() + idle;
        assert_eq!(used + self.free.len(), self.slots.len(), "a slot is free or waits for something");
        let streams = self.slots.iter().filter(|slot| slot.fetch.is_some_and(|fetch| fetch.stream.is_some()));
        assert_eq!(streams.count(), self.streams as usize, "subscriptions are counted");
    }

    /// The length of a list of slots in such a state.
    fn count(&self, list: &WaitList, fits: impl Fn(State) -> bool) -> usize {
        let (mut at, mut before, mut length) = (list.first, NONE, 0);
        while let Some(slot) = self.slots.get(at as usize) {
            let (State::Data { links, .. } | State::Client { links }) = slot.state else {
                panic!("a listed slot has neighbours")
            };
            assert!(fits(slot.state), "it waits for what the list is for");
            assert_eq!(links.previous, before, "the list runs both ways");
            (before, at) = (at, links.next);
            length += 1;
        }
        assert_eq!(list.last, before);
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONN: ConnId = ConnId { slot: 1, generation: 1 };

    fn fetch(correlation: u64, deadline_us: u64) -> Fetch {
        Fetch {
            conn: CONN,
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

    #[test]
    fn a_full_table_refuses_and_a_freed_place_is_taken_again() {
        let mut waits = Waits::new(1);
        let mut list = WaitList::default();
        let id = waits.reserve(fetch(1, 10)).unwrap();
        waits.await_data(id, &mut list, 100);
        assert!(matches!(waits.reserve(fetch(2, 10)), Err(Refusal::TooMany { max: 1, .. })));
        assert_eq!(waits.due(list, 99), None);
        assert_eq!(waits.due(list, 100), Some(id));
        waits.wake(id, &mut list);
        assert_eq!(waits.take(id).correlation, 1);
        let again = waits.reserve(fetch(3, 10)).unwrap();
        assert_ne!(again, id, "the old name does not fit the new fetch");
    }

    /// The reader left while its disk read was under way: the slot must stay until the disk answers.
    #[test]
    fn an_abandoned_read_keeps_its_place_until_the_disk_answers() {
        let mut waits = Waits::new(2);
        let reading = waits.reserve(fetch(1, 10)).unwrap();
        waits.await_disk(reading);
        let queued = waits.reserve(fetch(2, 10)).unwrap();
        waits.await_turn(queued);
        waits.abandon(CONN);
        assert_eq!(waits.for_disk(), 1);
        assert_eq!(waits.read_over(queued.token()), None);
        assert_eq!(waits.read_over(reading.token()), Some((reading, false)));
        waits.take(reading);
        waits.check([WaitList::default()].iter(), [].iter());
    }

    proptest! {
        /// Whatever comes and goes, deadlines expire in order and the lists stay whole.
        #[test]
        fn deadlines_expire_in_order(steps in proptest::collection::vec((0u8..4, 0u64..50), 1..200)) {
            let mut waits = Waits::new(16);
            let mut lists = [WaitList::default(), WaitList::default()];
            for (action, value) in steps {
                let which = usize::from(action % 2);
                match action {
                    0 | 1 => if let Ok(id) = waits.reserve(fetch(which as u64, value)) {
                        waits.await_data(id, &mut lists[which], value);
                    },
                    2 => if let Some(id) = waits.due(lists[0], value) {
                        waits.wake(id, &mut lists[0]);
                        waits.take(id);
                    },
                    _ => {
                        let mut last = 0;
                        while let Some(id) = waits.expired(value) {
                            let fetch = waits.fetch(id);
                            prop_assert!(fetch.deadline_us >= last);
                            last = fetch.deadline_us;
                            waits.wake(id, &mut lists[fetch.correlation as usize]);
                            waits.take(id);
                        }
                        prop_assert!(waits.deadline_us().is_none_or(|deadline| deadline > value));
                    }
                }
                waits.check(lists.iter(), [].iter());
            }
        }
    }
}
