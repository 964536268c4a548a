//! What a shard answers. Hot answers are small values; the cold ones are boxed.

use std::ops::Range;
use std::sync::Arc;

use corelog_model::{Durability, LogId, ProducerId, Retention, Term, TopicId};

use crate::refusal::Refusal;
use crate::status::ShardStatus;

/// The answer to one request.
#[derive(Debug, PartialEq)]
pub enum Response {
    /// To `Open`.
    Opened {
        /// As asked.
        topic: TopicId,
        /// As asked.
        partition: u32,
        /// The oldest offset kept.
        log_start: u64,
        /// The offset after the last visible record.
        high_watermark: u64,
        /// The term this shard serves in.
        leader_epoch: Term,
        /// The topic's level. It may change at any time.
        durability: Durability,
    },
    /// To `Produce`: the batches have the topic's level of safety.
    Produced {
        /// Offset of the first record of the first batch.
        base_offset: u64,
        /// When the last taken batch was appended, in microseconds since 1970.
        append_timestamp_us: u64,
        /// The oldest offset kept.
        log_start: u64,
        /// How many batches of the request were taken; the rest left no trace.
        batches: u32,
    },
    /// To `Fetch`.
    Fetched {
        /// The oldest offset kept.
        log_start: u64,
        /// The offset after the last visible record.
        high_watermark: u64,
        /// The term this shard serves in; to be sent with the next `Fetch`.
        leader_epoch: Term,
        /// Whole padded batches: a range of `Actions::slices`. Empty when the wait ended without data.
        slices: Range<usize>,
    },
    /// To `Subscribe`, again and again.
    Pushed {
        /// The oldest offset kept.
        log_start: u64,
        /// The offset after the last visible record.
        high_watermark: u64,
        /// The term this shard serves in; to be sent with the next `Subscribe`.
        leader_epoch: Term,
        /// The subscription has ended, because it was asked to.
        is_last: bool,
        /// Whole padded batches: a range of `Actions::slices`. The first may be empty, the last is.
        slices: Range<usize>,
    },
    /// To `Credit`.
    Credited,
    /// To `OffsetForTime`.
    OffsetFound {
        /// The offset; the high watermark when no record is that young.
        offset: u64,
        /// The largest timestamp of the batch that holds it, in microseconds since 1970, where known.
        timestamp_us: Option<u64>,
    },
    /// To `CommitPosition`: it is durable.
    PositionCommitted,
    /// To `DeletePosition`: there is none, durably.
    PositionDeleted,
    /// To `ReadPositions`.
    Positions(Box<PositionsView>),
    /// To `DeleteRecords`: durably.
    RecordsDeleted {
        /// The oldest offset kept: what was asked for, or further.
        log_start: u64,
    },
    /// To `Metadata`.
    Metadata(Box<MetadataView>),
    /// To `CreateTopic`.
    TopicCreated {
        /// The new topic's id, never used before.
        topic: TopicId,
    },
    /// To `AlterTopic`.
    TopicAltered {
        /// Its id.
        topic: TopicId,
        /// How many partitions it has now.
        partitions: u32,
        /// Its level now.
        durability: Durability,
    },
    /// To `DeleteTopic`.
    TopicDeleted,
    /// To `ProducerId`.
    ProducerId {
        /// Never given before.
        id: ProducerId,
        /// The epoch to start with.
        epoch: u16,
    },
    /// To `Status`.
    Status(Box<ShardStatus>),
    /// The request was not done, and why.
    Refused(Refusal),
}

/// Positions of a partition, and what they are to be held against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PositionsView {
    /// The oldest offset kept.
    pub log_start: u64,
    /// The offset after the last visible record.
    pub high_watermark: u64,
    /// By name, in order.
    pub positions: Vec<PositionView>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// How far whoever reads a partition under a name has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionView {
    /// The name.
    pub name: Arc<str>,
    /// The next offset to be read.
    pub offset: u64,
    /// The epoch of what was read before it, where that was said.
    pub leader_epoch: Option<Term>,
    /// When it was committed, in microseconds since 1970.
    pub commit_timestamp_us: u64,
    /// The client's note.
    pub metadata: Arc<str>,
}

/// Topics as the metadata group knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataView {
    /// Rises with every change, never falls.
    pub version: u64,
    /// Logs of the data directory.
    pub logs: u16,
    /// By name, in order.
    pub topics: Vec<TopicView>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// Its name.
    pub name: String,
    /// Its id.
    pub topic: TopicId,
    /// When its records are acknowledged and visible.
    pub durability: Durability,
    /// What takes its records away.
    pub retention: Retention,
    /// By number, from 0.
    pub partitions: Vec<PartitionView>,
    /// What is known to be damaged, by partition and offset.
    pub damage: Vec<DamageView>,
}

/// Offsets that were acknowledged and cannot be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DamageView {
    /// The partition.
    pub partition: u32,
    /// The first damaged offset.
    pub first: u64,
    /// The last damaged offset.
    pub last: u64,
}

/// One partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// The log that keeps it; the server knows which core serves that log and on which address.
    pub log: LogId,
    /// The term its shard serves in.
    pub leader_epoch: Term,
}
