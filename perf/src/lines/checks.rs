//! The checks of `tests/` that are lines of the gate: they run as programs of their own, because they watch their own
//! threads, and print a line `gate: FIGURE VALUE` for each figure.

use std::io;
use std::process::{Command, Stdio};

use serde::Deserialize as _;
use serde::de::value::{Error, StrDeserializer};

use crate::budget::Run;
use crate::child;
use crate::measure::Measure;
use crate::place::Place;
use crate::sample::Sample;

pub(super) fn allocations(place: &Place) -> io::Result<Sample> {
    check(place, "allocations", &["the_shard_allocates_nothing_after_its_warm_up"], None)
}

pub(super) fn system_calls(run: &Run, place: &Place) -> io::Result<Sample> {
    let tests = [
        "an_idle_reactor_that_polls_does_not_enter_its_ring",
        "a_loaded_reactor_enters_its_ring_at_most_once_a_turn",
    ];
    check(place, "idle", &tests, Some(run.seconds))
}

/// Runs `tests` of the check's program.
fn check(place: &Place, name: &str, tests: &[&str], seconds: Option<u64>) -> io::Result<Sample> {
    let directory = place.own()?;
    let mut command = Command::new(place.check(name)?);
    command.args(["--exact", "--nocapture", "--test-threads=1"]).args(tests);
    // The stores of their brokers.
    command.env("TMPDIR", directory.path()).stderr(Stdio::inherit());
    if let Some(seconds) = seconds {
        command.env("PERF_WATCH_SECONDS", seconds.to_string());
    }
    let output = child::output(command, &place.interrupt)?;
    let mut sample = figures(&String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        sample.failed = Some(format!("cargo test --release -p corelog-perf --test {name} fails"));
    }
    Ok(sample)
}

/// The figures in what the checks printed; the largest, where one is printed more than once.
fn figures(text: &str) -> Sample {
    let mut sample = Sample::default();
    for line in text.lines() {
        // The test runner writes its own words before the first line of a test.
        let Some((_, words)) = line.split_once("gate: ") else { continue };
        match words
            .split_once(' ')
            .and_then(|(name, value)| Some((measure(name)?, value.parse::<f64>().ok()?)))
        {
            Some((measure, value)) => {
                let largest = sample.figures.get(&measure).map_or(value, |before| before.max(value));
                sample.set(measure, largest);
            }
            None => sample.say(words.to_owned()),
        }
    }
    sample
}

fn measure(name: &str) -> Option<Measure> {
    Measure::deserialize(StrDeserializer::<Error>::new(name)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_name_and_the_rest_is_remarks() {
        let text = "running 1 test\ntest a ... gate: enters_per_turn 0.5\ngate: enters_per_turn 0.25\nother words\n\
                    gate: idle_enters 0\ngate: strace saw 3 futex\ntest a ... ok\n";
        let sample = figures(text);
        assert_eq!(sample.figures[&Measure::EntersPerTurn], 0.5);
        assert_eq!(sample.figures[&Measure::IdleEnters], 0.0);
        assert_eq!(sample.notes, ["strace saw 3 futex"]);
    }
}
