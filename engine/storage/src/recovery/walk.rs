//! The extents behind the newest checkpoint, frame by frame, oldest first.

use super::plan;
use super::reader::Reader;
use super::scan::{Scan, Step};
use super::{Opening, Replay, Replayed, Stage};
use crate::error::OpenError;
use crate::frame::FrameHeader;
use crate::op::{DiskOp, FileName};

impl Opening {
    pub(super) fn plan(&mut self, replay: &mut Replay<'_>, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        let last = self.superblock.checkpoints.last();
        self.applied.expect_checkpoint(last.map(|place| place.id));
        for live in &self.applied.extents.live {
            if live.pack {
                let bytes = self.listing.files.iter().find(|(file, _)| *file == live.file());
                if bytes.is_none_or(|(_, bytes)| *bytes < live.end) {
                    return Err(OpenError::MissingPack { pack: live.extent });
                }
                continue;
            }
            let file = self.candidates.iter().find(|candidate| candidate.extent == live.extent);
            // One of an earlier use is what a lost write leaves: what the extent holds is damaged, and named when it is read.
            let newer = |first: FrameHeader| first.generation > live.generation;
            if file.is_none_or(|candidate| candidate.first.is_some_and(newer)) {
                return Err(OpenError::MissingExtent { extent: live.extent });
            }
        }
        let head = (self.superblock.head_extent, self.superblock.head_generation);
        self.planned = plan::chain(
            &self.candidates,
            self.applied.listed,
            last.map(|place| (place.extent, place.generation)),
            head,
        );
        self.scan(0, replay, out)
    }

    fn scan(&mut self, at: usize, replay: &mut Replay<'_>, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        let Some(planned) = self.planned.get(at) else {
            let nothing = Reader::new(FileName::Superblock, 0, 0);
            self.reader.replace(nothing, &mut self.pool);
            self.applied.finish(replay);
            self.stage = Stage::Draining;
            return self.advance(replay, out);
        };
        if !self.candidates.iter().any(|candidate| candidate.extent == planned.extent) {
            return Err(OpenError::MissingExtent { extent: planned.extent });
        }
        let bytes = self.config.extent_bytes;
        let scan = match planned.seal {
            Some(seal) => {
                Scan::sealed(self.seed, planned.generation, seal.position.min(bytes), seal.sequence)
            }
            None => Scan::tail(self.seed, planned.generation, bytes, planned.begun),
        };
        let end = planned.seal.map_or(bytes, |seal| seal.position.min(bytes));
        let reader = Reader::new(FileName::Extent(planned.extent), 0, end);
        self.reader.replace(reader, &mut self.pool);
        self.applied.begin_extent(planned);
        self.stage = Stage::Scan { at, scan };
        self.advance(replay, out)
    }

    pub(super) fn advance_scan(
        &mut self,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        loop {
            let Stage::Scan { at, scan } = &mut self.stage else { return Ok(()) };
            let at = *at;
            match scan.step(self.reader.bytes(), self.reader.at_end()) {
                Step::NeedMore => {
                    self.reader.pump(&mut self.pool, &mut self.ticket, out);
                    return Ok(());
                }
                Step::Frame { header, damaged } => {
                    let frame = &self.reader.bytes()[..header.length as usize];
                    self.term = self.term.max(header.term);
                    self.applied.frame(&header, frame, damaged, replay);
                    scan.taken(&header);
                    self.reader.consume(header.length as usize);
                }
                Step::Skipped { bytes } => self.reader.consume(bytes),
                Step::Lost { first, last } => self.applied.lost(first, last, replay),
                Step::Again { position } => {
                    let end = self.config.extent_bytes;
                    let file = FileName::Extent(self.planned[at].extent);
                    self.reader.replace(Reader::new(file, position, end), &mut self.pool);
                }
                Step::Tail { end, torn } => {
                    if torn > 0 {
                        replay(Replayed::TailCut { frames: torn });
                    }
                    let last = scan.last_sequence();
                    self.end_extent(at, end, last, replay, out)?;
                    return Ok(());
                }
                Step::End => {
                    let (end, last) = (scan.position, scan.last_sequence());
                    self.end_extent(at, end, last, replay, out)?;
                    return Ok(());
                }
            }
        }
    }

    fn end_extent(
        &mut self,
        at: usize,
        end: u64,
        last: Option<u64>,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        if let Stage::Scan { scan, .. } = &self.stage
            && let Some(last) = last
        {
            self.last_sequence = self.last_sequence.max(last);
            self.last_crc = scan.last_crc();
        }
        self.applied.end_extent(end, last);
        self.scan(at + 1, replay, out)
    }
}
