//! What can go wrong in a world: drawn from its seed by streams of their own, so that each choice leaves the others alone.

use crate::disk::Faults;
use crate::random::Random;

/// Which faults there are, and so by which rules of the oracle the world is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// Losses of power, kills, and operations that fail: what the first seeds knew, and nothing else.
    Plain,
    /// Besides: short writes and reads, periods in which the disk is slow or full.
    Crash,
    /// Besides: a medium that says it is well, and writes elsewhere, reads older bytes, rots, has sectors that cannot be
    /// read, flushes nothing. The atlas keeps what a start cannot do without.
    Media,
    /// The same without the atlas: a start may be refused, by name, and the world ends with the first one after
    /// which that may be.
    Wild,
}

impl Regime {
    /// The regime of a seed: half of them have a medium that is harmed, one in twelve of those without an atlas.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x4e61_3e00);
        match () {
            () if random.chance(50) => Self::Crash,
            () if random.chance(8) => Self::Wild,
            () => Self::Media,
        }
    }

    /// Whether the medium is harmed.
    pub const fn harms(self) -> bool {
        matches!(self, Self::Media | Self::Wild)
    }

    /// Adds to a disk what it has in this regime from the beginning.
    pub(crate) fn begin(self, seed: u64, faults: &mut Faults) {
        if self == Self::Plain {
            return;
        }
        let mut random = Random::new(seed ^ 0x0005_0071);
        let rates = [&mut faults.short_writes, &mut faults.short_reads, &mut faults.slow, &mut faults.full];
        for (rate, in_a_million) in rates.into_iter().zip([3_000, 5_000, 2_000, 2_000]) {
            if random.chance(25) {
                *rate = in_a_million;
            }
        }
    }

    /// What the medium does once the topics are there.
    pub(crate) fn media(self, seed: u64) -> Faults {
        let mut random = Random::new(seed ^ 0x0003_ed1a);
        let mut faults = Faults { atlas: self != Self::Wild, ..Faults::default() };
        let rates = [
            &mut faults.misdirected,
            &mut faults.stale_reads,
            &mut faults.rot,
            &mut faults.latent,
            &mut faults.lies,
        ];
        let certain = random.below(rates.len() as u64) as usize;
        for (at, rate) in rates.into_iter().enumerate() {
            let in_a_million = random.pick(&[1_000, 5_000, 20_000]);
            if at == certain || random.chance(40) {
                *rate = in_a_million;
            }
        }
        faults
    }
}
