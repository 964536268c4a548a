//! What a log counts.

/// A copy of the log's counters and levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Frames submitted, beacons included.
    pub frames: u64,
    /// Of these, beacons.
    pub beacons: u64,
    /// Bytes of frames submitted, padding included.
    pub bytes_written: u64,
    /// Entries appended.
    pub entries: u64,
    /// Frames that had to move to another extent after a failed write.
    pub moved_frames: u64,
    /// Reads from the disk.
    pub cold_reads: u64,
    /// Bytes of them.
    pub cold_bytes: u64,
    /// Zeros written ahead, bytes.
    pub zeroed_bytes: u64,
    /// Extents given back by recycling.
    pub recycled_extents: u64,
    /// Checkpoints that became durable.
    pub checkpoints: u64,
    /// Indexes of extents that were derived from their frames because the footer could not be had.
    pub derived_indexes: u64,
    /// Superblock copies that could not be written.
    pub superblock_failures: u64,
    /// Extents of the log, the head included.
    pub live_extents: u64,
    /// Extents ready to be the next head.
    pub spare_extents: u64,
    /// Bytes of frames in the live window.
    pub window_bytes: u64,
    /// Slices of the live window in use by readers.
    pub window_pins: u64,
    /// Ranges of offsets that do not verify.
    pub damaged_ranges: u64,
    /// Groups of which records may be lost without anything left that tells their offsets.
    pub uncertain_groups: u64,
    /// Groups the log knows.
    pub groups: u64,
    /// Bytes of the index in memory that are in use: rows of closed extents, runs of the open one and of those kept.
    pub index_bytes: u64,
    /// A write failed twice: nothing is taken any more.
    pub read_only: bool,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) frames: u64,
    pub(crate) beacons: u64,
    pub(crate) bytes_written: u64,
    pub(crate) entries: u64,
    pub(crate) moved_frames: u64,
    pub(crate) cold_reads: u64,
    pub(crate) cold_bytes: u64,
    pub(crate) zeroed_bytes: u64,
    pub(crate) recycled_extents: u64,
    pub(crate) checkpoints: u64,
    pub(crate) derived_indexes: u64,
}
