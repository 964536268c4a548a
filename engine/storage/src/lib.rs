//! One log: frames, extents, index, recovery. Disk operations are values; no system call is made here.
//!
//! [`Log`] is a state machine: appends and completions in, [`DiskOp`]s and durable prefixes out, the time an
//! argument. [`Opening`] is its only constructor and the only path of recovery. `FORMAT.md` gives the bytes.
//!
//! Where a change goes: bytes of a frame `frame.rs`; memory `arena.rs` (blocks) and `window.rs` (batches in
//! them); the way of a batch to the disk `append.rs` -> `commit.rs`; files `extent.rs`; where a batch lies
//! `index.rs` (level 2, loaded by `load.rs`) and `groups.rs` (level 1); reading `read.rs` -> `fill.rs`, more than was asked for
//! `ahead.rs`, in spite of the
//! disk `salvage.rs`, though nobody asks `scrub.rs`; taking records away `trim.rs`; sorting them by group `settle/`;
//! starting `recovery/`.
//!
//! **Invariant:** no I/O, no clock, no randomness, no `unsafe`, no knowledge of topics beyond the seed of a batch
//! header. Nothing allocates on append, cut, completion and reads from the window once warm.
#![forbid(unsafe_code)]

mod accept;
mod ahead;
mod append;
mod arena;
mod check;
mod checkpoint;
mod cold;
mod commit;
mod config;
mod damage;
mod derive;
mod error;
mod extent;
pub mod feature;
mod fill;
mod footer;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod groups;
mod index;
mod load;
mod log;
mod meet;
mod op;
mod read;
mod recovery;
mod salvage;
mod scrub;
mod settle;
mod sound;
mod stats;
mod superblock;
mod tape;
mod trim;
mod upkeep;
mod walk;
mod window;

/// The numbers of FORMAT.md, in bytes unless the name says otherwise.
pub mod format {
    pub use crate::accept::{ACCEPTED_BYTES, ACCEPTED_ROW_BYTES};
    pub use crate::checkpoint::{
        EXTENT_BYTES, FOOTER_AT_BYTES, GROUP_BYTES, LISTED_PACK, LISTED_SCATTERED, LISTED_WORTHY,
        PART_HEADER_BYTES, ROW_BYTES, ROW_COUNTED_BYTES,
    };
    pub use crate::extent::GENERATIONS_SKIPPED;
    pub use crate::frame::{
        ENTRY_COVERS_BYTES, ENTRY_HEADER_BYTES, FLAG_BEACON, FLAG_FIRST, FLAG_PACK, FLAG_START,
        FRAME_HEADER_BYTES, FRAME_MAGIC, FRAME_VERSION,
    };
    pub use crate::index::{FOOTER_HEADER_BYTES, RUN_BYTES};
    pub use crate::superblock::{
        CHECKPOINT_BYTES, CHECKPOINTS_AT, CHECKPOINTS_MAX, SUPERBLOCK_BYTES, SUPERBLOCK_COPIES,
        SUPERBLOCK_MAGIC, SUPERBLOCK_SCHEMA, WRITTEN_AT,
    };
}

pub use accept::accepted_ranges;
pub use append::Appended;
pub use checkpoint::{CheckpointKind, PartHeader, Parts, StateHead};
pub use cold::Finished;
pub use config::{
    ConfigError, Copier, DurableMethod, FRAMES_IN_FLIGHT_MAX, LogConfig, Memory, Preparation,
    SETTLE_BLOCKS_MIN, Settings, plain_copy,
};
pub use error::{Full, Needed, OpenError};
pub use frame::{
    ENTRY_HEADER_BYTES, EntryHeader, EntryKind, FRAME_HEADER_BYTES, FrameHeader, FrameSeed, Seal,
};
pub use groups::GroupSlot;
pub use index::FooterHeader;
pub use log::Log;
pub use op::{DiskCompletion, DiskError, DiskOp, FileName, Listing, OpClass, OpId, UnknownFile};
pub use read::{Read, ReadRequest, TimeFound};
pub use recovery::survey::{
    Checked, Container, ContainerCheck, LostRange, SuperblockCopy, Survey, Surveying,
};
pub use recovery::{Opening, Replayed};
pub use stats::LogStats;
pub use tape::{Recorded, Tape};
