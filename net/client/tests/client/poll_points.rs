//! Each public future by itself, dropped at each of its poll points, once right after the poll and once when it was
//! woken and not polled again: what was accepted is there once, who waits behind it goes on, and nothing stays behind.

use std::time::Duration;

use corelog_client::{
    Client, ClientConfig, ClientError, Consumer, ConsumerConfig, Durability, ErrorCode, Lane, Partition,
    Position, Producer, ProducerConfig, Receipt, Topic, TopicChange, TopicConfig, TrySendError,
};

use crate::broker::{Broker, Faults};
use crate::cancel::gone;
use crate::polls::{Moment, at_every_poll_point};
use crate::{client, record};

/// Turns of the runtime that are enough for a task that was woken, and far fewer than a slow answer takes.
const TURNS: u32 = 50;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// The tests below, one for each public future of the client.
const FUTURES: [&str; 32] = [
    "Receipt",
    "acknowledged",
    "alter_topic",
    "alter_topic_with",
    "commit",
    "commit",
    "committed",
    "connect",
    "consumer",
    "create_topic",
    "create_topic_with",
    "delete",
    "delete_records",
    "delete_topic",
    "flush",
    "get",
    "list",
    "next",
    "offset",
    "offsets",
    "ping",
    "positions",
    "refresh",
    "refresh",
    "reset",
    "room",
    "seek",
    "send",
    "send_at",
    "status",
    "topic",
    "topics",
];

/// Who adds a public future adds its test.
#[test]
fn every_public_future_has_its_test() {
    let sources = [
        include_str!("../../src/client.rs"),
        include_str!("../../src/consumer.rs"),
        include_str!("../../src/position.rs"),
        include_str!("../../src/producer.rs"),
        include_str!("../../src/topic.rs"),
    ];
    let named = |line: &'static str| {
        let line = line.trim();
        let returned = line.strip_prefix("pub fn ").filter(|line| line.contains("-> impl Future<"));
        let rest =
            line.strip_prefix("pub async fn ").or(line.strip_prefix("impl Future for ")).or(returned)?;
        rest.split(['(', '<', ' ']).next()
    };
    let mut found: Vec<&str> = sources.iter().flat_map(|source| source.lines()).filter_map(named).collect();
    // `Room` is what `send`, `send_at` and `room` wait with.
    found.retain(|name| *name != "Room");
    found.sort_unstable();
    assert_eq!(found, FUTURES);
}

/// A broker, a client, and a topic of one partition.
struct Scene {
    broker: Broker,
    client: Client,
    topic: Topic,
}

impl Scene {
    async fn new(faults: Faults) -> Self {
        let broker = Broker::start(faults, 1).await;
        let client = client(&broker).await;
        let topic = client.create_topic("t", 1, Durability::Durable).await.unwrap();
        Self { broker, client, topic }
    }

    /// A broker that takes its time to answer, and a producer that has room for little.
    async fn narrow() -> (Self, Producer) {
        let scene = Self::new(Faults { slow: 1, ..Faults::default() }).await;
        let producer = scene.narrow_producer();
        (scene, producer)
    }

    fn narrow_producer(&self) -> Producer {
        let config =
            ProducerConfig { batch_bytes: 1024, max_buffer_bytes: 2048, ..ProducerConfig::default() };
        self.client.producer(config)
    }

    /// A consumer of `records` records, each its number.
    async fn filled(records: u32) -> (Self, Consumer) {
        let scene = Self::new(Faults::default()).await;
        let producer = scene.client.producer(ProducerConfig::default());
        for number in 0..records {
            producer.send(&scene.topic, Partition::Index(0), record(&number.to_le_bytes())).await.unwrap();
        }
        producer.flush().await.unwrap();
        let config = ConsumerConfig::new(&scene.topic, Position::Start);
        let consumer = scene.client.consumer(config).await.unwrap();
        (scene, consumer)
    }

    /// Nothing is left once the client is dropped.
    async fn end(self) {
        let Self { broker, client, topic } = self;
        drop((client, topic));
        gone(&broker).await;
    }
}

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} waits for ever"))
}

#[tokio::test]
async fn connect() {
    let broker = Broker::start(Faults::default(), 1).await;
    at_every_poll_point("connect", 2, async |cut| {
        let connected = cut.of(Client::connect(ClientConfig::new([broker.address()]))).await;
        let ended = connected.is_some();
        if let Some(client) = connected {
            client.unwrap().ping().await.unwrap();
        }
        gone(&broker).await;
        ended
    })
    .await;
}

#[tokio::test]
async fn create_topic_and_delete_topic() {
    let scene = Scene::new(Faults::default()).await;
    let mut names = vec!["t".to_owned()];
    // Two digits: the names are in order.
    at_every_poll_point("create_topic", 2, async |cut| {
        let name = format!("t{:02}", names.len());
        let created = cut.of(scene.client.create_topic(&name, 2, Durability::Written)).await;
        // Made or not: not half, and not twice.
        match scene.client.create_topic(&name, 2, Durability::Written).await {
            Ok(topic) => assert!(created.is_none() && topic.partition_count() == 2),
            Err(error) => assert_eq!(error, ClientError::TopicExists),
        }
        let ended = created.map(Result::unwrap);
        if let Some(topic) = &ended {
            assert_eq!(scene.client.topic(&name).await.unwrap(), *topic);
        }
        names.push(name);
        ended.is_some()
    })
    .await;
    let all = scene.client.topics().await.unwrap();
    assert_eq!(all.iter().map(Topic::name).collect::<Vec<_>>(), names);

    at_every_poll_point("delete_topic", 2, async |cut| {
        let name = names.pop().expect("there are more topics than poll points");
        let deleted = cut.of(scene.client.delete_topic(&name)).await.map(Result::unwrap);
        scene.client.delete_topic(&name).await.unwrap();
        assert_eq!(scene.client.topic(&name).await.err(), Some(ClientError::UnknownTopic));
        deleted.is_some()
    })
    .await;
    let all = scene.client.topics().await.unwrap();
    assert_eq!(all.iter().map(Topic::name).collect::<Vec<_>>(), names, "no other is gone");
    scene.end().await;
}

/// Altered or not, and what was asked for is found by whoever asks next.
#[tokio::test]
async fn alter_topic_and_both_refresh() {
    let (scene, mut consumer) = Scene::filled(1).await;
    let Scene { client, topic, .. } = &scene;
    let mut partitions = 1;
    at_every_poll_point("alter_topic", 2, async |cut| {
        let more = partitions + 1;
        let altered = cut.of(client.alter_topic("t", Some(more), None)).await.map(Result::unwrap);
        let now = client.topic("t").await.unwrap().partition_count();
        assert!(now == more || altered.is_none() && now == partitions, "{now}");
        partitions = now;
        altered.is_some()
    })
    .await;
    let producer = client.producer(ProducerConfig::default());
    at_every_poll_point("the producer's refresh", 2, async |cut| {
        partitions = client.alter_topic("t", Some(partitions + 1), None).await.unwrap().partition_count();
        let known = cut.of(producer.refresh(topic)).await;
        assert_eq!(producer.refresh(topic).await, Ok(partitions));
        known.map(|known| assert_eq!(known, Ok(partitions))).is_some()
    })
    .await;
    at_every_poll_point("the consumer's refresh", 2, async |cut| {
        partitions = client.alter_topic("t", Some(partitions + 1), None).await.unwrap().partition_count();
        let known = cut.of(consumer.refresh()).await;
        assert_eq!(consumer.refresh().await, Ok(partitions));
        known.map(|known| assert_eq!(known, Ok(partitions))).is_some()
    })
    .await;
    producer.send(topic, Partition::Index(partitions - 1), record(b"new")).await.unwrap().await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.push(soon("next", consumer.next()).await.unwrap().partition());
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, partitions - 1], "each partition is read once");
    drop((producer, consumer));
    scene.end().await;
}

/// The answer to a question that was dropped is nobody's: the next question has its own.
#[tokio::test]
async fn topics_topic_offset_status_and_ping() {
    let (scene, consumer) = Scene::filled(7).await;
    let Scene { client, topic, .. } = &scene;
    at_every_poll_point("topics", 2, async |cut| {
        let found = cut.of(client.topics()).await;
        assert_eq!(client.topic("t").await.as_ref(), Ok(topic));
        found.map(|found| assert_eq!(found.as_deref(), Ok(std::slice::from_ref(topic)))).is_some()
    })
    .await;
    at_every_poll_point("topic", 2, async |cut| {
        let found = cut.of(client.topic("t")).await;
        assert_eq!(client.topic("u").await.err(), Some(ClientError::UnknownTopic));
        found.map(|found| assert_eq!(found.as_ref(), Ok(topic))).is_some()
    })
    .await;
    at_every_poll_point("offsets", 1, async |cut| {
        let found = cut.of(client.offsets(topic, Position::End)).await;
        assert_eq!(client.offsets(topic, Position::Start).await, Ok(vec![0]));
        found.map(|found| assert_eq!(found, Ok(vec![7]))).is_some()
    })
    .await;
    at_every_poll_point("offset", 2, async |cut| {
        let found = cut.of(client.offset(topic, 0, Position::End)).await;
        assert_eq!(client.offset(topic, 0, Position::Start).await, Ok(0));
        found.map(|found| assert_eq!(found, Ok(7))).is_some()
    })
    .await;
    at_every_poll_point("status", 2, async |cut| {
        let found = cut.of(client.status()).await;
        client.ping().await.unwrap();
        found.map(|found| assert_eq!(found.unwrap().requests, 7)).is_some()
    })
    .await;
    at_every_poll_point("ping", 2, async |cut| {
        let found = cut.of(client.ping()).await;
        assert_eq!(client.offset(topic, 0, Position::End).await, Ok(7));
        found.map(Result::unwrap).is_some()
    })
    .await;
    drop(consumer);
    scene.end().await;
}

/// It waits for nothing; a consumer that was made and dropped at once leaves no connection.
#[tokio::test]
async fn consumer() {
    let (scene, kept) = Scene::filled(7).await;
    at_every_poll_point("consumer", 1, async |cut| {
        let made = cut.of(scene.client.consumer(ConsumerConfig::new(&scene.topic, Position::Start))).await;
        made.map(|made| drop(made.unwrap())).is_some()
    })
    .await;
    drop(kept);
    scene.end().await;
}

/// What was sent, and what became of it.
#[derive(Default)]
struct Sent {
    number: u32,
    values: Vec<Vec<u8>>,
    receipts: Vec<Receipt>,
}

impl Sent {
    /// A value that fills a good part of a batch.
    fn next_value(&mut self) -> Vec<u8> {
        self.value_of(500)
    }

    fn value_of(&mut self, bytes: usize) -> Vec<u8> {
        self.number += 1;
        let mut value = self.number.to_le_bytes().to_vec();
        value.resize(bytes, 0);
        value
    }

    fn accepted(&mut self, value: Vec<u8>, receipt: Receipt) {
        self.values.push(value);
        self.receipts.push(receipt);
    }

    /// Sends until there is no room.
    fn fill(&mut self, producer: &Producer, topic: &Topic) {
        loop {
            let value = self.next_value();
            match producer.try_send(topic, Partition::Index(0), record(&value)) {
                Ok(receipt) => self.accepted(value, receipt),
                Err(error) => return assert_eq!(error, TrySendError::Full),
            }
        }
    }

    /// Each of them is there once, where its receipt says, and nothing else.
    async fn judge(self, scene: Scene, producer: Producer) {
        soon("flush", producer.flush()).await.unwrap();
        let offset = |receipt: &Receipt| receipt.poll_now().expect("answered").unwrap().offset as usize;
        let mut expected = vec![Vec::new(); self.values.len()];
        for (value, receipt) in self.values.into_iter().zip(&self.receipts) {
            expected[offset(receipt)] = value;
        }
        assert_eq!(scene.broker.values("t", 0), expected, "what was accepted, once");
        drop((self.receipts, producer));
        scene.end().await;
    }
}

/// Who waits behind the one that is dropped gets the room.
#[tokio::test]
async fn send() {
    let (scene, producer) = Scene::narrow().await;
    let Scene { topic, .. } = &scene;
    let mut sent = Sent::default();
    at_every_poll_point("send", 2, async |cut| {
        // Nobody has waited with it before.
        let producer = scene.narrow_producer();
        sent.fill(&producer, topic);
        // The room that one answer makes is for the first alone.
        let (value, behind) = (sent.value_of(600), sent.next_value());
        let (of_another, its_topic, its_value) = (producer.clone(), topic.clone(), behind.clone());
        let next = tokio::spawn(async move {
            of_another.send(&its_topic, Partition::Index(0), record(&its_value)).await
        });
        let first = cut.of(producer.send(topic, Partition::Index(0), record(&value))).await;
        if first.is_none() && cut.polls > 0 && cut.moment == Moment::Woken {
            // There is room, and a slow answer is far: it is the dropped one's that the next one gets.
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
            assert!(next.is_finished(), "the room is passed on");
        }
        sent.accepted(behind, soon("who waits behind", next).await.unwrap().unwrap());
        let ended = first.map(|receipt| sent.accepted(value, receipt.unwrap())).is_some();
        soon("flush", producer.flush()).await.unwrap();
        ended
    })
    .await;
    sent.judge(scene, producer).await;
}

#[tokio::test]
async fn send_at() {
    let (scene, producer) = Scene::narrow().await;
    let Scene { topic, .. } = &scene;
    let mut sent = Sent::default();
    at_every_poll_point("send_at", 2, async |cut| {
        sent.fill(&producer, topic);
        let (value, after) = (sent.next_value(), sent.next_value());
        let (end, records) = (sent.values.len() as u64, [record(&value)]);
        let first = cut.of(producer.send_at(topic, 0, end, &records)).await;
        let ended = first.map(|receipt| sent.accepted(value, receipt.unwrap())).is_some();
        let next = producer.send(topic, Partition::Index(0), record(&after));
        sent.accepted(after.clone(), soon("who comes after it", next).await.unwrap());
        ended
    })
    .await;
    sent.judge(scene, producer).await;
}

/// A dropped flush has sent what it was to send; another one waits for it just as well.
#[tokio::test]
async fn flush() {
    let (scene, producer) = Scene::narrow().await;
    let mut sent = Sent::default();
    at_every_poll_point("flush", 2, async |cut| {
        sent.fill(&producer, &scene.topic);
        let flushed = cut.of(producer.flush()).await;
        flushed.map(Result::unwrap).is_some()
    })
    .await;
    sent.judge(scene, producer).await;
}

/// A receipt that is dropped takes nothing from those of other records, of its own batch or of others.
#[tokio::test]
async fn receipt() {
    let (scene, producer) = Scene::narrow().await;
    let mut values = Vec::new();
    at_every_poll_point("a receipt", 2, async |cut| {
        let mut receipts = Vec::new();
        let first = values.len() as u64;
        // The first two are sent at once; the rest wait for an answer and share a batch.
        for offset in first..first + 4 {
            let value = offset.to_le_bytes().to_vec();
            let sending = producer.send(&scene.topic, Partition::Index(0), record(&value));
            receipts.push(soon("send", sending).await.unwrap());
            values.push(value);
        }
        let acked = cut.of(receipts.remove(2)).await;
        let ended = acked.map(|acked| assert_eq!(acked.unwrap().offset, first + 2)).is_some();
        for (offset, receipt) in [first, first + 1, first + 3].into_iter().zip(receipts) {
            assert_eq!(soon("another receipt", receipt).await.unwrap().offset, offset);
        }
        ended
    })
    .await;
    assert_eq!(scene.broker.values("t", 0), values);
    drop(producer);
    scene.end().await;
}

/// A lane that is full, what was pushed into it, and how many of that were acknowledged.
struct Full {
    lane: Lane,
    pushed: u32,
    acked: u32,
}

impl Full {
    fn fill(&mut self) {
        loop {
            let mut value = self.pushed.to_le_bytes().to_vec();
            value.resize(400, 0);
            match self.lane.try_push(record(&value)) {
                Ok(_) => self.pushed += 1,
                Err(error) => return assert_eq!(error, TrySendError::Full),
            }
        }
    }

    fn take(&mut self) {
        let mut acks = Vec::new();
        self.lane.take_acks(&mut acks);
        self.acked += acks.into_iter().map(|ack| ack.result.map(|_| ack.records).unwrap()).sum::<u32>();
    }
}

#[tokio::test]
async fn room_and_acknowledged() {
    let (scene, producer) = Scene::narrow().await;
    let lane = producer.lane(&scene.topic, 0).unwrap();
    let mut full = Full { lane, pushed: 0, acked: 0 };
    at_every_poll_point("room", 2, async |cut| {
        full.fill();
        let found = cut.of(full.lane.room(400)).await;
        // Whoever comes next finds the room that the dropped one was told of.
        soon("room", full.lane.room(400)).await;
        assert!(full.lane.try_push(record(&[7; 400])).is_ok(), "there is room");
        full.pushed += 1;
        found.is_some()
    })
    .await;
    at_every_poll_point("acknowledged", 2, async |cut| {
        soon("flush", producer.flush()).await.unwrap();
        full.take();
        assert_eq!(full.acked, full.pushed);
        full.fill();
        let told = cut.of(full.lane.acknowledged()).await;
        let before = full.acked;
        soon("acknowledged", full.lane.acknowledged()).await;
        full.take();
        assert!(full.acked > before, "what the dropped one was told of is still to be taken");
        told.is_some()
    })
    .await;
    soon("flush", producer.flush()).await.unwrap();
    full.take();
    assert_eq!((full.acked, scene.broker.values("t", 0).len()), (full.pushed, full.pushed as usize));
    drop((full, producer));
    scene.end().await;
}

/// The records from `from` to the end, each once, in order.
async fn read(consumer: &mut Consumer, from: u32, to: u32) {
    let mut expected = from;
    while expected < to {
        let mut batch = soon("next", consumer.next()).await.unwrap();
        for record in batch.records().unwrap() {
            let value = &expected.to_le_bytes()[..];
            assert_eq!((record.offset, record.value), (u64::from(expected), Some(value)));
            expected += 1;
        }
    }
    assert_eq!(expected, to);
}

#[tokio::test]
async fn next() {
    let (scene, mut consumer) = Scene::filled(40).await;
    at_every_poll_point("next", 2, async |cut| {
        // Nothing fetched is left: it has to wait.
        assert_eq!(soon("seek", consumer.seek(0, Position::Offset(11))).await, Ok(11));
        let mut found = 11;
        let ended = match cut.of(consumer.next()).await {
            Some(batch) => {
                let mut batch = batch.unwrap();
                found += batch.records().unwrap().count() as u32;
                true
            }
            None => false,
        };
        read(&mut consumer, found, 40).await;
        ended
    })
    .await;
    drop(consumer);
    scene.end().await;
}

/// It is in force from its first poll on, and not before.
#[tokio::test]
async fn seek() {
    let (scene, mut consumer) = Scene::filled(40).await;
    let mut polled = false;
    at_every_poll_point("seek", 2, async |cut| {
        assert_eq!(soon("seek", consumer.seek(0, Position::Offset(22))).await, Ok(22));
        polled = false;
        let seeking = async {
            polled = true;
            consumer.seek(0, Position::Start).await
        };
        let found = cut.of(seeking).await;
        assert!(found.as_ref().is_none_or(|found| *found == Ok(0)));
        read(&mut consumer, if polled { 0 } else { 22 }, 40).await;
        found.is_some()
    })
    .await;
    drop(consumer);
    scene.end().await;
}

/// What was asked for is committed although nobody waits; what was given afterwards is not.
#[tokio::test]
async fn commit_and_committed_of_a_consumer() {
    let (scene, first) = Scene::filled(90).await;
    drop(first);
    let position = scene.client.position("me", &scene.topic);
    let config = ConsumerConfig { max_bytes: 1, ..ConsumerConfig::new(&scene.topic, Position::Start) };
    let mut consumer = scene.client.consumer(config.named("me")).await.unwrap();
    for polled in [false, true] {
        let what = if polled { "committed" } else { "commit" };
        at_every_poll_point(what, 2, async |cut| {
            consumer.seek(0, Position::Offset(0)).await.unwrap();
            consumer.commit().await.unwrap();
            let given = soon("next", consumer.next()).await.unwrap().next_offset();
            let ended = if polled {
                consumer.commit_later(0, given).unwrap();
                cut.of(consumer.committed()).await
            } else {
                cut.of(consumer.commit()).await
            };
            let ended = ended.map(Result::unwrap).is_some();
            soon("committed", consumer.committed()).await.unwrap();
            let found = position.get(0).await.unwrap().map(|found| found.offset);
            // A future that was never polled has asked for nothing.
            let expected = if polled || ended || cut.polls > 0 { given } else { 0 };
            assert_eq!(found, Some(expected), "{what} {cut:?}");
            ended
        })
        .await;
    }
    drop((consumer, position));
    scene.end().await;
}

/// A position is what it was or what it was to be, whoever goes away when.
#[tokio::test]
async fn positions_get_list_commit_reset_and_delete() {
    let (scene, consumer) = Scene::filled(7).await;
    let Scene { client, topic, .. } = &scene;
    let position = client.position("me", topic);
    let offset = async || position.get(0).await.unwrap().map(|found| found.offset);
    at_every_poll_point("commit", 2, async |cut| {
        let done = cut.of(position.commit(0, 3, "")).await.map(Result::unwrap).is_some();
        let found = offset().await;
        assert!(found == Some(3) || found.is_none() && !done, "{found:?}");
        position.commit(0, 3, "").await.unwrap();
        assert_eq!(offset().await, Some(3));
        done
    })
    .await;
    at_every_poll_point("get", 2, async |cut| {
        cut.of(position.get(0)).await.map(|found| assert_eq!(found.unwrap().unwrap().offset, 3)).is_some()
    })
    .await;
    at_every_poll_point("list", 1, async |cut| {
        cut.of(position.list()).await.map(|found| assert_eq!(found.unwrap()[0].offset, 3)).is_some()
    })
    .await;
    at_every_poll_point("positions", 1, async |cut| {
        cut.of(client.positions(topic)).await.map(|found| assert_eq!(found.unwrap()[0].name, "me")).is_some()
    })
    .await;
    at_every_poll_point("reset", 3, async |cut| {
        position.commit(0, 3, "").await.unwrap();
        let done = cut.of(position.reset(0, Position::End)).await;
        let found = offset().await;
        assert!(found == Some(7) || found == Some(3) && done.is_none(), "{found:?}");
        // One that was sent and not waited for may come now.
        client.ping().await.unwrap();
        done.map(|done| assert_eq!(done, Ok(7))).is_some()
    })
    .await;
    at_every_poll_point("delete", 2, async |cut| {
        position.commit(0, 3, "").await.unwrap();
        let done = cut.of(position.delete(0)).await.map(Result::unwrap).is_some();
        let found = offset().await;
        assert!(found.is_none() || found == Some(3) && !done, "{found:?}");
        done
    })
    .await;
    drop((position, consumer));
    scene.end().await;
}

#[tokio::test]
async fn create_topic_with_alter_topic_with_and_delete_records() {
    let (scene, consumer) = Scene::filled(7).await;
    let Scene { client, topic, .. } = &scene;
    let hour = Some(Duration::from_secs(3600));
    let mut made = 0;
    at_every_poll_point("create_topic_with", 2, async |cut| {
        made += 1;
        let name = format!("kept-{made}");
        let config = TopicConfig { partitions: 2, retention: hour, ..TopicConfig::default() };
        let created = cut.of(client.create_topic_with(&name, config)).await.map(Result::unwrap);
        match client.create_topic_with(&name, config).await {
            Ok(topic) => assert!(created.is_none() && topic.retention() == hour),
            Err(error) => assert_eq!(error, ClientError::TopicExists),
        }
        let found = client.topic(&name).await.unwrap();
        assert_eq!((found.retention(), found.retention_bytes(), found.partition_count()), (hour, None, 2));
        created.is_some()
    })
    .await;
    let mut bytes = 1000;
    at_every_poll_point("alter_topic_with", 2, async |cut| {
        bytes += 1;
        let change = TopicChange { retention_bytes: Some(bytes), ..TopicChange::default() };
        let altered = cut.of(client.alter_topic_with("kept-1", change)).await.map(Result::unwrap);
        let found = client.topic("kept-1").await.unwrap();
        let before = (bytes > 1001).then_some(bytes - 1);
        assert_eq!(found.retention(), hour, "what is not named stays");
        assert!(
            found.retention_bytes() == Some(bytes) || altered.is_none() && found.retention_bytes() == before
        );
        bytes = found.retention_bytes().unwrap_or(1000);
        altered.is_some()
    })
    .await;
    let none =
        TopicChange { retention: Some(Duration::ZERO), retention_bytes: Some(0), ..TopicChange::default() };
    let found = client.alter_topic_with("kept-1", none).await.unwrap();
    assert_eq!((found.retention(), found.retention_bytes()), (None, None));
    at_every_poll_point("delete_records", 2, async |cut| {
        let deleted = cut.of(client.delete_records(topic, 0, 3)).await;
        assert_eq!(client.delete_records(topic, 0, 3).await, Ok(3), "twice is once");
        deleted.map(|deleted| assert_eq!(deleted, Ok(3))).is_some()
    })
    .await;
    assert_eq!(client.offset(topic, 0, Position::Start).await, Ok(3));
    let Err(ClientError::Refused(beyond)) = client.delete_records(topic, 0, 8).await else {
        panic!("there are seven");
    };
    assert_eq!(beyond.code, ErrorCode::OffsetOutOfRange);
    drop(consumer);
    scene.end().await;
}
