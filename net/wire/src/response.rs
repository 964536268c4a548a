//! What the broker answers. One value per api, and the error that any of them may be answered with.

use corelog_model::{Durability, ProducerId, Term, TopicId};

use crate::api::Api;
use crate::error::ErrorBody;
use crate::fault::{NoRoom, WireError};
use crate::frame::{FLAG_ERROR, FLAG_RESPONSE, FrameHeader};
use crate::hello::HelloReply;
use crate::metadata::MetadataReply;
use crate::position::PositionsReply;
use crate::reader::Reader;
use crate::status::Status;
use crate::writer::Writer;

/// Header and head of the hot responses (all but Hello, Metadata, Status, Positions and errors) take at most this many bytes.
pub const HOT_RESPONSE_BYTES: usize = 80;

const OFFSET_HAS_TIMESTAMP: u32 = 1 << 0;
const PUSH_IS_LAST: u32 = 1 << 0;

/// A response of version 1 of its api.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// To `Hello`.
    Hello(HelloReply<'a>),
    /// To `Ping`.
    Pong,
    /// To `Metadata`.
    Metadata(MetadataReply<'a>),
    /// To `CreateTopic`: the topic can be produced to.
    TopicCreated {
        /// Its id, never used before.
        topic: TopicId,
    },
    /// To `AlterTopic`: what the topic is now, on every core.
    TopicAltered {
        /// Its id.
        topic: TopicId,
        /// How many partitions it has.
        partitions: u32,
        /// Its level.
        durability: Durability,
    },
    /// To `DeleteTopic`.
    TopicDeleted,
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
        /// The term the partition is served in.
        leader_epoch: Term,
        /// The topic's level. It may change at any time.
        durability: Durability,
    },
    /// To `Produce`: the batches taken have the topic's level of safety.
    Produced {
        /// Offset of the first record of the first batch.
        base_offset: u64,
        /// When the last batch taken was appended, in microseconds since 1970.
        append_timestamp_us: u64,
        /// The oldest offset kept.
        log_start: u64,
        /// How many batches of the request were taken, from the first on; the rest left no trace.
        batches: u32,
    },
    /// To `Fetch`.
    Fetched {
        /// The oldest offset kept.
        log_start: u64,
        /// The offset after the last visible record.
        high_watermark: u64,
        /// The term the partition is served in; goes into the next `Fetch`.
        leader_epoch: Term,
        /// Whole padded batches, back to back; none when the wait ended without data.
        batches: &'a [u8],
    },
    /// To `OffsetForTime`.
    OffsetFound {
        /// The offset; the high watermark when no record is that young.
        offset: u64,
        /// The largest timestamp of the batch that holds it, in microseconds since 1970, where known.
        timestamp_us: Option<u64>,
    },
    /// To `ProducerId`.
    ProducerId {
        /// Never given before.
        id: ProducerId,
        /// The epoch to start with.
        epoch: u16,
    },
    /// To `Status`.
    Status(Box<Status>),
    /// To `Subscribe`: the first at once, more as batches become visible and credit allows, one last when it has ended.
    Pushed {
        /// The oldest offset kept.
        log_start: u64,
        /// The offset after the last visible record.
        high_watermark: u64,
        /// The term the partition is served in; goes into the next `Subscribe`.
        leader_epoch: Term,
        /// No more pushes come.
        is_last: bool,
        /// Whole padded batches, back to back; the first push may have none, the last has none.
        batches: &'a [u8],
    },
    /// To `Credit`.
    Credited,
    /// To `CommitPosition`: it is durable.
    PositionCommitted,
    /// To `ReadPositions`.
    Positions(PositionsReply<'a>),
    /// To `DeletePosition`: there is none, durably.
    PositionDeleted,
    /// To `DeleteRecords`: durably.
    RecordsDeleted {
        /// The oldest offset kept: what was asked for, or further.
        log_start: u64,
    },
    /// To anything: it was not done, and why.
    Error(ErrorBody<'a>),
}

/// What a response repeats of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// Number of the api, which for an error may be unknown.
    pub api: u16,
    /// Version of the api, likewise.
    pub version: u8,
    /// The handle.
    pub handle: u32,
    /// The correlation.
    pub correlation: u64,
}

impl FrameHeader {
    /// What the response to this request repeats.
    pub const fn reply_to(&self) -> ReplyTo {
        ReplyTo { api: self.api, version: self.version, handle: self.handle, correlation: self.correlation }
    }
}

impl<'a> Response<'a> {
    /// Its api; an error has that of its request.
    pub const fn api(&self) -> Option<Api> {
        Some(match self {
            Self::Hello(_) => Api::Hello,
            Self::Pong => Api::Ping,
            Self::Metadata(_) => Api::Metadata,
            Self::TopicCreated { .. } => Api::CreateTopic,
            Self::TopicAltered { .. } => Api::AlterTopic,
            Self::TopicDeleted => Api::DeleteTopic,
            Self::Opened { .. } => Api::Open,
            Self::Produced { .. } => Api::Produce,
            Self::Fetched { .. } => Api::Fetch,
            Self::OffsetFound { .. } => Api::OffsetForTime,
            Self::ProducerId { .. } => Api::ProducerId,
            Self::Status(_) => Api::Status,
            Self::Pushed { .. } => Api::Subscribe,
            Self::Credited => Api::Credit,
            Self::PositionCommitted => Api::CommitPosition,
            Self::Positions(_) => Api::ReadPositions,
            Self::PositionDeleted => Api::DeletePosition,
            Self::RecordsDeleted { .. } => Api::DeleteRecords,
            Self::Error(_) => return None,
        })
    }

    /// The bytes that follow the head.
    pub const fn payload(&self) -> &'a [u8] {
        match self {
            Self::Fetched { batches, .. } | Self::Pushed { batches, .. } => batches,
            _ => &[],
        }
    }

    fn encode_head(&self, head: &mut Writer<'_>) {
        match *self {
            Self::Hello(ref hello) => hello.encode(head),
            Self::Metadata(ref metadata) => metadata.encode(head),
            Self::Status(ref status) => status.encode(head),
            Self::Error(ref error) => error.encode(head),
            Self::Positions(ref positions) => positions.encode(head),
            Self::Pong
            | Self::TopicDeleted
            | Self::Credited
            | Self::PositionCommitted
            | Self::PositionDeleted => {}
            Self::TopicCreated { topic } => head.u128(topic.0),
            Self::RecordsDeleted { log_start } => head.u64(log_start),
            Self::TopicAltered { topic, partitions, durability } => {
                head.u128(topic.0);
                head.u32(partitions);
                head.u8(durability as u8);
            }
            Self::Opened { topic, partition, log_start, high_watermark, leader_epoch, durability } => {
                head.u128(topic.0);
                head.u64(log_start);
                head.u64(high_watermark);
                head.u32(partition);
                head.u32(leader_epoch.0);
                head.u8(durability as u8);
            }
            Self::Produced { base_offset, append_timestamp_us, log_start, batches } => {
                head.u64(base_offset);
                head.u64(append_timestamp_us);
                head.u64(log_start);
                head.u32(batches);
            }
            Self::Fetched { log_start, high_watermark, leader_epoch, .. } => {
                head.u64(log_start);
                head.u64(high_watermark);
                head.u32(leader_epoch.0);
            }
            Self::Pushed { log_start, high_watermark, leader_epoch, is_last, .. } => {
                head.u64(log_start);
                head.u64(high_watermark);
                head.u32(leader_epoch.0);
                head.u32(if is_last { PUSH_IS_LAST } else { 0 });
            }
            Self::OffsetFound { offset, timestamp_us } => {
                head.u32(if timestamp_us.is_some() { OFFSET_HAS_TIMESTAMP } else { 0 });
                head.u64(offset);
                head.u64(timestamp_us.unwrap_or(0));
            }
            Self::ProducerId { id, epoch } => {
                head.u64(id.0);
                head.u16(epoch);
            }
        }
    }
}

/// Reads a response. `header` is its frame's, `body` all bytes of the frame after it. Borrows from `body`;
/// allocates for Metadata, Status and Positions only, and no more than the bytes received account for.
pub fn decode_response<'a>(header: &FrameHeader, body: &'a [u8]) -> Result<Response<'a>, WireError> {
    if !header.is_response() {
        return Err(WireError::WrongDirection);
    }
    let (head, payload) = header.parts(body)?;
    if header.is_error() {
        return ErrorBody::decode(head).map(Response::Error);
    }
    let unsupported = WireError::Unsupported { api: header.api, version: header.version };
    let api = Api::from_u16(header.api).ok_or(unsupported)?;
    if !api.versions().contains(header.version) {
        return Err(unsupported);
    }
    if !matches!(api, Api::Fetch | Api::Subscribe) && !payload.is_empty() {
        return Err(WireError::UnexpectedPayload);
    }
    let mut head = Reader::new(head);
    let response = match api {
        Api::Hello => return HelloReply::decode(head).map(Response::Hello),
        Api::Metadata => return MetadataReply::decode(head).map(Response::Metadata),
        Api::Status => return Status::decode(head).map(|status| Response::Status(Box::new(status))),
        Api::ReadPositions => return PositionsReply::decode(head).map(Response::Positions),
        Api::CommitPosition => Response::PositionCommitted,
        Api::DeletePosition => Response::PositionDeleted,
        Api::DeleteRecords => Response::RecordsDeleted { log_start: head.u64("log_start")? },
        Api::Ping => Response::Pong,
        Api::CreateTopic => Response::TopicCreated { topic: TopicId(head.u128("topic id")?) },
        Api::AlterTopic => {
            let topic = TopicId(head.u128("topic id")?);
            let partitions = head.u32("partitions")?;
            Response::TopicAltered { topic, partitions, durability: head.durability()? }
        }
        Api::DeleteTopic => Response::TopicDeleted,
        Api::Open => decode_opened(&mut head)?,
        Api::Produce => decode_produced(&mut head)?,
        Api::Fetch => decode_fetched(&mut head, payload)?,
        Api::OffsetForTime => decode_offset_found(&mut head)?,
        Api::ProducerId => {
            let id = ProducerId(head.u64("producer id")?);
            Response::ProducerId { id, epoch: head.u16("producer epoch")? }
        }
        Api::Subscribe => decode_pushed(&mut head, payload)?,
        Api::Credit => Response::Credited,
    };
    head.end()?;
    Ok(response)
}

fn decode_opened<'a>(head: &mut Reader<'a>) -> Result<Response<'a>, WireError> {
    let topic = TopicId(head.u128("topic id")?);
    let log_start = head.u64("log_start")?;
    let high_watermark = head.u64("high_watermark")?;
    let partition = head.u32("partition")?;
    let leader_epoch = Term(head.u32("leader_epoch")?);
    let durability = head.durability()?;
    Ok(Response::Opened { topic, partition, log_start, high_watermark, leader_epoch, durability })
}

fn decode_produced<'a>(head: &mut Reader<'a>) -> Result<Response<'a>, WireError> {
    let base_offset = head.u64("base_offset")?;
    let append_timestamp_us = head.u64("append_timestamp_us")?;
    let log_start = head.u64("log_start")?;
    let batches = head.u32("batches")?;
    Ok(Response::Produced { base_offset, append_timestamp_us, log_start, batches })
}

fn decode_fetched<'a>(head: &mut Reader<'a>, batches: &'a [u8]) -> Result<Response<'a>, WireError> {
    let log_start = head.u64("log_start")?;
    let high_watermark = head.u64("high_watermark")?;
    let leader_epoch = Term(head.u32("leader_epoch")?);
    Ok(Response::Fetched { log_start, high_watermark, leader_epoch, batches })
}

fn decode_pushed<'a>(head: &mut Reader<'a>, batches: &'a [u8]) -> Result<Response<'a>, WireError> {
    let log_start = head.u64("log_start")?;
    let high_watermark = head.u64("high_watermark")?;
    let leader_epoch = Term(head.u32("leader_epoch")?);
    let is_last = head.flags(PUSH_IS_LAST, "push flags")? != 0;
    Ok(Response::Pushed { log_start, high_watermark, leader_epoch, is_last, batches })
}

fn decode_offset_found<'a>(head: &mut Reader<'a>) -> Result<Response<'a>, WireError> {
    let timed = head.flags(OFFSET_HAS_TIMESTAMP, "offset flags")? != 0;
    let offset = head.u64("offset")?;
    let timestamp_us = head.u64("timestamp_us")?;
    Ok(Response::OffsetFound { offset, timestamp_us: timed.then_some(timestamp_us) })
}

/// Writes header and head to the start of `out` and returns how many bytes that are, a multiple of 16. The caller
/// sends `payload_bytes` of batches after them (for `Fetched` and `Pushed`: slices of the log, their own
/// `batches` are not looked at; 0 for all others) and their [`crate::frame::padding`]. Allocates nothing; an `out` of
/// [`HOT_RESPONSE_BYTES`] is enough for the hot responses.
pub fn encode_response_head(
    response: &Response<'_>,
    to: ReplyTo,
    payload_bytes: usize,
    out: &mut [u8],
) -> Result<usize, NoRoom> {
    let mut head = Writer::frame(out);
    response.encode_head(&mut head);
    let (api, flags) = match response.api() {
        Some(api) => (api as u16, FLAG_RESPONSE),
        None => (to.api, FLAG_RESPONSE | FLAG_ERROR),
    };
    let header = FrameHeader {
        length: 0,
        head_bytes: 0,
        api,
        version: to.version,
        flags,
        handle: to.handle,
        correlation: to.correlation,
        payload_bytes: 0,
    };
    head.finish(header, payload_bytes)
}

/// Appends the whole frame to `out`, payload and paddings included, and returns its length in bytes.
pub fn encode_response(response: &Response<'_>, to: ReplyTo, out: &mut Vec<u8>) -> usize {
    let payload = response.payload();
    crate::writer::append(out, payload, |room| encode_response_head(response, to, payload.len(), room))
}
