//! A topic as the client knows it: a name, an id that is never reused, and where its partitions are served.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use corelog_model::{Durability, Retention, RetentionChange, TopicId};

/// A topic. Cheap to clone; describes the topic as it was when it was asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Topic(Arc<Description>);

#[derive(PartialEq, Eq)]
struct Description {
    name: String,
    id: TopicId,
    durability: Durability,
    retention: Retention,
    partitions: Vec<PartitionInfo>,
    damage: Vec<Damage>,
}

/// What a topic is to be, for [`Client::create_topic_with`](crate::Client::create_topic_with). By default it has one partition,
/// is durable, and keeps its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// How many partitions it has.
    pub partitions: u32,
    /// When its records are acknowledged and visible.
    pub durability: Durability,
    /// The broker may take records away that it appended longer ago, by its own clock and not by the timestamps of producers.
    pub retention: Option<Duration>,
    /// Of each partition the broker keeps so many bytes and may take away what is older.
    pub retention_bytes: Option<u64>,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self { partitions: 1, durability: Durability::Durable, retention: None, retention_bytes: None }
    }
}

impl TopicConfig {
    pub(crate) fn kept(&self) -> RetentionChange {
        RetentionChange { time_us: self.retention.map(to_us), bytes: self.retention_bytes }
    }
}

/// What is to become of a topic, for [`Client::alter_topic_with`](crate::Client::alter_topic_with): what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicChange {
    /// How many partitions it is to have: as many as it has, or more.
    pub partitions: Option<u32>,
    /// Its level from then on.
    pub durability: Option<Durability>,
    /// As in [`TopicConfig`]; zero: records no longer go for their age.
    pub retention: Option<Duration>,
    /// As in [`TopicConfig`]; zero: records no longer go for their number.
    pub retention_bytes: Option<u64>,
}

impl TopicChange {
    pub(crate) fn kept(&self) -> RetentionChange {
        RetentionChange { time_us: self.retention.map(to_us), bytes: self.retention_bytes }
    }
}

/// Microseconds, at least one of what is not nothing.
fn to_us(duration: Duration) -> u64 {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    if duration.is_zero() { 0 } else { us.max(1) }
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
        retention: Retention,
        partitions: Vec<PartitionInfo>,
        damage: Vec<Damage>,
    ) -> Self {
        Self(Arc::new(Description { name, id, durability, retention, partitions, damage }))
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

    /// The broker may take records away that it appended longer ago; `None`: not for their age.
    pub fn retention(&self) -> Option<Duration> {
        self.0.retention.time_us.map(|us| Duration::from_micros(us.get()))
    }

    /// Of each partition the broker keeps so many bytes and may take away what is older; `None`: not for their number.
    pub fn retention_bytes(&self) -> Option<u64> {
        self.0.retention.bytes.map(NonZeroU64::get)
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
