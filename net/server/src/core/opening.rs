//! The time before the first turn: each shard reads its log back and writes the first frame of its term.

use corelog_model::time::Now;
use corelog_model::{BlockId, LogId, Slice};
use corelog_shard::{Actions, Event, Shard, StartError, Starting};
use corelog_storage::{DiskCompletion, FileName, Tape};
use corelog_uring::{Completion, FileId};

use super::disk::Disk;
use super::logs::{Logs, Owners, Served};
use super::{Core, Op, OpSlab, Output, Parts};

/// The shards of a core on their way, with the operations they wait for.
pub struct Opening {
    logs: Vec<OpeningLog>,
    owners: Owners,
    ops: OpSlab<Op>,
}

/// A log to be opened.
pub struct Start {
    /// Which one.
    pub log: LogId,
    /// Its shard, which has not begun.
    pub starting: Starting,
    /// All blocks that the shard was given.
    pub blocks: Vec<BlockId>,
    /// Where a test records what the disk is asked and answers.
    pub tape: Option<Tape>,
}

struct OpeningLog {
    log: LogId,
    starting: Starting,
    disk: Disk,
    actions: Actions,
    shard: Option<Shard>,
}

/// Replies of one turn that need no more memory: some hundred waiting fetches and a full frame of produces.
const REPLIES: usize = 4096;

impl Opening {
    /// Prepares the start; `operations` is the number of slots of the ring. A log's place is its place in `starts`.
    pub fn new(starts: Vec<Start>, operations: u32) -> Self {
        let (mut logs, mut owners) = (Vec::with_capacity(starts.len()), Owners::default());
        for (place, Start { log, starting, blocks, tape }) in starts.into_iter().enumerate() {
            owners.add(place, blocks);
            let (disk, actions) = (Disk::new(tape), Actions::sized(REPLIES));
            logs.push(OpeningLog { log, starting, disk, actions, shard: None });
        }
        Self { logs, owners, ops: OpSlab::new(operations as usize) }
    }

    /// The ring knows this file of the log in `place`.
    pub fn opened(&mut self, place: usize, file: FileName, id: FileId) -> Option<FileId> {
        self.logs[place].disk.opened(file, id)
    }

    /// The file is about to be removed or replaced; gives what the ring is to forget.
    pub fn forget_file(&mut self, place: usize, file: FileName) -> Option<FileId> {
        self.logs[place].disk.removed(file)
    }

    /// Asks for the first operations.
    pub fn start(&mut self, now: Now, out: &mut Output) -> Result<(), StartError> {
        for place in 0..self.logs.len() {
            let OpeningLog { starting, actions, .. } = &mut self.logs[place];
            starting.start(actions)?;
            self.perform(now, place, out)?;
        }
        Ok(())
    }

    /// Takes one completion of the ring.
    pub fn on(&mut self, now: Now, completion: Completion, out: &mut Output) -> Result<(), StartError> {
        match self.ops.take(completion.key) {
            Some(Op::Disk(place, op)) => {
                let answer = self.logs[place].disk.complete(op, completion);
                self.logs[place].take(now, answer)?;
                self.perform(now, place, out)
            }
            _ => Ok(()),
        }
    }

    /// Takes the end of a background operation of the log in `place`; `opened` is the file it made, as the ring knows it.
    pub fn on_background(
        &mut self,
        now: Now,
        place: usize,
        ended: DiskCompletion,
        opened: Option<(FileName, FileId)>,
        out: &mut Output,
    ) -> Result<(), StartError> {
        let log = &mut self.logs[place];
        log.disk.background_ended(opened);
        log.take(now, ended)?;
        self.perform(now, place, out)
    }

    /// Whether the first frame of the new term is durable, of each log.
    pub fn is_open(&self) -> bool {
        self.logs.iter().all(|log| log.shard.is_some())
    }

    /// The bytes of a slice that an operation names.
    pub fn bytes(&self, slice: Slice) -> &[u8] {
        self.logs[self.owners.of(slice.block)].bytes(slice)
    }

    /// The core, once [`Opening::is_open`].
    ///
    /// # Panics
    /// When a shard is not open yet.
    pub fn into_core(self, parts: Parts) -> Core {
        let serve = |OpeningLog { log, shard, disk, actions, .. }| Served {
            log,
            shard: shard.expect("the shard is open"),
            disk,
            actions,
            evicted: Vec::new(),
        };
        let logs = Logs::new(parts.me, self.logs.into_iter().map(serve).collect(), self.owners);
        Core::new(parts, logs, self.ops)
    }

    fn perform(&mut self, now: Now, place: usize, out: &mut Output) -> Result<(), StartError> {
        let log = &mut self.logs[place];
        loop {
            log.disk.record(&log.actions.disk, |slice| log.bytes(slice));
            log.disk.start(place, &mut log.actions.disk, &mut self.ops, out);
            match log.disk.answered() {
                Some(answer) => log.take(now, answer)?,
                None => return Ok(()),
            }
        }
    }
}

impl OpeningLog {
    fn bytes(&self, slice: Slice) -> &[u8] {
        self.shard.as_ref().map_or_else(|| self.starting.bytes(slice), |shard| shard.bytes(slice))
    }

    fn take(&mut self, now: Now, answer: DiskCompletion) -> Result<(), StartError> {
        self.disk.record_end(&answer, |slice| self.bytes(slice));
        match &mut self.shard {
            // What was under way when the last piece came belongs to the running shard.
            Some(shard) => shard.on(now, Event::Disk(answer)),
            None => self.shard = self.starting.on(answer, now, &mut self.actions)?,
        }
        Ok(())
    }
}
