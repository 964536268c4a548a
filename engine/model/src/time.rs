//! Time as a value: whoever decides is given a [`Now`], nobody below the reactor reads a clock.

/// One reading of both clocks, taken once per turn and passed to everything that turn does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic microseconds since an arbitrary start: deadlines and intervals, nothing that is stored.
    pub mono_us: u64,
    /// Microseconds since the Unix epoch: timestamps that are stored. May step backwards.
    pub wall_us: u64,
}
