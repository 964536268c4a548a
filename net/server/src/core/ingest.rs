//! The ingest pool: receive blocks beyond the small one of every connection, in two sizes.
//!
//! Its memory is its own: sends, reads and replies cannot take it (each of those has memory of its own, which is
//! how the floors hold). A frame takes the smallest size that holds it; without a free block the connection waits
//! in line and its socket is not read. A peer that holds a block and does not send the rest of its frame keeps it as long
//! as nobody waits, and less long the more do: see [`Core::reclaim_stalled_blocks`](super::Core).

use std::collections::VecDeque;

use corelog_model::Block;

use crate::status::Pool;

/// Sizes of the pool, smallest first.
const SIZES: usize = 2;

/// Free blocks and who waits for them.
#[derive(Debug)]
pub(crate) struct Ingest {
    shelves: [Shelf; SIZES],
}

#[derive(Debug)]
struct Shelf {
    /// Of a block.
    bytes: usize,
    /// Free or not.
    blocks: usize,
    free: Vec<Block>,
    waiting: VecDeque<u32>,
    /// Who was told to come for a block, and has not yet.
    told: Vec<u32>,
}

impl Ingest {
    /// A pool of these blocks; all of one list are of one size, those of the first are the smaller ones.
    pub(crate) fn new(medium: Vec<Block>, large: Vec<Block>) -> Self {
        let shelf = |free: Vec<Block>| {
            let bytes = free.first().map_or(0, Block::len);
            assert!(free.iter().all(|block| block.len() == bytes), "one size a shelf");
            let (waiting, told) = (VecDeque::with_capacity(free.len()), Vec::with_capacity(free.len()));
            Shelf { bytes, blocks: free.len(), waiting, told, free }
        };
        let shelves = [shelf(medium), shelf(large)];
        assert!(shelves[1].bytes > 0, "every frame that is allowed fits the largest size");
        Self { shelves }
    }

    /// A block of at least `bytes` for the connection in `slot`; without one, the connection is put in line.
    pub(crate) fn take(&mut self, slot: u32, bytes: usize) -> Option<Block> {
        let shelf = self.shelves.iter_mut().find(|shelf| shelf.bytes >= bytes);
        let shelf = shelf.expect("a frame within the limit fits the largest size");
        let told = shelf.told.iter().position(|&told| told == slot).map(|at| shelf.told.swap_remove(at));
        let left = shelf.free.len() > shelf.told.len() && shelf.waiting.is_empty();
        let block = if told.is_some() || left { shelf.free.pop() } else { None };
        if block.is_none() && !shelf.waiting.contains(&slot) {
            shelf.waiting.push_back(slot);
        }
        block
    }

    /// Takes a block back; whoever waits for it hears of it through [`Ingest::owed`].
    pub(crate) fn give(&mut self, block: Block) {
        let shelf = self.shelves.iter_mut().find(|shelf| shelf.bytes == block.len());
        shelf.expect("only blocks of the pool come back to it").free.push(block);
    }

    /// Who may come for a block: as many as there are, the longest waiting first. Asked once a turn, so what one of
    /// them leaves goes to the next.
    pub(crate) fn owed(&mut self) -> impl Iterator<Item = u32> {
        for Shelf { free, waiting, told, .. } in &mut self.shelves {
            told.clear();
            told.extend(waiting.drain(..waiting.len().min(free.len())));
        }
        self.shelves.iter().flat_map(|shelf| shelf.told.iter().copied())
    }

    /// The connection in `slot` is over.
    pub(crate) fn forget(&mut self, slot: u32) {
        for shelf in &mut self.shelves {
            shelf.waiting.retain(|&waiting| waiting != slot);
            shelf.told.retain(|&told| told != slot);
        }
    }

    /// Whether somebody waits at all, or was told and has not come.
    pub(crate) fn has_waiting(&self) -> bool {
        self.shelves.iter().any(|shelf| !shelf.waiting.is_empty() || !shelf.told.is_empty())
    }

    /// How many wait for a block of this size, or were told and have not come.
    pub(crate) fn waiting_for(&self, bytes: usize) -> usize {
        let shelf = self.shelves.iter().find(|shelf| shelf.bytes == bytes);
        shelf.map_or(0, |shelf| shelf.waiting.len() + shelf.told.len())
    }

    /// Bytes in use, and all there are.
    pub(crate) fn usage(&self) -> Pool {
        let limit_bytes = self.shelves.iter().map(|shelf| shelf.bytes * shelf.blocks).sum::<usize>() as u64;
        let free = self.shelves.iter().map(|shelf| shelf.bytes * shelf.free.len()).sum::<usize>() as u64;
        Pool { used_bytes: limit_bytes - free, limit_bytes }
    }

    /// Free blocks of all sizes.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.free.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use corelog_model::BlockId;

    use super::*;

    fn owed(pool: &mut Ingest) -> Vec<u32> {
        pool.owed().collect()
    }

    #[test]
    fn a_connection_that_finds_the_pool_empty_is_next_when_a_block_comes_back() {
        let mut pool = Ingest::new(vec![Block::heap(BlockId(0), 8192)], vec![Block::heap(BlockId(1), 16384)]);
        let medium = pool.take(1, 5000).expect("free");
        assert_eq!(medium.len(), 8192);
        assert_eq!(pool.usage(), Pool { used_bytes: 8192, limit_bytes: 8192 + 16384 });
        assert!(pool.take(2, 5000).is_none());
        assert!(pool.take(2, 5000).is_none(), "asking twice does not stand in line twice");
        assert!(pool.take(3, 5000).is_none());
        assert!(pool.has_waiting());
        let large = pool.take(4, 9000).expect("another size is not touched by it");
        pool.forget(2);
        pool.give(large);
        assert!(owed(&mut pool).is_empty(), "nothing of their size is free");
        pool.give(medium);
        assert!(pool.take(5, 5000).is_none(), "there is a line");
        assert_eq!(owed(&mut pool), [3], "the one who left is passed over");
        assert!(pool.take(5, 5000).is_none(), "nor is the block for who was not told");
        assert!(pool.take(3, 5000).is_some());
        assert!(pool.has_waiting(), "that is 5");
    }

    #[test]
    fn a_block_that_the_one_who_was_told_does_not_take_goes_to_the_next() {
        let mut pool = Ingest::new(vec![Block::heap(BlockId(0), 8192)], vec![Block::heap(BlockId(1), 16384)]);
        let block = pool.take(1, 5000).expect("free");
        assert!(pool.take(2, 5000).is_none() && pool.take(3, 5000).is_none());
        pool.give(block);
        assert_eq!(owed(&mut pool), [2]);
        assert_eq!(owed(&mut pool), [3], "2 did not come");
        pool.forget(3);
        assert!(!pool.has_waiting());
        assert!(pool.take(4, 5000).is_some(), "nobody is told any more");
    }
}
