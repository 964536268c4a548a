//! Latency histograms: recorded per interval, merged into the total, never averaged.
//!
//! Values are nanoseconds with three significant digits up to an hour; longer ones count as an hour. Reports are
//! in microseconds.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Largest value kept apart.
const MAX_NS: u64 = 3_600_000_000_000;

/// What is shown of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half of the values are at most this.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// 99.99 %.
    pub p9999: f64,
    /// The largest value.
    pub max: f64,
}

/// One kind of latency over a phase.
pub struct Latency {
    /// Since the last [`Latency::end_interval`].
    interval: Histogram<u64>,
    total: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Latency {
    /// Nothing recorded.
    pub fn new() -> Self {
        let empty = || Histogram::new_with_bounds(1, MAX_NS, 3).expect("the bounds are valid");
        Self { interval: empty(), total: empty() }
    }

    /// Counts `count` values of `nanoseconds` each.
    pub fn record(&mut self, nanoseconds: u64, count: u64) {
        self.interval.saturating_record_n(nanoseconds.max(1), count);
    }

    /// Merges the interval into the total and begins the next; `log` sees the interval before.
    pub fn end_interval(&mut self, log: impl FnOnce(&Histogram<u64>)) {
        log(&self.interval);
        self.total.add(&self.interval).expect("both have the same bounds");
        self.interval.reset();
    }

    /// Everything up to the last [`Latency::end_interval`].
    pub const fn total(&self) -> &Histogram<u64> {
        &self.total
    }

    /// The quantiles of the total; `None` when nothing was recorded.
    pub fn quantiles(&self) -> Option<Quantiles> {
        if self.total.is_empty() {
            return None;
        }
        let at = |quantile: f64| microseconds(self.total.value_at_quantile(quantile));
        Some(Quantiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: microseconds(self.total.max()),
        })
    }
}

/// Rounded to the nanosecond that it was.
pub(crate) fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_add_up_to_the_quantiles_of_all_values() {
        let mut latency = Latency::new();
        let mut intervals = Vec::new();
        for millisecond in 1..=1_000 {
            latency.record(millisecond * 1_000_000, 1);
            if millisecond % 100 == 0 {
                latency.end_interval(|interval| intervals.push(interval.len()));
            }
        }
        assert_eq!(intervals, vec![100; 10]);
        let quantiles = latency.quantiles().expect("values were recorded");
        let near = |found: f64, asked: f64| (found / asked - 1.0).abs() < 0.001;
        assert!(near(quantiles.p50, 500e3) && near(quantiles.p99, 990e3), "{quantiles:?}");
        assert!(near(quantiles.max, 1_000e3), "{quantiles:?}");
    }

    #[test]
    fn nothing_has_no_quantiles_and_too_long_counts_as_an_hour() {
        let mut latency = Latency::new();
        latency.end_interval(|_| {});
        assert_eq!(latency.quantiles(), None);
        latency.record(u64::MAX, 2);
        latency.end_interval(|_| {});
        let max = latency.quantiles().expect("two values").max;
        assert!((max / 3.6e9 - 1.0).abs() < 0.001, "{max}");
    }
}
