//! Whatever a loss of power leaves of a recorded run, a start makes good of it; and damage is named.
//!
//! `TEST_IMAGE=ROW.MANNER` judges one recording alone: the row of steps and the manner that a failure names.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use corelog_storage::{DurableMethod, LogConfig};
use corelog_tests::crash::bench::{Manner, STEPS, Step};
use corelog_tests::crash::damage::damage;
use corelog_tests::crash::enumerate::{Judge, Recording, record, steps_of};
use corelog_tests::crash::judge::Counts;
use corelog_tests::crash::shard;
use corelog_tests::model::Act;
use corelog_tests::random::Random;
use corelog_tests::script::small_log;

/// Rows of one and of two steps.
const SHORT: usize = STEPS.len() + STEPS.len() * STEPS.len();
/// Rows of up to three steps.
const ALL: usize = SHORT + STEPS.len() * STEPS.len() * STEPS.len();
/// Paces and methods.
const MANNERS: usize = 6;

/// Records a row and judges it; a failure says how to repeat it.
fn run(row: usize, manner: usize, what: impl FnOnce(&Recording) -> Result<(), String>) {
    let steps = steps_of(row, &STEPS);
    let result = catch_unwind(AssertUnwindSafe(|| {
        record(Manner::number(manner), &steps).and_then(|recording| what(&recording))
    }));
    let failed = match result {
        Ok(Ok(())) => return,
        Ok(Err(what)) => what,
        Err(_) => "it panics".to_owned(),
    };
    panic!(
        "TEST_IMAGE={row}.{manner} cargo test -p corelog-tests --test crash_images: {steps:?}, {:?}: {failed}",
        Manner::number(manner)
    );
}

/// Does the same on two threads, each with every second number.
fn on_two(of: usize, each: impl Fn(&mut Judge, usize) + Copy + Send + 'static) -> Counts {
    let half = move |first: usize| {
        let mut judge = Judge::new(first as u64, u64::MAX);
        (first..of).step_by(2).for_each(|number| each(&mut judge, number));
        judge.counts
    };
    let there = thread::spawn(move || half(1));
    let mut counts = half(0);
    counts += there.join().expect("its failure has been printed");
    counts
}

#[test]
fn every_loss_of_power_leaves_a_log_that_keeps_its_promises() {
    let counts = on_two(SHORT * MANNERS, |judge, number| {
        run(number / MANNERS, number % MANNERS, |recording| judge.recording(recording));
    });
    eprintln!("{counts:?}");
    assert!(counts.images >= 100_000, "{} images", counts.images);
    assert!(counts.interrupted >= 10_000, "{} starts were interrupted", counts.interrupted);
}

/// A part of the rows of three steps, each in one manner; `soak` tries all of them.
#[test]
fn longer_rows_keep_their_promises() {
    let counts = on_two((ALL - SHORT) / 12, |judge, number| {
        // 12 and 35 have no common divisor with each other: every step comes in every place.
        let row = SHORT + number * 35 % (ALL - SHORT);
        run(row, 6 + number % 30, |recording| judge.recording(recording));
    });
    eprintln!("{counts:?}");
    assert!(counts.images >= 5_000, "{} images", counts.images);
}

#[test]
fn every_subset_of_the_sectors_of_a_frame_may_survive() {
    let counts = on_two(SHORT, |judge, row| {
        for manner in [row % MANNERS, (row + 3) % MANNERS] {
            run(row, manner, |recording| judge.sectors(recording));
        }
    });
    eprintln!("{counts:?}");
    assert!(counts.images >= 10_000, "{} images", counts.images);
}

/// The power fails again and again while the log starts: behind each operation of the start, twice in a row.
#[test]
fn a_start_may_be_interrupted_anywhere() {
    let counts = on_two(STEPS.len() * MANNERS, |judge, number| {
        run(number / MANNERS, number % MANNERS, |recording| judge.interrupted(recording));
    });
    eprintln!("{counts:?}");
    assert!(counts.interrupted >= 5_000, "{} starts were interrupted", counts.interrupted);
}

/// One sector that was confirmed is inverted, zeroed, or what it was before: what was in it is named, and all else is there.
#[test]
fn damage_takes_what_it_names_and_nothing_else() {
    let counts = on_two(SHORT, |judge, row| {
        run(row, row % MANNERS, |recording| {
            damage(recording, 12, &mut Random::new(row as u64), &mut judge.counts)
        });
    });
    eprintln!("{counts:?}");
    assert!(counts.damaged >= 4_000 && counts.named >= counts.damaged / 10, "{counts:?}");
}

#[test]
fn replay() {
    let Ok(text) = std::env::var("TEST_IMAGE") else { return };
    let numbers =
        text.split_once('.').and_then(|(row, manner)| Some((row.parse().ok()?, manner.parse().ok()?)));
    let (row, manner) = numbers.unwrap_or_else(|| panic!("TEST_IMAGE is ROW.MANNER, not {text:?}"));
    let mut judge = Judge::new(0, u64::MAX);
    run(row, manner, |recording| judge.recording(recording));
    run(row, manner, |recording| judge.sectors(recording));
    run(row, manner, |recording| damage(recording, 100, &mut Random::new(0), &mut judge.counts));
    eprintln!("{:?}", judge.counts);
}

/// A row of steps stands for what it says.
#[test]
fn rows_are_all_there_is() {
    assert_eq!(steps_of(0, &STEPS), [Step::Small]);
    assert_eq!(steps_of(STEPS.len(), &STEPS), [Step::Small, Step::Small]);
    assert_eq!(steps_of(SHORT - 1, &STEPS), [Step::Restart, Step::Restart]);
    assert_eq!(steps_of(ALL - 1, &STEPS).len(), 3);
}

/// A shard on the images of recorded requests: topics, retries and positions are as before the request under way or as after
/// it.
#[test]
fn a_shard_finds_everything_that_it_has_answered() {
    let counts = on_two(60, |judge, number| {
        let mut random = Random::new(number as u64);
        let first = [Act::Create { topic: 0, partitions: 2, level: 0 }, Act::Producer];
        let acts: Vec<_> = first.into_iter().chain((0..12).map(|_| Act::any(&mut random))).collect();
        let method = [DurableMethod::Dsync, DurableMethod::Fdatasync][number % 2];
        let checkpoint_bytes = [12 << 10, 100 << 10][number / 2 % 2];
        let config = LogConfig { durable_method: method, checkpoint_bytes, ..small_log() };
        let result = shard::record(&config, number as u64, &acts)
            .and_then(|row| shard::judge(&row, &mut random, &mut judge.counts));
        if let Err(what) = result {
            panic!("row {number} of requests, {acts:?}: {what}");
        }
    });
    eprintln!("{counts:?}");
    assert!(counts.images >= 5_000, "{} images", counts.images);
}
