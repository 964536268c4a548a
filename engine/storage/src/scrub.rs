//! The scrubber: reads what nobody reads, slowly, so that damage is found while other copies of the records may still be.
//!
//! All closed extents are read once in a period, piece by piece in a block of its own, one read at a time, evenly over
//! the period. Where it begins after a start follows from the wall clock, as if it had never stopped: a broker that is
//! started again each day comes past everything, too. What it finds is named as a reader would have found it; where more
//! than records is damaged, a full checkpoint makes the next start independent of what lies before it.
//!
//! **Invariants:** nobody waits for it: it takes none of the blocks of readers, and lets commits and reads under way go
//! first until it is behind by two reads. It never reads more than its rate has earned.

use corelog_model::limits::FRAME_ALIGN;
use corelog_model::time::Now;
use corelog_model::{Block, BlockId};

use crate::check::Check;
use crate::extent::{Extents, Live};
use crate::log::Log;
use crate::op::{DiskCompletion, DiskOp, FileName, Purpose};
use crate::salvage::{Salvage, Salvaged, Wanted};

/// How long it does not look whether it has earned another read, at most, microseconds: the log grows meanwhile.
const LOOK_US: u64 = 60_000_000;

pub(crate) struct Scrub {
    /// Its memory, unless a read has it.
    block: Option<Block>,
    id: Option<BlockId>,
    /// In which everything is read once, microseconds; 0: never.
    period_us: u64,
    check: Option<Check>,
    /// What is being checked has been superseded by a pack: it is left at that.
    superseded: bool,
    /// Of the extent that was checked last.
    generation: Option<u64>,
    /// The read under way, or to be made once more in pieces.
    asked: Wanted,
    salvage: Option<Salvage>,
    /// When it looks again, and when it looked last; monotonic microseconds.
    due_us: u64,
    looked_us: Option<u64>,
    /// What it may read: bytes, times the period.
    credit: u128,
    /// This pass has begun with the oldest extent.
    whole_pass: bool,
    /// More than records is damaged in what a start would read.
    pub(crate) renews: bool,
    /// Memory of the last check.
    next: Vec<u64>,
    pub(crate) counters: ScrubCounters,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ScrubCounters {
    pub(crate) bytes: u64,
    pub(crate) passes: u64,
    /// When the last whole pass ended, microseconds since the Unix epoch.
    pub(crate) passed_us: u64,
    pub(crate) damaged_ranges: u64,
    pub(crate) broken_frames: u64,
}

impl Scrub {
    pub(crate) fn new(block: Option<Block>, period_us: Option<u64>) -> Self {
        Self {
            id: block.as_ref().map(Block::id),
            block,
            period_us: period_us.unwrap_or(0),
            check: None,
            superseded: false,
            generation: None,
            asked: Wanted { file: FileName::Superblock, position: 0, length: 0 },
            salvage: None,
            due_us: 0,
            looked_us: None,
            credit: 0,
            whole_pass: false,
            renews: false,
            next: Vec::new(),
            counters: ScrubCounters::default(),
        }
    }

    /// A pack takes the place of extents of these generations.
    pub(crate) fn supersede(&mut self, generations: std::ops::RangeInclusive<u64>) {
        self.superseded |= self.check.as_ref().is_some_and(|check| generations.contains(&check.generation()));
    }

    /// When it has something to do, monotonic microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let at_rest = self.block.is_some() && self.period_us > 0 && self.looked_us.is_some();
        at_rest.then(|| self.salvage.as_ref().map_or(self.due_us, Salvage::due_us))
    }

    /// Whether the next read, of so many bytes, is earned by now, of `total` bytes in a period; if not, when it looks again.
    fn earns(&mut self, bytes: u64, total: u64, busy: bool, now_us: u64) -> bool {
        let cost = u128::from(bytes) * u128::from(self.period_us);
        let passed = now_us.saturating_sub(self.looked_us.replace(now_us).unwrap_or(now_us));
        self.credit = (self.credit + u128::from(passed) * u128::from(total)).min(2 * cost);
        let least = if busy { 2 * cost } else { cost };
        let earned = total > 0 && self.credit >= least;
        if earned {
            self.credit -= cost;
        }
        let missing = (if earned { cost } else { least }).saturating_sub(self.credit);
        let wait = missing.div_ceil(u128::from(total.max(1))).min(u128::from(LOOK_US));
        self.due_us = now_us + (wait as u64).max(1);
        earned
    }

    /// The extent to be checked next: behind the last one, else where the time in the period says, else the oldest.
    fn choose<'a>(&mut self, extents: &'a Extents, now: Now) -> Option<&'a Live> {
        let count = closed(extents).count();
        let Some(last) = self.generation else {
            let passed = u128::from(now.wall_us % self.period_us.max(1));
            let at = (count as u128 * passed / u128::from(self.period_us.max(1))) as usize;
            self.whole_pass = at == 0;
            return closed(extents).nth(at);
        };
        let next = closed(extents).find(|live| live.generation > last);
        if next.is_none() {
            self.generation = None;
            if std::mem::replace(&mut self.whole_pass, true) {
                self.counters.passes += 1;
                self.counters.passed_us = now.wall_us;
            }
            return closed(extents).next();
        }
        next
    }
}

/// All extents but the head.
fn closed(extents: &Extents) -> impl Iterator<Item = &Live> {
    extents.live.iter().take(extents.live.len() - usize::from(extents.open))
}

impl Log {
    /// Issues the next read of the scrubber, if it is time for it; part of every cut.
    pub(crate) fn go_on_scrubbing(&mut self, now: Now, out: &mut Vec<DiskOp>) {
        let scrub = &mut self.scrub;
        let Some(block) = scrub.block.as_ref().filter(|_| scrub.period_us > 0) else { return };
        if std::mem::take(&mut scrub.superseded) {
            (scrub.salvage, scrub.generation) = (None, scrub.check.take().map(|check| check.generation()));
        }
        if let Some(salvage) = &scrub.salvage {
            if salvage.due_us() <= now.mono_us {
                let wanted = salvage.wanted();
                self.issue_scrub(wanted, out);
            }
            return;
        }
        if now.mono_us < scrub.due_us {
            return;
        }
        let most = block.len() as u32 & !(FRAME_ALIGN as u32 - 1);
        let total = closed(&self.extents).map(|live| live.end).sum();
        let busy = self.commit.submitted > self.commit.durable || self.cold.is_busy();
        // Shorter reads, at the ends of extents, are paid like others.
        if !scrub.earns(u64::from(most), total, busy, now.mono_us) {
            return;
        }
        if scrub.check.is_none() {
            let Some(live) = scrub.choose(&self.extents, now) else { return };
            let check = Check::new(live, &self.groups, std::mem::take(&mut scrub.next));
            scrub.check = Some(check);
        }
        let check = scrub.check.as_ref();
        let wanted = check.and_then(|check| Some((check.generation(), check.wanted(most)?)));
        let live = wanted.and_then(|(generation, _)| self.extents.by_generation(generation));
        match (wanted, live) {
            (Some((_, (position, length))), Some(live)) => {
                let wanted = Wanted { file: live.file(), position, length };
                self.scrub.asked = wanted;
                self.issue_scrub(wanted, out);
            }
            // It was recycled meanwhile, or is empty.
            _ => self.end_check(),
        }
    }

    fn issue_scrub(&mut self, wanted: Wanted, out: &mut Vec<DiskOp>) {
        let Some(into) = self.scrub.block.take() else { return };
        self.scrub.counters.bytes += u64::from(wanted.length);
        let Wanted { file, position, length } = wanted;
        out.push(DiskOp::Read { id: Purpose::Scrub.id(), file, position, length, into });
    }

    pub(crate) fn on_scrub(&mut self, completion: DiskCompletion, now: Now) {
        let scrub = &mut self.scrub;
        if scrub.block.is_some() || scrub.check.is_none() {
            return;
        }
        scrub.block = completion.block.filter(|block| Some(block.id()) == scrub.id);
        let Some(block) = &mut scrub.block else { return };
        match scrub.salvage.take() {
            None if completion.result.is_ok_and(|found| found >= scrub.asked.length) => {}
            None => {
                let Wanted { file, position, length } = scrub.asked;
                scrub.salvage = Some(Salvage::new(file, position, length));
                return;
            }
            Some(mut salvage) => match salvage.take(completion.result, block, now.mono_us) {
                Salvaged::More => {
                    scrub.salvage = Some(salvage);
                    return;
                }
                // The same piece again, when there is time for it.
                Salvaged::Refused => return,
                Salvaged::Done { lost } => self.counters.lost_sectors += u64::from(lost),
            },
        }
        self.scrubbed();
    }

    /// A piece of the extent was read.
    fn scrubbed(&mut self) {
        let scrub = &mut self.scrub;
        let (Some(check), Some(block)) = (&mut scrub.check, &scrub.block) else { return };
        if scrub.superseded {
            return;
        }
        if self.extents.by_generation(check.generation()).is_none() {
            return self.end_check();
        }
        let (damage, counters) = (&mut self.damage, &mut scrub.counters);
        let mut lost =
            |slot, first, last| counters.damaged_ranges += u64::from(damage.name(slot, first, last));
        check.take(&block.bytes()[..scrub.asked.length as usize], self.seed, &self.groups, &mut lost);
        if check.wanted(FRAME_ALIGN as u32).is_none() {
            self.end_check();
        }
    }

    /// The extent was read to its end, or is gone.
    fn end_check(&mut self) {
        let scrub = &mut self.scrub;
        let Some(check) = scrub.check.take() else { return };
        let (generation, broken) = (check.generation(), check.tally.broken);
        scrub.generation = Some(generation);
        if self.extents.by_generation(generation).is_none() {
            return;
        }
        let (damage, counters) = (&mut self.damage, &mut scrub.counters);
        scrub.next = check.finish(&self.groups, &mut |slot, first, last| {
            counters.damaged_ranges += u64::from(damage.name(slot, first, last));
        });
        scrub.counters.broken_frames += broken;
        // What lies before the oldest checkpoint no start reads any more.
        let oldest = self.superblock.current.checkpoints.first().map_or(0, |place| place.generation);
        scrub.renews |= broken > 0 && generation >= oldest;
    }
}
