//! Fetches that wait for data, the earliest deadline first: a binary heap whose slots know their place, so that a fetch
//! that is answered early leaves it at once. Subscriptions have no deadline and no place in it.

use super::{Slot, State};

/// Slots, as a heap.
#[derive(Debug)]
pub(super) struct Deadlines(Vec<u32>);

impl Deadlines {
    pub(super) fn new(bound: u32) -> Self {
        Self(Vec::with_capacity(bound as usize))
    }

    /// The slot whose deadline is the earliest, and that, in monotonic microseconds.
    pub(super) fn first(&self, slots: &[Slot]) -> Option<(u32, u64)> {
        self.0.first().map(|&slot| (slot, deadline_of(slots, slot)))
    }

    /// A slot in state `Data` gets its place.
    pub(super) fn insert(&mut self, slots: &mut [Slot], slot: u32) {
        self.0.push(slot);
        let at = self.0.len() - 1;
        self.tell(slots, at);
        self.sift_up(slots, at);
    }

    /// The slot with this place leaves.
    pub(super) fn remove(&mut self, slots: &mut [Slot], place: u32) {
        let at = place as usize;
        self.0.swap_remove(at);
        if at < self.0.len() {
            self.tell(slots, at);
            self.sift_up(slots, at);
            self.sift_down(slots, at);
        }
    }

    fn sift_up(&mut self, slots: &mut [Slot], mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if deadline_of(slots, self.0[parent]) <= deadline_of(slots, self.0[at]) {
                return;
            }
            self.swap(slots, parent, at);
            at = parent;
        }
    }

    fn sift_down(&mut self, slots: &mut [Slot], mut at: usize) {
        loop {
            let earlier = |a: usize, b: usize| match (self.0.get(a), self.0.get(b)) {
                (Some(&x), Some(&y)) => deadline_of(slots, x) < deadline_of(slots, y),
                (first, _) => first.is_some(),
            };
            let child = if earlier(2 * at + 2, 2 * at + 1) { 2 * at + 2 } else { 2 * at + 1 };
            if child >= self.0.len() || !earlier(child, at) {
                return;
            }
            self.swap(slots, child, at);
            at = child;
        }
    }

    fn swap(&mut self, slots: &mut [Slot], a: usize, b: usize) {
        self.0.swap(a, b);
        self.tell(slots, a);
        self.tell(slots, b);
    }

    /// The slot there learns its place.
    fn tell(&self, slots: &mut [Slot], at: usize) {
        if let State::Data { place, .. } = &mut slots[self.0[at] as usize].state {
            *place = u32::try_from(at).expect("waits are bounded");
        }
    }

    /// It is a heap, and its slots know their places.
    pub(super) fn check(&self, slots: &[Slot]) {
        for (at, &slot) in self.0.iter().enumerate() {
            let knows =
                matches!(slots[slot as usize].state, State::Data { place, .. } if place as usize == at);
            assert!(knows, "{:?} is at {at}", slots[slot as usize]);
            assert!(deadline_of(slots, self.0[at.saturating_sub(1) / 2]) <= deadline_of(slots, slot));
        }
        let timed = slots.iter().filter(|slot| matches!(slot.state, State::Data { .. }) && !slot.is_stream);
        assert_eq!(timed.count(), self.0.len(), "a fetch that waits for data has a deadline");
    }
}

fn deadline_of(slots: &[Slot], slot: u32) -> u64 {
    slots[slot as usize].fetch.expect("a waiting slot holds a fetch").deadline_us
}
