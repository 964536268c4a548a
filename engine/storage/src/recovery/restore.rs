//! The chain of checkpoints that the superblock names: complete, or the log is refused by name.

use corelog_model::limits::FRAME_ALIGN;

use super::plan;
use super::reader::Reader;
use super::scan::{Entry, Scan, Step, entries_of};
use super::{Opening, Replay, Replayed, Stage};
use crate::checkpoint::{CheckpointKind, PartHeader};
use crate::error::OpenError;
use crate::frame::EntryKind;
use crate::op::{DiskOp, FileName};

impl Opening {
    /// Goes through the chain of checkpoints, oldest first, then on to the scan.
    pub(super) fn read_checkpoint(
        &mut self,
        at: usize,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        let Some(place) = self.superblock.checkpoints.get(at).copied() else {
            return self.plan(replay, out);
        };
        let error = OpenError::Checkpoint { extent: place.extent, position: place.position };
        let known = self.candidates.iter().any(|candidate| candidate.extent == place.extent);
        if !known
            || !place.position.is_multiple_of(FRAME_ALIGN as u64)
            || place.position >= self.config.extent_bytes
        {
            return Err(error);
        }
        let (reader, scan) = self.read_from(place.extent, place.generation, place.position);
        self.reader.replace(reader, &mut self.pool);
        self.stage = Stage::Checkpoint { at, scan, extent: place.extent, parts: Vec::new(), owner: 0 };
        self.advance(replay, out)
    }

    /// Frames of an extent from `position` to its seal, or to its end.
    fn read_from(&self, extent: u32, generation: u64, position: u64) -> (Reader, Scan) {
        let sealed = plan::successor(&self.candidates, generation).map(|(_, first)| first.seal.position);
        let end = sealed.unwrap_or(u64::MAX).min(self.config.extent_bytes);
        let reader = Reader::new(FileName::Extent(extent), position, end);
        (reader, Scan::at(self.seed, generation, position, end))
    }

    pub(super) fn advance_checkpoint(
        &mut self,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        let Stage::Checkpoint { at, scan, parts, owner, .. } = &mut self.stage else { return Ok(()) };
        let at = *at;
        let place = self.superblock.checkpoints[at];
        let broken = OpenError::Checkpoint { extent: place.extent, position: place.position };
        let mut complete = false;
        while !complete {
            let header = match scan.step(self.reader.bytes(), self.reader.at_end()) {
                Step::NeedMore => {
                    self.reader.pump(&mut self.pool, &mut self.ticket, out);
                    return if self.pool.len() < self.blocks { Ok(()) } else { Err(broken) };
                }
                Step::Frame { header, damaged: false } => header,
                Step::End => return self.continue_checkpoint(broken, replay, out),
                _ => return Err(broken),
            };
            let frame = &self.reader.bytes()[..header.length as usize];
            let mut sound = true;
            entries_of(&header, self.seed, frame, |entry| {
                let Entry::Sound { header, payload, .. } = entry else { return };
                let part = match header.kind {
                    EntryKind::Checkpoint => {
                        PartHeader::decode(payload).filter(|(part, _)| part.id == place.id)
                    }
                    _ => None,
                };
                let Some((part, content)) = part else { return };
                if part.part == 0 && part.kind == CheckpointKind::Full {
                    self.applied.reset();
                }
                if part.owner {
                    replay(Replayed::Checkpoint { kind: part.kind, part: *owner, bytes: content });
                    *owner += 1;
                } else {
                    parts.push(content.to_vec());
                }
                complete = part.part + 1 == part.parts;
                sound &= !complete || self.applied.checkpoint(part.kind, &parts.concat());
            });
            if !sound {
                return Err(broken);
            }
            scan.taken(&header);
            self.checkpointed = self.checkpointed.max(header.sequence);
            self.reader.consume(header.length as usize);
        }
        self.read_checkpoint(at + 1, replay, out)
    }

    /// The checkpoint runs on into the next extent.
    fn continue_checkpoint(
        &mut self,
        broken: OpenError,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        let Stage::Checkpoint { scan, .. } = &self.stage else { return Ok(()) };
        let Some((next, first)) = plan::successor(&self.candidates, scan.generation()) else {
            return Err(broken);
        };
        let (reader, following) = self.read_from(next, first.generation, 0);
        self.reader.replace(reader, &mut self.pool);
        if let Stage::Checkpoint { scan, extent, .. } = &mut self.stage {
            (*scan, *extent) = (following, next);
        }
        self.advance(replay, out)
    }
}
