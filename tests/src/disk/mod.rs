//! SimDisk: a directory in memory that performs disk operations late, out of order, and forgets.
//!
//! | file | owns |
//! |---|---|
//! | `faults` | the rates of what goes wrong, and the counts of what did |
//! | `file` | one file: durable, not flushed, overwritten, unreadable |
//! | `weather` | periods: slow, full |
//! | `medium` | what a medium does that says it is well: other places, older bytes, flipped bits |
//! | `atlas` | which frame lies where, and what faults of the medium must leave |
//!
//! The fault model, as weak as a real device: a write that was not flushed may vanish in any subset of its 512-byte
//! sectors; one that was under way at the crash likewise, flushed or not; a flush covers what was complete when it
//! began. The bytes of a frame are taken when its write *ends*, so a buffer that is reused early shows. Sectors that
//! a flush confirmed survive, unless a fault of the medium takes them, or a test on purpose.

use std::collections::BTreeMap;
use std::ops::Range;

use corelog_model::Slice;
use corelog_storage::{DiskCompletion, DiskError, DiskOp, FileName, Listing};

use crate::random::Random;

mod atlas;
mod faults;
mod file;
mod medium;
#[cfg(test)]
mod tests;
mod weather;

use atlas::Atlas;
pub use atlas::{Doubt, Survey};
pub use faults::{Faults, Injected};
use file::{File, SECTOR};
use weather::{Weather, hits};

const PAGE: usize = 4096;
/// Linux' EIO.
const EIO: i32 = 5;

#[derive(Debug)]
struct Started {
    due_us: u64,
    /// Ties are broken by this, so that order depends on the seed alone.
    order: u64,
    /// For a flush: how many unflushed writes it covers.
    covers: usize,
    op: DiskOp,
}

/// A write that is about to happen.
struct Write {
    file: FileName,
    position: usize,
    bytes: Vec<u8>,
    /// Durable when it ends.
    flush: bool,
    /// A start cannot do without it.
    guarded: bool,
}

/// The directory of one log.
#[derive(Debug)]
pub struct SimDisk {
    files: BTreeMap<FileName, File>,
    started: Vec<Started>,
    order: u64,
    random: Random,
    /// For the faults that came later: a stream of their own, so that the others meet what they met.
    odds: Random,
    weather: Weather,
    atlas: Atlas,
    /// May be changed while the disk runs.
    pub faults: Faults,
    /// What it did besides working, so far.
    pub injected: Injected,
    /// A start is under way: what it reads as it was before stays like that, as a write that was lost. It settles by what it
    /// reads what the log is, so there must be one truth.
    pub is_starting: bool,
    /// Bytes written by frames, zeros and superblocks since the beginning.
    pub bytes_written: u64,
    /// What the medium did since somebody looked: what, in which file, and to which bytes.
    pub harm: Vec<(&'static str, FileName, Range<usize>)>,
}

impl SimDisk {
    /// An empty directory.
    pub fn new(random: Random, faults: Faults) -> Self {
        Self {
            files: BTreeMap::new(),
            started: Vec::new(),
            order: 0,
            odds: Random::new(random.clone().bits() ^ 0x0dd5),
            random,
            weather: Weather::default(),
            atlas: Atlas::default(),
            faults,
            injected: Injected::default(),
            is_starting: false,
            bytes_written: 0,
            harm: Vec::new(),
        }
    }

    /// A file with these confirmed bytes, in place of what it held.
    pub fn put(&mut self, name: FileName, bytes: Vec<u8>) {
        self.atlas.forget(name, 0..usize::MAX);
        let mut file = File::new(bytes.len());
        file.settle(0, &bytes);
        self.files.insert(name, file);
    }

    /// Names and sizes, as a start lists them.
    pub fn listing(&self) -> Listing {
        Listing { files: self.files.iter().map(|(name, file)| (*name, file.len() as u64)).collect() }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.len() as u64).sum()
    }

    /// Number of extents.
    pub fn extents(&self) -> usize {
        self.files.keys().filter(|name| matches!(name, FileName::Extent(_))).count()
    }

    /// Takes operations over.
    pub fn submit(&mut self, now_us: u64, ops: &mut Vec<DiskOp>) {
        for op in ops.drain(..) {
            let covers = self.files.get(&op.file()).map_or(0, |file| file.unflushed.len());
            let bytes = self.bytes();
            let factor = self.weather.pass(&self.faults, op.class(), bytes, &mut self.odds);
            self.injected.slow += u64::from(factor > 1);
            let due_us = now_us + factor * self.random.between(1, self.faults.delay_us);
            self.decay();
            self.order += 1;
            self.started.push(Started { due_us, order: self.order, covers, op });
        }
    }

    /// The number of the operation that was asked for last.
    pub const fn operations(&self) -> u64 {
        self.order
    }

    /// When the next operation ends, in monotonic microseconds.
    pub fn next_due_us(&self) -> Option<u64> {
        self.running().map(|(_, started)| started.due_us).min()
    }

    /// What has begun and is not held back.
    fn running(&self) -> impl Iterator<Item = (usize, &Started)> {
        self.started.iter().enumerate().filter(|(_, started)| !self.faults.holds(&started.op))
    }

    /// How many operations are held back.
    pub fn held(&self) -> usize {
        self.started.len() - self.running().count()
    }

    /// Ends one operation that is due. `bytes` reads the source of a frame, now.
    pub fn complete(&mut self, now_us: u64, bytes: &dyn Fn(Slice) -> Vec<u8>) -> Option<DiskCompletion> {
        let due = self.running().filter(|(_, started)| started.due_us <= now_us);
        let (at, _) = due.min_by_key(|(_, started)| (started.due_us, started.order))?;
        let started = self.started.remove(at);
        let earlier = |other: &Started| is_write(&other.op) && other.order < started.order;
        self.injected.reordered += u64::from(is_write(&started.op) && self.started.iter().any(earlier));
        Some(self.perform(started, bytes))
    }

    fn perform(&mut self, started: Started, bytes: &dyn Fn(Slice) -> Vec<u8>) -> DiskCompletion {
        let Started { order, covers, op, .. } = started;
        let id = op.id();
        let file = op.file();
        let done = |result| DiskCompletion { id, result, block: None };
        match op {
            DiskOp::WriteFrame { position, source, flush, .. } => {
                let (position, bytes) = (position as usize, bytes(source));
                // What earlier ones that are still under way hold decides whether this one is guarded, too.
                let behind = self.started.iter().any(|other| other.order < order && is_write(&other.op));
                let guarded = self.atlas.written(file, position, &bytes, order) || behind;
                let written = bytes.clone();
                let result = self.commit(Write { file, position, bytes, flush, guarded });
                match result {
                    Ok(_) if flush => self.atlas.confirm_one(file, position, self.order),
                    Ok(_) => {}
                    Err(_) => self.forget_unless_whole(file, position, &written),
                }
                done(result)
            }
            DiskOp::Sync { .. } => {
                if self.fails(self.faults.write_errors) {
                    self.injected.flush_errors += 1;
                    self.forget(file, covers);
                    return done(Err(DiskError::Io { errno: EIO }));
                }
                if !self.lies_about(file, covers) {
                    self.flush(file, covers);
                }
                self.atlas.confirm(file, order, self.order);
                done(Ok(0))
            }
            DiskOp::Read { position, length, mut into, .. } => {
                let result = self.read(file, position as usize, length as usize, into.bytes_mut());
                DiskCompletion { id, result, block: Some(into) }
            }
            DiskOp::CreateExtent { bytes, .. } => match self.fails(self.faults.background_errors) {
                // Made under another name and never given its own.
                true => done(self.background_error()),
                false => done(self.create(file, bytes as usize)),
            },
            DiskOp::Zero { position, bytes, .. } => {
                let (position, bytes) = (position as usize, vec![0; bytes as usize]);
                self.atlas.forget(file, position..position + bytes.len());
                done(self.write_aside(Write { file, position, bytes, flush: true, guarded: false }))
            }
            DiskOp::WriteSuperblock { copy, source, .. } => {
                let (position, bytes) = (usize::from(copy) * PAGE, bytes(source));
                self.atlas.copied(copy, &bytes, order);
                done(self.write_aside(Write { file, position, bytes, flush: true, guarded: false }))
            }
            DiskOp::Remove { .. } => match self.fails(self.faults.background_errors) {
                true => done(self.background_error()),
                false => {
                    self.remove(file);
                    done(Ok(0))
                }
            },
        }
    }

    fn background_error(&mut self) -> Result<u32, DiskError> {
        self.injected.background_errors += 1;
        Err(DiskError::Io { errno: EIO })
    }

    /// A frame's write.
    fn commit(&mut self, write: Write) -> Result<u32, DiskError> {
        if self.fails(self.faults.write_errors) {
            self.injected.write_errors += 1;
            // Some of it may have arrived all the same, now or never.
            self.tear(write.file, write.position, &write.bytes);
            return Err(DiskError::Io { errno: EIO });
        }
        self.write(write)
    }

    /// A durable write that is no frame's.
    fn write_aside(&mut self, write: Write) -> Result<u32, DiskError> {
        if self.fails(self.faults.background_errors) {
            self.tear(write.file, write.position, &write.bytes);
            return self.background_error();
        }
        self.write(write)
    }

    fn fails(&mut self, in_a_million: u64) -> bool {
        hits(in_a_million, &mut self.random)
    }

    /// A write that does not fail, though it may end early, or elsewhere, or never.
    fn write(&mut self, write: Write) -> Result<u32, DiskError> {
        if !self.files.contains_key(&write.file) {
            return Err(DiskError::Io { errno: EIO });
        }
        let expected = write.bytes.len() as u32;
        if hits(self.faults.short_writes, &mut self.odds) {
            self.injected.short_writes += 1;
            let found = self.odds.below(u64::from(expected) / SECTOR as u64) as u32 * SECTOR as u32;
            self.tear(write.file, write.position, &write.bytes[..found as usize]);
            return Err(DiskError::Short { expected, found });
        }
        self.bytes_written += u64::from(expected);
        let write = self.strays(write);
        let flush = write.flush && !self.lies_about_write(&write);
        let Write { file, position, bytes, guarded, .. } = write;
        let file = self.files.get_mut(&file).expect("it was just there, or chosen from those that are");
        file.write(position, bytes, flush, guarded);
        Ok(expected)
    }

    fn read(
        &mut self,
        name: FileName,
        position: usize,
        length: usize,
        into: &mut [u8],
    ) -> Result<u32, DiskError> {
        if self.fails(self.faults.read_errors) {
            self.injected.read_errors += 1;
            return Err(DiskError::Io { errno: EIO });
        }
        let Some(file) = self.files.get(&name) else { return Ok(0) };
        if file.is_unreadable(position, length) {
            self.injected.latent_reads += 1;
            return Err(DiskError::Io { errno: EIO });
        }
        let mut found = file.read(position, length);
        self.age(name, position, &mut found);
        if found.len() >= SECTOR && hits(self.faults.short_reads, &mut self.odds) {
            self.injected.short_reads += 1;
            found.truncate(self.odds.below((found.len() / SECTOR) as u64) as usize * SECTOR);
        }
        into[..found.len()].copy_from_slice(&found);
        Ok(found.len() as u32)
    }

    fn create(&mut self, name: FileName, bytes: usize) -> Result<u32, DiskError> {
        if self.bytes() + bytes as u64 > self.weather.capacity(&self.faults) {
            self.injected.no_space += 1;
            return Err(DiskError::NoSpace);
        }
        self.atlas.forget(name, 0..usize::MAX);
        self.files.insert(name, File::new(bytes));
        Ok(0)
    }

    fn remove(&mut self, name: FileName) {
        self.atlas.forget(name, 0..usize::MAX);
        self.files.remove(&name);
    }

    fn flush(&mut self, name: FileName, covers: usize) {
        let Some(file) = self.files.get_mut(&name) else { return };
        let covers = covers.min(file.unflushed.len());
        for write in file.unflushed.drain(..covers).collect::<Vec<_>>() {
            file.settle(write.position, &write.bytes);
        }
    }

    /// A failed flush: the system marks the pages clean, so a later flush confirms nothing of them.
    fn forget(&mut self, name: FileName, covers: usize) {
        let lost: Vec<_> = match self.files.get_mut(&name) {
            Some(file) => {
                let covers = covers.min(file.unflushed.len());
                file.unflushed.drain(..covers).collect()
            }
            None => return,
        };
        for write in lost {
            self.tear(name, write.position, &write.bytes);
        }
    }

    /// Some sectors of a write reach the medium, others do not.
    fn tear(&mut self, name: FileName, position: usize, bytes: &[u8]) {
        let keep = self.random.pick(&[0, 10, 50, 90, 100]);
        let Some(file) = self.files.get_mut(&name) else { return };
        let (mut arrived, mut lost) = (0, 0);
        for (at, sector) in bytes.chunks(SECTOR).enumerate() {
            if self.random.chance(keep) {
                file.relieve(position + at * SECTOR, sector.len());
                file.settle(position + at * SECTOR, sector);
                arrived += 1;
            } else {
                lost += 1;
            }
        }
        self.injected.torn += u64::from(arrived > 0 && lost > 0);
        self.injected.vanished += u64::from(arrived == 0 && lost > 0);
    }

    /// The power fails. What was not confirmed survives in any subset of its sectors; what was under way, too.
    pub fn crash(&mut self, bytes: &dyn Fn(Slice) -> Vec<u8>) {
        let names: Vec<_> = self.files.keys().copied().collect();
        for name in names {
            let unflushed = std::mem::take(&mut self.files.get_mut(&name).expect("just listed").unflushed);
            for write in unflushed {
                self.tear(name, write.position, &write.bytes);
            }
        }
        for Started { order, op, .. } in std::mem::take(&mut self.started) {
            let file = op.file();
            match op {
                DiskOp::WriteFrame { position, source, .. } => {
                    let (position, bytes) = (position as usize, bytes(source));
                    self.tear(file, position, &bytes);
                    self.atlas.written(file, position, &bytes, order);
                    self.forget_unless_whole(file, position, &bytes);
                }
                DiskOp::Zero { position, bytes, .. } => {
                    let (position, bytes) = (position as usize, vec![0; bytes as usize]);
                    self.atlas.forget(file, position..position + bytes.len());
                    self.tear(file, position, &bytes);
                }
                DiskOp::WriteSuperblock { copy, source, .. } => {
                    self.tear(file, usize::from(copy) * PAGE, &bytes(source))
                }
                DiskOp::CreateExtent { bytes, .. } => {
                    if self.random.chance(50) {
                        _ = self.create(file, bytes as usize);
                    }
                }
                DiskOp::Remove { .. } => {
                    if self.random.chance(50) {
                        self.remove(file);
                    }
                }
                DiskOp::Sync { .. } | DiskOp::Read { .. } => {}
            }
        }
        self.ended();
    }

    /// A write that failed, or was under way when the power failed: nothing is expected at its place, unless all of it
    /// arrived. Then the next start finds it, and goes on from there.
    fn forget_unless_whole(&mut self, file: FileName, position: usize, bytes: &[u8]) {
        let found = self.files.get(&file).map(|file| file.read(position, bytes.len()));
        if found.as_deref() != Some(bytes) {
            self.atlas.forget(file, position..position + bytes.len());
        }
    }

    /// The process is killed and the power stays on: all that was complete is still seen, flushed or not, and what was
    /// under way happens whole or not at all.
    pub fn kill(&mut self, bytes: &dyn Fn(Slice) -> Vec<u8>) {
        for started in std::mem::take(&mut self.started) {
            if self.random.chance(50) {
                self.perform(started, bytes);
            }
        }
        self.ended();
    }

    fn ended(&mut self) {
        self.atlas.ended();
        self.decay_while_off();
    }

    /// What is left of all that was written, to be held against what the next start finds.
    pub fn survey(&self) -> Survey {
        self.atlas.survey(&|name, position, length| {
            let file = self.files.get(&name);
            file.filter(|file| !file.is_unreadable(position, length))
                .map_or_else(Vec::new, |file| file.read(position, length))
        })
    }

    /// The verdict on a survey, when the start that it was made for has read what it did.
    pub fn doubt(&self, survey: &Survey) -> Doubt {
        survey.doubt(self.atlas.misreads())
    }

    /// The medium loses bytes that it had confirmed: inverts them.
    pub fn damage(&mut self, name: FileName, position: usize, length: usize) {
        let file = self.files.get_mut(&name).expect("a test damages a file that is there");
        for byte in &mut file.durable[position..position + length] {
            *byte = !*byte;
        }
    }

    /// The confirmed bytes of a file.
    pub fn file(&self, name: FileName) -> Option<&[u8]> {
        self.files.get(&name).map(|file| file.durable.as_slice())
    }
}

fn is_write(op: &DiskOp) -> bool {
    matches!(op, DiskOp::WriteFrame { .. } | DiskOp::Zero { .. } | DiskOp::WriteSuperblock { .. })
}
