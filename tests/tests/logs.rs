//! Several logs, each with its shard: topics over all of them, through crashes at every step.

use corelog_model::{Durability, LogId, RetentionChange};
use corelog_shard::{Refusal, Request, Response};
use corelog_tests::disk::{Faults, SimDisk};
use corelog_tests::machine::Machine;
use corelog_tests::random::Random;
use corelog_tests::script::{
    crash_after, create, describe, fill, find, known_everywhere, machine_of, open_at, restart, small_log,
    wait, write_and_read,
};

const LOGS: u16 = 3;
const PARTITIONS: u32 = 4;
const ORDERS: Request<'_> = Request::CreateTopic {
    name: "orders",
    partitions: PARTITIONS,
    durability: Durability::Durable,
    retention: RetentionChange::NONE,
};

fn logs() -> impl Iterator<Item = LogId> {
    (0..LOGS).map(LogId)
}

#[test]
fn partitions_are_spread_over_all_logs_and_each_log_says_where() {
    let mut machine = machine_of(LOGS, &small_log(), 1);
    for name in ["orders", "payments"] {
        create(&mut machine, name, PARTITIONS, Durability::Durable);
        // Who was answered may ask anywhere, at once.
        assert!(known_everywhere(&mut machine, name).is_some());
        write_and_read(&mut machine, name);
    }
    let homes = |machine: &mut Machine, name| {
        let view = describe(machine, LogId(2), name).expect("created");
        view.partitions.iter().map(|partition| partition.log.0).collect::<Vec<_>>()
    };
    assert_eq!(homes(&mut machine, "orders"), [0, 1, 2, 0]);
    assert_eq!(homes(&mut machine, "payments"), [1, 2, 0, 1], "the next one begins elsewhere");
    let orders = find(&mut machine, "orders").unwrap();
    assert_eq!(open_at(&mut machine, LogId(0), orders, 1), Err(Refusal::NotHere));
    for request in [ORDERS, Request::DeleteTopic { name: "orders" }, Request::ProducerId] {
        let answer = machine.ask_at(LogId(1), &request).0;
        assert_eq!(answer, Response::Refused(Refusal::NotHere), "log 0 decides: {request:?}");
    }
}

/// The power fails after every number of turns a creation can take: finished or undone, on all logs alike.
#[test]
fn a_creation_over_several_logs_is_finished_or_undone_wherever_it_is_cut() {
    let (mut answered, mut finished, mut undone) = (0, 0, 0);
    for turns in 0..90 {
        for seed in 0..2 {
            let mut machine = machine_of(LOGS, &small_log(), seed);
            let answer = crash_after(&mut machine, &ORDERS, turns);
            match (answer, machine.ask(&ORDERS).0) {
                (Some(Response::TopicCreated { topic }), Response::Refused(Refusal::TopicExists)) => {
                    assert_eq!(known_everywhere(&mut machine, "orders"), Some(topic));
                    answered += 1;
                }
                (None, Response::Refused(Refusal::TopicExists)) => finished += 1,
                (None, Response::TopicCreated { .. }) => undone += 1,
                other => panic!("after {turns} turns: {other:?}"),
            }
            wait(&mut machine, |machine| logs().all(|log| describe(machine, log, "orders").is_some()));
            write_and_read(&mut machine, "orders");
        }
    }
    assert!(answered > 0 && finished > 0 && undone > 0, "{answered} {finished} {undone}");
}

/// The same for a deletion: nowhere is anything left of it.
#[test]
fn a_deletion_over_several_logs_is_finished_or_undone_wherever_it_is_cut() {
    let (mut answered, mut cut) = (0, 0);
    for turns in 0..90 {
        for seed in 0..2 {
            let mut machine = machine_of(LOGS, &small_log(), seed);
            let topic = create(&mut machine, "orders", PARTITIONS, Durability::Durable);
            write_and_read(&mut machine, "orders");
            let answer = crash_after(&mut machine, &Request::DeleteTopic { name: "orders" }, turns);
            if answer == Some(Response::TopicDeleted) {
                assert_eq!(known_everywhere(&mut machine, "orders"), None, "an answered deletion is undone");
                answered += 1;
            } else {
                cut += 1;
                wait(&mut machine, |machine| {
                    let again = machine.ask(&Request::DeleteTopic { name: "orders" }).0;
                    matches!(again, Response::TopicDeleted | Response::Refused(Refusal::UnknownTopic))
                });
            }
            let again = create(&mut machine, "orders", PARTITIONS, Durability::Durable);
            assert_ne!(again, topic, "ids are never used twice");
            for log in logs() {
                assert_eq!(open_at(&mut machine, log, topic, 0), Err(Refusal::UnknownTopicId));
                let partitions = machine.logs[usize::from(log.0)].shard().unwrap().status().partitions;
                assert_eq!(partitions, [1, 2, 1][usize::from(log.0)], "of {log:?}: it begins at log 1");
            }
            write_and_read(&mut machine, "orders");
        }
    }
    assert!(answered > 0 && cut > 0, "{answered} {cut}");
}

/// A log whose disk is full does not open its part: the creation is refused, and nothing is left of it.
#[test]
fn a_creation_that_one_log_has_no_room_for_is_undone_everywhere() {
    let mut machine = machine_of(LOGS, &small_log(), 7);
    create(&mut machine, "filler", LOGS.into(), Durability::Durable);
    fill(&mut machine, "filler", LogId(1));
    assert_eq!(machine.ask(&ORDERS).0, Response::Refused(Refusal::StorageFull));
    wait(&mut machine, |machine| {
        machine.ask(&Request::Metadata { topic: Some("orders") }).0
            == Response::Refused(Refusal::UnknownTopic)
    });
    assert_eq!(known_everywhere(&mut machine, "orders"), None);
    restart(&mut machine);
    assert_eq!(known_everywhere(&mut machine, "orders"), None);
    for log in logs() {
        let status = machine.logs[usize::from(log.0)].shard().unwrap().status();
        assert_eq!(status.partitions, 1, "the filler's alone");
    }
    machine.logs[1].disk.faults.capacity = u64::MAX;
    wait(&mut machine, |machine| matches!(machine.ask(&ORDERS).0, Response::TopicCreated { .. }));
    write_and_read(&mut machine, "orders");
}

/// A log turns read-only with its entry appended and not durable: the change is refused, and undone by the next start.
#[test]
fn a_change_that_one_log_cannot_make_durable_is_answered() {
    for seed in 0..10 {
        let mut machine = machine_of(LOGS, &small_log(), seed);
        create(&mut machine, "before", LOGS.into(), Durability::Durable);
        machine.logs[1].disk.faults.write_errors = 1_000_000;
        assert_eq!(machine.ask(&ORDERS).0, Response::Refused(Refusal::ReadOnly), "seed {seed}");
        let deletion = machine.ask(&Request::DeleteTopic { name: "before" }).0;
        assert_eq!(deletion, Response::Refused(Refusal::ReadOnly), "seed {seed}");
        machine.logs[1].disk.faults.stop();
        restart(&mut machine);
        for name in ["orders", "before"] {
            wait(&mut machine, |machine| {
                let again = machine.ask(&Request::DeleteTopic { name }).0;
                again == Response::Refused(Refusal::UnknownTopic)
            });
        }
        assert!(matches!(machine.ask(&ORDERS).0, Response::TopicCreated { .. }));
        write_and_read(&mut machine, "orders");
    }
}

/// A topic can be deleted although the disk of a log is full: that is how it gets room again.
#[test]
fn a_deletion_needs_no_room_on_any_log() {
    let mut machine = machine_of(LOGS, &small_log(), 8);
    create(&mut machine, "orders", PARTITIONS, Durability::Durable);
    create(&mut machine, "filler", LOGS.into(), Durability::Durable);
    fill(&mut machine, "filler", LogId(1));
    assert_eq!(machine.ask(&Request::DeleteTopic { name: "orders" }).0, Response::TopicDeleted);
    assert_eq!(known_everywhere(&mut machine, "orders"), None);
}

/// A store of one log is started with three: what it had stays where it was, what is new is spread.
#[test]
fn a_store_that_gets_more_logs_keeps_what_it_had() {
    let mut machine = machine_of(1, &small_log(), 3);
    create(&mut machine, "old", PARTITIONS, Durability::Durable);
    write_and_read(&mut machine, "old");
    machine.crash();
    let mut random = Random::new(5);
    let disk = |_| SimDisk::new(random.fork(), Faults::default());
    machine.add_logs((1..LOGS).map(disk).collect());
    machine.start_fully().expect("a store with two new logs starts");
    create(&mut machine, "new", PARTITIONS, Durability::Durable);
    let homes =
        |view: corelog_shard::TopicView| view.partitions.iter().map(|at| at.log.0).collect::<Vec<_>>();
    let old = describe(&mut machine, LogId(2), "old").expect("it is there");
    assert_eq!(homes(old), [0; PARTITIONS as usize]);
    let new = describe(&mut machine, LogId(2), "new").expect("it is there");
    assert_eq!(homes(new), [1, 2, 0, 1]);
    for _ in 0..2 {
        write_and_read(&mut machine, "old");
        write_and_read(&mut machine, "new");
        restart(&mut machine);
    }
}
