//! Conditional appends: what event sourcing is built on.

use corelog_client::{Durability, ProduceError, Producer, ProducerConfig, Topic};
use corelog_testing::Broker;

use crate::{client, read_all, record};

/// Appends two records together at the end of the partition, however often somebody else gets there first.
/// `end` is where the writer thinks that is; how often it was wrong.
async fn append_pair(producer: &Producer, topic: &Topic, writer: u8, number: u8, end: &mut u64) -> u32 {
    let mut lost = 0;
    loop {
        let (first, second) = ([writer, number, 1], [writer, number, 2]);
        let sent = producer.send_at(topic, 0, *end, &[record(&first), record(&second)]).await;
        match sent.expect("accepted").await {
            Ok(acked) => {
                assert_eq!(acked.offset, *end, "it is where it was meant to be");
                *end += 2;
                return lost;
            }
            Err(ProduceError::OffsetMismatch { expected, actual, maybe_appended: false }) => {
                assert_eq!(expected, *end);
                assert!(actual > expected, "somebody was first");
                *end = actual;
                lost += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// By writer, the numbers of its pairs in order; a pair is never torn apart.
fn pairs(values: &[Vec<u8>], writers: u8) -> Vec<Vec<u8>> {
    let mut numbers = vec![Vec::new(); usize::from(writers)];
    for pair in values.chunks(2) {
        let &[writer, number, 1] = &pair[0][..] else { panic!("{pair:?}") };
        assert_eq!(pair[1], [writer, number, 2], "the two are together");
        numbers[usize::from(writer)].push(number);
    }
    numbers
}

#[tokio::test]
async fn of_writers_that_expect_the_same_end_one_wins_and_the_others_learn_the_end() {
    const WRITERS: u8 = 4;
    const PAIRS: u8 = 25;
    let broker = Broker::start().expect("a broker");
    let client = client(&broker).await;
    let topic = client.create_topic("events", 1, Durability::Durable).await.expect("created");
    let write = |writer| {
        let (producer, topic) = (client.producer(ProducerConfig::default()), topic.clone());
        tokio::spawn(async move {
            let (mut end, mut lost) = (0, 0);
            for number in 0..PAIRS {
                lost += append_pair(&producer, &topic, writer, number, &mut end).await;
            }
            lost
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(write).collect();
    let mut lost = 0;
    for writer in writers {
        lost += writer.await.expect("no panic");
    }
    assert!(lost > 0, "they got into each other's way");
    let values = read_all(&client, &topic).await;
    assert_eq!(pairs(&values[0], WRITERS), vec![(0..PAIRS).collect::<Vec<_>>(); WRITERS.into()]);
}

/// A request without an answer is sent again under its name, and found to have been done, not to have lost the race.
#[tokio::test]
async fn a_conditional_append_lives_through_kills_of_the_broker() {
    const PAIRS: u8 = 60;
    let mut broker = Broker::start().expect("a broker");
    let client = client(&broker).await;
    let topic = client.create_topic("events", 1, Durability::Durable).await.expect("created");
    let producer = client.producer(ProducerConfig::default());
    let mut end = 0;
    for number in 0..PAIRS {
        let (first, second) = ([0, number, 1], [0, number, 2]);
        let records = [record(&first), record(&second)];
        let receipt = producer.send_at(&topic, 0, end, &records).await.expect("accepted");
        if number % 12 == 7 {
            // It is on its way, or done and not answered, when the broker dies.
            for _ in 0..number / 12 {
                tokio::task::yield_now().await;
            }
            broker.kill().expect("killed");
            broker.restart().expect("started again");
        }
        assert_eq!(receipt.await.expect("nobody else writes").offset, end, "pair {number}");
        end += 2;
    }
    let values = read_all(&client, &topic).await;
    assert_eq!(pairs(&values[0], 1), [(0..PAIRS).collect::<Vec<_>>()]);
}

#[tokio::test]
async fn what_comes_after_a_lost_race_goes_on_in_order() {
    let broker = Broker::start().expect("a broker");
    let client = client(&broker).await;
    let topic = client.create_topic("events", 1, Durability::Durable).await.expect("created");
    let producer = client.producer(ProducerConfig::default());
    let partition = corelog_client::Partition::Index(0);
    let before = producer.send(&topic, partition, record(b"before")).await.expect("accepted");
    let wrong = producer.send_at(&topic, 0, 77, &[record(b"never")]).await.expect("accepted");
    let after = producer.send(&topic, partition, record(b"after")).await.expect("accepted");
    let right = producer.send_at(&topic, 0, 2, &[record(b"right")]).await.expect("accepted");
    let mismatch = ProduceError::OffsetMismatch { expected: 77, actual: 1, maybe_appended: false };
    assert_eq!(wrong.await, Err(mismatch));
    assert_eq!(
        (before.await.map(|acked| acked.offset), after.await.map(|acked| acked.offset)),
        (Ok(0), Ok(1))
    );
    assert_eq!(right.await.map(|acked| acked.offset), Ok(2));
    let values = read_all(&client, &topic).await;
    assert_eq!(values[0], [b"before".to_vec(), b"after".to_vec(), b"right".to_vec()]);
}
