//! One log of a machine: its directory on the disk, and the shard over it, which is starting, running, or off.
//!
//! Performs the shard's actions in the order of a reactor and decides nothing. Time, letters and the trace are the
//! machine's.

use corelog_model::{Block, BlockId, Now, Slice};
use corelog_shard::{
    Actions, ConnId, Event, Letter, Principal, Request, Response, Shard, ShardConfig, StartError, Starting,
    Taken,
};
use corelog_storage::{DiskOp, LogConfig, Memory, Tape, plain_copy};

use crate::disk::SimDisk;
use crate::random::Random;
use crate::trace::Trace;

/// Blocks of the window that come after the start, and the first of their names.
const LATER_BLOCKS: u32 = 3;
const FIRST_LATER_BLOCK: u32 = 12;

enum State {
    Off,
    Starting(Box<Starting>),
    Running(Box<Shard>),
}

/// A slice that is being sent.
struct Hold {
    block: BlockId,
    until_us: u64,
}

/// A log and its shard.
pub struct Node {
    /// Its disk, which outlives crashes.
    pub disk: SimDisk,
    /// What the next start is given.
    pub config: ShardConfig,
    /// What the shard wants done; the replies in it are the driver's to take.
    pub actions: Actions,
    /// Where its disk operations are recorded, when they are.
    pub tape: Option<Tape>,
    state: State,
    /// Blocks of the window that came later.
    grown: u32,
    holds: Vec<Hold>,
}

impl Node {
    /// A node that is off.
    pub fn new(config: ShardConfig, disk: SimDisk) -> Self {
        let (actions, holds) = (Actions::default(), Vec::new());
        Self { disk, config, actions, tape: None, state: State::Off, grown: 0, holds }
    }

    /// The shard, when it is ready.
    pub fn shard(&self) -> Option<&Shard> {
        match &self.state {
            State::Running(shard) => Some(shard),
            State::Off | State::Starting(_) => None,
        }
    }

    /// Begins to start from what the disk holds.
    pub(crate) fn start(&mut self, now: Now, trace: &mut Trace) -> Result<(), StartError> {
        self.tell_harm(trace);
        let listing = self.disk.listing();
        trace.line(format_args!("start {:?}", listing.files));
        let memory = memory(&self.config.log);
        self.grown = 0;
        let mut starting = Starting::new(self.config.clone(), memory, listing, now);
        starting.start(&mut self.actions)?;
        self.state = State::Starting(Box::new(starting));
        self.submit(now, trace);
        Ok(())
    }

    /// The power fails: only the disk remembers.
    pub(crate) fn crash(&mut self) {
        let Self { disk, state, .. } = self;
        disk.crash(&|slice| bytes_of(state, slice));
        self.off();
    }

    /// The process is killed: the disk keeps what it was given, flushed or not.
    pub(crate) fn kill(&mut self) {
        let Self { disk, state, .. } = self;
        disk.kill(&|slice| bytes_of(state, slice));
        self.off();
    }

    fn off(&mut self) {
        self.state = State::Off;
        self.actions.clear();
        self.holds.clear();
    }

    /// The rest of the live window's memory comes, a block at a time.
    pub(crate) fn grow(&mut self, now: Now) {
        if self.shard().is_some() && self.grown < LATER_BLOCKS {
            let block = Block::heap(BlockId(FIRST_LATER_BLOCK + self.grown), block_bytes(&self.config.log));
            self.grown += 1;
            self.event(now, Event::Memory(vec![block]));
        }
    }

    /// Something happens to the running shard.
    pub(crate) fn event(&mut self, now: Now, event: Event) {
        if let State::Running(shard) = &mut self.state {
            shard.on(now, event);
        }
    }

    /// A local client connects.
    pub(crate) fn connect(&mut self, now: Now, conn: ConnId) {
        self.event(now, Event::Connected { conn, principal: Principal::Local });
    }

    /// A client asks the running shard; `None` when it is not running.
    pub(crate) fn request(
        &mut self,
        now: Now,
        conn: ConnId,
        correlation: u64,
        request: &Request<'_>,
        trace: &mut Trace,
    ) -> Option<Taken> {
        let State::Running(shard) = &mut self.state else { return None };
        let taken = shard.request(now, conn, correlation, request, &mut self.actions);
        trace.line(format_args!(
            "{} {}.{correlation} {} {taken:?}",
            now.mono_us,
            conn.slot,
            name_of(request)
        ));
        Some(taken)
    }

    /// A connection has taken what was pushed to it.
    pub(crate) fn drained(&mut self, now: Now, conn: ConnId) {
        if let State::Running(shard) = &mut self.state {
            shard.drained(now, conn, &mut self.actions);
        }
    }

    /// Nobody will ask anything more on a connection.
    pub(crate) fn hurry(&mut self, now: Now, conn: ConnId) {
        if let State::Running(shard) = &mut self.state {
            shard.hurry(now, conn, &mut self.actions);
        }
    }

    /// The end of a reactor's turn; the letters it wrote.
    pub(crate) fn turn(&mut self, now: Now, trace: &mut Trace) -> std::vec::Drain<'_, Letter> {
        if let State::Running(shard) = &mut self.state {
            shard.turn(now, &mut self.actions);
        }
        self.submit(now, trace);
        self.actions.letters.drain(..)
    }

    /// Copies the bytes of an answer; its slices stay pinned for a while, as if they were being sent.
    pub(crate) fn receive(&mut self, now: Now, response: &Response, random: &mut Random) -> Vec<Vec<u8>> {
        let State::Running(shard) = &self.state else { return Vec::new() };
        let (Response::Fetched { slices, .. } | Response::Pushed { slices, .. }) = response else {
            return Vec::new();
        };
        let slices = &self.actions.slices[slices.clone()];
        let holds =
            slices.iter().map(|slice| Hold { block: slice.block, until_us: now.mono_us + random.below(500) });
        self.holds.extend(holds);
        slices.iter().map(|slice| shard.bytes(*slice).to_vec()).collect()
    }

    /// All answers are taken: their slices are forgotten, and blocks that must go are let go.
    pub fn received_all(&mut self) {
        self.actions.slices.clear();
        for block in self.actions.evict.drain(..) {
            self.holds.iter_mut().filter(|hold| hold.block == block).for_each(|hold| hold.until_us = 0);
        }
    }

    /// Slices that are being sent.
    pub(crate) fn holds(&self) -> usize {
        self.holds.len()
    }

    /// When something is due, in microseconds.
    pub(crate) fn next_due_us(&self) -> Option<u64> {
        let shard = self.shard().and_then(Shard::next_deadline);
        [self.disk.next_due_us(), shard].into_iter().flatten().min()
    }

    fn submit(&mut self, now: Now, trace: &mut Trace) {
        for op in &self.actions.disk {
            let (what, position, bytes) = extent_of(op);
            trace.line(format_args!("op {:x} {what} {} at {position}, {bytes} bytes", op.id().0, op.file()));
        }
        if let Some(tape) = &self.tape {
            tape.issued(&self.actions.disk, |slice| slice_of(&self.state, slice));
        }
        self.disk.submit(now.mono_us, &mut self.actions.disk);
    }

    /// What the medium did that nobody else knows of.
    fn tell_harm(&mut self, trace: &mut Trace) {
        for (what, file, range) in self.disk.harm.drain(..) {
            trace.line(format_args!("harm: {what} {file} at {range:?}"));
        }
    }

    /// What the disk has done by now.
    pub(crate) fn complete(&mut self, now: Now, trace: &mut Trace) -> Result<(), StartError> {
        loop {
            let Self { disk, state, .. } = self;
            disk.is_starting = matches!(state, State::Starting(_));
            let Some(completion) = disk.complete(now.mono_us, &|slice| bytes_of(state, slice)) else {
                self.tell_harm(trace);
                return Ok(());
            };
            trace.line(format_args!("{} done {:x} {:?}", now.mono_us, completion.id.0, completion.result));
            if let Some(tape) = &self.tape {
                tape.ended(&completion, |slice| slice_of(&self.state, slice));
            }
            match &mut self.state {
                State::Running(shard) => shard.on(now, Event::Disk(completion)),
                State::Starting(starting) => {
                    if let Some(shard) = starting.on(completion, now, &mut self.actions)? {
                        trace.line(format_args!("ready in term {}", shard.status().term));
                        self.state = State::Running(Box::new(shard));
                    }
                    self.submit(now, trace);
                }
                State::Off => return Ok(()),
            }
        }
    }

    /// What has been sent by now, and whether all is well.
    pub(crate) fn release(&mut self, now: Now) {
        let State::Running(shard) = &mut self.state else { return };
        self.holds.retain(|hold| {
            let over = hold.until_us <= now.mono_us;
            if over {
                shard.on(now, Event::Released { block: hold.block });
            }
            !over
        });
        shard.check();
    }
}

fn bytes_of(state: &State, slice: Slice) -> Vec<u8> {
    slice_of(state, slice).to_vec()
}

fn slice_of(state: &State, slice: Slice) -> &[u8] {
    match state {
        State::Running(shard) => shard.bytes(slice),
        State::Starting(starting) => starting.bytes(slice),
        State::Off => unreachable!("a node that is off has nothing under way"),
    }
}

/// What a shard starts with; the rest of its window comes later.
fn memory(log: &LogConfig) -> Memory {
    let block = |id: u32| Block::heap(BlockId(id), block_bytes(log));
    let page = Block::heap(BlockId(11), 4096);
    let settle = (16..19).map(block).collect();
    let (window, cold) = ((0..5).map(block).collect(), (8..11).map(block).collect());
    Memory { window, cold, settle, scrub: None, page, copy: plain_copy }
}

fn block_bytes(log: &LogConfig) -> usize {
    2 * log.max_frame_bytes()
}

/// What an operation does, where in its file, and to how many bytes.
fn extent_of(op: &DiskOp) -> (&'static str, u64, u64) {
    match op {
        DiskOp::WriteFrame { position, source, flush: true, .. } => {
            ("write through", *position, source.length.into())
        }
        DiskOp::WriteFrame { position, source, .. } => ("write", *position, source.length.into()),
        DiskOp::Sync { .. } => ("flush", 0, 0),
        DiskOp::Read { position, length, .. } => ("read", *position, (*length).into()),
        DiskOp::CreateExtent { bytes, .. } => ("create", 0, *bytes),
        DiskOp::Zero { position, bytes, .. } => ("zero", *position, *bytes),
        DiskOp::WriteSuperblock { copy, source, .. } => {
            ("superblock", u64::from(*copy) * 4096, source.length.into())
        }
        DiskOp::Remove { .. } => ("remove", 0, 0),
    }
}

/// What a request is called in a trace.
pub fn name_of(request: &Request<'_>) -> &'static str {
    match request {
        Request::Open { .. } => "open",
        Request::Produce { .. } => "produce",
        Request::Fetch { .. } => "fetch",
        Request::Subscribe { .. } => "subscribe",
        Request::Credit { ends: false, .. } => "credit",
        Request::Credit { ends: true, .. } => "unsubscribe",
        Request::OffsetForTime { .. } => "offset",
        Request::CommitPosition { .. } => "commit",
        Request::DeletePosition { .. } => "forget",
        Request::ReadPositions { .. } => "positions",
        Request::DeleteRecords { .. } => "trim",
        Request::Metadata { .. } => "metadata",
        Request::CreateTopic { .. } => "create",
        Request::AlterTopic { .. } => "alter",
        Request::DeleteTopic { .. } => "delete",
        Request::ProducerId => "id",
        Request::Status => "status",
    }
}
