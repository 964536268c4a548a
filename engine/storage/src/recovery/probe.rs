//! The first frame of every extent: generations, terms and seals, before anything is read in order.

use corelog_model::limits::FRAME_ALIGN;

use super::plan::{self, Candidate};
use super::reader::failure;
use super::{Opening, Replay, Stage};
use crate::error::OpenError;
use crate::frame::FrameHeader;
use crate::op::{DiskCompletion, DiskOp, FileName, Purpose};
use crate::salvage::{Salvage, Salvaged, Wanted};

impl Opening {
    /// Reads the first header of every extent that has the right size.
    pub(super) fn probe(&mut self, replay: &mut Replay<'_>, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        self.listing.files.sort_unstable();
        self.candidates = self
            .listing
            .files
            .iter()
            .filter_map(|(file, bytes)| match file {
                FileName::Extent(extent) if *bytes == self.config.extent_bytes => {
                    Some(Candidate { extent: *extent, first: None, is_unreadable: false })
                }
                _ => None,
            })
            .collect();
        self.stage = Stage::Probe { next: 0, outstanding: 0, again: Vec::new() };
        self.pump_probe(out);
        self.end_probe(replay, out)
    }

    fn pump_probe(&mut self, out: &mut Vec<DiskOp>) {
        let Stage::Probe { next, outstanding, .. } = &mut self.stage else { return };
        while *next < self.candidates.len() {
            let Some(into) = self.pool.pop() else { return };
            out.push(DiskOp::Read {
                id: Purpose::OpeningRead { ticket: *next as u64 }.id(),
                file: FileName::Extent(self.candidates[*next].extent),
                position: 0,
                length: FRAME_ALIGN as u32,
                into,
            });
            *next += 1;
            *outstanding += 1;
        }
    }

    pub(super) fn on_probe(
        &mut self,
        completion: DiskCompletion,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        let Stage::Probe { outstanding, again, .. } = &mut self.stage else { return Ok(()) };
        let Some(Purpose::OpeningRead { ticket }) = Purpose::of(completion.id) else { return Ok(()) };
        let (Some(candidate), Some(mut block)) = (self.candidates.get_mut(ticket as usize), completion.block)
        else {
            return Ok(());
        };
        // Behind what came the block holds what was read into it before: the first frame of another extent, perhaps. So
        // less than all is nothing.
        let (file, length) = (FileName::Extent(candidate.extent), FRAME_ALIGN as u32);
        let salvaging = again.iter().position(|(of, _)| *of == ticket);
        let salvaged = match salvaging {
            None if completion.result == Ok(length) => Salvaged::Done { lost: 0 },
            None => {
                again.push((ticket, Salvage::new(file, 0, length)));
                Salvaged::More
            }
            Some(at) => again[at].1.take(completion.result, &mut block, self.now.mono_us),
        };
        match (salvaged, again.iter().find(|(of, _)| *of == ticket)) {
            (Salvaged::More, Some((_, salvage))) => {
                let Wanted { file, position, length } = salvage.wanted();
                out.push(DiskOp::Read { id: completion.id, file, position, length, into: block });
                return Ok(());
            }
            (Salvaged::Refused, _) => {
                let error = failure(completion.result, length);
                return Err(OpenError::Disk { file, position: 0, error });
            }
            (salvaged, _) => candidate.is_unreadable = salvaged == Salvaged::Done { lost: 1 },
        }
        *outstanding -= 1;
        candidate.first = FrameHeader::decode(&block.bytes()[..FRAME_ALIGN], self.seed, 0);
        self.pool.push(block);
        self.pump_probe(out);
        self.end_probe(replay, out)
    }

    fn end_probe(&mut self, replay: &mut Replay<'_>, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        if !matches!(self.stage, Stage::Probe { outstanding: 0, .. }) {
            return Ok(());
        }
        for first in self.candidates.iter().filter_map(|candidate| candidate.first) {
            self.generation = self.generation.max(first.generation);
            self.term = self.term.max(first.term);
            self.last_sequence = self.last_sequence.max(first.sequence);
        }
        let head = (self.superblock.head_generation, self.superblock.head_extent);
        let places = self.superblock.checkpoints.iter().map(|place| (place.generation, place.extent));
        plan::pass_strays(&mut self.candidates, places.chain([head]));
        self.read_checkpoint(0, replay, out)
    }
}
