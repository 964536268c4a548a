//! From a directory's listing to a running shard: one path, after a clean stop and after a crash alike.
//!
//! The log replays its last checkpoint and the entries after it; the state they describe is the shard's. Everything
//! that survived is durable by now, whatever its level was, so every partition is visible to its end. What did not
//! survive is told by epochs: the new term starts where the partition ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use corelog_model::batch::BatchHeader;
use corelog_model::{GroupId, LogId, Now, Slice, TopicId};
use corelog_storage::{
    DiskCompletion, EntryHeader, EntryKind, Listing, Log, Memory, OpenError, Opening, Replayed,
};

use crate::change::Changes;
use crate::checkpoint::{CheckpointBuffers, State};
use crate::directory::Directory;
use crate::event::Actions;
use crate::expiry::Expiry;
use crate::holding::Holdings;
use crate::metadata::{Command, Metadata};
use crate::partition::{Cursors, Partition, Partitions};
use crate::peers::Peers;
use crate::pending::PendingQueue;
use crate::position::{Change, Positions};
use crate::produce::identity_of;
use crate::producer_state::{Producers, Remembered};
use crate::room::Patience;
use crate::session::Sessions;
use crate::shard::{Shard, ShardConfig};
use crate::status::Counters;
use crate::trim::Trims;
use crate::wait::Waits;

/// Why a shard does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The log does not open.
    Log(OpenError),
    /// A checkpoint verifies and yet does not decode: it was written by another version, or by no version.
    Checkpoint,
    /// An entry of the metadata group contradicts the ones before it, or does not decode.
    Metadata {
        /// Its index.
        index: u64,
    },
    /// An entry of the positions group does not decode.
    Position {
        /// Its index.
        index: u64,
    },
    /// A batch that verifies lies at offsets that its partition has already.
    Offsets {
        /// The partition's group.
        group: GroupId,
        /// Offset of the batch.
        base_offset: u64,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => error.fmt(f),
            Self::Checkpoint => f.write_str("the shard's checkpoint does not decode"),
            Self::Metadata { index } => {
                write!(f, "entry {index} of the metadata contradicts the ones before it")
            }
            Self::Position { index } => write!(f, "entry {index} of the positions does not decode"),
            Self::Offsets { group, base_offset } => {
                write!(f, "a batch of group {group} at offset {base_offset} lies where others are")
            }
        }
    }
}

impl std::error::Error for StartError {}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        Self::Log(error)
    }
}

/// A shard on its way: waits for the disk to say what there was.
pub struct Starting {
    config: ShardConfig,
    opening: Opening,
    replay: Replay,
}

impl Starting {
    /// Prepares the start of a shard over the directory with this listing.
    pub fn new(config: ShardConfig, memory: Memory, listing: Listing, now: Now) -> Self {
        let state = State {
            metadata: Metadata::new(config.log.store),
            groups: BTreeMap::new(),
            producers: Producers::new(config.limits.producers),
            positions: Positions::new(config.limits.positions),
        };
        let replay = Replay { state, log: config.log.log, error: None };
        Self { opening: Opening::new(config.log.clone(), memory, listing, now), config, replay }
    }

    /// The first disk operations.
    pub fn start(&mut self, out: &mut Actions) -> Result<(), StartError> {
        Ok(self.opening.start(&mut out.disk)?)
    }

    /// Takes in one completion; the shard, once the first frame of its term is durable.
    pub fn on(
        &mut self,
        completion: DiskCompletion,
        now: Now,
        out: &mut Actions,
    ) -> Result<Option<Shard>, StartError> {
        let replay = &mut self.replay;
        let log = self.opening.on(completion, now, &mut |replayed| replay.take(replayed), &mut out.disk)?;
        if let Some(error) = self.replay.error {
            return Err(error);
        }
        Ok(log.map(|log| self.shard(log, now)))
    }

    /// The bytes of a frame that the start writes.
    pub fn bytes(&self, slice: Slice) -> &[u8] {
        self.opening.bytes(slice)
    }

    fn shard(&mut self, mut log: Log, now: Now) -> Shard {
        let config = self.config.clone();
        let limits = config.limits;
        let empty = State {
            metadata: Metadata::new(config.log.store),
            groups: BTreeMap::new(),
            producers: Producers::new(limits.producers),
            positions: Positions::new(limits.positions),
        };
        let mut state = std::mem::replace(&mut self.replay.state, empty);
        state.drop_closed(config.log.log);
        state.producers.trim();
        state.producers.started(now);
        let State { metadata, groups: recovered, producers, mut positions } = state;
        // Where the newest entries are damaged their indexes are not given again.
        let last_index = log.group(GroupId::POSITIONS).map_or(0, |slot| log.last_index(slot));
        positions.next_index = positions.next_index.max(last_index + 1);
        let mut partitions = Partitions::default();
        let mut groups = BTreeMap::new();
        let mut by_log_slot = BTreeMap::new();
        let mut expiry = Expiry::new(limits.retention_check_us, now);
        for (group, mut partition) in recovered {
            // The level may have been altered behind the checkpoint that has the partition.
            partition.durability = metadata.topics[&partition.topic].spec.durability;
            if config.log.log == LogId(0) {
                // The others hear of it: what they have of their own may be of an earlier time.
                let topic = &metadata.topics[&partition.topic];
                expiry.set(&mut partition, topic.spec.retention);
            }
            open(&mut log, group, &mut partition);
            let log_slot = partition.slot;
            let id = partitions.insert(partition);
            groups.insert(group, id);
            by_log_slot.insert(log_slot, id);
        }
        // A topic that was deleted behind the last checkpoint is in that checkpoint still.
        log.drop_unopened();
        let (own, logs) = (config.log.log, config.logs);
        let is_first = own == LogId(0);
        let directory = if is_first { Directory::of_first(logs, &metadata) } else { Directory::new(logs) };
        let shard = Shard {
            directory,
            peers: Peers::new(own, logs),
            holdings: Holdings::default(),
            changes: Changes::new(&metadata, limits.changes),
            sessions: Sessions::new(limits.connections, limits.handles),
            waits: Waits::new(limits.connections, limits.waits, limits.subscriptions),
            pending: PendingQueue::new(limits.pending),
            config,
            log,
            partitions,
            groups,
            by_log_slot,
            producers,
            positions,
            trims: Trims::default(),
            expiry,
            metadata,
            metadata_checkpointed: 0,
            counters: Counters::default(),
            batch_patience: Patience::default(),
            change_patience: Patience::default(),
            checkpoint: CheckpointBuffers::new(),
            shown: Vec::with_capacity(limits.pending as usize),
            moved: Vec::new(),
            finished: Vec::with_capacity(limits.waits as usize),
            scratch: Vec::new(),
        };
        shard.check();
        shard
    }
}

/// The state so far. An error stops it: nothing after it is believed.
#[derive(Debug)]
struct Replay {
    state: State,
    log: LogId,
    error: Option<StartError>,
}

impl Replay {
    fn take(&mut self, replayed: Replayed<'_>) {
        if self.error.is_some() {
            return;
        }
        let result = match replayed {
            Replayed::Checkpoint { bytes, .. } => {
                self.state.decode(bytes).map_err(|_| StartError::Checkpoint)
            }
            Replayed::Entry { header, payload, .. } => match header.kind {
                EntryKind::Metadata => self.metadata(header.index, payload),
                EntryKind::Batch => self.batch(&header, payload),
                EntryKind::Position => self.position(header.index, payload),
                EntryKind::Trim => {
                    self.trim(&header);
                    Ok(())
                }
                _ => Ok(()),
            },
            Replayed::Damaged { .. } | Replayed::PossiblyLost { .. } | Replayed::TailCut { .. } => Ok(()),
        };
        self.error = result.err();
    }

    fn metadata(&mut self, index: u64, payload: &[u8]) -> Result<(), StartError> {
        let error = StartError::Metadata { index };
        let state = &mut self.state;
        if index < state.metadata.next_index {
            return Ok(());
        }
        let command = Command::decode(payload).filter(|_| index == state.metadata.next_index).ok_or(error)?;
        let about = command.opens_or_closes(self.log);
        let before = about.map_or_else(Vec::new, |topic| self.open_groups(topic));
        self.state.metadata.apply(self.log, &command).map_err(|_| error)?;
        let Some(topic) = about else { return Ok(()) };
        let after = self.open_groups(topic);
        let durability = self.state.metadata.topics.get(&topic).map(|topic| topic.spec.durability);
        for &(number, group) in after.iter().filter(|open| before.binary_search(open).is_err()) {
            let durability = durability.expect("a topic with open groups is there");
            let partition = Partition::new(group, topic, number, durability);
            self.state.groups.entry(group).or_insert(partition);
        }
        let closed: BTreeSet<GroupId> =
            before.iter().filter(|open| after.binary_search(open).is_err()).map(|open| open.1).collect();
        if !closed.is_empty() {
            self.state.groups.retain(|group, _| !closed.contains(group));
            self.state.producers.drop_groups(|group| closed.contains(&group));
            closed.iter().for_each(|group| self.state.positions.drop_group(*group));
        }
        Ok(())
    }

    /// Each entry says all that there is to say of its position, so one that is missing was damaged and is named as that.
    fn position(&mut self, index: u64, payload: &[u8]) -> Result<(), StartError> {
        let state = &mut self.state;
        if index < state.positions.next_index {
            return Ok(());
        }
        let change = Change::decode(payload).ok_or(StartError::Position { index })?;
        state.positions.next_index = index + 1;
        if state.groups.contains_key(&change.group) {
            state.positions.apply(change, 0);
        }
        Ok(())
    }

    /// Where the log start is the log knows; here it only takes an index.
    fn trim(&mut self, entry: &EntryHeader) {
        if let Some(partition) = self.state.groups.get_mut(&entry.group) {
            partition.next_index = partition.next_index.max(entry.index + 1);
        }
    }

    /// What of a topic is open in this log, in order.
    fn open_groups(&self, topic: TopicId) -> Vec<(u32, GroupId)> {
        let topic = self.state.metadata.topics.get(&topic);
        topic.map_or_else(Vec::new, |topic| topic.open_in(self.log).collect())
    }

    /// Batches of groups that are closed by now, and entries that the checkpoint includes, are passed over.
    fn batch(&mut self, entry: &EntryHeader, payload: &[u8]) -> Result<(), StartError> {
        let Some(partition) = self.state.groups.get_mut(&entry.group) else { return Ok(()) };
        let Ok(header) = BatchHeader::parse(payload) else { return Ok(()) };
        if let Some(identity) = identity_of(&header) {
            let at = Remembered {
                first: identity.first,
                last: identity.last,
                base_offset: header.base_offset,
                append_us: header.append_timestamp_us,
                frame: 0,
            };
            self.state.producers.appended(entry.group, entry.index, identity, at, at.append_us);
        }
        if entry.index < partition.next_index {
            return Ok(());
        }
        let cursors = partition.cursors();
        if header.base_offset < cursors.log_end {
            return Err(StartError::Offsets { group: entry.group, base_offset: header.base_offset });
        }
        // Damage before it may have left a gap, in offsets and in indexes.
        partition.set_cursors(Cursors { log_end: header.base_offset, ..cursors });
        partition.next_index = entry.index;
        partition.appended(header.leader_epoch, header.next_offset(), header.append_timestamp_us);
        Ok(())
    }
}

/// Gives a partition its place in the log. Where its newest entries are damaged the log still knows that they were there:
/// their offsets and indexes are not given again.
fn open(log: &mut Log, group: GroupId, partition: &mut Partition) {
    let slot = log.open_group(group, partition.topic, partition.partition);
    let cursors = partition.cursors();
    log.reaches(slot, cursors.log_end);
    let log_end = log.log_end(slot);
    partition.slot = slot;
    partition.set_cursors(Cursors { high_watermark: log_end, log_end, ..cursors });
    partition.next_index = partition.next_index.max(log.last_index(slot) + 1);
    partition.recycled(log.log_start(slot));
}
