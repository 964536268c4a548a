//! The index of an extent from its frames: what a damaged footer is replaced by. Pure: bytes in, runs out.
//!
//! **Invariant:** only what verifies makes a run; what is missing between runs is for the caller to name.

use corelog_model::batch::BatchHeader;
use corelog_model::limits::FRAME_ALIGN;

use crate::extent::Live;
use crate::frame::{EntryHeader, FRAME_HEADER_BYTES, FrameHeader, FrameSeed};
use crate::groups::Groups;
use crate::index::{Run, Runs};
use crate::settle::pack_generation;
use crate::sound::{Sound, sound_entries};

/// How far an extent has been read, and what was found.
#[derive(Debug)]
pub(crate) struct Derivation {
    /// As its frames have it.
    generation: u64,
    first_sequence: u64,
    /// Where the extent ends.
    end: u64,
    /// Next byte of the extent to be looked at.
    position: u64,
    /// Of the last frame found.
    sequence: u64,
    /// One per batch, in log order.
    batches: Vec<Run>,
}

impl Derivation {
    pub(crate) const fn new(live: &Live) -> Self {
        Self {
            generation: if live.pack { pack_generation(live.extent) } else { live.generation },
            first_sequence: live.first_sequence,
            end: live.end,
            position: 0,
            sequence: 0,
            batches: Vec::new(),
        }
    }

    /// What to read next, at most `bytes` of it; `None` at the extent's end.
    pub(crate) fn wanted(&self, bytes: u32) -> Option<(u64, u32)> {
        let left = self.end.saturating_sub(self.position);
        (left > 0).then(|| (self.position, left.min(u64::from(bytes)) as u32))
    }

    /// Takes what was read from the wanted position: `length` was asked for, and `bytes` came. Goes on behind
    /// the last whole frame, and behind whatever cannot be read.
    pub(crate) fn take(&mut self, bytes: &[u8], length: u32, seed: FrameSeed, groups: &mut Groups) {
        let mut at = 0;
        while bytes.len() - at >= FRAME_HEADER_BYTES {
            let position = self.position + at as u64;
            let header = FrameHeader::decode(&bytes[at..], seed, position);
            at += match header.filter(|header| self.belongs(header)).map(|header| (header, header.length)) {
                Some((header, length)) if at + length as usize <= bytes.len() => {
                    self.frame(&header, &bytes[at..at + length as usize], seed, groups);
                    length as usize
                }
                // Cut off by the end of the read: it is read again, from its start.
                Some(_) if at > 0 => break,
                // Larger than any read.
                Some((_, length)) => length as usize,
                None => FRAME_ALIGN,
            };
            at = at.min(bytes.len());
        }
        self.position += if at > 0 { at as u64 } else { u64::from(length) };
    }

    fn belongs(&self, header: &FrameHeader) -> bool {
        header.generation == self.generation
            && header.sequence > self.sequence
            && header.sequence >= self.first_sequence
            && header.position + u64::from(header.length) <= self.end
    }

    fn frame(&mut self, header: &FrameHeader, bytes: &[u8], seed: FrameSeed, groups: &mut Groups) {
        self.sequence = header.sequence;
        let Ok(frame) = u32::try_from(header.sequence - self.first_sequence) else { return };
        let mut add = |entry: EntryHeader, batch: &BatchHeader, at: usize| {
            let start = header.position as u32 + at as u32;
            self.batches.push(Run {
                first_offset: batch.base_offset,
                last_offset: batch.last_offset(),
                max_timestamp_us: batch.max_timestamp_us,
                slot: groups.slot(entry.group),
                start,
                end: start + entry.total_bytes() as u32,
                frame,
                bytes: entry.total_bytes() as u32,
            });
        };
        // Of a batch whose body is bad whoever reads it finds the damage, and names exactly that one.
        sound_entries(
            bytes,
            FRAME_HEADER_BYTES,
            header.used as usize,
            seed.entries(header.sequence),
            |sound| {
                if let Sound::Batch { entry, batch, position, .. } = sound {
                    add(entry, &batch, position);
                }
            },
        );
    }

    /// The index: what a frame holds of a group is one run.
    pub(crate) fn finish(mut self) -> Runs {
        self.batches.sort_unstable_by_key(|run| (run.slot, run.first_offset));
        self.batches.dedup_by(|batch, run| {
            let same = (batch.slot, batch.frame) == (run.slot, run.frame);
            if same {
                run.last_offset = batch.last_offset;
                run.max_timestamp_us = run.max_timestamp_us.max(batch.max_timestamp_us);
                run.end = batch.end;
                run.bytes += batch.bytes;
            }
            same
        });
        Runs { sorted: self.batches, first_sequence: self.first_sequence }
    }
}
