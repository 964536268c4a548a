//! A load on many partitions: idempotent producers that keep some requests under way, and a live consumer of all.
//!
//! The connections live as long as the load, so that a measured run finds everything as the warm-up left it.

use std::net::SocketAddr;
use std::thread;

use corelog_model::TopicId;
use corelog_model::batch::{AlignedVec, BatchBuilder, BatchHeader, Codec, RecordRef, Seal};
use corelog_perf::peer::Peer;
use corelog_wire::{Request, Response};

/// Requests that a producer keeps under way.
const DEPTH: usize = 64;
/// Records of a batch.
const RECORDS: u32 = 4;
/// Bytes of a record's value.
const VALUE_BYTES: usize = 40;
/// Longer than a check takes: a fetch is answered because there is data.
const WAIT_US: u64 = 60_000_000;
/// A fetch asks for at most this much.
const FETCH_BYTES: u32 = 64 << 10;

/// Producers and a consumer on all partitions of a topic.
pub(crate) struct Load {
    producers: Vec<Producer>,
    consumer: Consumer,
}

struct Producer {
    peer: Peer,
    topic: TopicId,
    batch: AlignedVec<16>,
    header: BatchHeader,
    /// The next sequence of each partition.
    sequences: Vec<u32>,
    next: usize,
}

struct Consumer {
    peer: Peer,
    /// The next offset of each partition; a fetch for it is under way.
    offsets: Vec<u64>,
    records: u64,
}

impl Load {
    pub(crate) fn start(address: SocketAddr, producers: usize, partitions: u32) -> Self {
        let mut peer = Peer::connect(address).expect("the broker listens");
        let topic = peer.create_topic("load", partitions).expect("a topic");
        peer.open_all(topic, partitions).expect("its partitions");
        let mut consumer = Consumer { peer, offsets: vec![0; partitions as usize], records: 0 };
        (0..partitions).for_each(|partition| consumer.fetch(partition));
        consumer.peer.flush().expect("the broker takes the bytes");
        let producers = (0..producers).map(|at| Producer::start(address, topic, partitions, at)).collect();
        Self { producers, consumer }
    }

    /// Each producer appends `batches`; returns once all of them are acknowledged and consumed.
    pub(crate) fn run(&mut self, batches: usize) {
        let records = (self.producers.len() * batches) as u64 * u64::from(RECORDS);
        thread::scope(|scope| {
            for producer in &mut self.producers {
                scope.spawn(|| producer.run(batches));
            }
            self.consumer.run(records);
        });
    }
}

impl Producer {
    fn start(address: SocketAddr, topic: TopicId, partitions: u32, at: usize) -> Self {
        let mut peer = Peer::connect(address).expect("the broker listens");
        peer.open_all(topic, partitions).expect("its partitions");
        let (producer_id, producer_epoch) = peer.producer_id().expect("an id");
        let mut builder = BatchBuilder::new(1 << 20);
        for _ in 0..RECORDS {
            let value = [at as u8; VALUE_BYTES];
            let record = RecordRef { key: None, value: Some(&value), timestamp_us: 1, headers: &[] };
            builder.push(record).expect("room for the record");
        }
        let seal =
            Seal { topic, partition: 0, producer_id, producer_epoch, base_sequence: 0, codec: Codec::None };
        let mut batch = AlignedVec::new();
        let header = builder.seal(&seal, &mut batch).expect("sealed");
        let next = at * partitions as usize / 7;
        Self { peer, topic, batch, header, sequences: vec![0; partitions as usize], next }
    }

    fn run(&mut self, batches: usize) {
        let (mut sent, mut answered) = (0, 0);
        while answered < batches {
            while sent < batches && sent - answered < DEPTH {
                self.send();
                sent += 1;
            }
            self.peer.flush().expect("the broker takes the bytes");
            // A half of them, so that the other half is under way while the next ones are written.
            for _ in 0..(sent - answered).div_ceil(2) {
                let answer = self.peer.receive(|_, response| {
                    assert!(matches!(response, Response::Produced { batches: 1, .. }), "{response:?}");
                });
                answer.expect("the broker answers");
                answered += 1;
            }
        }
    }

    fn send(&mut self) {
        let partition = self.next % self.sequences.len();
        self.next += 1;
        let base_sequence = &mut self.sequences[partition];
        let header = BatchHeader { base_sequence: *base_sequence, ..self.header };
        *base_sequence += RECORDS;
        header.write(&mut self.batch, self.topic, partition as u32);
        let request =
            Request::Produce { handle: partition as u32 + 1, expected_offset: None, batches: &self.batch };
        self.peer.queue(&request);
    }
}

impl Consumer {
    fn fetch(&mut self, partition: u32) {
        let offset = self.offsets[partition as usize];
        self.peer.queue(&Request::Fetch {
            handle: partition + 1,
            offset,
            leader_epoch: None,
            max_bytes: FETCH_BYTES,
            min_bytes: 1,
            max_wait_us: WAIT_US,
        });
    }

    fn run(&mut self, records: u64) {
        let end = self.records + records;
        while self.records < end {
            if !self.peer.has_answer() {
                self.peer.flush().expect("the broker takes the bytes");
            }
            let answer = self.peer.receive(|header, response| {
                let Response::Fetched { batches, .. } = response else { panic!("{response:?}") };
                let partition = header.handle - 1;
                (partition, follow(batches, self.offsets[partition as usize]))
            });
            let (partition, next) = answer.expect("the broker answers");
            self.records += next - self.offsets[partition as usize];
            self.offsets[partition as usize] = next;
            self.fetch(partition);
        }
        self.peer.flush().expect("the broker takes the bytes");
        assert_eq!(self.records, end, "nothing comes twice");
    }
}

/// The offset after these batches, which begin at `offset` and leave none out.
fn follow(mut batches: &[u8], mut offset: u64) -> u64 {
    while !batches.is_empty() {
        let header = BatchHeader::parse(batches).expect("a batch");
        assert_eq!(header.base_offset, offset, "batches follow each other");
        offset = header.next_offset();
        batches = &batches[header.padded_bytes()..];
    }
    offset
}
