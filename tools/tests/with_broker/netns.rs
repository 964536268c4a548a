//! `corelog bench --netns`: broker and load are in two networks, and nothing is left of these however the run ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::bench::{Running, assert_says, bench, names, place, processes_with, signal};
use crate::skip::skipped;

/// Far longer than a broker takes to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether there can be namespaces here; if not, why.
fn can() -> bool {
    let probe = format!("corelog-test-{}", std::process::id());
    let made = ip(&["netns", "add", &probe]);
    if made {
        assert!(ip(&["netns", "delete", &probe]));
    } else {
        skipped("only root, with iproute2, makes network namespaces");
    }
    made
}

/// A short bench in two networks, with a broker of its own.
fn bench_between(place: &Path, more: &[&str]) -> Command {
    let mut command = bench(place, &["--netns", "--growing", "--rate", "2000", "--duration", "1s"]);
    command.args(["--set", "probe.mode=off"]).args(more);
    command
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The names of network namespaces that belong to this process.
fn names_of(process: u32) -> Vec<String> {
    let output = Command::new("ip").args(["netns", "list"]).output().expect("it is installed");
    let text = String::from_utf8(output.stdout).expect("text");
    let first = text.lines().filter_map(|line| line.split(' ').next());
    first.filter(|name| name.starts_with(&format!("corelog-bench-{process}-"))).map(str::to_owned).collect()
}

/// The network that a process is in; `None` when it is gone.
fn network_of(process: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/{process}/ns/net")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// All processes of these networks.
fn processes_in(networks: &[String]) -> Vec<String> {
    let processes = names(Path::new("/proc")).into_iter().filter(|name| name.parse::<u32>().is_ok());
    processes.filter(|process| network_of(process).is_some_and(|of| networks.contains(&of))).collect()
}

#[test]
fn a_run_in_two_networks_says_so_and_measures_the_way_between_them() {
    if !can() {
        return;
    }
    let place = place();
    let own = ["--baseline", "200ms", "--set", "server.http=127.0.0.1:0", "--format", "json"];
    let child = bench_between(place.path(), &own)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let process = child.id();
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", said(&output));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(document["machine"]["network"], "netns (veth)");
    assert!(document["machine"]["broker_ready"].as_str().is_some_and(|line| line.contains(" 10.107.0.1:")));
    assert!(document["device"]["tcp_bytes_per_second"].as_f64() > Some(1e7), "{}", document["device"]);
    assert!(document["check"]["verified"].as_u64() > Some(1_000), "{}", document["check"]);
    let report = fs::read_to_string(place.path().join("report/report.txt")).expect("text");
    assert!(report.contains("network: netns (veth)"), "{report}");
    assert_eq!(names_of(process), Vec::<String>::new());
    assert_eq!(names(place.path()), ["report"]);
}

/// Each of the three that can end a run, by itself.
#[test]
fn whatever_ends_a_run_nothing_is_left_of_its_networks() {
    if !can() {
        return;
    }
    let here = network_of("self").expect("we run");
    for (signalled, by) in [("bench", Signal::INT), ("bench", Signal::KILL), ("broker", Signal::KILL)] {
        let place = place();
        let running = Running::start(place.path(), &["--netns"]);
        let (process, data) = (running.child.id(), running.data.clone());
        let networks =
            [process.to_string(), running.broker.clone()].map(|of| network_of(&of).expect("it runs"));
        assert!(networks[0] != networks[1] && !networks.contains(&here), "{here} {networks:?}");
        let devices = fs::read_to_string(format!("/proc/{}/net/dev", running.broker)).expect("it runs");
        assert!(devices.contains("corelog0:"), "{devices}");

        let victim = if signalled == "bench" { process.to_string() } else { running.broker.clone() };
        signal(&victim, by);
        let (code, said) = running.end();
        assert_ne!(code, Some(0), "{said:?}");
        // A broker whose bench was killed still writes its last frames.
        let begun = Instant::now();
        while !processes_with(&data).is_empty() && begun.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        assert_eq!(processes_with(&data), Vec::<String>::new(), "{signalled} by {by:?}");
        assert_eq!(names_of(process), Vec::<String>::new(), "{signalled} by {by:?}");
        assert_eq!(processes_in(&networks), Vec::<String>::new(), "{signalled} by {by:?}");
        // A bench that was killed cannot remove its data.
        assert_eq!(names(place.path()).is_empty(), by != Signal::KILL || signalled == "broker");
    }
}

#[test]
fn what_a_killed_run_has_left_behind_is_removed_by_the_next_and_what_lives_is_not() {
    if !can() {
        return;
    }
    // A process that is over, and whose number is not given out again so soon.
    let mut over = Command::new("true").spawn().expect("it starts");
    assert!(over.wait().expect("a child").success());
    let left = format!("corelog-bench-{}-0a1b2c-load", over.id());
    let living = format!("corelog-bench-{}-0a1b2c-load", std::process::id());
    assert!(ip(&["netns", "add", &left]) && ip(&["netns", "add", &living]));
    let place = place();
    let output = bench_between(place.path(), &["--no-baselines"]).output().expect("the binary runs");
    let (left, living) = (names_of(over.id()), (names_of(std::process::id()), living));
    assert!(ip(&["netns", "delete", &living.1]));
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((left, living.0), (vec![], vec![living.1]));
}

/// Without the right, or without `ip`: what to do, and the exit code of a wrong call.
#[test]
fn where_there_can_be_no_networks_it_says_what_is_missing() {
    let place = place();
    let plain = bench(place.path(), &["--netns", "--growing"]);
    let mut refused = Command::new("setpriv");
    refused.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]).arg(plain.get_program());
    let mut refused = if rustix::process::geteuid().is_root() {
        refused.args(plain.get_args()).current_dir(place.path());
        refused
    } else {
        plain
    };
    let output = refused.output().expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let lines: Vec<String> = said(&output).lines().map(str::to_owned).collect();
    let cause = "cause: network namespaces take CAP_NET_ADMIN and CAP_SYS_ADMIN";
    assert_says(&lines, ["error[NETNS]: the bench came to no result", cause, "help: run it as root"]);

    if can() {
        let mut without = bench(place.path(), &["--netns", "--growing"]);
        let output = without.env("PATH", place.path()).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        let lines: Vec<String> = said(&output).lines().map(str::to_owned).collect();
        let cause = "cause: network namespaces take `ip`, which is not installed";
        assert_says(&lines, ["error[NETNS]: the bench came to no result", cause, "help: install iproute2"]);
    }
    assert_eq!(names(place.path()), Vec::<String>::new());
}
