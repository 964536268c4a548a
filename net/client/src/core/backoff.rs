//! How long to wait before the next attempt.

use crate::config::Backoff;
use crate::core::rng::Rng;

/// The pause before attempt number `attempt` (1 is the first repetition), in microseconds: doubled each time up to a
/// limit, then scaled by 0.8 to 1.2, so that clients which failed together do not come back together.
pub(crate) fn pause_us(backoff: Backoff, attempt: u32, rng: &mut Rng) -> u64 {
    let first = to_us(backoff.first);
    let doubled = first.saturating_mul(1 << attempt.saturating_sub(1).min(30));
    let pause = doubled.min(to_us(backoff.most));
    let per_mille = 800 + u64::from(rng.below(401));
    pause.saturating_mul(per_mille) / 1000
}

/// A duration in microseconds; longer ones than fit are as good as for ever.
pub(crate) fn to_us(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_spread() {
        let backoff = Backoff { first: Duration::from_millis(20), most: Duration::from_secs(1) };
        let table = [(1, 20_000), (2, 40_000), (3, 80_000), (6, 640_000), (7, 1_000_000), (40, 1_000_000)];
        let mut rng = Rng::new(1);
        for (attempt, centre) in table {
            let pauses: Vec<u64> = (0..100).map(|_| pause_us(backoff, attempt, &mut rng)).collect();
            assert!(
                pauses.iter().all(|&us| us >= centre * 8 / 10 && us <= centre * 12 / 10),
                "attempt {attempt}"
            );
            assert!(pauses.iter().min() < pauses.iter().max(), "attempt {attempt} is spread");
        }
    }
}
