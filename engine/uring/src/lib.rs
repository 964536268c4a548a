//! The ring, files, sockets, arena, affinity, probe and host: everything that talks to the kernel.
//!
//! **Invariants:** this is the only crate with `unsafe`; each site says why it is sound, and what it exports is
//! safe. Memory the kernel may write to is owned by the [`ring::Ring`] until the completion; memory it may read
//! from is the arena's and stays mapped as long as a ring knows it. No decisions about logs, protocols or connections here.
#![deny(unsafe_code)]

pub mod affinity;
pub mod arena;
pub mod baseline;
pub mod clock;
pub mod copy;
pub mod file;
mod frames;
pub mod host;
pub mod lane;
pub mod limits;
pub mod network;
pub mod op;
pub mod probe;
mod reads;
pub mod ring;
pub mod socket;
pub mod status;
mod sync;
pub mod topology;
pub mod waker;

pub use host::{Host, HostConfig, HostError};
pub use op::{Accepted, Completion, Errno, FileId, Key, ListenerId, SEND_SLICES, SocketId, Submission};
pub use ring::{Ring, RingConfig, RingError};
pub use waker::Waker;

/// A directory on the file system the crate is built on: `/tmp` is often a tmpfs, whose O_DIRECT proves nothing.
#[cfg(test)]
fn test_directory() -> tempfile::TempDir {
    let beside = std::env::current_exe().expect("a test binary has a path");
    let beside = beside.parent().expect("a directory");
    tempfile::TempDir::with_prefix_in("corelog-uring-", beside).expect("a directory to test in")
}
