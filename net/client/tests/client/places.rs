//! Partitions that move to another core: whoever used them finds them there.

use std::time::Duration;

use corelog_client::{
    Client, ClientConfig, ClientError, ConsumerConfig, Durability, Partition, Position, ProducerConfig,
};

use crate::broker::{Broker, Faults};
use crate::{client, record};

#[tokio::test]
async fn producers_consumers_and_questions_follow_a_partition_to_another_core() {
    let mut first = Broker::start(Faults::default(), 1).await;
    let mut second = first.another_core().await;
    first.store().home = Some(first.port());
    let client = client(&first).await;
    let topic = client.create_topic("t", 3, Durability::Durable).await.unwrap();
    let producer = client.producer(ProducerConfig { batch_bytes: 1024, ..ProducerConfig::default() });
    let mut consumer = client.consumer(ConsumerConfig::new(&topic, Position::Start)).await.unwrap();
    let mut seen = [0_u64; 3];
    for round in 0..6_u32 {
        for n in 0..300_u32 {
            let value = (round * 300 + n).to_le_bytes();
            producer.send(&topic, Partition::Index(n % 3), record(&value)).await.unwrap();
        }
        // The records on their way meet a core that has gone to sleep, or one that does not serve them any more.
        let (from, to) = if round % 2 == 0 { (&mut first, &second) } else { (&mut second, &first) };
        from.store().home = Some(to.port());
        from.restart().await;
        producer.flush().await.unwrap();
        let end = u64::from(round + 1) * 100;
        while seen != [end; 3] {
            let mut batch = consumer.next().await.unwrap();
            let partition = batch.partition() as usize;
            for record in batch.records().unwrap() {
                assert_eq!(record.offset, seen[partition], "round {round}: in order, none twice");
                seen[partition] += 1;
            }
        }
        assert_eq!(client.offset(&topic, 1, Position::End).await.unwrap(), end, "round {round}");
    }
    assert!(first.store().astray >= 6, "they were sent away: {}", first.store().astray);
    for partition in 0..3 {
        let expected: Vec<_> =
            (0..1800_u32).filter(|n| n % 3 == partition).map(|n| n.to_le_bytes().to_vec()).collect();
        assert_eq!(first.values("t", partition as usize), expected, "once, in order");
    }
}

#[tokio::test]
async fn a_place_that_nobody_serves_ends_with_the_deadline() {
    let broker = Broker::start(Faults::default(), 1).await;
    let topic = client(&broker).await.create_topic("t", 1, Durability::Durable).await.unwrap();
    let mut config = ClientConfig::new([broker.address()]);
    config.request_timeout = Duration::from_millis(300);
    let impatient = Client::connect(config).await.unwrap();
    // Nobody listens at port 1.
    broker.store().home = Some(1);
    assert_eq!(impatient.offset(&topic, 0, Position::End).await, Err(ClientError::Timeout));
    broker.store().home = None;
    assert_eq!(impatient.offset(&topic, 0, Position::End).await, Ok(0));
}
