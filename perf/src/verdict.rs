//! One line over its rounds: the median, the budget on this machine, and whether it is kept.

use crate::budget::{Line, Run};
use crate::sample::Sample;

/// A flagged run is shown and repeated; with so many of them the figure counts as not shown.
pub const FLAGGED_MOST: usize = 5;
/// The stream at which absolute budgets hold, in bytes a second.
pub const REFERENCE_STREAM: f64 = 2.5e9;

/// What became of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The median keeps the budget.
    Kept,
    /// It does not.
    Missed,
    /// There is no budget, and the figure is there.
    Shown,
    /// A round gave no figure, or too many were flagged.
    NotShown,
}

/// A line with its rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// What became of it.
    pub verdict: Verdict,
    /// The figure of every run in order, flagged ones marked with true.
    pub rounds: Vec<(f64, bool)>,
    /// Of those that count.
    pub median: Option<f64>,
    /// The bound on this machine: scaled where it is absolute.
    pub budget: Option<f64>,
    /// Where it is scaled, the bound as it was asked and whether that is kept.
    pub as_asked: Option<(f64, bool)>,
}

/// Judges `line` of `run` by its samples, of which `rounds` that are not flagged are needed.
pub fn judge(run: &Run, line: &Line, samples: &[Sample], rounds: usize, scale_at_most: f64) -> Judged {
    let figure = |sample: &Sample| sample.figures.get(&line.measure).copied();
    let all = samples.iter().filter_map(|sample| Some((figure(sample)?, sample.flagged))).collect::<Vec<_>>();
    let counted: Vec<f64> = all.iter().filter(|(_, flagged)| !flagged).map(|(figure, _)| *figure).collect();
    let median_figure = median(&counted);
    let streams: Vec<f64> = samples.iter().filter_map(|sample| sample.stream).collect();
    let scale = match median(&streams) {
        Some(stream) if line.scaled => (stream / REFERENCE_STREAM).min(scale_at_most),
        _ => 1.0,
    };
    // What may be used per record or byte shrinks as what must be reached grows.
    let bound =
        |scale: f64| line.at_least.map(|least| least * scale).or(line.at_most.map(|most| most / scale));
    let keeps =
        |figure: f64, bound: f64| if line.at_least.is_some() { figure >= bound } else { figure <= bound };
    let kept = |bound: Option<f64>| Some(keeps(median_figure?, bound?));
    let flagged = samples.iter().filter(|sample| sample.flagged).count();
    let complete = counted.len() >= run.rounds(rounds)
        && flagged < FLAGGED_MOST
        && samples.iter().all(|sample| sample.failed.is_none())
        && (!line.scaled || !streams.is_empty());
    let budget = bound(scale);
    let verdict = match (complete, kept(budget)) {
        // A figure that is there and too bad stays a miss, whatever else went wrong.
        (_, Some(false)) => Verdict::Missed,
        (false, _) => Verdict::NotShown,
        (true, Some(true)) => Verdict::Kept,
        (true, None) => Verdict::Shown,
    };
    let as_asked = (line.scaled && scale != 1.0).then(|| Some((bound(1.0)?, kept(bound(1.0))?))).flatten();
    Judged { verdict, rounds: all, median: median_figure, budget, as_asked }
}

/// The middle one; of an even number the mean of the middle two.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Measure;

    fn line(at_least: Option<f64>, at_most: Option<f64>, scaled: bool) -> Line {
        Line { asked: String::new(), measure: Measure::RecordsPerSecond, at_least, at_most, scaled }
    }

    fn sample(figure: f64, flagged: bool) -> Sample {
        let figures = [(Measure::RecordsPerSecond, figure)].into();
        Sample { figures, flagged, stream: Some(1.25e9), ..Sample::default() }
    }

    fn judged(line: &Line, samples: &[Sample]) -> Judged {
        let run = toml::from_str("name = 'a'\nkind = 'bench'\ndisk_gib = 1\nline = []").expect("a run");
        judge(&run, line, samples, 3, f64::INFINITY)
    }

    #[test]
    fn the_median_is_judged_and_flagged_runs_are_shown_and_do_not_count() {
        let samples = [sample(5.0, false), sample(90.0, true), sample(7.0, false), sample(6.0, false)];
        let found = judged(&line(Some(6.0), None, false), &samples);
        assert_eq!((found.verdict, found.median, found.rounds.len()), (Verdict::Kept, Some(6.0), 4));
        assert_eq!(judged(&line(Some(6.1), None, false), &samples).verdict, Verdict::Missed);
        assert_eq!(judged(&line(None, Some(5.9), false), &samples).verdict, Verdict::Missed);
        assert_eq!(judged(&line(None, None, false), &samples).verdict, Verdict::Shown);
    }

    #[test]
    fn a_round_that_is_missing_or_failed_and_five_flagged_ones_are_no_figure() {
        let line = line(Some(1.0), None, false);
        let good = sample(9.0, false);
        assert_eq!(judged(&line, &[good.clone(), good.clone(), good.clone()]).verdict, Verdict::Kept);
        assert_eq!(judged(&line, &[]).verdict, Verdict::NotShown);
        assert_eq!(judged(&line, &[good.clone(), good.clone()]).verdict, Verdict::NotShown);
        let failed = Sample { failed: Some(String::new()), ..good.clone() };
        assert_eq!(judged(&line, &[good.clone(), good.clone(), failed]).verdict, Verdict::NotShown);
        let mut samples = vec![sample(9.0, true); 4];
        samples.extend([good.clone(), good.clone(), good]);
        assert_eq!(judged(&line, &samples).verdict, Verdict::Kept);
        samples.push(sample(9.0, true));
        assert_eq!(judged(&line, &samples).verdict, Verdict::NotShown);
    }

    #[test]
    fn an_absolute_budget_moves_with_the_stream_and_is_shown_as_asked_too() {
        let samples = vec![sample(5.0, false); 3];
        let found = judged(&line(Some(10.0), None, true), &samples);
        assert_eq!((found.verdict, found.budget), (Verdict::Kept, Some(5.0)));
        assert_eq!(found.as_asked, Some((10.0, false)));
        let found = judged(&line(None, Some(3.0), true), &samples);
        assert_eq!((found.verdict, found.budget), (Verdict::Kept, Some(6.0)));
        let unknown: Vec<Sample> = samples.into_iter().map(|s| Sample { stream: None, ..s }).collect();
        assert_eq!(judged(&line(Some(1.0), None, true), &unknown).verdict, Verdict::NotShown);
    }
}
