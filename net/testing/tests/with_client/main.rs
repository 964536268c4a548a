//! The client against a real broker, over TCP, with a real ring and a real disk.

mod cancel;
mod conditional;
mod fall_back;
mod partitions;
#[path = "../../../client/tests/client/polls.rs"]
mod polls;
mod quickstart;
mod wide;

use std::time::Duration;

use corelog_client::{Client, ClientConfig, ConsumerConfig, Position, RecordRef, Topic};
use corelog_testing::Broker;

/// A client that loses no time between attempts.
async fn client(broker: &Broker) -> Client {
    let mut config = ClientConfig::new([broker.address().to_string()]);
    config.backoff.first = Duration::from_millis(1);
    config.backoff.most = Duration::from_millis(20);
    config.seed = Some(1);
    Client::connect(config).await.expect("the broker serves")
}

fn record(value: &[u8]) -> RecordRef<'_> {
    RecordRef { value: Some(value), timestamp_us: 1, ..RecordRef::default() }
}

/// By partition, the values of all records up to the high watermarks.
async fn read_all(client: &Client, topic: &Topic) -> Vec<Vec<Vec<u8>>> {
    let mut values = vec![Vec::new(); topic.partition_count() as usize];
    let mut ends = Vec::new();
    for partition in 0..topic.partition_count() {
        ends.push(client.offset(topic, partition, Position::End).await.expect("it answers") as usize);
    }
    let mut consumer =
        client.consumer(ConsumerConfig::new(topic, Position::Start)).await.expect("a consumer");
    while values.iter().zip(&ends).any(|(values, end)| values.len() < *end) {
        let mut batch = consumer.next().await.expect("readable");
        let partition = batch.partition() as usize;
        for record in batch.records().expect("readable") {
            assert_eq!(record.offset, values[partition].len() as u64, "partition {partition}: no gap");
            values[partition].push(record.value.expect("a value").to_vec());
        }
    }
    values
}
