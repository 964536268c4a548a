//! One-way bounded queues from one core to one other, and how a core that listens to several of them sleeps.
//!
//! A [`lane`] has one sender and one receiver. Nothing is shared but two counters, each on a cache line of its own and
//! written by one side only; each side keeps its last look at the other's, so that a lane that is neither full nor empty
//! costs no traffic between the cores but that of the values themselves (Lee et al., "A lock-free, cache-efficient
//! shared ring buffer for multi-core architectures", 2009, has the same two ideas).
//!
//! A core that finds all its lanes empty says so in its [`Parking`], looks once more, and sleeps. Who sends looks there
//! after the push, and wakes it if it has to. Both looks come after a fence, so at least one side sees the other: a
//! value is never left behind a sleeping core. A core that has more to send than a lane takes sleeps the same way: it
//! says that it waits for room, and who has taken something looks there.
#![expect(unsafe_code, reason = "slots that one side at a time may touch")]

use std::fmt;
use std::mem::MaybeUninit;

use crate::sync::{Arc, AtomicBool, AtomicUsize, Cell, Ordering, fence};

/// A value on cache lines of its own: two, because the processor fetches them in pairs.
#[repr(align(128))]
struct Apart<T>(T);

struct Shared<T> {
    /// As many as a power of two, so that a counter finds its slot by a mask.
    slots: Box<[Cell<MaybeUninit<T>>]>,
    /// Values ever pushed, written by the sender; it wraps.
    pushed: Apart<AtomicUsize>,
    /// Values ever popped, written by the receiver; it wraps.
    popped: Apart<AtomicUsize>,
    /// The sender found the lane full and sleeps until it is not. Set by the sender, taken back by the receiver.
    awaited: Apart<AtomicBool>,
}

// SAFETY: a slot is the sender's until `pushed` passes it and the receiver's from then until `popped` does; the
// counters are released and acquired, so whoever has a slot sees all that was done with it before.
unsafe impl<T: Send> Sync for Shared<T> {}

/// The end of a lane that values are put in.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    pushed: usize,
    /// `popped` when it was last looked at.
    popped: usize,
}

/// The end of a lane that values are taken from, in order.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    popped: usize,
    /// `pushed` when it was last looked at.
    pushed: usize,
}

/// A lane for `capacity` values, rounded up to a power of two.
///
/// # Panics
/// When `capacity` is 0.
pub fn lane<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a lane holds something");
    let slots = (0..capacity.next_power_of_two()).map(|_| Cell::new(MaybeUninit::uninit())).collect();
    let (pushed, popped) = (Apart(AtomicUsize::new(0)), Apart(AtomicUsize::new(0)));
    let shared = Arc::new(Shared { slots, pushed, popped, awaited: Apart(AtomicBool::new(false)) });
    let sender = Sender { shared: Arc::clone(&shared), pushed: 0, popped: 0 };
    (sender, Receiver { shared, popped: 0, pushed: 0 })
}

impl<T> Shared<T> {
    fn slot(&self, count: usize) -> &Cell<MaybeUninit<T>> {
        &self.slots[count & (self.slots.len() - 1)]
    }
}

impl<T: Send> Sender<T> {
    /// Puts a value in, or gives it back when the lane is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if !self.has_room() {
            return Err(value);
        }
        self.shared.slot(self.pushed).with_mut(|slot| {
            // SAFETY: `has_room` says that the receiver has emptied this slot, and it comes back to it only after the
            // counter below has passed it.
            unsafe { (*slot).write(value) };
        });
        self.pushed = self.pushed.wrapping_add(1);
        self.shared.pushed.0.store(self.pushed, Ordering::Release);
        Ok(())
    }

    /// Whether a push would succeed.
    pub fn has_room(&mut self) -> bool {
        let slots = self.shared.slots.len();
        if self.pushed.wrapping_sub(self.popped) == slots {
            self.popped = self.shared.popped.0.load(Ordering::Acquire);
        }
        self.pushed.wrapping_sub(self.popped) < slots
    }

    /// About to sleep, as its [`Parking`] says already, with more to push: whether there is still no room. If so, the
    /// receiver's [`Receiver::is_awaited`] says so once it has taken something.
    pub fn awaits_room(&mut self) -> bool {
        if self.has_room() {
            return false;
        }
        self.shared.awaited.0.swap(true, Ordering::Relaxed);
        // Pairs with the one in `is_awaited`: of a pop and this, one side sees the other's.
        fence(Ordering::SeqCst);
        !self.has_room()
    }
}

impl<T: Send> Receiver<T> {
    /// Takes the oldest value out.
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let value = self.shared.slot(self.popped).with_mut(|slot| {
            // SAFETY: the sender's counter has passed this slot, so it is the receiver's alone until its own counter has.
            let slot = unsafe { &mut *slot };
            // SAFETY: there is a value in it, which is taken once: the counter below says so before anybody writes there.
            unsafe { slot.assume_init_read() }
        });
        self.popped = self.popped.wrapping_add(1);
        self.shared.popped.0.store(self.popped, Ordering::Release);
        Some(value)
    }

    /// Whether there is nothing to be taken.
    pub fn is_empty(&mut self) -> bool {
        if self.pushed == self.popped {
            self.pushed = self.shared.pushed.0.load(Ordering::Acquire);
        }
        self.pushed == self.popped
    }

    /// After a pop: whether the sender has to be woken, because it waits for room. It is told so once.
    pub fn is_awaited(&self) -> bool {
        fence(Ordering::SeqCst);
        let awaited = &self.shared.awaited.0;
        awaited.load(Ordering::Relaxed) && awaited.swap(false, Ordering::Relaxed)
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (mut popped, pushed) =
            (self.popped.0.load(Ordering::Acquire), self.pushed.0.load(Ordering::Acquire));
        while popped != pushed {
            self.slot(popped).with_mut(|slot| {
                // SAFETY: both ends are gone.
                let slot = unsafe { &mut *slot };
                // SAFETY: the slots between the counters hold values that nobody took.
                unsafe { slot.assume_init_drop() };
            });
            popped = popped.wrapping_add(1);
        }
    }
}

/// Where a core says that it is about to sleep. One for each core, known to all that send to it. Every change is an
/// exchange: who changes it knows what it was, and of several who wake a core one does.
#[derive(Debug, Default)]
pub struct Parking {
    parked: AtomicBool,
}

impl Parking {
    /// Of a core that is awake.
    pub fn new() -> Self {
        Self { parked: AtomicBool::new(false) }
    }

    /// The core is about to sleep. It has to look into its lanes once more before it does.
    pub fn enter(&self) {
        self.parked.swap(true, Ordering::Relaxed);
        // Pairs with the one in `is_to_be_woken`: of a push and this, one side sees the other's.
        fence(Ordering::SeqCst);
    }

    /// The core is awake, or does not sleep after all.
    pub fn leave(&self) {
        self.parked.swap(false, Ordering::Relaxed);
    }

    /// For a sender, after a push: whether it has to wake the core. Of several senders one is told so.
    pub fn is_to_be_woken(&self) -> bool {
        fence(Ordering::SeqCst);
        self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::Relaxed)
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("pushed", &self.pushed).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("popped", &self.popped).finish_non_exhaustive()
    }
}
