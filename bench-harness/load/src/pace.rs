//! Waits for an intended time: sleeps while it is far, then spins, letting the other tasks of the loop run at each
//! turn. The runtime's timer has steps of a millisecond; what it is late by is spun away in advance.

use std::cell::Cell;
use std::time::Duration;

use crate::clock::Clock;
use crate::hiccup::Watch;

/// A wait longer than this begins with sleep ...
const SLEEP_ABOVE_NS: u64 = 3_000_000;
/// ... that ends this long before the time.
const SPIN_NS: u64 = 2_000_000;

/// Shared by the producers of one loop.
pub(crate) struct Pace {
    clock: Clock,
    watch: Watch,
    /// Producers that spin now: while there is one, no time of the loop is planned sleep.
    spinning: Cell<u32>,
}

impl Pace {
    pub(crate) fn new(clock: Clock, watch: Watch) -> Self {
        Self { clock, watch, spinning: Cell::new(0) }
    }

    /// Returns at `intended_ns`, or at once when that has passed. The time of the return.
    pub(crate) async fn until(&self, intended_ns: u64) -> u64 {
        let mut now = self.clock.now_ns();
        if now + SLEEP_ABOVE_NS < intended_ns {
            let planned = intended_ns - SPIN_NS;
            tokio::time::sleep(Duration::from_nanos(planned - now)).await;
            now = self.clock.now_ns();
            if self.spinning.get() == 0 {
                // The timer's own step is not lateness: a wake within it is what was asked for.
                self.watch.woke(now.min(planned + 1_000_000), now);
            }
        }
        if now >= intended_ns {
            // Behind time nobody waits here, and the loop runs all the same.
            self.watch.turn(now);
            return now;
        }
        let _spinning = Spinning::new(&self.spinning);
        while now < intended_ns {
            tokio::task::yield_now().await;
            now = self.clock.now_ns();
            self.watch.turn(now);
        }
        now
    }
}

/// One producer that spins; a dropped wait spins no more.
struct Spinning<'a>(&'a Cell<u32>);

impl<'a> Spinning<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Spinning<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many producers as leave none of them time to wait: the loop is watched all the same.
    #[test]
    fn a_loop_that_is_always_behind_is_still_watched() {
        let clock = Clock::start();
        let watch = Watch::new(clock);
        watch.begin(false);
        let pace = Pace::new(clock, watch.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (begun, mut turns) = (clock.now_ns(), 0_u64);
        let end = begun + 20_000_000;
        while runtime.block_on(pace.until(begun)) < end {
            turns += 1;
        }
        watch.with(|hiccups| hiccups.end_interval(|_| {}));
        let instants = watch.with(|hiccups| hiccups.total().len());
        assert!(instants >= 390, "one each 50 us of 20 ms: {instants}, in {turns} turns");
    }
}
