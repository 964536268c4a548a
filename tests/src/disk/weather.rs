//! Periods: for a number of operations a disk is slow, or full.

use corelog_storage::OpClass;

use super::faults::Faults;
use crate::random::Random;

/// What is the matter at the moment.
#[derive(Debug, Default)]
pub(super) struct Weather {
    /// Operations until it ends, how many times as long they take, and of which class; all when there is none.
    slow: Option<(u64, u64, Option<OpClass>)>,
    /// Operations until it ends, and how many bytes the files may take until then.
    full: Option<(u64, u64)>,
}

impl Weather {
    /// An operation is asked for: what its delay is multiplied with.
    pub(super) fn pass(&mut self, faults: &Faults, class: OpClass, bytes: u64, random: &mut Random) -> u64 {
        self.slow = self.slow.filter(|(left, ..)| *left > 0);
        self.full = self.full.filter(|(left, _)| *left > 0);
        if self.slow.is_none() && hits(faults.slow, random) {
            let class =
                random.pick(&[None, Some(OpClass::Commit), Some(OpClass::Cold), Some(OpClass::Background)]);
            self.slow = Some((random.between(5, 100), random.between(10, 100), class));
        }
        if self.full.is_none() && hits(faults.full, random) {
            self.full = Some((random.between(5, 200), bytes));
        }
        if let Some((left, _)) = &mut self.full {
            *left -= 1;
        }
        match &mut self.slow {
            Some((left, factor, of)) if of.is_none_or(|of| of == class) && faults.slow > 0 => {
                *left -= 1;
                *factor
            }
            _ => 1,
        }
    }

    /// Bytes that all files together may take now.
    pub(super) fn capacity(&self, faults: &Faults) -> u64 {
        match self.full {
            Some((_, bytes)) if faults.full > 0 => bytes.min(faults.capacity),
            _ => faults.capacity,
        }
    }
}

/// Whether something happens that happens so often in a million.
pub(super) fn hits(in_a_million: u64, random: &mut Random) -> bool {
    in_a_million > 0 && random.below(1_000_000) < in_a_million
}
