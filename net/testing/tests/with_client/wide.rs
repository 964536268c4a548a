//! Ten thousand partitions: what they cost is bytes, not entries, frames or letters.

use std::time::{Duration, Instant};

use corelog_client::{Durability, Partition, ProducerConfig};
use corelog_testing::Broker;

use crate::{client, record};

const PARTITIONS: u32 = 10_000;
/// From the request to the answer. A hundred times what it takes: the machine of a test may be busy with others.
const BOUND: Duration = Duration::from_secs(2);
/// Frames that one log writes for a change of a topic, whatever its partitions; others may come between.
const FRAMES: u64 = 12;

fn assert_quick(what: &str, shards: u32, elapsed: Duration) {
    println!("{what}, {shards} shards: {} ms", elapsed.as_millis());
    assert!(elapsed < BOUND, "{what}, {shards} shards: {elapsed:?}");
}

#[tokio::test]
async fn ten_thousand_partitions_are_created_added_and_described_in_no_time() {
    for shards in [1, 2, 4] {
        let mut broker = Broker::builder().set(format!("server.shards={shards}")).start().expect("a broker");
        for round in 0..2 {
            let client = client(&broker).await;
            let frames = async || client.status().await.expect("it answers").frames;
            if round == 0 {
                let (begin, before) = (Instant::now(), frames().await);
                let topic =
                    client.create_topic("wide", PARTITIONS, Durability::Durable).await.expect("created");
                assert_quick("created", shards, begin.elapsed());
                assert_eq!(topic.partition_count(), PARTITIONS);
                let created = frames().await - before;
                assert!(created <= FRAMES, "{created} frames for a new topic");

                client.create_topic("grown", 1, Durability::Durable).await.expect("created");
                let (begin, before) = (Instant::now(), frames().await);
                let grown = client.alter_topic("grown", Some(PARTITIONS), None).await.expect("altered");
                assert_quick("added", shards, begin.elapsed());
                assert_eq!(grown.partition_count(), PARTITIONS);
                let added = frames().await - before;
                assert!(added <= FRAMES, "{added} frames for more partitions");
            }
            let begin = Instant::now();
            let topics = client.topics().await.expect("listed");
            assert_quick("described", shards, begin.elapsed());
            let counts: Vec<_> = topics.iter().map(|topic| topic.partition_count()).collect();
            assert_eq!(counts, [PARTITIONS; 2], "in round {round}");
            let producer = client.producer(ProducerConfig::default());
            for topic in &topics {
                for partition in [0, 1, PARTITIONS - 1] {
                    let sent = producer.send(topic, Partition::Index(partition), record(b"x")).await;
                    let acked = sent.expect("accepted").await.expect("acknowledged");
                    assert_eq!(acked.offset, round, "{} {partition}", topic.name());
                }
            }
            broker.kill().expect("killed");
            broker.restart().expect("started again");
        }
        let client = client(&broker).await;
        for name in ["wide", "grown"] {
            let begin = Instant::now();
            client.delete_topic(name).await.expect("deleted");
            assert_quick("deleted", shards, begin.elapsed());
        }
        assert_eq!(client.topics().await, Ok(Vec::new()));
    }
}
