//! How the arena is divided: which pool has blocks of which size. Each pool has its own memory, so none can be
//! emptied by another's users; that is how the floors hold.

use corelog_model::Block;
use corelog_model::limits::{FRAME_ALIGN, round_up};
use corelog_storage::LogConfig;
use corelog_uring::arena::{Arena, ArenaError, Chunk, MAX_CHUNK_BYTES, Region};

use crate::config::Config;
use crate::core::{CONNECTION_BLOCK_BYTES, MEDIUM_BLOCK_BYTES, Memory};

/// Blocks of the live window are this large where the window has room for enough of them.
const WINDOW_BLOCK_BYTES: usize = 4 << 20;
/// With fewer blocks too much of the window would be lost to the one being evicted.
const WINDOW_BLOCKS: usize = 8;
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

    /// Maps and touches it all.
    pub(crate) fn map(&self) -> Result<Mapped, ArenaError> {
        let mut arena = Arena::new();
        let mut regions = Vec::new();
        let mut blocks = |pool: Pool| map_pool(&mut arena, pool, &mut regions);
        let (window, cold) = (blocks(self.window)?, blocks(self.cold)?);
        let page = blocks(self.page)?.pop().expect("a pool of one block has one");
        let log = corelog_storage::Memory { window, cold, page };
        let core = Memory {
            connections: blocks(self.connections)?,
            medium: blocks(self.medium)?,
            large: blocks(self.large)?,
        };
        Ok(Mapped { log, core, regions })
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
