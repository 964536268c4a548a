//! Consumers with a name: they go on where they committed, and commit no more than their caller was given.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use corelog_client::{
    Client, ClientError, CommitError, ConsumeError, Consumer, ConsumerConfig, Durability, ErrorCode,
    Partition, Position, ProducerConfig, RecordRef, Refused, Reset, Topic,
};

use crate::broker::{Broker, Faults};
use crate::client;

/// A topic with `count` records in batches of ten.
async fn filled(partitions: u32, count: u64) -> (Broker, Client, Topic) {
    let broker = Broker::start(Faults::default(), 1).await;
    let client = client(&broker).await;
    let topic = client.create_topic("t", partitions, Durability::Written).await.unwrap();
    let producer = client.producer(ProducerConfig::default());
    for n in 0..count {
        let value = n.to_le_bytes();
        let record = RecordRef { value: Some(&value), timestamp_us: n, ..RecordRef::default() };
        let partition = (n / 10 % u64::from(partitions)) as u32;
        producer.send(&topic, Partition::Index(partition), record).await.unwrap();
        if n % 10 == 9 {
            producer.flush().await.unwrap();
        }
    }
    (broker, client, topic)
}

fn named(topic: &Topic) -> ConsumerConfig {
    // Fetches of a batch or two, and a prefetch of several: what is fetched is far ahead of what is yielded.
    let (max_bytes, prefetch_bytes) = (1, 4000);
    ConsumerConfig { max_bytes, prefetch_bytes, ..ConsumerConfig::new(topic, Position::Start) }.named("me")
}

/// The numbers of the next batch's records.
async fn next(consumer: &mut Consumer) -> Vec<u64> {
    let mut batch = consumer.next().await.unwrap();
    let number = |value: Option<&[u8]>| u64::from_le_bytes(value.unwrap().try_into().unwrap());
    batch.records().unwrap().map(|record| number(record.value)).collect()
}

async fn committed(client: &Client, topic: &Topic) -> Vec<(u32, u64)> {
    let positions = client.position("me", topic).list().await.unwrap();
    positions.iter().map(|position| (position.partition, position.offset)).collect()
}

fn refused(error: CommitError) -> (u32, ErrorCode) {
    match error {
        CommitError::Refused { partition, refused: Refused { code, .. } } => (partition, code),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_name_goes_on_after_its_last_commit_through_restarts_and_lost_connections() {
    let (mut broker, client, topic) = filled(2, 200).await;
    let mut seen = Vec::new();
    for life in 0..5 {
        let mut consumer = client.consumer(named(&topic)).await.unwrap();
        for batch in 0..3 {
            seen.extend(next(&mut consumer).await);
            if batch == 1 {
                broker.restart().await;
            }
        }
        consumer.commit().await.unwrap();
        // Given and not committed: it comes again.
        let lost = next(&mut consumer).await;
        assert_eq!(lost.len(), 10, "life {life}");
        drop(consumer);
        let done: u64 = committed(&client, &topic).await.iter().map(|(_, offset)| offset).sum();
        assert_eq!(done, seen.len() as u64, "what was given and no more");
    }
    let mut consumer = client.consumer(named(&topic)).await.unwrap();
    while seen.len() < 200 {
        seen.extend(next(&mut consumer).await);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    consumer.commit().await.unwrap();
    assert_eq!(committed(&client, &topic).await, [(0, 100), (1, 100)]);
    assert!(consumer.try_next().is_none());
}

#[tokio::test]
async fn an_offset_is_committed_only_after_the_batch_that_leads_to_it_was_given() {
    let (broker, client, topic) = filled(1, 50).await;
    let mut consumer = client.consumer(named(&topic)).await.unwrap();
    assert_eq!(consumer.commit_later(0, 0), Err(CommitError::NotGiven { partition: 0, offset: 0 }));
    next(&mut consumer).await;
    assert_eq!(consumer.commit_later(0, 11), Err(CommitError::NotGiven { partition: 0, offset: 11 }));
    assert_eq!(consumer.commit_later(1, 0), Err(CommitError::UnknownPartition));
    consumer.commit_later(0, 4).unwrap();
    consumer.committed().await.unwrap();
    assert_eq!(committed(&client, &topic).await, [(0, 4)], "in the middle of a batch");
    let mut again = client.consumer(named(&topic)).await.unwrap();
    assert_eq!(next(&mut again).await, [4, 5, 6, 7, 8, 9]);

    // A commit of nothing new asks nobody.
    let before = broker.store().commits;
    again.commit().await.unwrap();
    again.commit().await.unwrap();
    assert_eq!(broker.store().commits, before + 1);

    // A jump back is committed like any other place.
    again.seek(0, Position::Offset(2)).await.unwrap();
    again.commit().await.unwrap();
    assert_eq!(committed(&client, &topic).await, [(0, 2)]);

    let config = ConsumerConfig { name: None, ..named(&topic) };
    let mut nobody = client.consumer(config).await.unwrap();
    assert_eq!(next(&mut nobody).await.len(), 10);
    assert_eq!(nobody.commit().await, Err(CommitError::NotNamed));
    assert_eq!(nobody.commit_later(0, 1), Err(CommitError::NotNamed));
    nobody.committed().await.unwrap();
}

#[tokio::test]
async fn refusals_that_pass_are_outlasted_and_others_are_said_once() {
    let (broker, client, topic) = filled(1, 50).await;
    let mut consumer = client.consumer(named(&topic)).await.unwrap();
    next(&mut consumer).await;
    let passing = [ErrorCode::Busy, ErrorCode::StorageFull, ErrorCode::UnknownHandle, ErrorCode::NotHere];
    broker.store().commit_refusals.extend(passing.map(|code| (code, [0, 0])));
    consumer.commit().await.unwrap();
    assert_eq!(broker.store().commits, 5);
    assert_eq!(committed(&client, &topic).await, [(0, 10)]);

    next(&mut consumer).await;
    broker.store().commit_refusals.push_back((ErrorCode::ReadOnly, [0, 0]));
    assert_eq!(refused(consumer.commit().await.unwrap_err()), (0, ErrorCode::ReadOnly));
    consumer.committed().await.unwrap();
    assert_eq!(committed(&client, &topic).await, [(0, 10)], "it is what it was");
    consumer.commit().await.unwrap();
    assert_eq!(committed(&client, &topic).await, [(0, 20)]);

    // One that nobody waits for is said with the next.
    broker.store().commit_refusals.push_back((ErrorCode::NotAuthorised, [0, 0]));
    consumer.commit_later(0, 15).unwrap();
    while broker.store().commits < 8 {
        tokio::task::yield_now().await;
    }
    next(&mut consumer).await;
    let error = loop {
        match consumer.commit_later(0, 25) {
            Err(error) => break error,
            Ok(()) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(refused(error), (0, ErrorCode::NotAuthorised));
}

#[tokio::test]
async fn a_commit_whose_future_is_dropped_is_done_all_the_same() {
    let (_broker, client, topic) = filled(1, 50).await;
    let mut consumer = client.consumer(named(&topic)).await.unwrap();
    next(&mut consumer).await;
    {
        let commit = pin!(consumer.commit());
        let mut context = Context::from_waker(Waker::noop());
        assert!(commit.poll(&mut context).is_pending());
    }
    consumer.committed().await.unwrap();
    assert_eq!(committed(&client, &topic).await, [(0, 10)]);
}

#[tokio::test]
async fn a_position_that_retention_has_passed_is_dealt_with_as_the_consumer_is_told_to() {
    for (reset, expected) in [(Reset::Fail, None), (Reset::Start, Some(30)), (Reset::End, Some(50))] {
        let (broker, client, topic) = filled(1, 50).await;
        let position = client.position("me", &topic);
        position.commit(0, 10, "by hand").await.unwrap();
        broker.recycle("t", 0, 30);
        let mut consumer = client.consumer(ConsumerConfig { reset, ..named(&topic) }).await.unwrap();
        match expected {
            None => {
                let (partition, offset, log_start, high_watermark) = (0, 10, 30, 50);
                let error = ConsumeError::OffsetOutOfRange { partition, offset, log_start, high_watermark };
                assert_eq!(consumer.next().await.unwrap_err(), error);
                assert_eq!(
                    position.get(0).await.unwrap().unwrap().metadata,
                    "by hand",
                    "nothing was changed"
                );
                assert_eq!(consumer.seek(0, Position::Start).await, Ok(30));
                assert_eq!(next(&mut consumer).await[0], 30);
            }
            Some(30) => assert_eq!(next(&mut consumer).await[0], 30),
            Some(end) => {
                while consumer.position(0) != Some(end) {
                    assert!(consumer.try_next().is_none());
                    tokio::task::yield_now().await;
                }
            }
        }
        consumer.commit().await.unwrap();
        let found = position.get(0).await.unwrap().expect("committed").offset;
        assert_eq!(found, expected.map_or(40, |first| if first == 30 { 40 } else { first }), "{reset:?}");
    }
}

/// A position that a crash of the broker has cut behind is told as any fall-back is.
#[tokio::test]
async fn a_position_beyond_what_is_left_is_told_by_its_epoch() {
    let (mut broker, client, topic) = filled(1, 50).await;
    let mut consumer = client.consumer(named(&topic)).await.unwrap();
    for _ in 0..4 {
        next(&mut consumer).await;
    }
    consumer.commit().await.unwrap();
    let epoch = client.position("me", &topic).get(0).await.unwrap().unwrap().leader_epoch;
    assert_eq!(epoch, Some(1), "of the last batch that was given");
    drop(consumer);
    broker.restart().await;
    broker.store().fetch_refusals.push_back((ErrorCode::LogTruncated, [20, 0]));
    let mut consumer = client.consumer(named(&topic)).await.unwrap();
    let told = consumer.next().await.unwrap_err();
    assert_eq!(told, ConsumeError::LogTruncated { partition: 0, offset: 20 });
    assert_eq!(next(&mut consumer).await[0], 20);
    consumer.commit().await.unwrap();
    assert_eq!(committed(&client, &topic).await, [(0, 30)], "back is a way like any other");
}

#[tokio::test]
async fn positions_are_listed_whole_set_jumped_and_forgotten() {
    let (broker, client, topic) = filled(3, 90).await;
    broker.store().positions_at_a_time = Some(2);
    assert_eq!(client.positions(&topic).await, Ok(vec![]));
    let mut expected = Vec::new();
    for partition in 0..3 {
        for name in ["a", "b", "c", "d", "e"] {
            let position = client.position(name, &topic);
            position.commit(partition, u64::from(partition) + 7, "note").await.unwrap();
            expected.push((partition, name.to_owned(), 23 - u64::from(partition)));
        }
    }
    let listed = client.positions(&topic).await.unwrap();
    let found: Vec<_> =
        listed.iter().map(|found| (found.partition, found.name.clone(), found.lag())).collect();
    assert_eq!(found, expected);
    assert!(listed.iter().all(|found| found.metadata == "note" && found.high_watermark == 30));

    let position = client.position("c", &topic);
    for (to, offset) in [(Position::End, 30), (Position::Start, 0), (Position::Offset(4), 4)] {
        assert_eq!(position.reset(1, to).await, Ok(offset));
        assert_eq!(position.get(1).await.unwrap().map(|found| found.offset), Some(offset));
    }
    let beyond = position.reset(1, Position::Offset(31)).await.unwrap_err();
    assert!(matches!(beyond, ClientError::Refused(Refused { code: ErrorCode::OffsetOutOfRange, .. })));
    position.delete(1).await.unwrap();
    position.delete(1).await.unwrap();
    assert_eq!(position.get(1).await, Ok(None));
    let left: Vec<u32> = position.list().await.unwrap().iter().map(|found| found.partition).collect();
    assert_eq!(left, [0, 2]);
    assert_eq!(position.get(3).await, Err(ClientError::UnknownPartition));
}

/// A broker of the first release keeps no positions, and says so to whoever wants one; the rest of it works.
#[tokio::test]
async fn a_broker_that_keeps_no_positions_says_so() {
    let broker = Broker::first_release().await;
    let client = client(&broker).await;
    let topic = client.create_topic("t", 1, Durability::Durable).await.unwrap();
    let unsupported = |refused: &Refused| refused.code == ErrorCode::UnsupportedVersion;
    let position = client.position("me", &topic);
    for answer in [position.commit(0, 0, "").await, position.delete(0).await] {
        assert!(matches!(answer, Err(ClientError::Refused(ref refused)) if unsupported(refused)));
    }
    assert!(
        matches!(client.positions(&topic).await, Err(ClientError::Refused(ref refused)) if unsupported(refused))
    );
    let mut consumer = client.consumer(named(&topic)).await.unwrap();
    let told = consumer.next().await.unwrap_err();
    assert!(matches!(told, ConsumeError::Refused { partition: 0, ref refused } if unsupported(refused)));
    assert_eq!(client.offset(&topic, 0, Position::End).await, Ok(0));
}
