//! What the device and the network can do without a broker, on the broker's core and in the directory of the data:
//! durable writes with the broker's own ring and flags, writes without a flush from threads, and a bare stream from the
//! load's core to the broker's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use corelog_model::{Block, BlockId};
use corelog_uring::affinity;
use corelog_uring::baseline::{self, End, MeasureError};
use corelog_uring::limits::{DurableMethod, Preparation};

use crate::cores::Cores;
use crate::error::LoadError;
use crate::netns::{self, Netns};
use crate::results::{DeviceResult, SmallWrite, ratio};

/// How long writes without a flush and the stream are measured.
const SHORT: Duration = Duration::from_secs(1);
/// The disk is asked for this part of the time which way to make a write durable it likes ...
const TRIAL: u32 = 5;
/// ... and writes of 4 KiB one at a time take this part of it.
const SMALL: u32 = 2;
/// One plain write.
const WRITE_BYTES: usize = 1 << 20;
/// Plain writes at a time.
const WRITERS: u64 = 4;
/// What each of them writes over and over.
const WRITER_BYTES: u64 = 64 << 20;

/// Measures once, the disk's throughput for `duration`; takes some seconds more, and a gigabyte below `directory`,
/// given back. The stream takes the way that the load's connections take.
pub fn measure(
    directory: &Path,
    growing: bool,
    cores: Cores,
    netns: Option<&Netns>,
    duration: Duration,
) -> Result<DeviceResult, LoadError> {
    let preparation = if growing { Preparation::Unwritten } else { Preparation::Written };
    let mut device = on_core(cores.broker, || disk(directory, preparation, duration))?;
    let load = End { core: cores.load, network: netns.map(|netns| netns.load.clone()) };
    let broker = End { core: cores.broker, network: netns.map(|netns| netns.broker.clone()) };
    let address = netns::broker_address(netns.is_some());
    device.tcp_bytes_per_second = baseline::tcp(load, broker, address, SHORT)? as f64;
    device.write_bytes_per_second = plain_writes(directory, cores.broker)?;
    Ok(device)
}

/// Bytes a second of O_DIRECT writes of 1 MiB, four at a time, onto written blocks, none of them flushed, from `core`.
fn plain_writes(directory: &Path, core: usize) -> Result<f64, LoadError> {
    // The writers inherit the core of the thread that starts them.
    let measured = on_core(core, || Ok(write_plainly(directory)))?;
    measured.map_err(|cause| LoadError::System { operation: "measuring writes without a flush", cause })
}

fn write_plainly(directory: &Path) -> io::Result<f64> {
    let file = tempfile::Builder::new().prefix("plain-").tempfile_in(directory)?;
    let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
    let open = || OpenOptions::new().write(true).custom_flags(direct).open(file.path());
    let files = (0..WRITERS).map(|_| open()).collect::<io::Result<Vec<File>>>()?;
    // Once over, so that the measured writes meet written blocks.
    write_over(&files, Duration::ZERO)?;
    files[0].sync_all()?;
    let began = Instant::now();
    let written = write_over(&files, SHORT)?;
    Ok(ratio(written as f64, began.elapsed().as_secs_f64()))
}

/// Each file handle writes its own part, at least once over and for at least `duration`.
fn write_over(files: &[File], duration: Duration) -> io::Result<u64> {
    let began = Instant::now();
    let one = |index: u64, file: &File| {
        let block = Block::heap(BlockId(0), WRITE_BYTES);
        let mut written = 0;
        while written < WRITER_BYTES || began.elapsed() < duration {
            file.write_all_at(block.bytes(), index * WRITER_BYTES + written % WRITER_BYTES)?;
            written += WRITE_BYTES as u64;
        }
        Ok(written)
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..).zip(files).map(|(index, file)| scope.spawn(move || one(index, file))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer does not panic")).sum()
    })
}

/// The disk with the better of the two ways to make a write durable, for large writes and for small ones apart:
/// which one a disk likes is the broker's to find out.
fn disk(
    directory: &Path,
    preparation: Preparation,
    duration: Duration,
) -> Result<DeviceResult, MeasureError> {
    let large = |method, duration| baseline::disk(directory, preparation, method, duration);
    let small = |method, duration| baseline::write_latency(directory, method, duration);
    let [dsync, fdatasync] = [DurableMethod::Dsync, DurableMethod::Fdatasync];
    let (trial, small_trial) = (duration / TRIAL, duration / TRIAL / SMALL);
    let for_large = if large(dsync, trial)? >= large(fdatasync, trial)? { dsync } else { fdatasync };
    let [by_dsync, by_fdatasync] = [small(dsync, small_trial)?, small(fdatasync, small_trial)?];
    let for_small = if at(&by_dsync, 50) <= at(&by_fdatasync, 50) { dsync } else { fdatasync };
    let times = small(for_small, duration / SMALL)?;
    Ok(DeviceResult {
        durable_write_bytes_per_second: large(for_large, duration)? as f64,
        durable_write_4k_us: SmallWrite { p50: at(&times, 50), p99: at(&times, 99) },
        ..DeviceResult::default()
    })
}

/// The time below which `percent` of the ascending `times` are.
fn at(times: &[u32], percent: usize) -> f64 {
    times.get(times.len() * percent / 100).copied().map_or(f64::INFINITY, f64::from)
}

/// Runs `work` on a thread of its own that stays on `core`.
///
/// # Errors
/// Those of `work`, and that the thread cannot be there.
pub fn on_core<T: Send>(
    core: usize,
    work: impl FnOnce() -> Result<T, MeasureError> + Send,
) -> Result<T, MeasureError> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| if affinity::pin(core) { work() } else { Err(MeasureError::Thread) });
        thread.join().unwrap_or(Err(MeasureError::Thread))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_writers_are_on_the_core_that_was_asked_for() {
        let refused = plain_writes(Path::new("."), usize::MAX);
        assert!(matches!(refused, Err(LoadError::Device(MeasureError::Thread))), "{refused:?}");
        let cores = on_core(affinity::cores()[0], || {
            // As the writers are started.
            let thread = || thread::spawn(thread::available_parallelism).join().expect("it does not panic");
            Ok(thread().map(usize::from).ok())
        });
        assert_eq!(cores, Ok(Some(1)), "a thread inherits the core");
    }
}
