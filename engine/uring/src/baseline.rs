//! What the machine can do without a broker: the figures every result is set against.
//!
//! They use the same ring, buffers and flags as the broker, and nothing else: no checks, no copies, no protocol.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use corelog_model::Block;

use crate::affinity;
use crate::arena::{Arena, Chunk};
use crate::clock::monotonic_ns;
use crate::frames::{IN_FLIGHT, LARGE, Run, Scratch, Writer};
use crate::limits::{DurableMethod, Preparation};
use crate::network::Network;
use crate::op::{FileId, Key, SocketId, Submission};
use crate::reads::Reader;
use crate::ring::{Ring, RingConfig};
use crate::socket::{self, SocketOptions};

pub use crate::frames::MeasureError;

/// Bytes of the file that is overwritten.
const RECYCLED_BYTES: u64 = 1 << 30;
/// Bytes of each file that is allocated and written once.
const EXTENT_BYTES: u64 = 256 << 20;
/// So many of them wait ahead of the one that is written, besides the one that is being made.
const EXTENTS_AHEAD: usize = 0;
/// Connections of the TCP measurement.
const CONNECTIONS: u32 = 4;
/// Bytes of one send or receive.
const TRANSFER: usize = 128 << 10;
/// How long connections run before they are measured.
const WARM_UP: Duration = Duration::from_millis(200);

/// Bytes a second in durable O_DIRECT writes of 1 MiB, four in flight, from registered buffers. Onto written
/// blocks it overwrites one file of 1 GiB; onto unwritten ones it goes from one extent of 256 MiB to the next, which a
/// thread beside it makes meanwhile, inside the measured time.
pub fn disk(
    directory: &Path,
    preparation: Preparation,
    method: DurableMethod,
    duration: Duration,
) -> Result<u64, MeasureError> {
    let run = Run { frame_bytes: LARGE, in_flight: IN_FLIGHT, method, duration };
    let mut writer = Writer::new()?;
    let done = match preparation {
        Preparation::Written => {
            let scratch = Scratch::unwritten(directory, "recycled", RECYCLED_BYTES)?;
            writer.fill(&scratch)?;
            writer.overwrite(&run, &scratch)?
        }
        Preparation::Unwritten => thread::scope(|scope| {
            let mut growing = Growing::begin(scope, directory)?;
            writer.run(&run, directory, |writer| growing.next(writer).map(Some))
        })?,
    };
    Ok(done.per_second() * LARGE as u64)
}

/// Times in microseconds, ascending, of durable 4 KiB writes onto written blocks, one after the other.
pub fn write_latency(
    directory: &Path,
    method: DurableMethod,
    duration: Duration,
) -> Result<Vec<u32>, MeasureError> {
    let run = Run { frame_bytes: 4096, in_flight: 1, method, duration };
    let mut writer = Writer::new()?;
    let scratch = Scratch::unwritten(directory, "latency", 64 << 20)?;
    writer.fill(&scratch)?;
    let mut latencies = writer.overwrite(&run, &scratch)?.latencies_us;
    latencies.sort_unstable();
    Ok(latencies)
}

/// Bytes a second in O_DIRECT reads of 1 MiB, four in flight, from `files` one after the other and over again until the
/// time is over.
pub fn disk_reads(files: &[PathBuf], duration: Duration) -> Result<u64, MeasureError> {
    let (bytes, elapsed_ns) = Reader::new()?.run(files, duration)?;
    let per_second = u128::from(bytes) * 1_000_000_000 / u128::from(elapsed_ns.max(1));
    Ok(u64::try_from(per_second).unwrap_or(u64::MAX))
}

/// Files that are written once and then dropped. A thread makes and removes them, so that the writer waits for
/// neither, as that of a log does not.
struct Growing {
    made: mpsc::Receiver<Result<Scratch, MeasureError>>,
    full: mpsc::Sender<Scratch>,
    /// The one being written, after those that writes in flight may still be for.
    extents: Vec<(FileId, Scratch)>,
    position: u64,
}

impl Growing {
    fn begin<'scope>(
        scope: &'scope thread::Scope<'scope, '_>,
        directory: &'scope Path,
    ) -> Result<Self, MeasureError> {
        let (tell_made, made) = mpsc::sync_channel(EXTENTS_AHEAD);
        let (full, is_full) = mpsc::channel();
        let job = move || {
            for number in 0.. {
                is_full.try_iter().for_each(drop);
                let extent = Scratch::unwritten(directory, &format!("growing-{number}"), EXTENT_BYTES);
                if tell_made.send(extent).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("corelog-extents".to_owned());
        thread.spawn_scoped(scope, job).map_err(|_| MeasureError::Thread)?;
        Ok(Self { made, full, extents: Vec::new(), position: EXTENT_BYTES })
    }

    fn next(&mut self, writer: &mut Writer) -> Result<(FileId, u64), MeasureError> {
        if self.position == EXTENT_BYTES {
            // Four frames in flight reach back into one earlier extent at most.
            if self.extents.len() == 2 {
                let (file, scratch) = self.extents.remove(0);
                writer.close(file)?;
                // It goes with the channel if the thread is over.
                let _ = self.full.send(scratch);
            }
            let scratch = self.made.recv().map_err(|_| MeasureError::Thread)??;
            self.extents.push((writer.open(&scratch)?, scratch));
            self.position = 0;
        }
        let position = self.position;
        self.position += LARGE as u64;
        Ok((self.extents[self.extents.len() - 1].0, position))
    }
}

/// One end of the bare stream.
#[derive(Clone, Debug)]
pub struct End {
    /// Where its thread stays.
    pub core: usize,
    /// The network that its sockets are in; `None`: the caller's.
    pub network: Option<Network>,
}

impl End {
    /// On this core, in the caller's network.
    pub const fn on(core: usize) -> Self {
        Self { core, network: None }
    }
}

/// Bytes a second from end to end: four connections, sends and receives of 128 KiB through one ring on each side. The
/// receiver, where a broker would be, listens at `address`.
pub fn tcp(load: End, broker: End, address: Ipv4Addr, duration: Duration) -> Result<u64, MeasureError> {
    let stop = Arc::new(AtomicBool::new(false));
    let (tell_address, taken) = mpsc::channel();
    let receiver = at_end("corelog-receive", broker, move || receive(address, &tell_address, duration))?;
    let Ok(address) = taken.recv() else {
        return join(receiver);
    };
    let stopped = Arc::clone(&stop);
    let sender = at_end("corelog-send", load, move || send(address, &stopped))?;
    let received = join(receiver);
    stop.store(true, Ordering::Relaxed);
    // The receiver is gone, so the sender's connections break: that is how it ends.
    let sent = join(sender);
    let bytes_per_second = received?;
    sent?;
    Ok(bytes_per_second)
}

type Job<T> = thread::JoinHandle<Result<T, MeasureError>>;

fn at_end<T: Send + 'static>(
    name: &str,
    end: End,
    work: impl FnOnce() -> Result<T, MeasureError> + Send + 'static,
) -> Result<Job<T>, MeasureError> {
    let job = move || {
        end.network.map_or(Ok(()), |network| network.enter()).map_err(MeasureError::Network)?;
        if affinity::pin(end.core) { work() } else { Err(MeasureError::Thread) }
    };
    thread::Builder::new().name(name.to_owned()).spawn(job).map_err(|_| MeasureError::Thread)
}

fn join<T>(job: Job<T>) -> Result<T, MeasureError> {
    job.join().unwrap_or(Err(MeasureError::Thread))
}

/// A ring and one block per connection.
fn ring_and_blocks() -> Result<(Ring, Vec<Block>), MeasureError> {
    let config = RingConfig {
        operations: CONNECTIONS,
        sockets: CONNECTIONS,
        files: 1,
        regions: 1,
        register_buffers: false,
    };
    let mut ring = Ring::new(&config)?;
    let (region, mut blocks) = Arena::new().carve(Chunk::map(1)?, TRANSFER);
    ring.register_region(&region);
    blocks.truncate(CONNECTIONS as usize);
    Ok((ring, blocks))
}

fn key(slot: u32) -> Key {
    Key::new(0, 0, slot)
}

fn receive(
    address: Ipv4Addr,
    tell_address: &mpsc::Sender<SocketAddr>,
    duration: Duration,
) -> Result<u64, MeasureError> {
    let (mut ring, blocks) = ring_and_blocks()?;
    let any = SocketAddr::from((address, 0));
    let (listener, address) = socket::listen(any, &SocketOptions::default())?;
    let listener = ring.register_listener(listener)?;
    for slot in 0..CONNECTIONS {
        ring.push(Submission::Accept { key: key(slot), listener }, &[]);
    }
    let _ = tell_address.send(address);
    let mut completions = Vec::new();
    while ring.in_flight() > 0 {
        ring.wait(1, None)?;
        ring.completions(&mut completions);
    }
    let mut sockets = [SocketId(0); CONNECTIONS as usize];
    for completion in completions.drain(..) {
        let accepted = completion.accepted.ok_or_else(|| broken(&completion))?;
        sockets[completion.key.slot() as usize] = accepted.socket;
    }
    let again = |ring: &mut Ring, slot: u32, block: Block| {
        let socket = sockets[slot as usize];
        let length = TRANSFER as u32;
        ring.push(Submission::Recv { key: key(slot), socket, block, offset: 0, length }, &[]);
    };
    for (slot, block) in (0..CONNECTIONS).zip(blocks) {
        again(&mut ring, slot, block);
    }
    let begin = monotonic_ns() + WARM_UP.as_nanos() as u64;
    let end = begin + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2);
    let mut bytes = 0;
    loop {
        ring.wait(1, Some(WARM_UP))?;
        ring.completions(&mut completions);
        let now = monotonic_ns();
        for mut completion in completions.drain(..) {
            match (completion.result, completion.block.take()) {
                (Ok(received), Some(block)) if received > 0 => {
                    bytes += u64::from(received) * u64::from(now >= begin);
                    again(&mut ring, completion.key.slot(), block);
                }
                _ => return Err(broken(&completion)),
            }
        }
        if now >= end {
            let elapsed = u128::from(now - begin);
            return Ok(u64::try_from(u128::from(bytes) * 1_000_000_000 / elapsed.max(1)).unwrap_or(u64::MAX));
        }
    }
}

fn send(address: SocketAddr, stop: &AtomicBool) -> Result<(), MeasureError> {
    let (mut ring, blocks) = ring_and_blocks()?;
    let mut sockets = Vec::new();
    for _ in 0..CONNECTIONS {
        sockets.push(ring.adopt_socket(socket::connect(address, &SocketOptions::default())?)?);
    }
    let again = |ring: &mut Ring, slot: u32, block: Block| {
        let (socket, head_length) = (sockets[slot as usize], TRANSFER as u32);
        let send = Submission::Send {
            key: key(slot),
            socket,
            head: Some(block),
            head_offset: 0,
            head_length,
            slices: 0..0,
        };
        ring.push(send, &[]);
    };
    for (slot, block) in (0..CONNECTIONS).zip(blocks) {
        again(&mut ring, slot, block);
    }
    let mut completions = Vec::new();
    loop {
        ring.wait(1, Some(WARM_UP))?;
        ring.completions(&mut completions);
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        for mut completion in completions.drain(..) {
            match (completion.result, completion.block.take()) {
                (Ok(_), Some(block)) => again(&mut ring, completion.key.slot(), block),
                // The receiver has ended; the one who joins us has just, or will, set the flag.
                _ if completion.result.is_err() => return Ok(()),
                _ => return Err(broken(&completion)),
            }
        }
    }
}

fn broken(completion: &crate::op::Completion) -> MeasureError {
    MeasureError::Connection(completion.result.err().unwrap_or(crate::op::Errno(libc::ECONNRESET)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_directory;

    const SHORT: Duration = Duration::from_millis(100);

    #[test]
    fn bytes_flow_between_two_cores() {
        let cores = affinity::cores();
        let (load, broker) = (End::on(cores[cores.len() - 1]), End::on(cores[0]));
        let measured = tcp(load, broker, Ipv4Addr::LOCALHOST, SHORT).expect("loopback");
        // Slower than any machine, but not nothing.
        assert!(measured > 10_000_000, "{measured} bytes/s");
    }

    #[test]
    fn a_core_that_does_not_exist_ends_the_measurement() {
        let measured = tcp(End::on(0), End::on(100_000), Ipv4Addr::LOCALHOST, SHORT);
        assert_eq!(measured, Err(MeasureError::Thread));
    }

    #[test]
    fn the_disk_is_measured_on_new_extents_and_they_are_removed() {
        let directory = test_directory();
        let measured = disk(directory.path(), Preparation::Unwritten, DurableMethod::Dsync, SHORT);
        assert!(measured.expect("a disk") > 0);
        let latencies = write_latency(directory.path(), DurableMethod::Fdatasync, SHORT).expect("a disk");
        assert!(!latencies.is_empty() && latencies.is_sorted());
        assert_eq!(crate::file::list(directory.path()), Ok(Vec::new()));
    }

    #[test]
    fn files_are_read_over_and_over_up_to_a_last_piece_that_is_short() {
        let directory = test_directory();
        let files = [LARGE, LARGE + 4096].map(|bytes| {
            let path = directory.path().join(bytes.to_string());
            std::fs::write(&path, vec![1; bytes]).expect("a disk");
            path
        });
        assert!(disk_reads(&files, SHORT).expect("two files") > 0);
        let absent = [directory.path().join("absent")];
        assert!(matches!(disk_reads(&absent, SHORT), Err(MeasureError::File(_))));
        assert_eq!(disk_reads(&[], SHORT), Ok(0));
    }
}
