//! The live window is given most of its memory while the broker serves already.

use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::peer::{Peer, batch};
use corelog_model::Durability;
use corelog_testing::Broker;

/// More than a broker has when it is ready, and less than it has in the end.
const RECORDS: u64 = 144;
const RECORD_BYTES: usize = 512 << 10;
/// Far longer than the window takes to grow.
const PATIENCE: Duration = Duration::from_secs(30);

fn value(number: u64) -> Vec<u8> {
    (number..).map(|value| value as u8).take(RECORD_BYTES).collect()
}

#[test]
fn a_grown_window_serves_what_the_first_part_of_it_could_not_hold() {
    let mut broker = Broker::builder()
        .set("log.window_bytes=96 MiB")
        .set("log.extent_bytes=64 MiB")
        .start()
        .expect("a broker");
    // It serves from the first moment on.
    let mut peer = Peer::connect(broker.address());
    let topic = peer.create_topic("large", 1, Durability::Durable);
    peer.open(1, topic, 0);
    assert_eq!(peer.produce(1, &batch(topic, 0, &[value(0)])), Ok(0));
    wait_until_grown();
    // The turn that answers takes the last part in, if none did before.
    peer.status();
    for number in 1..RECORDS {
        assert_eq!(peer.produce(1, &batch(topic, 0, &[value(number)])), Ok(number));
    }
    for number in 0..RECORDS {
        assert_eq!(peer.fetch(1, number, 1), Ok((vec![value(number)], RECORDS)), "record {number}");
    }
    let status = peer.status();
    assert!(status.window_bytes >= RECORDS * RECORD_BYTES as u64, "{} bytes in memory", status.window_bytes);
    assert_eq!(status.cold_reads, 0, "nothing was read from the disk");
    broker.stop().expect("it ends well");
}

/// The thread that maps the memory ends when the last part was handed over.
fn wait_until_grown() {
    let begin = Instant::now();
    while growing() {
        assert!(begin.elapsed() < PATIENCE, "it grows and grows");
        // No synchronisation: between two looks at a state that will come.
        thread::sleep(Duration::from_millis(1));
    }
}

fn growing() -> bool {
    let tasks = fs::read_dir("/proc/self/task").expect("procfs");
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.flatten().map(name).any(|name| name.trim_end() == "corelog-grower")
}
