//! `corelog bench` as a newcomer runs it, with a broker of its own, only shorter: what it leaves behind and what not.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use corelog_uring::affinity;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::broker::Broker;

/// An empty directory on a real file system, beside the binary.
pub(crate) fn place() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

/// A small bench in this directory. Without `--growing` it would first write its log of 2 GiB once over.
pub(crate) fn bench(place: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
    command.args(["bench", "--record-size", "100", "--batch-bytes", "4096", "--report", "report"]);
    command.args(["--producers", "2", "--consumers", "2", "--partitions", "2"]);
    command.args(more).current_dir(place);
    command
}

/// Names in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it is there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("readable").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

/// The processes that were started with this in their arguments.
pub(crate) fn processes_with(argument: &str) -> Vec<String> {
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

    let machine = &document["machine"];
    assert_eq!(machine["network"], "loopback", "{machine}");
    for side in ["broker", "load"] {
        let (first, all) = (&machine[format!("{side}_core")], &machine[format!("{side}_cores")]);
        assert!(first.is_u64() && all.as_array().is_some_and(|all| all.contains(first)), "{machine}");
    }

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
fn the_cores_of_both_sides_can_be_chosen_and_are_reported() {
    let place = place();
    let core = affinity::cores()[0];
    let one = format!("{core}-{core}");
    let own = ["--growing", "--rate", "2000", "--duration", "1s", "--no-baselines", "--format", "json"];
    let cores = ["--cpus", &one, "--load-cpus", &one, "--set", "probe.mode=off"];
    let output = bench(place.path(), &[&own[..], &cores].concat()).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    let machine = &document["machine"];
    let one = Value::from(vec![core]);
    assert_eq!((&machine["broker_cores"], &machine["load_cores"]), (&one, &one), "{machine}");
    assert_eq!(machine["shared"], "cores", "{machine}");
    let report = fs::read_to_string(place.path().join("report/report.txt")).expect("text");
    assert!(report.contains(&format!("load on core {core}, shared with the broker")), "{report}");
    let refused = bench(place.path(), &["--growing", "--load-cpus", "8000-8000"]).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("error[USAGE]: the load has no such cores") && said.contains("8000"), "{said}");
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

/// A bench that runs: its saturation is over, and an open loop as long again is before it.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// The name of its data directory.
    pub(crate) data: String,
    /// The process of its broker.
    pub(crate) broker: String,
    said: Lines<BufReader<ChildStderr>>,
}

impl Running {
    pub(crate) fn start(place: &Path, more: &[&str]) -> Self {
        let own = ["--growing", "--duration", "2s", "--no-baselines", "--set", "probe.mode=off"];
        let mut command = bench(place, &[&own[..], more].concat());
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let over = said.find(|line| line.as_ref().is_ok_and(|line| line.contains("saturation")));
        assert!(over.is_some(), "it says when a phase is over");
        let data = names(place);
        let [data] = &data[..] else { panic!("{data:?}") };
        assert!(data.starts_with("corelog-bench-"), "{data}");
        let brokers = processes_with(data);
        let [broker] = &brokers[..] else { panic!("{brokers:?}") };
        Self { child, data: data.clone(), broker: broker.clone(), said }
    }

    /// Its end, with what it said before.
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<String>) {
        let code = self.child.wait().expect("a child").code();
        (code, self.said.map(|line| line.expect("text")).collect())
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(process: &str, signal: Signal) {
    let pid = Pid::from_raw(process.parse().expect("a process id")).expect("a process id");
    kill_process(pid, signal).expect("it runs");
}

#[track_caller]
pub(crate) fn assert_says(said: &[String], parts: [&str; 3]) {
    for part in parts {
        assert!(said.iter().any(|line| line.starts_with(part)), "{part} in {said:?}");
    }
}

#[test]
fn a_bench_whose_broker_dies_fails_at_once_and_takes_its_data_with_it() {
    let place = place();
    let running = Running::start(place.path(), &[]);
    let begun = Instant::now();
    signal(&running.broker, Signal::KILL);
    let (code, said) = running.end();
    assert!(begun.elapsed() < Duration::from_secs(60), "long before its records would expire");
    assert_eq!(code, Some(1), "{said:?}");
    let cause = "cause: the broker ended in the middle of the run";
    assert_says(&said, ["error[BROKER]: the bench came to no result", cause, "help: "]);
    assert_eq!(names(place.path()), Vec::<String>::new());
}

#[test]
fn an_interrupted_bench_fails_and_takes_its_broker_and_its_data_with_it() {
    let place = place();
    let running = Running::start(place.path(), &[]);
    let data = running.data.clone();
    signal(&running.child.id().to_string(), Signal::INT);
    let (code, said) = running.end();
    assert_eq!(code, Some(1));
    assert_says(&said, ["error[INTERRUPTED]: the bench came to no result", "cause: a signal came", "help: "]);
    assert_eq!(names(place.path()), Vec::<String>::new());
    assert_eq!(processes_with(&data), Vec::<String>::new());
}
