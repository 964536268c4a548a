//! A range of one file as a stream: a few reads ahead, bytes in order, whatever order they complete in.
//!
//! **Invariant:** every block lent to a read comes back to the pool.

use std::collections::VecDeque;

use corelog_model::Block;
use corelog_model::limits::FRAME_ALIGN;

use crate::op::{DiskCompletion, DiskError, DiskOp, FileName, Purpose};

/// One read covers at most this much.
const READ_BYTES: u64 = 1 << 20;

struct Waiting {
    ticket: u64,
    length: u32,
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
}

impl Reader {
    pub(crate) fn new(file: FileName, from: u64, end: u64) -> Self {
        Self { file, next: from, end, waiting: VecDeque::new(), buffer: Vec::new(), consumed: 0 }
    }

    /// Asks for as much as there are blocks for, unless the buffer already holds plenty.
    pub(crate) fn pump(&mut self, pool: &mut Vec<Block>, ticket: &mut u64, out: &mut Vec<DiskOp>) {
        while self.next < self.end {
            let Some(block) = pool.pop() else { return };
            let length = (block.len() as u64).min(READ_BYTES).min(self.end - self.next);
            *ticket += 1;
            let id = Purpose::OpeningRead { ticket: *ticket }.id();
            self.waiting.push_back(Waiting { ticket: *ticket, length: length as u32, arrived: None });
            out.push(DiskOp::Read {
                id,
                file: self.file,
                position: self.next,
                length: length as u32,
                into: block,
            });
            self.next += length;
        }
    }

    /// Takes a completion. Bytes beyond the end of a file read as nothing: the range ends there.
    pub(crate) fn take(
        &mut self,
        ticket: u64,
        completion: DiskCompletion,
        pool: &mut Vec<Block>,
    ) -> Result<(), DiskError> {
        let Some(block) = completion.block else { return Ok(()) };
        let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.ticket == ticket) else {
            // Of a range that is no longer needed.
            pool.push(block);
            return Ok(());
        };
        let found = match completion.result {
            Ok(found) if found == waiting.length => found,
            Ok(found) => {
                pool.push(block);
                return Err(DiskError::Short { expected: waiting.length, found });
            }
            Err(error) => {
                pool.push(block);
                return Err(error);
            }
        };
        debug_assert!(found as usize <= block.len());
        waiting.arrived = Some(block);
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
