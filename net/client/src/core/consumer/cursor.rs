//! Where a consumer is in one partition, and what it has asked for there.

use std::task::Waker;

use corelog_model::Term;
use corelog_wire::At;

use crate::config::Position;
use crate::core::commits::Commits;

/// Where a cursor goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// To be looked up under the consumer's name.
    Recall,
    /// To be looked up.
    Find(At),
    At(u64),
    /// Until a seek.
    Stopped,
}

/// A place in a partition, and the requests that are under way for it.
pub(super) struct Cursor {
    pub(super) partition: u32,
    pub(super) link: usize,
    pub(super) handle: u32,
    pub(super) opened: bool,
    pub(super) asked: bool,
    pub(super) generation: u32,
    pub(super) next: Place,
    /// The time that was sought, until a record at or after it was read; 0: none is sought. The broker names an offset at
    /// or before that record, since its index tells frames apart and not records.
    pub(super) since_us: u64,
    /// Epoch of what was read before `next`.
    pub(super) epoch: Option<Term>,
    pub(super) queued_bytes: usize,
    /// It is subscribed to, or asked to be: bytes that the broker may still push, below 0 when a batch went beyond.
    pub(super) credit: Option<i64>,
    /// What is there is fetched in place of a subscription, without a wait, before another is tried.
    pub(super) polls: bool,
    /// Its subscription is of no interest any more, and the broker is to be told so.
    pub(super) unsubscribes: bool,
    /// The offset after the last batch taken, and the epoch of that batch.
    pub(super) position: Option<u64>,
    pub(super) position_epoch: Option<Term>,
    /// The epoch that the broker named when the partition was opened.
    pub(super) opened_epoch: Option<Term>,
    pub(super) commits: Commits,
    pub(super) not_before_us: u64,
    pub(super) failures: u32,
    /// The broker does not know the partition: whether there is one is asked.
    pub(super) missing: bool,
    /// Where it begins if no position is committed.
    pub(super) from: Position,
    /// A seek waits for its offset.
    pub(super) seeking: Option<Waker>,
}

impl Cursor {
    /// One that is to look up where it begins.
    pub(super) fn new(partition: u32, link: usize, handle: u32, from: Position) -> Self {
        Self {
            partition,
            link,
            handle,
            opened: false,
            asked: false,
            generation: 0,
            next: Place::Recall,
            since_us: 0,
            epoch: None,
            queued_bytes: 0,
            credit: None,
            polls: false,
            unsubscribes: false,
            position: None,
            position_epoch: None,
            opened_epoch: None,
            commits: Commits::default(),
            not_before_us: 0,
            failures: 0,
            missing: false,
            from,
            seeking: None,
        }
    }

    /// Begins there.
    pub(super) const fn go_to(&mut self, to: Position) {
        self.next = place(to);
        self.since_us = time(to);
        (self.position, self.position_epoch) = (known(to), None);
    }

    /// Goes on from a committed position.
    pub(super) const fn recall(&mut self, offset: u64, epoch: Option<Term>) {
        self.next = Place::At(offset);
        (self.position, self.position_epoch) = (Some(offset), epoch);
        self.epoch = epoch;
        self.commits.recalled(offset);
    }

    /// Whether an answer is to come, beside what is pushed.
    pub(super) const fn is_waiting(&self) -> bool {
        self.asked || self.commits.is_sent()
    }

    /// Credit that is to be given to the broker now, in bytes: what was taken from the queue, when it is worth a request.
    pub(super) fn owed(&self, window: u32) -> Option<u32> {
        let free = i64::from(window) - self.credit? - self.queued_bytes as i64;
        u32::try_from(free).ok().filter(|&bytes| bytes >= window.div_ceil(2))
    }

    /// Pushes that are still to come are of no interest any more.
    pub(super) fn unsubscribe(&mut self) {
        if self.credit.take().is_some() {
            self.unsubscribes = true;
            self.generation = self.generation.wrapping_add(1);
        }
    }

    /// Everything asked or fetched so far is of no interest any more.
    pub(super) fn restart(&mut self, next: Place) {
        self.unsubscribe();
        self.generation = self.generation.wrapping_add(1);
        // An open that is under way is still good; anything else on its way is not waited for.
        self.asked &= !self.opened;
        self.next = next;
        self.epoch = None;
        self.not_before_us = 0;
    }
}

const fn place(position: Position) -> Place {
    match position {
        Position::Start => Place::Find(At::Start),
        Position::End => Place::Find(At::End),
        Position::Time(us) => Place::Find(At::Time(us)),
        Position::Offset(offset) => Place::At(offset),
    }
}

const fn time(position: Position) -> u64 {
    match position {
        Position::Time(us) => us,
        _ => 0,
    }
}

const fn known(position: Position) -> Option<u64> {
    match position {
        Position::Offset(offset) => Some(offset),
        _ => None,
    }
}
