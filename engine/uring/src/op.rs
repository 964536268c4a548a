//! Submissions and completions: what a reactor asks of a ring, and what comes back, as plain values.
//!
//! Nothing here touches the kernel, so the same decisions drive the real ring and a fake one.
//!
//! **Invariant:** each submission is answered by exactly one completion with the same [`Key`]; a block that was
//! moved in comes back with it, whatever the result.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

use corelog_model::{Block, Slice};

/// Slices one [`Submission::Send`] may name besides its head.
pub const SEND_SLICES: usize = 64;

/// Names an operation: kind 8 bits, generation 24 bits, slot 32 bits, from the top. The caller chooses it.
///
/// The ring keeps what the kernel touches under `slot`, so a slot has one operation in flight at a time and is
/// below `RingConfig::operations`. Kind and generation are the caller's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(pub u64);

/// A connection, by its place in the ring's table of sockets. Used again after its [`Submission::Close`] completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(pub u32);

/// A listening socket, by its place in the ring's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u32);

/// An open file, by its place in the ring's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(pub u32);

/// What the kernel answered instead of a result; the number is Linux's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

/// One operation.
#[derive(Debug)]
pub enum Submission {
    /// Waits for one connection; the completion carries it.
    Accept {
        /// Its name.
        key: Key,
        /// Where to listen.
        listener: ListenerId,
    },
    /// Receives at most `length` bytes; 0 in the completion means that the peer will send no more.
    Recv {
        /// Its name.
        key: Key,
        /// From where.
        socket: SocketId,
        /// Where the bytes go; comes back with the completion.
        block: Block,
        /// First byte within the block.
        offset: u32,
        /// Bytes at most.
        length: u32,
    },
    /// Sends the head and then the slices; the kernel itself goes on after a short send, so that less than the
    /// sum in the completion means that the connection is broken.
    Send {
        /// Its name.
        key: Key,
        /// Where to.
        socket: SocketId,
        /// Bytes that belong to this send alone; comes back with the completion.
        head: Option<Block>,
        /// First byte of the head within its block.
        head_offset: u32,
        /// Bytes of the head; 0 without one.
        head_length: u32,
        /// At most [`SEND_SLICES`] slices of registered blocks, as a range of the list pushed with this
        /// submission. They stay pinned until the completion.
        slices: Range<u32>,
    },
    /// Writes `source` to a file.
    Write {
        /// Its name.
        key: Key,
        /// Where to.
        file: FileId,
        /// Byte position in the file.
        position: u64,
        /// Bytes of a registered block; they stay pinned until the completion.
        source: Slice,
        /// Whether the completion means that the bytes are on stable storage (`RWF_DSYNC`).
        flush: bool,
    },
    /// Flushes the data of a file (`fdatasync`): all writes that completed before are then on stable storage.
    Sync {
        /// Its name.
        key: Key,
        /// Which file.
        file: FileId,
    },
    /// Reads `length` bytes to the start of a block.
    Read {
        /// Its name.
        key: Key,
        /// From where.
        file: FileId,
        /// Byte position in the file.
        position: u64,
        /// Where the bytes go; comes back with the completion.
        into: Block,
        /// Bytes wanted; fewer come back at the end of the file.
        length: u32,
    },
    /// Asks for the end of another operation, which then completes with [`Errno::CANCELED`] unless it was faster.
    Cancel {
        /// Its name.
        key: Key,
        /// The operation to end.
        target: Key,
    },
    /// Ends a connection both ways: its outstanding receive and send complete.
    Shutdown {
        /// Its name.
        key: Key,
        /// Which one.
        socket: SocketId,
    },
    /// Gives up a socket. Operations in flight on it are unharmed: end them first by `Shutdown`.
    Close {
        /// Its name.
        key: Key,
        /// Which one.
        socket: SocketId,
    },
}

/// The answer to one submission.
#[derive(Debug)]
pub struct Completion {
    /// The submission's name.
    pub key: Key,
    /// Bytes moved, or 0 for operations that move none.
    pub result: Result<u32, Errno>,
    /// The block that was moved in.
    pub block: Option<Block>,
    /// The connection an accept brought.
    pub accepted: Option<Accepted>,
}

/// A new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its name.
    pub socket: SocketId,
    /// The other end; `None` when the kernel did not say or it is no IP address.
    pub peer: Option<SocketAddr>,
}

impl Key {
    /// Puts a key together.
    ///
    /// # Panics
    /// When `generation` has more than 24 bits.
    pub const fn new(kind: u8, generation: u32, slot: u32) -> Self {
        assert!(generation < 1 << 24, "a generation has 24 bits");
        Self((kind as u64) << 56 | (generation as u64) << 32 | slot as u64)
    }

    /// The upper 8 bits.
    pub const fn kind(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The 24 bits in the middle.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & 0x00ff_ffff
    }

    /// The lower 32 bits.
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }
}

impl Submission {
    /// The name of the operation.
    pub const fn key(&self) -> Key {
        match self {
            Self::Accept { key, .. }
            | Self::Recv { key, .. }
            | Self::Send { key, .. }
            | Self::Write { key, .. }
            | Self::Sync { key, .. }
            | Self::Read { key, .. }
            | Self::Cancel { key, .. }
            | Self::Shutdown { key, .. }
            | Self::Close { key, .. } => *key,
        }
    }
}

impl Errno {
    /// The operation was ended by a [`Submission::Cancel`].
    pub const CANCELED: Self = Self(libc::ECANCELED);
    /// No place left in the table of sockets or files.
    pub const TABLE_FULL: Self = Self(libc::EMFILE);
    /// No space left on the device.
    pub const NO_SPACE: Self = Self(libc::ENOSPC);
    /// The disk or its driver failed.
    pub const IO: Self = Self(libc::EIO);
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl std::error::Error for Errno {}

impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<std::io::Error> for Errno {
    /// Errors that did not come from the kernel become `EIO`.
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_back_its_three_parts() {
        let key = Key::new(0xab, 0x00fe_dcba, 0x8765_4321);
        assert_eq!((key.kind(), key.generation(), key.slot()), (0xab, 0x00fe_dcba, 0x8765_4321));
    }

    #[test]
    #[should_panic(expected = "24 bits")]
    fn a_generation_that_would_spill_into_the_kind_is_our_own_mistake() {
        let _ = Key::new(0, 1 << 24, 0);
    }
}
