//! What Status shows: the shard's counters, the reactor's, the machine's.

use corelog_shard::ShardStatus;

use crate::config::Mode;

/// What the reactor's decisions count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reactor {
    /// Requests taken.
    pub requests: u64,
    /// Requests refused by the reactor itself: malformed, before Hello, too long.
    pub refused: u64,
    /// Connections open.
    pub connections: u32,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections closed because they read too slowly.
    pub slow_consumers: u64,
    /// Connections closed because they were silent for too long.
    pub timed_out: u64,
    /// Sends submitted; fewer than replies, because replies of a turn share one.
    pub sends: u64,
    /// Completions whose operation was not in flight any more.
    pub stray: u64,
}

/// What only the shell can measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// How the reactor waits.
    pub mode: Mode,
    /// Registered buffers were refused.
    pub registration_refused: bool,
    /// The log goes through the page cache.
    pub buffered: bool,
    /// Since the ready line, in microseconds.
    pub uptime_us: u64,
    /// CPU time of the broker's threads, in microseconds.
    pub cpu_us: u64,
    /// Time in turns that found work, in microseconds.
    pub busy_us: u64,
    /// Time in turns that found none, in microseconds.
    pub polling_us: u64,
    /// Ring enters.
    pub enters: u64,
    /// Resident memory of the process, in bytes.
    pub resident_bytes: u64,
    /// Turns that took longer than a millisecond.
    pub hiccups: Hiccups,
}

/// How long turns took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hiccups {
    /// Turns measured.
    pub count: u64,
    /// Half of them took at most this long, in microseconds.
    pub p50_us: u64,
    /// 99 % did.
    pub p99_us: u64,
    /// 99.9 % did.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}
