//! Subscriptions, one story each: what is pushed when, what holds it back, and how it ends.

use std::time::{Duration, Instant};

use corelog_model::{Durability, LogId, TopicId};
use corelog_shard::{Bounded, ConnId, Event, Principal, Refusal, Request, Response, Taken};
use corelog_tests::machine::Machine;
use corelog_tests::oracle::{Place, read_batch};
use corelog_tests::script::{
    CONN, From, batch, create, machine, open, produce, produce_blindly, restart, small_log,
};

const READER: ConnId = ConnId { slot: 5, generation: 1 };
const MAX_BYTES: u32 = 4_096;

/// What a reader was told: correlation, response, bytes of its batches.
type Told = (u64, Response, Vec<Vec<u8>>);

fn started() -> (Machine, TopicId) {
    let mut machine = machine(small_log(), 1);
    let topic = create(&mut machine, "orders", 2, Durability::Durable);
    open(&mut machine, topic, 0).unwrap();
    read_with(&mut machine, topic, 1);
    (machine, topic)
}

/// The reader connects and opens so many handles on partition 0.
fn read_with(machine: &mut Machine, topic: TopicId, handles: u32) {
    machine.connect(LogId(0), READER);
    for handle in 1..=handles {
        let opened = machine.ask_as(LogId(0), READER, &Request::Open { handle, topic, partition: 0 }).0;
        assert!(matches!(opened, Response::Opened { .. }), "{opened:?}");
    }
}

fn subscribe(machine: &mut Machine, correlation: u64, handle: u32, offset: u64, credit: u32) {
    let request = Request::Subscribe { handle, offset, leader_epoch: None, max_bytes: MAX_BYTES, credit };
    _ = machine.request(LogId(0), READER, correlation, &request);
}

fn credit(machine: &mut Machine, bytes: u32, ends: bool) {
    _ = machine.request(LogId(0), READER, 90, &Request::Credit { handle: 1, bytes, ends });
}

/// What the reader was told by now.
fn told(machine: &mut Machine) -> Vec<Told> {
    let replies = std::mem::take(&mut machine.logs[0].actions.replies);
    let mut told = Vec::new();
    for reply in replies {
        let bytes = machine.receive(LogId(0), &reply.response);
        if reply.conn == READER && reply.response != Response::Credited {
            told.push((reply.correlation, reply.response, bytes));
        }
    }
    machine.logs[0].received_all();
    told
}

/// Turns until the reader is told something.
fn told_soon(machine: &mut Machine) -> Vec<Told> {
    for _ in 0..10_000 {
        let found = told(machine);
        if !found.is_empty() {
            return found;
        }
        machine.turn().unwrap();
    }
    panic!("nothing is pushed");
}

fn told_nothing(machine: &mut Machine) {
    for _ in 0..100 {
        machine.turn().unwrap();
        assert_eq!(told(machine), []);
    }
}

/// The first and the last offset of a push, or where it stands empty; it must go on.
fn offsets(told: &Told, topic: TopicId) -> Option<(u64, u64)> {
    assert!(matches!(told.1, Response::Pushed { is_last: false, .. }), "{told:?}");
    let mut places: Vec<Place> = Vec::new();
    told.2.iter().for_each(|bytes| _ = read_batch(bytes, topic, 0, &mut places));
    Some((places.first()?.offset, places.last()?.offset))
}

#[test]
fn what_becomes_visible_is_pushed_once_and_in_order() {
    let (mut machine, topic) = started();
    subscribe(&mut machine, 50, 1, 0, 1 << 20);
    let begun = told(&mut machine);
    assert_eq!((begun.len(), begun[0].0, offsets(&begun[0], topic)), (1, 50, None), "it has begun");
    machine.drained(LogId(0), READER);
    for round in 0..3 {
        let numbers = round * 3..round * 3 + 3;
        assert_eq!(
            produce(&mut machine, &batch(topic, 0, numbers.clone(), From::default())),
            Ok(numbers.start)
        );
        // The answer to the producer and the push are of one turn: `produce` has dropped what the reader was told, so
        // that it was pushed shows in what is pushed next.
        machine.drained(LogId(0), READER);
        told_nothing(&mut machine);
    }
    // What is appended while the reader does not take what was pushed comes in one piece.
    let first = produce_blindly(&mut machine, 1, &batch(topic, 0, 9..10, From::default()));
    let pushed = told_soon(&mut machine);
    assert_eq!((first, offsets(&pushed[0], topic)), (Taken::Done, Some((9, 9))));
    for number in 10..14 {
        produce(&mut machine, &batch(topic, 0, number..number + 1, From::default())).unwrap();
    }
    told_nothing(&mut machine);
    machine.drained(LogId(0), READER);
    let pushed = told(&mut machine);
    assert_eq!((pushed.len(), offsets(&pushed[0], topic)), (1, Some((10, 13))), "all that had gathered");
}

#[test]
fn a_push_takes_from_the_credit_and_without_any_nothing_is_pushed() {
    let (mut machine, topic) = started();
    // All of one length.
    for _ in 0..4 {
        produce(&mut machine, &batch(topic, 0, 0..1, From::default())).unwrap();
    }
    subscribe(&mut machine, 50, 1, 0, 0);
    assert_eq!(offsets(&told(&mut machine)[0], topic), None, "it has begun, with no credit");
    machine.drained(LogId(0), READER);
    told_nothing(&mut machine);
    // One batch always fits, and what it is larger than the credit is owed.
    credit(&mut machine, 1, false);
    let pushed = told(&mut machine);
    assert_eq!(offsets(&pushed[0], topic), Some((0, 0)));
    let bytes = pushed[0].2[0].len() as u32;
    machine.drained(LogId(0), READER);
    credit(&mut machine, bytes - 1, false);
    told_nothing(&mut machine);
    credit(&mut machine, 2 * bytes, false);
    assert_eq!(offsets(&told(&mut machine)[0], topic), Some((1, 2)), "two fit, a third does not");
    machine.drained(LogId(0), READER);
    told_nothing(&mut machine);
}

#[test]
fn a_subscription_ends_when_asked_to_and_says_so_once() {
    let (mut machine, topic) = started();
    let is_last = |told: &[Told], correlation: u64| matches!(told, [(of, Response::Pushed { is_last: true, .. }, bytes)] if *of == correlation && bytes.is_empty());
    // While it waits for data, and for credit.
    for (correlation, bytes) in [(50, 1 << 20), (51, 0)] {
        subscribe(&mut machine, correlation, 1, 0, bytes);
        told(&mut machine);
        machine.drained(LogId(0), READER);
        credit(&mut machine, 0, true);
        assert!(is_last(&told(&mut machine), correlation));
        credit(&mut machine, 0, true);
        credit(&mut machine, 100, false);
        told_nothing(&mut machine);
    }
    // While its connection has not taken what was pushed.
    subscribe(&mut machine, 52, 1, 0, 1 << 20);
    told(&mut machine);
    credit(&mut machine, 0, true);
    told_nothing(&mut machine);
    machine.drained(LogId(0), READER);
    assert!(is_last(&told(&mut machine), 52));
    // Another one, or another meaning of the handle, takes its place.
    subscribe(&mut machine, 53, 1, 0, 1 << 20);
    machine.drained(LogId(0), READER);
    told(&mut machine);
    subscribe(&mut machine, 54, 1, 0, 1 << 20);
    let both = told(&mut machine);
    assert!(is_last(&both[..1], 53) && both[1].0 == 54, "{both:?}");
    machine.drained(LogId(0), READER);
    _ = machine.request(LogId(0), READER, 91, &Request::Open { handle: 1, topic, partition: 1 });
    assert!(is_last(&told(&mut machine)[..1], 54));
    assert_eq!(machine.shard().unwrap().status().subscriptions, 0);
}

#[test]
fn a_subscription_ends_with_its_topic_its_place_in_the_log_or_its_connection() {
    let (mut machine, topic) = started();
    produce(&mut machine, &batch(topic, 0, 0..3, From::default())).unwrap();
    subscribe(&mut machine, 50, 1, 7, 100);
    let told_out = told(&mut machine);
    assert!(matches!(told_out[0].1, Response::Refused(Refusal::OffsetOutOfRange { offset: 7, .. })));
    subscribe(&mut machine, 51, 1, 3, 100);
    told(&mut machine);
    machine.drained(LogId(0), READER);
    let deleted = machine.ask_as(LogId(0), CONN, &Request::DeleteTopic { name: "orders" }).0;
    assert_eq!(deleted, Response::TopicDeleted);
    assert_eq!(machine.shard().unwrap().status().subscriptions, 0, "it was told so, in a turn before");

    let other = create(&mut machine, "others", 1, Durability::Durable);
    read_with(&mut machine, other, 3);
    for handle in 1..=3 {
        subscribe(&mut machine, 60 + u64::from(handle), handle, 0, if handle == 2 { 0 } else { 100 });
    }
    assert_eq!(told(&mut machine).len(), 3);
    assert_eq!(machine.shard().unwrap().status().subscriptions, 3);
    machine.event(LogId(0), Event::Disconnected { conn: READER });
    machine.shard().unwrap().check();
    assert_eq!(machine.shard().unwrap().status().subscriptions, 0);
    // A slot that is taken again without a word that it was left.
    machine.connect(LogId(0), READER);
    machine.ask_as(LogId(0), READER, &Request::Open { handle: 1, topic: other, partition: 0 });
    subscribe(&mut machine, 70, 1, 0, 100);
    let next = ConnId { generation: 2, ..READER };
    machine.event(LogId(0), Event::Connected { conn: next, principal: Principal::Local });
    machine.shard().unwrap().check();
    assert_eq!(machine.shard().unwrap().status().subscriptions, 0);
}

/// A consumer that was slow has used up its credit when its topic goes: the credit that it gives later names a handle of
/// nothing, and nothing else would tell it that there is no more to come.
#[test]
fn a_subscription_without_credit_ends_with_its_topic() {
    for ends in [None, Some(false), Some(true)] {
        let (mut machine, topic) = started();
        produce(&mut machine, &batch(topic, 0, 0..3, From::default())).unwrap();
        subscribe(&mut machine, 50, 1, 0, 1);
        assert_eq!(offsets(&told(&mut machine)[0], topic), Some((0, 2)));
        machine.drained(LogId(0), READER);
        told_nothing(&mut machine);
        _ = machine.request(LogId(0), CONN, 91, &Request::DeleteTopic { name: "orders" });
        let mut ended = told_soon(&mut machine);
        if let Some(ends) = ends {
            credit(&mut machine, 1 << 20, ends);
            ended.extend(told(&mut machine).into_iter().filter(|told| told.0 == 50));
        }
        assert!(
            matches!(ended[..], [(50, Response::Refused(Refusal::UnknownTopicId), _)]),
            "once, and why: {ended:?}"
        );
        assert_eq!(machine.shard().unwrap().status().subscriptions, 0);
        machine.shard().unwrap().check();
    }
}

/// A consumer of more partitions than there are places hears so, fetches meanwhile, and has the first place that is free.
#[test]
fn a_subscription_beyond_the_bound_is_refused_and_leaves_fetches_their_places() {
    const PLACES: u32 = 5;
    let mut machine = machine(small_log(), 1);
    machine.logs[0].config.limits.subscriptions = PLACES;
    restart(&mut machine);
    let topic = create(&mut machine, "orders", 2, Durability::Durable);
    open(&mut machine, topic, 0).unwrap();
    read_with(&mut machine, topic, PLACES + 1);
    (1..=PLACES).for_each(|handle| subscribe(&mut machine, handle.into(), handle, 0, 100));
    assert_eq!(told(&mut machine).len(), PLACES as usize, "each has begun");
    subscribe(&mut machine, 50, PLACES + 1, 0, 100);
    let full = Refusal::TooMany { what: Bounded::Subscriptions, max: PLACES };
    assert!(matches!(&told(&mut machine)[..], [(50, Response::Refused(refusal), _)] if *refusal == full));
    let (offset, handle, max_wait_us) = (0, PLACES + 1, 60_000_000);
    let fetch = Request::Fetch {
        handle,
        offset,
        leader_epoch: None,
        max_bytes: MAX_BYTES,
        min_bytes: 1,
        max_wait_us,
    };
    _ = machine.request(LogId(0), READER, 51, &fetch);
    told_nothing(&mut machine);
    assert_eq!(produce_blindly(&mut machine, 1, &batch(topic, 0, 0..3, From::default())), Taken::Done);
    assert!(told_soon(&mut machine).iter().any(|told| told.0 == 51), "it waited for its records");
    subscribe(&mut machine, 52, PLACES + 1, 3, 100);
    assert!(told(&mut machine).iter().any(|told| told.0 == 52 && matches!(told.1, Response::Refused(_))));
    credit(&mut machine, 0, true);
    machine.drained(LogId(0), READER);
    let is_last = |told: &Told| matches!(told, (1, Response::Pushed { is_last: true, .. }, _));
    assert!(told_soon(&mut machine).iter().any(is_last));
    subscribe(&mut machine, 53, PLACES + 1, 3, 100);
    assert!(told(&mut machine).iter().any(|told| told.0 == 53 && !matches!(told.1, Response::Refused(_))));
    machine.shard().unwrap().check();
}

/// One thousand subscriptions on one partition cost one read of the disk and one copy of the batches.
#[test]
fn subscriptions_on_one_partition_share_the_reads() {
    const BATCHES: u64 = 40;
    let cost = |subscriptions: u32| {
        let mut machine = machine(small_log(), 1);
        machine.logs[0].config.limits.subscriptions = 2_000;
        restart(&mut machine);
        let topic = create(&mut machine, "orders", 1, Durability::Durable);
        open(&mut machine, topic, 0).unwrap();
        for number in 0..BATCHES {
            produce(&mut machine, &batch(topic, 0, number * 8..number * 8 + 8, From::default())).unwrap();
        }
        // Nothing of it is in memory after this.
        restart(&mut machine);
        read_with(&mut machine, topic, subscriptions);
        (1..=subscriptions).for_each(|handle| subscribe(&mut machine, handle.into(), handle, 0, 1 << 30));
        let mut next = vec![0; subscriptions as usize];
        for _ in 0..10_000 {
            for told in told(&mut machine) {
                if let Some((first, last)) = offsets(&told, topic) {
                    let next = &mut next[told.0 as usize - 1];
                    assert_eq!(first, *next, "no gap and nothing twice");
                    *next = last + 1;
                }
            }
            if next.iter().all(|next| *next == BATCHES * 8) {
                let storage = machine.shard().unwrap().status().storage;
                return (storage.cold_reads, storage.cold_bytes);
            }
            machine.drained(LogId(0), READER);
            machine.turn().unwrap();
        }
        panic!("they wait for ever: {next:?}");
    };
    let one = cost(1);
    assert!(one.0 > 1, "it comes from the disk: {one:?}");
    assert_eq!(cost(1_000), one);
}

/// Of three attempts, so that what else the machine does counts little.
fn least(cost: impl Fn() -> Duration) -> Duration {
    (0..3).map(|_| cost()).min().expect("three")
}

/// A producer that repeats itself shows nothing new: that costs nothing for each of those who wait.
#[test]
fn what_a_producer_repeats_does_not_cost_all_who_wait_each_time() {
    const REPEATED: u64 = 4_000;
    let cost = |subscriptions: u32| {
        let mut machine = machine(small_log(), 1);
        machine.logs[0].config.limits.subscriptions = 20_000;
        restart(&mut machine);
        let topic = create(&mut machine, "orders", 1, Durability::Durable);
        open(&mut machine, topic, 0).unwrap();
        let Response::ProducerId { id, epoch } = machine.ask_as(LogId(0), CONN, &Request::ProducerId).0
        else {
            panic!("a name");
        };
        let once = batch(topic, 0, 0..1, From { producer: id, epoch, sequence: 0 });
        produce(&mut machine, &once).unwrap();
        read_with(&mut machine, topic, subscriptions);
        (1..=subscriptions).for_each(|handle| subscribe(&mut machine, handle.into(), handle, 1, 1 << 30));
        assert_eq!(told(&mut machine).len(), subscriptions as usize, "each has begun");
        machine.drained(LogId(0), READER);
        machine.turn().unwrap();
        assert_eq!(machine.shard().unwrap().status().waits, subscriptions);
        let begun = Instant::now();
        for correlation in 0..REPEATED {
            assert_eq!(produce_blindly(&mut machine, correlation, &once), Taken::Done);
        }
        machine.turn().unwrap();
        let took = begun.elapsed();
        told_nothing(&mut machine);
        took
    };
    let (few, many) = (least(|| cost(1)), least(|| cost(16_000)));
    assert!(many < few * 20, "{few:?} with one who waits, {many:?} with 16,000");
}

/// Many requests that come together wake those who wait once, not once each: the invariants say that a partition is listed
/// once.
#[test]
fn what_comes_together_wakes_those_who_wait_for_more_once() {
    let mut machine = machine(small_log(), 1);
    let topic = create(&mut machine, "orders", 1, Durability::Memory);
    open(&mut machine, topic, 0).unwrap();
    read_with(&mut machine, topic, 1);
    subscribe(&mut machine, 50, 1, 0, 1 << 20);
    assert_eq!(told(&mut machine).len(), 1, "it has begun");
    machine.drained(LogId(0), READER);
    told_nothing(&mut machine);
    for number in 0..5 {
        let one = batch(topic, 0, number..number + 1, From::default());
        assert_eq!(produce_blindly(&mut machine, number, &one), Taken::Done);
        machine.shard().unwrap().check();
    }
    assert_eq!(offsets(&told_soon(&mut machine)[0], topic), Some((0, 4)), "all of it at once");
}
