//! What a start makes of the memory that it may lock and of the extents that it is to make.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::PathBuf;

use corelog_client::Durability;

use crate::broker::{Broker, Place};
use crate::story;

/// A broker that may lock so many bytes of memory, root or not.
fn with_locked_memory(bytes: u64) -> Place {
    let mut place = Place::new(&[]);
    let limit = format!("--memlock={bytes}:{bytes}");
    match rustix::process::geteuid().is_root() {
        // Root may lock what it likes until it gives that right up.
        true => place.run_by(&["setpriv", "--bounding-set=-ipc_lock", "prlimit", &limit]),
        false => place.run_by(&["prlimit", &limit]),
    }
    place
}

/// Whether this process, and so its brokers, may lock any amount of memory.
fn may_lock_all() -> bool {
    /// Linux' CAP_IPC_LOCK.
    const IPC_LOCK: u32 = 14;
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("capabilities");
    let effective = u64::from_str_radix(effective.trim(), 16).expect("a number");
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    effective >> IPC_LOCK & 1 == 1 || limit.current.is_none()
}

/// One record goes in and comes out.
fn assert_serves(broker: &Broker, value: &[u8]) {
    let records = story::run(async {
        let client = story::connect(&broker.address).await;
        let topic = client.create_topic("t", 1, Durability::Durable).await.expect("it serves");
        assert_eq!(story::append(&client.producer(Default::default()), &topic, 0, value).await, Ok(0));
        story::read(&client, &topic, 0).await
    });
    assert_eq!(records, [(0, value.to_vec())]);
}

#[test]
fn buffers_that_the_kernel_does_not_register_are_used_plain_and_the_ready_line_says_so() {
    if may_lock_all() {
        let broker = Place::new(&[]).start();
        assert!(broker.ready.contains(", registered buffers store="), "{}", broker.ready);
        broker.stop();
    }

    // What Linux allows by default.
    let place = with_locked_memory(8 << 20);
    let broker = place.start();
    let said = ", plain buffers (registration refused: ";
    for part in [said, "; `ulimit -l unlimited` allows it) store="] {
        assert!(broker.ready.contains(part), "{part} in {}", broker.ready);
    }
    assert_serves(&broker, &[7; 100_000]);
    broker.stop();
}

/// The extents of a log, in order, that are there now.
fn extents(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.log()).expect("a log").map(|entry| entry.expect("listed").path());
    let is_extent = |path: &PathBuf| path.to_string_lossy().contains("/ext-");
    let mut extents: Vec<_> = entries.filter(is_extent).collect();
    extents.sort();
    extents
}

/// How many of them hold a frame.
fn used(extents: &[PathBuf]) -> usize {
    let begins_with_frame = |path: &&PathBuf| {
        let mut magic = [0; 4];
        File::open(path).and_then(|mut file| file.read_exact(&mut magic)).expect("readable");
        magic == *b"CLF1"
    };
    extents.iter().filter(begins_with_frame).count()
}

#[test]
fn provisioned_extents_are_there_before_the_broker_is_ready_and_are_what_it_writes_to() {
    const PROVISIONED: usize = 16;
    const RECORD_BYTES: usize = 100_000;
    /// Seven extents and a half.
    const RECORDS: u64 = 75;
    let small = [
        "log.extent_bytes=1 MiB",
        "log.frame_bytes=64 KiB",
        "limits.max_batch_bytes=128 KiB",
        "limits.max_frame_bytes=256 KiB",
    ];
    let place = Place::new(&small);
    place.start().kill();
    assert!(extents(&place).len() < PROVISIONED, "without being asked it makes a few");

    let mut place = Place::new(&small);
    place.set(format!("log.provision={PROVISIONED}"));
    let broker = place.start();
    let made = extents(&place);
    assert_eq!(made.len(), PROVISIONED);
    assert_eq!(used(&made), 1, "the first frame of the term");
    story::run(async {
        let client = story::connect(&broker.address).await;
        let topic = client.create_topic("t", 1, Durability::Durable).await.expect("it serves");
        let producer = client.producer(Default::default());
        for offset in 0..RECORDS {
            let value = [offset as u8; RECORD_BYTES];
            assert_eq!(story::append(&producer, &topic, 0, &value).await, Ok(offset));
        }
    });
    assert_eq!(extents(&place), made, "none was made besides");
    let least = RECORDS as usize * RECORD_BYTES / (1 << 20);
    assert!((least..=least + 2).contains(&used(&made)), "{} of them are used", used(&made));
    broker.kill();
    // Provision is for a new log: the next start takes what is there.
    place.start().stop();
    assert_eq!(extents(&place), made);
}
