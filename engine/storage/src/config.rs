//! What a log is told once, and the few values that may change while it runs.

use corelog_model::limits::{
    BATCH_ALIGN, FRAME_ALIGN, FRAME_TARGET_BYTES, MAX_BATCH_BYTES_DEFAULT, MAX_BATCH_BYTES_LIMIT,
};
use corelog_model::{Block, BlockId, LogId};

use crate::frame::{ENTRY_HEADER_BYTES, FRAME_HEADER_BYTES};
use crate::superblock::SUPERBLOCK_BYTES;

/// Frames that may ever be in flight at once; recovery relies on it.
pub const FRAMES_IN_FLIGHT_MAX: u8 = 16;
/// Blocks with which a log settles: one to read into, two that are being filled or written.
pub const SETTLE_BLOCKS_MIN: usize = 3;

/// How the space ahead of the log is made cheap to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// Allocated and never touched before the frame itself.
    Unwritten,
    /// Zeros are written a window ahead of the head while the disk has time.
    ZeroAhead,
}

/// What makes a frame durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurableMethod {
    /// Each write is durable when it completes.
    Dsync,
    /// A plain write, then fdatasync.
    Fdatasync,
}

/// Fixed for the life of a [`crate::Log`].
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Which log of the store.
    pub log: LogId,
    /// The store's random number: files of another store are refused.
    pub store: u64,
    /// Size of every extent, a multiple of 4 KiB; fixed when the log is made.
    pub extent_bytes: u64,
    /// A frame is cut at the latest when it is this large.
    pub frame_target_bytes: u32,
    /// The largest batch, padded.
    pub max_batch_bytes: u32,
    /// Keep about this much of the log; `None` keeps everything.
    pub retention_bytes: Option<u64>,
    /// Extents written with zeros when the log is made, before it takes anything.
    pub provision_extents: u32,
    /// Spare extents beyond those that are always kept ready (four, one more, and the provisioned ones) go back to the file
    /// system when for so long none of them was needed, microseconds.
    pub spare_idle_us: u64,
    /// How extents are prepared.
    pub preparation: Preparation,
    /// How frames become durable.
    pub durable_method: DurableMethod,
    /// Frames written but not yet durable, 1 to [`FRAMES_IN_FLIGHT_MAX`].
    pub frames_in_flight: u8,
    /// A frame that could still grow is written beside others in flight only when it has so many bytes; otherwise it
    /// waits until none is. 0: never waits.
    pub parallel_frame_bytes: u32,
    /// After this much silence a beacon proves the last frame durable, microseconds.
    pub beacon_us: u64,
    /// How far ahead zeros are written.
    pub zero_ahead_bytes: u64,
    /// Extents whose records lie in short runs are settled into a pack when there are so many; 0: never.
    pub settle_extents: u32,
    /// Log bytes between checkpoints: what a restart has to replay.
    pub checkpoint_bytes: u64,
    /// Memory of level 1 of the index, beyond the first eight extents of each group, in bytes: 80 for each group and extent
    /// that holds some of it. At this bound no batch is taken; `None`: there is none.
    pub index_bytes: Option<u64>,
    /// All closed extents are read once in so many microseconds, though nobody asks for them; `None`: they are not.
    pub scrub_us: Option<u64>,
    /// Batches the live window can name at once.
    pub entries_in_window: u32,
    /// Features ([`crate::feature`]) that the log is to have from this start on, in addition to those it has.
    pub features: u64,
}

impl LogConfig {
    /// The product's defaults for this log.
    pub const fn new(log: LogId, store: u64) -> Self {
        Self {
            log,
            store,
            extent_bytes: 256 << 20,
            frame_target_bytes: FRAME_TARGET_BYTES as u32,
            max_batch_bytes: MAX_BATCH_BYTES_DEFAULT as u32,
            retention_bytes: None,
            provision_extents: 0,
            spare_idle_us: 60_000_000,
            preparation: Preparation::ZeroAhead,
            durable_method: DurableMethod::Fdatasync,
            frames_in_flight: 1,
            parallel_frame_bytes: 64 << 10,
            beacon_us: 5_000,
            zero_ahead_bytes: 8 << 20,
            settle_extents: 4,
            checkpoint_bytes: 256 << 20,
            index_bytes: None,
            scrub_us: None,
            entries_in_window: 1 << 16,
            features: crate::feature::ALL,
        }
    }

    /// The largest frame: one batch of the largest size alone, or a target's worth.
    pub const fn max_frame_bytes(&self) -> usize {
        let single = FRAME_HEADER_BYTES + ENTRY_HEADER_BYTES + self.max_batch_bytes as usize;
        let target = self.frame_target_bytes as usize;
        let larger = if single > target { single } else { target };
        corelog_model::limits::round_up(larger, FRAME_ALIGN)
    }

    /// Says which value cannot work, and with which memory.
    pub fn check(&self, memory: &Memory) -> Result<(), ConfigError> {
        let max_frame = self.max_frame_bytes();
        let batch = self.max_batch_bytes as usize;
        if !(128..=MAX_BATCH_BYTES_LIMIT).contains(&batch) || !batch.is_multiple_of(BATCH_ALIGN) {
            return Err(ConfigError::MaxBatchBytes);
        }
        if (self.frame_target_bytes as usize) < FRAME_ALIGN || self.frame_target_bytes > 16 << 20 {
            return Err(ConfigError::FrameTargetBytes);
        }
        let whole = self.extent_bytes.is_multiple_of(FRAME_ALIGN as u64);
        if !whole || self.extent_bytes < 4 * max_frame as u64 || self.extent_bytes > 2 << 30 {
            return Err(ConfigError::ExtentBytes { least: 4 * max_frame as u64 });
        }
        if !(1..=FRAMES_IN_FLIGHT_MAX).contains(&self.frames_in_flight) {
            return Err(ConfigError::FramesInFlight);
        }
        if self.retention_bytes.is_some_and(|bytes| bytes < 2 * self.extent_bytes) {
            return Err(ConfigError::RetentionBytes { least: 2 * self.extent_bytes });
        }
        if self.entries_in_window < 16 || self.checkpoint_bytes == 0 {
            return Err(ConfigError::EntriesInWindow);
        }
        let equal = memory.window.iter().all(|block| block.len() == memory.window[0].len());
        if memory.window.len() < 2 || !equal || memory.window[0].len() < max_frame {
            return Err(ConfigError::Window { least: max_frame });
        }
        // A cold read takes at least what one frame holds of a group, which may be all of it.
        if memory.cold.is_empty()
            || memory.cold.iter().chain(&memory.scrub).any(|block| block.len() < max_frame)
        {
            return Err(ConfigError::Cold { least: max_frame });
        }
        if memory.settle.iter().any(|block| block.len() < max_frame + 2 * FRAME_ALIGN) {
            return Err(ConfigError::Settle { least: max_frame + 2 * FRAME_ALIGN });
        }
        if memory.page.len() < SUPERBLOCK_BYTES {
            return Err(ConfigError::Page { least: SUPERBLOCK_BYTES });
        }
        Ok(())
    }
}

/// The log's share of the arena at its start; the window may grow later.
#[derive(Debug)]
pub struct Memory {
    /// Frames are assembled here and stay for live readers; at least two, of equal size, each at least one
    /// maximal frame.
    pub window: Vec<Block>,
    /// For reads from the disk; each at least one maximal frame.
    pub cold: Vec<Block>,
    /// To settle extents into packs: a few of them read, the others are the frames of a pack. Fewer than
    /// [`SETTLE_BLOCKS_MIN`]: nothing is settled. Each as large as those for reads from the disk.
    pub settle: Vec<Block>,
    /// For what is read though nobody asks; as large as those. `None`: nothing is.
    pub scrub: Option<Block>,
    /// The superblock is written from it; at least one copy of it, 4 KiB.
    pub page: Block,
    /// How a batch gets into the window.
    pub copy: Copier,
}

impl Memory {
    /// The names of all blocks.
    pub fn blocks(&self) -> impl Iterator<Item = BlockId> {
        let read = self.cold.iter().chain(&self.scrub);
        self.window.iter().chain(read).chain(&self.settle).chain([&self.page]).map(Block::id)
    }
}

/// Copies bytes to as many bytes elsewhere. A window is larger than the caches, so whoever knows the machine may know
/// a faster way than through them; [`plain_copy`] works everywhere.
pub type Copier = fn(to: &mut [u8], from: &[u8]);

/// A [`Copier`] that leaves it to the compiler.
pub fn plain_copy(to: &mut [u8], from: &[u8]) {
    to.copy_from_slice(from);
}

/// What may change at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Frames in flight, 1 to [`FRAMES_IN_FLIGHT_MAX`]; raised only once a durable frame announces it.
    pub frames_in_flight: u8,
    /// Frame size at which a frame is cut, bytes.
    pub frame_target_bytes: u32,
    /// Bytes of cold reads in flight at once.
    pub cold_bytes_in_flight: u64,
}

/// A value that cannot work: the name says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// Outside 128 bytes to the limit, or not a multiple of 16.
    MaxBatchBytes,
    /// Outside 4 KiB to 16 MiB.
    FrameTargetBytes,
    /// Not whole sectors, fewer than four maximal frames, or beyond 2 GiB.
    ExtentBytes {
        /// Smallest size that works, bytes.
        least: u64,
    },
    /// Outside 1 to 16.
    FramesInFlight,
    /// Fewer than two extents.
    RetentionBytes {
        /// Smallest cap that works, bytes.
        least: u64,
    },
    /// Fewer than 16, or a checkpoint interval of 0.
    EntriesInWindow,
    /// Fewer than two window blocks, of unequal sizes, or too small.
    Window {
        /// Smallest block that works, bytes.
        least: usize,
    },
    /// The superblock's block is too small.
    Page {
        /// Smallest block that works, bytes.
        least: usize,
    },
    /// No block for cold reads, or one that is too small.
    Cold {
        /// Smallest block that works, bytes.
        least: usize,
    },
    /// A block for settling is too small.
    Settle {
        /// Smallest block that works, bytes.
        least: usize,
    },
}
