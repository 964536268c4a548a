//! Whatever a client or broker can say arrives as it was said.

use std::num::NonZeroU64;

use corelog_model::{Durability, LogId, ProducerId, Retention, RetentionChange, Term, TopicId};
use corelog_wire::{
    ApiVersions, At, DamagedRange, Endpoint, ErrorBody, ErrorCode, Frame, Hello, HelloReply, MetadataReply,
    PartitionPlace, PositionView, PositionsReply, Request, Response, Split, Status, TopicView, Which,
    decode_request, decode_response, encode_request, split,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::samples::{CALL, only_frame, request_frame, requests, response_frame};

fn arrives(request: Request<'_>) -> Result<(), TestCaseError> {
    let bytes = request_frame(&request);
    prop_assert!(bytes.len().is_multiple_of(16), "{} bytes", bytes.len());
    let frame = only_frame(&bytes);
    prop_assert_eq!(frame.header.handle, request.handle());
    prop_assert_eq!(decode_request(&frame.header, frame.body), Ok(request));
    Ok(())
}

fn comes_back(response: Response<'_>) -> Result<(), TestCaseError> {
    let bytes = response_frame(&response);
    prop_assert!(bytes.len().is_multiple_of(16), "{} bytes", bytes.len());
    let frame = only_frame(&bytes);
    prop_assert_eq!(decode_response(&frame.header, frame.body), Ok(response));
    Ok(())
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![Just(Durability::Durable), Just(Durability::Written), Just(Durability::Memory)]
}

fn at() -> impl Strategy<Value = At> {
    prop_oneof![Just(At::Start), Just(At::End), any::<u64>().prop_map(At::Time)]
}

fn error_code() -> impl Strategy<Value = ErrorCode> {
    (any::<u16>(), any::<bool>())
        .prop_map(|(number, retryable)| ErrorCode::from_number(number % 100, retryable))
}

fn served() -> impl Strategy<Value = Vec<ApiVersions>> {
    vec(
        (any::<u16>(), any::<u8>(), any::<u8>()).prop_map(|(api, min, max)| ApiVersions::new(api, min, max)),
        0..40,
    )
}

type OwnedTopic = (String, u128, Durability, Vec<(u16, u32)>);

fn topics() -> impl Strategy<Value = Vec<OwnedTopic>> {
    let partitions = vec((any::<u16>(), any::<u32>()), 0..9);
    vec((".{0,20}", any::<u128>(), durability(), partitions), 0..6)
}

#[test]
fn batches_of_a_stream_all_start_on_a_multiple_of_16() {
    let mut stream = Vec::new();
    for (_, request) in requests() {
        encode_request(&request, CALL, &mut stream);
    }
    let mut rest = &stream[..];
    let mut payloads = 0;
    while let Ok(Split::Frame(Frame { header, body })) = split(rest, 1 << 20) {
        let request = decode_request(&header, body).expect("a sample");
        if !request.payload().is_empty() {
            let at = request.payload().as_ptr().addr() - stream.as_ptr().addr();
            assert!(at.is_multiple_of(16), "a batch at {at}");
            payloads += 1;
        }
        rest = &rest[header.frame_bytes()..];
    }
    assert_eq!((rest.len(), payloads), (0, 2), "the whole stream was read");
}

proptest! {
    #[test]
    fn hello(client in ".{0,40}", client_version in ".{0,20}", max_frame_bytes: u32) {
        arrives(Request::Hello(Hello { client: &client, client_version: &client_version, max_frame_bytes }))?;
    }

    #[test]
    fn metadata(topic in option::of(".{0,300}")) {
        arrives(Request::Metadata { topic: topic.as_deref() })?;
    }

    #[test]
    fn create_and_delete(
        name in ".{0,300}", partitions: u32, durability in durability(), time_us: Option<u64>, bytes: Option<u64>,
    ) {
        let retention = RetentionChange { time_us, bytes };
        arrives(Request::CreateTopic { name: &name, partitions, durability, retention })?;
        arrives(Request::DeleteTopic { name: &name })?;
        let (some, none) = (Some(partitions), Some(durability));
        for (partitions, durability) in [(some, none), (some, None), (None, none), (None, None)] {
            arrives(Request::AlterTopic { name: &name, partitions, durability, retention })?;
        }
    }

    #[test]
    fn open(handle in 1u32..=65_535, topic: u128, partition: u32) {
        arrives(Request::Open { handle, topic: TopicId(topic), partition })?;
    }

    #[test]
    fn produce(handle: u32, expected_offset: Option<u64>, batches in vec(any::<u8>(), 0..200)) {
        arrives(Request::Produce { handle, expected_offset, batches: &batches })?;
    }

    #[test]
    fn fetch(handle: u32, offset: u64, epoch: Option<u32>, bytes: (u32, u32), max_wait_us: u64) {
        let leader_epoch = epoch.map(Term);
        let (max_bytes, min_bytes) = bytes;
        arrives(Request::Fetch { handle, offset, leader_epoch, max_bytes, min_bytes, max_wait_us })?;
    }

    #[test]
    fn subscribe(handle: u32, offset: u64, epoch: Option<u32>, bytes: (u32, u32), ends: bool) {
        let leader_epoch = epoch.map(Term);
        let (max_bytes, credit) = bytes;
        arrives(Request::Subscribe { handle, offset, leader_epoch, max_bytes, credit })?;
        arrives(Request::Credit { handle, bytes: credit, ends })?;
    }

    #[test]
    fn offset_for_time(handle: u32, at in at()) {
        arrives(Request::OffsetForTime { handle, at })?;
    }

    #[test]
    fn commit_position(
        handle: u32, name in ".{0,300}", offset: u64, epoch: Option<u32>, metadata in ".{0,300}",
    ) {
        let (name, metadata, leader_epoch) = (name.as_str(), metadata.as_str(), epoch.map(Term));
        arrives(Request::CommitPosition { handle, name, offset, leader_epoch, metadata })?;
        arrives(Request::DeletePosition { handle, name })?;
        arrives(Request::DeleteRecords { handle, before_offset: offset })?;
        arrives(Request::ReadPositions { handle, which: Which::One(name) })?;
        arrives(Request::ReadPositions { handle, which: Which::After(name) })?;
    }

    #[test]
    fn positions_reply(
        cursors: (u64, u64), more: bool,
        positions in vec((".{1,30}", any::<u64>(), any::<Option<u32>>(), any::<u64>(), ".{0,30}"), 1..6),
    ) {
        let (log_start, high_watermark) = cursors;
        let positions = positions.iter().map(|(name, offset, epoch, commit_timestamp_us, metadata)| PositionView {
            name,
            offset: *offset,
            leader_epoch: epoch.map(Term),
            commit_timestamp_us: *commit_timestamp_us,
            metadata,
        });
        let positions = positions.collect();
        comes_back(Response::Positions(PositionsReply { log_start, high_watermark, more, positions }))?;
    }

    #[test]
    fn hello_reply(server in ".{0,40}", store: u64, term: u32, bytes: (u32, u32), served in served()) {
        let (max_frame_bytes, max_batch_bytes) = bytes;
        let reply = HelloReply { server: &server, store, term: Term(term), max_frame_bytes, max_batch_bytes, served: &served };
        comes_back(Response::Hello(reply))?;
    }

    #[test]
    fn metadata_reply(
        version: u64, logs: u16, endpoints in vec((".{0,30}", any::<u16>()), 1..5), topics in topics(),
        damage in vec((any::<u32>(), any::<u64>(), any::<u64>()), 0..4), kept: (u64, u64),
    ) {
        let damage: Vec<DamagedRange> =
            damage.into_iter().map(|(partition, first, last)| DamagedRange::new(partition, first, last)).collect();
        let place = |&(log, epoch): &(u16, u32)| {
            PartitionPlace::new(log % endpoints.len() as u16, LogId(log), Term(epoch))
        };
        let places: Vec<Vec<PartitionPlace>> =
            topics.iter().map(|(.., partitions)| partitions.iter().map(place).collect()).collect();
        let topics = topics.iter().zip(&places).map(|((name, topic, durability, _), partitions)| {
            let retention = Retention { time_us: NonZeroU64::new(kept.0 / 2), bytes: NonZeroU64::new(kept.1 / 2) };
            TopicView { name, topic: TopicId(*topic), durability: *durability, retention, partitions, damage: &damage }
        });
        let endpoints = endpoints.iter().map(|(host, port)| Endpoint { host, port: *port });
        let reply = MetadataReply { version, logs, endpoints: endpoints.collect(), topics: topics.collect() };
        comes_back(Response::Metadata(reply))?;
    }

    #[test]
    fn topic_created(topic: u128) {
        comes_back(Response::TopicCreated { topic: TopicId(topic) })?;
    }

    #[test]
    fn opened(
        topic: u128, partition: u32, log_start: u64, high_watermark: u64, epoch: u32, durability in durability(),
    ) {
        let (topic, leader_epoch) = (TopicId(topic), Term(epoch));
        comes_back(Response::Opened { topic, partition, log_start, high_watermark, leader_epoch, durability })?;
    }

    #[test]
    fn produced(base_offset: u64, append_timestamp_us: u64, log_start: u64, batches: u32) {
        comes_back(Response::Produced { base_offset, append_timestamp_us, log_start, batches })?;
    }

    #[test]
    fn fetched(log_start: u64, high_watermark: u64, epoch: u32, batches in vec(any::<u8>(), 0..200)) {
        comes_back(Response::Fetched { log_start, high_watermark, leader_epoch: Term(epoch), batches: &batches })?;
    }

    #[test]
    fn pushed(
        log_start: u64, high_watermark: u64, epoch: u32, is_last: bool, batches in vec(any::<u8>(), 0..200),
    ) {
        let leader_epoch = Term(epoch);
        comes_back(Response::Pushed { log_start, high_watermark, leader_epoch, is_last, batches: &batches })?;
        comes_back(Response::Credited)?;
    }

    #[test]
    fn offset_found(offset: u64, timestamp_us: Option<u64>) {
        comes_back(Response::OffsetFound { offset, timestamp_us })?;
    }

    #[test]
    fn producer_id(id: u64, epoch: u16) {
        comes_back(Response::ProducerId { id: ProducerId(id), epoch })?;
    }

    #[test]
    fn status(mode: u64, frames: u64, records: u64, bytes_accepted: u64, hiccup_max_us: u64) {
        let status = Status { mode, frames, records, bytes_accepted, hiccup_max_us, ..Status::default() };
        comes_back(Response::Status(Box::new(status)))?;
    }

    #[test]
    fn error(
        code in error_code(), retry_after_us: u32, details: [u64; 2], message in ".{0,200}", served in served(),
    ) {
        comes_back(Response::Error(ErrorBody { code, retry_after_us, details, message: &message, served: &served }))?;
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..400)) {
        crate::fuzz::wire_stream::check(&bytes);
        crate::fuzz::wire_message::check(&bytes);
    }
}
