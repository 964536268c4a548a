//! Subscriptions on a connection: what is pushed when the peer is slow, half gone, or of another core.

use super::abroad::{ABROAD, HERE, Two};
use super::*;

/// Far more than a test produces.
const CREDIT: u32 = 1 << 30;

fn subscribe(handle: u32, offset: u64) -> Request<'static> {
    let max_bytes = MAX_FRAME as u32;
    Request::Subscribe { handle, offset, leader_epoch: None, max_bytes, credit: CREDIT }
}

/// A producer with its topic, and a peer that has asked for all of it under correlation 500.
fn subscribed(seed: u64, durability: Durability) -> (Bed, TopicId, [usize; 2]) {
    let mut bed = Bed::new(seed);
    let (producer, topic) = bed.producer(durability);
    let consumer = bed.peer();
    bed.open(consumer, topic);
    bed.send(consumer, 500, &subscribe(1, 0));
    (bed, topic, [producer, consumer])
}

/// The batches of all pushes under a correlation, and how many pushes there were.
fn pushed(answers: &[(u64, Answer)], correlation: u64) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    let mut pushes = 0;
    for (of, answer) in answers {
        if let Answer::Pushed(batches) = answer
            && *of == correlation
        {
            bytes.extend_from_slice(batches);
            pushes += 1;
        }
    }
    (bytes, pushes)
}

/// Values of many sizes, and what they are as batches.
fn values(count: u8) -> Vec<Vec<u8>> {
    (0..count).map(|number| vec![number + 1; 900 * (1 + number as usize % 6)]).collect()
}

/// The bytes of the values in batches, without what the broker fills in: as long as these, and in order.
fn is_all(bytes: &[u8], topic: TopicId, values: &[Vec<u8>]) -> bool {
    let expected: usize = values.iter().map(|value| batch(topic, value).len()).sum();
    bytes.len() == expected && holds(bytes, values)
}

#[test]
fn what_is_appended_is_pushed_once_whatever_the_order_and_the_pieces() {
    for seed in 0..60 {
        let (mut bed, topic, [producer, consumer]) = subscribed(seed, Durability::Durable);
        let values = values(40);
        for (number, value) in values.iter().enumerate() {
            bed.produce(producer, 100 + number as u64, topic, value);
            if bed.fake.random(3) == 0 {
                bed.step();
            }
        }
        bed.settle();
        let (bytes, _) = pushed(&bed.answers(consumer), 500);
        assert!(is_all(&bytes, topic, &values), "seed {seed}");
        bed.fake.sockets[consumer].ended = true;
        bed.settle();
        assert_eq!(bed.answers(consumer), [(500, Answer::LastPush)], "seed {seed}: the broker's last word");
        assert!(bed.fake.sockets[consumer].closed, "seed {seed}");
    }
}

/// While the peer takes nothing, one push is on its way and one waits; what gathers meanwhile comes in one piece.
#[test]
fn a_slow_peer_is_pushed_less_often_and_more_at_a_time() {
    for seed in 0..20 {
        let (mut bed, topic, [producer, slow]) = subscribed(seed, Durability::Memory);
        bed.settle();
        assert_eq!(bed.answers(slow), [(500, Answer::Pushed(Vec::new()))], "it has begun");
        bed.fake.sockets[slow].window = 0;
        let values = values(12);
        for (number, value) in values.iter().enumerate() {
            bed.produce(producer, 100 + number as u64, topic, value);
            bed.settle();
        }
        assert_eq!(bed.answers(slow), [], "seed {seed}");
        bed.fake.sockets[slow].window = usize::MAX;
        bed.settle();
        let (bytes, pushes) = pushed(&bed.answers(slow), 500);
        assert!(is_all(&bytes, topic, &values), "seed {seed}");
        assert_eq!(pushes, 3, "seed {seed}: the first, the second, and all the rest");
    }
}

#[test]
fn subscriptions_take_no_place_of_requests() {
    let mut bed = Bed::new(4);
    let (producer, topic) = bed.producer(Durability::Durable);
    let consumer = bed.peer();
    // More than the requests that a connection may have unanswered.
    for handle in 1..=100 {
        bed.send(consumer, handle, &Request::Open { handle: handle as u32, topic, partition: 0 });
        bed.send(consumer, 1_000 + handle, &subscribe(handle as u32, 0));
    }
    bed.settle();
    assert_eq!(bed.answers(consumer).len(), 200);
    bed.produce(producer, 7, topic, &[3; 500]);
    bed.send(consumer, 9_999, &Request::Ping);
    bed.settle();
    let answers = bed.answers(consumer);
    assert!(answers.contains(&(9_999, Answer::Pong)));
    for handle in 1..=100 {
        assert!(is_all(&pushed(&answers, 1_000 + handle).0, topic, &[vec![3; 500]]));
    }
    bed.fake.sockets[consumer].gone = true;
    bed.settle();
    assert!(bed.fake.sockets[consumer].closed);
    assert!(bed.core.shards().all(|shard| shard.status().subscriptions == 0));
}

#[test]
fn the_logs_of_two_cores_push_to_one_connection() {
    for seed in 0..40 {
        let mut two = Two::new(seed);
        let (peer, producer) = (two.peer(0), two.peer(0));
        let topic = two.topic(0, peer, Durability::Durable);
        two.open(peer, topic);
        two.open(producer, topic);
        two.beds[0].send(peer, 500, &subscribe(HERE, 0));
        two.beds[0].send(peer, 501, &subscribe(ABROAD, 0));
        let values = values(30);
        for (number, value) in (0..).zip(&values) {
            two.produce(producer, 100 + number, HERE, topic, value);
            two.produce(producer, 200 + number, ABROAD, topic, value);
            if number % 3 == 0 {
                two.step(0);
                two.step(1);
            }
        }
        two.settle();
        let answers = two.beds[0].answers(peer);
        for correlation in [500, 501] {
            assert!(is_all(&pushed(&answers, correlation).0, topic, &values), "seed {seed}: {correlation}");
        }
        // The handle leads to the other core's log no more, and that log learns it.
        two.beds[0].send(peer, 3, &Request::Open { handle: ABROAD, topic, partition: 0 });
        two.settle();
        let mut answers = two.beds[0].answers(peer);
        answers.sort_by_key(|&(correlation, _)| correlation);
        assert_eq!(answers, [(3, Answer::Opened), (501, Answer::LastPush)], "seed {seed}");
        two.beds[0].send(peer, 502, &subscribe(ABROAD, 30));
        two.produce(producer, 1, ABROAD, topic, &[1; 100]);
        two.settle();
        let (bytes, pushes) = pushed(&two.beds[0].answers(peer), 502);
        assert_eq!((bytes.len(), pushes), (0, 1), "seed {seed}: of partition 0 there is no more");
        two.beds[0].fake.sockets[peer].ended = true;
        two.beds[0].fake.sockets[producer].ended = true;
        two.is_clean();
    }
}

/// A peer subscribes abroad and leads the handle elsewhere in one breath: what was asked first is first there, too.
#[test]
fn a_handle_that_is_led_away_at_once_leaves_no_subscription_abroad() {
    for seed in 0..40 {
        let mut two = Two::new(seed);
        let (peer, topic) = two.maker(Durability::Durable);
        two.beds[0].send(peer, 501, &subscribe(ABROAD, 0));
        two.beds[0].send(peer, 3, &Request::Open { handle: ABROAD, topic, partition: 0 });
        // So that both are there when the first of them is looked at.
        for _ in 0..50 {
            two.beds[0].send(peer, 9, &Request::Ping);
        }
        two.settle();
        let mut answers = two.beds[0].answers(peer);
        answers.retain(|(_, answer)| *answer != Answer::Pong);
        answers.sort_by_key(|&(correlation, _)| correlation);
        let begun = (501, Answer::Pushed(Vec::new()));
        assert_eq!(answers, [(3, Answer::Opened), begun, (501, Answer::LastPush)], "seed {seed}");
        two.beds[0].fake.sockets[peer].ended = true;
        two.is_clean();
    }
}

/// What arrives there after the word to hurry has to hear it, too.
#[test]
fn a_stop_ends_what_begins_abroad_in_that_moment() {
    for seed in 0..120 {
        let mut two = Two::new(seed);
        let (peer, _) = two.maker(Durability::Durable);
        two.beds[0].send(peer, 500, &subscribe(ABROAD, 0));
        for _ in 0..seed % 12 {
            two.step(0);
        }
        for Bed { core, out, .. } in &mut two.beds {
            core.stop(out);
        }
        two.settle();
        assert!(!two.beds[0].core.is_busy_abroad(), "seed {seed}");
    }
}

/// A peer that subscribed abroad leaves at any moment.
#[test]
fn a_subscriber_that_leaves_in_the_middle_leaves_nothing_abroad() {
    for seed in 0..60 {
        let mut two = Two::new(seed);
        let (producer, topic) = two.maker(Durability::Memory);
        for _ in 0..4 {
            let leaver = two.peer(0);
            two.open(leaver, topic);
            two.beds[0].fake.sockets[leaver].window = two.beds[0].fake.random(30_000);
            two.beds[0].send(leaver, 500, &subscribe(ABROAD, 0));
            two.beds[0].send(leaver, 501, &subscribe(HERE, 0));
            for number in 0..two.beds[0].fake.random(10) as u64 {
                two.produce(producer, number, ABROAD, topic, &[5; 3_000]);
                two.step(0);
                two.step(1);
            }
            match two.beds[0].fake.random(2) {
                0 => two.beds[0].fake.sockets[leaver].gone = true,
                _ => {
                    two.beds[0].fake.sockets[leaver].ended = true;
                    two.beds[0].fake.sockets[leaver].window = usize::MAX;
                }
            }
            two.settle();
            assert!(two.beds[0].fake.sockets[leaver].closed, "seed {seed}");
            assert!(
                two.beds.iter().all(|bed| bed.core.shards().all(|shard| shard.status().subscriptions == 0))
            );
        }
        two.beds[0].fake.sockets[producer].ended = true;
        two.is_clean();
    }
}

/// Less waits for it than may be kept aside for a connection: it is behind again and again, and is not given up.
#[test]
fn a_subscriber_abroad_that_is_slow_gets_everything_in_the_end() {
    for seed in 0..10 {
        let mut two = Two::new(seed);
        let (producer, topic) = two.maker(Durability::Memory);
        let slow = two.peer(0);
        two.open(slow, topic);
        let subscribe = Request::Subscribe {
            handle: ABROAD,
            offset: 0,
            leader_epoch: None,
            max_bytes: 8_000,
            credit: CREDIT,
        };
        two.beds[0].send(slow, 500, &subscribe);
        two.settle();
        two.beds[0].fake.sockets[slow].window = 0;
        // Twice what the window abroad holds.
        let values: Vec<Vec<u8>> = (0..1_000_u32).map(|number| number.to_le_bytes().repeat(900)).collect();
        for (number, values) in values.chunks(40).enumerate() {
            for value in values {
                two.produce(producer, number as u64, ABROAD, topic, value);
            }
            two.settle();
            let window = two.beds[0].fake.random(12_000);
            two.beds[0].fake.sockets[slow].window = window;
            two.settle();
        }
        assert_eq!(two.beds[0].answers(producer).len(), 1_000, "seed {seed}");
        assert_eq!(two.beds[0].core.counters().slow_consumers, 0, "seed {seed}");
        two.beds[0].fake.sockets[slow].window = usize::MAX;
        two.settle();
        assert!(is_all(&pushed(&two.beds[0].answers(slow), 500).0, topic, &values), "seed {seed}");
        for peer in [producer, slow] {
            two.beds[0].fake.sockets[peer].ended = true;
        }
        two.is_clean();
    }
}
