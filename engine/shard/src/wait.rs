//! Fetches that wait: for data, for the disk, or for a free read.
//!
//! A fetch waits for data in the list of its partition and in a heap by deadline; it waits for the disk under a
//! token, and for a free read in a queue. All memory is taken at the start; when it is used up a fetch is refused
//! with `TooMany`, never dropped. Decides nothing: `fetch` does.

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

/// A fetch as it was asked, after its handle was resolved. A look-up by time waits for the disk like one.
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

/// The fetches that wait for data of one partition, first come first.
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

/// What a slot's fetch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// `due_bytes`: the partition's count of visible bytes at which there is enough.
    Data {
        due_bytes: u64,
        previous: u32,
        next: u32,
        heap: u32,
    },
    /// Its connection may be gone: the read's result is then given back at once.
    Disk {
        abandoned: bool,
    },
    Queued,
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
}

impl Waits {
    pub(crate) fn new(bound: u32) -> Self {
        Self {
            slots: (0..bound).map(|_| Slot { generation: 0, state: State::Free, fetch: None }).collect(),
            free: (0..bound).rev().collect(),
            heap: Vec::with_capacity(bound as usize),
            queue: VecDeque::with_capacity(bound as usize),
            disk: 0,
        }
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
        Ok(WaitId { slot, generation: entry.generation })
    }

    /// The fetch waits until its partition has shown `due_bytes`, or its deadline.
    pub(crate) fn await_data(&mut self, id: WaitId, list: &mut WaitList, due_bytes: u64) {
        let previous = list.last;
        match previous {
            NONE => list.first = id.slot,
            _ => self.set_next(previous, id.slot),
        }
        list.last = id.slot;
        let heap = u32::try_from(self.heap.len()).expect("waits are bounded");
        self.heap.push(id.slot);
        self.slots[id.slot as usize].state = State::Data { due_bytes, previous, next: NONE, heap };
        self.sift_up(heap as usize);
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
            let State::Data { due_bytes, next, .. } = slot.state else {
                unreachable!("a listed fetch waits for data")
            };
            if due_bytes <= visible_bytes {
                return Some(WaitId { slot: at, generation: slot.generation });
            }
            at = next;
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
        self.heap.first().map(|&slot| self.deadline_of(slot))
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

    /// Stops waiting for data: the fetch is to be tried again, under the same name.
    pub(crate) fn wake(&mut self, id: WaitId, list: &mut WaitList) {
        let State::Data { previous, next, heap, .. } = self.slots[id.slot as usize].state else {
            unreachable!("only a fetch that waits for data wakes");
        };
        match previous {
            NONE => list.first = next,
            _ => self.set_next(previous, next),
        }
        match next {
            NONE => list.last = previous,
            _ => self.set_previous(next, previous),
        }
        self.leave_heap(heap as usize);
        self.slots[id.slot as usize].state = State::Free;
    }

    /// Ends the wait: the slot is free again.
    pub(crate) fn take(&mut self, id: WaitId) -> Fetch {
        let fetch = self.fetch(id);
        let slot = &mut self.slots[id.slot as usize];
        assert_eq!(slot.state, State::Free, "an answered fetch waits for nothing");
        slot.fetch = None;
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

    /// The connection is gone: its queued fetches end, its reads end when the disk answers.
    pub(crate) fn abandon(&mut self, conn: ConnId) {
        for slot in &mut self.slots {
            if slot.fetch.is_some_and(|fetch| fetch.conn == conn)
                && let State::Disk { abandoned } = &mut slot.state
            {
                *abandoned = true;
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

    fn set_next(&mut self, slot: u32, to: u32) {
        if let State::Data { next, .. } = &mut self.slots[slot as usize].state {
            *next = to;
        }
    }

    fn set_previous(&mut self, slot: u32, to: u32) {
        if let State::Data { previous, .. } = &mut self.slots[slot as usize].state {
            *previous = to;
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

    /// Every slot is free, listed, on disk or queued; the heap is one and its slots know their places.
    pub(crate) fn check<'a>(&self, lists: impl Iterator<Item = &'a WaitList>) {
        for (at, &slot) in self.heap.iter().enumerate() {
            assert!(
                matches!(self.slots[slot as usize].state, State::Data { heap, .. } if heap as usize == at)
            );
            assert!(self.deadline_of(self.heap[at.saturating_sub(1) / 2]) <= self.deadline_of(slot));
        }
        let mut listed = 0;
        for list in lists {
            let (mut at, mut before) = (list.first, NONE);
            while let Some(slot) = self.slots.get(at as usize) {
                let State::Data { previous, next, .. } = slot.state else {
                    panic!("a listed fetch waits for data")
                };
                assert_eq!(previous, before, "the list runs both ways");
                (before, at) = (at, next);
                listed += 1;
            }
            assert_eq!(list.last, before);
        }
        assert_eq!(listed, self.heap.len(), "a fetch that waits for data is in one list");
        let used = listed + self.disk as usize + self.queue.len();
        assert_eq!(used + self.free.len(), self.slots.len(), "a slot is free or waits for something");
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
        waits.check([WaitList::default()].iter());
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
                waits.check(lists.iter());
            }
        }
    }
}
