//! Futures that are dropped on purpose, after a number of polls.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

/// Far more polls than any future here takes: one that is still pending then never ends.
const MOST_POLLS: u32 = 50;

/// When a future is dropped that has been polled often enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Right after that poll.
    AtOnce,
    /// When it was woken again, and would have been polled once more.
    Woken,
}

/// Where a future is dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) polls: u32,
    pub(crate) moment: Moment,
}

impl Cut {
    /// Polls the future when it is woken, and drops it here if it is still pending; its output if it was not.
    pub(crate) async fn of<F: Future>(self, future: F) -> Option<F::Output> {
        let at_once = self.moment == Moment::AtOnce;
        drop_after(self.polls, future, |_, left| left == 0 && at_once).await
    }
}

/// Polls at most `polls` times, then drops the future. After a poll that left it pending `drops` is asked, with the polls
/// that are left, whether it is dropped right then.
async fn drop_after<F: Future>(
    polls: u32,
    future: F,
    mut drops: impl FnMut(&mut Context<'_>, u32) -> bool,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if drops(cx, left) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Runs `story` with its future cut after 0, 1, 2 and so on polls, until the story says that the future came to its end
/// first: before that, each cut dropped it while it was pending. `least` is the number of polls without which it cannot end.
pub(crate) async fn at_every_poll_point(what: &str, least: u32, mut story: impl AsyncFnMut(Cut) -> bool) {
    for moment in [Moment::AtOnce, Moment::Woken] {
        let mut polls = 0;
        while !story(Cut { polls, moment }).await {
            polls += 1;
            assert!(polls < MOST_POLLS, "{what} never ends");
        }
        assert!(polls >= least, "{what} ended after {polls} polls, dropped {moment:?}");
    }
}

/// Polls at most `polls` times, then drops the future.
pub(crate) async fn at_most<F: Future>(polls: u32, future: F) -> Option<F::Output> {
    // Poll again soon, so that every poll point is reached whatever the future waits for.
    let again = |cx: &mut Context<'_>, _| {
        cx.waker().wake_by_ref();
        false
    };
    drop_after(polls, future, again).await
}

/// Where a story drops: numbers in 0..bound, the same for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}
