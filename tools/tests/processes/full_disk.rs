//! A disk that is full, and one that has room again: a small ext4 of its own on a loop device.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corelog_client::Durability;
use corelog_model::TopicId;
use corelog_wire::ErrorCode;

use crate::broker::{Place, output};
use crate::control;
use crate::peer::{Peer, batch};
use crate::small_disk::SmallDisk;
use crate::story;

const IMAGE_BYTES: u64 = 128 << 20;
/// Given back to the full disk: room for some extents.
const BALLAST_BYTES: u64 = 24 << 20;
const RECORD_BYTES: usize = 64 << 10;
/// Far longer than the broker takes to see that there is room.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that says what the broker answered, where the client would try again until its deadline.
struct Writer {
    peer: Peer,
    topic: TopicId,
}

impl Writer {
    fn connect(address: &str, topic: TopicId) -> Self {
        let mut peer = Peer::connect(address.parse().expect("an address"));
        peer.open(1, topic, 0);
        Self { peer, topic }
    }

    /// Appends a record of its own; answers its offset.
    fn produce(&mut self, value: &[u8]) -> Result<u64, ErrorCode> {
        self.peer.produce(1, &batch(self.topic, 0, &[value.to_vec()]))
    }
}

fn value(offset: u64) -> Vec<u8> {
    let mut value = format!("record {offset} ").into_bytes();
    value.resize(RECORD_BYTES, b'.');
    value
}

const FULL: ErrorCode = ErrorCode::StorageFull;

/// Appends until the disk is full; answers how many records there are.
fn fill(peer: &mut Writer, from: u64) -> u64 {
    assert!(FULL.retryable());
    for offset in from.. {
        match peer.produce(&value(offset)) {
            Ok(given) => assert_eq!(given, offset),
            Err(refused) => {
                assert_eq!(refused, FULL);
                return offset;
            }
        }
    }
    unreachable!("a disk is finite")
}

/// Appends the record as soon as the broker takes it.
fn produce_when_there_is_room(peer: &mut Writer, offset: u64) {
    let begin = Instant::now();
    loop {
        match peer.produce(&value(offset)) {
            Ok(given) => return assert_eq!(given, offset),
            Err(refused) => assert_eq!(refused, FULL),
        }
        assert!(begin.elapsed() < PATIENCE, "there is room and the broker does not see it");
    }
}

/// Every record that was acknowledged is there, whole, and nothing else.
fn assert_readable(address: &str, name: &str, records: u64) {
    let found = story::run(async {
        let client = story::connect(address).await;
        let topic = client.topic(name).await.expect("it is there");
        story::read(&client, &topic, 0).await
    });
    assert_eq!(found.len() as u64, records);
    assert!(found.iter().all(|(offset, found)| *found == value(*offset)));
}

fn create_topic(address: &str, name: &str) -> TopicId {
    Peer::connect(address.parse().expect("an address")).create_topic(name, 1, Durability::Durable)
}

/// Extents of the store's log.
fn extents(place: &Place) -> usize {
    let names = fs::read_dir(place.log()).expect("a log").map(|entry| entry.expect("listed").file_name());
    // One that was killed on its way has a further ending, and is gone after the next start.
    let is_extent = |name: &std::ffi::OsString| {
        name.to_str().is_some_and(|name| name.starts_with("ext-") && !name.ends_with(".tmp"))
    };
    names.filter(is_extent).count()
}

fn ballast(disk: &Path) -> PathBuf {
    let path = disk.join("ballast");
    let file = File::create(&path).expect("made");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BALLAST_BYTES).expect("allocated");
    path
}

/// A small disk with its ballast, and the place of a store on it; `None` where none can be mounted.
fn prepare() -> Option<(SmallDisk, PathBuf, Place)> {
    let disk = SmallDisk::mount(IMAGE_BYTES)?;
    let ballast = ballast(&disk.path());
    let place = Place::at(disk.path().join("store"), &[]);
    Some((disk, ballast, place))
}

#[test]
fn a_full_disk_refuses_produce_goes_on_reading_and_takes_records_when_it_has_room_again() {
    let Some((_disk, ballast, place)) = prepare() else { return };
    let broker = place.start();
    let topic = create_topic(&broker.address, "t");
    let mut peer = Writer::connect(&broker.address, topic);

    let records = fill(&mut peer, 0);
    println!("{records} records of {RECORD_BYTES} bytes on a disk of {IMAGE_BYTES}");
    assert!(records * RECORD_BYTES as u64 > IMAGE_BYTES / 3, "most of the disk is used");
    assert_readable(&broker.address, "t", records);
    assert_eq!(peer.produce(&value(records)), Err(FULL), "the connection goes on");
    let why = control::wait_for(&broker, "/readyz", 503);
    assert_eq!(why, "[-] log 0 of shard 0: full, its disk has no more room\n");

    fs::remove_file(&ballast).expect("removed");
    produce_when_there_is_room(&mut peer, records);
    control::wait_for(&broker, "/readyz", 200);
    let records = fill(&mut peer, records + 1);
    assert_readable(&broker.address, "t", records);
    broker.kill();
}

/// Killed as often as it likes, at once or after it was used: the broker on a full disk starts, serves what there is,
/// and takes no more of the disk than it had.
#[test]
fn a_broker_on_a_full_disk_starts_every_time_serves_and_does_not_grow() {
    let Some((_disk, ballast, place)) = prepare() else { return };
    let broker = place.start();
    let topic = create_topic(&broker.address, "t");
    let records = fill(&mut Writer::connect(&broker.address, topic), 0);
    broker.kill();
    let extents = extents(&place);
    for round in 0..24 {
        let broker = place.start();
        if round % 6 == 5 {
            let mut peer = Writer::connect(&broker.address, topic);
            assert_readable(&broker.address, "t", records);
            assert_eq!(peer.produce(&value(records)), Err(FULL));
            assert!(output(&["topic", "list", "--server", &broker.address]).starts_with("t "));
            assert!(
                output(&["topic", "describe", "t", "--server", &broker.address])
                    .contains(&records.to_string())
            );
        }
        broker.kill();
        assert_eq!(self::extents(&place), extents, "round {round}");
    }
    fs::remove_file(&ballast).expect("removed");
    let broker = place.start();
    let mut peer = Writer::connect(&broker.address, topic);
    produce_when_there_is_room(&mut peer, records);
    assert_readable(&broker.address, "t", records + 1);
    broker.stop();
}

/// A topic that is deleted on a full disk makes room for the others, whether the broker was restarted meanwhile or not.
#[test]
fn a_topic_can_be_deleted_on_a_full_disk_and_makes_room() {
    for killed in [false, true] {
        let Some((_disk, _ballast, place)) = prepare() else { return };
        let mut broker = place.start();
        let kept = create_topic(&broker.address, "kept");
        let large = create_topic(&broker.address, "large");
        assert_eq!(Writer::connect(&broker.address, kept).produce(&value(0)), Ok(0));
        fill(&mut Writer::connect(&broker.address, large), 0);
        if killed {
            broker.kill();
            broker = place.start();
        }
        output(&["topic", "delete", "large", "--server", &broker.address]);
        if killed {
            broker.kill();
            broker = place.start();
        }
        let mut peer = Writer::connect(&broker.address, kept);
        produce_when_there_is_room(&mut peer, 1);
        let records = fill(&mut peer, 2);
        assert!(records * RECORD_BYTES as u64 > IMAGE_BYTES / 4, "{records}: the space came back");
        assert_readable(&broker.address, "kept", records);
        let topics = output(&["topic", "list", "--server", &broker.address]);
        assert!(topics.starts_with("kept ") && !topics.contains("large"), "{topics}");
        broker.kill();
    }
}

/// A disk that cannot hold a new store is refused by name.
#[test]
fn a_new_store_on_too_small_a_disk_is_refused_by_name() {
    let Some((_disk, _ballast, mut place)) = prepare() else { return };
    place.set("log.extent_bytes=32 MiB".to_owned());
    let refused = place.refused();
    assert_eq!(refused.code, Some(1));
    assert!(refused.message.contains("no space left for a new log"), "{}", refused.message);
}

/// Records that their owner gives up, or that their topic keeps no longer, make room on a full disk; who reads meanwhile
/// reads on, and produce comes back by itself.
#[test]
fn records_that_are_deleted_or_expire_on_a_full_disk_make_room() {
    for expire in [false, true] {
        let Some((_disk, _ballast, mut place)) = prepare() else { return };
        place.set("log.retention_check_s=1".to_owned());
        let broker = place.start();
        let topic = create_topic(&broker.address, "t");
        let mut peer = Writer::connect(&broker.address, topic);
        let records = fill(&mut peer, 0);
        assert_readable(&broker.address, "t", records);
        let server = ["--server", &broker.address];
        if expire {
            let keep = ["topic", "alter", "t", "--retention-bytes", "16MiB"];
            output(&[&keep[..], &server].concat());
        } else {
            let before = (records - 200).to_string();
            output(&[&["records", "delete", "t/0", "--before", &before][..], &server].concat());
        }
        produce_when_there_is_room(&mut peer, records);
        control::wait_for(&broker, "/readyz", 200);
        let more = fill(&mut peer, records + 1);
        assert!(more > records + 200, "{} records found room", more - records);
        let found = story::run(async {
            let client = story::connect(&broker.address).await;
            let topic = client.topic("t").await.expect("it is there");
            story::read(&client, &topic, 0).await
        });
        let (first, last) = (found[0].0, found[found.len() - 1].0);
        assert!(first > 0 && last == more - 1, "{first} to {last} of {more}");
        assert_eq!(found.len() as u64, last - first + 1, "no gap");
        assert!(found.iter().all(|(offset, found)| *found == value(*offset)));
        broker.kill();
    }
}
