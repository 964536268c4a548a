//! `corelog bench`, as a user would run it.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use corelog_load::results::Results;

use crate::budget::Run;
use crate::child;
use crate::measure::of_bench;
use crate::place::Place;
use crate::sample::Sample;

/// The disk baseline of a quick run.
const QUICK_BASELINE: &str = "1s";

pub(super) fn measure(run: &Run, place: &Place) -> io::Result<Sample> {
    let results = bench(run, place, None)?;
    Ok(of_bench(&results))
}

/// Runs the bench of `run`, with a broker of its own or the one at `server`.
pub(super) fn bench(run: &Run, place: &Place, server: Option<SocketAddr>) -> io::Result<Results> {
    let mut command = Command::new(&place.corelog);
    command.args(["bench", "--format", "json", "--report", "report"]).args(&run.bench);
    match run.records {
        Some(records) => command.args(["--records", &records.to_string()]),
        None => command.args(["--duration", &format!("{}s", run.seconds)]),
    };
    match server {
        Some(server) => {
            command.args(["--server", &server.to_string()]);
        }
        None if place.quick => {
            command.args(["--baseline", QUICK_BASELINE]);
        }
        None => {}
    }
    command.current_dir(place.path()).stderr(Stdio::inherit());
    let output = child::output(command, &place.interrupt)?;
    if !output.status.success() {
        return Err(io::Error::other(format!("corelog bench ended with {}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(io::Error::other)
}
