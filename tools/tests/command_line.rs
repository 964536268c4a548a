//! The binary as a user meets it without a broker: what it prints where, and what it ends with.

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

fn corelog(arguments: &[&str]) -> Output {
    corelog_in(Path::new("."), arguments)
}

fn corelog_in(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_corelog"))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// The parts of an error message, in order; panics when it has another form.
fn parts(output: &Output) -> (String, String) {
    let message = text(&output.stderr);
    let first = message.lines().next().expect("a first line");
    let rest = first.strip_prefix("error[").expect("it begins with the code");
    let (code, what) = rest.split_once("]: ").expect("the code ends");
    assert!(
        message
            .lines()
            .skip(1)
            .all(|line| { ["cause: ", "       ", "help: "].iter().any(|start| line.starts_with(start)) }),
        "{message}"
    );
    assert_eq!(message.matches("help: ").count(), 1, "{message}");
    assert!(message.lines().last().is_some_and(|line| line.len() > "help: ".len()), "{message}");
    (code.to_owned(), what.to_owned())
}

/// A port of this machine that nobody listens on: it was free a moment ago.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

#[test]
fn a_wrong_call_is_a_usage_error_with_code_2_and_nothing_on_standard_output() {
    let cases: [&[&str]; 16] = [
        &[],
        &["fly"],
        &["topic"],
        &["topic", "create"],
        &["topic", "create", "t", "--partitions", "0"],
        &["topic", "create", "t", "--durability", "maybe"],
        &["topic", "alter", "t"],
        &["topic", "alter", "--partitions", "3"],
        &["topic", "alter", "t", "--partitions", "0"],
        &["topic", "alter", "t", "--durability", "maybe"],
        &["produce", "t", "--key-field", "a", "--key-separator", "b"],
        &["produce", "t", "--header", "novalue"],
        &["consume", "t", "--from", "middle"],
        &["bench", "--records", "5", "--duration", "5s"],
        &["bench", "--rate", "fast"],
        &["bench", "--server", "127.0.0.1:1", "--growing"],
    ];
    for arguments in cases {
        let output = corelog(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert_eq!(parts(&output).0, "USAGE", "{arguments:?}");
    }
}

#[test]
fn a_bench_that_makes_no_sense_is_refused_before_anything_starts() {
    for arguments in [&["bench", "--record-size", "8"], &["bench", "--producers", "0"]] {
        let output = corelog(arguments);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert_eq!(parts(&output).0, "USAGE");
    }
}

#[test]
fn an_unknown_key_variable_or_value_stops_the_start_and_is_named() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let output = corelog_in(place.path(), &["serve", "--set", "log.colour=red"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert_eq!(parts(&output).0, "CONFIG");
    assert!(text(&output.stderr).contains("log.colour"));

    let output = corelog_in(place.path(), &["serve", "--set", "server.mode=dream"]);
    assert!(text(&output.stderr).contains("server.mode") && text(&output.stderr).contains("dream"));

    let output = Command::new(env!("CARGO_BIN_EXE_corelog"))
        .arg("serve")
        .env("CORELOG_SERVER_COLOUR", "red")
        .current_dir(place.path())
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("CORELOG_SERVER_COLOUR"));
    assert_eq!(std::fs::read_dir(place.path()).expect("readable").count(), 0, "no store was made");
}

#[test]
fn without_a_broker_every_client_command_ends_with_4() {
    let server = closed_port();
    let cases: [&[&str]; 7] = [
        &["topic", "list"],
        &["topic", "create", "t"],
        &["topic", "describe", "t"],
        &["topic", "alter", "t", "--partitions", "2"],
        &["topic", "delete", "t"],
        &["produce", "t"],
        &["consume", "t"],
    ];
    for arguments in cases {
        let output = corelog(&[arguments, &["--server", &server]].concat());
        assert_eq!(output.status.code(), Some(4), "{arguments:?}: {}", text(&output.stderr));
        assert_eq!(parts(&output).0, "UNREACHABLE");
        assert!(text(&output.stderr).contains("help: start a broker"));
    }
}

#[test]
fn with_format_json_an_error_is_a_document_on_standard_error() {
    for arguments in [&["topic", "fly", "--format", "json"][..], &["--format=json", "topic", "fly"]] {
        let output = corelog(arguments);
        assert!(output.stdout.is_empty());
        let document: serde_json::Value = serde_json::from_slice(&output.stderr).expect("one document");
        assert_eq!(document["error"]["code"], "USAGE");
    }
}

#[test]
fn a_missing_file_or_store_is_not_found() {
    let output = corelog(&["produce", "t", "--file", "/nonexistent/records"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let place = tempfile::tempdir().expect("a temporary directory");
    let output = corelog_in(place.path(), &["log", "dump", "."]);
    assert_eq!((output.status.code(), parts(&output).0.as_str()), (Some(3), "NO_STORE"));
}

#[test]
fn the_default_configuration_is_printed_and_accepted() {
    let output = corelog(&["config", "default"]);
    assert!(output.status.success());
    let config = text(&output.stdout);
    for section in ["[server]", "[log]", "[memory]", "[limits]", "[probe]"] {
        assert!(config.contains(section), "{section}");
    }
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("corelog.toml");
    std::fs::write(&file, config).expect("written");
    // A mistake after the file shows that the file itself was taken.
    let path = file.to_str().expect("text");
    let output = corelog_in(place.path(), &["serve", "--config", path, "--set", "log.colour=red"]);
    assert!(text(&output.stderr).contains("log.colour"), "{}", text(&output.stderr));
}

#[test]
fn help_and_version_go_to_standard_output() {
    for arguments in [&["--help"][..], &["--version"], &["bench", "--help"]] {
        let output = corelog(arguments);
        assert!(output.status.success());
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
}

/// Also while nothing has come of it yet: nobody waits for a server that says nothing.
#[test]
fn a_signal_ends_consume_in_order_before_its_first_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("an address").to_string();
    for signal in [Signal::INT, Signal::TERM] {
        let begun = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_corelog"))
            .args(["consume", "t", "--server", &address])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        // It listens to signals before it connects.
        let (mut peer, _) = silent.accept().expect("it connects");
        peer.read_exact(&mut [0]).expect("it says Hello");
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        let status = child.wait().expect("a child");
        assert!(status.success(), "{status}");
        assert!(begun.elapsed() < Duration::from_secs(5), "it waits for nothing: {:?}", begun.elapsed());
        let output = child.wait_with_output().expect("its output");
        assert_eq!((text(&output.stdout), text(&output.stderr)), ("", ""));
    }
}
