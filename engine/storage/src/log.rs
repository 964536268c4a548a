//! The log as one value: what its parts share, and the small questions it answers at once.
//!
//! The verbs live in files of their own: `append.rs`, `commit.rs`, `upkeep.rs`, `checkpoint.rs`, `read.rs`.
//!
//! **The order of the cursors** (frame sequences): `durable <= written <= submitted < next_sequence`.

use std::collections::VecDeque;

use corelog_model::{Block, BlockId, GroupId, Slice, Term, TopicId};

use crate::append::Queue;
use crate::arena::Arena;
use crate::checkpoint::Checkpoints;
use crate::cold::Cold;
use crate::commit::Commit;
use crate::config::{FRAMES_IN_FLIGHT_MAX, LogConfig, Settings};
use crate::damage::Damages;
use crate::extent::Extents;
use crate::footer::Footers;
use crate::frame::FrameSeed;
use crate::groups::{GroupSlot, Groups};
use crate::index::OpenRuns;
use crate::meet::Meet;
use crate::scrub::Scrub;
use crate::settle::Settle;
use crate::stats::{Counters, LogStats};
use crate::superblock::SuperblockWriter;
use crate::trim::Trims;
use crate::window::Window;

/// One open log. Made by [`crate::Opening`] alone.
pub struct Log {
    pub(crate) config: LogConfig,
    pub(crate) seed: FrameSeed,
    pub(crate) term: Term,
    /// Frame size at which a frame is cut, bytes.
    pub(crate) target: u32,
    pub(crate) arena: Arena,
    pub(crate) window: Window,
    pub(crate) groups: Groups,
    pub(crate) queue: Queue,
    pub(crate) commit: Commit,
    pub(crate) extents: Extents,
    pub(crate) runs: OpenRuns,
    pub(crate) footers: Footers,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) superblock: SuperblockWriter,
    pub(crate) cold: Cold,
    pub(crate) meet: Meet,
    pub(crate) scrub: Scrub,
    pub(crate) settle: Settle,
    pub(crate) damage: Damages,
    /// Groups of which the start could not tell whether lost frames held their newest records: all before the
    /// offset is accounted for.
    pub(crate) possibly_lost: Vec<(GroupSlot, u64)>,
    /// Until the owner has opened what it knows: of a group that the start never met, all may have been in frames
    /// that are lost.
    pub(crate) untold: bool,
    pub(crate) moved_starts: VecDeque<(GroupSlot, u64)>,
    pub(crate) trims: Trims,
    pub(crate) counters: Counters,
}

impl Log {
    /// Whether all these [features](crate::feature) are durable in the superblock: what they stand for may be written.
    pub const fn has(&self, features: u64) -> bool {
        self.superblock.features() & features == features
    }

    /// Of this start; rises by one at every start.
    pub const fn term(&self) -> Term {
        self.term
    }

    /// Gives the group its slot and the seed of its batch headers; harmless when repeated.
    pub fn open_group(&mut self, group: GroupId, topic: TopicId, partition: u32) -> GroupSlot {
        let slot = self.groups.slot(group);
        let opened = self.groups.at_mut(slot);
        let unmet = opened.topic.is_none() && opened.log_end == 0;
        opened.topic = Some((topic, partition));
        if unmet && self.untold && !self.possibly_lost.contains(&(slot, 0)) {
            self.possibly_lost.push((slot, 0));
        }
        // Recycling moves them all at once.
        self.moved_starts.reserve(self.groups.len());
        slot
    }

    /// The slot of a group that the log has seen.
    pub fn group(&self, group: GroupId) -> Option<GroupSlot> {
        self.groups.find(group)
    }

    /// The group's records are no longer served; its space comes back with its extents.
    pub fn drop_group(&mut self, slot: GroupSlot) {
        let group = self.groups.at_mut(slot);
        group.dropped = true;
        group.log_start = group.log_end;
        let rows = self.groups.take_rows(slot);
        self.extents.forget_rows(rows);
    }

    /// Drops every group with records that was not opened since the start: its deletion is not in a checkpoint yet.
    pub fn drop_unopened(&mut self) {
        self.untold = false;
        for slot in self.groups.slots() {
            let group = self.groups.at(slot);
            if group.topic.is_none() && group.log_end > 0 && !group.dropped {
                self.drop_group(slot);
            }
        }
    }

    /// First offset that can be read.
    pub fn log_start(&self, slot: GroupSlot) -> u64 {
        self.groups.at(slot).log_start
    }

    /// Offset behind the last appended record.
    pub fn log_end(&self, slot: GroupSlot) -> u64 {
        self.groups.at(slot).log_end
    }

    /// The owner knows from a checkpoint that the group went on to `end`. Where the log has found less, the frames that held
    /// the rest are lost: that is damage.
    pub fn reaches(&mut self, slot: GroupSlot, end: u64) {
        let group = self.groups.at_mut(slot);
        if group.dropped || end <= group.log_end {
            return;
        }
        let first = std::mem::replace(&mut group.log_end, end);
        self.damage.name(slot, first, end - 1);
        for (_, from) in self.possibly_lost.iter_mut().filter(|(of, _)| *of == slot) {
            *from = end.max(*from);
        }
    }

    /// Index of the group's newest entry; 0 when there is none.
    pub fn last_index(&self, slot: GroupSlot) -> u64 {
        self.groups.at(slot).last_index
    }

    /// Every frame up to this sequence is durable.
    pub const fn durable_frame(&self) -> u64 {
        self.commit.durable
    }

    /// The newest frame that anything was appended to.
    pub const fn newest_frame(&self) -> u64 {
        self.queue.next_sequence - 1
    }

    /// Every frame up to this sequence is written, perhaps not flushed.
    pub const fn written_frame(&self) -> u64 {
        self.commit.written
    }

    /// Whether appends are refused until the log is opened again.
    pub const fn is_read_only(&self) -> bool {
        self.commit.read_only
    }

    /// The bytes of a slice that this log gave out and nobody has unpinned.
    pub fn bytes(&self, slice: Slice) -> &[u8] {
        let block = match self.arena.index_of(slice.block) {
            Some(index) => self.arena.bytes(index),
            None => {
                let page = self.superblock.bytes(slice.block);
                let page = page.or_else(|| self.settle.bytes(slice.block));
                page.or_else(|| self.cold.bytes(slice.block)).expect("a slice lies in a block of the log")
            }
        };
        &block[slice.offset as usize..slice.end() as usize]
    }

    /// Ends the use of one slice that [`Log::read`] gave out.
    ///
    /// # Panics
    /// When no slice of the block is pinned: a pin ends once.
    pub fn unpin(&mut self, block: BlockId) {
        if !self.arena.unpin(block) {
            self.cold.unpin(block);
        }
    }

    /// Makes the live window larger by these blocks, of the same size as its first ones.
    ///
    /// # Panics
    /// When a block is of another size, or has a name that is taken or before the first one's.
    pub fn grow(&mut self, window: Vec<Block>) {
        self.arena.grow(window);
    }

    /// Blocks that must make room and are pinned: whoever sends from them moves or gives up. Those of cold reads
    /// only where `readers_wait` for one, or an index does.
    pub fn wanted(&mut self, readers_wait: bool, out: &mut Vec<BlockId>) {
        out.extend(self.arena.wanted());
        if readers_wait || self.index_waits() {
            out.extend(self.cold.wanted());
        }
    }

    /// When [`Log::wanted`] will want the block of a cold read, monotonic microseconds.
    pub fn next_wanted_us(&self, readers_wait: bool) -> Option<u64> {
        if readers_wait || self.index_waits() { self.cold.next_wanted_us() } else { None }
    }

    /// Whether an index is being loaded and has no block for its next piece.
    fn index_waits(&self) -> bool {
        self.footers.loading.is_some() && !self.cold.is_loading()
    }

    /// Log starts moved by recycling, and by trims that became durable, since the last call.
    pub fn moved_starts(&mut self, out: &mut Vec<(GroupSlot, u64)>) {
        out.extend(self.moved_starts.drain(..));
    }

    /// Takes new values; a larger number of frames in flight counts once a durable frame has announced it.
    pub fn set(&mut self, settings: Settings) {
        self.commit.limit = settings.frames_in_flight.clamp(1, FRAMES_IN_FLIGHT_MAX);
        let largest = self.config.max_frame_bytes() as u32;
        self.target = settings.frame_target_bytes.clamp(4096, largest);
        self.cold.set_budget(settings.cold_bytes_in_flight);
    }

    /// How many ranges are known to be damaged; never falls.
    pub fn damaged_ranges(&self) -> usize {
        self.damage.len()
    }

    /// What is known to be damaged: the first and the last offset of each range, in the order of finding.
    pub fn damage(&self) -> impl Iterator<Item = (GroupSlot, u64, u64)> {
        self.damage.iter().map(|damage| (damage.slot, damage.first, damage.last))
    }

    /// Groups whose newest records may have been in frames that are lost, and the offset up to which all is
    /// accounted for.
    pub fn possibly_lost(&self) -> impl Iterator<Item = (GroupSlot, u64)> {
        self.possibly_lost.iter().copied()
    }

    /// What the log has done and holds.
    pub fn stats(&self) -> LogStats {
        let (window_bytes, pins) = self.arena.usage();
        let (cold_used_bytes, cold_limit_bytes) = self.cold.usage();
        let packs = || self.extents.live.iter().filter(|live| live.pack);
        LogStats {
            frames: self.counters.frames,
            beacons: self.counters.beacons,
            bytes_written: self.counters.bytes_written,
            entries: self.counters.entries,
            moved_frames: self.counters.moved_frames,
            cold_reads: self.counters.cold_reads,
            cold_bytes: self.counters.cold_bytes,
            lost_sectors: self.counters.lost_sectors,
            scrubbed_bytes: self.scrub.counters.bytes,
            scrub_passes: self.scrub.counters.passes,
            scrub_passed_us: self.scrub.counters.passed_us,
            scrub_damaged_ranges: self.scrub.counters.damaged_ranges,
            scrub_broken_frames: self.scrub.counters.broken_frames,
            zeroed_bytes: self.counters.zeroed_bytes,
            recycled_extents: self.counters.recycled_extents,
            checkpoints: self.counters.checkpoints,
            settled_bytes: self.counters.settled_bytes,
            settle_read_bytes: self.counters.settle_read_bytes,
            packs_made: self.counters.packs_made,
            packs_abandoned: self.counters.packs_abandoned,
            derived_indexes: self.counters.derived_indexes,
            superblock_failures: self.superblock.failed_copies(),
            live_extents: self.extents.live.iter().filter(|live| !live.pack).count() as u64,
            live_packs: packs().count() as u64,
            pack_bytes: packs().map(|live| live.end).sum(),
            spare_extents: self.extents.spare.len() as u64,
            window_bytes,
            window_limit_bytes: self.arena.limit_bytes(),
            window_pins: pins,
            cold_used_bytes,
            cold_limit_bytes,
            damaged_ranges: self.damaged_ranges() as u64,
            accepted_ranges: self.accepted_ranges(),
            uncertain_groups: self.possibly_lost.len() as u64,
            groups: self.groups.len() as u64,
            index_bytes: self.groups.row_bytes() + self.runs.bytes() + self.footers.bytes(),
            read_only: self.commit.read_only,
            full: self.extents.is_full(self.config.max_frame_bytes() as u64),
            index_full: self.is_index_full(),
        }
    }

    /// Whether level 1 of the index has the memory that it may have. Extents that are closed with what was appended before
    /// add a row for each of their groups to it all the same.
    pub(crate) fn is_index_full(&self) -> bool {
        self.config.index_bytes.is_some_and(|most| self.groups.grown_bytes() >= most)
    }

    /// Asserts every invariant that spans parts; for tests and the simulator, after each event.
    pub fn check(&self) {
        let commit = &self.commit;
        assert!(commit.durable <= commit.written, "durable before written");
        assert!(commit.written <= commit.submitted, "written before submitted");
        assert!(commit.submitted < self.queue.next_sequence);
        assert_eq!(commit.submitted_frames as u64, commit.submitted - commit.durable);
        for (at, frame) in self.queue.frames.iter().enumerate() {
            assert_eq!(frame.sequence, commit.durable + 1 + at as u64, "sequences are consecutive");
            assert_eq!(frame.place.is_some(), at < commit.submitted_frames);
            assert!(frame.length != 0 || at + 1 == self.queue.frames.len(), "only the last frame is open");
        }
        self.extents.check();
        self.groups.check();
        self.extents.check_rows(&self.groups);
    }
}
