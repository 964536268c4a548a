//! What can go wrong, by the call that reports it. Small enums: a program can decide on them.

use std::fmt;
use std::io;

use corelog_model::batch::BatchError;
use corelog_wire::{ErrorCode, WireError};

/// A broker's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What it objects to.
    pub code: ErrorCode,
    /// The broker's own words.
    pub message: Box<str>,
    /// Two numbers whose meaning depends on the code (PROTOCOL.md).
    pub detail: [u64; 2],
}

/// Why a connection to a broker could not be made or did not last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The socket failed.
    Io(io::ErrorKind),
    /// The name of the broker has no address.
    NoAddress,
    /// It took too long.
    Timeout,
    /// The broker closed the connection.
    Closed,
    /// The broker said why it ends the connection.
    Ended {
        /// Why.
        code: ErrorCode,
        /// Two numbers whose meaning depends on the code (PROTOCOL.md).
        details: [u64; 2],
    },
    /// What the broker sent is not corelog's protocol.
    Protocol(WireError),
    /// The broker answered something that was not asked.
    Unexpected,
    /// The broker does not serve a version of the protocol that this client speaks.
    Version,
}

/// Failure of [`Client::connect`](crate::Client::connect) or of an administrative request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// No server was given.
    NoServers,
    /// No server could be reached within the time given.
    Unreachable {
        /// The last one tried.
        server: String,
        /// What went wrong with it.
        cause: LinkError,
    },
    /// The connection was lost after the request had been sent: the broker may have done it.
    OutcomeUnknown,
    /// The time for the request is over.
    Timeout,
    /// The broker said no.
    Refused(Refused),
    /// No topic has this name.
    UnknownTopic,
    /// The topic has fewer partitions.
    UnknownPartition,
    /// A topic of this name exists.
    TopicExists,
    /// The runtime that the client was made on has ended.
    Closed,
}

/// Why a record was not taken by `try_send`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrySendError {
    /// `max_buffer_bytes` wait for acknowledgement: try again after some were acknowledged.
    Full,
    /// The record is larger than a batch may be; it can never be sent with this configuration.
    RecordTooLarge,
    /// The topic has fewer partitions.
    UnknownPartition,
    /// Somebody holds the lane of this partition.
    LaneTaken,
    /// The producer was closed.
    Closed,
}

/// Why a record is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProduceError {
    /// The record is larger than a batch may be.
    RecordTooLarge,
    /// The topic has fewer partitions.
    UnknownPartition,
    /// The topic does not exist any more.
    UnknownTopic,
    /// The batch could not be sealed.
    Seal(BatchError),
    /// A conditional append found the partition at another end: read on to `actual`, decide anew.
    OffsetMismatch {
        /// Where the partition was expected to end.
        expected: u64,
        /// Where it ends.
        actual: u64,
        /// Whether an earlier attempt may have been what moved the end. Never with an idempotent producer.
        maybe_appended: bool,
    },
    /// The broker said no, for good.
    Refused {
        /// Its answer.
        refused: Refused,
        /// Whether an earlier attempt, or the broker's disk, leaves it open if the batch was appended all the same.
        maybe_appended: bool,
    },
    /// The deadline is over.
    Expired {
        /// Whether the batch was sent at least once without an answer: then it may have been appended.
        maybe_appended: bool,
    },
    /// The broker forgot this producer after the batch had been sent once without an answer: it may have been appended.
    Unresolved,
    /// The producer was closed, or the runtime it was made on has ended, before an answer came.
    Closed,
}

/// Why the next batch is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumeError {
    /// Records this consumer has read were lost in a crash of the broker (possible below `Durability::Durable`).
    /// Said once; the partition goes on from `offset`.
    LogTruncated {
        /// The partition.
        partition: u32,
        /// The first offset whose record is gone or another one.
        offset: u64,
    },
    /// The offset is not kept any more, or not reached yet. With [`Reset::Fail`](crate::Reset::Fail) only; said once, the
    /// partition then stands still until it is told where to go on with `seek`.
    OffsetOutOfRange {
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: u64,
        /// The first offset kept.
        log_start: u64,
        /// One past the last visible offset.
        high_watermark: u64,
    },
    /// A batch is damaged. Said once; the partition stands still until `seek`.
    Damaged {
        /// The partition.
        partition: u32,
        /// First offset that cannot be read.
        first: u64,
        /// Last offset that cannot be read.
        last: u64,
    },
    /// A batch has a form that this client does not know.
    Batch {
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: u64,
        /// What is wrong with it.
        cause: BatchError,
    },
    /// The topic does not exist any more.
    UnknownTopic,
    /// The topic has fewer partitions.
    UnknownPartition,
    /// The broker said no, for good; the partition stands still until `seek`.
    Refused {
        /// The partition.
        partition: u32,
        /// The broker's answer.
        refused: Refused,
    },
    /// The runtime that the consumer was made on has ended.
    Closed,
}

/// Why a position was not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// The consumer has no name to commit under.
    NotNamed,
    /// The consumer does not read this partition.
    UnknownPartition,
    /// The caller has not been given all records before this offset.
    NotGiven {
        /// The partition.
        partition: u32,
        /// The offset to be committed.
        offset: u64,
    },
    /// The broker said no, for good: the position is what it was before. LOG_TRUNCATED and OFFSET_OUT_OF_RANGE mean that what
    /// was read was lost in a crash of the broker, which `next` says too.
    Refused {
        /// The partition.
        partition: u32,
        /// The broker's answer.
        refused: Refused,
    },
    /// The runtime that the consumer was made on has ended.
    Closed,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            return write!(f, "{}", self.code);
        }
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(kind) => write!(f, "{kind}"),
            Self::NoAddress => f.write_str("the name has no address"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Closed => f.write_str("the broker closed the connection"),
            Self::Ended { code, details } => {
                write!(f, "the broker ended the connection: {code}")?;
                let numbers = code.detail_names().iter().zip(details);
                numbers.into_iter().try_for_each(|(name, number)| write!(f, ", {name} {number}"))
            }
            Self::Protocol(error) => write!(f, "not corelog's protocol: {error}"),
            Self::Unexpected => f.write_str("the broker answered something that was not asked"),
            Self::Version => f.write_str("no common version of the protocol"),
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServers => f.write_str("no server was given"),
            Self::Unreachable { server, cause } => write!(f, "{server} cannot be reached: {cause}"),
            Self::OutcomeUnknown => {
                f.write_str("the connection was lost before the answer; it may have been done")
            }
            Self::Timeout => f.write_str("no answer in time"),
            Self::Refused(refused) => write!(f, "{refused}"),
            Self::UnknownTopic => f.write_str("unknown topic"),
            Self::UnknownPartition => f.write_str("unknown partition"),
            Self::TopicExists => f.write_str("the topic exists"),
            Self::Closed => f.write_str("the client's runtime has ended"),
        }
    }
}

impl fmt::Display for TrySendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the buffer is full",
            Self::RecordTooLarge => "the record is larger than a batch",
            Self::UnknownPartition => "unknown partition",
            Self::LaneTaken => "the lane is taken",
            Self::Closed => "the producer is closed",
        })
    }
}

impl fmt::Display for ProduceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RecordTooLarge => f.write_str("the record is larger than a batch"),
            Self::UnknownPartition => f.write_str("unknown partition"),
            Self::UnknownTopic => f.write_str("unknown topic"),
            Self::Seal(error) => write!(f, "the batch cannot be sealed: {error}"),
            Self::OffsetMismatch { expected, actual, maybe_appended } => {
                write!(f, "the partition ends at offset {actual}, not at {expected}")?;
                f.write_str(if *maybe_appended { " (it may have been appended)" } else { "" })
            }
            Self::Refused { refused, maybe_appended: false } => write!(f, "{refused}"),
            Self::Refused { refused, maybe_appended: true } => {
                write!(f, "{refused} (it may have been appended)")
            }
            Self::Expired { maybe_appended: false } => f.write_str("not sent within the deadline"),
            Self::Expired { maybe_appended: true } => {
                f.write_str("not acknowledged within the deadline; it may have been appended")
            }
            Self::Unresolved => f.write_str("the broker forgot this producer; it may have been appended"),
            Self::Closed => f.write_str("the producer was closed before an answer came"),
        }
    }
}

impl fmt::Display for ConsumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogTruncated { partition, offset } => {
                write!(f, "partition {partition}: records from offset {offset} on were lost")
            }
            Self::OffsetOutOfRange { partition, offset, log_start, high_watermark } => {
                write!(f, "partition {partition}: offset {offset} is not in {log_start}..{high_watermark}")
            }
            Self::Damaged { partition, first, last } => {
                write!(f, "partition {partition}: offsets {first} to {last} are damaged")
            }
            Self::Batch { partition, offset, cause } => {
                write!(f, "partition {partition}: the batch at offset {offset} cannot be read: {cause}")
            }
            Self::UnknownTopic => f.write_str("unknown topic"),
            Self::UnknownPartition => f.write_str("unknown partition"),
            Self::Refused { partition, refused } => write!(f, "partition {partition}: {refused}"),
            Self::Closed => f.write_str("the consumer's runtime has ended"),
        }
    }
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNamed => f.write_str("the consumer has no name"),
            Self::UnknownPartition => f.write_str("the consumer does not read this partition"),
            Self::NotGiven { partition, offset } => {
                write!(f, "partition {partition}: not all records before offset {offset} were read")
            }
            Self::Refused { partition, refused } => write!(f, "partition {partition}: {refused}"),
            Self::Closed => f.write_str("the consumer's runtime has ended"),
        }
    }
}

impl std::error::Error for Refused {}
impl std::error::Error for LinkError {}
impl std::error::Error for ClientError {}
impl std::error::Error for TrySendError {}
impl std::error::Error for ProduceError {}
impl std::error::Error for ConsumeError {}
impl std::error::Error for CommitError {}
