//! `cargo run --release -p corelog-perf [-- RUN...]`: runs the benches of `budgets.toml` in interleaved rounds, prints
//! asked, measured and budget of every line, writes the same to `perf/results/`, and exits 1 on a miss. With names of
//! runs it runs only those, and writes no result.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs, io};

use corelog_perf::budget::{Budgets, Run};
use corelog_perf::measure::is_flagged;
use corelog_perf::verdict::{Verdict, judge};
use serde_json::Value;

/// A single round can be lucky; three in turn share what the machine does meanwhile.
const ROUNDS: usize = 3;
/// A flagged round is repeated so often in all.
const FLAGGED_MOST: usize = 5;

fn main() -> ExitCode {
    let only: Vec<String> = env::args().skip(1).collect();
    match gate(&only) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error[PERF]: the gate could not run\ncause: {error}");
            ExitCode::from(1)
        }
    }
}

/// Whether every line is kept.
fn gate(only: &[String]) -> io::Result<bool> {
    let mut budgets = Budgets::load().map_err(io::Error::other)?;
    budgets.run.retain(|run| only.is_empty() || only.contains(&run.name));
    if budgets.run.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "budgets.toml has no run of this name"));
    }
    let corelog = build()?;
    let place = root().join("perf/out");
    fs::create_dir_all(&place)?;
    let mut results: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let mut flagged: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 1..=ROUNDS {
        for run in &budgets.run {
            loop {
                eprintln!("round {round} of {ROUNDS}: {}", run.name);
                let result = bench(&corelog, run, &place)?;
                let again = is_flagged(&result);
                results.entry(&run.name).or_default().push(result);
                if !again {
                    break;
                }
                let count = flagged.entry(&run.name).or_default();
                *count += 1;
                if *count >= FLAGGED_MOST {
                    break;
                }
            }
        }
    }
    let (text, kept) = report(&budgets, &results);
    print!("{text}");
    if only.is_empty() {
        let directory = root().join("perf/results");
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{}.txt", output_of("date", &["-u", "+%Y-%m-%d-%H%M"])));
        fs::write(&path, &text)?;
        eprintln!("written to {}", path.display());
    }
    Ok(kept)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Builds the binary that is measured, beside this one.
fn build() -> io::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status =
        Command::new(cargo).args(["build", "--release", "-p", "corelog"]).current_dir(root()).status()?;
    if !status.success() {
        return Err(io::Error::other("corelog does not build"));
    }
    let here = env::current_exe()?;
    let folder = here.parent().and_then(Path::parent).ok_or_else(|| io::Error::other("no target folder"))?;
    Ok(folder.join("release/corelog"))
}

/// One bench. Its report directory is overwritten by the next; the document is what counts.
fn bench(corelog: &Path, run: &Run, place: &Path) -> io::Result<Value> {
    let output = Command::new(corelog)
        .args(["bench", "--format", "json", "--report", "report"])
        .args(&run.bench)
        .current_dir(place)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("the bench `{}` failed: {}", run.name, output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(io::Error::other)
}

fn report(budgets: &Budgets, results: &BTreeMap<&str, Vec<Value>>) -> (String, bool) {
    let mut text = heading(results);
    let mut all_kept = true;
    for run in &budgets.run {
        let documents = results.get(run.name.as_str()).map_or(&[][..], Vec::as_slice);
        let flagged = documents.iter().filter(|result| is_flagged(result)).count();
        let note = if flagged > 0 { format!("  ({flagged} flagged, not counted)") } else { String::new() };
        line(&mut text, &format!("\n{}: corelog bench {}{note}", run.name, run.bench.join(" ")));
        for asked in &run.line {
            let verdict = judge(asked, documents);
            let sign = if asked.at_least.is_some() { ">=" } else { "<=" };
            let (word, figures) = match &verdict {
                Verdict::Kept(figures) => ("kept", Some(figures)),
                Verdict::Missed(figures) => ("MISSED", Some(figures)),
                Verdict::NotShown => ("NOT SHOWN", None),
            };
            all_kept &= matches!(verdict, Verdict::Kept(_));
            let measured = figures.map_or_else(
                || "-".to_owned(),
                |figures| {
                    let rounds: Vec<String> = figures.rounds.iter().map(|round| number(*round)).collect();
                    format!(
                        "{} (rounds {}), budget {sign} {}",
                        number(figures.median),
                        rounds.join(", "),
                        number(figures.budget)
                    )
                },
            );
            line(&mut text, &format!("  {word:<9} {}: {measured}", asked.asked));
        }
    }
    line(&mut text, if all_kept { "\nall kept" } else { "\nnot all kept" });
    (text, all_kept)
}

fn heading(results: &BTreeMap<&str, Vec<Value>>) -> String {
    let mut text = String::new();
    let commit = output_of("git", &["describe", "--always", "--dirty"]);
    let rustc = output_of("rustc", &["--version"]);
    line(&mut text, &format!("corelog {commit}, {}, {rustc}", output_of("date", &["-u", "+%F %R UTC"])));
    if let Some(result) = results.values().flatten().next() {
        let field = |pointer: &str| result.pointer(pointer).map_or_else(String::new, Value::to_string);
        let cpu = field("/machine/cpu");
        line(&mut text, &format!("{cpu}, {} cores, {}", field("/machine/cores"), field("/machine/kernel")));
        line(&mut text, &format!("baselines of the first run: {}", field("/device")));
    }
    text
}

fn line(text: &mut String, words: &str) {
    writeln!(text, "{words}").expect("writing to a string cannot fail");
}

/// Three digits that matter, or a whole number.
fn number(value: f64) -> String {
    if value.abs() >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// The first line of what a program prints; empty when it cannot be asked.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
