//! The time before the first turn: the shard reads its log back and writes the first frame of its term.

use corelog_model::Slice;
use corelog_model::time::Now;
use corelog_shard::{Actions, Shard, StartError, Starting};
use corelog_storage::{DiskCompletion, FileName};
use corelog_uring::{Completion, FileId};

use super::{Core, Disk, Op, OpSlab, Output, Parts};

/// A shard on its way, with the operations it waits for.
pub struct Opening {
    starting: Starting,
    disk: Disk,
    ops: OpSlab<Op>,
    actions: Actions,
    shard: Option<Shard>,
}

/// Replies of one turn that need no more memory: some hundred waiting fetches and a full frame of produces.
const REPLIES: usize = 4096;

impl Opening {
    /// Prepares the start; `operations` is the number of slots of the ring.
    pub fn new(starting: Starting, operations: u32) -> Self {
        Self {
            starting,
            disk: Disk::default(),
            ops: OpSlab::new(operations as usize),
            actions: Actions::sized(REPLIES),
            shard: None,
        }
    }

    /// The ring knows this file of the log.
    pub fn opened(&mut self, file: FileName, id: FileId) -> Option<FileId> {
        self.disk.opened(file, id)
    }

    /// The file is about to be removed or replaced; gives what the ring is to forget.
    pub fn forget_file(&mut self, file: FileName) -> Option<FileId> {
        self.disk.removed(file)
    }

    /// Asks for the first operations.
    pub fn start(&mut self, now: Now, out: &mut Output) -> Result<(), StartError> {
        self.starting.start(&mut self.actions)?;
        self.perform(now, out)
    }

    /// Takes one completion of the ring.
    pub fn on(&mut self, now: Now, completion: Completion, out: &mut Output) -> Result<(), StartError> {
        match self.ops.take(completion.key) {
            Some(Op::Disk(op)) => {
                let answer = self.disk.complete(op, completion);
                self.take(now, answer)?;
                self.perform(now, out)
            }
            _ => Ok(()),
        }
    }

    /// Takes the end of a background operation; `opened` is the file it made, as the ring knows it.
    pub fn on_background(
        &mut self,
        now: Now,
        ended: DiskCompletion,
        opened: Option<(FileName, FileId)>,
        out: &mut Output,
    ) -> Result<(), StartError> {
        self.disk.background_ended();
        if let Some((file, id)) = opened {
            self.disk.opened(file, id);
        }
        self.take(now, ended)?;
        self.perform(now, out)
    }

    /// Whether the first frame of the new term is durable.
    pub const fn is_open(&self) -> bool {
        self.shard.is_some()
    }

    /// The bytes of a slice that an operation names.
    pub fn bytes(&self, slice: Slice) -> &[u8] {
        self.shard.as_ref().map_or_else(|| self.starting.bytes(slice), |shard| shard.bytes(slice))
    }

    /// The core, once [`Opening::is_open`]. `parts` is given the started shard.
    ///
    /// # Panics
    /// When the shard is not open yet.
    pub fn into_core(self, parts: impl FnOnce(Shard) -> Parts) -> Core {
        let shard = self.shard.expect("the shard is open");
        Core::new(parts(shard), self.disk, self.ops, self.actions)
    }

    fn take(&mut self, now: Now, answer: DiskCompletion) -> Result<(), StartError> {
        match &mut self.shard {
            // What was under way when the last piece came belongs to the running shard.
            Some(shard) => shard.on(now, corelog_shard::Event::Disk(answer)),
            None => self.shard = self.starting.on(answer, now, &mut self.actions)?,
        }
        Ok(())
    }

    fn perform(&mut self, now: Now, out: &mut Output) -> Result<(), StartError> {
        loop {
            self.disk.start(&mut self.actions.disk, &mut self.ops, out);
            match self.disk.answered() {
                Some(answer) => self.take(now, answer)?,
                None => return Ok(()),
            }
        }
    }
}
