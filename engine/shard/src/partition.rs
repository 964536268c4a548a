//! One partition: its cursors, and the history of its epochs.
//!
//! Owns the order of the cursors, checked in the one place that moves them. Does not touch the log.

use corelog_model::{Durability, GroupId, Retention, Term, TopicId};
use corelog_storage::GroupSlot;

use crate::pending::Owed;
use crate::wait::Waiters;

/// Names a partition of this shard for as long as it exists: handles and waits outlive deleted topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PartitionId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// The slot of a partition that recovery knows and the log does not yet.
const NOT_OPEN: GroupSlot = GroupSlot(u32::MAX);

/// The three offsets of a partition. `log_start <= high_watermark <= log_end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursors {
    /// The oldest offset kept.
    pub(crate) log_start: u64,
    /// The offset after the last visible record.
    pub(crate) high_watermark: u64,
    /// The next offset to be given.
    pub(crate) log_end: u64,
}

/// Where a term's records begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EpochStart {
    /// The term.
    pub(crate) term: Term,
    /// Offset of its first record.
    pub(crate) start: u64,
}

/// The terms that appended to a partition, oldest first. Terms and starts rise strictly, but for the oldest entry
/// whose start may lie far below: it also stands for the terms that were forgotten before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epochs(Vec<EpochStart>);

impl Epochs {
    /// Terms remembered per partition: one is added at most per start of the log.
    pub(crate) const MAX: usize = 100;

    /// The entries, oldest first.
    pub(crate) fn entries(&self) -> &[EpochStart] {
        &self.0
    }

    /// A batch of `term` begins at `start`.
    pub(crate) fn append(&mut self, term: Term, start: u64) {
        match self.0.last() {
            Some(last) if last.term >= term => assert_eq!(last.term, term, "terms rise"),
            _ => self.0.push(EpochStart { term, start }),
        }
        if self.0.len() > Self::MAX {
            self.forget_oldest();
        }
    }

    /// Forgets the terms that only wrote records below `log_start`.
    pub(crate) fn prune(&mut self, log_start: u64) {
        while self.0.len() > 1 && self.0[1].start <= log_start {
            self.forget_oldest();
        }
    }

    /// The next entry takes the start of the forgotten one: a reader from a forgotten term is then told to go back
    /// further than it must, never less.
    fn forget_oldest(&mut self) {
        let start = self.0[0].start;
        self.0.remove(0);
        self.0[0].start = start;
    }

    /// The first offset that a reader of `term` cannot have read as it is now, if the log ends at `log_end`.
    pub(crate) fn end_of(&self, term: Term, log_end: u64) -> u64 {
        let after = self.0.partition_point(|entry| entry.term <= term);
        self.0.get(after).map_or(log_end, |entry| entry.start)
    }
}

/// One partition of this shard's log.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) group: GroupId,
    /// Where the log keeps the group.
    pub(crate) slot: GroupSlot,
    pub(crate) topic: TopicId,
    pub(crate) partition: u32,
    /// The topic's level now. What was appended at a stronger one may still be owed its answer.
    pub(crate) durability: Durability,
    /// What takes its records away, as far as log 0 has said so since the start.
    pub(crate) retention: Retention,
    pub(crate) owed: Owed,
    cursors: Cursors,
    pub(crate) epochs: Epochs,
    /// Index of the group's next entry. Indexes start at 1 and are dense.
    pub(crate) next_index: u64,
    /// Append times never fall.
    pub(crate) last_append_us: u64,
    /// Bytes that became visible since the start of the shard: waiting fetches compare against it.
    pub(crate) visible_bytes: u64,
    /// Whether the last checkpoint says something else.
    pub(crate) changed: bool,
    /// It has shown more since those who wait for data here were last looked at, and is in the shard's list for that.
    pub(crate) is_shown: bool,
    /// Fetches and subscriptions that wait for something here.
    pub(crate) waiters: Waiters,
}

impl Partition {
    pub(crate) fn new(group: GroupId, topic: TopicId, partition: u32, durability: Durability) -> Self {
        Self {
            group,
            slot: NOT_OPEN,
            topic,
            partition,
            durability,
            retention: Retention::default(),
            owed: Owed::default(),
            cursors: Cursors::default(),
            epochs: Epochs::default(),
            next_index: 1,
            last_append_us: 0,
            visible_bytes: 0,
            changed: true,
            is_shown: false,
            waiters: Waiters::default(),
        }
    }

    pub(crate) fn cursors(&self) -> Cursors {
        self.cursors
    }

    /// The one place where cursors move.
    pub(crate) fn set_cursors(&mut self, to: Cursors) {
        assert!(to.log_start <= to.high_watermark, "{}: the start passes the watermark: {to:?}", self.group);
        assert!(to.high_watermark <= to.log_end, "{}: the watermark passes the end: {to:?}", self.group);
        assert!(to.log_start >= self.cursors.log_start, "{}: the start falls to {to:?}", self.group);
        assert!(
            to.high_watermark >= self.cursors.high_watermark,
            "{}: the watermark falls to {to:?}",
            self.group
        );
        assert!(to.log_end >= self.cursors.log_end, "{}: the end falls to {to:?}", self.group);
        self.cursors = to;
    }

    /// A batch of `records` was appended in `term`, at `append_us`.
    pub(crate) fn appended(&mut self, term: Term, next_offset: u64, append_us: u64) {
        assert!(next_offset > self.cursors.log_end, "{}: a batch holds a record", self.group);
        self.epochs.append(term, self.cursors.log_end);
        self.next_index += 1;
        self.changed = true;
        self.last_append_us = self.last_append_us.max(append_us);
        self.set_cursors(Cursors { log_end: next_offset, ..self.cursors });
    }

    /// All below `end` became visible, `bytes` more than before.
    pub(crate) fn show(&mut self, end: u64, bytes: u64) {
        self.visible_bytes += bytes;
        self.set_cursors(Cursors { high_watermark: end.max(self.cursors.high_watermark), ..self.cursors });
    }

    /// Recycling took everything below `log_start`.
    pub(crate) fn recycled(&mut self, log_start: u64) {
        let log_start = log_start.clamp(self.cursors.log_start, self.cursors.high_watermark);
        self.set_cursors(Cursors { log_start, ..self.cursors });
        self.epochs.prune(log_start);
        self.changed = true;
    }
}

/// The partitions of a shard, by slot. Slots are reused, with a new generation.
#[derive(Debug, Default)]
pub(crate) struct Partitions {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    partition: Option<Partition>,
}

impl Partitions {
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, partition: Partition) -> PartitionId {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot { generation: 0, partition: None });
                u32::try_from(self.slots.len() - 1).expect("partitions are bounded")
            }
        };
        let entry = &mut self.slots[slot as usize];
        assert!(entry.partition.is_none(), "a free slot is empty");
        entry.partition = Some(partition);
        PartitionId { slot, generation: entry.generation }
    }

    pub(crate) fn remove(&mut self, id: PartitionId) -> Option<Partition> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        let partition = slot.partition.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        Some(partition)
    }

    pub(crate) fn get(&self, id: PartitionId) -> Option<&Partition> {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        slot.partition.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: PartitionId) -> Option<&mut Partition> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        slot.partition.as_mut()
    }

    /// How many slots there are, free ones among them.
    pub(crate) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).expect("partitions are bounded")
    }

    /// The partition in a slot, if there is one.
    pub(crate) fn in_slot(&self, slot: u32) -> Option<(PartitionId, &Partition)> {
        let entry = self.slots.get(slot as usize)?;
        let id = PartitionId { slot, generation: entry.generation };
        entry.partition.as_ref().map(|partition| (id, partition))
    }

    /// All partitions, by slot, to be marked.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.slots.iter_mut().filter_map(|slot| slot.partition.as_mut())
    }

    /// All partitions, by slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PartitionId, &Partition)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| {
            let slot = u32::try_from(slot).expect("partitions are bounded");
            let id = PartitionId { slot, generation: entry.generation };
            entry.partition.as_ref().map(|partition| (id, partition))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(entries: &[(u32, u64)]) -> Epochs {
        let mut epochs = Epochs::default();
        for &(term, start) in entries {
            epochs.append(Term(term), start);
        }
        epochs
    }

    /// Term 3 wrote 90 to 110, a crash took 95 and on, term 5 wrote 95 anew. A reader that stood at 110 in term 3,
    /// or in the idle term 4, must go back to 95; one that stood at 95 has missed nothing.
    #[test]
    fn a_reader_from_before_a_fall_back_learns_where_data_differ() {
        let epochs = history(&[(3, 90), (5, 95)]);
        assert_eq!(epochs.end_of(Term(3), 130), 95);
        assert_eq!(epochs.end_of(Term(4), 130), 95);
        assert_eq!(epochs.end_of(Term(5), 130), 130);
        assert_eq!(epochs.end_of(Term(2), 130), 90);
        assert_eq!(
            Epochs::default().end_of(Term(3), 0),
            0,
            "nothing survived: all the reader has read is gone"
        );
    }

    #[test]
    fn forgetting_a_term_never_lets_its_reader_pass() {
        let mut epochs = history(&[(1, 0), (2, 10), (4, 20), (7, 30)]);
        epochs.prune(25);
        assert_eq!(epochs.entries().len(), 2, "terms 4 and 7 still have records");
        assert!(epochs.end_of(Term(1), 40) <= 10);
        assert_eq!(epochs.end_of(Term(4), 40), 30);

        let mut long = Epochs::default();
        for term in 1..=2 * Epochs::MAX as u32 {
            long.append(Term(term), u64::from(term) * 10);
        }
        assert_eq!(long.entries().len(), Epochs::MAX);
        assert!(long.end_of(Term(5), u64::MAX) <= 60);
    }

    #[test]
    #[should_panic(expected = "the watermark passes the end")]
    fn the_setter_refuses_cursors_out_of_order() {
        let mut partition = Partition::new(GroupId(16), TopicId(1), 0, Durability::Durable);
        partition.set_cursors(Cursors { log_start: 0, high_watermark: 2, log_end: 1 });
    }

    #[test]
    fn a_removed_partition_is_not_found_under_its_old_name() {
        let mut partitions = Partitions::default();
        let old = partitions.insert(Partition::new(GroupId(16), TopicId(1), 0, Durability::Durable));
        assert!(partitions.remove(old).is_some());
        let new = partitions.insert(Partition::new(GroupId(17), TopicId(2), 0, Durability::Durable));
        assert_eq!(new.slot, old.slot);
        assert!(partitions.get(old).is_none());
        assert_eq!(partitions.get(new).map(|p| p.group), Some(GroupId(17)));
        assert_eq!(partitions.len(), 1);
    }
}
