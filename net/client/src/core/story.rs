//! Stories of the producer's core, told step by step: what is pushed, what may leave, what is answered.

use std::sync::Arc;
use std::time::Duration;

use corelog_model::batch::{BatchHeader, RecordRef};
use corelog_model::limits::MAX_BATCH_BYTES_DEFAULT;
use corelog_model::{ProducerId, TopicId};
use corelog_wire::ErrorCode;

use crate::config::{Backoff, Linger, ProducerConfig};
use crate::core::effects::Effects;
use crate::core::lane::Identity;
use crate::core::outcome::Outcome;
use crate::core::producer::{Ask, Producer};
use crate::error::{ProduceError, Refused, TrySendError};

const TOPIC: TopicId = TopicId(7);
const PATIENCE_US: u64 = 30_000_000;

/// A producer, the connection's side of it played by the test, and a clock that the test turns.
struct Stage {
    core: Producer,
    effects: Effects,
    now_us: u64,
    identities: u64,
    outcomes: Vec<Arc<Outcome>>,
}

/// A produce request that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    lane: usize,
    number: u64,
    records: u32,
    sequence: u32,
    id: u64,
    expected_offset: Option<u64>,
}

impl Stage {
    fn new(lanes: usize, config: ProducerConfig) -> Self {
        let backoff = Backoff { first: Duration::from_millis(10), most: Duration::from_millis(10) };
        let mut core =
            Producer::new(config.bounded(MAX_BATCH_BYTES_DEFAULT), backoff, PATIENCE_US, u64::MAX, 1);
        assert_eq!(core.add_link(), 0);
        core.add_topic(TOPIC, &vec![0; lanes]);
        let mut stage =
            Self { core, effects: Effects::default(), now_us: 0, identities: 0, outcomes: Vec::new() };
        stage.connect();
        stage
    }

    fn connect(&mut self) {
        self.core.on_connected(0, self.now_us, &mut self.effects);
    }

    fn lose(&mut self) {
        self.core.on_lost(0, self.now_us, &mut self.effects);
    }

    fn push(&mut self, lane: usize, bytes: usize) {
        let value = vec![0; bytes];
        let record = RecordRef { value: Some(&value), ..RecordRef::default() };
        let now_us = self.now_us;
        let taken = self.core.push(lane, record, || now_us, &mut self.effects).unwrap();
        let outcome = Arc::clone(taken.outcome);
        self.outcomes.push(outcome);
    }

    fn push_at(&mut self, expected_offset: u64, records: usize) {
        let records = vec![RecordRef { value: Some(&[0; 10]), ..RecordRef::default() }; records];
        let taken = self.core.push_at(0, expected_offset, &records, self.now_us, &mut self.effects);
        self.outcomes.push(taken.unwrap());
    }

    /// What leaves now. Opens and identities are granted at once.
    fn leaves(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        loop {
            let mut asks = Vec::new();
            self.core.poll(0, self.now_us, 64 << 20, &mut asks, &mut self.effects);
            self.core.check();
            if asks.is_empty() {
                self.effects.perform();
                return sent;
            }
            for ask in asks {
                match ask {
                    Ask::ProducerId => {
                        self.identities += 1;
                        self.core.on_identity(0, Identity { id: ProducerId(self.identities), epoch: 0 });
                    }
                    Ask::Open { lane, .. } => self.core.on_opened(lane),
                    Ask::Locate { .. } => unreachable!("every partition is where it was thought to be"),
                    Ask::Produce { lane, number, bytes, expected_offset, .. } => {
                        let header = BatchHeader::parse(&bytes).unwrap();
                        assert!(BatchHeader::verify_header(&bytes, TOPIC, lane as u32));
                        assert!(header.verify_body(&bytes));
                        let (records, sequence, id) =
                            (header.record_count, header.base_sequence, header.producer_id.0);
                        sent.push(Sent { lane, number, records, sequence, id, expected_offset });
                    }
                }
            }
        }
    }

    fn appended(&mut self, sent: Sent) {
        self.core.on_produced(sent.lane, sent.number, 0, 0, self.now_us, &mut self.effects);
        self.core.check();
    }

    fn refused(&mut self, sent: Sent, code: ErrorCode, detail: u64) {
        self.refused_with(sent, code, [detail, 0]);
    }

    fn refused_with(&mut self, sent: Sent, code: ErrorCode, detail: [u64; 2]) {
        let refused = Refused { code, message: "".into(), detail };
        self.core.on_refused(sent.lane, sent.number, refused, 0, self.now_us, &mut self.effects);
        self.core.check();
    }

    /// Nothing is held for anybody.
    fn ends_empty(mut self) -> Vec<Result<(), ProduceError>> {
        self.effects.perform();
        assert!(self.core.is_idle());
        assert_eq!(self.core.buffered(), 0);
        drop(self.core);
        let answer = |outcome: &Arc<Outcome>| outcome.get().expect("settled").clone().map(drop);
        let answers = self.outcomes.iter().map(answer).collect();
        // Each batch's outcome is held by its own receipts only: here one per record.
        for outcome in &self.outcomes {
            let receipts = self.outcomes.iter().filter(|other| Arc::ptr_eq(outcome, other)).count();
            assert_eq!(Arc::strong_count(outcome), receipts, "nobody else holds on");
        }
        answers
    }
}

fn small_batches() -> ProducerConfig {
    ProducerConfig { batch_bytes: 1024, ..ProducerConfig::default() }
}

/// Unacknowledged requests on the link, what is pushed, what leaves.
#[test]
fn adaptive_linger_sends_at_once_when_idle_and_fills_batches_when_not() {
    let mut stage = Stage::new(1, small_batches());
    let mut out = Vec::new();
    let table: [(&str, usize, &[u32]); 5] = [
        ("idle: at once", 1, &[1]),
        ("one unacknowledged: at once", 1, &[1]),
        ("two: fill", 1, &[]),
        ("two: go on filling", 3, &[]),
        ("a full batch leaves whatever is out", 3, &[6]),
    ];
    for (story, records, batches) in table {
        (0..records).for_each(|_| stage.push(0, 120));
        let sent = stage.leaves();
        assert_eq!(sent.iter().map(|sent| sent.records).collect::<Vec<_>>(), batches, "{story}");
        out.extend(sent);
    }
    stage.appended(out[0]);
    assert_eq!(stage.leaves(), [], "still two unacknowledged");
    stage.appended(out[1]);
    let sent = stage.leaves();
    assert_eq!(
        (sent.len(), sent[0].records),
        (1, 1),
        "a reply brings the link below two: what was filled leaves"
    );
    assert_eq!(sent[0].sequence, 8, "sequences count records");
    out.extend(sent);
    stage.appended(out[2]);
    stage.appended(out[3]);
    assert_eq!(stage.ends_empty().len(), 9);
}

#[test]
fn an_idle_link_takes_the_open_batches_of_all_partitions_together() {
    let mut stage = Stage::new(50, small_batches());
    (0..50).for_each(|lane| stage.push(lane, 10));
    let sent = stage.leaves();
    assert_eq!(sent.len(), 50);
    (0..50).for_each(|lane| stage.push(lane, 10));
    assert_eq!(stage.leaves(), [], "50 are unacknowledged");
    sent[..49].iter().for_each(|&sent| stage.appended(sent));
    assert_eq!(stage.leaves().len(), 50);
}

#[test]
fn a_fixed_linger_waits_for_its_time_and_names_it() {
    let mut stage = Stage::new(1, ProducerConfig { linger: Linger::Fixed(5000), ..small_batches() });
    stage.push(0, 10);
    assert_eq!(stage.leaves(), []);
    assert_eq!(stage.core.next_deadline(0), Some(5000));
    stage.now_us = 4999;
    stage.push(0, 10);
    assert_eq!(stage.leaves(), []);
    stage.now_us = 5000;
    assert_eq!(stage.leaves()[0].records, 2);
}

#[test]
fn no_more_is_out_than_a_broker_can_tell_apart() {
    let mut stage = Stage::new(1, small_batches());
    (0..70).for_each(|_| stage.push(0, 120));
    let sent = stage.leaves();
    assert_eq!(sent.len(), 5);
    // The first is in doubt, the four behind it are appended: still five to tell apart, so nothing follows.
    sent[1..].iter().for_each(|&sent| stage.appended(sent));
    stage.lose();
    stage.connect();
    assert_eq!(stage.leaves(), [sent[0]], "the same number, sequence and identity");
    stage.appended(sent[0]);
    assert_eq!(stage.leaves().len(), 5);
}

#[test]
fn after_a_refusal_the_pipeline_stops_and_is_resent_in_order() {
    let mut stage = Stage::new(1, small_batches());
    (0..35).for_each(|_| stage.push(0, 120));
    let sent = stage.leaves();
    assert_eq!(sent.len(), 5);
    stage.refused(sent[0], ErrorCode::StorageFull, 0);
    for &behind in &sent[1..4] {
        stage.refused(behind, ErrorCode::OutOfOrderSequence, 0);
        assert_eq!(stage.leaves(), [], "nothing leaves before all that is out is answered");
    }
    stage.refused(sent[4], ErrorCode::OutOfOrderSequence, 0);
    assert_eq!(stage.leaves(), [], "and not before the pause is over");
    let pause = stage.core.next_deadline(0).unwrap();
    assert!((8_000..=12_000).contains(&pause), "{pause} us with jitter");
    stage.now_us = pause;
    assert_eq!(stage.leaves(), sent, "in order, under the same sequences");
}

#[test]
fn after_a_lost_connection_everything_out_is_resent_under_the_same_sequences() {
    let mut stage = Stage::new(2, small_batches());
    (0..20).for_each(|n| stage.push(n % 2, 300));
    let mut sent = stage.leaves();
    stage.lose();
    assert_eq!(stage.leaves(), []);
    stage.connect();
    let mut again = stage.leaves();
    sent.sort_by_key(|sent| (sent.lane, sent.number));
    again.sort_by_key(|sent| (sent.lane, sent.number));
    assert_eq!(again, sent);
    assert_eq!(stage.identities, 1);
}

/// The records behind a batch that is refused for good go out under a fresh identity: their sequences had a gap.
#[test]
fn a_batch_refused_for_good_does_not_take_the_others_along() {
    let mut stage = Stage::new(1, small_batches());
    (0..21).for_each(|_| stage.push(0, 120));
    let sent = stage.leaves();
    stage.refused(sent[0], ErrorCode::CorruptBatch, 0);
    for &behind in &sent[1..] {
        stage.refused(behind, ErrorCode::OutOfOrderSequence, 0);
    }
    let again = stage.leaves();
    assert_eq!(
        again.iter().map(|sent| sent.number).collect::<Vec<_>>(),
        sent[1..].iter().map(|sent| sent.number).collect::<Vec<_>>()
    );
    assert_eq!((again[0].sequence, again[0].id), (0, 2));
    again.iter().for_each(|&sent| stage.appended(sent));
    let rest = stage.leaves();
    rest.iter().for_each(|&sent| stage.appended(sent));
    let failed = stage.ends_empty().into_iter().filter(Result::is_err).count();
    assert_eq!(failed as u32, sent[0].records);
}

/// The broker is past the sequence and does not remember the batch: it may be there; sending it again could double it.
#[test]
fn what_cannot_be_told_is_reported_and_not_repeated() {
    let mut stage = Stage::new(1, small_batches());
    stage.push(0, 10);
    let first = stage.leaves()[0];
    stage.lose();
    stage.connect();
    assert_eq!(stage.leaves(), [first]);
    stage.refused(first, ErrorCode::OutOfOrderSequence, 100);
    assert_eq!(stage.leaves(), []);
    stage.push(0, 10);
    let next = stage.leaves()[0];
    assert_eq!((next.sequence, next.id), (0, 2), "the lane goes on under a fresh identity");
    stage.appended(next);
    assert_eq!(stage.ends_empty(), [Err(ProduceError::Unresolved), Ok(())]);
}

#[test]
fn the_deadline_frees_the_buffer_and_the_connection_that_was_silent_is_given_up() {
    let mut stage = Stage::new(1, ProducerConfig { deadline: Duration::from_secs(1), ..small_batches() });
    stage.push(0, 10);
    assert_eq!(stage.leaves().len(), 1);
    stage.now_us = 999_999;
    stage.push(0, 10);
    assert_eq!(stage.leaves().len(), 1);
    assert_eq!(stage.core.next_deadline(0), Some(1_000_000));
    stage.now_us = 1_000_000;
    assert_eq!(stage.leaves(), []);
    assert!(stage.core.is_stuck(0));
    let doubt = Err(ProduceError::Expired { maybe_appended: true });
    assert_eq!(stage.ends_empty(), [doubt.clone(), doubt], "what was sent behind it shares its fate");
}

#[test]
fn a_peer_that_answers_nothing_loses_its_connection() {
    let mut stage = Stage::new(1, small_batches());
    stage.push(0, 10);
    let sent = stage.leaves();
    stage.now_us = PATIENCE_US;
    assert_eq!(stage.leaves(), []);
    assert!(stage.core.is_stuck(0));
    stage.lose();
    stage.connect();
    assert_eq!(stage.leaves(), sent);
    assert!(!stage.core.is_stuck(0));
}

/// Its condition is about what is before it, and what comes after it would take its sequence if it failed.
#[test]
fn a_conditional_batch_travels_alone_and_gives_its_sequence_back() {
    let mut stage = Stage::new(1, small_batches());
    stage.push(0, 10);
    stage.push_at(1, 3);
    stage.push(0, 10);
    let first = stage.leaves();
    assert_eq!((first.len(), first[0].expected_offset), (1, None), "what was accepted before it goes first");
    stage.appended(first[0]);
    let lost = stage.leaves();
    assert_eq!((lost.len(), lost[0].expected_offset, lost[0].records), (1, Some(1), 3), "whole, and alone");
    assert_eq!(lost[0].sequence, 1);
    stage.refused_with(lost[0], ErrorCode::OffsetMismatch, [1, 9]);
    let behind = stage.leaves();
    assert_eq!((behind.len(), behind[0].expected_offset), (1, None));
    assert_eq!((behind[0].sequence, behind[0].id), (1, first[0].id), "no gap, so no fresh identity");
    stage.appended(behind[0]);
    let answers = stage.ends_empty();
    let mismatch = ProduceError::OffsetMismatch { expected: 1, actual: 9, maybe_appended: false };
    assert_eq!(answers, [Ok(()), Err(mismatch), Ok(())]);
}

#[test]
fn a_conditional_batch_in_doubt_is_sent_again_under_its_name_and_without_one_stays_in_doubt() {
    for idempotent in [true, false] {
        let mut stage = Stage::new(1, ProducerConfig { idempotent, ..small_batches() });
        stage.push_at(0, 1);
        let sent = stage.leaves();
        stage.lose();
        stage.connect();
        assert_eq!(stage.leaves(), sent);
        stage.refused_with(sent[0], ErrorCode::OffsetMismatch, [0, 1]);
        let maybe_appended = !idempotent;
        let mismatch = ProduceError::OffsetMismatch { expected: 0, actual: 1, maybe_appended };
        assert_eq!(stage.ends_empty(), [Err(mismatch)]);
    }
}

/// A broker that says so of a batch without a condition is wrong, and gets no further than that batch.
#[test]
fn a_mismatch_that_nobody_asked_for_is_a_refusal() {
    let mut stage = Stage::new(1, small_batches());
    stage.push(0, 10);
    let sent = stage.leaves();
    stage.refused_with(sent[0], ErrorCode::OffsetMismatch, [0, 1]);
    assert!(matches!(stage.ends_empty()[..], [Err(ProduceError::Refused { .. })]));
}

#[test]
fn records_that_do_not_fit_one_batch_are_not_taken_and_leave_nothing_behind() {
    let mut stage = Stage::new(1, small_batches());
    let records = [RecordRef { value: Some(&[0; 400]), ..RecordRef::default() }; 3];
    let taken = stage.core.push_at(0, 0, &records, 0, &mut stage.effects);
    assert_eq!(taken.err(), Some(TrySendError::RecordTooLarge));
    assert_eq!(stage.leaves(), []);
    stage.push(0, 10);
    let sent = stage.leaves();
    assert_eq!((sent[0].records, sent[0].expected_offset), (1, None));
    stage.appended(sent[0]);
    assert_eq!(stage.ends_empty(), [Ok(())]);
}
