//! Meeting: readers of one group that are not far apart come to share what is read from the disk.
//!
//! Who would have the disk read while somebody else reads the same group a little further back waits for them, a while:
//! from there on both find each other's blocks. Ten consumers that start one after the other then cost the disk what
//! one does, and not ten times that.
//!
//! **Invariants:** nobody waits longer than [`WAIT_US`], nor for somebody who has not read for [`ACTIVE_US`]. Whoever was
//! waited for in vain is not waited for again, and in that group nobody waits for anybody for [`REST_US`].

use crate::cold::{Cold, Finished, tell};
use crate::groups::GroupSlot;

/// A reader that has not asked for so long is not waited for, microseconds.
const ACTIVE_US: u64 = 100_000;
/// The longest wait, and how long there is none after one that was in vain.
const WAIT_US: u64 = 2_000_000;
const REST_US: u64 = 20_000_000;
/// So often it is looked whether a wait is over though nothing has happened.
const LOOK_US: u64 = 25_000;
/// Whoever has had so many answers in a row reads in order: such readers wait, and are waited for.
const IN_ORDER: u32 = 3;
/// Readers that are known, those that have asked last; and places where somebody waits.
const READERS: usize = 64;
const MEETINGS: usize = 16;

/// Somebody who reads a group from the disk: known by the offset that comes next.
#[derive(Clone, Copy, Debug)]
struct Reader {
    slot: GroupSlot,
    next: u64,
    asked_us: u64,
    /// Answers in a row.
    answers: u32,
    /// Somebody has waited for them in vain.
    slow: bool,
}

/// Where readers wait for those behind them.
struct Meeting {
    slot: GroupSlot,
    offset: u64,
    until_us: u64,
    tokens: Vec<u64>,
}

pub(crate) struct Meet {
    readers: Vec<Reader>,
    meetings: Vec<Meeting>,
    /// Groups in which there is no wait, until when.
    rests: Vec<(GroupSlot, u64)>,
}

impl Meet {
    pub(crate) fn new() -> Self {
        Self {
            readers: Vec::with_capacity(READERS),
            meetings: Vec::with_capacity(MEETINGS),
            rests: Vec::with_capacity(MEETINGS),
        }
    }

    /// A reader that was at `from` asks for what lies at `next` from now on.
    pub(crate) fn note(&mut self, slot: GroupSlot, from: u64, next: u64, now_us: u64) {
        let known = self.at(slot, from).map(|at| self.readers.swap_remove(at));
        let mut reader = Reader { slot, next, asked_us: now_us, answers: 0, slow: false };
        if let Some(known) = known {
            (reader.answers, reader.slow) =
                (known.answers.saturating_add(u32::from(next > from)), known.slow);
        }
        // Readers that have met are one.
        if let Some(at) = self.at(slot, next) {
            let same = &mut self.readers[at];
            same.answers = same.answers.max(reader.answers);
            (same.asked_us, same.slow) = (now_us, same.slow && reader.slow);
            return;
        }
        if self.readers.len() == READERS {
            let oldest = (0..READERS).min_by_key(|at| self.readers[*at].asked_us);
            self.readers.swap_remove(oldest.expect("there are some"));
        }
        self.readers.push(reader);
    }

    fn at(&self, slot: GroupSlot, next: u64) -> Option<usize> {
        self.readers.iter().position(|reader| (reader.slot, reader.next) == (slot, next))
    }

    /// Whether who asks for `offset` reads in order.
    pub(crate) fn is_in_order(&self, slot: GroupSlot, offset: u64) -> bool {
        self.at(slot, offset).is_some_and(|at| self.readers[at].answers >= IN_ORDER)
    }

    /// Whether somebody reads the group behind `offset` and is worth waiting for.
    pub(crate) fn is_somebody_behind(&self, slot: GroupSlot, offset: u64, cold: &Cold) -> bool {
        let now_us = cold.now_us();
        if self.rests.iter().any(|(resting, until_us)| *resting == slot && now_us < *until_us) {
            return false;
        }
        let behind = |reader: &&Reader| {
            reader.slot == slot
                && reader.next < offset
                && !reader.slow
                && reader.asked_us + ACTIVE_US > now_us
        };
        self.readers.iter().filter(behind).any(|reader| !cold.is_shared(slot, reader.next, offset))
    }

    /// Has a reader wait at `offset`; `false` when there is no place for that.
    pub(crate) fn wait(&mut self, slot: GroupSlot, offset: u64, token: u64, now_us: u64) -> bool {
        let is_here = |meeting: &Meeting| (meeting.slot, meeting.offset) == (slot, offset);
        match self.meetings.iter().position(is_here) {
            Some(at) => self.meetings[at].tokens.push(token),
            None if self.meetings.len() == MEETINGS => return false,
            None => {
                self.meetings.push(Meeting { slot, offset, until_us: now_us + WAIT_US, tokens: vec![token] });
            }
        }
        true
    }

    /// Ends the waits that are over: their readers may ask again.
    pub(crate) fn pass(&mut self, cold: &Cold, finished: &mut Vec<Finished>) {
        let now_us = cold.now_us();
        self.rests.retain(|(_, until_us)| now_us < *until_us);
        for at in (0..self.meetings.len()).rev() {
            let Meeting { slot, offset, until_us, .. } = self.meetings[at];
            let in_vain = until_us <= now_us;
            if !in_vain && self.is_somebody_behind(slot, offset, cold) {
                continue;
            }
            if in_vain {
                let waited_for = |reader: &&mut Reader| reader.slot == slot && reader.next < offset;
                self.readers.iter_mut().filter(waited_for).for_each(|reader| reader.slow = true);
                if self.rests.len() < MEETINGS {
                    self.rests.push((slot, now_us + REST_US));
                }
            }
            tell(finished, self.meetings.swap_remove(at).tokens, false);
        }
    }

    /// When it is to be looked whether a wait is over, monotonic microseconds.
    pub(crate) fn next_look_us(&self, now_us: u64) -> Option<u64> {
        (!self.meetings.is_empty()).then_some(now_us + LOOK_US)
    }
}
