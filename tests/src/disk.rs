//! SimDisk: a directory in memory that performs disk operations late, out of order, and forgets.
//!
//! The fault model, as weak as a real device: a write that was not flushed may vanish in any subset of its 512-byte
//! sectors; one that was under way at the crash likewise, flushed or not; a flush covers what was complete when it
//! began. The bytes of a frame are taken when its write *ends*, so a buffer that is reused early shows. Sectors that
//! a flush confirmed survive, unless a test damages them on purpose.

use std::collections::BTreeMap;

use corelog_model::Slice;
use corelog_storage::{DiskCompletion, DiskError, DiskOp, FileName, Listing};

use crate::random::Random;

const SECTOR: usize = 512;
const PAGE: usize = 4096;
/// Linux' EIO.
const EIO: i32 = 5;

/// What the disk does besides working.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Longest delay of an operation, in microseconds.
    pub delay_us: u64,
    /// Commit writes and flushes that fail, in a million.
    pub write_errors: u64,
    /// Reads that fail, in a million.
    pub read_errors: u64,
    /// Extents that are not made, zeros and superblock copies that are not written, in a million.
    pub background_errors: u64,
    /// What makes frames durable, a flush or a write through, does not end while this is set.
    pub hold_flushes: bool,
    /// Bytes that all files together may take.
    pub capacity: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay_us: 300,
            write_errors: 0,
            read_errors: 0,
            background_errors: 0,
            hold_flushes: false,
            capacity: u64::MAX,
        }
    }
}

impl Faults {
    /// Whether operations may fail.
    pub fn fail(&self) -> bool {
        self.write_errors > 0 || self.read_errors > 0 || self.background_errors > 0
    }

    /// Nothing fails any more.
    pub fn stop(&mut self) {
        (self.write_errors, self.read_errors, self.background_errors) = (0, 0, 0);
    }

    fn holds(&self, op: &DiskOp) -> bool {
        self.hold_flushes && matches!(op, DiskOp::Sync { .. } | DiskOp::WriteFrame { flush: true, .. })
    }
}

#[derive(Debug, Default)]
struct File {
    /// What a crash cannot take.
    durable: Vec<u8>,
    /// Complete writes that no flush has confirmed, oldest first.
    unflushed: Vec<(usize, Vec<u8>)>,
}

impl File {
    /// What a read sees.
    fn image(&self) -> Vec<u8> {
        let mut image = self.durable.clone();
        for (position, bytes) in &self.unflushed {
            overlay(&mut image, *position, bytes);
        }
        image
    }
}

/// Writes inside a file never make it longer: extents have one size.
fn overlay(image: &mut [u8], position: usize, bytes: &[u8]) {
    let end = (position + bytes.len()).min(image.len());
    if position < end {
        image[position..end].copy_from_slice(&bytes[..end - position]);
    }
}

#[derive(Debug)]
struct Started {
    due_us: u64,
    /// Ties are broken by this, so that order depends on the seed alone.
    order: u64,
    /// For a flush: how many unflushed writes it covers.
    covers: usize,
    op: DiskOp,
}

/// The directory of one log.
#[derive(Debug)]
pub struct SimDisk {
    files: BTreeMap<FileName, File>,
    started: Vec<Started>,
    order: u64,
    random: Random,
    /// May be changed while the disk runs.
    pub faults: Faults,
    /// Bytes written by frames, zeros and superblocks since the beginning.
    pub bytes_written: u64,
}

impl SimDisk {
    /// An empty directory.
    pub fn new(random: Random, faults: Faults) -> Self {
        Self { files: BTreeMap::new(), started: Vec::new(), order: 0, random, faults, bytes_written: 0 }
    }

    /// A file with these confirmed bytes, in place of what it held.
    pub fn put(&mut self, name: FileName, bytes: Vec<u8>) {
        self.files.insert(name, File { durable: bytes, ..File::default() });
    }

    /// Names and sizes, as a start lists them.
    pub fn listing(&self) -> Listing {
        Listing { files: self.files.iter().map(|(name, file)| (*name, file.durable.len() as u64)).collect() }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.durable.len() as u64).sum()
    }

    /// Number of extents.
    pub fn extents(&self) -> usize {
        self.files.keys().filter(|name| matches!(name, FileName::Extent(_))).count()
    }

    /// Takes operations over.
    pub fn submit(&mut self, now_us: u64, ops: &mut Vec<DiskOp>) {
        for op in ops.drain(..) {
            let covers = self.files.get(&op.file()).map_or(0, |file| file.unflushed.len());
            let due_us = now_us + self.random.between(1, self.faults.delay_us);
            self.order += 1;
            self.started.push(Started { due_us, order: self.order, covers, op });
        }
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
        let Started { covers, op, .. } = self.started.remove(at);
        Some(self.perform(op, covers, bytes))
    }

    fn perform(&mut self, op: DiskOp, covers: usize, bytes: &dyn Fn(Slice) -> Vec<u8>) -> DiskCompletion {
        let id = op.id();
        let file = op.file();
        let done = |result| DiskCompletion { id, result, block: None };
        match op {
            DiskOp::WriteFrame { position, source, flush, .. } => {
                let bytes = bytes(source);
                if self.fails(self.faults.write_errors) {
                    // Some of it may have arrived all the same, now or never.
                    self.tear(file, position as usize, &bytes);
                    return done(Err(DiskError::Io { errno: EIO }));
                }
                done(self.write(file, position as usize, bytes, flush))
            }
            DiskOp::Sync { .. } => {
                if self.fails(self.faults.write_errors) {
                    self.forget(file, covers);
                    return done(Err(DiskError::Io { errno: EIO }));
                }
                self.flush(file, covers);
                done(Ok(0))
            }
            DiskOp::Read { position, length, mut into, .. } => {
                let result = match self.fails(self.faults.read_errors) {
                    true => Err(DiskError::Io { errno: EIO }),
                    false => Ok(self.read(file, position as usize, length as usize, into.bytes_mut())),
                };
                DiskCompletion { id, result, block: Some(into) }
            }
            DiskOp::CreateExtent { bytes, .. } => match self.fails(self.faults.background_errors) {
                // Made under another name and never given its own.
                true => done(Err(DiskError::Io { errno: EIO })),
                false => done(self.create(file, bytes as usize)),
            },
            DiskOp::Zero { position, bytes, .. } => {
                done(self.write_aside(file, position as usize, vec![0; bytes as usize]))
            }
            DiskOp::WriteSuperblock { copy, source, .. } => {
                done(self.write_aside(file, usize::from(copy) * PAGE, bytes(source)))
            }
            DiskOp::Remove { .. } => match self.fails(self.faults.background_errors) {
                true => done(Err(DiskError::Io { errno: EIO })),
                false => {
                    self.files.remove(&file);
                    done(Ok(0))
                }
            },
        }
    }

    /// A durable write that is no frame's.
    fn write_aside(&mut self, file: FileName, position: usize, bytes: Vec<u8>) -> Result<u32, DiskError> {
        if self.fails(self.faults.background_errors) {
            self.tear(file, position, &bytes);
            return Err(DiskError::Io { errno: EIO });
        }
        self.write(file, position, bytes, true)
    }

    fn fails(&mut self, in_a_million: u64) -> bool {
        in_a_million > 0 && self.random.below(1_000_000) < in_a_million
    }

    fn write(
        &mut self,
        name: FileName,
        position: usize,
        bytes: Vec<u8>,
        flush: bool,
    ) -> Result<u32, DiskError> {
        let moved = bytes.len() as u32;
        self.bytes_written += u64::from(moved);
        let file = self.files.get_mut(&name).ok_or(DiskError::Io { errno: EIO })?;
        if flush {
            // Its own bytes are confirmed now; older unflushed ones below them no longer matter.
            for (at, older) in &mut file.unflushed {
                cover(*at, older, position, &bytes);
            }
            overlay(&mut file.durable, position, &bytes);
        } else {
            file.unflushed.push((position, bytes));
        }
        Ok(moved)
    }

    fn read(&self, name: FileName, position: usize, length: usize, into: &mut [u8]) -> u32 {
        let Some(file) = self.files.get(&name) else { return 0 };
        let image = file.image();
        let end = (position + length).min(image.len());
        let found = image.get(position..end).unwrap_or(&[]);
        into[..found.len()].copy_from_slice(found);
        found.len() as u32
    }

    fn create(&mut self, name: FileName, bytes: usize) -> Result<u32, DiskError> {
        if self.bytes() + bytes as u64 > self.faults.capacity {
            return Err(DiskError::NoSpace);
        }
        self.files.insert(name, File { durable: vec![0; bytes], unflushed: Vec::new() });
        Ok(0)
    }

    fn flush(&mut self, name: FileName, covers: usize) {
        let Some(file) = self.files.get_mut(&name) else { return };
        let covers = covers.min(file.unflushed.len());
        for (position, bytes) in file.unflushed.drain(..covers) {
            overlay(&mut file.durable, position, &bytes);
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
        for (position, bytes) in lost {
            self.tear(name, position, &bytes);
        }
    }

    /// Some sectors of a write reach the medium, others do not.
    fn tear(&mut self, name: FileName, position: usize, bytes: &[u8]) {
        let keep = self.random.pick(&[0, 10, 50, 90, 100]);
        let Some(file) = self.files.get_mut(&name) else { return };
        for (at, sector) in bytes.chunks(SECTOR).enumerate() {
            if self.random.chance(keep) {
                overlay(&mut file.durable, position + at * SECTOR, sector);
            }
        }
    }

    /// The power fails. What was not confirmed survives in any subset of its sectors; what was under way, too.
    pub fn crash(&mut self, bytes: &dyn Fn(Slice) -> Vec<u8>) {
        let names: Vec<_> = self.files.keys().copied().collect();
        for name in names {
            let unflushed = std::mem::take(&mut self.files.get_mut(&name).expect("just listed").unflushed);
            for (position, bytes) in unflushed {
                self.tear(name, position, &bytes);
            }
        }
        for Started { op, .. } in std::mem::take(&mut self.started) {
            let file = op.file();
            match op {
                DiskOp::WriteFrame { position, source, .. } => {
                    self.tear(file, position as usize, &bytes(source))
                }
                DiskOp::Zero { position, bytes, .. } => {
                    self.tear(file, position as usize, &vec![0; bytes as usize])
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
                        self.files.remove(&file);
                    }
                }
                DiskOp::Sync { .. } | DiskOp::Read { .. } => {}
            }
        }
    }

    /// The process is killed and the power stays on: all that was complete is still seen, flushed or not, and what was
    /// under way happens whole or not at all.
    pub fn kill(&mut self, bytes: &dyn Fn(Slice) -> Vec<u8>) {
        for Started { op, covers, .. } in std::mem::take(&mut self.started) {
            if self.random.chance(50) {
                self.perform(op, covers, bytes);
            }
        }
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

/// An unflushed write that a flushed one lies over shows the newer bytes where they overlap.
fn cover(at: usize, older: &mut [u8], position: usize, newer: &[u8]) {
    let from = at.max(position);
    let to = (at + older.len()).min(position + newer.len());
    if from < to {
        older[from - at..to - at].copy_from_slice(&newer[from - position..to - position]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_model::{Block, BlockId};
    use corelog_storage::OpId;

    const EXTENT: FileName = FileName::Extent(0);

    struct Bench {
        disk: SimDisk,
        block: Block,
    }

    impl Bench {
        fn new(seed: u64) -> Self {
            let mut disk = SimDisk::new(Random::new(seed), Faults::default());
            disk.create(EXTENT, 64 << 10).unwrap();
            Self { disk, block: Block::heap(BlockId(0), PAGE) }
        }

        fn start(&mut self, op: DiskOp) {
            self.disk.submit(0, &mut vec![op]);
        }

        fn write(&mut self, id: u64, flush: bool) {
            let source = Slice { block: BlockId(0), offset: 0, length: PAGE as u32 };
            self.start(DiskOp::WriteFrame { id: OpId(id), file: EXTENT, position: 0, source, flush });
        }

        fn finish_one(&mut self) -> DiskCompletion {
            let all = self.block.bytes().to_vec();
            let bytes = move |slice: Slice| all[slice.offset as usize..slice.end() as usize].to_vec();
            self.disk.complete(u64::MAX, &bytes).expect("something was started")
        }

        fn crash(&mut self) -> Vec<u8> {
            let all = self.block.bytes().to_vec();
            self.disk.crash(&move |slice: Slice| all[slice.offset as usize..slice.end() as usize].to_vec());
            self.disk.file(EXTENT).unwrap()[..PAGE].to_vec()
        }
    }

    /// Both outcomes of the fault model turn up: whole, gone, and torn between sectors.
    #[test]
    fn an_unflushed_write_may_vanish_in_any_subset_of_its_sectors() {
        let mut survivors = Vec::new();
        for seed in 0..100 {
            let mut bench = Bench::new(seed);
            bench.block.bytes_mut().fill(7);
            bench.write(1, false);
            bench.finish_one();
            let image = bench.crash();
            let sectors = image.chunks(SECTOR).filter(|sector| sector.iter().all(|byte| *byte == 7)).count();
            let untouched =
                image.chunks(SECTOR).filter(|sector| sector.iter().all(|byte| *byte == 0)).count();
            assert_eq!(sectors + untouched, PAGE / SECTOR, "a sector is whole or not there");
            survivors.push(sectors);
        }
        assert!(
            survivors.contains(&0) && survivors.contains(&8) && survivors.iter().any(|n| (1..8).contains(n))
        );
    }

    #[test]
    fn a_flush_confirms_what_was_complete_when_it_began_and_nothing_else() {
        for seed in 0..50 {
            let mut bench = Bench::new(seed);
            bench.block.bytes_mut().fill(7);
            bench.write(1, false);
            bench.finish_one();
            bench.start(DiskOp::Sync { id: OpId(2), file: EXTENT });
            bench.finish_one();
            assert!(bench.crash().iter().all(|byte| *byte == 7));

            let mut late = Bench::new(seed);
            late.block.bytes_mut().fill(7);
            late.start(DiskOp::Sync { id: OpId(2), file: EXTENT });
            late.write(1, false);
            late.finish_one();
            late.finish_one();
            assert!(late.disk.files[&EXTENT].durable.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_buffer_that_is_reused_before_its_write_ends_shows() {
        let mut bench = Bench::new(1);
        bench.block.bytes_mut().fill(7);
        bench.write(1, true);
        bench.block.bytes_mut().fill(9);
        bench.finish_one();
        assert!(bench.crash().iter().all(|byte| *byte == 9));
    }

    #[test]
    fn a_full_disk_refuses_extents() {
        let mut bench = Bench::new(1);
        bench.disk.faults.capacity = 100 << 10;
        bench.start(DiskOp::CreateExtent { id: OpId(1), file: FileName::Extent(1), bytes: 64 << 10 });
        assert_eq!(bench.finish_one().result, Err(DiskError::NoSpace));
        assert_eq!(bench.disk.extents(), 1);
    }
}
