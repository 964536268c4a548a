//! The consumer: every record once and in order, through lost connections, seeks, retention, fall-backs and damage.
//! Each story twice: with a broker that pushes and with one of the first release, which has to be asked.

use std::time::Duration;

use corelog_client::{
    Client, ClientConfig, ClientError, Codec, ConsumeError, Consumer, ConsumerConfig, Durability, ErrorCode,
    LinkError, Partition, Partitions, Position, ProducerConfig, RecordRef, Reset, Topic,
};

use crate::broker::{Broker, Faults};
use crate::client;

/// A topic with `count` records in batches of ten; record n has timestamp n and value n.
pub(super) async fn filled(partitions: u32, count: u64, codec: Codec) -> (Broker, Client, Topic) {
    let broker = super::broker().await;
    let client = client(&broker).await;
    let topic = client.create_topic("t", partitions, Durability::Written).await.unwrap();
    append(&client, &topic, 0..count, codec).await;
    (broker, client, topic)
}

pub(super) async fn append(client: &Client, topic: &Topic, numbers: std::ops::Range<u64>, codec: Codec) {
    let producer = client.producer(ProducerConfig { codec, ..ProducerConfig::default() });
    for n in numbers {
        let value = n.to_le_bytes();
        let record = RecordRef { value: Some(&value), timestamp_us: n, ..RecordRef::default() };
        let partition = (n % u64::from(topic.partition_count())) as u32;
        producer.send(topic, Partition::Index(partition), record).await.unwrap();
        if n % 10 == 9 {
            producer.flush().await.unwrap();
        }
    }
    producer.flush().await.unwrap();
}

pub(super) async fn take(consumer: &mut Consumer, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let mut batch = consumer.next().await.unwrap();
        numbers.extend(
            batch
                .records()
                .unwrap()
                .map(|record| u64::from_le_bytes(record.value.unwrap().try_into().unwrap())),
        );
    }
    numbers
}

fn config(topic: &Topic, from: Position) -> ConsumerConfig {
    // Small fetches: many round trips, and a prefetch that fills.
    let (max_bytes, prefetch_bytes) = (2000, 4000);
    ConsumerConfig { max_bytes, prefetch_bytes, ..ConsumerConfig::new(topic, from) }
}

#[tokio::test]
async fn every_record_comes_once_and_in_order_through_lost_connections() {
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        let (mut broker, client, topic) = filled(1, 1000, codec).await;
        let mut consumer = client.consumer(config(&topic, Position::Start)).await.unwrap();
        let mut numbers = Vec::new();
        for _ in 0..8 {
            numbers.extend(take(&mut consumer, 110).await);
            broker.restart().await;
        }
        numbers.extend(take(&mut consumer, 1000 - numbers.len()).await);
        assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
        assert!(consumer.try_next().is_none());
        assert_eq!(consumer.position(0), Some(1000));
    }
}

#[tokio::test]
async fn a_live_consumer_sees_what_is_appended_after_it_came() {
    let (_broker, client, topic) = filled(2, 100, Codec::None).await;
    let mut consumer = client.consumer(config(&topic, Position::End)).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(30), consumer.next()).await.is_err());
    append(&client, &topic, 100..200, Codec::None).await;
    let mut numbers = take(&mut consumer, 100).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (100..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_large_batch_is_read_where_it_was_received() {
    let broker = super::broker().await;
    let client = client(&broker).await;
    let topic = client.create_topic("t", 1, Durability::Durable).await.unwrap();
    let producer = client.producer(ProducerConfig { batch_bytes: 1 << 20, ..ProducerConfig::default() });
    for n in 0..2000_u32 {
        producer.send(&topic, Partition::Index(0), crate::record(&[n as u8; 1000])).await.unwrap();
    }
    producer.flush().await.unwrap();
    let mut consumer = client.consumer(ConsumerConfig::new(&topic, Position::Start)).await.unwrap();
    let mut batches = Vec::new();
    let mut seen = 0;
    while seen < 2000 {
        let mut batch = consumer.next().await.unwrap();
        seen += batch.records().unwrap().count();
        batches.push(batch);
    }
    let mut n = 0_u32;
    for batch in &mut batches {
        for record in batch.records().unwrap() {
            assert_eq!(
                (record.offset, record.value.unwrap()),
                (u64::from(n), &[n as u8; 1000][..]),
                "kept batches stay intact"
            );
            n += 1;
        }
    }
}

#[tokio::test]
async fn seeks_go_to_offset_time_start_and_end_and_drop_what_was_fetched() {
    let (_broker, client, topic) = filled(1, 500, Codec::None).await;
    let mut consumer = client.consumer(config(&topic, Position::Offset(123))).await.unwrap();
    assert_eq!(take(&mut consumer, 1).await[0], 123, "earlier records of the batch are left out");
    assert_eq!(consumer.seek(0, Position::Offset(77)).await, Ok(77));
    assert_eq!(take(&mut consumer, 1).await[0], 77);
    assert_eq!(consumer.seek(0, Position::Start).await, Ok(0));
    assert_eq!(take(&mut consumer, 1).await[0], 0);
    assert_eq!(consumer.seek(0, Position::Time(300)).await, Ok(300));
    assert_eq!(take(&mut consumer, 1).await[0], 300);
    assert_eq!(consumer.seek(0, Position::End).await, Ok(500));
    assert!(consumer.try_next().is_none());
    append(&client, &topic, 500..510, Codec::None).await;
    assert_eq!(take(&mut consumer, 10).await, (500..510).collect::<Vec<_>>());
    assert_eq!(consumer.seek(9, Position::Start).await, Err(ClientError::UnknownPartition));
}

/// The broker names the first offset of the two batches that the record lies among.
#[tokio::test]
async fn a_time_within_a_batch_begins_with_its_first_record_and_nothing_older() {
    for codec in [Codec::None, Codec::Lz4] {
        let (_broker, client, topic) = filled(1, 500, codec).await;
        for (time, named) in [(305, 300), (315, 300), (319, 300), (499, 480)] {
            let mut consumer = client.consumer(config(&topic, Position::Time(time))).await.unwrap();
            assert_eq!(take(&mut consumer, 1).await[0], time);
            assert_eq!(consumer.seek(0, Position::Start).await, Ok(0));
            assert_eq!(take(&mut consumer, 1).await[0], 0, "the time is forgotten");
            assert_eq!(consumer.seek(0, Position::Time(time)).await, Ok(named));
            let rest = 500 - time;
            assert_eq!(take(&mut consumer, rest as usize).await, (time..500).collect::<Vec<_>>());
        }
        assert_eq!(client.offset(&topic, 0, Position::Time(315)).await, Ok(300));
    }
}

#[tokio::test]
async fn a_time_to_come_is_waited_for_and_what_follows_it_is_passed_on() {
    let (_broker, client, topic) = filled(1, 100, Codec::None).await;
    let mut consumer = client.consumer(config(&topic, Position::Start)).await.unwrap();
    assert_eq!(consumer.seek(0, Position::Time(205)).await, Ok(100));
    append(&client, &topic, 100..110, Codec::None).await;
    let mut early = consumer.next().await.unwrap();
    assert_eq!((early.records().unwrap().count(), early.next_offset()), (0, 110), "the end is told");
    append(&client, &topic, 200..210, Codec::None).await;
    assert_eq!(take(&mut consumer, 5).await, (205..210).collect::<Vec<_>>());
    append(&client, &topic, 0..10, Codec::None).await;
    assert_eq!(take(&mut consumer, 10).await, (0..10).collect::<Vec<_>>(), "older, but after it");
}

#[tokio::test]
async fn records_that_a_crash_took_back_are_reported_once() {
    let (broker, client, topic) = filled(1, 100, Codec::None).await;
    let mut consumer = client.consumer(config(&topic, Position::Start)).await.unwrap();
    assert_eq!(take(&mut consumer, 100).await.len(), 100);
    broker.store().fetch_refusals.push_back((ErrorCode::LogTruncated, [60, 0]));
    broker.fall_back("t", 0, 60);
    // What is asked is looked at again when something is appended.
    append(&client, &topic, 1000..1100, Codec::None).await;
    let mut truncated = 0;
    let mut numbers = Vec::new();
    while numbers.len() < 100 {
        match consumer.next().await {
            Ok(mut batch) => numbers.extend(batch.records().unwrap().map(|record| record.offset)),
            Err(ConsumeError::LogTruncated { partition: 0, offset: 60 }) => {
                truncated += 1;
                assert_eq!(consumer.position(0), Some(60));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(truncated, 1);
    assert_eq!(numbers, (60..160).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_offset_that_is_gone_is_an_error_or_a_policy() {
    let (broker, client, topic) = filled(1, 100, Codec::None).await;
    broker.recycle("t", 0, 50);
    let mut consumer = client.consumer(config(&topic, Position::Offset(7))).await.unwrap();
    let gone = ConsumeError::OffsetOutOfRange { partition: 0, offset: 7, log_start: 50, high_watermark: 100 };
    assert_eq!(consumer.next().await.map(drop), Err(gone));
    assert!(
        tokio::time::timeout(Duration::from_millis(20), consumer.next()).await.is_err(),
        "it stands still"
    );
    assert_eq!(consumer.seek(0, Position::Start).await, Ok(50));
    assert_eq!(take(&mut consumer, 50).await[0], 50);

    for (reset, first) in [(Reset::Start, 50), (Reset::End, 100)] {
        let config = ConsumerConfig { reset, ..config(&topic, Position::Offset(7)) };
        let mut consumer = client.consumer(config).await.unwrap();
        if reset == Reset::End {
            assert!(tokio::time::timeout(Duration::from_millis(50), consumer.next()).await.is_err());
            append(&client, &topic, 100..101, Codec::None).await;
        }
        assert_eq!(take(&mut consumer, 1).await[0], first);
    }
}

#[tokio::test]
async fn damage_is_named_and_the_other_partition_goes_on() {
    let (broker, client, topic) = filled(2, 100, Codec::None).await;
    broker.flip_a_bit("t", 1, 1);
    let mut consumer = client.consumer(config(&topic, Position::Start)).await.unwrap();
    let (mut good, mut damaged) = (0, None);
    while good < 55 || damaged.is_none() {
        match consumer.next().await {
            Ok(mut batch) => good += batch.records().unwrap().count(),
            Err(ConsumeError::Damaged { partition, first, last }) => damaged = Some((partition, first, last)),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((good, damaged), (55, Some((1, 5, 9))), "partition 0 whole, partition 1 up to the damage");
    consumer.seek(1, Position::Offset(10)).await.unwrap();
    assert_eq!(take(&mut consumer, 40).await.len(), 40);
}

#[tokio::test]
async fn questions_have_answers_and_typed_refusals() {
    let (broker, client, topic) = filled(3, 30, Codec::None).await;
    assert_eq!(client.topic("t").await.unwrap(), topic);
    assert_eq!(client.topics().await.unwrap(), std::slice::from_ref(&topic));
    assert_eq!(client.offset(&topic, 2, Position::End).await, Ok(10));
    assert_eq!(client.offset(&topic, 2, Position::Start).await, Ok(0));
    assert_eq!(client.offset(&topic, 3, Position::End).await, Err(ClientError::UnknownPartition));
    assert_eq!(client.topic("nothing").await.unwrap_err(), ClientError::UnknownTopic);
    assert_eq!(client.create_topic("t", 1, Durability::Durable).await.unwrap_err(), ClientError::TopicExists);
    assert_eq!(client.status().await.unwrap().requests, 7);
    client.ping().await.unwrap();
    let only = Partitions::Only(vec![5]);
    let wrong = client.consumer(ConsumerConfig { partitions: only, ..config(&topic, Position::Start) }).await;
    assert_eq!(wrong.err(), Some(ClientError::UnknownPartition));
    drop(broker);
}

#[tokio::test]
async fn servers_that_say_nothing_are_waited_for_as_long_as_a_request_and_no_longer() {
    let silent = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let servers = silent.each_ref().map(|server| server.local_addr().unwrap().to_string());
    let request_timeout = Duration::from_millis(50);
    let config = ClientConfig { request_timeout, ..ClientConfig::new(servers.clone()) };
    let refused = Client::connect(config).await.err();
    let cause = LinkError::Timeout;
    let [first, ..] = servers;
    assert_eq!(refused, Some(ClientError::Unreachable { server: first, cause }), "no time for a second");
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let broker = Broker::start(Faults::default(), 1).await;
    let server = broker.address();
    drop(broker);
    tokio::task::yield_now().await;
    let refused = Client::connect(ClientConfig::new([server.clone()])).await.err();
    let cause = LinkError::Io(std::io::ErrorKind::ConnectionRefused);
    assert_eq!(refused, Some(ClientError::Unreachable { server, cause }));
    let none: [&str; 0] = [];
    assert_eq!(Client::connect(ClientConfig::new(none)).await.err(), Some(ClientError::NoServers));
}
