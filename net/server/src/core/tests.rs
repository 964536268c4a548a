//! The core under a fake ring: whatever the order, the pieces and the delays, every peer gets its answers.

mod abroad;
mod fake;
mod full_lanes;
mod pushes;
mod replies;
mod trouble;

use corelog_model::batch::{BatchBuilder, Codec, RecordRef, Seal};
use corelog_model::{Block, BlockId, Durability, LogId, ProducerId, RetentionChange, TopicId};
use corelog_shard::{Access, Limits, ShardConfig, Starting};
use corelog_storage::{Listing, LogConfig};
use corelog_uring::{Errno, ListenerId};
use corelog_wire::{
    Call, ErrorCode, Hello, Request, Response, Split, decode_response, encode_request, split,
};
use rkyv::util::AlignedVec;

use super::*;
use fake::{Fake, Happened};

const MAX_BATCH: usize = 32 << 10;
const MAX_FRAME: usize = 64 << 10;
const CONNECTIONS: u32 = 4;
const SLOW_BYTES: usize = 20_000;
const REPLY_BYTES: usize = 100_000;

/// A core, its fake surroundings, and the time.
struct Bed {
    core: Core,
    fake: Fake,
    out: Output,
    now: Now,
}

fn log_config() -> LogConfig {
    LogConfig {
        extent_bytes: 4 << 20,
        frame_target_bytes: 64 << 10,
        max_batch_bytes: MAX_BATCH as u32,
        zero_ahead_bytes: 0,
        checkpoint_bytes: 1 << 20,
        preparation: corelog_storage::Preparation::Unwritten,
        ..LogConfig::new(LogId(0), 7)
    }
}

fn bounds() -> Bounds {
    Bounds {
        connections: CONNECTIONS,
        requests: 64,
        max_frame_bytes: MAX_FRAME as u32,
        max_batch_bytes: MAX_BATCH as u32,
        slow_bytes: SLOW_BYTES,
        reply_bytes: REPLY_BYTES,
        handshake_us: 5_000_000,
        idle_us: 60_000_000,
        stalled_us: 30_000_000,
    }
}

impl Bed {
    fn new(seed: u64) -> Self {
        Self::with(seed, bounds())
    }

    fn with(seed: u64, bounds: Bounds) -> Self {
        let now = Now { mono_us: 1, wall_us: 1_700_000_000_000_000 };
        Self::start(Fake::new(seed), now, bounds, log_config())
    }

    /// The only core, on the disk that is there.
    fn start(fake: Fake, now: Now, bounds: Bounds, log_config: LogConfig) -> Self {
        Self::start_one_of(1, 0, fake, now, bounds, (log_config, Limits::default()))
    }

    /// One of so many cores, with the log of its number.
    fn start_one_of(
        cores: u16,
        me: u16,
        mut fake: Fake,
        now: Now,
        bounds: Bounds,
        (log_config, limits): (LogConfig, Limits),
    ) -> Self {
        let log_config = LogConfig { log: LogId(me), ..log_config };
        let mut next = u32::from(me) << 24;
        let mut blocks = |count: u32, bytes: usize| -> Vec<Block> {
            let first = next;
            next += count;
            (first..next).map(|id| Block::heap(BlockId(id), bytes)).collect()
        };
        let (window, cold) = (blocks(8, 256 << 10), blocks(4, 128 << 10));
        let page = blocks(1, 4096).remove(0);
        let (settle, scrub, copy) = (Vec::new(), None, corelog_storage::plain_copy);
        let log = corelog_storage::Memory { window, cold, settle, scrub, page, copy };
        let memory = Memory {
            connections: blocks(2 * CONNECTIONS, CONNECTION_BLOCK_BYTES),
            medium: blocks(1, 32 << 10),
            large: blocks(1, MAX_FRAME),
        };
        let anonymous = Access::default();
        let config = ShardConfig { log: log_config, logs: cores, anonymous, limits };
        let files = fake.die();
        let listing = Listing { files: files.iter().map(|&(name, _, bytes)| (name, bytes)).collect() };
        let blocks = log.blocks().collect();
        let starting = Starting::new(config, log, listing, now);
        let start = Start { log: LogId(me), starting, blocks, tape: None };
        let mut opening = Opening::new(vec![start], operations(CONNECTIONS, 1));
        for (name, id, _) in files {
            assert_eq!(opening.opened(0, name, id), None);
        }
        let mut out = Output::default();
        opening.start(now, &mut out).expect("a store that starts");
        while !opening.is_open() {
            fake.take(&mut out);
            match fake.next(|slice| opening.bytes(slice).to_vec()).expect("the start goes on") {
                Happened::Ring(completion) => opening.on(now, completion, &mut out),
                Happened::Background(ended, opened) => opening.on_background(now, 0, ended, opened, &mut out),
            }
            .expect("a good disk");
        }
        let homes = (0..cores.into()).collect();
        let places = vec![Place { host: "localhost".to_owned(), port: 1 }; cores.into()];
        let me = me.into();
        let listener = ListenerId(0);
        let core = opening.into_core(Parts { store: 7, me, homes, places, bounds, memory, listener });
        Self { core, fake, out, now }
    }

    /// Lets everything happen that can, in the order of the seed.
    fn settle(&mut self) {
        let mut turns = 0;
        while self.step() || self.is_due() {
            turns += 1;
            assert!(turns < 100_000, "it turns and turns");
        }
    }

    /// Whether the core asked for a turn by now.
    fn is_due(&self) -> bool {
        self.core.next_deadline().is_some_and(|at_us| at_us <= self.now.mono_us)
    }

    /// One turn and some of what can happen after it; whether there was anything.
    fn step(&mut self) -> bool {
        self.now.mono_us += 1;
        let turn = self.core.turn(self.now, &mut Machine::default, &mut self.out);
        self.core.check();
        self.fake.take(&mut self.out);
        let mut happened = 0;
        for _ in 0..=self.fake.random(3) {
            let core = &self.core;
            match self.fake.next(|slice| core.bytes(slice).to_vec()) {
                Some(Happened::Ring(completion)) => self.core.on(self.now, completion, &mut self.out),
                Some(Happened::Background(ended, opened)) => {
                    self.core.on_background(self.now, 0, ended, opened)
                }
                None => break,
            }
            happened += 1;
        }
        happened > 0 || turn == Turn::Again || !self.out.is_empty()
    }

    /// Lets time pass, so that what is due happens.
    fn pass(&mut self, us: u64) {
        self.now.mono_us += us;
        self.settle();
    }

    fn send(&mut self, peer: usize, correlation: u64, request: &Request<'_>) {
        self.fake.sockets[peer].incoming.extend(encoded(correlation, request));
    }

    /// A peer that said Hello.
    fn peer(&mut self) -> usize {
        let peer = self.fake.connect();
        let hello = Hello { client: "t", client_version: "1", max_frame_bytes: MAX_FRAME as u32 };
        self.send(peer, 0, &Request::Hello(hello));
        self.settle();
        let answers = self.answers(peer);
        assert!(matches!(answers[..], [(0, Answer::Hello)]), "{answers:?}");
        peer
    }

    /// What a peer has got since it last looked.
    fn answers(&mut self, peer: usize) -> Vec<(u64, Answer)> {
        let bytes = &mut self.fake.sockets[peer].outgoing;
        let mut answers = Vec::new();
        let mut aligned = AlignedVec::<16>::new();
        aligned.extend_from_slice(bytes);
        let mut rest = &aligned[..];
        while let Split::Frame(frame) = split(rest, 1 << 30).expect("whole frames") {
            let response = decode_response(&frame.header, frame.body).expect("an answer");
            answers.push((frame.header.correlation, Answer::from(response)));
            rest = &rest[frame.header.frame_bytes()..];
        }
        let kept = rest.len();
        let used = bytes.len() - kept;
        bytes.drain(..used);
        answers
    }

    /// A peer with a topic of one partition open as handle 1.
    fn producer(&mut self, durability: Durability) -> (usize, TopicId) {
        let peer = self.peer();
        self.send(
            peer,
            1,
            &Request::CreateTopic { name: "t", partitions: 1, durability, retention: RetentionChange::NONE },
        );
        self.settle();
        let topic = match self.answers(peer)[..] {
            [(1, Answer::TopicCreated(topic))] => topic,
            ref other => panic!("{other:?}"),
        };
        self.open(peer, topic);
        (peer, topic)
    }

    fn open(&mut self, peer: usize, topic: TopicId) {
        self.send(peer, 2, &Request::Open { handle: 1, topic, partition: 0 });
        self.settle();
        assert!(matches!(self.answers(peer)[..], [(2, Answer::Opened)]));
    }

    fn produce(&mut self, peer: usize, correlation: u64, topic: TopicId, value: &[u8]) {
        let batches = batch(topic, value);
        self.send(
            peer,
            correlation,
            &Request::Produce { handle: 1, expected_offset: None, batches: &batches },
        );
    }

    fn fetch(&mut self, peer: usize, correlation: u64, offset: u64, max_wait_us: u64) {
        let max_bytes = MAX_FRAME as u32;
        let fetch =
            Request::Fetch { handle: 1, offset, leader_epoch: None, max_bytes, min_bytes: 1, max_wait_us };
        self.send(peer, correlation, &fetch);
    }
}

/// An answer without what it borrows.
#[derive(Debug, PartialEq)]
enum Answer {
    Hello,
    Pong,
    TopicCreated(TopicId),
    Opened,
    Produced(u64),
    Fetched(Vec<u8>),
    Pushed(Vec<u8>),
    LastPush,
    Error(ErrorCode),
    Other,
}

impl From<Response<'_>> for Answer {
    fn from(response: Response<'_>) -> Self {
        match response {
            Response::Hello(_) => Self::Hello,
            Response::Pong => Self::Pong,
            Response::TopicCreated { topic } => Self::TopicCreated(topic),
            Response::Opened { .. } => Self::Opened,
            Response::Produced { base_offset, .. } => Self::Produced(base_offset),
            Response::Fetched { batches, .. } => Self::Fetched(batches.to_vec()),
            Response::Pushed { is_last: true, .. } => Self::LastPush,
            Response::Pushed { batches, .. } => Self::Pushed(batches.to_vec()),
            Response::Error(body) => Self::Error(body.code),
            _ => Self::Other,
        }
    }
}

fn encoded(correlation: u64, request: &Request<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_request(request, Call { correlation, version: 1 }, &mut bytes);
    bytes
}

fn batch(topic: TopicId, value: &[u8]) -> Vec<u8> {
    batch_for(topic, 0, value)
}

fn batch_for(topic: TopicId, partition: u32, value: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(MAX_BATCH);
    builder.push(RecordRef { key: None, value: Some(value), timestamp_us: 1, headers: &[] }).expect("room");
    let producer_id = ProducerId::NONE;
    let seal =
        Seal { topic, partition, producer_id, producer_epoch: 0, base_sequence: 0, codec: Codec::None };
    let mut out = AlignedVec::new();
    builder.seal(&seal, &mut out).expect("sealed");
    out.to_vec()
}

/// Whether the batches of an answer hold these bytes, in this order, from the first on.
fn holds(batches: &[u8], values: &[Vec<u8>]) -> bool {
    let mut rest = batches;
    values.iter().all(|value| {
        let found = rest.windows(value.len()).position(|window| window == &value[..]);
        found.is_some_and(|at| {
            rest = &rest[at + value.len()..];
            true
        })
    })
}

#[test]
fn answers_are_right_whatever_the_order_and_the_pieces() {
    for seed in 0..60 {
        let mut bed = Bed::new(seed);
        let (producer, topic) = bed.producer(Durability::Durable);
        let consumer = bed.peer();
        bed.open(consumer, topic);
        bed.fetch(consumer, 500, 0, 50_000_000);
        let values: Vec<Vec<u8>> =
            (0..12_u8).map(|number| vec![number + 1; 3000 * (1 + number as usize % 5)]).collect();
        for (number, value) in values.iter().enumerate() {
            bed.produce(producer, 100 + number as u64, topic, value);
        }
        bed.send(producer, 999, &Request::Ping);
        bed.settle();
        let mut answers = bed.answers(producer);
        answers.sort_by_key(|&(correlation, _)| correlation);
        let expected = (0..12).map(|number| (100 + number, Answer::Produced(number)));
        assert_eq!(answers, expected.chain([(999, Answer::Pong)]).collect::<Vec<_>>(), "seed {seed}");
        match &bed.answers(consumer)[..] {
            [(500, Answer::Fetched(batches))] => assert!(holds(batches, &values[..1]), "seed {seed}"),
            other => panic!("seed {seed}: {other:?}"),
        }
        bed.fetch(consumer, 501, 3, 0);
        bed.settle();
        match &bed.answers(consumer)[..] {
            [(501, Answer::Fetched(batches))] => assert!(holds(batches, &values[3..5]), "seed {seed}"),
            other => panic!("seed {seed}: {other:?}"),
        }
    }
}

#[test]
fn replies_of_a_turn_share_a_send() {
    let mut bed = Bed::new(1);
    let peer = bed.peer();
    let before = bed.fake.sends;
    for correlation in 0..50 {
        bed.send(peer, correlation, &Request::Ping);
    }
    bed.settle();
    assert_eq!(bed.answers(peer).len(), 50);
    assert!(bed.fake.sends - before < 40, "{} sends for 50 replies", bed.fake.sends - before);
}

#[test]
fn a_peer_that_leaves_in_the_middle_gives_everything_back() {
    for seed in 0..60 {
        let mut bed = Bed::new(seed);
        let (producer, topic) = bed.producer(Durability::Memory);
        bed.produce(producer, 1, topic, &[1; 20_000]);
        bed.settle();
        for round in 0..6 {
            let leaver = bed.peer();
            bed.open(leaver, topic);
            bed.fake.sockets[leaver].window = bed.fake.random(30_000);
            bed.fetch(leaver, 1, 0, 0);
            bed.fetch(leaver, 2, 1, 50_000_000);
            bed.produce(leaver, 3, topic, &[2; 10_000]);
            let cut = bed.fake.random(9_000);
            let incoming = &mut bed.fake.sockets[leaver].incoming;
            incoming.truncate(incoming.len() - cut);
            bed.fake.sockets[leaver].gone = true;
            bed.settle();
            assert!(bed.fake.sockets[leaver].closed, "seed {seed}, round {round}");
        }
        assert_eq!(bed.core.counters().connections, 1, "seed {seed}");
        bed.send(producer, 7, &Request::Ping);
        bed.settle();
        assert!(bed.answers(producer).contains(&(7, Answer::Pong)), "seed {seed}: nobody else noticed");
        bed.fake.sockets[producer].ended = true;
        bed.settle();
        assert_eq!(bed.core.counters().connections, 0, "seed {seed}");
        assert_eq!(bed.core.ingest.free(), 2, "seed {seed}: receive blocks are back");
    }
}

/// As `nc -N` does: all is asked, the sending side is shut down, the answers are read.
#[test]
fn a_peer_that_sends_no_more_gets_its_answers_and_is_closed_then() {
    for seed in 0..60 {
        let mut bed = Bed::new(seed);
        let (producer, topic) = bed.producer(Durability::Durable);
        let peer = bed.peer();
        bed.open(peer, topic);
        for number in 0..5 {
            bed.produce(peer, 10 + number, topic, &[number as u8; 9_000]);
        }
        bed.fetch(peer, 20, 0, 0);
        // There is no such record and never will be: what is there by then is nothing.
        bed.fetch(peer, 21, 5, 50_000_000);
        bed.send(peer, 22, &Request::Ping);
        // Half a frame is no request.
        bed.fake.sockets[peer].incoming.extend([0; 20]);
        bed.fake.sockets[peer].ended = true;
        bed.settle();
        let mut answers = bed.answers(peer);
        answers.sort_by_key(|&(correlation, _)| correlation);
        let produced: Vec<_> = (0..5).map(|number| (10 + number, Answer::Produced(number))).collect();
        assert_eq!(answers[..5], produced, "seed {seed}");
        let rest: Vec<u64> = answers[5..].iter().map(|&(correlation, _)| correlation).collect();
        // The end of the log is not visible when the last fetch comes before the records are durable.
        assert_eq!(rest, [20, 21, 22], "seed {seed}");
        assert_eq!(answers[7].1, Answer::Pong, "seed {seed}");
        assert!(bed.fake.sockets[peer].closed, "seed {seed}: nothing keeps it");
        assert_eq!(bed.core.counters().connections, 1, "seed {seed}");
        bed.send(producer, 7, &Request::Ping);
        bed.settle();
        assert_eq!(bed.answers(producer), [(7, Answer::Pong)], "seed {seed}");
    }
}

#[test]
fn a_fetch_that_waits_is_answered_when_nobody_can_ask_again() {
    let mut bed = Bed::new(2);
    let (producer, topic) = bed.producer(Durability::Durable);
    bed.produce(producer, 1, topic, &[1; 100]);
    bed.settle();
    bed.answers(producer);
    bed.fetch(producer, 2, 1, 50_000_000);
    bed.settle();
    assert_eq!(bed.answers(producer), [], "it waits");
    bed.fake.sockets[producer].ended = true;
    bed.settle();
    assert_eq!(bed.answers(producer), [(2, Answer::Fetched(Vec::new()))]);
    assert!(bed.fake.sockets[producer].closed);
}

#[test]
fn a_consumer_that_stops_reading_is_moved_away_or_closed_and_producers_go_on() {
    // What the stalled peer still takes of its answer, and whether what is left then can be kept aside.
    for (seed, (window, survives)) in
        [(0, false), (5_000, false), (15_000, true), (29_000, true)].into_iter().enumerate()
    {
        let mut bed = Bed::new(seed as u64);
        let (producer, topic) = bed.producer(Durability::Memory);
        bed.produce(producer, 1, topic, &[9; 30_000]);
        bed.settle();
        let stalled = bed.peer();
        bed.open(stalled, topic);
        bed.fake.sockets[stalled].window = window;
        bed.fetch(stalled, 5, 0, 0);
        bed.settle();
        bed.answers(producer);
        for correlation in 0..200 {
            bed.produce(producer, correlation, topic, &[3; 30_000]);
            bed.settle();
            let answers = bed.answers(producer);
            assert_eq!(answers, [(correlation, Answer::Produced(correlation + 1))], "window {window}");
        }
        assert_eq!(bed.core.counters().slow_consumers, u64::from(!survives), "window {window}");
        bed.fake.sockets[stalled].window = usize::MAX;
        bed.settle();
        if survives {
            match &bed.answers(stalled)[..] {
                [(5, Answer::Fetched(batches))] => {
                    assert!(holds(batches, &[vec![9; 30_000]]), "window {window}")
                }
                other => panic!("window {window}: {other:?}"),
            }
        } else {
            assert!(bed.fake.sockets[stalled].closed, "window {window}");
        }
    }
}

#[test]
fn a_consumer_that_takes_nothing_for_long_is_closed_and_a_slow_one_is_not() {
    let mut bed = Bed::new(3);
    let (producer, topic) = bed.producer(Durability::Memory);
    bed.produce(producer, 1, topic, &[9; 30_000]);
    bed.settle();
    let (slow, stalled) = (bed.peer(), bed.peer());
    for peer in [slow, stalled] {
        bed.open(peer, topic);
        bed.fake.sockets[peer].window = 0;
        bed.fetch(peer, 5, 0, 0);
    }
    bed.settle();
    for _ in 0..7 {
        bed.fake.sockets[slow].window = 5_000;
        bed.pass(30_000_001);
        bed.send(producer, 6, &Request::Ping);
        bed.settle();
    }
    assert!(bed.fake.sockets[stalled].closed);
    assert!(matches!(bed.answers(slow)[..], [(5, Answer::Fetched(_))]), "it got there, 5 kB at a time");
    assert!(!bed.fake.sockets[slow].closed);
    assert_eq!(bed.core.counters().timed_out, 1);
}

/// The one large block is in the hands of a peer whose next request is always there already.
#[test]
fn a_peer_that_never_pauses_does_not_keep_the_memory_that_another_waits_for() {
    for seed in 0..30 {
        let mut bed = Bed::new(seed);
        let (busy, topic) = bed.producer(Durability::Memory);
        let other = bed.peer();
        bed.open(other, topic);
        // Two batches are too long for the medium size.
        let batches = batch(topic, &[7; 30_000]).repeat(2);
        let produce = Request::Produce { handle: 1, expected_offset: None, batches: &batches };
        (0..60).for_each(|correlation| bed.send(busy, correlation, &produce));
        bed.send(other, 1, &produce);
        while bed.fake.sockets[other].outgoing.is_empty() {
            assert!(bed.step(), "seed {seed}: it waits for ever");
        }
        let first = bed.answers(busy).len();
        assert!(first < 10, "seed {seed}: {first} requests of the busy one came first");
        bed.settle();
        assert!(matches!(bed.answers(other)[..], [(1, Answer::Produced(_))]), "seed {seed}");
        assert_eq!(bed.answers(busy).len(), 60 - first, "seed {seed}");
    }
}

/// A request that comes byte by byte holds memory for all of it; one that is merely slow is let come.
#[test]
fn a_request_that_drips_is_cut_off_and_a_slow_one_is_not() {
    let mut bed = Bed::new(6);
    let (slow, topic) = bed.producer(Durability::Memory);
    let batches = batch(topic, &[9; 20_000]);
    let produce = Request::Produce { handle: 1, expected_offset: None, batches: &batches };
    let request = encoded(3, &produce);
    for piece in [&request[..10_000], &request[10_000..]] {
        bed.fake.sockets[slow].incoming.extend(piece);
        bed.settle();
        bed.pass(29_000_000);
    }
    assert_eq!(bed.answers(slow), [(3, Answer::Produced(0))]);

    let dripping = bed.peer();
    bed.open(dripping, topic);
    let mut bytes = request.into_iter();
    for second in 0..32 {
        assert_eq!(bed.fake.sockets[dripping].closed, second >= 30, "after {second} s");
        bed.fake.sockets[dripping].incoming.extend(bytes.by_ref().take(100));
        bed.settle();
        bed.pass(1_000_000);
    }
}

/// Three peers stop in the middle of a request for which memory is scarce, and a fourth comes after them: it waits for
/// seconds, where each of them has half a minute while nobody waits.
#[test]
fn peers_that_stop_in_the_middle_of_a_request_do_not_keep_the_memory_from_those_behind() {
    let mut bed = Bed::new(9);
    let (live, topic) = bed.producer(Durability::Memory);
    let batches = batch(topic, &[7; 30_000]).repeat(2);
    let produce = Request::Produce { handle: 1, expected_offset: None, batches: &batches };
    let half = encoded(5, &produce)[..25_000].to_vec();
    let stopped: Vec<usize> = (1..CONNECTIONS).map(|_| bed.peer()).collect();
    bed.open(stopped[0], topic);
    bed.fake.sockets[stopped[0]].incoming.extend(&half);
    bed.settle();
    bed.pass(29_000_000);
    assert!(!bed.fake.sockets[stopped[0]].closed, "nobody waits");
    bed.fake.sockets[stopped[0]].incoming.extend(&encoded(5, &produce)[25_000..]);
    bed.settle();
    assert_eq!(bed.answers(stopped[0]), [(5, Answer::Produced(0))]);
    for &peer in &stopped {
        bed.fake.sockets[peer].incoming.extend(&half);
        bed.settle();
    }
    bed.send(live, 9, &produce);
    bed.settle();
    assert_eq!(bed.answers(live), []);
    let mut seconds = 0;
    while bed.fake.sockets[live].outgoing.is_empty() {
        bed.pass(1_000_000);
        seconds += 1;
        assert!(seconds < 40, "one after the other they would take 90");
    }
    assert_eq!(bed.answers(live), [(9, Answer::Produced(2))]);
    let closed: Vec<bool> = stopped.iter().map(|&peer| bed.fake.sockets[peer].closed).collect();
    assert_eq!((closed, bed.core.counters().timed_out), (vec![true; 3], 3), "after {seconds} s");
}

#[test]
fn silent_peers_are_closed_on_time_and_waiting_ones_are_not() {
    let mut bed = Bed::new(4);
    let (waiting, topic) = bed.producer(Durability::Durable);
    let idle = bed.peer();
    let silent = bed.fake.connect();
    bed.settle();
    bed.pass(4_999_000);
    assert!(!bed.fake.sockets[silent].closed);
    bed.pass(2_000);
    assert!(bed.fake.sockets[silent].closed, "no Hello in five seconds");
    let _ = topic;
    bed.fetch(waiting, 9, 0, 59_000_000);
    bed.settle();
    bed.pass(54_000_000);
    assert!(!bed.fake.sockets[idle].closed);
    bed.pass(2_000_000);
    assert!(bed.fake.sockets[idle].closed, "nothing asked for a minute");
    assert!(!bed.fake.sockets[waiting].closed, "it waits for data");
}

#[test]
fn peers_beyond_the_limit_wait_until_one_leaves() {
    let mut bed = Bed::new(5);
    let peers: Vec<usize> = (0..CONNECTIONS).map(|_| bed.peer()).collect();
    let waiting = bed.fake.connect();
    bed.send(waiting, 3, &Request::Ping);
    bed.settle();
    assert_eq!(bed.answers(waiting), []);
    bed.fake.sockets[peers[1]].ended = true;
    bed.settle();
    assert_eq!(bed.answers(waiting), [(3, Answer::Pong)]);
}

#[test]
fn an_accept_that_fails_is_tried_again() {
    let mut bed = Bed::new(6);
    bed.fake.accept_error = Some(Errno(24));
    let peer = bed.fake.connect();
    bed.send(peer, 3, &Request::Ping);
    bed.settle();
    assert_eq!(bed.answers(peer), []);
    assert!(bed.core.next_deadline().is_some(), "it will look again by itself");
    bed.pass(100_000);
    assert_eq!(bed.answers(peer), [(3, Answer::Pong)]);
}

#[test]
fn frames_larger_than_the_small_block_take_turns_with_the_pool() {
    for seed in 0..40 {
        let mut bed = Bed::new(seed);
        let (first, topic) = bed.producer(Durability::Durable);
        let (second, third) = (bed.peer(), bed.peer());
        bed.open(second, topic);
        bed.open(third, topic);
        for round in 0..8 {
            for peer in [first, second, third] {
                bed.produce(peer, round, topic, &[5; 30_000]);
            }
        }
        bed.settle();
        for peer in [first, second, third] {
            let answers = bed.answers(peer);
            assert_eq!(answers.len(), 8, "seed {seed}: one medium and one large block serve all three");
            assert!(answers.iter().all(|(_, answer)| matches!(answer, Answer::Produced(_))), "seed {seed}");
        }
    }
}

#[test]
fn a_disk_that_stands_still_stops_reading_and_loses_nothing() {
    let mut bed = Bed::new(8);
    let (producer, topic) = bed.producer(Durability::Durable);
    bed.fake.disk_stands = true;
    for correlation in 0..150 {
        bed.produce(producer, correlation, topic, &[6; 20_000]);
    }
    bed.settle();
    assert_eq!(bed.answers(producer), [], "nothing is acknowledged before it is durable");
    assert!(!bed.fake.sockets[producer].incoming.is_empty(), "what does not fit waits in the socket");
    let other = bed.peer();
    bed.send(other, 1, &Request::Ping);
    bed.settle();
    assert_eq!(bed.answers(other), [(1, Answer::Pong)], "others are served");
    bed.fake.disk_stands = false;
    bed.settle();
    let expected: Vec<_> = (0..150).map(|number| (number, Answer::Produced(number))).collect();
    assert_eq!(bed.answers(producer), expected);
}

#[test]
fn a_completion_of_nothing_is_counted_and_changes_nothing() {
    let mut bed = Bed::new(9);
    let peer = bed.peer();
    for key in [0, u64::MAX, 3 << 56 | 1 << 32] {
        let completion = Completion { key: Key(key), result: Ok(5), block: None, accepted: None };
        bed.core.on(bed.now, completion, &mut bed.out);
    }
    assert_eq!(bed.core.counters().stray, 3);
    bed.send(peer, 1, &Request::Ping);
    bed.settle();
    assert_eq!(bed.answers(peer), [(1, Answer::Pong)]);
}
