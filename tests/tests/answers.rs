//! Every request has its answer: once, whatever becomes of the topic it is about, of the level, and of the others' connections.
//!
//! A storm of clients that ask for anything at any time, while topics come, are altered and go, and in some storms a disk is
//! full or fails. No power does: whoever stays connected must hear.

use std::collections::BTreeMap;

use corelog_model::{Durability, LogId, RetentionChange, TopicId};
use corelog_shard::{At, ConnId, Event, Principal, Request, Response, Taken, Which};
use corelog_storage::LogConfig;
use corelog_tests::machine::{Machine, STUCK};
use corelog_tests::random::Random;
use corelog_tests::script::{EXTENT_BYTES, From, batch, machine_of, small_log};

const SEEDS: u64 = 300;
const STEPS: u32 = 1_500;
const NAMES: [&str; 3] = ["orders", "payments", "refunds"];
const LEVELS: [Durability; 3] = [Durability::Durable, Durability::Written, Durability::Memory];
const HANDLES: u32 = 3;
const READERS: [&str; 2] = ["billing", "audit"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Once,
    /// A subscription: its answers go on until the last.
    Stream,
}

/// A client of the shard of one log.
struct Client {
    log: LogId,
    conn: ConnId,
    /// What its handles named when it last opened them.
    handles: [Option<(TopicId, u32)>; HANDLES as usize],
    unanswered: BTreeMap<u64, (Asked, &'static str)>,
    /// Something was pushed that it has not taken.
    pushed: bool,
}

struct Storm {
    random: Random,
    machine: Machine,
    clients: Vec<Client>,
    topics: Vec<TopicId>,
    correlation: u64,
    answers: u64,
    ends: u64,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let logs = random.between(1, 3) as u16;
        let retention_bytes = random.pick(&[None, Some(4 * EXTENT_BYTES)]);
        let machine = machine_of(logs, &LogConfig { retention_bytes, ..small_log() }, seed);
        let mut storm = Self {
            random,
            machine,
            clients: Vec::new(),
            topics: Vec::new(),
            correlation: 1_000,
            answers: 0,
            ends: 0,
        };
        for slot in 0..4 * u32::from(logs) {
            let (log, conn) = (LogId((slot % u32::from(logs)) as u16), ConnId { slot, generation: 0 });
            let (handles, unanswered) = ([None; HANDLES as usize], BTreeMap::new());
            storm.clients.push(Client { log, conn, handles, unanswered, pushed: false });
            storm.connect(slot as usize);
        }
        storm
    }

    /// Its connection is another one from now on; the shard is told of the end of the one before, or is not.
    fn connect(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let before = client.conn;
        client.conn.generation += 1;
        client.unanswered.clear();
        (client.handles, client.pushed) = ([None; HANDLES as usize], false);
        let (log, conn) = (client.log, client.conn);
        if self.random.chance(50) {
            self.machine.event(log, Event::Disconnected { conn: before });
        }
        self.machine.event(log, Event::Connected { conn, principal: Principal::Local });
    }

    fn ask(&mut self, at: usize, request: &Request<'_>) -> bool {
        self.correlation += 1;
        let Client { log, conn, .. } = self.clients[at];
        let taken = self.machine.request(log, conn, self.correlation, request).expect("the shard runs");
        if taken == Taken::Blocked {
            return false;
        }
        let kind = if matches!(request, Request::Subscribe { .. }) { Asked::Stream } else { Asked::Once };
        self.clients[at].unanswered.insert(self.correlation, (kind, corelog_tests::node::name_of(request)));
        true
    }

    fn act(&mut self) {
        let at = self.random.below(self.clients.len() as u64) as usize;
        let handle = self.random.between(1, HANDLES.into()) as u32;
        let named = self.clients[at].handles[handle as usize - 1];
        let name = self.random.pick(&NAMES);
        let reader = self.random.pick(&READERS);
        let offset = self.random.below(40);
        let max_bytes = self.random.pick(&[1, 400, 20_000]);
        let bytes = self.random.pick(&[0, 1, 500, 50_000]);
        if self.clients[at].pushed && self.random.chance(50) {
            self.clients[at].pushed = false;
            let Client { log, conn, .. } = self.clients[at];
            self.machine.drained(log, conn);
        }
        match self.random.below(100) {
            0 => self.connect(at),
            1..=4 => _ = self.change(name),
            5..=19 => {
                let Some(&topic) = self.topics.get(self.random.below(4) as usize) else { return };
                let partition = self.random.below(4) as u32;
                if self.ask(at, &Request::Open { handle, topic, partition }) {
                    self.clients[at].handles[handle as usize - 1] = Some((topic, partition));
                }
            }
            20..=49 => {
                let Some((topic, partition)) = named else { return };
                let sealed = batch(topic, partition, 0..self.random.between(1, 5), From::default());
                let expected_offset = None;
                _ = self.ask(at, &Request::Produce { handle, expected_offset, batches: &sealed });
            }
            50..=59 => {
                let (leader_epoch, min_bytes) = (None, self.random.pick(&[0, 1, 2_000]));
                let max_wait_us = self.random.pick(&[0, 500, 100_000]);
                _ = self.ask(
                    at,
                    &Request::Fetch { handle, offset, leader_epoch, max_bytes, min_bytes, max_wait_us },
                );
            }
            60..=69 => {
                let (leader_epoch, credit) = (None, bytes);
                _ = self.ask(at, &Request::Subscribe { handle, offset, leader_epoch, max_bytes, credit });
            }
            70..=84 => {
                let ends = self.random.chance(20);
                _ = self.ask(at, &Request::Credit { handle, bytes, ends });
            }
            85..=89 => {
                let (leader_epoch, metadata) = (None, "");
                let commit = Request::CommitPosition { handle, name: reader, offset, leader_epoch, metadata };
                _ = self.ask(at, &commit);
            }
            90..=92 => _ = self.ask(at, &Request::DeletePosition { handle, name: reader }),
            93..=95 => {
                let which = self.random.pick(&[Which::One(reader), Which::After("")]);
                _ = self.ask(at, &Request::ReadPositions { handle, which, max_bytes });
            }
            96..=98 => {
                let time = self.random.between(900, 1_010);
                let to = self.random.pick(&[At::Start, At::End, At::Time(time)]);
                _ = self.ask(at, &Request::OffsetForTime { handle, at: to });
            }
            _ => {
                let Client { log, conn, .. } = self.clients[at];
                self.machine.hurry(log, conn);
            }
        }
    }

    /// A topic comes, changes or goes: the client in place 0 is one of log 0.
    fn change(&mut self, name: &str) -> bool {
        let (partitions, durability) = (self.random.between(1, 4) as u32, self.random.pick(&LEVELS));
        match self.random.below(3) {
            0 => self.ask(0, &Request::DeleteTopic { name }),
            1 => self.ask(
                0,
                &Request::CreateTopic { name, partitions, durability, retention: RetentionChange::NONE },
            ),
            _ => {
                let partitions = self.random.chance(50).then_some(partitions);
                self.ask(
                    0,
                    &Request::AlterTopic {
                        name,
                        partitions,
                        durability: Some(durability),
                        retention: RetentionChange::NONE,
                    },
                )
            }
        }
    }

    fn turn(&mut self) {
        self.machine.turn().expect("a running shard does not start");
        self.hear();
    }

    /// Brings the answers to the clients.
    fn hear(&mut self) {
        for log in 0..self.machine.logs.len() {
            for reply in std::mem::take(&mut self.machine.logs[log].actions.replies) {
                self.machine.receive(LogId(log as u16), &reply.response);
                let Some(client) = self.clients.iter_mut().find(|client| client.conn == reply.conn) else {
                    continue;
                };
                let Some(&(kind, _)) = client.unanswered.get(&reply.correlation) else {
                    panic!("nobody waits for {reply:?}");
                };
                self.answers += 1;
                client.pushed |= matches!(reply.response, Response::Pushed { .. });
                if let Response::TopicCreated { topic } = reply.response {
                    self.topics.insert(0, topic);
                    self.topics.truncate(4);
                }
                let pushed = matches!(reply.response, Response::Pushed { .. });
                assert!(!pushed || kind == Asked::Stream, "a push is no answer to that: {reply:?}");
                if !matches!(reply.response, Response::Pushed { is_last: false, .. }) {
                    self.ends += u64::from(kind == Asked::Stream);
                    client.unanswered.remove(&reply.correlation);
                }
            }
            self.machine.logs[log].received_all();
        }
    }

    /// Everybody takes what was pushed.
    fn take_all(&mut self) {
        for at in 0..self.clients.len() {
            if std::mem::take(&mut self.clients[at].pushed) {
                let Client { log, conn, .. } = self.clients[at];
                self.machine.drained(log, conn);
            }
        }
    }

    /// Turns until nobody waits for an answer of this kind any more.
    fn wait_for_all(&mut self, kind: Option<Asked>) {
        for _ in 0..STUCK / 10 {
            let waits = |client: &Client| {
                client.unanswered.values().any(|(asked, _)| kind.is_none_or(|kind| kind == *asked))
            };
            if !self.clients.iter().any(waits) {
                return;
            }
            self.take_all();
            self.turn();
        }
        let wait: Vec<_> =
            self.clients.iter().map(|client| client.unanswered.values().collect::<Vec<_>>()).collect();
        panic!("these wait for ever: {wait:?}");
    }
}

/// What goes wrong on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Nothing; in the end all topics are deleted.
    None,
    /// Writes of one log fail, until it takes no more.
    Writes,
    /// The disk of one log is full.
    Full,
}

fn run(seed: u64) -> (u64, u64) {
    let trouble = [Trouble::None, Trouble::Writes, Trouble::Full][(seed % 3) as usize];
    let mut storm = Storm::new(seed);
    for name in NAMES {
        storm.ask(
            0,
            &Request::CreateTopic {
                name,
                partitions: 3,
                durability: LEVELS[0],
                retention: RetentionChange::NONE,
            },
        );
    }
    storm.wait_for_all(None);
    for step in 0..STEPS {
        storm.act();
        if storm.random.chance(40) {
            storm.turn();
        }
        if step == STEPS / 2 {
            let log = storm.random.below(storm.machine.logs.len() as u64) as usize;
            let faults = &mut storm.machine.logs[log].disk.faults;
            match trouble {
                Trouble::None => {}
                Trouble::Writes => faults.write_errors = 300_000,
                Trouble::Full => faults.capacity = 0,
            }
        }
    }
    storm.wait_for_all(Some(Asked::Once));
    if trouble != Trouble::None {
        for at in 0..storm.clients.len() {
            let Client { log, conn, .. } = storm.clients[at];
            storm.machine.hurry(log, conn);
        }
    }
    // What those have asked who left is under way still, and their topics may be yet to come.
    let left = |storm: &Storm| {
        let shards = storm.machine.logs.iter().map(|node| node.shard().expect("it runs").status());
        shards.fold([0; 5], |sum, of| {
            let [subscriptions, waits, reads, pending, rest] = sum;
            let more = if trouble == Trouble::None { of.positions + of.partitions } else { 0 };
            [
                subscriptions + of.subscriptions,
                waits + of.waits,
                reads + of.reads,
                pending + of.pending,
                rest + more,
            ]
        })
    };
    for turn in 0..STUCK / 10 {
        if left(&storm) == [0; 5] {
            storm.wait_for_all(None);
            return (storm.answers, storm.ends);
        }
        if trouble == Trouble::None && turn.is_multiple_of(200) {
            for name in NAMES {
                storm.ask(0, &Request::DeleteTopic { name });
            }
        }
        storm.take_all();
        storm.turn();
    }
    panic!("{trouble:?} leaves for ever: {:?}", left(&storm));
}

#[test]
fn every_request_is_answered_once_whatever_becomes_of_its_topic() {
    let (mut answers, mut ends) = (0, 0);
    for seed in 0..SEEDS {
        let (answered, ended) = run(seed);
        answers += answered;
        ends += ended;
    }
    assert!(answers > 500 * SEEDS && ends > 20 * SEEDS, "{answers} answers, {ends} subscriptions ended");
}
