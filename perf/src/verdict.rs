//! One line over its rounds: the median, the budget on this machine, and whether it is kept.

use serde_json::Value;

use crate::budget::Line;
use crate::measure;

/// What became of a promise.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The median keeps the budget.
    Kept(Figures),
    /// It does not.
    Missed(Figures),
    /// No round gave the figure, or each was flagged.
    NotShown,
}

/// What was measured and what was promised.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Of each round that counts, in order.
    pub rounds: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// The budget, scaled to this machine where it is absolute.
    pub budget: f64,
}

/// Judges `line` by the results of its rounds; flagged ones do not count.
pub fn judge(line: &Line, results: &[Value]) -> Verdict {
    let counted = results.iter().filter(|result| !measure::is_flagged(result));
    let mut rounds = Vec::new();
    let mut scales = Vec::new();
    for result in counted {
        if let Some(figure) = line.measure.of(result) {
            rounds.push(figure);
            scales.extend(measure::scale(result));
        }
    }
    let Some(median_figure) = median(&rounds) else { return Verdict::NotShown };
    let scale = if line.scaled { median(&scales).unwrap_or(1.0) } else { 1.0 };
    // A bound on time or CPU would grow on a slower machine; the absolute bounds are all of the other kind.
    let (budget, kept) = match (line.at_least, line.at_most) {
        (Some(least), _) => (least * scale, median_figure >= least * scale),
        (None, Some(most)) => (most / scale, median_figure <= most / scale),
        (None, None) => return Verdict::NotShown,
    };
    let figures = Figures { rounds, median: median_figure, budget };
    if kept { Verdict::Kept(figures) } else { Verdict::Missed(figures) }
}

/// The middle one; of an even number the worse is not known here, so the mean of the middle two.
fn median(values: &[f64]) -> Option<f64> {
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
    use serde_json::json;

    fn line(at_least: Option<f64>, at_most: Option<f64>, scaled: bool) -> Line {
        Line { asked: String::new(), measure: Measure::RecordsPerSecond, at_least, at_most, scaled }
    }

    fn result(rate: f64, flagged: bool) -> Value {
        json!({ "flagged": flagged, "produce": { "records_per_second": rate }, "device": { "tcp_bytes_per_second": 1.25e9 } })
    }

    #[test]
    fn the_median_is_judged_and_flagged_rounds_do_not_count() {
        let results = [result(5.0, false), result(90.0, true), result(7.0, false), result(6.0, false)];
        let Verdict::Kept(figures) = judge(&line(Some(6.0), None, false), &results) else {
            panic!("6 is enough")
        };
        assert_eq!((figures.median, figures.rounds), (6.0, vec![5.0, 7.0, 6.0]));
        assert!(matches!(judge(&line(Some(6.1), None, false), &results), Verdict::Missed(_)));
        assert!(matches!(judge(&line(None, Some(5.9), false), &results), Verdict::Missed(_)));
    }

    #[test]
    fn nothing_but_flagged_rounds_shows_nothing() {
        assert_eq!(judge(&line(Some(1.0), None, false), &[result(9.0, true)]), Verdict::NotShown);
        assert_eq!(judge(&line(Some(1.0), None, false), &[]), Verdict::NotShown);
    }

    #[test]
    fn an_absolute_budget_moves_with_the_stream() {
        let Verdict::Kept(figures) = judge(&line(Some(10.0), None, true), &[result(5.0, false)]) else {
            panic!("half the stream, half the budget")
        };
        assert_eq!(figures.budget, 5.0);
    }
}
