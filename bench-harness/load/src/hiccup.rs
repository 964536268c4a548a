//! How late the load's own loop runs: the part of every latency that is the instrument's.
//!
//! Imagine instants on a fixed grid at which the loop would have to act. Each turn of the loop serves the instants
//! that passed since the turn before, and each is recorded with how long it had to wait. A stall thus counts as
//! often as it would have hit a record, and a fast loop cannot drown it in short turns. Time that the loop sleeps
//! on purpose is left out, its waking late is not.

use crate::latency::Latency;

/// Between two instants of the grid.
const GRID_NS: u64 = 50_000;

/// Collects the lateness of one loop. Times are nanoseconds of the run's clock.
pub struct Hiccups {
    next_ns: u64,
    /// What was found.
    pub latency: Latency,
}

impl Hiccups {
    /// Begins to watch at `now_ns`.
    pub fn new(now_ns: u64) -> Self {
        Self { next_ns: now_ns + GRID_NS, latency: Latency::new() }
    }

    /// The loop runs, now.
    pub fn turn(&mut self, now_ns: u64) {
        while self.next_ns <= now_ns {
            self.latency.record(now_ns - self.next_ns, 1);
            self.next_ns += GRID_NS;
        }
    }

    /// The loop slept since its last turn, to wake at `planned_ns`: only what came after counts.
    pub fn woke(&mut self, planned_ns: u64, now_ns: u64) {
        self.next_ns = self.next_ns.max(planned_ns);
        self.turn(now_ns);
    }
}

/// Whether a run cannot claim its 99.9th percentile: the instrument's own is more than half of it.
pub fn is_flagged(hiccup_p999_us: f64, claimed_p999_us: f64) -> bool {
    hiccup_p999_us > claimed_p999_us / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stall_among_a_million_short_turns_shows() {
        let mut hiccups = Hiccups::new(0);
        for turn in 0..1_000_000_u64 {
            hiccups.turn(turn * 1_000);
        }
        hiccups.turn(1_020_000_000);
        hiccups.latency.end_interval(|_| {});
        let quantiles = hiccups.latency.quantiles().expect("the loop ran");
        assert!(quantiles.p50 <= 1.0, "{quantiles:?}");
        assert!(quantiles.p99 > 9_000.0, "20 ms of one second are 2 % of all instants: {quantiles:?}");
    }

    #[test]
    fn planned_sleep_is_no_hiccup_but_waking_late_is() {
        let mut hiccups = Hiccups::new(0);
        hiccups.woke(10_000_000, 10_060_000);
        hiccups.latency.end_interval(|_| {});
        let max = hiccups.latency.quantiles().expect("it woke").max;
        assert!((59.0..61.0).contains(&max), "{max}");
    }

    #[test]
    fn the_flag_is_half_of_what_is_claimed() {
        assert!(!is_flagged(50.0, 100.0));
        assert!(is_flagged(50.1, 100.0));
    }
}
