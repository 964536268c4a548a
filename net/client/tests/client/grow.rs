//! Partitions that are added to a topic in use: producers and consumers find them, each in one of the ways there are.

use std::time::Duration;

use corelog_client::{
    Client, ClientConfig, ClientError, ConsumeError, Consumer, ConsumerConfig, Durability, ErrorCode,
    Partition, Partitions, Position, ProduceError, Producer, ProducerConfig, Topic,
};

use crate::broker::{Broker, Faults};
use crate::{client, record};

async fn broker_with(partitions: u32) -> (Broker, Client, Topic) {
    let broker = Broker::start(Faults::default(), 1).await;
    let client = client(&broker).await;
    let topic = client.create_topic("t", partitions, Durability::Durable).await.unwrap();
    (broker, client, topic)
}

async fn send(producer: &Producer, topic: &Topic, partition: u32, value: &[u8]) -> Result<u64, ProduceError> {
    let receipt = producer.send(topic, Partition::Index(partition), record(value)).await?;
    receipt.await.map(|acked| acked.offset)
}

/// The partition of the next batch, and the value of its one record.
async fn next(consumer: &mut Consumer) -> (u32, Vec<u8>) {
    let mut batch = consumer.next().await.unwrap();
    let value = batch.records().unwrap().next().unwrap().value.unwrap().to_vec();
    (batch.partition(), value)
}

#[tokio::test]
async fn a_topic_is_altered_and_described_as_it_is_then() {
    let (_broker, client, topic) = broker_with(2).await;
    let altered = client.alter_topic("t", Some(5), Some(Durability::Memory)).await.unwrap();
    assert_eq!((altered.partition_count(), altered.durability()), (5, Durability::Memory));
    assert_eq!(altered.id(), topic.id());
    let same = client.alter_topic("t", None, None).await.unwrap();
    assert_eq!(same, altered);
    let Err(ClientError::Refused(refused)) = client.alter_topic("t", Some(4), None).await else {
        panic!("partitions are never taken away")
    };
    assert_eq!((refused.code, refused.detail), (ErrorCode::FewerPartitions, [4, 5]));
    assert_eq!(client.alter_topic("u", Some(4), None).await, Err(ClientError::UnknownTopic));
}

/// The producer was made before, and was given the topic as it was: a partition it does not know is asked for.
#[tokio::test]
async fn a_producer_that_meets_an_unknown_partition_asks_for_it() {
    let (broker, client, topic) = broker_with(2).await;
    let producer = client.producer(ProducerConfig::default());
    assert_eq!(send(&producer, &topic, 1, b"before").await, Ok(0));
    assert_eq!(send(&producer, &topic, 2, b"too early").await, Err(ProduceError::UnknownPartition));
    client.alter_topic("t", Some(4), None).await.unwrap();
    for partition in [3, 2, 1] {
        let offset = u64::from(partition == 1);
        assert_eq!(send(&producer, &topic, partition, b"after").await, Ok(offset), "partition {partition}");
    }
    assert_eq!(broker.values("t", 3), [b"after"]);
    assert_eq!(send(&producer, &topic, 4, b"never").await, Err(ProduceError::UnknownPartition));
}

/// Keys are spread over as many partitions as the producer knows of.
#[tokio::test]
async fn keys_go_to_added_partitions_once_the_producer_knows_of_them() {
    let (_broker, client, topic) = broker_with(1).await;
    let altered = client.alter_topic("t", Some(8), None).await.unwrap();
    let spread = async |producer: &Producer, topic: &Topic| {
        let mut partitions = Vec::new();
        for key in 0..40_u32 {
            let record = corelog_client::RecordRef { key: Some(&key.to_le_bytes()), ..record(b"x") };
            let receipt = producer.send(topic, Partition::Auto, record).await.unwrap();
            partitions.push(receipt.await.unwrap().partition);
        }
        partitions.sort_unstable();
        partitions.dedup();
        partitions.len()
    };
    let producer = client.producer(ProducerConfig::default());
    assert_eq!(spread(&producer, &topic).await, 1, "it was given the topic as it was");
    assert_eq!(producer.refresh(&topic).await, Ok(8));
    assert_eq!(spread(&producer, &topic).await, 8);
    let other = client.producer(ProducerConfig::default());
    assert_eq!(spread(&other, &topic).await, 1);
    assert_eq!(spread(&other, &altered).await, 8, "a topic that was asked for later says more");
    assert_eq!(spread(&other, &topic).await, 8, "and what is known is not forgotten");
}

/// Another core told of the partition, and this one has not heard of it: it is asked again until it has.
#[tokio::test]
async fn a_partition_that_a_core_has_not_heard_of_yet_is_waited_for() {
    let (broker, client, _) = broker_with(1).await;
    let topic = client.alter_topic("t", Some(2), None).await.unwrap();
    let behind = (ErrorCode::UnknownPartition, [0, 0]);
    broker.store().open_refusals.extend([behind; 3]);
    let producer = client.producer(ProducerConfig::default());
    assert_eq!(send(&producer, &topic, 1, b"one").await, Ok(0));
    broker.store().open_refusals.extend([behind; 3]);
    let mut consumer = client.consumer(ConsumerConfig::new(&topic, Position::Start)).await.unwrap();
    assert_eq!(next(&mut consumer).await, (1, b"one".to_vec()));
    assert!(broker.store().open_refusals.is_empty(), "they were met");
}

/// What is on its way to a partition that the metadata do not know either fails, and whoever reads it is told.
#[tokio::test]
async fn a_partition_that_is_gone_is_not_waited_for() {
    let (broker, client, _) = broker_with(1).await;
    let topic = client.alter_topic("t", Some(2), None).await.unwrap();
    let config = ConsumerConfig {
        partitions: Partitions::Only(vec![1]),
        ..ConsumerConfig::new(&topic, Position::Start)
    };
    let mut consumer = client.consumer(config).await.unwrap();
    let producer = client.producer(ProducerConfig::default());
    broker.store().shrink("t", 1);
    assert_eq!(send(&producer, &topic, 1, b"lost").await, Err(ProduceError::UnknownPartition));
    match consumer.next().await {
        Err(ConsumeError::UnknownPartition) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_consumer_reads_added_partitions_from_their_start() {
    let (_broker, client, topic) = broker_with(1).await;
    let producer = client.producer(ProducerConfig::default());
    send(&producer, &topic, 0, b"old").await.unwrap();
    let all = ConsumerConfig::new(&topic, Position::End);
    let mut follower = client.consumer(all.clone()).await.unwrap();
    let only = ConsumerConfig { partitions: Partitions::Only(vec![0]), ..all };
    let mut one = client.consumer(only).await.unwrap();
    client.alter_topic("t", Some(3), None).await.unwrap();
    for partition in [1, 2] {
        send(&producer, &topic, partition, b"new").await.unwrap();
    }
    assert_eq!(follower.refresh().await, Ok(3));
    assert_eq!(one.refresh().await, Ok(1), "it was asked for one partition");
    let mut seen = vec![next(&mut follower).await, next(&mut follower).await];
    seen.sort_unstable();
    assert_eq!(seen, [(1, b"new".to_vec()), (2, b"new".to_vec())]);
    assert_eq!((follower.position(2), one.position(2)), (Some(1), None));
    // Who names partitions that were added since the topic was asked for gets them.
    let config = ConsumerConfig {
        partitions: Partitions::Only(vec![2]),
        ..ConsumerConfig::new(&topic, Position::Start)
    };
    let mut late = client.consumer(config).await.unwrap();
    assert_eq!(next(&mut late).await, (2, b"new".to_vec()));
}

/// One that has a name goes on from its position, and where it has none in a partition that was added, from the start of
/// that: nothing of it can have been read before, wherever the others began.
#[tokio::test]
async fn a_consumer_with_a_name_reads_added_partitions_from_their_start_too() {
    let (_broker, client, topic) = broker_with(1).await;
    let producer = client.producer(ProducerConfig::default());
    send(&producer, &topic, 0, b"old").await.unwrap();
    let named = ConsumerConfig::new(&topic, Position::End).named("follower");
    let mut follower = client.consumer(named.clone()).await.unwrap();
    assert_eq!(follower.refresh().await, Ok(1));
    client.alter_topic("t", Some(2), None).await.unwrap();
    send(&producer, &topic, 1, b"new").await.unwrap();
    assert_eq!(follower.refresh().await, Ok(2));
    assert_eq!(next(&mut follower).await, (1, b"new".to_vec()));
    follower.commit().await.unwrap();
    drop(follower);
    send(&producer, &topic, 1, b"later").await.unwrap();
    let topic = client.topic("t").await.unwrap();
    let mut again = client.consumer(ConsumerConfig { topic, ..named }).await.unwrap();
    assert_eq!(next(&mut again).await, (1, b"later".to_vec()), "from its position");
}

/// Nobody asks for anything: what is known becomes old.
#[tokio::test]
async fn what_is_known_of_a_topic_is_renewed_by_itself() {
    let broker = Broker::start(Faults::default(), 1).await;
    let mut config = ClientConfig::new([broker.address()]);
    config.metadata_age = Duration::from_millis(20);
    let client = Client::connect(config).await.unwrap();
    let topic = client.create_topic("t", 1, Durability::Durable).await.unwrap();
    let producer = client.producer(ProducerConfig::default());
    let mut consumer = client.consumer(ConsumerConfig::new(&topic, Position::Start)).await.unwrap();
    send(&producer, &topic, 0, b"old").await.unwrap();
    assert_eq!(next(&mut consumer).await, (0, b"old".to_vec()));
    client.alter_topic("t", Some(2), None).await.unwrap();
    // `try_send` never asks: it is refused until the producer has found the partition by itself.
    while producer.try_send(&topic, Partition::Index(1), record(b"new")).is_err() {
        client.ping().await.unwrap();
    }
    assert_eq!(next(&mut consumer).await, (1, b"new".to_vec()));
}

/// The connection ends while it is asked: it is asked again.
#[tokio::test]
async fn a_question_that_a_lost_connection_took_is_asked_again() {
    let (mut broker, client, topic) = broker_with(1).await;
    let producer = client.producer(ProducerConfig::default());
    let mut consumer = client.consumer(ConsumerConfig::new(&topic, Position::Start)).await.unwrap();
    send(&producer, &topic, 0, b"x").await.unwrap();
    next(&mut consumer).await;
    client.alter_topic("t", Some(2), None).await.unwrap();
    broker.restart().await;
    assert_eq!(producer.refresh(&topic).await, Ok(2));
    assert_eq!(consumer.refresh().await, Ok(2));
    drop(client);
    assert_eq!(send(&producer, &topic, 1, b"new").await, Ok(0), "without the client too");
    assert_eq!(next(&mut consumer).await, (1, b"new".to_vec()));
}
