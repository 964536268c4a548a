//! Where the partitions of a topic begin and end, asked of all of them.

use corelog_client::{ClientError, Durability, Position};

use tokio::sync::mpsc;

use crate::broker::{Broker, Faults, Shared};
use crate::{client, record};

/// What a broker knows of one connection: answers that it holds back until there are enough of them.
#[derive(Default)]
pub(crate) struct Untold {
    held: Vec<Vec<u8>>,
    /// Partitions opened since the start, and those of them whose offset was told.
    pub(crate) opened: usize,
    told: usize,
}

impl Untold {
    /// One more question, with its answer.
    pub(crate) fn ask(&mut self, shared: &Shared, answer: Vec<u8>, answers: &mpsc::UnboundedSender<Vec<u8>>) {
        let mut store = shared.store.lock().unwrap();
        store.most_untold = store.most_untold.max(self.opened.saturating_sub(self.told));
        self.held.push(answer);
        if self.held.len() >= store.offsets_at_a_time {
            self.told += self.held.len();
            for answer in self.held.drain(..).rev() {
                // The connection may be gone.
                let _ = answers.send(answer);
            }
        }
    }
}

#[tokio::test]
async fn the_offsets_of_many_partitions_are_asked_64_at_a_time_and_told_in_their_order() {
    let broker = Broker::start(Faults::default(), 1).await;
    let client = client(&broker).await;
    let topic = client.create_topic("t", 192, Durability::Written).await.unwrap();
    let producer = client.producer(Default::default());
    for partition in 0..192 {
        for _ in 0..partition % 5 {
            let partition = corelog_client::Partition::Index(partition);
            producer.send(&topic, partition, record(b"x")).await.unwrap();
        }
    }
    producer.flush().await.unwrap();
    // Who asks one after the other is never told.
    broker.store().offsets_at_a_time = 64;
    let ends = client.offsets(&topic, Position::End).await.unwrap();
    assert_eq!(ends, (0..192).map(|partition| partition % 5).collect::<Vec<u64>>());
    assert_eq!(broker.store().most_untold, 64);
    assert_eq!(client.offsets(&topic, Position::Start).await.unwrap(), [0; 192]);
    assert_eq!(client.offsets(&topic, Position::Offset(7)).await.unwrap(), [7; 192]);
}

#[tokio::test]
async fn one_partition_that_is_not_there_is_the_answer_to_all() {
    let broker = Broker::start(Faults::default(), 1).await;
    let client = client(&broker).await;
    let topic = client.create_topic("t", 100, Durability::Written).await.unwrap();
    broker.store().shrink("t", 99);
    let asked = client.offsets(&topic, Position::End).await;
    assert_eq!(asked, Err(ClientError::UnknownPartition));
}
