//! Bytes of a store that go bad: named, and everything around them is served.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::broker::{Place, corelog, output};

/// Flips a bit of the first place in the log that holds these bytes.
pub(crate) fn spoil(place: &Place, bytes: &[u8]) {
    for entry in fs::read_dir(place.log()).expect("the log's files") {
        let path = entry.expect("an entry").path();
        let mut content = fs::read(&path).expect("readable");
        if let Some(at) = content.windows(bytes.len()).position(|window| window == bytes) {
            content[at] ^= 1;
            fs::write(&path, content).expect("writable");
            return;
        }
    }
    panic!("no file holds it");
}

#[test]
fn damaged_offsets_are_named_and_what_is_around_them_is_served() {
    let place = Place::new(&[]);
    let broker = place.start();
    let server = broker.address.clone();
    output(&["topic", "create", "t", "--partitions", "2", "--server", &server]);
    for (number, line) in ["the first record", "the second record", "the third record"].iter().enumerate() {
        let file = place.store().join(format!("line-{number}"));
        fs::write(&file, format!("{line}\n")).expect("writable");
        let file = file.to_str().expect("a plain path");
        output(&["produce", "t", "--partition", "1", "--file", file, "--server", &server]);
        fs::remove_file(file).expect("just written");
    }
    let described = output(&["topic", "describe", "t", "--server", &server]);
    assert!(!described.contains("damaged"), "{described}");
    broker.stop();
    spoil(&place, b"the second record");

    let broker = place.start();
    let consume = ["consume", "t", "--partition", "1", "--until-end", "--server", &broker.address];
    let consumed = corelog(&consume);
    assert_eq!(consumed.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&consumed.stdout), "the first record\n");
    let said = String::from_utf8_lossy(&consumed.stderr).into_owned();
    assert!(said.contains("error[DAMAGED]:"), "{said}");
    assert!(said.contains("cause: partition 1: offsets 1 to 1 are damaged"), "{said}");
    assert!(said.contains("help: `--partition 1 --from 2` goes on behind it"), "{said}");
    assert_eq!(output(&[&consume[..], &["--from", "2"]].concat()), "the third record\n");

    let described = output(&["topic", "describe", "t", "--server", &broker.address]);
    assert!(described.ends_with("damaged: partition 1, offsets 1 to 1\n"), "{described}");
    let described = output(&["topic", "describe", "t", "--format", "json", "--server", &broker.address]);
    let described: serde_json::Value = serde_json::from_str(&described).expect("one document");
    assert_eq!(described["damage"], serde_json::json!([{ "partition": 1, "first": 1, "last": 1 }]));
}

/// The place of some bytes in the log: the file, and where in it.
fn find(place: &Place, bytes: &[u8]) -> (PathBuf, usize) {
    let files =
        fs::read_dir(place.log()).expect("the log's files").map(|entry| entry.expect("an entry").path());
    let at = |path: &PathBuf| {
        let content = fs::read(path).expect("readable");
        content.windows(bytes.len()).position(|window| window == bytes)
    };
    files.into_iter().find_map(|path| at(&path).map(|at| (path, at))).expect("a file holds it")
}

fn flip(path: &Path, at: usize) {
    let mut content = fs::read(path).expect("readable");
    content[at] ^= 1;
    fs::write(path, content).expect("writable");
}

/// A frame's header is its first 128 bytes, and each of these records has a frame of one sector.
#[test]
fn a_dump_says_where_a_frame_does_not_verify_and_goes_on_behind_it() {
    let place = Place::new(&[]);
    let broker = place.start();
    let server = broker.address.clone();
    output(&["topic", "create", "orders", "--partitions", "2", "--server", &server]);
    for line in ["the first record", "the second record", "the third record"] {
        let file = place.store().with_extension("lines");
        fs::write(&file, format!("{line}\n")).expect("writable");
        let file = file.to_str().expect("a plain path");
        output(&["produce", "orders", "--partition", "1", "--file", file, "--server", &server]);
    }
    broker.stop();
    let store = place.store().to_str().expect("a plain path");
    let whole = output(&["log", "dump", store]);
    assert!(
        !whole.contains("NO FRAME") && !whole.contains("DAMAGED") && !whole.contains("VERIFY"),
        "{whole}"
    );
    assert!(
        whole.contains("topic orders (id ") && whole.contains(" creating, durable, 2 partitions,"),
        "{whole}"
    );
    assert!(whole.contains("topic orders ready"), "{whole}");
    for offset in 0..3 {
        let line = format!("(orders/1), index {}, term 1, ", offset + 1);
        let batch = whole.lines().find(|text| text.contains(&format!("offsets {offset}..{}", offset + 1)));
        assert!(batch.is_some_and(|text| text.contains(&line)), "{line} in {whole}");
    }

    let (file, at) = find(&place, b"the second record");
    let frame = at / 4096 * 4096;
    for (spoiled, why) in
        [(frame + 20, "the 128 bytes of its header do not verify"), (frame, "no frame begins there")]
    {
        flip(&file, spoiled);
        let dumped = output(&["log", "dump", store]);
        let said = format!("  NO FRAME  at {frame}, 4096 bytes are passed over: {why}\n");
        assert!(dumped.contains(&said), "{said} in {dumped}");
        assert!(dumped.contains("offsets 0..1") && dumped.contains("offsets 2..3"), "{dumped}");
        assert!(!dumped.contains("offsets 1..2"), "{dumped}");
        let documents = output(&["log", "dump", store, "--format", "json"]);
        let documents: Vec<Value> =
            documents.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect();
        let gaps: Vec<&Value> = documents.iter().filter(|line| !line["no_frame"].is_null()).collect();
        assert_eq!((gaps.len(), &gaps[0]["no_frame"], &gaps[0]["why"]), (1, &frame.into(), &why.into()));
        flip(&file, spoiled);
    }
    // Within a frame that verifies: an entry of the log, the body of a batch, the padding.
    for (bytes, behind, said) in [
        (&b"orders"[..], 0, "DOES NOT VERIFY"),
        (b"the second record", 0, ", DAMAGED"),
        (b"the third record", 2048, "the padding is DAMAGED"),
    ] {
        let (file, at) = find(&place, bytes);
        flip(&file, at + behind);
        let dumped = output(&["log", "dump", store]);
        assert!(dumped.contains(said) && !dumped.contains("NO FRAME"), "{said} in {dumped}");
        flip(&file, at + behind);
    }
    assert_eq!(output(&["log", "dump", store]), whole, "all is as it was");
}

/// The state that a restart begins with, in words.
#[test]
fn a_dump_shows_what_a_checkpoint_holds() {
    let place = Place::new(&["log.checkpoint_bytes=1 MiB"]);
    let broker = place.start();
    let server = broker.address.clone();
    output(&["topic", "create", "orders", "--partitions", "2", "--server", &server]);
    let file = place.store().with_extension("lines");
    fs::write(&file, format!("{:0>1000}\n", 7).repeat(4_000)).expect("writable");
    let file = file.to_str().expect("a plain path");
    output(&["produce", "orders", "--partition", "1", "--file", file, "--server", &server]);
    broker.stop();
    let dumped = output(&["log", "dump", place.store().to_str().expect("a plain path")]);
    for part in [" checkpoint ", "the shard's\n      next metadata entry ", "\n      topic orders (id "] {
        assert!(dumped.contains(part), "{part} in {dumped}");
    }
    for part in
        ["\n      partition orders/1, offsets 0..", "\n      producer 1 epoch 0 in orders/1, next sequence "]
    {
        assert!(dumped.contains(part), "{part} in {dumped}");
    }
}

#[test]
fn a_dump_ends_an_extent_where_the_next_start_said_it_ends() {
    // The short extent stays: it is not to give way to a pack.
    let place = Place::new(&["log.settle_extents=0"]);
    let store = place.store().to_str().expect("a plain path").to_owned();
    for (number, line) in ["before the kill", "after it"].iter().enumerate() {
        let broker = place.start();
        let server = broker.address.clone();
        if number == 0 {
            output(&["topic", "create", "orders", "--server", &server]);
        }
        let file = place.store().with_extension("lines");
        fs::write(&file, format!("{line}\n")).expect("writable");
        output(&["produce", "orders", "--file", file.to_str().expect("a plain path"), "--server", &server]);
        broker.kill();
    }
    let dump = output(&["log", "dump", &store]);
    let sealed = dump.matches("another extent goes on from here, what lies beyond is void").count();
    assert_eq!(sealed, 1, "{dump}");
    assert!(!dump.contains("NO FRAME"), "{dump}");
    for offset in 0..2 {
        assert_eq!(dump.matches(&format!("offsets {offset}..{}", offset + 1)).count(), 1, "{dump}");
    }
}
