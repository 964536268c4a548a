//! Reads in a closed loop on a ring of its own: what consumers of a cold log are set against.

use std::path::PathBuf;
use std::time::Duration;

use corelog_model::Block;

use crate::arena::{Arena, CHUNK_ALIGN, Chunk, Region};
use crate::clock::monotonic_ns;
use crate::file::{self, Access, FileError, FileOperation};
use crate::frames::{IN_FLIGHT, LARGE, MeasureError};
use crate::op::{Completion, Errno, FileId, Key, Submission};
use crate::ring::{Ring, RingConfig};

/// A read that is not answered within this time ends the measurement.
const PATIENCE: Duration = Duration::from_secs(30);
const READ: u8 = 1;

/// Reads files from their starts to their ends, several pieces at a time.
pub(crate) struct Reader {
    ring: Ring,
    blocks: Vec<Block>,
    _region: Region,
}

/// Pieces of a list of files, over and over.
struct Places<'a> {
    files: &'a [(FileId, u64)],
    at: usize,
    position: u64,
}

impl Reader {
    pub(crate) fn new() -> Result<Self, MeasureError> {
        let config = RingConfig { operations: 8, sockets: 0, files: 64, regions: 1, register_buffers: true };
        let mut ring = Ring::new(&config)?;
        let chunk = Chunk::map((IN_FLIGHT * LARGE).max(CHUNK_ALIGN))?;
        let (region, mut blocks) = Arena::new().carve(chunk, LARGE);
        blocks.truncate(IN_FLIGHT);
        // Memory is there before the first read, as a broker's is.
        blocks.iter_mut().for_each(|block| block.bytes_mut().fill(1));
        ring.register_region(&region);
        Ok(Self { ring, blocks, _region: region })
    }

    /// Bytes read, and nanoseconds from the first read to the last answer.
    pub(crate) fn run(mut self, paths: &[PathBuf], duration: Duration) -> Result<(u64, u64), MeasureError> {
        let mut files = Vec::new();
        for path in paths {
            let fd = file::open(path, Access::Direct)?;
            let found = std::fs::metadata(path);
            let bytes = found.map_err(|error| FileError::new(FileOperation::Open, path, error))?.len();
            if bytes > 0 {
                files.push((self.ring.register_file(fd)?, bytes));
            }
        }
        if files.is_empty() {
            return Ok((0, 0));
        }
        let mut places = Places { files: &files, at: 0, position: 0 };
        let (start, limit) = (monotonic_ns(), u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        for (slot, block) in (0..).zip(std::mem::take(&mut self.blocks)) {
            self.read(&mut places, slot, block);
        }
        let (mut bytes, mut elapsed) = (0, 0);
        let mut completions: Vec<Completion> = Vec::with_capacity(IN_FLIGHT);
        let failed = |errno| MeasureError::File(FileError::new(FileOperation::Read, &paths[0], errno));
        while self.ring.in_flight() > 0 {
            self.ring.wait(1, Some(PATIENCE))?;
            if self.ring.completions(&mut completions) == 0 {
                return Err(failed(Errno(libc::ETIMEDOUT)));
            }
            elapsed = monotonic_ns() - start;
            for completion in completions.drain(..) {
                bytes += u64::from(completion.result.map_err(failed)?);
                if let Some(block) = completion.block.filter(|_| elapsed < limit) {
                    self.read(&mut places, completion.key.slot(), block);
                }
            }
        }
        Ok((bytes, elapsed))
    }

    fn read(&mut self, places: &mut Places<'_>, slot: u32, into: Block) {
        let (file, position) = places.next();
        let key = Key::new(READ, 0, slot);
        self.ring.push(Submission::Read { key, file, position, into, length: LARGE as u32 }, &[]);
    }
}

impl Places<'_> {
    fn next(&mut self) -> (FileId, u64) {
        let place = (self.files[self.at].0, self.position);
        self.position += LARGE as u64;
        if self.position >= self.files[self.at].1 {
            (self.at, self.position) = ((self.at + 1) % self.files.len(), 0);
        }
        place
    }
}
