//! What `corelog bench` says of a run, and when that is a failure.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use corelog_load::{Interrupt, Length, OwnBroker, Pace, Placement, Which, Workload};
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

/// 100 MB in small extents, of which a cap of 64 MiB would leave some.
const MORE_THAN_THE_CAP: u64 = 100_000;

/// A broker that recycles although it was told not to: what the bench starts in the place of a sound one.
fn disobedient(place: &Path) -> PathBuf {
    let path = place.join("disobedient");
    let script =
        format!("exec '{}' \"$@\" --set 'log.retention_bytes=64 MiB'", env!("CARGO_BIN_EXE_corelog"));
    // Written by another process: as long as one of this process's children had it open it could not be run.
    let write = r#"printf '#!/bin/sh\n%s\n' "$2" > "$1" && chmod +x "$1""#;
    let written = Command::new("sh").args(["-c", write, "sh"]).arg(&path).arg(script).status();
    assert!(written.expect("a shell").success());
    path
}

#[test]
fn records_that_expire_in_a_log_that_only_grows_fail_the_bench() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let own = OwnBroker {
        program: disobedient(place.path()),
        directory: place.path().to_path_buf(),
        mode: "park".to_owned(),
        shards: 1,
        netns: false,
        growing: true,
        set: SMALL.map(str::to_owned).to_vec(),
        baseline: None,
    };
    let workload = Workload {
        length: Length::Records(MORE_THAN_THE_CAP),
        pace: Pace::Saturation,
        consumers: 0,
        ..Workload::default()
    };
    let unpinned = Placement::default();
    let run =
        corelog_load::bench(&workload, &Which::Own(own), &unpinned, &mut Interrupt::never(), &mut |_| {})
            .unwrap_or_else(|error| panic!("{error}"));
    let (results, check) = (&run.results, &run.results.check);
    assert!(check.expired > 0 && check.lost == 0, "{check:?}");
    assert_eq!((results.workload.capped, results.passed()), (Some(false), false));
    assert_eq!(results.wrongly_expired(), check.expired);
    let report = corelog_load::table(results);
    assert!(report.contains("FAILED") && report.contains("a log without a cap"), "{report}");
}

/// Growing means that there is no cap, so one that lies in the environment is not the bench's.
#[test]
fn a_cap_in_the_environment_takes_nothing_from_a_log_that_only_grows() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let records = MORE_THAN_THE_CAP.to_string();
    let mut arguments = vec!["--growing", "--no-baselines", "--consumers", "0", "--mode", "park"];
    arguments.extend(["--records", &records, "--record-size", "1000"]);
    arguments.extend(SMALL.iter().flat_map(|setting| ["--set", *setting]));
    let output = bench(place.path(), &arguments, Some("64 MiB"));
    assert!(output.status.success(), "{}", message(&output));
    let results = results(&output);
    assert_eq!(
        (&results["check"]["verified"], &results["check"]["expired"]),
        (&MORE_THAN_THE_CAP.into(), &0.into())
    );
    assert_eq!(results["workload"]["capped"], false);
}

/// As many records are acknowledged and verified over one connection as over two hundred.
#[test]
fn the_number_of_connections_is_reported_and_changes_no_record() {
    let broker = Broker::start(&[]);
    let place = tempfile::tempdir().expect("a temporary directory");
    for (connections, producers, read) in [("1", 4, 1), ("8", 8, 4), ("200", 200, 4)] {
        let arguments = ["--server", &broker.address, "--records", "20000", "--record-size", "100"];
        let output = bench(place.path(), &[&arguments[..], &["--connections", connections]].concat(), None);
        assert!(output.status.success(), "{}", message(&output));
        let Value::Object(results) = results(&output) else { panic!("a document") };
        let (workload, check) = (&results["workload"], &results["check"]);
        assert_eq!((&check["acknowledged"], &check["verified"]), (&20_000.into(), &20_000.into()), "{check}");
        let said = ["producers", "producer_connections", "consumers", "consumer_connections"]
            .map(|name| workload[name].as_u64().expect("a number"));
        assert_eq!(said, [producers, connections.parse().expect("a number"), 4, read]);
    }
    let arguments = ["--server", &broker.address, "--producers", "4", "--connections", "17"];
    let output = bench(place.path(), &arguments, None);
    assert_eq!(output.status.code(), Some(2), "{}", message(&output));
    assert!(message(&output).contains("more producers or partitions"), "{}", message(&output));
}
