//! The metrics of a shard and of a log: name, what it counts, where that is read. Without prefix, unit and `_total`, which
//! the page adds.
//!
//! Counters rise from 0 at each start. [`super::page`] has those that need more labels than these.

use corelog_shard::ShardStatus;

use super::page::{Said, seconds};

/// One name.
pub(crate) struct Metric<T> {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    /// A counter, else a gauge.
    pub(crate) rises: bool,
    pub(crate) measure: Measure<T>,
}

/// In which unit its value is read.
pub(crate) enum Measure<T> {
    /// Things.
    Count(fn(&T) -> u64),
    /// Bytes.
    Bytes(fn(&T) -> u64),
    /// Microseconds, shown as seconds.
    Micros(fn(&T) -> u64),
    /// Shown as 0 or 1.
    Flag(fn(&T) -> bool),
}

/// As it is shown.
pub(crate) enum Value {
    Whole(u64),
    Seconds(f64),
}

impl<T> Measure<T> {
    pub(crate) fn value(&self, of: &T) -> Value {
        match self {
            Self::Count(read) | Self::Bytes(read) => Value::Whole(read(of)),
            Self::Micros(read) => Value::Seconds(seconds(read(of))),
            Self::Flag(read) => Value::Whole(read(of).into()),
        }
    }
}

use Measure::{Bytes, Count, Flag, Micros};

const fn rising<T>(name: &'static str, measure: Measure<T>, help: &'static str) -> Metric<T> {
    Metric { name, help, rises: true, measure }
}

const fn level<T>(name: &'static str, measure: Measure<T>, help: &'static str) -> Metric<T> {
    Metric { name, help, rises: false, measure }
}

/// Of each shard, the logs that it serves taken together.
pub(crate) const SHARD: &[Metric<Said>] = &[
    level(
        "shard_serving",
        Flag(|of| of.says.joined),
        "Whether all logs of the store have started and clients are let in.",
    ),
    // Connections and requests.
    level("connections", Count(|of| of.says.reactor.connections.into()), "Connections open."),
    rising("connections_accepted", Count(|of| of.says.reactor.accepted), "Connections accepted."),
    rising(
        "connections_too_slow",
        Count(|of| of.says.reactor.slow_consumers),
        "Connections closed because they read too slowly.",
    ),
    rising(
        "connections_timed_out",
        Count(|of| of.says.reactor.timed_out),
        "Connections closed because they were silent for too long.",
    ),
    level("handles", Count(|of| of.all.handles.into()), "Partitions that connections have open."),
    rising("requests", Count(|of| of.says.reactor.requests), "Requests taken."),
    rising(
        "requests_refused",
        Count(|of| of.says.reactor.refused + of.all.counters.refused),
        "Requests refused, for any reason.",
    ),
    rising("sends", Count(|of| of.says.reactor.sends), "Sends submitted; replies of a turn share one."),
    rising(
        "completions_stray",
        Count(|of| of.says.reactor.stray),
        "Completions of operations that were not in flight any more.",
    ),
    // Producing.
    rising("produced_batches", Count(|of| of.all.counters.batches), "Batches appended."),
    rising("produced_records", Count(|of| of.all.counters.records), "Records appended."),
    rising(
        "produced",
        Bytes(|of| of.all.counters.produced_bytes),
        "Bytes of appended batches, padding left out.",
    ),
    rising(
        "produced_duplicate_batches",
        Count(|of| of.all.counters.duplicates),
        "Batches that were sent again and were there already.",
    ),
    rising(
        "produce_blocked",
        Count(|of| of.all.counters.blocked),
        "Times a produce request found no room and had to wait.",
    ),
    level(
        "produce_pending",
        Count(|of| of.all.pending.into()),
        "Produce requests that wait for their frame.",
    ),
    level(
        "producers",
        Count(|of| of.all.producers.into()),
        "Pairs of a producer and a partition that are remembered.",
    ),
    // Reading.
    rising(
        "fetches",
        Count(|of| of.all.counters.fetches),
        "Fetches answered, with or without records: what is no cold read came from the live window.",
    ),
    rising(
        "fetched",
        Bytes(|of| of.all.counters.fetched_bytes),
        "Bytes of batches sent to consumers, fetched or pushed.",
    ),
    rising("cold_reads", Count(|of| of.all.storage.cold_reads), "Reads that went to the disk."),
    rising("cold_read", Bytes(|of| of.all.storage.cold_bytes), "Bytes that those read."),
    level("subscriptions", Count(|of| of.all.subscriptions.into()), "Subscriptions of connections."),
    rising("pushes", Count(|of| of.all.counters.pushes), "Pushes to subscriptions, with or without records."),
    level(
        "readers_waiting",
        Count(|of| of.all.waits.into()),
        "Fetches and subscriptions that wait for records.",
    ),
    level(
        "readers_reading",
        Count(|of| of.all.reads.into()),
        "Fetches and subscriptions that wait for the disk.",
    ),
    level(
        "window_pins",
        Count(|of| of.all.storage.window_pins),
        "Slices of the live window that are being sent.",
    ),
    level("partitions", Count(|of| of.all.partitions.into()), "Partitions that are open."),
    level("positions", Count(|of| of.all.positions.into()), "Named positions of consumers."),
    level("position", Bytes(|of| of.all.position_bytes), "Memory of named positions, about."),
    // The loop.
    rising("reactor_busy", Micros(|of| of.says.turns.busy_us), "Time in turns that found work."),
    rising("reactor_polling", Micros(|of| of.says.turns.polling_us), "Time in turns that found none."),
    rising("reactor_asleep", Micros(|of| of.says.turns.asleep_us), "Time asleep."),
    rising("reactor_awake", Micros(|of| of.says.turns.awake_us), "Time not asleep: from turn to turn."),
    rising("reactor_turns", Count(|of| of.says.turns.busy), "Turns that found work."),
    rising("reactor_idle_turns", Count(|of| of.says.turns.idle), "Turns that found none."),
    rising("reactor_parks", Count(|of| of.says.turns.parks), "Times the reactor fell asleep."),
    rising(
        "reactor_system_calls",
        Count(|of| of.says.turns.enters + of.says.turns.other_calls),
        "System calls of the reactor; those of background work are not counted.",
    ),
    rising(
        "reactor_ring_enters",
        Count(|of| of.says.turns.enters),
        "Enters of the reactor's ring, parks left out.",
    ),
    level(
        "reactor_most_ring_enters",
        Count(|of| of.says.turns.most_enters),
        "The most enters that one turn took.",
    ),
    level(
        "reactor_longest_turn",
        Micros(|of| of.says.turns.lengths.longest_us),
        "The longest turn, to two digits.",
    ),
    level(
        "registration_refused",
        Flag(|of| of.says.turns.registration_refused),
        "Whether the kernel refused registered buffers or files: plain ones are used.",
    ),
    level(
        "direct_refused",
        Flag(|of| of.says.turns.buffered),
        "Whether the log goes through the page cache, for want of O_DIRECT.",
    ),
];

/// Of each log.
pub(crate) const LOG: &[Metric<ShardStatus>] = &[
    level(
        "log_read_only",
        Flag(|of| of.storage.read_only),
        "Whether the log takes nothing any more because its disk failed.",
    ),
    level(
        "log_full",
        Flag(|of| of.storage.full),
        "Whether the disk has no room for one more of the longest batches.",
    ),
    level(
        "log_index_full",
        Flag(|of| of.storage.index_full),
        "Whether the index of the log has the memory that it may have, and no records are taken.",
    ),
    level(
        "log_damaged_ranges",
        Count(|of| of.storage.damaged_ranges),
        "Ranges of offsets that do not verify, and are not served.",
    ),
    level(
        "log_accepted_ranges",
        Count(|of| of.storage.accepted_ranges),
        "Ranges of damaged offsets that were given up, and are passed over by consumers.",
    ),
    rising(
        "log_lost_sectors",
        Count(|of| of.storage.lost_sectors),
        "Sectors of 4 KiB that never answered, asked again and again, while the disk did answer elsewhere.",
    ),
    rising(
        "log_scrubbed",
        Bytes(|of| of.storage.scrubbed_bytes),
        "Bytes on disk that were read though nobody asked for them, to find damage.",
    ),
    rising("log_scrub_passes", Count(|of| of.storage.scrub_passes), "Times that came past the whole log."),
    level(
        "log_scrub_passed_timestamp",
        Micros(|of| of.storage.scrub_passed_us),
        "When it did so last, as Unix time; 0 until it has, since the start.",
    ),
    rising(
        "log_scrub_damaged_ranges",
        Count(|of| of.storage.scrub_damaged_ranges),
        "Ranges of offsets that it found damaged.",
    ),
    rising(
        "log_scrub_broken_frames",
        Count(|of| of.storage.scrub_broken_frames),
        "Frames that it found damaged beyond the records in them.",
    ),
    level(
        "log_uncertain_groups",
        Count(|of| of.storage.uncertain_groups),
        "Groups of which records may be lost without anything left that tells their offsets.",
    ),
    level(
        "log_term",
        Count(|of| of.term.0.into()),
        "The term that the log is served in: it rises with every start.",
    ),
    rising("log_frames", Count(|of| of.storage.frames), "Frames written to disk, beacons included."),
    rising(
        "log_beacons",
        Count(|of| of.storage.beacons),
        "Frames that say nothing but that the one before them is durable.",
    ),
    rising(
        "log_entries",
        Count(|of| of.storage.entries),
        "Entries of frames: batches, and what the log notes for itself.",
    ),
    rising(
        "log_written",
        Bytes(|of| of.storage.bytes_written + of.storage.zeroed_bytes + of.storage.settled_bytes),
        "Bytes written to disk, everything included: headers, padding, zeros ahead, checkpoints, packs.",
    ),
    rising("log_zeroed", Bytes(|of| of.storage.zeroed_bytes), "Part of it: zeros written ahead of the end."),
    rising(
        "log_settled",
        Bytes(|of| of.storage.settled_bytes),
        "Part of it: written into packs, that is for the second time.",
    ),
    rising(
        "log_settle_read",
        Bytes(|of| of.storage.settle_read_bytes),
        "Bytes read to be written into packs.",
    ),
    rising(
        "log_packs_made",
        Count(|of| of.storage.packs_made),
        "Packs that took the place of the extents they were made from.",
    ),
    rising(
        "log_packs_abandoned",
        Count(|of| of.storage.packs_abandoned),
        "Packs that were given up: the disk refused, or what they were made from is damaged or gone.",
    ),
    rising(
        "log_moved_frames",
        Count(|of| of.storage.moved_frames),
        "Frames that moved to another extent after a failed write.",
    ),
    rising("log_checkpoints", Count(|of| of.storage.checkpoints), "Checkpoints that became durable."),
    rising(
        "log_recycled_extents",
        Count(|of| of.storage.recycled_extents),
        "Extents that retention, or topics that went, gave back.",
    ),
    rising(
        "log_derived_indexes",
        Count(|of| of.storage.derived_indexes),
        "Indexes of extents that were made from their frames, because what was written of them could not be had.",
    ),
    rising(
        "log_superblock_failures",
        Count(|of| of.storage.superblock_failures),
        "Superblock copies that could not be written.",
    ),
    level("log_live_extents", Count(|of| of.storage.live_extents), "Extents of the log, the head included."),
    level("log_live_packs", Count(|of| of.storage.live_packs), "Packs of the log."),
    level("log_packs", Bytes(|of| of.storage.pack_bytes), "Bytes of them on disk."),
    level(
        "log_spare_extents",
        Count(|of| of.storage.spare_extents),
        "Extents that are ready to be the next head.",
    ),
    level(
        "log_groups",
        Count(|of| of.storage.groups),
        "Groups that the log knows: partitions, and some of its own.",
    ),
    level("log_index", Bytes(|of| of.storage.index_bytes), "Memory of the index that is in use."),
];
