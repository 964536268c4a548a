//! The world's errors: why a log does not open, and why it takes nothing at the moment.

use std::fmt;

use crate::config::ConfigError;
use crate::op::{DiskError, FileName};

/// Why nothing can be appended; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The live window is full of bytes that are not durable or still being sent: ask again next turn.
    Window,
    /// No extent is free: the disk is full, or recycling has not caught up.
    Extents,
    /// Level 1 of the index has all the memory that it may have: a group that is dropped makes room.
    Index,
    /// A write failed twice; the log only reads until it is opened again.
    ReadOnly,
}

/// Why a log does not open. Nothing on the disk was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// A configured value cannot work.
    Config(ConfigError),
    /// The disk refused an operation that a start needs.
    Disk {
        /// The file.
        file: FileName,
        /// Where in it, bytes.
        position: u64,
        /// Why.
        error: DiskError,
    },
    /// A sector cannot be read, and nothing else tells what the log has there. Another start may read it.
    Unreadable {
        /// The extent it lies in.
        extent: u32,
        /// Where, bytes.
        position: u64,
        /// What depends on it.
        needed: Needed,
    },
    /// There are extents, but none of the four superblock copies verifies.
    NoSuperblock,
    /// The superblock belongs to another store or another log.
    WrongStore {
        /// The store's number found.
        store: u64,
        /// The log's number found.
        log: u16,
    },
    /// The log uses a feature this version does not know: incompatible bits.
    Features {
        /// The unknown bits.
        incompatible: u64,
    },
    /// The configured extent size is not the one the log was made with.
    ExtentBytes {
        /// Bytes, as the log was made.
        found: u64,
    },
    /// The disk has no room for a new log: its head, and the reserve with which it still starts on a full disk.
    NoRoom {
        /// Extents that a new log needs.
        extents: u64,
        /// Bytes of each.
        extent_bytes: u64,
    },
    /// An extent the log needs is missing or has another size.
    MissingExtent {
        /// Its number.
        extent: u32,
    },
    /// A pack the log needs is missing or too short.
    MissingPack {
        /// Its number.
        pack: u32,
    },
    /// A checkpoint named by the superblock does not verify.
    Checkpoint {
        /// The extent it lies in.
        extent: u32,
        /// Where, bytes.
        position: u64,
    },
}

/// What a sector that cannot be read leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Whether the log goes on in this extent.
    Extent,
    /// Whether the log ends before it.
    End,
    /// Which records a frame had.
    Frame,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "the log cannot work with its configuration: {error:?}"),
            Self::Disk { file, position, error } => write!(f, "{file} at {position}: {error}"),
            Self::Unreadable { extent, position, needed } => {
                let open = match needed {
                    Needed::Extent => "whether the log goes on in this extent",
                    Needed::End => "whether the log ends before it",
                    Needed::Frame => "which records were there",
                };
                let file = FileName::Extent(*extent);
                write!(f, "{file} at {position} cannot be read, and nothing else tells {open}")
            }
            Self::NoSuperblock => f.write_str("none of the four superblock copies verifies"),
            Self::WrongStore { store, log } => {
                write!(f, "the superblock belongs to log {log} of store {store:016x}")
            }
            Self::Features { incompatible } => {
                write!(f, "the log needs features unknown to this version: {incompatible:#x}")
            }
            Self::ExtentBytes { found } => write!(f, "the log was made with extents of {found} bytes"),
            Self::NoRoom { extents, extent_bytes } => {
                let bytes = extents * extent_bytes;
                write!(
                    f,
                    "no space left for a new log: it needs {bytes} bytes, {extents} extents of {extent_bytes}"
                )
            }
            Self::MissingExtent { extent } => {
                write!(f, "{} is missing or has another size", FileName::Extent(*extent))
            }
            Self::MissingPack { pack } => {
                write!(f, "{} is missing or too short", FileName::Pack(*pack))
            }
            Self::Checkpoint { extent, position } => {
                write!(f, "the checkpoint in {} at {position} does not verify", FileName::Extent(*extent))
            }
        }
    }
}

impl std::error::Error for OpenError {}
