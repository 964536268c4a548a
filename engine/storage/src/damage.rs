//! Offsets that were acknowledged and do not verify: named, never served.
//!
//! A gap between the batches of a group is damage too: the log gives offsets without gaps, so whoever finds one
//! has found records that are lost, however long ago, and whether or not a start saw it happen.

use crate::groups::GroupSlot;

/// A range of offsets of one group, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) slot: GroupSlot,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// All that were named since the log was opened.
#[derive(Debug, Default)]
pub(crate) struct Damages {
    ranges: Vec<Damage>,
}

impl Damages {
    /// Adds a range; false when one that holds it was named before.
    pub(crate) fn name(&mut self, slot: GroupSlot, first: u64, last: u64) -> bool {
        let known = |damage: &Damage| damage.slot == slot && damage.first <= first && last <= damage.last;
        let new = !self.ranges.iter().any(known);
        if new {
            self.ranges.push(Damage { slot, first, last });
        }
        new
    }

    /// The range that holds an offset.
    pub(crate) fn at(&self, slot: GroupSlot, offset: u64) -> Option<Damage> {
        let holds = |damage: &&Damage| damage.slot == slot && damage.first <= offset && offset <= damage.last;
        self.ranges.iter().find(holds).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Damage> {
        self.ranges.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }
}
