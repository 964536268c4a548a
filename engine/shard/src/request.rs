//! What a connection can ask of a shard. The bytes are borrowed from the connection's buffer: nothing is copied
//! until a batch enters its frame.

use corelog_model::{Durability, RetentionChange, Term, TopicId};

/// A decoded request. Wire codecs of both protocols produce it.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// Names a partition for this connection. Opening a handle again replaces what it named.
    Open {
        /// Chosen by the client, 1 to 65,535.
        handle: u32,
        /// The topic's id, from the metadata.
        topic: TopicId,
        /// Its partition, from 0.
        partition: u32,
    },
    /// Appends batches to the handle's partition.
    ///
    /// Batches are taken in order up to the first that is refused. Nothing appended: the answer is that refusal.
    /// Otherwise the answer is `Produced` and its `batches` says how many were taken; the refused one and all
    /// after it left no trace and are to be sent again, alone, to learn why.
    Produce {
        /// The partition.
        handle: u32,
        /// Append only if the log ends here: the conditional append of event sourcing.
        expected_offset: Option<u64>,
        /// Sealed batches, each padded to 16 bytes, back to back, the first 16-aligned in memory.
        batches: &'a [u8],
    },
    /// Reads batches from the handle's partition below its high watermark.
    Fetch {
        /// The partition.
        handle: u32,
        /// The first offset wanted; the first batch answered contains it.
        offset: u64,
        /// The epoch of the last batch read before `offset`, or the `leader_epoch` of the last answer. If the
        /// log fell back since then, the answer is `LogTruncated` with the offset from which data differ.
        leader_epoch: Option<Term>,
        /// Upper bound of the answer in bytes; one batch is answered even if it is larger.
        max_bytes: u32,
        /// Wait until this many bytes are visible, or until the time is over.
        min_bytes: u32,
        /// How long to wait for `min_bytes`, in microseconds; 0 answers at once.
        max_wait_us: u64,
    },
    /// Has batches from the handle's partition pushed as they become visible, in place of the subscription that the handle
    /// has. Answered by any number of `Pushed`, the first of them at once and the last with `is_last`, or by a refusal
    /// in place of the last.
    Subscribe {
        /// The partition.
        handle: u32,
        /// The first offset wanted; the first batch pushed contains it.
        offset: u64,
        /// As with `Fetch`.
        leader_epoch: Option<Term>,
        /// Upper bound of one push in bytes; one batch is pushed even if it is larger.
        max_bytes: u32,
        /// Bytes that may be pushed before more credit is given. While it is above 0 one batch is pushed even if it is
        /// larger: the credit is then below 0.
        credit: u32,
    },
    /// Adds credit to the subscription of a handle, or ends it. Without one nothing happens.
    Credit {
        /// The partition.
        handle: u32,
        /// Bytes.
        bytes: u32,
        /// The subscription is to end; it answers once more.
        ends: bool,
    },
    /// Looks up an offset by position or time.
    OffsetForTime {
        /// The partition.
        handle: u32,
        /// What is looked for.
        at: At,
    },
    /// Keeps how far whoever reads the handle's partition under `name` has come; answered when that is durable, whatever
    /// the topic's level. The last commit counts.
    CommitPosition {
        /// The partition.
        handle: u32,
        /// See `corelog_model::limits::is_position_name`.
        name: &'a str,
        /// The next offset to be read; at most the high watermark.
        offset: u64,
        /// The epoch of what was read before it, where known: if the log fell back since, the answer is `LogTruncated`.
        leader_epoch: Option<Term>,
        /// A note of the client's: at most `corelog_model::limits::MAX_POSITION_METADATA_BYTES`.
        metadata: &'a str,
    },
    /// Forgets a position, if there is one; answered when that is durable.
    DeletePosition {
        /// The partition.
        handle: u32,
        /// Its name.
        name: &'a str,
    },
    /// Positions kept for the handle's partition, as far as they are durable.
    ReadPositions {
        /// The partition.
        handle: u32,
        /// Which of them.
        which: Which<'a>,
        /// About how long the answer may be in bytes; one position is answered even if it is larger.
        max_bytes: u32,
    },
    /// Takes the records of the handle's partition below an offset away; answered when that is durable.
    DeleteRecords {
        /// The partition.
        handle: u32,
        /// The first offset that stays: at most the high watermark. Where it is at or below the log start nothing changes.
        before_offset: u64,
    },
    /// Topics and where their partitions live.
    Metadata {
        /// One topic by name, or all.
        topic: Option<&'a str>,
    },
    /// Creates a topic; answered when it is durable and ready.
    CreateTopic {
        /// Its name: see `corelog_model::limits::is_topic_name`.
        name: &'a str,
        /// Number of partitions, from 1.
        partitions: u32,
        /// When its records are acknowledged and visible.
        durability: Durability,
        /// What takes its records away; what is not named does not.
        retention: RetentionChange,
    },
    /// Adds partitions to a topic, changes its level or how long it keeps its records, or all of it; answered when that is durable and known everywhere.
    AlterTopic {
        /// Its name.
        name: &'a str,
        /// How many partitions it is to have, not fewer than it has; `None`: as many as it has.
        partitions: Option<u32>,
        /// Its level from then on; `None`: as it is.
        durability: Option<Durability>,
        /// What takes its records away from then on; what is not named stays as it is.
        retention: RetentionChange,
    },
    /// Deletes a topic and its records; answered when that is durable.
    DeleteTopic {
        /// Its name.
        name: &'a str,
    },
    /// A fresh producer id for idempotent produce.
    ProducerId,
    /// Counters and cursors of the shard.
    Status,
}

/// Some of the positions of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// The one of this name.
    One(&'a str),
    /// Those whose names come after this one, by their bytes, in that order; all after the empty one.
    After(&'a str),
}

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The oldest record kept.
    Start,
    /// The high watermark.
    End,
    /// The first record at or after this time, in microseconds since 1970.
    Time(u64),
}
