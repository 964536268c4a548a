//! The producer, its receipts and its lanes.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use corelog_model::batch::{BatchError, RecordRef};
use tokio::runtime::Handle;

use crate::config::{ClientConfig, ProducerConfig};
use crate::core::effects::Effects;
use crate::core::outcome::{Answer, Outcome, Seat};
use crate::core::producer::{self as core, record_bytes, records_bytes};
use crate::core::waiters::Place;
use crate::driver::clock::Clock;
use crate::driver::produce::Shared;
use crate::error::{ClientError, ProduceError, TrySendError};
use crate::topic::Topic;

/// Which partition a record goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// By the key, as Kafka's Java client does (murmur2); without a key one partition per batch, chosen at random. As with
    /// Kafka, a key's partition depends on how many there are: once partitions are added, and the producer knows of them,
    /// most keys go to another one than before. Who needs all records of a key in one order starts with enough.
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
    handle: Arc<Owner>,
}

/// Tells the links when the last handle is gone.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.drop_handle();
    }
}

impl Producer {
    pub(crate) fn new(
        client: &ClientConfig,
        config: ProducerConfig,
        clock: Clock,
        runtime: Handle,
        seed: u64,
    ) -> Self {
        Self { handle: Arc::new(Owner(Shared::new(client, config, clock, runtime, seed))) }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.0
    }

    /// The sealed size that no batch exceeds: what was configured, within what the broker takes.
    pub fn batch_bytes(&self) -> usize {
        self.shared().batch_bytes
    }

    /// Asks the broker what partitions the topic has now, and uses them from then on; how many these are. It is also done by
    /// itself: when [`ClientConfig::metadata_age`](crate::ClientConfig::metadata_age) is over, when a `Topic` is given that
    /// was asked for later, and by [`send`](Self::send) to a partition that is not known.
    pub async fn refresh(&self, topic: &Topic) -> Result<u32, ClientError> {
        self.shared().refresh(topic).await
    }

    /// Takes a record as soon as there is room for it; waits for nothing else, but for what is known of the topic if it has
    /// no such partition by that. `Ok` means accepted: the record is
    /// in a batch, and the receipt tells what became of it. Dropped before that, the record is not accepted.
    pub async fn send(
        &self,
        topic: &Topic,
        partition: Partition,
        record: RecordRef<'_>,
    ) -> Result<Receipt, ProduceError> {
        let bytes = record_bytes(&record);
        let mut asked = false;
        loop {
            match self.try_send(topic, partition, record) {
                Ok(receipt) => return Ok(receipt),
                Err(TrySendError::Full) => {
                    Room { shared: Arc::clone(self.shared()), bytes, place: None }.await
                }
                Err(TrySendError::RecordTooLarge) => return Err(ProduceError::RecordTooLarge),
                // It may have been added since the topic was asked for.
                Err(TrySendError::UnknownPartition) if !std::mem::replace(&mut asked, true) => {
                    let fresh = self.shared().refresh(topic).await;
                    fresh.map_err(|_| ProduceError::UnknownPartition)?;
                }
                Err(TrySendError::UnknownPartition) => return Err(ProduceError::UnknownPartition),
                Err(TrySendError::LaneTaken | TrySendError::Closed) => return Err(ProduceError::Closed),
            }
        }
    }

    /// Takes a record now or not at all.
    pub fn try_send(
        &self,
        topic: &Topic,
        partition: Partition,
        record: RecordRef<'_>,
    ) -> Result<Receipt, TrySendError> {
        let shared = self.shared();
        let index = match partition {
            Partition::Auto => None,
            Partition::Index(index) => Some(index),
        };
        loop {
            let receipt = shared.with(|core, effects| {
                let known = core.knows(topic.id(), topic.partition_count());
                known.then(|| {
                    let lane = core.lane_for(topic.id(), index, record.key)?;
                    let taken = core.push(lane, record, || shared.clock.now_us(), effects)?;
                    Ok(Receipt {
                        batch: Arc::clone(taken.outcome),
                        index: taken.index,
                        seat: Seat::default(),
                    })
                })
            });
            match receipt {
                Some(receipt) => return receipt,
                None => shared.know(topic),
            }
        }
    }

    /// Takes all the records as one batch that is appended only if the partition then ends at `expected_offset`, as soon as
    /// there is room for them; whoever lost the race learns the end in [`ProduceError::OffsetMismatch`]. The receipt is the
    /// first record's; the others follow it. `RecordTooLarge` says that they are more than a batch holds.
    ///
    /// It is sent without lingering, after all that was accepted for the partition before it is answered, and nothing
    /// behind it before it is answered itself. Dropped before it is done, the records are not accepted.
    pub async fn send_at(
        &self,
        topic: &Topic,
        partition: u32,
        expected_offset: u64,
        records: &[RecordRef<'_>],
    ) -> Result<Receipt, ProduceError> {
        if records.is_empty() {
            return Err(ProduceError::Seal(BatchError::Empty));
        }
        let shared = self.shared();
        shared.know(topic);
        let bytes = records_bytes(records);
        loop {
            let taken = shared.with(|core, effects| {
                let lane = core.lane_for(topic.id(), Some(partition), None)?;
                core.push_at(lane, expected_offset, records, shared.clock.now_us(), effects)
            });
            match taken {
                Ok(batch) => return Ok(Receipt { batch, index: 0, seat: Seat::default() }),
                Err(TrySendError::Full) => Room { shared: Arc::clone(shared), bytes, place: None }.await,
                Err(TrySendError::RecordTooLarge) => return Err(ProduceError::RecordTooLarge),
                Err(TrySendError::UnknownPartition) => return Err(ProduceError::UnknownPartition),
                Err(TrySendError::LaneTaken | TrySendError::Closed) => return Err(ProduceError::Closed),
            }
        }
    }

    /// Sends what has been accepted so far without lingering and waits until all of it is acknowledged or
    /// refused for good; the first refusal is the error.
    pub async fn flush(&self) -> Result<(), ProduceError> {
        let shared = self.shared();
        let mut outcomes = Vec::new();
        shared.with(|core, effects| core.flush(shared.clock.now_us(), effects, &mut outcomes));
        let mut first = Ok(());
        for batch in outcomes {
            let answer = Receipt { batch, index: 0, seat: Seat::default() }.await;
            first = first.and(answer.map(drop));
        }
        first
    }

    /// One partition, for a caller that feeds it at full speed. A partition has one lane at a time; it lists the
    /// acknowledgements of all batches of the partition that are answered while it lives.
    pub fn lane(&self, topic: &Topic, partition: u32) -> Result<Lane, TrySendError> {
        self.shared().know(topic);
        let lane = self.shared().with(|core, _| {
            let lane = core.lane_for(topic.id(), Some(partition), None)?;
            if core.tap(lane) { Ok(lane) } else { Err(TrySendError::LaneTaken) }
        })?;
        Ok(Lane { producer: self.clone(), lane, acks: Vec::new() })
    }
}

/// Waits until there is room, or waiting is of no use any more.
struct Room {
    shared: Arc<Shared>,
    bytes: usize,
    place: Option<Place>,
}

impl Future for Room {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (place, bytes) = (self.place, self.bytes);
        match self.shared.with(|core, _| core.wait(place, bytes, cx.waker())) {
            Some(place) => {
                self.place = Some(place);
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Room {
    /// Whether the room was found or is not wanted any more: the next one in the queue may fit.
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.shared.with(|core, effects| core.leave(place, effects));
        }
    }
}

/// What became of one record. Await it, or ask now and then. Dropping it changes nothing.
#[derive(Debug)]
pub struct Receipt {
    batch: Arc<Outcome>,
    index: u32,
    seat: Seat,
}

fn acked(answer: &Answer, index: u32) -> Result<Acked, ProduceError> {
    answer.as_ref().map_err(Clone::clone).map(|landed| Acked {
        partition: landed.partition,
        offset: landed.base_offset + u64::from(index),
        append_timestamp_us: landed.append_timestamp_us,
    })
}

impl Receipt {
    /// The answer, if it is there. Never waits.
    pub fn poll_now(&self) -> Option<Result<Acked, ProduceError>> {
        self.batch.get().map(|answer| acked(answer, self.index))
    }
}

impl Future for Receipt {
    type Output = Result<Acked, ProduceError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { batch, index, seat } = self.get_mut();
        batch.poll(seat, cx).map(|answer| acked(answer, *index))
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.batch.leave(&mut self.seat);
    }
}

/// The fast way into one partition: no receipt per record, one [`BatchAck`] per batch.
pub struct Lane {
    producer: Producer,
    lane: usize,
    acks: Vec<core::Acked>,
}

/// Where a record went: the how-manyth batch of this producer and partition, and its place in it. Batches of a lane
/// are answered in this order, those that fail excepted.
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
    /// When it was last handed to the connection; `None` if it never was.
    pub sent_at: Option<Instant>,
    /// When the answer was read from the socket.
    pub answered_at: Instant,
    /// The first record's place (the record at index `i` is at `offset + i`), or why there is none.
    pub result: Result<Acked, ProduceError>,
}

/// The inside of [`Lane::fill`]: the producer's lock is held.
pub struct Fill<'a> {
    core: &'a mut core::Producer,
    effects: &'a mut Effects,
    lane: usize,
    clock: Clock,
}

impl Lane {
    /// Takes a record now or not at all.
    pub fn try_push(&mut self, record: RecordRef<'_>) -> Result<Pushed, TrySendError> {
        self.fill(|fill| fill.push(record))
    }

    /// Takes many records under one lock: `feed` calls [`Fill::push`] as often as it likes, without waiting in between.
    /// It must not use this producer in another way: the lock is not reentrant.
    pub fn fill<R>(&mut self, feed: impl FnOnce(&mut Fill<'_>) -> R) -> R {
        let shared = self.producer.shared();
        let (lane, clock) = (self.lane, shared.clock);
        shared.with(|core, effects| feed(&mut Fill { core, effects, lane, clock }))
    }

    /// Sends what is in the open batch without lingering; does not wait.
    pub fn seal(&mut self) {
        let shared = self.producer.shared();
        let (lane, now_us) = (self.lane, shared.clock.now_us());
        shared.with(|core, effects| core.close_batch(lane, now_us, effects));
    }

    /// Moves the acknowledgements that have come in to `acks`, in order of arrival. Never waits.
    pub fn take_acks(&mut self, acks: &mut Vec<BatchAck>) {
        let shared = self.producer.shared();
        let (lane, list) = (self.lane, &mut self.acks);
        shared.with(|core, _| core.take_acks(lane, list));
        acks.extend(self.acks.drain(..).map(|ack| BatchAck {
            batch: ack.batch,
            records: ack.records,
            bytes: ack.bytes,
            sent_at: ack.sent_us.map(|us| shared.clock.instant(us)),
            answered_at: shared.clock.instant(ack.answered_us),
            result: acked(&ack.answer, 0),
        }));
    }

    /// Waits until `take_acks` has something to give. Pending for ever when nothing is unacknowledged.
    pub async fn acknowledged(&mut self) {
        let shared = self.producer.shared();
        let lane = self.lane;
        poll_fn(|cx| match shared.with(|core, _| core.poll_acks(lane, cx.waker())) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Waits until there is room for a record of about `bytes` bytes (key, value and headers). The lane is not borrowed
    /// meanwhile: others may feed it, or take its acknowledgements.
    pub fn room(&self, bytes: usize) -> impl Future<Output = ()> + use<> {
        Room { shared: Arc::clone(self.producer.shared()), bytes, place: None }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let waker = self.producer.shared().with(|core, _| core.untap(self.lane));
        drop(waker);
    }
}

impl Fill<'_> {
    /// Takes a record now or not at all.
    pub fn push(&mut self, record: RecordRef<'_>) -> Result<Pushed, TrySendError> {
        let clock = self.clock;
        let taken = self.core.push(self.lane, record, || clock.now_us(), self.effects)?;
        Ok(Pushed { batch: taken.batch, index: taken.index })
    }

    /// Takes a record whose value of `value_bytes` bytes `write` makes where it stays, now or not at all: for values
    /// that need not exist anywhere else before. `write` must set every byte and may be called once at most;
    /// `record.value` is not looked at.
    pub fn push_with(
        &mut self,
        record: RecordRef<'_>,
        value_bytes: usize,
        write: impl FnMut(&mut [u8]),
    ) -> Result<Pushed, TrySendError> {
        let clock = self.clock;
        let taken =
            self.core.push_with(self.lane, &record, value_bytes, write, || clock.now_us(), self.effects)?;
        Ok(Pushed { batch: taken.batch, index: taken.index })
    }
}
