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
#[derive(Debug, Default)]
pub(super) struct OpenBuffer(AlignedVec<16>);

impl OpenBuffer {
    /// Where the body starts.
    pub(super) const BODY: usize = BATCH_HEADER_BYTES;

    /// Lets `write` fill the next `length` bytes after the `used` ones of the body.
    #[inline]
    pub(super) fn append(&mut self, used: &mut usize, length: usize, write: impl FnOnce(&mut [u8])) {
        let start = Self::BODY + *used;
        if self.0.len() < start + length {
            self.grow(start + length);
        }
        write(&mut self.0[start..start + length]);
        *used += length;
    }

    #[cold]
    fn grow(&mut self, at_least: usize) {
        let room = at_least.max(2 * self.0.len()).max(FIRST_ROOM);
        self.0.resize(room, 0);
    }

    /// The buffer, cut to header room and the `used` bytes of the body, with capacity for `bytes` altogether.
    pub(super) fn cut(&mut self, used: usize, bytes: usize) -> &mut AlignedVec<16> {
        let end = Self::BODY + used;
        self.0.resize(end, 0);
        self.0.reserve(bytes.saturating_sub(end));
        &mut self.0
    }

    /// Moves the sealed batch to `out`, whose content is lost and whose memory this buffer goes on with; a batch that
    /// takes little of its memory is copied instead, because it may be kept for long.
    pub(super) fn hand_over(&mut self, out: &mut AlignedVec<16>) {
        if 2 * self.0.len() >= self.0.capacity() {
            std::mem::swap(&mut self.0, out);
        } else {
            out.clear();
            out.extend_from_slice(&self.0);
        }
    }
}
