//! All invariants of a shard in one call: tests and the simulator make it after every event.

use std::collections::{HashMap, HashSet};

use corelog_model::Durability;

use crate::partition::PartitionId;
use crate::shard::Shard;

impl Shard {
    /// Checks what the parts promise, each for itself and with each other.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check(&self) {
        self.log.check();
        self.sessions.check();
        self.pending.check();
        self.trims.check();
        self.expiry.check(self.partitions.iter().map(|(_, partition)| partition));
        self.producers.check();
        self.positions.check(|group| self.groups.contains_key(&group));
        self.metadata.check();
        self.directory.check();
        self.waits.check(self.partitions.iter().map(|(_, partition)| &partition.waiters));
        self.check_groups();
        self.check_owed();
        self.check_shown();
        let frontier = self.frontier();
        assert!(frontier.durable <= frontier.written, "what is durable was written: {frontier:?}");
    }

    /// Each partition knows how many of its requests wait for what, and nothing waits for less than its level.
    fn check_owed(&self) {
        let mut waiting: HashMap<PartitionId, (u32, u32)> = HashMap::new();
        for (level, pending) in self.pending.iter() {
            let counts = waiting.entry(pending.partition).or_default();
            match level {
                Durability::Durable => counts.0 += 1,
                _ => counts.1 += 1,
            }
        }
        for (id, partition) in self.partitions.iter() {
            let counts = waiting.remove(&id).unwrap_or_default();
            assert_eq!((partition.owed.durable, partition.owed.written), counts, "{}", partition.group);
            assert!(partition.durability != Durability::Durable || counts.1 == 0, "{}", partition.group);
        }
    }

    /// The partitions that are marked as shown are listed for that, each once.
    fn check_shown(&self) {
        let listed: HashSet<PartitionId> = self.shown.iter().copied().collect();
        assert_eq!(listed.len(), self.shown.len(), "a partition is listed once");
        for (id, partition) in self.partitions.iter() {
            assert_eq!(partition.is_shown, listed.contains(&id), "{}", partition.group);
        }
    }

    /// The groups that are open are those whose opening the metadata holds, and producers belong to them.
    fn check_groups(&self) {
        assert_eq!(self.groups.len(), self.partitions.len());
        assert_eq!(self.by_log_slot.len(), self.partitions.len());
        for (slot, id) in &self.by_log_slot {
            assert!(self.partitions.get(*id).is_some_and(|partition| partition.slot == *slot));
        }
        let mut open = 0;
        for (id, topic) in &self.metadata.topics {
            for (number, group) in topic.open_in(self.config.log.log) {
                let slot = self.groups.get(&group).expect("an opened group is there");
                let partition = self.partitions.get(*slot).expect("a group names a partition");
                assert_eq!((partition.group, partition.topic, partition.partition), (group, *id, number));
                open += 1;
            }
        }
        assert_eq!(open, self.groups.len(), "every group is a topic's");
        for state in self.producers.iter() {
            assert!(self.groups.contains_key(&state.group), "a producer's group is open");
        }
        for (_, partition) in self.partitions.iter() {
            let entries = partition.epochs.entries();
            assert!(
                entries.is_sorted_by(|a, b| a.term < b.term && a.start < b.start),
                "epochs rise: {entries:?}"
            );
            assert!(entries.last().is_none_or(|last| last.start < partition.cursors().log_end));
            assert!(entries.last().is_none_or(|last| last.term <= self.log.term()));
        }
    }
}
