//! The receiving half of a connection: one block, filled by the ring, read in place by the decoder.
//!
//! Every connection has a small block for life. A frame that does not fit it needs a larger one from the ingest
//! pool; that is kept while the connection is busy and given back when it is empty and others wait.
//! **Invariant:** the unread bytes start where a frame starts, on a multiple of 16 in the block, so batches can be
//! read in place. Must not allocate, and must not look into frames: the decoder says how many bytes it needs.

use corelog_model::Block;
use corelog_wire::frame::HEADER_BYTES;

/// How much more than the expected frame is received at once when frames are large. What comes beyond the frame is
/// the start of the next one and may have to be moved, so it stays small; small frames are taken as many as fit.
const LOOKAHEAD_BYTES: usize = 4096;
/// Frames from here on are received one at a time, so that the bytes are still in the core's cache when they are
/// summed and copied.
const LARGE_FRAME_BYTES: usize = 32 << 10;

/// Received bytes that are not served yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// `None` while the ring has it.
    block: Option<Block>,
    /// Its length.
    block_bytes: usize,
    /// The small block, while a larger one is in use.
    spare: Option<Block>,
    /// A frame was served from the block in use.
    served: bool,
    start: usize,
    end: usize,
    /// Bytes from `start` that the frame there takes, as far as known.
    needed: usize,
    /// Length of the last whole frame: the best guess for the next one.
    last_frame: usize,
}

/// What the next receive needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Receive to here.
    Bytes {
        /// First byte within the block.
        offset: u32,
        /// Bytes at most.
        length: u32,
    },
    /// First a block of at least this many bytes.
    Block(usize),
}

impl Inbox {
    /// An inbox that owns the connection's small block.
    pub(crate) fn new(small: Block) -> Self {
        let block_bytes = small.len();
        Self { block: Some(small), block_bytes, needed: HEADER_BYTES, ..Self::default() }
    }

    /// The bytes not served yet; none while the ring receives.
    pub(crate) fn unread(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.bytes()[self.start..self.end])
    }

    /// Where in the block they begin.
    pub(crate) const fn start(&self) -> usize {
        self.start
    }

    /// Whether the ring, or another core, has the block.
    pub(crate) const fn is_receiving(&self) -> bool {
        self.block.is_none()
    }

    /// Whether a part of a frame is there.
    pub(crate) const fn is_partial(&self) -> bool {
        self.end > self.start
    }

    /// Whether a block of the ingest pool is held.
    pub(crate) const fn has_large(&self) -> bool {
        self.spare.is_some()
    }

    /// Length of the block in use, wherever it is.
    pub(crate) const fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// The frame at the start has been served.
    pub(crate) fn consume(&mut self, frame_bytes: usize) {
        assert!(frame_bytes <= self.end - self.start, "only received bytes are served");
        self.start += frame_bytes;
        self.served = true;
        self.last_frame = frame_bytes;
        self.needed = HEADER_BYTES;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// The decoder needs this many bytes from the start of the unread ones.
    pub(crate) fn need(&mut self, bytes: usize) {
        self.needed = bytes;
    }

    /// Bytes that the frame at the start takes, as far as known.
    pub(crate) const fn needed(&self) -> usize {
        self.needed
    }

    /// Where to receive to next. Moves the unread bytes to the front when the frame would not fit behind them.
    pub(crate) fn want(&mut self) -> Want {
        let block = self.block.as_mut().expect("one receive at a time");
        let unread = self.end - self.start;
        if self.needed > block.len() {
            return Want::Block(self.needed);
        }
        if self.start + self.needed > block.len() || self.start > 0 && unread <= HEADER_BYTES {
            block.bytes_mut().copy_within(self.start..self.end, 0);
            self.end = unread;
            self.start = 0;
        }
        let expected = self.needed.max(self.last_frame);
        let room = block.len() - self.end;
        let length = if expected < LARGE_FRAME_BYTES {
            room
        } else {
            room.min(expected.saturating_sub(unread) + LOOKAHEAD_BYTES)
        };
        assert!(length > 0, "the frame fits the block and is not whole, so there is room");
        Want::Bytes { offset: self.end as u32, length: length as u32 }
    }

    /// Gives the block away, with a receive or to another core.
    pub(crate) fn lend(&mut self) -> Block {
        self.block.take().expect("one receive at a time")
    }

    /// Has the block back with `received` more bytes in it.
    pub(crate) fn returned(&mut self, block: Block, received: usize) {
        assert!(self.block.is_none(), "it is lent once");
        assert!(self.end + received <= block.len(), "the ring receives within the block");
        self.end += received;
        self.block = Some(block);
    }

    /// Moves over to a larger block; gives back the one in use if that was from the pool too.
    pub(crate) fn grow(&mut self, mut larger: Block) -> Option<Block> {
        let old = self.block.take().expect("not receiving");
        let unread = self.end - self.start;
        assert!(larger.len() > old.len(), "a larger block is larger");
        larger.bytes_mut()[..unread].copy_from_slice(&old.bytes()[self.start..self.end]);
        self.start = 0;
        self.end = unread;
        self.block_bytes = larger.len();
        self.served = false;
        self.block = Some(larger);
        if self.spare.is_none() {
            self.spare = Some(old);
            return None;
        }
        Some(old)
    }

    /// Nothing more is taken from it: gives the block of the pool back, whatever is in it.
    pub(crate) fn give_up(&mut self) -> Option<Block> {
        let large = self.block.take_if(|_| self.spare.is_some())?;
        let small = self.spare.take().expect("it was looked for");
        *self = Self::new(small);
        Some(large)
    }

    /// Gives the block of the pool back when the small one takes what is in it; not before it has served for a frame, since
    /// who was given it in turn would stand in line again.
    pub(crate) fn shrink(&mut self) -> Option<Block> {
        let unread = self.start..self.end;
        let has_served = self.served || unread.is_empty();
        let fits = |small: &Block| has_served && unread.len() <= small.len();
        let large = self.block.take_if(|_| self.spare.as_ref().is_some_and(fits))?;
        let mut small = self.spare.take().expect("it takes what is there");
        small.bytes_mut()[..unread.len()].copy_from_slice(&large.bytes()[unread.clone()]);
        (self.start, self.end) = (0, unread.len());
        self.block_bytes = small.len();
        self.block = Some(small);
        Some(large)
    }

    /// All blocks, when the connection is over: the small one first.
    pub(crate) fn into_blocks(self) -> (Option<Block>, Option<Block>) {
        match self.spare {
            Some(small) => (Some(small), self.block),
            None => (self.block, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use corelog_model::BlockId;

    use super::*;

    fn receive(inbox: &mut Inbox, bytes: usize) {
        let Want::Bytes { length, .. } = inbox.want() else { panic!("a block is missing") };
        assert!(bytes <= length as usize);
        let block = inbox.lend();
        assert!(inbox.is_receiving() && inbox.unread().is_empty());
        inbox.returned(block, bytes);
    }

    #[test]
    fn small_frames_are_received_as_many_as_fit() {
        let mut inbox = Inbox::new(Block::heap(BlockId(0), 16 << 10));
        assert_eq!(inbox.want(), Want::Bytes { offset: 0, length: 16 << 10 });
        receive(&mut inbox, 4096 + 16);
        inbox.consume(4096);
        assert_eq!(inbox.unread().len(), 16);
        assert_eq!(inbox.want(), Want::Bytes { offset: 16, length: (16 << 10) - 16 }, "moved to the front");
    }

    #[test]
    fn a_large_frame_waits_for_a_block_and_then_comes_alone() {
        let mut inbox = Inbox::new(Block::heap(BlockId(0), 16 << 10));
        receive(&mut inbox, 16 << 10);
        inbox.need(128 << 10);
        assert_eq!(inbox.want(), Want::Block(128 << 10));
        assert!(inbox.grow(Block::heap(BlockId(1), 256 << 10)).is_none(), "the small block stays");
        let rest = (112 << 10) + LOOKAHEAD_BYTES as u32;
        assert_eq!(inbox.want(), Want::Bytes { offset: 16 << 10, length: rest });
        receive(&mut inbox, rest as usize);
        inbox.consume(128 << 10);

        inbox.need(128 << 10);
        assert_eq!(inbox.want(), Want::Bytes { offset: 132 << 10, length: 124 << 10 }, "it fits where it is");
        receive(&mut inbox, 124 << 10);
        assert_eq!(inbox.unread().len(), 128 << 10);
        assert!(inbox.shrink().is_none(), "there are bytes in it");
        inbox.consume(128 << 10);
        assert_eq!(inbox.shrink().map(|block| block.id()), Some(BlockId(1)));
        assert_eq!(inbox.into_blocks().0.map(|block| block.id()), Some(BlockId(0)));
    }

    #[test]
    fn a_block_is_kept_until_it_has_served_for_a_frame() {
        let mut inbox = Inbox::new(Block::heap(BlockId(0), 16 << 10));
        receive(&mut inbox, 100);
        inbox.need(32 << 10);
        assert_eq!(inbox.want(), Want::Block(32 << 10));
        inbox.grow(Block::heap(BlockId(1), 64 << 10));
        receive(&mut inbox, 100);
        assert!(inbox.shrink().is_none(), "what it was given for is not there yet");
        receive(&mut inbox, (32 << 10) - 100);
        inbox.consume(32 << 10);
        inbox.need(32 << 10);
        assert!(inbox.is_partial() && inbox.shrink().is_some(), "another one may have it now");
    }

    #[test]
    fn a_cancelled_receive_brings_the_block_back_unchanged() {
        let mut inbox = Inbox::new(Block::heap(BlockId(0), 4096));
        receive(&mut inbox, 20);
        let block = inbox.lend();
        inbox.returned(block, 0);
        assert_eq!(inbox.unread().len(), 20);
    }
}
