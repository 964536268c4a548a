//! Stores of the released formats, kept as files: what was written once must be served for ever. The first has no
//! positions, the second is the same with positions.
//!
//! After a deliberate change of the format: a new store beside the old one, never a changed one.
//! `CORELOG_GOLDEN=write cargo test -p corelog-tests --test golden_store` writes the store that is missing.

#[path = "../../net/testing/tests/over_tcp/peer.rs"]
#[expect(dead_code, reason = "shared with tests that use all of it")]
mod peer;

mod kept;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use corelog_client::{
    Client, ClientConfig, ClientError, Codec, ConsumerConfig, Durability, ErrorCode, Partition, Partitions,
    Position, ProducerConfig, RecordRef, Topic,
};
use corelog_model::{ProducerId, TopicId};
use corelog_testing::{Broker, Builder};
use flate2::Compression;
use flate2::write::GzEncoder;

use kept::{builder, data, directory, files, unpack, writes};
use peer::{Peer, batch_from};

const GOLDEN: [(&str, Positions); 2] = [("store-1", Positions::None), ("store-2", Positions::Some)];
const EXTENT_BYTES: usize = 1 << 20;
/// The value of a record that takes room, so that an extent is closed and its index written.
const FILLER_BYTES: usize = 60_000;
const FILLERS: u64 = 30;
const TERMS: u32 = 2;
const MIDNIGHT_US: u64 = 1_795_305_600_000_000;

/// Whether a store has named positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Positions {
    None,
    Some,
}

fn broker(store: &Path) -> Broker {
    broker_with(store, &[])
}

fn broker_with(store: &Path, more: &[&'static str]) -> Broker {
    more.iter().copied().fold(builder(store), Builder::set).start().expect("it starts")
}

/// A record: key, value and headers.
type Kept = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Vec<u8>)>);

/// One of everything that a record can be, and lines that are worth compressing.
fn records(partition: u32) -> Vec<Kept> {
    let headers = vec![("trace-id".to_owned(), b"\x00\x01".to_vec()), ("größe".to_owned(), Vec::new())];
    let line =
        |n: u32| format!("{{\"partition\":{partition},\"number\":{n},\"carrier\":\"AA\"}}").into_bytes();
    let mut records = vec![
        (None, Some(b"no key".to_vec()), Vec::new()),
        (Some(b"key".to_vec()), Some(b"value".to_vec()), headers),
        (Some(Vec::new()), Some(Vec::new()), Vec::new()),
        (Some(b"deleted".to_vec()), None, Vec::new()),
    ];
    records.extend((0..40).map(|n| (Some(n.to_string().into_bytes()), Some(line(n)), Vec::new())));
    records
}

/// The codec of each partition of `orders`.
const CODECS: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];

/// What the raw producer has sent: one batch in each term.
fn sent(topic: TopicId, term: u32) -> Vec<u8> {
    let values: Vec<_> = (0..3).map(|n| format!("record {n} of term {term}").into_bytes()).collect();
    batch_from((ProducerId(1), 5, 3 * (term - 1)), topic, 0, &values)
}

/// Writes the store: two terms, a topic of each level, one that is gone, closed extents, a checkpoint; and where it is to
/// have them, positions in it and behind it, one of them forgotten.
fn write(store: &Path, positions: Positions) {
    for term in 1..=TERMS {
        let mut broker = broker(store);
        let mut peer = Peer::connect(broker.address());
        if term == 1 {
            assert_eq!(peer.producer_id(), ProducerId(1));
            for (name, partitions, level) in TOPICS {
                peer.create_topic(name, partitions, level);
            }
            peer.create_topic("gone", 2, Durability::Durable);
            peer.delete_topic("gone");
        }
        let (sequences, large) = (id(&mut peer, "sequences"), id(&mut peer, "large"));
        peer.open(1, sequences, 0);
        assert_eq!(peer.produce(1, &sent(sequences, term)), Ok(3 * u64::from(term - 1)));
        peer.open(2, large, 0);
        let first = FILLERS * u64::from(term - 1);
        for offset in first..first + FILLERS {
            let none = (ProducerId::NONE, 0, 0);
            assert_eq!(peer.produce(2, &batch_from(none, large, 0, &[filler(offset)])), Ok(offset));
        }
        if positions == Positions::Some {
            run(commit(&broker, term));
        }
        run(async {
            let client = connect(&broker).await;
            let orders = client.topic("orders").await.expect("it is there");
            for (partition, codec) in (0..).zip(CODECS).filter(|_| term == 1) {
                let producer = client.producer(ProducerConfig { codec, ..ProducerConfig::default() });
                append(&producer, &orders, partition).await;
            }
        });
        broker.stop().expect("it ends well");
    }
}

/// Those of the first term are in the checkpoint of the second, the others are behind it.
async fn commit(broker: &Broker, term: u32) {
    let client = connect(broker).await;
    let topic = client.topic("large").await.expect("it is there");
    for (name, offset, note) in POSITIONS.iter().filter(|(_, offset, _)| (*offset > FILLERS) == (term == 2)) {
        client.position(name, &topic).commit(0, *offset, note).await.expect("committed");
    }
    let forgotten = client.position("forgotten", &topic);
    match term {
        1 => forgotten.commit(0, 1, "").await.expect("committed"),
        _ => forgotten.delete(0).await.expect("deleted"),
    }
    if term == 1 {
        client.position("billing", &topic).commit(0, 1, "not the last one").await.expect("committed");
    }
}

/// Name, offset and note of the positions in `large`.
const POSITIONS: [(&str, u64, &str); 3] =
    [("audit, größe", 7, "worker 3"), ("billing", 2 * FILLERS, ""), ("search", FILLERS, "")];

/// The positions are where they were, and can be moved on.
async fn check_positions(broker: &Broker, positions: Positions) {
    let client = connect(broker).await;
    let topic = client.topic("large").await.expect("it is there");
    let found = client.positions(&topic).await.expect("served");
    let found: Vec<_> =
        found.iter().map(|one| (one.name.as_str(), one.offset, one.metadata.as_str())).collect();
    assert_eq!(found, if positions == Positions::Some { POSITIONS.to_vec() } else { Vec::new() });
    let search = client.position("search", &topic);
    let committed = search.commit(0, FILLERS + 1, "").await;
    if !broker.ready().expect("running").is_final {
        let deleted = client.delete_records(&topic, 0, 1).await;
        let Err(ClientError::Refused(refused)) = deleted else { panic!("{deleted:?}") };
        assert_eq!(refused.code, ErrorCode::NotFinal, "its version could not read that");
    }
    // A store of the second release has them, though not all that came later.
    if positions == Positions::None && !broker.ready().expect("running").is_final {
        let Err(ClientError::Refused(refused)) = committed else { panic!("{committed:?}") };
        return assert_eq!(refused.code, ErrorCode::NotFinal);
    }
    committed.expect("committed");
    assert_eq!(search.get(0).await.expect("served").map(|one| one.lag()), Some(FILLERS - 1));
}

const TOPICS: [(&str, u32, Durability); 3] = [
    ("large", 1, Durability::Memory),
    ("orders", 3, Durability::Durable),
    ("sequences", 1, Durability::Written),
];

fn filler(offset: u64) -> Vec<u8> {
    vec![offset as u8; FILLER_BYTES]
}

fn id(peer: &mut Peer, name: &str) -> TopicId {
    peer.topics().into_iter().find(|topic| topic.0 == name).expect("it is there").1
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

async fn connect(broker: &Broker) -> Client {
    Client::connect(ClientConfig::new([broker.address().to_string()])).await.expect("it serves")
}

async fn append(producer: &corelog_client::Producer, topic: &Topic, partition: u32) {
    for (n, (key, value, headers)) in (0..).zip(records(partition)) {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let record = RecordRef {
            key: key.as_deref(),
            value: value.as_deref(),
            timestamp_us: MIDNIGHT_US + n,
            headers: &headers,
        };
        producer.send(topic, Partition::Index(partition), record).await.expect("accepted");
    }
    producer.flush().await.expect("acknowledged");
}

/// Everything that was written is served by today's broker.
fn check(store: &Path, positions: Positions) {
    let mut broker = broker(store);
    assert_eq!(broker.ready().expect("running").term, TERMS + 1);
    let mut peer = Peer::connect(broker.address());
    let mut topics: Vec<_> =
        peer.topics().into_iter().map(|(name, _, partitions)| (name, partitions)).collect();
    topics.sort();
    let expected: Vec<_> = TOPICS.iter().map(|topic| (topic.0.to_owned(), topic.1 as usize)).collect();
    assert_eq!(topics, expected);
    check_sequences(&mut peer);
    let large = id(&mut peer, "large");
    peer.open(2, large, 0);
    for offset in 0..FILLERS * u64::from(TERMS) {
        let (values, end) = peer.fetch(2, offset, 1).expect("readable");
        assert!(values == [filler(offset)] && end == FILLERS * u64::from(TERMS), "record {offset}");
    }
    assert!(peer.status().cold_reads > 0, "some of it was found by the index");
    run(check_positions(&broker, positions));
    run(async {
        let client = connect(&broker).await;
        for (name, _, level) in TOPICS {
            assert_eq!(client.topic(name).await.expect("it is there").durability(), level);
        }
        let orders = client.topic("orders").await.expect("it is there");
        for partition in 0..3 {
            check_records(&client, &orders, partition).await;
            let time = Position::Time(MIDNIGHT_US + 20);
            let found = client.offset(&orders, partition, time).await.expect("served");
            assert!(found <= 20, "{found}: the record of that time comes after it");
        }
    });
    broker.stop().expect("it ends well");
}

/// The producer's last batches are known, its next one is appended, and who has read in which term is known too.
fn check_sequences(peer: &mut Peer) {
    let topic = id(peer, "sequences");
    assert_eq!(peer.open(1, topic, 0), (0, 6));
    for term in 1..=TERMS {
        let offset = 3 * u64::from(term - 1);
        assert_eq!(peer.produce(1, &sent(topic, term)), Ok(offset), "a repetition of term {term}");
    }
    assert_eq!(peer.open(1, topic, 0), (0, 6), "nothing was appended");
    let old = batch_from((ProducerId(1), 4, 6), topic, 0, &[b"an old instance".to_vec()]);
    assert_eq!(peer.produce(1, &old), Err(ErrorCode::FencedProducerEpoch));
    assert_eq!(peer.fetch_knowing(1, 6, 1), Err((ErrorCode::LogTruncated, 3)), "term 1 ended at 3");
    assert_eq!(peer.fetch_knowing(1, 6, 2), Ok(Vec::new()));
    assert_eq!(peer.produce(1, &sent(topic, 3)), Ok(6), "the next of its sequence");
    assert!(peer.producer_id() > ProducerId(1), "an id is never given twice");
}

async fn check_records(client: &Client, topic: &Topic, partition: u32) {
    let partitions = Partitions::Only(vec![partition]);
    let config = ConsumerConfig { partitions, ..ConsumerConfig::new(topic, Position::Start) };
    let mut consumer = client.consumer(config).await.expect("a consumer");
    let (expected, mut found) = (records(partition), Vec::new());
    while found.len() < expected.len() {
        let mut batch = consumer.next().await.expect("readable");
        assert_eq!(batch.header().leader_epoch.0, 1);
        for record in batch.records().expect("readable") {
            let n = found.len() as u64;
            assert_eq!((record.offset, record.timestamp_us), (n, MIDNIGHT_US + n));
            let bytes = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
            let headers = record.headers().map(|header| (header.0.to_owned(), header.1.to_vec()));
            found.push((bytes(record.key), bytes(record.value), headers.collect()));
        }
    }
    assert_eq!(found, expected, "partition {partition}");
}

fn pack(store: &Path, to: &Path) {
    for file in files(store) {
        let packed = to.join(format!("{}.gz", file.display()));
        fs::create_dir_all(packed.parent().expect("a folder")).expect("made");
        let mut writer = GzEncoder::new(File::create(packed).expect("made"), Compression::best());
        writer.write_all(&fs::read(store.join(file)).expect("read")).expect("written");
        writer.finish().expect("written");
    }
}

#[test]
fn stores_of_the_released_formats_are_served() {
    for (name, positions) in GOLDEN {
        let (directory, golden) = (directory(), data(name));
        if !golden.exists() && writes() {
            let fresh = directory.path().join("fresh");
            write(&fresh, positions);
            pack(&fresh, &golden);
        }
        let store = directory.path().join("store");
        unpack(&golden, &store);
        let extents = files(&store).len() - 2;
        assert!(extents * EXTENT_BYTES > FILLER_BYTES * FILLERS as usize, "{extents} extents");
        check(&store, positions);
    }
}

/// The check asks for nothing that only the kept store has.
#[test]
fn a_store_of_today_passes_the_same_check() {
    for positions in [Positions::None, Positions::Some] {
        let directory = directory();
        let store = directory.path().join("store");
        write(&store, positions);
        check(&store, positions);
    }
}

/// The first store that has topics of several spans.
const ALTERED: &str = "store-3";

/// Topics that were altered, by name, with what they are in the end.
const ALTERATIONS: [(&str, u32, Durability); 3] =
    [("grown", 5, Durability::Durable), ("twice", 4, Durability::Memory), ("weaker", 2, Durability::Written)];

/// Two topics grow in turn, so that neither's groups follow each other; one in each term, and one by its level alone.
fn write_altered(store: &Path) {
    for term in 1..=TERMS {
        let mut broker = broker(store);
        run(async {
            let client = connect(&broker).await;
            if term == 1 {
                for (name, partitions) in [("grown", 2), ("twice", 1), ("weaker", 2)] {
                    client.create_topic(name, partitions, Durability::Durable).await.expect("a new name");
                }
                let alter = async |name, partitions, level| {
                    client.alter_topic(name, partitions, level).await.expect("altered");
                };
                alter("grown", Some(3), None).await;
                alter("twice", Some(2), Some(Durability::Memory)).await;
                alter("weaker", None, Some(Durability::Written)).await;
                alter("grown", Some(5), None).await;
            } else {
                client.alter_topic("twice", Some(4), None).await.expect("altered");
            }
            for (name, ..) in ALTERATIONS {
                append_term(&client, name, term).await;
            }
        });
        broker.stop().expect("it ends well");
    }
}

/// One record for each partition that the topic has.
async fn append_term(client: &Client, name: &str, term: u32) {
    let topic = client.topic(name).await.expect("it is there");
    let producer = client.producer(ProducerConfig::default());
    for partition in 0..topic.partition_count() {
        let value = format!("{name} {partition} {term}").into_bytes();
        let record = RecordRef { value: Some(&value), ..RecordRef::default() };
        let sent = producer.send(&topic, Partition::Index(partition), record).await.expect("accepted");
        sent.await.expect("acknowledged");
    }
}

fn check_altered(store: &Path) {
    let mut broker = broker(store);
    run(async {
        let client = connect(&broker).await;
        for (name, partitions, level) in ALTERATIONS {
            let topic = client.topic(name).await.expect("it is there");
            assert_eq!((topic.partition_count(), topic.durability()), (partitions, level), "{name}");
            append_term(&client, name, 3).await;
            for partition in 0..partitions {
                let first = if name == "twice" && partition >= 2 { 2 } else { 1 };
                let config = ConsumerConfig {
                    partitions: Partitions::Only(vec![partition]),
                    ..ConsumerConfig::new(&topic, Position::Start)
                };
                let mut consumer = client.consumer(config).await.expect("a consumer");
                for term in first..=3 {
                    let mut batch = consumer.next().await.expect("readable");
                    let mut records = batch.records().expect("readable");
                    let value = records.next().and_then(|record| record.value).expect("a value");
                    assert_eq!(value, format!("{name} {partition} {term}").into_bytes());
                }
            }
        }
        let more = client.alter_topic("grown", Some(6), Some(Durability::Written)).await.expect("altered");
        assert_eq!((more.partition_count(), more.durability()), (6, Durability::Written));
    });
    broker.stop().expect("it ends well");
}

#[test]
fn a_store_whose_topics_were_altered_is_served() {
    let (directory, golden) = (directory(), data(ALTERED));
    if !golden.exists() && writes() {
        let fresh = directory.path().join("fresh");
        write_altered(&fresh);
        pack(&fresh, &golden);
    }
    let store = directory.path().join("store");
    unpack(&golden, &store);
    check_altered(&store);
    let today = directory.path().join("today");
    write_altered(&today);
    check_altered(&today);
}

/// A store of the first release is served as it is, and its topics are altered once there is to be no way back.
#[test]
fn a_store_of_the_first_release_has_its_topics_altered_once_it_is_final() {
    let directory = directory();
    let store = directory.path().join("store");
    unpack(&data(GOLDEN[0].0), &store);
    for (settings, altered) in [(vec![], false), (vec!["log.finalise=true"], true), (vec![], true)] {
        let mut broker = broker_with(&store, &settings);
        if !settings.is_empty() {
            run(check_positions(&broker, Positions::None));
        }
        run(async {
            let client = connect(&broker).await;
            let result = client.alter_topic("orders", Some(4), None).await;
            match result {
                Ok(topic) => assert!(altered && topic.partition_count() == 4),
                Err(ClientError::Refused(refused)) => {
                    assert_eq!((refused.code, altered), (ErrorCode::NotFinal, false))
                }
                Err(other) => panic!("{other}"),
            }
            let orders = client.topic("orders").await.expect("it is there");
            for partition in 0..3 {
                check_records(&client, &orders, partition).await;
            }
        });
        broker.stop().expect("it ends well");
    }
}
