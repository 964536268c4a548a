//! What a peer can do wrong: each row says which answer it gets, whether its connection lives on, and that nobody
//! else notices.

use std::slice;

use crate::peer::{From, Peer, batch, batch_from};
use crate::small_disk::SmallDisk;
use corelog_model::{Durability, ProducerId, RetentionChange, TopicId};
use corelog_testing::{Broker, Builder};
use corelog_wire::{Call, ErrorCode, Hello, Request, encode_request};

const MAX_BATCH_BYTES: usize = 64 << 10;
/// The value of a batch that is just below the limit.
const LARGE_VALUE_BYTES: usize = 60_000;
/// What a peer may take for its Hello and for the rest of a request, in milliseconds.
const SHORT_MS: u32 = 500;

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

/// A broker with its topic of two partitions, somebody who uses it properly, and all that was acknowledged.
struct Scene {
    broker: Broker,
    topic: TopicId,
    neighbour: Peer,
    /// The values of each partition.
    kept: [Vec<Vec<u8>>; 2],
}

/// What a peer does wrong, on a connection with partition 0 open as handle 1; or another one that it takes instead.
type Mistake = fn(&mut Peer, &mut Scene);

/// The name of a mistake, the mistake, what it is answered with, if at all, and what becomes of the connection.
type Row = (&'static str, Mistake, Option<ErrorCode>, After);

impl Scene {
    fn new(broker: Broker) -> Self {
        let mut neighbour = Peer::connect(broker.address());
        let topic = neighbour.create_topic("orders", 2, Durability::Durable);
        neighbour.open(1, topic, 0);
        neighbour.open(2, topic, 1);
        let mut scene = Self { broker, topic, neighbour, kept: [Vec::new(), Vec::new()] };
        for partition in 0..2 {
            assert_eq!(scene.go_on(partition), Ok(0));
        }
        scene
    }

    /// The neighbour appends to a partition.
    fn go_on(&mut self, partition: u32) -> Result<u64, ErrorCode> {
        let kept = &mut self.kept[partition as usize];
        let value = vec![kept.len() as u8; 100];
        let appended =
            self.neighbour.produce(1 + partition, &batch(self.topic, partition, slice::from_ref(&value)));
        if appended.is_ok() {
            kept.push(value);
        }
        appended
    }

    /// The broker dies and comes back, and the neighbour with it.
    fn restart(&mut self) {
        self.broker.kill().expect("killed");
        self.broker.restart().expect("started again");
        self.neighbour = Peer::connect(self.broker.address());
        self.neighbour.open(1, self.topic, 0);
        self.neighbour.open(2, self.topic, 1);
    }

    /// A request of partition 0 of its topic, to be damaged.
    fn produce(&self) -> Vec<u8> {
        produce(self.topic, 0)
    }

    /// Makes the mistake; the answer, and whether the connection lives on, are as they should be.
    fn judge(&mut self, (what, mistake, code, after): Row) {
        let mut peer = Peer::connect(self.broker.address());
        peer.open(1, self.topic, 0);
        mistake(&mut peer, self);
        if code.is_some() {
            assert_eq!(peer.receive().expect(what).error(), code, "{what}");
        }
        match after {
            After::Open => assert_eq!(peer.ask(&Request::Ping).error(), None, "{what}: goes on"),
            After::Closed => assert!(peer.is_closed(), "{what}: ends"),
        }
    }

    /// All that was acknowledged, and nothing else, is what the neighbour reads.
    fn assert_kept(&mut self, what: &str) {
        for (handle, kept) in (1..).zip(&self.kept) {
            let mut found = Vec::new();
            while found.len() < kept.len() {
                let (values, end) = self.neighbour.fetch(handle, found.len() as u64, 1 << 20).expect(what);
                assert_eq!(end, kept.len() as u64, "{what}: nothing is there that was not acknowledged");
                found.extend(values);
            }
            // Not assert_eq: of a full disk this is many megabytes.
            assert!(found == *kept, "{what}: nothing acknowledged is lost");
        }
    }
}

/// Sends a request that is damaged in its first batch.
fn damage_batch(peer: &mut Peer, scene: &Scene, at: usize) {
    let good = scene.produce();
    let start = batch_start(&good);
    peer.send_bytes(&damaged(good, start + at));
}

/// Frames that are none, or of which it cannot be told what they ask.
const FRAMES: [Row; 8] = [
    (
        "a length below a header",
        |peer, scene| peer.send_bytes(&with_length(scene.produce(), 16)),
        Some(ErrorCode::MalformedRequest),
        After::Closed,
    ),
    (
        "a length that is not aligned",
        |peer, scene| peer.send_bytes(&with_length(scene.produce(), 65)),
        Some(ErrorCode::MalformedRequest),
        After::Closed,
    ),
    (
        "a frame beyond the limit",
        |peer, scene| peer.send_bytes(&with_length(scene.produce(), 1 << 30)),
        Some(ErrorCode::FrameTooLarge),
        After::Closed,
    ),
    (
        "parts that do not add up",
        |peer, scene| peer.send_bytes(&with_length(scene.produce(), 48)),
        Some(ErrorCode::MalformedRequest),
        After::Closed,
    ),
    (
        "an unknown api",
        |peer, scene| peer.send_bytes(&damaged(scene.produce(), 9)),
        Some(ErrorCode::UnsupportedVersion),
        After::Open,
    ),
    (
        "an unknown version",
        |peer, scene| peer.send_bytes(&damaged(scene.produce(), 10)),
        Some(ErrorCode::UnsupportedVersion),
        After::Open,
    ),
    (
        "a second Hello",
        |peer, _| {
            let hello = Hello { client: "again", client_version: "1", max_frame_bytes: 1 << 20 };
            peer.send(&Request::Hello(hello));
        },
        Some(ErrorCode::MalformedRequest),
        After::Open,
    ),
    (
        "a frame cut off by the end",
        |peer, scene| {
            let good = scene.produce();
            peer.send_bytes(&good[..good.len() - 1]);
            peer.end_sending();
        },
        None,
        After::Closed,
    ),
];

/// Peers that leave the broker waiting.
const SLOW: [Row; 3] = [
    (
        "a request begun and not finished",
        |peer, scene| {
            let good = scene.produce();
            peer.send_bytes(&good[..good.len() - 1]);
        },
        None,
        After::Closed,
    ),
    ("no Hello", |peer, scene| *peer = Peer::silent(scene.broker.address()), None, After::Closed),
    (
        "half a Hello",
        |peer, scene| {
            *peer = Peer::silent(scene.broker.address());
            peer.send_bytes(&[0; 7]);
        },
        None,
        After::Closed,
    ),
];

/// Places that are not there.
const PLACES: [Row; 8] = [
    (
        "a handle never opened",
        |peer, scene| peer.send_bytes(&damaged(scene.produce(), 12)),
        Some(ErrorCode::UnknownHandle),
        After::Open,
    ),
    (
        "a topic that never was",
        |peer, scene| {
            peer.send(&Request::Open { handle: 2, topic: TopicId(scene.topic.0 ^ 1), partition: 0 });
        },
        Some(ErrorCode::UnknownTopicId),
        After::Open,
    ),
    (
        "a partition too many",
        |peer, scene| {
            peer.send(&Request::Open { handle: 2, topic: scene.topic, partition: 2 });
        },
        Some(ErrorCode::UnknownPartition),
        After::Open,
    ),
    (
        "a handle of a topic that was deleted and created again",
        |peer, _| {
            let old = create_again(peer, "again");
            let batches = batch(old, 0, &[b"late".to_vec()]);
            peer.send(&Request::Produce { handle: 2, expected_offset: None, batches: &batches });
        },
        Some(ErrorCode::UnknownTopicId),
        After::Open,
    ),
    (
        "an offset that is not there",
        |peer, _| {
            peer.send(&fetch(1_000_000, 0));
        },
        Some(ErrorCode::OffsetOutOfRange),
        After::Open,
    ),
    (
        "a name no topic has",
        |peer, _| {
            peer.send(&Request::DeleteTopic { name: "nobody" });
        },
        Some(ErrorCode::UnknownTopic),
        After::Open,
    ),
    (
        "a name no topic may have",
        |peer, _| {
            peer.send(&Request::CreateTopic {
                name: "a b",
                partitions: 1,
                durability: Durability::Durable,
                retention: RetentionChange::NONE,
            });
        },
        Some(ErrorCode::InvalidTopicName),
        After::Open,
    ),
    (
        "a name that is taken",
        |peer, _| {
            let durability = Durability::Durable;
            peer.send(&Request::CreateTopic {
                name: "orders",
                partitions: 1,
                durability,
                retention: RetentionChange::NONE,
            });
        },
        Some(ErrorCode::TopicExists),
        After::Open,
    ),
];

/// Whole requests whose batch is none, or is not for here.
const BATCHES: [Row; 7] = [
    (
        "a damaged batch header",
        |peer, scene| damage_batch(peer, scene, 40),
        Some(ErrorCode::CorruptBatch),
        After::Open,
    ),
    (
        "a damaged batch body",
        |peer, scene| damage_batch(peer, scene, 100),
        Some(ErrorCode::CorruptBatch),
        After::Open,
    ),
    (
        "bytes that are no batch",
        |peer, scene| damage_batch(peer, scene, 0),
        Some(ErrorCode::CorruptBatch),
        After::Open,
    ),
    (
        "a batch cut short in a whole frame",
        |peer, scene| {
            let whole = batch(scene.topic, 0, &[b"a record".to_vec()]);
            let batches = &whole[..whole.len() - 16];
            peer.send(&Request::Produce { handle: 1, expected_offset: None, batches });
        },
        Some(ErrorCode::CorruptBatch),
        After::Open,
    ),
    (
        "a batch beyond the limit",
        |peer, scene| {
            let batches = batch(scene.topic, 0, &[vec![7; MAX_BATCH_BYTES]]);
            peer.send(&Request::Produce { handle: 1, expected_offset: None, batches: &batches });
        },
        Some(ErrorCode::BatchTooLarge),
        After::Open,
    ),
    (
        "the batch of another partition",
        |peer, scene| peer.send_bytes(&produce(scene.topic, 1)),
        Some(ErrorCode::CorruptBatch),
        After::Open,
    ),
    (
        "a batch for a topic that was deleted and created again",
        |peer, _| {
            let old = create_again(peer, "anew");
            let batches = batch(old, 0, &[b"late".to_vec()]);
            peer.send(&Request::Produce { handle: 3, expected_offset: None, batches: &batches });
        },
        Some(ErrorCode::CorruptBatch),
        After::Open,
    ),
];

/// Batches that are not their producer's next.
const SEQUENCES: [Row; 3] = [
    (
        "a gap in a producer's sequence",
        |peer, scene| {
            let producer = begin(peer, scene, 0);
            send_from(peer, scene, (producer, 0, 2));
        },
        Some(ErrorCode::OutOfOrderSequence),
        After::Open,
    ),
    (
        "the middle of a producer nobody knows",
        |peer, scene| {
            let producer = peer.producer_id();
            send_from(peer, scene, (producer, 0, 1));
        },
        Some(ErrorCode::UnknownProducerId),
        After::Open,
    ),
    (
        "an epoch that is over",
        |peer, scene| {
            let producer = begin(peer, scene, 1);
            send_from(peer, scene, (producer, 0, 1));
        },
        Some(ErrorCode::FencedProducerEpoch),
        After::Open,
    ),
];

/// The disk takes no more: what it holds is served, on this connection and on others.
const FULL_DISK: Row = (
    "a full disk",
    |peer, scene| {
        loop {
            let kept = &mut scene.kept[0];
            let value = vec![kept.len() as u8; LARGE_VALUE_BYTES];
            let batches = batch(scene.topic, 0, slice::from_ref(&value));
            match peer.produce(1, &batches) {
                Ok(offset) => assert_eq!(offset, kept.len() as u64),
                Err(code) => {
                    assert_eq!(code, ErrorCode::StorageFull);
                    peer.send(&Request::Produce { handle: 1, expected_offset: None, batches: &batches });
                    return;
                }
            }
            kept.push(value);
        }
    },
    Some(ErrorCode::StorageFull),
    After::Open,
);

/// Opens a topic as handle 2, deletes it, creates it again under its name and opens that as handle 3; the old id.
fn create_again(peer: &mut Peer, name: &str) -> TopicId {
    let old = peer.create_topic(name, 1, Durability::Durable);
    peer.open(2, old, 0);
    peer.delete_topic(name);
    let new = peer.create_topic(name, 1, Durability::Durable);
    assert_ne!(old, new);
    peer.open(3, new, 0);
    old
}

/// Appends the first record of a new producer in this epoch.
fn begin(peer: &mut Peer, scene: &mut Scene, epoch: u16) -> ProducerId {
    let producer = peer.producer_id();
    let value = b"its first record".to_vec();
    let batches = batch_from((producer, epoch, 0), scene.topic, 0, slice::from_ref(&value));
    assert_eq!(peer.produce(1, &batches), Ok(scene.kept[0].len() as u64));
    scene.kept[0].push(value);
    producer
}

fn send_from(peer: &mut Peer, scene: &Scene, from: From) {
    let batches = batch_from(from, scene.topic, 0, &[b"not the next".to_vec()]);
    peer.send(&Request::Produce { handle: 1, expected_offset: None, batches: &batches });
}

#[test]
fn each_mistake_has_its_answer_and_harms_nobody_else() {
    let settings = [
        format!("limits.max_batch_bytes={MAX_BATCH_BYTES}"),
        format!("limits.stalled_ms={SHORT_MS}"),
        format!("limits.handshake_ms={SHORT_MS}"),
    ];
    let broker = settings.into_iter().fold(Broker::builder(), Builder::set);
    let mut scene = Scene::new(broker.start().expect("a broker"));
    for row in FRAMES.into_iter().chain(SLOW).chain(PLACES).chain(BATCHES).chain(SEQUENCES) {
        let what = row.0;
        scene.judge(row);
        for partition in 0..2 {
            let end = scene.kept[partition as usize].len() as u64;
            assert_eq!(scene.go_on(partition), Ok(end), "after {what}: somebody else goes on");
        }
        scene.assert_kept(what);
    }
    scene.restart();
    scene.assert_kept("and the disk has it");
}

#[test]
fn a_full_disk_has_its_answer_and_harms_nobody_else() {
    let Some(disk) = SmallDisk::mount(48 << 20) else { return };
    let settings = ["log.extent_bytes=4 MiB".to_owned(), format!("limits.max_batch_bytes={MAX_BATCH_BYTES}")];
    let broker = settings.into_iter().fold(Broker::builder(), Builder::set);
    let mut scene = Scene::new(broker.directory(disk.path().join("store")).start().expect("a broker"));
    scene.judge(FULL_DISK);
    let bytes = scene.kept[0].len() * LARGE_VALUE_BYTES;
    assert!(bytes > 16 << 20, "{bytes} bytes: the disk was filled");
    // What is left of the last extent may still take something small.
    let small = scene.go_on(1);
    assert!(matches!(small, Ok(_) | Err(ErrorCode::StorageFull)), "{small:?}");
    scene.assert_kept("a full disk");
    scene.restart();
    scene.assert_kept("and after a start on it");
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
