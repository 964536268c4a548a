//! `cargo run -p corelog-tests --release -- soak`: simulated storms, crash images and rows of requests, as many as there is
//! time for, and a table of what was done. `soak --mutants` puts known bugs back and demands that each is caught.
//!
//! What fails may abort the process, so the work is done by children of this one (`work`): a child that dies has found
//! something, and names the command that repeats it.
#![forbid(unsafe_code)]

mod mutants;
mod soak;
mod work;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Tests that last as long as they are let.
#[derive(Debug, Parser)]
#[command(name = "corelog-tests")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs storms, crash images and rows of requests; ends with 1 when a promise is broken.
    Soak(Soak),
    /// Does some of it in this process: what a failure names.
    Work {
        /// Of what.
        #[arg(value_enum)]
        kind: work::Kind,
        /// The first number.
        from: u64,
        /// The number behind the last one.
        to: u64,
    },
}

/// How much.
#[derive(Clone, Debug, Args)]
struct Soak {
    /// Storms of the simulator, and rows of requests.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    seeds: u64,
    /// Crash images, at least.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    images: u64,
    /// Stop after so many minutes, whatever is done by then.
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// The first seed.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Put known bugs back instead, one at a time, and count the seeds until each is caught.
    #[arg(long)]
    mutants: bool,
    /// Of the known bugs only those whose names contain this word; may be given more than once.
    #[arg(long, value_name = "WORD", requires = "mutants")]
    only: Vec<String>,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Soak(asked) if asked.mutants => mutants::run(&asked.only),
        Command::Soak(asked) => soak::run(&asked),
        Command::Work { kind, from, to } => work::run(kind, from..to),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error[SOAK]: it could not run\ncause: {error}");
            ExitCode::from(1)
        }
    }
}
