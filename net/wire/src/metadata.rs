//! The reply to Metadata: topics, and for each partition its log and the address that serves it.
//!
//! Addresses stand once, in a table that partitions point into: 10,000 partitions take 80 KB, not a megabyte.

use std::num::NonZeroU64;

use corelog_model::{Durability, LogId, Retention, Term, TopicId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::fault::WireError;
use crate::reader::Reader;
use crate::writer::Writer;

/// Fewest bytes an endpoint takes: item length, port, empty host.
const ENDPOINT_LEAST_BYTES: usize = 4 + 2 + 2;
/// Fewest bytes a topic takes: item length, id, durability, empty name, no partitions.
const TOPIC_LEAST_BYTES: usize = 4 + 16 + 1 + 2 + 4;

/// What the broker knows about topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataReply<'a> {
    /// Rises with every change, never falls.
    pub version: u64,
    /// Logs of the data directory.
    pub logs: u16,
    /// The addresses that partitions point to.
    pub endpoints: Vec<Endpoint<'a>>,
    /// By name, in order.
    pub topics: Vec<TopicView<'a>>,
}

/// Where a shard listens, as clients are to dial it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint<'a> {
    /// A name or an address.
    pub host: &'a str,
    /// The port.
    pub port: u16,
}

/// One topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its id, never used for another topic.
    pub topic: TopicId,
    /// When its records are acknowledged and visible.
    pub durability: Durability,
    /// What takes its records away.
    pub retention: Retention,
    /// By number, from 0.
    pub partitions: &'a [PartitionPlace],
    /// What is known to be damaged, by partition and offset; the first so many where there is much.
    pub damage: &'a [DamagedRange],
}

/// Offsets whose records were acknowledged and cannot be read any more: 20 bytes, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DamagedRange {
    partition: U32,
    first: U64,
    last: U64,
}

/// Ranges that fit the tagged field of a topic.
pub const DAMAGED_RANGES_MAX: usize = 3_000;

/// Tags of a topic.
mod tag {
    /// A list of damaged ranges.
    pub(super) const DAMAGE: u16 = 1;
    /// Microseconds, u64.
    pub(super) const RETENTION_TIME: u16 = 2;
    /// Bytes of each partition, u64.
    pub(super) const RETENTION_BYTES: u16 = 3;
}

impl DamagedRange {
    /// Offsets `first` to `last` of a partition.
    pub const fn new(partition: u32, first: u64, last: u64) -> Self {
        Self { partition: U32::new(partition), first: U64::new(first), last: U64::new(last) }
    }

    /// The partition.
    pub const fn partition(self) -> u32 {
        self.partition.get()
    }

    /// The first damaged offset.
    pub const fn first(self) -> u64 {
        self.first.get()
    }

    /// The last damaged offset.
    pub const fn last(self) -> u64 {
        self.last.get()
    }
}

/// Where one partition is: 8 bytes, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PartitionPlace {
    endpoint: U16,
    log: U16,
    leader_epoch: U32,
}

impl PartitionPlace {
    /// A partition that `log` keeps, in the term `leader_epoch`, served at the endpoint with this index.
    pub const fn new(endpoint: u16, log: LogId, leader_epoch: Term) -> Self {
        Self { endpoint: U16::new(endpoint), log: U16::new(log.0), leader_epoch: U32::new(leader_epoch.0) }
    }

    /// Index into [`MetadataReply::endpoints`]; checked by the decoder.
    pub const fn endpoint(self) -> usize {
        self.endpoint.get() as usize
    }

    /// The log that keeps it.
    pub const fn log(self) -> LogId {
        LogId(self.log.get())
    }

    /// The term its shard serves in.
    pub const fn leader_epoch(self) -> Term {
        Term(self.leader_epoch.get())
    }
}

impl<'a> MetadataReply<'a> {
    pub(crate) fn decode(mut head: Reader<'a>) -> Result<Self, WireError> {
        let version = head.u64("version")?;
        let logs = head.u16("logs")?;
        let count = head.count(ENDPOINT_LEAST_BYTES, "endpoints")?;
        let endpoints = (0..count).map(|_| Endpoint::decode(&mut head)).collect::<Result<Vec<_>, _>>()?;
        let count = head.count(TOPIC_LEAST_BYTES, "topics")?;
        let topics = (0..count).map(|_| TopicView::decode(&mut head)).collect::<Result<Vec<_>, _>>()?;
        head.end()?;
        let known = |place: &PartitionPlace| place.endpoint() < endpoints.len();
        if !topics.iter().flat_map(|topic| topic.partitions).all(known) {
            return Err(WireError::BadValue { field: "endpoint" });
        }
        Ok(Self { version, logs, endpoints, topics })
    }

    pub(crate) fn encode(&self, head: &mut Writer<'_>) {
        head.u64(self.version);
        head.u16(self.logs);
        head.u32(self.endpoints.len() as u32);
        for endpoint in &self.endpoints {
            head.item(|item| {
                item.u16(endpoint.port);
                item.text(endpoint.host);
            });
        }
        head.u32(self.topics.len() as u32);
        for topic in &self.topics {
            head.item(|item| {
                item.u128(topic.topic.0);
                item.u8(topic.durability as u8);
                item.text(topic.name);
                item.list(topic.partitions);
                if !topic.damage.is_empty() {
                    item.tagged(tag::DAMAGE, |field| field.list(topic.damage));
                }
                let Retention { time_us, bytes } = topic.retention;
                for (tag, value) in [(tag::RETENTION_TIME, time_us), (tag::RETENTION_BYTES, bytes)] {
                    if let Some(value) = value {
                        item.tagged(tag, |field| field.u64(value.get()));
                    }
                }
            });
        }
    }
}

impl<'a> Endpoint<'a> {
    fn decode(head: &mut Reader<'a>) -> Result<Self, WireError> {
        let mut item = head.item("endpoint")?;
        let port = item.u16("port")?;
        let host = item.text("host")?;
        item.end()?;
        Ok(Self { host, port })
    }
}

impl<'a> TopicView<'a> {
    fn decode(head: &mut Reader<'a>) -> Result<Self, WireError> {
        let mut item = head.item("topic")?;
        let topic = TopicId(item.u128("topic id")?);
        let durability = item.durability()?;
        let name = item.text("name")?;
        let partitions = item.list("partitions")?;
        let retention = Retention::default();
        let mut topic = Self { name, topic, durability, retention, partitions, damage: &[] };
        let mut tagged = item.tagged();
        while let Some((tag, mut field)) = tagged.next()? {
            match tag {
                tag::DAMAGE => topic.damage = field.list("damage")?,
                tag::RETENTION_TIME => {
                    topic.retention.time_us = NonZeroU64::new(field.u64("retention time")?)
                }
                tag::RETENTION_BYTES => {
                    topic.retention.bytes = NonZeroU64::new(field.u64("retention bytes")?)
                }
                _ => {}
            }
        }
        Ok(topic)
    }
}
