//! From a batch to a frame in memory: room, the one copy, the entry header, the patched batch header.
//!
//! Frames wait in a queue in the order of their sequences: submitted ones, closed ones, at most one open. A frame
//! is closed when the next entry would carry it over the target or out of its block, or when it is cut.
//!
//! **Invariant:** sequences in the queue are consecutive; bytes of a closed frame behind its header never change.

use std::collections::VecDeque;

use corelog_model::batch::{BATCH_HEADER_BYTES, BatchHeader, Patch};
use corelog_model::limits::{BATCH_ALIGN, FRAME_ALIGN, round_up};
use corelog_model::{GroupId, Slice};

use crate::arena::BlockIndex;
use crate::error::Full;
use crate::extent::Claim;
use crate::frame::{
    ENTRY_COVERS_BYTES, ENTRY_HEADER_BYTES, EntryHeader, EntryKind, FRAME_HEADER_BYTES, chain,
};
use crate::groups::GroupSlot;
use crate::log::Log;
use crate::window::Placed;

/// Frames that may wait at once; the window's memory bounds them earlier in practice.
pub(crate) const QUEUE_MAX: usize = 1024;

/// Where an entry went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Sequence of the frame it is in: durable once [`Log::durable_frame`] has reached it.
    pub frame: u64,
    /// The padded batch, or the payload. Not pinned.
    pub slice: Slice,
}

/// Where a frame was put on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) generation: u64,
    pub(crate) extent: u32,
    pub(crate) position: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) sequence: u64,
    pub(crate) block: BlockIndex,
    /// Of the frame in its block.
    pub(crate) offset: u32,
    pub(crate) used: u32,
    /// With padding; 0 while the frame is open.
    pub(crate) length: u32,
    pub(crate) entries: u32,
    pub(crate) entries_crc: u32,
    pub(crate) entry_seed: u32,
    /// Its entries in the window: from, to.
    pub(crate) window: (u64, u64),
    pub(crate) flags: u8,
    /// Holds an entry that is not the log's own.
    pub(crate) worthy: bool,
    pub(crate) place: Option<Place>,
    pub(crate) written: bool,
    /// Of its header, once submitted.
    pub(crate) crc: u32,
    /// The in-flight limit its header announces.
    pub(crate) limit: u8,
}

pub(crate) struct Queue {
    pub(crate) frames: VecDeque<Frame>,
    pub(crate) next_sequence: u64,
}

impl Queue {
    pub(crate) fn new(next_sequence: u64) -> Self {
        Self { frames: VecDeque::with_capacity(QUEUE_MAX + 2), next_sequence }
    }

    pub(crate) fn open(&self) -> Option<&Frame> {
        self.frames.back().filter(|frame| frame.length == 0)
    }

    pub(crate) fn by_sequence(&self, sequence: u64) -> Option<usize> {
        let at = usize::try_from(sequence.checked_sub(self.frames.front()?.sequence)?).ok()?;
        (at < self.frames.len()).then_some(at)
    }
}

impl Log {
    /// Whether `entries` batches with `payload_bytes` in all (each padded to 16) can be appended now. Nothing
    /// changes for the caller when they cannot: ask again next turn. A single batch has room as soon as anything
    /// is evicted; the bound for several is conservative. On a disk that fills up this is refused first.
    pub fn room_for(&mut self, entries: usize, payload_bytes: usize) -> Result<(), Full> {
        self.room(entries, payload_bytes, Claim::Batches)
    }

    /// Whether one control entry of the owner can be appended now. On a full disk there is room for a few, which
    /// comes back with the next checkpoint.
    pub fn room_for_change(&mut self, payload_bytes: usize) -> Result<(), Full> {
        self.room(1, payload_bytes, Claim::Changes)
    }

    pub(crate) fn room(&mut self, entries: usize, payload: usize, claim: Claim) -> Result<(), Full> {
        if self.commit.read_only {
            return Err(Full::ReadOnly);
        }
        if claim == Claim::Batches && self.is_index_full() {
            return Err(Full::Index);
        }
        let bytes = payload + entries * ENTRY_HEADER_BYTES;
        let frames = bytes / self.target as usize + 2;
        let on_disk = bytes + frames * (FRAME_HEADER_BYTES + FRAME_ALIGN);
        self.room_on_disk(on_disk, claim)?;
        if self.queue.frames.len() + frames.min(entries + 1) >= QUEUE_MAX || !self.entries_fit(entries as u64)
        {
            return Err(Full::Window);
        }
        if entries == 1 && self.fits_current(payload) {
            return Ok(());
        }
        let blocks = match entries {
            1 => 1,
            // A frame does not straddle blocks: each block may lose one maximal entry and its frame's overhead.
            _ => {
                let block = self.arena.block_bytes() as usize;
                let whole = block.saturating_sub(self.config.max_frame_bytes());
                match whole {
                    0 => entries,
                    _ => on_disk.div_ceil(whole).min(entries),
                }
            }
        };
        while self.arena.free_blocks() < blocks {
            let Some(end) = self.arena.evict_oldest() else { return Err(Full::Window) };
            self.window.evict_before(end);
        }
        Ok(())
    }

    /// Whether so many bytes, and all that waits for a place, fit behind the head without touching the spares that
    /// are not this claim's.
    fn room_on_disk(&mut self, bytes: usize, claim: Claim) -> Result<(), Full> {
        let max_frame = self.config.max_frame_bytes() as u64;
        let wanted = self.waiting_bytes() + bytes as u64;
        let spares = self.extents.spare.len().checked_sub(claim.leaves()).ok_or(Full::Extents)? as u64;
        if self.extents.room(spares, max_frame) < wanted {
            self.extents.leave_head |= claim == Claim::Changes && self.extents.is_short();
            return Err(Full::Extents);
        }
        // Batches that wait for the head must not be carried into the reserve by what comes behind them.
        if claim != Claim::Batches
            && self.extents.room(0, max_frame) < wanted
            && self.queue.open().is_some_and(|frame| frame.entries > 0)
        {
            self.close_frame();
        }
        Ok(())
    }

    /// Bytes of frames that have no place on the disk yet.
    fn waiting_bytes(&self) -> u64 {
        let waiting = self.queue.frames.iter().rev().take_while(|frame| frame.place.is_none());
        waiting.map(|frame| round_up(frame.used as usize, FRAME_ALIGN) as u64).sum()
    }

    /// Makes room in the window's index; entries that are not durable stay.
    fn entries_fit(&mut self, entries: u64) -> bool {
        let missing = entries.saturating_sub(self.window.free_entries());
        if missing > 0 {
            let keep = self.queue.frames.front().map_or(self.window.head(), |frame| frame.window.0);
            self.window.evict_before((self.window.tail() + missing).min(keep));
        }
        self.window.free_entries() >= entries
    }

    /// Whether one more payload fits into the open frame, or into a new one in the current block.
    fn fits_current(&self, payload: usize) -> bool {
        let need = ENTRY_HEADER_BYTES + round_up(payload, BATCH_ALIGN);
        match self.queue.open() {
            Some(frame) => {
                self.fits_open(frame, need) || {
                    let closed = round_up(frame.used as usize, FRAME_ALIGN);
                    closed + round_up(FRAME_HEADER_BYTES + need, FRAME_ALIGN)
                        <= self.arena.remaining() as usize
                }
            }
            None => round_up(FRAME_HEADER_BYTES + need, FRAME_ALIGN) <= self.arena.remaining() as usize,
        }
    }

    fn fits_open(&self, frame: &Frame, need: usize) -> bool {
        let length = round_up(frame.used as usize + need, FRAME_ALIGN);
        (frame.entries == 0 || length <= self.target as usize) && length <= self.arena.remaining() as usize
    }

    /// Appends a padded batch: copies it into the open frame, patches its header there. [`Log::room_for`] said
    /// yes, and the batch was checked.
    ///
    /// # Panics
    /// When the offset is not behind the group's last one, or the batch is not one that `BatchHeader::parse`
    /// accepts: both are the caller's.
    pub fn append_batch(&mut self, slot: GroupSlot, index: u64, batch: &[u8], patch: &Patch) -> Appended {
        let group = self.groups.at(slot);
        let (topic, partition) = group.topic.expect("a group is opened before it is appended to");
        assert!(patch.base_offset >= group.log_end, "offsets are not used twice");
        assert!(
            batch.len().is_multiple_of(BATCH_ALIGN) && batch.len() <= self.config.max_batch_bytes as usize
        );
        let (id, newest) = (group.id, group.newest);
        let at = self.place_entry(batch.len());
        let frame = *self.queue.frames.back().expect("a frame is open");
        let payload = (frame.offset + at) as usize + ENTRY_HEADER_BYTES;
        self.arena.write(frame.block, payload, batch, ENTRY_COVERS_BYTES);
        let bytes = &mut self.arena.bytes_mut(frame.block)[payload..payload + batch.len()];
        BatchHeader::patch(bytes, patch, topic, partition);
        let header = BatchHeader::parse(bytes).expect("the batch was checked");
        let slice = self.finish_entry(EntryKind::Batch, id, index, at, batch.len());
        let placed = Placed {
            slot,
            block: frame.block,
            offset: slice.offset,
            length: slice.length,
            first_offset: header.base_offset,
            last_offset: header.last_offset(),
            max_timestamp_us: header.max_timestamp_us,
        };
        let entry = self.window.push(placed, newest);
        self.arena.note_entry(frame.block, entry + 1);
        let group = self.groups.at_mut(slot);
        group.newest = entry;
        group.log_end = header.next_offset();
        group.last_index = index;
        let frame = self.queue.frames.back_mut().expect("a frame is open");
        frame.window.1 = entry + 1;
        frame.worthy = true;
        Appended { frame: frame.sequence, slice }
    }

    /// Appends a control entry of a group, or of the log itself.
    ///
    /// # Panics
    /// When the payload is larger than `max_batch_bytes`, or no room was asked for.
    pub fn append_control(
        &mut self,
        kind: EntryKind,
        group: GroupId,
        index: u64,
        payload: &[u8],
    ) -> Appended {
        assert!(kind != EntryKind::Batch, "batches have their own way");
        assert!(payload.len() <= self.config.max_batch_bytes as usize);
        let at = self.place_entry(payload.len());
        let frame = *self.queue.frames.back().expect("a frame is open");
        let from = (frame.offset + at) as usize + ENTRY_HEADER_BYTES;
        let padded = &mut self.arena.bytes_mut(frame.block)[from..][..round_up(payload.len(), BATCH_ALIGN)];
        padded[..payload.len()].copy_from_slice(payload);
        padded[payload.len()..].fill(0);
        let slice = self.finish_entry(kind, group, index, at, payload.len());
        let worthy = !kind.is_internal();
        if worthy {
            let slot = self.groups.slot(group);
            self.groups.at_mut(slot).last_index = index;
        }
        let frame = self.queue.frames.back_mut().expect("a frame is open");
        // What is accepted as lost has to be there until a checkpoint says so.
        frame.worthy |= worthy || kind == EntryKind::AcceptedLoss;
        Appended { frame: frame.sequence, slice }
    }

    /// Opens a frame or goes on with the open one; gives back where in the frame the entry starts.
    fn place_entry(&mut self, payload: usize) -> u32 {
        let need = ENTRY_HEADER_BYTES + round_up(payload, BATCH_ALIGN);
        if self.queue.open().is_some_and(|frame| !self.fits_open(frame, need)) {
            self.close_frame();
        }
        if self.queue.open().is_none() {
            self.open_frame(need, 0);
        }
        self.queue.open().expect("just opened").used
    }

    pub(crate) fn open_frame(&mut self, need: usize, flags: u8) {
        if (self.arena.remaining() as usize) < round_up(FRAME_HEADER_BYTES + need, FRAME_ALIGN) {
            self.arena.advance();
        }
        let (block, offset) = self.arena.cursor().expect("a block is current");
        self.arena.hold(block);
        let sequence = self.queue.next_sequence;
        self.queue.next_sequence += 1;
        let head = self.window.head();
        self.queue.frames.push_back(Frame {
            sequence,
            block,
            offset,
            used: FRAME_HEADER_BYTES as u32,
            length: 0,
            entries: 0,
            entries_crc: 0,
            entry_seed: self.seed.entries(sequence),
            window: (head, head),
            flags,
            worthy: false,
            place: None,
            written: false,
            crc: 0,
            limit: 0,
        });
    }

    /// Writes the entry's header before the payload that is in place, and counts the entry.
    fn finish_entry(&mut self, kind: EntryKind, group: GroupId, index: u64, at: u32, length: usize) -> Slice {
        let header = EntryHeader { kind, group, index, term: self.term, length: length as u32 };
        let frame = self.queue.frames.back_mut().expect("a frame is open");
        let from = (frame.offset + at) as usize;
        let bytes = &mut self.arena.bytes_mut(frame.block)[from..from + header.total_bytes()];
        let crc = header.encode(frame.entry_seed, bytes);
        frame.entries_crc = chain(frame.entries_crc, crc);
        frame.entries += 1;
        frame.used += header.total_bytes() as u32;
        self.counters.entries += 1;
        self.arena.slice(frame.block, (from + ENTRY_HEADER_BYTES) as u32, length as u32)
    }

    /// Ends the open frame: pads it and leaves the space behind it to the next.
    pub(crate) fn close_frame(&mut self) {
        let frame = self.queue.frames.back_mut().filter(|frame| frame.length == 0).expect("a frame is open");
        frame.length = round_up(frame.used as usize, FRAME_ALIGN) as u32;
        let (from, to) = (frame.offset + frame.used, frame.offset + frame.length);
        self.arena.bytes_mut(frame.block)[from as usize..to as usize].fill(0);
        self.arena.carve(frame.length);
    }
}

const _: () = assert!(BATCH_HEADER_BYTES <= ENTRY_COVERS_BYTES);
