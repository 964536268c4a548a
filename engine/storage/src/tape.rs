//! What was asked of a disk and what it answered, in order: from it a test builds what a loss of power could have left at
//! any moment.
//!
//! Whoever carries the operations out tells the tape: the simulator, or the reactor of a real broker that a test has
//! given one. **Invariants:** reads leave no trace, as they change nothing; the tape is a value and does no I/O. It grows
//! with every byte written, so it is for tests alone.

use std::sync::{Arc, Mutex, PoisonError};

use corelog_model::Slice;

use crate::op::{DiskCompletion, DiskOp, FileName, OpId};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// A write was asked for: of a frame, or of a copy of the superblock.
    Write {
        /// Its name until its end.
        id: OpId,
        /// Where to.
        file: FileName,
        /// Position in the file, bytes.
        position: u64,
        /// The bytes, as they were then.
        bytes: Vec<u8>,
        /// Its end says that it is durable.
        flush: bool,
    },
    /// A flush was asked for.
    Sync {
        /// Its name until its end.
        id: OpId,
        /// Of what.
        file: FileName,
    },
    /// A file of zeros was asked for.
    Create {
        /// Its name until its end.
        id: OpId,
        /// The file.
        file: FileName,
        /// Its size.
        bytes: u64,
    },
    /// Durable zeros were asked for.
    Zero {
        /// Its name until its end.
        id: OpId,
        /// Where to.
        file: FileName,
        /// Position in the file, bytes.
        position: u64,
        /// How many.
        bytes: u64,
    },
    /// The removal of a file was asked for.
    Remove {
        /// Its name until its end.
        id: OpId,
        /// The file.
        file: FileName,
    },
    /// The answer to the operation of this name that was asked for last.
    Ended {
        /// Its name.
        id: OpId,
        /// It was done.
        done: bool,
        /// What then lay there, where that is known and is not what was asked for.
        left: Option<Vec<u8>>,
    },
    /// The process was killed with the power on: what the files held then is what its successor finds.
    Killed,
    /// Something was promised to a client; what it was, the owner of the tape knows.
    Promised(u64),
}

#[derive(Debug, Default)]
struct Reel {
    events: Vec<Recorded>,
    /// Writes under way: where their bytes are, and at which place of the events they stand.
    open: Vec<(OpId, Slice, usize)>,
}

/// A recording that goes on. Copies of it are the same recording.
#[derive(Clone, Debug, Default)]
pub struct Tape(Arc<Mutex<Reel>>);

impl Tape {
    /// Operations are handed over; `bytes` reads the source of a write.
    pub fn issued<'a>(&self, ops: &[DiskOp], bytes: impl Fn(Slice) -> &'a [u8]) {
        self.with(|reel| {
            for op in ops {
                let source = match op {
                    DiskOp::WriteFrame { source, .. } | DiskOp::WriteSuperblock { source, .. } => {
                        Some(*source)
                    }
                    _ => None,
                };
                let Some(event) = event_of(op, source.map(&bytes)) else { continue };
                if let Some(source) = source {
                    reel.open.push((op.id(), source, reel.events.len()));
                }
                reel.events.push(event);
            }
        });
    }

    /// An operation has ended; `bytes` reads the source of a write as it is now.
    pub fn ended<'a>(&self, completion: &DiskCompletion, bytes: impl Fn(Slice) -> &'a [u8]) {
        // Reads come back with their block.
        if completion.block.is_some() {
            return;
        }
        self.with(|reel| {
            let (id, done) = (completion.id, completion.result.is_ok());
            let at = reel.open.iter().position(|(open, ..)| *open == id);
            let left = at.map(|at| reel.open.swap_remove(at)).and_then(|(_, source, event)| {
                let (now, Recorded::Write { bytes, .. }) = (bytes(source), &reel.events[event]) else {
                    unreachable!("an open write stands among the events")
                };
                (now != bytes).then(|| now.to_vec())
            });
            reel.events.push(Recorded::Ended { id, done, left });
        });
    }

    /// Something was promised to a client.
    pub fn promised(&self, what: u64) {
        self.with(|reel| reel.events.push(Recorded::Promised(what)));
    }

    /// Everything so far.
    pub fn events(&self) -> Vec<Recorded> {
        self.with(|reel| reel.events.clone())
    }

    fn with<T>(&self, what: impl FnOnce(&mut Reel) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a tape keeps of an operation; nothing of a read. `source` is what a write was given.
fn event_of(op: &DiskOp, source: Option<&[u8]>) -> Option<Recorded> {
    let (id, file) = (op.id(), op.file());
    let bytes = source.unwrap_or_default().to_vec();
    Some(match op {
        DiskOp::WriteFrame { position, flush, .. } => {
            Recorded::Write { id, file, position: *position, bytes, flush: *flush }
        }
        DiskOp::WriteSuperblock { copy, .. } => {
            let position = u64::from(*copy) * bytes.len() as u64;
            Recorded::Write { id, file, position, bytes, flush: true }
        }
        DiskOp::Sync { .. } => Recorded::Sync { id, file },
        DiskOp::CreateExtent { bytes, .. } => Recorded::Create { id, file, bytes: *bytes },
        DiskOp::Zero { position, bytes, .. } => {
            Recorded::Zero { id, file, position: *position, bytes: *bytes }
        }
        DiskOp::Remove { .. } => Recorded::Remove { id, file },
        DiskOp::Read { .. } => return None,
    })
}

impl Recorded {
    /// The event of one operation, with the bytes that a write was given; `None` for a read.
    pub fn of(op: &DiskOp, source: &[u8]) -> Option<Self> {
        event_of(op, Some(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_model::{Block, BlockId};

    #[test]
    fn a_write_whose_bytes_change_on_their_way_is_told_from_one_that_keeps_them() {
        let (tape, mut block) = (Tape::default(), Block::heap(BlockId(3), 4096));
        let source = Slice { block: BlockId(3), offset: 0, length: 512 };
        let op = |id| DiskOp::WriteFrame {
            id: OpId(id),
            file: FileName::Extent(1),
            position: 4096,
            source,
            flush: false,
        };
        let done = |id| DiskCompletion { id: OpId(id), result: Ok(512), block: None };
        tape.issued(&[op(1), op(2)], |slice| &block.bytes()[..slice.length as usize]);
        tape.ended(&done(1), |slice| &block.bytes()[..slice.length as usize]);
        block.bytes_mut()[7] = 9;
        tape.ended(&done(2), |slice| &block.bytes()[..slice.length as usize]);
        let events = tape.events();
        assert!(matches!(&events[0], Recorded::Write { bytes, flush: false, .. } if bytes.len() == 512));
        assert_eq!(events[2], Recorded::Ended { id: OpId(1), done: true, left: None });
        let changed = |left: &Vec<u8>| left[7] == 9 && left[8..].iter().all(|byte| *byte == 0);
        assert!(matches!(&events[3], Recorded::Ended { left: Some(left), .. } if changed(left)));
    }

    #[test]
    fn a_read_leaves_no_trace() {
        let tape = Tape::default();
        let read = DiskOp::Read {
            id: OpId(1),
            file: FileName::Superblock,
            position: 0,
            length: 4096,
            into: Block::heap(BlockId(0), 4096),
        };
        tape.issued(&[read], |_| unreachable!("a read has no source"));
        let block = Some(Block::heap(BlockId(0), 4096));
        tape.ended(&DiskCompletion { id: OpId(1), result: Ok(4096), block }, |_| unreachable!());
        assert!(tape.events().is_empty());
    }
}
