//! What the client does in a conversation, chapter by chapter, and what its user is told, in words that stay the same.
//!
//! A chapter that was recorded is never changed: what is to be said in addition makes a new one.
//! **Invariant:** what is asked does not depend on how fast answers come. A reader's connection has ended before anything
//! is appended to what it reads, and who may read ahead reads to the end; all others take one batch at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use corelog_client::{
    Batch, Client, ClientConfig, ClientError, Committed, ConsumeError, Consumer, ConsumerConfig, Durability,
    Partition, Partitions, Position, ProduceError, ProducerConfig, RecordRef, Refused, Topic,
};
use tokio::sync::watch;

/// How long the client waits for an answer, and a reader for what may come.
const PATIENCE: Duration = Duration::from_secs(60);
const SEED: u64 = 5;
/// When the records of the kept store begin, in microseconds since 1970.
const MIDNIGHT_US: u64 = 1_795_305_600_000_000;
/// The timestamps of what is appended.
const MORNING_US: u64 = MIDNIGHT_US + 6 * 3_600_000_000;

macro_rules! chapters {
    ($($(#[$doc:meta])* $name:ident $text:literal $act:ident,)*) => {
        /// A part of a conversation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Chapter {
            $($(#[$doc])* $name,)*
        }

        impl Chapter {
            /// All of them, in the order in which they are acted.
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// As the file calls it.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The reverse of [`Self::name`].
            pub(crate) fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|chapter| chapter.name() == name)
            }

            async fn act(self, talk: &mut Talk<'_>) {
                match self {
                    $(Self::$name => talk.$act().await,)*
                }
            }
        }
    };
}

chapters! {
    /// Ping, status, topics, offsets by start, end and time.
    Asking "asking" asking,
    /// Everything of two topics, from the start, an offset and a time on.
    Reading "reading" reading,
    /// To and fro in a partition.
    Seeking "seeking" seeking,
    /// One batch after another, with next to no memory.
    Sipping "sipping" sipping,
    /// With and without a name, and where the log ends as expected or not; all of it is read back.
    Producing "producing" producing,
    /// A reader at the end is served as soon as something is appended.
    Following "following" following,
    /// A topic comes, is used and goes.
    Administering "administering" administering,
    /// What is wrong is refused.
    Refused "refused" refused,
    /// A topic grows and changes its level, and does not shrink.
    Altering "altering" altering,
    /// Positions: of a reader with a name, set, found again and forgotten.
    Keeping "keeping" keeping,
}

struct Talk<'a> {
    client: Client,
    /// Connections that are open.
    open: watch::Receiver<usize>,
    tell: &'a dyn Fn(String),
}

/// Connects to a broker and acts these chapters. `open` counts the connections that are not over for the other side too.
pub(crate) async fn hold(
    broker: SocketAddr,
    chapters: &[Chapter],
    open: watch::Receiver<usize>,
    tell: &dyn Fn(String),
) {
    let config = ClientConfig {
        seed: Some(SEED),
        request_timeout: PATIENCE,
        ..ClientConfig::new([broker.to_string()])
    };
    let client = Client::connect(config).await.expect("it serves");
    let mut talk = Talk { client, open, tell };
    for chapter in chapters {
        talk.say(format_args!("chapter {}", chapter.name()));
        chapter.act(&mut talk).await;
        talk.until_open(1).await;
    }
    let Talk { client, mut open, .. } = talk;
    drop(client);
    open.wait_for(|&open| open == 0).await.expect("somebody counts them");
}

impl Talk<'_> {
    fn say(&self, what: std::fmt::Arguments<'_>) {
        (self.tell)(what.to_string());
    }

    /// Waits until so many connections are open: whoever used the others is gone for the broker too.
    async fn until_open(&mut self, connections: usize) {
        self.open.wait_for(|&open| open == connections).await.expect("somebody counts them");
    }

    async fn topic(&self, name: &str) -> Topic {
        self.client.topic(name).await.expect("it is there")
    }

    async fn say_topics(&self) {
        for topic in self.client.topics().await.expect("answered") {
            self.say_topic(&topic);
        }
    }

    fn say_topic(&self, topic: &Topic) {
        let (name, id, partitions) = (topic.name(), topic.id().0, topic.partition_count());
        let (durability, damage) = (topic.durability() as u8, topic.damage().len());
        self.say(format_args!(
            "topic {name} {id:032x} x{partitions} durability {durability} damage {damage}"
        ));
    }

    async fn say_offset(&self, topic: &Topic, partition: u32, position: Position) {
        let found = self.client.offset(topic, partition, position).await.map_err(|error| refusal(&error));
        self.say(format_args!("offset {}/{partition} {position:?}: {found:?}", topic.name()));
    }

    async fn asking(&mut self) {
        self.client.ping().await.expect("answered");
        let status = self.client.status().await.expect("answered");
        let (topics, partitions, logs, term) = (status.topics, status.partitions, status.logs, status.term);
        self.say(format_args!("status topics {topics} partitions {partitions} logs {logs} term {term}"));
        self.say_topics().await;
        let (orders, sequences) = (self.topic("orders").await, self.topic("sequences").await);
        self.say_topic(&orders);
        for partition in 0..3 {
            for time in [0, 20, 43, 44, 1_000_000] {
                self.say_offset(&orders, partition, Position::Time(MIDNIGHT_US + time)).await;
            }
            self.say_offset(&orders, partition, Position::Start).await;
            self.say_offset(&orders, partition, Position::End).await;
        }
        self.say_offset(&sequences, 0, Position::Start).await;
        self.say_offset(&sequences, 0, Position::End).await;
    }

    async fn reading(&mut self) {
        for topic in [self.topic("orders").await, self.topic("sequences").await] {
            self.read(reader(&topic, Position::Start)).await;
        }
        let orders = self.topic("orders").await;
        self.read(reader(&orders, Position::Offset(41))).await;
        self.read(reader(&orders, Position::Time(MIDNIGHT_US + 42))).await;
    }

    /// Reads each partition to its end; all of them have something to be read.
    async fn read(&mut self, config: ConsumerConfig) {
        let (name, from) = (config.topic.name().to_owned(), config.from);
        let mut left: BTreeSet<u32> = match &config.partitions {
            Partitions::All => (0..config.topic.partition_count()).collect(),
            Partitions::Only(some) => some.iter().copied().collect(),
        };
        let mut consumer = self.client.consumer(config).await.expect("a consumer");
        let mut found: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        while !left.is_empty() {
            let mut batch = consumer.next().await.expect("readable");
            if batch.next_offset() == batch.high_watermark() {
                left.remove(&batch.partition());
            }
            found.entry(batch.partition()).or_default().extend(records(&mut batch));
        }
        for (partition, records) in found {
            let end = consumer.position(partition);
            self.say(format_args!("read {name}/{partition} from {from:?} to {end:?}"));
            records.iter().for_each(|record| self.say(format_args!("{record}")));
        }
        drop(consumer);
        self.until_open(1).await;
    }

    async fn seeking(&mut self) {
        let orders = self.topic("orders").await;
        let partitions = Partitions::Only(vec![1]);
        let config = ConsumerConfig { partitions, prefetch_bytes: 1, ..reader(&orders, Position::Start) };
        let mut consumer = self.client.consumer(config).await.expect("a consumer");
        self.say_next(&mut consumer).await;
        let time = Position::Time(MIDNIGHT_US + 30);
        for to in [
            Position::Start,
            Position::Offset(20),
            time,
            Position::Start,
            Position::End,
            Position::Offset(43),
        ] {
            let found = consumer.seek(1, to).await.map_err(|error| refusal(&error));
            self.say(format_args!("seek {to:?}: {found:?}"));
            if to != Position::End {
                self.say_next(&mut consumer).await;
            }
        }
        let elsewhere = consumer.seek(2, Position::Start).await.map_err(|error| refusal(&error));
        self.say(format_args!("seek in a partition that is not read: {elsewhere:?}"));
    }

    /// The first record of the next batch, or the error.
    async fn say_next(&self, consumer: &mut Consumer) {
        match consumer.next().await {
            Ok(mut batch) => {
                let first = records(&mut batch).into_iter().next();
                self.say(format_args!("next {}", first.as_deref().unwrap_or("nothing")));
            }
            Err(error) => self.say(format_args!("next {}", fault(&error))),
        }
    }

    async fn sipping(&mut self) {
        for name in ["orders", "sequences"] {
            let partitions = Partitions::Only(vec![0]);
            let topic = self.topic(name).await;
            let config = reader(&topic, Position::Start);
            self.read(ConsumerConfig { partitions, max_bytes: 64, prefetch_bytes: 64, ..config }).await;
        }
    }

    async fn producing(&mut self) {
        let orders = self.topic("orders").await;
        let mut ends = Vec::new();
        for partition in 0..3 {
            ends.push(self.client.offset(&orders, partition, Position::End).await.expect("answered"));
        }
        let named = self.client.producer(ProducerConfig::default());
        for numbers in [0..3, 3..4] {
            let mut receipts = Vec::new();
            for number in numbers {
                let value = format!("named {number}").into_bytes();
                let record = RecordRef { headers: &[("trace-id", b"\x07")], ..appended(&value, number) };
                receipts.push(named.send(&orders, Partition::Index(0), record).await.expect("accepted"));
            }
            for receipt in receipts {
                self.say_acked(receipt.await);
            }
        }
        let nameless =
            self.client.producer(ProducerConfig { idempotent: false, ..ProducerConfig::default() });
        let receipt = nameless.send(&orders, Partition::Index(1), appended(b"nameless", 4)).await;
        self.say_acked(receipt.expect("accepted").await);
        let pair = [appended(b"first of a pair", 5), appended(b"second of a pair", 6)];
        for _ in 0..2 {
            let receipt = named.send_at(&orders, 2, ends[2], &pair).await.expect("accepted");
            self.say_acked(receipt.await);
        }
        drop((named, nameless));
        self.until_open(1).await;
        for (partition, end) in (0..).zip(ends) {
            let partitions = Partitions::Only(vec![partition]);
            self.read(ConsumerConfig { partitions, ..reader(&orders, Position::Offset(end)) }).await;
        }
    }

    fn say_acked(&self, answer: Result<corelog_client::Acked, ProduceError>) {
        match answer {
            Ok(acked) => self.say(format_args!("appended {} at {}", acked.partition, acked.offset)),
            Err(ProduceError::OffsetMismatch { expected, actual, maybe_appended }) => {
                self.say(format_args!(
                    "not appended at {expected} but {actual}, perhaps it was: {maybe_appended}"
                ));
            }
            Err(error) => self.say(format_args!("not appended: {error:?}")),
        }
    }

    async fn following(&mut self) {
        let sequences = self.topic("sequences").await;
        let mut consumer = self.client.consumer(reader(&sequences, Position::End)).await.expect("a consumer");
        let end = consumer.seek(0, Position::End).await.map_err(|error| refusal(&error));
        self.say(format_args!("follows {end:?}"));
        let producer = self.client.producer(ProducerConfig::default());
        for number in 7..10 {
            let receipt = producer.send(&sequences, Partition::Index(0), appended(b"live", number)).await;
            self.say_acked(receipt.expect("accepted").await);
            self.say_next(&mut consumer).await;
        }
    }

    async fn administering(&mut self) {
        let made = self.client.create_topic("fresh", 2, Durability::Written).await.expect("made");
        self.say_topic(&made);
        let producer = self.client.producer(ProducerConfig::default());
        let receipt =
            producer.send(&made, Partition::Auto, RecordRef { key: Some(b"key"), ..appended(b"fresh", 10) });
        let acked = receipt.await.expect("accepted").await;
        let partition = acked.as_ref().map_or(0, |acked| acked.partition);
        self.say_acked(acked);
        drop(producer);
        self.until_open(1).await;
        let partitions = Partitions::Only(vec![partition]);
        self.read(ConsumerConfig { partitions, ..reader(&made, Position::Start) }).await;
        self.say_topics().await;
        let again =
            self.client.create_topic("fresh", 2, Durability::Durable).await.map_err(|error| refusal(&error));
        self.say(format_args!("made again: {again:?}"));
        self.client.delete_topic("fresh").await.expect("deleted");
        self.say_topics().await;
        self.say_offset(&made, 0, Position::Start).await;
        let again = self.client.delete_topic("fresh").await.map_err(|error| refusal(&error));
        self.say(format_args!("deleted again: {again:?}"));
    }

    async fn refused(&mut self) {
        let absent = self.client.topic("absent").await.map_err(|error| refusal(&error));
        self.say(format_args!("absent: {absent:?}"));
        for (name, partitions) in
            [("not a name", 1), ("", 1), ("orders", 3), ("none", 0), ("many", 4_000_000)]
        {
            let made = self.client.create_topic(name, partitions, Durability::Durable).await;
            let made = made.map_err(|error| refusal(&error));
            self.say(format_args!("make {name:?} x{partitions}: {made:?}"));
        }
        let orders = self.topic("orders").await;
        self.say_offset(&orders, 3, Position::Start).await;
        let partitions = Partitions::Only(vec![2]);
        let from = Position::Offset(1_000);
        let config = ConsumerConfig { partitions, prefetch_bytes: 1, ..reader(&orders, from) };
        let mut consumer = self.client.consumer(config).await.expect("a consumer");
        self.say_next(&mut consumer).await;
        let found = consumer.seek(2, Position::Start).await.map_err(|error| refusal(&error));
        self.say(format_args!("back at {found:?}"));
        self.say_next(&mut consumer).await;
    }

    async fn altering(&mut self) {
        self.client.create_topic("growing", 1, Durability::Durable).await.expect("made");
        let steps = [
            (Some(3), None),
            (None, Some(Durability::Written)),
            (Some(4), Some(Durability::Memory)),
            (Some(4), None),
            (Some(2), None),
        ];
        for (partitions, durability) in steps {
            match self.client.alter_topic("growing", partitions, durability).await {
                Ok(topic) => self.say_topic(&topic),
                Err(error) => self.say(format_args!("not altered: {}", refusal(&error))),
            }
        }
        let absent = self.client.alter_topic("absent", Some(2), None).await.map_err(|error| refusal(&error));
        self.say(format_args!("absent: {absent:?}"));
        self.client.delete_topic("growing").await.expect("deleted");
    }

    async fn keeping(&mut self) {
        let (large, sequences) = (self.topic("large").await, self.topic("sequences").await);
        self.say_positions(&large).await;
        let worker = self.client.position("worker", &sequences);
        worker.commit(0, 2, "two of them").await.expect("committed");
        self.say_positions(&sequences).await;
        let mut consumer = self
            .client
            .consumer(reader(&sequences, Position::Start).named("worker"))
            .await
            .expect("a consumer");
        loop {
            let mut batch = consumer.next().await.expect("readable");
            records(&mut batch).iter().for_each(|record| self.say(format_args!("{record}")));
            if batch.next_offset() == batch.high_watermark() {
                break;
            }
        }
        consumer.commit().await.expect("committed");
        drop(consumer);
        self.until_open(1).await;
        self.say_positions(&sequences).await;
        let beyond = worker.commit(0, 1_000, "").await.map_err(|error| refusal(&error));
        self.say(format_args!("committed beyond the end: {beyond:?}"));
        let nameless =
            self.client.position("", &sequences).commit(0, 1, "").await.map_err(|error| refusal(&error));
        self.say(format_args!("committed without a name: {nameless:?}"));
        worker.delete(0).await.expect("forgotten");
        self.say_positions(&sequences).await;
    }

    async fn say_positions(&self, topic: &Topic) {
        for found in self.client.positions(topic).await.expect("answered") {
            let Committed { name, partition, offset, leader_epoch, metadata, .. } = &found;
            let (topic, lag) = (topic.name(), found.lag());
            self.say(format_args!(
                "position {name} in {topic}/{partition}: {offset} epoch {leader_epoch:?} lag {lag} {metadata:?}"
            ));
        }
        self.say(format_args!("no more positions"));
    }
}

/// A reader that waits as long as it takes.
fn reader(topic: &Topic, from: Position) -> ConsumerConfig {
    ConsumerConfig { max_wait: PATIENCE, ..ConsumerConfig::new(topic, from) }
}

fn appended(value: &[u8], number: u64) -> RecordRef<'_> {
    RecordRef { key: None, value: Some(value), timestamp_us: MORNING_US + number, headers: &[] }
}

/// The records of a batch, each in a line.
fn records(batch: &mut Batch) -> Vec<String> {
    let shown = |bytes: Option<&[u8]>| {
        bytes.map_or("null".to_owned(), |bytes| format!("\"{}\"", bytes.escape_ascii()))
    };
    let records = batch.records().expect("readable");
    let line = |record: corelog_client::Record<'_>| {
        let mut line = format!(
            "{} {} {} {}",
            record.offset,
            record.timestamp_us,
            shown(record.key),
            shown(record.value)
        );
        record.headers().for_each(|(name, value)| line.extend([" ", name, "=", &shown(Some(value))]));
        line
    };
    records.map(line).collect()
}

/// An error in words that do not depend on how the client writes it.
fn refusal(error: &ClientError) -> String {
    match error {
        ClientError::UnknownTopic => "unknown topic".to_owned(),
        ClientError::UnknownPartition => "unknown partition".to_owned(),
        ClientError::TopicExists => "topic exists".to_owned(),
        ClientError::Refused(Refused { code, detail, .. }) => format!("{code} {detail:?}"),
        other => format!("{other:?}"),
    }
}

fn fault(error: &ConsumeError) -> String {
    match error {
        ConsumeError::OffsetOutOfRange { partition, offset, log_start, high_watermark } => {
            format!("{offset} of {partition} is not within {log_start} and {high_watermark}")
        }
        other => format!("{other:?}"),
    }
}
