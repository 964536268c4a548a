//! The lanes of the load: one for each partition and connection that carries records to it, shared by the producers that
//! have this connection.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;

use corelog_client::{BatchAck, Fill, Lane, Producer, Topic, TrySendError};
use tokio::sync::Notify;

use crate::connections::Spread;
use crate::error::LoadError;
use crate::payload::Identity;
use crate::shared::Shared;

/// All of a run, made when the first producer asks for one.
pub(crate) struct Lanes {
    topic: Topic,
    spread: Spread,
    shared: Rc<Shared>,
    /// By connection.
    producers: Vec<Producer>,
    /// By connection and partition.
    lanes: BTreeMap<(u32, u32), Rc<LoadLane>>,
}

impl Lanes {
    /// On these connections, of which there are as many as `spread` has.
    pub(crate) const fn new(
        topic: Topic,
        spread: Spread,
        shared: Rc<Shared>,
        producers: Vec<Producer>,
    ) -> Self {
        Self { topic, spread, shared, producers, lanes: BTreeMap::new() }
    }

    /// That of a stream.
    pub(crate) fn of_stream(&mut self, producer: u32, partition: u32) -> Result<Rc<LoadLane>, LoadError> {
        let connection = self.spread.of_stream(producer, partition);
        if let Some(lane) = self.lanes.get(&(connection, partition)) {
            return Ok(lane.clone());
        }
        let lane = self.producers[connection as usize].lane(&self.topic, partition)?;
        let lane = Rc::new(LoadLane {
            shared: self.shared.clone(),
            lane: RefCell::new(lane),
            unacknowledged: RefCell::default(),
            acks: RefCell::default(),
            taken: Notify::new(),
        });
        self.lanes.insert((connection, partition), lane.clone());
        Ok(lane)
    }

    /// The connections of a producer.
    pub(crate) fn connections_of(&self, producer: u32) -> Vec<Producer> {
        let partitions = 0..self.shared.assignment.partitions();
        let mut own: Vec<u32> =
            partitions.map(|partition| self.spread.of_stream(producer, partition)).collect();
        own.sort_unstable();
        own.dedup();
        own.into_iter().map(|connection| self.producers[connection as usize].clone()).collect()
    }
}

/// Consecutive numbers of one producer that went into a lane one after the other.
struct Run {
    producer: u32,
    first: u64,
    count: u64,
}

/// A lane and what is unacknowledged in it. No borrow of it outlasts a call: its producers take turns on one thread.
pub(crate) struct LoadLane {
    shared: Rc<Shared>,
    lane: RefCell<Lane>,
    unacknowledged: RefCell<VecDeque<Run>>,
    acks: RefCell<Vec<BatchAck>>,
    /// Somebody has taken acknowledgements, of whichever producer.
    taken: Notify,
}

impl LoadLane {
    /// Pushes up to `most` records of a producer, from the number `first` on, written at `stamp_us`. How many went in, and
    /// whether there was no room for more.
    pub(crate) fn push(
        &self,
        first: Identity,
        most: u64,
        stamp_us: u64,
    ) -> Result<(u64, bool), TrySendError> {
        let payload = &self.shared.payload;
        let mut count = 0;
        let result = self.lane.borrow_mut().fill(|fill: &mut Fill<'_>| {
            while count < most {
                let id = Identity { number: first.number + count, ..first };
                let record = corelog_client::RecordRef { timestamp_us: stamp_us, ..Default::default() };
                fill.push_with(record, payload.bytes(id), |place| payload.fill(id, place))?;
                count += 1;
            }
            Ok(())
        });
        if count > 0 {
            let run = Run { producer: first.producer, first: first.number, count };
            self.unacknowledged.borrow_mut().push_back(run);
        }
        match result {
            Ok(()) => Ok((count, false)),
            Err(TrySendError::Full) => Ok((count, true)),
            Err(error) => Err(error),
        }
    }

    /// Waits until there is room for a record of this many bytes.
    pub(crate) async fn room(&self, bytes: usize) {
        let room = self.lane.borrow().room(bytes);
        room.await;
    }

    /// Counts the acknowledgements that have come in.
    pub(crate) fn take_acks(&self) -> Result<(), LoadError> {
        let mut acks = self.acks.borrow_mut();
        self.lane.borrow_mut().take_acks(&mut acks);
        if acks.is_empty() {
            return Ok(());
        }
        acks.drain(..).try_for_each(|ack| self.take(ack))?;
        self.taken.notify_waiters();
        Ok(())
    }

    fn take(&self, ack: BatchAck) -> Result<(), LoadError> {
        ack.result?;
        let shared = &self.shared;
        let mut latencies = shared.latencies();
        let mut unacknowledged = self.unacknowledged.borrow_mut();
        let answered = shared.clock.at(ack.answered_at);
        let sent = ack.sent_at.map_or(answered, |sent| shared.clock.at(sent));
        let records = u64::from(ack.records);
        latencies.service.record(answered.saturating_sub(sent), records);
        let mut bytes = 0;
        let mut left = records;
        while left > 0 {
            let run = unacknowledged.front_mut().expect("no more is acknowledged than was sent");
            let (producer, taken) = (run.producer, left.min(run.count));
            bytes += shared.payload.bytes_of(producer, run.first..run.first + taken);
            for number in run.first..run.first + taken {
                let Some(intended) = shared.intended_ns(Identity { producer, number }) else {
                    break;
                };
                latencies.response.record(answered.saturating_sub(intended), 1);
                latencies.delay.record(sent.saturating_sub(intended), 1);
            }
            run.first += taken;
            run.count -= taken;
            left -= taken;
            if run.count == 0 {
                unacknowledged.pop_front();
            }
        }
        shared.count_acknowledged(records, bytes);
        Ok(())
    }

    /// Waits until everything of this producer is acknowledged and counted.
    pub(crate) async fn settle(&self, producer: u32) -> Result<(), LoadError> {
        loop {
            self.take_acks()?;
            if self.unacknowledged.borrow().iter().all(|run| run.producer != producer) {
                return Ok(());
            }
            // A lane wakes only the last one who waited for its acknowledgements: that one takes those of all, and wakes
            // the others.
            tokio::select! {
                () = self.acknowledged() => {}
                () = self.taken.notified() => {}
            }
        }
    }

    async fn acknowledged(&self) {
        poll_fn(|cx| {
            let mut lane = self.lane.borrow_mut();
            let acknowledged = pin!(lane.acknowledged());
            acknowledged.poll(cx)
        })
        .await;
    }
}
