//! Rounds of a broker under load with flights: stopped and let go on, killed at any moment, and a bit flipped in what it
//! has closed. After each start all that was acknowledged is there once, in order and identical, or its offsets are named.
//!
//! `TEST_ROUNDS=50 cargo test -p corelog --test processes rounds -- --nocapture` for more of them, with a table.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use corelog_client::{Acked, Partition, ProducerConfig, RecordRef};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::broker::{Broker, Place, corelog, output};
use crate::ledger::Ledger;
use crate::random::Random;
use crate::story;

const PARTITIONS: u32 = 6;
/// Records that a round sends at most.
const RECORDS: u64 = 40_000;
/// Records that one flipped bit may cost at most: a frame of 64 KiB, about, with all that lies in it.
const RECORDS_A_FLIP: u64 = 1_000;

/// What was done to the broker, and what came of it.
#[derive(Debug, Default)]
struct Table {
    kills: u64,
    kills_while_starting: u64,
    stops: u64,
    flips: u64,
    /// Starts that were refused by name until the bit was as before.
    refused: u64,
    acknowledged: u64,
    /// Sent, not acknowledged, and there.
    unacknowledged_there: u64,
    /// Records that must be there, compared after all starts together.
    compared: u64,
    damaged_ranges: u64,
    damaged_records: u64,
    possibly_lost: u64,
    packs: u64,
    peak_bytes: u64,
    slowest_start_ms: u128,
}

/// A bit that was flipped.
struct Flip {
    file: PathBuf,
    at: usize,
    bit: u8,
}

impl Flip {
    fn turn(&self) {
        let mut content = fs::read(&self.file).expect("readable");
        content[self.at] ^= self.bit;
        fs::write(&self.file, content).expect("writable");
    }
}

/// A store that settles soon, in small extents, so that there is much that is closed.
fn place() -> Place {
    Place::new(&[
        "log.extent_bytes=1 MiB",
        "log.frame_bytes=64 KiB",
        "log.checkpoint_bytes=2 MiB",
        "log.settle_extents=2",
        "limits.max_batch_bytes=128 KiB",
        "limits.max_frame_bytes=256 KiB",
        "memory.settle_bytes=4 MiB",
        "server.shards=2",
    ])
}

/// Sends flights until there are enough or it is told to stop; the numbers sent, and where those lie that were acknowledged.
async fn send(address: &str, ledger: &Ledger, mut stop: oneshot::Receiver<()>) -> (u64, Vec<(u64, Acked)>) {
    let client = story::connect(address).await;
    let topic = client.topic("flights").await.expect("it is there");
    let config =
        ProducerConfig { batch_bytes: 2 << 10, max_buffer_bytes: 1 << 20, ..ProducerConfig::default() };
    let producer = client.producer(config);
    let (mut number, mut receipts) = (ledger.next, Vec::new());
    while number < ledger.next + RECORDS {
        let (key, value) = ledger.record(number);
        let record = RecordRef { key: Some(&key), value: Some(&value), ..RecordRef::default() };
        tokio::select! {
            biased;
            _ = &mut stop => break,
            sent = producer.send(&topic, Partition::Auto, record) => {
                // It ends with the broker, and what it has not taken by then it will not take.
                let Ok(receipt) = sent else { break };
                receipts.push((number, receipt));
            }
        }
        number += 1;
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    if stop.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
        tokio::select! {
            _ = &mut stop => {}
            _ = async {
                // Refused where the broker is gone: the receipts tell of each record.
                let _ = producer.flush().await;
                std::future::pending::<()>().await;
            } => {}
        }
    }
    let acked = |(number, receipt): (u64, corelog_client::Receipt)| Some((number, receipt.poll_now()?.ok()?));
    // One that was just being handed over may have been taken.
    (number + 1, receipts.into_iter().filter_map(acked).collect())
}

fn signal(broker: &Broker, signal: Signal) {
    let pid = Pid::from_raw(broker.pid() as i32).expect("a process id");
    kill_process(pid, signal).expect("it runs");
}

/// A broker under load, stopped for a while now and then, and killed.
fn live(broker: Broker, ledger: &mut Ledger, random: &mut Random, table: &mut Table) {
    let (stop, stopped) = oneshot::channel();
    let address = broker.address.clone();
    let (sent, acked) = thread::scope(|scope| {
        let lent = &*ledger;
        let load = scope.spawn(move || story::run(send(&address, lent, stopped)));
        // No synchronisation: the moment of the first signal.
        thread::sleep(Duration::from_millis(random.within(10..400)));
        for _ in 0..random.within(0..3) {
            signal(&broker, Signal::STOP);
            // No synchronisation: how long it is stopped.
            thread::sleep(Duration::from_millis(random.within(1..200)));
            if random.within(0..4) > 0 {
                signal(&broker, Signal::CONT);
                // No synchronisation: the moment of the next signal.
                thread::sleep(Duration::from_millis(random.within(1..100)));
            }
            table.stops += 1;
        }
        table.peak_bytes = table.peak_bytes.max(broker.peak_bytes());
        broker.kill();
        table.kills += 1;
        stop.send(()).expect("it waits for this");
        load.join().expect("the load does not panic")
    });
    ledger.next = sent;
    table.acknowledged += acked.len() as u64;
    for (number, Acked { partition, offset, .. }) in acked {
        ledger.note(number, partition, offset);
    }
}

/// What `log verify` says of the stopped store, a document a line.
fn verified(store: &Path) -> Vec<Value> {
    let said = corelog(&["log", "verify", store.to_str().expect("a plain path"), "--format", "json"]);
    let text = String::from_utf8(said.stdout).expect("text");
    assert!(matches!(said.status.code(), Some(0 | 1)), "{text}{}", String::from_utf8_lossy(&said.stderr));
    text.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect()
}

/// Flips a bit of an extent that is closed, or of a pack; `None` while there is none.
fn flip(store: &Path, random: &mut Random) -> Option<Flip> {
    let documents = verified(store);
    let files: Vec<(u64, u64, &str, u64)> = documents
        .iter()
        .filter_map(|found| {
            let figure = |name: &str| found[name].as_u64();
            Some((figure("log")?, figure("generation")?, found["file"].as_str()?, figure("bytes")?))
        })
        .collect();
    let newest = |log| files.iter().filter(|file| file.0 == log).map(|file| file.1).max();
    let closed: Vec<_> = files.iter().filter(|file| Some(file.1) < newest(file.0) && file.3 > 0).collect();
    if closed.is_empty() {
        return None;
    }
    let (log, _, file, bytes) = closed[random.within(0..closed.len() as u64) as usize];
    let file = store.join(format!("log-{log:04}")).join(file);
    let flip = Flip { file, at: random.within(0..*bytes) as usize, bit: 1 << random.within(0..8) };
    flip.turn();
    Some(flip)
}

/// A start, killed on its way now and then; with a bit that makes the store unreadable as a whole, that is said, and the
/// bit is turned back.
fn begin(place: &Place, flip: Option<Flip>, random: &mut Random, table: &mut Table) -> Broker {
    if random.within(0..4) == 0 {
        let mut child = place.spawn();
        // No synchronisation: the moment of the kill.
        thread::sleep(Duration::from_micros(random.within(0..80_000)));
        child.kill().expect("it runs");
        child.wait().expect("a child");
        table.kills_while_starting += 1;
    }
    let begun = Instant::now();
    let broker = match place.try_start() {
        Ok(broker) => broker,
        Err(refused) => {
            let flip = flip.unwrap_or_else(|| panic!("nothing was done to it: {}", refused.message));
            println!("refused with bit {} of {} flipped:\n{}", flip.at, flip.file.display(), refused.message);
            assert!(refused.code == Some(1) && refused.message.contains("cause: "), "{}", refused.message);
            flip.turn();
            table.refused += 1;
            return place.start();
        }
    };
    table.slowest_start_ms = table.slowest_start_ms.max(begun.elapsed().as_millis());
    broker
}

/// Reads all there is and holds it against what must be there.
fn check(address: &str, ledger: &mut Ledger, table: &mut Table) {
    let found = story::run(async {
        let client = story::connect(address).await;
        let topic = client.topic("flights").await.expect("it is there");
        let mut found = Vec::new();
        for partition in 0..PARTITIONS {
            found.push(ledger.read(&client, &topic, partition).await);
        }
        found
    });
    table.compared += ledger.len() as u64;
    let before = ledger.len();
    let lost = found.iter().zip(0..).map(|(found, partition)| ledger.compare(partition, found)).sum::<u64>();
    table.unacknowledged_there += (ledger.len() - before) as u64;
    table.damaged_ranges = found.iter().map(|found| found.damaged.len() as u64).sum();
    table.damaged_records = lost;
    let named =
        found.iter().flat_map(|found| &found.damaged).map(|(first, last)| last - first + 1).sum::<u64>();
    assert!(named <= table.flips * RECORDS_A_FLIP, "{named} records are named after {} flips", table.flips);
}

fn rounds(count: u64, seed: u64) -> Table {
    let (place, mut random) = (place(), Random::new(seed));
    let (mut ledger, mut table) = (Ledger::new(story::flights().1), Table::default());
    let mut broker = place.start();
    let partitions = PARTITIONS.to_string();
    output(&["topic", "create", "flights", "--partitions", &partitions, "--server", &broker.address]);
    for _ in 0..count {
        live(broker, &mut ledger, &mut random, &mut table);
        let flip = if random.within(0..3) > 0 { flip(place.store(), &mut random) } else { None };
        if flip.is_some() {
            table.flips += 1;
            for found in verified(place.store()) {
                let (Some(of), Some(first)) = (found["possibly_lost"].as_str(), found["first"].as_u64())
                else {
                    continue;
                };
                let partition = of.split('/').nth(1).and_then(|number| number.parse().ok());
                let partition = partition.unwrap_or_else(|| panic!("a partition is named: {found}"));
                table.possibly_lost += ledger.forget_from(partition, first) as u64;
            }
        }
        broker = begin(&place, flip, &mut random, &mut table);
        check(&broker.address, &mut ledger, &mut table);
    }
    let files =
        (0..2).flat_map(|log| fs::read_dir(place.store().join(format!("log-{log:04}"))).expect("a log"));
    let is_pack = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("pack-");
    table.packs = files.flatten().filter(is_pack).count() as u64;
    broker.stop();
    table
}

#[test]
fn what_was_acknowledged_is_there_or_named_after_kills_stops_and_flipped_bits() {
    let count = std::env::var("TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let begun = Instant::now();
    let table = rounds(count, 0x00f1_1643);
    println!("{count} rounds in {} s: {table:#?}", begun.elapsed().as_secs());
    assert!(table.kills == count && table.acknowledged > 100 * count, "{table:?}");
}
