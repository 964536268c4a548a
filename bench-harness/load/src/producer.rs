//! One producer of the load: a connection, a lane per partition of its own, and the records not yet acknowledged.

use std::collections::VecDeque;
use std::rc::Rc;

use corelog_client::{
    BatchAck, Client, Fill, Lane, Producer, ProducerConfig, RecordRef, Topic, TrySendError,
};

use crate::clock::wall_us;
use crate::error::LoadError;
use crate::payload::Identity;
use crate::shared::Shared;

/// Most bytes of values pushed before the other tasks of the loop have their turn: some 10 us of work, which is what
/// a loop may be late by.
const BURST_BYTES: usize = 32 << 10;

/// When a phase is over for one producer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// At this time of the run's clock; in an open loop: of the intended times.
    Time(u64),
    /// Before this number.
    Number(u64),
}

/// Consecutive numbers that went into a lane one after the other.
struct Run {
    first: u64,
    count: u64,
}

struct OwnLane {
    lane: Lane,
    unacknowledged: VecDeque<Run>,
}

pub(crate) struct LoadProducer {
    index: u32,
    shared: Rc<Shared>,
    producer: Producer,
    lanes: Vec<OwnLane>,
    /// The number of the next record.
    next: u64,
    /// Most records of a burst.
    burst: u64,
    acks: Vec<BatchAck>,
}

impl LoadProducer {
    pub(crate) fn new(
        index: u32,
        client: &Client,
        topic: &Topic,
        config: ProducerConfig,
        shared: Rc<Shared>,
    ) -> Result<Self, LoadError> {
        let producer = client.producer(config);
        let assignment = shared.assignment;
        let burst = (BURST_BYTES / shared.payload.mean_bytes()).max(1) as u64;
        let mut lanes = Vec::new();
        // The first runs of a producer visit the partitions in the order in which it takes them.
        for run in 0..u64::from(assignment.partitions()) {
            let first = Identity { producer: index, number: run * assignment.run_records() };
            let lane = producer.lane(topic, assignment.partition(first))?;
            lanes.push(OwnLane { lane, unacknowledged: VecDeque::new() });
        }
        Ok(Self { index, shared, producer, lanes, next: 0, burst, acks: Vec::new() })
    }

    /// Its index within the run.
    pub(crate) const fn index(&self) -> u32 {
        self.index
    }

    /// How many records were sent since the run began.
    pub(crate) const fn sent(&self) -> u64 {
        self.next
    }

    /// Sends as fast as the broker's back-pressure lets it, until all of it is acknowledged.
    pub(crate) async fn saturate(&mut self, until: Until) -> Result<(), LoadError> {
        loop {
            let now = self.shared.clock.now_ns();
            self.shared.watch.turn(now);
            if self.is_over(until, now) {
                return self.finish().await;
            }
            let most = match until {
                Until::Time(_) => self.burst,
                Until::Number(end) => self.burst.min(end - self.next),
            };
            if self.push(most)? {
                self.room().await;
            } else {
                tokio::task::yield_now().await;
            }
            self.take_acks(self.lane_index())?;
        }
    }

    /// Sends each record at its intended time, or as soon after it as the broker's back-pressure lets it.
    pub(crate) async fn follow_schedule(&mut self, until: Until) -> Result<(), LoadError> {
        let pace = self.shared.pace();
        while let Some(intended) = self.shared.intended_ns(self.next_id()) {
            if self.is_over(until, intended) {
                break;
            }
            let now = pace.until(intended).await;
            if self.push(self.due(until, now))? {
                self.room().await;
            } else {
                // The driver sends what was pushed before this producer looks at the clock again.
                tokio::task::yield_now().await;
            }
            self.take_acks(self.lane_index())?;
        }
        self.finish().await
    }

    /// How many records from the next on are due at `now`, at least one; at most a burst.
    fn due(&self, until: Until, now: u64) -> u64 {
        (1..self.burst)
            .find(|ahead| {
                let id = Identity { producer: self.index, number: self.next + ahead };
                let over = match until {
                    Until::Time(end) => self.shared.intended_ns(id).is_some_and(|intended| intended >= end),
                    Until::Number(end) => id.number >= end,
                };
                over || self.shared.intended_ns(id).is_none_or(|intended| intended > now)
            })
            .unwrap_or(self.burst)
    }

    fn is_over(&self, until: Until, time: u64) -> bool {
        match until {
            Until::Time(end) => time >= end,
            Until::Number(end) => self.next >= end,
        }
    }

    /// Pushes up to `most` records into the lane whose turn it is; whether there was no room for more.
    fn push(&mut self, most: u64) -> Result<bool, LoadError> {
        let run = self.shared.assignment.run_records();
        let most = if self.lanes.len() == 1 { most } else { most.min(run - self.next % run) };
        let at = self.lane_index();
        let first = self.next;
        let (payload, index) = (&self.shared.payload, self.index);
        let stamp = wall_us();
        let mut count = 0;
        let result = self.lanes[at].lane.fill(|fill: &mut Fill<'_>| {
            while count < most {
                let id = Identity { producer: index, number: first + count };
                let record = RecordRef { key: None, value: None, timestamp_us: stamp, headers: &[] };
                fill.push_with(record, payload.bytes(id), |place| payload.fill(id, place))?;
                count += 1;
            }
            Ok(())
        });
        if count > 0 {
            self.lanes[at].unacknowledged.push_back(Run { first, count });
            self.next += count;
        }
        match result {
            Ok(()) => Ok(false),
            Err(TrySendError::Full) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until there is room for the next record. It may be longer than the mean: room for that would be there at once,
    /// again and again, and nothing else would run.
    async fn room(&mut self) {
        let bytes = self.shared.payload.bytes(self.next_id());
        self.own_lane().lane.room(bytes).await;
    }

    /// Waits until everything sent is acknowledged and counted.
    async fn finish(&mut self) -> Result<(), LoadError> {
        self.producer.flush().await?;
        for at in 0..self.lanes.len() {
            self.take_acks(at)?;
            while !self.lanes[at].unacknowledged.is_empty() {
                self.lanes[at].lane.acknowledged().await;
                self.take_acks(at)?;
            }
        }
        Ok(())
    }

    /// Counts the acknowledgements that have come in for one lane.
    fn take_acks(&mut self, at: usize) -> Result<(), LoadError> {
        let own = &mut self.lanes[at];
        own.lane.take_acks(&mut self.acks);
        if self.acks.is_empty() {
            return Ok(());
        }
        let shared = &self.shared;
        let mut latencies = shared.latencies();
        for ack in self.acks.drain(..) {
            ack.result?;
            let answered = shared.clock.at(ack.answered_at);
            let sent = ack.sent_at.map_or(answered, |sent| shared.clock.at(sent));
            let records = u64::from(ack.records);
            latencies.service.record(answered.saturating_sub(sent), records);
            let mut bytes = 0;
            let mut left = records;
            while left > 0 {
                let run = own.unacknowledged.front_mut().expect("no more is acknowledged than was sent");
                let taken = left.min(run.count);
                bytes += shared.payload.bytes_of(self.index, run.first..run.first + taken);
                for number in run.first..run.first + taken {
                    let Some(intended) = shared.intended_ns(Identity { producer: self.index, number }) else {
                        break;
                    };
                    latencies.response.record(answered.saturating_sub(intended), 1);
                    latencies.delay.record(sent.saturating_sub(intended), 1);
                }
                run.first += taken;
                run.count -= taken;
                left -= taken;
                if run.count == 0 {
                    own.unacknowledged.pop_front();
                }
            }
            shared.count_acknowledged(records, bytes);
        }
        Ok(())
    }

    fn next_id(&self) -> Identity {
        Identity { producer: self.index, number: self.next }
    }

    fn lane_index(&self) -> usize {
        ((self.next / self.shared.assignment.run_records()) % self.lanes.len() as u64) as usize
    }

    fn own_lane(&mut self) -> &mut OwnLane {
        let at = self.lane_index();
        &mut self.lanes[at]
    }
}
