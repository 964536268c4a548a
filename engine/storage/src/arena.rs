//! The live window's memory: a few large blocks, frames carved from them one behind the other.
//!
//! A block is in one of three states: free, in use, or current (the newest in use, frames are carved from it).
//! Blocks leave use in the order they entered it, and only when nobody needs their bytes: `holds` counts frames
//! that are not durable yet, `pins` counts slices that somebody still sends.
//!
//! **Invariant:** the bytes of a block change only while it is current, beyond its cursor; free blocks have
//! neither holds nor pins.

use std::collections::VecDeque;

use corelog_model::limits::FRAME_ALIGN;
use corelog_model::{Block, BlockId, Slice};

use crate::config::Copier;

/// Index of a window block in the arena, dense from 0.
pub(crate) type BlockIndex = u32;

struct Piece {
    block: Block,
    /// Where the next frame starts, bytes.
    cursor: u32,
    /// Frames in it that are not durable.
    holds: u32,
    /// Slices of it that readers still use.
    pins: u32,
    /// One past the newest window entry in it.
    end_entry: u64,
}

pub(crate) struct Arena {
    pieces: Vec<Piece>,
    free: Vec<BlockIndex>,
    /// Oldest first; the last one is current.
    used: VecDeque<BlockIndex>,
    /// Block id -> index, for ids between the smallest and the largest of the window.
    by_id: Vec<Option<BlockIndex>>,
    first_id: u32,
    /// The oldest block had to go and was pinned.
    wanted: bool,
    block_bytes: u32,
    copy: Copier,
}

impl Arena {
    pub(crate) fn new(blocks: Vec<Block>, copy: Copier) -> Self {
        let first_id = blocks.iter().map(|block| block.id().0).min().unwrap_or(0);
        let last_id = blocks.iter().map(|block| block.id().0).max().unwrap_or(0);
        let mut by_id = vec![None; (last_id - first_id) as usize + 1];
        for (index, block) in blocks.iter().enumerate() {
            by_id[(block.id().0 - first_id) as usize] = Some(index as BlockIndex);
        }
        let block_bytes = u32::try_from(blocks[0].len()).expect("a block is at most 4 GiB");
        let pieces: Vec<Piece> = blocks
            .into_iter()
            .map(|block| Piece { block, cursor: 0, holds: 0, pins: 0, end_entry: 0 })
            .collect();
        Self {
            free: (0..pieces.len() as BlockIndex).rev().collect(),
            used: VecDeque::with_capacity(pieces.len()),
            pieces,
            by_id,
            first_id,
            wanted: false,
            block_bytes,
            copy,
        }
    }

    /// Takes in more blocks, of the same size as the first ones and named after them.
    pub(crate) fn grow(&mut self, blocks: Vec<Block>) {
        for block in blocks {
            assert_eq!(block.len(), self.block_bytes as usize, "blocks of the window are of one size");
            let index = self.pieces.len() as BlockIndex;
            let at =
                block.id().0.checked_sub(self.first_id).expect("a later block has a later name") as usize;
            if self.by_id.len() <= at {
                self.by_id.resize(at + 1, None);
            }
            assert!(self.by_id[at].replace(index).is_none(), "a block is given once");
            self.pieces.push(Piece { block, cursor: 0, holds: 0, pins: 0, end_entry: 0 });
            self.free.push(index);
        }
        self.used.reserve(self.pieces.len() - self.used.len());
        self.free.reserve(self.pieces.len() - self.free.len());
    }

    pub(crate) const fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// Bytes left behind the cursor of the current block.
    pub(crate) fn remaining(&self) -> u32 {
        self.used.back().map_or(0, |&index| self.block_bytes - self.pieces[index as usize].cursor)
    }

    pub(crate) fn free_blocks(&self) -> usize {
        self.free.len()
    }

    /// The current block and its cursor.
    pub(crate) fn cursor(&self) -> Option<(BlockIndex, u32)> {
        self.used.back().map(|&index| (index, self.pieces[index as usize].cursor))
    }

    /// Makes a free block the current one; the caller has made sure that there is one.
    pub(crate) fn advance(&mut self) {
        let index = self.free.pop().expect("room was asked for first");
        let piece = &mut self.pieces[index as usize];
        assert!(piece.holds == 0 && piece.pins == 0, "a free block belongs to nobody");
        piece.cursor = 0;
        piece.end_entry = 0;
        self.used.push_back(index);
    }

    /// Moves the cursor of the current block behind a frame.
    pub(crate) fn carve(&mut self, length: u32) {
        let index = *self.used.back().expect("frames are carved from the current block");
        let piece = &mut self.pieces[index as usize];
        piece.cursor += length;
        assert!(piece.cursor <= self.block_bytes && piece.cursor.is_multiple_of(FRAME_ALIGN as u32));
    }

    /// Frees the oldest block if nobody needs it. `Some(end)`: window entries before `end` are gone with it.
    pub(crate) fn evict_oldest(&mut self) -> Option<u64> {
        if self.used.len() < 2 {
            return None;
        }
        let index = self.used[0];
        let piece = &self.pieces[index as usize];
        if piece.pins > 0 {
            self.wanted = true;
            return None;
        }
        if piece.holds > 0 {
            return None;
        }
        self.wanted = false;
        self.used.pop_front();
        self.free.push(index);
        Some(self.pieces[index as usize].end_entry)
    }

    pub(crate) fn hold(&mut self, index: BlockIndex) {
        self.pieces[index as usize].holds += 1;
    }

    pub(crate) fn release(&mut self, index: BlockIndex) {
        let piece = &mut self.pieces[index as usize];
        assert!(piece.holds > 0, "a frame is released once");
        piece.holds -= 1;
    }

    pub(crate) fn note_entry(&mut self, index: BlockIndex, end_entry: u64) {
        self.pieces[index as usize].end_entry = end_entry;
    }

    pub(crate) fn pin(&mut self, index: BlockIndex) {
        self.pieces[index as usize].pins += 1;
    }

    /// Ends one pin; false when the block is not of the window.
    pub(crate) fn unpin(&mut self, id: BlockId) -> bool {
        let Some(index) = self.index_of(id) else { return false };
        let piece = &mut self.pieces[index as usize];
        assert!(piece.pins > 0, "a pin ends once");
        piece.pins -= 1;
        true
    }

    /// The block that must go and is pinned, if any.
    pub(crate) fn wanted(&self) -> Option<BlockId> {
        let piece = &self.pieces[*self.used.front()? as usize];
        (self.wanted && piece.pins > 0).then(|| piece.block.id())
    }

    pub(crate) fn index_of(&self, id: BlockId) -> Option<BlockIndex> {
        let at = id.0.checked_sub(self.first_id)?;
        *self.by_id.get(at as usize)?
    }

    pub(crate) fn slice(&self, index: BlockIndex, offset: u32, length: u32) -> Slice {
        Slice { block: self.pieces[index as usize].block.id(), offset, length }
    }

    pub(crate) fn bytes(&self, index: BlockIndex) -> &[u8] {
        self.pieces[index as usize].block.bytes()
    }

    pub(crate) fn bytes_mut(&mut self, index: BlockIndex) -> &mut [u8] {
        self.pieces[index as usize].block.bytes_mut()
    }

    /// Copies `bytes` to a block; what of them is looked at again soon goes through the cache.
    pub(crate) fn write(&mut self, index: BlockIndex, at: usize, bytes: &[u8], soon: usize) {
        let copy = self.copy;
        let (near, far) = bytes.split_at(soon.min(bytes.len()));
        let place = &mut self.bytes_mut(index)[at..at + bytes.len()];
        let (near_place, far_place) = place.split_at_mut(near.len());
        near_place.copy_from_slice(near);
        copy(far_place, far);
    }

    /// Bytes of all blocks.
    pub(crate) const fn limit_bytes(&self) -> u64 {
        self.pieces.len() as u64 * self.block_bytes as u64
    }

    /// Bytes of frames in the window, and slices pinned.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let used = self.used.iter().map(|&index| u64::from(self.pieces[index as usize].cursor)).sum();
        (used, self.pieces.iter().map(|piece| u64::from(piece.pins)).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plain_copy;

    fn arena() -> Arena {
        Arena::new((5..8).map(|id| Block::heap(BlockId(id), 8192)).collect(), plain_copy)
    }

    #[test]
    fn a_pinned_block_is_wanted_and_stays_until_it_is_let_go() {
        let mut arena = arena();
        arena.advance();
        arena.carve(4096);
        arena.pin(arena.index_of(BlockId(5)).expect("a window block"));
        arena.advance();
        assert_eq!(arena.evict_oldest(), None);
        assert_eq!(arena.wanted(), Some(BlockId(5)));
        assert!(arena.unpin(BlockId(5)));
        assert_eq!(arena.wanted(), None);
        assert_eq!(arena.evict_oldest(), Some(0));
        assert_eq!(arena.free_blocks(), 2);
    }

    #[test]
    fn a_grown_window_evicts_later_and_finds_all_its_blocks() {
        let mut arena = arena();
        for _ in 0..3 {
            arena.advance();
            arena.carve(4096);
        }
        assert_eq!(arena.free_blocks(), 0);
        // Others have taken names in between.
        arena.grow((20..22).map(|id| Block::heap(BlockId(id), 8192)).collect());
        assert_eq!(arena.free_blocks(), 2);
        for _ in 0..2 {
            arena.advance();
            arena.carve(4096);
        }
        let (index, cursor) = arena.cursor().expect("one is current");
        assert_eq!((cursor, arena.free_blocks()), (4096, 0));
        let slice = arena.slice(index, 0, 1);
        assert!((20..22).contains(&slice.block.0) && arena.index_of(slice.block) == Some(index));
        assert_eq!(arena.index_of(BlockId(10)), None);
        assert_eq!(arena.usage().0, 5 * 4096, "nothing was evicted");
        assert!(arena.evict_oldest().is_some());
        assert_eq!(arena.usage().0, 4 * 4096);
    }

    #[test]
    #[should_panic(expected = "of one size")]
    fn a_block_of_another_size_does_not_come_into_the_window() {
        arena().grow(vec![Block::heap(BlockId(20), 4096)]);
    }

    #[test]
    fn a_block_whose_frames_are_not_durable_stays() {
        let mut arena = arena();
        arena.advance();
        arena.hold(0);
        arena.advance();
        assert_eq!(arena.evict_oldest(), None);
        assert_eq!(arena.wanted(), None, "nobody can hurry a disk");
        arena.release(0);
        assert!(arena.evict_oldest().is_some());
        assert_eq!(arena.evict_oldest(), None, "the current block stays");
    }

    #[test]
    fn blocks_of_others_are_not_the_windows() {
        let mut arena = arena();
        assert!(!arena.unpin(BlockId(4)));
        assert!(!arena.unpin(BlockId(8)));
    }
}
