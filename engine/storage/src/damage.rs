//! Offsets that were acknowledged and do not verify: named, never served.
//!
//! A gap between the batches of a group is damage too: the log gives offsets without gaps, so whoever finds one
//! has found records that are lost, however long ago, and whether or not a start saw it happen.
//!
//! What an operator has accepted as lost is named no more: readers pass it over. It stays accepted, in the log
//! (`accept.rs`), for as long as its offsets are above the group's start.

use crate::groups::GroupSlot;

/// A range of offsets of one group, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) slot: GroupSlot,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Damage {
    fn holds(&self, slot: GroupSlot, offset: u64) -> bool {
        self.slot == slot && self.first <= offset && offset <= self.last
    }
}

/// All that were named since the log was opened, and all that are accepted.
#[derive(Debug, Default)]
pub(crate) struct Damages {
    ranges: Vec<Damage>,
    accepted: Vec<Damage>,
}

impl Damages {
    /// Adds a range; false when one that holds it was named before, or all of it is accepted.
    pub(crate) fn name(&mut self, slot: GroupSlot, first: u64, last: u64) -> bool {
        let mut new = false;
        let mut next = first;
        while let Some((first, end)) = self.unaccepted(slot, next, last) {
            new |= self.add(slot, first, end);
            next = end + 1;
        }
        new
    }

    /// The first of these offsets whose loss is not accepted, and the last one before the next that is.
    pub(crate) fn unaccepted(&self, slot: GroupSlot, first: u64, last: u64) -> Option<(u64, u64)> {
        let first = self.passed(slot, first).unwrap_or(first);
        let behind = self.accepted.iter().filter(|range| range.slot == slot && range.first > first);
        let end = behind.map(|range| range.first - 1).min().map_or(last, |end| end.min(last));
        (first <= last).then_some((first, end))
    }

    fn add(&mut self, slot: GroupSlot, first: u64, last: u64) -> bool {
        let new = !self.ranges.iter().any(|damage| damage.holds(slot, first) && damage.holds(slot, last));
        if new {
            self.ranges.push(Damage { slot, first, last });
        }
        new
    }

    /// These offsets are lost, and that is accepted: of what was named, what lies beside them stays.
    pub(crate) fn accept(&mut self, slot: GroupSlot, first: u64, last: u64) {
        self.accepted.push(Damage { slot, first, last });
        for damage in std::mem::take(&mut self.ranges) {
            if damage.slot != slot || damage.last < first || damage.first > last {
                self.ranges.push(damage);
                continue;
            }
            if damage.first < first {
                self.ranges.push(Damage { last: first - 1, ..damage });
            }
            if damage.last > last {
                self.ranges.push(Damage { first: last + 1, ..damage });
            }
        }
    }

    /// Where a reader goes on whose offset is accepted as lost.
    pub(crate) fn passed(&self, slot: GroupSlot, offset: u64) -> Option<u64> {
        let mut next = offset;
        while let Some(range) = self.accepted.iter().find(|range| range.holds(slot, next)) {
            next = range.last + 1;
        }
        (next > offset).then_some(next)
    }

    /// The range that holds an offset.
    pub(crate) fn at(&self, slot: GroupSlot, offset: u64) -> Option<Damage> {
        self.ranges.iter().find(|damage| damage.holds(slot, offset)).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Damage> {
        self.ranges.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: GroupSlot = GroupSlot(1);
    const B: GroupSlot = GroupSlot(2);

    fn named(damages: &Damages) -> Vec<(u64, u64)> {
        let mut all: Vec<_> = damages.iter().map(|damage| (damage.first, damage.last)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn what_is_accepted_is_neither_named_nor_asked_for() {
        let mut damages = Damages::default();
        assert!(damages.name(A, 10, 30) && damages.name(B, 10, 30) && !damages.name(A, 12, 13));
        damages.accept(A, 15, 20);
        assert_eq!(named(&damages), [(10, 14), (10, 30), (21, 30)]);
        assert_eq!(
            (damages.passed(A, 14), damages.passed(A, 15), damages.passed(B, 15)),
            (None, Some(21), None)
        );
        assert!(!damages.name(A, 16, 18) && !damages.name(A, 12, 22), "all of it is known");
        assert!(damages.name(A, 18, 40), "31 to 40 are not");
        damages.accept(A, 21, 22);
        assert_eq!(damages.passed(A, 15), Some(23), "one behind the other");
        assert!(damages.at(A, 22).is_none() && damages.at(A, 23).is_some());
    }
}
