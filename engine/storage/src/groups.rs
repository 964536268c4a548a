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
    /// Of its batches, with their entry headers; 0 where nobody has counted: an older version wrote it.
    pub(crate) bytes: u64,
}

pub(crate) struct Group {
    pub(crate) id: GroupId,
    /// Known once the log's owner has opened the group.
    pub(crate) topic: Option<(TopicId, u32)>,
    pub(crate) dropped: bool,
    /// First offset that can be read.
    pub(crate) log_start: u64,
    /// Where the log start goes when the trims under way are durable; of no meaning below it.
    pub(crate) trim_to: u64,
    /// The log start moved since the last checkpoint was made.
    pub(crate) moved: bool,
    /// Offset the next batch gets at the earliest.
    pub(crate) log_end: u64,
    /// Index of the newest entry.
    pub(crate) last_index: u64,
    /// Newest entry in the live window.
    pub(crate) newest: u64,
    /// Newest run of the open extent.
    pub(crate) newest_run: u32,
    /// Bytes of its batches in the open extent, as a row counts them.
    pub(crate) open_bytes: u64,
    /// Closed extents that hold the group, oldest first.
    pub(crate) rows: VecDeque<Row>,
    /// Offsets whose loss an operator has accepted, in order.
    pub(crate) accepted: Vec<(u64, u64)>,
}

impl Group {
    /// Those that are above the start.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = (u64, u64)> {
        self.accepted.iter().copied().filter(|(_, last)| *last >= self.log_start)
    }
}

impl Group {
    /// The log start that all which is appended so far leads to.
    pub(crate) fn coming_start(&self) -> u64 {
        self.log_start.max(self.trim_to)
    }

    /// Whether anybody may still ask for offsets up to this one.
    pub(crate) const fn keeps(&self, last_offset: u64) -> bool {
        !self.dropped && last_offset >= self.log_start
    }

    /// What the extent of this generation holds of the group.
    pub(crate) fn row_of(&self, generation: u64) -> Option<&Row> {
        self.rows.binary_search_by_key(&generation, |row| row.generation).ok().map(|at| &self.rows[at])
    }

    /// Rows of extents from this generation on, less what is going: what a checkpoint lists.
    pub(crate) fn listed_rows(&self, from: u64) -> impl Iterator<Item = &Row> {
        let start = self.coming_start();
        self.rows.iter().filter(move |row| row.generation >= from && row.last_offset >= start)
    }
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
    repeated: Vec<Row>,
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
            trim_to: 0,
            moved: false,
            log_end: 0,
            last_index: 0,
            newest: NONE,
            newest_run: NO_RUN,
            open_bytes: 0,
            rows: VecDeque::with_capacity(ROWS_RESERVED),
            accepted: Vec::new(),
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

    /// One more extent holds the group. What an earlier one holds of the same offsets is of frames that were moved after a failed
    /// write, whose seal is lost: the later extent has them as they were acknowledged.
    pub(crate) fn add_row(&mut self, slot: GroupSlot, row: Row) {
        let rows = &mut self.table[slot.0 as usize].rows;
        let before = grown_bytes(rows.len());
        while let Some(last) = rows.back_mut().filter(|last| last.last_offset >= row.first_offset) {
            if last.first_offset < row.first_offset {
                last.last_offset = row.first_offset - 1;
                break;
            }
            self.repeated.push(*last);
            rows.pop_back();
        }
        rows.push_back(row);
        self.grown_bytes = self.grown_bytes + grown_bytes(rows.len()) - before;
    }

    /// Rows that were taken out because a later extent has all of each.
    pub(crate) fn take_repeated(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.repeated)
    }

    /// Extents up to this generation are going: what the group has in them is before its start. Whether it had anything.
    pub(crate) fn pass_rows(&mut self, slot: GroupSlot, generation: u64) -> bool {
        let group = &mut self.table[slot.0 as usize];
        let before = group.rows.len();
        while let Some(row) = group.rows.pop_front_if(|row| row.generation <= generation) {
            group.log_start = group.log_start.max(row.last_offset + 1);
        }
        let left = group.rows.len();
        self.shed_rows(slot, before);
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
        self.shed_rows(slot, before);
        row.is_some()
    }

    /// The group's log start is at `offset`, or further already; calls `gone` with every row that lies wholly
    /// below. Whether it moved.
    pub(crate) fn move_start(&mut self, slot: GroupSlot, offset: u64, mut gone: impl FnMut(Row)) -> bool {
        let group = &mut self.table[slot.0 as usize];
        if group.dropped || offset <= group.log_start {
            return false;
        }
        group.log_start = offset;
        let before = group.rows.len();
        while let Some(row) = group.rows.pop_front_if(|row| row.last_offset < offset) {
            gone(row);
        }
        self.shed_rows(slot, before);
        true
    }

    /// Memory of rows that were taken from the front goes back where it is much.
    fn shed_rows(&mut self, slot: GroupSlot, before: usize) {
        let rows = &mut self.table[slot.0 as usize].rows;
        let left = rows.len();
        if rows.capacity() > (2 * left).max(ROWS_RESERVED) {
            rows.shrink_to(left.max(ROWS_RESERVED));
        }
        // A start counts the rows of checkpoints at its end.
        self.grown_bytes = self.grown_bytes.saturating_sub(grown_bytes(before) - grown_bytes(left));
    }

    /// The group is dropped: its rows, which nobody needs any more.
    pub(crate) fn take_rows(&mut self, slot: GroupSlot) -> VecDeque<Row> {
        let rows = std::mem::take(&mut self.table[slot.0 as usize].rows);
        self.grown_bytes -= grown_bytes(rows.len());
        rows
    }

    /// A checkpoint states all log starts as they are going to be.
    pub(crate) fn checkpointed(&mut self) {
        self.table.iter_mut().for_each(|group| group.moved = false);
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
