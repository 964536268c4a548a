//! Damage of the medium: one sector that it had confirmed holds something else.
//!
//! The log is at rest, and a beacon proves its last frame: of damage behind that nobody could tell it from a loss of power.

use super::enumerate::Recording;
use super::image::{Image, SECTOR};
use super::judge::{Case, Counts, judge};
use super::medium::{Fate, Medium};
use crate::random::Random;

/// What a sector holds instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// The opposite of each bit.
    Inverted,
    /// Zeros.
    Zeroed,
    /// What it held at some moment before, where that was something else.
    Older,
}

/// Every harm.
pub const HARMS: [Harm; 3] = [Harm::Inverted, Harm::Zeroed, Harm::Older];

/// Damages the last image of a recording, one sector each time: `tries` sectors in every way.
pub fn damage(
    recording: &Recording,
    tries: usize,
    random: &mut Random,
    counts: &mut Counts,
) -> Result<(), String> {
    let (mut medium, mut before) = (Medium::default(), Vec::new());
    for (at, event) in recording.tape.iter().enumerate() {
        medium.apply(event);
        if at % 8 == 0 {
            before.push(medium.durable().clone());
        }
    }
    let image = medium.image(&vec![Fate::Absent; medium.pending().len()]);
    let promise = recording.ledger.promise(Some(recording.ledger.promises.len() as u64 - 1));
    let Recording { config, ledger, .. } = recording;
    let sectors = image.sectors();
    for _ in 0..tries {
        let (file, position) = random.pick(&sectors);
        for harm in HARMS {
            let now = image.bytes(file, position, SECTOR);
            let older =
                |before: &Image| Some(before.bytes(file, position, SECTOR)).filter(|old| old.len() == SECTOR);
            let other = match harm {
                Harm::Inverted => Some(now.iter().map(|byte| !byte).collect()),
                Harm::Zeroed => Some(vec![0; SECTOR]),
                Harm::Older => before.iter().rev().filter_map(older).find(|old| *old != now),
            };
            let Some(other) = other else { continue };
            let mut damaged = image.clone();
            damaged.write(file, position, &other);
            let case = Case { config, ledger, promise: &promise, damaged: Some(file) };
            judge(case, &damaged, &[], random, counts)
                .map_err(|what| format!("{harm:?} at {position} of {file}: {what}"))?;
        }
    }
    Ok(())
}
