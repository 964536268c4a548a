//! What a peer can do wrong: each row says which answer it gets, whether its connection lives on, and that nobody
//! else notices.

use crate::peer::{Peer, batch};
use corelog_model::{Durability, TopicId};
use corelog_testing::Broker;
use corelog_wire::{Call, ErrorCode, Hello, Request, encode_request};

/// A request of this topic as bytes, to be damaged.
fn produce(topic: TopicId, partition: u32) -> Vec<u8> {
    let batches = batch(topic, partition, &[b"a record".to_vec(), b"another one".to_vec()]);
    request(&Request::Produce { handle: 1, expected_offset: None, batches: &batches })
}

fn request(request: &Request<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_request(request, Call { correlation: 99, version: 1 }, &mut bytes);
    bytes
}

fn fetch(offset: u64, max_wait_us: u64) -> Request<'static> {
    Request::Fetch { handle: 1, offset, leader_epoch: None, max_bytes: 1 << 20, min_bytes: 1, max_wait_us }
}

/// Where the first batch of a produce request starts: its magic says so.
fn batch_start(bytes: &[u8]) -> usize {
    (0..bytes.len())
        .step_by(16)
        .find(|&at| bytes[at..].starts_with(b"CLB1") || bytes[at..].starts_with(b"1BLC"))
        .expect("a batch in the request")
}

fn damaged(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 0x40;
    bytes
}

fn with_length(mut bytes: Vec<u8>, length: u32) -> Vec<u8> {
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// What becomes of the connection after the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum After {
    Open,
    Closed,
}

#[test]
fn each_mistake_has_its_answer_and_harms_nobody_else() {
    let broker = Broker::start().expect("a broker");
    let mut neighbour = Peer::connect(broker.address());
    let topic = neighbour.create_topic("orders", 2, Durability::Durable);
    let stale = TopicId(topic.0 ^ 1);
    neighbour.open(1, topic, 1);
    let good = || produce(topic, 0);
    let start = batch_start(&good());
    let hello = Hello { client: "again", client_version: "1", max_frame_bytes: 1 << 20 };
    let rows: Vec<(&str, Vec<u8>, ErrorCode, After)> = vec![
        ("a length below a header", with_length(good(), 16), ErrorCode::MalformedRequest, After::Closed),
        ("a length that is not aligned", with_length(good(), 65), ErrorCode::MalformedRequest, After::Closed),
        ("a frame beyond the limit", with_length(good(), 1 << 30), ErrorCode::FrameTooLarge, After::Closed),
        ("parts that do not add up", with_length(good(), 48), ErrorCode::MalformedRequest, After::Closed),
        ("an unknown api", damaged(good(), 9), ErrorCode::UnsupportedVersion, After::Open),
        ("an unknown version", damaged(good(), 10), ErrorCode::UnsupportedVersion, After::Open),
        ("a handle never opened", damaged(good(), 12), ErrorCode::UnknownHandle, After::Open),
        ("a second Hello", request(&Request::Hello(hello)), ErrorCode::MalformedRequest, After::Open),
        ("a damaged batch header", damaged(good(), start + 40), ErrorCode::CorruptBatch, After::Open),
        ("a damaged batch body", damaged(good(), start + 100), ErrorCode::CorruptBatch, After::Open),
        ("the batch of another partition", produce(topic, 1), ErrorCode::CorruptBatch, After::Open),
        (
            "a topic that never was",
            request(&Request::Open { handle: 2, topic: stale, partition: 0 }),
            ErrorCode::UnknownTopicId,
            After::Open,
        ),
        (
            "a partition too many",
            request(&Request::Open { handle: 2, topic, partition: 2 }),
            ErrorCode::UnknownPartition,
            After::Open,
        ),
        (
            "an offset that is not there",
            request(&fetch(1_000_000, 0)),
            ErrorCode::OffsetOutOfRange,
            After::Open,
        ),
        (
            "a name no topic has",
            request(&Request::DeleteTopic { name: "nobody" }),
            ErrorCode::UnknownTopic,
            After::Open,
        ),
        (
            "a name no topic may have",
            request(&Request::CreateTopic { name: "a b", partitions: 1, durability: Durability::Durable }),
            ErrorCode::InvalidTopicName,
            After::Open,
        ),
    ];
    let mut expected = 0;
    for (what, bytes, code, after) in rows {
        let mut peer = Peer::connect(broker.address());
        peer.open(1, topic, 0);
        peer.send_bytes(&bytes);
        assert_eq!(peer.receive().expect(what).error(), Some(code), "{what}");
        match after {
            After::Open => assert_eq!(peer.ask(&Request::Ping).error(), None, "{what}: goes on"),
            After::Closed => assert!(peer.is_closed(), "{what}: ends"),
        }
        assert_eq!(neighbour.produce(1, &batch(topic, 1, &[vec![7; 100]])), Ok(expected), "after {what}");
        expected += 1;
    }
    let (records, high_watermark) = neighbour.fetch(1, 0, 1 << 20).expect("readable");
    assert_eq!((records.len() as u64, high_watermark), (expected, expected), "nothing acknowledged is lost");
}

#[test]
fn nothing_but_ping_is_served_before_hello() {
    let broker = Broker::start().expect("a broker");
    let mut peer = Peer::silent(broker.address());
    assert_eq!(peer.ask(&Request::Ping).error(), None);
    assert_eq!(peer.ask(&Request::Status).error(), Some(ErrorCode::HelloRequired));
    let long = vec![0; 32 << 10];
    peer.send_bytes(&request(&Request::Produce { handle: 1, expected_offset: None, batches: &long }));
    assert_eq!(
        peer.receive().expect("an answer").error(),
        Some(ErrorCode::FrameTooLarge),
        "16 KiB before Hello"
    );
    assert!(peer.is_closed());
}

#[test]
fn a_silent_peer_is_closed_and_a_talking_one_is_not() {
    let broker = Broker::builder().set("limits.handshake_ms=50").start().expect("a broker");
    let mut talking = Peer::connect(broker.address());
    let mut silent = Peer::silent(broker.address());
    assert!(silent.is_closed(), "no Hello in time");
    let mut half = Peer::silent(broker.address());
    half.send_bytes(&[0; 7]);
    assert!(half.is_closed(), "half a header is no Hello");
    assert_eq!(talking.ask(&Request::Ping).error(), None);
    assert_eq!(talking.status().connections, 1, "their slots are free again");
}

#[test]
fn a_half_sent_request_and_an_idle_connection_end_when_their_time_is_over() {
    let broker =
        Broker::builder().set("limits.stalled_ms=50").set("limits.idle_ms=200").start().expect("a broker");
    let mut half = Peer::connect(broker.address());
    half.send_bytes(&request(&Request::Status)[..20]);
    assert!(half.is_closed());
    let mut idle = Peer::connect(broker.address());
    assert!(idle.is_closed());
    let mut waiting = Peer::connect(broker.address());
    let topic = waiting.create_topic("orders", 1, Durability::Durable);
    waiting.open(1, topic, 0);
    assert_eq!(waiting.ask(&fetch(0, 600_000)).error(), None, "who waits for data is not idle");
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    let broker = Broker::start().expect("a broker");
    let mut peer = Peer::connect(broker.address());
    let topic = peer.create_topic("orders", 1, Durability::Durable);
    peer.open(1, topic, 0);
    for byte in produce(topic, 0) {
        peer.send_bytes(&[byte]);
    }
    assert_eq!(peer.receive().expect("an answer").error(), None);
}

#[test]
fn a_flag_that_may_be_ignored_is_ignored() {
    let broker = Broker::start().expect("a broker");
    let mut peer = Peer::connect(broker.address());
    let topic = peer.create_topic("orders", 1, Durability::Durable);
    peer.open(1, topic, 0);
    peer.send_bytes(&damaged(produce(topic, 0), 11));
    assert_eq!(peer.receive().expect("an answer").error(), None);
}
