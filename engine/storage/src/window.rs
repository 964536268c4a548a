//! Which batches lie in the live window, and where: one preallocated ring of entries, linked per group.
//!
//! An entry's id is its number since the start; it lives at `id % capacity`. Each entry links to the next of its
//! group (live readers follow it) and carries two back links: the previous one, and a jump chosen as in Myers'
//! random-access list, so that any offset is found in a logarithmic number of steps from the newest entry.
//!
//! **Invariant:** ids from `tail` to `head` are alive; a link to an id below `tail` leads out of the window.

use crate::arena::BlockIndex;
use crate::groups::GroupSlot;

/// No entry.
pub(crate) const NONE: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowEntry {
    pub(crate) slot: GroupSlot,
    pub(crate) block: BlockIndex,
    /// Of the batch within the block, bytes.
    pub(crate) offset: u32,
    /// Of the padded batch, bytes.
    pub(crate) length: u32,
    pub(crate) first_offset: u64,
    pub(crate) last_offset: u64,
    pub(crate) max_timestamp_us: u64,
    next: u64,
    previous: u64,
    jump: u64,
    /// Entries of the group before this one, since the log was opened.
    depth: u64,
}

/// A batch to be put into the window.
pub(crate) struct Placed {
    pub(crate) slot: GroupSlot,
    pub(crate) block: BlockIndex,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) first_offset: u64,
    pub(crate) last_offset: u64,
    pub(crate) max_timestamp_us: u64,
}

pub(crate) struct Window {
    ring: Box<[WindowEntry]>,
    tail: u64,
    head: u64,
}

impl Window {
    pub(crate) fn new(capacity: u32) -> Self {
        let empty = WindowEntry {
            slot: GroupSlot(u32::MAX),
            block: 0,
            offset: 0,
            length: 0,
            first_offset: 0,
            last_offset: 0,
            max_timestamp_us: 0,
            next: NONE,
            previous: NONE,
            jump: NONE,
            depth: 0,
        };
        Self { ring: vec![empty; capacity as usize].into_boxed_slice(), tail: 0, head: 0 }
    }

    /// One past the newest id.
    pub(crate) const fn head(&self) -> u64 {
        self.head
    }

    /// The oldest id alive.
    pub(crate) const fn tail(&self) -> u64 {
        self.tail
    }

    pub(crate) fn free_entries(&self) -> u64 {
        self.ring.len() as u64 - (self.head - self.tail)
    }

    /// Forgets every entry before `end`.
    pub(crate) fn evict_before(&mut self, end: u64) {
        self.tail = self.tail.max(end.min(self.head));
    }

    pub(crate) fn get(&self, id: u64) -> Option<&WindowEntry> {
        (id >= self.tail && id < self.head).then(|| &self.ring[self.at(id)])
    }

    fn at(&self, id: u64) -> usize {
        (id % self.ring.len() as u64) as usize
    }

    /// Adds the newest batch of a group whose newest entry so far is `last`; gives back its id.
    pub(crate) fn push(&mut self, placed: Placed, last: u64) -> u64 {
        assert!(self.free_entries() > 0, "room was asked for first");
        let id = self.head;
        let (previous, jump, depth) = match self.get(last) {
            Some(entry) => (last, self.jump_from(last, entry), entry.depth + 1),
            None => (NONE, NONE, 0),
        };
        let at = self.at(id);
        self.ring[at] = WindowEntry {
            slot: placed.slot,
            block: placed.block,
            offset: placed.offset,
            length: placed.length,
            first_offset: placed.first_offset,
            last_offset: placed.last_offset,
            max_timestamp_us: placed.max_timestamp_us,
            next: NONE,
            previous,
            jump,
            depth,
        };
        if previous != NONE {
            let at = self.at(previous);
            self.ring[at].next = id;
        }
        self.head += 1;
        id
    }

    /// Myers: jump twice as far when the last two jumps were equally long, else to the predecessor itself.
    fn jump_from(&self, last: u64, entry: &WindowEntry) -> u64 {
        let Some(first) = self.get(entry.jump) else { return last };
        let Some(second) = self.get(first.jump) else { return last };
        if entry.depth - first.depth == first.depth - second.depth { first.jump } else { last }
    }

    /// The entry that holds `offset`, or the first one behind it when a gap holds it, searching back from the
    /// group's newest entry.
    pub(crate) fn find(&self, newest: u64, offset: u64) -> Option<u64> {
        let entry = self.get(newest)?;
        if offset > entry.last_offset {
            return None;
        }
        // The invariant of the walk: `best` is alive and ends at or behind `offset`.
        let mut best = newest;
        loop {
            let entry = self.get(best)?;
            if entry.first_offset <= offset {
                return Some(best);
            }
            match (self.get(entry.jump), self.get(entry.previous)) {
                (Some(jump), _) if jump.last_offset >= offset => best = entry.jump,
                (_, Some(previous)) if previous.last_offset >= offset => best = entry.previous,
                // The predecessor is alive and ends before `offset`: nothing holds it.
                (_, Some(_)) => return Some(best),
                // The predecessor is gone; it might have held it.
                (_, None) => return None,
            }
        }
    }

    pub(crate) fn next(&self, id: u64) -> Option<u64> {
        let next = self.get(id)?.next;
        (next != NONE).then_some(next)
    }

    /// The oldest entry of a group that is alive.
    pub(crate) fn oldest(&self, newest: u64) -> Option<u64> {
        let mut best = newest;
        let mut entry = self.get(best)?;
        loop {
            let step = if self.get(entry.jump).is_some() { entry.jump } else { entry.previous };
            match self.get(step) {
                Some(older) => (best, entry) = (step, older),
                None => return Some(best),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(window: &mut Window, last: &mut u64, slot: u32, first: u64, end: u64) {
        let placed = Placed {
            slot: GroupSlot(slot),
            block: 0,
            offset: 0,
            length: 16,
            first_offset: first,
            last_offset: end - 1,
            max_timestamp_us: first,
        };
        *last = window.push(placed, *last);
    }

    #[test]
    fn any_offset_is_found_whatever_was_evicted_and_however_groups_interleave() {
        let mut window = Window::new(256);
        let (mut a, mut b) = (NONE, NONE);
        let mut next = 0;
        for round in 0..2_000_u64 {
            if window.free_entries() < 4 {
                window.evict_before(window.tail() + 37);
            }
            push(&mut window, &mut a, 0, next, next + 3);
            next += 3;
            for _ in 0..round % 3 {
                let first = b.wrapping_add(1);
                push(&mut window, &mut b, 1, 10 * first, 10 * first + 10);
            }
            let oldest = window.get(window.oldest(a).expect("one is alive")).expect("alive").first_offset;
            for offset in oldest..next {
                let found = window.get(window.find(a, offset).expect("in the window")).expect("alive");
                assert!(
                    found.slot == GroupSlot(0) && found.first_offset <= offset && offset <= found.last_offset
                );
            }
            assert_eq!(window.find(a, next), None);
            if oldest > 0 {
                assert_eq!(window.find(a, oldest - 1), None, "evicted");
            }
        }
    }

    #[test]
    fn a_gap_between_batches_leads_to_the_batch_behind_it() {
        let mut window = Window::new(16);
        let mut last = NONE;
        push(&mut window, &mut last, 0, 0, 5);
        push(&mut window, &mut last, 0, 9, 12);
        let found = window.find(last, 7).expect("the batch behind the gap");
        assert_eq!(window.get(found).expect("alive").first_offset, 9);
    }

    #[test]
    fn a_search_in_a_long_group_takes_few_steps() {
        let mut window = Window::new(1 << 14);
        let mut last = NONE;
        for first in 0..1 << 14 {
            push(&mut window, &mut last, 0, first, first + 1);
        }
        // Count what `find` does, by doing it.
        let (mut steps, mut best) = (0, last);
        while window.get(best).expect("alive").first_offset > 3 {
            let entry = window.get(best).expect("alive");
            let jump = window.get(entry.jump).filter(|jump| jump.last_offset >= 3);
            best = if jump.is_some() { entry.jump } else { entry.previous };
            steps += 1;
        }
        assert!(steps < 64, "{steps} steps through 16,384 entries");
    }
}
