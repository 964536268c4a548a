//! A consumer that starts half a gibibyte behind, within a live window of one: how fast it catches up.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use corelog_uring::baseline::{self, End};

use super::catch_up::{Partitions, Stretch};
use crate::broker::Broker;
use crate::child;
use crate::measure::Measure;
use crate::peer::{Peer, batch};
use crate::place::Place;
use crate::sample::Sample;

const TOPIC: &str = "tail";
const PARTITIONS: u32 = 4;
/// A batch of 128 KiB, about.
const RECORDS: u32 = 130;
const VALUE_BYTES: usize = 1_000;
/// What is written: more than the window holds.
const WRITTEN_BYTES: u64 = 1_280 << 20;
/// How far behind a consumer starts.
const BEHIND_BYTES: u64 = 512 << 20;
/// One after the other; the figure is of all of them together.
const CONSUMERS: u32 = 4;
/// How long the bare stream is measured.
const STREAM: Duration = Duration::from_secs(1);

pub(super) fn measure(place: &Place) -> io::Result<Sample> {
    let mut sample = Sample::default();
    let (load, core) = (place.cores.load, place.cores.broker);
    let stream = baseline::tcp(End::on(load), End::on(core), Ipv4Addr::LOCALHOST, STREAM);
    sample.stream = Some(stream.map_err(io::Error::other)? as f64);
    let directory = place.own()?;
    let broker =
        Broker::start(place, &directory.path().join("store"), "adaptive", &["log.window_bytes=1 GiB"])?;
    let mut peer = Peer::connect(broker.address)?;
    // The whole window is there before it is filled.
    child::settle(&place.interrupt, || Ok(peer.status()?.resident_bytes))?;
    let end = fill(&mut peer, place)?;
    let from = end - records(BEHIND_BYTES);
    let before = peer.status()?;
    let partitions = Partitions::All(PARTITIONS);
    let stretch = Stretch { topic: TOPIC, partitions, from, end, value_bytes: VALUE_BYTES };
    let mut seconds = 0.0;
    for _ in 0..CONSUMERS {
        child::go_on(&place.interrupt)?;
        seconds += stretch.time(broker.address, load)?;
    }
    let after = peer.status()?;
    let consumed = u64::from(CONSUMERS) * stretch.bytes();
    sample.set(Measure::ConsumedBytesPerSecond, consumed as f64 / seconds);
    sample.set(Measure::ColdReads, (after.cold_reads - before.cold_reads) as f64);
    sample.say(format!(
        "{:.2} GB in {seconds:.2} s, broker CPU {:.2} s; window {} MiB",
        consumed as f64 / 1e9,
        (after.cpu_us - before.cpu_us) as f64 / 1e6,
        after.window_bytes >> 20,
    ));
    broker.stop()?;
    Ok(sample)
}

/// Writes the log; the offset after the last record of each partition, the same for all.
fn fill(peer: &mut Peer, place: &Place) -> io::Result<u64> {
    let topic = peer.create_topic(TOPIC, PARTITIONS)?;
    peer.open_all(topic, PARTITIONS)?;
    let batches = (0..PARTITIONS)
        .map(|partition| Ok((partition, batch(topic, partition, RECORDS, VALUE_BYTES)?)))
        .collect::<io::Result<Vec<_>>>()?;
    let times = records(WRITTEN_BYTES) / u64::from(RECORDS);
    for _ in 0..times {
        child::go_on(&place.interrupt)?;
        peer.produce(batches.iter().map(|(partition, batch)| (*partition, &batch[..])), batches.len())?;
    }
    Ok(times * u64::from(RECORDS))
}

/// Records of one partition in so many bytes of values over all partitions.
fn records(bytes: u64) -> u64 {
    bytes / u64::from(PARTITIONS) / VALUE_BYTES as u64
}
