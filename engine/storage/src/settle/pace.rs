//! Settling gives way to the log: a disk that serves one request after the other, or few, has no room for both.
//!
//! While frames are written, one operation of settling is under way at a time, and after each the disk is left alone for
//! [`REST`] times as long as it took. Nothing waits for a pack, so what a live load leaves undone is done when it ends.

use corelog_model::time::Now;

/// The disk is settling's for one part of its time in so many and one, at most, while the log is written.
const REST: u64 = 9;
/// A disk that stalls for longer is not rested for longer, microseconds.
const TOOK_MOST_US: u64 = 20_000;
/// The log counts as being written for so long after its last frame, microseconds.
pub(super) const QUIET_US: u64 = 50_000;

/// When the last operation began, and until when the next one rests; monotonic microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    begun_us: u64,
    rest_us: u64,
}

impl Pace {
    pub(super) fn begun(&mut self, now: Now) {
        self.begun_us = now.mono_us;
    }

    pub(super) fn ended(&mut self, now: Now) {
        let took = now.mono_us.saturating_sub(self.begun_us).min(TOOK_MOST_US);
        self.rest_us = now.mono_us.saturating_add(took * REST);
    }

    /// Until when the disk is left alone if the log is written.
    pub(super) const fn rest_us(self) -> u64 {
        self.rest_us
    }
}
