//! What the shell measures about its own turns. Not shared, not atomic: one reactor, one thread.

use corelog_wire::Status;
use hdrhistogram::Histogram;

use crate::status::{Hiccups, Lengths};

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
    within: [u64; Status::LATE_OVER_US.len() + 1],
    lengths_us: u64,
    over: [u64; 3],
    turns: u64,
    idle_turns: u64,
    busy_us: u64,
    polling_us: u64,
    asleep_us: u64,
    parks: u64,
    gave_way: u64,
    answers: u64,
    most_enters: u64,
    awake_us: u64,
    late_us: [u64; Status::LATE_OVER_US.len()],
}

impl Metrics {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        let lengths = Histogram::new_with_bounds(1, LONGEST_US, 2).expect("bounds that fit");
        Self {
            lengths,
            within: [0; Status::LATE_OVER_US.len() + 1],
            lengths_us: 0,
            over: [0; 3],
            turns: 0,
            idle_turns: 0,
            busy_us: 0,
            polling_us: 0,
            asleep_us: 0,
            parks: 0,
            gave_way: 0,
            answers: 0,
            most_enters: 0,
            awake_us: 0,
            late_us: [0; Status::LATE_OVER_US.len()],
        }
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
            self.within[bucket(us)] += 1;
            self.lengths_us += us;
            for (count, bound) in self.over.iter_mut().zip(OVER_US) {
                *count += u64::from(us >= bound);
            }
        }
    }

    /// One turn entered the ring so many times.
    pub(crate) fn entered(&mut self, enters: u64) {
        self.most_enters = self.most_enters.max(enters);
    }

    /// Between the beginnings of two turns were `us`, in which the reactor did not sleep. What comes at an instant of
    /// such a gap waits for the rest of it: longer than a bound at every instant that is further from the end.
    pub(crate) fn gap(&mut self, us: u64) {
        self.awake_us += us;
        let late = self.late_us.iter_mut().zip(Status::LATE_OVER_US);
        for (late_us, over_us) in late.take_while(|(_, over_us)| us > *over_us) {
            *late_us += us - over_us;
        }
    }

    /// The core was offered to other threads.
    pub(crate) const fn gave_way(&mut self) {
        self.gave_way += 1;
    }

    /// The reactor is about to sleep.
    pub(crate) const fn parked(&mut self) {
        self.parks += 1;
    }

    /// It was asleep for so long, in microseconds.
    pub(crate) const fn slept(&mut self, us: u64) {
        self.asleep_us += us;
    }

    /// It told the control plane what it counts.
    pub(crate) const fn answered(&mut self) {
        self.answers += 1;
    }

    /// Times it slept.
    pub(crate) const fn parks(&self) -> u64 {
        self.parks
    }

    /// Time asleep, in microseconds.
    pub(crate) const fn asleep_us(&self) -> u64 {
        self.asleep_us
    }

    /// How often the control plane was answered: a system call each.
    pub(crate) const fn answers(&self) -> u64 {
        self.answers
    }

    /// How often the core was offered to other threads: a system call each.
    pub(crate) const fn times_given_way(&self) -> u64 {
        self.gave_way
    }

    /// The most enters of one turn.
    pub(crate) const fn most_enters(&self) -> u64 {
        self.most_enters
    }

    /// Time in gaps between turns, in microseconds.
    pub(crate) const fn awake_us(&self) -> u64 {
        self.awake_us
    }

    /// Time in them beyond each of [`Status::LATE_OVER_US`], in microseconds.
    pub(crate) const fn late_us(&self) -> [u64; Status::LATE_OVER_US.len()] {
        self.late_us
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

    /// How long turns took, as it can be added up and subtracted. Cheap, where [`Metrics::hiccups`] searches a histogram.
    pub(crate) fn lengths(&self) -> Lengths {
        Lengths { within: self.within, sum_us: self.lengths_us, longest_us: self.lengths.max() }
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

/// Which of [`Lengths::within`] a length in microseconds is counted in; the bounds are powers of two.
const fn bucket(us: u64) -> usize {
    const FIRST: u32 = Status::LATE_OVER_US[0].trailing_zeros();
    let bits = u64::BITS - us.saturating_sub(1).leading_zeros();
    let at = bits.saturating_sub(FIRST) as usize;
    if at < Status::LATE_OVER_US.len() { at } else { Status::LATE_OVER_US.len() }
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

    #[test]
    fn a_gap_counts_as_late_where_more_of_it_is_left_than_the_bound() {
        let mut metrics = Metrics::new();
        for us in [1, 16, 100, 1_000_000] {
            metrics.gap(us);
        }
        assert_eq!(metrics.awake_us(), 1_000_117);
        let late = metrics.late_us();
        assert_eq!(late[..4], [84 + 999_984, 68 + 999_968, 36 + 999_936, 999_872]);
        assert_eq!(late[13], 1_000_000 - 131_072);
    }

    #[test]
    fn a_length_is_counted_below_the_bound_that_it_does_not_exceed() {
        for us in (0..40).chain([127, 128, 129, 131_071, 131_072, 131_073, u64::MAX]) {
            let bound = Status::LATE_OVER_US.iter().position(|bound| us <= *bound);
            assert_eq!(bucket(us), bound.unwrap_or(Status::LATE_OVER_US.len()), "{us}");
        }
        let mut metrics = Metrics::new();
        for (us, worked) in [(3, true), (99, false), (100, false), (2_000_000, true)] {
            metrics.turn(us, worked);
        }
        let Lengths { within, sum_us, longest_us } = metrics.lengths();
        assert_eq!((within[0], within[3], within[14], within.iter().sum::<u64>()), (1, 1, 1, 3));
        assert_eq!(sum_us, 2_000_103);
        assert!((2_000_000..=2_020_000).contains(&longest_us), "two digits of it: {longest_us}");
    }

    #[test]
    fn the_turn_with_the_most_enters_is_kept() {
        let mut metrics = Metrics::new();
        [0, 2, 1].into_iter().for_each(|enters| metrics.entered(enters));
        assert_eq!(metrics.most_enters(), 2);
    }
}
