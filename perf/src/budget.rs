//! `budgets.toml`: the runs, their lines, and what was promised of each.

use serde::Deserialize;

use crate::measure::Measure;

/// The embedded file.
pub const BUDGETS: &str = include_str!("../budgets.toml");

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// In the order of each round.
    pub run: Vec<Run>,
}

/// One bench.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// For people, and to select it.
    pub name: String,
    /// Arguments of `corelog bench`.
    pub bench: Vec<String>,
    /// What it is judged by.
    pub line: Vec<Line>,
}

/// One promise.
#[derive(Debug, Deserialize)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_exactly_one_bound() {
        let budgets = Budgets::load().expect("the embedded file is valid");
        for line in budgets.run.iter().flat_map(|run| &run.line) {
            assert!(line.at_least.is_some() != line.at_most.is_some(), "{}", line.asked);
        }
    }

    #[test]
    fn runs_have_names_of_their_own() {
        let budgets = Budgets::load().expect("the embedded file is valid");
        let names: std::collections::BTreeSet<_> = budgets.run.iter().map(|run| &run.name).collect();
        assert_eq!(names.len(), budgets.run.len());
    }
}
