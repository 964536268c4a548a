//! How the arena is divided: which pool has blocks of which size. Each pool has its own memory, so none can be
//! emptied by another's users; that is how the floors hold.
//!
//! A broker is ready with the first part of its live window, because giving pages to a large one takes longer than
//! the rest of a start. The other parts come while it serves: a thread maps and touches them, the reactor takes
//! one a turn.

use std::io;

use corelog_model::Block;
use corelog_model::limits::{FRAME_ALIGN, round_up};
use corelog_storage::LogConfig;
use corelog_uring::Waker;
use corelog_uring::arena::{Arena, ArenaError, Chunk, Grower, Grown, MAX_CHUNK_BYTES, Region};

use crate::config::Config;
use crate::core::{CONNECTION_BLOCK_BYTES, MEDIUM_BLOCK_BYTES, Memory};

/// Blocks of the live window are this large where the window has room for enough of them.
const WINDOW_BLOCK_BYTES: usize = 4 << 20;
/// With fewer blocks too much of the window would be lost to the one being evicted.
const WINDOW_BLOCKS: usize = 8;
/// Of the window, mapped before the broker is ready.
const FIRST_WINDOW_BYTES: usize = 32 << 20;
/// Of each later part: so few pages that registering them does not hold a turn up.
const PART_BYTES: usize = 8 << 20;
/// Parts at most; with a window beyond 8 GiB they are larger.
const PARTS: usize = 1024;
/// What a cold read needs beyond the largest frame: it starts and ends on sectors.
const COLD_EXTRA_BYTES: usize = 2 * FRAME_ALIGN;

/// How many blocks of which size a pool has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) blocks: usize,
    pub(crate) block_bytes: usize,
}

/// All pools of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The whole window, of which [`Plan::map`] maps the first part.
    pub(crate) window: Pool,
    pub(crate) cold: Pool,
    pub(crate) page: Pool,
    pub(crate) connections: Pool,
    pub(crate) medium: Pool,
    pub(crate) large: Pool,
}

/// Memory as it is handed out, and where it is.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub(crate) log: corelog_storage::Memory,
    pub(crate) core: Memory,
    pub(crate) regions: Vec<Region>,
    pub(crate) later: Later,
}

/// What the window is still to be given.
#[derive(Debug)]
pub(crate) struct Later {
    arena: Arena,
    block_bytes: usize,
    /// Length of each part in bytes.
    parts: Vec<usize>,
}

/// A window that is being given the rest of its memory.
#[derive(Debug)]
pub(crate) struct Growth {
    arena: Arena,
    block_bytes: usize,
    grower: Grower,
}

/// What [`Growth::next`] found.
#[derive(Debug)]
pub(crate) enum Next {
    /// Blocks, and where they are.
    Part(Region, Vec<Block>),
    /// Nothing yet.
    NotYet,
    /// The window has all its memory, or all that there is.
    Done,
}

impl Plan {
    /// Divides what the configuration gives.
    pub(crate) fn new(config: &Config, log: &LogConfig) -> Self {
        let max_frame = log.max_frame_bytes();
        let window_bytes = config.log.window_bytes as usize;
        let preferred = WINDOW_BLOCK_BYTES.min(window_bytes / WINDOW_BLOCKS) / FRAME_ALIGN * FRAME_ALIGN;
        let window = pool(window_bytes, preferred.max(max_frame), 2);
        let cold = pool(config.memory.cold_bytes as usize, max_frame + COLD_EXTRA_BYTES, 2);
        let request = round_up(config.limits.max_frame_bytes as usize, FRAME_ALIGN);
        let half = config.memory.ingest_bytes as usize / 2;
        let connections = 2 * config.limits.connections as usize;
        Self {
            window,
            cold,
            page: Pool { blocks: 1, block_bytes: FRAME_ALIGN },
            connections: Pool { blocks: connections, block_bytes: CONNECTION_BLOCK_BYTES },
            medium: pool(half, MEDIUM_BLOCK_BYTES.min(request / 2 / FRAME_ALIGN * FRAME_ALIGN), 2),
            large: pool(half, request, 2),
        }
    }

    /// Maps and touches what is needed to be ready.
    pub(crate) fn map(&self) -> Result<Mapped, ArenaError> {
        let mut arena = Arena::new();
        let mut regions = Vec::new();
        let mut blocks = |pool: Pool| map_pool(&mut arena, pool, &mut regions);
        let (window, cold) = (blocks(self.first_window())?, blocks(self.cold)?);
        let page = blocks(self.page)?.pop().expect("a pool of one block has one");
        let log = corelog_storage::Memory { window, cold, page, copy: corelog_uring::copy::past_cache };
        let core = Memory {
            connections: blocks(self.connections)?,
            medium: blocks(self.medium)?,
            large: blocks(self.large)?,
        };
        let parts = self.parts(log.window.len());
        let later = Later { arena, block_bytes: self.window.block_bytes, parts };
        Ok(Mapped { log, core, regions, later })
    }

    fn first_window(&self) -> Pool {
        let Pool { blocks, block_bytes } = self.window;
        Pool { blocks: blocks.min((FIRST_WINDOW_BYTES / block_bytes).max(2)), block_bytes }
    }

    /// Lengths of what is missing once there are so many blocks.
    fn parts(&self, blocks: usize) -> Vec<usize> {
        let Pool { blocks: all, block_bytes } = self.window;
        let missing = all.saturating_sub(blocks);
        let part = (PART_BYTES / block_bytes).max(1).max(missing.div_ceil(PARTS));
        (0..missing).step_by(part).map(|at| part.min(missing - at) * block_bytes).collect()
    }
}

impl Later {
    /// How many regions will come.
    pub(crate) fn regions(&self) -> usize {
        self.parts.len()
    }

    /// Starts giving the window its memory, if any is missing; `waker` tells of each part.
    pub(crate) fn start(self, waker: &Waker) -> io::Result<Option<Growth>> {
        let Self { arena, block_bytes, parts } = self;
        if parts.is_empty() {
            return Ok(None);
        }
        Ok(Some(Growth { arena, block_bytes, grower: Grower::start(parts, waker.clone())? }))
    }
}

impl Growth {
    /// The next part, if there is one by now.
    pub(crate) fn next(&mut self) -> Next {
        match self.grower.try_next() {
            Grown::Chunk(chunk) => {
                let (region, blocks) = self.arena.carve(chunk, self.block_bytes);
                Next::Part(region, blocks)
            }
            Grown::NotYet => Next::NotYet,
            Grown::Done => Next::Done,
            Grown::Refused(error) => {
                tracing::warn!(%error, "the live window stays smaller than it is configured");
                Next::Done
            }
        }
    }
}

fn pool(bytes: usize, block_bytes: usize, least: usize) -> Pool {
    Pool { blocks: (bytes / block_bytes).max(least), block_bytes }
}

fn map_pool(arena: &mut Arena, pool: Pool, regions: &mut Vec<Region>) -> Result<Vec<Block>, ArenaError> {
    let mut blocks = Vec::with_capacity(pool.blocks);
    while blocks.len() < pool.blocks {
        let missing = (pool.blocks - blocks.len()) * pool.block_bytes;
        let chunk = Chunk::map(missing.min(MAX_CHUNK_BYTES))?;
        let (region, carved) = arena.carve(chunk, pool.block_bytes);
        regions.push(region);
        blocks.extend(carved);
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use corelog_model::LogId;

    use super::*;

    #[test]
    fn every_pool_can_hold_the_largest_thing_that_comes_to_it() {
        for flags in
            [&[][..], &["log.window_bytes=16 MiB"], &["limits.max_batch_bytes=4 KiB", "limits.connections=1"]]
        {
            let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            let config = Config::load(None, [], &flags).expect("good");
            let log = LogConfig {
                max_batch_bytes: config.limits.max_batch_bytes as u32,
                ..LogConfig::new(LogId(0), 1)
            };
            let plan = Plan::new(&config, &log);
            assert!(plan.window.block_bytes >= log.max_frame_bytes() && plan.window.blocks >= 2, "{plan:?}");
            assert!(plan.large.block_bytes >= config.limits.max_frame_bytes as usize, "{plan:?}");
            assert!(
                plan.medium.block_bytes > CONNECTION_BLOCK_BYTES
                    && plan.medium.block_bytes < plan.large.block_bytes
            );
            assert_eq!(plan.connections.blocks, 2 * config.limits.connections as usize);
        }
    }

    #[test]
    fn a_window_comes_in_parts_that_make_it_whole() {
        let plan = |blocks, block_bytes| {
            let none = Pool { blocks: 0, block_bytes: FRAME_ALIGN };
            let window = Pool { blocks, block_bytes };
            Plan { window, cold: none, page: none, connections: none, medium: none, large: none }
        };
        const MIB: usize = 1 << 20;
        // The default, a tiny one, one of blocks longer than a part, a very large one.
        for (blocks, block_bytes, first, parts) in
            [(64, 4 * MIB, 8, 28), (8, MIB + 4096, 8, 0), (10, 40 * MIB, 2, 8), (65_536, 4 * MIB, 8, 1024)]
        {
            let plan = plan(blocks, block_bytes);
            let mapped = plan.first_window().blocks;
            let lengths = plan.parts(mapped);
            assert_eq!((mapped, lengths.len()), (first, parts));
            assert_eq!(mapped * block_bytes + lengths.iter().sum::<usize>(), blocks * block_bytes);
            assert!(lengths.iter().all(|&bytes| bytes <= MAX_CHUNK_BYTES && bytes % block_bytes == 0));
        }
    }

    #[test]
    fn what_comes_later_has_names_of_its_own() {
        let window = Pool { blocks: 12, block_bytes: 4 << 20 };
        let pool = |blocks| Pool { blocks, block_bytes: 64 << 10 };
        let (two, one) = (pool(2), pool(1));
        let plan = Plan { window, cold: two, page: one, connections: two, medium: one, large: one };
        let mapped = plan.map().expect("some MiB");
        assert_eq!((mapped.log.window.len(), mapped.later.regions()), (8, 2));
        let all = [&mapped.log.window, &mapped.log.cold, &mapped.core.connections, &mapped.core.large];
        let highest = all.into_iter().flatten().map(|block| block.id().0).max().expect("some");
        let waker = Waker::new().expect("an eventfd");
        let mut growth = mapped.later.start(&waker).expect("a thread").expect("some is missing");
        let mut names = Vec::new();
        loop {
            match growth.next() {
                Next::Part(region, blocks) => {
                    assert_eq!(region.blocks() as usize, blocks.len());
                    names.extend(blocks.iter().map(|block| block.id().0));
                }
                // Blocks until the next part is told of.
                Next::NotYet => waker.polled().clear(),
                Next::Done => break,
            }
        }
        assert_eq!(names, (highest + 1..highest + 5).collect::<Vec<_>>());
    }

    #[test]
    fn blocks_are_mapped_as_planned() {
        let pool = |blocks| Pool { blocks, block_bytes: 64 << 10 };
        let plan = Plan {
            window: pool(4),
            cold: pool(2),
            page: pool(1),
            connections: pool(2),
            medium: pool(1),
            large: pool(3),
        };
        let mapped = plan.map().expect("a few MiB");
        assert!(mapped.log.window.len() >= 4 && mapped.core.large.len() >= 3);
        assert_eq!(mapped.regions.len(), 6);
        assert!(mapped.log.window.iter().all(|block| block.len() == 64 << 10));
    }
}
