//! Refusals as the user of the command line meets them: the code, the numbers, and what to do.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::broker::Broker;

/// Standard error of a command that fails with this exit code.
#[track_caller]
fn fails(broker: &Broker, exit: i32, arguments: &[&str], input: &[u8]) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_corelog"))
        .args(arguments)
        .args(["--server", &broker.address])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    child.stdin.take().expect("a pipe").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {text}");
    text
}

#[track_caller]
fn assert_says(text: &str, lines: [&str; 3]) {
    let said: Vec<&str> = text.lines().collect();
    assert!(said.len() >= 3, "{text}");
    for (said, line) in said[said.len() - 3..].iter().zip(lines) {
        assert!(said.starts_with(line), "`{line}` in\n{text}");
    }
}

#[test]
fn errors_name_their_code_their_numbers_and_what_to_do() {
    let broker = Broker::start(&["limits.max_batch_bytes=64 KiB"]);
    let corelog = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_corelog"))
            .args(arguments)
            .args(["--server", &broker.address])
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    corelog(&["topic", "create", "t", "--partitions", "1"]);

    let mut long = vec![b'x'; 100_000];
    long.push(b'\n');
    for (size, most) in [([].as_slice(), "65536"), (&["--batch-bytes", "8192"], "8192")] {
        let text = fails(&broker, 1, &[&["produce", "t"][..], size].concat(), &long);
        let cause = format!("cause: a record of 100000 bytes does not fit a batch of {most}");
        assert_says(&text, ["error[RECORD_TOO_LARGE]: line 1 was not sent", &cause, "help: --batch-bytes"]);
    }
    for size in ["100", "64KiB", "128KiB"].map(|size| ["--batch-bytes", size]) {
        let arguments = [&["produce", "t"][..], &size].concat();
        if size[1] == "64KiB" {
            corelog(&arguments);
            continue;
        }
        let text = fails(&broker, 2, &arguments, b"");
        let cause = "cause: it has 1024 bytes at least, and this broker takes 65536 at most";
        assert_says(&text, ["error[BATCH_BYTES]:", cause, "help: choose --batch-bytes between"]);
    }

    for end in [["--count", "1"].as_slice(), &["--until-end"]] {
        let arguments = [&["consume", "t", "--partition", "0", "--from", "1000"][..], end].concat();
        let text = fails(&broker, 3, &arguments, b"");
        let cause = "cause: partition 0: offset 1000 is not in 0..0";
        assert_says(&text, ["error[OFFSET_OUT_OF_RANGE]:", cause, "help: `--from start`"]);
    }

    let text = fails(&broker, 1, &["topic", "create", "a b"], b"");
    let cause = "cause: 1 to 249 of a-z A-Z 0-9 . _ -";
    assert_says(&text, ["error[INVALID_TOPIC_NAME]:", cause, "help: choose a name"]);

    let text = fails(&broker, 1, &["topic", "alter", "t", "--partitions", "100001"], b"");
    let cause = "cause: 100001 partitions, 1 to 100000 are possible";
    assert_says(&text, ["error[INVALID_PARTITIONS]:", cause, "help: choose from 1"]);
    corelog(&["topic", "alter", "t", "--partitions", "2"]);
    let text = fails(&broker, 1, &["topic", "alter", "t", "--partitions", "1"], b"");
    let cause = "cause: the topic has 2 partitions, and 1 are fewer: none can be taken away";
    assert_says(
        &text,
        ["error[FEWER_PARTITIONS]: topic t cannot be altered", cause, "help: partitions are only"],
    );

    let text = fails(&broker, 3, &["topic", "describe", "nobody"], b"");
    assert_says(&text, ["error[UNKNOWN_TOPIC]:", "cause: unknown topic", "help: `corelog topic list`"]);
}
