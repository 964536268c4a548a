//! Counts what came back against what was acknowledged.
//!
//! A record is **verified** once: the first time it is seen intact on its partition. What is left is **expired**
//! as far as the log's start passed the reader (offsets are dense, so the number of them is known), and **lost**
//! beyond that: `verified + expired + lost = acknowledged`. A corrupted record is not verified, hence also lost.
//!
//! **Invariant:** pure, and without memory that grows with the run: a stream is one number and the ranges missing
//! below it, and there are none on a healthy log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::assignment::Assignment;
use crate::payload::{Identity, Payload};

/// The verdict on a run; a violation is any of the last four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Records that the broker acknowledged.
    pub acknowledged: u64,
    /// Seen intact, each counted once.
    pub verified: u64,
    /// Recycled by retention before the reader came to them.
    pub expired: u64,
    /// Acknowledged, neither verified nor expired.
    pub lost: u64,
    /// Intact but seen before.
    pub duplicated: u64,
    /// Intact but after a later one of the same producer and partition.
    pub out_of_order: u64,
    /// Not what was sent: other bytes, another run's, or on the wrong partition.
    pub corrupted: u64,
}

impl Check {
    /// Whether every acknowledged record is accounted for, in order, once, and unharmed.
    pub const fn passed(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.out_of_order == 0 && self.corrupted == 0
    }

    /// Adds the verdict on other partitions.
    pub const fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.verified += other.verified;
        self.expired += other.expired;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.corrupted += other.corrupted;
    }
}

/// One producer's records on one partition.
#[derive(Default)]
struct Stream {
    /// Every number below was seen, or is in `missing`.
    next: u64,
    /// Ranges below `next` that were not seen intact: first number -> the one after the last.
    missing: BTreeMap<u64, u64>,
}

enum Seen {
    InOrder,
    Late,
    Again,
}

impl Stream {
    fn see(&mut self, number: u64) -> Seen {
        if number == self.next {
            self.next += 1;
            return Seen::InOrder;
        }
        if number > self.next {
            self.missing.insert(self.next, number);
            self.next = number + 1;
            return Seen::InOrder;
        }
        if self.take_missing(number) { Seen::Late } else { Seen::Again }
    }

    /// A record that was there but not intact: never to be verified, and no sign of a gap in order.
    fn see_damaged(&mut self, number: u64) {
        if number >= self.next {
            self.missing.insert(self.next, number + 1);
            self.next = number + 1;
        }
    }

    fn take_missing(&mut self, number: u64) -> bool {
        let Some((&first, &end)) = self.missing.range(..=number).next_back() else { return false };
        if number >= end {
            return false;
        }
        self.missing.remove(&first);
        if first < number {
            self.missing.insert(first, number);
        }
        if number + 1 < end {
            self.missing.insert(number + 1, end);
        }
        true
    }
}

/// Checks the records of one partition in the order in which a consumer gets them.
pub struct PartitionCheck {
    partition: u32,
    assignment: Assignment,
    /// By producer.
    streams: Vec<Stream>,
    expired_offsets: u64,
    counts: Check,
}

impl PartitionCheck {
    /// Nothing seen yet.
    pub fn new(partition: u32, assignment: Assignment) -> Self {
        let streams = (0..assignment.producers()).map(|_| Stream::default()).collect();
        Self { partition, assignment, streams, expired_offsets: 0, counts: Check::default() }
    }

    /// Takes the next record; its identity when it is intact and new, which is when its latency counts.
    pub fn see(&mut self, payload: &Payload, value: Option<&[u8]>) -> Option<Identity> {
        let Some(id) = value.and_then(|value| payload.identity(value)).filter(|id| self.is_here(*id)) else {
            self.counts.corrupted += 1;
            return None;
        };
        let number = self.assignment.dense(id);
        let stream = &mut self.streams[id.producer as usize];
        if !value.is_some_and(|value| payload.matches(id, value)) {
            self.counts.corrupted += 1;
            stream.see_damaged(number);
            return None;
        }
        match stream.see(number) {
            Seen::InOrder => {}
            Seen::Late => self.counts.out_of_order += 1,
            Seen::Again => {
                self.counts.duplicated += 1;
                return None;
            }
        }
        self.counts.verified += 1;
        Some(id)
    }

    /// The log's start passed the reader: this many offsets can no longer be read.
    pub const fn expire(&mut self, offsets: u64) {
        self.expired_offsets += offsets;
    }

    /// Records verified so far.
    pub const fn verified(&self) -> u64 {
        self.counts.verified
    }

    /// Whether nothing is missing of what the producers had acknowledged, `sent` each.
    pub fn is_complete(&self, sent: &[u64]) -> bool {
        self.counts.verified + self.expired_offsets >= self.acknowledged(sent)
    }

    /// The verdict, once the producers are done with `sent` acknowledged records each.
    pub fn verdict(&self, sent: &[u64]) -> Check {
        let acknowledged = self.acknowledged(sent);
        let unseen = acknowledged.saturating_sub(self.counts.verified);
        let expired = unseen.min(self.expired_offsets);
        Check { acknowledged, expired, lost: unseen - expired, ..self.counts }
    }

    fn acknowledged(&self, sent: &[u64]) -> u64 {
        (0..).zip(sent).map(|(producer, sent)| self.assignment.count(producer, self.partition, *sent)).sum()
    }

    fn is_here(&self, id: Identity) -> bool {
        id.producer < self.assignment.producers() && self.assignment.partition(id) == self.partition
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SENT: u64 = 10;

    struct Run {
        payload: Payload,
        values: Vec<Vec<u8>>,
    }

    fn run() -> Run {
        let payload = Payload::generated(11, 64);
        let values = (0..SENT)
            .map(|number| {
                let mut value = vec![0; 64];
                payload.fill(Identity { producer: 0, number }, &mut value);
                value
            })
            .collect();
        Run { payload, values }
    }

    fn judge(run: &Run, values: &[Vec<u8>], expired: u64) -> Check {
        let mut check = PartitionCheck::new(0, Assignment::new(1, 1, 1));
        check.expire(expired);
        for value in values {
            check.see(&run.payload, Some(value));
        }
        check.verdict(&[SENT])
    }

    fn good() -> Check {
        Check { acknowledged: SENT, verified: SENT, ..Check::default() }
    }

    #[test]
    fn a_healthy_log_passes() {
        let run = run();
        let check = judge(&run, &run.values, 0);
        assert_eq!(check, good());
        assert!(check.passed());
    }

    #[test]
    fn a_dropped_record_is_lost_wherever_it_was() {
        for at in 0..SENT as usize {
            let run = run();
            let mut values = run.values.clone();
            values.remove(at);
            let check = judge(&run, &values, 0);
            assert_eq!(check, Check { verified: SENT - 1, lost: 1, ..good() });
            assert!(!check.passed());
        }
    }

    #[test]
    fn a_repeated_record_is_a_duplicate() {
        let run = run();
        let mut values = run.values.clone();
        values.insert(7, values[2].clone());
        let check = judge(&run, &values, 0);
        assert_eq!(check, Check { duplicated: 1, ..good() });
        assert!(!check.passed());
    }

    #[test]
    fn two_swapped_records_are_out_of_order_but_not_lost() {
        let run = run();
        let mut values = run.values.clone();
        values.swap(4, 5);
        let check = judge(&run, &values, 0);
        assert_eq!(check, Check { out_of_order: 1, ..good() });
        assert!(!check.passed());
    }

    #[test]
    fn a_flipped_byte_is_corrupted_and_therefore_lost() {
        let run = run();
        let mut values = run.values.clone();
        values[3][40] ^= 1;
        let check = judge(&run, &values, 0);
        assert_eq!(check, Check { verified: SENT - 1, lost: 1, corrupted: 1, ..good() });
    }

    #[test]
    fn retention_explains_what_it_recycled_and_no_more() {
        let run = run();
        let check = judge(&run, &run.values[4..], 4);
        assert_eq!(check, Check { verified: SENT - 4, expired: 4, ..good() });
        assert!(check.passed());
        let check = judge(&run, &run.values[5..], 4);
        assert_eq!(check.lost, 1, "one record is gone that retention cannot have taken");
    }

    #[test]
    fn a_record_on_the_wrong_partition_or_without_value_is_corrupted() {
        let run = run();
        let mut check = PartitionCheck::new(0, Assignment::new(1, 2, 4));
        for value in &run.values[..8] {
            check.see(&run.payload, Some(value));
        }
        check.see(&run.payload, None);
        let verdict = check.verdict(&[8]);
        assert_eq!(verdict, Check { acknowledged: 4, verified: 4, corrupted: 5, ..Check::default() });
    }

    proptest! {
        /// Whatever subset arrives in whatever order, the sum holds and only a full, ordered one passes.
        #[test]
        fn verified_and_expired_and_lost_are_all_that_was_acknowledged(
            picks in prop::collection::vec(0..SENT as usize, 0..30), expired in 0..SENT,
        ) {
            let run = run();
            let values: Vec<_> = picks.iter().map(|&at| run.values[at].clone()).collect();
            let check = judge(&run, &values, expired);
            prop_assert_eq!(check.verified + check.expired + check.lost, check.acknowledged);
            let distinct: std::collections::BTreeSet<_> = picks.iter().collect();
            prop_assert_eq!(check.verified, distinct.len() as u64);
            prop_assert_eq!(check.duplicated, (picks.len() - distinct.len()) as u64);
            prop_assert_eq!(check.out_of_order == 0, {
                let firsts: Vec<_> = picks.iter().enumerate().filter(|(at, pick)| !picks[..*at].contains(pick)).map(|(_, pick)| pick).collect();
                firsts.is_sorted()
            });
        }
    }
}
