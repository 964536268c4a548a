//! The lanes between cores once more, on loom's types instead of the standard library's; the source is the one of
//! engine/uring. Every order in which a sender and a receiver can see each other: nothing is lost, nothing comes twice,
//! nobody sleeps beside a value.

#[path = "../../../engine/uring/src/lane.rs"]
#[expect(unreachable_pub, reason = "a module of a crate there, of a test here")]
mod lane;

use lane::{Parking, Receiver, Sender, lane};
use loom::sync::{Arc, Notify};
use loom::thread;

/// A receiver that can sleep, and what wakes it.
struct Core {
    parking: Parking,
    wake: Notify,
}

impl Core {
    fn new() -> Arc<Self> {
        Arc::new(Self { parking: Parking::new(), wake: Notify::new() })
    }

    fn send(&self, to: &mut Sender<Box<u32>>, value: u32) {
        to.push(Box::new(value)).expect("the lane has room for all");
        if self.parking.is_to_be_woken() {
            self.wake.notify();
        }
    }

    /// Takes the next value of any lane; sleeps while there is none.
    fn receive(&self, lanes: &mut [Receiver<Box<u32>>]) -> (usize, u32) {
        loop {
            for (from, lane) in lanes.iter_mut().enumerate() {
                if let Some(value) = lane.pop() {
                    return (from, *value);
                }
            }
            self.parking.enter();
            if lanes.iter_mut().all(Receiver::is_empty) {
                // loom fails the test if this can last for ever.
                self.wake.wait();
            }
            self.parking.leave();
        }
    }
}

#[test]
fn values_come_in_order_and_a_sleeping_core_is_woken_for_each() {
    loom::model(|| {
        let core = Core::new();
        let (mut sender, receiver) = lane(2);
        let there = Arc::clone(&core);
        let sending = thread::spawn(move || {
            there.send(&mut sender, 1);
            there.send(&mut sender, 2);
        });
        let mut lanes = [receiver];
        assert_eq!(core.receive(&mut lanes), (0, 1));
        assert_eq!(core.receive(&mut lanes), (0, 2));
        sending.join().expect("it only sends");
    });
}

#[test]
fn two_senders_wake_one_core_and_both_are_heard() {
    // With three threads every order is too many: those in which one is interrupted at most twice against its will.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let core = Core::new();
        let (mut lanes, mut sending) = (Vec::new(), Vec::new());
        for value in [1, 2] {
            let (mut sender, receiver) = lane(1);
            let there = Arc::clone(&core);
            lanes.push(receiver);
            sending.push(thread::spawn(move || there.send(&mut sender, value)));
        }
        let heard = [core.receive(&mut lanes), core.receive(&mut lanes)];
        assert!(heard == [(0, 1), (1, 2)] || heard == [(1, 2), (0, 1)], "{heard:?}");
        sending.into_iter().for_each(|thread| thread.join().expect("it only sends"));
    });
}

/// A full lane gives the value back; its slots are used again, and what is left in it goes with it.
#[test]
fn a_full_lane_takes_more_when_the_receiver_has_taken_some() {
    loom::model(|| {
        let (mut sender, mut receiver) = lane(1);
        let sending = thread::spawn(move || {
            sender.push(Box::new(1)).expect("it is empty");
            let mut refused = 0;
            while sender.push(Box::new(2)).is_err() {
                refused += 1;
                thread::yield_now();
            }
            refused
        });
        let first = loop {
            match receiver.pop() {
                Some(value) => break *value,
                None => thread::yield_now(),
            }
        };
        assert_eq!(first, 1);
        sending.join().expect("it only sends");
        assert!(!receiver.is_empty(), "the second value goes with the lane");
    });
}

/// A sender that sleeps beside a full lane is woken by who takes something out of it.
#[test]
fn a_sender_that_waits_for_room_is_woken_when_there_is_some() {
    loom::model(|| {
        let core = Core::new();
        let (mut sender, mut receiver) = lane(1);
        let there = Arc::clone(&core);
        let sending = thread::spawn(move || {
            for value in [1, 2] {
                let mut value = Box::new(value);
                while let Err(refused) = sender.push(value) {
                    value = refused;
                    there.parking.enter();
                    if sender.awaits_room() {
                        there.wake.wait();
                    }
                    there.parking.leave();
                }
            }
        });
        for expected in [1, 2] {
            let value = loop {
                match receiver.pop() {
                    Some(value) => break *value,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(value, expected);
            if receiver.is_awaited() && core.parking.is_to_be_woken() {
                core.wake.notify();
            }
        }
        sending.join().expect("it is not left asleep");
    });
}

/// What the lanes are built on here.
mod sync {
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

    /// loom's cell, which fails the test when two are inside at once.
    #[derive(Debug)]
    pub(crate) struct Cell<T>(loom::cell::UnsafeCell<T>);

    impl<T> Cell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::cell::UnsafeCell::new(value))
        }

        pub(crate) fn with_mut<R>(&self, work: impl FnOnce(*mut T) -> R) -> R {
            self.0.with_mut(work)
        }
    }
}
