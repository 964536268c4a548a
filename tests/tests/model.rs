//! Rows of requests, held against a reference that is a few lists: every answer, and all that is there in the end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use corelog_storage::{DurableMethod, LogConfig};
use corelog_tests::model::{Act, Seen, Spot, run, shrink};
use corelog_tests::random::Random;
use corelog_tests::script::small_log;

const SEEDS: u64 = 2_000;

fn config(seed: u64) -> LogConfig {
    let durable_method = [DurableMethod::Dsync, DurableMethod::Fdatasync][(seed % 2) as usize];
    let checkpoint_bytes = [4 << 10, 20 << 10, 100 << 10][(seed % 3) as usize];
    LogConfig { durable_method, checkpoint_bytes, frames_in_flight: 1 + (seed % 4) as u8, ..small_log() }
}

fn acts(seed: u64) -> Vec<Act> {
    let mut random = Random::new(seed);
    let length = random.pick(&[10, 30, 60]);
    // The first of them makes something to work with.
    let first = Act::Create { topic: 0, partitions: 2, level: (seed % 4) as u8 };
    [first, Act::Producer].into_iter().chain((0..length).map(|_| Act::any(&mut random))).collect()
}

/// What goes wrong, if anything does; a panic is something.
fn try_row(seed: u64, acts: &[Act]) -> Result<Seen, String> {
    match catch_unwind(AssertUnwindSafe(|| run(&config(seed), seed, acts).map(|pair| pair.seen))) {
        Ok(result) => result.map_err(|(at, what)| format!("act {at}: {what}")),
        Err(_) => Err("it panics".to_owned()),
    }
}

fn run_seed(seed: u64, seen: &mut Seen) {
    let acts = acts(seed);
    match try_row(seed, &acts) {
        Ok(more) => *seen += more,
        Err(what) => {
            let fewer = shrink(acts, |acts| try_row(seed, acts).is_err());
            panic!("seed {seed}: {what}\nalso with {fewer:?}: {:?}", try_row(seed, &fewer));
        }
    }
}

#[test]
fn every_answer_is_that_of_the_reference() {
    let half = |first: u64| {
        let mut seen = Seen::default();
        (first..SEEDS).step_by(2).for_each(|seed| run_seed(seed, &mut seen));
        seen
    };
    let there = thread::spawn(move || half(1));
    let mut seen = half(0);
    seen += there.join().expect("its failure has been printed");
    eprintln!("{SEEDS} rows: {seen:?}");
    let Seen { batches, retries, refusals, starts, fallen_back } = seen;
    assert!(batches >= 8_000 && starts >= 4_000, "{seen:?}");
    assert!(retries >= 250 && refusals >= 1_000 && fallen_back >= 100, "{seen:?}");
}

/// The reference notices what it is there for: a row that fails is told with what is needed for it, and no more.
#[test]
fn a_row_that_fails_is_made_short() {
    let at = Spot { topic: 0, partition: 0 };
    let wrong = |acts: &[Act]| {
        let batches = acts.iter().filter(|act| matches!(act, Act::Plain { .. })).count();
        batches >= 2 && acts.contains(&Act::PowerLoss)
    };
    let mut row = acts(3);
    row.extend([Act::Plain { at, records: 1 }, Act::PowerLoss, Act::Plain { at, records: 2 }]);
    assert_eq!(shrink(row, wrong).len(), 3);
}
