//! The one place of the client that reads clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::core::backoff::to_us;

/// Microseconds since the client began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    pub(crate) fn now_us(&self) -> u64 {
        to_us(self.origin.elapsed())
    }

    pub(crate) fn instant(&self, us: u64) -> Instant {
        self.origin + Duration::from_micros(us)
    }
}

/// The wall clock in microseconds since 1970: the usual timestamp of a record.
pub fn wall_us() -> u64 {
    // A clock before 1970 is as wrong as one at 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, to_us)
}
