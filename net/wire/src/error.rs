//! Error codes, and the body of a response that carries one. The one table of names and numbers.

use std::fmt;

use crate::api::{ApiVersions, SERVED};
use crate::fault::WireError;
use crate::reader::Reader;
use crate::writer::Writer;

/// Whether the same request, sent again later (after fresh metadata where the code is about place), can succeed
/// without anything else being changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    Later,
    Never,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $number:literal $name:ident $text:literal $retry:ident [$($detail:literal),*],)*) => {
        /// Why a request was refused. Numbers are never used for a second meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// A code that this build does not know: a newer peer's.
            Unrecognised {
                /// As received.
                number: u16,
                /// As received.
                retryable: bool,
            },
        }

        impl ErrorCode {
            /// All codes that this build knows, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Unrecognised { number, .. } => number,
                }
            }

            /// The code with this number. `retryable` is what the peer says of it, used for unknown codes only.
            pub const fn from_number(number: u16, retryable: bool) -> Self {
                match number {
                    $($number => Self::$name,)*
                    _ => Self::Unrecognised { number, retryable },
                }
            }

            /// The name in messages of the tools and in `PROTOCOL.md`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Unrecognised { .. } => "UNRECOGNISED",
                }
            }

            /// Whether the same request can succeed later without anything else being changed; where the code is
            /// about place, after fresh metadata.
            pub const fn retryable(self) -> bool {
                match self {
                    $(Self::$name => matches!(Retry::$retry, Retry::Later),)*
                    Self::Unrecognised { retryable, .. } => retryable,
                }
            }

            /// What the two detail numbers mean; fewer than two names: the others are 0.
            pub const fn detail_names(self) -> &'static [&'static str] {
                match self {
                    $(Self::$name => &[$($detail),*],)*
                    Self::Unrecognised { .. } => &[],
                }
            }
        }
    };
}

error_codes! {
    /// The bytes are not a message of this protocol.
    1 MalformedRequest "MALFORMED_REQUEST" Never [],
    /// The api or this version of it is not served; the body lists what is.
    2 UnsupportedVersion "UNSUPPORTED_VERSION" Never ["api", "version"],
    /// The frame is longer than allowed: before Hello 16 KiB, then what was negotiated. The connection closes.
    3 FrameTooLarge "FRAME_TOO_LARGE" Never ["length", "limit"],
    /// Nothing but Hello and Ping is answered before Hello.
    4 HelloRequired "HELLO_REQUIRED" Never [],
    /// The principal of this connection may not do this.
    5 NotAuthorised "NOT_AUTHORISED" Never [],
    /// Out of some memory or budget for a moment.
    6 Busy "BUSY" Later [],
    /// The broker is stopping.
    7 ShuttingDown "SHUTTING_DOWN" Later [],
    /// Replies were read so slowly that the memory they hold is needed elsewhere. The connection closes.
    8 SlowConsumer "SLOW_CONSUMER" Later ["bytes", "max"],
    /// A bound of the broker is reached.
    9 TooMany "TOO_MANY" Later ["what", "max"],

    /// No topic has this name.
    20 UnknownTopic "UNKNOWN_TOPIC" Never [],
    /// No topic has this id: deleted, or made again under a new one.
    21 UnknownTopicId "UNKNOWN_TOPIC_ID" Never [],
    /// The topic has fewer partitions.
    22 UnknownPartition "UNKNOWN_PARTITION" Never [],
    /// The handle was not opened on this connection.
    23 UnknownHandle "UNKNOWN_HANDLE" Never [],
    /// The partition is served elsewhere; the metadata say where.
    24 NotHere "NOT_HERE" Later [],
    /// The topic is being made, altered or removed right now.
    25 NotReady "NOT_READY" Later [],
    /// The name is taken.
    26 TopicExists "TOPIC_EXISTS" Never [],
    /// Not 1 to 249 of `[a-zA-Z0-9._-]`, or `.` or `..`.
    27 InvalidTopicName "INVALID_TOPIC_NAME" Never [],
    /// Zero partitions, or more than allowed.
    28 InvalidPartitions "INVALID_PARTITIONS" Never ["partitions", "max"],
    /// Partitions are added to a topic, never taken away.
    29 FewerPartitions "FEWER_PARTITIONS" Never ["partitions", "now"],

    /// A batch does not verify.
    40 CorruptBatch "CORRUPT_BATCH" Never ["part"],
    /// A batch is larger than the log takes.
    41 BatchTooLarge "BATCH_TOO_LARGE" Never ["bytes", "max"],
    /// Not the producer's next sequence: an earlier batch is missing or was refused, and comes first.
    42 OutOfOrderSequence "OUT_OF_ORDER_SEQUENCE" Never ["expected", "actual"],
    /// The producer's state has expired or never was: a new producer id is needed.
    43 UnknownProducerId "UNKNOWN_PRODUCER_ID" Never [],
    /// A newer instance of this producer has taken over.
    44 FencedProducerEpoch "FENCED_PRODUCER_EPOCH" Never ["current"],
    /// A conditional append found the log at another end.
    45 OffsetMismatch "OFFSET_MISMATCH" Never ["expected", "actual"],

    /// The offset is not kept any more, or not visible yet.
    60 OffsetOutOfRange "OFFSET_OUT_OF_RANGE" Never ["log_start", "high_watermark"],
    /// The log fell back since the epoch the reader names; from this offset on it holds other records.
    61 LogTruncated "LOG_TRUNCATED" Never ["offset"],
    /// The epoch is older than the broker's: the reader needs fresh metadata.
    62 FencedEpoch "FENCED_EPOCH" Never ["current"],
    /// The epoch is newer than the broker's, which is behind.
    63 UnknownEpoch "UNKNOWN_EPOCH" Later ["current"],
    /// These records were acknowledged and then damaged on disk. Reading goes on after the last of them.
    64 Damaged "DAMAGED" Never ["first", "last"],
    /// The disk did not answer this read.
    65 ReadFailed "READ_FAILED" Later [],

    /// The disk, or the log's cap, is full; reads go on.
    80 StorageFull "STORAGE_FULL" Later [],
    /// A disk failed and the log takes no more writes; reads go on.
    81 ReadOnly "READ_ONLY" Never [],
    /// An older version made the store and could not read what this would write; no operator has made it final.
    82 NotFinal "NOT_FINAL" Never [],

    /// Not 1 to 255 bytes of text without control characters.
    100 InvalidPositionName "INVALID_POSITION_NAME" Never [],
}

/// Values of the detail `part` of CORRUPT_BATCH.
pub mod part {
    /// Fields of the batch are impossible, or it is cut short.
    pub const LAYOUT: u64 = 0;
    /// The header's CRC, which is seeded with topic and partition.
    pub const HEADER_CRC: u64 = 1;
    /// The body's CRC.
    pub const BODY_CRC: u64 = 2;
}

/// Values of the detail `what` of TOO_MANY.
pub mod bound {
    /// Handles of a connection or of all.
    pub const HANDLES: u64 = 0;
    /// Fetches that wait for data.
    pub const WAITS: u64 = 1;
    /// Fetches that wait for the disk.
    pub const READS: u64 = 2;
    /// (producer, partition) pairs.
    pub const PRODUCERS: u64 = 3;
    /// Topics.
    pub const TOPICS: u64 = 4;
    /// Partitions of all topics.
    pub const PARTITIONS: u64 = 5;
    /// Topic changes and producer-id requests in progress.
    pub const CHANGES: u64 = 6;
    /// Connections.
    pub const CONNECTIONS: u64 = 7;
    /// Requests of a connection that are not answered yet.
    pub const IN_FLIGHT: u64 = 8;
    /// Named positions.
    pub const POSITIONS: u64 = 10;
    /// Subscriptions of all connections to one log: a client may fetch instead.
    pub const SUBSCRIPTIONS: u64 = 11;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unrecognised { number, .. } => write!(f, "UNRECOGNISED({number})"),
            known => f.write_str(known.name()),
        }
    }
}

/// A refusal as it stands on the wire. Its layout is the same whatever the version of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorBody<'a> {
    /// Why. Says also whether a retry can help.
    pub code: ErrorCode,
    /// How long to wait before a retry, in microseconds; 0 where the broker has no opinion.
    pub retry_after_us: u32,
    /// See [`ErrorCode::detail_names`].
    pub details: [u64; 2],
    /// For people; may be empty.
    pub message: &'a str,
    /// With UNSUPPORTED_VERSION what the broker serves; otherwise empty.
    pub served: &'a [ApiVersions],
}

/// Tags of the error body.
pub(crate) mod tag {
    /// A list of served versions.
    pub(crate) const SERVED: u16 = 1;
}

/// Flag of the error body: the request may be sent again.
const RETRYABLE: u16 = 1 << 0;

impl<'a> ErrorBody<'a> {
    /// A refusal without details.
    pub const fn new(code: ErrorCode, message: &'a str) -> Self {
        Self { code, retry_after_us: 0, details: [0, 0], message, served: &[] }
    }

    /// The answer to bytes that are not a request this build understands. `message` is the fault in words.
    pub const fn from_fault(fault: &WireError, message: &'a str) -> Self {
        let served = if matches!(fault, WireError::Unsupported { .. }) { SERVED } else { &[] };
        Self { code: fault.code(), retry_after_us: 0, details: fault.details(), message, served }
    }

    pub(crate) fn decode(head: &'a [u8]) -> Result<Self, WireError> {
        let mut head = Reader::new(head);
        let number = head.u16("code")?;
        let retryable = head.u16("error flags")? & RETRYABLE != 0;
        let mut body = Self {
            code: ErrorCode::from_number(number, retryable),
            retry_after_us: head.u32("retry_after_us")?,
            details: [head.u64("detail 0")?, head.u64("detail 1")?],
            message: head.text("message")?,
            served: &[],
        };
        let mut tagged = head.tagged();
        while let Some((tag, mut field)) = tagged.next()? {
            if tag == tag::SERVED {
                body.served = field.list("served")?;
            }
        }
        Ok(body)
    }

    pub(crate) fn encode(&self, head: &mut Writer<'_>) {
        head.u16(self.code.number());
        head.u16(if self.code.retryable() { RETRYABLE } else { 0 });
        head.u32(self.retry_after_us);
        head.u64(self.details[0]);
        head.u64(self.details[1]);
        head.text(self.message);
        if !self.served.is_empty() {
            head.tagged(tag::SERVED, |field| field.list(self.served));
        }
    }
}
