//! The frames of one extent: those that verify, and the places between them where one should be and does not.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use corelog_storage::format::FRAME_MAGIC;
use corelog_storage::{FRAME_HEADER_BYTES, FrameHeader, FrameSeed};

/// A frame starts and ends at a multiple of this.
pub(super) const SECTOR: u64 = corelog_model::limits::FRAME_ALIGN as u64;
/// Bytes read at once while frames are looked for: whole sectors.
const SCAN_BYTES: usize = 1 << 20;

/// An extent and what was found in it.
pub(super) struct Extent {
    file: File,
    pub(super) bytes: u64,
    seed: FrameSeed,
    /// The frames of its present use, by position.
    pub(super) frames: Vec<FrameHeader>,
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
    /// Looks at every sector for the header of a frame. What an earlier use left behind is of an older generation, and not
    /// the log's any more.
    pub(super) fn open(path: &Path, seed: FrameSeed) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut frames: Vec<FrameHeader> = Vec::new();
        let mut chunk = vec![0; SCAN_BYTES];
        let mut start = 0;
        while start + SECTOR <= bytes {
            let length = (bytes - start).min(SCAN_BYTES as u64) as usize;
            file.read_exact_at(&mut chunk[..length], start)?;
            for (sector, position) in
                chunk[..length].chunks(SECTOR as usize).zip((start..).step_by(SECTOR as usize))
            {
                frames.extend(FrameHeader::decode(sector, seed, position).filter(|found| fits(found, bytes)));
            }
            start += length as u64;
        }
        let present = frames.iter().map(|frame| frame.generation).max();
        frames.retain(|frame| Some(frame.generation) == present);
        Ok(Self { file, bytes, seed, frames })
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
            return format!(
                "the frame there is of generation {}, an earlier use of the extent",
                header.generation
            );
        }
        format!("the frame there says it has {} bytes, which the extent does not", header.length)
    }
}

fn fits(frame: &FrameHeader, bytes: u64) -> bool {
    frame.position + u64::from(frame.length) <= bytes
}
