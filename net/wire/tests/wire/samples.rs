//! One value of every message, with a different number in every field so that two swapped fields are noticed.

use std::num::NonZeroU64;

use corelog_model::{Durability, LogId, ProducerId, Retention, RetentionChange, Term, TopicId};
use corelog_wire::{
    ApiVersions, At, Call, DamagedRange, Endpoint, ErrorBody, ErrorCode, Frame, Hello, HelloReply,
    MetadataReply, PartitionPlace, PositionView, PositionsReply, ReplyTo, Request, Response, Split, Status,
    TopicView, Which, encode_request, encode_response, split,
};

/// How the samples are called.
pub(crate) const CALL: Call = Call { correlation: 0x1122_3344_5566_7788, version: 1 };

const TOPIC: TopicId = TopicId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);

const fn bytes_0_to_95() -> [u8; 96] {
    let mut bytes = [0; 96];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
}

/// Stands for a batch: to this codec a payload is bytes.
pub(crate) static BATCH: [u8; 96] = bytes_0_to_95();

/// Not the list of this build, which grows: golden bytes stay.
static SERVED: [ApiVersions; 2] = [ApiVersions::new(1, 1, 1), ApiVersions::new(8, 1, 3)];

static PLACES: [PartitionPlace; 3] = [
    PartitionPlace::new(0, LogId(0), Term(7)),
    PartitionPlace::new(1, LogId(1), Term(8)),
    PartitionPlace::new(0, LogId(2), Term(9)),
];

static DAMAGE: [DamagedRange; 2] = [DamagedRange::new(1, 1_000_001, 1_000_009), DamagedRange::new(2, 3, 3)];

/// Every request, by the name of its golden file.
pub(crate) fn requests() -> Vec<(&'static str, Request<'static>)> {
    let hello = Hello { client: "corelog-rust", client_version: "0.1.0", max_frame_bytes: 2 << 20 };
    vec![
        ("hello", Request::Hello(hello)),
        ("ping", Request::Ping),
        ("metadata-all", Request::Metadata { topic: None }),
        ("metadata-one", Request::Metadata { topic: Some("flights") }),
        ("create-topic", create(RetentionChange::NONE)),
        ("delete-topic", Request::DeleteTopic { name: "flights" }),
        ("open", Request::Open { handle: 258, topic: TOPIC, partition: 5 }),
        ("produce", Request::Produce { handle: 258, expected_offset: None, batches: &BATCH }),
        ("produce-conditional", Request::Produce { handle: 258, expected_offset: Some(0), batches: &BATCH }),
        ("fetch", fetch(Some(Term(3)))),
        ("fetch-no-epoch", fetch(None)),
        ("offset-start", Request::OffsetForTime { handle: 258, at: At::Start }),
        ("offset-end", Request::OffsetForTime { handle: 258, at: At::End }),
        ("offset-time", Request::OffsetForTime { handle: 258, at: At::Time(1_795_000_000_000_000) }),
        ("producer-id", Request::ProducerId),
        ("status", Request::Status),
        ("subscribe", subscribe(Some(Term(3)))),
        ("subscribe-no-epoch", subscribe(None)),
        ("credit", Request::Credit { handle: 258, bytes: 1 << 21, ends: false }),
        ("credit-end", Request::Credit { handle: 258, bytes: 0, ends: true }),
        ("commit-position", commit(Some(Term(3)), "")),
        ("commit-position-note", commit(None, "worker-7: größe")),
        ("read-position", Request::ReadPositions { handle: 258, which: Which::One("billing") }),
        ("read-positions", Request::ReadPositions { handle: 258, which: Which::After("billing") }),
        ("delete-position", Request::DeletePosition { handle: 258, name: "billing" }),
        ("delete-records", Request::DeleteRecords { handle: 258, before_offset: 0x0102_0304_0506 }),
        ("alter-topic", alter(Some(12), Some(Durability::Memory))),
        ("alter-topic-partitions", alter(Some(12), None)),
        ("alter-topic-durability", alter(None, Some(Durability::Written))),
        ("create-topic-retention", create(KEPT)),
        ("alter-topic-retention", alter_retention()),
    ]
}

const fn commit(leader_epoch: Option<Term>, metadata: &'static str) -> Request<'static> {
    Request::CommitPosition { handle: 258, name: "billing", offset: 1_000_001, leader_epoch, metadata }
}

const fn alter(partitions: Option<u32>, durability: Option<Durability>) -> Request<'static> {
    let retention = RetentionChange::NONE;
    Request::AlterTopic { name: "flights", partitions, durability, retention }
}

const KEPT: RetentionChange = RetentionChange { time_us: Some(604_800_000_000), bytes: Some(1 << 30) };

const fn create(retention: RetentionChange) -> Request<'static> {
    Request::CreateTopic { name: "flights", partitions: 6, durability: Durability::Written, retention }
}

const fn alter_retention() -> Request<'static> {
    let retention = RetentionChange { time_us: Some(0), bytes: Some(1 << 31) };
    Request::AlterTopic { name: "flights", partitions: None, durability: None, retention }
}

const fn fetch(leader_epoch: Option<Term>) -> Request<'static> {
    Request::Fetch {
        handle: 258,
        offset: 1_000_001,
        leader_epoch,
        max_bytes: 1 << 20,
        min_bytes: 17,
        max_wait_us: 500_000,
    }
}

const fn subscribe(leader_epoch: Option<Term>) -> Request<'static> {
    Request::Subscribe { handle: 258, offset: 1_000_001, leader_epoch, max_bytes: 1 << 20, credit: 3 << 20 }
}

/// Every response, by the name of its golden file.
pub(crate) fn responses() -> Vec<(&'static str, Response<'static>)> {
    let offset = 1_000_001;
    vec![
        ("hello", Response::Hello(hello_reply())),
        ("ping", Response::Pong),
        ("metadata", Response::Metadata(metadata())),
        ("metadata-retention", Response::Metadata(metadata_with_retention())),
        ("metadata-damage", Response::Metadata(metadata_with_damage())),
        ("create-topic", Response::TopicCreated { topic: TOPIC }),
        ("delete-topic", Response::TopicDeleted),
        (
            "alter-topic",
            Response::TopicAltered { topic: TOPIC, partitions: 12, durability: Durability::Memory },
        ),
        ("open", opened()),
        ("produce", produced()),
        ("fetch", fetched(&BATCH)),
        ("fetch-nothing", fetched(&[])),
        ("offset", Response::OffsetFound { offset, timestamp_us: Some(1_795_000_000_000_001) }),
        ("offset-untimed", Response::OffsetFound { offset, timestamp_us: None }),
        ("producer-id", Response::ProducerId { id: ProducerId(0x0102_0304_0506_0708), epoch: 9 }),
        ("status", Response::Status(Box::new(status()))),
        ("subscribe", pushed(&BATCH, false)),
        ("subscribe-begun", pushed(&[], false)),
        ("subscribe-last", pushed(&[], true)),
        ("credit", Response::Credited),
        ("commit-position", Response::PositionCommitted),
        ("read-positions", Response::Positions(positions())),
        ("read-positions-none", Response::Positions(no_positions())),
        ("delete-position", Response::PositionDeleted),
        ("delete-records", Response::RecordsDeleted { log_start: 0x0102_0304_0507 }),
        ("error", Response::Error(refusal())),
        ("error-unsupported", Response::Error(unsupported())),
    ]
}

fn hello_reply() -> HelloReply<'static> {
    HelloReply {
        server: "corelog 0.1.0",
        store: 0xa1a2_a3a4_a5a6_a7a8,
        term: Term(7),
        max_frame_bytes: 2 << 20,
        max_batch_bytes: (1 << 20) + (64 << 10),
        served: &SERVED,
    }
}

fn metadata() -> MetadataReply<'static> {
    let topic = |name, id, partitions| TopicView {
        name,
        topic: TopicId(id),
        durability: Durability::Memory,
        retention: Retention::default(),
        partitions,
        damage: &[],
    };
    MetadataReply {
        version: 42,
        logs: 3,
        endpoints: vec![
            Endpoint { host: "127.0.0.1", port: 9600 },
            Endpoint { host: "broker.example", port: 9601 },
        ],
        topics: vec![topic("flights", TOPIC.0, &PLACES), topic("weather", 2, &PLACES[1..2])],
    }
}

fn metadata_with_damage() -> MetadataReply<'static> {
    let mut metadata = metadata();
    metadata.topics[0].damage = &DAMAGE;
    metadata
}

fn metadata_with_retention() -> MetadataReply<'static> {
    let mut metadata = metadata();
    metadata.topics[0].retention =
        Retention { time_us: NonZeroU64::new(604_800_000_000), bytes: NonZeroU64::new(1 << 30) };
    metadata.topics[1].retention.bytes = NonZeroU64::new(77);
    metadata
}

const fn opened() -> Response<'static> {
    Response::Opened {
        topic: TOPIC,
        partition: 5,
        log_start: 100,
        high_watermark: 2_000,
        leader_epoch: Term(7),
        durability: Durability::Written,
    }
}

const fn produced() -> Response<'static> {
    Response::Produced {
        base_offset: 1_000_001,
        append_timestamp_us: 1_795_000_000_000_000,
        log_start: 100,
        batches: 3,
    }
}

const fn fetched(batches: &'static [u8]) -> Response<'static> {
    Response::Fetched { log_start: 100, high_watermark: 2_000, leader_epoch: Term(7), batches }
}

const fn pushed(batches: &'static [u8], is_last: bool) -> Response<'static> {
    Response::Pushed { log_start: 100, high_watermark: 2_000, leader_epoch: Term(7), is_last, batches }
}

const fn no_positions() -> PositionsReply<'static> {
    PositionsReply { log_start: 100, high_watermark: 2_000, more: false, positions: Vec::new() }
}

fn positions() -> PositionsReply<'static> {
    let first = PositionView {
        name: "audit: größe",
        offset: 1_001,
        leader_epoch: None,
        commit_timestamp_us: 1_795_000_000_000_002,
        metadata: "worker-7",
    };
    let leader_epoch = Some(Term(6));
    let second = PositionView { name: "billing", offset: 1_002, leader_epoch, metadata: "", ..first };
    PositionsReply { more: true, positions: vec![first, second], ..no_positions() }
}

fn status() -> Status {
    Status { uptime_us: 1, frames: 2, records: u64::MAX, hiccup_max_us: 4, ..Status::default() }
}

const fn refusal() -> ErrorBody<'static> {
    let body = ErrorBody::new(ErrorCode::StorageFull, "the disk is full");
    ErrorBody { retry_after_us: 250_000, details: [11, 12], ..body }
}

const fn unsupported() -> ErrorBody<'static> {
    let body = ErrorBody::new(ErrorCode::UnsupportedVersion, "api 8 version 9 is not served");
    ErrorBody { details: [8, 9], served: &SERVED, ..body }
}

/// The whole frame of a request.
pub(crate) fn request_frame(request: &Request<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let call = Call { version: request.version(), ..CALL };
    let length = encode_request(request, call, &mut bytes);
    assert_eq!(length, bytes.len());
    bytes
}

/// The whole frame of a response.
pub(crate) fn response_frame(response: &Response<'_>) -> Vec<u8> {
    let api = response.api().map_or(8, |api| api as u16);
    let to = ReplyTo { api, version: 1, handle: 258, correlation: CALL.correlation };
    let mut bytes = Vec::new();
    let length = encode_response(response, to, &mut bytes);
    assert_eq!(length, bytes.len());
    bytes
}

/// The one frame that `bytes` is.
pub(crate) fn only_frame(bytes: &[u8]) -> Frame<'_> {
    match split(bytes, 64 << 20) {
        Ok(Split::Frame(frame)) if frame.header.frame_bytes() == bytes.len() => frame,
        other => panic!("not one whole frame: {other:?}"),
    }
}

/// `frame` with its head replaced and the lengths made to fit; its payload stays.
pub(crate) fn with_head(frame: &[u8], head: &[u8]) -> Vec<u8> {
    let old = only_frame(frame).header;
    let payload = &frame[frame.len() - (old.payload_bytes as usize).next_multiple_of(16)..];
    let mut bytes = vec![0; 32];
    bytes.extend_from_slice(head);
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    bytes.extend_from_slice(payload);
    let header =
        corelog_wire::FrameHeader { length: bytes.len() as u32, head_bytes: head.len() as u32, ..old };
    bytes[..32].copy_from_slice(&header.encode());
    bytes
}

/// The head of a frame, without padding.
pub(crate) fn head_of(frame: &[u8]) -> &[u8] {
    &frame[32..32 + only_frame(frame).header.head_bytes as usize]
}
