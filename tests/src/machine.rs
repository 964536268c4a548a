//! One machine: a clock, the logs of a store with their shards, and the letters between them.
//!
//! All shards are of one process: a crash takes all of them and every letter. A letter takes its time, and keeps its
//! place among those of the same two logs. Scenarios and the world drive it.

use std::collections::VecDeque;

use corelog_model::LogId;
use corelog_shard::{
    Access, ConnId, Event, Letter, Limits, Mail, Reply, Request, Response, Shard, ShardConfig, StartError,
    Taken,
};
use corelog_storage::LogConfig;

use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::node::Node;
use crate::random::Random;
use crate::trace::Trace;

/// Turns after which something is said to wait for ever.
pub const STUCK: u32 = 200_000;
/// The longest a letter takes, in microseconds.
const LETTER_US: u64 = 400;

/// A letter on its way.
struct OnTheWay {
    due_us: u64,
    from: LogId,
    to: LogId,
    mail: Mail,
}

/// The machine.
pub struct Machine {
    /// Its time.
    pub clock: SimClock,
    /// Its logs, log 0 first.
    pub logs: Vec<Node>,
    /// What happens on it.
    pub trace: Trace,
    /// Those from one log to another in order.
    letters: VecDeque<OnTheWay>,
    random: Random,
}

impl Machine {
    /// A machine that is off, with a log for each disk.
    pub fn new(log: &LogConfig, disks: Vec<SimDisk>, random: Random, trace: Trace) -> Self {
        let limits =
            Limits { connections: 64, waits: 64, subscriptions: 64, pending: 64, ..Limits::default() };
        let logs = u16::try_from(disks.len()).expect("few");
        let node = |(disk, number)| {
            let log = LogConfig { log: LogId(number), ..log.clone() };
            Node::new(ShardConfig { log, logs, anonymous: Access::Nothing, limits }, disk)
        };
        let nodes = disks.into_iter().zip(0u16..).map(node).collect();
        let (clock, letters) = (SimClock::default(), VecDeque::new());
        Self { clock, logs: nodes, trace, letters, random }
    }

    /// The store gets more logs; the machine is off.
    pub fn add_logs(&mut self, disks: Vec<SimDisk>) {
        for disk in disks {
            let log = LogId(self.logs.len() as u16);
            let mut config = self.logs[0].config.clone();
            config.log.log = log;
            self.logs.push(Node::new(config, disk));
        }
        let logs = self.logs.len() as u16;
        self.logs.iter_mut().for_each(|node| node.config.logs = logs);
    }

    /// The shard of log 0, when it is ready.
    pub fn shard(&self) -> Option<&Shard> {
        self.logs[0].shard()
    }

    /// Whether all shards are ready and know what clients may see.
    pub fn is_ready(&self) -> bool {
        self.logs.iter().all(|node| node.shard().is_some_and(Shard::is_joined))
    }

    /// Begins to start from what the disks hold.
    pub fn start(&mut self) -> Result<(), StartError> {
        let now = self.clock.now();
        self.logs.iter_mut().try_for_each(|node| node.start(now, &mut self.trace))
    }

    /// Starts and goes on until all shards are ready.
    pub fn start_fully(&mut self) -> Result<(), StartError> {
        self.start()?;
        for _ in 0..STUCK {
            if self.is_ready() {
                return Ok(());
            }
            self.turn()?;
        }
        panic!("a start waits for ever");
    }

    /// The power fails: only the disks remember.
    pub fn crash(&mut self) {
        self.trace.line(format_args!("crash"));
        self.logs.iter_mut().for_each(Node::crash);
        self.letters.clear();
        self.clock.restart(&mut self.random);
    }

    /// The process is killed: the disks keep what they were given, flushed or not, and the clocks go on.
    pub fn kill(&mut self) {
        self.trace.line(format_args!("kill"));
        self.logs.iter_mut().for_each(Node::kill);
        self.letters.clear();
    }

    /// The rest of a live window's memory comes, a block at a time.
    pub fn grow(&mut self, log: LogId) {
        let now = self.clock.now();
        self.node(log).grow(now);
    }

    /// Something happens to the running shard of a log.
    pub fn event(&mut self, log: LogId, event: Event) {
        let now = self.clock.now();
        self.node(log).event(now, event);
    }

    /// A client asks the running shard of a log; `None` when it is not running.
    pub fn request(
        &mut self,
        log: LogId,
        conn: ConnId,
        correlation: u64,
        request: &Request<'_>,
    ) -> Option<Taken> {
        let now = self.clock.now();
        let Self { logs, trace, .. } = self;
        logs[usize::from(log.0)].request(now, conn, correlation, request, trace)
    }

    /// A connection has taken what a log's shard pushed to it.
    pub fn drained(&mut self, log: LogId, conn: ConnId) {
        let now = self.clock.now();
        self.node(log).drained(now, conn);
    }

    /// Nobody will ask a log's shard anything more on this connection.
    pub fn hurry(&mut self, log: LogId, conn: ConnId) {
        let now = self.clock.now();
        self.node(log).hurry(now, conn);
    }

    /// One turn of each reactor, then time passes until something is due, and what is due happens.
    pub fn turn(&mut self) -> Result<(), StartError> {
        let now = self.clock.now();
        let Self { logs, trace, letters, random, .. } = self;
        for (node, from) in logs.iter_mut().zip(0u16..) {
            for Letter { to, mail } in node.turn(now, trace) {
                let due_us = now.mono_us + random.below(LETTER_US);
                letters.push_back(OnTheWay { due_us, from: LogId(from), to, mail });
            }
        }
        self.pass_time();
        let now = self.clock.now();
        let Self { logs, trace, .. } = self;
        let mut result = Ok(());
        for node in logs {
            result = result.and(node.complete(now, trace));
            node.release(now);
        }
        self.deliver();
        result
    }

    /// Copies the bytes of an answer; its slices stay pinned for a while, as if they were being sent.
    pub fn receive(&mut self, log: LogId, response: &Response) -> Vec<Vec<u8>> {
        let now = self.clock.now();
        self.logs[usize::from(log.0)].receive(now, response, &mut self.random)
    }

    /// Connects to log 0, asks one thing, and waits for the answer; for machines without other clients.
    pub fn ask(&mut self, request: &Request<'_>) -> (Response, Vec<Vec<u8>>) {
        self.ask_at(LogId(0), request)
    }

    /// The same at any log.
    pub fn ask_at(&mut self, log: LogId, request: &Request<'_>) -> (Response, Vec<Vec<u8>>) {
        let conn = ConnId { slot: 63, generation: 1 };
        self.connect(log, conn);
        self.ask_as(log, conn, request)
    }

    /// A local client connects to a log's shard.
    pub fn connect(&mut self, log: LogId, conn: ConnId) {
        let now = self.clock.now();
        self.node(log).connect(now, conn);
    }

    /// Asks one thing on a connection and waits for the answer; answers to others are dropped.
    pub fn ask_as(&mut self, log: LogId, conn: ConnId, request: &Request<'_>) -> (Response, Vec<Vec<u8>>) {
        let mut taken = Taken::Blocked;
        for _ in 0..STUCK {
            if taken == Taken::Blocked {
                taken = self.request(log, conn, 1, request).expect("the shard runs");
            }
            let mut answer = None;
            for reply in std::mem::take(&mut self.node(log).actions.replies) {
                let Reply { conn: to, response, .. } = reply;
                let bytes = self.receive(log, &response);
                if to == conn {
                    answer = Some((response, bytes));
                }
            }
            self.node(log).received_all();
            if let Some(answer) = answer {
                return answer;
            }
            self.turn().expect("a running shard does not start");
        }
        let node = self.node(log);
        panic!("{request:?} waits for ever: {:?}, {} holds", node.shard().map(Shard::status), node.holds());
    }

    fn node(&mut self, log: LogId) -> &mut Node {
        &mut self.logs[usize::from(log.0)]
    }

    fn pass_time(&mut self) {
        let now_us = self.clock.now().mono_us;
        let due = self.logs.iter().filter_map(Node::next_due_us);
        let due = due.chain(self.deliverable().map(|at| self.letters[at].due_us)).min();
        let longest = if self.random.chance(2) { 6_000 } else { 60 };
        let left_us = due.unwrap_or(now_us + 100).saturating_sub(now_us);
        self.clock.advance(left_us.clamp(1, longest));
    }

    /// Letters that come next of those between the same two logs, to shards that have started.
    fn deliverable(&self) -> impl Iterator<Item = usize> {
        let letters = &self.letters;
        (0..letters.len()).filter(|&at| {
            let OnTheWay { from, to, .. } = letters[at];
            let first = !letters.range(..at).any(|before| before.from == from && before.to == to);
            first && self.logs[usize::from(to.0)].shard().is_some()
        })
    }

    fn deliver(&mut self) {
        let now = self.clock.now();
        loop {
            let due = self.deliverable().find(|&at| self.letters[at].due_us <= now.mono_us);
            let Some(OnTheWay { from, to, mail, .. }) = due.and_then(|at| self.letters.remove(at)) else {
                return;
            };
            self.trace.line(format_args!("{} {from} to {to}: {mail:?}", now.mono_us));
            self.event(to, Event::Mail { from, mail });
        }
    }
}
