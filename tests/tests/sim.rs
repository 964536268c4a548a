//! The shard in a storm: whatever the disk forgets and whoever hangs up, every promise is kept.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use corelog_tests::world::{Outcome, Plan, run};

const SEEDS: u64 = 300;
const CRASHES: u32 = 10;

/// Runs one seed; a failure names it and the command that runs it again.
fn run_seed(seed: u64) -> Outcome {
    let plan = Plan { seed, crashes: CRASHES, keep_trace: false };
    catch_unwind(AssertUnwindSafe(|| run(plan))).unwrap_or_else(|cause| {
        eprintln!("seed {seed} failed: TEST_SEED={seed} cargo test -p corelog-tests --test sim replay -- --nocapture");
        std::panic::resume_unwind(cause);
    })
}

/// Acknowledged durable records are there exactly once, in order, byte for byte; the weaker levels may fall back, but
/// no reader is left believing in records that are gone.
#[test]
fn every_promise_survives_every_storm() {
    let half = |first: u64| {
        let (mut acknowledged, mut truncations, mut cold_reads) = (0, 0, 0);
        for seed in (first..SEEDS).step_by(2) {
            let outcome = run_seed(seed);
            acknowledged += outcome.acknowledged;
            truncations += outcome.truncations;
            cold_reads += outcome.cold_reads;
        }
        (acknowledged, truncations, cold_reads)
    };
    let other = thread::spawn(move || half(1));
    let (a, b) = (half(0), other.join().expect("the other half of the seeds holds"));
    // A storm in which nothing happens proves nothing.
    assert!(a.0 + b.0 > 100_000, "{} records acknowledged", a.0 + b.0);
    assert!(a.1 + b.1 > 100, "{} times a reader was told to go back", a.1 + b.1);
    assert!(a.2 + b.2 > 1_000, "{} cold reads", a.2 + b.2);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 2, 3] {
        let plan = Plan { seed, crashes: CRASHES, keep_trace: true };
        let (first, second) = (run(plan).trace, run(plan).trace);
        assert!(first.lines() > 300, "{} lines", first.lines());
        assert!(first.text() == second.text(), "seed {seed} differs from itself");
    }
}

/// Runs the seed of `TEST_SEED`, or seed 0, and prints its trace.
#[test]
fn replay() {
    let seed = std::env::var("TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let outcome = run(Plan { seed, crashes: CRASHES, keep_trace: true });
    println!("{}", outcome.trace.text().unwrap_or_default());
    assert!(outcome.acknowledged > 0);
}
