//! What the shell measures about its own turns. Not shared, not atomic: one reactor, one thread.

use hdrhistogram::Histogram;

use crate::status::Hiccups;

/// Turns that find no work are recorded from this length on, in microseconds: shorter ones are the idle spin.
const IDLE_HICCUP_US: u64 = 100;
/// Turns of at least these lengths are counted, in microseconds.
const OVER_US: [u64; 3] = [100, 1_000, 10_000];
/// A turn longer than this counts as the longest there is, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// Counters of a reactor's shell.
#[derive(Debug)]
pub(crate) struct Metrics {
    lengths: Histogram<u32>,
    over: [u64; 3],
    turns: u64,
    idle_turns: u64,
    busy_us: u64,
    polling_us: u64,
    parks: u64,
}

impl Metrics {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        let lengths = Histogram::new_with_bounds(1, LONGEST_US, 2).expect("bounds that fit");
        Self { lengths, over: [0; 3], turns: 0, idle_turns: 0, busy_us: 0, polling_us: 0, parks: 0 }
    }

    /// A turn that took `us`, with or without work.
    pub(crate) fn turn(&mut self, us: u64, worked: bool) {
        if worked {
            self.turns += 1;
            self.busy_us += us;
        } else {
            self.idle_turns += 1;
            self.polling_us += us;
        }
        if worked || us >= IDLE_HICCUP_US {
            self.lengths.saturating_record(us.max(1));
            for (count, bound) in self.over.iter_mut().zip(OVER_US) {
                *count += u64::from(us >= bound);
            }
        }
    }

    /// The reactor slept.
    pub(crate) const fn parked(&mut self) {
        self.parks += 1;
    }

    /// Turns with work.
    pub(crate) const fn turns(&self) -> u64 {
        self.turns
    }

    /// Turns without.
    pub(crate) const fn idle_turns(&self) -> u64 {
        self.idle_turns
    }

    /// Time in turns with work, in microseconds.
    pub(crate) const fn busy_us(&self) -> u64 {
        self.busy_us
    }

    /// Time in turns without, in microseconds.
    pub(crate) const fn polling_us(&self) -> u64 {
        self.polling_us
    }

    /// How long turns took.
    pub(crate) fn hiccups(&self) -> Hiccups {
        let at = |quantile| self.lengths.value_at_quantile(quantile);
        let count = self.lengths.len();
        if count == 0 {
            return Hiccups::default();
        }
        let (max_us, over) = (self.lengths.max(), self.over);
        Hiccups { count, p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999), max_us, over }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_spin_does_not_hide_long_turns() {
        let mut metrics = Metrics::new();
        assert_eq!(metrics.hiccups(), Hiccups::default());
        for _ in 0..1_000_000 {
            metrics.turn(0, false);
        }
        metrics.turn(20, true);
        metrics.turn(3_000, false);
        let hiccups = metrics.hiccups();
        assert_eq!(hiccups.count, 2);
        assert!(hiccups.max_us >= 3_000 && hiccups.p50_us < 100, "{hiccups:?}");
        assert_eq!(hiccups.over, [1, 1, 0]);
        assert_eq!((metrics.busy_us(), metrics.polling_us()), (20, 3_000));
        assert_eq!((metrics.turns(), metrics.idle_turns()), (1, 1_000_001));
    }
}
