//! Where the arena's blocks are, and which of them the kernel has registered.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use corelog_model::{Block, BlockId, Slice};

use crate::arena::{Mapping, Region, place_of};
use crate::op::Errno;

/// Whether disk operations use registered buffers. Shown in the ready line and in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// All regions so far are registered.
    Fixed,
    /// Switched off by the configuration.
    Off,
    /// The kernel refused; blocks are used as plain memory from then on.
    Refused(Errno),
}

/// One block: where it is, and the index of the registered buffer that covers it.
#[derive(Clone, Copy)]
struct Place {
    address: usize,
    bytes: u32,
    buffer: Option<u16>,
}

/// The addresses of all blocks by name.
pub(super) struct Regions {
    /// By core and number there; `None` where no region was told.
    places: Vec<Vec<Option<Place>>>,
    /// The memory of all places stays mapped as long as its addresses are known here.
    mappings: Vec<Arc<Mapping>>,
}

/// Memory as an operation needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) address: *mut u8,
    pub(super) bytes: u32,
    /// The registered buffer that covers it.
    pub(super) buffer: Option<u16>,
}

impl Regions {
    pub(super) const fn new() -> Self {
        Self { places: Vec::new(), mappings: Vec::new() }
    }

    /// Takes in the blocks of a region that was registered as `buffer`.
    pub(super) fn add(&mut self, region: &Region, buffer: Option<u16>) {
        let (core, first) = place_of(region.first());
        let end = first + region.blocks() as usize;
        if self.places.len() <= core {
            self.places.resize_with(core + 1, Vec::new);
        }
        let places = &mut self.places[core];
        if places.len() < end {
            places.resize(end, None);
        }
        let bytes = u32::try_from(region.block_bytes()).expect("a block is at most one chunk");
        for (index, place) in places[first..end].iter_mut().enumerate() {
            assert!(place.is_none(), "a block belongs to one region");
            *place = Some(Place { address: region.address() + index * region.block_bytes(), bytes, buffer });
        }
        self.mappings.push(Arc::clone(region.mapping()));
    }

    /// The bytes a slice names.
    ///
    /// # Panics
    /// When the block was never told, or is shorter than the slice wants.
    pub(super) fn resolve(&self, slice: Slice) -> Memory {
        let place = self.place(slice.block).expect("a slice names a block of a registered region");
        let end = u64::from(slice.offset) + u64::from(slice.length);
        assert!(end <= u64::from(place.bytes), "a slice lies within its block");
        Memory {
            address: ptr::with_exposed_provenance_mut(place.address + slice.offset as usize),
            bytes: slice.length,
            buffer: place.buffer,
        }
    }

    /// The registered buffer that covers a block the ring owns; `None` for heap blocks and unknown ones.
    pub(super) fn buffer_of(&self, block: &Block) -> Option<u16> {
        let place = self.place(block.id())?;
        (place.address == block.bytes().as_ptr().addr()).then_some(place.buffer)?
    }

    fn place(&self, block: BlockId) -> Option<Place> {
        let (core, at) = place_of(block);
        self.places.get(core)?.get(at).copied().flatten()
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed => f.write_str("registered buffers"),
            Self::Off => f.write_str("plain buffers (switched off)"),
            Self::Refused(errno) => {
                write!(f, "plain buffers (registration refused: {errno}; `ulimit -l unlimited` allows it)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Arena, CHUNK_ALIGN, Chunk};

    fn one_region() -> (Regions, Vec<Block>) {
        let mut regions = Regions::new();
        let (region, blocks) = Arena::new().carve(Chunk::map(CHUNK_ALIGN).expect("memory"), 1 << 20);
        regions.add(&region, Some(7));
        (regions, blocks)
    }

    #[test]
    fn a_slice_becomes_the_address_inside_its_block() {
        let (regions, blocks) = one_region();
        let memory = regions.resolve(Slice { block: BlockId(1), offset: 4096, length: 100 });
        assert_eq!(memory.address.addr(), blocks[1].bytes()[4096..].as_ptr().addr());
        assert_eq!((memory.bytes, memory.buffer), (100, Some(7)));
    }

    #[test]
    #[should_panic(expected = "within its block")]
    fn a_slice_that_reaches_over_the_end_is_never_given_to_the_kernel() {
        let (regions, _blocks) = one_region();
        let _ = regions.resolve(Slice { block: BlockId(0), offset: u32::MAX, length: 2 });
    }

    #[test]
    fn a_heap_block_with_the_name_of_an_arena_block_is_not_taken_for_registered() {
        let (regions, blocks) = one_region();
        assert_eq!(regions.buffer_of(&blocks[0]), Some(7));
        assert_eq!(regions.buffer_of(&Block::heap(BlockId(0), 4096)), None);
    }
}
