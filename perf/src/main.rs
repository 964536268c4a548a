//! `cargo run --release -p corelog-perf`: runs every line of `budgets.toml` in interleaved rounds, prints asked, measured
//! and budget of each, keeps the same text in `perf/results/`, and exits 1 on a miss. Progress is on standard error.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};
use std::process::ExitCode;
use std::{fs, num::NonZeroUsize};

use clap::Parser;
use corelog_load::Interrupt;
use corelog_perf::budget::Budgets;
use corelog_perf::gate::{Asked, ROUNDS, gate};
use corelog_perf::place::{line_of, root};

/// Measures what corelog promises against what was asked.
#[derive(Debug, Parser)]
#[command(name = "corelog-perf")]
struct Arguments {
    /// Only the run of this name; may be given more than once. Writes no result.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How often each run is measured. With fewer than three rounds it is not the gate, and writes no result.
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(ROUNDS).expect("not zero"))]
    rounds: NonZeroUsize,
    /// Windows of a tenth of the length: shows that it works. Not the gate, and writes no result.
    #[arg(long)]
    quick: bool,
    /// Print the names of all runs.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) if error.kind() == ErrorKind::InvalidInput => fail(&error, 2),
        Err(error) => fail(&error, 1),
    }
}

fn fail(error: &io::Error, code: u8) -> ExitCode {
    eprintln!("error[PERF]: the gate could not run\ncause: {error}");
    ExitCode::from(code)
}

/// Whether every line is kept.
fn run(arguments: &Arguments) -> io::Result<bool> {
    if arguments.list {
        let budgets = Budgets::load().map_err(io::Error::other)?;
        budgets.run.iter().for_each(|run| println!("{}", run.name));
        return Ok(true);
    }
    let asked =
        Asked { only: arguments.only.clone(), rounds: arguments.rounds.get(), quick: arguments.quick };
    let outcome = gate(&asked, Interrupt::watch()?)?;
    print!("{}", outcome.text);
    if asked.is_whole() {
        let directory = root().join("perf/results");
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{}.txt", line_of("date", &["-u", "+%Y-%m-%d-%H%M"])));
        fs::write(&path, &outcome.text)?;
        eprintln!("written to {}", path.display());
    }
    Ok(outcome.kept)
}
