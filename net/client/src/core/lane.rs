//! One partition of a producer: an open batch, and closed ones in order until each is answered.
//!
//! ```text
//! batches:  [ sent ... sent | waiting ... waiting ]  open
//!             0             `sent`
//! ```
//!
//! **Invariants:** batches are settled from the front, in order. With idempotence a batch keeps its sequence through all
//! retries; it gets another one, under a fresh producer id, only once the broker has said that it was not appended. After
//! a refusal nothing is sent until every batch that is out is answered ([`Flow::Draining`]); then they go out again in
//! order. A conditional batch is out alone. **Must not** decide when to send: that is the producer's.

use std::collections::VecDeque;
use std::sync::Arc;

use corelog_model::batch::{AlignedVec, BatchBuilder, BatchHeader, Codec, Seal};
use corelog_model::{ProducerId, TopicId};
use corelog_wire::ErrorCode;

use crate::core::buffers::{Chunk, Pool};
use crate::core::outcome::{Answer, Landed, Outcome};
use crate::error::{ProduceError, Refused};

/// For so long at least a broker remembers who has appended, in microseconds (it forgets idle producers after a day).
const REMEMBERED_US: u64 = 10 * 60 * 1_000_000;

/// Under which name batches are appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: ProducerId,
    pub(crate) epoch: u16,
}

impl Identity {
    /// No deduplication.
    pub(crate) const NONE: Self = Self { id: ProducerId::NONE, epoch: 0 };
}

/// Whether batches may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Yes.
    Running,
    /// Not before every batch that is out is answered; then not for this many microseconds.
    Draining { pause_us: u64 },
    /// Not before this time.
    Paused { until_us: u64 },
}

/// Where the lane stands with its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    No,
    Asked,
    Yes,
}

/// The batch that records are pushed into.
pub(crate) struct OpenBatch {
    pub(crate) builder: BatchBuilder,
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) opened_us: u64,
    /// Bytes of buffer its records take.
    pub(crate) weight: usize,
    /// Append it only if the partition ends here.
    pub(crate) expected_offset: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Sent,
    /// Refused, not appended, to be sent again.
    Refused,
    /// Final, but an earlier batch is not.
    Answered(Landed),
}

/// A sealed batch.
struct Batch {
    number: u64,
    outcome: Arc<Outcome>,
    records: u32,
    weight: usize,
    sent_us: Option<u64>,
    header: BatchHeader,
    bytes: Arc<Chunk>,
    expected_offset: Option<u64>,
    deadline_us: u64,
    stamp: Option<(Identity, u32)>,
    state: State,
    /// It was sent on a connection that was lost before the answer.
    ambiguous: bool,
    attempts: u32,
    first_sent_us: Option<u64>,
}

/// A batch whose answer is final: the caller frees its weight and settles its outcome.
pub(crate) struct Done {
    pub(crate) number: u64,
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) records: u32,
    /// Bytes of buffer that are free now.
    pub(crate) weight: usize,
    /// Sealed size.
    pub(crate) bytes: usize,
    pub(crate) sent_us: Option<u64>,
    pub(crate) answer: Answer,
}

pub(crate) struct Lane {
    pub(crate) topic: TopicId,
    pub(crate) partition: u32,
    /// The broker does not know the partition: whether there is one is asked.
    pub(crate) missing: bool,
    pub(crate) link: usize,
    pub(crate) handle: u32,
    pub(crate) opened: Opened,
    pub(crate) flow: Flow,
    pub(crate) open: Option<OpenBatch>,
    pub(crate) identity: Option<Identity>,
    /// The identity that must not be used again.
    pub(crate) worn: Option<Identity>,
    batches: VecDeque<Batch>,
    sent: usize,
    next_number: u64,
    next_sequence: u32,
    /// The sequences that are out do not lead on from what the broker has: go on under a fresh identity.
    broken: bool,
    /// Whether the producer's lists name this lane.
    pub(crate) in_ready: bool,
    pub(crate) in_lingering: bool,
    pub(crate) timer_us: Option<u64>,
}

/// What is to be sent.
pub(crate) struct Outgoing {
    pub(crate) number: u64,
    pub(crate) bytes: Arc<Chunk>,
    pub(crate) expected_offset: Option<u64>,
}

impl Lane {
    pub(crate) fn new(topic: TopicId, partition: u32, link: usize, handle: u32) -> Self {
        Self {
            topic,
            partition,
            missing: false,
            link,
            handle,
            opened: Opened::No,
            flow: Flow::Running,
            open: None,
            identity: None,
            worn: None,
            batches: VecDeque::new(),
            sent: 0,
            next_number: 0,
            next_sequence: 0,
            broken: false,
            in_ready: false,
            in_lingering: false,
            timer_us: None,
        }
    }

    /// The number that the open batch has or will have.
    pub(crate) const fn open_number(&self) -> u64 {
        self.next_number
    }

    /// Nothing accepted is without answer.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_none() && self.batches.is_empty()
    }

    /// Whether closed batches wait to be sent.
    pub(crate) fn has_waiting(&self) -> bool {
        self.sent < self.batches.len()
    }

    /// Batches that are out.
    pub(crate) const fn in_flight(&self) -> usize {
        self.sent
    }

    /// Whether the next batch may go out although others are out. A conditional one travels alone: its condition is
    /// about what is before it, and when it fails its sequence is free for what comes after it.
    pub(crate) fn next_may_follow(&self) -> bool {
        let conditional =
            |at: usize| self.batches.get(at).is_some_and(|batch| batch.expected_offset.is_some());
        self.sent == 0 || !(conditional(self.sent - 1) || conditional(self.sent))
    }

    /// It may send again at once, if it was only waiting for a time.
    pub(crate) fn end_pause(&mut self) {
        if let Flow::Paused { .. } = self.flow {
            self.flow = Flow::Running;
        }
    }

    /// The outcomes of everything accepted and not answered.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = &Arc<Outcome>> {
        self.batches.iter().map(|batch| &batch.outcome).chain(self.open.iter().map(|open| &open.outcome))
    }

    /// When the oldest batch expires, in microseconds.
    pub(crate) fn deadline_us(&self, lifetime_us: u64) -> Option<u64> {
        let open = self.open.as_ref().map(|open| open.opened_us.saturating_add(lifetime_us));
        self.batches.front().map(|batch| batch.deadline_us).or(open)
    }

    /// Seals the open batch and puts it behind the others. Returns the builder for reuse, and the batch if it could not be
    /// sealed.
    pub(crate) fn close(
        &mut self,
        codec: Codec,
        lifetime_us: u64,
        pool: &Arc<Pool>,
    ) -> Option<(BatchBuilder, Option<Done>)> {
        let OpenBatch { mut builder, outcome, opened_us, weight, expected_offset } = self.open.take()?;
        let seal = Seal { topic: self.topic, partition: self.partition, codec, ..Seal::default() };
        let records = u32::try_from(builder.record_count()).expect("the count is limited");
        let mut bytes = pool.take(builder.estimated_bytes());
        let sealed = builder.seal(&seal, &mut bytes);
        let number = self.next_number;
        self.next_number += 1;
        let header = match sealed {
            Ok(header) => header,
            Err(error) => {
                builder.clear();
                let answer = Err(ProduceError::Seal(error));
                let done = Done { number, outcome, records, weight, bytes: 0, sent_us: None, answer };
                return Some((builder, Some(done)));
            }
        };
        self.batches.push_back(Batch {
            number,
            outcome,
            records,
            weight,
            sent_us: None,
            header,
            bytes: Arc::new(bytes),
            expected_offset,
            deadline_us: opened_us.saturating_add(lifetime_us),
            stamp: None,
            state: State::Waiting,
            ambiguous: false,
            attempts: 0,
            first_sent_us: None,
        });
        Some((builder, None))
    }

    /// The next batch to send; the caller has seen that the lane may send.
    pub(crate) fn send(&mut self, now_us: u64) -> Option<Outgoing> {
        let identity = self.identity.expect("a lane sends under a name");
        let batch = self.batches.get_mut(self.sent)?;
        if batch.stamp.is_none() {
            batch.restamp(identity, self.next_sequence, self.topic, self.partition);
            self.next_sequence = self.next_sequence.wrapping_add(batch.records);
        }
        batch.state = State::Sent;
        batch.sent_us = Some(now_us);
        batch.first_sent_us.get_or_insert(now_us);
        batch.attempts += 1;
        let (number, expected_offset) = (batch.number, batch.expected_offset);
        let outgoing = Outgoing { number, bytes: Arc::clone(&batch.bytes), expected_offset };
        self.sent += 1;
        self.step_over();
        Some(outgoing)
    }

    /// Batches whose answer is known count as out, so that what is out never exceeds what the broker can tell apart.
    fn step_over(&mut self) {
        while matches!(self.batches.get(self.sent), Some(Batch { state: State::Answered(_), .. })) {
            self.sent += 1;
        }
    }

    /// The broker has appended batch `number`. Answers to batches that expired are of no interest.
    pub(crate) fn on_produced(
        &mut self,
        number: u64,
        base_offset: u64,
        append_timestamp_us: u64,
        done: &mut Vec<Done>,
    ) {
        let partition = self.partition;
        let Some(batch) = self.out(number) else { return };
        batch.state = State::Answered(Landed { partition, base_offset, append_timestamp_us });
        self.settle_front(done);
    }

    /// The broker has refused batch `number`. `pause` gives the time to wait, in microseconds, after so many attempts.
    pub(crate) fn on_refused(
        &mut self,
        number: u64,
        refused: Refused,
        now_us: u64,
        pause: impl FnOnce(u32) -> u64,
        done: &mut Vec<Done>,
    ) {
        let Some(at) = self.position(number) else { return };
        let batch = &mut self.batches[at];
        if batch.state != State::Sent {
            return;
        }
        let mut pause_us = 0;
        let verdict = match batch.judge(&refused, now_us) {
            // Nothing is out before it, so the broker has lost what it had acknowledged, or is slow to see it.
            Verdict::Behind { gap: true } if at == 0 => Verdict::Afresh,
            Verdict::Behind { gap: false } if at == 0 => Verdict::Again,
            // The first batch was refused, so the broker has not heard of this producer yet.
            Verdict::Afresh if at > 0 => Verdict::Behind { gap: true },
            verdict => verdict,
        };
        match verdict {
            Verdict::Again => pause_us = pause(batch.attempts),
            Verdict::Behind { .. } => {}
            Verdict::Afresh => self.broken = true,
            Verdict::Never(ProduceError::OffsetMismatch { .. }) => {
                assert!(at == 0 && self.sent == 1, "a conditional batch travels alone");
                self.next_sequence = batch.stamp.map_or(0, |(_, sequence)| sequence);
            }
            Verdict::Never(_) => self.broken |= batch.is_named(),
        }
        match verdict {
            Verdict::Never(error) => self.remove(at, error, done),
            _ => self.batches[at].state = State::Refused,
        }
        let earlier = if let Flow::Draining { pause_us } = self.flow { pause_us } else { 0 };
        self.flow = Flow::Draining { pause_us: pause_us.max(earlier) };
        self.settle_front(done);
    }

    /// The connection is gone: nobody will answer what is out.
    pub(crate) fn on_lost(&mut self) {
        self.opened = Opened::No;
        // Behind a refused batch the broker takes nothing: what is known to be refused is not in doubt.
        let mut behind = self.broken;
        for batch in self.batches.iter_mut().take(self.sent) {
            behind |= batch.state == State::Refused && batch.is_named();
            if batch.state == State::Sent {
                batch.state = State::Refused;
                batch.ambiguous |= !behind;
            }
        }
        if self.sent > 0 {
            self.flow = Flow::Draining { pause_us: 0 };
        }
    }

    /// Fails what is past its deadline, and with it what was sent behind it: it could only be told from the failed ones by
    /// sequences that now have a gap.
    /// Whether one of them was out: then the connection is of no use any more.
    pub(crate) fn expire(&mut self, now_us: u64, done: &mut Vec<Done>) -> bool {
        let mut silent = false;
        while let Some(batch) = self.batches.front().filter(|batch| batch.deadline_us <= now_us) {
            if batch.stamp.is_none() {
                self.remove(0, ProduceError::Expired { maybe_appended: false }, done);
                continue;
            }
            self.broken |= batch.is_named();
            let mut at = 0;
            while let Some(batch) = self.batches.get(at) {
                silent |= batch.state == State::Sent;
                let maybe_appended = batch.state == State::Sent || batch.ambiguous;
                match batch.state {
                    State::Answered(_) => at += 1,
                    _ if maybe_appended || batch.deadline_us <= now_us => {
                        self.remove(at, ProduceError::Expired { maybe_appended }, done);
                    }
                    _ => at += 1,
                }
            }
            self.flow = Flow::Draining { pause_us: 0 };
            self.settle_front(done);
        }
        silent
    }

    /// Fails everything: the producer is closed for good.
    pub(crate) fn fail_all(&mut self, error: &ProduceError, done: &mut Vec<Done>) {
        while !self.batches.is_empty() {
            self.remove(0, error.clone(), done);
        }
    }

    /// Once all that was out is answered: puts it back in line, in order, and pauses if need be. Whether it did.
    pub(crate) fn rewind(&mut self, now_us: u64, done: &mut Vec<Done>) -> bool {
        let Flow::Draining { pause_us } = self.flow else { return false };
        if self.batches.iter().take(self.sent).any(|batch| batch.state == State::Sent) {
            return false;
        }
        self.flow = if pause_us == 0 {
            Flow::Running
        } else {
            Flow::Paused { until_us: now_us.saturating_add(pause_us) }
        };
        if self.broken {
            self.rename(done);
        }
        self.sent = 0;
        for batch in self.batches.iter_mut().filter(|batch| batch.state == State::Refused) {
            batch.state = State::Waiting;
        }
        self.step_over();
        true
    }

    /// Gives up the identity. What may have been appended under it cannot be sent under another without the risk of
    /// appending it twice.
    fn rename(&mut self, done: &mut Vec<Done>) {
        self.broken = false;
        self.worn = self.identity.take();
        self.next_sequence = 0;
        let mut at = 0;
        while let Some(batch) = self.batches.get_mut(at) {
            if batch.ambiguous && batch.stamp.is_some() && !matches!(batch.state, State::Answered(_)) {
                self.remove(at, ProduceError::Unresolved, done);
                continue;
            }
            batch.stamp = None;
            at += 1;
        }
        self.settle_front(done);
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.batches.iter().take(self.sent).position(|batch| batch.number == number)
    }

    fn out(&mut self, number: u64) -> Option<&mut Batch> {
        let at = self.position(number)?;
        Some(&mut self.batches[at]).filter(|batch| batch.state == State::Sent)
    }

    fn remove(&mut self, at: usize, error: ProduceError, done: &mut Vec<Done>) {
        let batch = self.batches.remove(at).expect("the position was just found");
        self.sent -= usize::from(at < self.sent);
        done.push(batch.done(Err(error)));
    }

    fn settle_front(&mut self, done: &mut Vec<Done>) {
        while let Some(&Batch { state: State::Answered(landed), .. }) = self.batches.front() {
            let batch = self.batches.pop_front().expect("just seen");
            self.sent = self.sent.saturating_sub(1);
            done.push(batch.done(Ok(landed)));
        }
    }

    /// All invariants; for tests.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert!(self.sent <= self.batches.len());
        for (at, batch) in self.batches.iter().enumerate() {
            match batch.state {
                State::Sent | State::Refused => {
                    assert!(at < self.sent, "only what was sent is out or refused")
                }
                State::Waiting => assert!(at >= self.sent, "what waits is behind what is out"),
                State::Answered(_) => assert!(at > 0, "an answered front is settled"),
            }
        }
        let numbers: Vec<u64> = self.batches.iter().map(|batch| batch.number).collect();
        assert!(numbers.is_sorted(), "order is kept");
        let stamps = self.batches.iter().map_while(|batch| batch.stamp.map(|stamp| (stamp, batch.records)));
        let stamps: Vec<_> = stamps.collect();
        for pair in stamps.windows(2) {
            let (((identity, sequence), records), ((next_identity, next), _)) = (pair[0], pair[1]);
            if identity == next_identity && identity != Identity::NONE {
                assert_eq!(next, sequence.wrapping_add(records), "sequences lead on");
            }
        }
    }
}

/// What a refusal means for the batch.
enum Verdict {
    /// The same again, later.
    Again,
    /// It came behind one that was refused: again after that one. `gap`: the broker waits for an earlier sequence.
    Behind { gap: bool },
    /// Not appended; again under a fresh identity.
    Afresh,
    /// Final.
    Never(ProduceError),
}

impl Batch {
    /// Whether it was sent under a name by which the broker tells repetitions apart.
    fn is_named(&self) -> bool {
        self.stamp.is_some_and(|(identity, _)| identity != Identity::NONE)
    }

    fn done(self, answer: Answer) -> Done {
        let Self { number, outcome, records, weight, sent_us, .. } = self;
        Done { number, outcome, records, weight, bytes: self.bytes.len(), sent_us, answer }
    }

    fn judge(&mut self, refused: &Refused, now_us: u64) -> Verdict {
        let sequence = self.stamp.map_or(0, |(_, sequence)| sequence);
        match refused.code {
            ErrorCode::OutOfOrderSequence => {
                // Sequences wrap; the sign of the difference tells which way the broker is off.
                let ahead = (refused.detail[0] as u32).wrapping_sub(sequence) as i32;
                if ahead > 0 {
                    return Verdict::Never(ProduceError::Unresolved);
                }
                self.ambiguous = false;
                Verdict::Behind { gap: ahead < 0 }
            }
            ErrorCode::UnknownProducerId => {
                // A broker's memory of producers says no less than its log: what it was sent lately it does not have.
                let age_us = now_us.saturating_sub(self.first_sent_us.unwrap_or(now_us));
                self.ambiguous &= age_us > REMEMBERED_US;
                Verdict::Afresh
            }
            ErrorCode::FencedProducerEpoch => Verdict::Afresh,
            ErrorCode::UnknownHandle => Verdict::Again,
            ErrorCode::UnknownTopicId | ErrorCode::UnknownTopic => Verdict::Never(ProduceError::UnknownTopic),
            ErrorCode::OffsetMismatch if self.expected_offset.is_some() => {
                let [expected, actual] = refused.detail;
                // The broker looks for a repetition first: one that it remembers by name it would have acknowledged.
                let maybe_appended = self.ambiguous && !self.is_named();
                Verdict::Never(ProduceError::OffsetMismatch { expected, actual, maybe_appended })
            }
            code if code.retryable() => Verdict::Again,
            code => {
                let maybe_appended = self.ambiguous || code == ErrorCode::ReadOnly;
                Verdict::Never(ProduceError::Refused { refused: refused.clone(), maybe_appended })
            }
        }
    }

    /// Rewrites the header; body and body CRC stay as they were sealed.
    fn restamp(&mut self, identity: Identity, sequence: u32, topic: TopicId, partition: u32) {
        self.header.producer_id = identity.id;
        self.header.producer_epoch = identity.epoch;
        self.header.base_sequence = if identity == Identity::NONE { 0 } else { sequence };
        self.stamp = Some((identity, sequence));
        if Arc::get_mut(&mut self.bytes).is_none() {
            // Still in the outbox of the connection on which it was refused.
            self.bytes = Arc::new(Chunk::copy_of(&self.bytes));
        }
        let bytes: &mut AlignedVec<16> = Arc::get_mut(&mut self.bytes).expect("just made so");
        self.header.write(bytes, topic, partition);
    }
}
