//! A disk that refuses writes: what is on its way moves to a fresh extent once, then the log takes no more and says so.

use corelog_client::{Durability, ErrorCode};
use corelog_model::TopicId;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::broker::{Broker, Place};
use crate::control::{sum_of, wait_for};
use crate::peer::{Peer, batch};
use crate::story;

/// Bytes that a head has behind it when writes to it fail; a fresh extent is below.
const BEFORE_BYTES: u64 = 64 << 10;
const RECORD_BYTES: usize = 8 << 10;

/// Writes at or beyond this position of any file fail with EFBIG, as they do with EIO on a disk that lost the place.
fn forbid_writes_from(broker: &Broker, position: Option<u64>) {
    let pid = Pid::from_raw(broker.pid() as i32).expect("a process id");
    let limit = Rlimit { current: position, maximum: None };
    prlimit(Some(pid), Resource::Fsize, limit).expect("a child's limits can be changed");
}

fn value(offset: u64) -> Vec<u8> {
    let mut value = format!("record {offset} ").into_bytes();
    value.resize(RECORD_BYTES, b'.');
    value
}

fn produce(peer: &mut Peer, topic: TopicId, offset: u64) -> Result<u64, ErrorCode> {
    peer.produce(1, &batch(topic, 0, &[value(offset)]))
}

fn assert_readable(broker: &Broker, records: u64) {
    let found = story::run(async {
        let client = story::connect(&broker.address).await;
        let topic = client.topic("t").await.expect("it is there");
        story::read(&client, &topic, 0).await
    });
    assert_eq!(found.len() as u64, records);
    assert!(found.iter().zip(0..).all(|((offset, found), at)| *offset == at && *found == value(at)));
}

#[test]
fn a_failed_write_moves_to_a_fresh_extent_and_a_second_failure_ends_writing_but_not_reading() {
    let mut place = Place::new(&[]);
    // The signal that goes with it would end the process.
    place.run_by(&["env", "--ignore-signal=XFSZ"]);
    let broker = place.start();
    let mut peer = Peer::connect(broker.address.parse().expect("an address"));
    let topic = peer.create_topic("t", 1, Durability::Durable);
    peer.open(1, topic, 0);
    let first = 2 * BEFORE_BYTES / RECORD_BYTES as u64;
    for offset in 0..first {
        assert_eq!(produce(&mut peer, topic, offset), Ok(offset));
    }
    assert_eq!(sum_of(&broker, "corelog_log_moved_frames_total"), 0.0);

    // The place in the head is gone; a fresh extent takes the frame, and nobody hears of it.
    forbid_writes_from(&broker, Some(BEFORE_BYTES));
    assert_eq!(produce(&mut peer, topic, first), Ok(first));
    assert_eq!(sum_of(&broker, "corelog_log_moved_frames_total"), 1.0);
    assert_eq!(sum_of(&broker, "corelog_log_read_only"), 0.0);
    wait_for(&broker, "/readyz", 200);

    // The disk is well again, and the log goes on where it went.
    forbid_writes_from(&broker, None);
    for offset in first + 1..2 * first {
        assert_eq!(produce(&mut peer, topic, offset), Ok(offset));
    }
    assert_eq!(sum_of(&broker, "corelog_log_moved_frames_total"), 1.0);
    assert_readable(&broker, 2 * first);

    // Nothing can be written anywhere: not there, and not in a fresh extent either.
    forbid_writes_from(&broker, Some(0));
    assert_eq!(produce(&mut peer, topic, 2 * first), Err(ErrorCode::ReadOnly));
    let why = wait_for(&broker, "/readyz", 503);
    assert_eq!(why, "[-] log 0 of shard 0: read-only, its disk failed\n");
    assert_eq!(wait_for(&broker, "/healthz", 503), why);
    assert_readable(&broker, 2 * first);
    forbid_writes_from(&broker, None);
    assert_eq!(produce(&mut peer, topic, 2 * first), Err(ErrorCode::ReadOnly), "until it is opened again");
    broker.kill();

    let broker = place.start();
    wait_for(&broker, "/healthz", 200);
    let mut peer = Peer::connect(broker.address.parse().expect("an address"));
    let (start, end) = peer.open(1, topic, 0);
    assert_eq!((start, end), (0, 2 * first));
    assert_readable(&broker, end);
    assert_eq!(produce(&mut peer, topic, end), Ok(end));
    broker.stop();
}
