//! A disk that is told a recording, and knows at each moment what a loss of power could leave of it.
//!
//! The assumptions are those of FORMAT.md: what a flush confirmed stays; of everything else any sectors may be there or not,
//! and a write that failed says nothing about its bytes, for ever, unless something confirmed lies over them.

use std::sync::Arc;

use corelog_storage::{FileName, OpId, Recorded};

use super::image::{Image, SECTOR};

/// What becomes of one write when the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing of it arrived.
    Absent,
    /// Its first sector alone.
    Header,
    /// Its first half.
    Torn,
    /// All but one sector in its middle.
    Hole,
    /// All of it.
    Complete,
    /// The sectors whose bits are set, counted in circles of 64.
    Sectors(u64),
}

/// Every fate that is told apart by name.
pub const FATES: [Fate; 5] = [Fate::Absent, Fate::Header, Fate::Torn, Fate::Hole, Fate::Complete];

impl Fate {
    /// Whether a sector of so many arrives.
    fn keeps(self, sector: usize, of: usize) -> bool {
        match self {
            Self::Absent => false,
            Self::Header => sector == 0,
            Self::Torn => sector < of.div_ceil(2),
            Self::Hole => of == 1 || sector != of.div_ceil(2),
            Self::Complete => true,
            Self::Sectors(bits) => bits >> (sector % 64) & 1 == 1,
        }
    }
}

impl Fate {
    /// What lies where a write of `new` over `old` came to this.
    pub(super) fn overlay(self, mut old: Vec<u8>, new: &[u8]) -> Vec<u8> {
        let of = new.len().div_ceil(SECTOR);
        let sectors = old.chunks_mut(SECTOR).zip(new.chunks(SECTOR)).enumerate();
        for (_, (old, new)) in sectors.filter(|(at, _)| self.keeps(*at, of)) {
            old.copy_from_slice(new);
        }
        old
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    UnderWay,
    /// Complete, and no flush has confirmed it.
    Written,
    Failed,
}

#[derive(Clone, Debug)]
enum What {
    Write { position: u64, bytes: Arc<[u8]>, flush: bool },
    Create { bytes: u64 },
    Remove,
}

/// Something that the disk was asked to do, and that a loss of power may undo.
#[derive(Clone, Debug)]
pub struct Pending {
    serial: u64,
    id: OpId,
    file: FileName,
    what: What,
    stage: Stage,
}

impl Pending {
    /// How many sectors it writes; 0 for files that come or go.
    pub fn sectors(&self) -> usize {
        match &self.what {
            What::Write { bytes, .. } => bytes.len().div_ceil(SECTOR),
            What::Create { .. } | What::Remove => 0,
        }
    }

    /// The fates that it may have: a file comes or goes whole or not at all.
    pub fn fates(&self) -> &'static [Fate] {
        match self.sectors() {
            0 => &[Fate::Absent, Fate::Complete],
            1 => &[Fate::Absent, Fate::Header],
            2 => &[Fate::Absent, Fate::Header, Fate::Hole, Fate::Complete],
            _ => &FATES,
        }
    }

    fn strike(&self, fate: Fate, image: &mut Image) {
        match &self.what {
            What::Create { bytes } if fate == Fate::Complete => image.create(self.file, *bytes),
            What::Remove if fate == Fate::Complete => image.remove(self.file),
            What::Create { .. } | What::Remove => {}
            What::Write { position, bytes, .. } if fate == Fate::Complete => {
                image.write(self.file, *position, bytes);
            }
            What::Write { position, bytes, .. } => {
                let of = self.sectors();
                for (at, sector) in bytes.chunks(SECTOR).enumerate().filter(|(at, _)| fate.keeps(*at, of)) {
                    image.write(self.file, position + (at * SECTOR) as u64, sector);
                }
            }
        }
    }

    /// Its bytes where newer ones lie over them are those.
    fn cover(&mut self, file: FileName, position: u64, newer: &[u8]) {
        let What::Write { position: at, bytes, .. } = &mut self.what else { return };
        let (from, to) = ((*at).max(position), (*at + bytes.len() as u64).min(position + newer.len() as u64));
        if self.file != file || from >= to {
            return;
        }
        let mut all = bytes.to_vec();
        all[(from - *at) as usize..(to - *at) as usize]
            .copy_from_slice(&newer[(from - position) as usize..(to - position) as usize]);
        *bytes = all.into();
    }
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub struct Medium {
    /// What nothing but damage takes.
    durable: Image,
    /// What a read sees.
    live: Image,
    pending: Vec<Pending>,
    /// Flushes under way, and what each will confirm.
    flushes: Vec<(OpId, Vec<u64>)>,
    serial: u64,
}

impl Medium {
    /// A disk that holds these files, all of them confirmed.
    pub fn new(image: Image) -> Self {
        Self { durable: image.clone(), live: image, ..Self::default() }
    }

    /// What a read sees.
    pub fn live(&self) -> &Image {
        &self.live
    }

    /// What is confirmed.
    pub fn durable(&self) -> &Image {
        &self.durable
    }

    /// What a loss of power may undo, oldest first.
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// The files after a loss of power, one fate for each that is pending.
    pub fn image(&self, fates: &[Fate]) -> Image {
        assert_eq!(fates.len(), self.pending.len(), "each pending operation has a fate");
        let mut image = self.durable.clone();
        for (pending, fate) in self.pending.iter().zip(fates) {
            pending.strike(*fate, &mut image);
        }
        image
    }

    /// The next thing that happened.
    pub fn apply(&mut self, event: &Recorded) {
        match event {
            Recorded::Write { id, file, position, bytes, flush } => {
                let what = What::Write { position: *position, bytes: bytes.as_slice().into(), flush: *flush };
                self.begin(*id, *file, what);
            }
            Recorded::Zero { id, file, position, bytes } => {
                let zeros = vec![0; *bytes as usize].into();
                self.begin(*id, *file, What::Write { position: *position, bytes: zeros, flush: true });
            }
            Recorded::Create { id, file, bytes } => self.begin(*id, *file, What::Create { bytes: *bytes }),
            Recorded::Remove { id, file } => self.begin(*id, *file, What::Remove),
            Recorded::Sync { id, file } => {
                let covered = |pending: &&Pending| pending.file == *file && pending.stage == Stage::Written;
                let covers = self.pending.iter().filter(covered).map(|pending| pending.serial).collect();
                self.flushes.push((*id, covers));
            }
            Recorded::Ended { id, done, left } => self.end(*id, *done, left.as_deref()),
            Recorded::Killed => self.killed(),
            Recorded::Promised(_) => {}
        }
    }

    fn begin(&mut self, id: OpId, file: FileName, what: What) {
        self.serial += 1;
        self.pending.push(Pending { serial: self.serial, id, file, what, stage: Stage::UnderWay });
    }

    fn end(&mut self, id: OpId, done: bool, left: Option<&[u8]>) {
        if let Some(at) = self.flushes.iter().position(|(flush, _)| *flush == id) {
            let (_, covers) = self.flushes.remove(at);
            return if done { self.confirm(&covers) } else { self.doubt(&covers) };
        }
        let under_way = |pending: &Pending| pending.id == id && pending.stage == Stage::UnderWay;
        // Not there: it was a read.
        let Some(at) = self.pending.iter().position(under_way) else { return };
        let pending = &mut self.pending[at];
        let file = pending.file;
        match &mut pending.what {
            What::Write { position, bytes, flush } => {
                let (position, flush) = (*position, *flush);
                if let Some(left) = left {
                    self.live.write(file, position, left);
                    // After a failure the two differ, and either may be what a loss of power leaves.
                    if done {
                        *bytes = left.into();
                    }
                } else if done {
                    self.live.write(file, position, bytes);
                }
                let serial = pending.serial;
                pending.stage = if done { Stage::Written } else { Stage::Failed };
                if done && flush {
                    self.confirm(&[serial]);
                }
            }
            What::Create { bytes } => {
                let bytes = *bytes;
                if done {
                    self.pending.retain(|other| other.file != file);
                    self.durable.create(file, bytes);
                    self.live.create(file, bytes);
                } else {
                    self.pending.remove(at);
                }
            }
            What::Remove => {
                if done {
                    self.pending.retain(|other| other.file != file);
                    self.durable.remove(file);
                    self.live.remove(file);
                } else {
                    self.pending.remove(at);
                }
            }
        }
    }

    fn confirm(&mut self, serials: &[u64]) {
        for serial in serials {
            let named = |pending: &Pending| pending.serial == *serial && pending.stage == Stage::Written;
            let Some(at) = self.pending.iter().position(named) else { continue };
            let confirmed = self.pending.remove(at);
            confirmed.strike(Fate::Complete, &mut self.durable);
            if let What::Write { position, bytes, .. } = &confirmed.what {
                for older in self.pending.iter_mut().filter(|older| older.serial < *serial) {
                    older.cover(confirmed.file, *position, bytes);
                }
            }
        }
    }

    /// A flush failed: a later one confirms nothing of what this one was to.
    fn doubt(&mut self, serials: &[u64]) {
        for pending in self.pending.iter_mut().filter(|pending| serials.contains(&pending.serial)) {
            pending.stage = Stage::Failed;
        }
    }

    /// Whoever starts next finds what a read sees, and its flush confirms that.
    fn killed(&mut self) {
        self.flushes.clear();
        let Self { live, pending, .. } = self;
        for pending in pending.iter_mut() {
            if let What::Write { position, bytes, .. } = &mut pending.what {
                *bytes = live.bytes(pending.file, *position, bytes.len()).into();
                pending.stage = Stage::Written;
            }
        }
        pending.retain(|pending| pending.sectors() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileName = FileName::Extent(0);

    fn medium() -> Medium {
        let mut image = Image::default();
        image.create(FILE, 16 << 10);
        Medium::new(image)
    }

    fn write(id: u64, position: u64, byte: u8, flush: bool) -> Recorded {
        Recorded::Write { id: OpId(id), file: FILE, position, bytes: vec![byte; 4096], flush }
    }

    fn ended(id: u64, done: bool) -> Recorded {
        Recorded::Ended { id: OpId(id), done, left: None }
    }

    fn bytes(image: &Image) -> Vec<u8> {
        image.bytes(FILE, 0, 4096)
    }

    #[test]
    fn a_write_is_uncertain_until_a_flush_that_began_behind_it_ends() {
        let mut medium = medium();
        let sync = |id| Recorded::Sync { id: OpId(id), file: FILE };
        for event in [sync(9), write(1, 0, 7, false), ended(1, true), ended(9, true)] {
            medium.apply(&event);
        }
        assert_eq!(medium.pending().len(), 1, "that flush had begun before");
        assert_eq!(bytes(medium.live()), [7; 4096]);
        assert_eq!(bytes(&medium.image(&[Fate::Absent])), [0; 4096]);
        assert_eq!(bytes(&medium.image(&[Fate::Header])), [[7; 512].as_slice(), &[0; 3584]].concat());
        assert_eq!(bytes(&medium.image(&[Fate::Torn])), [[7; 2048], [0; 2048]].concat());
        let hole = [[7; 2048].as_slice(), &[0; 512], &[7; 1536]].concat();
        assert_eq!(bytes(&medium.image(&[Fate::Hole])), hole);
        assert_eq!(bytes(&medium.image(&[Fate::Sectors(0b1110_1111)])), hole);
        medium.apply(&sync(10));
        medium.apply(&ended(10, true));
        assert_eq!(bytes(&medium.image(&[])), [7; 4096]);
    }

    #[test]
    fn a_failed_write_stays_uncertain_until_something_confirmed_lies_over_it() {
        let mut medium = medium();
        let sync = Recorded::Sync { id: OpId(9), file: FILE };
        for event in [write(1, 0, 7, false), ended(1, false), sync, ended(9, true)] {
            medium.apply(&event);
        }
        assert_eq!(medium.pending().len(), 1);
        medium.apply(&write(2, 0, 8, true));
        medium.apply(&ended(2, true));
        assert_eq!(bytes(&medium.image(&[Fate::Complete])), [8; 4096]);
        assert_eq!(bytes(&medium.image(&[Fate::Absent])), [8; 4096]);
    }

    #[test]
    fn a_file_is_there_or_not() {
        let mut medium = medium();
        medium.apply(&Recorded::Create { id: OpId(1), file: FileName::Extent(1), bytes: 4096 });
        assert_eq!(medium.image(&[Fate::Absent]).listing().files.len(), 1);
        assert_eq!(medium.image(&[Fate::Complete]).listing().files.len(), 2);
        medium.apply(&Recorded::Remove { id: OpId(2), file: FILE });
        medium.apply(&ended(2, true));
        medium.apply(&ended(1, true));
        assert_eq!(medium.image(&[]).listing().files, [(FileName::Extent(1), 4096)]);
    }
}
