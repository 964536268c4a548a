//! The directory of a stopped log: carries out what storage asks for, one operation at a time.
//!
//! Reads go past the page cache where the file system can do that, so that what is judged is what the disk holds. Only a
//! directory that was opened to be written to is; where anything that is written fails, so does the operation.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use corelog_model::{Block, BlockId, LogId, Slice};
use corelog_storage::format::{SUPERBLOCK_BYTES, SUPERBLOCK_COPIES};
use corelog_storage::{
    DiskCompletion, DiskError, DiskOp, FileName, Listing, LogConfig, Memory, SuperblockCopy, plain_copy,
};

const SECTOR: usize = corelog_model::limits::FRAME_ALIGN;
/// What is read at once where nothing needs more.
const READ_BYTES: usize = 4 << 20;
/// Zeros written at once.
const ZERO_BYTES: usize = 1 << 20;

/// The directory.
pub(super) struct Offline {
    dir: PathBuf,
    writes: bool,
    files: HashMap<FileName, File>,
    /// Bytes that were read.
    pub(super) read_bytes: u64,
    /// Sectors that could not be.
    pub(super) lost_sectors: u64,
}

impl Offline {
    /// To be read only.
    pub(super) fn to_read(dir: PathBuf) -> Self {
        Self { dir, writes: false, files: HashMap::new(), read_bytes: 0, lost_sectors: 0 }
    }

    /// To be read and written.
    pub(super) fn to_write(dir: PathBuf) -> Self {
        Self { writes: true, ..Self::to_read(dir) }
    }

    pub(super) fn path(&self, file: FileName) -> PathBuf {
        self.dir.join(file.to_string())
    }

    /// Its files and their sizes.
    pub(super) fn listing(&self) -> io::Result<Listing> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if let Some(file) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                files.push((file, entry.metadata()?.len()));
            }
        }
        files.sort_unstable();
        Ok(Listing { files })
    }

    /// The copies of the superblock.
    pub(super) fn superblock(&mut self) -> io::Result<Vec<Option<SuperblockCopy>>> {
        let mut block = Block::heap(BlockId(0), SUPERBLOCK_BYTES * usize::from(SUPERBLOCK_COPIES));
        let bytes = self.read(FileName::Superblock, 0, block.bytes_mut())?;
        Ok(SuperblockCopy::all(&block.bytes()[..bytes]))
    }

    fn file(&mut self, file: FileName) -> io::Result<&File> {
        if !self.files.contains_key(&file) {
            let path = self.path(file);
            let opened = match self.writes {
                true => File::options().read(true).write(true).open(path)?,
                false => open_direct(&path)?,
            };
            self.files.insert(file, opened);
        }
        Ok(&self.files[&file])
    }

    /// Fills `into` from a sector on, as far as the file goes; sectors that cannot be read are zeros, and counted.
    pub(super) fn read(&mut self, file: FileName, position: u64, into: &mut [u8]) -> io::Result<usize> {
        let opened = self.file(file)?;
        let (mut found, mut lost) = (0, 0);
        while found < into.len() {
            let left = into.len() - found;
            match opened.read_at(&mut into[found..], position + found as u64) {
                Ok(0) => break,
                Ok(bytes) => found += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if left > SECTOR => {
                    // A sector by itself: what is behind it may answer.
                    let sector = &mut into[found..found + SECTOR];
                    match opened.read_at(sector, position + found as u64) {
                        Ok(bytes) if bytes == SECTOR => {}
                        _ => {
                            sector.fill(0);
                            lost += 1;
                        }
                    }
                    found += SECTOR;
                }
                Err(_) => {
                    into[found..].fill(0);
                    (found, lost) = (into.len(), lost + 1);
                }
            }
        }
        self.read_bytes += found as u64;
        self.lost_sectors += lost;
        Ok(found)
    }

    /// Carries an operation out; `bytes` gives those of a write.
    pub(super) fn run<'a>(&mut self, op: DiskOp, bytes: impl Fn(Slice) -> &'a [u8]) -> DiskCompletion {
        let id = op.id();
        let mut block = None;
        let result = match op {
            DiskOp::Read { file, position, length, mut into, .. } => {
                let result = self.read(file, position, &mut into.bytes_mut()[..length as usize]);
                block = Some(into);
                result.map(|bytes| bytes as u32)
            }
            op if !self.writes => unreachable!("nothing is written to what is only looked at: {op:?}"),
            DiskOp::WriteFrame { file, position, source, .. } => self.write(file, position, bytes(source)),
            DiskOp::WriteSuperblock { copy, source, .. } => {
                let position = u64::from(copy) * SUPERBLOCK_BYTES as u64;
                self.write(FileName::Superblock, position, bytes(source))
            }
            DiskOp::Sync { file, .. } => self.file(file).and_then(|file| file.sync_data()).map(|()| 0),
            DiskOp::CreateExtent { file, bytes, .. } => self.create(file, bytes).map(|()| 0),
            DiskOp::Zero { file, position, bytes, .. } => self.zero(file, position, bytes).map(|()| 0),
            DiskOp::Remove { file, .. } => {
                self.files.remove(&file);
                fs::remove_file(self.path(file)).map(|()| 0)
            }
        };
        DiskCompletion { id, result: result.map_err(|error| disk_error(&error)), block }
    }

    fn write(&mut self, file: FileName, position: u64, bytes: &[u8]) -> io::Result<u32> {
        let file = self.file(file)?;
        file.write_all_at(bytes, position)?;
        file.sync_data()?;
        Ok(bytes.len() as u32)
    }

    fn zero(&mut self, file: FileName, position: u64, bytes: u64) -> io::Result<()> {
        let file = self.file(file)?;
        let (zeros, mut written) = (vec![0; ZERO_BYTES], 0);
        while written < bytes {
            let length = (bytes - written).min(ZERO_BYTES as u64);
            file.write_all_at(&zeros[..length as usize], position + written)?;
            written += length;
        }
        file.sync_data()
    }

    /// Under another name, allocated, flushed, renamed, and its directory flushed.
    fn create(&mut self, file: FileName, bytes: u64) -> io::Result<()> {
        let (path, unfinished) = (self.path(file), self.dir.join(format!("{file}.tmp")));
        let made = OpenOptions::new().write(true).create(true).truncate(true).open(&unfinished)?;
        rustix::fs::fallocate(&made, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        made.sync_all()?;
        fs::rename(&unfinished, &path)?;
        self.files.remove(&file);
        File::open(&self.dir)?.sync_all()
    }
}

fn open_direct(path: &Path) -> io::Result<File> {
    let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
    match OpenOptions::new().read(true).custom_flags(direct).open(path) {
        // The kernel's way to say that this file system has no O_DIRECT.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => File::open(path),
        opened => opened,
    }
}

fn disk_error(error: &io::Error) -> DiskError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskError::NoSpace,
        _ => DiskError::Io { errno: error.raw_os_error().unwrap_or(5) },
    }
}

/// A configuration with which any log of these extents is read, and memory for it.
pub(super) fn configuration(log: LogId, store: u64, extent_bytes: u64) -> (LogConfig, Memory) {
    let most = corelog_model::limits::MAX_BATCH_BYTES_LIMIT as u64;
    // Four of the longest frames go into an extent.
    let batch = (extent_bytes / 4 / SECTOR as u64 * SECTOR as u64).saturating_sub(SECTOR as u64).min(most);
    let defaults = LogConfig::new(log, store);
    let config = LogConfig {
        extent_bytes,
        max_batch_bytes: (batch as u32).max(128),
        frame_target_bytes: defaults.frame_target_bytes.min(batch as u32).max(SECTOR as u32),
        checkpoint_bytes: u64::MAX,
        // The store's own, from its superblock.
        features: 0,
        ..defaults
    };
    let frame = config.max_frame_bytes();
    let blocks = |ids: std::ops::Range<u32>, bytes: usize| {
        ids.map(|id| Block::heap(BlockId(id), bytes)).collect::<Vec<_>>()
    };
    let memory = Memory {
        settle: Vec::new(),
        window: blocks(0..2, frame),
        cold: blocks(2..4, frame.max(READ_BYTES)),
        scrub: None,
        page: Block::heap(BlockId(4), SECTOR),
        copy: plain_copy,
    };
    (config, memory)
}
