//! Twenty thousand flights go in through one producer while its broker is killed again and again. What comes out is
//! what went in: byte for byte, each once, in order for each key.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::broker::{Broker, Place, output};
use crate::random::Random;
use crate::relay::Relay;
use crate::story;

const KILLS: usize = 7;
/// At least so much is sent and not acknowledged when the broker dies.
const OPEN_BYTES: u64 = 256 << 10;

#[test]
fn a_producer_that_outlives_seven_kills_loses_repeats_and_reorders_nothing() {
    live_through(Place::new(&[]), 1, 0x00f1_1640);
}

#[test]
fn nor_does_one_whose_partitions_are_of_two_shards() {
    live_through(Place::new(&["server.shards=2"]), 2, 0x00f1_1641);
}

#[test]
fn nor_does_one_that_dials_one_port_for_two_shards() {
    live_through(Place::new(&["server.shards=2", "server.ports=one"]), 1, 0x00f1_1642);
}

fn live_through(mut place: Place, ports: usize, seed: u64) {
    let (file, lines) = story::flights();
    assert_eq!(lines.len(), 20_000);
    let mut random = Random::new(seed);
    let relay = Relay::start(ports);
    place.set(format!("server.advertise={}", relay.addresses.join(",")));

    let mut broker = place.start();
    output(&["topic", "create", "flights", "--partitions", "6", "--server", &broker.address]);
    relay.serve(ports_of(&broker, ports), random.within(1..20));
    let mut producer = Command::new(env!("CARGO_BIN_EXE_corelog"))
        .args(["produce", "flights", "--key-field", "carrier", "--batch-bytes", "32KiB", "--server"])
        .args([&relay.addresses[0], "--file"])
        .arg(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    for kill in 1..=KILLS {
        let open = relay.unacknowledged(OPEN_BYTES + random.within(0..64 << 10));
        assert!(open >= OPEN_BYTES);
        // No synchronisation: it dies somewhere between the first byte of a frame and the last answer.
        thread::sleep(Duration::from_micros(random.within(0..5_000)));
        broker.kill();
        relay.over();
        assert_eq!(producer.try_wait().expect("a child"), None, "the producer lives through kill {kill}");
        println!("kill {kill}: {open} bytes unacknowledged");
        if random.within(0..2) == 0 {
            die_while_starting(&place, &mut random);
        }
        broker = place.start();
        let may_pass = if kill < KILLS { random.within(1..15) } else { u64::MAX };
        relay.serve(ports_of(&broker, ports), may_pass);
    }
    let produced = producer.wait_with_output().expect("a child");
    assert!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stderr));
    assert_eq!(String::from_utf8_lossy(&produced.stdout), "20000 records acknowledged\n");

    check(&lines, &consumed(&broker.address));
    // And it is on the disk, not in the memory of the last broker.
    broker.kill();
    broker = place.start();
    relay.serve(ports_of(&broker, ports), u64::MAX);
    check(&lines, &consumed(&broker.address));
}

/// The ports of a broker that a client is told of.
fn ports_of(broker: &Broker, ports: usize) -> &[String] {
    if ports > 1 { &broker.addresses } else { std::slice::from_ref(&broker.address) }
}

/// A restart that is killed too, wherever in its recovery.
fn die_while_starting(place: &Place, random: &mut Random) {
    let mut child = place.spawn();
    // No synchronisation: the moment of the kill.
    thread::sleep(Duration::from_micros(random.within(0..60_000)));
    child.kill().expect("it runs");
    child.wait().expect("a child");
}

/// A line for each record: partition, offset, key and value.
fn consumed(address: &str) -> Vec<u8> {
    let consume = ["consume", "flights", "--until-end", "--with-key", "--with-offset", "--server", address];
    output(&consume).into_bytes()
}

fn check(lines: &[Vec<u8>], consumed: &[u8]) {
    let mut partition_of = BTreeMap::new();
    let mut next_offset = BTreeMap::new();
    let mut found: BTreeMap<Vec<u8>, Vec<&[u8]>> = BTreeMap::new();
    for line in consumed.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let fields: Vec<&[u8]> = line.splitn(4, |&byte| byte == b'\t').collect();
        let &[partition, offset, key, value] = fields.as_slice() else { panic!("four fields") };
        let offset: u64 = std::str::from_utf8(offset).expect("digits").parse().expect("a number");
        let expected = next_offset.entry(partition).or_insert(0);
        assert_eq!(offset, *expected, "offsets have no gap and no repetition");
        *expected += 1;
        assert_eq!(*partition_of.entry(key).or_insert(partition), partition, "a key has one partition");
        found.entry(key.to_vec()).or_default().push(value);
    }
    assert_eq!(next_offset.values().sum::<u64>(), lines.len() as u64, "each record once");

    let mut expected: BTreeMap<Vec<u8>, Vec<&[u8]>> = BTreeMap::new();
    for line in lines {
        let flight: serde_json::Value = serde_json::from_slice(line).expect("JSON");
        let carrier = flight["carrier"].as_str().expect("text").as_bytes().to_vec();
        expected.entry(carrier).or_default().push(line);
    }
    // Not assert_eq: four megabytes of difference help nobody.
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (key, expected) in &expected {
        let differs = found[key].iter().zip(expected).position(|(found, expected)| found != expected);
        let carrier = String::from_utf8_lossy(key);
        assert_eq!(differs, None, "the flights of {carrier} differ from this one on");
        assert_eq!(found[key].len(), expected.len(), "flights of {carrier}");
    }
}
