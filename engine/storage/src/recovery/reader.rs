//! A range of one file as a stream: a few reads ahead, bytes in order, whatever order they complete in.
//!
//! A read that fails is made once more in pieces (`salvage.rs`), at once: a start has no clock to wait by. Sectors that
//! never answer read as zeros, and are noted.
//!
//! **Invariant:** every block lent to a read comes back to the pool.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use corelog_model::Block;
use corelog_model::limits::FRAME_ALIGN;
use corelog_model::time::Now;

use crate::op::{DiskCompletion, DiskError, DiskOp, FileName, Purpose};
use crate::salvage::{Salvage, Salvaged, Wanted};

/// One read covers at most this much.
const READ_BYTES: u64 = 1 << 20;

struct Waiting {
    ticket: u64,
    position: u64,
    length: u32,
    /// It has failed: its pieces.
    salvage: Option<Salvage>,
    arrived: Option<Block>,
}

pub(crate) struct Reader {
    file: FileName,
    /// Where the next read starts, and where the range ends.
    next: u64,
    end: u64,
    waiting: VecDeque<Waiting>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were consumed.
    consumed: usize,
    /// Sectors of the range that cannot be read, by their positions.
    unreadable: BTreeSet<u64>,
}

impl Reader {
    pub(crate) fn new(file: FileName, from: u64, end: u64) -> Self {
        let (waiting, buffer, unreadable) = (VecDeque::new(), Vec::new(), BTreeSet::new());
        Self { file, next: from, end, waiting, buffer, consumed: 0, unreadable }
    }

    /// Asks for as much as there are blocks for, unless the buffer already holds plenty.
    pub(crate) fn pump(&mut self, pool: &mut Vec<Block>, ticket: &mut u64, out: &mut Vec<DiskOp>) {
        while self.next < self.end {
            let Some(block) = pool.pop() else { return };
            let length = (block.len() as u64).min(READ_BYTES).min(self.end - self.next);
            *ticket += 1;
            let id = Purpose::OpeningRead { ticket: *ticket }.id();
            let (position, length) = (self.next, length as u32);
            self.waiting.push_back(Waiting {
                ticket: *ticket,
                position,
                length,
                salvage: None,
                arrived: None,
            });
            out.push(DiskOp::Read { id, file: self.file, position, length, into: block });
            self.next += u64::from(length);
        }
    }

    /// Takes a completion; what failed is asked for again, in pieces.
    pub(crate) fn take(
        &mut self,
        ticket: u64,
        completion: DiskCompletion,
        pool: &mut Vec<Block>,
        now: Now,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), DiskError> {
        let (id, result) = (completion.id, completion.result);
        let Some(mut block) = completion.block else { return Ok(()) };
        let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.ticket == ticket) else {
            // Of a range that is no longer needed.
            pool.push(block);
            return Ok(());
        };
        let Waiting { position, length, .. } = *waiting;
        let file = self.file;
        let salvaged = match &mut waiting.salvage {
            None if result == Ok(length) => Salvaged::Done { lost: 0 },
            None => {
                waiting.salvage = Some(Salvage::new(file, position, length));
                Salvaged::More
            }
            Some(salvage) => {
                let salvaged = salvage.take(result, &mut block, now.mono_us);
                self.unreadable.extend(salvage.given_up());
                salvaged
            }
        };
        match (salvaged, &waiting.salvage) {
            (Salvaged::More, Some(salvage)) => {
                let Wanted { file, position, length } = salvage.wanted();
                out.push(DiskOp::Read { id, file, position, length, into: block });
                return Ok(());
            }
            (Salvaged::Refused, _) => {
                pool.push(block);
                return Err(failure(result, length));
            }
            _ => waiting.arrived = Some(block),
        }
        while let Some(block) = self.waiting.front_mut().and_then(|waiting| waiting.arrived.take()) {
            let waiting = self.waiting.pop_front().expect("its block was just taken");
            self.compact();
            self.buffer.extend_from_slice(&block.bytes()[..waiting.length as usize]);
            pool.push(block);
        }
        Ok(())
    }

    /// Goes on with another range: blocks that arrived out of order go back, those still away follow.
    pub(crate) fn replace(&mut self, other: Self, pool: &mut Vec<Block>) {
        pool.extend(self.waiting.iter_mut().filter_map(|waiting| waiting.arrived.take()));
        *self = other;
    }

    /// The first sector in these bytes of the file that cannot be read.
    pub(crate) fn unreadable(&self, range: Range<u64>) -> Option<u64> {
        self.unreadable.range(range).next().copied()
    }

    fn compact(&mut self) {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.consumed..]
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        assert!(bytes.is_multiple_of(FRAME_ALIGN) && bytes <= self.buffer.len() - self.consumed);
        self.consumed += bytes;
    }

    /// Whether nothing will be added to the bytes any more.
    pub(crate) fn at_end(&self) -> bool {
        self.next >= self.end && self.waiting.is_empty()
    }
}

/// Why a read of so many bytes did not bring them.
pub(crate) fn failure(result: Result<u32, DiskError>, expected: u32) -> DiskError {
    match result {
        Ok(found) => DiskError::Short { expected, found },
        Err(error) => error,
    }
}
