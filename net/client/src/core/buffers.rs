//! Aligned memory that is used again: sealed batches on their way out, stream buffers on their way in.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use corelog_model::batch::AlignedVec;

/// Idle buffers of one producer or consumer.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<Vec<AlignedVec<16>>>,
    /// Bytes of capacity kept idle at most.
    keep_bytes: usize,
}

/// A 16-aligned buffer that goes back to its pool when the last user lets go of it.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    bytes: AlignedVec<16>,
    home: Weak<Pool>,
}

impl Pool {
    pub(crate) fn new(keep_bytes: usize) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), keep_bytes })
    }

    /// A buffer of at least this capacity. Its length and content are whatever they were: `resize` sets both.
    pub(crate) fn take(self: &Arc<Self>, capacity: usize) -> Chunk {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = idle.iter().rposition(|bytes| bytes.capacity() >= capacity);
        let bytes = fits.map(|at| idle.swap_remove(at));
        drop(idle);
        let bytes = bytes.unwrap_or_else(|| AlignedVec::with_capacity(capacity));
        Chunk { bytes, home: Arc::downgrade(self) }
    }

    fn put(&self, bytes: AlignedVec<16>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: usize = idle.iter().map(AlignedVec::capacity).sum();
        if kept + bytes.capacity() <= self.keep_bytes {
            idle.push(bytes);
        }
    }

    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.idle.lock().unwrap().len()
    }
}

impl Chunk {
    /// A copy of `bytes` in memory of its own.
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = AlignedVec::with_capacity(bytes.len());
        copy.extend_from_slice(bytes);
        Self { bytes: copy, home: Weak::new() }
    }
}

impl Deref for Chunk {
    type Target = AlignedVec<16>;

    fn deref(&self) -> &Self::Target {
        &self.bytes
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.put(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_user_lets_go() {
        let pool = Pool::new(4096);
        let chunk = Arc::new(pool.take(1024));
        let reader = Arc::clone(&chunk);
        drop(chunk);
        assert_eq!(pool.idle(), 0, "still read");
        drop(reader);
        assert_eq!(pool.idle(), 1);
        assert!(pool.take(2048).capacity() >= 2048, "a small one is not given for a large one");
        drop(pool.take(64 << 10));
        assert!(pool.idle() <= 2, "what exceeds the bound is freed");
    }
}
