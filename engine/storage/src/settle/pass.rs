//! One pass: frames of the pack are filled from the sources, then written; and, at the end, the pack's own index.

use corelog_model::time::Now;
use corelog_model::{GroupId, Slice, Term};

use super::copy::{Heading, Unsound, copy_piece};
use super::layout::fetch;
use super::{Stage, pack_sequence};
use crate::extent::FooterAt;
use crate::frame::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind, FRAME_HEADER_BYTES, FrameSeed};
use crate::index::Run;
use crate::log::Log;
use crate::op::{DiskCompletion, DiskError, DiskOp, FileName, Purpose};

const WRITES_IN_FLIGHT: usize = 2;

impl Log {
    /// Goes on with the frames from this one on; behind the last one comes the index.
    pub(super) fn begin_pass(&mut self, from: usize) {
        let settle = &mut self.settle;
        let to = (from + settle.frames.len()).min(settle.layout.frames());
        if from == to {
            settle.runs.sort();
            settle.stage = Stage::Footers { part: 0 };
            return;
        }
        settle.pass = from..to;
        settle.next = 0;
        let pieces = settle.layout.pieces(&settle.pass);
        settle.order.clear();
        settle.order.extend(pieces.map(|at| at as u32));
        let list = &settle.pieces;
        settle.order.sort_unstable_by_key(|at| (list[*at as usize].source, list[*at as usize].start));
        settle.stage = Stage::Reading;
    }

    pub(super) fn read_sources(&mut self, now: Now, out: &mut Vec<DiskOp>) {
        let most = self.settling_most(self.settle.readers.len(), now);
        let settle = &mut self.settle;
        while settle.next < settle.order.len() && settle.in_flight < most {
            let Some(at) = settle.readers.iter().position(|reader| reader.block.is_some()) else { return };
            let block = settle.readers[at].block.as_ref().expect("it is here");
            let fetch = fetch(&settle.pieces, &settle.order, settle.next, block.len());
            settle.next = fetch.to;
            let source = settle.pieces[settle.order[fetch.from] as usize].source;
            let reader = &mut settle.readers[at];
            reader.fetch = fetch;
            settle.in_flight += 1;
            settle.pace.begun(now);
            self.counters.settle_read_bytes += u64::from(fetch.length);
            out.push(DiskOp::Read {
                id: Purpose::SettleRead { reader: at as u32 }.id(),
                file: settle.sources[source as usize].file,
                position: fetch.position,
                length: fetch.length,
                into: reader.block.take().expect("it is here"),
            });
        }
    }

    pub(crate) fn on_settle_read(&mut self, reader: u32, completion: DiskCompletion, now: Now) {
        let settle = &mut self.settle;
        let Some(reader) = settle.readers.get_mut(reader as usize).filter(|reader| reader.block.is_none())
        else {
            return;
        };
        let id = reader.id;
        reader.block = completion.block.filter(|block| block.id() == id);
        let fetch = reader.fetch;
        settle.in_flight -= 1;
        settle.pace.ended(now);
        if settle.stage == Stage::Draining {
            return self.end_draining();
        }
        if !completion.result.is_ok_and(|found| found >= fetch.length) {
            return self.give_up(now);
        }
        if self.copy_pieces(fetch.from, fetch.to, id).is_err() {
            return self.give_up_for_good(now);
        }
        let settle = &mut self.settle;
        if settle.next == settle.order.len() && settle.in_flight == 0 {
            (settle.stage, settle.next) = (Stage::Writing, settle.pass.start);
        }
    }

    /// Copies what a read brought to where it belongs.
    fn copy_pieces(&mut self, from: usize, to: usize, id: corelog_model::BlockId) -> Result<(), Unsound> {
        let settle = &mut self.settle;
        let reader = settle.readers.iter().find(|reader| reader.id == id).ok_or(Unsound)?;
        let bytes = reader.block.as_ref().ok_or(Unsound)?.bytes();
        for at in &settle.order[from..to] {
            let index = *at as usize;
            let piece = settle.pieces[index];
            let source = settle.sources[piece.source as usize];
            let start = (u64::from(piece.start) - reader.fetch.position) as usize;
            let run = &bytes[start..start + (piece.end - piece.start) as usize];
            let frame = settle.layout.frame_of(index);
            let seed = |sequence| self.seed.entries(sequence);
            let (from, to) = (
                seed(source.first_sequence + u64::from(piece.frame)),
                seed(pack_sequence(settle.pack) + frame as u64),
            );
            let room = &mut settle.frames[frame - settle.pass.start].block.bytes_mut()[piece.at as usize..];
            let room = &mut room[..piece.bytes as usize];
            let group = self.groups.at(piece.slot).id;
            settle.pieces[index].found = copy_piece(&piece, group, run, from, to, room)?;
        }
        Ok(())
    }

    pub(super) fn write_frames(&mut self, now: Now, out: &mut Vec<DiskOp>) {
        let most = self.settling_most(WRITES_IN_FLIGHT, now);
        while self.settle.next < self.settle.pass.end && self.settle.in_flight < most {
            let (frame, block) = (self.settle.next, self.settle.next - self.settle.pass.start);
            self.settle.next += 1;
            let used = self.close_up(frame, block);
            self.write_frame(block, used, now, out);
        }
    }

    /// Moves the pieces of a frame together and notes its runs; where its entries end.
    fn close_up(&mut self, frame: usize, block: usize) -> u32 {
        let settle = &mut self.settle;
        let bytes = settle.frames[block].block.bytes_mut();
        let mut used = FRAME_HEADER_BYTES as u32;
        for piece in &settle.pieces[settle.layout.frame(frame)] {
            bytes.copy_within(piece.at as usize..(piece.at + piece.found) as usize, used as usize);
            let start = settle.end as u32 + used;
            used += piece.found;
            let run = Run {
                first_offset: piece.first_offset,
                last_offset: piece.last_offset,
                max_timestamp_us: piece.max_timestamp_us,
                slot: piece.slot,
                start,
                end: start + piece.found,
                frame: settle.frame,
                bytes: piece.found,
            };
            let before = settle.runs.sorted.last_mut();
            match before.filter(|before| (before.slot, before.frame) == (run.slot, run.frame)) {
                Some(before) => before.extend(&run),
                None => settle.runs.sorted.push(run),
            }
        }
        used
    }

    /// Seals the frame in a block and hands it to the disk, behind those before it.
    fn write_frame(&mut self, block: usize, used: u32, now: Now, out: &mut Vec<DiskOp>) {
        let settle = &mut self.settle;
        let heading = Heading {
            seed: self.seed,
            log: self.config.log,
            term: self.term,
            pack: settle.pack,
            frame: settle.frame,
            position: settle.end,
            previous_crc: settle.crc,
            wall_us: now.wall_us,
        };
        let frame = &mut settle.frames[block];
        let (length, crc) = heading.seal(frame.block.bytes_mut(), used);
        (frame.busy, frame.length) = (true, length);
        (settle.frame, settle.crc) = (settle.frame + 1, crc);
        settle.in_flight += 1;
        settle.pace.begun(now);
        out.push(DiskOp::WriteFrame {
            id: Purpose::SettleWrite { block: block as u32 }.id(),
            file: FileName::Pack(settle.pack),
            position: settle.end,
            source: Slice { block: frame.block.id(), offset: 0, length },
            flush: false,
        });
        settle.end += u64::from(length);
        self.counters.settled_bytes += u64::from(length);
    }

    pub(crate) fn on_settle_write(&mut self, block: u32, result: Result<u32, DiskError>, now: Now) {
        let settle = &mut self.settle;
        let Some(frame) = settle.frames.get_mut(block as usize).filter(|frame| frame.busy) else { return };
        frame.busy = false;
        settle.in_flight -= 1;
        settle.pace.ended(now);
        let whole = result == Ok(frame.length);
        match settle.stage {
            Stage::Draining => self.end_draining(),
            _ if !whole => self.give_up(now),
            Stage::Writing if settle.next == settle.pass.end && settle.in_flight == 0 => {
                self.begin_pass(self.settle.pass.end);
            }
            _ => {}
        }
    }

    /// Writes the parts of the pack's index, a frame each, then has all of it flushed.
    pub(super) fn write_pack_index(&mut self, part: usize, now: Now, out: &mut Vec<DiskOp>) {
        if self.settle.in_flight > 0 || self.settling_most(1, now) == 0 {
            return;
        }
        let part_bytes = self.footers.part_bytes();
        let settle = &mut self.settle;
        if part == settle.runs.parts(part_bytes) {
            settle.stage = Stage::Syncing;
            settle.in_flight = 1;
            let (id, file) = (Purpose::SettleSync { pack: settle.pack }.id(), FileName::Pack(settle.pack));
            return out.push(DiskOp::Sync { id, file });
        }
        let generation = settle.generations().1;
        settle.runs.encode_part(generation, part, part_bytes, &self.groups, &mut settle.scratch);
        let length = settle.scratch.len();
        let sequence = pack_sequence(settle.pack) + u64::from(settle.frame);
        let bytes = settle.frames[0].block.bytes_mut();
        let used = put_entry(bytes, &settle.scratch, self.term, self.seed, sequence);
        settle.footers.push(FooterAt {
            generation,
            sequence,
            position: settle.end as u32 + FRAME_HEADER_BYTES as u32,
            length: length as u32,
        });
        settle.stage = Stage::Footers { part: part + 1 };
        self.write_frame(0, used, now, out);
    }

    pub(crate) fn on_settle_sync(&mut self, pack: u32, result: Result<u32, DiskError>, now: Now) {
        let settle = &mut self.settle;
        if settle.pack != pack || settle.stage != Stage::Syncing {
            return;
        }
        settle.in_flight = 0;
        match result {
            Ok(_) => settle.stage = Stage::Switching,
            Err(_) => self.give_up(now),
        }
    }
}

/// A part of the index as the one entry of a frame; where it ends.
fn put_entry(frame: &mut [u8], payload: &[u8], term: Term, seed: FrameSeed, sequence: u64) -> u32 {
    let (kind, length) = (EntryKind::Footer, payload.len() as u32);
    let header = EntryHeader { kind, group: GroupId::LOG, index: 0, term, length };
    let entry = &mut frame[FRAME_HEADER_BYTES..][..header.total_bytes()];
    entry[ENTRY_HEADER_BYTES..].fill(0);
    entry[ENTRY_HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
    header.encode(seed.entries(sequence), entry);
    (FRAME_HEADER_BYTES + header.total_bytes()) as u32
}
