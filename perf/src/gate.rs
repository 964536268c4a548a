//! All runs in interleaved rounds (A B C, A B C, ...), so that what the machine does meanwhile meets all of them.

use std::io::{self, ErrorKind};

use corelog_load::Interrupt;
use corelog_load::machine::describe;

use crate::budget::{Budgets, Kind, Run};
use crate::child;
use crate::lines;
use crate::place::{Place, check_space, line_of};
use crate::sample::Sample;
use crate::table::table;
use crate::verdict::FLAGGED_MOST;

/// A single round can be lucky; three in turn share what the machine does meanwhile.
pub const ROUNDS: usize = 3;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Names of runs; empty for all.
    pub only: Vec<String>,
    /// How often each.
    pub rounds: usize,
    /// Short windows.
    pub quick: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The table.
    pub text: String,
    /// Every line is kept.
    pub kept: bool,
}

impl Asked {
    /// Whether this is the gate and not a part of it.
    pub fn is_whole(&self) -> bool {
        self.only.is_empty() && self.rounds >= ROUNDS && !self.quick
    }

    fn choose(&self, mut budgets: Budgets) -> io::Result<Budgets> {
        if let Some(name) = self.only.iter().find(|name| budgets.run.iter().all(|run| run.name != **name)) {
            let names: Vec<&str> = budgets.run.iter().map(|run| run.name.as_str()).collect();
            let words = format!("no run is named `{name}`; there are: {}", names.join(", "));
            return Err(io::Error::new(ErrorKind::InvalidInput, words));
        }
        budgets.run.retain(|run| self.only.is_empty() || self.only.contains(&run.name));
        if self.quick {
            budgets.run = budgets.run.into_iter().map(Run::quick).collect();
        }
        Ok(budgets)
    }
}

/// Runs what is asked. Everything it writes is gone when it returns, interrupted or not.
pub fn gate(asked: &Asked, interrupt: Interrupt) -> io::Result<Outcome> {
    let budgets = asked.choose(Budgets::load().map_err(io::Error::other)?)?;
    check_space(budgets.run.iter().map(|run| run.disk_gib).max().unwrap_or(0))?;
    let with_checks = budgets.run.iter().any(|run| matches!(run.kind, Kind::Allocations | Kind::SystemCalls));
    let place = Place::make(with_checks, asked.quick, interrupt)?;
    let heading = heading(asked, &place);
    let mut samples: Vec<Vec<Sample>> = budgets.run.iter().map(|_| Vec::new()).collect();
    for round in 1..=asked.rounds {
        for (run, samples) in budgets.run.iter().zip(&mut samples) {
            if round > run.rounds(asked.rounds) {
                continue;
            }
            eprintln!("round {round} of {}: {}", run.rounds(asked.rounds), run.name);
            repeat(samples, || {
                let sample = match lines::measure(run, &place) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                    Err(error) => Sample::failure(error.to_string()),
                    Ok(sample) => sample,
                };
                child::go_on(&place.interrupt)?;
                Ok(Sample { round, ..sample })
            })?;
        }
    }
    let (text, kept) = table(&budgets, &samples, asked.rounds, &heading);
    Ok(Outcome { text, kept })
}

/// Measures once more while the last sample is flagged and there are not too many of those in all rounds together.
fn repeat(samples: &mut Vec<Sample>, mut measure: impl FnMut() -> io::Result<Sample>) -> io::Result<()> {
    loop {
        let sample = measure()?;
        for note in &sample.notes {
            eprintln!("  {note}");
        }
        if let Some(reason) = &sample.failed {
            eprintln!("failed: {reason}");
        }
        let again = sample.flagged;
        samples.push(sample);
        let flagged = samples.iter().filter(|sample| sample.flagged).count();
        if !again || flagged >= FLAGGED_MOST {
            return Ok(());
        }
        eprintln!("flagged ({flagged} of at most {FLAGGED_MOST}): once more");
    }
}

fn heading(asked: &Asked, place: &Place) -> String {
    let machine = describe(place.cores.load as u32);
    let mut text = format!(
        "corelog {}, {}, {}\n{}, {} cores (broker on {}, load on {}), {:.1} GB, {}\n",
        line_of("git", &["describe", "--always", "--dirty"]),
        line_of("date", &["-u", "+%F %R UTC"]),
        line_of("rustc", &["--version"]),
        machine.cpu,
        machine.cores,
        place.cores.broker,
        place.cores.load,
        machine.memory_bytes as f64 / 1e9,
        machine.kernel,
    );
    if place.cores.broker == place.cores.load {
        text.push_str("ONE CORE for broker and load: the figures are not those that were asked\n");
    }
    if asked.is_whole() {
        text.push_str("medians of interleaved rounds; `!` marks a run whose load or reactor ran too late: shown, not counted\n");
    } else {
        let quick = if asked.quick { ", short windows" } else { "" };
        text.push_str(&format!("NOT THE GATE: {} round(s){quick}\n", asked.rounds));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(only: &[&str], rounds: usize, quick: bool) -> Asked {
        Asked { only: only.iter().map(|&name| name.to_owned()).collect(), rounds, quick }
    }

    fn chosen(asked: &Asked) -> io::Result<Vec<String>> {
        let budgets = asked.choose(Budgets::load().expect("the embedded file is valid"))?;
        Ok(budgets.run.into_iter().map(|run| run.name).collect())
    }

    #[test]
    fn runs_are_chosen_by_name_and_a_wrong_name_is_refused_with_the_right_ones() {
        assert_eq!(chosen(&asked(&["recycled"], 3, false)).expect("a run"), ["recycled"]);
        assert!(chosen(&asked(&[], 3, false)).expect("all").len() > 10);
        let error = chosen(&asked(&["recycle"], 3, false)).expect_err("no such run");
        assert!(error.to_string().contains("recycled, growing"), "{error}");
    }

    #[test]
    fn only_all_runs_in_three_full_rounds_are_the_gate() {
        assert!(asked(&[], 3, false).is_whole());
        for part in [asked(&["recycled"], 3, false), asked(&[], 2, false), asked(&[], 3, true)] {
            assert!(!part.is_whole());
        }
    }

    #[test]
    fn a_flagged_run_is_repeated_five_times_over_all_rounds_at_most() {
        let mut samples = Vec::new();
        let runs = |samples: &mut Vec<Sample>, flags: &[bool]| {
            let mut flags = flags.iter();
            repeat(samples, || {
                let flagged = *flags.next().expect("not repeated more often");
                Ok(Sample { flagged, ..Sample::default() })
            })
            .expect("no run is interrupted");
        };
        runs(&mut samples, &[true, true, false]);
        runs(&mut samples, &[true, true, true]);
        runs(&mut samples, &[true]);
        assert_eq!(samples.len(), 7);
    }
}
