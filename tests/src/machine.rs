//! One machine: a clock, a disk, and the shard that runs on them, or is starting, or is off.
//!
//! Performs the shard's actions in the order of a reactor and decides nothing: scenarios and the world drive it.

use corelog_model::{Block, BlockId, Slice};
use corelog_shard::{
    Access, Actions, ConnId, Event, Limits, Principal, Reply, Request, Response, Shard, ShardConfig,
    StartError, Starting, Taken,
};
use corelog_storage::{DiskOp, LogConfig, Memory, plain_copy};

use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::random::Random;
use crate::trace::Trace;

/// Turns after which something is said to wait for ever.
pub const STUCK: u32 = 200_000;
/// Blocks of the window that come after the start, and the first of their names.
const LATER_BLOCKS: u32 = 3;
const FIRST_LATER_BLOCK: u32 = 12;

enum Node {
    Off,
    Starting(Box<Starting>),
    Running(Box<Shard>),
}

/// A slice that is being sent.
struct Hold {
    block: BlockId,
    until_us: u64,
}

/// The machine.
pub struct Machine {
    /// Its time.
    pub clock: SimClock,
    /// Its disk, which outlives crashes.
    pub disk: SimDisk,
    /// What the next start is given.
    pub config: ShardConfig,
    /// What happens on it.
    pub trace: Trace,
    /// What the shard wants done; the replies in it are the driver's to take.
    pub actions: Actions,
    random: Random,
    node: Node,
    /// Blocks of the window that came later.
    grown: u32,
    holds: Vec<Hold>,
}

impl Machine {
    /// A machine that is off.
    pub fn new(log: LogConfig, disk: SimDisk, random: Random, trace: Trace) -> Self {
        let limits = Limits { connections: 64, waits: 64, pending: 64, ..Limits::default() };
        Self {
            clock: SimClock::default(),
            disk,
            config: ShardConfig { log, logs: 1, anonymous: Access::Nothing, limits },
            trace,
            actions: Actions::default(),
            random,
            node: Node::Off,
            grown: 0,
            holds: Vec::new(),
        }
    }

    /// The shard, when it is ready.
    pub fn shard(&self) -> Option<&Shard> {
        match &self.node {
            Node::Running(shard) => Some(shard),
            Node::Off | Node::Starting(_) => None,
        }
    }

    /// Begins to start from what the disk holds.
    pub fn start(&mut self) -> Result<(), StartError> {
        let listing = self.disk.listing();
        self.trace.line(format_args!("start {:?}", listing.files));
        let memory = memory(&self.config.log);
        self.grown = 0;
        let mut starting = Starting::new(self.config.clone(), memory, listing, self.clock.now());
        starting.start(&mut self.actions)?;
        self.node = Node::Starting(Box::new(starting));
        self.submit();
        Ok(())
    }

    /// Starts and goes on until the shard is ready.
    pub fn start_fully(&mut self) -> Result<(), StartError> {
        self.start()?;
        for _ in 0..STUCK {
            if self.shard().is_some() {
                return Ok(());
            }
            self.turn()?;
        }
        panic!("a start waits for ever");
    }

    /// The power fails: only the disk remembers.
    pub fn crash(&mut self) {
        self.trace.line(format_args!("crash"));
        let Self { disk, node, .. } = self;
        disk.crash(&|slice| bytes_of(node, slice));
        self.off();
        self.clock.restart(&mut self.random);
    }

    /// The process is killed: the disk keeps what it was given, flushed or not, and the clocks go on.
    pub fn kill(&mut self) {
        self.trace.line(format_args!("kill"));
        let Self { disk, node, .. } = self;
        disk.kill(&|slice| bytes_of(node, slice));
        self.off();
    }

    fn off(&mut self) {
        self.node = Node::Off;
        self.actions.clear();
        self.holds.clear();
    }

    /// The rest of the live window's memory comes, a block at a time.
    pub fn grow(&mut self) {
        if self.shard().is_some() && self.grown < LATER_BLOCKS {
            let block = Block::heap(BlockId(FIRST_LATER_BLOCK + self.grown), block_bytes(&self.config.log));
            self.grown += 1;
            self.event(Event::Memory(vec![block]));
        }
    }

    /// Something happens to the running shard.
    pub fn event(&mut self, event: Event) {
        if let Node::Running(shard) = &mut self.node {
            shard.on(self.clock.now(), event);
        }
    }

    /// A client asks the running shard; `None` when it is not running.
    pub fn request(&mut self, conn: ConnId, correlation: u64, request: &Request<'_>) -> Option<Taken> {
        let Node::Running(shard) = &mut self.node else { return None };
        let now = self.clock.now();
        let taken = shard.request(now, conn, correlation, request, &mut self.actions);
        let Self { trace, .. } = self;
        trace.line(format_args!(
            "{} {}.{correlation} {} {taken:?}",
            now.mono_us,
            conn.slot,
            name_of(request)
        ));
        Some(taken)
    }

    /// One turn of the reactor, then time passes until something is due, and what is due happens.
    pub fn turn(&mut self) -> Result<(), StartError> {
        if let Node::Running(shard) = &mut self.node {
            shard.turn(self.clock.now(), &mut self.actions);
        }
        self.submit();
        self.pass_time();
        let started = self.complete();
        self.release();
        if let Node::Running(shard) = &self.node {
            shard.check();
        }
        started
    }

    /// Copies the bytes of an answer; its slices stay pinned for a while, as if they were being sent.
    pub fn receive(&mut self, response: &Response) -> Vec<Vec<u8>> {
        let (Response::Fetched { slices, .. }, Node::Running(shard)) = (response, &self.node) else {
            return Vec::new();
        };
        let now_us = self.clock.now().mono_us;
        let slices = &self.actions.slices[slices.clone()];
        let holds =
            slices.iter().map(|slice| Hold { block: slice.block, until_us: now_us + self.random.below(500) });
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

    /// Connects, asks one thing, and waits for the answer; for machines without other clients.
    pub fn ask(&mut self, request: &Request<'_>) -> (Response, Vec<Vec<u8>>) {
        let conn = ConnId { slot: 63, generation: 1 };
        self.connect(conn);
        self.ask_as(conn, request)
    }

    /// A local client connects.
    pub fn connect(&mut self, conn: ConnId) {
        self.event(Event::Connected { conn, principal: Principal::Local });
    }

    /// Asks one thing on a connection and waits for the answer; answers to others are dropped.
    pub fn ask_as(&mut self, conn: ConnId, request: &Request<'_>) -> (Response, Vec<Vec<u8>>) {
        let mut taken = Taken::Blocked;
        for _ in 0..STUCK {
            if taken == Taken::Blocked {
                taken = self.request(conn, 1, request).expect("the shard runs");
            }
            let mut answer = None;
            for reply in std::mem::take(&mut self.actions.replies) {
                let Reply { conn: to, response, .. } = reply;
                let bytes = self.receive(&response);
                if to == conn {
                    answer = Some((response, bytes));
                }
            }
            self.received_all();
            if let Some(answer) = answer {
                return answer;
            }
            self.turn().expect("a running shard does not start");
        }
        panic!(
            "{request:?} waits for ever: {:?}, {} holds",
            self.shard().map(Shard::status),
            self.holds.len()
        );
    }

    fn submit(&mut self) {
        for op in &self.actions.disk {
            let (what, position, bytes) = extent_of(op);
            self.trace.line(format_args!(
                "op {:x} {what} {} at {position}, {bytes} bytes",
                op.id().0,
                op.file()
            ));
        }
        self.disk.submit(self.clock.now().mono_us, &mut self.actions.disk);
    }

    fn pass_time(&mut self) {
        let now_us = self.clock.now().mono_us;
        let shard_due = self.shard().and_then(Shard::next_deadline);
        let due = [self.disk.next_due_us(), shard_due].into_iter().flatten().min().unwrap_or(now_us + 100);
        let longest = if self.random.chance(2) { 6_000 } else { 60 };
        self.clock.advance(due.saturating_sub(now_us).clamp(1, longest));
    }

    fn complete(&mut self) -> Result<(), StartError> {
        let now = self.clock.now();
        loop {
            let Self { disk, node, .. } = self;
            let Some(completion) = disk.complete(now.mono_us, &|slice| bytes_of(node, slice)) else {
                return Ok(());
            };
            self.trace
                .line(format_args!("{} done {:x} {:?}", now.mono_us, completion.id.0, completion.result));
            match &mut self.node {
                Node::Running(shard) => shard.on(now, Event::Disk(completion)),
                Node::Starting(starting) => {
                    if let Some(shard) = starting.on(completion, now, &mut self.actions)? {
                        self.trace.line(format_args!("ready in term {}", shard.status().term));
                        self.node = Node::Running(Box::new(shard));
                    }
                    self.submit();
                }
                Node::Off => return Ok(()),
            }
        }
    }

    fn release(&mut self) {
        let now = self.clock.now();
        let Node::Running(shard) = &mut self.node else { return };
        self.holds.retain(|hold| {
            let over = hold.until_us <= now.mono_us;
            if over {
                shard.on(now, Event::Released { block: hold.block });
            }
            !over
        });
    }
}

fn bytes_of(node: &Node, slice: Slice) -> Vec<u8> {
    match node {
        Node::Running(shard) => shard.bytes(slice).to_vec(),
        Node::Starting(starting) => starting.bytes(slice).to_vec(),
        Node::Off => unreachable!("a machine that is off has nothing under way"),
    }
}

/// What a shard starts with; the rest of its window comes later.
fn memory(log: &LogConfig) -> Memory {
    let block = |id: u32| Block::heap(BlockId(id), block_bytes(log));
    let page = Block::heap(BlockId(11), 4096);
    Memory { window: (0..5).map(block).collect(), cold: (8..11).map(block).collect(), page, copy: plain_copy }
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

fn name_of(request: &Request<'_>) -> &'static str {
    match request {
        Request::Open { .. } => "open",
        Request::Produce { .. } => "produce",
        Request::Fetch { .. } => "fetch",
        Request::OffsetForTime { .. } => "offset",
        Request::Metadata { .. } => "metadata",
        Request::CreateTopic { .. } => "create",
        Request::DeleteTopic { .. } => "delete",
        Request::ProducerId => "id",
        Request::Status => "status",
    }
}
