//! Lists that run through the slots of waits, so that a place in one costs nothing more and is left at once.

use super::Slot;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// A slot can be in two lists at a time, one of each kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chain {
    /// Of what it waits for; a free slot: of the free ones.
    Awaited,
    /// Of its connection.
    Connection,
}

/// Neighbours in a [`WaitList`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    previous: u32,
    next: u32,
}

impl Links {
    pub(super) const ALONE: Self = Self { previous: NONE, next: NONE };
}

/// Slots of one chain, first come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitList {
    first: u32,
    last: u32,
}

impl Default for WaitList {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

impl WaitList {
    pub(crate) const fn is_empty(self) -> bool {
        self.first == NONE
    }

    pub(super) fn first(self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    pub(super) fn last(self) -> Option<u32> {
        (self.last != NONE).then_some(self.last)
    }

    pub(super) fn append(&mut self, slots: &mut [Slot], chain: Chain, at: u32) {
        self.insert(slots, chain, at, Links { previous: self.last, next: NONE });
    }

    pub(super) fn prepend(&mut self, slots: &mut [Slot], chain: Chain, at: u32) {
        self.insert(slots, chain, at, Links { previous: NONE, next: self.first });
    }

    fn insert(&mut self, slots: &mut [Slot], chain: Chain, at: u32, links: Links) {
        slots[at as usize].links[chain as usize] = links;
        *self.before(slots, chain, links) = at;
        *self.behind(slots, chain, links) = at;
    }

    pub(super) fn remove(&mut self, slots: &mut [Slot], chain: Chain, at: u32) {
        let links = std::mem::replace(&mut slots[at as usize].links[chain as usize], Links::ALONE);
        *self.before(slots, chain, links) = links.next;
        *self.behind(slots, chain, links) = links.previous;
    }

    /// What leads forward to the place between these two.
    fn before<'a>(&'a mut self, slots: &'a mut [Slot], chain: Chain, links: Links) -> &'a mut u32 {
        match links.previous {
            NONE => &mut self.first,
            previous => &mut slots[previous as usize].links[chain as usize].next,
        }
    }

    /// What leads back to it.
    fn behind<'a>(&'a mut self, slots: &'a mut [Slot], chain: Chain, links: Links) -> &'a mut u32 {
        match links.next {
            NONE => &mut self.last,
            next => &mut slots[next as usize].links[chain as usize].previous,
        }
    }

    /// The one behind this, or the first.
    pub(super) fn after(self, slots: &[Slot], chain: Chain, at: Option<u32>) -> Option<u32> {
        let next = at.map_or(self.first, |at| slots[at as usize].links[chain as usize].next);
        (next != NONE).then_some(next)
    }

    pub(super) fn iter(self, slots: &[Slot], chain: Chain) -> impl Iterator<Item = u32> {
        std::iter::successors(self.first(), move |&at| self.after(slots, chain, Some(at)))
    }

    /// The length; the list runs both ways, through slots of which this is true.
    pub(super) fn check(self, slots: &[Slot], chain: Chain, fits: impl Fn(&Slot) -> bool) -> u32 {
        let (mut before, mut length) = (NONE, 0);
        for at in self.iter(slots, chain) {
            let slot = &slots[at as usize];
            assert!(fits(slot), "a slot is in the list for what it waits for: {slot:?}");
            assert_eq!(slot.links[chain as usize].previous, before, "the list runs both ways");
            (before, length) = (at, length + 1);
        }
        assert_eq!(self.last, before);
        length
    }
}
