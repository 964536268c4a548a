//! Named positions from outside a consumer: what is committed under a name, and to set it, jump it or forget it.

use crate::client::Client;
use crate::config::Position;
use crate::core::control::{About, Told};
use crate::each::of_each;
use crate::error::ClientError;
use crate::topic::Topic;

/// How far whoever reads a partition under a name has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The name.
    pub name: String,
    /// The partition.
    pub partition: u32,
    /// The next offset to be read.
    pub offset: u64,
    /// The epoch of what was read before it, where that was said.
    pub leader_epoch: Option<u32>,
    /// When it was committed, in microseconds since 1970.
    pub commit_timestamp_us: u64,
    /// A note of whoever committed it.
    pub metadata: String,
    /// The first offset kept, when this was asked.
    pub log_start: u64,
    /// One past the last visible offset, when this was asked.
    pub high_watermark: u64,
}

impl Committed {
    /// Offsets that are still to be read.
    pub const fn lag(&self) -> u64 {
        self.high_watermark.saturating_sub(self.offset)
    }
}

/// The positions of a topic's partitions under one name; made by [`Client::position`].
///
/// Whatever is changed here a running consumer of the same name does not see: it goes on from where it is, and its next
/// commit counts. Every change is on stable storage when it is answered.
#[derive(Clone)]
pub struct NamedPosition {
    client: Client,
    topic: Topic,
    name: String,
}

impl NamedPosition {
    pub(crate) fn new(client: &Client, topic: &Topic, name: &str) -> Self {
        Self { client: client.clone(), topic: topic.clone(), name: name.to_owned() }
    }

    /// The position of one partition, if there is one.
    pub async fn get(&self, partition: u32) -> Result<Option<Committed>, ClientError> {
        let found =
            self.client.read_positions(&self.topic, partition, About::Position(self.name.clone())).await?;
        Ok(found.0.into_iter().next())
    }

    /// Those of all partitions that have one, in the order of the partitions.
    pub async fn list(&self) -> Result<Vec<Committed>, ClientError> {
        let each = |partition| {
            let this = self.clone();
            async move { this.get(partition).await }
        };
        Ok(of_each(self.topic.partition_count(), each).await?.into_iter().flatten().collect())
    }

    /// Sets the position of a partition: `offset` is the next to be read, at most the high watermark. `metadata` is a note of
    /// up to 255 bytes that is kept with it.
    pub async fn commit(&self, partition: u32, offset: u64, metadata: &str) -> Result<(), ClientError> {
        let (name, metadata) = (self.name.clone(), metadata.to_owned());
        let about = About::Commit { name, offset, metadata };
        self.client.ask_about(&self.topic, partition, about).await.map(drop)
    }

    /// Sets the position of a partition to the offset that `to` stands for now; that offset. For a time it is at or before
    /// that of the first record that is not earlier, by less than a frame of the log.
    pub async fn reset(&self, partition: u32, to: Position) -> Result<u64, ClientError> {
        let offset = self.client.offset(&self.topic, partition, to).await?;
        self.commit(partition, offset, "").await?;
        Ok(offset)
    }

    /// Forgets the position of a partition, if there is one.
    pub async fn delete(&self, partition: u32) -> Result<(), ClientError> {
        let about = About::Forget(self.name.clone());
        self.client.ask_about(&self.topic, partition, about).await.map(drop)
    }
}

impl Client {
    /// The positions of a topic's partitions under a name: 1 to 255 bytes without control characters. Nothing is asked yet.
    pub fn position(&self, name: &str, topic: &Topic) -> NamedPosition {
        NamedPosition::new(self, topic, name)
    }

    /// All positions of a topic's partitions, in the order of the partitions and then of the names.
    pub async fn positions(&self, topic: &Topic) -> Result<Vec<Committed>, ClientError> {
        let each = |partition| {
            let (client, topic) = (self.clone(), topic.clone());
            async move { client.positions_of(&topic, partition).await }
        };
        Ok(of_each(topic.partition_count(), each).await?.into_iter().flatten().collect())
    }

    /// All positions of one partition, in the order of their names.
    async fn positions_of(&self, topic: &Topic, partition: u32) -> Result<Vec<Committed>, ClientError> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let (found, more) =
                self.read_positions(topic, partition, About::Positions(after.clone())).await?;
            all.extend(found);
            match all.last() {
                Some(last) if more && last.name > after => after.clone_from(&last.name),
                Some(_) if more => return Err(self.unexpected()),
                _ => return Ok(all),
            }
        }
    }
}

impl Client {
    /// Positions, and whether there are more.
    async fn read_positions(
        &self,
        topic: &Topic,
        partition: u32,
        about: About,
    ) -> Result<(Vec<Committed>, bool), ClientError> {
        match self.ask_about(topic, partition, about).await? {
            Told::Positions { positions, more } => Ok((positions, more)),
            _ => Err(self.unexpected()),
        }
    }
}
