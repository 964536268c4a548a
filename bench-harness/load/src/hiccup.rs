//! How late the load's own loop runs: the part of every latency that is the instrument's.
//!
//! Imagine instants on a fixed grid at which the loop would have to act. Each turn of the loop serves the instants
//! that passed since the turn before, and each is recorded with how long it had to wait. A stall thus counts as
//! often as it would have hit a record, and a fast loop cannot drown it in short turns. Time that the loop sleeps
//! on purpose is left out, its waking late is not. A closed loop sleeps until an answer comes, and nobody knows when that
//! should have been: there all sleep is left out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;
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

    /// The loop slept in between, until something came.
    pub fn slept(&mut self, from_ns: u64, to_ns: u64) {
        self.turn(from_ns);
        self.next_ns += to_ns.saturating_sub(from_ns);
    }

    /// The loop slept since its last turn, to wake at `planned_ns`: only what came after counts.
    pub fn woke(&mut self, planned_ns: u64, now_ns: u64) {
        self.next_ns = self.next_ns.max(planned_ns);
        self.turn(now_ns);
    }
}

/// Whether a run cannot claim one of its 99.9th percentiles: one of the gaps, of the instrument or of the broker's turns,
/// is more than half of it. What was not measured is `None`. All in microseconds.
pub fn is_flagged(gaps_p999_us: &[Option<f64>], claimed_p999_us: &[Option<f64>]) -> bool {
    let gap = gaps_p999_us.iter().flatten().copied().fold(0.0, f64::max);
    claimed_p999_us.iter().flatten().any(|claimed| gap > claimed / 2.0)
}

/// The hiccups of the loop that makes the load, where its runtime can tell when it sleeps. Clones watch the same loop.
#[derive(Clone)]
pub(crate) struct Watch {
    clock: Clock,
    watched: Arc<Mutex<Watched>>,
}

struct Watched {
    hiccups: Hiccups,
    /// No record has a time at which it should be sent: see the top of this file.
    closed: bool,
    /// The loop sleeps since then.
    parked_ns: Option<u64>,
}

impl Watch {
    pub(crate) fn new(clock: Clock) -> Self {
        let watched = Watched { hiccups: Hiccups::new(clock.now_ns()), closed: true, parked_ns: None };
        Self { clock, watched: Arc::new(Mutex::new(watched)) }
    }

    /// Forgets what was found and begins anew, now.
    pub(crate) fn begin(&self, closed: bool) {
        let hiccups = Hiccups::new(self.clock.now_ns());
        *self.lock() = Watched { hiccups, closed, parked_ns: None };
    }

    /// The loop runs, now, with a closed phase or an open one.
    pub(crate) fn turn(&self, now_ns: u64) {
        self.lock().hiccups.turn(now_ns);
    }

    /// As [`Hiccups::woke`].
    pub(crate) fn woke(&self, planned_ns: u64, now_ns: u64) {
        self.lock().hiccups.woke(planned_ns, now_ns);
    }

    /// The runtime has nothing to do and begins to sleep.
    pub(crate) fn parks(&self) {
        self.lock().parked_ns = Some(self.clock.now_ns());
    }

    /// The runtime has slept.
    pub(crate) fn unparks(&self) {
        let now_ns = self.clock.now_ns();
        let mut watched = self.lock();
        if let (true, Some(parked_ns)) = (watched.closed, watched.parked_ns.take()) {
            watched.hiccups.slept(parked_ns, now_ns);
        }
    }

    /// Looks at what was found.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Latency) -> T) -> T {
        look(&mut self.lock().hiccups.latency)
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    fn sleep_until_something_comes_is_left_out_and_the_work_around_it_is_not() {
        let mut hiccups = Hiccups::new(0);
        hiccups.slept(3_000_000, 500_000_000);
        hiccups.turn(502_000_000);
        hiccups.latency.end_interval(|_| {});
        assert_eq!(hiccups.latency.total().len(), 5_000_000 / GRID_NS, "instants of 5 ms");
        let max = hiccups.latency.quantiles().expect("it worked").max;
        assert!((2_900.0..3_000.0).contains(&max), "3 ms of work at a time: {max}");
    }

    #[test]
    fn the_largest_gap_is_set_against_half_of_each_claim() {
        let is = |gaps: [f64; 2], claims: [f64; 2]| is_flagged(&gaps.map(Some), &claims.map(Some));
        assert!(!is([50.0, 10.0], [100.0, 300.0]));
        assert!(is([50.1, 10.0], [100.0, 300.0]), "the load's own");
        assert!(is([10.0, 50.1], [100.0, 300.0]), "the broker's");
        assert!(is([50.1, 10.0], [300.0, 100.0]), "whichever is claimed");
        assert!(!is_flagged(&[None, Some(50.0)], &[None, Some(100.0)]));
        assert!(!is_flagged(&[Some(50.0)], &[None]), "nothing is claimed");
    }
}
