//! From a recording to every image that a loss of power can leave of it.
//!
//! The power fails before the first event, behind each operation that is asked for and behind each promise: what it can
//! leave between an end and the promise that follows it could have been left before the end, too. At each moment every
//! write that nothing confirms has each fate, in all combinations as long as these are few, else in some.

use std::collections::HashSet;

use corelog_storage::{LogConfig, Recorded};

use super::bench::{Bench, Manner, Step, config};
use super::image::Image;
use super::judge::{Case, Counts, judge};
use super::ledger::Ledger;
use super::medium::{Fate, Medium, Pending};
use crate::random::Random;

/// More combinations at one moment than these are not tried all.
const ALL: usize = 250;
/// So many of them are tried instead.
const SOME: usize = 60;
/// Every so many images the start is interrupted, once or twice.
const INTERRUPT_EVERY: u64 = 8;
/// Operations of a start, more or less.
const START_STEPS: u64 = 40;

/// A life that was led, and what is known of it.
pub struct Recording {
    /// How the log is set up.
    pub config: LogConfig,
    /// What was sent and promised.
    pub ledger: Ledger,
    /// What happened to the disk.
    pub tape: Vec<Recorded>,
    /// The events before this one are those of a shorter life.
    pub from: usize,
}

/// Leads a life and records it. A log that breaks an assertion does so here.
pub fn record(manner: Manner, steps: &[Step]) -> Result<Recording, String> {
    let config = config(manner, steps);
    let mut bench = Bench::new(manner, config.clone())?;
    let mut from = 0;
    for step in steps {
        from = bench.engine.tape.len();
        bench.step(*step)?;
    }
    bench.rest()?;
    Ok(Recording { config, ledger: bench.ledger, tape: bench.engine.tape, from })
}

/// The row of steps with this number: all of one step, then all of two, then all of three.
pub fn steps_of(number: usize, of: &[Step]) -> Vec<Step> {
    let (mut left, mut length, mut rows) = (number, 1, of.len());
    while left >= rows {
        left -= rows;
        length += 1;
        rows *= of.len();
    }
    let mut steps = Vec::with_capacity(length);
    for _ in 0..length {
        steps.push(of[left % of.len()]);
        left /= of.len();
    }
    steps.reverse();
    steps
}

/// A moment of a recording at which the power may fail.
pub struct Moment<'a> {
    /// How many events have happened.
    pub at: usize,
    /// The disk.
    pub medium: &'a Medium,
    /// The promises so far.
    pub mark: Option<u64>,
}

/// Every moment of a recording that is worth trying, from its `from` on.
pub fn moments(
    recording: &Recording,
    each: &mut dyn FnMut(&Moment<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let (mut medium, mut mark) = (Medium::default(), None);
    for (at, event) in (1..).zip(&recording.tape) {
        medium.apply(event);
        if let Recorded::Promised(promised) = event {
            mark = Some(*promised);
        }
        if at > recording.from && !matches!(event, Recorded::Ended { .. }) {
            each(&Moment { at, medium: &medium, mark })?;
        }
    }
    Ok(())
}

/// The fates of all that is pending, in every combination or in some.
pub fn combinations(
    pending: &[Pending],
    random: &mut Random,
    each: &mut dyn FnMut(&[Fate]) -> Result<(), String>,
) -> Result<(), String> {
    let choices: Vec<_> = pending.iter().map(Pending::fates).collect();
    let all = choices.iter().fold(1, |all: usize, fates| all.saturating_mul(fates.len()));
    let mut fates = Vec::with_capacity(choices.len());
    for number in 0..if all <= ALL { all } else { SOME } {
        let mut left = number;
        fates.clear();
        for choice in &choices {
            if all <= ALL {
                fates.push(choice[left % choice.len()]);
                left /= choice.len();
            } else {
                fates.push(random.pick(choice));
            }
        }
        each(&fates)?;
    }
    Ok(())
}

/// Judges images, each once.
pub struct Judge {
    random: Random,
    seen: HashSet<(u64, Option<u64>)>,
    /// What was done.
    pub counts: Counts,
    /// No more images than these.
    pub most: u64,
}

impl Judge {
    /// One that has seen nothing.
    pub fn new(seed: u64, most: u64) -> Self {
        Self { random: Random::new(seed), seen: HashSet::new(), counts: Counts::default(), most }
    }

    /// Judges every image of a recording; the first that is wrong is told in words.
    pub fn recording(&mut self, recording: &Recording) -> Result<(), String> {
        self.seen.clear();
        moments(recording, &mut |moment| {
            let mut random = self.random.fork();
            combinations(moment.medium.pending(), &mut random, &mut |fates| {
                self.image(recording, moment, &moment.medium.image(fates), fates)
            })
        })
    }

    /// Judges all 256 subsets of the sectors of each frame of 4 KiB that is alone under way.
    pub fn sectors(&mut self, recording: &Recording) -> Result<(), String> {
        self.seen.clear();
        moments(recording, &mut |moment| {
            let pending = moment.medium.pending();
            let Some(newest) = pending.last().filter(|newest| newest.sectors() == 8) else { return Ok(()) };
            let others = pending.len() - 1;
            assert!(newest.fates().len() > 2, "a frame has sectors");
            for bits in 0..256 {
                let other = if bits % 2 == 0 { Fate::Complete } else { Fate::Absent };
                let fates: Vec<_> = std::iter::repeat_n(other, others).chain([Fate::Sectors(bits)]).collect();
                self.image(recording, moment, &moment.medium.image(&fates), &fates)?;
            }
            Ok(())
        })
    }

    /// Judges the start from the last image of a recording, interrupted at each of its own operations, and again at each
    /// of the start after that.
    pub fn interrupted(&mut self, recording: &Recording) -> Result<(), String> {
        let mut last = Medium::default();
        recording.tape.iter().for_each(|event| last.apply(event));
        let image = last.image(&vec![Fate::Hole; last.pending().len()]);
        let promise = recording.ledger.promise(Some(recording.ledger.promises.len() as u64 - 1));
        let Recording { config, ledger, .. } = recording;
        let case = Case { config, ledger, promise: &promise, damaged: None };
        for first in 1.. {
            let before = self.counts.interrupted;
            for stops in [vec![first], vec![first, first], vec![first, 1 + first / 2]] {
                judge(case, &image, &stops, &mut self.random, &mut self.counts)
                    .map_err(|what| format!("interrupted at {stops:?}: {what}"))?;
            }
            if self.counts.interrupted == before {
                return Ok(());
            }
        }
        Ok(())
    }

    fn image(
        &mut self,
        recording: &Recording,
        moment: &Moment<'_>,
        image: &Image,
        fates: &[Fate],
    ) -> Result<(), String> {
        if self.counts.images >= self.most || !self.seen.insert((image.sum(), moment.mark)) {
            return Ok(());
        }
        let promise = recording.ledger.promise(moment.mark);
        let Recording { config, ledger, .. } = recording;
        let case = Case { config, ledger, promise: &promise, damaged: None };
        let mut stops = Vec::new();
        if self.counts.images.is_multiple_of(INTERRUPT_EVERY) {
            let twice = self.random.chance(30);
            stops = (0..=u8::from(twice)).map(|_| self.random.between(1, START_STEPS) as usize).collect();
        }
        judge(case, image, &stops, &mut self.random, &mut self.counts)
            .map_err(|what| format!("event {}, fates {fates:?}, interrupted at {stops:?}: {what}", moment.at))
    }
}
