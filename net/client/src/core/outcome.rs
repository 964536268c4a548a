//! What became of a batch: written once by the core, read by every receipt of the batch.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::ProduceError;

/// Where a batch landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Landed {
    pub(crate) partition: u32,
    pub(crate) base_offset: u64,
    pub(crate) append_timestamp_us: u64,
}

pub(crate) type Answer = Result<Landed, ProduceError>;

/// One per batch. Receipts poll it without the producer's lock.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    answer: OnceLock<Answer>,
    wakers: Mutex<Vec<Option<Waker>>>,
}

/// The place of one receipt's waker.
#[derive(Debug, Default)]
pub(crate) struct Seat(Option<usize>);

impl Outcome {
    pub(crate) fn get(&self) -> Option<&Answer> {
        self.answer.get()
    }

    pub(crate) fn poll(&self, seat: &mut Seat, cx: &Context<'_>) -> Poll<&Answer> {
        if let Some(answer) = self.get() {
            return Poll::Ready(answer);
        }
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        // Settled between the first look and the lock: nobody would wake this task, and the seats are gone.
        if let Some(answer) = self.get() {
            return Poll::Ready(answer);
        }
        let at = *seat.0.get_or_insert_with(|| {
            wakers.iter().position(Option::is_none).unwrap_or_else(|| {
                wakers.push(None);
                wakers.len() - 1
            })
        });
        wakers[at] = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The receipt is gone: its task must not be kept alive by its waker.
    pub(crate) fn leave(&self, seat: &mut Seat) {
        if let Some(at) = seat.0.take() {
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(waker) = wakers.get_mut(at) {
                *waker = None;
            }
        }
    }

    /// The first answer stands. Wakes every receipt that waits; must be called without any lock held.
    pub(crate) fn settle(&self, answer: Answer) {
        if self.answer.set(answer).is_err() {
            return;
        }
        let wakers = std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}
