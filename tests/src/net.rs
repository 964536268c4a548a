//! SimNet: producers and consumers that pipeline, lose their connections, retry, and remember what they were told.
//!
//! Each client has one connection. What it wants next is a value; the driver offers it to the shard and brings the
//! answer back, or the news that the connection is gone.

use std::collections::VecDeque;
use std::ops::Range;

use corelog_model::batch::{AlignedVec, BatchBuilder, Codec, RecordRef, Seal};
use corelog_model::{ProducerId, Term};
use corelog_shard::{Refusal, Request, Response};

use crate::oracle::{Partition, Place, read_batch, value_of};
use crate::random::Random;

/// The handle every client uses for its one partition.
const HANDLE: u32 = 1;
/// Larger than any batch here, smaller than the log's limit.
const BATCH_BYTES: usize = 3_000;
/// Answers in a row after which a producer believes that a batch is out of order.
const GIVES_UP: u32 = 100;

/// What a producer asks of the broker besides durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No deduplication: an open outcome is not retried.
    Plain,
    /// A producer id; everything is retried until it is answered.
    Idempotent,
    /// Plain, and each batch only at the offset the client expects.
    Conditional,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Closed,
    Opening,
    /// Opened, but without a producer id yet.
    Nameless,
    Naming,
    Open,
}

#[derive(Debug)]
struct Batch {
    numbers: Range<u64>,
    first_sequence: u32,
    sealed: AlignedVec<16>,
    /// The request it is under way with.
    sent: Option<u64>,
}

/// Appends numbered records to one partition.
#[derive(Debug)]
pub struct Producer {
    /// Which partition of the world.
    pub partition: usize,
    mode: Mode,
    pipeline: usize,
    stage: Stage,
    id: ProducerId,
    next_sequence: u32,
    next_number: u64,
    expected_offset: Option<u64>,
    unacknowledged: VecDeque<Batch>,
    /// The request being offered.
    outgoing: AlignedVec<16>,
    correlation: u64,
    /// Answers in a row that an earlier batch is missing.
    out_of_order: u32,
    builder: BatchBuilder,
    /// Set when no more records are to be made.
    pub draining: bool,
}

impl Producer {
    /// A producer that has sent nothing.
    pub fn new(client: u64, partition: usize, mode: Mode, random: &mut Random) -> Self {
        let pipeline = if mode == Mode::Idempotent { random.between(1, 5) as usize } else { 1 };
        Self {
            partition,
            mode,
            pipeline,
            stage: Stage::Closed,
            id: ProducerId::NONE,
            next_sequence: 0,
            next_number: client << 32,
            expected_offset: None,
            unacknowledged: VecDeque::new(),
            outgoing: AlignedVec::new(),
            correlation: 0,
            out_of_order: 0,
            builder: BatchBuilder::new(BATCH_BYTES),
            draining: false,
        }
    }

    /// Whether every record it made is answered or given up.
    pub fn is_done(&self) -> bool {
        self.unacknowledged.is_empty()
    }

    /// What it wants now, under which correlation.
    pub fn wants(&mut self, at: &Partition, random: &mut Random) -> Option<u64> {
        let topic = at.topic?;
        match self.stage {
            Stage::Closed => self.stage = Stage::Opening,
            Stage::Nameless => self.stage = Stage::Naming,
            Stage::Opening | Stage::Naming => return None,
            Stage::Open => {
                if !self.draining && self.unacknowledged.len() < self.pipeline {
                    self.make_batch(topic, at.partition, random);
                }
                return self.fill_request(random);
            }
        }
        self.correlation += 1;
        Some(self.correlation)
    }

    /// The request of the last `wants`.
    pub fn request(&self, at: &Partition) -> Request<'_> {
        match self.stage {
            Stage::Opening => Request::Open {
                handle: HANDLE,
                topic: at.topic.expect("a producer waits for its topic"),
                partition: at.partition,
            },
            Stage::Naming => Request::ProducerId,
            _ => {
                let expected_offset = self.expected_offset.filter(|_| self.mode == Mode::Conditional);
                Request::Produce { handle: HANDLE, expected_offset, batches: &self.outgoing }
            }
        }
    }

    fn make_batch(&mut self, topic: corelog_model::TopicId, partition: u32, random: &mut Random) {
        let first = self.next_number;
        let count = random.between(1, 8);
        self.next_number += count;
        let first_sequence = self.next_sequence;
        self.next_sequence += count as u32;
        let codec = random.pick(&[Codec::None, Codec::None, Codec::Lz4]);
        let sealed = self.seal(topic, partition, first..first + count, first_sequence, codec);
        let numbers = first..first + count;
        self.unacknowledged.push_back(Batch { numbers, first_sequence, sealed, sent: None });
    }

    fn seal(
        &mut self,
        topic: corelog_model::TopicId,
        partition: u32,
        numbers: Range<u64>,
        base_sequence: u32,
        codec: Codec,
    ) -> AlignedVec<16> {
        let mut value = Vec::new();
        for number in numbers {
            value_of(number, &mut value);
            let record = RecordRef {
                key: None,
                value: Some(&value),
                timestamp_us: number & 0xffff_ffff,
                headers: &[],
            };
            self.builder.push(record).expect("eight small records fit a batch");
        }
        let producer_id = if self.mode == Mode::Idempotent { self.id } else { ProducerId::NONE };
        let seal = Seal { topic, partition, producer_id, producer_epoch: 0, base_sequence, codec };
        let mut sealed = AlignedVec::new();
        self.builder.seal(&seal, &mut sealed).expect("a batch with records seals");
        sealed
    }

    /// One request of one to three batches, the oldest that are not under way.
    fn fill_request(&mut self, random: &mut Random) -> Option<u64> {
        let unsent = self.unacknowledged.iter_mut().filter(|batch| batch.sent.is_none());
        self.outgoing.clear();
        for batch in unsent.take(random.between(1, 3) as usize) {
            batch.sent = Some(self.correlation + 1);
            self.outgoing.extend_from_slice(&batch.sealed);
        }
        if self.outgoing.is_empty() {
            return None;
        }
        self.correlation += 1;
        Some(self.correlation)
    }

    /// The answer to one request.
    pub fn answered(&mut self, correlation: u64, response: &Response, at: &mut Partition) {
        match response {
            Response::Opened { high_watermark, .. } => {
                assert!(
                    *high_watermark >= at.durable_end(),
                    "acknowledged records are missing at the end: up to {} were, {high_watermark} is visible",
                    at.durable_end()
                );
                let named = self.mode != Mode::Idempotent || self.id != ProducerId::NONE;
                self.stage = if named { Stage::Open } else { Stage::Nameless };
            }
            Response::ProducerId { id, .. } => {
                self.id = *id;
                self.stage = Stage::Open;
                self.renumber(at);
            }
            Response::Produced { base_offset, batches, .. } => {
                self.taken(correlation, *base_offset, *batches, at)
            }
            Response::Refused(refusal) => self.refused(correlation, *refusal, at),
            other => panic!("no answer to a producer: {other:?}"),
        }
    }

    fn taken(&mut self, correlation: u64, base_offset: u64, batches: u32, at: &mut Partition) {
        let mut offset = base_offset;
        self.out_of_order = 0;
        if self.mode == Mode::Conditional
            && self.expected_offset.is_some_and(|expected| expected != base_offset)
        {
            panic!("appended at {base_offset} although {:?} was expected", self.expected_offset);
        }
        for _ in 0..batches {
            let of_request = self.unacknowledged.iter().position(|batch| batch.sent == Some(correlation));
            let batch =
                self.unacknowledged.remove(of_request.expect("a batch of the request")).expect("just found");
            for number in batch.numbers {
                at.acknowledge(number, offset);
                offset += 1;
            }
        }
        self.expected_offset = Some(offset);
        self.take_back(correlation);
    }

    fn refused(&mut self, correlation: u64, refusal: Refusal, at: &Partition) {
        let first = self.unacknowledged.front().map(|batch| batch.first_sequence);
        self.take_back(correlation);
        match refusal {
            Refusal::OffsetMismatch { actual, .. } => self.expected_offset = Some(actual),
            Refusal::OutOfOrderSequence { expected, .. } if first.is_none_or(|first| first <= expected) => {
                self.out_of_order += 1;
                if self.out_of_order > GIVES_UP && at.may_have_forgotten() {
                    // What came after it is there, and it is not: nobody will ever take it.
                    self.out_of_order = 0;
                    self.unacknowledged.pop_front();
                }
            }
            Refusal::OutOfOrderSequence { .. } | Refusal::UnknownProducerId => {
                assert!(at.may_have_forgotten(), "{refusal:?}: the broker forgot an acknowledged batch");
                self.id = ProducerId::NONE;
                self.stage = Stage::Nameless;
            }
            Refusal::StorageFull | Refusal::ReadOnly | Refusal::TooMany { .. } | Refusal::NotReady => {
                match self.stage {
                    Stage::Opening => self.stage = Stage::Closed,
                    Stage::Naming => self.stage = Stage::Nameless,
                    _ => {}
                }
                // In a frame already, perhaps: without deduplication the outcome stays open.
                if self.mode != Mode::Idempotent && refusal == Refusal::ReadOnly {
                    self.unacknowledged.clear();
                }
            }
            other => panic!("a correct producer was refused: {other:?}"),
        }
    }

    /// A fresh id begins at sequence 0: everything not acknowledged is sealed anew.
    fn renumber(&mut self, at: &Partition) {
        let topic = at.topic.expect("a producer waits for its topic");
        self.next_sequence = 0;
        let mut batches = std::mem::take(&mut self.unacknowledged);
        for batch in &mut batches {
            batch.first_sequence = self.next_sequence;
            batch.sent = None;
            batch.sealed =
                self.seal(topic, at.partition, batch.numbers.clone(), batch.first_sequence, Codec::None);
            self.next_sequence += (batch.numbers.end - batch.numbers.start) as u32;
        }
        self.unacknowledged = batches;
    }

    fn take_back(&mut self, correlation: u64) {
        for batch in self.unacknowledged.iter_mut().filter(|batch| batch.sent == Some(correlation)) {
            batch.sent = None;
        }
    }

    /// The connection is gone. Idempotent producers send all again, in order; others must not.
    pub fn disconnected(&mut self) {
        self.stage = Stage::Closed;
        match self.mode {
            Mode::Idempotent => self.unacknowledged.iter_mut().for_each(|batch| batch.sent = None),
            Mode::Plain | Mode::Conditional => self.unacknowledged.retain(|batch| batch.sent.is_none()),
        }
        self.expected_offset = None;
    }
}

/// How a consumer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It asks for each answer.
    Fetches,
    /// It is pushed what there is.
    Subscribes,
}

/// What a subscription of a consumer was last asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Begin,
    Credit,
    End,
}

/// Reads one partition from its start, and remembers what it saw.
#[derive(Debug)]
pub struct Consumer {
    /// Which partition of the world.
    pub partition: usize,
    how: How,
    wish: Wish,
    /// The subscription, by its correlation, and what may still be pushed.
    stream: u64,
    credit: i64,
    /// Credit that the request under way gives.
    given: u32,
    /// Something was pushed that its connection has not taken.
    pub pushed: bool,
    stage: Stage,
    offset: u64,
    /// Names the epoch of the last answer, or that of the last batch: both must work.
    by_answer: bool,
    epoch: Option<Term>,
    waiting: bool,
    correlation: u64,
    max_bytes: u32,
    max_wait_us: u64,
    min_bytes: u32,
    /// What it has seen and was not told to forget.
    pub view: Vec<Place>,
    /// The last answer held all there was.
    pub caught_up: bool,
    /// How often the log was cut behind it.
    pub truncations: u64,
}

impl Consumer {
    /// A consumer that has read nothing.
    pub fn new(partition: usize, how: How, random: &mut Random) -> Self {
        Self {
            partition,
            how,
            wish: Wish::Begin,
            stream: 0,
            credit: 0,
            given: 0,
            pushed: false,
            stage: Stage::Closed,
            offset: 0,
            by_answer: random.chance(50),
            epoch: None,
            waiting: false,
            correlation: 0,
            max_bytes: 1,
            max_wait_us: 0,
            min_bytes: 0,
            view: Vec::new(),
            caught_up: false,
            truncations: 0,
        }
    }

    /// What it wants now, under which correlation.
    pub fn wants(&mut self, at: &Partition, random: &mut Random) -> Option<u64> {
        at.topic?;
        match self.stage {
            Stage::Closed => self.stage = Stage::Opening,
            Stage::Open if !self.waiting => {
                self.waiting = true;
                self.max_bytes = random.pick(&[1, 2_000, 20_000]);
                self.min_bytes = random.pick(&[0, 1, 1_000]);
                self.max_wait_us = random.below(3_000);
                self.given = random.pick(&[0, 1, 5_000, 50_000]);
                (self.wish, self.stream, self.credit) =
                    (Wish::Begin, self.correlation + 1, self.given.into());
            }
            Stage::Open if self.how == How::Subscribes => {
                // It is given more before it runs out, or after; now and then it is ended, or begun anew under way.
                self.wish = match () {
                    () if random.chance(3) => Wish::End,
                    () if random.chance(3) => {
                        self.waiting = false;
                        return None;
                    }
                    () if self.credit <= 0 || random.chance(10) => Wish::Credit,
                    () => return None,
                };
                self.given = random.pick(&[1, 3_000, 30_000]);
                self.credit += if self.wish == Wish::Credit { i64::from(self.given) } else { 0 };
            }
            _ => return None,
        }
        self.correlation += 1;
        Some(self.correlation)
    }

    /// The request of the last `wants`.
    pub fn request(&self, at: &Partition) -> Request<'_> {
        let Self { offset, epoch: leader_epoch, max_bytes, min_bytes, max_wait_us, given, .. } = *self;
        let handle = HANDLE;
        match (self.stage, self.how, self.wish) {
            (Stage::Opening, ..) => Request::Open {
                handle,
                topic: at.topic.expect("a consumer waits for its topic"),
                partition: at.partition,
            },
            (_, How::Subscribes, Wish::Begin) => {
                Request::Subscribe { handle, offset, leader_epoch, max_bytes, credit: given }
            }
            (_, How::Subscribes, wish) => Request::Credit { handle, bytes: given, ends: wish == Wish::End },
            _ => Request::Fetch { handle: HANDLE, offset, leader_epoch, max_bytes, min_bytes, max_wait_us },
        }
    }

    /// The answer to one request, with the bytes of its slices.
    pub fn answered(
        &mut self,
        correlation: u64,
        response: &Response,
        slices: &[Vec<u8>],
        at: &mut Partition,
    ) {
        self.pushed |= matches!(response, Response::Pushed { .. });
        match response {
            Response::Opened { .. } => {
                self.stage = Stage::Open;
                return;
            }
            Response::Credited => return,
            // Of a subscription that another took the place of.
            Response::Pushed { .. } | Response::Refused(_)
                if self.stage == Stage::Open && self.how == How::Subscribes && correlation != self.stream =>
            {
                return;
            }
            Response::Pushed { high_watermark, leader_epoch, is_last, .. } => {
                let bytes: usize = slices.iter().map(Vec::len).sum();
                assert!(
                    bytes == 0 || self.credit > 0 && !is_last,
                    "{bytes} bytes on a credit of {}",
                    self.credit
                );
                assert!(bytes <= self.max_bytes as usize || slices.len() == 1, "a push is bounded");
                self.credit -= bytes as i64;
                slices.iter().for_each(|bytes| self.see(bytes, at));
                if self.by_answer {
                    self.epoch = Some(*leader_epoch);
                }
                self.caught_up = self.offset == *high_watermark;
                if !is_last {
                    return;
                }
            }
            Response::Fetched { high_watermark, leader_epoch, .. } => {
                for bytes in slices {
                    self.see(bytes, at);
                }
                if self.by_answer {
                    self.epoch = Some(*leader_epoch);
                }
                self.caught_up = self.offset == *high_watermark;
            }
            Response::Refused(refusal) => self.refused(*refusal, at),
            other => panic!("no answer to a consumer: {other:?}"),
        }
        self.waiting = false;
    }

    fn refused(&mut self, refusal: Refusal, at: &mut Partition) {
        match refusal {
            Refusal::LogTruncated { offset } => {
                assert!(at.may_have_fallen_back(), "a durable log fell back to {offset}");
                // What others appended since, in the new term, may be durable: what it has seen may not have been.
                let behind = self.view.iter().filter(|place| place.offset >= offset);
                assert!(
                    !behind.clone().any(|place| at.is_durable(place)),
                    "durable records fell back to {offset}"
                );
                assert!(offset < self.offset, "told to go back from {} to {offset}", self.offset);
                self.view.retain(|place| place.offset < offset);
                self.offset = offset;
                self.truncations += 1;
            }
            Refusal::OffsetOutOfRange { log_start, high_watermark, .. } => {
                if self.epoch.is_none() && self.offset > high_watermark && at.may_have_fallen_back() {
                    // It has skipped damage, and what was behind that fell back: nobody can tell it where it differs.
                    self.view.retain(|place| place.offset < high_watermark);
                    self.offset = high_watermark;
                } else {
                    assert!(self.offset < log_start, "an end that falls back must name the offset");
                    self.offset = log_start;
                }
            }
            Refusal::Damaged { first, last } => {
                assert!((first..=last).contains(&self.offset), "{first} to {last} asked for {}", self.offset);
                at.name(first, last);
                self.offset = last + 1;
                // What it would go on from it has not seen.
                self.epoch = None;
            }
            Refusal::UnknownEpoch { current } => {
                // The whole term is gone that it has read in: it cannot tell what of what it has seen is left.
                assert!(at.may_have_fallen_back(), "term {current} after {:?}", self.epoch);
                self.view.clear();
                (self.offset, self.epoch) = (0, None);
            }
            Refusal::NotReady => self.stage = Stage::Closed,
            Refusal::TooMany { .. } | Refusal::ReadFailed => {}
            other => panic!("a correct consumer was refused: {other:?}"),
        }
    }

    fn see(&mut self, bytes: &[u8], at: &Partition) {
        let mut places = Vec::new();
        let topic = at.topic.expect("a consumer waits for its topic");
        let term = read_batch(bytes, topic, at.partition, &mut places);
        let last = places.last().expect("a batch holds a record").offset;
        assert!(
            places[0].offset <= self.offset && self.offset <= last,
            "asked for {}, got {places:x?}",
            self.offset
        );
        self.view.extend(places.into_iter().filter(|place| place.offset >= self.offset));
        self.offset = last + 1;
        if !self.by_answer {
            self.epoch = Some(term);
        }
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.stage = Stage::Closed;
        self.waiting = false;
        self.pushed = false;
        self.caught_up = false;
    }
}
