//! From a frame in memory to a durable one: cutting, placing, the contiguous prefixes, beacons, failures.
//!
//! **Invariants:** acknowledgements follow the contiguous durable prefix only. An extent is left only when all
//! of it is durable, so frames under way are always of one extent, and the seal in the next first frame speaks
//! of durable frames. After a failed write or flush nothing that was under way counts, whatever its completion
//! said: the frames move together, once, to a fresh extent; if that fails too the log is read-only.

use corelog_model::time::Now;

use crate::append::Place;
use crate::config::DurableMethod;
use crate::extent::Claim;
use crate::frame::{FLAG_BEACON, FLAG_FIRST, FLAG_START, FrameHeader, Seal};
use crate::index::Run;
use crate::log::Log;
use crate::op::{DiskCompletion, DiskError, DiskOp, FileName, Purpose};

pub(crate) struct Commit {
    /// Contiguous prefixes, inclusive: `durable <= written <= submitted`.
    pub(crate) durable: u64,
    pub(crate) written: u64,
    pub(crate) submitted: u64,
    /// Frames at the front of the queue that have a place: `submitted - durable`.
    pub(crate) submitted_frames: usize,
    /// Frames in flight asked for.
    pub(crate) limit: u8,
    /// The limit that a durable frame has announced: recovery knows of it.
    proven_limit: u8,
    writes: u32,
    sync: Option<Syncing>,
    next_ticket: u64,
    /// Header CRC of the last frame submitted, and of the last durable one.
    previous_crc: u32,
    durable_crc: u32,
    /// Where the last durable frame ends, in its extent.
    durable_end: u64,
    failed: bool,
    /// Frames up to this one have been moved once.
    moved_to: Option<u64>,
    pub(crate) read_only: bool,
    /// When the last frame became durable, and whether a beacon has to prove it; monotonic microseconds.
    pub(crate) last_durable_us: u64,
    unproven: bool,
    /// A beacon is due and finds no room, which no time brings: whoever reads has to give blocks back.
    beacon_waits: bool,
    /// The head the superblock has to name once this frame is durable.
    new_head: Option<(u64, Place)>,
}

struct Syncing {
    ticket: u64,
    upto: u64,
}

impl Commit {
    pub(crate) const fn new(last_sequence: u64, previous_crc: u32, limit: u8) -> Self {
        Self {
            durable: last_sequence,
            written: last_sequence,
            submitted: last_sequence,
            submitted_frames: 0,
            limit,
            proven_limit: 1,
            writes: 0,
            sync: None,
            next_ticket: 0,
            previous_crc,
            durable_crc: previous_crc,
            durable_end: 0,
            failed: false,
            moved_to: None,
            read_only: false,
            last_durable_us: 0,
            unproven: false,
            beacon_waits: false,
            new_head: None,
        }
    }

    pub(crate) fn in_flight_limit(&self) -> usize {
        usize::from(self.limit.min(self.proven_limit))
    }
}

impl Log {
    /// Once a turn, after completions and appends: hands out whatever the disk should do next.
    pub fn cut(&mut self, now: Now, out: &mut Vec<DiskOp>) {
        self.cold.pass(now);
        self.end_waits();
        if self.commit.failed && self.commit.writes == 0 && self.commit.sync.is_none() {
            self.void_in_flight();
        }
        self.upkeep(now, out);
        self.beacon(now);
        self.submit_frames(now, out);
        self.sync(out);
        self.zero_ahead(out);
        self.go_on_loading(out);
        self.go_on_salvaging(out);
        self.go_on_scrubbing(now, out);
    }

    fn submit_frames(&mut self, now: Now, out: &mut Vec<DiskOp>) {
        while !self.commit.failed
            && !self.commit.read_only
            && self.commit.submitted_frames < self.commit.in_flight_limit()
        {
            let Some(frame) = self.queue.frames.get(self.commit.submitted_frames) else { return };
            if frame.length == 0 {
                // Small writes side by side slow each other down: the one in flight is waited for, and grouped behind.
                if self.commit.submitted_frames > 0 && frame.used < self.config.parallel_frame_bytes {
                    return;
                }
                self.close_frame();
            }
            if !self.submit(now, out) {
                return;
            }
        }
    }

    /// Places the next frame and hands it to the disk; false when it has to wait.
    fn submit(&mut self, now: Now, out: &mut Vec<DiskOp>) -> bool {
        let frame = self.queue.frames[self.commit.submitted_frames];
        let length = u64::from(frame.length);
        let fits = !self.extents.leave_head
            && self.extents.head().is_some_and(|head| head.end + length <= self.extents.bytes);
        let mut flags = frame.flags;
        let mut seal = Seal::default();
        if !fits {
            if self.commit.submitted_frames > 0 {
                return false;
            }
            let Some(sealed) = self.roll(frame.sequence, length) else { return false };
            seal = sealed;
            flags |= FLAG_FIRST;
        }
        let head = self.extents.head().expect("the frame fits the head");
        let place = Place { generation: head.generation, extent: head.extent, position: head.end };
        if self.extents.is_zeroing(place.extent, place.position, place.position + length) {
            return false;
        }
        if flags & FLAG_FIRST != 0 {
            self.commit.new_head = Some((frame.sequence, place));
        }
        let header = FrameHeader {
            crc: 0,
            flags,
            log: self.config.log,
            entries: frame.entries,
            generation: place.generation,
            sequence: frame.sequence,
            position: place.position,
            length: frame.length,
            used: frame.used,
            durable_sequence: self.commit.durable,
            in_flight_limit: u16::from(self.commit.limit),
            term: self.term,
            previous_crc: self.commit.previous_crc,
            entries_crc: frame.entries_crc,
            wall_us: now.wall_us,
            seal,
        };
        let bytes = &mut self.arena.bytes_mut(frame.block)[frame.offset as usize..];
        let crc = header.encode(self.seed, bytes);
        self.note_submitted(place, crc, frame.length, now);
        out.push(DiskOp::WriteFrame {
            id: Purpose::Frame { sequence: frame.sequence }.id(),
            file: FileName::Extent(place.extent),
            position: place.position,
            source: self.arena.slice(frame.block, frame.offset, frame.length),
            flush: self.config.durable_method == DurableMethod::Dsync,
        });
        true
    }

    fn note_submitted(&mut self, place: Place, crc: u32, length: u32, now: Now) {
        let frame = &mut self.queue.frames[self.commit.submitted_frames];
        (frame.place, frame.crc, frame.limit) = (Some(place), crc, self.commit.limit);
        let frame = *frame;
        let head = self.extents.head_mut().expect("a frame was placed in it");
        head.end += u64::from(length);
        head.last_sequence = frame.sequence;
        head.worthy |= frame.worthy;
        if frame.window.0 < frame.window.1 {
            head.newest_us = head.newest_us.max(now.wall_us);
        }
        self.commit.previous_crc = crc;
        self.commit.submitted = frame.sequence;
        self.commit.submitted_frames += 1;
        self.commit.writes += 1;
        self.counters.frames += 1;
        self.counters.bytes_written += u64::from(length);
        self.counters.beacons += u64::from(frame.flags & FLAG_BEACON != 0);
        self.checkpoints.since_bytes += u64::from(length);
        for id in frame.window.0..frame.window.1 {
            let entry = *self.window.get(id).expect("entries stay until their frame is durable");
            let start = place.position as u32 + (entry.offset - frame.offset)
                - crate::frame::ENTRY_HEADER_BYTES as u32;
            let run = Run {
                first_offset: entry.first_offset,
                last_offset: entry.last_offset,
                max_timestamp_us: entry.max_timestamp_us,
                slot: entry.slot,
                start,
                end: start + crate::frame::ENTRY_HEADER_BYTES as u32 + entry.length,
                frame: 0,
                bytes: crate::frame::ENTRY_HEADER_BYTES as u32 + entry.length,
            };
            self.runs.add(&mut self.groups, run, frame.sequence);
        }
        self.footers.placed(frame.sequence, place);
        self.checkpoints.placed(frame.sequence, place);
    }

    /// Leaves the head, all of which is durable, for a spare extent.
    fn roll(&mut self, sequence: u64, length: u64) -> Option<Seal> {
        let (seal, head) = self.extents.roll(sequence, length)?;
        let generation = head.generation;
        self.close_runs();
        self.runs.restart(generation, sequence, &mut self.groups);
        Some(seal)
    }

    /// The index of the extent that was the head: it goes to a footer, unless there is nothing in it.
    fn close_runs(&mut self) {
        if self.runs.generation().is_none() {
            return;
        }
        let (closed, runs) = self.runs.close(&mut self.groups, self.footers.buffer());
        let live = self.extents.by_generation_mut(closed).expect("runs are of a live extent");
        runs.rows(closed, &self.groups).for_each(|row| live.add_row(row));
        live.scattered = runs.is_scattered();
        live.indexed = runs.sorted.is_empty();
        if live.indexed {
            self.footers.take_back(runs.sorted);
        } else {
            self.footers.closed(closed, runs);
        }
    }

    fn sync(&mut self, out: &mut Vec<DiskOp>) {
        let ready = self.config.durable_method == DurableMethod::Fdatasync
            && self.commit.sync.is_none()
            && self.commit.written > self.commit.durable
            && !self.commit.failed;
        let Some(head) = self.extents.head().filter(|_| ready) else { return };
        let ticket = self.commit.next_ticket;
        self.commit.next_ticket += 1;
        self.commit.sync = Some(Syncing { ticket, upto: self.commit.written });
        out.push(DiskOp::Sync { id: Purpose::Sync { ticket }.id(), file: FileName::Extent(head.extent) });
    }

    /// A frame without entries, when the last one has no successor to prove it durable.
    fn beacon(&mut self, now: Now) {
        let due_us = self.commit.last_durable_us.saturating_add(self.config.beacon_us);
        let idle = self.commit.unproven && self.queue.frames.is_empty() && !self.commit.read_only;
        let leaves = self.extents.leave_head && self.queue.frames.is_empty();
        let due = ((idle && now.mono_us >= due_us) || leaves) && !self.commit.read_only;
        self.commit.beacon_waits = due && self.room(1, 0, Claim::Own).is_err();
        if due && !self.commit.beacon_waits {
            self.open_frame(0, FLAG_BEACON);
        }
    }

    /// When `cut` has something to do even if nothing else happens, monotonic microseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        let beacon = self.commit.last_durable_us.saturating_add(self.config.beacon_us);
        let awaited = self.commit.unproven && self.queue.frames.is_empty() && !self.commit.beacon_waits;
        let beacon = awaited.then_some(beacon);
        let removal = self.extents.remove_retry_us.filter(|_| self.extents.removing.is_none());
        let all = [
            beacon,
            removal,
            self.extents.retry_us,
            self.superblock.retry_us(),
            self.settle.next_deadline(),
            self.shedding_us(),
            self.cold.next_piece_us(),
            self.meet.next_look_us(self.cold.now_us()),
            self.scrub.next_deadline(),
        ];
        all.into_iter().flatten().min()
    }

    /// Takes the answer to an operation. Call [`Log::cut`] afterwards in the same turn.
    pub fn on(&mut self, completion: DiskCompletion, now: Now) {
        match Purpose::of(completion.id) {
            Some(Purpose::Frame { sequence }) => self.on_frame(sequence, completion.result, now),
            Some(Purpose::Sync { ticket }) => self.on_sync(ticket, completion.result, now),
            Some(Purpose::ColdRead { slot }) => self.on_cold_read(slot, completion),
            Some(Purpose::Scrub) => self.on_scrub(completion, now),
            Some(Purpose::Create { extent }) => self.on_created(extent, completion.result, now),
            Some(Purpose::Zero { extent }) => self.on_zeroed(extent, completion.result),
            Some(Purpose::Superblock { copy }) => {
                self.superblock.on_written(copy, completion.result.is_ok(), now);
            }
            Some(Purpose::Remove) => self.on_removed(completion.result, now),
            Some(Purpose::CreatePack { pack }) => self.on_pack_created(pack, completion.result, now),
            Some(Purpose::SettleRead { reader }) => self.on_settle_read(reader, completion, now),
            Some(Purpose::SettleWrite { block }) => self.on_settle_write(block, completion.result, now),
            Some(Purpose::SettleSync { pack }) => self.on_settle_sync(pack, completion.result, now),
            // Not of this log's making; whoever sent it, the log's state does not depend on it.
            Some(Purpose::OpeningRead { .. } | Purpose::OpeningSync { .. }) | None => {}
        }
    }

    fn on_frame(&mut self, sequence: u64, result: Result<u32, DiskError>, now: Now) {
        let Some(at) = self.queue.by_sequence(sequence).filter(|at| *at < self.commit.submitted_frames)
        else {
            return;
        };
        let frame = &mut self.queue.frames[at];
        if frame.written || self.commit.writes == 0 {
            return;
        }
        self.commit.writes -= 1;
        if result != Ok(frame.length) {
            self.commit.failed = true;
            return;
        }
        frame.written = true;
        let mut at = (self.commit.written - self.commit.durable) as usize;
        while self.queue.frames.get(at).is_some_and(|frame| frame.written) {
            self.commit.written += 1;
            at += 1;
        }
        if self.config.durable_method == DurableMethod::Dsync && !self.commit.failed {
            self.advance_durable(self.commit.written, now);
        }
    }

    fn on_sync(&mut self, ticket: u64, result: Result<u32, DiskError>, now: Now) {
        let Some(sync) = self.commit.sync.take_if(|sync| sync.ticket == ticket) else { return };
        match result {
            // A write that failed meanwhile does not touch what was written before this flush began.
            Ok(_) => self.advance_durable(sync.upto, now),
            Err(_) => self.commit.failed = true,
        }
    }

    /// The one place where the durable prefix moves.
    fn advance_durable(&mut self, upto: u64, now: Now) {
        assert!(self.commit.durable <= upto && upto <= self.commit.written, "durable <= written");
        while self.commit.durable < upto {
            let frame = self.queue.frames.pop_front().expect("a submitted frame is in the queue");
            let place = frame.place.expect("a written frame has a place");
            self.arena.release(frame.block);
            self.commit.submitted_frames -= 1;
            self.commit.durable = frame.sequence;
            self.commit.durable_crc = frame.crc;
            self.commit.durable_end = place.position + u64::from(frame.length);
            self.commit.proven_limit = frame.limit;
            // Neither a beacon nor a bare start has anything that needs proof.
            self.commit.unproven = frame.entries > 0;
            if frame.flags & FLAG_START != 0 {
                self.extents.release_retired();
            }
        }
        self.commit.last_durable_us = now.mono_us;
        if self.commit.moved_to.is_some_and(|moved| moved <= upto) {
            self.commit.moved_to = None;
        }
        if let Some((_, place)) = self.commit.new_head.take_if(|(sequence, _)| *sequence <= upto) {
            self.superblock.current.head_extent = place.extent;
            self.superblock.current.head_generation = place.generation;
            self.superblock.current.term = self.term;
            self.note_written_extents();
            self.superblock.touch();
        }
        self.trims_durable(upto);
        self.footers.durable(upto, &mut self.extents);
        self.checkpoint_durable(upto);
    }

    /// After a failure, once nothing is under way any more: takes back the place of every frame that is not
    /// durable and leaves the extent. The next first frame seals it behind the last durable frame; after a second
    /// failure there is none until the next start.
    fn void_in_flight(&mut self) {
        self.commit.failed = false;
        let durable = self.commit.durable;
        if self.commit.moved_to.is_some() {
            // The frames lose their places here too: a later flush that succeeds proves nothing of what an
            // earlier one lost, and must find nothing to call durable.
            self.commit.read_only = true;
        } else {
            self.counters.moved_frames += self.commit.submitted_frames as u64;
            self.commit.moved_to = Some(self.commit.submitted);
        }
        let voided = self.commit.submitted_frames;
        for frame in self.queue.frames.iter_mut().take(voided) {
            (frame.place, frame.written) = (None, false);
        }
        self.commit.submitted_frames = 0;
        self.commit.submitted = durable;
        self.commit.written = durable;
        self.commit.previous_crc = self.commit.durable_crc;
        self.commit.new_head = None;
        let Some(head) = self.extents.head_mut() else { return };
        if head.first_sequence > durable {
            // Its first frame never came to be: the file stays aside until the next start.
            self.extents.live.pop_back();
            self.runs.abandon(&mut self.groups);
        } else {
            head.end = self.commit.durable_end;
            head.last_sequence = durable;
            self.uncount(voided);
            self.runs.void_after(durable, &mut self.groups);
        }
        self.extents.open = false;
    }

    /// Batches of the first so many frames in the queue are not in the open extent any more.
    fn uncount(&mut self, frames: usize) {
        for frame in self.queue.frames.iter().take(frames) {
            for id in frame.window.0..frame.window.1 {
                let entry = *self.window.get(id).expect("entries stay until their frame is durable");
                let bytes = crate::frame::ENTRY_HEADER_BYTES as u64 + u64::from(entry.length);
                self.groups.at_mut(entry.slot).open_bytes -= bytes;
            }
        }
    }
}
