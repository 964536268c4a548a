//! What an operator has accepted as lost: an entry of the log's own, and part of each checkpoint behind it.
//!
//! **Invariant:** an entry is written only once the feature is durable in the superblock: an older version would not know
//! what the gap is.

use corelog_model::GroupId;

use crate::append::Appended;
use crate::damage::Damages;
use crate::error::Full;
use crate::extent::Claim;
use crate::feature;
use crate::frame::{EntryKind, field};
use crate::groups::{GroupSlot, Groups};
use crate::log::Log;
use crate::recovery::survey::LostRange;

/// Bytes of a range in an entry.
pub const ACCEPTED_BYTES: usize = 24;
/// Bytes of one in a checkpoint, behind the rows of its group.
pub const ACCEPTED_ROW_BYTES: usize = 16;

/// Ranges of one group: a checkpoint counts them in 16 bits.
const ACCEPTED_MAX: usize = u16::MAX as usize;

impl Log {
    /// Accepts the loss of these offsets: from then on readers pass them over, after any start, too. Durable when the
    /// frame is.
    ///
    /// # Panics
    /// When the log does not have the feature, or knows a group of the ranges not.
    pub fn accept_loss(&mut self, ranges: &[LostRange]) -> Result<Appended, Full> {
        assert!(self.has(feature::ACCEPTED_LOSS), "an older version would not know the entry");
        let of =
            |range: &LostRange| self.group(range.group).map_or(0, |slot| self.groups.at(slot).accepted.len());
        if ranges.iter().any(|range| of(range) + ranges.len() > ACCEPTED_MAX) {
            return Err(Full::Index);
        }
        let payload = encode(ranges);
        self.room(1, payload.len(), Claim::Changes)?;
        let appended = self.append_control(EntryKind::AcceptedLoss, GroupId::LOG, 0, &payload);
        for range in ranges {
            let slot = self.group(range.group).expect("a group of the log");
            accept(&mut self.groups, &mut self.damage, slot, range.first, range.last);
        }
        Ok(appended)
    }

    /// How many ranges are accepted as lost, of those that are still above their group's start.
    pub(crate) fn accepted_ranges(&self) -> u64 {
        self.groups.iter().map(|(_, group)| group.accepted().count() as u64).sum()
    }
}

fn encode(ranges: &[LostRange]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(ranges.len() * ACCEPTED_BYTES);
    for range in ranges {
        payload.extend(range.group.0.to_le_bytes());
        payload.extend(range.first.to_le_bytes());
        payload.extend(range.last.to_le_bytes());
    }
    payload
}

/// The ranges of an entry's payload; `None` when they make no sense.
pub fn accepted_ranges(payload: &[u8]) -> Option<Vec<LostRange>> {
    if !payload.len().is_multiple_of(ACCEPTED_BYTES) {
        return None;
    }
    let ranges = payload.chunks_exact(ACCEPTED_BYTES).map(|range| LostRange {
        group: GroupId(field!(range, 0, u64)),
        first: field!(range, 8, u64),
        last: field!(range, 16, u64),
    });
    let ranges: Vec<LostRange> = ranges.collect();
    ranges.iter().all(|range| range.first <= range.last && range.last < u64::MAX).then_some(ranges)
}

/// A range is accepted, perhaps not for the first time: an entry is met again behind the checkpoint that has it.
pub(crate) fn accept(groups: &mut Groups, damage: &mut Damages, slot: GroupSlot, first: u64, last: u64) {
    let group = groups.at_mut(slot);
    if !group.accepted.contains(&(first, last)) {
        group.accepted.push((first, last));
        group.accepted.sort_unstable();
        damage.accept(slot, first, last);
    }
}
