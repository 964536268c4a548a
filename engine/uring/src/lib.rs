//! The ring, files, sockets, arena, affinity, probe and host: everything that talks to the kernel.
//!
//! **Invariants:** this is the only crate with `unsafe`; each site says why it is sound, and what it exports is
//! safe. Memory the kernel may write to is owned by the `Ring` until the completion; memory it may read
//! from is the arena's and is never unmapped. No decisions about logs, protocols or connections here.
#![deny(unsafe_code)]

pub mod arena;
pub mod op;
pub mod waker;

pub use op::{Accepted, Completion, Errno, FileId, Key, ListenerId, SEND_SLICES, SocketId, Submission};
pub use waker::Waker;
