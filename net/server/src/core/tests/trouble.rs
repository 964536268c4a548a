//! The core on a disk that fails, ends short, or is told to stop: what was acknowledged is there, the rest is refused by
//! its name, and nothing waits for ever.

use std::collections::BTreeMap;

use corelog_model::batch::{BatchHeader, BatchView};

use super::*;

/// After this much time what could not be made is tried again.
const RETRY_US: u64 = 1_000_001;
const REQUESTS: u64 = 100;

/// Small extents, so that many are made; zeros ahead, so that there is work in the background all the time.
fn busy_log() -> LogConfig {
    LogConfig {
        extent_bytes: 320 << 10,
        checkpoint_bytes: 200 << 10,
        zero_ahead_bytes: 128 << 10,
        preparation: corelog_storage::Preparation::ZeroAhead,
        ..log_config()
    }
}

fn on_busy_log(seed: u64) -> Bed {
    let now = Now { mono_us: 1, wall_us: 1_700_000_000_000_000 };
    Bed::start(Fake::new(seed), now, bounds(), busy_log())
}

/// The records of an answer: offsets and values.
fn records(batches: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut aligned = AlignedVec::<16>::new();
    aligned.extend_from_slice(batches);
    let (mut rest, mut found) = (&aligned[..], Vec::new());
    while !rest.is_empty() {
        let header = BatchHeader::parse(rest).expect("a batch");
        assert!(header.verify_body(rest), "the body is what the producer sealed");
        let mut scratch = AlignedVec::new();
        let view = BatchView::open(rest, &mut scratch).expect("a batch");
        let values = view.records().map(|record| (record.offset, record.value.expect("a value").to_vec()));
        found.extend(values);
        rest = &rest[header.padded_bytes()..];
    }
    found
}

/// A value that no other request has.
fn value(correlation: u64, bytes: usize) -> Vec<u8> {
    let mut value = correlation.to_le_bytes().to_vec();
    value.resize(bytes, correlation as u8);
    value
}

impl Bed {
    fn is_read_only(&self) -> bool {
        self.core.shards().next().expect("one").status().storage.read_only
    }

    /// The process dies and another one starts on what the disk has.
    fn die(self) -> Self {
        let Self { fake, now, .. } = self;
        Self::start(fake, now, bounds(), busy_log())
    }

    /// All records from the start to the high watermark, as a new peer reads them; reads that failed. A disk that answered
    /// nothing answers most reads from the first such failure on.
    fn read_all(&mut self, topic: TopicId) -> (BTreeMap<u64, Vec<u8>>, usize) {
        let peer = self.peer();
        self.open(peer, topic);
        let (mut found, mut failed) = (BTreeMap::new(), 0);
        loop {
            let next = found.last_key_value().map_or(0, |(offset, _)| offset + 1);
            self.fetch(peer, next, next, 0);
            self.settle();
            let mut answers = self.answers(peer);
            // What the disk has refused is read again, in pieces and after a while.
            for _ in 0..100 {
                if answers.is_empty() {
                    self.pass(RETRY_US / 10);
                    self.settle();
                    answers = self.answers(peer);
                }
            }
            match &answers[..] {
                [(_, Answer::Fetched(batches))] if batches.is_empty() => return (found, failed),
                [(_, Answer::Fetched(batches))] => found.extend(records(batches)),
                [(_, Answer::Error(ErrorCode::ReadFailed))] => {
                    failed += 1;
                    assert!(failed < 1_000, "no read succeeds");
                    self.fake.read_errors = self.fake.read_errors.max(3);
                    self.pass(RETRY_US);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What came of a storm.
#[derive(Default)]
struct Outcome {
    acknowledged: BTreeMap<u64, Vec<u8>>,
    full: usize,
    read_only: usize,
}

/// Produces while operations fail; each request is answered once, and refused for a reason that is there.
fn storm(bed: &mut Bed, producer: usize, topic: TopicId, seed: u64) -> Outcome {
    let (mut outcome, mut values) = (Outcome::default(), BTreeMap::new());
    for correlation in 0..REQUESTS {
        let value = value(correlation, 20 + bed.fake.random(25_000));
        bed.produce(producer, correlation, topic, &value);
        values.insert(correlation, value);
        match bed.fake.random(8) {
            0 => bed.pass(RETRY_US),
            1..4 => bed.settle(),
            _ => drop(bed.step()),
        }
        let read_only = bed.is_read_only();
        for (correlation, answer) in bed.answers(producer) {
            outcome.take(values.remove(&correlation).expect("answered once"), answer, read_only, seed);
        }
    }
    // What waits for an extent that could not be made hears of it in time.
    (0..4).for_each(|_| bed.pass(RETRY_US));
    let read_only = bed.is_read_only();
    for (correlation, answer) in bed.answers(producer) {
        outcome.take(values.remove(&correlation).expect("answered once"), answer, read_only, seed);
    }
    assert!(values.is_empty(), "seed {seed}: {} requests wait for ever", values.len());
    outcome
}

impl Outcome {
    fn take(&mut self, value: Vec<u8>, answer: Answer, read_only: bool, seed: u64) {
        match answer {
            Answer::Produced(offset) => {
                let before = self.acknowledged.insert(offset, value);
                assert_eq!(before, None, "seed {seed}: offset {offset} was given twice");
            }
            Answer::Error(ErrorCode::ReadOnly) => {
                assert!(read_only, "seed {seed}: the log takes writes");
                self.read_only += 1;
            }
            Answer::Error(ErrorCode::StorageFull) => self.full += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }

    fn assert_kept(&self, found: &BTreeMap<u64, Vec<u8>>, seed: u64) {
        for (offset, value) in &self.acknowledged {
            assert!(found.get(offset) == Some(value), "seed {seed}: acknowledged offset {offset} is lost");
        }
    }
}

#[test]
fn a_disk_that_fails_loses_nothing_that_was_acknowledged() {
    let (mut healed, mut read_only, mut full, mut failed_reads) = (0, 0, 0, 0);
    for seed in 0..240 {
        let mut bed = on_busy_log(seed);
        let (producer, topic) = bed.producer(Durability::Durable);
        bed.fake.write_errors = [0, 200, 60, 15][seed as usize % 4];
        bed.fake.background_errors = [3, 0, 20][seed as usize % 3];
        let outcome = storm(&mut bed, producer, topic, seed);
        let failures = bed.fake.failures;
        (bed.fake.write_errors, bed.fake.background_errors) = (0, 0);
        bed.pass(RETRY_US);
        bed.pass(RETRY_US);

        // What comes after the storm: a log that failed twice in a row stays as it is, any other takes records again.
        bed.produce(producer, 1_000, topic, b"after it");
        bed.settle();
        let after = bed.answers(producer);
        if bed.is_read_only() {
            assert_eq!(after, [(1_000, Answer::Error(ErrorCode::ReadOnly))], "seed {seed}");
            read_only += 1;
        } else {
            assert!(matches!(after[..], [(1_000, Answer::Produced(_))]), "seed {seed}: {after:?}");
            assert_eq!(outcome.read_only, 0, "seed {seed}");
            healed += usize::from(failures > 0);
        }
        full += outcome.full;
        outcome.assert_kept(&bed.read_all(topic).0, seed);

        let mut bed = bed.die();
        // One of three reads fails, or each one for a while.
        bed.fake.read_errors = [3, 1][seed as usize % 2];
        let (found, failed) = bed.read_all(topic);
        outcome.assert_kept(&found, seed);
        let storage = bed.core.shards().next().expect("one").status().storage;
        assert_eq!((storage.damaged_ranges, storage.lost_sectors), (0, 0), "seed {seed}: it passed");
        failed_reads += failed;
    }
    println!("{healed} healed, {read_only} read-only, {full} times full, {failed_reads} failed reads");
    assert!(healed > 50 && read_only > 20, "{healed} logs went on, {read_only} became read-only");
    assert!(full > 100, "{full} requests found no extent");
    assert!(failed_reads > 60, "{failed_reads} reads failed");
}

/// What the broker has taken when it is told to stop is written and acknowledged, what it has not is refused: no third.
#[test]
fn a_stop_writes_what_was_appended_and_answers_what_was_asked() {
    let (mut written, mut refused) = (0, 0);
    for seed in 0..60 {
        let mut bed = on_busy_log(seed);
        let (producer, topic) = bed.producer(Durability::Durable);
        let value = value(1, 5_000);
        bed.produce(producer, 1, topic, &value);
        for _ in 0..bed.fake.random(24) {
            bed.step();
        }
        let taken = bed.core.shards().next().expect("one").status().counters.batches;
        bed.core.stop(&mut bed.out);
        bed.settle();
        assert!(bed.core.is_settled() && bed.core.is_flushed(), "seed {seed}");
        let late = bed.fake.connect();
        bed.settle();
        assert!(
            !bed.fake.sockets[late].closed && bed.answers(late).is_empty(),
            "nobody is accepted any more"
        );
        let (answer, kept) = match taken {
            0 => (Answer::Error(ErrorCode::ShuttingDown), BTreeMap::new()),
            _ => (Answer::Produced(0), BTreeMap::from([(0, value)])),
        };
        assert_eq!(bed.answers(producer), [(1, answer)], "seed {seed}");
        (written, refused) = (written + taken, refused + 1 - taken);
        assert_eq!(bed.die().read_all(topic).0, kept, "seed {seed}: on the disk");
    }
    assert!(written > 10 && refused > 10, "{written} were taken, {refused} refused");
}

/// A peer has sent a large request and sends no more, or is given up for its slowness; it does not take its answer either.
/// What its request was received into is another's meanwhile, for however long that lasts.
#[test]
fn a_peer_from_which_nothing_is_read_any_more_keeps_no_receive_block() {
    for (seed, slow) in (0..20).map(|seed| (seed, seed % 2 == 0)) {
        let mut bed = Bed::with(seed, Bounds { stalled_us: 0, ..bounds() });
        let (silent, topic) = bed.producer(Durability::Memory);
        let other = bed.peer();
        bed.open(other, topic);
        bed.produce(silent, 10, topic, &[1; 30_000]);
        bed.settle();
        assert_eq!(bed.answers(silent), [(10, Answer::Produced(0))]);
        bed.fake.sockets[silent].window = 10;
        bed.fetch(silent, 11, 0, 0);
        bed.settle();
        if slow {
            // The half of a request comes, and then its block is needed.
            let half = encoded(
                12,
                &Request::Produce { handle: 1, expected_offset: None, batches: &batch(topic, &[1; 30_000]) },
            );
            bed.fake.sockets[silent].incoming.extend(&half[..20_000]);
            bed.settle();
            bed.core.drain(0);
        } else {
            bed.fake.sockets[silent].ended = true;
        }
        bed.settle();
        bed.produce(other, 20, topic, &[2; 30_000]);
        bed.settle();
        assert_eq!(bed.answers(other), [(20, Answer::Produced(1))], "seed {seed}");
        assert!(!bed.fake.sockets[silent].closed, "seed {seed}: it may still take its answer");
    }
}
