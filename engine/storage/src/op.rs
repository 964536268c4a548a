//! Disk operations and their completions, as plain values: storage decides, the reactor (or the simulator) does.
//!
//! Four classes, told apart by [`DiskOp::class`]: the commit path, cold reads, background work, and settling. Every
//! operation is answered by exactly one [`DiskCompletion`] with its id, whatever happens.

use std::fmt;
use std::str::FromStr;

use corelog_model::{Block, Slice};

/// Names one operation from the moment it is asked for until its completion. Opaque to whoever carries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// A file in a log's directory. `Display` is its name there; `FromStr` reads it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// Four copies of one 4 KiB page.
    Superblock,
    /// A fixed-size piece of the log.
    Extent(u32),
    /// A partition-sorted file made from extents.
    Pack(u32),
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock => f.write_str("superblock"),
            Self::Extent(number) => write!(f, "ext-{number:08}"),
            Self::Pack(number) => write!(f, "pack-{number:08}"),
        }
    }
}

/// The name is not one of a log's files; temporary files of unfinished creations are among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownFile;

impl FromStr for FileName {
    type Err = UnknownFile;

    fn from_str(name: &str) -> Result<Self, UnknownFile> {
        if name == "superblock" {
            return Ok(Self::Superblock);
        }
        let number = |digits: &str| match digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse().map_err(|_| UnknownFile),
            false => Err(UnknownFile),
        };
        match name.split_once('-') {
            Some(("ext", digits)) => Ok(Self::Extent(number(digits)?)),
            Some(("pack", digits)) => Ok(Self::Pack(number(digits)?)),
            _ => Err(UnknownFile),
        }
    }
}

/// Something to be done to the log's directory. Positions and lengths are bytes, multiples of 4 KiB.
#[derive(Debug)]
pub enum DiskOp {
    /// Commit class, or settle class into a pack: write one frame. The source's bytes do not change before the completion.
    WriteFrame {
        /// Answered by the completion.
        id: OpId,
        /// The extent, or the pack.
        file: FileName,
        /// Where in the file.
        position: u64,
        /// The frame's bytes, in a block of the live window, or one for settling.
        source: Slice,
        /// Durable when it completes (RWF_DSYNC).
        flush: bool,
    },
    /// Commit class, or settle class of a pack: what was written to the file before is durable at the completion
    /// (fdatasync).
    Sync {
        /// Answered by the completion.
        id: OpId,
        /// The extent, or the pack.
        file: FileName,
    },
    /// Cold class: read into a block that travels with the operation and comes back in the completion, also
    /// when it fails. Reading beyond the end of the file gives fewer bytes, which is not an error.
    Read {
        /// Answered by the completion.
        id: OpId,
        /// Extent, pack or superblock.
        file: FileName,
        /// Where in the file.
        position: u64,
        /// How much; at most the block's length.
        length: u32,
        /// Where to; filled from its first byte.
        into: Block,
    },
    /// Background: make a file of this size durably: temporary name, allocate unwritten, fsync, rename, fsync
    /// the directory. An existing file of that name is replaced.
    CreateExtent {
        /// Answered by the completion.
        id: OpId,
        /// The extent or the pack; in a new log the superblock, too.
        file: FileName,
        /// Its size.
        bytes: u64,
    },
    /// Background: write zeros, then fdatasync.
    Zero {
        /// Answered by the completion.
        id: OpId,
        /// The extent.
        file: FileName,
        /// Where in the file.
        position: u64,
        /// How much.
        bytes: u64,
    },
    /// Commit class, though nobody waits for it: write one 4 KiB copy at `copy * 4096`, durable when it completes. The
    /// page's bytes do not change before.
    WriteSuperblock {
        /// Answered by the completion.
        id: OpId,
        /// Which of the four.
        copy: u8,
        /// One page, in a block of its own.
        source: Slice,
    },
    /// Background: remove the file.
    Remove {
        /// Answered by the completion.
        id: OpId,
        /// The file.
        file: FileName,
    },
}

/// Which budget an operation is carried out under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpClass {
    /// Acknowledgements wait for it.
    Commit,
    /// A lagging reader waits for it.
    Cold,
    /// Nobody waits for it directly; by the host.
    Background,
    /// The same, from and to blocks of the log's own, so by the ring.
    Settle,
}

impl DiskOp {
    /// The id its completion carries.
    pub const fn id(&self) -> OpId {
        match self {
            Self::WriteFrame { id, .. }
            | Self::Sync { id, .. }
            | Self::Read { id, .. }
            | Self::CreateExtent { id, .. }
            | Self::Zero { id, .. }
            | Self::WriteSuperblock { id, .. }
            | Self::Remove { id, .. } => *id,
        }
    }

    /// The file it touches.
    pub const fn file(&self) -> FileName {
        match self {
            Self::WriteFrame { file, .. }
            | Self::Sync { file, .. }
            | Self::Read { file, .. }
            | Self::CreateExtent { file, .. }
            | Self::Zero { file, .. }
            | Self::Remove { file, .. } => *file,
            Self::WriteSuperblock { .. } => FileName::Superblock,
        }
    }

    /// Which budget it belongs to.
    pub const fn class(&self) -> OpClass {
        match self {
            Self::WriteFrame { file: FileName::Pack(_), .. } | Self::Sync { file: FileName::Pack(_), .. } => {
                OpClass::Settle
            }
            Self::WriteFrame { .. } | Self::Sync { .. } | Self::WriteSuperblock { .. } => OpClass::Commit,
            Self::Read { .. } => OpClass::Cold,
            Self::CreateExtent { .. } | Self::Zero { .. } | Self::Remove { .. } => OpClass::Background,
        }
    }
}

/// The one answer to a [`DiskOp`].
#[derive(Debug)]
pub struct DiskCompletion {
    /// Of the operation.
    pub id: OpId,
    /// Bytes moved (0 where none are), or why not.
    pub result: Result<u32, DiskError>,
    /// The block of a read, always.
    pub block: Option<Block>,
}

/// What the world says when it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The operation failed; after this nothing is known about the bytes it named.
    Io {
        /// The system's number for the reason.
        errno: i32,
    },
    /// No room on the file system, or a quota.
    NoSpace,
    /// Fewer bytes were moved than asked for.
    Short {
        /// Bytes asked for.
        expected: u32,
        /// Bytes moved.
        found: u32,
    },
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { errno } => write!(f, "input/output error {errno}"),
            Self::NoSpace => f.write_str("no space left"),
            Self::Short { expected, found } => write!(f, "{found} of {expected} bytes moved"),
        }
    }
}

impl std::error::Error for DiskError {}

/// What the directory holds at the start: names and sizes in bytes. Unknown files are left out, temporary ones
/// are removed by whoever lists.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// In any order.
    pub files: Vec<(FileName, u64)>,
}

impl Listing {
    /// The names alone.
    pub fn names(&self) -> impl Iterator<Item = FileName> {
        self.files.iter().map(|&(name, _)| name)
    }
}

/// After a refusal, how long until an operation of the log's own is tried again, microseconds.
pub(crate) const RETRY_US: u64 = 1_000_000;

/// What an operation was asked for, kept in the id itself: nothing has to be looked up when it completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Frame {
        sequence: u64,
    },
    Sync {
        ticket: u64,
    },
    ColdRead {
        slot: u32,
    },
    Create {
        extent: u32,
    },
    Zero {
        extent: u32,
    },
    Superblock {
        copy: u8,
    },
    OpeningRead {
        ticket: u64,
    },
    OpeningSync {
        extent: u32,
    },
    /// Whatever file is being removed: one at a time.
    Remove,
    CreatePack {
        pack: u32,
    },
    /// Into the reader in this place.
    SettleRead {
        reader: u32,
    },
    /// From the block in this place.
    SettleWrite {
        block: u32,
    },
    SettleSync {
        pack: u32,
    },
    Scrub,
}

const PURPOSE_SHIFT: u32 = 56;
const VALUE_MASK: u64 = (1 << PURPOSE_SHIFT) - 1;

impl Purpose {
    pub(crate) fn id(self) -> OpId {
        let (kind, value) = match self {
            Self::Frame { sequence } => (1, sequence),
            Self::Sync { ticket } => (2, ticket),
            Self::ColdRead { slot } => (3, u64::from(slot)),
            Self::Create { extent } => (4, u64::from(extent)),
            Self::Zero { extent } => (5, u64::from(extent)),
            Self::Superblock { copy } => (6, u64::from(copy)),
            Self::OpeningRead { ticket } => (7, ticket),
            Self::OpeningSync { extent } => (8, u64::from(extent)),
            Self::Remove => (9, 0),
            Self::CreatePack { pack } => (10, u64::from(pack)),
            Self::SettleRead { reader } => (11, u64::from(reader)),
            Self::SettleWrite { block } => (12, u64::from(block)),
            Self::SettleSync { pack } => (13, u64::from(pack)),
            Self::Scrub => (14, 0),
        };
        assert!(value <= VALUE_MASK, "56 bits name every frame a log will ever have");
        OpId(kind << PURPOSE_SHIFT | value)
    }

    pub(crate) fn of(id: OpId) -> Option<Self> {
        let value = id.0 & VALUE_MASK;
        let narrow = || u32::try_from(value).ok();
        Some(match id.0 >> PURPOSE_SHIFT {
            1 => Self::Frame { sequence: value },
            2 => Self::Sync { ticket: value },
            3 => Self::ColdRead { slot: narrow()? },
            4 => Self::Create { extent: narrow()? },
            5 => Self::Zero { extent: narrow()? },
            6 => Self::Superblock { copy: u8::try_from(value).ok()? },
            7 => Self::OpeningRead { ticket: value },
            8 => Self::OpeningSync { extent: narrow()? },
            9 => Self::Remove,
            10 => Self::CreatePack { pack: narrow()? },
            11 => Self::SettleRead { reader: narrow()? },
            12 => Self::SettleWrite { block: narrow()? },
            13 => Self::SettleSync { pack: narrow()? },
            14 => Self::Scrub,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_read_back_and_others_are_not() {
        for name in [FileName::Superblock, FileName::Extent(0), FileName::Extent(12_345), FileName::Pack(7)] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for name in
            ["ext-1", "ext-0000000x", "ext-00000001.tmp", "", "superblock2", "limits.toml", "ext-+0000001"]
        {
            assert_eq!(name.parse::<FileName>(), Err(UnknownFile), "{name}");
        }
    }

    #[test]
    fn an_id_says_what_it_was_asked_for() {
        let purposes = [
            Purpose::Frame { sequence: 1 << 55 },
            Purpose::Sync { ticket: 3 },
            Purpose::ColdRead { slot: 9 },
            Purpose::Create { extent: u32::MAX },
            Purpose::Zero { extent: 4 },
            Purpose::Superblock { copy: 3 },
            Purpose::OpeningRead { ticket: 77 },
            Purpose::OpeningSync { extent: 5 },
            Purpose::Remove,
            Purpose::CreatePack { pack: 6 },
            Purpose::SettleRead { reader: 7 },
            Purpose::SettleWrite { block: 8 },
            Purpose::SettleSync { pack: 9 },
            Purpose::Scrub,
        ];
        for purpose in purposes {
            assert_eq!(Purpose::of(purpose.id()), Some(purpose));
        }
        assert_eq!(Purpose::of(OpId(0)), None);
        assert_eq!(Purpose::of(OpId(u64::MAX)), None);
    }
}
