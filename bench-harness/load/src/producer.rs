//! One producer of the load: its place in the schedule, and a lane per partition.

use std::rc::Rc;

use corelog_client::Producer;

use crate::clock::wall_us;
use crate::error::LoadError;
use crate::lanes::{Lanes, LoadLane};
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

pub(crate) struct LoadProducer {
    index: u32,
    shared: Rc<Shared>,
    /// Its connections, its own or shared with others.
    connections: Vec<Producer>,
    /// One for each partition, in the order in which it takes them.
    lanes: Vec<Rc<LoadLane>>,
    /// The number of the next record.
    next: u64,
    /// Most records of a burst.
    burst: u64,
}

impl LoadProducer {
    pub(crate) fn new(index: u32, lanes: &mut Lanes, shared: Rc<Shared>) -> Result<Self, LoadError> {
        let assignment = shared.assignment;
        let burst = (BURST_BYTES / shared.payload.mean_bytes()).max(1) as u64;
        // The first runs of a producer visit the partitions in the order in which it takes them.
        let partition = |run: u64| {
            assignment.partition(Identity { producer: index, number: run * assignment.run_records() })
        };
        let runs = 0..u64::from(assignment.partitions());
        let own = runs.map(|run| lanes.of_stream(index, partition(run))).collect::<Result<_, _>>()?;
        let connections = lanes.connections_of(index);
        Ok(Self { index, shared, connections, lanes: own, next: 0, burst })
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
            self.lane().take_acks()?;
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
            self.lane().take_acks()?;
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
        let (count, full) = self.lane().push(self.next_id(), most, wall_us())?;
        self.next += count;
        Ok(full)
    }

    /// Waits until there is room for the next record. It may be longer than the mean: room for that would be there at once,
    /// again and again, and nothing else would run.
    async fn room(&self) {
        self.lane().room(self.shared.payload.bytes(self.next_id())).await;
    }

    /// Waits until everything sent is acknowledged and counted.
    async fn finish(&self) -> Result<(), LoadError> {
        for connection in &self.connections {
            connection.flush().await?;
        }
        for lane in &self.lanes {
            lane.settle(self.index).await?;
        }
        Ok(())
    }

    fn next_id(&self) -> Identity {
        Identity { producer: self.index, number: self.next }
    }

    /// The lane of the next record.
    fn lane(&self) -> &LoadLane {
        &self.lanes[((self.next / self.shared.assignment.run_records()) % self.lanes.len() as u64) as usize]
    }
}
