//! What a log counts.

use std::ops::AddAssign;

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
    /// Sectors that did not answer although they were asked again, and other files did.
    pub lost_sectors: u64,
    /// Bytes that the scrubber has read.
    pub scrubbed_bytes: u64,
    /// Times it has come past everything since the start.
    pub scrub_passes: u64,
    /// When that was last, microseconds since the Unix epoch; 0: not yet.
    pub scrub_passed_us: u64,
    /// Ranges of offsets that it found damaged.
    pub scrub_damaged_ranges: u64,
    /// Frames that it found damaged beyond the records in them.
    pub scrub_broken_frames: u64,
    /// Zeros written ahead, bytes.
    pub zeroed_bytes: u64,
    /// Extents given back by recycling.
    pub recycled_extents: u64,
    /// Checkpoints that became durable.
    pub checkpoints: u64,
    /// Bytes written into packs: what is written a second time.
    pub settled_bytes: u64,
    /// Bytes read for them.
    pub settle_read_bytes: u64,
    /// Packs that took the place of what they were made from.
    pub packs_made: u64,
    /// Packs that were given up before they were done: the disk refused, or what they were made from is damaged or gone.
    pub packs_abandoned: u64,
    /// Indexes of extents that were derived from their frames because the footer could not be had.
    pub derived_indexes: u64,
    /// Superblock copies that could not be written.
    pub superblock_failures: u64,
    /// Extents of the log, the head included.
    pub live_extents: u64,
    /// Packs of the log.
    pub live_packs: u64,
    /// Bytes of them.
    pub pack_bytes: u64,
    /// Extents ready to be the next head.
    pub spare_extents: u64,
    /// Bytes of frames in the live window.
    pub window_bytes: u64,
    /// Memory of the live window, in use or not, bytes.
    pub window_limit_bytes: u64,
    /// Slices of the live window in use by readers.
    pub window_pins: u64,
    /// Memory that reads from the disk go to or readers send from, bytes.
    pub cold_used_bytes: u64,
    /// Memory for reads from the disk, in use or not, bytes.
    pub cold_limit_bytes: u64,
    /// Ranges of offsets that do not verify.
    pub damaged_ranges: u64,
    /// Ranges of offsets whose loss an operator has accepted.
    pub accepted_ranges: u64,
    /// Groups of which records may be lost without anything left that tells their offsets.
    pub uncertain_groups: u64,
    /// Groups the log knows.
    pub groups: u64,
    /// Bytes of the index in memory that are in use: rows of closed extents, runs of the open one and of those kept.
    pub index_bytes: u64,
    /// A write failed twice: nothing is taken any more.
    pub read_only: bool,
    /// There is no place for one more of the longest batches, and the disk refuses to give one.
    pub full: bool,
    /// Level 1 of the index has the memory that it may have: no batch is taken.
    pub index_full: bool,
}

/// Adds every field there is, joins it by "or", or takes the later one: one that is left out does not compile.
macro_rules! sum {
    ($left:ident += $right:ident: $($number:ident),+; |= $($flag:ident),+; max $($time:ident),+) => {
        let Self { $($number,)+ $($flag,)+ $($time),+ } = $right;
        $($left.$number += $number;)+
        $($left.$flag |= $flag;)+
        $($left.$time = $left.$time.max($time);)+
    };
}

impl AddAssign for LogStats {
    /// What two logs count together; read-only, or full, when one of them is.
    fn add_assign(&mut self, other: Self) {
        sum! { self += other:
            frames, beacons, bytes_written, entries, moved_frames, cold_reads, cold_bytes, lost_sectors,
            scrubbed_bytes, scrub_passes, scrub_damaged_ranges, scrub_broken_frames, zeroed_bytes,
            recycled_extents, checkpoints, settled_bytes, settle_read_bytes, packs_made, packs_abandoned,
            derived_indexes, superblock_failures, live_extents, live_packs, pack_bytes, spare_extents,
            window_bytes, window_limit_bytes, window_pins, cold_used_bytes, cold_limit_bytes,
            damaged_ranges, accepted_ranges, uncertain_groups, groups, index_bytes;
            |= read_only, full, index_full;
            max scrub_passed_us
        }
    }
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
    pub(crate) lost_sectors: u64,
    pub(crate) zeroed_bytes: u64,
    pub(crate) recycled_extents: u64,
    pub(crate) checkpoints: u64,
    pub(crate) settled_bytes: u64,
    pub(crate) settle_read_bytes: u64,
    pub(crate) packs_made: u64,
    pub(crate) packs_abandoned: u64,
    pub(crate) derived_indexes: u64,
}
