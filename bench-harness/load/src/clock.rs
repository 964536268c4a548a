//! The run's clock: nanoseconds since the run began, for intended times and histograms.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic; the same for all tasks of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// Begins at zero, now.
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Now.
    pub(crate) fn now_ns(&self) -> u64 {
        self.at(Instant::now())
    }

    /// `instant` on this clock; instants before its start are its start.
    pub(crate) fn at(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.origin).as_nanos() as u64
    }
}

/// Microseconds since 1970: what records are stamped with.
pub(crate) fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
