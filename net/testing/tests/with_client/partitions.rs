//! A thousand partitions: as ordinary as one.

use corelog_client::{Durability, Partition, ProducerConfig};
use corelog_testing::Broker;

use crate::{client, read_all, record};

const PARTITIONS: u32 = 1000;

#[tokio::test]
async fn a_thousand_partitions_are_written_read_and_there_again_after_a_restart() {
    let mut broker = Broker::start().expect("a broker");
    let mut expected = vec![Vec::new(); PARTITIONS as usize];
    for round in 0..3_u32 {
        let client = client(&broker).await;
        let topic = match round {
            0 => client.create_topic("wide", PARTITIONS, Durability::Durable).await.expect("created"),
            _ => client.topic("wide").await.expect("it is there again"),
        };
        assert_eq!(topic.partition_count(), PARTITIONS);
        assert_eq!(read_all(&client, &topic).await, expected, "round {round}: what was there");
        let producer = client.producer(ProducerConfig::default());
        for partition in 0..PARTITIONS {
            let value = format!("{round} {partition}").into_bytes();
            let sent = producer.send(&topic, Partition::Index(partition), record(&value)).await;
            sent.expect("accepted");
            expected[partition as usize].push(value);
        }
        producer.flush().await.expect("acknowledged");
        assert_eq!(read_all(&client, &topic).await, expected, "round {round}: and what was added");
        drop((producer, client));
        if round % 2 == 0 {
            broker.restart().expect("started again");
        } else {
            broker.kill().expect("killed");
            broker.restart().expect("started again");
        }
    }
    let client = client(&broker).await;
    let topic = client.topic("wide").await.expect("it is there again");
    assert_eq!(read_all(&client, &topic).await, expected);
}
