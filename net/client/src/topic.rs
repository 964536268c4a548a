//! A topic as the client knows it: a name, an id that is never reused, and where its partitions are served.

use std::fmt;
use std::sync::Arc;

use corelog_model::{Durability, TopicId};

/// A topic. Cheap to clone; describes the topic as it was when it was asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Topic(Arc<Description>);

#[derive(PartialEq, Eq)]
struct Description {
    name: String,
    id: TopicId,
    durability: Durability,
    partitions: Vec<PartitionInfo>,
    damage: Vec<Damage>,
}

/// Offsets of a partition whose records were acknowledged and cannot be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The partition.
    pub partition: u32,
    /// The first damaged offset.
    pub first: u64,
    /// The last damaged offset.
    pub last: u64,
}

/// One partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// `HOST:PORT` of the broker core that owns it.
    pub address: String,
}

impl Topic {
    pub(crate) fn new(
        name: String,
        id: TopicId,
        durability: Durability,
        partitions: Vec<PartitionInfo>,
        damage: Vec<Damage>,
    ) -> Self {
        Self(Arc::new(Description { name, id, durability, partitions, damage }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its id; a topic that is deleted and created again has another one.
    pub fn id(&self) -> TopicId {
        self.0.id
    }

    /// When its records are acknowledged and visible.
    pub fn durability(&self) -> Durability {
        self.0.durability
    }

    /// Number of partitions; they are numbered from 0.
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.0.partitions.len()).expect("a topic has at most 100,000 partitions")
    }

    /// What the broker knew to be damaged, by partition and offset.
    pub fn damage(&self) -> &[Damage] {
        &self.0.damage
    }

    /// Each partition, in order.
    pub fn partitions(&self) -> &[PartitionInfo] {
        &self.0.partitions
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({} {} x{})", self.0.name, self.0.id, self.0.partitions.len())
    }
}
