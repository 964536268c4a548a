//! One log: frames, extents, index, recovery. Disk operations are values; no system call is made here.
//!
//! [`Log`] is a state machine: appends and completions in, [`DiskOp`]s and durable prefixes out, the time an
//! argument. [`Opening`] is its only constructor and the only path of recovery. `FORMAT.md` gives the bytes.
//!
//! Where a change goes: bytes of a frame `frame.rs`; memory `arena.rs` (blocks) and `window.rs` (batches in
//! them); the way of a batch to the disk `append.rs` -> `commit.rs`; files `extent.rs`; where a batch lies
//! `index.rs` (level 2) and `groups.rs` (level 1); reading `read.rs`; starting `recovery/`.
//!
//! **Invariant:** no I/O, no clock, no randomness, no `unsafe`, no knowledge of topics beyond the seed of a batch
//! header. Nothing allocates on append, cut, completion and reads from the window once warm.
#![forbid(unsafe_code)]

mod arena;
mod config;
mod error;
mod frame;
mod groups;
mod index;
mod op;
mod window;

pub use config::{
    ConfigError, DurableMethod, FRAMES_IN_FLIGHT_MAX, LogConfig, Memory, Preparation, Settings,
};
pub use error::{Full, OpenError};
pub use frame::{EntryHeader, EntryKind, FrameHeader, FrameSeed, Seal};
pub use groups::GroupSlot;
pub use op::{DiskCompletion, DiskError, DiskOp, FileName, Listing, OpClass, OpId, UnknownFile};
