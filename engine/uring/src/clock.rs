//! The one place that reads clocks for a reactor: once a turn, into a [`Now`].

use corelog_model::time::Now;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Reads both clocks, without a system call where the kernel maps its clock page.
pub fn now() -> Now {
    Now {
        mono_us: micros(clock_gettime(ClockId::Monotonic)),
        wall_us: micros(clock_gettime(ClockId::Realtime)),
    }
}

/// Monotonic nanoseconds, for measurements.
pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Times before 1970 count as 1970: they are no use as timestamps.
fn micros(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + time.tv_nsec.cast_unsigned() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_go_back_and_the_wall_clock_is_of_this_century() {
        let (first, second) = (now(), now());
        assert!(second.mono_us >= first.mono_us);
        assert!(first.wall_us > 946_684_800_000_000, "after the year 2000");
    }

    #[test]
    fn a_wall_clock_before_1970_is_taken_as_1970() {
        assert_eq!(micros(Timespec { tv_sec: -1, tv_nsec: 5000 }), 5);
    }
}
