//! The eventfd that ends a park.
//!
//! One per shard: the kernel adds to it when the ring has something (while armed), other threads add to it when
//! they have handed something over, and the host reads it. The count makes every race harmless: a wake that comes
//! before the park ends it at once.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use crate::op::Errno;

/// Ends the park of one shard, from any thread.
#[derive(Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A fresh one that nobody has woken.
    pub fn new() -> Result<Self, Errno> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC).map_err(Errno::from)?;
        Ok(Self(Arc::new(fd)))
    }

    /// Ends the current park, or the next one if the shard is awake. One system call: ask first whether it sleeps.
    pub fn wake(&self) {
        // The only refusal is a count about to overflow, and then the shard is woken already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}
