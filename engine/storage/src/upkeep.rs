//! What a log does beside appending: spare extents, zeros ahead of the head, footers, recycling, superblock.
//!
//! **Invariant:** nothing here is waited for by an acknowledgement, except through the room it makes.

use corelog_model::GroupId;
use corelog_model::time::Now;

use crate::config::Preparation;
use crate::extent::{Claim, Fate, SPARES, Spare, Zeroing};
use crate::frame::EntryKind;
use crate::log::Log;
use crate::op::{DiskError, DiskOp, FileName, Purpose, RETRY_US};

/// Zeros written by one operation: short enough not to hold up a frame that arrives meanwhile.
const ZERO_BYTES: u64 = 256 << 10;
/// While frames are under way, zeros keep this distance so that the next small frames need not wait for them.
const ZERO_DISTANCE: u64 = 64 << 10;

impl Log {
    pub(crate) fn upkeep(&mut self, now: Now, out: &mut Vec<DiskOp>) {
        self.write_footers();
        self.write_checkpoint();
        self.doom();
        self.recycle();
        self.move_footers(now, out);
        self.settle(now, out);
        self.extents.review();
        self.create_extents(now, out);
        self.shed_extents(now);
        self.remove_leftovers(now, out);
        self.superblock.advance(now, out);
    }

    fn create_extents(&mut self, now: Now, out: &mut Vec<DiskOp>) {
        if self.extents.retry_us.is_some_and(|at| now.mono_us < at) {
            return;
        }
        self.extents.retry_us = None;
        let spares = self.extents.spare.len();
        // What is on its way back may need a checkpoint to be written first, and that an extent to go to.
        let enough = spares + self.extents.coming() >= SPARES && spares > Claim::Own.leaves();
        if self.extents.creating.is_some() || enough {
            return;
        }
        let extent = self.extents.next_number;
        self.extents.next_number += 1;
        self.extents.creating = Some(extent);
        out.push(DiskOp::CreateExtent {
            id: Purpose::Create { extent }.id(),
            file: FileName::Extent(extent),
            bytes: self.extents.bytes,
        });
    }

    pub(crate) fn on_created(&mut self, extent: u32, result: Result<u32, DiskError>, now: Now) {
        if self.extents.creating.take_if(|creating| *creating == extent).is_none() {
            return;
        }
        self.extents.refused = result.err();
        self.extents.changed = true;
        match result {
            Ok(_) => self.extents.spare.push_back(Spare { extent, prepared: 0 }),
            Err(_) => {
                // The number is tried again: a half-made file is replaced.
                self.extents.next_number = extent;
                self.extents.retry_us = Some(now.mono_us + RETRY_US);
                self.make_room(now);
            }
        }
    }

    /// Spares that are always kept.
    fn kept_spares(&self) -> usize {
        SPARES + 1 + self.config.provision_extents as usize
    }

    /// Gives spares back to the file system, one at a time, that were not needed for a while.
    fn shed_extents(&mut self, now: Now) {
        let (keep, idle_us) = (self.kept_spares(), self.config.spare_idle_us);
        if self.commit.read_only {
            return;
        }
        if let Some(extent) = self.extents.shed(keep, idle_us, now.mono_us) {
            self.superblock.current.set_written(extent, false);
        }
    }

    pub(crate) fn shedding_us(&self) -> Option<u64> {
        let read_only = self.commit.read_only;
        self.extents.shedding_us(self.kept_spares(), self.config.spare_idle_us).filter(|_| !read_only)
    }

    /// Removes what is no longer needed, a file at a time.
    fn remove_leftovers(&mut self, now: Now, out: &mut Vec<DiskOp>) {
        let waits = self.extents.remove_retry_us.is_some_and(|at| now.mono_us < at);
        if waits || self.extents.removing.is_some() {
            return;
        }
        self.extents.remove_retry_us = None;
        let Some(file) = self.extents.leftover.pop() else { return };
        self.extents.removing = Some(file);
        out.push(DiskOp::Remove { id: Purpose::Remove.id(), file });
    }

    pub(crate) fn on_removed(&mut self, result: Result<u32, DiskError>, now: Now) {
        /// Linux' ENOENT: it is gone.
        const NOT_FOUND: DiskError = DiskError::Io { errno: 2 };
        let Some(file) = self.extents.removing.take() else { return };
        if result.is_err_and(|error| error != NOT_FOUND) {
            self.extents.leftover.push(file);
            self.extents.remove_retry_us = Some(now.mono_us + RETRY_US);
        }
    }

    /// Keeps a window of zeros ahead of the head, and at the start of the next extent, while the disk has time.
    pub(crate) fn zero_ahead(&mut self, out: &mut Vec<DiskOp>) {
        let busy = self.commit.submitted > self.commit.durable;
        if self.config.preparation != Preparation::ZeroAhead
            || self.extents.zeroing.is_some()
            || self.commit.read_only
            || self.commit.submitted_frames > 1
        {
            return;
        }
        let window = self.config.zero_ahead_bytes;
        let bytes = self.extents.bytes;
        let head = self.extents.head().and_then(|head| {
            let from = head.prepared.max(head.end + if busy { ZERO_DISTANCE } else { 0 });
            let wanted = (head.end + window).min(bytes);
            // Half a window of hysteresis: zeros come in runs, not one with each frame.
            let low = head.prepared < (head.end + window / 2).min(bytes);
            (low && from < wanted).then(|| (head.extent, from, wanted.min(from + ZERO_BYTES)))
        });
        let spare = || {
            let spare = self.extents.spare.front()?;
            let wanted = window.min(bytes);
            (spare.prepared < wanted)
                .then(|| (spare.extent, spare.prepared, wanted.min(spare.prepared + ZERO_BYTES)))
        };
        let Some((extent, from, to)) = head.or_else(spare) else { return };
        self.extents.zeroing = Some(Zeroing { extent, from, to });
        self.counters.zeroed_bytes += to - from;
        out.push(DiskOp::Zero {
            id: Purpose::Zero { extent }.id(),
            file: FileName::Extent(extent),
            position: from,
            bytes: to - from,
        });
    }

    /// A failure is not repeated: preparation makes writes cheaper, nothing depends on it.
    pub(crate) fn on_zeroed(&mut self, extent: u32, _: Result<u32, DiskError>) {
        let Some(zero) = self.extents.zeroing.take_if(|zero| zero.extent == extent) else { return };
        let live = self.extents.live.iter_mut().find(|live| live.file() == FileName::Extent(extent));
        if let Some(live) = live {
            live.prepared = live.prepared.max(zero.to);
        }
        if let Some(spare) = self.extents.spare.iter_mut().find(|spare| spare.extent == extent) {
            spare.prepared = spare.prepared.max(zero.to);
        }
    }

    fn write_footers(&mut self) {
        let part_bytes = self.footers.part_bytes();
        while let Some((generation, part)) = self.footers.next_part() {
            if self.extents.by_generation(generation).is_none() {
                self.footers.forget(generation);
                continue;
            }
            if self.room(1, part_bytes, Claim::Own).is_err() {
                return;
            }
            let payload = self.footers.encode(part, &self.groups);
            let length = payload.len() as u32;
            let payload = std::mem::take(payload);
            let appended = self.append_control(EntryKind::Footer, GroupId::LOG, 0, &payload);
            let frame = self.queue.frames.back().expect("the entry is in it");
            let offset = appended.slice.offset - frame.offset - crate::frame::ENTRY_HEADER_BYTES as u32;
            self.footers.appended(payload, appended.frame, offset, length);
        }
    }

    /// Chooses extents beyond the retention cap and moves the log starts of what they hold. They stay readable
    /// for nobody, and on the disk until a checkpoint without them is durable.
    fn doom(&mut self) {
        let Some(cap) = self.config.retention_bytes else { return };
        let Some(generation) = self.extents.doom(cap) else { return };
        for slot in self.groups.slots() {
            let moved = self.groups.pass_rows(slot, generation);
            let group = self.groups.at(slot);
            if moved && !group.dropped {
                self.moved_starts.push_back((slot, group.log_start));
            }
        }
    }

    /// Takes back the extents that the last full checkpoint left out, once no superblock copy and no checkpoint points
    /// at them.
    fn recycle(&mut self) {
        if !self.checkpoints.recyclable(self.superblock.settled()) {
            return;
        }
        for live in self.extents.live.iter().filter(|live| live.fate == Fate::Leaving) {
            self.footers.forget(live.generation);
        }
        self.counters.recycled_extents += self.extents.recycle() as u64;
    }

    /// On a full disk, where an index is all that keeps an extent: writes that index once more, at the head.
    fn move_footers(&mut self, now: Now, out: &mut Vec<DiskOp>) {
        if !self.footers.settled() || !self.checkpoints.is_idle() || self.commit.read_only {
            return;
        }
        if let Some(generation) = self.extents.index_to_move() {
            self.move_index_of(generation, now, out);
        }
    }

    /// Writes an index once more, at the head, or loads it for that.
    pub(crate) fn move_index_of(&mut self, generation: u64, now: Now, out: &mut Vec<DiskOp>) {
        if self.footers.failed_us.is_some_and(|at| now.mono_us < at + RETRY_US) {
            return;
        }
        if !self.footers.move_index(generation) && self.footers.loading.is_none() {
            self.begin_loading(generation, None, out);
        }
    }

    pub(crate) fn note_written_extents(&mut self) {
        let nearly = self.extents.bytes - 2 * self.config.max_frame_bytes() as u64;
        let superblock = &mut self.superblock.current;
        let extents = self.extents.live.iter().chain(&self.extents.superseded).filter(|live| !live.pack);
        for live in extents {
            superblock.set_written(live.extent, live.prepared.max(live.end) >= nearly);
        }
        for spare in self.extents.spare.iter().chain(&self.extents.retiring) {
            superblock.set_written(spare.extent, spare.prepared >= nearly);
        }
    }
}
