//! What the core wants done once its lock is released.

use std::sync::Arc;
use std::task::Waker;

use crate::core::outcome::{Answer, Outcome};

const LAST_BIT: usize = 63;

/// Collected while a core is locked, performed after.
#[derive(Default)]
#[must_use]
pub(crate) struct Effects {
    /// Batches whose answer is final.
    pub(crate) settled: Vec<(Arc<Outcome>, Answer)>,
    /// Tasks to wake.
    pub(crate) wake: Vec<Waker>,
    /// Links with something new to look at, one bit each; the last bit stands for all from there on.
    kicks: u64,
}

impl Effects {
    pub(crate) fn kick(&mut self, link: usize) {
        self.kicks |= 1 << link.min(LAST_BIT);
    }

    pub(crate) const fn has_kicks(&self) -> bool {
        self.kicks != 0
    }

    /// The links to wake, each once; `links` is how many there are.
    pub(crate) fn take_kicks(&mut self, links: usize) -> impl Iterator<Item = usize> + use<> {
        let kicks = std::mem::take(&mut self.kicks);
        (0..links).filter(move |&link| kicks & (1 << link.min(LAST_BIT)) != 0)
    }

    /// Does it all, and is empty and reusable after. No lock of the client may be held: a waker may run code of the
    /// caller's executor, which may drop futures of ours.
    #[inline]
    pub(crate) fn perform(&mut self) {
        if self.settled.is_empty() && self.wake.is_empty() {
            return;
        }
        for (outcome, answer) in self.settled.drain(..) {
            outcome.settle(answer);
        }
        self.wake.drain(..).for_each(Waker::wake);
    }
}
