//! A log that keeps four extents and writes forty: what was said in an extent that is gone is still known.

use std::fs;

use corelog_client::{Durability, ErrorCode};
use corelog_model::TopicId;

use crate::broker::{Broker, Place};
use crate::peer::{From, Peer, batch, batch_from};

const EXTENT_BYTES: u64 = 1 << 20;
const KEPT_EXTENTS: u64 = 4;
const WRITTEN_EXTENTS: u64 = 44;
/// What a log on a disk without limits may have besides: the extent it writes next, and spare ones.
const MORE_EXTENTS: u64 = 4;
const VALUE_BYTES: usize = 100_000;

/// The handles of every connection here.
const DEDUPLICATED: u32 = 1;
const QUIET: u32 = 2;
const LIVE: u32 = 3;

/// Two partitions that are left alone, and one that pushes all they hold out of the log.
struct Topics {
    quiet: TopicId,
    live: TopicId,
}

impl Topics {
    fn connect(&self, broker: &Broker) -> Peer {
        let mut peer = Peer::connect(broker.address.parse().expect("an address"));
        peer.open(DEDUPLICATED, self.quiet, 0);
        peer.open(QUIET, self.quiet, 1);
        peer.open(LIVE, self.live, 0);
        peer
    }

    /// Appends this many records of the large size from `first` on; where the next one goes.
    fn fill(&self, peer: &mut Peer, first: u64, records: u64) -> u64 {
        for offset in first..first + records {
            assert_eq!(peer.produce(LIVE, &batch(self.live, 0, &[large(offset)])), Ok(offset));
        }
        first + records
    }

    fn quiet_batch(&self, partition: u32, from: From, values: &[&str]) -> Vec<u8> {
        let values: Vec<_> = values.iter().map(|value| value.as_bytes().to_vec()).collect();
        batch_from(from, self.quiet, partition, &values)
    }
}

fn large(number: u64) -> Vec<u8> {
    vec![number as u8; VALUE_BYTES]
}

/// Files of the log; one is the superblock.
fn files(place: &Place) -> u64 {
    fs::read_dir(place.log()).expect("a log").count() as u64
}

#[test]
fn topics_sequences_and_epochs_outlive_the_extents_they_were_written_in() {
    let place = Place::forgetful();
    // Term 1: the topics, and a producer that will be asked about at the end.
    let broker = place.start();
    let mut peer = Peer::connect(broker.address.parse().expect("an address"));
    let topics = Topics {
        quiet: peer.create_topic("quiet", 2, Durability::Durable),
        live: peer.create_topic("live", 1, Durability::Durable),
    };
    peer.create_topic("gone", 3, Durability::Durable);
    peer.delete_topic("gone");
    let mut peer = topics.connect(&broker);
    let producer = peer.producer_id();
    let repeated = topics.quiet_batch(0, (producer, 7, 0), &["one", "two", "three"]);
    assert_eq!(peer.produce(DEDUPLICATED, &repeated), Ok(0));
    let none = corelog_model::ProducerId::NONE;
    assert_eq!(peer.produce(QUIET, &topics.quiet_batch(1, (none, 0, 0), &["a", "b"])), Ok(0));
    broker.kill();

    // Term 2: forty extents.
    let broker = place.start();
    let mut peer = topics.connect(&broker);
    assert_eq!(peer.produce(QUIET, &topics.quiet_batch(1, (none, 0, 0), &["c", "d"])), Ok(2));
    let records = WRITTEN_EXTENTS * EXTENT_BYTES / VALUE_BYTES as u64;
    let second_end = topics.fill(&mut peer, 0, records);
    broker.kill();
    let files = files(&place);
    assert!(files <= KEPT_EXTENTS + MORE_EXTENTS + 1, "{files} files after {WRITTEN_EXTENTS} extents");

    // Term 3: all of it is known; and a term that ends within what is kept.
    let broker = place.start();
    let mut peer = topics.connect(&broker);
    assert_eq!(peer.open(DEDUPLICATED, topics.quiet, 0), (3, 3), "its records are gone, its offsets are not");
    assert_eq!(peer.open(QUIET, topics.quiet, 1), (4, 4));
    assert_known(&topics, &mut peer, second_end);
    assert_eq!(peer.produce(DEDUPLICATED, &repeated), Ok(0), "a repetition is answered as the first time");
    assert_eq!(peer.open(DEDUPLICATED, topics.quiet, 0), (3, 3), "and not appended");
    let gap = topics.quiet_batch(0, (producer, 7, 4), &["five"]);
    assert_eq!(peer.produce(DEDUPLICATED, &gap), Err(ErrorCode::OutOfOrderSequence));
    let fenced = topics.quiet_batch(0, (producer, 6, 0), &["of an instance that is over"]);
    assert_eq!(peer.produce(DEDUPLICATED, &fenced), Err(ErrorCode::FencedProducerEpoch));
    assert_eq!(peer.produce(QUIET, &topics.quiet_batch(1, (none, 0, 0), &["e"])), Ok(4));
    // So much that checkpoints tell of the term before, and so little that its end is kept.
    let third_end = topics.fill(&mut peer, second_end, 5 * EXTENT_BYTES / 2 / VALUE_BYTES as u64);
    broker.kill();

    // Term 4: who has read in which term up to where.
    let broker = place.start();
    let mut peer = topics.connect(&broker);
    assert_known(&topics, &mut peer, third_end);
    for epoch in [1, 2] {
        assert_eq!(peer.fetch_knowing(QUIET, 4, epoch), Ok(vec![b"e".to_vec()]), "epoch {epoch} ended there");
        assert_eq!(peer.fetch_knowing(QUIET, 5, epoch), Err((ErrorCode::LogTruncated, 4)), "epoch {epoch}");
    }
    assert_eq!(peer.fetch_knowing(LIVE, second_end, 2), Ok(vec![large(second_end)]));
    assert_eq!(
        peer.fetch_knowing(LIVE, second_end + 1, 2),
        Err((ErrorCode::LogTruncated, second_end)),
        "what this reader has seen behind the end of its term is not what is there"
    );
    assert_eq!(peer.fetch_knowing(QUIET, 5, 3), Ok(Vec::new()));
    assert_eq!(peer.fetch_knowing(LIVE, second_end + 1, 3), Ok(vec![large(second_end + 1)]));
    assert_eq!(peer.fetch_knowing(LIVE, third_end, 5), Err((ErrorCode::UnknownEpoch, 4)));
    assert_eq!(peer.produce(DEDUPLICATED, &repeated), Ok(0));
    let next = topics.quiet_batch(0, (producer, 7, 3), &["four"]);
    assert_eq!(peer.produce(DEDUPLICATED, &next), Ok(3), "the next of its sequence is appended");
    assert_eq!(peer.open(DEDUPLICATED, topics.quiet, 0), (3, 4));
    broker.stop();
}

/// The topics are there, and every record of the live one that the cap has left.
fn assert_known(topics: &Topics, peer: &mut Peer, end: u64) {
    let mut found = peer.topics();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [("live".to_owned(), topics.live, 1), ("quiet".to_owned(), topics.quiet, 2)];
    assert_eq!(found, expected);
    let (start, high_watermark) = peer.open(LIVE, topics.live, 0);
    assert_eq!(high_watermark, end);
    let least = (KEPT_EXTENTS - 2) * EXTENT_BYTES / VALUE_BYTES as u64;
    assert!(end - start >= least && start > end / 2, "{start} to {end}");
    for offset in start..end {
        let (values, _) = peer.fetch(LIVE, offset, 1).expect("it is kept");
        assert!(values == [large(offset)], "record {offset}");
    }
}
