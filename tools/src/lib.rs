//! What the binaries of this folder are made of, so that it can be tested.
//!
//! `corelog`: [`cli`] is the command line, `command` has one file per subcommand, [`failure`] is how errors look
//! and what the process ends with, [`output`] is standard output. [`tidy`] is the other binary.
//!
//! **Invariants:** data goes to standard output, all else to standard error; a command returns, it never ends the
//! process itself, so that what it holds is given back.
#![forbid(unsafe_code)]

pub mod cli;
mod command;
pub mod failure;
mod lines;
pub mod output;
pub mod tidy;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Format};

/// The whole of `corelog`: parses `arguments`, the program's name first, and runs the command.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let failure = failure::from_clap(&error);
            failure.print(asked_format(&arguments));
            return failure.exit.into();
        }
        // Help and version are what was asked for.
        Err(error) => return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
    };
    let format = cli.format;
    match command::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(format);
            failure.exit.into()
        }
    }
}

/// The format of a command line that cannot be parsed.
fn asked_format(arguments: &[OsString]) -> Format {
    let is_json = |pair: &[OsString]| pair[0] == "--format" && pair[1] == "json";
    let json =
        arguments.windows(2).any(is_json) || arguments.iter().any(|argument| argument == "--format=json");
    if json { Format::Json } else { Format::Text }
}
