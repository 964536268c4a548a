//! What is to be committed of one partition under a consumer's name, and what was.
//!
//! At most one commit is on its way; of those that come meanwhile the newest is sent after it and the others never are.
//! A commit is numbered by its ticket: who waits for a ticket waits for the commit that took its place.
//!
//! **Invariant:** a commit that was asked for is acknowledged, refused, or still here.

use corelog_model::Term;

use crate::config::Backoff;
use crate::core::backoff::pause_us;
use crate::core::rng::Rng;
use crate::error::Refused;

/// Names a commit and all before it.
pub(crate) type Ticket = u64;

/// How far the caller has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The next offset to be read.
    pub(crate) offset: u64,
    /// The epoch of what was read before it.
    pub(crate) epoch: Option<Term>,
}

#[derive(Clone, Copy, Debug)]
struct Commit {
    reached: Reached,
    /// The oldest ticket that waits for it.
    since: Ticket,
}

/// The commits of one partition.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// What the broker has.
    acknowledged: Option<u64>,
    sent: Option<Commit>,
    waiting: Option<Commit>,
    not_before_us: u64,
    failures: u32,
    refused: Option<Refused>,
}

impl Commits {
    /// The broker has this position.
    pub(crate) const fn recalled(&mut self, offset: u64) {
        self.acknowledged = Some(offset);
    }

    /// Asks for a commit, unless it is the last one again.
    pub(crate) fn want(&mut self, reached: Reached, ticket: Ticket) {
        let last = self.waiting.or(self.sent).map(|commit| commit.reached.offset).or(self.acknowledged);
        if last == Some(reached.offset) {
            return;
        }
        let since = self.waiting.map_or(ticket, |replaced| replaced.since);
        self.waiting = Some(Commit { reached, since });
    }

    /// Whether one is to be sent now.
    pub(crate) const fn is_due(&self, now_us: u64) -> bool {
        self.waiting.is_some() && self.sent.is_none() && self.not_before_us <= now_us
    }

    /// The one to be sent now.
    pub(crate) fn send(&mut self, now_us: u64) -> Option<Reached> {
        if !self.is_due(now_us) {
            return None;
        }
        self.sent = self.waiting.take();
        self.sent.map(|commit| commit.reached)
    }

    pub(crate) const fn is_sent(&self) -> bool {
        self.sent.is_some()
    }

    /// When one that waits for a time may be sent, in microseconds.
    pub(crate) fn due_us(&self) -> Option<u64> {
        (self.waiting.is_some() && self.sent.is_none()).then_some(self.not_before_us)
    }

    /// The one on its way is durable.
    pub(crate) fn acknowledged(&mut self) {
        if let Some(commit) = self.sent.take() {
            self.acknowledged = Some(commit.reached.offset);
            self.failures = 0;
        }
    }

    /// The one on its way was not done, or nobody knows: it is sent again, or a newer one in its place.
    pub(crate) fn again(&mut self) {
        let Some(sent) = self.sent.take() else { return };
        self.waiting = Some(match self.waiting {
            Some(newer) => Commit { since: sent.since, ..newer },
            None => sent,
        });
    }

    /// The same after a pause.
    pub(crate) fn later(&mut self, retry_after_us: u64, now_us: u64, backoff: Backoff, rng: &mut Rng) {
        self.failures += 1;
        let pause = pause_us(backoff, self.failures, rng).max(retry_after_us);
        self.not_before_us = now_us.saturating_add(pause);
        self.again();
    }

    /// The broker said no, for good: to the one on its way, or if none is to the one that waits.
    pub(crate) fn refused(&mut self, refused: &Refused) {
        let refuses = if self.sent.is_some() { self.sent.take() } else { self.waiting.take() };
        if refuses.is_some() {
            self.refused = Some(refused.clone());
        }
    }

    /// Why one was not done; said once.
    pub(crate) const fn take_refused(&mut self) -> Option<Refused> {
        self.refused.take()
    }

    /// Whether a commit up to this ticket is not acknowledged.
    pub(crate) fn is_outstanding(&self, ticket: Ticket) -> bool {
        self.sent.into_iter().chain(self.waiting).any(|commit| commit.since <= ticket)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use corelog_wire::ErrorCode;

    use super::*;

    const fn at(offset: u64) -> Reached {
        Reached { offset, epoch: None }
    }

    fn refusal() -> Refused {
        Refused { code: ErrorCode::LogTruncated, message: "".into(), detail: [0; 2] }
    }

    /// Ten commits come while the first is on its way: two requests in all, and every ticket ends with them.
    #[test]
    fn the_newest_commit_takes_the_place_of_those_that_wait() {
        let mut commits = Commits::default();
        commits.want(at(1), 1);
        assert_eq!(commits.send(0), Some(at(1)));
        for ticket in 2..=10 {
            commits.want(at(ticket), ticket);
            assert_eq!(commits.send(0), None, "one is on its way");
        }
        assert!((1..=10).all(|ticket| commits.is_outstanding(ticket)));
        commits.acknowledged();
        assert!(!commits.is_outstanding(1));
        assert!(commits.is_outstanding(2) && commits.is_outstanding(10));
        assert_eq!(commits.send(0), Some(at(10)));
        commits.acknowledged();
        assert!(!commits.is_outstanding(10));
        commits.want(at(10), 11);
        assert!(!commits.is_outstanding(11), "it is there already");
        commits.want(at(4), 12);
        assert_eq!(commits.send(0), Some(at(4)), "back is a way like any other");
    }

    #[test]
    fn a_commit_in_doubt_is_sent_again_unless_there_is_a_newer_one() {
        let mut commits = Commits::default();
        commits.want(at(1), 1);
        assert_eq!(commits.send(0), Some(at(1)));
        commits.again();
        assert_eq!(commits.send(0), Some(at(1)));
        commits.want(at(2), 2);
        commits.again();
        assert!(commits.is_outstanding(1));
        assert_eq!(commits.send(0), Some(at(2)));
        commits.acknowledged();
        assert!(!commits.is_outstanding(2));
    }

    #[test]
    fn a_refusal_that_time_can_mend_costs_a_pause_and_any_other_is_said_once() {
        let backoff = Backoff { first: Duration::from_micros(100), most: Duration::from_micros(100) };
        let (mut commits, mut rng) = (Commits::default(), Rng::new(1));
        commits.want(at(1), 1);
        assert!(commits.send(0).is_some());
        commits.later(500, 1000, backoff, &mut rng);
        assert_eq!((commits.send(1499), commits.due_us()), (None, Some(1500)));
        assert_eq!(commits.send(1500), Some(at(1)));
        commits.want(at(2), 2);
        commits.refused(&refusal());
        assert_eq!(commits.take_refused(), Some(refusal()));
        assert_eq!(commits.take_refused(), None);
        assert_eq!(commits.send(1500), Some(at(2)), "the next one may be better");
        commits.acknowledged();
        commits.refused(&refusal());
        assert_eq!(commits.take_refused(), None, "it is about no commit");
    }
}
