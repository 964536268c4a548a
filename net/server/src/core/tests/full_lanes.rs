//! A core that stands still for a while, and the lanes to it that fill up.

use super::abroad::{ABROAD, HERE, Two};
use super::*;

const PEERS: usize = CONNECTIONS as usize;

/// Peers of core 0 that have both partitions open.
fn peers(two: &mut Two) -> (Vec<usize>, TopicId) {
    let first = two.peer(0);
    let topic = two.topic(0, first, Durability::Durable);
    let mut peers = vec![first];
    peers.extend((1..PEERS).map(|_| two.peer(0)));
    peers.iter().for_each(|&peer| two.open(peer, topic));
    (peers, topic)
}

/// How many requests of a connection wait: in its socket, or where they were received.
fn unserved(two: &Two, peer: usize) -> usize {
    two.beds[0].fake.sockets[peer].incoming.len()
}

/// Each connection has its block on the way, and is not read before that is back: what may wait for room in the lane is one
/// parcel a connection, whatever its peer sends. When the other core goes on, all is answered in order.
#[test]
fn requests_for_a_core_that_stands_still_wait_where_they_are_and_are_answered_later() {
    for seed in 0..20 {
        let mut two = Two::with_lanes(seed, 2);
        let (peers, topic) = peers(&mut two);
        let sent = two.sent[0];
        for &peer in &peers {
            for number in 0..30 {
                two.produce(peer, number, ABROAD, topic, &[number as u8 + 1; 9_000]);
            }
            two.produce(peer, 30, HERE, topic, &[31; 100]);
            two.beds[0].send(peer, 31, &Request::Ping);
        }
        two.settle_alone(0);
        assert!(two.posts[0].is_behind(), "seed {seed}: the lane is full");
        assert_eq!(two.sent[0] - sent, PEERS, "seed {seed}: a visit of each and nothing else");
        for &peer in &peers {
            assert_eq!(two.beds[0].answers(peer), [], "seed {seed}");
        }
        let waiting: Vec<usize> = peers.iter().map(|&peer| unserved(&two, peer)).collect();
        assert!(
            waiting.iter().all(|&bytes| bytes > 200_000),
            "seed {seed}: it is in the sockets: {waiting:?}"
        );
        // More turns, and more requests, change nothing.
        two.beds[0].send(peers[0], 32, &Request::Ping);
        two.settle_alone(0);
        let more = encoded(32, &Request::Ping).len();
        assert_eq!(unserved(&two, peers[0]), waiting[0] + more, "seed {seed}: it is not read");
        assert_eq!(two.sent[0] - sent, PEERS, "seed {seed}");

        two.settle();
        let mut offsets = Vec::new();
        for &peer in &peers {
            let answers = two.beds[0].answers(peer);
            let of = |name: u64| answers.iter().filter(move |answer| answer.0 == name);
            assert!((0..32).all(|name| of(name).count() == 1), "seed {seed}: each is answered once");
            let own: Vec<u64> = (0..30)
                .map(|name| match of(name).next() {
                    Some(&(_, Answer::Produced(offset))) => offset,
                    other => panic!("seed {seed}: {other:?}"),
                })
                .collect();
            assert!(own.is_sorted(), "seed {seed}: in the order they were sent in");
            offsets.extend(own);
        }
        offsets.sort_unstable();
        assert_eq!(offsets, (0..30 * PEERS as u64).collect::<Vec<_>>(), "seed {seed}: each is there once");
        two.gone(&peers);
    }
}

/// The other way round: answers for a core that stands still. There are no more of them than requests.
#[test]
fn answers_to_a_core_that_stands_still_wait_for_it_and_come_in_order() {
    for seed in 0..20 {
        let mut two = Two::with_lanes(seed, 2);
        let (peers, topic) = peers(&mut two);
        for &peer in &peers {
            for number in 0..60 {
                two.produce(peer, number, ABROAD, topic, &[number as u8 + 1; 20]);
            }
        }
        // Until all blocks are on their way: what is received in pieces makes several visits.
        let sent = two.sent[1];
        while !two.beds[0].core.connections.iter().flatten().all(|open| open.is_away) {
            two.step(0);
        }
        let asked: usize = two.beds[0].core.connections.iter().flatten().map(|open| open.abroad).sum();
        for _ in 0..4 {
            // What waits at core 0 gets through as the other one takes it.
            two.settle_alone(1);
            two.posts[0].fill();
        }
        assert!(asked >= PEERS && two.posts[1].is_behind(), "seed {seed}: the lane back is full");
        assert_eq!(two.sent[1] - sent, asked + PEERS, "seed {seed}: an answer to each, and the blocks");
        two.settle();
        for &peer in &peers {
            let answers = two.beds[0].answers(peer);
            let names: Vec<u64> = answers.iter().map(|answer| answer.0).collect();
            assert_eq!(names, (0..60).collect::<Vec<_>>(), "seed {seed}");
            assert!(answers.iter().all(|answer| matches!(answer.1, Answer::Produced(_))), "seed {seed}");
        }
        two.gone(&peers);
    }
}

/// A subscription pushes as its connection takes what was pushed, and a core that stands still takes nothing: what gathers
/// meanwhile stays in the log. Its fetch that waits abroad is answered once.
#[test]
fn a_subscription_does_not_fill_the_lane_to_a_core_that_stands_still() {
    for seed in 0..20 {
        let mut two = Two::with_lanes(seed, 1);
        let (reader, topic) = two.maker(Durability::Memory);
        let (max_bytes, credit) = (MAX_FRAME as u32, 1 << 30);
        let subscribe =
            Request::Subscribe { handle: ABROAD, offset: 0, leader_epoch: None, max_bytes, credit };
        two.beds[0].send(reader, 500, &subscribe);
        two.fetch(reader, 501, ABROAD, 0, 50_000_000);
        let producer = two.peer(1);
        two.beds[1].send(producer, 2, &Request::Open { handle: 1, topic, partition: 1 });
        two.settle();
        two.beds[1].answers(producer);
        two.beds[0].answers(reader);
        let sent = two.sent[1];
        let values: Vec<Vec<u8>> = (0..40_u8).map(|number| vec![number + 1; 3_000]).collect();
        for (number, value) in (0..).zip(&values) {
            let batches = batch_for(topic, 1, value);
            let request = Request::Produce { handle: 1, expected_offset: None, batches: &batches };
            two.beds[1].send(producer, number, &request);
            two.settle_alone(1);
        }
        assert_eq!(
            two.beds[1].answers(producer).len(),
            40,
            "seed {seed}: nobody waits for the reader's core"
        );
        assert!(two.sent[1] - sent <= 3, "seed {seed}: {} parcels", two.sent[1] - sent);
        two.settle();
        let answers = two.beds[0].answers(reader);
        let fetched = answers.iter().filter(|answer| answer.0 == 501).count();
        let pushed: Vec<u8> = answers
            .iter()
            .filter_map(|answer| match answer {
                (500, Answer::Pushed(batches)) => Some(&batches[..]),
                _ => None,
            })
            .flatten()
            .copied()
            .collect();
        let bytes: usize = values.iter().map(|value| batch(topic, value).len()).sum();
        assert!(fetched == 1 && pushed.len() == bytes && holds(&pushed, &values), "seed {seed}");
        two.beds[1].fake.sockets[producer].ended = true;
        two.gone(&[reader]);
    }
}
