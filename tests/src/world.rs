//! The driver: one machine, its clients, and the crashes between them.
//!
//! A run has a storm (faults, dropped connections, crashes at any moment, also while starting) and a calm after it,
//! in which everything must be answered and all readers must see the same log. Every step is followed by
//! [`Shard::check`](corelog_shard::Shard::check). Each start is held against what its disk still had.

use std::fmt::Write;

use corelog_model::LogId;
use corelog_shard::{ConnId, Event, Refusal, Reply, Request, Response, Shard, StartError, Taken};
use corelog_storage::{DurableMethod, LogConfig, OpenError, Preparation, Settings};

use crate::admin::{Admin, PARTITIONS, TOPICS, alterations, most_partitions};
use crate::committer::Committer;
use crate::disk::{Doubt, Faults, Injected, SimDisk, Survey};
use crate::machine::{Machine, STUCK};
use crate::net::{Consumer, How, Mode, Producer};
use crate::oracle::{Partition, Place, read_batch};
pub use crate::plan::{End, Losses, Outcome, Plan};
use crate::random::Random;
use crate::regime::Regime;
use crate::trace::Trace;
use crate::trimmer::Trimmer;

const STORE: u64 = 0x5eed;

enum Client {
    Admin(Admin),
    Producer(Box<Producer>),
    Consumer(Consumer),
    Committer(Box<Committer>),
    Trimmer(Trimmer),
}

struct Seat {
    client: Client,
    generation: u32,
    connected: bool,
    /// Where it is connected.
    log: LogId,
    /// It has asked log 0 through its own: a broker passes such requests on.
    is_guest: bool,
    /// Offered and blocked: the same request must come again before any other of this connection.
    blocked: Option<u64>,
}

/// One seed's world.
pub struct World {
    random: Random,
    machine: Machine,
    seats: Vec<Seat>,
    partitions: Vec<Partition>,
    spare_replies: Vec<Reply>,
    power_losses: u32,
    kills: u32,
    /// Made by the starts that are over.
    packs: u64,
    plan: Plan,
    /// What the medium does; it begins once the topics are there.
    media: Faults,
    is_harmed: bool,
    is_calm: bool,
    /// Of each log, for the start that is under way.
    starts: Vec<Start>,
    /// By log: its disk's last operation when the topics or producer ids were last changed for a client.
    changed: Vec<u64>,
    losses: Losses,
    end: Option<End>,
}

/// A start of a log that is not judged yet.
#[derive(Default)]
struct Start {
    survey: Option<Survey>,
    /// Those of starts before it that died before they could be judged.
    doubts: Vec<Doubt>,
}

/// Runs the world of a plan to its end.
///
/// # Panics
/// When the shard breaks a promise.
pub fn run(plan: Plan) -> Outcome {
    let mut world = World::new(plan);
    while world.power_losses < plan.power_losses && world.end.is_none() {
        world.start();
        let turns = world.random.pick(&[3, 30, 150, 300]);
        for _ in 0..world.random.between(1, turns) {
            world.turn();
            if world.end.is_some() {
                break;
            }
        }
        world.crash();
    }
    world.calm();
    world.judge()
}

impl World {
    /// A world before its first start.
    pub fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed);
        let mut faults = Faults { delay_us: random.pick(&[50, 300, 2_000]), ..Faults::default() };
        if random.chance(20) {
            faults.write_errors = 3_000;
        }
        if random.chance(20) {
            faults.read_errors = 10_000;
        }
        // A stream of its own: the storms of seeds without these failures stay what they were.
        if Random::new(plan.seed ^ 0xfa17).chance(20) {
            faults.background_errors = 30_000;
        }
        plan.regime.begin(plan.seed, &mut faults);
        let mut config = log_config(&mut random);
        // A stream of its own: worlds that do not settle stay what they were.
        config.settle_extents = Random::new(plan.seed ^ 0x5e77_1e00).pick(&[0, 1, 2]);
        // Streams of their own: the storms in which nothing is taken away stay what they were.
        let mut keeping = plan.trims.then(|| Random::new(plan.seed ^ 0x7214_44ed));
        if plan.trims {
            config.spare_idle_us = 40_000;
        }
        let disks = (0..plan.logs).map(|_| SimDisk::new(random.fork(), faults)).collect();
        let mut machine = Machine::new(&config, disks, random.fork(), Trace::new(plan.keep_trace));
        // A stream of its own here too: in most storms no topic is altered.
        let mut choices = Random::new(plan.seed ^ 0xa17e_4ed0);
        if plan.trims {
            for limits in machine.logs.iter_mut().map(|node| &mut node.config.limits) {
                (limits.retention_check_us, limits.connections) = (15_000, 128);
            }
        }
        let altered = choices.chance(40);
        let alterations = if altered { alterations(&mut choices, keeping.as_mut()) } else { Vec::new() };
        let most = most_partitions(&alterations);
        let named = TOPICS.iter().zip(most).flat_map(|(topic, most)| (0..most).map(move |at| (topic, at)));
        let expires = config.retention_bytes.is_some() || plan.trims && altered;
        let new = |(topic, partition): (&(&'static str, _), u32)| {
            let mut partition = Partition::new(topic.0, partition, topic.1);
            partition.expires = expires;
            partition
        };
        let partitions = named.map(new).collect();
        let (seats, spare_replies) = (Vec::new(), Vec::new());
        let mut world = Self {
            random,
            machine,
            seats,
            partitions,
            spare_replies,
            power_losses: 0,
            kills: 0,
            packs: 0,
            plan,
            media: plan.regime.media(plan.seed),
            is_harmed: false,
            is_calm: false,
            starts: (0..plan.logs).map(|_| Start::default()).collect(),
            changed: vec![0; plan.logs.into()],
            losses: Losses::default(),
            end: None,
        };
        world.seat(Client::Admin(Admin::new(alterations)));
        world.seat_clients();
        world
    }

    /// The clients of every partition.
    fn seat_clients(&mut self) {
        for partition in 0..self.partitions.len() {
            for mode in
                [Mode::Idempotent, self.random.pick(&[Mode::Plain, Mode::Conditional, Mode::Idempotent])]
            {
                let client = self.seats.len() as u64;
                let producer = Producer::new(client, partition, mode, &mut self.random);
                self.seat(Client::Producer(Box::new(producer)));
            }
            for how in [How::Fetches, How::Subscribes] {
                let consumer = Consumer::new(partition, how, &mut self.random);
                self.seat(Client::Consumer(consumer));
            }
        }
        for number in 0..self.plan.committers {
            let partition = number as usize % self.partitions.len();
            self.seat(Client::Committer(Box::new(Committer::new(number.into(), partition))));
        }
        if self.plan.trims {
            for partition in 0..self.partitions.len() {
                self.seat(Client::Trimmer(Trimmer::new(partition)));
            }
        }
    }

    fn seat(&mut self, client: Client) {
        let seat =
            Seat { client, generation: 0, connected: false, log: LogId(0), is_guest: false, blocked: None };
        self.seats.push(seat);
    }

    fn start(&mut self) {
        if self.end.is_some() {
            return;
        }
        for (node, start) in self.machine.logs.iter().zip(&mut self.starts) {
            start.survey = Some(node.disk.survey());
        }
        if let Err(error) = self.machine.start() {
            panic!("no start: {error}");
        }
    }

    /// Those of the start that ends now.
    fn count_packs(&mut self) {
        let shards = self.machine.logs.iter().filter_map(|node| node.shard());
        self.packs += shards.map(|shard| shard.status().storage.packs_made).sum::<u64>();
    }

    fn crash(&mut self) {
        self.count_packs();
        // Of a start that never came to its end nobody heard what it found.
        for at in 0..self.starts.len() {
            self.doubt(at);
        }
        if self.random.chance(30) {
            self.machine.kill();
            self.kills += 1;
        } else {
            self.machine.crash();
            self.power_losses += 1;
        }
        for at in 0..self.seats.len() {
            self.disconnect(at);
        }
        self.partitions.iter_mut().for_each(Partition::restarted);
    }

    /// The clients act, the shard has its turn, the clients hear of it.
    fn turn(&mut self) {
        self.harm();
        self.clients_act();
        let result = self.machine.turn();
        self.judge_starts();
        match result {
            Ok(()) => self.deliver(),
            // An operation that fails may fail the start, which is then repeated; nothing else may.
            Err(error @ StartError::Log(OpenError::Disk { .. } | OpenError::NoRoom { .. }))
                if self.may_fail() =>
            {
                self.repeat_start(&error, false);
            }
            // What the log is hangs on a sector that cannot be read.
            Err(error @ StartError::Log(OpenError::Disk { .. } | OpenError::Unreadable { .. }))
                if self.is_decayed() =>
            {
                self.repeat_start(&error, true);
            }
            Err(error) if self.plan.regime == Regime::Wild && self.is_harmed => {
                self.machine.trace.line(format_args!("refused: {error}"));
                self.end = Some(End::Refused(error));
            }
            Err(error) => panic!("no start: {error}"),
        }
    }

    /// Whether a start may find an operation failed, or no room.
    fn may_fail(&self) -> bool {
        let fails = |faults: &Faults| faults.fail() || faults.full > 0;
        self.machine.logs.iter().any(|node| fails(&node.disk.faults))
    }

    /// Whether something cannot be read.
    fn is_decayed(&self) -> bool {
        self.machine.logs.iter().any(|node| node.disk.unreadable() > 0)
    }

    /// A start has failed, and changed nothing.
    fn repeat_start(&mut self, error: &StartError, rescues: bool) {
        self.machine.trace.line(format_args!("no start: {error}"));
        self.crash();
        if rescues {
            self.rescue();
        }
        self.start();
    }

    /// The medium begins to be harmed: before there are topics, there is nothing to lose.
    fn harm(&mut self) {
        let all_there =
            self.partitions.iter().filter(|at| at.partition < PARTITIONS).all(|at| at.topic.is_some());
        if self.is_harmed || self.is_calm || !all_there || !self.plan.regime.harms() {
            return;
        }
        self.is_harmed = true;
        self.partitions.iter_mut().for_each(|partition| partition.harmed = true);
        for seat in &mut self.seats {
            if let Client::Committer(committer) = &mut seat.client {
                committer.harmed = true;
            }
        }
        self.machine.logs.iter_mut().for_each(|node| node.disk.faults.take_media(&self.media));
    }

    /// What cannot be read is given up: a start needs it, and somebody has copied the rest to another disk.
    fn rescue(&mut self) {
        for node in &mut self.machine.logs {
            self.losses.given_up += node.disk.rescue();
        }
    }

    /// Holds every start that has come to its end against what its disk had before it.
    fn judge_starts(&mut self) {
        for at in 0..self.starts.len() {
            if self.machine.logs[at].shard().is_some() && self.doubt(at) {
                self.losses.starts_past += u64::from(self.machine.logs[at].disk.unreadable() > 0);
                self.judge_start(LogId(at as u16));
            }
        }
    }

    /// Takes the verdict over the disk of a start that is under way; whether there was one to be taken.
    fn doubt(&mut self, at: usize) -> bool {
        let Start { survey, doubts } = &mut self.starts[at];
        let Some(survey) = survey.take() else { return false };
        doubts.push(self.machine.logs[at].disk.doubt(&survey));
        true
    }

    fn judge_start(&mut self, log: LogId) {
        let at = usize::from(log.0);
        let doubts = std::mem::take(&mut self.starts[at].doubts);
        let wild = self.plan.regime == Regime::Wild && doubts.iter().any(|doubt| doubt.guarded);
        if wild || doubts.iter().any(|doubt| doubt.may_take(self.changed[at])) {
            self.machine.trace.line(format_args!("{log} may have lost topics: {doubts:?}"));
            self.end = self.end.or(Some(End::Uncertain));
            return;
        }
        for seat in &mut self.seats {
            if let Client::Committer(committer) = &mut seat.client
                && self.partitions[committer.partition].log == log
                && doubts.iter().any(Doubt::is_open)
            {
                committer.lost();
            }
        }
        let shard = self.machine.logs[at].shard().expect("it has just started");
        let damage = shard.damage();
        for partition in self.partitions.iter_mut().filter(|partition| partition.log == log) {
            let Some(topic) = partition.topic else { continue };
            for (of, range) in &damage {
                if (*of, range.partition) == (topic, partition.partition) {
                    partition.name(range.first, range.last);
                }
            }
            let mut possibly = shard.possibly_lost();
            let possibly = possibly.find(|(of, number, _)| (*of, *number) == (topic, partition.partition));
            let offsets = shard.offsets(topic, partition.partition);
            let Some(offsets) = offsets else {
                panic!("{log}: {} {} is gone", partition.name, partition.partition)
            };
            let lost = partition.started(offsets.end, possibly.map(|(.., first)| first), &doubts);
            self.losses.possibly_lost += lost.named;
            self.losses.unproven += lost.unproven;
        }
    }

    fn is_joined(&self, log: LogId) -> bool {
        self.machine.logs[usize::from(log.0)].shard().is_some_and(Shard::is_joined)
    }

    fn clients_act(&mut self) {
        let first = self.random.below(self.seats.len() as u64) as usize;
        for step in 0..self.seats.len() {
            let at = (first + step) % self.seats.len();
            let home = self.home(at);
            if !self.is_joined(home) {
                continue;
            }
            if self.seats[at].connected && self.seats[at].log != home {
                self.disconnect(at);
            }
            if !self.seats[at].connected {
                self.connect(at, home);
            } else if self.random.chance(1) {
                self.disconnect(at);
            } else {
                self.take_pushed(at);
                if self.random.chance(60) {
                    self.offer(at);
                }
            }
        }
        for log in (0..self.machine.logs.len() as u16).map(LogId) {
            if self.is_joined(log) {
                self.tune(log);
            }
        }
    }

    /// A client that something was pushed to takes it, soon or later.
    fn take_pushed(&mut self, at: usize) {
        let Seat { client: Client::Consumer(consumer), generation, log, .. } = &mut self.seats[at] else {
            return;
        };
        if consumer.pushed && self.random.chance(40) {
            consumer.pushed = false;
            self.machine.drained(*log, ConnId { slot: at as u32, generation: *generation });
        }
    }

    /// Where a client is to be connected.
    fn home(&self, at: usize) -> LogId {
        match &self.seats[at].client {
            Client::Admin(admin) => admin.at,
            Client::Producer(producer) => self.partitions[producer.partition].log,
            Client::Consumer(consumer) => self.partitions[consumer.partition].log,
            Client::Committer(committer) => self.partitions[committer.partition].log,
            Client::Trimmer(trimmer) => self.partitions[trimmer.partition].log,
        }
    }

    /// More memory and other settings, now and then.
    fn tune(&mut self, log: LogId) {
        if self.random.chance(1) {
            self.machine.grow(log);
        }
        if self.random.chance(1) {
            let settings = Settings {
                frames_in_flight: self.random.between(1, 4) as u8,
                frame_target_bytes: 4096 * self.random.between(1, 2) as u32,
                cold_bytes_in_flight: 64 << 10,
            };
            self.machine.event(log, Event::Settings(settings));
        }
    }

    fn connect(&mut self, at: usize, log: LogId) {
        let seat = &mut self.seats[at];
        seat.generation += 1;
        seat.connected = true;
        seat.log = log;
        let conn = ConnId { slot: at as u32, generation: seat.generation };
        self.machine.connect(log, conn);
    }

    fn disconnect(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        if !seat.connected {
            return;
        }
        seat.connected = false;
        seat.blocked = None;
        match &mut seat.client {
            Client::Admin(admin) => admin.disconnected(),
            Client::Producer(producer) => producer.disconnected(),
            Client::Consumer(consumer) => consumer.disconnected(),
            Client::Committer(committer) => committer.disconnected(),
            Client::Trimmer(trimmer) => trimmer.disconnected(),
        }
        let conn = ConnId { slot: at as u32, generation: seat.generation };
        if std::mem::take(&mut seat.is_guest) {
            self.machine.event(LogId(0), Event::Disconnected { conn });
        }
        self.machine.event(seat.log, Event::Disconnected { conn });
    }

    /// Offers what the client wants; what was blocked comes first, unchanged.
    fn offer(&mut self, at: usize) {
        let Self { seats, partitions, random, machine, .. } = self;
        let seat = &mut seats[at];
        let conn = ConnId { slot: at as u32, generation: seat.generation };
        let wanted = match (seat.blocked.take(), &mut seat.client) {
            (Some(correlation), _) => Some(correlation),
            (None, Client::Admin(admin)) => admin.wants(partitions, random),
            (None, Client::Producer(producer)) => producer.wants(&partitions[producer.partition], random),
            (None, Client::Consumer(consumer)) => consumer.wants(&partitions[consumer.partition], random),
            (None, Client::Committer(committer)) => committer.wants(&partitions[committer.partition], random),
            (None, Client::Trimmer(trimmer)) => trimmer.wants(&mut partitions[trimmer.partition], random),
        };
        let Some(correlation) = wanted else { return };
        let request = match &seat.client {
            Client::Admin(admin) => admin.request(),
            Client::Producer(producer) => producer.request(&partitions[producer.partition]),
            Client::Consumer(consumer) => consumer.request(&partitions[consumer.partition]),
            Client::Committer(committer) => committer.request(&partitions[committer.partition]),
            Client::Trimmer(trimmer) => trimmer.request(&partitions[trimmer.partition]),
        };
        let at = match request {
            Request::ProducerId => LogId(0),
            _ => seat.log,
        };
        if at != seat.log && !std::mem::replace(&mut seat.is_guest, true) {
            machine.connect(at, conn);
        }
        if machine.request(at, conn, correlation, &request) == Some(Taken::Blocked) {
            seat.blocked = Some(correlation);
        }
    }

    /// Brings the answers to the clients.
    fn deliver(&mut self) {
        let mut replies = std::mem::take(&mut self.spare_replies);
        for log in (0..self.machine.logs.len() as u16).map(LogId) {
            let node = &mut self.machine.logs[usize::from(log.0)];
            replies.append(&mut node.actions.replies);
            for reply in replies.drain(..) {
                self.answer(log, reply);
            }
            self.machine.logs[usize::from(log.0)].received_all();
        }
        self.spare_replies = replies;
    }

    fn answer(&mut self, log: LogId, reply: Reply) {
        let Reply { conn, correlation, response } = reply;
        let bytes = self.machine.receive(log, &response);
        self.machine.trace.line(format_args!("{}.{correlation} {}", conn.slot, in_words(&response)));
        let logs = self.machine.logs.len() as u16;
        let seat = &mut self.seats[conn.slot as usize];
        let asked = seat.log == log || seat.is_guest && log == LogId(0);
        if !seat.connected || !asked || seat.generation != conn.generation {
            return;
        }
        for partition in &mut self.partitions {
            partition.pass(self.machine.logs[usize::from(partition.log.0)].disk.operations());
        }
        if is_change(&response) {
            let operations = self.machine.logs.iter().map(|node| node.disk.operations());
            self.changed.iter_mut().zip(operations).for_each(|(changed, now)| *changed = now);
        }
        match &mut seat.client {
            Client::Admin(admin) => {
                // With one log there is one place to ask, and nothing to learn there.
                let place = if logs == 1 { LogId(0) } else { LogId(self.random.below(logs.into()) as u16) };
                admin.answered(&response, &mut self.partitions, logs, place);
            }
            Client::Producer(producer) => {
                let at = producer.partition;
                producer.answered(correlation, &response, &mut self.partitions[at]);
            }
            Client::Consumer(consumer) => {
                let at = consumer.partition;
                consumer.answered(correlation, &response, &bytes, &mut self.partitions[at]);
            }
            Client::Committer(committer) => committer.answered(&response),
            Client::Trimmer(trimmer) => {
                let at = trimmer.partition;
                trimmer.answered(&response, &mut self.partitions[at]);
            }
        }
    }

    /// No more faults and no new records: everything must come to its end.
    fn calm(&mut self) {
        self.is_calm = true;
        self.machine.logs.iter_mut().for_each(|node| node.disk.faults.stop());
        self.start();
        for seat in &mut self.seats {
            match &mut seat.client {
                Client::Producer(producer) => producer.draining = true,
                Client::Committer(committer) => committer.draining = true,
                Client::Trimmer(trimmer) => trimmer.draining = true,
                Client::Admin(_) | Client::Consumer(_) => {}
            }
        }
        for turn in 0.. {
            if self.end.is_some() {
                return;
            }
            self.turn();
            let all_created = self.partitions.iter().all(|partition| partition.topic.is_some());
            let done = |seat: &Seat| match &seat.client {
                Client::Admin(admin) => admin.is_done(),
                Client::Producer(producer) => producer.is_done(),
                Client::Consumer(consumer) => consumer.caught_up,
                Client::Committer(committer) => committer.is_done(),
                Client::Trimmer(trimmer) => trimmer.is_done(),
            };
            if all_created && self.seats.iter().all(done) {
                return;
            }
            // Whoever reads at a sector that cannot be read waits for most of a second.
            let unreadable: usize = self.machine.logs.iter().map(|node| node.disk.unreadable()).sum();
            let patience = STUCK * (1 + unreadable as u32);
            assert!(turn < patience, "these wait for ever: {:?}", self.waiting());
        }
    }

    fn waiting(&self) -> Vec<String> {
        let waits = |seat: &Seat| match &seat.client {
            Client::Admin(_) => None,
            Client::Producer(producer) => (!producer.is_done()).then(|| format!("{producer:?}")),
            Client::Consumer(consumer) => (!consumer.caught_up).then(|| format!("{consumer:?}")),
            Client::Committer(committer) => (!committer.is_done()).then(|| format!("{committer:?}")),
            Client::Trimmer(trimmer) => (!trimmer.is_done()).then(|| format!("{trimmer:?}")),
        };
        self.seats.iter().filter_map(waits).collect()
    }

    /// Reads every partition as a new client would and compares it with all that was promised and seen.
    fn judge(mut self) -> Outcome {
        let (mut truncations, mut started_later, mut positions) = (0, 0, 0);
        if self.end.is_none() {
            (truncations, started_later) = self.judge_partitions();
            positions = self.judge_positions();
        }
        self.count_packs();
        let mut injected = Injected::default();
        self.machine.logs.iter().for_each(|node| injected += node.disk.injected);
        let (mut losses, end) = (self.losses, self.end.unwrap_or(End::Judged));
        losses.named = self.partitions.iter().map(Partition::named).sum();
        let acknowledged = self.partitions.iter().map(Partition::acknowledged).sum();
        let shards = self.machine.logs.iter().filter_map(|node| node.shard());
        let cold_reads = shards.map(|shard| shard.status().storage.cold_reads).sum();
        let trimmed =
            |seat: &Seat| if let Client::Trimmer(trimmer) = &seat.client { trimmer.acknowledged } else { 0 };
        let trims = (self.seats.iter().map(trimmed).sum(), started_later);
        let (trace, packs, kills) = (self.machine.trace, self.packs, self.kills);
        Outcome {
            trace,
            acknowledged,
            truncations,
            cold_reads,
            packs,
            kills,
            positions,
            trims,
            injected,
            end,
            losses,
        }
    }

    /// How often a reader was told to go back, and partitions that do not start at their first record.
    fn judge_partitions(&mut self) -> (u64, u64) {
        let (mut truncations, mut started_later) = (0, 0);
        for at in 0..self.partitions.len() {
            let (log_start, log) = self.read_all(at);
            self.machine.trace.line(format_args!("partition {at} from {log_start}: {} records", log.len()));
            self.partitions[at].judge(log_start, &log);
            started_later += u64::from(log_start > 0);
            for seat in &self.seats {
                if let Client::Consumer(consumer) = &seat.client
                    && consumer.partition == at
                {
                    truncations += consumer.truncations;
                    compare(&consumer.view, log_start, &log, &self.partitions[at]);
                }
            }
        }
        for node in self.machine.logs.iter().filter(|_| !self.is_harmed) {
            let storage = node.shard().expect("it runs").status().storage;
            assert_eq!(
                (storage.damaged_ranges, storage.uncertain_groups),
                (0, 0),
                "nothing harms the medium"
            );
        }
        (truncations, started_later)
    }

    /// Reads every position once more, as somebody else; how many changes were acknowledged in all.
    fn judge_positions(&mut self) -> u64 {
        let mut acknowledged = 0;
        for at in 0..self.seats.len() {
            let conn = ConnId { slot: self.seats.len() as u32, generation: 100 + at as u32 };
            let Client::Committer(committer) = &mut self.seats[at].client else { continue };
            let Partition { log, partition, topic, .. } = self.partitions[committer.partition];
            let topic = topic.expect("created");
            self.machine.connect(log, conn);
            let opened = self.machine.ask_as(log, conn, &Request::Open { handle: 1, topic, partition }).0;
            assert!(matches!(opened, Response::Opened { .. }), "{opened:?}");
            match self.machine.ask_as(log, conn, &committer.read()).0 {
                Response::Positions(view) => committer.see(&view),
                other => panic!("{other:?}"),
            }
            acknowledged += committer.acknowledged;
        }
        acknowledged
    }

    fn read_all(&mut self, at: usize) -> (u64, Vec<Place>) {
        let conn = ConnId { slot: self.seats.len() as u32, generation: at as u32 + 1 };
        let Partition { log, partition, topic, .. } = self.partitions[at];
        let topic = topic.expect("created");
        self.machine.connect(log, conn);
        let opened = self.machine.ask_as(log, conn, &Request::Open { handle: 1, topic, partition }).0;
        let Response::Opened { mut log_start, high_watermark, .. } = opened else { panic!("{opened:?}") };
        let (mut offset, mut places) = (log_start, Vec::new());
        while offset < high_watermark {
            let request = Request::Fetch {
                handle: 1,
                offset,
                leader_epoch: None,
                max_bytes: 8192,
                min_bytes: 0,
                max_wait_us: 0,
            };
            let (response, slices) = self.machine.ask_as(log, conn, &request);
            // A checkpoint that is still being written may roll the log, and the cap then takes the oldest extent.
            if let Response::Refused(Refusal::OffsetOutOfRange { log_start: moved, .. }) = response
                && moved > offset
            {
                (log_start, offset) = (moved, moved);
                places.clear();
                continue;
            }
            if let Response::Refused(Refusal::Damaged { first, last }) = response
                && (first..=last).contains(&offset)
            {
                self.partitions[at].name(first, last);
                offset = last + 1;
                continue;
            }
            assert!(matches!(response, Response::Fetched { .. }), "{response:?} at {offset}");
            for bytes in &slices {
                read_batch(bytes, topic, partition, &mut places);
            }
            offset = places.last().expect("a fetch below the watermark has records").offset + 1;
        }
        (log_start, places)
    }
}

/// What a reader has seen and was not told to forget is what is there.
fn compare(view: &[Place], log_start: u64, log: &[Place], partition: &Partition) {
    let there = |offset: u64| log.binary_search_by_key(&offset, |place| place.offset).ok().map(|at| log[at]);
    for place in view.iter().filter(|place| place.offset >= log_start) {
        assert!(
            there(place.offset) == Some(*place) || partition.may_be_gone(place),
            "a reader has seen {place:x?} and was not told that there is {:x?}",
            there(place.offset)
        );
    }
}

/// Whether the answer says that log 0 has changed what there is.
const fn is_change(response: &Response) -> bool {
    matches!(
        response,
        Response::TopicCreated { .. }
            | Response::TopicAltered { .. }
            | Response::ProducerId { .. }
            | Response::Metadata(_)
    )
}

fn log_config(random: &mut Random) -> LogConfig {
    let mut config = LogConfig {
        extent_bytes: 64 << 10,
        frame_target_bytes: 8192,
        max_batch_bytes: 4096,
        retention_bytes: random.pick(&[None, None, Some(8 * (64 << 10))]),
        preparation: random.pick(&[Preparation::Unwritten, Preparation::ZeroAhead]),
        durable_method: random.pick(&[DurableMethod::Dsync, DurableMethod::Fdatasync]),
        frames_in_flight: random.between(1, 4) as u8,
        zero_ahead_bytes: 16 << 10,
        checkpoint_bytes: random.pick(&[32 << 10, 100 << 10]),
        entries_in_window: random.pick(&[64, 256]),
        ..LogConfig::new(LogId(0), STORE)
    };
    // In every other world small frames are written side by side: more can happen to them.
    config.parallel_frame_bytes = if config.frames_in_flight.is_multiple_of(2) { 0 } else { 4096 };
    config
}

fn in_words(response: &Response) -> String {
    let mut text = String::new();
    match response {
        Response::Fetched { high_watermark, slices, .. } => {
            write!(text, "{} batches below {high_watermark}", slices.len())
                .expect("a string takes everything");
        }
        Response::Pushed { high_watermark, slices, is_last, .. } => {
            let last = if *is_last { ", the last" } else { "" };
            write!(text, "pushed {} batches below {high_watermark}{last}", slices.len())
                .expect("a string takes everything");
        }
        other => write!(text, "{other:?}").expect("a string takes everything"),
    }
    text
}
