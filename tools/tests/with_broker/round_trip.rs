//! Records in by the command line, durable, and out again: each form of input and output once.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use corelog_client::{Client, ClientConfig, Linger, Partition, ProducerConfig, RecordRef};

use crate::broker::Broker;

fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_corelog"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    child.stdin.take().expect("a pipe").write_all(input).expect("it reads");
    child.wait_with_output().expect("it ends")
}

/// Standard output of a command that succeeds.
#[track_caller]
fn output(arguments: &[&str], input: &[u8]) -> String {
    let output = run(arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn lines_come_out_as_they_went_in_with_key_offset_and_headers() {
    let broker = Broker::start(&[]);
    let server = ["--server", broker.address.as_str()];
    let corelog = |arguments: &[&str], input: &[u8]| output(&[arguments, &server].concat(), input);
    corelog(&["topic", "create", "t", "--partitions", "3"], b"");

    let produced = corelog(
        &["produce", "t", "--partition", "1", "--key-separator", ":", "--header", "a=1", "--header", "a=2"],
        b"k1:v1\nk2:v2:x\n:\n",
    );
    assert_eq!(produced, "3 records acknowledged\n");
    let all = ["consume", "t", "--until-end"];
    assert_eq!(corelog(&all, b""), "v1\nv2:x\n\n");
    let with = [&all[..], &["--with-key", "--with-offset", "--with-headers", "--partition", "1"]].concat();
    assert_eq!(corelog(&with, b""), "1\t0\ta=1,a=2\tk1\tv1\n1\t1\ta=1,a=2\tk2\tv2:x\n1\t2\ta=1,a=2\t\t\n");
    assert_eq!(corelog(&["consume", "t", "--from", "1", "--partition", "1", "--count", "1"], b""), "v2:x\n");
    assert_eq!(
        corelog(&["consume", "t", "--from", "end", "--until-end"], b""),
        "",
        "there is nothing to wait for"
    );

    let produced = corelog(&["produce", "t", "--partition", "0", "--format", "json"], b"\xff\n");
    assert_eq!(produced, "{\"acknowledged\":1,\"lines\":1}\n");
    let record = corelog(&["consume", "t", "--partition", "0", "--until-end", "--format", "json"], b"");
    let record: serde_json::Value = serde_json::from_str(&record).expect("one document");
    assert_eq!((&record["value_base64"], &record["offset"]), (&"/w==".into(), &0.into()), "{record}");
}

/// Appends a record per partition and time, the time in microseconds, each partition's as one batch.
fn append_at(address: &str, topic: &str, records: &[(u32, u64)]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect(ClientConfig::new([address])).await.expect("it serves");
        let topic = client.topic(topic).await.expect("it is there");
        // Nothing is sent before the flush.
        let linger = Linger::Fixed(60_000_000);
        let producer = client.producer(ProducerConfig { linger, ..ProducerConfig::default() });
        for &(partition, timestamp_us) in records {
            let value = timestamp_us.to_string();
            let record = RecordRef { value: Some(value.as_bytes()), timestamp_us, ..RecordRef::default() };
            producer.send(&topic, Partition::Index(partition), record).await.expect("it is taken");
        }
        producer.flush().await.expect("it is acknowledged");
    });
}

#[test]
fn a_time_begins_with_the_first_record_at_or_after_it_in_the_middle_of_a_batch() {
    let broker = Broker::start(&[]);
    let server = ["--server", broker.address.as_str()];
    let corelog = |arguments: &[&str]| output(&[arguments, &server].concat(), b"");
    corelog(&["topic", "create", "t", "--partitions", "2"]);
    let second = 1_700_000_000_000_000;
    append_at(&broker.address, "t", &[(0, second), (0, second + 1), (0, second + 2), (0, second - 5)]);
    append_at(&broker.address, "t", &[(0, second + 3), (1, second - 9)]);
    let from = |time: &str, more: &[&str]| {
        corelog(&[&["consume", "t", "--with-offset", "--from", time][..], more].concat())
    };
    let behind = "0\t2\t1700000000000002\n0\t3\t1699999999999995\n0\t4\t1700000000000003\n";
    assert_eq!(from("@1700000000.000002", &["--until-end"]), behind, "nothing older before it, all after it");
    assert_eq!(from("@1700000000.000002", &["--partition", "0", "--count", "3"]), behind);
    assert_eq!(from("@1700000001", &["--until-end"]), "", "nobody waits for what is not there");
}

#[test]
fn an_offset_that_a_partition_does_not_reach_yet_is_waited_for_or_done_with() {
    let broker = Broker::start(&[]);
    let server = ["--server", broker.address.as_str()];
    let corelog = |arguments: &[&str], input: &[u8]| output(&[arguments, &server].concat(), input);
    corelog(&["topic", "create", "t", "--partitions", "3"], b"");
    corelog(&["produce", "t", "--partition", "0"], b"a0\na1\na2\n");
    corelog(&["produce", "t", "--partition", "1"], b"b0\n");
    let from = ["consume", "t", "--from", "2", "--with-offset"];
    assert_eq!(corelog(&[&from[..], &["--until-end"]].concat(), b""), "0\t2\ta2\n");

    let mut following = Command::new(env!("CARGO_BIN_EXE_corelog"))
        .args(from)
        .args(["--count", "2"])
        .args(server)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(following.stdout.take().expect("a pipe")).lines();
    // Once it has printed this, it reads all partitions.
    assert_eq!(lines.next().expect("a line").expect("text"), "0\t2\ta2");
    corelog(&["produce", "t", "--partition", "1"], b"b1\nb2\n");
    assert_eq!(lines.next().expect("a line").expect("text"), "1\t2\tb2", "and not b1");
    assert!(lines.next().is_none());
    assert!(following.wait().expect("a child").success());
}

#[test]
fn a_key_always_goes_to_the_same_partition_and_keeps_its_order() {
    let broker = Broker::start(&[]);
    let server = ["--server", broker.address.as_str()];
    let corelog = |arguments: &[&str], input: &[u8]| output(&[arguments, &server].concat(), input);
    corelog(&["topic", "create", "flights", "--partitions", "4"], b"");
    let lines: String =
        (0..2_000).map(|number| format!("{{\"carrier\":\"C{}\",\"n\":{number}}}\n", number % 7)).collect();
    let produced =
        corelog(&["produce", "flights", "--key-field", "carrier", "--codec", "lz4"], lines.as_bytes());
    assert_eq!(produced, "2000 records acknowledged\n");

    let printed = corelog(&["consume", "flights", "--until-end", "--with-key", "--with-offset"], b"");
    let mut partition_of = std::collections::BTreeMap::new();
    let mut last = std::collections::BTreeMap::new();
    for line in printed.lines() {
        let fields: Vec<&str> = line.splitn(4, '\t').collect();
        let (partition, key) = (fields[0].to_owned(), fields[2].to_owned());
        assert_eq!(*partition_of.entry(key.clone()).or_insert_with(|| partition.clone()), partition);
        let value: serde_json::Value = serde_json::from_str(fields[3]).expect("as it was");
        let number = value["n"].as_u64().expect("a number");
        assert!(last.insert(key, number).is_none_or(|before| before < number), "{line}");
    }
    assert_eq!((printed.lines().count(), last.len()), (2_000, 7));
}

#[test]
fn topics_are_listed_described_and_deleted_and_a_missing_one_is_not_found() {
    let broker = Broker::start(&[]);
    let server = ["--server", broker.address.as_str()];
    let corelog = |arguments: &[&str]| run(&[arguments, &server].concat(), b"");
    let code = |arguments: &[&str]| corelog(arguments).status.code();
    assert_eq!(code(&["topic", "create", "a.b", "--durability", "memory"]), Some(0));
    assert_eq!(code(&["topic", "create", "a.b"]), Some(1), "it exists");
    assert_eq!(code(&["topic", "create", "a b"]), Some(1), "no name");
    let list = corelog(&["topic", "list", "--format", "json"]);
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).expect("one document");
    assert_eq!(
        (&list["topics"][0]["name"], &list["topics"][0]["durability"]),
        (&"a.b".into(), &"memory".into())
    );
    let described = corelog(&["topic", "describe", "a.b", "--format", "json"]);
    let described: serde_json::Value = serde_json::from_slice(&described.stdout).expect("one document");
    assert_eq!(described["offsets"][0]["address"], broker.address, "{described}");
    let altered = corelog(&["topic", "alter", "a.b", "--partitions", "3"]);
    let text = String::from_utf8(altered.stdout).expect("text");
    assert!(text.starts_with("altered a.b  3 partitions, memory, id "), "{text}");
    let altered = corelog(&["topic", "alter", "a.b", "--durability", "durable", "--format", "json"]);
    let altered: serde_json::Value = serde_json::from_slice(&altered.stdout).expect("one document");
    let now = (&altered["partitions"], &altered["durability"], &altered["id"]);
    assert_eq!(now, (&3.into(), &"durable".into(), &described["id"]));
    let described = corelog(&["topic", "describe", "a.b", "--format", "json"]);
    let described: serde_json::Value = serde_json::from_slice(&described.stdout).expect("one document");
    assert_eq!(described["offsets"].as_array().map(Vec::len), Some(3), "{described}");
    assert_eq!(code(&["topic", "alter", "a.b", "--partitions", "2"]), Some(1), "none can be taken away");
    assert_eq!(code(&["topic", "delete", "a.b"]), Some(0));
    for missing in [
        &["topic", "describe", "a.b"][..],
        &["topic", "delete", "a.b"],
        &["topic", "alter", "a.b", "--partitions", "4"],
        &["consume", "a.b"],
        &["produce", "a.b"],
    ] {
        assert_eq!(code(missing), Some(3), "{missing:?}");
    }
}

/// Who follows a topic meets the records of partitions that are added meanwhile; a dump of the store names them.
#[test]
fn a_topic_that_grows_is_followed_and_dumped() {
    let broker = Broker::start(&[]);
    let server = ["--server", broker.address.as_str()];
    let corelog = |arguments: &[&str], input: &[u8]| output(&[arguments, &server].concat(), input);
    corelog(&["topic", "create", "t"], b"");
    corelog(&["topic", "create", "u"], b"");
    corelog(&["produce", "t"], b"old\n");
    corelog(&["topic", "alter", "t", "--partitions", "3", "--durability", "written"], b"");
    corelog(&["produce", "t", "--partition", "2"], b"new\n");
    assert_eq!(corelog(&["consume", "t", "--count", "1", "--partition", "2"], b""), "new\n");
    let mut lines: Vec<String> =
        corelog(&["consume", "t", "--count", "2"], b"").lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["new", "old"]);
    let store = broker.stop();
    let dumped = output(&["log", "dump", store.path().to_str().expect("text")], b"");
    for line in ["topic t altering: becomes written, 2 partitions more, groups from 18", "t/2"] {
        assert!(dumped.contains(line), "{line} in\n{dumped}");
    }
}

#[test]
fn a_stopped_store_is_dumped_and_a_running_one_refused() {
    let broker = Broker::start(&[]);
    let server = ["--server", broker.address.as_str()];
    output(&[&["topic", "create", "t"], &server[..]].concat(), b"");
    output(&[&["produce", "t"], &server[..]].concat(), b"a\nb\n");
    let running = run(&["log", "dump", broker.store().to_str().expect("text")], b"");
    assert_eq!(running.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&running.stderr).contains("help: stop the broker first"));

    let store = broker.stop();
    let path = store.path().to_str().expect("text");
    let dumped = output(&["log", "dump", path, "--format", "json"], b"");
    let batches: Vec<serde_json::Value> = dumped
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a document a line"))
        .filter(|line| line["entry"] == "Batch")
        .collect();
    let records: u64 = batches.iter().filter_map(|entry| entry["batch"]["records"].as_u64()).sum();
    assert_eq!(records, 2, "{dumped}");
    assert!(batches.iter().all(|entry| entry["batch"]["intact"] == true), "{dumped}");
}
