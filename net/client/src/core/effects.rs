//! What the core wants done once its lock is released.

use std::sync::Arc;
use std::task::Waker;

use crate::core::outcome::{Answer, Outcome};

/// Collected while a core is locked, performed after.
#[derive(Default)]
#[must_use]
pub(crate) struct Effects {
    /// Batches whose answer is final.
    pub(crate) settled: Vec<(Arc<Outcome>, Answer)>,
    /// Tasks to wake.
    pub(crate) wake: Vec<Waker>,
}

impl Effects {
    /// Does it all, and is empty and reusable after. No lock of the client may be held: a waker may run code of the
    /// caller's executor, which may drop futures of ours.
    pub(crate) fn perform(&mut self) {
        for (outcome, answer) in self.settled.drain(..) {
            outcome.settle(answer);
        }
        self.wake.drain(..).for_each(Waker::wake);
    }
}
