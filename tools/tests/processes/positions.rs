//! `consume --as` killed and interrupted at random moments, and positions through kills of the broker, other numbers of
//! shards, and extents that are gone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use corelog_client::{ConsumerConfig, Durability, Partition, Partitions, Position, RecordRef};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::broker::{Broker, Place, output};
use crate::random::Random;
use crate::story;

const PARTITIONS: u32 = 3;
const ROUNDS: u64 = 30;
/// Far longer than a consumer takes to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// Appends to every partition in turn until it is told to stop; how many records each has then.
fn produce(address: &str, stop: &AtomicBool) -> u64 {
    story::run(async {
        let client = story::connect(address).await;
        let topic = client.topic("t").await.expect("it is there");
        let producer = client.producer(Default::default());
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..20 {
                for partition in 0..PARTITIONS {
                    let value = format!("{partition}-{count}");
                    let record = RecordRef { value: Some(value.as_bytes()), ..RecordRef::default() };
                    producer.send(&topic, Partition::Index(partition), record).await.expect("accepted");
                }
                count += 1;
            }
            producer.flush().await.expect("acknowledged");
        }
        count
    })
}

fn consume(address: &str, to: &Path, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_corelog"))
        .args(["consume", "t", "--as", "reader", "--with-offset", "--server", address])
        .args(more)
        .stdout(File::create(to).expect("a file"))
        .spawn()
        .expect("it starts")
}

/// By partition, the offsets that were printed, in order. A line that a kill has cut was not printed.
fn printed(path: &Path) -> BTreeMap<u32, Vec<u64>> {
    let text = fs::read(path).expect("a file");
    let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let mut found: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for line in std::str::from_utf8(&text[..whole]).expect("text").lines() {
        let mut fields = line.split('\t');
        let mut number = || fields.next().expect("a field").parse::<u64>().expect("a number");
        let (partition, offset) = (number() as u32, number());
        assert_eq!(fields.next(), Some(format!("{partition}-{offset}").as_str()));
        found.entry(partition).or_default().push(offset);
    }
    found
}

/// What a consumer printed leads on from what those before it have: after a kill it may begin earlier, else it may not.
#[track_caller]
fn lead_on(reached: &mut BTreeMap<u32, u64>, found: &BTreeMap<u32, Vec<u64>>, repeats: bool) -> u64 {
    let mut repeated = 0;
    for (partition, offsets) in found {
        let next = reached.entry(*partition).or_default();
        let first = offsets[0];
        assert!(offsets.iter().copied().eq(first..first + offsets.len() as u64), "{partition}: a hole");
        assert!(first <= *next, "partition {partition} goes on at {first}, {next} was to come");
        assert!(repeats || first == *next, "partition {partition} repeats {first} to {next}");
        repeated += *next - first;
        *next = (*next).max(first + offsets.len() as u64);
    }
    repeated
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("it runs");
}

/// Killed, nothing is skipped; interrupted, nothing is skipped or repeated.
#[test]
fn a_consumer_that_is_killed_skips_nothing_and_one_that_is_interrupted_repeats_nothing() {
    let mut random = Random::new(0x0905_1710);
    let place = Place::new(&["server.shards=2"]);
    let broker = place.start();
    let address = broker.address.as_str();
    output(&["topic", "create", "t", "--partitions", "3", "--server", address]);
    let stop = Arc::new(AtomicBool::new(false));
    let producer = thread::spawn({
        let (stop, address) = (Arc::clone(&stop), address.to_owned());
        move || produce(&address, &stop)
    });
    let file = place.store().with_extension("out");
    let (mut reached, mut repeated, mut was_killed) = (BTreeMap::new(), 0, false);
    for round in 0..ROUNDS {
        let mut child = consume(address, &file, &[]);
        let begin = Instant::now();
        // Two of three have begun to print when the signal comes, the others are somewhere before.
        while round % 3 != 0 && fs::metadata(&file).expect("a file").len() == 0 {
            assert!(begin.elapsed() < PATIENCE, "it prints nothing");
            thread::yield_now();
        }
        // No synchronisation: the moment of the signal.
        thread::sleep(Duration::from_micros(random.within(0..60_000)));
        let ends = [Signal::KILL, Signal::INT, Signal::TERM][random.within(0..3) as usize];
        signal(&child, ends);
        let status = child.wait().expect("a child");
        let found = printed(&file);
        repeated += lead_on(&mut reached, &found, was_killed);
        // A signal before it was taken note of kills, and then nothing was printed.
        let in_order = ends != Signal::KILL && status.success();
        assert!(in_order || ends == Signal::KILL || found.is_empty(), "{status}: {found:?}");
        was_killed = if found.is_empty() { was_killed } else { !in_order };
    }
    stop.store(true, Ordering::Relaxed);
    let count = producer.join().expect("no panic");
    for last in [false, true] {
        let status = consume(address, &file, &["--until-end"]).wait().expect("a child");
        assert!(status.success(), "{status}");
        let found = printed(&file);
        lead_on(&mut reached, &found, was_killed);
        assert!(!last || found.is_empty(), "everything was printed: {found:?}");
        was_killed = false;
    }
    assert_eq!(reached, (0..PARTITIONS).map(|partition| (partition, count)).collect());
    println!("{ROUNDS} signals, {count} records a partition, {repeated} of all repeated");
    let begun = reached.values().sum::<u64>();
    assert!(begun > 1_000, "{begun} records");
    fs::remove_file(&file).expect("removed");
    broker.stop();
}

/// By name, topic and partition.
fn listed(address: &str) -> BTreeMap<(String, String, u64), u64> {
    let document = output(&["position", "list", "--format", "json", "--server", address]);
    let document: Value = serde_json::from_str(&document).expect("one document");
    let rows = document["positions"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let number = |value: &Value| value.as_u64().expect("a number");
    rows.map(|row| {
        ((text(&row["name"]), text(&row["topic"]), number(&row["partition"])), number(&row["offset"]))
    })
    .collect()
}

fn start(place: &Place, shards: usize, ports: &str) -> Broker {
    place.again(&[format!("server.shards={shards}"), format!("server.ports={ports}")]).start()
}

/// Each start has another number of shards, every second one all of them on one port; half of the brokers are killed.
#[test]
fn positions_are_the_same_with_any_number_of_shards_and_at_any_port() {
    let place = Place::new(&[]);
    let mut expected = BTreeMap::new();
    let starts = [(1, "each"), (2, "one"), (4, "each"), (1, "one"), (4, "one"), (2, "each"), (3, "one")];
    for (at, (shards, ports)) in starts.into_iter().enumerate() {
        let broker = start(&place, shards, ports);
        let own: Vec<&str> = broker.addresses.iter().map(String::as_str).collect();
        for address in if own.is_empty() { vec![broker.address.as_str()] } else { own } {
            assert_eq!(listed(address), expected, "start {at} with {shards} shards at {address}");
        }
        story::run(async {
            let client = story::connect(&broker.address).await;
            let name = format!("t{at}");
            client.create_topic(&name, 5, Durability::Durable).await.expect("a new name");
            for number in 0..=at {
                let name = format!("t{number}");
                let topic = client.topic(&name).await.expect("it is there");
                let producer = client.producer(Default::default());
                let position = client.position("reader", &topic);
                for partition in 0..5 {
                    let offset = story::append(&producer, &topic, partition, b"x").await.expect("served");
                    position.commit(partition, offset + 1, "").await.expect("committed");
                    expected.insert(("reader".to_owned(), name.clone(), partition.into()), offset + 1);
                }
            }
            let topic = client.topic("t0").await.expect("it is there");
            let position = client.position("other", &topic);
            match at % 2 {
                0 => {
                    position.commit(at as u32 % 5, 1, "").await.expect("committed");
                    expected.insert(("other".to_owned(), "t0".to_owned(), at as u64 % 5), 1);
                }
                _ => {
                    position.delete((at as u32 - 1) % 5).await.expect("forgotten");
                    expected.remove(&("other".to_owned(), "t0".to_owned(), (at as u64 - 1) % 5));
                }
            }
            let status = client.status().await.expect("it answers");
            assert_eq!(status.positions, expected.len() as u64, "those of all cores");
            assert!((100..300).contains(&(status.position_bytes / status.positions)), "{status:?}");
        });
        assert_eq!(listed(&broker.address), expected);
        if at % 2 == 0 { broker.kill() } else { broker.stop() }
    }
}

/// Four extents are kept, and so much is written that everything committed early was in extents that are gone. One name
/// commits all the while; the brokers are killed.
#[test]
fn positions_outlive_the_extents_they_were_written_in() {
    let place = Place::forgetful();
    let (mut end, mut live) = (0, 0);
    for life in 0..4 {
        let broker = place.start();
        story::run(async {
            let client = story::connect(&broker.address).await;
            if life == 0 {
                client.create_topic("quiet", 1, Durability::Durable).await.expect("a new name");
                client.create_topic("live", 1, Durability::Memory).await.expect("a new name");
            }
            let (quiet, topic) =
                (client.topic("quiet").await.expect("there"), client.topic("live").await.expect("there"));
            let producer = client.producer(Default::default());
            let position = client.position("reader", &quiet);
            if life == 0 {
                story::append(&producer, &quiet, 0, b"x").await.expect("served");
                position.commit(0, 1, "from the first life").await.expect("committed");
                client.position("gone", &quiet).commit(0, 1, "").await.expect("committed");
                client.position("gone", &quiet).delete(0).await.expect("forgotten");
            }
            let kept = position.get(0).await.expect("served").expect("kept");
            assert_eq!((kept.offset, kept.metadata.as_str()), (1, "from the first life"), "life {life}");
            assert_eq!(client.position("gone", &quiet).get(0).await.expect("served"), None);
            let follower = client.position("follower", &topic);
            let found = follower.get(0).await.expect("served").map_or(0, |found| found.offset);
            assert_eq!(found, live, "life {life}: the last that was acknowledged");
            // A memory topic falls back, but not behind what a position has passed.
            let there = client.offset(&topic, 0, Position::End).await.expect("served");
            assert!((live..=end).contains(&there), "{live} {there} {end}");
            end = there;
            for _ in 0..150 {
                assert_eq!(story::append(&producer, &topic, 0, &[7; 100_000]).await.expect("served"), end);
                end += 1;
                if end % 10 == 0 {
                    follower.commit(0, end, "").await.expect("committed");
                    live = end;
                }
            }
            assert!(client.offset(&topic, 0, Position::Start).await.expect("served") > end - 100);
        });
        if life == 3 {
            story::run(goes_on(&broker, live));
        }
        broker.kill();
    }
    let dump = output(&["log", "dump", place.store().to_str().expect("a path")]);
    for line in [
        "position \"reader\" in quiet/0, offset 1, note \"from the first life\"",
        &format!("position \"follower\" in live/0, offset {live}"),
    ] {
        assert!(dump.contains(line), "no {line} in the dump");
    }
    assert!(!dump.contains("NOT DECODED"));
}

/// A consumer of the name begins where it was.
async fn goes_on(broker: &Broker, live: u64) {
    let client = story::connect(&broker.address).await;
    let topic = client.topic("live").await.expect("there");
    let partitions = Partitions::Only(vec![0]);
    let config = ConsumerConfig { partitions, ..ConsumerConfig::new(&topic, Position::Start) };
    let mut consumer = client.consumer(config.named("follower")).await.expect("served");
    let producer = client.producer(Default::default());
    let offset = story::append(&producer, &topic, 0, b"the next one").await.expect("served");
    assert!(offset >= live);
    let mut batch = consumer.next().await.expect("readable");
    let first = batch.records().expect("readable").next().expect("a record").offset;
    assert_eq!(first, live);
}
