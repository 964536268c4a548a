//! `budgets.toml`: the runs, their lines, and what was promised of each.

use serde::Deserialize;

use crate::measure::Measure;

/// The embedded file.
pub const BUDGETS: &str = include_str!("../budgets.toml");

/// A quick run takes this part of the time, and writes this part of the records.
const QUICK: u64 = 10;
/// But at least so many seconds.
const QUICK_SECONDS: u64 = 2;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// A budget with `scaled` is multiplied by the bare stream over the reference, but by no more than this.
    pub scale_at_most: f64,
    /// In the order of each round.
    pub run: Vec<Run>,
}

/// How a run is measured: a file of [`crate::lines`] each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `corelog bench`.
    Bench,
    /// The CPU per byte of one bench over that of others.
    CpuRatio,
    /// The disk baseline beside fio's.
    Fio,
    /// A consumer that starts behind, within the live window.
    Tail,
    /// Consumers of what is on the disk only.
    Cold,
    /// Consumers that do not read, beside none.
    Stalled,
    /// A broker that parks.
    Parked,
    /// Many partitions: created, produced to, restarted.
    Partitions,
    /// A large store: killed under load, started again.
    Restart,
    /// The check of allocations on the shard's thread.
    Allocations,
    /// The checks of system calls, idle and under load.
    SystemCalls,
}

/// One measurement.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// For people, and to select it.
    pub name: String,
    /// How it is measured.
    pub kind: Kind,
    /// Length of the window, where the kind has one.
    #[serde(default)]
    pub seconds: u64,
    /// Records of the window, instead of a length.
    pub records: Option<u64>,
    /// Further arguments of `corelog bench`, where the kind uses it.
    #[serde(default)]
    pub bench: Vec<String>,
    /// Of a ratio: more arguments of the bench that is judged,
    #[serde(default)]
    pub judged: Vec<String>,
    /// and of those that it is set against.
    #[serde(default)]
    pub beside: Vec<Vec<String>>,
    /// Free disk that it needs, in GiB.
    pub disk_gib: u64,
    /// In the first round only.
    #[serde(default)]
    pub once: bool,
    /// What it is judged by.
    pub line: Vec<Line>,
}

/// One promise; without a bound the figure is shown and not judged.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// What was asked, in words.
    pub asked: String,
    /// The figure.
    pub measure: Measure,
    /// It must not be smaller.
    pub at_least: Option<f64>,
    /// It must not be larger.
    pub at_most: Option<f64>,
    /// The budget holds at the reference stream and moves with it.
    #[serde(default)]
    pub scaled: bool,
}

impl Budgets {
    /// The embedded budgets.
    pub fn load() -> Result<Self, toml::de::Error> {
        toml::from_str(BUDGETS)
    }
}

impl Run {
    /// The same, short: shows that it works, and no more.
    #[must_use]
    pub fn quick(mut self) -> Self {
        if self.seconds > 0 {
            self.seconds = (self.seconds / QUICK).max(QUICK_SECONDS);
        }
        self.records = self.records.map(|records| records / QUICK);
        self
    }

    /// The same with further arguments of the bench.
    #[must_use]
    pub fn with(&self, arguments: &[String]) -> Self {
        let mut run = self.clone();
        run.bench.extend_from_slice(arguments);
        run
    }

    /// In how many of `rounds` it is run.
    pub fn rounds(&self, rounds: usize) -> usize {
        if self.once { 1 } else { rounds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets() -> Budgets {
        Budgets::load().expect("the embedded file is valid")
    }

    #[test]
    fn no_line_has_two_bounds_and_a_scaled_one_has_one() {
        for line in budgets().run.iter().flat_map(|run| &run.line) {
            let bounds = usize::from(line.at_least.is_some()) + usize::from(line.at_most.is_some());
            assert!(bounds <= 1 && (bounds == 1 || !line.scaled), "{}", line.asked);
        }
    }

    #[test]
    fn runs_have_names_of_their_own_and_what_they_need() {
        let budgets = budgets();
        let names: std::collections::BTreeSet<_> = budgets.run.iter().map(|run| &run.name).collect();
        assert_eq!(names.len(), budgets.run.len());
        for run in &budgets.run {
            assert!(!run.line.is_empty() && run.disk_gib > 0, "{}", run.name);
            assert_eq!(run.kind == Kind::CpuRatio, !run.beside.is_empty(), "{}", run.name);
            assert!(run.kind != Kind::Bench || (run.seconds > 0) != run.records.is_some(), "{}", run.name);
            let broker_is_timed = run.bench.iter().any(|word| word == "poll");
            let judges_cpu = run
                .line
                .iter()
                .any(|line| matches!(line.measure, Measure::CpuNsPerByte | Measure::CpuNsPerRecord));
            assert!(
                !(broker_is_timed && judges_cpu),
                "{}: CPU is promised in park or adaptive mode",
                run.name
            );
        }
    }

    #[test]
    fn the_growing_run_makes_extents_of_20_gb_within_its_window() {
        /// The head and four spares of 256 MiB: what a broker that is ready may have made.
        const MADE_BEFORE: u64 = 5 << 28;
        let budgets = budgets();
        let growing = budgets.run.iter().find(|run| run.name == "growing").expect("a run");
        let written = growing.records.expect("bounded by number") * 1_000;
        assert!(!growing.bench.iter().any(|word| word == "--record-size"), "of 1,000 bytes");
        assert!(written - MADE_BEFORE >= 20_000_000_000, "{written}");
        assert!(growing.disk_gib << 30 > written + MADE_BEFORE, "{written}");
    }

    #[test]
    fn a_start_of_a_large_store_is_judged_by_its_first_acknowledgement() {
        let budgets = budgets();
        let restart = budgets.run.iter().find(|run| run.kind == Kind::Restart).expect("a run");
        let line = restart.line.iter().find(|line| line.measure == Measure::RestartSeconds);
        assert_eq!(line.and_then(|line| line.at_most), Some(2.0));
    }

    #[test]
    fn a_quick_run_is_a_tenth_and_never_nothing() {
        let runs: Vec<Run> = budgets().run.into_iter().map(Run::quick).collect();
        assert!(runs.iter().all(|run| run.kind != Kind::Bench || run.seconds >= 2 || run.records > Some(0)));
        assert!(runs.iter().all(|run| run.seconds <= 3 && run.records <= Some(2_500_000)));
    }
}
