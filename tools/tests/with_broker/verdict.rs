//! What `corelog bench` says of a run, and when that is a failure.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::broker::{Broker, SMALL};

/// Runs a bench in `place`, where its report goes.
fn bench(place: &Path, arguments: &[&str], cap: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
    command.args(["bench", "--format", "json", "--report", "report", "--rate", "max"]).args(arguments);
    if let Some(cap) = cap {
        command.env("CORELOG_LOG_RETENTION_BYTES", cap);
    }
    command.current_dir(place).output().expect("the binary runs")
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn results(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("one document: {}", message(output)))
}

#[test]
fn every_run_has_a_seed_of_its_own_unless_it_is_given_one() {
    let broker = Broker::start(&[]);
    let place = tempfile::tempdir().expect("a temporary directory");
    let seed = |more: &[&str]| {
        let arguments = ["--server", &broker.address, "--records", "1000", "--record-size", "100"];
        let output = bench(place.path(), &[&arguments[..], more].concat(), None);
        assert!(output.status.success(), "{}", message(&output));
        results(&output)["workload"]["seed"].as_u64().expect("a number")
    };
    assert_ne!(seed(&[]), seed(&[]));
    assert_eq!(seed(&["--seed", "42"]), 42);
}

/// The cap comes from the environment, of which the bench knows nothing: for it the log only grows, and something in
/// the broker has recycled what it should not.
#[test]
fn records_that_expire_in_a_log_that_only_grows_fail_the_bench() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let mut arguments = vec!["--growing", "--no-baselines", "--consumers", "0", "--mode", "park"];
    arguments.extend(["--records", "100000", "--record-size", "1000"]);
    arguments.extend(SMALL.iter().flat_map(|setting| ["--set", *setting]));
    let output = bench(place.path(), &arguments, Some("64 MiB"));
    assert_eq!(output.status.code(), Some(1), "{}", message(&output));
    let results = results(&output);
    let check = &results["check"];
    assert!(check["expired"].as_u64() > Some(0) && check["lost"] == 0, "{check}");
    assert_eq!(results["workload"]["capped"], false);
    assert!(message(&output).contains("records expired in a log without a cap"), "{}", message(&output));
    let report = std::fs::read_to_string(place.path().join("report/report.txt")).expect("a report");
    assert!(report.contains("FAILED") && report.contains("a log without a cap"), "{report}");
}
