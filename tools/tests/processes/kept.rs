//! What topics keep, through the whole broker: the disk stays as small as they say, space comes back, and where logs start
//! outlives a kill.

use std::fs;
use std::time::{Duration, Instant};

use corelog_client::ErrorCode;
use corelog_model::Durability;

use crate::broker::{Broker, Place, corelog, output};
use crate::peer::{Peer, batch};

const EXTENT_BYTES: u64 = 1 << 20;
const VALUE_BYTES: usize = 100_000;
const HANDLE: u32 = 1;
/// Extents that a log has besides: the head, what it keeps ready, and those on their way from one to the other.
const MORE_EXTENTS: u64 = 8;
const PATIENCE: Duration = Duration::from_secs(60);

fn place() -> Place {
    Place::new(&[
        "log.extent_bytes=1 MiB",
        "log.frame_bytes=64 KiB",
        "log.checkpoint_bytes=2 MiB",
        "log.retention_check_s=1",
        "limits.max_batch_bytes=128 KiB",
        "limits.max_frame_bytes=256 KiB",
    ])
}

fn extents(place: &Place) -> u64 {
    let names = fs::read_dir(place.log()).expect("a log").map(|entry| entry.expect("an entry").file_name());
    names.filter(|name| name.to_string_lossy().starts_with("ext-")).count() as u64
}

fn connect(broker: &Broker) -> Peer {
    Peer::connect(broker.address.parse().expect("an address"))
}

/// Looks again until it is so: what the broker does by itself takes its time.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// `corelog` with the server's address; standard output of a command that succeeds.
#[track_caller]
fn told(broker: &Broker, arguments: &[&str]) -> String {
    output(&[arguments, &["--server", broker.address.as_str()]].concat())
}

#[test]
fn a_topic_that_keeps_so_many_bytes_keeps_the_disk_small_and_its_starts_over_a_kill() {
    let place = place();
    let broker = place.start();
    let made = told(&broker, &["topic", "create", "live", "--retention-bytes", "3MiB", "--retention", "7d"]);
    assert!(made.contains("for 7d, 3145728 bytes a partition"), "{made}");
    let mut peer = connect(&broker);
    let (_, topic, _) = peer.topics().pop().expect("one topic");
    peer.open(HANDLE, topic, 0);
    let mut next = 0;
    // Sixty extents in all.
    for _ in 0..600 {
        let sealed = batch(topic, 0, &[vec![next as u8; VALUE_BYTES]]);
        assert_eq!(peer.produce(HANDLE, &sealed), Ok(next));
        next += 1;
    }
    until("the rest goes", || next - peer.open(HANDLE, topic, 0).0 <= 45);
    until("the space comes back", || extents(&place) <= 5 + MORE_EXTENTS);
    let (start, end) = peer.open(HANDLE, topic, 0);
    assert!(
        end - start >= 3 * EXTENT_BYTES / (VALUE_BYTES as u64 + 500),
        "{start} to {end}: at least 3 MiB stay"
    );
    broker.kill();

    let broker = place.start();
    let mut peer = connect(&broker);
    let (again, end) = peer.open(HANDLE, topic, 0);
    assert!(again >= start && end == next, "from {start} back to {again}");
    for offset in [again, end - 1] {
        let (values, _) = peer.fetch(HANDLE, offset, 1).expect("it is kept");
        assert!(values == [vec![offset as u8; VALUE_BYTES]], "record {offset}");
    }
    assert_eq!(peer.fetch(HANDLE, start - 1, 1).err(), Some(ErrorCode::OffsetOutOfRange));
    let shown = told(&broker, &["topic", "describe", "live", "--format", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("one document");
    assert_eq!(
        (&shown["retention_us"], &shown["retention_bytes"]),
        (&604_800_000_000_u64.into(), &3_145_728.into())
    );
    let altered =
        told(&broker, &["topic", "alter", "live", "--retention", "none", "--retention-bytes", "none"]);
    assert!(!altered.contains("bytes a partition") && !altered.contains("7d"), "{altered}");
    broker.stop();
}

#[test]
fn space_comes_back_from_deleted_topics_and_from_deleted_records() {
    let place = place();
    let broker = place.start();
    let mut peer = connect(&broker);
    for name in ["first", "second"] {
        let topic = peer.create_topic(name, 1, Durability::Durable);
        peer.open(HANDLE, topic, 0);
        for offset in 0..200 {
            let sealed = batch(topic, 0, &[vec![offset as u8; VALUE_BYTES]]);
            assert_eq!(peer.produce(HANDLE, &sealed), Ok(offset));
        }
    }
    let full = extents(&place);
    assert!(full > 40, "{full} extents hold 40 MB");
    told(&broker, &["topic", "delete", "first"]);
    until("the first topic's space comes back", || extents(&place) <= full - 15);
    let deleted = told(&broker, &["records", "delete", "second/0", "--before", "180"]);
    assert_eq!(deleted, "deleted the records of second/0 before offset 180\n");
    until("the records' space comes back", || extents(&place) <= 3 + MORE_EXTENTS);
    let (_, second, _) = peer.topics().pop().expect("one is left");
    assert_eq!(peer.open(HANDLE, second, 0), (180, 200));
    broker.kill();

    let broker = place.start();
    let mut peer = connect(&broker);
    assert_eq!(peer.open(HANDLE, second, 0), (180, 200));
    for offset in 180..200 {
        let (values, _) = peer.fetch(HANDLE, offset, 1).expect("it is kept");
        assert!(values == [vec![offset as u8; VALUE_BYTES]], "record {offset}");
    }
    let again = told(&broker, &["records", "delete", "second/0", "--before", "7", "--format", "json"]);
    assert_eq!(
        again, "{\"log_start\":180,\"partition\":0,\"topic\":\"second\"}\n",
        "what is gone is no error"
    );
    let beyond = corelog(&["records", "delete", "second/0", "--before", "201", "--server", &broker.address]);
    let said = String::from_utf8_lossy(&beyond.stderr).into_owned();
    assert!(!beyond.status.success() && said.contains("OFFSET_OUT_OF_RANGE"), "{said}");
    let all = told(&broker, &["records", "delete", "second/0", "--before", "end"]);
    assert_eq!(all, "deleted the records of second/0 before offset 200\n");
    broker.stop();
}
