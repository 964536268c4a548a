//! Consumers of a partition that is on the disk only: one alone, ten that start within a second, and one beside a live
//! load.
//!
//! What a consumer gets is set against reads of the very files that it reads from, and against the bare stream, in turns
//! within one run. What ten cost is told by the system's account of the broker's reads.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corelog_uring::baseline::{self, End};
use corelog_uring::limits::{DurableMethod, Preparation};
use tokio::task::{JoinSet, LocalSet};

use super::catch_up::{Partitions, Stretch, alone, on_core};
use crate::broker::Broker;
use crate::budget::Run;
use crate::child;
use crate::lines::bench::bench;
use crate::measure::Measure;
use crate::peer::{Peer, batch};
use crate::place::Place;
use crate::sample::Sample;
use crate::verdict::median;

const TOPIC: &str = "cold";
/// A batch of 128 KiB, about.
const RECORDS: u32 = 130;
const VALUE_BYTES: usize = 1_000;
/// Requests under way while the log is written.
const DEPTH: usize = 32;
/// What is read, and what is written behind it so that nothing of it is in memory.
const READ_BYTES: u64 = 3 << 30;
const BEHIND_BYTES: u64 = 512 << 20;
/// Of what is set against each other, in turns.
const TURNS: usize = 3;
const BASELINE: Duration = Duration::from_secs(2);
const CONSUMERS: u32 = 10;
/// From the start of the first to that of the last.
const WITHIN: Duration = Duration::from_secs(1);
/// Of the durable limit, what the live load asks for.
const LIVE_SHARE: f64 = 0.2;

pub(super) fn measure(run: &Run, place: &Place) -> io::Result<Sample> {
    let directory = place.own()?;
    let store = directory.path().join("store");
    let mut sample = Sample::default();
    let limit = durable_limit(place, directory.path())?;
    let broker = Broker::start(place, &store, "adaptive", &[])?;
    let mut peer = Peer::connect(broker.address)?;
    let end = fill(&mut peer, place)?;
    let stretch =
        Stretch { topic: TOPIC, partitions: Partitions::One(0), from: 0, end, value_bytes: VALUE_BYTES };
    let reads = one(place, &broker, &store, &stretch, &mut sample)?;
    // As everywhere, the smaller of what the disk and the stream take.
    let limit = sample.stream.map_or(limit as f64, |stream| stream.min(limit as f64));
    ten(place, &broker, &stretch, &mut sample)?;
    beside_a_load(&Load { run, limit, reads }, place, &broker, &stretch, &mut sample)?;
    broker.stop()?;
    Ok(sample)
}

fn durable_limit(place: &Place, directory: &Path) -> io::Result<u64> {
    let core = place.cores.broker;
    let measured = on_core(core, || {
        baseline::disk(directory, Preparation::Written, DurableMethod::Dsync, BASELINE)
            .map_err(io::Error::other)
    });
    child::go_on(&place.interrupt)?;
    measured
}

/// Writes the log; the offset behind the last record that is to be read.
fn fill(peer: &mut Peer, place: &Place) -> io::Result<u64> {
    let topic = peer.create_topic(TOPIC, 1)?;
    peer.open_all(topic, 1)?;
    let batch = batch(topic, 0, RECORDS, VALUE_BYTES)?;
    let part = if place.quick { 8 } else { 1 };
    let batches = |bytes: u64| (bytes / u64::from(RECORDS) / VALUE_BYTES as u64) as usize;
    let read = batches(READ_BYTES / part);
    for _ in 0..(read + batches(BEHIND_BYTES)).div_ceil(DEPTH) {
        child::go_on(&place.interrupt)?;
        peer.produce((0..DEPTH).map(|_| (0, &batch[..])), DEPTH)?;
    }
    Ok(read as u64 * u64::from(RECORDS))
}

/// One consumer alone, set against the files and the stream; bytes a second of the files.
fn one(
    place: &Place,
    broker: &Broker,
    store: &Path,
    stretch: &Stretch<'_>,
    sample: &mut Sample,
) -> io::Result<f64> {
    let (load, core) = (place.cores.load, place.cores.broker);
    let files = files(store)?;
    let (mut shares, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        child::go_on(&place.interrupt)?;
        let disk = on_core(core, || baseline::disk_reads(&files, BASELINE).map_err(io::Error::other))? as f64;
        // From the broker's core to the load's, as it sends.
        let stream = baseline::tcp(End::on(core), End::on(load), Ipv4Addr::LOCALHOST, BASELINE / 2);
        let stream = stream.map_err(io::Error::other)? as f64;
        let rate = stretch.bytes() as f64 / stretch.time(broker.address, load)?;
        sample.say(format!(
            "one consumer {:.2} GB/s; disk {:.2}, stream {:.2}",
            rate / 1e9,
            disk / 1e9,
            stream / 1e9
        ));
        shares.push(rate / disk.min(stream));
        rates.push(disk);
        sample.stream = Some(stream);
    }
    sample.set(Measure::ColdShare, median(&shares).unwrap_or_default());
    Ok(median(&rates).unwrap_or_default())
}

/// Extents and packs of the store.
fn files(store: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(store.join("log-0000"))?.collect::<io::Result<Vec<_>>>()?;
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    let is_data = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("ext-") || name.starts_with("pack-")
    };
    paths.retain(is_data);
    paths.sort();
    // The newest are not written to their ends: those read that a consumer reads.
    paths.truncate(READ_FILES);
    Ok(paths)
}

/// Files of the baseline at most.
const READ_FILES: usize = 10;

/// Ten that start within a second: what they cost together.
fn ten(place: &Place, broker: &Broker, stretch: &Stretch<'static>, sample: &mut Sample) -> io::Result<()> {
    let before = read_bytes(broker.pid())?;
    let (address, stretch) = (broker.address, *stretch);
    let seconds = on_core(place.cores.load, || {
        alone(LocalSet::new().run_until(async {
            let began = Instant::now();
            let mut consumers = JoinSet::new();
            for number in 0..CONSUMERS {
                consumers.spawn_local(async move {
                    let start = began + WITHIN * number / (CONSUMERS - 1);
                    tokio::time::sleep_until(start.into()).await;
                    let mut consumer = stretch.consumer(address).await?;
                    stretch.read(&mut consumer).await
                });
            }
            while let Some(consumer) = consumers.join_next().await {
                consumer.map_err(io::Error::other)??;
            }
            Ok(began.elapsed().as_secs_f64())
        }))
    })?;
    let read = (read_bytes(broker.pid())? - before) as f64;
    let bytes = stretch.bytes() as f64;
    sample.set(Measure::SharedReads, read / bytes);
    sample.say(format!(
        "{CONSUMERS} consumers: {:.2} GB in {seconds:.2} s, {:.2} GB of {:.2} read from the disk",
        bytes * f64::from(CONSUMERS) / 1e9,
        read / 1e9,
        bytes / 1e9,
    ));
    Ok(())
}

/// Bytes that a process has had read from disks.
fn read_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let figure = text.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.parse().ok());
    figure.ok_or_else(|| io::Error::other("the system does not tell what the broker reads"))
}

struct Load<'a> {
    run: &'a Run,
    /// Of durable writes and of reads, bytes a second.
    limit: f64,
    reads: f64,
}

/// A live load alone and with a consumer that catches up, in turns.
fn beside_a_load(
    load: &Load<'_>,
    place: &Place,
    broker: &Broker,
    stretch: &Stretch<'_>,
    sample: &mut Sample,
) -> io::Result<()> {
    let rate = (LIVE_SHARE * load.limit / VALUE_BYTES as f64) as u64;
    let run = load.run.with(&["--rate".to_owned(), rate.to_string()]);
    let (mut p99s, mut shares, mut flagged) = (Vec::new(), Vec::new(), 0);
    for turn in 0..TURNS {
        let mut p99 = [0.0; 2];
        // What drifts one way favours each side in turn.
        for with in if turn % 2 == 0 { [false, true] } else { [true, false] } {
            let stop = AtomicBool::new(!with);
            let (results, caught) = std::thread::scope(|scope| {
                let consumer = scope.spawn(|| follow(place, broker, stretch, &stop));
                let results = bench(&run, place, Some(broker.address));
                stop.store(true, Ordering::Relaxed);
                let caught = consumer.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")));
                (results, caught)
            });
            let (results, caught) = (results?, caught?);
            let response = results.produce.response_us;
            p99[usize::from(with)] = response.ok_or_else(|| io::Error::other("no open loop"))?.p99;
            if with {
                // Hiccups are its doing here: they are in the ratio.
                shares.push(caught / load.reads);
            } else {
                flagged += usize::from(results.flagged);
            }
        }
        p99s.push(p99[1] / p99[0]);
        sample.say(format!(
            "{rate} records a second: p99 {:.0} us alone, {:.0} beside a consumer that gets {:.2} of the read rate",
            p99[0],
            p99[1],
            shares.last().copied().unwrap_or_default(),
        ));
    }
    sample.flagged = flagged > TURNS / 2;
    sample.set(Measure::ColdP99Ratio, median(&p99s).unwrap_or_default());
    sample.set(Measure::ColdLiveShare, median(&shares).unwrap_or_default());
    Ok(())
}

/// Reads the stretch over and over until it is told to stop; bytes a second.
fn follow(place: &Place, broker: &Broker, stretch: &Stretch<'_>, stop: &AtomicBool) -> io::Result<f64> {
    let mut seen = 0;
    let seconds = on_core(place.cores.load, || {
        // It shares a core with the load, of which it is to take what is left: what it does to the broker is the matter.
        rustix::process::nice(19)?;
        alone(async {
            let began = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                let mut consumer = stretch.consumer(broker.address).await?;
                let mut here = 0;
                while here < stretch.records() && !stop.load(Ordering::Relaxed) {
                    here += stretch.read_batch(&mut consumer).await?;
                }
                seen += here;
            }
            Ok(began.elapsed().as_secs_f64())
        })
    })?;
    Ok(seen as f64 * VALUE_BYTES as f64 / seconds)
}
