//! `corelog bench` as a newcomer runs it, with a broker of its own, only shorter: what it leaves behind and what not.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::broker::Broker;

/// An empty directory on a real file system, beside the binary.
fn place() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

/// A small bench in this directory. Without `--growing` it would first write its log of 2 GiB once over.
fn bench(place: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
    command.args(["bench", "--record-size", "100", "--batch-bytes", "4096", "--report", "report"]);
    command.args(["--producers", "2", "--consumers", "2", "--partitions", "2"]);
    command.args(more).current_dir(place);
    command
}

/// Names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it is there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("readable").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

/// The processes that were started with this in their arguments.
fn processes_with(argument: &str) -> Vec<String> {
    let numbers = names(Path::new("/proc")).into_iter().filter(|name| name.parse::<u32>().is_ok());
    // One that ends meanwhile has none.
    let arguments = |pid: &String| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    numbers.filter(|pid| String::from_utf8_lossy(&arguments(pid)).contains(argument)).collect()
}

const REPORT: [&str; 3] = ["latency.hlog", "report.json", "report.txt"];

#[test]
fn a_bench_with_its_own_broker_leaves_a_report_and_nothing_else() {
    let place = place();
    let own = ["--growing", "--rate", "2000", "--duration", "1s", "--baseline", "200ms", "--format", "json"];
    let output = bench(place.path(), &own).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(document["schema"], "corelog.bench/1");
    assert_eq!((&document["check"]["lost"], &document["check"]["duplicated"]), (&0.into(), &0.into()));
    assert!(document["check"]["verified"].as_u64().is_some_and(|count| count > 1_000), "{document}");
    assert!(
        document["device"]["durable_write_4k_us"]["p50"].as_f64().is_some_and(|us| us > 0.0),
        "{document}"
    );

    assert_eq!(names(place.path()), ["report"], "the data is gone");
    let report = place.path().join("report");
    let files = names(&report);
    assert!(REPORT.iter().all(|name| files.iter().any(|file| file == name)), "{files:?}");
    assert!(files.iter().any(|file| file.ends_with(".hgrm")), "{files:?}");
    for file in &files {
        assert!(fs::metadata(report.join(file)).expect("it is there").len() > 0, "{file}");
    }
    let written: Value =
        serde_json::from_slice(&fs::read(report.join("report.json")).expect("readable")).expect("a document");
    assert_eq!(written, document, "what is printed is what is written");
    let text = fs::read_to_string(report.join("report.txt")).expect("text");
    assert!(text.contains("p99") && text.contains("end to end"), "{text}");
}

#[test]
fn a_bench_of_another_broker_measures_no_device() {
    let (place, broker) = (place(), Broker::start(&[]));
    let other = ["--server", &broker.address, "--rate", "max", "--records", "2000", "--format", "json"];
    let output = bench(place.path(), &other).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!((&document["device"], &document["check"]["verified"]), (&Value::Null, &2_000.into()));
    assert_eq!(names(place.path()), ["report"]);
}

#[test]
fn an_interrupted_bench_fails_and_takes_its_broker_and_its_data_with_it() {
    let place = place();
    let own = ["--growing", "--duration", "2s", "--no-baselines"];
    let mut child =
        bench(place.path(), &own).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said =
        BufReader::new(child.stderr.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    // Once saturation is over it has an open loop before it, as long again.
    said.find(|line| line.contains("saturation")).expect("it says when a phase is over");
    let data = names(place.path());
    assert!(matches!(&data[..], [only] if only.starts_with("corelog-bench-")), "{data:?}");
    assert_eq!(processes_with(&data[0]).len(), 1, "its broker");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("a process id");
    kill_process(pid, Signal::INT).expect("it runs");
    assert_eq!(child.wait().expect("a child").code(), Some(1));
    let said: Vec<String> = said.collect();
    for part in ["error[INTERRUPTED]: the bench came to no result", "cause: a signal came", "help: "] {
        assert!(said.iter().any(|line| line.starts_with(part)), "{part} in {said:?}");
    }
    assert_eq!(names(place.path()), Vec::<String>::new());
    assert_eq!(processes_with(&data[0]), Vec::<String>::new());
}
