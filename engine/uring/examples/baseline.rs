//! What this machine does without a broker: `cargo run --release -p corelog-uring --example baseline -- DIRECTORY`.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use corelog_uring::affinity;
use corelog_uring::baseline::{self, End, MeasureError};
use corelog_uring::limits::{DurableMethod, Preparation};
use corelog_uring::probe::{self, ProbeConfig};

const EACH: Duration = Duration::from_secs(3);

fn main() -> Result<(), MeasureError> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let directory = Path::new(&directory);
    let cores = affinity::cores();
    let (broker, load) = (cores[0], cores[cores.len() - 1]);
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;

    let stream = baseline::tcp(End::on(load), End::on(broker), Ipv4Addr::LOCALHOST, EACH)?;
    println!("tcp, 4 x 128 KiB        {:8.2} GB/s", gigabytes(stream));
    for (name, preparation) in [("recycled", Preparation::Written), ("unwritten", Preparation::Unwritten)] {
        let rate = baseline::disk(directory, preparation, DurableMethod::Dsync, EACH)?;
        println!("durable 4 x 1 MiB, {name:<9} {:4.2} GB/s", gigabytes(rate));
    }
    let latencies = baseline::write_latency(directory, DurableMethod::Dsync, EACH)?;
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    println!("durable 4 KiB, p50/p99  {:4}/{} us of {}", at(0.5), at(0.99), latencies.len());
    println!("probe                   {:?}", probe::measure(directory, &ProbeConfig::default())?);
    Ok(())
}
