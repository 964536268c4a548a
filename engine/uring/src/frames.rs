//! Durable writes in a closed loop on a ring of its own: what the probe and the baselines measure with.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corelog_model::{Block, Slice};

use crate::arena::{Arena, ArenaError, CHUNK_ALIGN, Chunk, Region};
use crate::clock::monotonic_ns;
use crate::file::{self, Access, FileError, FileOperation};
use crate::limits::DurableMethod;
use crate::op::{Completion, FileId, Key, Submission};
use crate::ring::{Ring, RingConfig, RingError};

/// Most frames in flight.
pub(crate) const IN_FLIGHT: usize = 4;
/// Longest frame in bytes.
pub(crate) const LARGE: usize = 1 << 20;
/// A write that is not answered within this time ends the measurement.
const PATIENCE: Duration = Duration::from_secs(30);

/// A measurement could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeasureError {
    /// No ring.
    Ring(RingError),
    /// No memory.
    Memory(ArenaError),
    /// The disk or its file system.
    File(FileError),
    /// A socket of the TCP measurement.
    Socket(crate::socket::SocketError),
    /// A connection of the TCP measurement broke.
    Connection(crate::op::Errno),
    /// A thread of it is not let into its network.
    Network(crate::op::Errno),
    /// A thread could not be started or kept on its core.
    Thread,
}

/// A file that disappears with its owner.
pub(crate) struct Scratch {
    path: PathBuf,
    bytes: u64,
    fd: OwnedFd,
}

/// Writes frames of one size, each durable before the next of its slot.
pub(crate) struct Writer {
    ring: Ring,
    blocks: Vec<Block>,
    completions: Vec<Completion>,
    _region: Region,
}

/// One run of a [`Writer`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) frame_bytes: usize,
    pub(crate) in_flight: usize,
    pub(crate) method: DurableMethod,
    pub(crate) duration: Duration,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// Frames that became durable.
    pub(crate) frames: u64,
    /// Time from the first write to the last answer.
    pub(crate) elapsed_ns: u64,
    /// Each frame's time in microseconds, in order of completion.
    pub(crate) latencies_us: Vec<u32>,
}

impl Scratch {
    /// Allocates `bytes` of unwritten space in a new file of `directory`.
    pub(crate) fn unwritten(directory: &Path, name: &str, bytes: u64) -> Result<Self, MeasureError> {
        let path = directory.join(format!(".corelog-measure-{}-{name}", std::process::id()));
        let fd = file::open(&path, Access::DirectCreate)?;
        let scratch = Self { path, bytes, fd };
        file::allocate(&scratch.fd, &scratch.path, bytes)?;
        Ok(scratch)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a file that does not go; its name says what it was.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Writer {
    pub(crate) fn new() -> Result<Self, MeasureError> {
        let config = RingConfig { operations: 8, sockets: 0, files: 4, regions: 1, register_buffers: true };
        let mut ring = Ring::new(&config)?;
        let chunk = Chunk::map((IN_FLIGHT * LARGE).max(CHUNK_ALIGN))?;
        let (region, mut blocks) = Arena::new().carve(chunk, LARGE);
        for (block, value) in blocks.iter_mut().zip(1_u8..) {
            block.bytes_mut().fill(value);
        }
        ring.register_region(&region);
        Ok(Self { ring, blocks, completions: Vec::with_capacity(IN_FLIGHT), _region: region })
    }

    pub(crate) fn open(&mut self, scratch: &Scratch) -> Result<FileId, MeasureError> {
        let fd = scratch
            .fd
            .try_clone()
            .map_err(|error| FileError::new(FileOperation::Open, &scratch.path, error))?;
        Ok(self.ring.register_file(fd)?)
    }

    pub(crate) fn close(&mut self, file: FileId) -> Result<(), MeasureError> {
        Ok(self.ring.release_file(file)?)
    }

    /// Writes the whole file once, so that later writes are overwrites.
    pub(crate) fn fill(&mut self, scratch: &Scratch) -> Result<(), MeasureError> {
        let run = Run {
            frame_bytes: LARGE,
            in_flight: IN_FLIGHT,
            method: DurableMethod::Dsync,
            duration: Duration::MAX,
        };
        let file = self.open(scratch)?;
        let mut frames = (0..scratch.bytes).step_by(LARGE);
        self.run(&run, &scratch.path, |_| Ok(frames.next().map(|position| (file, position))))?;
        self.close(file)
    }

    /// Overwrites the file from its start, again and again, until the time is over.
    pub(crate) fn overwrite(&mut self, run: &Run, scratch: &Scratch) -> Result<Done, MeasureError> {
        let file = self.open(scratch)?;
        let mut frames = (0..scratch.bytes).step_by(run.frame_bytes).cycle();
        let done = self.run(run, &scratch.path, |_| Ok(frames.next().map(|position| (file, position))))?;
        self.close(file)?;
        Ok(done)
    }

    /// Runs until the time is over or `next` has no place any more, and waits for everything it started.
    pub(crate) fn run(
        &mut self,
        run: &Run,
        path: &Path,
        mut next: impl FnMut(&mut Self) -> Result<Option<(FileId, u64)>, MeasureError>,
    ) -> Result<Done, MeasureError> {
        assert!(run.in_flight <= IN_FLIGHT && run.frame_bytes <= LARGE);
        let start = monotonic_ns();
        let limit = u64::try_from(run.duration.as_nanos()).unwrap_or(u64::MAX);
        let mut done = Done::default();
        let mut begun = [(FileId(0), 0_u64); IN_FLIGHT];
        for (slot, begun) in begun.iter_mut().enumerate().take(run.in_flight) {
            if let Some(place) = next(self)? {
                self.write(run, slot, place);
                *begun = (place.0, start);
            }
        }
        while self.ring.in_flight() > 0 {
            self.collect(path)?;
            let now = monotonic_ns();
            for completion in std::mem::take(&mut self.completions) {
                let slot = completion.key.slot() as usize;
                if completion.key.kind() == WRITE && run.method == DurableMethod::Fdatasync {
                    let key = Key::new(SYNC, 0, completion.key.slot());
                    self.ring.push(Submission::Sync { key, file: begun[slot].0 }, &[]);
                    continue;
                }
                done.frames += 1;
                done.latencies_us.push(u32::try_from((now - begun[slot].1) / 1000).unwrap_or(u32::MAX));
                done.elapsed_ns = now - start;
                if now - start < limit
                    && let Some(place) = next(self)?
                {
                    self.write(run, slot, place);
                    begun[slot] = (place.0, monotonic_ns());
                }
            }
        }
        Ok(done)
    }

    fn write(&mut self, run: &Run, slot: usize, (file, position): (FileId, u64)) {
        let source = Slice { block: self.blocks[slot].id(), offset: 0, length: run.frame_bytes as u32 };
        let key = Key::new(WRITE, 0, slot as u32);
        let flush = run.method == DurableMethod::Dsync;
        self.ring.push(Submission::Write { key, file, position, source, flush }, &[]);
    }

    /// Waits for at least one completion; a failed or missing one ends the measurement.
    fn collect(&mut self, path: &Path) -> Result<(), MeasureError> {
        self.ring.wait(1, Some(PATIENCE))?;
        let mut completions = std::mem::take(&mut self.completions);
        if self.ring.completions(&mut completions) == 0 {
            return Err(FileError::new(FileOperation::Write, path, crate::op::Errno(libc::ETIMEDOUT)).into());
        }
        for completion in &completions {
            if let Err(errno) = completion.result {
                return Err(FileError::new(FileOperation::Write, path, errno).into());
            }
        }
        self.completions = completions;
        Ok(())
    }
}

const WRITE: u8 = 1;
const SYNC: u8 = 2;

impl Done {
    /// Frames a second.
    pub(crate) fn per_second(&self) -> u64 {
        let ns = u128::from(self.elapsed_ns.max(1));
        u64::try_from(u128::from(self.frames) * 1_000_000_000 / ns).unwrap_or(u64::MAX)
    }

    /// The middle latency in microseconds; 0 without any.
    pub(crate) fn median_us(mut self) -> u32 {
        self.latencies_us.sort_unstable();
        self.latencies_us.get(self.latencies_us.len() / 2).copied().unwrap_or(0)
    }
}

impl From<RingError> for MeasureError {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

impl From<ArenaError> for MeasureError {
    fn from(error: ArenaError) -> Self {
        Self::Memory(error)
    }
}

impl From<FileError> for MeasureError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<crate::socket::SocketError> for MeasureError {
    fn from(error: crate::socket::SocketError) -> Self {
        Self::Socket(error)
    }
}

impl fmt::Display for MeasureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::File(error) => error.fmt(f),
            Self::Socket(error) => error.fmt(f),
            Self::Connection(errno) => write!(f, "a connection of the bare stream broke: {errno}"),
            Self::Network(errno) => write!(f, "a thread cannot enter its network: {errno}"),
            Self::Thread => f.write_str("cannot start a thread on its core"),
        }
    }
}

impl std::error::Error for MeasureError {}
