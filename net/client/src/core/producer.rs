//! The producer: lanes, what each connection may send now, the buffer's bound.
//!
//! When to send, per connection (a *link*): closed batches at once. Open ones, with [`Linger::Adaptive`], all together
//! while fewer than [`IDLE_BELOW`] requests are unacknowledged on the link, else when a reply brings it below that or the
//! batch is full; with [`Linger::Fixed`], when their time has come.
//!
//! **Invariants:** `buffered` is the weight of everything accepted and not answered; a lane is in `ready` only if it has
//! something closed to send and may send it.

mod conditional;
mod moving;
mod topics;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use corelog_model::TopicId;
use corelog_model::batch::{BatchBuilder, Full, RecordRef};
use corelog_wire::ErrorCode;

use crate::config::{Backoff, Linger, ProducerConfig};
use crate::core::backoff::{pause_us, to_us};
use crate::core::buffers::{Chunk, Pool};
use crate::core::effects::Effects;
use crate::core::lane::{Done, Flow, Identity, Lane, OpenBatch, Opened, Outgoing};
use crate::core::outcome::{Answer, Outcome};
use crate::core::producer::topics::TopicLanes;
use crate::core::rng::Rng;
use crate::core::waiters::{Place, Waiters};
use crate::error::{ProduceError, Refused, TrySendError};

/// Below this number of unacknowledged requests a link counts as idle: one is on its way, one is being worked on.
pub(crate) const IDLE_BELOW: u32 = 2;
/// What a record takes of the buffer beyond its bytes.
const RECORD_OVERHEAD_BYTES: usize = 16;
/// Builders kept for reuse.
const SPARE_BUILDERS: usize = 16;

/// What a link is to send.
pub(crate) enum Ask {
    ProducerId,
    /// Where the partitions of the topic are served now.
    Locate {
        topic: TopicId,
    },
    Open {
        lane: usize,
        handle: u32,
        topic: TopicId,
        partition: u32,
    },
    Produce {
        lane: usize,
        handle: u32,
        number: u64,
        bytes: Arc<Chunk>,
        expected_offset: Option<u64>,
    },
}

/// A record was taken.
pub(crate) struct Taken<'a> {
    pub(crate) outcome: &'a Arc<Outcome>,
    pub(crate) batch: u64,
    pub(crate) index: u32,
}

/// An answered batch, for the owner of a lane.
pub(crate) struct Acked {
    pub(crate) batch: u64,
    pub(crate) records: u32,
    pub(crate) bytes: u32,
    pub(crate) sent_us: Option<u64>,
    pub(crate) answered_us: u64,
    pub(crate) answer: Answer,
}

#[derive(Default)]
struct Link {
    connected: bool,
    unacked: u32,
    ready: VecDeque<usize>,
    lingering: VecDeque<usize>,
    unopened: VecDeque<usize>,
    handles: u32,
    /// Topics with a partition that the broker at the other end does not serve, or that are to be looked at again.
    astray: Vec<TopicId>,
    /// Those that were asked for and not answered yet.
    locating: Vec<TopicId>,
    /// When its topics are asked for again, in microseconds.
    refresh_us: u64,
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    asked_identity: bool,
    /// Before this time no identity is asked for.
    identity_pause_us: u64,
    /// When the last answer came, or the first request without answer went.
    alive_us: u64,
    /// No answers come any more.
    stuck: bool,
    /// Something new for the link's task to look at.
    kick: bool,
}

/// The list of acknowledgements of a lane that somebody holds.
#[derive(Default)]
struct Tap {
    acks: Vec<Acked>,
    waker: Option<Waker>,
}

pub(crate) struct Producer {
    config: ProducerConfig,
    backoff: Backoff,
    lifetime_us: u64,
    /// How long a connection may leave requests without any answer.
    patience_us: u64,
    /// How old what is known of a topic may become.
    metadata_age_us: u64,
    lanes: Vec<Lane>,
    taps: HashMap<usize, Tap>,
    topics: Vec<TopicLanes>,
    by_topic: HashMap<TopicId, usize>,
    recent: Option<(TopicId, usize)>,
    links: Vec<Link>,
    identity: Option<Identity>,
    buffered: usize,
    waiters: Waiters,
    builders: Vec<BatchBuilder>,
    pool: Arc<Pool>,
    rng: Rng,
    closed: Option<ProduceError>,
    done: Vec<Done>,
}

impl Producer {
    pub(crate) fn new(
        config: ProducerConfig,
        backoff: Backoff,
        patience_us: u64,
        metadata_age_us: u64,
        seed: u64,
    ) -> Self {
        let lifetime_us = to_us(config.deadline);
        let pool = Pool::new(config.max_buffer_bytes);
        Self {
            config,
            backoff,
            lifetime_us,
            patience_us,
            metadata_age_us,
            lanes: Vec::new(),
            taps: HashMap::new(),
            topics: Vec::new(),
            by_topic: HashMap::new(),
            recent: None,
            links: Vec::new(),
            identity: None,
            buffered: 0,
            waiters: Waiters::default(),
            builders: Vec::new(),
            pool,
            rng: Rng::new(seed),
            closed: None,
            done: Vec::new(),
        }
    }

    /// A connection to another address; its number.
    pub(crate) fn add_link(&mut self) -> usize {
        self.links.push(Link::default());
        self.links.len() - 1
    }

    /// Takes a copy of the record, or changes nothing. `now_us` is asked for only when a batch is opened.
    pub(crate) fn push(
        &mut self,
        at: usize,
        record: RecordRef<'_>,
        now_us: impl Fn() -> u64,
        effects: &mut Effects,
    ) -> Result<Taken<'_>, TrySendError> {
        self.take(at, weight(&record), |builder| builder.push(record), now_us, effects)
    }

    /// The same of a record whose value of `value_bytes` bytes `write` makes in place.
    pub(crate) fn push_with(
        &mut self,
        at: usize,
        record: &RecordRef<'_>,
        value_bytes: usize,
        mut write: impl FnMut(&mut [u8]),
        now_us: impl Fn() -> u64,
        effects: &mut Effects,
    ) -> Result<Taken<'_>, TrySendError> {
        let weight = weight_with(record, value_bytes);
        let push = |builder: &mut BatchBuilder| builder.push_with(record, value_bytes, &mut write);
        self.take(at, weight, push, now_us, effects)
    }

    fn take(
        &mut self,
        at: usize,
        weight: usize,
        mut push: impl FnMut(&mut BatchBuilder) -> Result<(), Full>,
        now_us: impl Fn() -> u64,
        effects: &mut Effects,
    ) -> Result<Taken<'_>, TrySendError> {
        if self.buffered + weight > self.config.max_buffer_bytes && self.buffered > 0 {
            return Err(if self.closed.is_some() { TrySendError::Closed } else { TrySendError::Full });
        }
        loop {
            if self.lanes[at].open.is_none() {
                self.open(at, now_us())?;
            }
            let open = self.lanes[at].open.as_mut().expect("just opened");
            match push(&mut open.builder) {
                Ok(()) => break,
                Err(Full::Batch) => self.close_batch(at, now_us(), effects),
                Err(Full::Record { .. }) => {
                    self.abandon(at);
                    return Err(TrySendError::RecordTooLarge);
                }
            }
        }
        self.buffered += weight;
        let lane = &mut self.lanes[at];
        let batch = lane.open_number();
        let open = lane.open.as_mut().expect("just pushed into");
        open.weight += weight;
        let index = u32::try_from(open.builder.record_count() - 1).expect("the count is limited");
        Ok(Taken { outcome: &open.outcome, batch, index })
    }

    fn open(&mut self, at: usize, now_us: u64) -> Result<(), TrySendError> {
        if self.closed.is_some() {
            return Err(TrySendError::Closed);
        }
        let builder = self.builders.pop().unwrap_or_else(|| BatchBuilder::new(self.config.batch_bytes));
        let lane = &mut self.lanes[at];
        let outcome = Arc::default();
        lane.open = Some(OpenBatch { builder, outcome, opened_us: now_us, weight: 0, expected_offset: None });
        let link = &mut self.links[lane.link];
        if !lane.in_lingering {
            lane.in_lingering = true;
            link.lingering.push_back(at);
            link.kick |= link.unacked < IDLE_BELOW || self.config.linger != Linger::Adaptive;
        }
        if lane.opened == Opened::No {
            lane.opened = Opened::Asked;
            link.unopened.push_back(at);
            link.kick = true;
        }
        self.arm(at);
        Ok(())
    }

    /// Takes back a batch that was opened for a record which then did not fit.
    fn abandon(&mut self, at: usize) {
        if let Some(open) = self.lanes[at].open.take_if(|open| open.builder.is_empty()) {
            self.builders.push(open.builder);
        }
    }

    /// Closes the lane's open batch, if there is one.
    pub(crate) fn close_batch(&mut self, at: usize, now_us: u64, effects: &mut Effects) {
        let lane = &mut self.lanes[at];
        let Some((builder, failed)) = lane.close(self.config.codec, self.lifetime_us, &self.pool) else {
            return;
        };
        if self.builders.len() < SPARE_BUILDERS {
            self.builders.push(builder);
        }
        let (topic, partition) = (lane.topic, lane.partition);
        let lanes = &mut self.topics[self.by_topic[&topic]];
        let partitions = lanes.count();
        lanes.sticky.closed(partition, partitions, &mut self.rng);
        self.done.extend(failed);
        self.finish(at, now_us, effects);
        self.enlist(at);
    }

    /// Whether the lane may send a closed batch now.
    fn may_send(&self, at: usize) -> bool {
        let lane = &self.lanes[at];
        self.links[lane.link].connected
            && lane.opened == Opened::Yes
            && lane.flow == Flow::Running
            && lane.in_flight() < self.config.max_in_flight
            && lane.next_may_follow()
            && self.lane_identity(lane).is_some()
    }

    fn lane_identity(&self, lane: &Lane) -> Option<Identity> {
        lane.identity.or(self.identity.filter(|identity| lane.worn != Some(*identity)))
    }

    /// Puts the lane on its link's lists where it belongs: of those that send, of those whose partition is to be opened.
    fn enlist(&mut self, at: usize) {
        let sends = self.lanes[at].has_waiting() && self.may_send(at);
        let lane = &mut self.lanes[at];
        let link = &mut self.links[lane.link];
        if sends {
            link.kick = true;
            if !lane.in_ready {
                lane.in_ready = true;
                link.ready.push_back(at);
            }
            return;
        }
        // An open batch is closed only once its partition is open.
        let needed = lane.has_waiting() || lane.open.is_some();
        if lane.opened == Opened::No && needed && !matches!(lane.flow, Flow::Paused { .. }) {
            lane.opened = Opened::Asked;
            link.unopened.push_back(at);
            link.kick = true;
        }
    }

    /// Everything the link is to send now, until `room` bytes are exceeded.
    pub(crate) fn poll(
        &mut self,
        link: usize,
        now_us: u64,
        room: usize,
        out: &mut Vec<Ask>,
        effects: &mut Effects,
    ) {
        self.links[link].kick = false;
        self.fire(link, now_us, effects);
        if !self.links[link].connected {
            return;
        }
        self.links[link].stuck |= self.silent_at(link).is_some_and(|due| due <= now_us);
        if self.wants_identity(link) && self.links[link].identity_pause_us <= now_us {
            self.links[link].asked_identity = true;
            out.push(Ask::ProducerId);
        }
        self.ask_places(link, now_us, out);
        while let Some(lane) = self.links[link].unopened.pop_front() {
            let Lane { handle, topic, partition, .. } = self.lanes[lane];
            out.push(Ask::Open { lane, handle, topic, partition });
        }
        self.end_linger(link, now_us, effects);
        let mut left = room;
        while left > 0 {
            let Some(at) = self.links[link].ready.pop_front() else { break };
            self.lanes[at].in_ready = false;
            if !self.may_send(at) {
                continue;
            }
            let identity = self.lane_identity(&self.lanes[at]);
            let lane = &mut self.lanes[at];
            lane.identity = identity;
            if let Some(outgoing) = lane.send(now_us) {
                left = left.saturating_sub(outgoing.bytes.len());
                let Outgoing { number, bytes, expected_offset } = outgoing;
                out.push(Ask::Produce { lane: at, handle: lane.handle, number, bytes, expected_offset });
                let state = &mut self.links[link];
                state.alive_us = if state.unacked == 0 { now_us } else { state.alive_us };
                state.unacked += 1;
            }
            self.enlist(at);
        }
    }

    /// Closes the open batches whose time has come.
    fn end_linger(&mut self, link: usize, now_us: u64, effects: &mut Effects) {
        let idle = self.links[link].unacked < IDLE_BELOW;
        for _ in 0..self.links[link].lingering.len() {
            let at = *self.links[link].lingering.front().expect("counted");
            let Some(open) = &self.lanes[at].open else {
                self.lanes[at].in_lingering = false;
                self.links[link].lingering.pop_front();
                continue;
            };
            let due = match self.config.linger {
                Linger::Adaptive => idle,
                Linger::Fixed(us) => open.opened_us.saturating_add(us) <= now_us,
            };
            if !due {
                return;
            }
            self.links[link].lingering.pop_front();
            // What cannot leave now had better go on filling.
            if self.may_send(at) && !self.lanes[at].has_waiting() {
                self.lanes[at].in_lingering = false;
                self.close_batch(at, now_us, effects);
            } else {
                self.links[link].lingering.push_back(at);
            }
        }
    }

    /// Closes all open batches: they are sent as soon as possible.
    pub(crate) fn flush(&mut self, now_us: u64, effects: &mut Effects, outcomes: &mut Vec<Arc<Outcome>>) {
        for at in 0..self.lanes.len() {
            outcomes.extend(self.lanes[at].outcomes().cloned());
            self.close_batch(at, now_us, effects);
        }
    }

    pub(crate) fn on_connected(&mut self, link: usize, now_us: u64, effects: &mut Effects) {
        self.links[link].connected = true;
        self.links[link].kick = true;
        self.links[link].refresh_us = now_us.saturating_add(self.metadata_age_us);
        for at in 0..self.lanes.len() {
            if self.lanes[at].link == link && !self.lanes[at].is_empty() {
                self.settle_flow(at, now_us, effects);
                let lane = &mut self.lanes[at];
                if lane.opened == Opened::No {
                    lane.opened = Opened::Asked;
                    self.links[link].unopened.push_back(at);
                }
            }
        }
    }

    pub(crate) fn on_lost(&mut self, link: usize, now_us: u64, effects: &mut Effects) {
        let state = &mut self.links[link];
        state.connected = false;
        state.stuck = false;
        state.unacked = 0;
        state.asked_identity = false;
        state.ready.clear();
        state.unopened.clear();
        // What was asked and not answered is asked again.
        state.astray.append(&mut state.locating);
        for at in 0..self.lanes.len() {
            if self.lanes[at].link == link {
                self.lanes[at].in_ready = false;
                self.lanes[at].on_lost();
                self.settle_flow(at, now_us, effects);
            }
        }
    }

    pub(crate) fn on_identity(&mut self, link: usize, identity: Identity) {
        self.links[link].asked_identity = false;
        self.identity = Some(identity);
        (0..self.lanes.len()).for_each(|at| self.enlist(at));
        self.links.iter_mut().for_each(|link| link.kick = true);
    }

    /// The broker could not give an identity now; ask again after a pause.
    pub(crate) fn on_identity_refused(&mut self, link: usize, now_us: u64) {
        self.links[link].asked_identity = false;
        self.links[link].identity_pause_us = now_us + pause_us(self.backoff, 3, &mut self.rng);
    }

    fn wants_identity(&self, link: usize) -> bool {
        self.config.idempotent && self.identity.is_none() && !self.links[link].asked_identity
    }

    pub(crate) fn on_opened(&mut self, lane: usize) {
        self.lanes[lane].opened = Opened::Yes;
        self.lanes[lane].missing = false;
        self.enlist(lane);
        let link = self.lanes[lane].link;
        self.links[link].kick = true;
    }

    /// The partition cannot be written to: for good, or the lane asks again after a pause.
    pub(crate) fn on_open_refused(
        &mut self,
        at: usize,
        refused: Refused,
        now_us: u64,
        effects: &mut Effects,
    ) {
        self.lanes[at].opened = Opened::No;
        // Another core may have told of a partition that this one has not heard of yet: it is there if the metadata say so.
        let missing = refused.code == ErrorCode::UnknownPartition;
        if refused.code == ErrorCode::NotHere || missing {
            self.lanes[at].missing = missing;
            self.is_astray(at);
        }
        if refused.code.retryable() || missing {
            let until_us = now_us + pause_us(self.backoff, 3, &mut self.rng);
            self.lanes[at].flow = Flow::Paused { until_us };
            self.arm(at);
            return;
        }
        let error = match refused.code {
            ErrorCode::UnknownTopic | ErrorCode::UnknownTopicId => ProduceError::UnknownTopic,
            _ => ProduceError::Refused { refused, maybe_appended: false },
        };
        self.close_batch(at, now_us, effects);
        self.lanes[at].fail_all(&error, &mut self.done);
        self.finish(at, now_us, effects);
    }

    pub(crate) fn on_produced(
        &mut self,
        at: usize,
        number: u64,
        base_offset: u64,
        append_timestamp_us: u64,
        now_us: u64,
        effects: &mut Effects,
    ) {
        self.replied(at, now_us);
        self.lanes[at].on_produced(number, base_offset, append_timestamp_us, &mut self.done);
        self.settle_flow(at, now_us, effects);
    }

    pub(crate) fn on_refused(
        &mut self,
        at: usize,
        number: u64,
        refused: Refused,
        retry_after_us: u64,
        now_us: u64,
        effects: &mut Effects,
    ) {
        self.replied(at, now_us);
        if refused.code == ErrorCode::UnknownHandle {
            self.lanes[at].opened = Opened::No;
        }
        let (backoff, rng) = (self.backoff, &mut self.rng);
        let pause = |attempt| pause_us(backoff, attempt, rng).max(retry_after_us);
        self.lanes[at].on_refused(number, refused, now_us, pause, &mut self.done);
        self.settle_flow(at, now_us, effects);
    }

    /// No lane is to be served any more: what is not answered never will be.
    pub(crate) fn close(&mut self, error: &ProduceError, now_us: u64, effects: &mut Effects) {
        self.closed.get_or_insert_with(|| error.clone());
        for at in 0..self.lanes.len() {
            self.close_batch(at, now_us, effects);
            self.lanes[at].fail_all(error, &mut self.done);
            self.finish(at, now_us, effects);
        }
        self.waiters.wake_all(&mut effects.wake);
        self.links.iter_mut().for_each(|link| link.kick = true);
    }

    fn replied(&mut self, at: usize, now_us: u64) {
        let link = &mut self.links[self.lanes[at].link];
        link.alive_us = now_us;
        link.unacked = link.unacked.saturating_sub(1);
        link.kick |= link.unacked < IDLE_BELOW;
    }

    /// After any answer: rewinds if the last one is in, frees what is done, lists the lane again.
    fn settle_flow(&mut self, at: usize, now_us: u64, effects: &mut Effects) {
        if self.lanes[at].rewind(now_us, &mut self.done) && matches!(self.lanes[at].flow, Flow::Paused { .. })
        {
            self.arm(at);
        }
        let lane = &self.lanes[at];
        if lane.identity.is_none() && lane.worn.is_some() && lane.worn == self.identity {
            self.identity = None;
            self.links[lane.link].kick = true;
        }
        self.finish(at, now_us, effects);
        self.enlist(at);
    }

    /// Frees the buffer of what is done and hands out the answers.
    fn finish(&mut self, at: usize, now_us: u64, effects: &mut Effects) {
        if self.done.is_empty() {
            return;
        }
        let mut tap = self.taps.get_mut(&at);
        for done in self.done.drain(..) {
            self.buffered -= done.weight;
            if let Some(tap) = &mut tap {
                let Done { number, records, bytes, sent_us, answer, .. } = &done;
                let bytes = u32::try_from(*bytes).expect("a batch is limited to 16 MiB");
                let (batch, records, sent_us, answer) = (*number, *records, *sent_us, answer.clone());
                tap.acks.push(Acked { batch, records, bytes, sent_us, answered_us: now_us, answer });
            }
            effects.settled.push((done.outcome, done.answer));
        }
        effects.wake.extend(tap.and_then(|tap| tap.waker.take()));
        self.wake_waiters(effects);
    }

    fn wake_waiters(&mut self, effects: &mut Effects) {
        if !self.waiters.is_empty() {
            // An empty buffer takes a record of any size.
            let room = if self.buffered == 0 {
                usize::MAX
            } else {
                self.config.max_buffer_bytes - self.buffered.min(self.config.max_buffer_bytes)
            };
            self.waiters.wake(room, &mut effects.wake);
        }
    }

    fn arm(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        let due = match lane.flow {
            Flow::Paused { until_us } => Some(until_us),
            _ => lane.deadline_us(self.lifetime_us),
        };
        if let Some(due) = due.filter(|&due| lane.timer_us.is_none_or(|armed| due < armed)) {
            lane.timer_us = Some(due);
            self.links[lane.link].timers.push(Reverse((due, at)));
        }
    }

    /// Ends pauses and expires batches.
    fn fire(&mut self, link: usize, now_us: u64, effects: &mut Effects) {
        while let Some(&Reverse((due, at))) = self.links[link].timers.peek() {
            if due > now_us {
                return;
            }
            self.links[link].timers.pop();
            let lane = &mut self.lanes[at];
            lane.timer_us = None;
            if matches!(lane.flow, Flow::Paused { until_us } if until_us <= now_us) {
                lane.flow = Flow::Running;
            }
            if lane.deadline_us(self.lifetime_us).is_some_and(|deadline| deadline <= now_us) {
                let open_is_late = lane
                    .open
                    .as_ref()
                    .is_some_and(|open| open.opened_us.saturating_add(self.lifetime_us) <= now_us);
                if open_is_late {
                    self.close_batch(at, now_us, effects);
                }
                let silent = self.lanes[at].expire(now_us, &mut self.done);
                self.links[link].stuck |= silent;
            }
            self.settle_flow(at, now_us, effects);
            self.arm(at);
        }
    }

    /// When `poll` has something to do although nothing happened, in microseconds.
    pub(crate) fn next_deadline(&self, link: usize) -> Option<u64> {
        let state = &self.links[link];
        let timer = state.timers.peek().map(|&Reverse((due, _))| due);
        let due = |&at: &usize| {
            self.lanes[at].open.as_ref().filter(|_| self.may_send(at)).map(|open| open.opened_us)
        };
        let linger = match self.config.linger {
            Linger::Adaptive => None,
            Linger::Fixed(us) => {
                state.lingering.iter().filter_map(due).min().map(|opened| opened.saturating_add(us))
            }
        };
        let identity = (state.connected && self.wants_identity(link)).then_some(state.identity_pause_us);
        let others = [timer, linger, identity, self.silent_at(link), self.refresh_at(link)];
        others.into_iter().flatten().min()
    }

    /// When the link has been silent for too long, in microseconds.
    fn silent_at(&self, link: usize) -> Option<u64> {
        let Link { connected, unacked, alive_us, .. } = self.links[link];
        (connected && unacked > 0).then(|| alive_us.saturating_add(self.patience_us))
    }

    /// The link's connection answers no more and is to be made anew.
    pub(crate) fn is_stuck(&self, link: usize) -> bool {
        self.links[link].stuck
    }

    /// Moves to `effects` which links have something new to look at.
    pub(crate) fn take_kicks(&mut self, effects: &mut Effects) {
        for (at, link) in self.links.iter_mut().enumerate() {
            if std::mem::take(&mut link.kick) {
                effects.kick(at);
            }
        }
    }

    /// Nothing accepted is without answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.lanes.iter().all(Lane::is_empty)
    }

    /// Waits for room for a record; `None` if there is room now or waiting is of no use.
    pub(crate) fn wait(&mut self, place: Option<Place>, bytes: usize, waker: &Waker) -> Option<Place> {
        let weight = bytes + RECORD_OVERHEAD_BYTES;
        let room = self.buffered == 0 || self.buffered + weight <= self.config.max_buffer_bytes;
        if self.closed.is_some() || room {
            return None;
        }
        Some(self.waiters.wait(place, weight, waker))
    }

    /// A task that had a place does not wait any more.
    pub(crate) fn leave(&mut self, place: Place, effects: &mut Effects) {
        self.waiters.leave(place);
        self.wake_waiters(effects);
    }

    /// Lists the lane's acknowledgements from now on; false if somebody does already.
    pub(crate) fn tap(&mut self, at: usize) -> bool {
        let vacant = !self.taps.contains_key(&at);
        self.taps.entry(at).or_default();
        vacant
    }

    /// Ends that; the waker is to be dropped without the lock.
    pub(crate) fn untap(&mut self, at: usize) -> Option<Waker> {
        self.taps.remove(&at).and_then(|tap| tap.waker)
    }

    pub(crate) fn take_acks(&mut self, at: usize, out: &mut Vec<Acked>) {
        if let Some(tap) = self.taps.get_mut(&at) {
            out.append(&mut tap.acks);
        }
    }

    /// Whether there are acknowledgements; if not, `waker` is woken when there are.
    pub(crate) fn poll_acks(&mut self, at: usize, waker: &Waker) -> bool {
        let tap = self.taps.entry(at).or_default();
        tap.waker = tap.acks.is_empty().then(|| waker.clone());
        !tap.acks.is_empty()
    }

    #[cfg(test)]
    pub(crate) const fn buffered(&self) -> usize {
        self.buffered
    }

    /// All invariants; for tests.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        for (at, lane) in self.lanes.iter().enumerate() {
            lane.check();
            let listed = self.links[lane.link].ready.contains(&at);
            assert_eq!(listed, lane.in_ready, "a lane knows whether it is listed");
            if lane.has_waiting() && self.may_send(at) {
                assert!(lane.in_ready, "what may be sent is listed");
            }
        }
        if self.lanes.iter().all(Lane::is_empty) {
            assert_eq!(self.buffered, 0, "nothing accepted, nothing buffered");
        }
    }
}

/// What a record takes of the buffer, in bytes.
fn weight(record: &RecordRef<'_>) -> usize {
    weight_with(record, record.value.map_or(0, <[u8]>::len))
}

/// The same with a value of so many bytes.
fn weight_with(record: &RecordRef<'_>, value_bytes: usize) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    record.key.map_or(0, <[u8]>::len) + value_bytes + headers + RECORD_OVERHEAD_BYTES
}

/// What records take of the buffer together, without the overhead of one, which `wait` adds.
pub(crate) fn records_bytes(records: &[RecordRef<'_>]) -> usize {
    records.iter().map(weight).sum::<usize>().saturating_sub(RECORD_OVERHEAD_BYTES)
}

/// The same, without the overhead that `wait` adds.
pub(crate) fn record_bytes(record: &RecordRef<'_>) -> usize {
    weight(record) - RECORD_OVERHEAD_BYTES
}
