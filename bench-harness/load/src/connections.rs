//! Which connection carries what: records on their way in, partitions on their way out.
//!
//! Pure. A stream, one producer on one partition, stays on one connection, and so do its records in order. Fewer
//! connections than producers are shared by producers in turn; of more, each producer has several and deals its partitions
//! out to them. **Invariant:** each connection has something to carry, and those of a kind as much as the others, give or
//! take one (property tested).

use crate::workload::Workload;

/// Bytes of records that all connections together may have unacknowledged; a batch each, if that is more.
const BUFFER_BYTES: usize = 64 << 20;
/// Bytes that all that read may hold, received and not yet looked at, and again as much in receive buffers.
const READ_BYTES: usize = 256 << 20;
/// The most and the least that is asked for at once.
const FETCH_BYTES: (usize, usize) = (64 << 10, 1 << 20);
/// Receive buffers that the client keeps for each connection, each of the size of a fetch.
const RECEIVE_BUFFERS: usize = 8;
/// Consumers that come after the window when there are none in it.
const VERIFYING: u32 = 4;

/// How the load of a run is spread over connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    producers: u32,
    partitions: u32,
    writing: u32,
    reading: u32,
    buffer_bytes: usize,
    batch_bytes: usize,
}

impl Spread {
    /// That of a workload which has passed its check.
    pub fn new(workload: &Workload) -> Self {
        let Workload { producers, partitions, connections, batch_bytes, .. } = *workload;
        let reading = match workload.consumers {
            0 => connections.unwrap_or(VERIFYING).min(VERIFYING),
            consumers => connections.unwrap_or(consumers),
        };
        Self {
            producers,
            partitions,
            writing: connections.unwrap_or(producers),
            reading: reading.min(partitions),
            buffer_bytes: workload.buffer_bytes.saturating_mul(producers as usize),
            batch_bytes,
        }
    }

    /// How many connections carry records of producers.
    pub const fn writing(&self) -> u32 {
        self.writing
    }

    /// How many carry them to consumers, or to those that verify after the window.
    pub const fn reading(&self) -> u32 {
        self.reading
    }

    /// The connection that carries this stream.
    pub fn of_stream(&self, producer: u32, partition: u32) -> u32 {
        if self.writing <= self.producers {
            return producer % self.writing;
        }
        let own = u64::from(self.writing - producer).div_ceil(self.producers.into());
        // Partitions next to each other, which are served by different shards: what a connection carries is, too.
        let turn = u64::from(partition) * own / u64::from(self.partitions);
        producer + self.producers * turn as u32
    }

    /// The partitions that come over this connection.
    pub fn read_by(&self, connection: u32) -> Vec<u32> {
        (connection..self.partitions).step_by(self.reading as usize).collect()
    }

    /// Bytes of records that one connection may have unacknowledged: what its producers may, within what all may. One batch at
    /// least.
    pub fn buffer_bytes(&self) -> usize {
        (self.buffer_bytes.min(BUFFER_BYTES) / self.writing as usize).max(self.batch_bytes)
    }

    /// Bytes that one connection asks for at once.
    pub fn fetch_bytes(&self) -> u32 {
        let (least, most) = FETCH_BYTES;
        (READ_BYTES / RECEIVE_BUFFERS / self.reading as usize).clamp(least, most) as u32
    }

    /// Bytes of one partition that may wait to be looked at.
    pub fn prefetch_bytes(&self) -> usize {
        let fetch = self.fetch_bytes() as usize;
        (READ_BYTES / self.partitions as usize).clamp(fetch, 2 * fetch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn spread(producers: u32, consumers: u32, partitions: u32, connections: Option<u32>) -> Spread {
        Spread::new(&Workload { producers, consumers, partitions, connections, ..Workload::default() })
    }

    #[test]
    fn without_a_number_every_producer_and_consumer_has_its_own() {
        let own = spread(4, 2, 4, None);
        assert_eq!((own.writing(), own.reading()), (4, 2));
        for producer in 0..4 {
            assert!((0..4).all(|partition| own.of_stream(producer, partition) == producer));
        }
        assert_eq!((own.read_by(0), own.read_by(1)), (vec![0, 2], vec![1, 3]));
        let default = Workload::default();
        assert_eq!(own.buffer_bytes(), default.buffer_bytes);
        assert_eq!(
            (own.fetch_bytes(), own.prefetch_bytes()),
            (1 << 20, 2 << 20),
            "as a consumer has by default"
        );
    }

    #[test]
    fn one_carries_everything_and_two_hundred_a_little_each() {
        let one = spread(4, 4, 4, Some(1));
        assert_eq!((one.writing(), one.reading(), one.read_by(0)), (1, 1, vec![0, 1, 2, 3]));
        assert_eq!(one.buffer_bytes(), 4 * Workload::default().buffer_bytes, "as deep as four");

        let eight = spread(4, 4, 4, Some(8));
        assert_eq!((eight.writing(), eight.reading()), (8, 4), "a partition comes over one connection");
        let of = |producer| (0..4).map(|partition| eight.of_stream(producer, partition)).collect::<Vec<_>>();
        assert_eq!((of(0), of(3)), (vec![0, 0, 4, 4], vec![3, 3, 7, 7]));

        let many = spread(200, 4, 4, Some(200));
        assert_eq!((many.writing(), many.reading()), (200, 4));
        assert!((0..200).all(|producer| many.of_stream(producer, 3) == producer));
        assert!(many.buffer_bytes() * 200 <= BUFFER_BYTES, "{}", many.buffer_bytes());
        let readers = spread(4, 200, 200, Some(200));
        assert_eq!(readers.reading(), 200);
        assert!(readers.fetch_bytes() as usize * RECEIVE_BUFFERS * 200 <= READ_BYTES);
        assert!(readers.prefetch_bytes() * 200 <= READ_BYTES);
    }

    #[test]
    fn those_that_verify_after_the_window_are_few() {
        assert_eq!(spread(4, 0, 16, None).reading(), 4);
        assert_eq!(spread(4, 0, 16, Some(2)).reading(), 2);
        assert_eq!(spread(4, 0, 2, Some(8)).reading(), 2);
    }

    proptest! {
        #[test]
        fn each_connection_has_as_much_as_the_others_give_or_take_one(
            producers in 1_u32..9, partitions in 1_u32..13, part in 0_u32..100,
        ) {
            let connections = 1 + part * (producers * partitions - 1) / 99;
            let spread = spread(producers, 1, partitions, Some(connections));
            let mut streams = BTreeMap::<u32, Vec<(u32, u32)>>::new();
            for producer in 0..producers {
                for partition in 0..partitions {
                    let connection = spread.of_stream(producer, partition);
                    prop_assert!(connection < connections);
                    streams.entry(connection).or_default().push((producer, partition));
                }
            }
            prop_assert_eq!(streams.len() as u32, connections, "none idles");
            let counts: BTreeSet<u32> = if connections <= producers {
                let producers_of = |streams: &Vec<(u32, u32)>| streams.len() as u32 / partitions;
                streams.values().map(producers_of).collect()
            } else {
                let of_producer = |producer| {
                    let mut counts = streams.values().filter(|of| of[0].0 == producer).map(Vec::len);
                    let first = counts.next().expect("it has one");
                    counts.fold((first, first), |(low, high), count| (low.min(count), high.max(count)))
                };
                for (low, high) in (0..producers).map(of_producer) {
                    prop_assert!(high - low <= 1, "{low} to {high} partitions");
                }
                (0..producers)
                    .map(|producer| streams.values().filter(|of| of[0].0 == producer).count() as u32)
                    .collect()
            };
            let spread = counts.last().expect("some") - counts.first().expect("some");
            prop_assert!(spread <= 1, "{counts:?}");
        }
    }
}
