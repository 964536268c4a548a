//! Reading in spite of a failed read: narrowed down to the sectors that never answer, all others are had.
//!
//! Everything happens in the block of the read that failed. Pieces are read from the last one to the first, each to the
//! block's beginning, from where it goes to its place behind what is still to come; a piece that fails is halved, down to
//! a single sector. A sector that has failed [`TRIES`] times, the first one over most of a second, is lost and reads as zeros, which nothing
//! that is looked for in it verifies as.
//!
//! **Invariant:** a sector is lost only if another file of the log answers right behind its last failure: a disk that does
//! not answer at all, or not for the moment, has lost nothing.

use corelog_model::Block;
use corelog_model::limits::FRAME_ALIGN;

use crate::op::{DiskError, FileName};

/// How often a sector is asked for.
const TRIES: u32 = 8;
/// How long after a failure, microseconds; the first sector of a read that fails shows whether time helps.
const PAUSE_US: u64 = 100_000;
const SECTOR: u32 = FRAME_ALIGN as u32;

/// What is to be read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) file: FileName,
    pub(crate) position: u64,
    pub(crate) length: u32,
}

/// What an answer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Salvaged {
    /// There is more to be read.
    More,
    /// The block holds what could be read; so many sectors of it are lost, and zeros.
    Done { lost: u32 },
    /// The disk does not answer: nothing is known to be lost.
    Refused,
}

/// A range of a file on its way to a block.
#[derive(Debug)]
pub(crate) struct Salvage {
    file: FileName,
    position: u64,
    /// Bytes that are still to be read: what lies behind them is in its place.
    left: u32,
    /// Bytes of the next piece, the last of those.
    piece: u32,
    /// Failures of this sector.
    failures: u32,
    /// The sector has failed often enough: does anything answer?
    asks_other: bool,
    lost: u32,
    /// Where the last lost sector lies in the file.
    lost_at: Option<u64>,
    due_us: u64,
}

impl Salvage {
    /// A read of this range has failed.
    pub(crate) const fn new(file: FileName, position: u64, length: u32) -> Self {
        Self {
            file,
            position,
            left: length,
            piece: half(length),
            failures: 0,
            asks_other: false,
            lost: 0,
            lost_at: None,
            due_us: 0,
        }
    }

    /// The place in the file of a sector that the last answer gave up, once.
    pub(crate) const fn given_up(&mut self) -> Option<u64> {
        self.lost_at.take()
    }

    /// When the next piece is to be read, monotonic microseconds.
    pub(crate) const fn due_us(&self) -> u64 {
        self.due_us
    }

    /// What that is.
    pub(crate) const fn wanted(&self) -> Wanted {
        if self.asks_other {
            return Wanted { file: FileName::Superblock, position: 0, length: SECTOR };
        }
        let position = self.position + (self.left - self.piece) as u64;
        Wanted { file: self.file, position, length: self.piece }
    }

    /// Takes the answer, in `block` where it is one.
    pub(crate) fn take(
        &mut self,
        result: Result<u32, DiskError>,
        block: &mut Block,
        now_us: u64,
    ) -> Salvaged {
        let answered = result.is_ok_and(|found| found >= self.wanted().length);
        if self.asks_other {
            self.asks_other = false;
            if !answered {
                return Salvaged::Refused;
            }
            let from = (self.left - self.piece) as usize;
            block.bytes_mut()[from..self.left as usize].fill(0);
            self.lost += 1;
            self.lost_at = Some(self.position + from as u64);
            return self.go_on(SECTOR);
        }
        if answered {
            let to = (self.left - self.piece) as usize;
            block.bytes_mut().copy_within(..self.piece as usize, to);
            return self.go_on(2 * self.piece);
        }
        if self.piece > SECTOR {
            self.piece = half(self.piece);
            return Salvaged::More;
        }
        self.failures += 1;
        self.asks_other = self.failures == TRIES;
        if self.lost == 0 && !self.asks_other {
            self.due_us = now_us + PAUSE_US;
        }
        Salvaged::More
    }

    /// The piece is in its place, or lost.
    fn go_on(&mut self, most: u32) -> Salvaged {
        self.left -= self.piece;
        self.piece = if most < self.left { most } else { self.left };
        (self.failures, self.due_us) = (0, 0);
        if self.left > 0 { Salvaged::More } else { Salvaged::Done { lost: self.lost } }
    }
}

/// Half of so many bytes, in whole sectors, unless it is one.
const fn half(length: u32) -> u32 {
    (length / 2).next_multiple_of(SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_model::BlockId;

    /// Answers what is asked for of a file that holds its own positions, in units of sectors.
    struct Disk {
        bad: Vec<u64>,
        dead: bool,
        reads: u32,
        /// The last time that a bad sector fails, if it ever answers.
        until_us: u64,
    }

    impl Disk {
        fn answer(&mut self, wanted: Wanted, block: &mut Block, now_us: u64) -> Result<u32, DiskError> {
            self.reads += 1;
            let sectors = wanted.position / 4096..(wanted.position + u64::from(wanted.length)) / 4096;
            let bad = wanted.file != FileName::Superblock && self.bad.iter().any(|at| sectors.contains(at));
            if self.dead || (bad && now_us <= self.until_us) {
                // What a failed read leaves behind is anything.
                block.bytes_mut()[..wanted.length as usize].fill(0xEE);
                return Err(DiskError::Io { errno: 5 });
            }
            for (at, piece) in sectors.zip(block.bytes_mut().chunks_mut(4096)) {
                piece.fill(at as u8);
            }
            Ok(wanted.length)
        }
    }

    fn run(disk: &mut Disk, first: u64, sectors: u32) -> (Salvaged, Block, u64) {
        let mut block = Block::heap(BlockId(1), 64 * 4096);
        let mut salvage = Salvage::new(FileName::Extent(1), first * 4096, sectors * 4096);
        let mut now_us = 7;
        loop {
            now_us = now_us.max(salvage.due_us());
            let result = disk.answer(salvage.wanted(), &mut block, now_us);
            match salvage.take(result, &mut block, now_us) {
                Salvaged::More => assert!(disk.reads < 10_000, "it comes to an end"),
                over => return (over, block, now_us),
            }
        }
    }

    #[test]
    fn every_sector_that_answers_is_in_its_place_and_every_other_one_is_zeros() {
        for sectors in [1_u32, 2, 3, 7, 33, 64] {
            let all: Vec<u64> = (10..10 + u64::from(sectors)).collect();
            let last = all[all.len() - 1];
            for bad in [vec![], vec![10], vec![last], vec![10, 12, last], vec![13, 14, 15], all.clone()] {
                let mut disk = Disk { bad: bad.clone(), dead: false, reads: 0, until_us: u64::MAX };
                let (over, block, _) = run(&mut disk, 10, sectors);
                let lost = all.iter().filter(|at| bad.contains(at)).count();
                assert_eq!(over, Salvaged::Done { lost: lost as u32 }, "{sectors} sectors, bad {bad:?}");
                for (at, piece) in all.iter().zip(block.bytes().chunks(4096)) {
                    let expected = if bad.contains(at) { 0 } else { *at as u8 };
                    assert!(piece.iter().all(|byte| *byte == expected), "sector {at}, bad {bad:?}");
                }
            }
        }
    }

    #[test]
    fn a_disk_that_does_not_answer_at_all_has_lost_nothing() {
        let mut disk = Disk { bad: vec![], dead: true, reads: 0, until_us: 0 };
        let (over, _, _) = run(&mut disk, 0, 64);
        assert_eq!(over, Salvaged::Refused);
        assert!(disk.reads < 20, "{} reads tell", disk.reads);
    }

    #[test]
    fn a_sector_that_answers_after_a_while_is_not_lost() {
        let until_us = 7 + PAUSE_US + PAUSE_US / 2;
        let mut disk = Disk { bad: vec![5], dead: false, reads: 0, until_us };
        let (over, block, now_us) = run(&mut disk, 0, 16);
        assert_eq!((over, block.bytes()[5 * 4096]), (Salvaged::Done { lost: 0 }, 5));
        assert!(now_us > until_us);
    }

    #[test]
    fn few_reads_are_needed_around_one_sector() {
        let mut disk = Disk { bad: vec![21], dead: false, reads: 0, until_us: u64::MAX };
        assert_eq!(run(&mut disk, 0, 64).0, Salvaged::Done { lost: 1 });
        assert!(disk.reads <= 32, "{}", disk.reads);
    }
}
