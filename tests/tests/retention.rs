//! Records that are taken away on request: when that is acknowledged, who may, and what a crash leaves of it.

use std::num::NonZeroU64;

use corelog_model::{Durability, LogId, Retention, RetentionChange, TopicId};
use corelog_shard::{Access, At, ConnId, Event, Principal, Refusal, Request, Response, Taken};
use corelog_storage::{DurableMethod, LogConfig, feature};
use corelog_tests::machine::Machine;
use corelog_tests::oracle::read_batch;
use corelog_tests::regime::Regime;
use corelog_tests::script::{
    CONN, EXTENT_BYTES, From, batch, crash_after_on_handle, create, describe, fetch, machine, machine_of,
    open, open_at, produce, produce_at, produce_blindly, restart, small_log, wait,
};
use corelog_tests::world::{Plan, run};

const RECORDS: u64 = 20;

fn delete(machine: &mut Machine, before_offset: u64) -> Result<u64, Refusal> {
    match machine.ask_as(LogId(0), CONN, &Request::DeleteRecords { handle: 1, before_offset }).0 {
        Response::RecordsDeleted { log_start } => Ok(log_start),
        Response::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

/// A topic of one partition with so many batches of twenty records.
fn filled(log: LogConfig, batches: u64) -> (Machine, TopicId) {
    let mut machine = machine(log, 3);
    let topic = create(&mut machine, "orders", 2, Durability::Durable);
    open(&mut machine, topic, 0).unwrap();
    for at in 0..batches {
        let numbers = at * RECORDS..(at + 1) * RECORDS;
        assert_eq!(produce(&mut machine, &batch(topic, 0, numbers, From::default())), Ok(at * RECORDS));
    }
    (machine, topic)
}

fn answers(machine: &mut Machine) -> Vec<(u64, Response)> {
    machine.logs[0].actions.replies.drain(..).map(|reply| (reply.correlation, reply.response)).collect()
}

#[test]
fn records_are_gone_when_that_is_acknowledged_and_no_earlier() {
    for durable_method in [DurableMethod::Fdatasync, DurableMethod::Dsync] {
        let (mut machine, _) = filled(LogConfig { durable_method, ..small_log() }, 3);
        machine.logs[0].disk.faults.hold_flushes = true;
        let ask = |machine: &mut Machine, correlation, before_offset| {
            let request = Request::DeleteRecords { handle: 1, before_offset };
            assert_eq!(machine.request(LogId(0), CONN, correlation, &request), Some(Taken::Done));
        };
        ask(&mut machine, 7, 25);
        // Asked again meanwhile, for as much and for less: answered with the first.
        (0..200).for_each(|_| machine.turn().unwrap());
        ask(&mut machine, 8, 25);
        ask(&mut machine, 9, 10);
        (0..200).for_each(|_| machine.turn().unwrap());
        assert_eq!(answers(&mut machine), [], "{durable_method:?}: it could be lost yet");
        assert_eq!(fetch(&mut machine, 0, None).unwrap().len(), 1, "and until then they are there");
        machine.logs[0].disk.faults.hold_flushes = false;
        let mut found = Vec::new();
        wait(&mut machine, |machine| {
            found.extend(answers(machine));
            found.len() == 3
        });
        found.sort_by_key(|(correlation, _)| *correlation);
        let gone = |correlation| (correlation, Response::RecordsDeleted { log_start: 25 });
        assert_eq!(found, [gone(7), gone(8), gone(9)]);
        let range = Refusal::OffsetOutOfRange { offset: 24, log_start: 25, high_watermark: 60 };
        assert_eq!(fetch(&mut machine, 24, None), Err(range));
    }
}

#[test]
fn what_is_gone_is_no_error_and_what_is_not_there_yet_is_one() {
    let (mut machine, topic) = filled(small_log(), 3);
    assert_eq!(delete(&mut machine, 0), Ok(0));
    assert_eq!(delete(&mut machine, 45), Ok(45));
    let entries = machine.shard().unwrap().status().storage.entries;
    assert_eq!((delete(&mut machine, 45), delete(&mut machine, 3)), (Ok(45), Ok(45)));
    assert_eq!(machine.shard().unwrap().status().storage.entries, entries, "nothing is written again");
    let beyond = Refusal::OffsetOutOfRange { offset: 61, log_start: 45, high_watermark: 60 };
    assert_eq!(delete(&mut machine, 61), Err(beyond));
    // A batch that is only half gone is given out whole, as a reader gets it who begins within one.
    let read = fetch(&mut machine, 45, None).unwrap();
    let mut places = Vec::new();
    read_batch(&read[0], topic, 0, &mut places);
    assert_eq!((places[0].offset, places.len()), (40, 20));
    assert_eq!(delete(&mut machine, 60), Ok(60), "all of it");
    assert_eq!(fetch(&mut machine, 60, None), Ok(Vec::new()));
    assert_eq!(produce(&mut machine, &batch(topic, 0, 60..61, From::default())), Ok(60), "offsets go on");
    restart(&mut machine);
    let opened = open(&mut machine, topic, 0).unwrap();
    assert_eq!((opened.log_start, opened.high_watermark), (60, 61));
}

/// Wherever the power fails: what was answered holds, what was not may, and nothing else changes.
#[test]
fn a_deletion_that_was_answered_outlives_every_crash() {
    let mut outcomes = [0, 0];
    for turns in 0..60 {
        let (mut machine, topic) = filled(small_log(), 3);
        let request = Request::DeleteRecords { handle: 1, before_offset: 33 };
        let answer = crash_after_on_handle(&mut machine, &request, turns);
        let opened = open(&mut machine, topic, 0).unwrap();
        assert_eq!(opened.high_watermark, 60);
        assert!(opened.log_start == 33 || (opened.log_start == 0 && answer.is_none()), "{turns}: {answer:?}");
        outcomes[usize::from(opened.log_start > 0)] += 1;
        restart(&mut machine);
        assert_eq!(open(&mut machine, topic, 0).unwrap().log_start, opened.log_start, "it never goes back");
        assert_eq!(produce(&mut machine, &batch(topic, 0, 60..62, From::default())), Ok(60));
        assert_eq!(fetch(&mut machine, 59, None).unwrap().len(), 1);
        machine.shard().unwrap().check();
    }
    assert!(outcomes.iter().all(|count| *count > 5), "{outcomes:?}");
}

/// The level of a topic is about its records; that they are to go is durable as every change is, and with it what was
/// before it in the log.
#[test]
fn a_memory_topic_loses_nothing_above_what_was_deleted() {
    let mut machine = machine(small_log(), 5);
    let topic = create(&mut machine, "passing", 1, Durability::Memory);
    open(&mut machine, topic, 0).unwrap();
    assert_eq!(produce_blindly(&mut machine, 1, &batch(topic, 0, 0..20, From::default())), Taken::Done);
    assert!(matches!(answers(&mut machine)[..], [(1, Response::Produced { .. })]));
    assert_eq!(delete(&mut machine, 20), Ok(20));
    restart(&mut machine);
    let opened = open(&mut machine, topic, 0).unwrap();
    assert_eq!((opened.log_start, opened.high_watermark), (20, 20));
}

/// Forty extents are written, all is deleted: the space is there again, and restarts find the same.
#[test]
fn space_comes_back_when_no_records_are_left_in_it() {
    let (mut machine, topic) = filled(small_log(), 12 * EXTENT_BYTES / 1_500);
    let before = machine.shard().unwrap().status().storage;
    let end = open(&mut machine, topic, 0).unwrap().high_watermark;
    assert!(before.live_extents > 6, "{before:?}");
    assert_eq!(delete(&mut machine, end), Ok(end));
    wait(&mut machine, |machine| machine.shard().unwrap().status().storage.live_extents <= 3);
    for _ in 0..3 {
        restart(&mut machine);
        let opened = open(&mut machine, topic, 0).unwrap();
        assert_eq!((opened.log_start, opened.high_watermark), (end, end));
    }
    let time = Request::OffsetForTime { handle: 1, at: At::Time(0) };
    let found = Response::OffsetFound { offset: end, timestamp_us: None };
    assert_eq!(machine.ask_as(LogId(0), CONN, &time).0, found, "none is that young");
}

/// Deleting records is for those who may delete the topic, not for whoever may read and write it.
#[test]
fn who_may_only_read_and_write_may_not_delete() {
    let (mut machine, topic) = filled(small_log(), 1);
    machine.logs[0].config.anonymous = Access::Records;
    restart(&mut machine);
    let stranger = ConnId { slot: 4, generation: 1 };
    machine.event(LogId(0), Event::Connected { conn: stranger, principal: Principal::Anonymous });
    let handle = Request::Open { handle: 1, topic, partition: 0 };
    assert!(matches!(machine.ask_as(LogId(0), stranger, &handle).0, Response::Opened { .. }));
    let delete = Request::DeleteRecords { handle: 1, before_offset: 5 };
    let refused = Response::Refused(Refusal::NotAuthorised);
    assert_eq!(machine.ask_as(LogId(0), stranger, &delete).0, refused);
    assert_eq!(open(&mut machine, topic, 0).unwrap().log_start, 0);
    let unknown = Request::DeleteRecords { handle: 9, before_offset: 5 };
    let refused = Response::Refused(Refusal::UnknownHandle);
    assert_eq!(machine.ask_as(LogId(0), CONN, &unknown).0, refused);
}

#[test]
fn a_store_of_an_older_version_says_what_it_needs() {
    let older = LogConfig { features: feature::ALL & !feature::RETENTION, ..small_log() };
    let (mut machine, topic) = filled(older, 2);
    assert_eq!(delete(&mut machine, 5), Err(Refusal::NotFinal));
    assert_eq!(delete(&mut machine, 0), Ok(0), "which is so already");
    machine.logs[0].config.log.features = feature::ALL;
    restart(&mut machine);
    open(&mut machine, topic, 0).unwrap();
    wait(&mut machine, |machine| match delete(machine, 5) {
        Ok(log_start) => log_start == 5,
        Err(refusal) => {
            assert_eq!(refusal, Refusal::NotReady, "it is being written down");
            false
        }
    });
}

/// The topic goes while a deletion of its records is on its way: whoever asked for that hears of it.
#[test]
fn a_topic_that_goes_meanwhile_is_unknown_and_a_disk_that_fails_says_so() {
    let (mut machine, _) = filled(small_log(), 2);
    machine.logs[0].disk.faults.hold_flushes = true;
    let request = Request::DeleteRecords { handle: 1, before_offset: 5 };
    assert_eq!(machine.request(LogId(0), CONN, 3, &request), Some(Taken::Done));
    let gone = Request::DeleteTopic { name: "orders" };
    assert_eq!(machine.request(LogId(0), CONN, 4, &gone), Some(Taken::Done));
    machine.logs[0].disk.faults.hold_flushes = false;
    let mut found = Vec::new();
    wait(&mut machine, |machine| {
        found.extend(answers(machine));
        found.len() == 2
    });
    found.sort_by_key(|(correlation, _)| *correlation);
    let of_records = &found[0].1;
    let told = [Response::RecordsDeleted { log_start: 5 }, Response::Refused(Refusal::UnknownTopicId)];
    assert!(told.contains(of_records), "{found:?}");
    assert_eq!(found[1].1, Response::TopicDeleted);

    let (mut machine, topic) = filled(small_log(), 2);
    machine.logs[0].disk.faults.write_errors = 1_000_000;
    assert_eq!(delete(&mut machine, 5), Err(Refusal::ReadOnly));
    machine.logs[0].disk.faults.write_errors = 0;
    restart(&mut machine);
    let log_start = open_at(&mut machine, LogId(0), topic, 0).unwrap().log_start;
    assert!(log_start == 0 || log_start == 5, "whether it was done is open: {log_start}");
}

const CHECK_US: u64 = 30_000_000;
const HOUR_US: u64 = 3_600_000_000;

/// A topic whose records go after an hour, or but for so many bytes.
fn kept(machine: &mut Machine, name: &str, retention: RetentionChange) -> TopicId {
    let (partitions, durability) = (2, Durability::Durable);
    match machine.ask(&Request::CreateTopic { name, partitions, durability, retention }).0 {
        Response::TopicCreated { topic } => topic,
        other => panic!("{other:?}"),
    }
}

fn alter(machine: &mut Machine, name: &str, retention: RetentionChange) {
    let request = Request::AlterTopic { name, partitions: None, durability: None, retention };
    let answer = machine.ask(&request).0;
    assert!(matches!(answer, Response::TopicAltered { .. }), "{answer:?}");
}

/// So many batches of twenty records; the partition is open under handle 1.
fn fill(machine: &mut Machine, topic: TopicId, partition: u32, batches: u64) {
    open(machine, topic, partition).unwrap();
    for _ in 0..batches {
        produce(machine, &batch(topic, partition, 0..RECORDS, From::default())).unwrap();
    }
}

/// Time passes, and what is due is done.
fn pass(machine: &mut Machine, us: u64) {
    machine.clock.advance(us);
    (0..300).for_each(|_| machine.turn().unwrap());
}

const EXTENT_OF_BATCHES: u64 = EXTENT_BYTES / 1_500;

#[test]
fn records_go_when_they_are_older_than_their_topic_keeps_them() {
    let mut machine = machine(small_log(), 7);
    let hour = RetentionChange { time_us: Some(HOUR_US), bytes: None };
    let (short, long) =
        (kept(&mut machine, "short", hour), create(&mut machine, "long", 1, Durability::Durable));
    fill(&mut machine, short, 0, 3 * EXTENT_OF_BATCHES);
    fill(&mut machine, long, 0, 5);
    pass(&mut machine, HOUR_US / 2);
    fill(&mut machine, short, 0, EXTENT_OF_BATCHES);
    let young = open(&mut machine, short, 0).unwrap();
    assert_eq!(young.log_start, 0, "half an hour is not an hour");
    pass(&mut machine, HOUR_US / 2 + 2 * CHECK_US);
    let now = open(&mut machine, short, 0).unwrap();
    let first_half = 3 * EXTENT_OF_BATCHES * RECORDS;
    assert!(now.log_start > first_half / 2 && now.log_start <= first_half, "{now:?}");
    assert_eq!(now.high_watermark, young.high_watermark);
    fetch(&mut machine, now.log_start, None).unwrap();
    pass(&mut machine, HOUR_US);
    let last = open(&mut machine, short, 0).unwrap();
    assert_eq!(last.log_start, last.high_watermark, "nothing came for an hour");
    restart(&mut machine);
    let again = open(&mut machine, short, 0).unwrap();
    assert_eq!((again.log_start, again.high_watermark), (last.log_start, last.high_watermark));
    assert_eq!(open(&mut machine, long, 0).unwrap().log_start, 0, "another topic's records are its own");
    assert_eq!(fetch(&mut machine, 0, None).unwrap().len(), 1);
}

/// A producer may write into its records that they are a hundred years old, or of next year.
#[test]
fn the_brokers_clock_counts_and_not_the_timestamps_of_producers() {
    let (mut machine, topic) = {
        let mut machine = machine(small_log(), 7);
        let hour = RetentionChange { time_us: Some(HOUR_US), bytes: None };
        let topic = kept(&mut machine, "short", hour);
        (machine, topic)
    };
    // Timestamps of the script are of 1970.
    fill(&mut machine, topic, 0, 2 * EXTENT_OF_BATCHES);
    pass(&mut machine, HOUR_US / 2);
    assert_eq!(open(&mut machine, topic, 0).unwrap().log_start, 0);
}

#[test]
fn so_many_bytes_of_each_partition_stay() {
    let mut machine = machine(small_log(), 9);
    let bytes = 2 * EXTENT_BYTES;
    let bounded = kept(&mut machine, "bounded", RetentionChange { time_us: None, bytes: Some(bytes) });
    for at in 0..12 {
        fill(&mut machine, bounded, at % 2, EXTENT_OF_BATCHES);
        pass(&mut machine, CHECK_US);
    }
    for partition in 0..2 {
        let opened = open(&mut machine, bounded, partition).unwrap();
        let (all, left) = (6 * EXTENT_OF_BATCHES, (opened.high_watermark - opened.log_start) / RECORDS);
        let of_batch = batch(bounded, partition, 0..RECORDS, From::default()).len() as u64 + 32;
        assert!(left < all - EXTENT_OF_BATCHES, "{left} batches of {all} are left");
        assert!(left * of_batch >= bytes, "{left} batches are left");
    }
    let stats = machine.shard().unwrap().status().storage;
    assert!(stats.live_extents <= 14 && stats.recycled_extents >= 20, "{stats:?}");
}

#[test]
fn a_bound_is_set_moved_taken_away_and_shown_and_survives() {
    for logs in [1, 2] {
        let mut machine = machine_of(logs, &small_log(), 11);
        let none = Retention::default();
        let topic = create(&mut machine, "orders", 4, Durability::Durable);
        let shown = |machine: &mut Machine| {
            let views: Vec<_> =
                (0..logs).map(|log| describe(machine, LogId(log), "orders").unwrap().retention).collect();
            assert!(views.iter().all(|view| *view == views[0]), "every log says the same");
            views[0]
        };
        assert_eq!(shown(&mut machine), none);
        let (time_us, bytes) = (NonZeroU64::new(HOUR_US), NonZeroU64::new(1 << 30));
        alter(&mut machine, "orders", RetentionChange { time_us: Some(HOUR_US), bytes: None });
        assert_eq!(shown(&mut machine), Retention { time_us, bytes: None });
        alter(&mut machine, "orders", RetentionChange { time_us: None, bytes: Some(1 << 30) });
        let both = Retention { time_us, bytes };
        assert_eq!(shown(&mut machine), both);
        for cut in [false, true] {
            if cut {
                // Until all of it is in checkpoints.
                for log in 0..logs {
                    open_at(&mut machine, LogId(log), topic, u32::from(log)).unwrap();
                    for _ in 0..3 * EXTENT_OF_BATCHES {
                        let sealed = batch(topic, u32::from(log), 0..RECORDS, From::default());
                        produce_at(&mut machine, LogId(log), &sealed).unwrap();
                    }
                }
            }
            restart(&mut machine);
            assert_eq!(shown(&mut machine), both);
        }
        let more = Request::AlterTopic {
            name: "orders",
            partitions: Some(6),
            durability: None,
            retention: RetentionChange::NONE,
        };
        assert!(matches!(machine.ask(&more).0, Response::TopicAltered { partitions: 6, .. }));
        assert_eq!(shown(&mut machine), both, "partitions that are added are kept as the others");
        alter(&mut machine, "orders", RetentionChange { time_us: Some(0), bytes: Some(0) });
        restart(&mut machine);
        assert_eq!(shown(&mut machine), none);
        machine.logs.iter().for_each(|node| node.shard().unwrap().check());
    }
}

/// Log 1 has of its own that the topic keeps records for an hour. Meanwhile it is to keep them for ever, which only log 0
/// wrote down: after a restart, hours later, nothing may go before log 1 has heard of it.
#[test]
fn a_log_that_has_not_heard_what_a_topic_keeps_takes_nothing_away() {
    let mut machine = machine_of(2, &small_log(), 13);
    let hour = RetentionChange { time_us: Some(HOUR_US), bytes: None };
    let topic = kept(&mut machine, "orders", hour);
    let view = describe(&mut machine, LogId(0), "orders").unwrap();
    let partition = view.partitions.iter().position(|at| at.log == LogId(1)).unwrap() as u32;
    open_at(&mut machine, LogId(1), topic, partition).unwrap();
    for _ in 0..EXTENT_OF_BATCHES {
        let sealed = batch(topic, partition, 0..RECORDS, From::default());
        produce_at(&mut machine, LogId(1), &sealed).unwrap();
    }
    alter(&mut machine, "orders", RetentionChange { time_us: Some(0), bytes: None });
    restart(&mut machine);
    pass(&mut machine, 5 * HOUR_US);
    pass(&mut machine, CHECK_US);
    assert_eq!(open_at(&mut machine, LogId(1), topic, partition).unwrap().log_start, 0);
    alter(&mut machine, "orders", RetentionChange { time_us: Some(HOUR_US), bytes: None });
    pass(&mut machine, HOUR_US + 2 * CHECK_US);
    let opened = open_at(&mut machine, LogId(1), topic, partition).unwrap();
    assert_eq!(opened.log_start, opened.high_watermark);
}

/// Eight thousand partitions are looked at, two thousand a turn; what nobody bounds costs nothing.
#[test]
fn a_pass_over_many_partitions_takes_many_turns() {
    let mut machine = machine(small_log(), 17);
    let topic = create(&mut machine, "one", 1, Durability::Durable);
    open(&mut machine, topic, 0).unwrap();
    let quiet = machine.shard().unwrap().next_deadline();
    assert!(quiet.is_none_or(|at| at < CHECK_US), "nothing is due but a beacon");
    for at in 0..40 {
        let name = format!("many-{at}");
        let retention = RetentionChange { time_us: Some(HOUR_US), bytes: None };
        let create =
            Request::CreateTopic { name: &name, partitions: 200, durability: Durability::Durable, retention };
        assert!(matches!(machine.ask(&create).0, Response::TopicCreated { .. }));
    }
    pass(&mut machine, CHECK_US);
    let many = describe(&mut machine, LogId(0), "many-39").unwrap().topic;
    fill(&mut machine, many, 199, 5);
    pass(&mut machine, HOUR_US + 2 * CHECK_US);
    let opened = open(&mut machine, many, 199).unwrap();
    assert_eq!((opened.log_start, opened.high_watermark), (100, 100));
    machine.shard().unwrap().check();
}

/// Clients delete records, topics are told to keep theirs for a time or so many bytes, and everything else happens too:
/// nothing that was not to go is gone, and nothing that was acknowledged as gone comes back.
#[test]
fn every_log_start_survives_every_storm() {
    let (mut trims, mut later) = (0, 0);
    let many = std::env::var("TEST_SEEDS").ok().and_then(|text| text.parse().ok());
    let seeds: Vec<u64> = (0..many.unwrap_or(120)).collect();
    for &seed in &seeds {
        let logs = [1, 2, 1, 3][(seed % 4) as usize];
        let regime = if seed % 2 == 0 { Regime::Plain } else { Regime::Crash };
        let (power_losses, committers, keep_trace) = (8, 2, false);
        let plan = Plan { seed, logs, power_losses, committers, trims: true, keep_trace, regime };
        let caught = std::panic::catch_unwind(|| run(plan));
        let outcome = caught.unwrap_or_else(|_| panic!("seed {seed} of {logs} logs failed"));
        trims += outcome.trims.0 as usize;
        later += outcome.trims.1 as usize;
    }
    assert!(
        trims > 10 * seeds.len() && later > 2 * seeds.len(),
        "{trims} deletions, {later} partitions that start later"
    );
}

#[test]
fn a_storm_of_deletions_has_the_same_trace_twice() {
    for seed in [1, 2] {
        let (trims, keep_trace, regime) = (true, true, Regime::Plain);
        let plan = Plan { seed, logs: 2, power_losses: 8, committers: 0, trims, keep_trace, regime };
        let (first, second) = (run(plan).trace, run(plan).trace);
        assert!(first.lines() > 300 && first.text() == second.text(), "seed {seed} differs from itself");
    }
}
