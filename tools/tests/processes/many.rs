//! Very many partitions over two shards: made, used here and there, and there again after a restart.

use std::collections::HashSet;

use corelog_client::{ConsumerConfig, Durability, Partition, Position, ProducerConfig, RecordRef};

use crate::broker::{Broker, Place};
use crate::random::Random;
use crate::story;

const TOPICS: u32 = 10;
/// Of a topic.
const PARTITIONS: u32 = 10_000;
/// One partition in so many has records.
const SHARE: usize = 10;
/// What an idle partition may cost, in bytes.
const PARTITION_BYTES: u64 = 4 << 10;

fn name(topic: u32) -> String {
    format!("topic-{topic}")
}

/// Which partitions have a record: the same at each call.
fn used(topic: u32) -> Vec<u32> {
    let mut random = Random::from(u64::from(topic) + 1);
    let mut all: Vec<u32> = (0..PARTITIONS).collect();
    for at in 0..PARTITIONS as usize / SHARE {
        let other = random.within(at as u64..u64::from(PARTITIONS)) as usize;
        all.swap(at, other);
    }
    all.truncate(PARTITIONS as usize / SHARE);
    all
}

async fn produce(broker: &Broker) {
    let client = story::connect(&broker.address).await;
    for number in 0..TOPICS {
        let topic = client.topic(&name(number)).await.expect("it was made");
        let producer = client.producer(ProducerConfig::default());
        let mut receipts = Vec::new();
        for partition in used(number) {
            let value = format!("{number} {partition}").into_bytes();
            let record = RecordRef { value: Some(&value), ..RecordRef::default() };
            receipts.push(producer.send(&topic, Partition::Index(partition), record).await.expect("taken"));
        }
        for receipt in receipts {
            assert_eq!(receipt.await.expect("acknowledged").offset, 0);
        }
    }
}

async fn check(broker: &Broker) {
    let client = story::connect(&broker.address).await;
    for number in [0, TOPICS - 1] {
        let topic = client.topic(&name(number)).await.expect("it is there");
        assert_eq!(topic.partition_count(), PARTITIONS);
        let used = used(number);
        for &partition in used.iter().take(20) {
            let value = format!("{number} {partition}").into_bytes();
            assert_eq!(story::read(&client, &topic, partition).await, [(0, value)]);
        }
        let unused = (0..PARTITIONS).find(|partition| !used.contains(partition)).expect("most are not");
        assert_eq!(story::read(&client, &topic, unused).await, []);
    }
}

/// Who reads all partitions of all topics at the same time has every record, and the next one without being asked.
async fn follow(broker: &Broker) {
    let client = story::connect(&broker.address).await;
    let mut consumers = Vec::new();
    for number in 0..TOPICS {
        let topic = client.topic(&name(number)).await.expect("it is there");
        let config = ConsumerConfig::new(&topic, Position::Start);
        consumers.push((topic, client.consumer(config).await.expect("it reads")));
    }
    for (number, (_, consumer)) in (0..).zip(&mut consumers) {
        let mut unread: HashSet<u32> = used(number).into_iter().collect();
        while !unread.is_empty() {
            let batch = consumer.next().await.expect("no error");
            assert!(unread.remove(&batch.partition()), "partition {} once", batch.partition());
        }
    }
    let status = client.status().await.expect("it answers");
    assert!(status.subscriptions >= u64::from(TOPICS * PARTITIONS) / 2, "places enough: {status:?}");
    let (peak, limit) = (broker.peak_bytes(), status.memory_limit_bytes);
    assert!(peak <= limit + limit / 10, "{peak} bytes, {limit} allowed");
    let producer = client.producer(ProducerConfig::default());
    for (number, (topic, consumer)) in (0..).zip(&mut consumers) {
        let used = used(number);
        let unused = (0..PARTITIONS).rev().find(|partition| !used.contains(partition)).expect("most are not");
        story::append(&producer, topic, unused, b"late").await.expect("acknowledged");
        assert_eq!(consumer.next().await.expect("no error").partition(), unused);
    }
}

#[test]
fn a_hundred_thousand_partitions_are_made_used_and_there_after_a_restart() {
    let place = Place::new(&["server.shards=2", "limits.connections=64"]);
    let broker = place.start();
    let before = broker.peak_bytes();
    story::run(async {
        let client = story::connect(&broker.address).await;
        for number in 0..TOPICS {
            client.create_topic(&name(number), PARTITIONS, Durability::Durable).await.expect("there is room");
        }
    });
    let each = broker.peak_bytes().saturating_sub(before) / u64::from(TOPICS * PARTITIONS);
    assert!(each <= PARTITION_BYTES, "{each} bytes for an idle partition");
    story::run(produce(&broker));
    story::run(check(&broker));
    broker.kill();
    let broker = place.start();
    story::run(check(&broker));
    let after = broker.peak_bytes().saturating_sub(before) / u64::from(TOPICS * PARTITIONS);
    assert!(after <= PARTITION_BYTES, "{after} bytes for a partition after a restart");
    story::run(follow(&broker));
    println!("{each} bytes for each idle partition, {after} after a restart");
    broker.stop();
}
