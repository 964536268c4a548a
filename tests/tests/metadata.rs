//! Topics through crashes: at every step of their creation and deletion, and after their entries were recycled.

use corelog_model::{Durability, LogId, ProducerId, RetentionChange};
use corelog_shard::{Refusal, Request, Response};
use corelog_storage::LogConfig;
use corelog_tests::machine::Machine;
use corelog_tests::oracle::{Place, read_batch};
use corelog_tests::script::{
    EXTENT_BYTES, From, batch, crash_after, create, fetch, find, machine, open, produce, produce_blindly,
    restart, small_log,
};

fn write_and_read(machine: &mut Machine, name: &str) {
    let topic = find(machine, name).expect("the topic is there");
    let end = open(machine, topic, 1).expect("its partitions are open").high_watermark;
    let sealed = batch(topic, 1, 0..3, From::default());
    assert_eq!(produce(machine, &sealed), Ok(end));
    let mut places = Vec::new();
    read_batch(&fetch(machine, end, None).unwrap()[0], topic, 1, &mut places);
    assert_eq!(places[0], Place { offset: end, number: 0 });
}

const ORDERS: Request<'_> = Request::CreateTopic {
    name: "orders",
    partitions: 2,
    durability: Durability::Durable,
    retention: RetentionChange::NONE,
};

/// The power fails after every number of turns a creation can take: what was answered is there, what was begun is
/// finished or undone, and the topic works either way.
#[test]
fn a_creation_is_finished_or_undone_wherever_it_is_cut() {
    let (mut answered, mut finished, mut undone) = (0, 0, 0);
    for turns in 0..60 {
        for seed in 0..3 {
            let mut machine = machine(small_log(), seed);
            let answer = crash_after(&mut machine, &ORDERS, turns);
            let again = machine.ask(&ORDERS).0;
            match (answer, again) {
                (Some(Response::TopicCreated { topic }), Response::Refused(Refusal::TopicExists)) => {
                    assert_eq!(
                        find(&mut machine, "orders"),
                        Some(topic),
                        "an answered creation is there at once"
                    );
                    answered += 1;
                }
                (None, Response::Refused(Refusal::TopicExists)) => finished += 1,
                (None, Response::TopicCreated { .. }) => undone += 1,
                other => panic!("after {turns} turns: {other:?}"),
            }
            while find(&mut machine, "orders").is_none() {
                machine.turn().unwrap();
            }
            write_and_read(&mut machine, "orders");
        }
    }
    assert!(answered > 0 && finished > 0 && undone > 0, "{answered} {finished} {undone}");
}

/// The same for a deletion; and a topic that is created again is another one.
#[test]
fn a_deletion_is_finished_or_undone_wherever_it_is_cut() {
    let (mut answered, mut finished, mut undone) = (0, 0, 0);
    for turns in 0..60 {
        for seed in 0..3 {
            let mut machine = machine(small_log(), seed);
            let topic = create(&mut machine, "orders", 2, Durability::Durable);
            write_and_read(&mut machine, "orders");
            let answer = crash_after(&mut machine, &Request::DeleteTopic { name: "orders" }, turns);
            match machine.ask(&Request::DeleteTopic { name: "orders" }).0 {
                Response::TopicDeleted => undone += 1,
                Response::Refused(Refusal::NotReady) => finished += 1,
                Response::Refused(Refusal::UnknownTopic) if answer == Some(Response::TopicDeleted) => {
                    answered += 1
                }
                Response::Refused(Refusal::UnknownTopic) => finished += 1,
                other => panic!("after {turns} turns: {other:?}"),
            }
            assert!(
                answer.is_none() || find(&mut machine, "orders").is_none(),
                "an answered deletion is undone"
            );
            let again = loop {
                match machine.ask(&ORDERS).0 {
                    Response::TopicCreated { topic } => break topic,
                    Response::Refused(Refusal::TopicExists) => machine.turn().unwrap(),
                    other => panic!("{other:?}"),
                }
            };
            assert_ne!(again, topic, "ids are never used twice");
            assert_eq!(open(&mut machine, topic, 0), Err(Refusal::UnknownTopicId));
            assert_eq!(open(&mut machine, again, 0).unwrap().high_watermark, 0);
            write_and_read(&mut machine, "orders");
        }
    }
    assert!(answered > 0 && finished > 0 && undone > 0, "{answered} {finished} {undone}");
}

/// A handle from before the deletion does not reach the topic that has the name now.
#[test]
fn a_stale_handle_is_told_that_its_topic_is_gone() {
    let mut machine = machine(small_log(), 1);
    let topic = create(&mut machine, "orders", 1, Durability::Durable);
    open(&mut machine, topic, 0).unwrap();
    let sealed = batch(topic, 0, 0..1, From::default());
    let other = corelog_shard::ConnId { slot: 1, generation: 1 };
    machine.connect(LogId(0), other);
    assert_eq!(
        machine.ask_as(LogId(0), other, &Request::DeleteTopic { name: "orders" }).0,
        Response::TopicDeleted
    );
    let renewed = Request::CreateTopic {
        name: "orders",
        partitions: 1,
        durability: Durability::Durable,
        retention: RetentionChange::NONE,
    };
    assert!(matches!(machine.ask_as(LogId(0), other, &renewed).0, Response::TopicCreated { .. }));
    assert_eq!(produce(&mut machine, &sealed), Err(Refusal::UnknownTopicId));
}

/// Writes `extents` times the size of an extent into a topic.
fn fill(machine: &mut Machine, name: &str, extents: u64) {
    let topic = find(machine, name).expect("the topic is there");
    open(machine, topic, 0).unwrap();
    let sealed = batch(topic, 0, 0..20, From::default());
    for _ in 0..extents * EXTENT_BYTES / sealed.len() as u64 {
        produce(machine, &sealed).expect("a log under retention takes more");
    }
}

/// Four extents are kept, forty are written: everything a client was ever told must outlive the extents it was in.
#[test]
fn what_recycling_takes_is_carried_forward() {
    let log =
        LogConfig { retention_bytes: Some(4 * EXTENT_BYTES), checkpoint_bytes: 32 << 10, ..small_log() };
    let mut machine = machine(log, 5);
    for (name, durability) in
        [("quiet", Durability::Durable), ("busy", Durability::Durable), ("passing", Durability::Memory)]
    {
        create(&mut machine, name, 1, durability);
    }
    let Response::ProducerId { id, .. } = machine.ask(&Request::ProducerId).0 else {
        panic!("no producer id")
    };
    let quiet = find(&mut machine, "quiet").unwrap();
    let retried = batch(quiet, 0, 0..5, From { producer: id, epoch: 0, sequence: 0 });
    open(&mut machine, quiet, 0).unwrap();
    assert_eq!(produce(&mut machine, &retried), Ok(0));
    fill(&mut machine, "busy", 38);

    // A memory topic falls back near the end, and a reader stands beyond that place.
    let passing = find(&mut machine, "passing").unwrap();
    let before = open(&mut machine, passing, 0).unwrap();
    let doomed = batch(passing, 0, 100..110, From::default());
    let _ = produce_blindly(&mut machine, 1, &doomed);
    restart(&mut machine);
    assert_eq!(open(&mut machine, passing, 0).unwrap().high_watermark, before.high_watermark);
    produce(&mut machine, &batch(passing, 0, 200..220, From::default())).unwrap();
    fill(&mut machine, "busy", 1);
    restart(&mut machine);

    let kept = machine.logs[0].disk.extents() as u64;
    // The cap, the pool, and one on its way from one to the other.
    assert!(kept <= 4 + 5, "{kept} extents for a cap of 4");
    for name in ["quiet", "busy", "passing"] {
        assert!(find(&mut machine, name).is_some(), "{name}");
    }
    let opened = open(&mut machine, quiet, 0).unwrap();
    assert_eq!(
        (opened.log_start, opened.high_watermark),
        (5, 5),
        "its records were recycled, its end was not"
    );
    assert_eq!(produce(&mut machine, &retried), Ok(0), "the retry is recognised");
    let next = batch(quiet, 0, 5..6, From { producer: id, epoch: 0, sequence: 5 });
    assert_eq!(produce(&mut machine, &next), Ok(5));
    open(&mut machine, passing, 0).unwrap();
    let truncated = Refusal::LogTruncated { offset: before.high_watermark };
    assert_eq!(fetch(&mut machine, before.high_watermark + 10, Some(before.epoch)), Err(truncated));
    let Response::ProducerId { id: later, .. } = machine.ask(&Request::ProducerId).0 else {
        panic!("no producer id")
    };
    assert!(later > id && id > ProducerId::NONE, "producer ids are never given twice");
}

#[test]
fn a_hundred_empty_restarts_leave_the_store_as_it_was() {
    let mut machine = machine(small_log(), 9);
    create(&mut machine, "orders", 2, Durability::Durable);
    write_and_read(&mut machine, "orders");
    restart(&mut machine);
    let before = machine.logs[0].disk.extents();
    for _ in 0..100 {
        restart(&mut machine);
    }
    let after = machine.logs[0].disk.extents();
    assert!(after <= before + 2, "{before} extents became {after}");
    write_and_read(&mut machine, "orders");
    let topic = find(&mut machine, "orders").unwrap();
    let term = open(&mut machine, topic, 0).unwrap().epoch;
    assert_eq!(term.0, 102, "every start has a term of its own");
}
