//! The frames of one extent, or of a pack: those that verify, and the places between them where one should be and does not.
//!
//! As at a start, the frames are followed by their lengths; only where none is, the next one is looked for sector by sector.
//! So what stands inside a record is not taken for a frame.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use corelog_storage::format::FRAME_MAGIC;
use corelog_storage::{FRAME_HEADER_BYTES, FrameHeader, FrameSeed};

/// A frame starts and ends at a multiple of this.
const SECTOR: u64 = corelog_model::limits::FRAME_ALIGN as u64;

/// Where extents end that were left for another one, in bytes, by their generation: what lies beyond is void for ever.
#[derive(Debug, Default)]
pub(super) struct Seals(BTreeMap<u64, u64>);

impl Seals {
    /// Takes in what the first frame of an extent says of the extent before it.
    pub(super) fn add(&mut self, first: &FrameHeader) {
        self.0.insert(first.seal.generation, first.seal.position);
    }
}

/// An extent, or a pack: frames from end to end.
pub(super) struct Extent {
    file: File,
    pub(super) bytes: u64,
    seed: FrameSeed,
}

/// What was found in an extent.
pub(super) struct Found {
    /// The frames of its present use, by position.
    pub(super) frames: Vec<FrameHeader>,
    /// Where its present use ends, if another extent says so.
    pub(super) sealed: Option<u64>,
}

/// A place without a frame of the present use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) position: u64,
    pub(super) bytes: u64,
    /// Why nothing was read there.
    pub(super) why: String,
}

impl Extent {
    pub(super) fn open(path: &Path, seed: FrameSeed) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes, seed })
    }

    /// The header at a position, if one verifies there and its frame fits the extent.
    pub(super) fn header(&self, position: u64) -> io::Result<Option<FrameHeader>> {
        let mut header = [0; FRAME_HEADER_BYTES];
        if position + SECTOR > self.bytes {
            return Ok(None);
        }
        self.file.read_exact_at(&mut header, position)?;
        Ok(FrameHeader::decode(&header, self.seed, position).filter(|found| fits(found, self.bytes)))
    }

    /// The frames of the present use. What an earlier one left behind is of another generation.
    pub(super) fn find(&self, seals: &Seals) -> io::Result<Found> {
        let mut found = Found { frames: Vec::<FrameHeader>::new(), sealed: None };
        let mut position = 0;
        while position + SECTOR <= found.sealed.unwrap_or(self.bytes) {
            let last = found.frames.last();
            let follows = |next: &FrameHeader| {
                last.is_none_or(|last| next.generation == last.generation && next.sequence > last.sequence)
            };
            let Some(next) = self.header(position)?.filter(follows) else {
                position += SECTOR;
                continue;
            };
            position += u64::from(next.length);
            found.sealed = seals.0.get(&next.generation).copied();
            found.frames.push(next);
        }
        let end = found.sealed.unwrap_or(self.bytes);
        found.frames.retain(|frame| frame.position < end);
        Ok(found)
    }

    /// The whole frame, padding included.
    pub(super) fn read(&self, frame: &FrameHeader) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; frame.length as usize];
        self.file.read_exact_at(&mut bytes, frame.position)?;
        Ok(bytes)
    }

    /// What lies between `position` and `end`, where the next frame was found; `None` when that is nothing.
    pub(super) fn gap(&self, position: u64, end: u64) -> io::Result<Option<Gap>> {
        if position >= end {
            return Ok(None);
        }
        let mut sector = vec![0; SECTOR.min(end - position) as usize];
        self.file.read_exact_at(&mut sector, position)?;
        Ok(Some(Gap { position, bytes: end - position, why: self.why(&sector, position) }))
    }

    /// Why no frame of the present use starts with these bytes.
    fn why(&self, sector: &[u8], position: u64) -> String {
        if sector.iter().all(|byte| *byte == 0) {
            return "nothing was written there".to_owned();
        }
        let Some(header) = FrameHeader::decode(sector, self.seed, position) else {
            return match sector.starts_with(&FRAME_MAGIC.to_le_bytes()) {
                true => format!("the {FRAME_HEADER_BYTES} bytes of its header do not verify"),
                false => "no frame begins there".to_owned(),
            };
        };
        if fits(&header, self.bytes) {
            let FrameHeader { generation, sequence, .. } = header;
            return format!(
                "the frame there, {sequence} of generation {generation}, is of another use of the file"
            );
        }
        format!("the frame there says it has {} bytes, which the file does not", header.length)
    }
}

fn fits(frame: &FrameHeader, bytes: u64) -> bool {
    frame.position + u64::from(frame.length) <= bytes
}
