//! The eventfds that end a sleep.
//!
//! A ring has two. One it polls itself, for when its thread sleeps in it. The other is its signal, which the host reads,
//! for when the thread sleeps in the host: the kernel adds to it when the ring has something, while armed. A wake tells
//! both, because the poll's completion does not reach the signal: within a write to one eventfd the kernel puts the
//! signal to another off, and Linux 6.18 does so once only. The counts make every race harmless: a wake that comes
//! before the sleep ends it at once.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use crate::op::Errno;

/// A count that can be slept on.
#[derive(Clone)]
pub struct Eventfd(Arc<OwnedFd>);

/// Ends the sleep of one shard, from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    polled: Eventfd,
    signal: Eventfd,
}

impl Eventfd {
    /// A fresh one, at nothing.
    pub fn new() -> Result<Self, Errno> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC).map_err(Errno::from)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Adds one: whoever sleeps on it wakes.
    pub fn add(&self) {
        // The only refusal is a count about to overflow, and then whoever sleeps on it is woken already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Takes it back to nothing. Blocks until there is something.
    pub fn clear(&self) {
        // Nothing but a count can be read.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl Waker {
    /// One that nobody has woken.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { polled: Eventfd::new()?, signal: Eventfd::new()? })
    }

    /// Ends the current sleep, or the next one if the shard is awake. Two system calls: ask first whether it sleeps.
    pub fn wake(&self) {
        self.polled.add();
        self.signal.add();
    }

    /// What the ring polls.
    pub const fn polled(&self) -> &Eventfd {
        &self.polled
    }

    /// What the host reads.
    pub const fn signal(&self) -> &Eventfd {
        &self.signal
    }
}

impl AsFd for Eventfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Debug for Eventfd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Eventfd")
    }
}
