//! Reading: slices of the live window where it reaches, else one planned read from the disk.
//!
//! **Invariants:** what is given out is whole padded batches, in order, verified when they come from the disk.
//! Damaged offsets are named and never served. What a read brings is judged in `fill.rs`.

use corelog_model::Slice;
use corelog_model::limits::{BATCH_ALIGN, FRAME_ALIGN, round_up};

use crate::ahead::Planned;
use crate::cold::{ColdBatch, Finished, Job, RUNS_PER_READ, ReadFor};
use crate::frame::ENTRY_HEADER_BYTES;
use crate::groups::GroupSlot;
use crate::index::Run;
use crate::log::Log;
use crate::op::{DiskOp, FileName, Purpose};
use crate::salvage::Wanted;

/// A cold read covers at least this much where the group's runs are that dense, and at most a block.
pub(crate) const READ_BYTES: u32 = 128 << 10;
/// Bytes of other groups that a cold read passes over rather than end.
const GAP_BYTES: u32 = 128 << 10;

/// What a reader asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The group.
    pub slot: GroupSlot,
    /// The first batch given out contains it.
    pub offset: u64,
    /// Records at and behind it are not given out: the high watermark.
    pub end_offset: u64,
    /// Bytes of batches; the first batch is given out whatever its size.
    pub max_bytes: u32,
    /// Comes back through [`Log::finished`] when a pending read is over.
    pub token: u64,
}

/// What a reader gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// One slice per batch, each to be unpinned once.
    Ready {
        /// Behind the last record given out.
        next_offset: u64,
    },
    /// The disk is being asked; the token tells when to come back.
    Pending,
    /// No block or budget for another read: ask again next turn.
    Busy,
    /// Nothing before `end_offset`.
    Nothing,
    /// The offset is gone.
    BelowStart {
        /// First offset that can be read.
        log_start: u64,
    },
    /// These offsets were acknowledged and do not verify.
    Damaged {
        /// First offset.
        first: u64,
        /// Last offset.
        last: u64,
    },
}

/// Where a time lies in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFound {
    /// The first offset of the first batch (or, on the disk, run of batches) whose newest record is not older.
    At {
        /// The offset.
        offset: u64,
        /// Newest timestamp there, microseconds.
        timestamp_us: u64,
    },
    /// Every record is older.
    End,
    /// An index is being loaded; the token tells when to come back.
    Pending,
    /// No block or budget for a read: ask again next turn.
    Busy,
}

impl Log {
    /// Reads batches of a group: from memory at once, or asks the disk.
    pub fn read(&mut self, request: &ReadRequest, slices: &mut Vec<Slice>, out: &mut Vec<DiskOp>) -> Read {
        // What is accepted as lost is passed over; an answer never reaches across it.
        let passed = self.damage.passed(request.slot, request.offset);
        let request = &ReadRequest { offset: passed.unwrap_or(request.offset), ..*request };
        let Some(group) = self.groups.get(request.slot) else { return Read::Nothing };
        let (log_start, log_end, newest) = (group.log_start, group.log_end, group.newest);
        if request.offset < log_start || group.dropped {
            return Read::BelowStart { log_start };
        }
        if request.offset >= request.end_offset.min(log_end) {
            return Read::Nothing;
        }
        if let Some(damage) = self.damage.at(request.slot, request.offset) {
            return Read::Damaged { first: damage.first, last: damage.last };
        }
        if let Some(id) = self.window.find(newest, request.offset) {
            let first = self.window.get(id).map_or(0, |entry| entry.first_offset);
            if first > request.offset {
                return self.damaged(request, first);
            }
            return self.read_window(id, request, slices);
        }
        if let Some(at) = self.cold.filled(request.slot, request.offset) {
            let answer = self.read_filled(at, request, slices);
            if let Read::Ready { next_offset } = answer {
                self.meet.note(request.slot, request.offset, next_offset, self.cold.now_us());
            }
            if let Some(end) = self.cold.end_in_order(at) {
                self.read_ahead(request.slot, end, request.end_offset, out);
            }
            return answer;
        }
        if let Some(block) = self.cold.coming(request.slot, request.offset) {
            block.tokens.push(request.token);
            return Read::Pending;
        }
        self.read_disk(request, out)
    }

    /// Nothing holds the offset, and the group goes on at `next`.
    fn damaged(&mut self, request: &ReadRequest, next: u64) -> Read {
        let (first, last) = (request.offset, next - 1);
        self.damage.name(request.slot, first, last);
        // What is accepted of it is not named.
        let named = self.damage.at(request.slot, first);
        named.map_or(Read::Damaged { first, last }, |named| Read::Damaged {
            first,
            last: named.last.min(last),
        })
    }

    fn read_window(&mut self, from: u64, request: &ReadRequest, slices: &mut Vec<Slice>) -> Read {
        let (mut id, mut next_offset, mut bytes) = (Some(from), request.offset, 0_u32);
        while let Some(entry) = id.and_then(|id| self.window.get(id)) {
            let fits = bytes == 0 || bytes.saturating_add(entry.length) <= request.max_bytes;
            let passed = self.damage.passed(request.slot, entry.first_offset).is_some();
            let follows = bytes == 0 || (entry.first_offset == next_offset && !passed);
            if !fits || !follows || entry.last_offset >= request.end_offset {
                break;
            }
            slices.push(self.arena.slice(entry.block, entry.offset, entry.length));
            self.arena.pin(entry.block);
            bytes += entry.length;
            next_offset = entry.last_offset + 1;
            id = id.and_then(|id| self.window.next(id));
        }
        match bytes {
            0 => Read::Nothing,
            _ => Read::Ready { next_offset },
        }
    }

    fn read_filled(&mut self, at: usize, request: &ReadRequest, slices: &mut Vec<Slice>) -> Read {
        let from = self.cold.blocks[at].batches.partition_point(|batch| batch.last_offset < request.offset);
        let (mut next_offset, mut bytes) = (request.offset, 0_u32);
        for index in from..self.cold.blocks[at].batches.len() {
            let ColdBatch { slice, last_offset } = self.cold.blocks[at].batches[index];
            let fits = bytes == 0 || bytes.saturating_add(slice.length) <= request.max_bytes;
            if !fits || last_offset >= request.end_offset {
                break;
            }
            slices.push(slice);
            self.cold.pin(at);
            bytes += slice.length;
            next_offset = last_offset + 1;
        }
        match bytes {
            0 => Read::Nothing,
            _ => Read::Ready { next_offset },
        }
    }

    /// Plans and issues a read of the batches from `offset` on.
    fn read_disk(&mut self, request: &ReadRequest, out: &mut Vec<DiskOp>) -> Read {
        let (slot, offset) = (request.slot, request.offset);
        self.meet.note(slot, offset, offset, self.cold.now_us());
        if self.meet.is_in_order(slot, offset)
            && self.meet.is_somebody_behind(slot, offset, &self.cold)
            && self.meet.wait(slot, offset, request.token, self.cold.now_us())
        {
            return Read::Pending;
        }
        let Some(at) = self.cold.free(READ_BYTES) else { return Read::Busy };
        let in_order = self.cold.ends_at(slot, offset);
        let bytes = if in_order { u32::MAX } else { request.max_bytes };
        match self.plan_read(at, slot, offset, bytes) {
            Planned::Read { job, file, position, length } => {
                self.cold.blocks[at].tokens.push(request.token);
                self.issue_read(at, job, file, position, length, out);
                if in_order {
                    self.cold.read_for(at, ReadFor::OneInOrder);
                }
                Read::Pending
            }
            Planned::NeedsIndex { generation } => self.load_index(slot, generation, request.token, out),
            // The index goes on behind this offset, or only the window does, or nothing: the records are lost.
            Planned::Lost { behind } => {
                let group = self.groups.at(slot);
                let oldest = self.window.oldest(group.newest).and_then(|id| self.window.get(id));
                let in_window = oldest.map(|entry| entry.first_offset).filter(|first| *first > offset);
                self.damaged(request, behind.or(in_window).unwrap_or(group.log_end))
            }
            Planned::Gone => Read::BelowStart { log_start: self.groups.at(slot).log_start },
        }
    }

    pub(crate) fn issue_read(
        &mut self,
        at: usize,
        job: Job,
        file: FileName,
        position: u64,
        length: u32,
        out: &mut Vec<DiskOp>,
    ) {
        self.counters.cold_reads += 1;
        self.counters.cold_bytes += u64::from(length);
        let into = self.cold.lend(at, job, Wanted { file, position, length });
        let id = Purpose::ColdRead { slot: at as u32 }.id();
        out.push(DiskOp::Read { id, file, position, length, into });
    }

    /// Runs of the group from `offset` on, through level 1 and level 2 of the index.
    pub(crate) fn find_runs(&mut self, slot: GroupSlot, offset: u64, runs: &mut Vec<Run>) -> Found {
        let group = self.groups.at(slot);
        let at = group.rows.partition_point(|row| row.last_offset < offset);
        let Some(row) = group.rows.get(at) else {
            // Runs are noted when their frames are submitted. What is not durable may not be there yet, or may
            // still move; it is in the window.
            self.runs.runs_from(group.newest_run, offset, RUNS_PER_READ, runs);
            runs.truncate(self.runs.durable(runs, self.commit.durable));
            return match self.runs.generation() {
                Some(generation) => Found::Runs { generation },
                None => Found::Nowhere,
            };
        };
        let generation = row.generation;
        match self.footers.get(generation) {
            Some(index) => {
                index.runs_from(slot, offset, RUNS_PER_READ, runs);
                Found::Runs { generation }
            }
            None => Found::NeedsIndex { generation },
        }
    }

    /// Readers that have waited for others for long enough, or need not any more, may ask again.
    pub(crate) fn end_waits(&mut self) {
        let mut finished = std::mem::take(&mut self.cold.finished);
        self.meet.pass(&self.cold, &mut finished);
        self.cold.finished = finished;
    }

    /// Reads that are over.
    pub fn finished(&mut self, reads: &mut Vec<Finished>) {
        reads.append(&mut self.cold.finished);
    }

    /// Whether there are any: the last of an index ends in a cut, after which nothing more may happen by itself.
    pub fn has_finished(&self) -> bool {
        !self.cold.finished.is_empty()
    }

    /// Where the first batch of a group, of those at or above its log start, whose newest record is at or behind a time begins, or the batches of one frame that
    /// it lies among: only the window tells the batches of a frame apart.
    pub fn offset_for_time(
        &mut self,
        slot: GroupSlot,
        time_us: u64,
        token: u64,
        out: &mut Vec<DiskOp>,
    ) -> TimeFound {
        let Some(group) = self.groups.get(slot) else { return TimeFound::End };
        let (newest, log_start) = (group.newest, group.log_start);
        // What made the oldest row's newest time may lie below the log start; what the others have is all there.
        let mut rows = group.rows.iter().filter(|row| row.max_timestamp_us >= time_us).copied();
        for row in [rows.next(), rows.next()].into_iter().flatten() {
            let (generation, timestamp_us) = (row.generation, row.max_timestamp_us);
            let Some(runs) = self.footers.get(generation) else {
                return match self.load_index(slot, generation, token, out) {
                    Read::Pending => TimeFound::Pending,
                    // Its records went with their extent.
                    Read::BelowStart { log_start } => TimeFound::At { offset: log_start, timestamp_us },
                    _ => TimeFound::Busy,
                };
            };
            let from = runs.sorted.partition_point(|run| run.slot < slot);
            let mut runs = runs.sorted[from..].iter().take_while(|run| run.slot == slot);
            if let Some(run) =
                runs.find(|run| run.last_offset >= log_start && run.max_timestamp_us >= time_us)
            {
                let offset = run.first_offset.max(log_start);
                return TimeFound::At { offset, timestamp_us: run.max_timestamp_us };
            }
        }
        let oldest = self.window.oldest(newest);
        let in_window =
            oldest.and_then(|id| self.window.get(id)).map_or(u64::MAX, |entry| entry.first_offset);
        let is_found = |run: &&Run| run.last_offset >= log_start && run.max_timestamp_us >= time_us;
        if let Some(run) = self.runs.of_group(slot).find(is_found) {
            // The window tells batches apart where the run only knows the frame.
            if run.first_offset < in_window {
                let offset = run.first_offset.max(log_start);
                return TimeFound::At { offset, timestamp_us: run.max_timestamp_us };
            }
        }
        let mut id = oldest;
        while let Some(entry) = id.and_then(|id| self.window.get(id)) {
            if entry.last_offset >= log_start && entry.max_timestamp_us >= time_us {
                let offset = entry.first_offset.max(log_start);
                return TimeFound::At { offset, timestamp_us: entry.max_timestamp_us };
            }
            id = id.and_then(|id| self.window.next(id));
        }
        TimeFound::End
    }
}

pub(crate) enum Found {
    Runs { generation: u64 },
    NeedsIndex { generation: u64 },
    Nowhere,
}

/// Cuts the runs to what one read takes; gives back where it starts and how long it is.
pub(crate) fn plan(runs: &mut Vec<Run>, max_bytes: u32, block_bytes: u32) -> (u64, u32) {
    let align = FRAME_ALIGN as u32;
    let start = runs[0].start & !(align - 1);
    let mut wanted = runs[0].end - runs[0].start;
    let mut end = runs[0].end;
    let mut count = 1;
    for run in &runs[1..] {
        let dense = run.start >= end && run.start - end <= GAP_BYTES;
        let fits = round_up((run.end - start) as usize, FRAME_ALIGN) as u32 <= block_bytes;
        if !dense || !fits || wanted >= max_bytes.max(READ_BYTES) {
            break;
        }
        wanted += run.end - run.start;
        end = run.end;
        count += 1;
    }
    runs.truncate(count);
    (u64::from(start), (round_up((end - start) as usize, FRAME_ALIGN) as u32).min(block_bytes))
}

const _: () = assert!(ENTRY_HEADER_BYTES.is_multiple_of(BATCH_ALIGN));
