//! Every public future, dropped at every poll point: nothing accepted is lost, nothing comes twice, nothing is leaked.

use std::time::Duration;

use corelog_client::{
    Client, ClientConfig, ConsumerConfig, Durability, Lane, Partition, Position, Producer, ProducerConfig,
    Receipt, Topic,
};

use crate::broker::{Broker, Faults};
use crate::polls::{Dice, at_most};
use crate::{client, record};

struct Story {
    topic: Topic,
    producer: Producer,
    accepted: Vec<Vec<u8>>,
    receipts: Vec<Receipt>,
    dice: Dice,
}

impl Story {
    /// Sends numbers through futures that are dropped at random; a number whose future was dropped is not accepted.
    async fn send(&mut self, count: u32) {
        for n in 0..count {
            let value = [n.to_le_bytes(), self.dice.roll(u32::MAX).to_le_bytes()].concat();
            let sending = self.producer.send(&self.topic, Partition::Index(0), record(&value));
            if let Some(receipt) = at_most(self.dice.roll(4), sending).await {
                self.receipts.push(receipt.unwrap());
                self.accepted.push(value);
            }
            match self.dice.roll(12) {
                0 => drop(at_most(self.dice.roll(5), self.producer.flush()).await),
                1 => {
                    let at = self.dice.roll(self.receipts.len() as u32 + 1) as usize;
                    if at < self.receipts.len() {
                        let receipt = self.receipts.swap_remove(at);
                        at_most(self.dice.roll(5), receipt).await;
                    }
                }
                2..6 => tokio::task::yield_now().await,
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn dropped_sends_flushes_and_receipts_lose_and_repeat_nothing() {
    for seed in 0..25 {
        let broker = Broker::start(Faults { lost_before: 31, lost_after: 29, busy: 17, slow: 0 }, seed).await;
        let client = client(&broker).await;
        let topic = client.create_topic("t", 1, Durability::Durable).await.unwrap();
        let producer = client.producer(ProducerConfig {
            batch_bytes: 1024,
            max_buffer_bytes: 2048,
            ..ProducerConfig::default()
        });
        let (accepted, receipts, dice) = (Vec::new(), Vec::new(), Dice(seed));
        let mut story = Story { topic, producer, accepted, receipts, dice };
        story.send(600).await;
        story.producer.flush().await.unwrap();
        assert!(story.accepted.len() < 600, "some were dropped before they were accepted");
        assert_eq!(broker.values("t", 0), story.accepted, "seed {seed}: what was accepted, once, in order");
        assert!(story.receipts.iter().all(|receipt| receipt.poll_now().is_some_and(|answer| answer.is_ok())));
        drop((story, client));
        gone(&broker).await;
    }
}

/// Whoever waits for room and is dropped passes the room on.
#[tokio::test]
async fn a_dropped_waiter_does_not_block_those_behind_it() {
    let mut broker = Broker::start(Faults::default(), 1).await;
    let client = client(&broker).await;
    let topic = client.create_topic("t", 1, Durability::Durable).await.unwrap();
    let producer = client.producer(ProducerConfig {
        batch_bytes: 1024,
        max_buffer_bytes: 1024,
        ..ProducerConfig::default()
    });
    broker.store().silent = true;
    while producer.try_send(&topic, Partition::Index(0), record(&[0; 400])).is_ok() {}
    let waiting = |n: u8| {
        let (producer, topic) = (producer.clone(), topic.clone());
        tokio::spawn(
            async move { producer.send(&topic, Partition::Index(0), record(&[n; 400])).await.map(drop) },
        )
    };
    let tasks: Vec<_> = (1..=20).map(waiting).collect();
    tokio::task::yield_now().await;
    broker.store().silent = false;
    broker.restart().await;
    for task in tasks.iter().step_by(2) {
        task.abort();
        tokio::task::yield_now().await;
    }
    for task in tasks.into_iter().skip(1).step_by(2) {
        task.await.unwrap().unwrap();
    }
    producer.flush().await.unwrap();
}

#[tokio::test]
async fn dropped_nexts_and_seeks_lose_and_repeat_nothing() {
    for seed in 0..15 {
        let mut broker = Broker::start(Faults::default(), seed).await;
        let client = client(&broker).await;
        let topic = client.create_topic("t", 1, Durability::Durable).await.unwrap();
        let producer = client.producer(ProducerConfig { batch_bytes: 1024, ..ProducerConfig::default() });
        for n in 0..800_u32 {
            producer.send(&topic, Partition::Index(0), record(&n.to_le_bytes())).await.unwrap();
        }
        producer.flush().await.unwrap();
        let config = ConsumerConfig {
            max_bytes: 3000,
            prefetch_bytes: 3000,
            ..ConsumerConfig::new(&topic, Position::Start)
        };
        let mut consumer = client.consumer(config).await.unwrap();
        let mut dice = Dice(seed);
        let mut expected = 0;
        while expected < 800 {
            if let Some(batch) = at_most(dice.roll(4), consumer.next()).await {
                for record in batch.unwrap().records().unwrap() {
                    assert_eq!(record.offset, expected, "seed {seed}");
                    expected += 1;
                }
            }
            match dice.roll(40) {
                0 => {
                    let to = u64::from(dice.roll(expected.max(1) as u32));
                    let polls = 1 + dice.roll(2);
                    // In force from the first poll on.
                    at_most(polls, consumer.seek(0, Position::Offset(to))).await;
                    expected = to;
                }
                1 => {
                    at_most(0, consumer.seek(0, Position::Start)).await;
                }
                2 => {
                    at_most(1, consumer.seek(0, Position::Start)).await;
                    expected = 0;
                }
                3 if dice.roll(3) == 0 => broker.restart().await,
                _ => {}
            }
        }
        drop((consumer, producer, client));
        gone(&broker).await;
    }
}

#[tokio::test]
async fn dropped_lane_waits_lose_no_acknowledgement() {
    let broker = Broker::start(Faults { lost_after: 13, ..Faults::default() }, 3).await;
    let client = client(&broker).await;
    let topic = client.create_topic("t", 1, Durability::Durable).await.unwrap();
    let producer = client.producer(ProducerConfig {
        batch_bytes: 1024,
        max_buffer_bytes: 4096,
        ..ProducerConfig::default()
    });
    let mut lane: Lane = producer.lane(&topic, 0).unwrap();
    let mut dice = Dice(9);
    let (mut pushed, mut acks) = (0_u32, Vec::new());
    while pushed < 3000 {
        match lane.try_push(record(&pushed.to_le_bytes())) {
            Ok(_) => pushed += 1,
            Err(_) => drop(at_most(dice.roll(4), lane.room(4)).await),
        }
        if dice.roll(9) == 0 {
            at_most(dice.roll(4), lane.acknowledged()).await;
            lane.take_acks(&mut acks);
        }
    }
    producer.flush().await.unwrap();
    lane.take_acks(&mut acks);
    assert_eq!(acks.iter().map(|ack| ack.records).sum::<u32>(), pushed);
    assert_eq!(broker.values("t", 0).len() as u32, pushed);
}

/// Questions dropped at every poll point; what they changed is changed once or not at all, and nothing stays behind.
#[tokio::test]
async fn dropped_questions_and_connects_leave_nothing_behind() {
    let broker = Broker::start(Faults::default(), 1).await;
    for polls in 0..12 {
        if let Some(connected) = at_most(polls, Client::connect(ClientConfig::new([broker.address()]))).await
        {
            drop(connected.unwrap());
        }
    }
    gone(&broker).await;
    let client = client(&broker).await;
    for polls in 0..8 {
        let name = format!("t{polls}");
        let created = at_most(polls, client.create_topic(&name, 1, Durability::Durable)).await;
        match client.create_topic(&name, 1, Durability::Durable).await {
            Ok(_) => assert!(created.is_none()),
            Err(error) => assert_eq!(error, corelog_client::ClientError::TopicExists),
        }
        let topic = client.topic(&name).await.unwrap();
        at_most(polls, client.topics()).await;
        at_most(polls, client.topic(&name)).await;
        at_most(polls, client.status()).await;
        at_most(polls, client.ping()).await;
        at_most(polls, client.offset(&topic, 0, Position::End)).await;
        at_most(polls, client.consumer(ConsumerConfig::new(&topic, Position::Start))).await;
        at_most(polls, client.delete_topic(&name)).await;
        client.delete_topic(&name).await.unwrap();
        assert!(client.topic(&name).await.is_err());
    }
    drop(client);
    gone(&broker).await;
}

/// No connection is left: every task of the client has ended, and with it all that it held.
pub(crate) async fn gone(broker: &Broker) {
    let all_closed = async {
        while broker.connections() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_closed).await.expect("every connection is closed");
}
