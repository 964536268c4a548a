//! Named positions by the command line: `consume --as` goes on where it ended, and `position` shows, sets and forgets.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::broker::Broker;

struct Corelog<'a>(&'a Broker);

impl Corelog<'_> {
    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_corelog"))
            .args(arguments)
            .args(["--server", &self.0.address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends")
    }

    /// Standard output of a command that succeeds.
    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, "");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Standard error of a command that fails with this exit code.
    #[track_caller]
    fn fails(&self, exit: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments, "");
        let text = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {text}");
        text
    }

    #[track_caller]
    fn produce(&self, topic: &str, partition: u32, lines: &str) {
        let output = self.run(&["produce", topic, "--partition", &partition.to_string()], lines);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What `position` shows: name, topic, partition, offset, high watermark, lag.
    #[track_caller]
    fn rows(&self, arguments: &[&str]) -> Vec<(String, String, u64, u64, u64, u64)> {
        let document: Value = serde_json::from_str(&self.ok(arguments)).expect("one document");
        let row = |row: &Value| {
            let number = |name: &str| row[name].as_u64().expect("a number");
            let text = |name: &str| row[name].as_str().expect("text").to_owned();
            assert!(number("commit_timestamp_us") > 1_700_000_000_000_000, "{row}");
            let (offset, end, lag) = (number("offset"), number("high_watermark"), number("lag"));
            (text("name"), text("topic"), number("partition"), offset, end, lag)
        };
        document["positions"].as_array().expect("a list").iter().map(row).collect()
    }

    #[track_caller]
    fn listed(&self) -> Vec<(String, String, u64, u64, u64, u64)> {
        self.rows(&["position", "list", "--format", "json"])
    }
}

fn row(name: &str, topic: &str, numbers: [u64; 4]) -> (String, String, u64, u64, u64, u64) {
    let [partition, offset, end, lag] = numbers;
    (name.to_owned(), topic.to_owned(), partition, offset, end, lag)
}

#[test]
fn a_name_goes_on_after_the_last_record_that_was_printed() {
    let broker = Broker::start(&["server.shards=2"]);
    let corelog = Corelog(&broker);
    corelog.ok(&["topic", "create", "t", "--partitions", "2"]);
    corelog.produce("t", 0, "a\nb\nc\n");
    corelog.produce("t", 1, "d\n");

    let one = ["consume", "t", "--as", "x", "--partition", "0", "--count", "1"];
    assert_eq!(corelog.ok(&one), "a\n", "in the middle of a batch");
    assert_eq!(corelog.listed(), [row("x", "t", [0, 1, 3, 2])]);
    assert_eq!(corelog.ok(&one), "b\n");
    let rest = ["consume", "t", "--as", "x", "--until-end"];
    let mut lines: Vec<_> = corelog.ok(&rest).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["c", "d"]);
    assert_eq!(corelog.ok(&rest), "", "nothing comes twice");
    corelog.produce("t", 1, "e\n");
    assert_eq!(corelog.ok(&rest), "e\n");
    assert_eq!(corelog.ok(&["consume", "t", "--as", "y", "--partition", "1", "--until-end"]), "d\ne\n");
    let expected = [row("x", "t", [0, 3, 3, 0]), row("x", "t", [1, 2, 2, 0]), row("y", "t", [1, 2, 2, 0])];
    assert_eq!(corelog.listed(), expected);

    // A name that began at the end has missed nothing that came after that.
    assert_eq!(corelog.ok(&["consume", "t", "--as", "late", "--from", "end", "--until-end"]), "");
    corelog.produce("t", 0, "f\n");
    assert_eq!(corelog.ok(&["consume", "t", "--as", "late", "--from", "end", "--until-end"]), "f\n");
    let fails = corelog.fails(2, &["consume", "t", "--as", ""]);
    assert!(fails.contains("1 to 255 bytes"), "{fails}");
}

/// An offset or a time that a name begins with is where it begins, however often it is started before its first record.
#[test]
fn where_a_name_begins_counts_until_it_has_a_position() {
    let broker = Broker::start(&[]);
    let corelog = Corelog(&broker);
    corelog.ok(&["topic", "create", "t", "--partitions", "2"]);
    corelog.produce("t", 0, "a\nb\n");
    let from_two = ["consume", "t", "--as", "x", "--from", "2", "--until-end"];
    assert_eq!(corelog.ok(&from_two), "");
    corelog.produce("t", 0, "c\n");
    corelog.produce("t", 1, "d\n");
    assert_eq!(corelog.ok(&from_two), "c\n", "partition 1 has not come there");
    assert_eq!(corelog.listed(), [row("x", "t", [0, 3, 3, 0])]);
    corelog.produce("t", 1, "e\nf\n");
    assert_eq!(corelog.ok(&from_two), "f\n");
    let from_time = ["consume", "t", "--as", "y", "--from", "@99999999999", "--until-end"];
    assert_eq!(corelog.ok(&from_time), "");
    assert_eq!(corelog.listed().len(), 2, "nothing of y yet");
}

#[test]
fn positions_are_shown_set_and_forgotten() {
    let broker = Broker::start(&["server.shards=2", "server.ports=one"]);
    let corelog = Corelog(&broker);
    corelog.ok(&["topic", "create", "orders", "--partitions", "3"]);
    corelog.ok(&["topic", "create", "other"]);
    for partition in 0..3 {
        corelog.produce("orders", partition, "a\nb\n");
    }
    assert_eq!(corelog.listed(), []);
    let none = corelog.fails(3, &["position", "get", "billing", "orders"]);
    assert!(none.starts_with("error[UNKNOWN_POSITION]: the positions of billing in orders"), "{none}");
    assert!(corelog.fails(3, &["position", "get", "billing", "nobody"]).contains("UNKNOWN_TOPIC"));

    let reset = |to: &str, more: &[&str]| {
        let words = ["position", "reset", "billing", "orders", "--to", to, "--format", "json"];
        corelog.rows(&[&words[..], more].concat())
    };
    let all =
        |offset| (0..3).map(|at| row("billing", "orders", [at, offset, 2, 2 - offset])).collect::<Vec<_>>();
    assert_eq!(reset("end", &[]), all(2));
    assert_eq!(reset("start", &[]), all(0));
    assert_eq!(reset("@0", &[]), all(0));
    assert_eq!(reset("1", &["--partition", "2"]), all(1)[2..]);
    let beyond = ["position", "reset", "billing", "orders", "--to", "3"];
    assert!(corelog.fails(1, &beyond).starts_with("error[OFFSET_OUT_OF_RANGE]"));
    let absent = ["position", "reset", "billing", "orders", "--to", "end", "--partition", "3"];
    assert!(corelog.fails(3, &absent).starts_with("error[UNKNOWN_PARTITION]"));
    assert_eq!(
        corelog.ok(&["consume", "orders", "--as", "billing", "--partition", "2", "--until-end"]),
        "b\n"
    );

    corelog.ok(&["position", "reset", "audit", "other", "--to", "start"]);
    assert_eq!(corelog.listed().len(), 4);
    let of =
        |words: &[&str]| corelog.rows(&[&["position", "list", "--format", "json"], words].concat()).len();
    assert_eq!((of(&["--as", "audit"]), of(&["--topic", "orders"]), of(&["--as", "nobody"])), (1, 3, 0));
    let text = corelog.ok(&["position", "get", "billing", "orders"]);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["name", "topic", "partition", "offset", "high", "watermark", "lag", "committed"]);
    assert_eq!(lines[1][..6], ["billing", "orders", "0", "0", "2", "2"]);

    assert_eq!(corelog.ok(&["position", "delete", "audit"]), "deleted audit in other/0\n");
    corelog.fails(3, &["position", "delete", "audit"]);
    let deleted = corelog.ok(&["position", "delete", "billing", "orders", "--format", "json"]);
    let deleted: Value = serde_json::from_str(&deleted).expect("one document");
    assert_eq!(deleted["deleted"].as_array().map(Vec::len), Some(3));
    assert_eq!(corelog.listed(), []);

    // Positions go with their topic, and do not come back with one of the same name.
    corelog.ok(&["position", "reset", "audit", "other", "--to", "start"]);
    corelog.ok(&["topic", "delete", "other"]);
    corelog.ok(&["topic", "create", "other"]);
    assert_eq!(corelog.listed(), []);
}
