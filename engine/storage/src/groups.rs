//! The groups of a log as a dense table: a slot is found once, then everything is an index.
//!
//! **Invariant:** `log_start <= log_end`; rows are in log order and their offsets rise; a slot is never given to
//! a second group.

use std::collections::HashMap;
use std::collections::VecDeque;

use corelog_model::{GroupId, TopicId};

use crate::index::NO_RUN;
use crate::window::NONE;

/// Where a group lives in the dense tables of this log, until the log is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupSlot(pub u32);

/// Level 1 of the index: what one extent holds of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Of the extent's use; identifies it.
    pub(crate) generation: u64,
    pub(crate) first_offset: u64,
    pub(crate) last_offset: u64,
    pub(crate) max_timestamp_us: u64,
}

pub(crate) struct Group {
    pub(crate) id: GroupId,
    /// Known once the log's owner has opened the group.
    pub(crate) topic: Option<(TopicId, u32)>,
    pub(crate) dropped: bool,
    /// First offset that can be read.
    pub(crate) log_start: u64,
    /// Offset the next batch gets at the earliest.
    pub(crate) log_end: u64,
    /// Index of the newest entry.
    pub(crate) last_index: u64,
    /// Newest entry in the live window.
    pub(crate) newest: u64,
    /// Newest run of the open extent.
    pub(crate) newest_run: u32,
    /// Closed extents that hold the group, oldest first.
    pub(crate) rows: VecDeque<Row>,
}

/// Rows a group has room for before it allocates again.
const ROWS_RESERVED: usize = 8;
/// What a row takes in a list that has outgrown that, at most: such a list has room for up to twice its rows.
const ROW_BYTES: u64 = 2 * size_of::<Row>() as u64;

#[derive(Default)]
pub(crate) struct Groups {
    table: Vec<Group>,
    by_id: HashMap<GroupId, GroupSlot>,
    /// Memory of lists of rows beyond what every group has, at most, in bytes.
    grown_bytes: u64,
}

/// Of a list of so many rows.
const fn grown_bytes(rows: usize) -> u64 {
    if rows > ROWS_RESERVED { rows as u64 * ROW_BYTES } else { 0 }
}

impl Groups {
    pub(crate) fn find(&self, id: GroupId) -> Option<GroupSlot> {
        self.by_id.get(&id).copied()
    }

    /// The slot of a group, made on first sight: recovery meets groups before their owner does.
    pub(crate) fn slot(&mut self, id: GroupId) -> GroupSlot {
        if let Some(slot) = self.find(id) {
            return slot;
        }
        let slot = GroupSlot(u32::try_from(self.table.len()).expect("fewer groups than 2^32"));
        self.table.push(Group {
            id,
            topic: None,
            dropped: false,
            log_start: 0,
            log_end: 0,
            last_index: 0,
            newest: NONE,
            newest_run: NO_RUN,
            rows: VecDeque::with_capacity(ROWS_RESERVED),
        });
        self.by_id.insert(id, slot);
        slot
    }

    pub(crate) fn get(&self, slot: GroupSlot) -> Option<&Group> {
        self.table.get(slot.0 as usize)
    }

    /// The group of a slot this log gave out.
    pub(crate) fn at(&self, slot: GroupSlot) -> &Group {
        &self.table[slot.0 as usize]
    }

    pub(crate) fn at_mut(&mut self, slot: GroupSlot) -> &mut Group {
        &mut self.table[slot.0 as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupSlot, &Group)> {
        self.table.iter().enumerate().map(|(at, group)| (GroupSlot(at as u32), group))
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// One more extent holds the group.
    pub(crate) fn add_row(&mut self, slot: GroupSlot, row: Row) {
        let rows = &mut self.table[slot.0 as usize].rows;
        let before = grown_bytes(rows.len());
        rows.push_back(row);
        self.grown_bytes += grown_bytes(rows.len()) - before;
    }

    /// Extents up to this generation are going: what the group has in them is before its start. Whether it had anything.
    pub(crate) fn pass_rows(&mut self, slot: GroupSlot, generation: u64) -> bool {
        let group = &mut self.table[slot.0 as usize];
        let before = group.rows.len();
        while let Some(row) = group.rows.pop_front_if(|row| row.generation <= generation) {
            group.log_start = group.log_start.max(row.last_offset + 1);
        }
        let left = group.rows.len();
        if group.rows.capacity() > (2 * left).max(ROWS_RESERVED) {
            group.rows.shrink_to(left.max(ROWS_RESERVED));
        }
        self.grown_bytes -= grown_bytes(before) - grown_bytes(left);
        left < before
    }

    /// A pack takes the place of the extents of these generations: `row` is what it holds of the group, which counts only
    /// if the group still has something in them. Whether it does.
    pub(crate) fn replace_rows(
        &mut self,
        slot: GroupSlot,
        generations: std::ops::RangeInclusive<u64>,
        row: Option<Row>,
    ) -> bool {
        let group = &mut self.table[slot.0 as usize];
        let rows = &mut group.rows;
        let before = rows.len();
        let from = rows.partition_point(|row| row.generation < *generations.start());
        let to = rows.partition_point(|row| row.generation <= *generations.end());
        if from == to {
            return false;
        }
        rows.drain(from..to);
        if let Some(row) = row {
            rows.insert(from, row);
        }
        self.grown_bytes -= grown_bytes(before) - grown_bytes(rows.len());
        row.is_some()
    }

    /// The group is dropped: its rows, which nobody needs any more.
    pub(crate) fn take_rows(&mut self, slot: GroupSlot) -> VecDeque<Row> {
        let rows = std::mem::take(&mut self.table[slot.0 as usize].rows);
        self.grown_bytes -= grown_bytes(rows.len());
        rows
    }

    /// Rows were added without being counted, as a start does.
    pub(crate) fn recount(&mut self) {
        self.grown_bytes = self.count_grown();
    }

    fn count_grown(&self) -> u64 {
        self.table.iter().map(|group| grown_bytes(group.rows.len())).sum()
    }

    /// Memory of lists of rows beyond what every group has, at most, in bytes.
    pub(crate) const fn grown_bytes(&self) -> u64 {
        self.grown_bytes
    }

    /// Bytes of all rows.
    pub(crate) fn row_bytes(&self) -> u64 {
        self.table.iter().map(|group| (group.rows.len() * size_of::<Row>()) as u64).sum()
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = GroupSlot> + use<> {
        (0..self.table.len() as u32).map(GroupSlot)
    }

    pub(crate) fn check(&self) {
        assert_eq!(self.grown_bytes, self.count_grown(), "rows are counted");
        for group in &self.table {
            assert!(group.log_start <= group.log_end, "group {}: start behind its end", group.id);
            let mut next = 0;
            for row in &group.rows {
                assert!(next <= row.first_offset && row.first_offset <= row.last_offset);
                next = row.last_offset + 1;
            }
            assert!(next <= group.log_end, "group {}: a row beyond the end", group.id);
        }
    }
}
