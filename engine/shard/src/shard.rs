//! The shard: its parts, and which of them an event or a request goes to. Decides nothing itself.

use std::collections::BTreeMap;

use corelog_model::{GroupId, Now, Retention, Slice, TopicId};
use corelog_storage::{Finished, GroupSlot, Log, LogConfig};

use crate::alter::Wish;
use crate::authorise::{Access, Operation, Principal, Resource, authorise};
use crate::change::Changes;
use crate::checkpoint::CheckpointBuffers;
use crate::directory::Directory;
use crate::event::{Actions, ConnId, Event, Reply, Taken};
use crate::expiry::Expiry;
use crate::holding::Holdings;
use crate::metadata::Metadata;
use crate::partition::{PartitionId, Partitions};
use crate::peers::Peers;
use crate::pending::{Frontier, PendingQueue};
use crate::position::Positions;
use crate::producer_state::{ProducerLimits, Producers};
use crate::refusal::Refusal;
use crate::request::Request;
use crate::response::Response;
use crate::room::Patience;
use crate::session::Sessions;
use crate::status::Counters;
use crate::subscription::Subscribe;
use crate::trim::Trims;
use crate::wait::{Fetch, Waits, Wanted};

/// What a shard is given at its start.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// The log and its store.
    pub log: LogConfig,
    /// Logs of the data directory.
    pub logs: u16,
    /// What peers that proved nothing may do.
    pub anonymous: Access,
    /// Bounds of everything that is kept.
    pub limits: Limits,
}

/// Bounds of a shard. At each bound a request is refused with `TooMany`, unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections; the server keeps this one by not accepting more.
    pub connections: u32,
    /// Handles of all connections together, counted by the highest one opened on each.
    pub handles: u32,
    /// Fetches that wait.
    pub waits: u32,
    /// Subscriptions, each some 300 bytes with what its connection keeps for it.
    pub subscriptions: u32,
    /// Produce requests that wait for their frame; at the bound produce is `Blocked`.
    pub pending: u32,
    /// Topics.
    pub topics: u32,
    /// Partitions of all topics.
    pub partitions: u32,
    /// Topic changes in progress, and producer ids asked for.
    pub changes: u32,
    /// Named positions, of all partitions: a position takes up to 640 bytes.
    pub positions: u32,
    /// Producer state.
    pub producers: ProducerLimits,
    /// No fetch waits longer than this, in microseconds.
    pub max_wait_us: u64,
    /// So often it is looked for records that no topic keeps any more, in microseconds.
    pub retention_check_us: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            handles: 1 << 20,
            waits: 16_384,
            subscriptions: 131_072,
            pending: 16_384,
            topics: 100_000,
            partitions: 100_000,
            changes: 256,
            positions: 100_000,
            producers: ProducerLimits {
                pairs: 100_000,
                expiry_us: 24 * 3600 * 1_000_000,
                keep_us: 15 * 60 * 1_000_000,
            },
            max_wait_us: 60 * 1_000_000,
            retention_check_us: 30 * 1_000_000,
        }
    }
}

/// Who asked, and which of its requests it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) conn: ConnId,
    pub(crate) correlation: u64,
}

impl Asker {
    pub(crate) fn answer(self, response: Response, out: &mut Actions) {
        out.replies.push(Reply { conn: self.conn, correlation: self.correlation, response });
    }
}

/// One shard over one log. Made by [`Starting`](crate::Starting).
pub struct Shard {
    pub(crate) config: ShardConfig,
    pub(crate) log: Log,
    pub(crate) partitions: Partitions,
    pub(crate) groups: BTreeMap<GroupId, PartitionId>,
    pub(crate) by_log_slot: BTreeMap<GroupSlot, PartitionId>,
    pub(crate) sessions: Sessions,
    pub(crate) waits: Waits,
    pub(crate) pending: PendingQueue,
    pub(crate) producers: Producers,
    pub(crate) positions: Positions,
    pub(crate) trims: Trims,
    pub(crate) expiry: Expiry,
    /// What this log's metadata group says, and what clients may see of all logs.
    pub(crate) metadata: Metadata,
    pub(crate) directory: Directory,
    pub(crate) peers: Peers,
    pub(crate) holdings: Holdings,
    /// The metadata's next index when the last checkpoint was written; 0 before the first.
    pub(crate) metadata_checkpointed: u64,
    pub(crate) changes: Changes,
    pub(crate) counters: Counters,
    /// How long produce, and changes under way, have waited for an extent.
    pub(crate) batch_patience: Patience,
    pub(crate) change_patience: Patience,
    /// Partitions with waiting fetches that showed more data this turn.
    pub(crate) shown: Vec<PartitionId>,
    pub(crate) checkpoint: CheckpointBuffers,
    /// Reused: log starts that recycling moved, reads that are over, bytes of control entries.
    pub(crate) moved: Vec<(GroupSlot, u64)>,
    pub(crate) finished: Vec<Finished>,
    pub(crate) scratch: Vec<u8>,
}

/// What a request is about, once its names are resolved.
#[derive(Clone, Copy, Debug)]
enum Target {
    Broker,
    Partition(PartitionId),
}

impl Shard {
    /// Takes in one event. What it makes due is answered by [`Self::turn`].
    pub fn on(&mut self, now: Now, event: Event) {
        match event {
            Event::Connected { conn, principal } => {
                if let Some(before) = self.sessions.occupant(conn.slot) {
                    self.drop_waits(before);
                }
                self.sessions.connect(conn, principal);
            }
            Event::Disconnected { conn } => {
                self.sessions.disconnect(conn);
                self.drop_waits(conn);
            }
            Event::Disk(completion) => self.log.on(completion, now),
            Event::Released { block } => self.log.unpin(block),
            Event::Memory(window) => self.log.grow(window),
            Event::Settings(settings) => self.log.set(settings),
            Event::Mail { from, mail } => self.on_mail(from, mail),
        }
    }

    /// Takes in one request of a connection.
    pub fn request(
        &mut self,
        now: Now,
        conn: ConnId,
        correlation: u64,
        request: &Request<'_>,
        out: &mut Actions,
    ) -> Taken {
        let asker = Asker { conn, correlation };
        let target = match self.admit(conn, request) {
            Ok(target) => target,
            Err(refusal) => return self.turn_away(now, asker, request, refusal, out),
        };
        match (*request, target) {
            (Request::Open { handle, .. }, Target::Partition(id)) => {
                self.end_subscription(now, conn, handle, out);
                self.open(asker, handle, id, out)
            }
            (Request::Produce { expected_offset, batches, .. }, Target::Partition(id)) => {
                self.produce(now, asker, id, expected_offset, batches, out)
            }
            (
                Request::Fetch { offset, leader_epoch, max_bytes, min_bytes, max_wait_us, .. },
                Target::Partition(id),
            ) => {
                let wait_us = max_wait_us.min(self.config.limits.max_wait_us);
                let deadline_us = now.mono_us.saturating_add(wait_us);
                let (partition, wanted) = (id, Wanted::Batches);
                let fetch = Fetch {
                    conn,
                    correlation,
                    partition,
                    wanted,
                    offset,
                    leader_epoch,
                    max_bytes,
                    min_bytes,
                    deadline_us,
                    stream: None,
                };
                self.fetch(now, fetch, out)
            }
            (
                Request::Subscribe { handle, offset, leader_epoch, max_bytes, credit },
                Target::Partition(partition),
            ) => {
                let wanted = Subscribe { handle, partition, offset, leader_epoch, max_bytes, credit };
                self.subscribe(now, asker, wanted, out)
            }
            (Request::Credit { handle, bytes, ends }, Target::Partition(_)) => {
                self.credit(now, asker, handle, bytes, ends, out)
            }
            (Request::OffsetForTime { at, .. }, Target::Partition(id)) => {
                self.offset_for(now, asker, id, at, out)
            }
            (
                Request::CommitPosition { .. }
                | Request::DeletePosition { .. }
                | Request::ReadPositions { .. },
                Target::Partition(id),
            ) => self.on_position(now, asker, id, request, out),
            (Request::DeleteRecords { before_offset, .. }, Target::Partition(id)) => {
                self.delete_records(now, asker, id, before_offset, out)
            }
            (Request::Metadata { topic }, _) => self.describe(asker, topic, out),
            (Request::CreateTopic { name, partitions, durability, retention }, _) => {
                let retention = Retention::default().changed(retention);
                self.create_topic(now, asker, name, partitions, (durability, retention), out)
            }
            (Request::AlterTopic { name, partitions, durability, retention }, _) => {
                self.alter_topic(now, asker, name, Wish { partitions, durability, retention }, out)
            }
            (Request::DeleteTopic { name }, _) => self.delete_topic(now, asker, name, out),
            (Request::ProducerId, _) => self.producer_id(now, asker, out),
            (Request::Status, _) => self.report(asker, out),
            (_, Target::Broker) => unreachable!("admit resolves every handle"),
        }
    }

    /// Refuses a request that is not admitted. A handle names nothing after an Open that is refused.
    fn turn_away(
        &mut self,
        now: Now,
        asker: Asker,
        request: &Request<'_>,
        refusal: Refusal,
        out: &mut Actions,
    ) -> Taken {
        if let Request::Open { handle, .. } = *request {
            self.end_subscription(now, asker.conn, handle, out);
            self.sessions.forget(asker.conn, handle);
        }
        self.refuse(asker, refusal, out)
    }

    /// The one place where a request meets its principal's rights: on the resource it names, resolved.
    fn admit(&self, conn: ConnId, request: &Request<'_>) -> Result<Target, Refusal> {
        let principal: Principal = self.sessions.principal(conn)?;
        let (operation, resource, target) = self.resolve(conn, request)?;
        authorise(self.config.anonymous, principal, operation, resource)?;
        Ok(target)
    }

    fn resolve(&self, conn: ConnId, request: &Request<'_>) -> Result<(Operation, Resource, Target), Refusal> {
        let (operation, handle) = match *request {
            Request::Open { topic, partition, .. } => {
                let id = self.find(topic, partition)?;
                return Ok((Operation::Describe, Resource::Topic(topic), Target::Partition(id)));
            }
            Request::Produce { handle, .. } => (Operation::Produce, handle),
            Request::Fetch { handle, .. }
            | Request::OffsetForTime { handle, .. }
            | Request::Subscribe { handle, .. }
            | Request::Credit { handle, .. }
            | Request::CommitPosition { handle, .. }
            | Request::DeletePosition { handle, .. }
            | Request::ReadPositions { handle, .. } => (Operation::Consume, handle),
            Request::DeleteRecords { handle, .. } => (Operation::Alter, handle),
            Request::CreateTopic { .. }
            | Request::AlterTopic { .. }
            | Request::DeleteTopic { .. }
            | Request::ProducerId
                if !self.is_first() =>
            {
                return Err(Refusal::NotHere);
            }
            Request::Metadata { .. } | Request::ProducerId | Request::Status => {
                return Ok((Operation::Describe, Resource::Broker, Target::Broker));
            }
            Request::CreateTopic { .. } => return Ok((Operation::Alter, Resource::Broker, Target::Broker)),
            Request::AlterTopic { name, .. } | Request::DeleteTopic { name } => {
                let topic =
                    self.metadata.topic_by_name(name).map(|(id, _)| id).ok_or(Refusal::UnknownTopic)?;
                return Ok((Operation::Alter, Resource::Topic(topic), Target::Broker));
            }
        };
        let id = self.sessions.partition(conn, handle)?;
        let topic = self.partitions.get(id).ok_or(Refusal::UnknownTopicId)?.topic;
        Ok((operation, Resource::Topic(topic), Target::Partition(id)))
    }

    /// The partition of a topic that clients may use.
    fn find(&self, id: TopicId, partition: u32) -> Result<PartitionId, Refusal> {
        let Some(spec) = self.directory.topic(id) else {
            let changes = self.metadata.topics.contains_key(&id);
            return Err(if changes { Refusal::NotReady } else { Refusal::UnknownTopicId });
        };
        let Some(&log) = spec.placement.get(partition as usize) else {
            // Others may have heard already that it has more.
            let coming = self.metadata.topics.get(&id).map_or(0, |topic| topic.coming().1.end);
            return Err(if partition < coming { Refusal::NotReady } else { Refusal::UnknownPartition });
        };
        if log != self.config.log.log {
            return Err(Refusal::NotHere);
        }
        self.groups.get(&spec.group(partition)).copied().ok_or(Refusal::NotReady)
    }

    /// The end of a reactor's turn: what became due is answered, what may start is started, and a frame is cut last,
    /// so that it takes all that this turn appended.
    pub fn turn(&mut self, now: Now, out: &mut Actions) {
        let recycled = self.follow_log(out);
        self.step_changes(now, out);
        self.step_holdings(now, out);
        self.step_expiry(now);
        self.resume_reads(now, out);
        self.wake_shown(now, out);
        self.expire_waits(now, out);
        self.producers.expire(now);
        self.write_checkpoint();
        self.log.cut(now, &mut out.disk);
        if self.log.is_read_only() {
            // It may be so only since this cut, after which nothing may happen for long.
            _ = self.follow_log(out);
        }
        self.batch_patience.pass(now);
        self.change_patience.pass(now);
        self.log.wanted(self.waits.are_queued(), &mut out.evict);
        self.write_letters(recycled, out);
    }

    /// What the log finished: frames that reached a level, records that were recycled, the loss of its disk.
    /// Tells whether records were recycled.
    fn follow_log(&mut self, out: &mut Actions) -> bool {
        while let Some((level, pending)) = self.pending.pop_due(self.frontier()) {
            self.on_level(level, pending, out);
        }
        self.follow_positions(out);
        let waiting = self.pending.len() > 0 || !self.changes.is_idle();
        if waiting && self.log.is_read_only() {
            while let Some((level, pending)) = self.pending.pop_any() {
                if let Some(partition) = self.partitions.get_mut(pending.partition) {
                    partition.owed.answered(level);
                }
                let asker = Asker { conn: pending.conn, correlation: pending.correlation };
                _ = self.refuse(asker, Refusal::ReadOnly, out);
            }
            self.stop_changes(out);
        }
        let mut moved = std::mem::take(&mut self.moved);
        self.log.moved_starts(&mut moved);
        let recycled = !moved.is_empty();
        for (slot, log_start) in moved.drain(..) {
            if let Some(id) = self.by_log_slot.get(&slot) {
                self.partitions.get_mut(*id).expect("a slot names a partition").recycled(log_start);
            }
        }
        self.moved = moved;
        self.follow_trims(out);
        recycled
    }

    pub(crate) fn frontier(&self) -> Frontier {
        Frontier { durable: self.log.durable_frame(), written: self.log.written_frame() }
    }

    /// Whether what a [feature](corelog_storage::feature) stands for may be written to this log.
    pub(crate) fn may_write(&self, feature: u64) -> Result<(), Refusal> {
        let is_coming = self.config.log.features & feature == feature;
        match self.log.has(feature) {
            true => Ok(()),
            // The first start that is to have it is writing it to the superblock.
            false if is_coming => Err(Refusal::NotReady),
            false => Err(Refusal::NotFinal),
        }
    }

    pub(crate) fn refuse(&mut self, asker: Asker, refusal: Refusal, out: &mut Actions) -> Taken {
        self.counters.refused += 1;
        asker.answer(Response::Refused(refusal), out);
        Taken::Done
    }

    /// When [`Self::turn`] is to be called although nothing happened, in monotonic microseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        let deadlines = [
            self.log.next_deadline(),
            self.log.next_wanted_us(self.waits.are_queued()),
            self.waits.deadline_us(),
            self.batch_patience.ends_us(),
            self.change_patience.ends_us(),
            self.expiry.due_us(),
            self.log.has_finished().then_some(0),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The term it serves in.
    pub fn term(&self) -> corelog_model::Term {
        self.log.term()
    }

    /// The bytes of a pinned slice.
    pub fn bytes(&self, slice: Slice) -> &[u8] {
        self.log.bytes(slice)
    }
}
