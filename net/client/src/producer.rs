//! The producer, its receipts and its lanes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use corelog_model::RecordRef;

use crate::error::{ProduceError, TrySendError};
use crate::topic::Topic;

/// Which partition a record goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// By the key, as Kafka's Java client does (murmur2); without a key one partition per batch, chosen at random.
    Auto,
    /// This one.
    Index(u32),
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// When the broker appended it, in microseconds since 1970.
    pub append_timestamp_us: u64,
}

/// Collects records into batches and sees to it that each batch is appended exactly once, in order.
///
/// Cheap to clone. When the last clone and lane are dropped, records already accepted are still sent while the
/// runtime lives; call [`flush`](Self::flush) to wait for them.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<()>,
}

impl Producer {
    /// Takes a record as soon as there is room for it; waits for nothing else. `Ok` means accepted: the record is
    /// in a batch, and the receipt tells what became of it. Dropped before that, the record is not accepted.
    pub async fn send(
        &self,
        topic: &Topic,
        partition: Partition,
        record: RecordRef<'_>,
    ) -> Result<Receipt, ProduceError> {
        todo!()
    }

    /// Takes a record now or not at all.
    pub fn try_send(
        &self,
        topic: &Topic,
        partition: Partition,
        record: RecordRef<'_>,
    ) -> Result<Receipt, TrySendError> {
        todo!()
    }

    /// Sends what has been accepted so far without lingering and waits until all of it is acknowledged or
    /// refused for good; the first refusal is the error.
    pub async fn flush(&self) -> Result<(), ProduceError> {
        todo!()
    }

    /// One partition, for a caller that feeds it at full speed. A partition may have one lane at a time; acknowledgements
    /// of all records of the partition, whoever sent them, are then listed in the lane.
    pub fn lane(&self, topic: &Topic, partition: u32) -> Result<Lane, TrySendError> {
        todo!()
    }
}

/// What became of one record. Await it, or ask now and then. Dropping it changes nothing.
pub struct Receipt {
    batch: Arc<()>,
    index: u32,
}

impl Receipt {
    /// The answer, if it is there. Never waits.
    pub fn poll_now(&self) -> Option<Result<Acked, ProduceError>> {
        todo!()
    }
}

impl Future for Receipt {
    type Output = Result<Acked, ProduceError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        todo!()
    }
}

/// The fast way into one partition: no receipt per record, one [`BatchAck`] per batch.
pub struct Lane {
    shared: Arc<()>,
}

/// Where a record went: the how-manyth batch of this lane, and its place in it. Batches of a lane are
/// acknowledged in this order, except after refusals without idempotence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pushed {
    /// Number of the batch, from 0.
    pub batch: u64,
    /// Index of the record in its batch, from 0.
    pub index: u32,
}

/// What became of one batch.
#[derive(Clone, Debug)]
pub struct BatchAck {
    /// Number of the batch in its lane.
    pub batch: u64,
    /// Records in it.
    pub records: u32,
    /// Sealed size in bytes.
    pub bytes: u32,
    /// When it was (last) handed to the socket; `None` if it never was.
    pub sent_at: Option<Instant>,
    /// When the answer was read from the socket.
    pub answered_at: Instant,
    /// The first record's place (the record at index `i` is at `offset + i`), or why there is none.
    pub result: Result<Acked, ProduceError>,
}

/// The inside of [`Lane::fill`]: the producer's lock is held.
pub struct Fill<'a> {
    lane: &'a mut (),
}

impl Lane {
    /// Takes a record now or not at all.
    pub fn try_push(&mut self, record: RecordRef<'_>) -> Result<Pushed, TrySendError> {
        self.fill(|fill| fill.push(record))
    }

    /// Takes many records under one lock: `feed` calls [`Fill::push`] as often as it likes, without waiting in between.
    pub fn fill<R>(&mut self, feed: impl FnOnce(&mut Fill<'_>) -> R) -> R {
        todo!()
    }

    /// Moves the acknowledgements that have come in to `acks`, in order of arrival. Never waits.
    pub fn take_acks(&mut self, acks: &mut Vec<BatchAck>) {
        todo!()
    }

    /// Waits until `take_acks` has something to give. Pending for ever when nothing is unacknowledged.
    pub async fn acknowledged(&mut self) {
        todo!()
    }

    /// Waits until there is room for a record of about `bytes` bytes (key, value and headers).
    pub async fn room(&mut self, bytes: usize) {
        todo!()
    }
}

impl Fill<'_> {
    /// Takes a record now or not at all.
    pub fn push(&mut self, record: RecordRef<'_>) -> Result<Pushed, TrySendError> {
        todo!()
    }
}
