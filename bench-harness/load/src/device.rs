//! What the device and the loopback can do, measured with the broker's own ring and flags and no broker, on the
//! broker's core and in the directory of the data.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use corelog_model::{Block, BlockId};
use corelog_uring::affinity;
use corelog_uring::baseline::{self, MeasureError};
use corelog_uring::limits::{DurableMethod, Preparation};

use crate::error::LoadError;
use crate::results::{DeviceResult, SmallWrite, ratio};

/// How long each of the large measurements runs.
const LARGE: Duration = Duration::from_secs(2);
/// How long the small one runs.
const SMALL: Duration = Duration::from_secs(1);
/// One plain write.
const WRITE_BYTES: usize = 1 << 20;
/// Plain writes at a time.
const WRITERS: u64 = 4;
/// What each of them writes over and over.
const WRITER_BYTES: u64 = 64 << 20;

/// Measures once; takes some seconds and a gigabyte below `directory`, given back.
pub(crate) fn measure(
    directory: &Path,
    growing: bool,
    broker_core: usize,
    load_core: usize,
) -> Result<DeviceResult, LoadError> {
    let preparation = if growing { Preparation::Unwritten } else { Preparation::Written };
    let mut device = on_core(broker_core, || disk(directory, preparation))?;
    device.tcp_bytes_per_second = baseline::tcp(load_core, broker_core, SMALL)? as f64;
    device.write_bytes_per_second = plain_writes(directory)
        .map_err(|cause| LoadError::System { operation: "measuring writes without a flush", cause })?;
    Ok(device)
}

/// Bytes a second of O_DIRECT writes of 1 MiB, four at a time, onto written blocks, none of them flushed.
fn plain_writes(directory: &Path) -> io::Result<f64> {
    let file = tempfile::Builder::new().prefix("plain-").tempfile_in(directory)?;
    let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
    let open = || OpenOptions::new().write(true).custom_flags(direct).open(file.path());
    let files = (0..WRITERS).map(|_| open()).collect::<io::Result<Vec<File>>>()?;
    // Once over, so that the measured writes meet written blocks.
    write_over(&files, Duration::ZERO)?;
    files[0].sync_all()?;
    let began = Instant::now();
    let written = write_over(&files, SMALL)?;
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

/// The better of the two ways to make a write durable: which one a disk likes is the broker's to find out.
fn disk(directory: &Path, preparation: Preparation) -> Result<DeviceResult, MeasureError> {
    let mut device = DeviceResult {
        durable_write_4k_us: SmallWrite { p50: f64::INFINITY, p99: f64::INFINITY },
        ..DeviceResult::default()
    };
    for method in [DurableMethod::Dsync, DurableMethod::Fdatasync] {
        let durable = baseline::disk(directory, preparation, method, LARGE / 2)? as f64;
        device.durable_write_bytes_per_second = device.durable_write_bytes_per_second.max(durable);
        let times = baseline::write_latency(directory, method, SMALL / 2)?;
        let at = |part: usize| times.get(times.len() * part / 100).copied().map_or(f64::INFINITY, f64::from);
        if at(50) < device.durable_write_4k_us.p50 {
            device.durable_write_4k_us = SmallWrite { p50: at(50), p99: at(99) };
        }
    }
    Ok(device)
}

/// Runs `work` on a thread of its own that stays on `core`.
fn on_core<T: Send>(
    core: usize,
    work: impl FnOnce() -> Result<T, MeasureError> + Send,
) -> Result<T, MeasureError> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| if affinity::pin(core) { work() } else { Err(MeasureError::Thread) });
        thread.join().unwrap_or(Err(MeasureError::Thread))
    })
}
