//! How the arena is divided: which pool has blocks of which size. Each pool has its own memory, so none can be
//! emptied by another's users; that is how the floors hold.
//!
//! A broker is ready with the first part of its live windows, because giving pages to a large one takes longer than
//! the rest of a start. The other parts come while it serves: a thread maps and touches them, the reactor takes
//! one a turn.

use std::io;

use corelog_model::Block;
use corelog_model::limits::{FRAME_ALIGN, round_up};
use corelog_storage::{LogConfig, SETTLE_BLOCKS_MIN};
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

impl Pool {
    const fn bytes(self) -> u64 {
        (self.blocks * self.block_bytes) as u64
    }
}

/// What a core has of all that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Its number, and how many serve.
    pub(crate) core: usize,
    pub(crate) cores: usize,
    /// Logs of the store, and those that this core serves.
    pub(crate) logs: usize,
    pub(crate) logs_here: usize,
}

/// All pools of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) core: usize,
    pub(crate) logs: usize,
    /// The whole window of a log, of which [`Plan::map`] maps the first part.
    pub(crate) window: Pool,
    /// The following three are of a log as well.
    pub(crate) cold: Pool,
    pub(crate) settle: Pool,
    /// One block, or none where nothing is scrubbed.
    pub(crate) scrub: Pool,
    pub(crate) page: Pool,
    pub(crate) connections: Pool,
    pub(crate) medium: Pool,
    pub(crate) large: Pool,
}

/// Memory as it is handed out, and where it is.
#[derive(Debug)]
pub(crate) struct Mapped {
    /// By the place of their log on the core.
    pub(crate) logs: Vec<corelog_storage::Memory>,
    pub(crate) core: Memory,
    pub(crate) regions: Vec<Region>,
    pub(crate) later: Later,
}

/// What the windows are still to be given.
#[derive(Debug)]
pub(crate) struct Later {
    arena: Arena,
    block_bytes: usize,
    /// The log of each part, by its place, and its length in bytes.
    parts: Vec<(usize, usize)>,
}

/// Windows that are being given the rest of their memory.
#[derive(Debug)]
pub(crate) struct Growth {
    arena: Arena,
    block_bytes: usize,
    grower: Grower,
    /// Whose the next part is, and those after it.
    places: std::vec::IntoIter<usize>,
}

/// What [`Growth::next`] found.
#[derive(Debug)]
pub(crate) enum Next {
    /// Blocks for the log in a place, and where they are.
    Part(usize, Region, Vec<Block>),
    /// Nothing yet.
    NotYet,
    /// The window has all its memory, or all that there is.
    Done,
}

impl Plan {
    /// Divides what the configuration gives to all cores.
    pub(crate) fn new(config: &Config, log: &LogConfig, share: Share) -> Self {
        let max_frame = log.max_frame_bytes();
        let window_bytes = config.log.window_bytes as usize / share.logs;
        let preferred = WINDOW_BLOCK_BYTES.min(window_bytes / WINDOW_BLOCKS) / FRAME_ALIGN * FRAME_ALIGN;
        let window = pool(window_bytes, preferred.max(max_frame), 2);
        let cold = pool(config.memory.cold_bytes as usize / share.logs, max_frame + COLD_EXTRA_BYTES, 2);
        let request = round_up(config.limits.max_frame_bytes as usize, FRAME_ALIGN);
        let half = config.memory.ingest_bytes as usize / share.cores / 2;
        let connections = 2 * config.limits.connections as usize;
        Self {
            core: share.core,
            logs: share.logs_here,
            window,
            cold,
            settle: settle_pool(config.memory.settle_bytes as usize / share.logs, cold.block_bytes),
            scrub: Pool { blocks: usize::from(log.scrub_us.is_some()), ..cold },
            page: Pool { blocks: 1, block_bytes: FRAME_ALIGN },
            connections: Pool { blocks: connections, block_bytes: CONNECTION_BLOCK_BYTES },
            medium: pool(half, MEDIUM_BLOCK_BYTES.min(request / 2 / FRAME_ALIGN * FRAME_ALIGN), 2),
            large: pool(half, request, 2),
        }
    }

    /// All of it, once the windows have grown, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let of_log = [self.window, self.cold, self.settle, self.scrub, self.page];
        let of_log = of_log.map(Pool::bytes).iter().sum::<u64>();
        let of_core = [self.connections, self.medium, self.large].map(Pool::bytes).iter().sum::<u64>();
        self.logs as u64 * of_log + of_core
    }

    /// Maps and touches what is needed to be ready.
    pub(crate) fn map(&self) -> Result<Mapped, ArenaError> {
        let mut arena = Arena::of(self.core);
        let mut regions = Vec::new();
        let mut blocks = |pool: Pool| map_pool(&mut arena, pool, &mut regions);
        let mut logs = Vec::with_capacity(self.logs);
        for _ in 0..self.logs {
            let (window, cold) = (blocks(self.first_window())?, blocks(self.cold)?);
            let settle = blocks(self.settle)?;
            let scrub = blocks(self.scrub)?.pop();
            let page = blocks(self.page)?.pop().expect("a pool of one block has one");
            let copy = corelog_uring::copy::past_cache;
            logs.push(corelog_storage::Memory { window, cold, settle, scrub, page, copy });
        }
        let core = Memory {
            connections: blocks(self.connections)?,
            medium: blocks(self.medium)?,
            large: blocks(self.large)?,
        };
        let later = Later { arena, block_bytes: self.window.block_bytes, parts: self.all_parts(&logs) };
        Ok(Mapped { logs, core, regions, later })
    }

    fn first_window(&self) -> Pool {
        let Pool { blocks, block_bytes } = self.window;
        Pool { blocks: blocks.min((FIRST_WINDOW_BYTES / block_bytes).max(2)), block_bytes }
    }

    /// What all windows miss, in turns: they grow together.
    fn all_parts(&self, logs: &[corelog_storage::Memory]) -> Vec<(usize, usize)> {
        let of_log = |log: &corelog_storage::Memory| self.parts(log.window.len());
        let mut parts: Vec<(usize, usize, usize)> = Vec::new();
        for (place, log) in logs.iter().enumerate() {
            parts.extend(of_log(log).into_iter().enumerate().map(|(nth, bytes)| (nth, place, bytes)));
        }
        parts.sort_unstable();
        parts.into_iter().map(|(_, place, bytes)| (place, bytes)).collect()
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

    /// Starts giving the windows their memory, if any is missing; `waker` tells of each part.
    pub(crate) fn start(self, waker: &Waker) -> io::Result<Option<Growth>> {
        let Self { arena, block_bytes, parts } = self;
        if parts.is_empty() {
            return Ok(None);
        }
        let (places, lengths): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let grower = Grower::start(lengths, waker.clone())?;
        Ok(Some(Growth { arena, block_bytes, grower, places: places.into_iter() }))
    }
}

impl Growth {
    /// The next part, if there is one by now.
    pub(crate) fn next(&mut self) -> Next {
        match self.grower.try_next() {
            Grown::Chunk(chunk) => {
                let (region, blocks) = self.arena.carve(chunk, self.block_bytes);
                let place = self.places.next().expect("there is one for each part");
                Next::Part(place, region, blocks)
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

/// Too little for settling is none.
fn settle_pool(bytes: usize, block_bytes: usize) -> Pool {
    let blocks = bytes / block_bytes;
    Pool { blocks: if blocks < SETTLE_BLOCKS_MIN { 0 } else { blocks }, block_bytes }
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
            let plan = Plan::new(&config, &log, Share { core: 0, cores: 1, logs: 1, logs_here: 1 });
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
            Plan {
                core: 0,
                logs: 1,
                window,
                cold: none,
                settle: none,
                scrub: none,
                page: none,
                connections: none,
                medium: none,
                large: none,
            }
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
        let plan = Plan {
            core: 0,
            logs: 2,
            window,
            cold: two,
            settle: one,
            scrub: one,
            page: one,
            connections: two,
            medium: one,
            large: one,
        };
        let mapped = plan.map().expect("some MiB");
        assert_eq!((mapped.logs[1].window.len(), mapped.later.regions()), (8, 4));
        let windows = mapped.logs.iter().flat_map(|log| [&log.window, &log.cold, &log.settle]);
        let all = windows.chain([&mapped.core.connections, &mapped.core.large]);
        let highest = all.flatten().map(|block| block.id().0).max().expect("some");
        let waker = Waker::new().expect("an eventfd");
        let mut growth = mapped.later.start(&waker).expect("a thread").expect("some is missing");
        let (mut names, mut whose) = (Vec::new(), Vec::new());
        loop {
            match growth.next() {
                Next::Part(place, region, blocks) => {
                    whose.push(place);
                    assert_eq!(region.blocks() as usize, blocks.len());
                    names.extend(blocks.iter().map(|block| block.id().0));
                }
                // Blocks until the next part is told of.
                Next::NotYet => waker.polled().clear(),
                Next::Done => break,
            }
        }
        assert_eq!(names, (highest + 1..highest + 9).collect::<Vec<_>>());
        assert_eq!(whose, [0, 1, 0, 1], "they grow together");
    }

    #[test]
    fn blocks_are_mapped_as_planned() {
        let pool = |blocks| Pool { blocks, block_bytes: 64 << 10 };
        let plan = Plan {
            core: 0,
            logs: 2,
            window: pool(4),
            cold: pool(2),
            settle: pool(0),
            scrub: pool(0),
            page: pool(1),
            connections: pool(2),
            medium: pool(1),
            large: pool(3),
        };
        let mapped = plan.map().expect("a few MiB");
        assert!(mapped.logs[1].window.len() >= 4 && mapped.core.large.len() >= 3);
        assert_eq!(mapped.regions.len(), 9);
        assert!(mapped.logs[0].window.iter().all(|block| block.len() == 64 << 10));
    }
}
