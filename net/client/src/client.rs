//! The client: connecting, asking, administering.

use std::sync::Arc;

use corelog_model::Durability;
use corelog_wire::Status;

use crate::config::{ClientConfig, ConsumerConfig, Position, ProducerConfig};
use crate::consumer::Consumer;
use crate::error::ClientError;
use crate::producer::Producer;
use crate::topic::Topic;

/// A connection to a store, to be shared: cloning is cheap, and every clone may be used from any thread.
///
/// Its tasks live on the runtime that [`connect`](Self::connect) was called on.
#[derive(Clone)]
pub struct Client {
    shared: Arc<()>,
}

impl Client {
    /// Connects to the first server that answers. Must be called on a tokio runtime with I/O and time enabled.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        todo!()
    }

    /// Creates a topic and waits until its partitions can be written to.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        durability: Durability,
    ) -> Result<Topic, ClientError> {
        todo!()
    }

    /// Deletes a topic with its records.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        todo!()
    }

    /// All topics, by name.
    pub async fn topics(&self) -> Result<Vec<Topic>, ClientError> {
        todo!()
    }

    /// The topic of this name; `UnknownTopic` when there is none.
    pub async fn topic(&self, name: &str) -> Result<Topic, ClientError> {
        todo!()
    }

    /// The offset a position stands for now: log start, high watermark, or the first record not before a time.
    pub async fn offset(&self, topic: &Topic, partition: u32, at: Position) -> Result<u64, ClientError> {
        todo!()
    }

    /// What the broker core behind the connection says of itself: CPU, frames, bytes, memory.
    pub async fn status(&self) -> Result<Status, ClientError> {
        todo!()
    }

    /// One round trip.
    pub async fn ping(&self) -> Result<(), ClientError> {
        todo!()
    }

    /// A producer with a connection of its own to each broker core it sends to, made when it is first needed.
    pub fn producer(&self, config: ProducerConfig) -> Producer {
        todo!()
    }

    /// A consumer with a connection of its own to each broker core it reads from.
    pub async fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, ClientError> {
        todo!()
    }
}
