//! Topics that change: partitions added and levels altered, through crashes at every step, on one log and on several.

use corelog_model::{Durability, LogId, RetentionChange, TopicId};
use corelog_shard::{ConnId, Refusal, Request, Response, Taken};
use corelog_storage::{LogConfig, feature};
use corelog_tests::machine::Machine;
use corelog_tests::script::{
    CONN, From, alter, batch, crash_after, create, describe, fill, find, known_everywhere, machine,
    machine_of, open, open_at, produce, produce_at, produce_blindly, restart, small_log, wait,
    write_and_read,
};

const LOGS: u16 = 3;
const GROW: Request<'_> = Request::AlterTopic {
    name: "orders",
    partitions: Some(6),
    durability: Some(Durability::Written),
    retention: RetentionChange::NONE,
};

/// The connection that topics are altered on while others are busy, and what an alteration is called on it.
const ADMIN: ConnId = ConnId { slot: 5, generation: 1 };
const ALTERED: u64 = 1_000_000;

fn homes(machine: &mut Machine, name: &str) -> Vec<u16> {
    let view = describe(machine, LogId(0), name).expect("the topic is there");
    view.partitions.iter().map(|partition| partition.log.0).collect()
}

fn open_partitions(machine: &Machine) -> Vec<u32> {
    machine.logs.iter().map(|node| node.shard().expect("it runs").status().partitions).collect()
}

#[test]
fn partitions_are_added_behind_the_others_and_known_everywhere() {
    let mut machine = machine_of(LOGS, &small_log(), 1);
    create(&mut machine, "orders", 2, Durability::Durable);
    create(&mut machine, "payments", 3, Durability::Durable);
    write_and_read(&mut machine, "orders");
    let topic = find(&mut machine, "orders").expect("created");
    assert_eq!(open_at(&mut machine, LogId(2), topic, 2), Err(Refusal::UnknownPartition));
    assert_eq!(alter(&mut machine, "orders", Some(7), None), Ok((7, Durability::Durable)));
    assert_eq!(known_everywhere(&mut machine, "orders"), Some(topic), "it is the same topic");
    assert_eq!(homes(&mut machine, "orders"), [0, 1, 2, 0, 1, 2, 0], "they are spread as all are");
    for _ in 0..3 {
        write_and_read(&mut machine, "orders");
        write_and_read(&mut machine, "payments");
        restart(&mut machine);
    }
    // Another span, and one that goes on where the last one ended.
    for partitions in [8, 9] {
        assert_eq!(alter(&mut machine, "orders", Some(partitions), None).map(|now| now.0), Ok(partitions));
    }
    restart(&mut machine);
    write_and_read(&mut machine, "orders");
    assert_eq!(open_partitions(&machine), [4, 4, 4]);
}

#[test]
fn what_cannot_be_is_refused_and_what_is_so_already_is_answered() {
    let mut machine = machine_of(2, &small_log(), 2);
    create(&mut machine, "orders", 3, Durability::Durable);
    let none = |partitions| Refusal::InvalidPartitions { partitions, max: 100_000 };
    let fewer = Refusal::FewerPartitions { partitions: 2, now: 3 };
    assert_eq!(alter(&mut machine, "orders", Some(2), None), Err(fewer));
    assert_eq!(alter(&mut machine, "orders", Some(0), None), Err(none(0)));
    assert_eq!(alter(&mut machine, "orders", Some(100_001), None), Err(none(100_001)));
    assert_eq!(alter(&mut machine, "nobody", Some(4), None), Err(Refusal::UnknownTopic));
    let frames = machine.shard().expect("it runs").status().storage.frames;
    let now = Ok((3, Durability::Durable));
    assert_eq!(alter(&mut machine, "orders", Some(3), Some(Durability::Durable)), now);
    assert_eq!(alter(&mut machine, "orders", None, None), now);
    assert_eq!(machine.shard().expect("it runs").status().storage.frames, frames, "nothing was written");
    let elsewhere = machine.ask_at(LogId(1), &GROW).0;
    assert_eq!(elsewhere, Response::Refused(Refusal::NotHere), "log 0 decides");
}

/// A store that an older version can still serve is not written to as that one could not read, until that is wanted.
#[test]
fn a_store_of_an_older_version_has_its_topics_altered_once_it_is_final() {
    for logs in [1, LOGS] {
        let mut machine = machine_of(logs, &LogConfig { features: 0, ..small_log() }, 4);
        create(&mut machine, "orders", 1, Durability::Durable);
        assert_eq!(alter(&mut machine, "orders", Some(6), None), Err(Refusal::NotFinal));
        let level = Some(Durability::Memory);
        assert_eq!(alter(&mut machine, "orders", None, level), Err(Refusal::NotFinal));
        assert_eq!(alter(&mut machine, "orders", Some(1), None), Ok((1, Durability::Durable)), "it is so");
        machine.crash();
        machine.logs.iter_mut().for_each(|node| node.config.log.features = feature::ALL);
        machine.start_fully().expect("it starts");
        wait(&mut machine, |machine| match alter(machine, "orders", Some(6), None) {
            Ok(now) => now.0 == 6,
            Err(Refusal::NotReady) => false,
            Err(other) => panic!("{other:?}"),
        });
        restart(&mut machine);
        write_and_read(&mut machine, "orders");
    }
}

/// Partitions of all topics are bounded, and what an alteration is about to add counts.
#[test]
fn partitions_that_are_added_count_against_the_bound() {
    let mut machine = machine(small_log(), 3);
    machine.crash();
    machine.logs[0].config.limits.partitions = 6;
    machine.start_fully().expect("it starts");
    create(&mut machine, "orders", 2, Durability::Durable);
    create(&mut machine, "payments", 1, Durability::Durable);
    let full = |refusal| matches!(refusal, Err(Refusal::TooMany { max: 6, .. }));
    assert!(full(alter(&mut machine, "orders", Some(6), None)));
    assert_eq!(alter(&mut machine, "orders", Some(5), None).map(|now| now.0), Ok(5));
    assert!(full(alter(&mut machine, "payments", Some(2), None)));
    assert_eq!(machine.ask(&Request::DeleteTopic { name: "orders" }).0, Response::TopicDeleted);
    assert_eq!(alter(&mut machine, "payments", Some(6), None).map(|now| now.0), Ok(6));
}

/// Two changes of one topic at a time: the second is told to come again, whatever it is; another topic's is not.
#[test]
fn a_topic_that_is_being_altered_is_not_ready_for_another_change() {
    let mut machine = machine_of(LOGS, &small_log(), 4);
    create(&mut machine, "orders", 2, Durability::Durable);
    create(&mut machine, "payments", 2, Durability::Durable);
    machine.connect(LogId(0), ADMIN);
    for second in [GROW, Request::DeleteTopic { name: "orders" }] {
        let count = 1 + homes(&mut machine, "orders").len() as u32;
        let first = Request::AlterTopic {
            name: "orders",
            partitions: Some(count),
            durability: None,
            retention: RetentionChange::NONE,
        };
        let _ = machine.request(LogId(0), ADMIN, 7, &first).expect("it runs");
        assert_eq!(machine.ask(&second).0, Response::Refused(Refusal::NotReady));
        wait(&mut machine, |machine| alter(machine, "orders", None, None).is_ok());
        assert_eq!(homes(&mut machine, "orders").len() as u32, count);
    }
    wait(&mut machine, |machine| alter(machine, "payments", Some(3), None).is_ok());
    let deletion = Request::DeleteTopic { name: "orders" };
    wait(&mut machine, |machine| machine.ask(&deletion).0 == Response::TopicDeleted);
    assert_eq!(alter(&mut machine, "orders", Some(9), None), Err(Refusal::UnknownTopic));
}

/// The power fails after every number of turns an alteration can take: afterwards it is done or it is not, on all logs
/// alike; what was written before is there, and all partitions work.
#[test]
fn an_alteration_is_finished_or_undone_wherever_it_is_cut() {
    for logs in [1, LOGS] {
        let (mut answered, mut finished, mut undone) = (0, 0, 0);
        for turns in 0..90 {
            for seed in 0..2 {
                let mut machine = machine_of(logs, &small_log(), seed);
                let topic = create(&mut machine, "orders", 2, Durability::Durable);
                create(&mut machine, "between", 1, Durability::Durable);
                write_and_read(&mut machine, "orders");
                let answer = crash_after(&mut machine, &GROW, turns);
                let mut now = 0;
                // It may still be about to be finished.
                wait(&mut machine, |machine| {
                    let view = describe(machine, LogId(0), "orders").expect("it was there all the time");
                    now = view.partitions.len();
                    let level = if now == 6 { Durability::Written } else { Durability::Durable };
                    assert_eq!(view.durability, level, "never half: {now} partitions");
                    alter(machine, "between", Some(2), None).is_ok()
                        && alter(machine, "orders", None, None).is_ok()
                });
                now = homes(&mut machine, "orders").len();
                match (answer, now) {
                    (Some(Response::TopicAltered { partitions: 6, .. }), 6) => answered += 1,
                    (None, 6) => finished += 1,
                    (None, 2) => undone += 1,
                    other => panic!("after {turns} turns: {other:?}"),
                }
                assert_eq!(known_everywhere(&mut machine, "orders"), Some(topic));
                assert_eq!(open_at(&mut machine, LogId(0), topic, 0).expect("open").high_watermark, 3);
                write_and_read(&mut machine, "orders");
                assert_eq!(alter(&mut machine, "orders", Some(6), None).map(|now| now.0), Ok(6));
                write_and_read(&mut machine, "orders");
                let open: u32 = open_partitions(&machine).iter().sum();
                assert_eq!(open, 6 + 2, "nothing is left of what was undone");
            }
        }
        assert!(answered > 0 && finished > 0 && undone > 0, "{logs}: {answered} {finished} {undone}");
    }
}

/// A log whose disk is full does not open its part: the alteration is refused, and the topic is what it was, also where
/// the parts were opened.
#[test]
fn an_alteration_that_one_log_has_no_room_for_is_undone_everywhere() {
    for turns in [None, Some(5), Some(40)] {
        let mut machine = machine_of(LOGS, &small_log(), 7);
        create(&mut machine, "filler", LOGS.into(), Durability::Durable);
        let topic = create(&mut machine, "orders", 1, Durability::Durable);
        create(&mut machine, "between", 1, Durability::Durable);
        fill(&mut machine, "filler", LogId(2));
        match turns {
            None => assert_eq!(machine.ask(&GROW).0, Response::Refused(Refusal::StorageFull)),
            // Or the power fails while it is undone.
            Some(turns) => drop(crash_after(&mut machine, &GROW, 1_000 + turns)),
        }
        wait(&mut machine, |machine| alter(machine, "orders", None, None) == Ok((1, Durability::Durable)));
        assert_eq!(known_everywhere(&mut machine, "orders"), Some(topic));
        assert_eq!(open_partitions(&machine).iter().sum::<u32>(), u32::from(LOGS) + 2);
        restart(&mut machine);
        assert_eq!(open_partitions(&machine).iter().sum::<u32>(), u32::from(LOGS) + 2);
        machine.logs[2].disk.faults.capacity = u64::MAX;
        wait(&mut machine, |machine| alter(machine, "orders", Some(6), None).is_ok());
        write_and_read(&mut machine, "orders");
    }
}

/// A log turns read-only with its entry appended and not durable: the alteration is refused, and the next start finishes
/// it or has it undone.
#[test]
fn an_alteration_that_one_log_cannot_make_durable_is_answered() {
    let mut outcomes = Vec::new();
    for seed in 0..20 {
        let mut machine = machine_of(LOGS, &small_log(), seed);
        create(&mut machine, "orders", 1, Durability::Durable);
        machine.logs[2].disk.faults.write_errors = 1_000_000;
        assert_eq!(machine.ask(&GROW).0, Response::Refused(Refusal::ReadOnly), "seed {seed}");
        machine.logs[2].disk.faults.stop();
        restart(&mut machine);
        wait(&mut machine, |machine| alter(machine, "orders", None, None).is_ok());
        let (now, level) = alter(&mut machine, "orders", None, None).expect("it is settled");
        assert_eq!(level, if now == 6 { Durability::Written } else { Durability::Durable });
        assert_eq!(open_partitions(&machine).iter().sum::<u32>(), now, "seed {seed}");
        outcomes.push(now);
        assert_eq!(alter(&mut machine, "orders", Some(6), None).map(|now| now.0), Ok(6));
        write_and_read(&mut machine, "orders");
    }
    assert!(outcomes.iter().all(|now| [1, 6].contains(now)), "never half: {outcomes:?}");
}

/// A topic of one log spreads over those that were added since.
#[test]
fn a_topic_grows_onto_logs_that_came_later() {
    let mut machine = machine_of(1, &small_log(), 3);
    create(&mut machine, "old", 2, Durability::Durable);
    write_and_read(&mut machine, "old");
    machine.crash();
    let mut random = corelog_tests::random::Random::new(5);
    let faults = corelog_tests::disk::Faults::default();
    machine.add_logs((1..LOGS).map(|_| corelog_tests::disk::SimDisk::new(random.fork(), faults)).collect());
    machine.start_fully().expect("a store with two new logs starts");
    assert_eq!(alter(&mut machine, "old", Some(6), None).map(|now| now.0), Ok(6));
    assert_eq!(homes(&mut machine, "old"), [0, 0, 2, 0, 1, 2]);
    restart(&mut machine);
    write_and_read(&mut machine, "old");
}

/// What was visible under a weaker level is durable when the client is told that the topic is.
#[test]
fn a_topic_that_has_become_durable_keeps_all_that_could_be_read() {
    for logs in [1, LOGS] {
        for level in [Durability::Memory, Durability::Written] {
            for seed in 0..10 {
                let mut machine = machine_of(logs, &small_log(), seed);
                let topic = create(&mut machine, "passing", logs.into(), level);
                for partition in 0..u32::from(logs) {
                    let log = LogId(partition as u16);
                    open_at(&mut machine, log, topic, partition).expect("it is open");
                    let sealed = batch(topic, partition, 0..5, From::default());
                    assert_eq!(produce_at(&mut machine, log, &sealed), Ok(0));
                }
                let durable = Some(Durability::Durable);
                assert_eq!(
                    alter(&mut machine, "passing", None, durable).map(|now| now.1),
                    Ok(Durability::Durable)
                );
                restart(&mut machine);
                for partition in 0..u32::from(logs) {
                    let opened = open_at(&mut machine, LogId(partition as u16), topic, partition);
                    assert_eq!(
                        opened.expect("it is open").high_watermark,
                        5,
                        "{level:?} of {logs}, seed {seed}"
                    );
                }
            }
        }
    }
}

/// Appends from then on have the new level; handles that were opened before go on.
#[test]
fn a_level_is_taken_over_without_a_restart() {
    let mut machine = machine(small_log(), 5);
    let topic = create(&mut machine, "orders", 1, Durability::Memory);
    open(&mut machine, topic, 0).expect("created");
    let frames = |machine: &Machine| machine.shard().expect("it runs").status().storage.frames;
    for (level, waits) in
        [(Durability::Durable, true), (Durability::Memory, false), (Durability::Written, true)]
    {
        machine.connect(LogId(0), ADMIN);
        let alteration = Request::AlterTopic {
            name: "orders",
            partitions: None,
            durability: Some(level),
            retention: RetentionChange::NONE,
        };
        let answer = machine.ask_as(LogId(0), ADMIN, &alteration).0;
        assert_eq!(answer, Response::TopicAltered { topic, partitions: 1, durability: level });
        let before = frames(&machine);
        let sealed = batch(topic, 0, 0..1, From::default());
        produce(&mut machine, &sealed).expect("it takes records");
        assert_eq!(frames(&machine) > before, waits, "{level:?}");
    }
}

/// The level is the altered one after a start too, on every log, whatever a checkpoint said before.
#[test]
fn a_level_that_was_altered_stays_so_through_restarts() {
    let mut machine = machine_of(LOGS, &small_log(), 6);
    let topic = create(&mut machine, "orders", LOGS.into(), Durability::Durable);
    for level in [Durability::Memory, Durability::Durable, Durability::Written] {
        // The start before it has written a checkpoint.
        restart(&mut machine);
        alter(&mut machine, "orders", None, Some(level)).expect("altered");
        for turn in 0..2 {
            for log in (0..LOGS).map(LogId) {
                let request = Request::Open { handle: 1, topic, partition: log.0.into() };
                match machine.ask_at(log, &request).0 {
                    Response::Opened { durability, .. } => assert_eq!(durability, level, "{log:?}, {turn}"),
                    other => panic!("{other:?}"),
                }
            }
            restart(&mut machine);
        }
    }
}

/// A machine with a durable topic of one partition, open as handle 1, and a connection to alter it on.
fn administered(seed: u64) -> (Machine, TopicId) {
    let mut machine = machine(small_log(), seed);
    let topic = create(&mut machine, "orders", 1, Durability::Durable);
    open(&mut machine, topic, 0).expect("created");
    machine.connect(LogId(0), ADMIN);
    (machine, topic)
}

/// Asks for another level without waiting for the answer.
fn alter_blindly(machine: &mut Machine, level: Durability) {
    let durability = Some(level);
    let alteration = Request::AlterTopic {
        name: "orders",
        partitions: None,
        durability,
        retention: RetentionChange::NONE,
    };
    let _ = machine.request(LogId(0), ADMIN, ALTERED, &alteration);
}

/// A level that falls while requests wait: what came after them is answered after them, at whatever level.
#[test]
fn answers_keep_their_order_when_levels_change() {
    for seed in 0..40 {
        let (mut machine, topic) = administered(seed);
        let levels = [Durability::Memory, Durability::Durable, Durability::Written];
        let mut answers = Vec::new();
        let (mut sent, mut altered) = (0, 0);
        while altered < 12 {
            let level = levels[altered % levels.len()];
            alter_blindly(&mut machine, level);
            let mut told = false;
            while !told {
                sent += 1;
                let sealed = batch(topic, 0, sent..sent + 1, From::default());
                assert_eq!(produce_blindly(&mut machine, sent, &sealed), Taken::Done);
                machine.turn().expect("a running shard does not start");
                for reply in std::mem::take(&mut machine.logs[0].actions.replies) {
                    match reply.response {
                        Response::TopicAltered { durability, .. } => told = durability == level,
                        Response::Produced { base_offset, .. } => {
                            assert_eq!(base_offset + 1, reply.correlation);
                            answers.push(reply.correlation);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            altered += 1;
        }
        wait(&mut machine, |machine| {
            let replies = std::mem::take(&mut machine.logs[0].actions.replies);
            answers.extend(replies.iter().map(|reply| reply.correlation));
            answers.len() as u64 == sent
        });
        assert!(answers.is_sorted(), "seed {seed}: answers overtake each other: {answers:?}");
    }
}

/// The disk of one log is slow: its topic falls and rises again while a request waits for the first of its frames. What was
/// taken between waits behind that request, then for its own frame, and is answered before what was taken after it.
#[test]
fn answers_keep_their_order_when_a_level_falls_and_rises_over_a_slow_disk() {
    const HOME: LogId = LogId(1);
    for weaker in [Durability::Memory, Durability::Written] {
        let mut machine = machine_of(2, &small_log(), 7);
        let topic = create(&mut machine, "orders", 2, Durability::Durable);
        open_at(&mut machine, HOME, topic, 1).expect("created");
        machine.connect(LogId(0), ADMIN);
        machine.logs[1].disk.faults.hold_flushes = true;
        let produce = |machine: &mut Machine, number: u64| {
            let batches = &batch(topic, 1, number..number + 1, From::default())[..];
            let request = Request::Produce { handle: 1, expected_offset: None, batches };
            assert_eq!(machine.request(HOME, CONN, number, &request), Some(Taken::Done));
        };
        let turns = |machine: &mut Machine| {
            (0..200).for_each(|_| machine.turn().expect("a running shard does not start"));
        };
        produce(&mut machine, 1);
        turns(&mut machine);
        for (number, level) in [(2, weaker), (3, Durability::Durable)] {
            alter_blindly(&mut machine, level);
            turns(&mut machine);
            produce(&mut machine, number);
            turns(&mut machine);
        }
        let answers = |machine: &mut Machine| {
            let replies = std::mem::take(&mut machine.logs[1].actions.replies);
            replies.iter().map(|reply| reply.correlation).collect::<Vec<_>>()
        };
        assert!(answers(&mut machine).is_empty(), "nothing is durable");
        machine.logs[1].disk.faults.hold_flushes = false;
        turns(&mut machine);
        assert_eq!(answers(&mut machine), [1, 2, 3], "{weaker:?}");
    }
}

/// What is taken while a topic is durable is durable when it is acknowledged, although the topic is not any more by then.
#[test]
fn what_waits_when_a_level_becomes_weaker_is_acknowledged_at_the_stronger_one() {
    let mut late = 0;
    for seed in 0..200 {
        let (mut machine, topic) = administered(seed);
        alter_blindly(&mut machine, Durability::Memory);
        let (mut told, mut sent, mut answered) = (false, 0, 0);
        // As many as are taken before the level falls; the first answer after that is followed by a crash.
        while !(told && answered > 0) {
            let opened = machine.ask_as(LogId(0), ADMIN, &Request::Open { handle: 1, topic, partition: 0 }).0;
            if matches!(opened, Response::Opened { durability: Durability::Durable, .. }) {
                sent += 1;
                let sealed = batch(topic, 0, sent..sent + 1, From::default());
                assert_eq!(produce_blindly(&mut machine, sent, &sealed), Taken::Done);
            } else if sent == answered {
                break;
            }
            machine.turn().expect("a running shard does not start");
            let before = answered;
            for reply in std::mem::take(&mut machine.logs[0].actions.replies) {
                match reply.response {
                    Response::TopicAltered { .. } => told = true,
                    Response::Produced { .. } => answered = reply.correlation,
                    other => panic!("{other:?}"),
                }
            }
            late += u64::from(told && answered > before);
        }
        restart(&mut machine);
        let end = open(&mut machine, topic, 0).expect("it is there").high_watermark;
        assert!(end >= answered, "seed {seed}: {answered} were acknowledged, {end} are left");
    }
    assert!(late > 0, "some answers come after the level has fallen");
}
