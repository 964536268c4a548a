//! The result as text, at most 120 columns wide: every line asked, measured and budget, every round, and what the
//! rounds had to say.

use std::fmt::Write as _;

use crate::budget::{Budgets, Line, Run};
use crate::sample::Sample;
use crate::verdict::{Judged, REFERENCE_STREAM, Verdict, judge};

/// Columns of the text.
const WIDTH: usize = 120;
/// Columns for what was asked, and before it.
const ASKED: usize = 54;
const BEFORE_ASKED: usize = 12;
/// Columns for all rounds of a line, and before them.
const ROUNDS: usize = 27;
const BEFORE_ROUNDS: usize = 93;

/// The whole result, and whether every line is kept. `samples` are in the order of `budgets.run`.
pub fn table(budgets: &Budgets, samples: &[Vec<Sample>], rounds: usize, heading: &str) -> (String, bool) {
    let mut text = heading.to_owned();
    let mut counts = [0; 4];
    for (run, samples) in budgets.run.iter().zip(samples) {
        title(run, &mut text);
        for line in &run.line {
            let judged = judge(run, line, samples, rounds, budgets.scale_at_most);
            counts[judged.verdict as usize] += 1;
            row(line, &judged, &mut text);
        }
        remarks(samples, &mut text);
    }
    let [kept, missed, shown, not_shown] = counts;
    put(
        &mut text,
        &format!("\n{kept} kept, {missed} missed, {not_shown} not shown; {shown} shown without a budget"),
    );
    let all = missed + not_shown == 0;
    put(&mut text, if all { "every line is kept" } else { "NOT every line is kept" });
    (text, all)
}

fn title(run: &Run, text: &mut String) {
    let how = match (run.bench.is_empty(), run.records) {
        (true, _) => String::new(),
        (_, Some(records)) => format!("corelog bench {} --records {records}", run.bench.join(" ")),
        _ => format!("corelog bench {} --duration {}s", run.bench.join(" "), run.seconds),
    };
    let title = format!("\n{:<20}{how}", run.name.to_uppercase());
    put_wrapped(text, &title, 20);
    put(text, &format!("  {:<9} {:<ASKED$} {:>10} {:>14}  rounds", "", "asked", "measured", "budget"));
}

fn row(line: &Line, judged: &Judged, text: &mut String) {
    let word = match judged.verdict {
        Verdict::Kept => "kept",
        Verdict::Missed => "MISSED",
        Verdict::Shown => "shown",
        Verdict::NotShown => "NOT SHOWN",
    };
    let sign = if line.at_least.is_some() { ">=" } else { "<=" };
    let measured = judged.median.map_or_else(|| "-".to_owned(), number);
    let budget = judged.budget.map_or_else(String::new, |budget| format!("{sign} {}", number(budget)));
    let rounds =
        judged.rounds.iter().map(|&(figure, flagged)| number(figure) + if flagged { "!" } else { "" });
    let (asked, rounds) = (wrap(&line.asked, ASKED), wrap(&rounds.collect::<Vec<_>>().join(" "), ROUNDS));
    put(text, &format!("  {word:<9} {:<ASKED$} {measured:>10} {budget:>14}  {}", asked[0], rounds[0]));
    for at in 1..asked.len().max(rounds.len()) {
        let part = |lines: &[String]| lines.get(at).cloned().unwrap_or_default();
        let (asked, rounds) = (part(&asked), part(&rounds));
        let words =
            format!("{:BEFORE_ASKED$}{asked:<width$}{rounds}", "", width = BEFORE_ROUNDS - BEFORE_ASKED);
        put(text, words.trim_end());
    }
    if let Some((bound, kept)) = judged.as_asked {
        let stream = REFERENCE_STREAM / 1e9;
        let word = if kept { "kept" } else { "missed" };
        let words = format!("as it is at a stream of {stream} GB/s: {sign} {}, {word}", number(bound));
        put(text, &format!("{:BEFORE_ASKED$}{words}", ""));
    }
}

fn remarks(samples: &[Sample], text: &mut String) {
    for sample in samples {
        let flag = if sample.flagged { " flagged:" } else { "" };
        let failed = sample.failed.iter().map(|reason| format!("FAILED: {reason}"));
        let notes = failed.chain(sample.notes.iter().cloned()).collect::<Vec<_>>().join("; ");
        if !notes.is_empty() || sample.flagged {
            put_wrapped(text, &format!("    round {}:{flag} {notes}", sample.round), 6);
        }
    }
}

/// Three digits that matter, with a decimal unit where it is large.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1e9 => format!("{:.2}G", value / 1e9),
        size if size >= 1e6 => format!("{:.2}M", value / 1e6),
        size if size >= 1e4 => format!("{:.1}k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

fn put(text: &mut String, words: &str) {
    writeln!(text, "{}", words.trim_end()).expect("writing to a string cannot fail");
}

/// Puts `words`, further lines indented by `indent`.
fn put_wrapped(text: &mut String, words: &str, indent: usize) {
    for (at, line) in wrap(words, WIDTH - indent).into_iter().enumerate() {
        put(text, &if at == 0 { line } else { format!("{:indent$}{line}", "") });
    }
}

/// Lines of at most `width` columns, broken at blanks; at least one, though it be empty.
fn wrap(words: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = words;
    while rest.chars().count() > width {
        // Blanks that indent are no place to break.
        let start = rest.len() - rest.trim_start().len();
        let end = rest.char_indices().nth(width).map_or(rest.len(), |(at, _)| at + 1).min(rest.len());
        let within = rest.get(start..end).and_then(|part| part.rfind(' '));
        let Some(at) = within.or_else(|| rest[start..].find(' ')).map(|at| start + at) else { break };
        lines.push(rest[..at].to_owned());
        rest = rest[at..].trim_start();
    }
    lines.push(rest.to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budgets;

    #[test]
    fn words_are_wrapped_at_blanks_and_long_ones_stay_whole() {
        assert_eq!(wrap("", 10), [""]);
        assert_eq!(wrap("  one two three", 9), ["  one two", "three"]);
        assert_eq!(wrap("a-word-that-is-long and", 5), ["a-word-that-is-long", "and"]);
        assert_eq!(wrap("1 2 3", 5), ["1 2 3"]);
    }

    #[test]
    fn three_digits_and_a_unit() {
        let cases = [(0.0, "0"), (0.7123, "0.712"), (42.26, "42.3"), (9_876.4, "9876"), (81_234.0, "81.2k")];
        for (value, text) in cases.into_iter().chain([(6e6, "6.00M"), (2.256e9, "2.26G")]) {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn the_whole_table_fits_120_columns_and_says_what_failed() {
        let budgets = Budgets::load().expect("the embedded file is valid");
        let sample = |run: &Run, round, flagged| Sample {
            round,
            figures: run.line.iter().map(|line| (line.measure, 123_456_789.0)).collect(),
            stream: Some(5e9),
            flagged,
            failed: (round == 2).then(|| "the broker did not start: exit status 1, ".repeat(5)),
            notes: vec!["a remark of some length".repeat(3); 4],
        };
        let samples: Vec<Vec<Sample>> = budgets
            .run
            .iter()
            .map(|run| {
                vec![
                    sample(run, 1, false),
                    sample(run, 1, true),
                    sample(run, 2, false),
                    sample(run, 3, false),
                ]
            })
            .collect();
        let (text, kept) = table(&budgets, &samples, 3, "heading\n");
        assert!(!kept && text.contains("FAILED") && text.contains("123.46M!"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        let none: Vec<Vec<Sample>> = budgets.run.iter().map(|_| Vec::new()).collect();
        let (text, kept) = table(&budgets, &none, 3, "");
        assert!(!kept && text.contains("NOT SHOWN") && !text.contains("kept  "), "{text}");
    }
}
