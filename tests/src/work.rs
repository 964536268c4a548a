//! Pieces of work by number: each has an outcome that its number alone decides.
//!
//! A line on standard output for each that is done, with what was counted: `done NUMBER name=value ...`.

use std::io::{self, Write};
use std::ops::Range;

use clap::ValueEnum;
use corelog_storage::{DurableMethod, LogConfig};
use corelog_tests::crash::bench::{Manner, STEPS};
use corelog_tests::crash::damage::damage;
use corelog_tests::crash::enumerate::{Judge, record, steps_of};
use corelog_tests::crash::shard;
use corelog_tests::model::{self, Act};
use corelog_tests::random::Random;
use corelog_tests::script::small_log;
use corelog_tests::world::{self, End, Plan};

/// Rows of up to three steps, and manners in which each may be led.
const ROWS: u64 = 12 + 144 + 1_728;
const MANNERS: u64 = 30;
/// Every so many recordings the medium is damaged, and every so many all sectors of a frame are tried.
const DAMAGE_EVERY: u64 = 4;
const SECTORS_EVERY: u64 = 16;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A storm of the simulator.
    Storm,
    /// The images of one recorded row of operations.
    Image,
    /// A row of requests against the reference, and its images.
    Request,
}

impl Kind {
    /// As the command line has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Storm => "storm",
            Self::Image => "image",
            Self::Request => "request",
        }
    }

    /// The kind of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Storm, Self::Image, Self::Request].into_iter().find(|kind| kind.name() == name)
    }
}

/// What was counted, by name.
type Counts = Vec<(&'static str, u64)>;

/// Does all of it; whether every promise was kept.
pub(crate) fn run(kind: Kind, numbers: Range<u64>) -> io::Result<bool> {
    for number in numbers {
        let done = match kind {
            Kind::Storm => Ok(storm(number)),
            Kind::Image => image(number),
            Kind::Request => request(number),
        };
        let counts = match done {
            Ok(counts) => counts,
            Err(what) => {
                eprintln!("{} {number}: {what}", kind.name());
                return Ok(false);
            }
        };
        let mut out = io::stdout().lock();
        write!(out, "done {number}")?;
        for (name, value) in counts {
            write!(out, " {name}={value}")?;
        }
        writeln!(out)?;
        out.flush()?;
    }
    Ok(true)
}

fn storm(seed: u64) -> Counts {
    let plan = Plan::storm(seed);
    let outcome = world::run(plan);
    let mut counts = vec![
        ("power losses", plan.power_losses.into()),
        ("kills", outcome.kills.into()),
        ("records acknowledged", outcome.acknowledged as u64),
        ("readers told to go back", outcome.truncations),
        ("cold reads", outcome.cold_reads),
        ("positions acknowledged", outcome.positions),
        ("deletions acknowledged", outcome.trims.0),
        ("packs made", outcome.packs),
        ("damage named", outcome.losses.named),
        ("refused by name", u64::from(matches!(outcome.end, End::Refused(_)))),
    ];
    counts.push(("faults injected", outcome.injected.total()));
    counts.extend(outcome.injected.counts());
    counts
}

/// Rows in an order that mixes their lengths; every row in every manner after `ROWS * MANNERS` of them.
fn image(number: u64) -> Result<Counts, String> {
    // 1,009 and the number of rows have no common divisor.
    let row = (number * 1_009 % ROWS) as usize;
    let manner = Manner::number((number / ROWS + number) as usize % MANNERS as usize);
    let mut judge = Judge::new(number, u64::MAX);
    let recording = record(manner, &steps_of(row, &STEPS))?;
    judge.recording(&recording)?;
    if number.is_multiple_of(SECTORS_EVERY) {
        judge.sectors(&recording)?;
    }
    let mut counts = judge.counts;
    if number.is_multiple_of(DAMAGE_EVERY) {
        damage(&recording, 8, &mut Random::new(number), &mut counts)?;
    }
    Ok(vec![
        ("images", counts.images),
        ("starts interrupted", counts.interrupted),
        ("sectors damaged", counts.damaged),
        ("damage named", counts.named),
        ("refused by name", counts.refused),
    ])
}

fn request(seed: u64) -> Result<Counts, String> {
    let mut random = Random::new(seed);
    let methods = [DurableMethod::Dsync, DurableMethod::Fdatasync];
    let config = LogConfig {
        durable_method: random.pick(&methods),
        checkpoint_bytes: random.pick(&[4 << 10, 12 << 10, 100 << 10]),
        frames_in_flight: random.between(1, 4) as u8,
        ..small_log()
    };
    let length = random.pick(&[10, 30, 60]);
    let first = [Act::Create { topic: 0, partitions: 2, level: (seed % 4) as u8 }, Act::Producer];
    let acts: Vec<_> = first.into_iter().chain((0..length).map(|_| Act::any(&mut random))).collect();
    let pair =
        model::run(&config, seed, &acts).map_err(|(at, what)| format!("act {at} of {acts:?}: {what}"))?;
    let mut judged = Default::default();
    if seed.is_multiple_of(8) {
        let row = shard::record(&config, seed, &acts[..acts.len().min(14)])?;
        shard::judge(&row, &mut random, &mut judged)?;
    }
    Ok(vec![
        ("requests", acts.len() as u64),
        ("batches", pair.seen.batches),
        ("retries", pair.seen.retries),
        ("partitions fallen back", pair.seen.fallen_back),
        ("images of shards", judged.images),
    ])
}
