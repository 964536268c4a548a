//! The arena: mapped memory in chunks, cut into blocks.
//!
//! A chunk is aligned to 2 MiB, advised to use huge pages and touched when it is mapped, so that the path never
//! meets a page fault. [`Chunk::map`] runs on any thread; the shard names the blocks by [`Arena::carve`] and tells
//! its ring where they are by the [`Region`].
//!
//! **Invariant:** a chunk is mapped once and never unmapped, so an address the kernel was given stays valid until
//! the process ends. Memory comes back only through [`Arena::reclaim`], which takes every block of a region.

use std::fmt;
use std::ptr;
use std::slice;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::sync::{Mutex, PoisonError};
use std::thread;

use corelog_model::limits::{FRAME_ALIGN, round_up};
use corelog_model::{Block, BlockId};
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use crate::op::Errno;
use crate::waker::Waker;

/// Chunks start on this boundary and are a multiple of it long, in bytes: the size of a huge page.
pub const CHUNK_ALIGN: usize = 2 << 20;
/// The longest chunk in bytes: what the kernel takes as one registered buffer.
pub const MAX_CHUNK_BYTES: usize = 1 << 30;

/// Chunks that [`Arena::reclaim`] brought back, for the next [`Chunk::map`] of the same length.
static SPARE: Mutex<Vec<Chunk>> = Mutex::new(Vec::new());

/// Touched memory that nobody uses yet.
pub struct Chunk {
    memory: &'static mut [u8],
}

/// Where the blocks of one chunk are: what a ring needs to find them by name.
#[derive(Debug)]
pub struct Region {
    first: BlockId,
    blocks: u32,
    block_bytes: usize,
    /// Exposed, because the blocks that own this memory were cut from it afterwards.
    address: usize,
    chunk_bytes: usize,
}

/// Gives the blocks of one shard their names, densely from 0.
#[derive(Debug, Default)]
pub struct Arena {
    next: u32,
}

/// Memory was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArenaError {
    /// No address space for so many bytes.
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// What the kernel said.
        errno: Errno,
    },
    /// Addresses, but no pages.
    Touch {
        /// Bytes asked for.
        bytes: usize,
        /// What the kernel said.
        errno: Errno,
    },
}

impl Chunk {
    /// Maps and touches `bytes`, rounded up to [`CHUNK_ALIGN`]. What the memory holds is not defined.
    /// Takes about 0.1 ms per MiB, so later chunks come from a [`Grower`].
    ///
    /// # Panics
    /// When `bytes` is 0 or more than [`MAX_CHUNK_BYTES`].
    pub fn map(bytes: usize) -> Result<Self, ArenaError> {
        assert!(bytes > 0 && bytes <= MAX_CHUNK_BYTES, "a chunk is one registered buffer");
        let bytes = round_up(bytes, CHUNK_ALIGN);
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = spare.iter().position(|chunk| chunk.memory.len() == bytes) {
            return Ok(spare.swap_remove(found));
        }
        drop(spare);
        let chunk = map_aligned(bytes)?;
        chunk.touch()?;
        Ok(chunk)
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    #[expect(unsafe_code, reason = "advice about the chunk's own pages")]
    fn touch(&self) -> Result<(), ArenaError> {
        let bytes = self.memory.len();
        let address = self.memory.as_ptr().cast_mut().cast();
        // A refusal means ordinary pages, which only cost speed.
        // SAFETY: the range is this chunk's own mapping; the advice does not change what it holds.
        let _ = unsafe { mm::madvise(address, bytes, Advice::LinuxHugepage) };
        // SAFETY: as above; populating gives pages to addresses that are ours, and reports instead of killing.
        unsafe { mm::madvise(address, bytes, Advice::LinuxPopulateWrite) }
            .map_err(|errno| ArenaError::Touch { bytes, errno: errno.into() })
    }
}

/// Maps more than asked for and gives back what is outside the alignment.
#[expect(unsafe_code, reason = "the one mapping, its trimming and the slice over it")]
fn map_aligned(bytes: usize) -> Result<Chunk, ArenaError> {
    let mapped_bytes = bytes + CHUNK_ALIGN;
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: without an address hint and MAP_FIXED, a new mapping overlaps nothing that exists.
    let mapped = unsafe { mm::mmap_anonymous(ptr::null_mut(), mapped_bytes, protection, flags) }
        .map_err(|errno| ArenaError::Map { bytes, errno: errno.into() })?
        .cast::<u8>();
    let before = mapped.align_offset(CHUNK_ALIGN);
    let start = mapped.wrapping_add(before);
    let end = start.wrapping_add(bytes);
    if before > 0 {
        // A refusal leaves unused addresses behind and nothing else.
        // SAFETY: the range is the head of the mapping made above, which nobody else knows of.
        let _ = unsafe { mm::munmap(mapped.cast(), before) };
    }
    // SAFETY: the range is the tail of the mapping made above, which nobody else knows of.
    let _ = unsafe { mm::munmap(end.cast(), mapped_bytes - before - bytes) };
    // SAFETY: `start..end` lies in the mapping, is readable, writable and zeroed, is never unmapped, and this is
    // the only reference to it.
    let memory = unsafe { slice::from_raw_parts_mut(start, bytes) };
    Ok(Chunk { memory })
}

impl Arena {
    /// An arena without memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts a chunk into blocks of `block_bytes`; a rest that is too short stays unused.
    ///
    /// # Panics
    /// When `block_bytes` is 0, no multiple of [`FRAME_ALIGN`], or longer than the chunk.
    pub fn carve(&mut self, chunk: Chunk, block_bytes: usize) -> (Region, Vec<Block>) {
        assert!(block_bytes > 0 && block_bytes.is_multiple_of(FRAME_ALIGN), "a block is whole sectors");
        assert!(block_bytes <= chunk.memory.len(), "a block fits its chunk");
        let first = BlockId(self.next);
        let chunk_bytes = chunk.memory.len();
        let address = chunk.memory.as_mut_ptr().expose_provenance();
        let mut blocks = Vec::with_capacity(chunk_bytes / block_bytes);
        for memory in chunk.memory.chunks_exact_mut(block_bytes) {
            blocks.push(Block::mapped(BlockId(self.next), memory));
            self.next += 1;
        }
        let region = Region { first, blocks: self.next - first.0, block_bytes, address, chunk_bytes };
        (region, blocks)
    }

    /// Takes a region's memory back for a later chunk of the same length: brokers that start and stop within one
    /// process (tests) do not grow it. Gives the blocks back when they are not exactly the region's.
    pub fn reclaim(region: Region, blocks: Vec<Block>) -> Result<(), Vec<Block>> {
        if !region.is_whole(&blocks) {
            return Err(blocks);
        }
        drop(blocks);
        let chunk = region.into_chunk();
        SPARE.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
        Ok(())
    }
}

impl Region {
    /// The first block's name; the others follow without a gap.
    pub const fn first(&self) -> BlockId {
        self.first
    }

    /// Number of blocks.
    pub const fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Length of each block in bytes.
    pub const fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Address of the first byte.
    pub(crate) const fn address(&self) -> usize {
        self.address
    }

    /// Length of all blocks together in bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.block_bytes * self.blocks as usize
    }

    /// Whether `blocks` are all blocks of this region, each once.
    fn is_whole(&self, blocks: &[Block]) -> bool {
        let mut found: Vec<usize> = blocks.iter().map(|block| block.bytes().as_ptr().addr()).collect();
        found.sort_unstable();
        let expected = (0..self.blocks as usize).map(|index| self.address + index * self.block_bytes);
        found.into_iter().eq(expected) && blocks.iter().all(|block| block.len() == self.block_bytes)
    }

    #[expect(unsafe_code, reason = "joins the region's blocks again")]
    fn into_chunk(self) -> Chunk {
        let start = ptr::with_exposed_provenance_mut(self.address);
        // SAFETY: `reclaim` consumed every block that was cut from this memory and the region itself, so no other
        // reference to it exists; the mapping is never unmapped. A kernel that still reads from it (a send whose
        // ring is alive) may see new bytes, but only rings write, and only to blocks they own.
        let memory = unsafe { slice::from_raw_parts_mut(start, self.chunk_bytes) };
        Chunk { memory }
    }
}

/// Maps chunks on a thread of its own, so that a broker is ready before all its memory is touched.
#[derive(Debug)]
pub struct Grower {
    chunks: Receiver<Result<Chunk, ArenaError>>,
    /// Chunks to come.
    left: usize,
}

impl Grower {
    /// Starts mapping chunks of these lengths in bytes, one after the other, and wakes the shard after each. It
    /// ends after the last one, after a refusal, or when the `Grower` is dropped.
    pub fn start(lengths: Vec<usize>, waker: Waker) -> std::io::Result<Self> {
        let (sender, chunks) = mpsc::sync_channel(1);
        let left = lengths.len();
        thread::Builder::new().name("corelog-grower".to_owned()).spawn(move || {
            for bytes in lengths {
                let chunk = Chunk::map(bytes);
                let refused = chunk.is_err();
                if sender.send(chunk).is_err() {
                    return;
                }
                waker.wake();
                if refused {
                    return;
                }
            }
        })?;
        Ok(Self { chunks, left })
    }

    /// The next chunk, if there is one yet.
    pub fn try_next(&mut self) -> Grown {
        if self.left == 0 {
            return Grown::Done;
        }
        match self.chunks.try_recv() {
            Ok(Ok(chunk)) => {
                self.left -= 1;
                Grown::Chunk(chunk)
            }
            Ok(Err(error)) => {
                self.left = 0;
                Grown::Refused(error)
            }
            Err(TryRecvError::Empty) => Grown::NotYet,
            Err(TryRecvError::Disconnected) => Grown::Done,
        }
    }
}

/// What [`Grower::try_next`] found.
#[derive(Debug)]
pub enum Grown {
    /// One more chunk.
    Chunk(Chunk),
    /// Still touching pages.
    NotYet,
    /// No more will come: all are there.
    Done,
    /// No more will come: the system has no more memory.
    Refused(ArenaError),
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("bytes", &self.memory.len()).finish()
    }
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, bytes, errno) = match self {
            Self::Map { bytes, errno } => ("map", bytes, errno),
            Self::Touch { bytes, errno } => ("touch", bytes, errno),
        };
        write!(f, "cannot {what} {} MiB of memory: {errno}", bytes >> 20)
    }
}

impl std::error::Error for ArenaError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_named_densely_across_chunks_and_do_not_overlap() {
        let mut arena = Arena::new();
        let (low, mut blocks) = arena.carve(Chunk::map(CHUNK_ALIGN).expect("memory"), 1 << 20);
        let (high, more) = arena.carve(Chunk::map(1).expect("memory"), 512 << 10);
        blocks.extend(more);
        assert_eq!((low.first(), low.blocks()), (BlockId(0), 2));
        assert_eq!((high.first(), high.blocks()), (BlockId(2), 4));
        for (index, block) in blocks.iter_mut().enumerate() {
            assert_eq!(block.id(), BlockId(u32::try_from(index).expect("few")));
            block.bytes_mut().fill(u8::try_from(index).expect("few"));
        }
        for (index, block) in blocks.iter().enumerate() {
            assert!(block.bytes().iter().all(|&byte| usize::from(byte) == index), "block {index} is its own");
        }
    }

    #[test]
    fn a_region_comes_back_only_whole() {
        // A length that no other test uses, so that the spare chunk found below is this one.
        let bytes = 7 * CHUNK_ALIGN;
        let mut arena = Arena::new();
        let (region, mut blocks) = arena.carve(Chunk::map(bytes).expect("memory"), CHUNK_ALIGN);
        let address = region.address();
        let (_, foreign) = arena.carve(Chunk::map(CHUNK_ALIGN).expect("memory"), CHUNK_ALIGN);
        let own = std::mem::replace(&mut blocks[3], foreign.into_iter().next().expect("one"));
        assert!(!region.is_whole(&blocks), "a foreign block in the place of an own one");
        blocks[3] = own;
        Arena::reclaim(region, blocks).expect("all blocks are back");
        assert_eq!(Chunk::map(bytes).expect("memory").memory.as_ptr().addr(), address, "used again");
    }

    #[test]
    fn a_grower_hands_over_every_chunk_and_then_says_that_it_is_done() {
        let waker = Waker::new().expect("an eventfd");
        let mut grower = Grower::start(vec![CHUNK_ALIGN, 2 * CHUNK_ALIGN], waker.clone()).expect("a thread");
        let mut lengths = Vec::new();
        loop {
            match grower.try_next() {
                Grown::Chunk(chunk) => lengths.push(chunk.bytes()),
                // Blocks until the grower wakes us, which it does after each chunk.
                Grown::NotYet => assert_eq!(rustix::io::read(&waker, &mut [0_u8; 8]), Ok(8)),
                Grown::Done => break,
                Grown::Refused(error) => panic!("{error}"),
            }
        }
        assert_eq!(lengths, [CHUNK_ALIGN, 2 * CHUNK_ALIGN]);
    }

    #[test]
    fn memory_that_does_not_exist_is_refused_with_the_size() {
        let error = ArenaError::Map { bytes: 64 << 20, errno: Errno(libc::ENOMEM) };
        assert_eq!(error.to_string(), "cannot map 64 MiB of memory: Cannot allocate memory (os error 12)");
    }
}
