//! Why a shard refuses a request: the peer's mistakes and the world's limits, as values.
//!
//! net/wire maps each to a wire code in one function. Nothing was appended when a refusal is answered, with one
//! exception: [`Refusal::ReadOnly`] and [`Refusal::UnknownTopicId`] to a produce, or to a change of a position, that was
//! already in a frame leave its outcome open.

use corelog_model::Term;

/// The reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The connection never said Hello, or is gone.
    UnknownConnection,
    /// No topic of this name.
    UnknownTopic,
    /// No topic of this id; it may have been deleted or created again under another id.
    UnknownTopicId,
    /// The topic has fewer partitions.
    UnknownPartition,
    /// The partition lives in a log of another shard.
    NotHere,
    /// This connection opened no such handle, or the number is outside 1 to 65,535.
    UnknownHandle,
    /// The topic is being created, altered or deleted: ask again.
    NotReady,
    /// The name is taken.
    TopicExists,
    /// Not 1 to 249 of `[a-zA-Z0-9._-]`, or `.` or `..`.
    InvalidTopicName,
    /// Zero, or more than the limit.
    InvalidPartitions {
        /// As asked.
        partitions: u32,
        /// The limit; 0 where it is what the log's largest batch can list, which depends on the name.
        max: u32,
    },
    /// Not 1 to 255 bytes of text without control characters.
    InvalidPositionName,
    /// Partitions are added to a topic, never taken away.
    FewerPartitions {
        /// As asked.
        partitions: u32,
        /// As many as there are.
        now: u32,
    },
    /// A batch does not verify.
    Corrupt(Part),
    /// A batch is larger than the log takes.
    BatchTooLarge {
        /// Its length in bytes.
        bytes: u64,
        /// The limit in bytes.
        max: u32,
    },
    /// A sequence is not the next one of its producer: an earlier batch is missing or was refused.
    OutOfOrderSequence {
        /// The sequence that is to come next.
        expected: u32,
        /// The batch's first sequence.
        actual: u32,
    },
    /// The producer's state expired, or never was, and the batch is not its first.
    UnknownProducerId,
    /// The producer id is in use with a higher epoch.
    FencedProducerEpoch {
        /// The epoch in use.
        current: u16,
    },
    /// A conditional append found the log at another end.
    OffsetMismatch {
        /// What the request expected.
        expected: u64,
        /// Where the log ends.
        actual: u64,
    },
    /// The offset is not kept, or not visible yet.
    OffsetOutOfRange {
        /// The one asked for.
        offset: u64,
        /// The oldest offset kept.
        log_start: u64,
        /// The offset after the last visible record.
        high_watermark: u64,
    },
    /// The log fell back since the epoch the reader names: what it read from `offset` on is not what is there now.
    LogTruncated {
        /// The first offset that differs.
        offset: u64,
    },
    /// The reader's epoch is higher than any the log has had.
    UnknownEpoch {
        /// The current one.
        current: Term,
    },
    /// The disk, the byte cap, or the memory for the log's index is full: retry later, reads go on.
    StorageFull,
    /// The log takes no more writes since a disk failed.
    ReadOnly,
    /// An older version made the store and could not read what this would write; the operator has not said that it is final.
    NotFinal,
    /// These offsets were acknowledged and then damaged on disk.
    Damaged {
        /// First damaged offset.
        first: u64,
        /// Last damaged offset.
        last: u64,
    },
    /// The disk failed to answer this read.
    ReadFailed,
    /// The principal may not do this.
    NotAuthorised,
    /// A bound of the shard is reached.
    TooMany {
        /// What there is too much of.
        what: Bounded,
        /// The bound.
        max: u32,
    },
    /// A field has a value that no request can have.
    InvalidRequest,
}

/// The part of a batch that does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its fields are impossible, or it is cut short.
    Layout,
    /// The header's CRC, which is seeded with topic and partition.
    Header,
    /// The body's CRC.
    Body,
}

/// What a shard keeps a bounded number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounded {
    /// Handles of one connection or of all.
    Handles,
    /// Fetches that wait for data.
    Waits,
    /// Fetches that wait for the disk.
    Reads,
    /// Subscriptions.
    Subscriptions,
    /// (producer, partition) pairs.
    Producers,
    /// Topics.
    Topics,
    /// Partitions of all topics.
    Partitions,
    /// Topic changes and producer-id requests in progress.
    Changes,
    /// Named positions.
    Positions,
}
