//! Blocks: the pieces of the arena that bytes live in while they are on their way.
//!
//! A [`Block`] is owned by exactly one place. Whoever lets the kernel *write* into a block (a receive, a disk
//! read) gives the block away with the operation and has it back with the completion. Whoever lets the kernel
//! *read* from a block (a frame write, a send) keeps it, names the bytes by a [`Slice`], and must not change
//! them before the completion: that is what pin counts are for.

use std::fmt;
use std::sync::Arc;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::limits::FRAME_ALIGN;

/// One aligned sector of heap memory.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Sector([u8; FRAME_ALIGN]);

/// Names a block for its life, densely from 0: the key of registered-buffer tables and of [`Slice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// Bytes inside a block, named without borrowing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The block that holds the bytes.
    pub block: BlockId,
    /// First byte within the block.
    pub offset: u32,
    /// Number of bytes.
    pub length: u32,
}

enum Memory {
    Heap(Box<[Sector]>),
    Mapped {
        bytes: &'static mut [u8],
        /// Behind the bytes, so that it goes after them.
        _owner: Arc<dyn Owner>,
    },
}

/// What mapped memory belongs to, given back with the last block of it. Only ever kept, never asked: no call goes
/// through it.
pub trait Owner: Send + Sync {}

/// A piece of memory aligned to [`FRAME_ALIGN`], a whole number of sectors long.
pub struct Block {
    id: BlockId,
    memory: Memory,
}

impl Block {
    /// A block of zeroed heap memory, for the simulator and for tests; `bytes` is rounded up to whole sectors.
    pub fn heap(id: BlockId, bytes: usize) -> Self {
        let sectors = bytes.div_ceil(FRAME_ALIGN);
        let memory = <[Sector]>::new_box_zeroed_with_elems(sectors).expect("a block fits the address space");
        Self { id, memory: Memory::Heap(memory) }
    }

    /// A block of the arena's mapped memory, which stays mapped at least as long as `owner` is kept.
    ///
    /// # Panics
    /// When `memory` is not aligned to, or not a multiple of, [`FRAME_ALIGN`].
    pub fn mapped(id: BlockId, memory: &'static mut [u8], owner: Arc<dyn Owner>) -> Self {
        assert_eq!(memory.as_ptr() as usize % FRAME_ALIGN, 0, "a block starts on a sector");
        assert_eq!(memory.len() % FRAME_ALIGN, 0, "a block is whole sectors");
        Self { id, memory: Memory::Mapped { bytes: memory, _owner: owner } }
    }

    /// The block's name.
    pub const fn id(&self) -> BlockId {
        self.id
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether the block has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Heap(sectors) => sectors.as_bytes(),
            Memory::Mapped { bytes, .. } => bytes,
        }
    }

    /// All bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Heap(sectors) => sectors.as_mut_bytes(),
            Memory::Mapped { bytes, .. } => bytes,
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("id", &self.id.0).field("len", &self.len()).finish()
    }
}

impl Slice {
    /// The byte after the last one, within the block.
    pub const fn end(self) -> u32 {
        self.offset + self.length
    }
}
