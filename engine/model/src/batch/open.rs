//! The buffer of a batch that is not sealed yet: room for the header, then the keys and values as they come. What is
//! written once here is sent from here.
//!
//! **Invariants:** the buffer's length is its room, not what is used of it, so that taking a record clears nothing; what
//! lies behind the used part is anything.

use rkyv::util::AlignedVec;

use super::header::BATCH_HEADER_BYTES;

/// Room of a buffer when its first record comes, in bytes.
const FIRST_ROOM: usize = 4 << 10;

/// Header room and bytes of an open batch.
#[derive(Debug)]
pub(super) struct OpenBuffer {
    bytes: AlignedVec<16>,
    /// What the sealed batch takes at most: growing by doubling stops there.
    max_bytes: usize,
}

impl OpenBuffer {
    /// Where the body starts.
    pub(super) const BODY: usize = BATCH_HEADER_BYTES;

    /// A buffer for batches of at most `max_bytes`.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { bytes: AlignedVec::new(), max_bytes }
    }

    /// Lets `write` fill the next `length` bytes after the `used` ones of the body.
    #[inline]
    pub(super) fn append(&mut self, used: &mut usize, length: usize, write: impl FnOnce(&mut [u8])) {
        let start = Self::BODY + *used;
        if self.bytes.len() < start + length {
            self.grow(start + length);
        }
        write(&mut self.bytes[start..start + length]);
        *used += length;
    }

    #[cold]
    fn grow(&mut self, at_least: usize) {
        let doubled = FIRST_ROOM.max(2 * self.bytes.len()).min(self.max_bytes);
        self.bytes.resize(at_least.max(doubled), 0);
    }

    /// The buffer, cut to header room and the `used` bytes of the body, with capacity for `bytes` altogether.
    pub(super) fn cut(&mut self, used: usize, bytes: usize) -> &mut AlignedVec<16> {
        let end = Self::BODY + used;
        self.bytes.resize(end, 0);
        self.bytes.reserve(bytes.saturating_sub(end));
        &mut self.bytes
    }

    /// Moves the sealed batch to `out`, whose content is lost and whose memory this buffer goes on with; a batch that
    /// takes little of its memory is copied instead, because it may be kept for long.
    pub(super) fn hand_over(&mut self, out: &mut AlignedVec<16>) {
        if 2 * self.bytes.len() >= self.bytes.capacity() {
            std::mem::swap(&mut self.bytes, out);
        } else {
            out.clear();
            out.extend_from_slice(&self.bytes);
        }
    }
}
