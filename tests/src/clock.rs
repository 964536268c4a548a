//! Time, which only the driver moves.

use corelog_model::Now;

use crate::random::Random;

/// Two clocks: one that only rises, and one on the wall that may be set back between two starts.
#[derive(Clone, Debug)]
pub struct SimClock {
    now: Now,
}

impl Default for SimClock {
    fn default() -> Self {
        Self { now: Now { mono_us: 1_000_000, wall_us: 1_700_000_000_000_000 } }
    }
}

impl SimClock {
    /// The present.
    pub const fn now(&self) -> Now {
        self.now
    }

    /// Time passes, in microseconds.
    pub fn advance(&mut self, us: u64) {
        self.now.mono_us += us;
        self.now.wall_us += us;
    }

    /// The machine was off: its monotonic clock begins anew, its wall clock may have been set.
    pub fn restart(&mut self, random: &mut Random) {
        self.now.mono_us = random.between(1, 1_000_000);
        self.now.wall_us = match random.below(4) {
            0 => self.now.wall_us.saturating_sub(random.below(5_000_000)),
            _ => self.now.wall_us + random.below(5_000_000),
        };
    }
}
