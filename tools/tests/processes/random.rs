//! Seeded choices: a run that fails is run again with `TEST_SEED=N`, though a process that is killed at the same
//! byte need not be in the same state then.

use std::ops::Range;

/// The variable that holds the seed.
const SEED: &str = "TEST_SEED";

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    /// The seed of the environment, else this one. Shown, so that a failure names it.
    pub(crate) fn new(seed: u64) -> Self {
        let seed = std::env::var(SEED).ok().and_then(|text| text.parse().ok()).unwrap_or(seed);
        println!("{SEED}={seed}");
        Self(seed)
    }

    /// The choices of a part of a run.
    pub(crate) const fn from(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }
}
