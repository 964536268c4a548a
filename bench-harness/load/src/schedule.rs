//! When each record of an open-loop phase is meant to be sent.
//!
//! The time is a function of the record's identity alone: producers wait for it, and consumers, who see only the
//! record, find it again. Nothing that happens during the run moves it; that is what keeps coordinated omission
//! out of the response and end-to-end times.

use crate::payload::Identity;

/// The intended times of one phase. Times are nanoseconds of the run's clock.
#[derive(Clone, Debug)]
pub struct Schedule {
    start_ns: u64,
    /// Between two records of the whole load; producers take turns.
    interval_ns: f64,
    /// The number that each producer begins this phase with.
    first: Vec<u64>,
}

impl Schedule {
    /// `records_per_second` over all producers together, from `start_ns` on.
    ///
    /// # Panics
    /// When the rate is not positive.
    pub fn new(start_ns: u64, records_per_second: f64, first: Vec<u64>) -> Self {
        assert!(records_per_second > 0.0, "an open loop has a rate");
        Self { start_ns, interval_ns: 1e9 / records_per_second, first }
    }

    /// When this record is to be sent; `None` when it belongs to an earlier phase.
    pub fn intended_ns(&self, id: Identity) -> Option<u64> {
        let first = self.first.get(id.producer as usize)?;
        let turn = id.number.checked_sub(*first)?;
        let place = turn as f64 * self.first.len() as f64 + f64::from(id.producer);
        Some(self.start_ns + (place * self.interval_ns) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(schedule: &Schedule, producer: u32, number: u64) -> Option<u64> {
        schedule.intended_ns(Identity { producer, number })
    }

    #[test]
    fn producers_take_turns_at_the_asked_rate() {
        let schedule = Schedule::new(1_000, 1_000_000.0, vec![5, 0]);
        assert_eq!(at(&schedule, 0, 5), Some(1_000));
        assert_eq!(at(&schedule, 1, 0), Some(2_000));
        assert_eq!(at(&schedule, 0, 6), Some(3_000));
        assert_eq!(at(&schedule, 0, 4), None, "of the phase before");
        assert_eq!(at(&schedule, 2, 0), None, "no such producer");
    }

    #[test]
    fn an_hour_of_an_odd_rate_does_not_drift() {
        let rate = 333_333.0;
        let schedule = Schedule::new(0, rate, vec![0; 3]);
        let last = at(&schedule, 0, 3_600 * 111_111).expect("in the phase");
        assert!(last.abs_diff(3_600_000_000_000) < 1_000, "{last}");
    }
}
