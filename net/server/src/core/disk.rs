//! Disk operations on their way: which class goes where, and what a completion of the ring means to storage.
//!
//! Commit, cold and settle operations go to the ring, background ones to the host. **Invariant:** every operation is
//! answered exactly once, also one on a file that is not there.

use std::collections::HashMap;

use corelog_model::Slice;
use corelog_storage::{DiskCompletion, DiskError, DiskOp, FileName, OpClass, OpId, Tape};
use corelog_uring::{Completion, Errno, FileId, Submission};

use super::ops::OpSlab;
use super::{Op, Output};

/// The kinds of keys, for whoever reads traces.
const KIND_DISK: u8 = 1;

/// The open files of a log, and the operations on them.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    files: HashMap<FileName, FileId>,
    commits: usize,
    background: usize,
    /// Where a test records what is asked and answered.
    tape: Option<Tape>,
    /// Answers that did not need the disk.
    answered: Vec<DiskCompletion>,
}

/// A disk operation in the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    id: OpId,
    /// Bytes that have to be moved; `None`: as many as there are.
    expected: Option<u32>,
    commit: bool,
}

impl Disk {
    /// No files and nothing under way; with a tape, everything is recorded on it.
    pub(crate) fn new(tape: Option<Tape>) -> Self {
        Self { tape, ..Self::default() }
    }

    /// The log's operations are about to be started.
    pub(crate) fn record<'a>(&self, ops: &[DiskOp], bytes: impl Fn(Slice) -> &'a [u8]) {
        if let Some(tape) = &self.tape {
            tape.issued(ops, bytes);
        }
    }

    /// The log is about to be told of this answer.
    pub(crate) fn record_end<'a>(&self, answer: &DiskCompletion, bytes: impl Fn(Slice) -> &'a [u8]) {
        if let Some(tape) = &self.tape {
            tape.ended(answer, bytes);
        }
    }

    /// Records are about to be acknowledged, from this offset on.
    pub(crate) fn record_promise(&self, base_offset: u64) {
        if let Some(tape) = &self.tape {
            tape.promised(base_offset);
        }
    }

    /// The ring knows `file` under this id from now on.
    pub(crate) fn opened(&mut self, file: FileName, id: FileId) -> Option<FileId> {
        self.files.insert(file, id)
    }

    /// The file is gone; gives the id the ring is to forget.
    pub(crate) fn removed(&mut self, file: FileName) -> Option<FileId> {
        self.files.remove(&file)
    }

    /// Operations of the commit class in flight.
    pub(crate) const fn commits(&self) -> usize {
        self.commits
    }

    /// Operations of the background class in flight.
    pub(crate) const fn background(&self) -> usize {
        self.background
    }

    /// Answers to be handed to storage at once.
    pub(crate) fn answered(&mut self) -> Option<DiskCompletion> {
        self.answered.pop()
    }

    /// Starts operations of the log in `place`, in their order.
    pub(crate) fn start(
        &mut self,
        place: usize,
        wanted: &mut Vec<DiskOp>,
        ops: &mut OpSlab<Op>,
        out: &mut Output,
    ) {
        for op in wanted.drain(..) {
            if op.class() == OpClass::Background {
                self.background += 1;
                out.background.push((place, op));
                continue;
            }
            let Some(&file) = self.files.get(&op.file()) else {
                self.refuse(op);
                continue;
            };
            let commit = op.class() == OpClass::Commit;
            self.commits += usize::from(commit);
            let expected = match op {
                DiskOp::WriteFrame { source, .. } | DiskOp::WriteSuperblock { source, .. } => {
                    Some(source.length)
                }
                _ => None,
            };
            let key = ops.insert(KIND_DISK, Op::Disk(place, InFlight { id: op.id(), expected, commit }));
            out.submissions.push(match op {
                DiskOp::WriteFrame { position, source, flush, .. } => {
                    Submission::Write { key, file, position, source, flush }
                }
                // By the ring: the host allocates for what it does, and this one comes with every checkpoint.
                DiskOp::WriteSuperblock { copy, source, .. } => {
                    let position = u64::from(copy) * u64::from(source.length);
                    Submission::Write { key, file, position, source, flush: true }
                }
                DiskOp::Sync { .. } => Submission::Sync { key, file },
                DiskOp::Read { position, length, into, .. } => {
                    Submission::Read { key, file, position, into, length }
                }
                _ => unreachable!("background operations went to the host"),
            });
        }
    }

    /// The file was never opened, or is gone: as the system would say it.
    fn refuse(&mut self, op: DiskOp) {
        /// Linux's ENOENT.
        const NOT_FOUND: i32 = 2;
        let id = op.id();
        let block = match op {
            DiskOp::Read { into, .. } => Some(into),
            _ => None,
        };
        self.answered.push(DiskCompletion { id, result: Err(DiskError::Io { errno: NOT_FOUND }), block });
    }

    /// What the ring's completion means.
    pub(crate) fn complete(&mut self, op: InFlight, completion: Completion) -> DiskCompletion {
        self.commits -= usize::from(op.commit);
        let result = match (completion.result, op.expected) {
            (Ok(found), Some(expected)) if found < expected => Err(DiskError::Short { expected, found }),
            (Ok(moved), _) => Ok(moved),
            (Err(errno), _) => Err(disk_error(errno)),
        };
        DiskCompletion { id: op.id, result, block: completion.block }
    }

    /// The host has ended a background operation; `opened` is the file it made, as the ring knows it.
    pub(crate) fn background_ended(&mut self, opened: Option<(FileName, FileId)>) {
        self.background -= 1;
        if let Some((file, id)) = opened {
            self.opened(file, id);
        }
    }
}

/// The world's refusal as storage knows it.
pub(crate) fn disk_error(errno: Errno) -> DiskError {
    /// Linux's EDQUOT: as full as full.
    const QUOTA: Errno = Errno(122);
    match errno {
        Errno::NO_SPACE | QUOTA => DiskError::NoSpace,
        Errno(errno) => DiskError::Io { errno },
    }
}
