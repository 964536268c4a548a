//! The arena: mapped memory in chunks, cut into blocks.
//!
//! A chunk is aligned to 2 MiB, advised to use huge pages and touched when it is mapped, so that the path never
//! meets a page fault. [`Chunk::map`] runs on any thread; the shard names the blocks by [`Arena::carve`] and tells
//! its ring where they are by the [`Region`].
//!
//! **Invariant:** a chunk is mapped once and unmapped when the last of its blocks, its region and the rings that
//! know the region are gone: an address the kernel was given stays valid as long as anybody can name it.

use std::fmt;
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use corelog_model::limits::{FRAME_ALIGN, round_up};
use corelog_model::{Block, BlockId, Owner};
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use crate::affinity;
use crate::op::Errno;
use crate::waker::Waker;

/// Chunks start on this boundary and are a multiple of it long, in bytes: the size of a huge page.
pub const CHUNK_ALIGN: usize = 2 << 20;
/// The longest chunk in bytes: what the kernel takes as one registered buffer.
pub const MAX_CHUNK_BYTES: usize = 1 << 30;

/// Touched memory that nobody uses yet.
pub struct Chunk {
    mapping: Mapping,
}

/// Pages of this process, given back when dropped. Whoever uses their memory keeps it.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// An address and no pointer, because its memory is reached through the blocks alone; exposed.
    address: usize,
    bytes: usize,
}

/// Where the blocks of one chunk are: what a ring needs to find them by name.
#[derive(Clone, Debug)]
pub struct Region {
    first: BlockId,
    blocks: u32,
    block_bytes: usize,
    mapping: Arc<Mapping>,
}

/// Gives the blocks of one core their names: densely, from one that no other core's begin with.
#[derive(Debug, Default)]
pub struct Arena {
    next: u32,
}

/// The bits of a block's name that tell it from others of its core.
const BLOCK_BITS: u32 = 24;

/// The core whose memory a block is of, and its number there.
pub const fn place_of(block: BlockId) -> (usize, usize) {
    ((block.0 >> BLOCK_BITS) as usize, (block.0 & ((1 << BLOCK_BITS) - 1)) as usize)
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
        let mapping = map_aligned(round_up(bytes, CHUNK_ALIGN))?;
        mapping.touch()?;
        Ok(Self { mapping })
    }

    /// Length in bytes.
    pub const fn bytes(&self) -> usize {
        self.mapping.bytes
    }
}

impl Mapping {
    const fn start(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.address)
    }

    #[expect(unsafe_code, reason = "advice about the mapping's own pages")]
    fn touch(&self) -> Result<(), ArenaError> {
        let (address, bytes) = (self.start().cast(), self.bytes);
        // A refusal means ordinary pages, which only cost speed.
        // SAFETY: the range is this mapping's own; the advice does not change what it holds.
        let _ = unsafe { mm::madvise(address, bytes, Advice::LinuxHugepage) };
        // SAFETY: as above; populating gives pages to addresses that are ours, and reports instead of killing.
        unsafe { mm::madvise(address, bytes, Advice::LinuxPopulateWrite) }
            .map_err(|errno| ArenaError::Touch { bytes, errno: errno.into() })
    }
}

impl Drop for Mapping {
    #[expect(unsafe_code, reason = "gives the pages back")]
    fn drop(&mut self) {
        // A refusal costs memory and nothing else.
        // SAFETY: the range is this mapping's own, and every block and region of it, and every ring that was told
        // of it, kept it until now.
        let _ = unsafe { mm::munmap(self.start().cast(), self.bytes) };
    }
}

/// Maps more than asked for and gives back what is outside the alignment.
#[expect(unsafe_code, reason = "the one mapping and its trimming")]
fn map_aligned(bytes: usize) -> Result<Mapping, ArenaError> {
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
    Ok(Mapping { address: start.expose_provenance(), bytes })
}

impl Arena {
    /// An arena without memory, of the only core.
    pub fn new() -> Self {
        Self::default()
    }

    /// An arena without memory, of the core with this number.
    ///
    /// # Panics
    /// When that is 256 or more.
    pub fn of(core: usize) -> Self {
        let core = u8::try_from(core).expect("a name has 8 bits for its core");
        Self { next: u32::from(core) << BLOCK_BITS }
    }

    /// Cuts a chunk into blocks of `block_bytes`; a rest that is too short stays unused.
    ///
    /// # Panics
    /// When `block_bytes` is 0, no multiple of [`FRAME_ALIGN`], or longer than the chunk.
    #[expect(unsafe_code, reason = "the one slice over a mapping")]
    pub fn carve(&mut self, chunk: Chunk, block_bytes: usize) -> (Region, Vec<Block>) {
        assert!(block_bytes > 0 && block_bytes.is_multiple_of(FRAME_ALIGN), "a block is whole sectors");
        assert!(block_bytes <= chunk.bytes(), "a block fits its chunk");
        let mapping = Arc::new(chunk.mapping);
        let (start, bytes) = (mapping.start(), mapping.bytes);
        // SAFETY: the mapping is readable, writable and zeroed, and the chunk that was consumed was its only user.
        // It outlives the slice, because each part of it lies in a block that keeps the mapping and lends its
        // bytes only while it is borrowed itself.
        let memory: &'static mut [u8] = unsafe { slice::from_raw_parts_mut(start, bytes) };
        let first = BlockId(self.next);
        let mut blocks = Vec::with_capacity(bytes / block_bytes);
        for memory in memory.chunks_exact_mut(block_bytes) {
            let owner: Arc<dyn Owner> = Arc::<Mapping>::clone(&mapping);
            blocks.push(Block::mapped(BlockId(self.next), memory, owner));
            self.next += 1;
            assert!(place_of(BlockId(self.next)).1 > 0, "a core has fewer than 16 million blocks");
        }
        (Region { first, blocks: self.next - first.0, block_bytes, mapping }, blocks)
    }
}

impl Owner for Mapping {}

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
    pub(crate) fn address(&self) -> usize {
        self.mapping.address
    }

    /// Keeps the memory for whoever was told the address.
    pub(crate) const fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Length of all blocks together in bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.block_bytes * self.blocks as usize
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
    /// Starts mapping chunks of these lengths in bytes, one after the other, on any core of the process, and wakes
    /// the shard after each. It ends after the last one, after a refusal, or when the `Grower` is dropped.
    pub fn start(lengths: Vec<usize>, waker: Waker) -> std::io::Result<Self> {
        let (sender, chunks) = mpsc::sync_channel(1);
        let left = lengths.len();
        thread::Builder::new().name("corelog-grower".to_owned()).spawn(move || {
            // A thread starts on the core of the one that started it, which has better things to do.
            affinity::unpin();
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
        f.debug_struct("Chunk").field("bytes", &self.bytes()).finish()
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
    fn memory_is_given_back_with_the_last_block_and_the_region() {
        // A length that no other test uses, so that the mapping looked for is this one.
        const BYTES: usize = 37 * CHUNK_ALIGN;
        let (region, mut blocks) = Arena::new().carve(Chunk::map(BYTES).expect("memory"), CHUNK_ALIGN);
        let address = region.address();
        assert!(is_mapped(address));
        let last = blocks.pop().expect("one of 37");
        drop(blocks);
        drop(region);
        assert!(last.bytes().iter().all(|&byte| byte == 0), "a block keeps its memory");
        drop(last);
        assert!(!is_mapped(address));
    }

    /// Whether an address belongs to the process. Nobody else maps so much at once in these tests, so an address
    /// that was given back is not taken again at once.
    fn is_mapped(address: usize) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
        let hex = |text: &str| usize::from_str_radix(text, 16).expect("hexadecimal");
        maps.lines().any(|line| {
            let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
            (hex(from)..hex(to)).contains(&address)
        })
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
                Grown::NotYet => waker.polled().clear(),
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
