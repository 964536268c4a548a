//! What the tasks of one run share. They all run on one thread: cells, no locks.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;

use crate::assignment::Assignment;
use crate::clock::Clock;
use crate::hiccup::Watch;
use crate::latency::Latency;
use crate::pace::Pace;
use crate::payload::{Identity, Payload};
use crate::schedule::Schedule;

/// Counts up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    pub(crate) acknowledged_bytes: u64,
    pub(crate) consumed: u64,
    pub(crate) consumed_bytes: u64,
}

/// The histograms of the current phase.
#[derive(Default)]
pub(crate) struct Latencies {
    pub(crate) response: Latency,
    pub(crate) service: Latency,
    pub(crate) delay: Latency,
    pub(crate) end_to_end: Latency,
}

pub(crate) struct Shared {
    pub(crate) clock: Clock,
    /// Of the loop that all of them run on.
    pub(crate) watch: Watch,
    pub(crate) payload: Payload,
    pub(crate) assignment: Assignment,
    /// Made anew for each phase.
    pace: RefCell<Rc<Pace>>,
    /// Of the current phase, when it is an open loop.
    schedule: RefCell<Option<Schedule>>,
    latencies: RefCell<Latencies>,
    counts: Cell<Counts>,
    /// By partition: the offset after the last record consumed.
    positions: Vec<Cell<u64>>,
    stop: tokio::sync::Notify,
    stopping: Cell<bool>,
}

impl Shared {
    pub(crate) fn new(clock: Clock, watch: Watch, payload: Payload, assignment: Assignment) -> Self {
        Self {
            clock,
            payload,
            assignment,
            pace: RefCell::new(Rc::new(Pace::new(clock, watch.clone()))),
            watch,
            schedule: RefCell::new(None),
            latencies: RefCell::default(),
            counts: Cell::default(),
            positions: (0..assignment.partitions()).map(|_| Cell::new(0)).collect(),
            stop: tokio::sync::Notify::new(),
            stopping: Cell::new(false),
        }
    }

    /// Forgets the histograms and begins a phase.
    pub(crate) fn begin_phase(&self, schedule: Option<Schedule>) {
        self.watch.begin(schedule.is_none());
        *self.schedule.borrow_mut() = schedule;
        *self.latencies.borrow_mut() = Latencies::default();
        *self.pace.borrow_mut() = Rc::new(Pace::new(self.clock, self.watch.clone()));
    }

    pub(crate) fn pace(&self) -> Rc<Pace> {
        self.pace.borrow().clone()
    }

    pub(crate) fn latencies(&self) -> RefMut<'_, Latencies> {
        self.latencies.borrow_mut()
    }

    /// `None` in a closed phase, and for records of an earlier one.
    pub(crate) fn intended_ns(&self, id: Identity) -> Option<u64> {
        self.schedule.borrow().as_ref()?.intended_ns(id)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.get()
    }

    pub(crate) fn count_acknowledged(&self, records: u64, bytes: u64) {
        let counts = self.counts.get();
        self.counts.set(Counts {
            acknowledged: counts.acknowledged + records,
            acknowledged_bytes: counts.acknowledged_bytes + bytes,
            ..counts
        });
    }

    pub(crate) fn count_consumed(&self, records: u64, bytes: u64) {
        let counts = self.counts.get();
        self.counts.set(Counts {
            consumed: counts.consumed + records,
            consumed_bytes: counts.consumed_bytes + bytes,
            ..counts
        });
    }

    /// Tells the consumers to end.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
        self.stop.notify_waiters();
    }

    /// Returns once [`Shared::stop`] was called.
    pub(crate) async fn stopped(&self) {
        let told = self.stop.notified();
        if !self.stopping.get() {
            told.await;
        }
    }

    pub(crate) fn position(&self, partition: u32) -> u64 {
        self.positions[partition as usize].get()
    }

    pub(crate) fn set_position(&self, partition: u32, offset: u64) {
        self.positions[partition as usize].set(offset);
    }
}
