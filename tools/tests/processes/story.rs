//! What the tests do with a broker through the client.

use std::path::Path;
use std::time::Duration;

use corelog_client::{
    Client, ClientConfig, ConsumerConfig, Partition, Partitions, Position, ProduceError, Producer, RecordRef,
    Topic,
};

/// Runs a future to its end; what it left running on its runtime ends too.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

/// A client that gives up soon: the brokers here are there or dead.
pub(crate) async fn connect(address: &str) -> Client {
    let config = ClientConfig { request_timeout: Duration::from_secs(20), ..ClientConfig::new([address]) };
    Client::connect(config).await.expect("the broker serves")
}

/// Appends one record; answers its offset.
pub(crate) async fn append(
    producer: &Producer,
    topic: &Topic,
    partition: u32,
    value: &[u8],
) -> Result<u64, ProduceError> {
    let record = RecordRef { value: Some(value), ..RecordRef::default() };
    let receipt = producer.send(topic, Partition::Index(partition), record).await?;
    receipt.await.map(|acked| acked.offset)
}

/// Every record of a partition: offset and value.
pub(crate) async fn read(client: &Client, topic: &Topic, partition: u32) -> Vec<(u64, Vec<u8>)> {
    let start = client.offset(topic, partition, Position::Start).await.expect("it is served");
    let end = client.offset(topic, partition, Position::End).await.expect("it is served");
    let mut records = Vec::new();
    if start == end {
        return records;
    }
    let config = ConsumerConfig {
        partitions: Partitions::Only(vec![partition]),
        ..ConsumerConfig::new(topic, Position::Start)
    };
    let mut consumer = client.consumer(config).await.expect("it is served");
    loop {
        let mut batch = consumer.next().await.expect("it is whole");
        let next = batch.next_offset();
        let found = batch.records().expect("it is whole");
        records.extend(found.map(|record| (record.offset, record.value.expect("a value").to_vec())));
        if next >= end {
            return records;
        }
    }
}

/// The lines of the flights, as they are in the file.
pub(crate) fn flights() -> (&'static Path, Vec<Vec<u8>>) {
    use std::io::{BufRead, BufReader};
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/flights.ndjson.gz"));
    let file = std::fs::File::open(path).expect("the data is there");
    let lines = BufReader::new(flate2::read::GzDecoder::new(file)).split(b'\n');
    (path, lines.map(|line| line.expect("it unpacks")).collect())
}
