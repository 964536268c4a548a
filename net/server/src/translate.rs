//! Wire to shard and back: one function each way, and one for what a refusal is on the wire.
//!
//! **Must not** decide anything: every arm renames fields.

use std::borrow::Cow;

use corelog_model::LogId;
use corelog_shard::{At, Bounded, MetadataView, Part, PositionsView, Refusal, Request, Response, Which};
use corelog_wire::error::{bound, part};
use corelog_wire::frame::FRAME_OVERHEAD_BYTES;
use corelog_wire::metadata::DAMAGED_RANGES_MAX;
use corelog_wire::response::HOT_RESPONSE_BYTES;
use corelog_wire::{
    DamagedRange, Endpoint, ErrorBody, ErrorCode, MetadataReply, PartitionPlace, PositionView,
    PositionsReply, ReplyTo, TopicView, encode_response_head,
};

/// Of positions in one answer, in bytes: who wants more asks again. One at a time is answered on a connection, so unread
/// answers stay few bytes.
const POSITIONS_BYTES: u32 = 16 << 10;

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
    /// Which core serves each log, and where clients are to dial each core.
    pub(crate) homes: &'a [usize],
    pub(crate) places: &'a [Place],
}

/// A wire request as the shard takes it; `None` for what the server answers itself.
pub(crate) fn request<'a>(request: &corelog_wire::Request<'a>) -> Option<Request<'a>> {
    use corelog_wire::Request as Wire;
    Some(match *request {
        Wire::Hello(_) | Wire::Ping => return None,
        Wire::Metadata { topic } => Request::Metadata { topic },
        Wire::CreateTopic { name, partitions, durability, retention } => {
            Request::CreateTopic { name, partitions, durability, retention }
        }
        Wire::AlterTopic { name, partitions, durability, retention } => {
            Request::AlterTopic { name, partitions, durability, retention }
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
        Wire::CommitPosition { handle, name, offset, leader_epoch, metadata } => {
            Request::CommitPosition { handle, name, offset, leader_epoch, metadata }
        }
        Wire::ReadPositions { handle, which } => {
            let which = match which {
                corelog_wire::Which::One(name) => Which::One(name),
                corelog_wire::Which::After(name) => Which::After(name),
            };
            Request::ReadPositions { handle, which, max_bytes: POSITIONS_BYTES }
        }
        Wire::DeletePosition { handle, name } => Request::DeletePosition { handle, name },
        Wire::DeleteRecords { handle, before_offset } => Request::DeleteRecords { handle, before_offset },
        Wire::ProducerId => Request::ProducerId,
        Wire::Status => Request::Status,
        Wire::Subscribe { handle, offset, leader_epoch, max_bytes, credit } => {
            Request::Subscribe { handle, offset, leader_epoch, max_bytes, credit }
        }
        Wire::Credit { handle, bytes, ends } => Request::Credit { handle, bytes, ends },
    })
}

/// The request with its answer held to what fits a frame of `limit` bytes.
pub(crate) fn bounded(mut request: Request<'_>, limit: usize) -> Request<'_> {
    let room = limit.saturating_sub(FRAME_OVERHEAD_BYTES) as u32;
    match &mut request {
        Request::Fetch { max_bytes, min_bytes, .. } => {
            (*max_bytes, *min_bytes) = ((*max_bytes).min(room), (*min_bytes).min(room));
        }
        Request::Subscribe { max_bytes, .. } | Request::ReadPositions { max_bytes, .. } => {
            *max_bytes = (*max_bytes).min(room);
        }
        _ => {}
    }
    request
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
        Response::Pushed { log_start, high_watermark, leader_epoch, is_last, .. } => {
            Wire::Pushed { log_start, high_watermark, leader_epoch, is_last, batches: &[] }
        }
        Response::Credited => Wire::Credited,
        Response::OffsetFound { offset, timestamp_us } => Wire::OffsetFound { offset, timestamp_us },
        Response::TopicCreated { topic } => Wire::TopicCreated { topic },
        Response::TopicAltered { topic, partitions, durability } => {
            Wire::TopicAltered { topic, partitions, durability }
        }
        Response::TopicDeleted => Wire::TopicDeleted,
        Response::ProducerId { id, epoch } => Wire::ProducerId { id, epoch },
        Response::PositionCommitted => Wire::PositionCommitted,
        Response::PositionDeleted => Wire::PositionDeleted,
        Response::RecordsDeleted { log_start } => Wire::RecordsDeleted { log_start },
        Response::Positions(ref view) => Wire::Positions(positions(view)),
        Response::Metadata(ref view) => return metadata(view, to, around, out),
        Response::Status(_) => unreachable!("the core answers for all"),
        Response::Refused(ref refusal) => {
            return append(&Wire::Error(error_body(refusal, &words(refusal))), to, payload_bytes, out);
        }
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

fn positions(view: &PositionsView) -> PositionsReply<'_> {
    let positions = view.positions.iter().map(|position| PositionView {
        name: &position.name,
        offset: position.offset,
        leader_epoch: position.leader_epoch,
        commit_timestamp_us: position.commit_timestamp_us,
        metadata: &position.metadata,
    });
    let (log_start, high_watermark) = (view.log_start, view.high_watermark);
    PositionsReply { log_start, high_watermark, more: view.more, positions: positions.collect() }
}

fn metadata(view: &MetadataView, to: ReplyTo, around: Surroundings<'_>, out: &mut Vec<u8>) {
    let endpoint = |log: LogId| around.homes[usize::from(log.0)] as u16;
    let places: Vec<Vec<PartitionPlace>> = view
        .topics
        .iter()
        .map(|topic| {
            let places = topic.partitions.iter();
            places.map(|at| PartitionPlace::new(endpoint(at.log), at.log, at.leader_epoch)).collect()
        })
        .collect();
    let damage: Vec<Vec<DamagedRange>> = view
        .topics
        .iter()
        .map(|topic| {
            let known = topic.damage.iter().take(DAMAGED_RANGES_MAX);
            known.map(|range| DamagedRange::new(range.partition, range.first, range.last)).collect()
        })
        .collect();
    let topics = view.topics.iter().zip(&places).zip(&damage).map(|((topic, partitions), damage)| {
        let (durability, retention) = (topic.durability, topic.retention);
        TopicView { name: &topic.name, topic: topic.topic, durability, retention, partitions, damage }
    });
    let reply = MetadataReply {
        version: view.version,
        logs: view.logs,
        endpoints: around.places.iter().map(|at| Endpoint { host: &at.host, port: at.port }).collect(),
        topics: topics.collect(),
    };
    append(&corelog_wire::Response::Metadata(reply), to, 0, out);
}

/// What a refusal is on the wire: code, details, advice; `message` is [`words`].
pub(crate) fn error_body<'m>(refusal: &Refusal, message: &'m str) -> ErrorBody<'m> {
    use ErrorCode as Code;
    /// How long a client waits for room on a disk that retention or an operator has to free.
    const FULL_RETRY_US: u32 = 100_000;
    /// How long a client waits for a topic that is being created.
    const SOON_US: u32 = 5_000;
    /// How long a client waits where a bound is reached.
    const BOUND_RETRY_US: u32 = 1_000;
    let (code, details, retry_after_us) = match *refusal {
        Refusal::UnknownConnection => (Code::HelloRequired, [0; 2], 0),
        Refusal::UnknownTopic => (Code::UnknownTopic, [0; 2], 0),
        Refusal::UnknownTopicId => (Code::UnknownTopicId, [0; 2], 0),
        Refusal::UnknownPartition => (Code::UnknownPartition, [0; 2], 0),
        Refusal::NotHere => (Code::NotHere, [0; 2], 0),
        Refusal::UnknownHandle => (Code::UnknownHandle, [0; 2], 0),
        Refusal::NotReady => (Code::NotReady, [0; 2], SOON_US),
        Refusal::TopicExists => (Code::TopicExists, [0; 2], 0),
        Refusal::InvalidTopicName => (Code::InvalidTopicName, [0; 2], 0),
        Refusal::InvalidPositionName => (Code::InvalidPositionName, [0; 2], 0),
        Refusal::InvalidPartitions { partitions, max } => {
            (Code::InvalidPartitions, [partitions.into(), max.into()], 0)
        }
        Refusal::FewerPartitions { partitions, now } => {
            (Code::FewerPartitions, [partitions.into(), now.into()], 0)
        }
        Refusal::Corrupt(part) => (Code::CorruptBatch, [part_number(part), 0], 0),
        Refusal::BatchTooLarge { bytes, max } => (Code::BatchTooLarge, [bytes, max.into()], 0),
        Refusal::OutOfOrderSequence { expected, actual } => {
            (Code::OutOfOrderSequence, [expected.into(), actual.into()], 0)
        }
        Refusal::UnknownProducerId => (Code::UnknownProducerId, [0; 2], 0),
        Refusal::FencedProducerEpoch { current } => (Code::FencedProducerEpoch, [current.into(), 0], 0),
        Refusal::OffsetMismatch { expected, actual } => (Code::OffsetMismatch, [expected, actual], 0),
        Refusal::OffsetOutOfRange { log_start, high_watermark, .. } => {
            (Code::OffsetOutOfRange, [log_start, high_watermark], 0)
        }
        Refusal::LogTruncated { offset } => (Code::LogTruncated, [offset, 0], 0),
        Refusal::UnknownEpoch { current } => (Code::UnknownEpoch, [current.0.into(), 0], 0),
        Refusal::StorageFull => (Code::StorageFull, [0; 2], FULL_RETRY_US),
        Refusal::ReadOnly => (Code::ReadOnly, [0; 2], 0),
        Refusal::NotFinal => (Code::NotFinal, [0; 2], 0),
        Refusal::Damaged { first, last } => (Code::Damaged, [first, last], 0),
        Refusal::ReadFailed => (Code::ReadFailed, [0; 2], FULL_RETRY_US),
        Refusal::NotAuthorised => (Code::NotAuthorised, [0; 2], 0),
        Refusal::TooMany { what, max } => (Code::TooMany, [bound(what).0, max.into()], BOUND_RETRY_US),
        Refusal::InvalidRequest => (Code::MalformedRequest, [0; 2], 0),
    };
    ErrorBody { code, retry_after_us, details, message, served: &[] }
}

/// A refusal for people, with its numbers.
pub(crate) fn words(refusal: &Refusal) -> Cow<'static, str> {
    Cow::Borrowed(match *refusal {
        Refusal::UnknownConnection => "say Hello first",
        Refusal::UnknownTopic => "no topic has this name",
        Refusal::UnknownTopicId => "no topic has this id any more",
        Refusal::UnknownPartition => "the topic has fewer partitions",
        Refusal::NotHere => "another shard serves this partition",
        Refusal::UnknownHandle => "this connection did not open the handle",
        Refusal::NotReady => "the topic is being created, altered or deleted",
        Refusal::TopicExists => "the name is taken",
        Refusal::InvalidTopicName => "1 to 249 of a-z A-Z 0-9 . _ -",
        Refusal::InvalidPositionName => "1 to 255 bytes of text without control characters",
        Refusal::Corrupt(Part::Layout) => "a batch is cut short or has impossible fields",
        Refusal::Corrupt(Part::Header) => "the CRC of a batch header does not match",
        Refusal::Corrupt(Part::Body) => "the CRC of a batch body does not match",
        Refusal::UnknownProducerId => "the producer's state has expired",
        Refusal::StorageFull => "the disk, the log's cap or the memory for its index is full",
        Refusal::NotFinal => "an older version made the store and could not read what this would write",
        Refusal::ReadOnly => "a disk failed, the log takes no more writes",
        Refusal::ReadFailed => "the disk did not answer this read",
        Refusal::NotAuthorised => "the principal may not do this",
        Refusal::InvalidRequest => "a field has an impossible value",
        Refusal::InvalidPartitions { .. }
        | Refusal::FewerPartitions { .. }
        | Refusal::BatchTooLarge { .. }
        | Refusal::OutOfOrderSequence { .. }
        | Refusal::FencedProducerEpoch { .. }
        | Refusal::OffsetMismatch { .. }
        | Refusal::OffsetOutOfRange { .. }
        | Refusal::LogTruncated { .. }
        | Refusal::UnknownEpoch { .. }
        | Refusal::Damaged { .. }
        | Refusal::TooMany { .. } => return Cow::Owned(numbered_words(refusal)),
    })
}

fn numbered_words(refusal: &Refusal) -> String {
    match *refusal {
        Refusal::InvalidPartitions { partitions, max: 0 } => {
            format!("{partitions} partitions are more than the log's largest batch can list")
        }
        Refusal::InvalidPartitions { partitions, max } => {
            format!("{partitions} partitions, 1 to {max} are possible")
        }
        Refusal::FewerPartitions { partitions, now } => {
            format!("the topic has {now} partitions, and {partitions} are fewer: none can be taken away")
        }
        Refusal::BatchTooLarge { bytes, max } => format!("a batch of {bytes} bytes, the log takes {max}"),
        Refusal::OutOfOrderSequence { expected, actual } => {
            format!("sequence {actual} where {expected} is next: an earlier batch of the producer is missing")
        }
        Refusal::FencedProducerEpoch { current } => {
            format!("a newer instance took over, under epoch {current}")
        }
        Refusal::OffsetMismatch { expected, actual } => {
            format!("the partition ends at offset {actual}, not at {expected}")
        }
        Refusal::OffsetOutOfRange { offset, log_start, high_watermark } if offset < log_start => {
            format!("offset {offset} is not kept any more, the partition has {log_start} to {high_watermark}")
        }
        Refusal::OffsetOutOfRange { offset, log_start, high_watermark } => {
            format!("offset {offset} is not visible yet, the partition has {log_start} to {high_watermark}")
        }
        Refusal::LogTruncated { offset } => format!("the log fell back to offset {offset}"),
        Refusal::UnknownEpoch { current } => format!("the epoch is newer than the broker's, {}", current.0),
        Refusal::Damaged { first, last } => {
            format!("offsets {first} to {last} were acknowledged and then damaged on disk")
        }
        Refusal::TooMany { what, max } => format!("{}, {max} are allowed", bound(what).1),
        _ => unreachable!("the others have no numbers"),
    }
}

const fn part_number(part: Part) -> u64 {
    match part {
        Part::Layout => part::LAYOUT,
        Part::Header => part::HEADER_CRC,
        Part::Body => part::BODY_CRC,
    }
}

const fn bound(what: Bounded) -> (u64, &'static str) {
    match what {
        Bounded::Handles => (bound::HANDLES, "too many handles"),
        Bounded::Waits => (bound::WAITS, "too many fetches wait for data"),
        Bounded::Reads => (bound::READS, "too many fetches wait for the disk"),
        Bounded::Subscriptions => (bound::SUBSCRIPTIONS, "too many subscriptions"),
        Bounded::Producers => (bound::PRODUCERS, "too many producers"),
        Bounded::Topics => (bound::TOPICS, "too many topics"),
        Bounded::Partitions => (bound::PARTITIONS, "too many partitions"),
        Bounded::Changes => (bound::CHANGES, "too many changes in progress"),
        Bounded::Positions => (bound::POSITIONS, "too many named positions"),
    }
}

#[cfg(test)]
mod tests {
    use corelog_model::Term;
    use corelog_wire::{FrameHeader, decode_response};

    use super::*;

    const TO: ReplyTo = ReplyTo { api: 8, version: 1, handle: 3, correlation: 77 };

    type Row = (Refusal, ErrorCode, [u64; 2], &'static str);

    const NUMBERED: [Row; 14] = [
        (
            Refusal::OffsetOutOfRange { offset: 3, log_start: 5, high_watermark: 9 },
            ErrorCode::OffsetOutOfRange,
            [5, 9],
            "offset 3 is not kept any more, the partition has 5 to 9",
        ),
        (
            Refusal::OffsetOutOfRange { offset: 13, log_start: 5, high_watermark: 9 },
            ErrorCode::OffsetOutOfRange,
            [5, 9],
            "offset 13 is not visible yet, the partition has 5 to 9",
        ),
        (
            Refusal::OffsetMismatch { expected: 7, actual: 8 },
            ErrorCode::OffsetMismatch,
            [7, 8],
            "the partition ends at offset 8, not at 7",
        ),
        (
            Refusal::LogTruncated { offset: 7 },
            ErrorCode::LogTruncated,
            [7, 0],
            "the log fell back to offset 7",
        ),
        (
            Refusal::Corrupt(Part::Body),
            ErrorCode::CorruptBatch,
            [2, 0],
            "the CRC of a batch body does not match",
        ),
        (
            Refusal::BatchTooLarge { bytes: 12, max: 11 },
            ErrorCode::BatchTooLarge,
            [12, 11],
            "a batch of 12 bytes, the log takes 11",
        ),
        (
            Refusal::OutOfOrderSequence { expected: 4, actual: 6 },
            ErrorCode::OutOfOrderSequence,
            [4, 6],
            "sequence 6 where 4 is next: an earlier batch of the producer is missing",
        ),
        (
            Refusal::FencedProducerEpoch { current: 2 },
            ErrorCode::FencedProducerEpoch,
            [2, 0],
            "a newer instance took over, under epoch 2",
        ),
        (
            Refusal::InvalidPartitions { partitions: 0, max: 10 },
            ErrorCode::InvalidPartitions,
            [0, 10],
            "0 partitions, 1 to 10 are possible",
        ),
        (
            Refusal::FewerPartitions { partitions: 2, now: 3 },
            ErrorCode::FewerPartitions,
            [2, 3],
            "the topic has 3 partitions, and 2 are fewer: none can be taken away",
        ),
        (
            Refusal::UnknownEpoch { current: Term(3) },
            ErrorCode::UnknownEpoch,
            [3, 0],
            "the epoch is newer than the broker's, 3",
        ),
        (
            Refusal::Damaged { first: 3, last: 4 },
            ErrorCode::Damaged,
            [3, 4],
            "offsets 3 to 4 were acknowledged and then damaged on disk",
        ),
        (
            Refusal::TooMany { what: Bounded::Topics, max: 2 },
            ErrorCode::TooMany,
            [4, 2],
            "too many topics, 2 are allowed",
        ),
        (
            Refusal::TooMany { what: Bounded::Positions, max: 7 },
            ErrorCode::TooMany,
            [10, 7],
            "too many named positions, 7 are allowed",
        ),
    ];

    #[test]
    fn a_refusal_keeps_its_numbers_on_the_wire() {
        for (refusal, code, details, message) in NUMBERED {
            let said = words(&refusal);
            let body = error_body(&refusal, &said);
            assert_eq!((body.code, body.details, body.message), (code, details, message), "{refusal:?}");
            let mut out = vec![1, 2, 3];
            append(&corelog_wire::Response::Error(body), TO, 0, &mut out);
            let (header, rest) = out[3..].split_first_chunk().expect("a header");
            let header = FrameHeader::parse(header, 1 << 20).expect("well formed");
            assert_eq!((header.correlation, header.frame_bytes()), (77, out.len() - 3));
            assert_eq!(decode_response(&header, rest), Ok(corelog_wire::Response::Error(body)));
        }
    }
}
