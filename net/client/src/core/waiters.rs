//! Tasks that wait for room in the buffer, first come first served.
//!
//! **Invariant:** room is never left unused while somebody waits who would fit: whoever is woken and goes away without
//! using the room wakes the next one ([`Waiters::leave`]).

use std::collections::BTreeMap;
use std::task::Waker;

/// A place in the queue; kept over repeated polls so that being overtaken does not cost the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

struct Waiter {
    bytes: usize,
    /// `None` once woken: the task is on its way back.
    waker: Option<Waker>,
}

#[derive(Default)]
pub(crate) struct Waiters {
    next: u64,
    queue: BTreeMap<Place, Waiter>,
}

impl Waiters {
    /// Waits for `bytes`, at `place` if the task had one already.
    pub(crate) fn wait(&mut self, place: Option<Place>, bytes: usize, waker: &Waker) -> Place {
        let place = place.unwrap_or_else(|| {
            self.next += 1;
            Place(self.next)
        });
        self.queue.insert(place, Waiter { bytes, waker: Some(waker.clone()) });
        place
    }

    /// The task does not wait any more, because it got its room or because it was dropped.
    pub(crate) fn leave(&mut self, place: Place) {
        self.queue.remove(&place);
    }

    /// Takes out the wakers of those at the front who fit into `room` together.
    pub(crate) fn wake(&mut self, mut room: usize, out: &mut Vec<Waker>) {
        for waiter in self.queue.values_mut() {
            if waiter.bytes > room {
                return;
            }
            room -= waiter.bytes;
            out.extend(waiter.waker.take());
        }
    }

    /// Takes out all wakers: the producer is closed.
    pub(crate) fn wake_all(&mut self, out: &mut Vec<Waker>) {
        out.extend(self.queue.values_mut().filter_map(|waiter| waiter.waker.take()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn woken(waiters: &mut Waiters, room: usize) -> usize {
        let mut out = Vec::new();
        waiters.wake(room, &mut out);
        out.len()
    }

    #[test]
    fn those_who_fit_together_are_woken_and_nobody_overtakes() {
        let mut waiters = Waiters::default();
        let first = waiters.wait(None, 60, Waker::noop());
        waiters.wait(None, 50, Waker::noop());
        waiters.wait(None, 10, Waker::noop());
        assert_eq!(woken(&mut waiters, 59), 0, "the small one behind does not overtake");
        assert_eq!(woken(&mut waiters, 100), 1);
        assert_eq!(woken(&mut waiters, 100), 0, "the room is meant for the one on its way");
        waiters.leave(first);
        assert_eq!(woken(&mut waiters, 100), 2, "it was dropped: the next ones get its room");
    }

    #[test]
    fn a_place_is_kept() {
        let mut waiters = Waiters::default();
        let first = waiters.wait(None, 10, Waker::noop());
        waiters.wait(None, 10, Waker::noop());
        assert_eq!(woken(&mut waiters, 10), 1);
        assert_eq!(waiters.wait(Some(first), 10, Waker::noop()), first);
        assert_eq!(waiters.queue.keys().next(), Some(&first));
        waiters.leave(first);
        assert!(!waiters.is_empty());
    }
}
