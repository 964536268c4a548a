//! Wire to shard and back: one function each way, and one for what a refusal is on the wire.
//!
//! **Must not** decide anything: every arm renames fields.

use corelog_shard::{At, Bounded, MetadataView, Part, Refusal, Request, Response};
use corelog_wire::frame::FRAME_OVERHEAD_BYTES;
use corelog_wire::response::HOT_RESPONSE_BYTES;
use corelog_wire::{
    Endpoint, ErrorBody, ErrorCode, MetadataReply, PartitionPlace, ReplyTo, TopicView, encode_response_head,
};

use crate::status::wire_status;
use crate::status::{Machine, Reactor};

/// Where clients are to dial, as the metadata say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What the server adds to the shard's own answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) place: &'a Place,
    pub(crate) reactor: &'a Reactor,
    pub(crate) machine: Machine,
}

/// A wire request as the shard takes it; `None` for what the server answers itself.
pub(crate) fn request<'a>(request: &corelog_wire::Request<'a>) -> Option<Request<'a>> {
    use corelog_wire::Request as Wire;
    Some(match *request {
        Wire::Hello(_) | Wire::Ping => return None,
        Wire::Metadata { topic } => Request::Metadata { topic },
        Wire::CreateTopic { name, partitions, durability } => {
            Request::CreateTopic { name, partitions, durability }
        }
        Wire::DeleteTopic { name } => Request::DeleteTopic { name },
        Wire::Open { handle, topic, partition } => Request::Open { handle, topic, partition },
        Wire::Produce { handle, expected_offset, batches } => {
            Request::Produce { handle, expected_offset, batches }
        }
        Wire::Fetch { handle, offset, leader_epoch, max_bytes, min_bytes, max_wait_us } => {
            Request::Fetch { handle, offset, leader_epoch, max_bytes, min_bytes, max_wait_us }
        }
        Wire::OffsetForTime { handle, at } => {
            let at = match at {
                corelog_wire::At::Start => At::Start,
                corelog_wire::At::End => At::End,
                corelog_wire::At::Time(us) => At::Time(us),
            };
            Request::OffsetForTime { handle, at }
        }
        Wire::ProducerId => Request::ProducerId,
        Wire::Status => Request::Status,
    })
}

/// The request with its answer held to what fits a frame of `limit` bytes.
pub(crate) fn bounded(request: Request<'_>, limit: usize) -> Request<'_> {
    match request {
        Request::Fetch { handle, offset, leader_epoch, max_bytes, min_bytes, max_wait_us } => {
            let room = limit.saturating_sub(FRAME_OVERHEAD_BYTES) as u32;
            let (max_bytes, min_bytes) = (max_bytes.min(room), min_bytes.min(room));
            Request::Fetch { handle, offset, leader_epoch, max_bytes, min_bytes, max_wait_us }
        }
        other => other,
    }
}

/// Appends header and head of the shard's answer; `payload_bytes` of slices follow it.
pub(crate) fn response(
    response: &Response,
    to: ReplyTo,
    payload_bytes: usize,
    around: Surroundings<'_>,
    out: &mut Vec<u8>,
) {
    use corelog_wire::Response as Wire;
    let wire = match *response {
        Response::Opened { topic, partition, log_start, high_watermark, leader_epoch, durability } => {
            Wire::Opened { topic, partition, log_start, high_watermark, leader_epoch, durability }
        }
        Response::Produced { base_offset, append_timestamp_us, log_start, batches } => {
            Wire::Produced { base_offset, append_timestamp_us, log_start, batches }
        }
        Response::Fetched { log_start, high_watermark, leader_epoch, .. } => {
            Wire::Fetched { log_start, high_watermark, leader_epoch, batches: &[] }
        }
        Response::OffsetFound { offset, timestamp_us } => Wire::OffsetFound { offset, timestamp_us },
        Response::TopicCreated { topic } => Wire::TopicCreated { topic },
        Response::TopicDeleted => Wire::TopicDeleted,
        Response::ProducerId { id, epoch } => Wire::ProducerId { id, epoch },
        Response::Metadata(ref view) => return metadata(view, to, around.place, out),
        Response::Status(ref shard) => {
            Wire::Status(Box::new(wire_status(shard, around.reactor, around.machine)))
        }
        Response::Refused(ref refusal) => Wire::Error(error_body(refusal)),
    };
    append(&wire, to, payload_bytes, out);
}

/// Appends header and head of any answer.
pub(crate) fn append(
    response: &corelog_wire::Response<'_>,
    to: ReplyTo,
    payload_bytes: usize,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let mut room = HOT_RESPONSE_BYTES;
    loop {
        out.resize(start + room, 0);
        match encode_response_head(response, to, payload_bytes, &mut out[start..]) {
            Ok(written) => return out.truncate(start + written),
            Err(no_room) => {
                assert!(no_room.needed > room, "an encoder that has the room it asked for succeeds");
                room = no_room.needed;
            }
        }
    }
}

fn metadata(view: &MetadataView, to: ReplyTo, place: &Place, out: &mut Vec<u8>) {
    let places: Vec<Vec<PartitionPlace>> = view
        .topics
        .iter()
        .map(|topic| {
            topic.partitions.iter().map(|at| PartitionPlace::new(0, at.log, at.leader_epoch)).collect()
        })
        .collect();
    let topics = view.topics.iter().zip(&places).map(|(topic, partitions)| TopicView {
        name: &topic.name,
        topic: topic.topic,
        durability: topic.durability,
        partitions,
    });
    let reply = MetadataReply {
        version: view.version,
        logs: view.logs,
        endpoints: vec![Endpoint { host: &place.host, port: place.port }],
        topics: topics.collect(),
    };
    append(&corelog_wire::Response::Metadata(reply), to, 0, out);
}

/// What a refusal is on the wire: code, details, advice.
pub(crate) fn error_body(refusal: &Refusal) -> ErrorBody<'static> {
    use ErrorCode as Code;
    /// How long a client waits for room on a disk that retention or an operator has to free.
    const FULL_RETRY_US: u32 = 100_000;
    /// How long a client waits for a topic that is being created.
    const SOON_US: u32 = 5_000;
    let (code, details, retry_after_us, message) = match *refusal {
        Refusal::UnknownConnection => (Code::HelloRequired, [0; 2], 0, "say Hello first"),
        Refusal::UnknownTopic => (Code::UnknownTopic, [0; 2], 0, "no topic has this name"),
        Refusal::UnknownTopicId => (Code::UnknownTopicId, [0; 2], 0, "no topic has this id any more"),
        Refusal::UnknownPartition => (Code::UnknownPartition, [0; 2], 0, "the topic has fewer partitions"),
        Refusal::NotHere => (Code::NotHere, [0; 2], 0, "another shard serves this partition"),
        Refusal::UnknownHandle => (Code::UnknownHandle, [0; 2], 0, "this connection did not open the handle"),
        Refusal::NotReady => (Code::NotReady, [0; 2], SOON_US, "the topic is being created or deleted"),
        Refusal::TopicExists => (Code::TopicExists, [0; 2], 0, "the name is taken"),
        Refusal::InvalidTopicName => (Code::InvalidTopicName, [0; 2], 0, "1 to 249 of a-z A-Z 0-9 . _ -"),
        Refusal::InvalidPartitions => (Code::InvalidPartitions, [0; 2], 0, "zero partitions, or too many"),
        Refusal::Corrupt(part) => {
            let (number, message) = match part {
                Part::Layout => (0, "a batch is cut short or has impossible fields"),
                Part::Header => (1, "the CRC of a batch header does not match"),
                Part::Body => (2, "the CRC of a batch body does not match"),
            };
            (Code::CorruptBatch, [number, 0], 0, message)
        }
        Refusal::BatchTooLarge { max } => (Code::BatchTooLarge, [0, max.into()], 0, "a batch is too large"),
        Refusal::OutOfOrderSequence { expected } => {
            (Code::OutOfOrderSequence, [expected.into(), 0], 0, "an earlier batch of the producer is missing")
        }
        Refusal::UnknownProducerId => {
            (Code::UnknownProducerId, [0; 2], 0, "the producer's state has expired")
        }
        Refusal::FencedProducerEpoch => (Code::FencedProducerEpoch, [0; 2], 0, "a newer instance took over"),
        Refusal::OffsetMismatch { expected, actual } => {
            (Code::OffsetMismatch, [expected, actual], 0, "the log ends elsewhere")
        }
        Refusal::OffsetOutOfRange { log_start, high_watermark } => (
            Code::OffsetOutOfRange,
            [log_start, high_watermark],
            0,
            "the offset is not kept, or not visible yet",
        ),
        Refusal::LogTruncated { offset } => (Code::LogTruncated, [offset, 0], 0, "the log fell back"),
        Refusal::UnknownEpoch { current } => {
            (Code::UnknownEpoch, [current.0.into(), 0], 0, "the epoch is newer than the broker's")
        }
        Refusal::StorageFull => {
            (Code::StorageFull, [0; 2], FULL_RETRY_US, "the disk or the log's cap is full")
        }
        Refusal::ReadOnly => (Code::ReadOnly, [0; 2], 0, "a disk failed, the log takes no more writes"),
        Refusal::Damaged { first, last } => {
            (Code::Damaged, [first, last], 0, "these records were acknowledged and then damaged on disk")
        }
        Refusal::ReadFailed => (Code::ReadFailed, [0; 2], FULL_RETRY_US, "the disk did not answer this read"),
        Refusal::NotAuthorised => (Code::NotAuthorised, [0; 2], 0, "the principal may not do this"),
        Refusal::TooMany { what, max } => too_many(what, max),
        Refusal::InvalidRequest => (Code::MalformedRequest, [0; 2], 0, "a field has an impossible value"),
    };
    ErrorBody { code, retry_after_us, details, message, served: &[] }
}

fn too_many(what: Bounded, max: u32) -> (ErrorCode, [u64; 2], u32, &'static str) {
    let (number, message) = match what {
        Bounded::Handles => (0, "too many handles"),
        Bounded::Waits => (1, "too many fetches wait for data"),
        Bounded::Reads => (2, "too many fetches wait for the disk"),
        Bounded::Producers => (3, "too many producers"),
        Bounded::Topics => (4, "too many topics"),
        Bounded::Partitions => (5, "too many partitions"),
        Bounded::Changes => (6, "too many changes in progress"),
    };
    (ErrorCode::TooMany, [number, max.into()], 1_000, message)
}

#[cfg(test)]
mod tests {
    use corelog_model::Term;
    use corelog_wire::{FrameHeader, decode_response};

    use super::*;

    const TO: ReplyTo = ReplyTo { api: 8, version: 1, handle: 3, correlation: 77 };

    #[test]
    fn a_refusal_keeps_its_numbers_on_the_wire() {
        let rows = [
            (
                Refusal::OffsetOutOfRange { log_start: 5, high_watermark: 9 },
                ErrorCode::OffsetOutOfRange,
                [5, 9],
            ),
            (Refusal::LogTruncated { offset: 7 }, ErrorCode::LogTruncated, [7, 0]),
            (Refusal::Corrupt(Part::Body), ErrorCode::CorruptBatch, [2, 0]),
            (Refusal::BatchTooLarge { max: 11 }, ErrorCode::BatchTooLarge, [0, 11]),
            (Refusal::OutOfOrderSequence { expected: 4 }, ErrorCode::OutOfOrderSequence, [4, 0]),
            (Refusal::UnknownEpoch { current: Term(3) }, ErrorCode::UnknownEpoch, [3, 0]),
            (Refusal::TooMany { what: Bounded::Topics, max: 2 }, ErrorCode::TooMany, [4, 2]),
        ];
        for (refusal, code, details) in rows {
            let body = error_body(&refusal);
            assert_eq!((body.code, body.details), (code, details), "{refusal:?}");
            let mut out = vec![1, 2, 3];
            append(&corelog_wire::Response::Error(body), TO, 0, &mut out);
            let (header, rest) = out[3..].split_first_chunk().expect("a header");
            let header = FrameHeader::parse(header, 1 << 20).expect("well formed");
            assert_eq!((header.correlation, header.frame_bytes()), (77, out.len() - 3));
            assert_eq!(decode_response(&header, rest), Ok(corelog_wire::Response::Error(body)));
        }
    }
}
