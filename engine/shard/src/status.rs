//! Counters and gauges of a shard, as one value. The server adds what only it knows: CPU, ring, sockets, memory.

use std::ops::AddAssign;

use corelog_model::{LogId, Term};
use corelog_storage::LogStats;

/// A snapshot for the Status request and the metrics page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardStatus {
    /// The log this shard serves.
    pub log: LogId,
    /// The term it serves in.
    pub term: Term,
    /// Bytes, frames and extents of the log.
    pub storage: LogStats,
    /// What was counted since the start.
    pub counters: Counters,
    /// Connections.
    pub connections: u32,
    /// Open handles of all connections.
    pub handles: u32,
    /// Topics in any state.
    pub topics: u32,
    /// Open partitions.
    pub partitions: u32,
    /// (producer, partition) pairs.
    pub producers: u32,
    /// Subscriptions.
    pub subscriptions: u32,
    /// Named positions.
    pub positions: u32,
    /// Memory of named positions, about, in bytes.
    pub position_bytes: u64,
    /// Fetches and subscriptions that wait for data.
    pub waits: u32,
    /// The same that wait for the disk.
    pub reads: u32,
    /// Produce requests that wait for their frame.
    pub pending: u32,
}

impl AddAssign for ShardStatus {
    /// What the shards of two logs on one core count together. Both have all connections and know all topics, so those
    /// are not added; log and term stay those of the first.
    fn add_assign(&mut self, other: Self) {
        self.storage += other.storage;
        self.counters += other.counters;
        self.partitions += other.partitions;
        self.producers += other.producers;
        self.subscriptions += other.subscriptions;
        self.positions += other.positions;
        self.position_bytes += other.position_bytes;
        self.waits += other.waits;
        self.reads += other.reads;
        self.pending += other.pending;
        self.handles += other.handles;
    }
}

/// Counts since the start of the shard. All rise only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Batches appended.
    pub batches: u64,
    /// Records appended.
    pub records: u64,
    /// Bytes of appended batches, headers included, padding not.
    pub produced_bytes: u64,
    /// Retried batches that were already there.
    pub duplicates: u64,
    /// Produce requests that found no room and were asked to come again.
    pub blocked: u64,
    /// Requests refused, for any reason.
    pub refused: u64,
    /// Fetches answered, with or without data.
    pub fetches: u64,
    /// Pushes of subscriptions, with or without data.
    pub pushes: u64,
    /// Bytes answered to fetches and pushed to subscriptions.
    pub fetched_bytes: u64,
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        let Self { batches, records, produced_bytes, duplicates, blocked, .. } = other;
        let Self { refused, fetches, pushes, fetched_bytes, .. } = other;
        self.batches += batches;
        self.records += records;
        self.produced_bytes += produced_bytes;
        self.duplicates += duplicates;
        self.blocked += blocked;
        self.refused += refused;
        self.fetches += fetches;
        self.pushes += pushes;
        self.fetched_bytes += fetched_bytes;
    }
}
