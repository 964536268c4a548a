//! Every public future, dropped at every poll point while a real broker serves, is stopped and is killed: nothing accepted is
//! lost, nothing comes twice, nothing is left behind.

use std::time::Duration;

use corelog_client::{
    Client, ClientConfig, ClientError, ConsumerConfig, Durability, Partition, Position, Producer,
    ProducerConfig, Receipt, Topic,
};
use corelog_testing::Broker;

use crate::polls::{Dice, at_every_poll_point, at_most};
use crate::{client, read_all, record};

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
                self.receipts.push(receipt.expect("accepted"));
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
    let mut broker = Broker::start().expect("a broker");
    for seed in 0..6 {
        let client = client(&broker).await;
        let topic = client.create_topic(&format!("t{seed}"), 1, Durability::Durable).await.expect("created");
        let producer = client.producer(ProducerConfig {
            batch_bytes: 1024,
            max_buffer_bytes: 2048,
            ..ProducerConfig::default()
        });
        let (accepted, receipts, dice) = (Vec::new(), Vec::new(), Dice(seed));
        let mut story = Story { topic: topic.clone(), producer, accepted, receipts, dice };
        for part in 0..4 {
            story.send(150).await;
            // What is accepted now is out, waits to be sent, or is still open.
            match part {
                1 => broker.restart().expect("started again"),
                2 => {
                    broker.kill().expect("killed");
                    broker.restart().expect("started again");
                }
                _ => {}
            }
        }
        story.producer.flush().await.expect("acknowledged");
        assert!(story.accepted.len() < 600, "some were dropped before they were accepted");
        let values = read_all(&client, &topic).await;
        assert_eq!(values[0], story.accepted, "seed {seed}: what was accepted, once, in order");
        let answered = |receipt: &Receipt| receipt.poll_now().is_some_and(|answer| answer.is_ok());
        assert!(story.receipts.iter().all(answered));
        drop((story, client));
        gone(&broker).await;
    }
}

#[tokio::test]
async fn dropped_conditional_sends_are_appended_once_or_not_at_all() {
    let mut broker = Broker::start().expect("a broker");
    let client = client(&broker).await;
    let topic = client.create_topic("t", 1, Durability::Durable).await.expect("created");
    let producer = client.producer(ProducerConfig { max_buffer_bytes: 2048, ..ProducerConfig::default() });
    let mut dice = Dice(5);
    let mut accepted = Vec::new();
    for n in 0..300_u32 {
        let value = n.to_le_bytes();
        let records = [record(&value)];
        let sending = producer.send_at(&topic, 0, accepted.len() as u64, &records);
        if let Some(receipt) = at_most(dice.roll(3), sending).await {
            let receipt = receipt.expect("accepted");
            accepted.push(value.to_vec());
            // Whether its answer is waited for changes nothing.
            at_most(dice.roll(6), receipt).await;
        }
        if n % 100 == 50 {
            broker.kill().expect("killed");
            broker.restart().expect("started again");
        }
    }
    producer.flush().await.expect("each found the end where it expected it");
    assert!(accepted.len() < 300, "some were dropped before they were accepted");
    assert_eq!(read_all(&client, &topic).await, [accepted]);
}

#[tokio::test]
async fn dropped_nexts_and_seeks_lose_and_repeat_nothing() {
    let mut broker = Broker::start().expect("a broker");
    for seed in 0..6 {
        let client = client(&broker).await;
        let topic = client.create_topic(&format!("t{seed}"), 1, Durability::Durable).await.expect("created");
        let producer = client.producer(ProducerConfig { batch_bytes: 1024, ..ProducerConfig::default() });
        for n in 0..800_u32 {
            let sent = producer.send(&topic, Partition::Index(0), record(&n.to_le_bytes())).await;
            sent.expect("accepted");
        }
        producer.flush().await.expect("acknowledged");
        let config = ConsumerConfig {
            max_bytes: 3000,
            prefetch_bytes: 3000,
            ..ConsumerConfig::new(&topic, Position::Start)
        };
        let mut consumer = client.consumer(config).await.expect("a consumer");
        let (mut dice, mut expected, mut restarts) = (Dice(seed), 0, 0);
        while expected < 800 {
            if let Some(batch) = at_most(dice.roll(4), consumer.next()).await {
                for record in batch.expect("readable").records().expect("readable") {
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
                1 => drop(at_most(0, consumer.seek(0, Position::Start)).await),
                2 => {
                    at_most(1, consumer.seek(0, Position::Start)).await;
                    expected = 0;
                }
                3 if restarts < 2 => {
                    broker.restart().expect("started again");
                    restarts += 1;
                }
                _ => {}
            }
        }
        drop((consumer, producer, client));
        gone(&broker).await;
    }
}

/// Questions dropped at every poll point; what they changed is changed once or not at all, and nothing stays behind.
#[tokio::test]
async fn dropped_questions_and_connects_leave_nothing_behind() {
    let broker = Broker::start().expect("a broker");
    let address = broker.address().to_string();
    at_every_poll_point("connect", 2, async |cut| {
        let connected = cut.of(Client::connect(ClientConfig::new([&*address]))).await;
        connected.map(|connected| drop(connected.expect("the broker serves"))).is_some()
    })
    .await;
    gone(&broker).await;
    let client = client(&broker).await;
    let mut names = Vec::new();
    at_every_poll_point("create_topic", 2, async |cut| {
        let name = format!("t{}", names.len());
        let created = cut.of(client.create_topic(&name, 1, Durability::Durable)).await;
        match client.create_topic(&name, 1, Durability::Durable).await {
            Ok(_) => assert!(created.is_none()),
            Err(error) => assert_eq!(error, ClientError::TopicExists),
        }
        names.push(name);
        created.map(|created| drop(created.expect("a free name"))).is_some()
    })
    .await;
    let topic = client.topic(&names[0]).await.expect("it is there");
    at_every_poll_point("topics", 2, async |cut| {
        let found = cut.of(client.topics()).await;
        assert_eq!(client.topic(&names[0]).await, Ok(topic.clone()), "the next question has its own answer");
        found.map(|found| assert_eq!(found.expect("it serves").len(), names.len())).is_some()
    })
    .await;
    at_every_poll_point("topic", 2, async |cut| {
        let found = cut.of(client.topic(&names[0])).await;
        assert_eq!(client.offset(&topic, 0, Position::End).await, Ok(0));
        found.map(|found| assert_eq!(found.as_ref(), Ok(&topic))).is_some()
    })
    .await;
    at_every_poll_point("status and ping", 2, async |cut| {
        let status = cut.of(client.status()).await;
        let pinged = cut.of(client.ping()).await;
        let asked = cut.of(client.offset(&topic, 0, Position::End)).await;
        assert_eq!(client.topics().await.map(|all| all.len()), Ok(names.len()));
        status.is_some_and(|status| status.is_ok()) && pinged == Some(Ok(())) && asked == Some(Ok(0))
    })
    .await;
    at_every_poll_point("consumer", 1, async |cut| {
        cut.of(client.consumer(ConsumerConfig::new(&topic, Position::Start))).await.is_some()
    })
    .await;
    at_every_poll_point("delete_topic", 2, async |cut| {
        let name = names.pop().expect("there are more topics than poll points");
        let deleted = cut.of(client.delete_topic(&name)).await;
        match client.delete_topic(&name).await {
            Ok(()) => assert!(deleted.is_none()),
            Err(error) => assert_eq!(error, ClientError::UnknownTopic),
        }
        assert_eq!(client.topic(&name).await.err(), Some(ClientError::UnknownTopic));
        deleted.map(|deleted| deleted.expect("it was there")).is_some()
    })
    .await;
    drop(client);
    gone(&broker).await;
}

/// No connection is left but the one that asks: every task of the client has ended, and with it all that it held.
async fn gone(broker: &Broker) {
    let asking = client(broker).await;
    let all_closed = async {
        while asking.status().await.expect("it answers").connections > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_closed).await.expect("every connection is closed");
}
