//! What a core says of itself: the shards' counters, the reactor's, the loop's; and what Status makes of it.

use corelog_shard::ShardStatus;
use corelog_wire::Status;
use corelog_wire::status::{REFUSED_DIRECT, REFUSED_REGISTRATION};

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
    /// The loop of this core.
    pub turns: Turns,
    /// CPU time of the broker's threads, in microseconds.
    pub cpu_us: u64,
    /// Resident memory of the process, in bytes.
    pub resident_bytes: u64,
    /// How long turns took.
    pub hiccups: Hiccups,
}

/// What the loop of a core counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// How the reactor waits.
    pub mode: Mode,
    /// Registered buffers were refused.
    pub registration_refused: bool,
    /// The log goes through the page cache.
    pub buffered: bool,
    /// What the process may come to, in bytes.
    pub memory_limit_bytes: u64,
    /// Since the ready line, in microseconds.
    pub uptime_us: u64,
    /// Time in turns that found work, in microseconds.
    pub busy_us: u64,
    /// Time in turns that found none, in microseconds.
    pub polling_us: u64,
    /// Time asleep, in microseconds.
    pub asleep_us: u64,
    /// Times it fell asleep.
    pub parks: u64,
    /// Ring enters.
    pub enters: u64,
    /// System calls of the reactor beside enters of its ring: registrations, parks, offers of the core to other threads,
    /// answers to the control plane.
    pub other_calls: u64,
    /// The most enters of one turn.
    pub most_enters: u64,
    /// Turns that found work.
    pub busy: u64,
    /// Turns that found none.
    pub idle: u64,
    /// How long those took that count as hiccups.
    pub lengths: Lengths,
    /// Time in gaps between turns, sleep left out, in microseconds.
    pub awake_us: u64,
    /// Time in them beyond each of [`Status::LATE_OVER_US`], in microseconds.
    pub late_us: [u64; Status::LATE_OVER_US.len()],
}

/// How long turns took: those with work, and those without that took long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// How many took no longer than each of [`Status::LATE_OVER_US`] and longer than the one before; how many longer than
    /// all of them.
    pub within: [u64; Status::LATE_OVER_US.len() + 1],
    /// All together, in microseconds.
    pub sum_us: u64,
    /// The longest, in microseconds.
    pub longest_us: u64,
}

/// Memory of one purpose, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// In use.
    pub used_bytes: u64,
    /// All of it.
    pub limit_bytes: u64,
}

/// Everything a core says of itself when the control plane asks it. What it is of, it keeps: filling it again takes no
/// memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// All logs of the store have started, and clients are let in here.
    pub joined: bool,
    /// One for each log that the core serves.
    pub logs: Vec<ShardStatus>,
    /// What its decisions count.
    pub reactor: Reactor,
    /// What its loop counts.
    pub turns: Turns,
    /// What its connections receive into and send from.
    pub connections: Pool,
    /// What large requests are received into.
    pub ingest: Pool,
    /// What waits to be sent, beyond what every connection has for it.
    pub replies: Pool,
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
    /// How many took 100 us or longer, 1 ms or longer, 10 ms or longer. Unlike the quantiles they can be
    /// subtracted: a window of a run has its own.
    pub over: [u64; 3],
}

/// All counters as they stand on the wire, of a store of so many logs.
pub(crate) fn wire_status(shard: &ShardStatus, logs: usize, reactor: &Reactor, machine: &Machine) -> Status {
    let refused = |is: bool, bit: u64| if is { bit } else { 0 };
    let ShardStatus { storage: log, counters, .. } = shard;
    let Machine { turns, hiccups, .. } = machine;
    let status = Status {
        mode: match turns.mode {
            Mode::Poll => 0,
            Mode::Adaptive => 1,
            Mode::Park => 2,
        },
        refused: refused(turns.registration_refused, REFUSED_REGISTRATION)
            | refused(turns.buffered, REFUSED_DIRECT),
        uptime_us: turns.uptime_us,
        cpu_us: machine.cpu_us,
        busy_us: turns.busy_us,
        polling_us: turns.polling_us,
        system_calls: turns.enters + turns.other_calls,
        enters: turns.enters,
        resident_bytes: machine.resident_bytes,
        memory_limit_bytes: turns.memory_limit_bytes,
        subscriptions: shard.subscriptions.into(),
        positions: shard.positions.into(),
        position_bytes: shard.position_bytes,
        bytes_accepted: counters.produced_bytes,
        batches: counters.batches,
        records: counters.records,
        bytes_fetched: counters.fetched_bytes,
        requests: reactor.requests,
        refusals: reactor.refused + counters.refused,
        frames: log.frames,
        bytes_written: log.bytes_written + log.zeroed_bytes,
        window_bytes: log.window_bytes,
        window_reads: (counters.fetches + counters.pushes).saturating_sub(log.cold_reads),
        cold_reads: log.cold_reads,
        cold_bytes: log.cold_bytes,
        slow_consumers: reactor.slow_consumers,
        connections: reactor.connections.into(),
        topics: shard.topics.into(),
        partitions: shard.partitions.into(),
        logs: logs as u64,
        term: shard.term.0.into(),
        hiccup_count: hiccups.count,
        hiccup_p50_us: hiccups.p50_us,
        hiccup_p99_us: hiccups.p99_us,
        hiccup_p999_us: hiccups.p999_us,
        hiccup_max_us: hiccups.max_us,
        turns: turns.busy,
        idle_turns: turns.idle,
        turns_over_100us: hiccups.over[0],
        turns_over_1ms: hiccups.over[1],
        turns_over_10ms: hiccups.over[2],
        awake_us: turns.awake_us,
        most_enters: turns.most_enters,
        ..Status::default()
    };
    status.with_late_us(turns.late_us)
}
