//! What the whole process may come to, in bytes: the sum of the parts that have bounds of their own.
//!
//! Decided once, at the start, before anything is mapped. With `memory.max_bytes` the parts that serve as they are
//! configured come first, and what is left bounds what clients make: partitions, the state of their producers, named
//! positions, subscriptions, and level 1 of the index, which grows with what is on disk.
//!
//! | what grows | with | figure | at the bound |
//! |---|---|---|---|
//! | topics, partitions, where they are | `CreateTopic`, `AlterTopic` | 2 KiB a partition, eight rows of the index included | TOO_MANY |
//! | producer state | producers and the partitions they write to | 512 bytes a pair, in each log | the oldest expire, then TOO_MANY |
//! | named positions | names and partitions | 640 bytes, in each log | TOO_MANY |
//! | subscriptions | consumers and the partitions they read | 320 bytes, in each log | TOO_MANY, and the client fetches |
//! | sessions: handles, requests, replies | connections | `limits.*`, `memory.reply_bytes`, [`LOG_BYTES`] | TOO_MANY, or not read |
//! | level 1 of the index | partitions and extents on disk together, beyond eight extents | 80 bytes | STORAGE_FULL, until a topic goes |
//!
//! **Not part of it**, since each is small where a log is used as logs are: level 2 of the index of extents with more than
//! some 100,000 runs (a run is what one frame holds of one partition, 40 to 92 bytes), and what is left of a partition that
//! was deleted, some 150 bytes until the next start.

use std::fmt;

use corelog_shard::Limits;
use corelog_wire::response::HOT_RESPONSE_BYTES;

use crate::config::Config;
use crate::memory::Plan;

/// Code, stacks, rings, the allocator's slack, the control plane with all connections that it takes.
const BASE_BYTES: u64 = 48 << 20;
/// Tables of a log that are as large as they get: places of waiting fetches and produce requests, batches of the window,
/// footers, a checkpoint being written, a pack being made; and the handles that clients open.
const LOG_BYTES: u64 = 48 << 20;
/// The same of a core: operations, places of connections, lanes to other cores, where handles lead.
const CORE_BYTES: u64 = 16 << 20;
/// Of a connection, beside its two blocks, for each request that it may have unanswered: the head of the reply, its place
/// in the queue, and what it repeats of the request.
const REQUEST_BYTES: u64 = HOT_RESPONSE_BYTES as u64 + 80;
/// The same for everything else of it.
const CONNECTION_BYTES: u64 = 4 << 10;
/// A partition, when it is used: measured as 740 bytes idle.
const PARTITION_BYTES: u64 = 2 << 10;
/// What a log remembers of a producer and partition.
const PRODUCER_BYTES: u64 = 512;
/// The same of a named position: with the longest name and the longest note.
const POSITION_BYTES: u64 = 640;
/// The same of a subscription: its place, and what its connection notes of it; measured as 282 bytes, handles included.
const SUBSCRIPTION_BYTES: u64 = 320;
/// With fewer of these a broker is of no use.
const LEAST: u32 = 1_000;
/// The least that each log's index has.
const LEAST_INDEX_BYTES: u64 = 4 << 20;

/// The bounds that follow from a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Everything.
    pub(crate) total_bytes: u64,
    /// Partitions of all topics.
    pub(crate) partitions: u32,
    /// (producer, partition) pairs of one log.
    pub(crate) producers: u32,
    /// Named positions of one log.
    pub(crate) positions: u32,
    /// Subscriptions of one log.
    pub(crate) subscriptions: u32,
    /// Level 1 of the index of one log, in bytes, beyond what is part of its partitions. `None`: there is no bound, and it
    /// is not part of `total_bytes`.
    pub(crate) index_bytes: Option<u64>,
}

/// The configured parts are more than the process may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverBudget {
    /// Blocks of the arenas: live windows, cold reads, receive and send blocks.
    pub pool_bytes: u64,
    /// Replies that wait, at all connections.
    pub reply_bytes: u64,
    /// Tables, code, and the fewest partitions, producers, positions and subscriptions and the smallest index that make
    /// sense.
    pub table_bytes: u64,
    /// `memory.max_bytes`.
    pub max_bytes: u64,
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let Self { pool_bytes, reply_bytes, table_bytes, max_bytes } = *self;
        write!(
            f,
            "`memory.max_bytes` is {} MiB, and pools of {} MiB, replies of {} MiB and tables of {} MiB are configured",
            mib(max_bytes),
            mib(pool_bytes),
            mib(reply_bytes),
            mib(table_bytes)
        )
    }
}

impl Budget {
    /// For so many cores, each with its plan, and logs.
    pub(crate) fn new(config: &Config, plans: &[Plan], logs: usize) -> Result<Self, OverBudget> {
        let (cores, logs) = (plans.len() as u64, logs as u64);
        let limits = Limits::default();
        let pool_bytes: u64 = plans.iter().map(Plan::bytes).sum();
        let connection = CONNECTION_BYTES + u64::from(config.limits.requests) * REQUEST_BYTES;
        let reply_bytes =
            config.memory.reply_bytes + cores * u64::from(config.limits.connections) * connection;
        let table_bytes = BASE_BYTES + logs * LOG_BYTES + cores * CORE_BYTES;
        let made = |made: [u32; 4]| {
            let bytes =
                [PARTITION_BYTES, logs * PRODUCER_BYTES, logs * POSITION_BYTES, logs * SUBSCRIPTION_BYTES];
            made.into_iter().zip(bytes).map(|(count, bytes)| u64::from(count) * bytes).sum::<u64>()
        };
        let configured = pool_bytes + reply_bytes + table_bytes;
        let max_bytes = config.memory.max_bytes;
        let counts = [limits.partitions, limits.producers.pairs, limits.positions, limits.subscriptions];
        let most = made(counts);
        let with = |[partitions, producers, positions, subscriptions]: [u32; 4], total_bytes, index_bytes| {
            Self { total_bytes, partitions, producers, positions, subscriptions, index_bytes }
        };
        if max_bytes == 0 {
            return Ok(with(counts, configured + most, None));
        }
        let (least, least_index) = (made([LEAST; 4]), logs * LEAST_INDEX_BYTES);
        let left = max_bytes.checked_sub(configured).and_then(|left| left.checked_sub(least + least_index));
        let Some(left) = left else {
            let table_bytes = table_bytes + least + least_index;
            return Err(OverBudget { pool_bytes, reply_bytes, table_bytes, max_bytes });
        };
        // The index has a quarter, and what the others have no use for. All that clients make shrinks alike.
        let more = (left - left / 4).min(most - least);
        let share = |count: u32| LEAST + (u64::from(count - LEAST) * more / (most - least)) as u32;
        Ok(with(counts.map(share), max_bytes, Some((least_index + left - more) / logs)))
    }
}

#[cfg(test)]
mod tests {
    use corelog_model::LogId;
    use corelog_storage::LogConfig;

    use super::*;
    use crate::memory::Share;

    fn budget(flags: &[&str], cores: usize, logs: usize) -> Result<Budget, OverBudget> {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let config = Config::load(None, [], &flags).expect("good");
        let log = LogConfig::new(LogId(0), 1);
        let share = |core| Share { core, cores, logs, logs_here: logs / cores };
        let plans: Vec<_> = (0..cores).map(|core| Plan::new(&config, &log, share(core))).collect();
        Budget::new(&config, &plans, logs)
    }

    fn counts(budget: Budget) -> [u32; 4] {
        [budget.partitions, budget.producers, budget.positions, budget.subscriptions]
    }

    #[test]
    fn without_a_bound_of_its_own_the_process_has_that_of_its_parts() {
        let one = budget(&[], 1, 1).expect("no bound");
        let limits = Limits::default();
        assert_eq!((one.partitions, one.producers), (limits.partitions, limits.producers.pairs));
        assert_eq!((one.positions, one.subscriptions), (limits.positions, limits.subscriptions));
        assert_eq!(one.index_bytes, None);
        let larger = budget(&["log.window_bytes=1 GiB"], 1, 1).expect("no bound");
        assert_eq!(larger.total_bytes - one.total_bytes, 768 << 20);
        let two = budget(&[], 2, 2).expect("no bound");
        assert!(two.total_bytes > one.total_bytes && two.total_bytes < 2 * one.total_bytes);
    }

    #[test]
    fn what_clients_make_has_what_is_left_and_no_less_than_is_of_use() {
        let free = budget(&[], 2, 2).expect("no bound");
        let mib = |bytes: u64| format!("memory.max_bytes={} MiB", bytes >> 20);
        let all = budget(&[&mib(free.total_bytes + (1 << 30))], 2, 2).expect("enough");
        assert_eq!(counts(all), counts(free));
        let index = all.index_bytes.expect("a bound");
        assert!(index > 510 << 20 && index <= 512 << 20, "what is left is the index's: {index}");
        let most = budget(&[&mib(free.total_bytes - (100 << 20))], 2, 2).expect("enough for most");
        assert!(most.total_bytes <= free.total_bytes - (100 << 20));
        assert!(most.partitions > 50_000 && most.partitions < 100_000 && most.producers > 50_000, "{most:?}");
        let bytes = |budget: Budget| {
            let [partitions, producers, positions, subscriptions] = counts(budget).map(u64::from);
            let of_log =
                producers * PRODUCER_BYTES + positions * POSITION_BYTES + subscriptions * SUBSCRIPTION_BYTES;
            partitions * PARTITION_BYTES + 2 * (of_log + budget.index_bytes.unwrap_or(0))
        };
        assert!(bytes(most) <= bytes(free) - (100 << 20), "the shares add up to what is left");
        let refused = budget(&["memory.max_bytes=100 MiB"], 2, 2).expect_err("far too little");
        let OverBudget { pool_bytes, reply_bytes, table_bytes, .. } = refused;
        let least = mib(pool_bytes + reply_bytes + table_bytes + (1 << 20));
        let least = budget(&[&least], 2, 2).expect("as much as it says");
        assert!((LEAST..2 * LEAST).contains(&least.partitions), "{least:?}");
        assert!(least.index_bytes >= Some(LEAST_INDEX_BYTES), "{least:?}");
        let words = refused.to_string();
        assert!(words.starts_with("`memory.max_bytes` is 100 MiB, and pools of 398 MiB"), "{words}");
    }
}
