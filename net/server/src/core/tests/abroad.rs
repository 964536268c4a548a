//! Two cores, each with a log: what a peer of one asks of the log of the other.

use std::collections::VecDeque;

use corelog_uring::arena::place_of;

use super::*;
use crate::post::{Doors, LANE_PARCELS, Post, posts};

/// Two cores and the mail between them.
pub(super) struct Two {
    pub(super) beds: [Bed; 2],
    pub(super) posts: Vec<Post>,
    /// Came to each core and was not opened yet, in order.
    arrived: [VecDeque<Parcel>; 2],
    /// Parcels that each core has sent.
    pub(super) sent: [usize; 2],
    random: u64,
}

/// The handles of the two partitions.
pub(super) const HERE: u32 = 1;
pub(super) const ABROAD: u32 = 2;

impl Two {
    /// With lanes that are never full, or that hold next to nothing.
    pub(super) fn new(seed: u64) -> Self {
        Self::with_lanes(seed, [LANE_PARCELS, 1, 2][seed as usize % 3])
    }

    pub(super) fn with_lanes(seed: u64, lane_parcels: usize) -> Self {
        Self::with(seed, lane_parcels, log_config(), Limits::default())
    }

    fn with(seed: u64, lane_parcels: usize, log_config: LogConfig, limits: Limits) -> Self {
        let now = Now { mono_us: 1, wall_us: 1_700_000_000_000_000 };
        let bed = |me: u16| {
            let fake = Fake::new(seed * 2 + u64::from(me));
            Bed::start_one_of(2, me, fake, now, bounds(), (log_config.clone(), limits))
        };
        let posts = posts(&Doors::new(2), lane_parcels);
        let (beds, arrived, random) = ([bed(0), bed(1)], Default::default(), seed * 77 + 1);
        let mut two = Self { beds, posts, arrived, sent: [0; 2], random };
        two.settle();
        assert!(two.beds.iter().all(|bed| bed.core.is_joined()), "both have started and know of each other");
        two
    }

    fn chance(&mut self) -> bool {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random >> 62 != 0
    }

    /// What has come to a core and was not opened yet.
    pub(super) fn arriving(&mut self, at: usize) -> &mut VecDeque<Parcel> {
        let mut collected = Vec::new();
        self.posts[at].collect(&mut collected);
        self.arrived[at].extend(collected.into_iter().map(|(_, parcel)| parcel));
        &mut self.arrived[at]
    }

    /// One turn of a core, with some of its mail before and some of what can happen after it.
    pub(super) fn step(&mut self, at: usize) -> bool {
        let before = self.arrived[at].len();
        let mut happened = self.arriving(at).len() > before;
        while self.chance()
            && let Some(parcel) = self.arrived[at].pop_front()
        {
            happened = true;
            let Bed { core, out, now, .. } = &mut self.beds[at];
            match parcel {
                Parcel::Region(_) => {}
                parcel => core.on_parcel(*now, 1 - at, parcel, &mut Machine::default, out),
            }
        }
        let [first, second] = &mut self.beds;
        let (this, other) = if at == 0 { (first, second) } else { (second, first) };
        let Bed { core, fake, out, now } = this;
        now.mono_us += 1;
        let turn = core.turn(*now, &mut Machine::default, out);
        core.check();
        happened |= !out.is_empty();
        self.sent[at] += out.parcels.len();
        self.posts[at].put(&mut out.parcels);
        self.posts[at].fill();
        fake.take(out);
        for _ in 0..=fake.random(3) {
            let read = |slice: Slice| match place_of(slice.block).0 == at {
                true => core.bytes(slice).to_vec(),
                false => other.core.bytes(slice).to_vec(),
            };
            match fake.next(read) {
                Some(fake::Happened::Ring(completion)) => core.on(*now, completion, out),
                Some(fake::Happened::Background(ended, opened)) => core.on_background(*now, 0, ended, opened),
                None => break,
            }
            happened = true;
        }
        happened || turn == Turn::Again || this.is_due()
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            let more = [self.step(0), self.step(1)];
            let behind = self.posts.iter().any(Post::is_behind);
            if more == [false; 2] && !behind && self.arrived.iter().all(VecDeque::is_empty) {
                return;
            }
        }
        panic!("it turns and turns");
    }

    /// One core takes its turns until nothing is left for it to do, while the other one stands still.
    pub(super) fn settle_alone(&mut self, at: usize) {
        for _ in 0..100_000 {
            if !self.step(at) && self.arrived[at].is_empty() {
                return;
            }
        }
        panic!("it turns and turns");
    }

    pub(super) fn peer(&mut self, at: usize) -> usize {
        let peer = self.beds[at].fake.connect();
        let hello = Hello { client: "t", client_version: "1", max_frame_bytes: MAX_FRAME as u32 };
        self.beds[at].send(peer, 0, &Request::Hello(hello));
        self.settle();
        assert!(matches!(self.beds[at].answers(peer)[..], [(0, Answer::Hello)]));
        peer
    }

    /// A topic of two partitions, made through `at`: partition 0 is kept by log 0, partition 1 by log 1.
    pub(super) fn topic(&mut self, at: usize, peer: usize, durability: Durability) -> TopicId {
        let create = Request::CreateTopic {
            name: "t",
            partitions: 2,
            durability,
            retention: corelog_model::RetentionChange::NONE,
        };
        self.beds[at].send(peer, 1, &create);
        self.settle();
        match self.beds[at].answers(peer)[..] {
            [(1, Answer::TopicCreated(topic))] => topic,
            ref other => panic!("{other:?}"),
        }
    }

    /// A peer of core 0 that has made the topic and opened both partitions.
    pub(super) fn maker(&mut self, durability: Durability) -> (usize, TopicId) {
        let peer = self.peer(0);
        let topic = self.topic(0, peer, durability);
        self.open(peer, topic);
        (peer, topic)
    }

    /// Opens both partitions on a peer of core 0.
    pub(super) fn open(&mut self, peer: usize, topic: TopicId) {
        for (handle, partition) in [(HERE, 0), (ABROAD, 1)] {
            self.beds[0].send(peer, handle.into(), &Request::Open { handle, topic, partition });
        }
        self.settle();
        let mut answers = self.beds[0].answers(peer);
        answers.sort_by_key(|&(correlation, _)| correlation);
        assert_eq!(answers, [(1, Answer::Opened), (2, Answer::Opened)]);
    }

    pub(super) fn produce(
        &mut self,
        peer: usize,
        correlation: u64,
        handle: u32,
        topic: TopicId,
        value: &[u8],
    ) {
        let batches = batch_for(topic, handle - 1, value);
        let request = Request::Produce { handle, expected_offset: None, batches: &batches };
        self.beds[0].send(peer, correlation, &request);
    }

    pub(super) fn fetch(
        &mut self,
        peer: usize,
        correlation: u64,
        handle: u32,
        offset: u64,
        max_wait_us: u64,
    ) {
        let max_bytes = MAX_FRAME as u32;
        let fetch =
            Request::Fetch { handle, offset, leader_epoch: None, max_bytes, min_bytes: 1, max_wait_us };
        self.beds[0].send(peer, correlation, &fetch);
    }

    /// These peers of core 0 leave, and nothing of anybody's is left anywhere.
    pub(super) fn gone(&mut self, peers: &[usize]) {
        for &peer in peers {
            self.beds[0].fake.sockets[peer].ended = true;
        }
        self.is_clean();
    }

    /// Nothing of anybody's is left anywhere.
    pub(super) fn is_clean(&mut self) {
        self.settle();
        for bed in &self.beds {
            assert_eq!(bed.core.counters().connections, 0);
            assert_eq!(bed.core.ingest.free(), 2, "receive blocks are back");
            assert!(bed.core.guests.is_empty());
            for shard in bed.core.shards() {
                assert_eq!((shard.status().connections, shard.status().storage.window_pins), (0, 0));
            }
        }
    }
}

/// Requests for both logs, mixed, on one connection: each is answered once, each partition has its records in order.
#[test]
fn a_peer_of_one_core_uses_the_logs_of_both() {
    for seed in 0..80 {
        let mut two = Two::new(seed);
        let (peer, topic) = two.maker(Durability::Durable);
        two.fetch(peer, 500, ABROAD, 0, 50_000_000);
        two.settle();
        assert_eq!(two.beds[0].answers(peer), [], "seed {seed}: it waits");
        let values: Vec<Vec<u8>> =
            (0..16_u8).map(|number| vec![number + 1; 700 * (1 + number as usize % 7)]).collect();
        for (number, value) in (0_u64..).zip(&values) {
            // One here, one abroad; then runs of them.
            let handle = if number < 8 { 1 + number as u32 % 2 } else { 1 + number as u32 / 4 % 2 };
            two.produce(peer, 100 + number, handle, topic, value);
        }
        two.beds[0].send(peer, 999, &Request::Ping);
        two.settle();
        let mut answers = two.beds[0].answers(peer);
        answers.sort_by_key(|&(correlation, _)| correlation);
        let offsets: Vec<_> = (0..16_u64).map(|n| if n < 8 { n / 2 } else { 4 + n % 4 }).collect();
        let expected =
            (100..).zip(offsets).map(|(correlation, offset)| (correlation, Answer::Produced(offset)));
        assert_eq!(answers[..16], expected.collect::<Vec<_>>(), "seed {seed}");
        assert!(matches!(answers[16], (500, Answer::Fetched(_))) && answers[17] == (999, Answer::Pong));
        let of = |handle: u32| -> Vec<Vec<u8>> {
            let is = |n: usize| if n < 8 { n as u32 % 2 } else { n as u32 / 4 % 2 } == handle - 1;
            values.iter().enumerate().filter(|&(n, _)| is(n)).map(|(_, value)| value.clone()).collect()
        };
        for handle in [HERE, ABROAD] {
            two.fetch(peer, 600, handle, 0, 0);
            two.settle();
            match &two.beds[0].answers(peer)[..] {
                [(600, Answer::Fetched(batches))] => assert!(holds(batches, &of(handle)), "seed {seed}"),
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        two.beds[0].fake.sockets[peer].ended = true;
        two.is_clean();
    }
}

/// Topics are made and removed through any core, and a refusal from abroad is an answer like any other.
#[test]
fn what_changes_topics_can_be_asked_of_any_core() {
    let mut two = Two::new(1);
    let (here, there) = (two.peer(0), two.peer(1));
    let topic = two.topic(1, there, Durability::Durable);
    two.open(here, topic);
    two.beds[1].send(
        there,
        2,
        &Request::CreateTopic {
            name: "t",
            partitions: 1,
            durability: Durability::Durable,
            retention: corelog_model::RetentionChange::NONE,
        },
    );
    two.beds[1].send(there, 3, &Request::DeleteTopic { name: "t" });
    two.settle();
    let answers = two.beds[1].answers(there);
    assert_eq!(answers, [(2, Answer::Error(ErrorCode::TopicExists)), (3, Answer::Other)]);
    two.produce(here, 4, ABROAD, topic, &[1; 10]);
    two.settle();
    assert_eq!(two.beds[0].answers(here), [(4, Answer::Error(ErrorCode::UnknownTopicId))]);
}

/// A handle never leads back to what it named before: not by an Open that is refused, wherever its log is.
#[test]
fn a_handle_whose_last_open_was_refused_names_nothing() {
    let mut two = Two::new(5);
    let peer = two.peer(0);
    let topic = two.topic(0, peer, Durability::Durable);
    for (partition, wrong) in [(0, topic), (1, topic), (0, TopicId(77)), (1, topic), (1, TopicId(77))] {
        let unknown = if wrong == topic { 9 } else { 0 };
        for (topic, partition) in [(topic, partition), (wrong, unknown)] {
            two.beds[0].send(peer, 1, &Request::Open { handle: 1, topic, partition });
            two.settle();
        }
        let answers = two.beds[0].answers(peer);
        assert!(matches!(answers[..], [(1, Answer::Opened), (1, Answer::Error(_))]), "{answers:?}");
        two.fetch(peer, 2, 1, 0, 0);
        two.settle();
        assert_eq!(two.beds[0].answers(peer), [(2, Answer::Error(ErrorCode::UnknownHandle))]);
    }
}

/// A peer leaves while its block is abroad, its answers are on their way, its fetch waits there.
#[test]
fn a_peer_that_leaves_in_the_middle_leaves_nothing_abroad() {
    for seed in 0..80 {
        let mut two = Two::new(seed);
        let (peer, topic) = two.maker(Durability::Memory);
        two.produce(peer, 1, ABROAD, topic, &[1; 20_000]);
        two.settle();
        for _ in 0..4 {
            let leaver = two.peer(0);
            two.open(leaver, topic);
            two.beds[0].fake.sockets[leaver].window = two.beds[0].fake.random(30_000);
            two.fetch(leaver, 1, ABROAD, 0, 0);
            two.fetch(leaver, 2, ABROAD, 9, 50_000_000);
            two.produce(leaver, 3, ABROAD, topic, &[2; 10_000]);
            two.produce(leaver, 4, HERE, topic, &[2; 10_000]);
            for _ in 0..two.beds[0].fake.random(30) {
                two.step(0);
                two.step(1);
            }
            two.beds[0].fake.sockets[leaver].gone = true;
            two.settle();
            assert!(two.beds[0].fake.sockets[leaver].closed, "seed {seed}");
        }
        two.beds[0].send(peer, 7, &Request::Ping);
        two.settle();
        assert!(two.beds[0].answers(peer).contains(&(7, Answer::Pong)), "seed {seed}: nobody else noticed");
        two.beds[0].fake.sockets[peer].ended = true;
        two.is_clean();
    }
}

/// While the log abroad has no room, its frames wait there with their block, and nobody else waits for them.
#[test]
fn a_log_abroad_without_room_holds_up_its_own_frames_only() {
    let mut two = Two::new(3);
    let (peer, other, bystander) = (two.peer(0), two.peer(0), two.peer(0));
    let topic = two.topic(0, peer, Durability::Durable);
    for peer in [peer, other, bystander] {
        two.open(peer, topic);
    }
    two.beds[1].fake.disk_stands = true;
    for number in 0..60 {
        two.produce(peer, number, ABROAD, topic, &[7; 30_000]);
        two.produce(other, number, ABROAD, topic, &[7; 30_000]);
    }
    two.settle();
    assert_eq!((two.beds[0].answers(peer), two.beds[0].answers(other)), (vec![], vec![]));
    assert!(!two.beds[1].core.guests.is_empty(), "the window abroad is full");
    two.produce(bystander, 1, HERE, topic, &[7; 100]);
    two.settle();
    assert_eq!(two.beds[0].answers(bystander), [(1, Answer::Produced(0))]);
    two.beds[1].fake.disk_stands = false;
    two.settle();
    assert_eq!((two.beds[0].answers(peer).len(), two.beds[0].answers(other).len()), (60, 60));
    for peer in [peer, other, bystander] {
        two.beds[0].fake.sockets[peer].ended = true;
    }
    two.is_clean();
}

/// A consumer whose answer lies in another core's memory has what one has whose answer lies here: what is left of it is
/// kept aside when that memory is needed, if it is no more than that.
#[test]
fn a_slow_consumer_of_another_core_is_moved_away_or_closed_and_producers_go_on() {
    for seed in 0..40 {
        let (window, survives) =
            [(0, false), (5_000, false), (15_000, true), (29_000, true)][seed as usize % 4];
        let mut two = Two::new(seed);
        let (producer, topic) = two.maker(Durability::Memory);
        two.produce(producer, 1, ABROAD, topic, &[9; 30_000]);
        two.settle();
        let stalled = two.peer(0);
        two.open(stalled, topic);
        two.beds[0].fake.sockets[stalled].window = window;
        two.fetch(stalled, 5, ABROAD, 0, 0);
        two.settle();
        // More than the window abroad holds.
        for number in 0..100 {
            two.produce(producer, 100 + number, ABROAD, topic, &[8; 30_000]);
            two.settle();
        }
        let produced = two.beds[0].answers(producer);
        assert_eq!(produced.len(), 101, "seed {seed}: producers go on");
        let core = &two.beds[0].core;
        assert_eq!(core.counters().slow_consumers, u64::from(!survives), "seed {seed}");
        assert!(core.replies.used() <= SLOW_BYTES, "seed {seed}");
        two.beds[0].fake.sockets[stalled].window = usize::MAX;
        two.settle();
        if survives {
            match &two.beds[0].answers(stalled)[..] {
                [(5, Answer::Fetched(batches))] => assert!(holds(batches, &[vec![9; 30_000]]), "seed {seed}"),
                other => panic!("seed {seed}: {other:?}"),
            }
        } else {
            assert!(two.beds[0].fake.sockets[stalled].closed, "seed {seed}");
        }
        for peer in [producer, stalled] {
            two.beds[0].fake.sockets[peer].gone = true;
        }
        two.is_clean();
    }
}

/// It leaves, or is closed, while its bytes are on their way to its core.
#[test]
fn a_slow_consumer_that_leaves_while_its_bytes_are_copied_leaves_nothing_abroad() {
    for seed in 0..60 {
        let mut two = Two::new(seed);
        let (producer, topic) = two.maker(Durability::Memory);
        two.produce(producer, 1, ABROAD, topic, &[9; 15_000]);
        two.settle();
        let stalled = two.peer(0);
        two.open(stalled, topic);
        two.beds[0].fake.sockets[stalled].window = two.beds[0].fake.random(10_000);
        two.fetch(stalled, 5, ABROAD, 0, 0);
        two.settle();
        let mut number = 100;
        let is_coming = |two: &Two| {
            let mut slots = two.beds[0].core.connections.iter().flatten();
            slots.any(|open| open.outbox.own_bytes() > 0)
        };
        while !is_coming(&two) {
            two.produce(producer, number, ABROAD, topic, &[8; 30_000]);
            number += 1;
            assert!(number < 400, "seed {seed}: its memory is never needed");
            for _ in 0..20 {
                if !is_coming(&two) {
                    two.step(0);
                    two.step(1);
                }
            }
        }
        two.beds[0].fake.sockets[stalled].gone = true;
        for _ in 0..two.beds[0].fake.random(6) {
            two.step(0);
            two.step(1);
        }
        two.settle();
        assert!(two.beds[0].fake.sockets[stalled].closed, "seed {seed}");
        assert_eq!(two.beds[0].answers(producer).len() as u64, number - 99, "seed {seed}");
        two.beds[0].fake.sockets[producer].ended = true;
        two.is_clean();
    }
}

/// The peers of a core keep its log full: each of their requests that is answered makes room for one of theirs that
/// waits. One that waits there from another core comes in its turn.
#[test]
fn a_request_from_abroad_is_taken_although_the_peers_there_never_pause() {
    for seed in 0..10 {
        let mut two = Two::with(seed, LANE_PARCELS, log_config(), Limits { pending: 4, ..Limits::default() });
        let (guest, busy) = (two.peer(0), [two.peer(1), two.peer(1), two.peer(1)]);
        let topic = two.topic(0, guest, Durability::Durable);
        two.open(guest, topic);
        for peer in busy {
            two.beds[1].send(peer, 0, &Request::Open { handle: ABROAD, topic, partition: 1 });
        }
        two.settle();
        let batches = batch_for(topic, 1, &[7; 100]);
        let produce = Request::Produce { handle: ABROAD, expected_offset: None, batches: &batches };
        let (mut answered, mut steps) = (0, 0);
        // Long enough for them to wait for each other when it comes.
        while two.beds[0].answers(guest).is_empty() {
            if steps == 200 {
                answered = 0;
                two.produce(guest, 9, ABROAD, topic, &[1; 100]);
            }
            for peer in busy {
                while two.beds[1].fake.sockets[peer].incoming.len() < 20_000 {
                    two.beds[1].send(peer, 1, &produce);
                }
                answered += two.beds[1].answers(peer).len();
            }
            two.step(0);
            two.step(1);
            steps += 1;
            // What the others had there when it came are three blocks of requests.
            assert!(
                steps < 200 || answered < 500,
                "seed {seed}: it waits while those who came later are answered"
            );
        }
    }
}

/// A block is wanted back, and given up by whom it was sent to; a fetch that came meanwhile takes another slice of it to one
/// who does not read either. Nothing happens any more then, and the producers are not to wait for that one.
#[test]
fn a_block_that_went_abroad_again_is_asked_for_again_although_nothing_happens() {
    // Nothing else is due for long.
    let log_config = LogConfig { beacon_us: 60_000_000, ..log_config() };
    let mut two = Two::with(8, LANE_PARCELS, log_config, Limits::default());
    let (first, second, producer) = (two.peer(0), two.peer(0), two.peer(1));
    let topic = two.topic(0, first, Durability::Memory);
    two.open(first, topic);
    two.open(second, topic);
    two.beds[1].send(producer, 0, &Request::Open { handle: ABROAD, topic, partition: 1 });
    let batches = batch_for(topic, 1, &[7; 30_000]);
    let produce = Request::Produce { handle: ABROAD, expected_offset: None, batches: &batches };
    two.beds[1].send(producer, 1, &produce);
    two.settle();
    for stalled in [first, second] {
        two.beds[0].fake.sockets[stalled].window = 0;
        two.fetch(stalled, 5, ABROAD, 0, 0);
        if stalled == first {
            two.settle();
        }
    }
    while two.arriving(1).is_empty() {
        two.step(0);
    }
    let late = std::mem::take(two.arriving(1));
    for number in 0..100 {
        two.beds[1].send(producer, 100 + number, &produce);
    }
    while !two.arriving(0).iter().any(|parcel| matches!(parcel, Parcel::Evict(_))) {
        two.step(1);
    }
    two.arriving(1).extend(late);
    while !two.arriving(0).iter().any(|parcel| matches!(parcel, Parcel::Reply { .. })) {
        two.step(1);
    }
    two.settle();
    assert_eq!(two.beds[0].core.counters().slow_consumers, 1, "the other has it now");
    let now_us = two.beds[1].now.mono_us;
    let due_us = two.beds[1].core.next_deadline().expect("a connection is looked at now and then");
    assert!(due_us <= now_us + 10_000, "it sleeps for {} us beside a producer that waits", due_us - now_us);
    two.beds[1].now.mono_us = due_us;
    two.settle();
    assert_eq!(two.beds[0].core.counters().slow_consumers, 2);
    assert_eq!(two.beds[1].answers(producer).len(), 102);
}

/// A consumer that takes all that it is sent at once: that the log wants the block back just then is not its fault, and what
/// it has not taken yet is copied aside.
#[test]
fn a_quick_consumer_of_another_core_is_not_called_slow() {
    let mut lost = 0;
    for seed in 0..20 {
        let mut two = Two::with_lanes(seed, LANE_PARCELS);
        let (quick, producer) = (two.peer(0), two.peer(1));
        let topic = two.topic(0, quick, Durability::Memory);
        two.open(quick, topic);
        two.beds[1].send(producer, 0, &Request::Open { handle: ABROAD, topic, partition: 1 });
        let (batches, large) = (batch_for(topic, 1, &[7; SLOW_BYTES / 2]), batch_for(topic, 1, &[7; 30_000]));
        let produce = Request::Produce { handle: ABROAD, expected_offset: None, batches: &batches };
        two.beds[1].send(producer, 1, &produce);
        let produce = Request::Produce { handle: ABROAD, expected_offset: None, batches: &large };
        two.settle();
        two.fetch(quick, 5, ABROAD, 0, 0);
        while two.arriving(1).is_empty() {
            two.step(0);
        }
        for number in 0..100 {
            two.beds[1].send(producer, 100 + number, &produce);
        }
        while !two.arriving(0).iter().any(|parcel| matches!(parcel, Parcel::Evict(_))) {
            two.step(1);
        }
        two.settle();
        lost += two.beds[0].core.counters().slow_consumers;
    }
    assert_eq!(lost, 0, "of 20");
}
