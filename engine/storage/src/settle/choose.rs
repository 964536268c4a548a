//! Which extents and packs are worth a pack, and when.
//!
//! **Invariant:** what is written once more because most of it is of no use gives at least as much of the disk back: no byte
//! is ever written more often than that halves what it lies among.

use corelog_model::time::Now;

use super::{Source, Stage};
use crate::extent::{Fate, Live};
use crate::feature;
use crate::log::Log;
use crate::op::DiskOp;

/// Of the retention cap, the share that one pack may hold at most: what is settled is to stay for a while.
const CAP_SHARE: u64 = 4;
/// Bytes of the sources of one pack at most.
const SOURCE_BYTES: u64 = 2 << 30;

/// Why an extent or a pack is worth settling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    /// A reader of one group reads more of others, or asks more often, than it gets.
    Scattered,
    /// Most of what it takes of the disk is of no use any more: a pack of the rest gives back more than it takes, at once.
    Dead,
}

impl Log {
    /// Starts on the next pack, if there are sources for one and nothing is in the way.
    pub(super) fn begin_settling(&mut self, now: Now, out: &mut Vec<DiskOp>) {
        let waits = self.settle.retry_us.is_some_and(|at| now.mono_us < at);
        let able =
            !self.settle.frames.is_empty() && self.config.settle_extents > 0 && self.has(feature::PACKS);
        // A full checkpoint has to follow, and the indexes of the sources have to stay where they are.
        let quiet = self.extents.superseded.is_empty() && self.footers.settled() && !self.commit.read_only;
        if !able || waits || !quiet || self.extents.refused.is_some() {
            return;
        }
        self.settle.retry_us = None;
        let Some((first, last)) = self.choose_sources() else { return };
        if let Some(generation) = self.extents.index_in(first, last) {
            return self.move_index_of(generation, now, out);
        }
        let chosen = self.extents.live.iter().filter(|live| (first..=last).contains(&live.generation));
        let settle = &mut self.settle;
        settle.sources.clear();
        settle.sources.extend(chosen.map(|live| Source {
            generation: live.generation,
            file: live.file(),
            first_sequence: live.first_sequence,
        }));
        settle.pieces.clear();
        settle.stage = Stage::Indexing { source: 0 };
        self.gather(0, now, out);
    }

    /// The oldest extents and packs in a row that are worth it: as many as a pack is made from, or fewer where no more can
    /// follow, or where they give enough back already.
    fn choose_sources(&self) -> Option<(u64, u64)> {
        let cap = self.config.retention_bytes.map_or(u64::MAX, |cap| cap / CAP_SHARE / self.extents.bytes);
        let wanted = u64::from(self.config.settle_extents).min(cap.max(1));
        let (mut found, mut bytes): (Option<(u64, u64)>, u64) = (None, 0);
        let (mut count, mut dead) = (0, 0);
        for live in &self.extents.live {
            if !live.indexed {
                // The head, or one whose index is not written yet: the row may go on.
                return found.filter(|_| dead == count);
            }
            let worth = self.worth_settling(live);
            // Packs are of any length, and the next one may be the longest.
            let fits = found.is_none() || bytes + live.end <= SOURCE_BYTES;
            if let Some(worth) = worth.filter(|_| fits) {
                found = Some((found.map_or(live.generation, |(first, _)| first), live.generation));
                count += 1;
                dead += u64::from(worth == Worth::Dead);
                bytes += live.end;
                if count == wanted {
                    return found;
                }
            } else if found.is_some() && (live.pack || !live.is_bare()) {
                return found;
            }
        }
        None
    }

    fn worth_settling(&self, live: &Live) -> Option<Worth> {
        let fit =
            live.fate == Fate::Stays && live.groups > 0 && !self.settle.unfit.contains(&live.generation);
        if !fit {
            return None;
        }
        if live.scattered && !live.pack {
            return Some(Worth::Scattered);
        }
        let dead = live.is_mostly_dead(self.extents.bytes, self.config.max_frame_bytes());
        dead.then_some(Worth::Dead)
    }
}
