//! What was sent to a log and what was promised of it, and what its owner knows after a start.
//!
//! An offset may be given twice when its first batch was never acknowledged, so the ledger keeps everything that was ever
//! sent under it; what was promised is one of these.

use std::collections::{BTreeMap, BTreeSet};

use corelog_model::GroupId;
use corelog_model::batch::BatchHeader;
use corelog_model::crc::crc32c;
use corelog_storage::{CheckpointKind, EntryKind, Replayed};

use super::engine::Told;

/// What a batch is known by wherever it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    body_crc: u32,
    body_bytes: u32,
    records: u32,
}

impl Mark {
    /// Of a batch's header, once its body has been held against it.
    pub const fn of(header: &BatchHeader) -> Self {
        Self { body_crc: header.body_crc, body_bytes: header.body_bytes, records: header.record_count }
    }
}

/// A promise that no loss of power takes back.
#[derive(Clone, Copy, Debug)]
pub enum Ack {
    /// The records from this offset on.
    Batch {
        /// Of this group.
        group: GroupId,
        /// The first one's offset.
        base: u64,
        /// What they are.
        mark: Mark,
    },
    /// An entry of the log's owner.
    Control {
        /// Of this group.
        group: GroupId,
        /// Its index.
        index: u64,
        /// The sum of its payload.
        sum: u32,
    },
    /// The group is gone.
    Dropped(GroupId),
}

/// All that is promised at some moment.
#[derive(Clone, Debug, Default)]
pub struct Promise {
    /// So many of the ledger's acknowledgements.
    pub acks: usize,
    /// Where groups begin by now, where that is not 0.
    pub starts: BTreeMap<GroupId, u64>,
    /// Groups that may be gone, or are.
    pub dropping: BTreeSet<GroupId>,
    /// The term.
    pub term: u32,
}

/// The book.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By group and first offset.
    pub sent: BTreeMap<(GroupId, u64), Vec<Mark>>,
    /// By group and index.
    pub controls: BTreeMap<(GroupId, u64), Vec<u32>>,
    /// In the order in which they were given.
    pub acks: Vec<Ack>,
    /// The promises of each moment that a recording marks.
    pub promises: Vec<Promise>,
}

/// A change that the owner of a log writes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// This group is there from now on.
    Opens(GroupId),
    /// This group is gone.
    Drops(GroupId),
    /// A position, or what else does not touch groups.
    Notes(u64),
}

impl Change {
    /// Its bytes.
    pub fn payload(self) -> Vec<u8> {
        let (kind, number) = match self {
            Self::Opens(group) => (1, group.0),
            Self::Drops(group) => (2, group.0),
            Self::Notes(number) => (3, number),
        };
        [[kind].as_slice(), &number.to_le_bytes()].concat()
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let number = u64::from_le_bytes(payload.get(1..9)?.try_into().ok()?);
        Some(match payload[0] {
            1 => Self::Opens(GroupId(number)),
            2 => Self::Drops(GroupId(number)),
            3 => Self::Notes(number),
            _ => return None,
        })
    }
}

/// Entries of a group of the owner that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The group.
    pub group: GroupId,
    /// The index before it.
    pub before: u64,
    /// The index behind it.
    pub index: u64,
}

/// What the owner of a log knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The newest entry of each group of its own: index, and sum of the payload.
    pub last: BTreeMap<GroupId, (u64, u32)>,
    /// Groups that are there.
    pub open: BTreeSet<GroupId>,
}

impl Owner {
    /// A change was written down. Gives back what should have come before it, when that was something else.
    pub fn take(&mut self, group: GroupId, index: u64, payload: &[u8]) -> Result<Option<Gap>, String> {
        let (before, _) = self.last.get(&group).copied().unwrap_or_default();
        let gap = (index != before + 1).then_some(Gap { group, before, index });
        match Change::read(payload) {
            Some(Change::Opens(opened)) => _ = self.open.insert(opened),
            Some(Change::Drops(dropped)) => _ = self.open.remove(&dropped),
            Some(Change::Notes(_)) => {}
            None => return Err(format!("entry {index} of group {group} has other bytes: {payload:?}")),
        }
        self.last.insert(group, (index, crc32c(0, payload)));
        Ok(gap)
    }

    /// For a checkpoint.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.last.len() as u8, self.open.len() as u8];
        for (group, (index, sum)) in &self.last {
            bytes.extend(group.0.to_le_bytes());
            bytes.extend(index.to_le_bytes());
            bytes.extend(sum.to_le_bytes());
        }
        self.open.iter().for_each(|group| bytes.extend(group.0.to_le_bytes()));
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (counts, mut rest) = bytes.split_at_checked(2)?;
        let mut owner = Self::default();
        for _ in 0..counts[0] {
            let (row, next) = rest.split_at_checked(20)?;
            let number = |at: usize| u64::from_le_bytes(row[at..at + 8].try_into().expect("8 bytes"));
            let sum = u32::from_le_bytes(row[16..20].try_into().expect("4 bytes"));
            owner.last.insert(GroupId(number(0)), (number(8), sum));
            rest = next;
        }
        for _ in 0..counts[1] {
            let (row, next) = rest.split_at_checked(8)?;
            owner.open.insert(GroupId(u64::from_le_bytes(row.try_into().expect("8 bytes"))));
            rest = next;
        }
        rest.is_empty().then_some(owner)
    }
}

impl Told {
    /// What a start says, one thing after the other.
    pub(super) fn take(&mut self, event: Replayed<'_>) -> Result<(), String> {
        match event {
            // Each checkpoint of these owners is one part and holds everything.
            Replayed::Checkpoint {
                kind: CheckpointKind::Full | CheckpointKind::Incremental, bytes, ..
            } => {
                self.owner = Owner::decode(bytes).ok_or("a checkpoint has other bytes than were sent")?;
            }
            Replayed::Entry { header, payload, .. } if header.kind != EntryKind::Batch => {
                self.gaps.extend(self.owner.take(header.group, header.index, payload)?);
            }
            Replayed::Entry { .. } | Replayed::TailCut { .. } => {}
            Replayed::Damaged { group, first, last } => self.damaged.push((group, first, last)),
            Replayed::PossiblyLost { group, first } => self.possibly_lost.push((group, first)),
        }
        Ok(())
    }
}

impl Ledger {
    /// The promises at a moment, the latest of the marks before it.
    pub fn promise(&self, mark: Option<u64>) -> Promise {
        mark.map(|mark| self.promises[mark as usize].clone()).unwrap_or_default()
    }
}
