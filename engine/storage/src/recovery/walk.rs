//! The extents behind the newest checkpoint, frame by frame, oldest first.

use super::plan::{self, Candidate};
use super::reader::Reader;
use super::scan::{Scan, Step};
use super::{Opening, Replay, Replayed, Stage};
use crate::error::{Needed, OpenError};
use crate::op::{DiskOp, FileName};

impl Opening {
    pub(super) fn plan(&mut self, replay: &mut Replay<'_>, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        let last = self.superblock.checkpoints.last();
        self.applied.expect_checkpoint(last.map(|place| place.id));
        for at in 0..self.applied.extents.live.len() {
            let live = &self.applied.extents.live[at];
            if live.pack {
                let found = self.listing.files.iter().find(|(file, _)| *file == live.file());
                if found.is_none_or(|(_, bytes)| *bytes < live.end) {
                    return Err(OpenError::MissingPack { pack: live.extent });
                }
                continue;
            }
            let (extent, generation) = (live.extent, live.generation);
            let Some(file) = self.candidates.iter().position(|candidate| candidate.extent == extent) else {
                return Err(OpenError::MissingExtent { extent });
            };
            let newer = self.candidates[file].first.filter(|first| first.generation > generation);
            let Some(newer) = newer else { continue };
            // No extent that a checkpoint lists is used again before the superblock has gone on: a frame that is newer than
            // its head strays, and one that a newer start has passed over did.
            if newer.generation <= self.superblock.head_generation
                && !plan::is_superseded(&self.candidates, &newer)
            {
                return Err(OpenError::MissingExtent { extent });
            }
            self.candidates[file].first = None;
        }
        let head = (self.superblock.head_extent, self.superblock.head_generation);
        let named: Vec<_> =
            self.superblock.checkpoints.iter().map(|place| (place.extent, place.generation)).collect();
        self.planned = plan::chain(&self.candidates, self.applied.listed, &named, head);
        self.missed()?;
        self.scan(0, replay, out)
    }

    /// An extent whose first frame could not be read is one that a checkpoint, a seal or the superblock tells of; of any
    /// other one nobody knows whether the log goes on there, and it must not be taken for a spare.
    fn missed(&self) -> Result<(), OpenError> {
        let told = |extent: u32| {
            self.planned.iter().any(|planned| planned.extent == extent)
                || self.applied.extents.live.iter().any(|live| !live.pack && live.extent == extent)
        };
        let mut unreadable = self.candidates.iter().filter(|candidate| candidate.is_unreadable);
        match unreadable.find(|candidate| !told(candidate.extent)) {
            Some(Candidate { extent, .. }) => {
                Err(OpenError::Unreadable { extent: *extent, position: 0, needed: Needed::Extent })
            }
            None => Ok(()),
        }
    }

    fn scan(&mut self, at: usize, replay: &mut Replay<'_>, out: &mut Vec<DiskOp>) -> Result<(), OpenError> {
        let Some(planned) = self.planned.get(at) else {
            let nothing = Reader::new(FileName::Superblock, 0, 0);
            self.reader.replace(nothing, &mut self.pool);
            if let Some((extent, position)) = self.applied.undecided() {
                return Err(OpenError::Unreadable { extent, position, needed: Needed::Frame });
            }
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
            None => Scan::tail(self.seed, planned.generation, bytes, planned.begun, self.checkpointed),
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
                    let end = header.position + u64::from(header.length);
                    self.applied.unreadable = self.reader.unreadable(header.position..end);
                    self.term = self.term.max(header.term);
                    self.applied.frame(&header, frame, damaged, replay);
                    scan.taken(&header);
                    self.reader.consume(header.length as usize);
                }
                Step::Skipped { bytes } => self.reader.consume(bytes),
                Step::Lost { first, last } => {
                    self.applied.unreadable = self.reader.unreadable(scan.taken_to..scan.position);
                    self.applied.lost(first, last, replay);
                }
                Step::Again { position } => {
                    let end = self.config.extent_bytes;
                    let file = FileName::Extent(self.planned[at].extent);
                    self.reader.replace(Reader::new(file, position, end), &mut self.pool);
                }
                Step::Tail { end, until, torn } => {
                    // It may have been acknowledged: what is cut is gone for good, and it may be read tomorrow.
                    if let Some(position) = self.reader.unreadable(end..until) {
                        let extent = self.planned[at].extent;
                        return Err(OpenError::Unreadable { extent, position, needed: Needed::End });
                    }
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
