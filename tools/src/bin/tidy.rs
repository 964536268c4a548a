//! `tidy [ROOT]` checks the tree against the rules of [`corelog_tools::tidy`]: prints what breaks them and exits 1.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let here = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let root = std::env::args_os().nth(1).map_or_else(here, PathBuf::from);
    match corelog_tools::tidy::check(&root) {
        Err(error) => {
            eprintln!("error[IO]: the tree cannot be read: {error}");
            ExitCode::from(1)
        }
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            for finding in &findings {
                println!("{finding}");
            }
            eprintln!("error[TIDY]: {} rules broken", findings.len());
            ExitCode::from(1)
        }
    }
}
