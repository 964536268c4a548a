//! One log on a medium: hands its operations over, ends them when it is told to, and records both.

use corelog_model::batch::BatchHeader;
use corelog_model::{Block, BlockId, GroupId, Now, Slice};
use corelog_storage::{
    DiskCompletion, DiskError, DiskOp, Finished, GroupSlot, Log, LogConfig, Memory, OpenError, Opening, Read,
    ReadRequest, Recorded, Replayed, plain_copy,
};

use super::ledger::{Gap, Owner};
use super::medium::{Fate, Medium};

/// Linux' EIO.
const EIO: i32 = 5;
/// Turns after which something is said to wait for ever.
const STUCK: usize = 10_000;

/// What a start told the log's owner.
#[derive(Debug, Default)]
pub struct Told {
    /// What the owner knows again.
    pub owner: Owner,
    /// Entries of the owner that are not there.
    pub gaps: Vec<Gap>,
    /// Damaged offsets: of a group, or frames of nobody knows whom.
    pub damaged: Vec<(Option<GroupId>, u64, u64)>,
    /// Groups, and from which offset on records may be gone.
    pub possibly_lost: Vec<(GroupId, u64)>,
}

/// Why there is no log.
#[derive(Debug)]
pub enum Stopped {
    /// It was interrupted, as asked: the medium knows what was under way.
    Interrupted,
    /// The log was refused.
    Refused(OpenError),
    /// Its owner was told what cannot be.
    Wrong(String),
}

/// Takes one batch after the other.
pub type EachBatch<'a> = dyn FnMut(&BatchHeader, &[u8]) -> Result<(), String> + 'a;

/// How an operation ends.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// As asked for.
    Done,
    /// With an error; a write leaves so much of itself.
    Failed(Fate),
}

/// A running log.
pub struct Engine {
    /// The log.
    pub log: Log,
    /// Its disk.
    pub medium: Medium,
    /// What happened to the disk.
    pub tape: Vec<Recorded>,
    /// Operations under way, oldest first.
    pub waiting: Vec<DiskOp>,
    /// Monotonic time, microseconds.
    pub clock_us: u64,
    /// A read that no reader waits for is over.
    finished: Vec<Finished>,
}

/// The time, so many microseconds after the start of the machine.
pub fn at(mono_us: u64) -> Now {
    Now { mono_us, wall_us: 1_700_000_000_000_000 + mono_us }
}

/// A medium that is told what is asked of it, and the recording of that.
struct Pen<'a> {
    medium: &'a mut Medium,
    tape: &'a mut Vec<Recorded>,
}

impl Pen<'_> {
    fn note(&mut self, event: Recorded) {
        self.medium.apply(&event);
        self.tape.push(event);
    }

    fn issue<'b>(&mut self, op: &DiskOp, bytes: impl Fn(Slice) -> &'b [u8]) {
        let source = match op {
            DiskOp::WriteFrame { source, .. } | DiskOp::WriteSuperblock { source, .. } => bytes(*source),
            _ => &[],
        };
        if let Some(event) = Recorded::of(op, source) {
            self.note(event);
        }
    }

    /// Ends an operation; `now` is what a write's source holds at this moment.
    fn end<'b>(&mut self, op: DiskOp, ending: Ending, bytes: impl Fn(Slice) -> &'b [u8]) -> DiskCompletion {
        let (id, file) = (op.id(), op.file());
        let refused = Err(DiskError::Io { errno: EIO });
        let done = matches!(ending, Ending::Done);
        let (left, moved) = match op {
            DiskOp::Read { position, length, mut into, .. } => {
                let found = self.medium.live().read(file, position, &mut into.bytes_mut()[..length as usize]);
                let result = if done { Ok(found as u32) } else { refused };
                return DiskCompletion { id, result, block: Some(into) };
            }
            DiskOp::WriteFrame { position, source, .. } => {
                (self.left(file, position, bytes(source), ending), source.length)
            }
            DiskOp::WriteSuperblock { copy, source, .. } => {
                let position = u64::from(copy) * u64::from(source.length);
                (self.left(file, position, bytes(source), ending), source.length)
            }
            DiskOp::Zero { position, bytes, .. } => {
                (self.left(file, position, &vec![0; bytes as usize], ending), bytes as u32)
            }
            DiskOp::Sync { .. } | DiskOp::CreateExtent { .. } | DiskOp::Remove { .. } => (None, 0),
        };
        self.note(Recorded::Ended { id, done, left });
        DiskCompletion { id, result: if done { Ok(moved) } else { refused }, block: None }
    }

    /// What lies there once a write has ended like this.
    fn left(
        &self,
        file: corelog_storage::FileName,
        position: u64,
        now: &[u8],
        ending: Ending,
    ) -> Option<Vec<u8>> {
        match ending {
            Ending::Done => Some(now.to_vec()),
            Ending::Failed(fate) => {
                let old = self.medium.live().bytes(file, position, now.len());
                Some(fate.overlay(old, now))
            }
        }
    }
}

/// The memory of a small log.
fn memory(config: &LogConfig) -> Memory {
    // Reads begin and end on sectors.
    let bytes = 2 * config.max_frame_bytes() + 8192;
    let blocks = |ids: std::ops::Range<u32>| ids.map(|id| Block::heap(BlockId(id), bytes)).collect();
    let page = Block::heap(BlockId(30), 4096);
    let (window, cold, settle) = (blocks(10..14), blocks(20..22), blocks(40..43));
    Memory { window, cold, settle, scrub: None, page, copy: plain_copy }
}

impl Engine {
    /// Opens the log on a medium. With `stop`, after so many operations have been asked for or have ended it is left alone,
    /// and the medium stays behind in `rest`.
    pub fn open(
        config: &LogConfig,
        mut medium: Medium,
        mut tape: Vec<Recorded>,
        stop: Option<usize>,
        rest: &mut Medium,
    ) -> Result<(Self, Told), Stopped> {
        let (mut ops, mut waiting) = (Vec::new(), Vec::new());
        let mut told = Told::default();
        let mut wrong = None;
        let mut steps = 0;
        let mut opening = Opening::new(config.clone(), memory(config), medium.live().listing(), at(0));
        opening.start(&mut ops).map_err(Stopped::Refused)?;
        loop {
            let mut pen = Pen { medium: &mut medium, tape: &mut tape };
            for op in ops.drain(..) {
                pen.issue(&op, |slice| opening.bytes(slice));
                waiting.push(op);
                steps += 1;
                if stop.is_some_and(|stop| steps >= stop) {
                    *rest = medium;
                    return Err(Stopped::Interrupted);
                }
            }
            if waiting.is_empty() {
                return Err(Stopped::Wrong("an opening log waits for nothing".to_owned()));
            }
            let op = waiting.remove(0);
            let completion = pen.end(op, Ending::Done, |slice| opening.bytes(slice));
            steps += 1;
            let mut replay = |event: Replayed<'_>| {
                if let Err(what) = told.take(event) {
                    wrong.get_or_insert(what);
                }
            };
            let opened = opening.on(completion, at(0), &mut replay, &mut ops).map_err(Stopped::Refused)?;
            if let Some(what) = wrong {
                return Err(Stopped::Wrong(what));
            }
            if let Some(log) = opened {
                let mut engine = Self { log, medium, tape, waiting, clock_us: 0, finished: Vec::new() };
                engine.issue(ops);
                return Ok((engine, told));
            }
        }
    }

    fn issue(&mut self, ops: Vec<DiskOp>) {
        let Self { log, medium, tape, waiting, .. } = self;
        let mut pen = Pen { medium, tape };
        for op in ops {
            pen.issue(&op, |slice| log.bytes(slice));
            waiting.push(op);
        }
    }

    /// Notes what is not the disk's.
    pub fn note(&mut self, event: Recorded) {
        Pen { medium: &mut self.medium, tape: &mut self.tape }.note(event);
    }

    /// The log asks for what it wants next.
    pub fn turn(&mut self) {
        self.clock_us += 10;
        let mut ops = Vec::new();
        self.log.cut(at(self.clock_us), &mut ops);
        self.issue(ops);
    }

    /// Ends one of the operations under way, and tells the log.
    pub fn end(&mut self, which: usize, ending: Ending) {
        let completion = self.end_unheard(which, ending);
        self.log.on(completion, at(self.clock_us));
        self.log.check();
    }

    /// Ends one of the operations under way; nobody hears of it.
    pub fn end_unheard(&mut self, which: usize, ending: Ending) -> DiskCompletion {
        let op = self.waiting.remove(which);
        let Self { log, medium, tape, .. } = self;
        Pen { medium, tape }.end(op, ending, |slice| log.bytes(slice))
    }

    /// Everything that the log wants is done, until it wants nothing.
    pub fn settle(&mut self) {
        for _ in 0..STUCK {
            self.turn();
            if self.waiting.is_empty() {
                return;
            }
            while !self.waiting.is_empty() {
                self.end(0, Ending::Done);
            }
        }
        panic!("a log that is left alone comes to rest");
    }

    /// Reads a group from `offset` on: one batch at a time to `each`, and what is damaged to `lost`.
    pub fn read(
        &mut self,
        slot: GroupSlot,
        mut offset: u64,
        each: &mut EachBatch<'_>,
        lost: &mut dyn FnMut(u64, u64),
    ) -> Result<(), String> {
        let end_offset = self.log.log_end(slot);
        let mut slices = Vec::new();
        for _ in 0..STUCK {
            if offset >= end_offset {
                return Ok(());
            }
            let request = ReadRequest { slot, offset, end_offset, max_bytes: 32 << 10, token: 9 };
            let mut ops = Vec::new();
            let answer = self.log.read(&request, &mut slices, &mut ops);
            self.issue(ops);
            match answer {
                Read::Ready { next_offset } => offset = next_offset,
                Read::Damaged { first, last } => {
                    lost(first, last);
                    offset = last + 1;
                }
                Read::Pending | Read::Busy => self.read_on()?,
                other => return Err(format!("offset {offset} is read as {other:?}")),
            }
            for slice in slices.drain(..) {
                let bytes = self.log.bytes(slice);
                let header = BatchHeader::parse(bytes).map_err(|error| format!("at {offset}: {error:?}"))?;
                each(&header, bytes)?;
                self.log.unpin(slice.block);
            }
        }
        Err(format!("a read of offset {offset} never ends"))
    }

    /// What is under way comes to its end, a read above all.
    fn read_on(&mut self) -> Result<(), String> {
        if self.waiting.is_empty() {
            self.turn();
        }
        if self.waiting.is_empty() {
            // A reader may wait for time to pass: for another one that reads there, or to ask a bad sector again.
            self.clock_us = self.clock_us.max(self.log.next_deadline().unwrap_or(0));
        }
        while !self.waiting.is_empty() {
            self.end(0, Ending::Done);
        }
        self.finished.clear();
        self.log.finished(&mut self.finished);
        match self.finished.iter().any(|finished| finished.failed) {
            true => Err("a read failed on a disk that does not".to_owned()),
            false => Ok(()),
        }
    }
}
