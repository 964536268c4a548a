//! Which partition a record goes to, and its dense number there.
//!
//! Every producer writes to every partition, as the producers of applications do. It stays on one partition for a *run*
//! of records, about a batch, and then takes the next, in turn; producers begin on different ones. A **stream** is one
//! producer on one partition; its records are numbered densely, which is what order is checked against.
//!
//! **Invariant:** `partition`, `dense` and `count` agree for every number (property tested).

use crate::payload::Identity;

/// Spreads the records of producers over partitions.
#[derive(Clone, Copy, Debug)]
pub struct Assignment {
    producers: u32,
    partitions: u32,
    /// A run is `1 << run_shift` records: dense numbers are found by shifts.
    run_shift: u32,
}

impl Assignment {
    /// Runs are the power of two next above `run_records`.
    ///
    /// # Panics
    /// When a count is 0.
    pub fn new(producers: u32, partitions: u32, run_records: u32) -> Self {
        assert!(producers > 0 && partitions > 0 && run_records > 0, "there is something to share out");
        Self { producers, partitions, run_shift: run_records.next_power_of_two().trailing_zeros() }
    }

    /// Number of producers.
    pub const fn producers(&self) -> u32 {
        self.producers
    }

    /// Number of partitions.
    pub const fn partitions(&self) -> u32 {
        self.partitions
    }

    /// How many records a producer writes before it takes its next partition.
    pub const fn run_records(&self) -> u64 {
        1 << self.run_shift
    }

    /// The partition that this record goes to.
    pub const fn partition(&self, id: Identity) -> u32 {
        let run = id.number >> self.run_shift;
        ((id.producer as u64 + run) % self.partitions as u64) as u32
    }

    /// The number of this record within its stream.
    pub const fn dense(&self, id: Identity) -> u64 {
        let run = id.number >> self.run_shift;
        ((run / self.partitions as u64) << self.run_shift) + (id.number & (self.run_records() - 1))
    }

    /// How many of the first `sent` records of `producer` went to `partition`.
    pub const fn count(&self, producer: u32, partition: u32, sent: u64) -> u64 {
        let width = self.partitions as u64;
        // Of the first `width` runs, the one that went there.
        let turn = (partition as u64 + width - producer as u64 % width) % width;
        let runs = sent >> self.run_shift;
        let whole = runs / width + (turn < runs % width) as u64;
        let begun = if runs % width == turn { sent & (self.run_records() - 1) } else { 0 };
        (whole << self.run_shift) + begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn streams_are_dense_and_counted(
            producers in 1_u32..6, partitions in 1_u32..14, run in 1_u32..9, sent in 0_u64..400,
        ) {
            let assignment = Assignment::new(producers, partitions, run);
            let mut used = std::collections::BTreeSet::new();
            for producer in 0..producers {
                let mut next = BTreeMap::<u32, u64>::new();
                for number in 0..sent {
                    let id = Identity { producer, number };
                    let partition = assignment.partition(id);
                    prop_assert!(partition < partitions);
                    used.insert(partition);
                    let expected = next.entry(partition).or_default();
                    prop_assert_eq!(assignment.dense(id), *expected);
                    *expected += 1;
                }
                for partition in 0..partitions {
                    let counted = next.get(&partition).copied().unwrap_or_default();
                    prop_assert_eq!(assignment.count(producer, partition, sent), counted);
                }
            }
            if sent >= u64::from(partitions) * assignment.run_records() {
                prop_assert_eq!(used.len() as u32, partitions, "no partition idles");
            }
        }
    }
}
