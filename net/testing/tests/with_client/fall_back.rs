//! A broker that comes back without records that it had acknowledged below `durable`: who has read them is told, once, and
//! goes on with what is there now.

use std::fs;
use std::path::{Path, PathBuf};

use corelog_client::{
    Client, ConsumeError, Consumer, ConsumerConfig, Durability, Partition, Position, ProducerConfig, Topic,
};
use corelog_testing::Broker;

use crate::{client, record};

/// Records that the disk keeps, that were acknowledged in all, and that there are in the end.
const KEPT: u32 = 60;
const ACKNOWLEDGED: u32 = 100;
const IN_THE_END: u32 = 130;

/// The files of the log as the disk has them at one moment: what is written after it is lost with the power.
struct Medium {
    log: PathBuf,
    copy: PathBuf,
}

impl Medium {
    fn of(broker: &Broker) -> Self {
        let (log, copy) = (broker.store().join("log-0000"), broker.store().join("medium"));
        copy_all(&log, &copy);
        Self { log, copy }
    }

    fn comes_back(self) {
        fs::remove_dir_all(&self.log).expect("removed");
        copy_all(&self.copy, &self.log);
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// What a record says: its number, and in whose life it was written.
fn value(number: u32, life: u8) -> Vec<u8> {
    [&number.to_le_bytes()[..], &[life]].concat()
}

/// Appends these records one after the other, so that each is acknowledged.
async fn append(client: &Client, topic: &Topic, numbers: std::ops::Range<u32>, life: u8) {
    let producer = client.producer(ProducerConfig::default());
    for number in numbers {
        let value = value(number, life);
        let sent = producer.send(topic, Partition::Index(0), record(&value)).await.expect("accepted");
        assert_eq!(sent.await.expect("acknowledged").offset, u64::from(number));
    }
}

/// Reads these records, and nothing else comes in between.
async fn read(consumer: &mut Consumer, numbers: std::ops::Range<u32>, life: u8) {
    let mut next = numbers.start;
    while next < numbers.end {
        let mut batch = consumer.next().await.expect("readable");
        for record in batch.records().expect("readable") {
            let found = (record.offset, record.value.map(<[u8]>::to_vec));
            assert_eq!(found, (u64::from(next), Some(value(next, life))));
            next += 1;
        }
    }
    assert_eq!(next, numbers.end);
}

#[tokio::test]
async fn a_reader_of_what_was_lost_is_told_where_and_goes_on() {
    for level in [Durability::Written, Durability::Memory] {
        let mut broker = Broker::builder().set("log.extent_bytes=5 MiB").start().expect("a broker");
        let client = client(&broker).await;
        let topic = client.create_topic("t", 1, level).await.expect("created");
        let other = client.create_topic("durable", 1, Durability::Durable).await.expect("created");
        append(&client, &topic, 0..KEPT, 1).await;
        // One log: what comes before a durable record is on the disk with it.
        append(&client, &other, 0..1, 1).await;
        let medium = Medium::of(&broker);
        append(&client, &topic, KEPT..ACKNOWLEDGED, 1).await;
        let config = ConsumerConfig::new(&topic, Position::Start);
        let mut consumer = client.consumer(config).await.expect("a consumer");
        read(&mut consumer, 0..ACKNOWLEDGED, 1).await;

        broker.kill().expect("killed");
        medium.comes_back();
        broker.restart().expect("started again");
        let told = consumer.next().await.map(|batch| batch.next_offset());
        let offset = u64::from(KEPT);
        assert_eq!(told, Err(ConsumeError::LogTruncated { partition: 0, offset }), "{level:?}");
        assert_eq!(consumer.position(0), Some(offset));
        append(&client, &topic, KEPT..IN_THE_END, 2).await;
        read(&mut consumer, KEPT..IN_THE_END, 2).await;
    }
}
