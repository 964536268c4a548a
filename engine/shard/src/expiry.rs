//! Records that go because their topic keeps them for a time, or so many bytes of each partition.
//!
//! Every so often all partitions that have such a bound are looked at, in steps of bounded work, one a turn: with many
//! partitions a pass takes many turns, and other requests come between. What may go is the log's to say: whole rows, by
//! when the frames were cut that hold them, so by the clock of this broker and not by what producers wrote into their
//! records. What goes is trimmed as if somebody had asked for it: it is durable before anybody is told.
//!
//! A log that does not decide on topics hears from log 0 what they keep, at each start anew: before that nothing goes.

use corelog_model::{Now, Retention};

use crate::partition::Partition;
use crate::room::NoRoom;
use crate::shard::Shard;

/// Slots and rows that one step looks at, about.
const STEP: usize = 2_048;
/// Log starts that one step moves: each is an entry of the log.
const STEP_TRIMS: usize = 128;
/// Where there is no room for an entry, until the next try, microseconds.
const PAUSE_US: u64 = 100_000;

/// How far the looking is.
#[derive(Debug)]
pub(crate) struct Expiry {
    interval_us: u64,
    /// Partitions that have a bound.
    bounded: u32,
    /// The slot that is looked at next; the pass is over when there are no more.
    next: u32,
    /// When that is, monotonic microseconds.
    due_us: u64,
}

impl Expiry {
    /// The first pass is one interval from now.
    pub(crate) const fn new(interval_us: u64, now: Now) -> Self {
        Self { interval_us, bounded: 0, next: 0, due_us: now.mono_us.saturating_add(interval_us) }
    }

    /// The partition has this bound from now on.
    pub(crate) const fn set(&mut self, partition: &mut Partition, retention: Retention) {
        self.bounded -= !partition.retention.is_none() as u32;
        self.bounded += !retention.is_none() as u32;
        partition.retention = retention;
    }

    /// When there is something to be looked at, monotonic microseconds.
    pub(crate) const fn due_us(&self) -> Option<u64> {
        if self.bounded > 0 { Some(self.due_us) } else { None }
    }

    pub(crate) fn check<'a>(&self, partitions: impl Iterator<Item = &'a Partition>) {
        let bounded = partitions.filter(|partition| !partition.retention.is_none()).count();
        assert_eq!(bounded, self.bounded as usize, "partitions with a bound are counted");
    }
}

impl Shard {
    /// One step, if one is due.
    pub(crate) fn step_expiry(&mut self, now: Now) {
        if self.expiry.due_us().is_none_or(|due_us| now.mono_us < due_us) {
            return;
        }
        if self.log.is_read_only() {
            self.expiry.due_us = now.mono_us.saturating_add(self.expiry.interval_us);
            return;
        }
        let (mut looked, mut trimmed) = (0, 0);
        while looked < STEP && trimmed < STEP_TRIMS {
            if self.expiry.next >= self.partitions.slots() {
                self.expiry.next = 0;
                self.expiry.due_us = now.mono_us.saturating_add(self.expiry.interval_us);
                return;
            }
            let Some((id, partition)) = self.partitions.in_slot(self.expiry.next) else {
                self.expiry.next += 1;
                looked += 1;
                continue;
            };
            let (slot, retention) = (partition.slot, partition.retention);
            let high_watermark = partition.cursors().high_watermark;
            looked += 1;
            if !retention.is_none() {
                looked += self.log.rows(slot);
                let before_us = retention.time_us.map(|time_us| now.wall_us.saturating_sub(time_us.get()));
                let keep_bytes = retention.bytes.map(std::num::NonZeroU64::get);
                let start = self.log.expire(slot, before_us, keep_bytes).min(high_watermark);
                if start > self.log.coming_start(slot) {
                    match self.trim(now, id, start) {
                        Ok(_) => trimmed += 1,
                        Err(NoRoom::Wait) => {
                            self.expiry.due_us = now.mono_us.saturating_add(PAUSE_US);
                            return;
                        }
                        // Perhaps the next time.
                        Err(NoRoom::Refused(_)) => {}
                    }
                }
            }
            self.expiry.next += 1;
        }
        self.expiry.due_us = now.mono_us;
    }
}
