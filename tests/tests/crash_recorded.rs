//! A real broker, its ring and its files: what it asks of the disk is recorded, and the simulator's shard is started from what
//! a loss of power could have left of that at any moment.

use std::collections::BTreeMap;
use std::ops::Range;

use corelog_client::{Client, ClientConfig, Durability, Partition, RecordRef};
use corelog_model::LogId;
use corelog_server::Tape;
use corelog_storage::{FileName, LogConfig, Recorded};
use corelog_testing::Broker;
use corelog_tests::crash::medium::Medium;
use corelog_tests::disk::{Faults, SimDisk};
use corelog_tests::machine::Machine;
use corelog_tests::model::look;
use corelog_tests::oracle::value_of;
use corelog_tests::random::Random;
use corelog_tests::trace::Trace;

const EXTENT_BYTES: u64 = 1 << 20;
const FRAME_BYTES: u64 = 64 << 10;
const BATCH_BYTES: u64 = 16 << 10;
const RECORDS: u64 = 3_000;
/// Images of each moment, and how many moments at most.
const EACH: usize = 4;
const MOMENTS: usize = 250;

fn settings(method: &str) -> Vec<String> {
    [
        format!("log.extent_bytes={EXTENT_BYTES}"),
        format!("log.frame_bytes={FRAME_BYTES}"),
        format!("limits.max_batch_bytes={BATCH_BYTES}"),
        "log.checkpoint_bytes=1 MiB".to_owned(),
        "log.frames_in_flight=3".to_owned(),
        "log.parallel_frame_bytes=0".to_owned(),
        format!("log.durable_method={method}"),
    ]
    .to_vec()
}

/// Three clients write to one partition at once; which record got which offset.
async fn write(address: String) -> BTreeMap<u64, u64> {
    let client = Client::connect(ClientConfig::new([address])).await.expect("it serves");
    let topic = client.create_topic("orders", 1, Durability::Durable).await.expect("a new topic");
    let part = async |numbers: Range<u64>| {
        let client = client.clone();
        let producer = client.producer(Default::default());
        let (mut value, mut receipts) = (Vec::new(), Vec::new());
        for number in numbers {
            value_of(number, &mut value);
            let record = RecordRef { value: Some(&value), timestamp_us: number, ..Default::default() };
            let receipt = producer.send(&topic, Partition::Index(0), record).await.expect("room");
            receipts.push((number, receipt));
            // Many small frames rather than a few large ones.
            if number % 16 == 0 {
                producer.flush().await.expect("all of it is acknowledged");
            }
        }
        let mut offsets = Vec::new();
        for (number, receipt) in receipts {
            offsets.push((receipt.await.expect("it is acknowledged").offset, number));
        }
        offsets
    };
    let third = RECORDS / 3;
    let (a, b, c) = tokio::join!(part(0..third), part(third..2 * third), part(2 * third..RECORDS));
    [a, b, c].concat().into_iter().collect()
}

/// The store's number, as its superblock has it.
fn store_of(events: &[Recorded]) -> u64 {
    let superblock = events.iter().find_map(|event| match event {
        Recorded::Write { file: FileName::Superblock, bytes, .. } => Some(bytes),
        _ => None,
    });
    u64::from_le_bytes(superblock.expect("it is written")[40..48].try_into().expect("8 bytes"))
}

fn judge(events: &[Recorded], offsets: &BTreeMap<u64, u64>) -> usize {
    let log = LogConfig {
        extent_bytes: EXTENT_BYTES,
        frame_target_bytes: FRAME_BYTES as u32,
        max_batch_bytes: BATCH_BYTES as u32,
        ..LogConfig::new(LogId(0), store_of(events))
    };
    let (mut medium, mut random, mut promised) = (Medium::default(), Random::new(7), None);
    let every = events.len().div_ceil(MOMENTS);
    let mut images = 0;
    for (at, event) in events.iter().enumerate() {
        medium.apply(event);
        if let Recorded::Promised(base) = event {
            promised = promised.max(Some(*base));
        }
        if at % every != 0 && at + 1 < events.len() {
            continue;
        }
        for _ in 0..EACH {
            let fates: Vec<_> = medium.pending().iter().map(|pending| random.pick(pending.fates())).collect();
            let image = medium.image(&fates);
            let mut disk = SimDisk::new(random.fork(), Faults { delay_us: 60, ..Faults::default() });
            for (name, bytes) in image.listing().files {
                disk.put(name, image.bytes(name, 0, bytes as usize));
            }
            let mut machine = Machine::new(&log, vec![disk], random.fork(), Trace::new(false));
            machine.start_fully().unwrap_or_else(|error| panic!("event {at}, {fates:?}: {error}"));
            let damage = machine.shard().expect("it runs").status().storage;
            assert_eq!((damage.damaged_ranges, damage.uncertain_groups), (0, 0), "event {at}, {fates:?}");
            let found = look(&mut machine).expect("everything is read");
            let records = found.get("orders").map_or(&[][..], |partitions| &partitions[0].0);
            let end = promised.map_or(0, |base| base + 1);
            assert!(records.len() as u64 >= end, "event {at}, {fates:?}: {} of {end} records", records.len());
            for (offset, number) in (0..).zip(records) {
                assert_eq!(offsets.get(&offset), Some(number), "event {at}: offset {offset}");
            }
            images += 1;
        }
    }
    assert_eq!(promised.is_some(), !offsets.is_empty());
    images
}

#[tokio::test]
async fn what_a_real_broker_acknowledged_is_on_every_image_of_its_disk() {
    for method in ["dsync", "fdatasync"] {
        let tape = Tape::default();
        let mut builder = Broker::builder().record(tape.clone());
        for setting in settings(method) {
            builder = builder.set(setting);
        }
        let mut broker = builder.start().expect("it starts");
        let offsets = write(broker.address().to_string()).await;
        assert_eq!(offsets.len() as u64, RECORDS);
        broker.stop().expect("it stops");
        let events = tape.events();
        let changed = |event: &&Recorded| matches!(event, Recorded::Ended { done: true, left: Some(_), .. });
        assert_eq!(events.iter().filter(changed).count(), 0, "bytes change on their way to the disk");
        let images = judge(&events, &offsets);
        eprintln!("{method}: {} events, {images} images", events.len());
        assert!(images >= 400, "{images} images");
    }
}
