//! Bytes of a store that go bad: named, and everything around them is served.

use std::fs;

use crate::broker::{Place, corelog, output};

/// Flips a bit of the first place in the log that holds these bytes.
fn spoil(place: &Place, bytes: &[u8]) {
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
