//! `corelog log verify` and `corelog log repair`: what a stopped store holds is judged, and what is lost is let go.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use corelog_client::Durability;
use serde_json::Value;

use crate::broker::{Place, corelog, output};
use crate::control::sum_of;
use crate::damage::spoil;
use crate::peer::{Peer, batch};

const LINES: [&str; 4] = ["the first record", "the second record", "the third record", "the fourth record"];

/// A store that was stopped, with the lines as the records of partition 1 of `t`, each in a frame of its own.
fn four_records(settings: &[&str]) -> Place {
    let place = Place::new(settings);
    let broker = place.start();
    let server = broker.address.clone();
    output(&["topic", "create", "t", "--partitions", "2", "--server", &server]);
    for line in LINES {
        let file = place.store().with_extension("lines");
        fs::write(&file, format!("{line}\n")).expect("writable");
        let file = file.to_str().expect("a plain path");
        output(&["produce", "t", "--partition", "1", "--file", file, "--server", &server]);
    }
    broker.stop();
    place
}

fn path(place: &Place) -> String {
    place.store().to_str().expect("a plain path").to_owned()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Every file of the log, with its bytes.
fn files(place: &Place) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(place.log()).expect("the log's files");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.map(|path| (path.clone(), fs::read(path).expect("readable"))).collect()
}

#[test]
fn a_sound_store_verifies_and_nothing_of_it_changes() {
    let place = four_records(&[]);
    let before = files(&place);
    let said = output(&["log", "verify", &path(&place)]);
    assert!(said.contains("log 0  superblock: 4 of 4 copies verify"), "{said}");
    assert!(said.contains(" MB/s: nothing is damaged\n") && !said.contains("DAMAGED"), "{said}");
    assert!(files(&place) == before, "nothing was written");
    let documents = output(&["log", "verify", &path(&place), "--log", "0", "--format", "json"]);
    let documents: Vec<Value> =
        documents.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect();
    let total = documents.last().expect("a total");
    assert_eq!((&total["clean"], &total["damaged_ranges"]), (&true.into(), &0.into()));
    assert!(total["batches"].as_u64() >= Some(4) && total["bytes"].as_u64() > Some(0), "{total}");
    let wrong = corelog(&["log", "verify", &path(&place), "--log", "7"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));
}

#[test]
fn what_is_damaged_is_named_by_topic_partition_and_offsets() {
    let place = four_records(&[]);
    spoil(&place, b"the second record");
    let said = corelog(&["log", "verify", &path(&place)]);
    assert_eq!(said.status.code(), Some(1));
    let said = text(&said);
    assert!(said.contains("\n  DAMAGED  t/1 offsets 1 to 1\n") && said.contains("error[DAMAGED]"), "{said}");
    assert_eq!(said.matches("  DAMAGED  ").count(), 1, "and nothing else: {said}");
}

#[test]
fn a_store_that_is_in_use_or_has_lost_its_superblock_is_said_to() {
    let place = four_records(&[]);
    let broker = place.start();
    let said = corelog(&["log", "verify", &path(&place)]);
    assert!(
        said.status.code() == Some(1) && text(&said).contains("stop the broker first"),
        "{}",
        text(&said)
    );
    broker.stop();
    let superblock = place.log().join("superblock");
    let mut bytes = fs::read(&superblock).expect("readable");
    bytes[5000] ^= 1;
    fs::write(&superblock, &bytes).expect("writable");
    let said = output(&["log", "verify", &path(&place)]);
    assert!(said.contains("3 of 4 copies verify") && said.contains("nothing is damaged"), "{said}");
    (0..4).for_each(|copy| bytes[copy * 4096 + 100] ^= 2);
    fs::write(&superblock, &bytes).expect("writable");
    let said = corelog(&["log", "verify", &path(&place)]);
    let all = text(&said);
    assert!(said.status.code() == Some(1) && all.contains("REFUSED  none of the four superblock"), "{all}");
    assert!(all.contains("put `superblock` back from a copy"), "{all}");
}

/// Several extents, with indexes and checkpoints, read piece by piece.
#[test]
fn a_store_of_several_extents_is_read_whole_and_its_indexes_are_compared() {
    let place = Place::new(&["log.extent_bytes=8 MiB", "log.checkpoint_bytes=4 MiB"]);
    let broker = place.start();
    let server = broker.address.clone();
    output(&["topic", "create", "t", "--partitions", "3", "--server", &server]);
    let file = place.store().with_extension("lines");
    let lines: String = (0..30_000).map(|line| format!("{line:0>1000}\n")).collect();
    fs::write(&file, lines).expect("writable");
    let file = file.to_str().expect("a plain path");
    output(&["produce", "t", "--file", file, "--server", &server]);
    broker.stop();
    let said = output(&["log", "verify", &path(&place)]);
    assert!(said.matches("its index: sound").count() >= 2, "{said}");
    assert!(said.contains("nothing is damaged"), "{said}");
    spoil(&place, format!("{:0>1000}", 77).as_bytes());
    let said = corelog(&["log", "verify", &path(&place)]);
    let all = text(&said);
    assert!(said.status.code() == Some(1) && all.contains("  DAMAGED  t/"), "{all}");
    assert!(all.contains("1 DAMAGED ranges; its index: not compared"), "{all}");
}

/// Reads partition 1 from the start to the end.
fn consumed(server: &str) -> Output {
    corelog(&["consume", "t", "--partition", "1", "--until-end", "--server", server])
}

#[test]
fn damaged_records_that_are_given_up_are_passed_over_from_then_on() {
    let place = four_records(&[]);
    spoil(&place, b"the second record");
    let store = path(&place);
    let accept = |range: &str| corelog(&["log", "repair", &store, "--accept-loss", range]);
    let before = files(&place);
    for (range, code, why) in [
        ("t/1:0-1", 1, "cause: damaged are 1 to 1"),
        ("t/1:2-2", 1, "cause: damaged are 1 to 1"),
        ("t/0:0-0", 3, "no log has records of it"),
        ("t/7:0-0", 3, "t/7 is no partition of this store"),
        ("u/1:0-0", 3, "u/1 is no partition of this store"),
        ("t/1:1", 2, "it takes TOPIC/PARTITION:FIRST-LAST"),
    ] {
        let said = accept(range);
        assert!(said.status.code() == Some(code) && text(&said).contains(why), "{range}: {}", text(&said));
    }
    assert!(files(&place) == before, "what is refused changes nothing");
    let said = accept("t/1:1-1");
    assert_eq!(text(&said), "t/1 offsets 1 to 1: their loss is accepted\n");
    let said = output(&["log", "verify", &store]);
    assert!(
        said.contains("1 ranges whose loss is accepted") && said.contains("nothing is damaged"),
        "{said}"
    );
    assert!(output(&["log", "dump", &store]).contains("the loss of t/1 offsets 1 to 1 is accepted"));

    let rest = "the first record\nthe third record\nthe fourth record\n";
    for start in 0..3 {
        let broker = place.start();
        let read = consumed(&broker.address);
        assert_eq!(text(&read), rest, "start {start}");
        assert_eq!(read.status.code(), Some(0));
        let described = output(&["topic", "describe", "t", "--server", &broker.address]);
        assert!(!described.contains("damaged"), "start {start}: {described}");
        broker.stop();
    }
}

/// A stopped store whose records were settled: extents of many partitions became packs.
fn settled() -> Place {
    const PARTITIONS: u32 = 16;
    let place = Place::new(&[
        "log.extent_bytes=1 MiB",
        "log.frame_bytes=64 KiB",
        "log.settle_extents=2",
        "limits.max_batch_bytes=128 KiB",
        "limits.max_frame_bytes=256 KiB",
        "memory.settle_bytes=4 MiB",
    ]);
    let broker = place.start();
    let mut peer = Peer::connect(broker.address.parse().expect("an address"));
    let topic = peer.create_topic("t", PARTITIONS, Durability::Durable);
    (0..PARTITIONS).for_each(|partition| _ = peer.open(1 + partition, topic, partition));
    let begun = Instant::now();
    for number in 0.. {
        for partition in 0..PARTITIONS {
            let value = format!("record {number} of {partition} {}", "x".repeat(1_000)).into_bytes();
            assert_eq!(peer.produce(1 + partition, &batch(topic, partition, &[value])), Ok(number));
        }
        if number % 16 == 15 && sum_of(&broker, "corelog_log_packs_made_total") >= 2.0 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no packs are made");
    }
    broker.stop();
    place
}

#[test]
fn packs_are_judged_and_shown_as_extents_are() {
    let place = settled();
    let store = path(&place);
    let said = output(&["log", "verify", &store]);
    let packs: Vec<&str> = said.lines().filter(|line| line.starts_with("  pack-")).collect();
    assert!(
        packs.len() >= 2 && packs.iter().all(|line| line.ends_with(": sound; its index: sound")),
        "{said}"
    );
    assert!(said.contains(" MB/s: nothing is damaged\n"), "{said}");

    let dumped = output(&["log", "dump", &store]);
    assert!(dumped.contains("\npack 0  ") && !dumped.contains("NO FRAME"), "{dumped}");
    assert!(!dumped.contains("DOES NOT VERIFY") && !dumped.contains("DAMAGED"), "{dumped}");
    let documents = output(&["log", "dump", &store, "--format", "json"]);
    let documents: Vec<Value> =
        documents.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect();
    let frames = documents.iter().filter(|found| found["frame"].is_u64() && found["pack"].is_u64());
    let frames: Vec<&Value> = frames.map(|found| &found["frame"]).collect();
    let of_packs = |found: &&Value| frames.contains(&&found["frame"]) && found["entry"].is_string();
    let entries: Vec<&Value> = documents.iter().filter(of_packs).collect();
    assert!(entries.iter().any(|entry| entry["entry"] == "Batch" && entry["of"] == "t/15"), "{entries:?}");
    assert!(entries.iter().any(|entry| entry["entry"] == "Footer"), "the index of a pack lies in it");
    assert!(entries.iter().all(|entry| entry["verifies"] == true));

    // A damaged one is named by both.
    spoil_pack(&place);
    let said = corelog(&["log", "verify", &store]);
    assert!(said.status.code() == Some(1) && text(&said).contains("  DAMAGED  t/"), "{}", text(&said));
    let dumped = output(&["log", "dump", &store]);
    assert!(dumped.contains("NO FRAME  at 0, "), "{dumped}");
}

/// Flips a bit in the header of the first frame of a pack.
fn spoil_pack(place: &Place) {
    let is_pack =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pack-"));
    let pack = files(place).into_keys().find(is_pack).expect("there are packs");
    let mut content = fs::read(&pack).expect("readable");
    content[20] ^= 1;
    fs::write(&pack, content).expect("writable");
}
