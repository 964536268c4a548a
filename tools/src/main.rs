//! The corelog binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    corelog_tools::run(std::env::args_os())
}
