//! What a run is asked to do. Plain values with the defaults of `corelog bench`, and the checks that need no broker.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use corelog_client::{Codec, Durability};

use crate::machine::run_number;
use crate::payload::IDENTITY_BYTES;

/// Everything that shapes the load.
#[derive(Clone, Debug)]
pub struct Workload {
    /// How long each measured phase lasts.
    pub length: Length,
    /// Which phases there are.
    pub pace: Pace,
    /// What the records hold.
    pub content: ContentSource,
    /// Producers, each with its place in the schedule.
    pub producers: u32,
    /// Consumers. With 0 the records are read and verified after the window.
    pub consumers: u32,
    /// Connections that the producers share or have several of, and as many, but no more than there are partitions, for the
    /// consumers: see [`crate::connections`]. `None`: each producer and each consumer has its own.
    pub connections: Option<u32>,
    /// Partitions of the topic, which is made for the run.
    pub partitions: u32,
    /// A batch is at most this large.
    pub batch_bytes: usize,
    /// Bytes of records that a producer may have unacknowledged: the depth of the closed loop.
    pub buffer_bytes: usize,
    /// Requests of one partition that may be unacknowledged, 1 to 5.
    pub in_flight: usize,
    /// Compression of batches.
    pub codec: Codec,
    /// Level of the topic.
    pub durability: Durability,
    /// Bytes written before the first phase: enough of them, and every extent of a capped log was used once.
    pub fill_bytes: u64,
    /// Seed of the content. By default one of this run's own: what an earlier run left where a record should be is then
    /// told from that record, however much alike their workloads are.
    pub seed: u64,
    /// How long nothing may arrive, with records missing, until they count as lost.
    pub patience: Duration,
}

/// When a measured phase ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// After this time.
    Duration(Duration),
    /// After this number of records.
    Records(u64),
}

/// How fast records are offered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// A saturation phase, then an open loop at half of it.
    Half,
    /// A saturation phase alone: closed by back-pressure.
    Saturation,
    /// An open loop alone, at so many records a second.
    Rate(f64),
}

/// Where the content of records comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentSource {
    /// Generated, every value this long in bytes.
    Size(usize),
    /// The lines of a file.
    Lines(PathBuf),
}

/// A workload that cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadError {
    /// A value must hold its identity.
    RecordTooSmall,
    /// A record must fit a batch.
    RecordTooLarge,
    /// There must be at least one.
    NoProducers,
    /// There must be at least one.
    NoPartitions,
    /// Some would have nothing to read.
    MoreConsumersThanPartitions,
    /// There must be at least one.
    NoConnections,
    /// Some would have nothing to carry: each takes a producer on a partition.
    IdleConnections,
    /// The rate must be a positive number.
    Rate,
    /// The phase must have a length.
    Length,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            length: Length::Duration(Duration::from_secs(10)),
            pace: Pace::Half,
            content: ContentSource::Size(1_000),
            producers: 4,
            consumers: 4,
            connections: None,
            partitions: 4,
            batch_bytes: 128 << 10,
            buffer_bytes: 2 << 20,
            in_flight: 5,
            codec: Codec::None,
            durability: Durability::Durable,
            fill_bytes: 0,
            seed: run_number(),
            patience: Duration::from_secs(10),
        }
    }
}

impl Workload {
    /// Refuses what cannot be run.
    pub fn check(&self) -> Result<(), WorkloadError> {
        if let ContentSource::Size(bytes) = self.content {
            if bytes < IDENTITY_BYTES {
                return Err(WorkloadError::RecordTooSmall);
            }
            if bytes > self.batch_bytes {
                return Err(WorkloadError::RecordTooLarge);
            }
        }
        match self.pace {
            Pace::Rate(rate) if !(rate.is_finite() && rate > 0.0) => return Err(WorkloadError::Rate),
            _ => {}
        }
        let empty = match self.length {
            Length::Duration(duration) => duration.is_zero(),
            Length::Records(records) => records == 0,
        };
        if empty {
            return Err(WorkloadError::Length);
        }
        let streams = u64::from(self.producers) * u64::from(self.partitions);
        match () {
            () if self.producers == 0 => Err(WorkloadError::NoProducers),
            () if self.partitions == 0 => Err(WorkloadError::NoPartitions),
            () if self.consumers > self.partitions => Err(WorkloadError::MoreConsumersThanPartitions),
            () if self.connections == Some(0) => Err(WorkloadError::NoConnections),
            () if self.connections.is_some_and(|connections| u64::from(connections) > streams) => {
                Err(WorkloadError::IdleConnections)
            }
            () => Ok(()),
        }
    }
}

impl fmt::Display for WorkloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RecordTooSmall => "a record is at least 16 bytes: it holds its producer and number",
            Self::RecordTooLarge => "a record must fit a batch",
            Self::NoProducers => "there must be a producer",
            Self::NoPartitions => "there must be a partition",
            Self::MoreConsumersThanPartitions => {
                "with more consumers than partitions some have nothing to read"
            }
            Self::NoConnections => "there must be a connection",
            Self::IdleConnections => {
                "each connection takes a producer on a partition: more producers or partitions are needed for so many"
            }
            Self::Rate => "the rate must be a positive number of records a second",
            Self::Length => "the run must have a length",
        })
    }
}

impl std::error::Error for WorkloadError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_can_be_run_and_each_mistake_is_named() {
        assert_eq!(Workload::default().check(), Ok(()));
        type Change = fn(&mut Workload);
        let cases: [(Change, WorkloadError); 10] = [
            (|w| w.content = ContentSource::Size(15), WorkloadError::RecordTooSmall),
            (|w| w.content = ContentSource::Size(200_000), WorkloadError::RecordTooLarge),
            (|w| w.producers = 0, WorkloadError::NoProducers),
            (|w| (w.partitions, w.consumers) = (0, 0), WorkloadError::NoPartitions),
            (|w| w.consumers = 5, WorkloadError::MoreConsumersThanPartitions),
            (|w| w.connections = Some(0), WorkloadError::NoConnections),
            (|w| w.connections = Some(17), WorkloadError::IdleConnections),
            (|w| w.pace = Pace::Rate(f64::NAN), WorkloadError::Rate),
            (|w| w.pace = Pace::Rate(0.0), WorkloadError::Rate),
            (|w| w.length = Length::Records(0), WorkloadError::Length),
        ];
        for (change, error) in cases {
            let mut workload = Workload::default();
            change(&mut workload);
            assert_eq!(workload.check(), Err(error));
        }
    }
}
