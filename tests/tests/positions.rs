//! Named positions: acknowledged when durable, there after any crash, written forward when their extents are recycled.

use std::panic::{AssertUnwindSafe, catch_unwind};

use corelog_model::{Durability, LogId, Term, TopicId};
use corelog_shard::{Bounded, PositionView, PositionsView, Refusal, Request, Response, Taken, Which};
use corelog_storage::{LogConfig, feature};
use corelog_tests::machine::Machine;
use corelog_tests::regime::Regime;
use corelog_tests::script::{
    CONN, EXTENT_BYTES, From, batch, crash_after_on_handle, create, describe, machine, machine_of, open,
    open_at, produce, produce_at, produce_blindly, restart, small_log,
};
use corelog_tests::world::{Plan, run};

const SEEDS: u64 = 300;

fn commit(offset: u64) -> Request<'static> {
    commit_as("reader", offset)
}

fn commit_as(name: &str, offset: u64) -> Request<'_> {
    Request::CommitPosition { handle: 1, name, offset, leader_epoch: None, metadata: "" }
}

const FORGET: Request<'_> = Request::DeletePosition { handle: 1, name: "reader" };

fn view(machine: &mut Machine, log: LogId, which: Which<'_>) -> PositionsView {
    match machine.ask_as(log, CONN, &Request::ReadPositions { handle: 1, which, max_bytes: 1 << 20 }).0 {
        Response::Positions(view) => *view,
        other => panic!("{other:?}"),
    }
}

/// The position of a name in what handle 1 names.
fn read_as(machine: &mut Machine, name: &str) -> Option<u64> {
    let mut found = view(machine, LogId(0), Which::One(name)).positions;
    assert!(found.len() <= 1, "{found:?}");
    found.pop().map(|position| position.offset)
}

fn read(machine: &mut Machine) -> Option<u64> {
    read_as(machine, "reader")
}

/// A topic of one partition with ten records, opened as handle 1.
fn filled(machine: &mut Machine, durability: Durability) -> TopicId {
    let topic = create(machine, "orders", 1, durability);
    open(machine, topic, 0).unwrap();
    assert_eq!(produce(machine, &batch(topic, 0, 0..10, From::default())), Ok(0));
    topic
}

#[track_caller]
fn done(machine: &mut Machine, request: &Request<'_>) {
    let answer = machine.ask_as(LogId(0), CONN, request).0;
    assert!(matches!(answer, Response::PositionCommitted | Response::PositionDeleted), "{answer:?}");
}

#[track_caller]
fn refused(machine: &mut Machine, request: &Request<'_>, refusal: Refusal) {
    assert_eq!(machine.ask_as(LogId(0), CONN, request).0, Response::Refused(refusal));
}

/// Whatever the disk forgets and whoever hangs up: what was acknowledged is there, nothing goes back, and nobody finds
/// another's. One to four logs; a third of the seeds under retention.
#[test]
fn positions_survive_every_storm() {
    let (mut acknowledged, mut failed) = (0, Vec::new());
    for seed in 0..SEEDS {
        let logs = 1 + (seed % 4) as u16;
        let regime = if seed % 2 == 0 { Regime::Plain } else { Regime::of(seed) };
        let (trims, keep_trace) = (false, false);
        let plan = Plan { seed, logs, power_losses: 8, committers: 9, trims, keep_trace, regime };
        match catch_unwind(AssertUnwindSafe(|| run(plan))) {
            Ok(outcome) => acknowledged += outcome.positions,
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
    assert!(acknowledged > 40 * SEEDS, "{acknowledged} changes acknowledged by {SEEDS} seeds");
}

/// The power fails after every number of turns that a commit can take.
#[test]
fn a_commit_is_there_or_not_wherever_it_is_cut_and_stays_once_it_is_acknowledged() {
    let (mut answered, mut kept, mut lost) = (0, 0, 0);
    for turns in 0..40 {
        for (seed, change) in (0..4).zip([commit(7), FORGET, commit(7), FORGET]) {
            let mut machine = machine(small_log(), seed);
            let topic = filled(&mut machine, Durability::Durable);
            done(&mut machine, &commit(3));
            let after = if matches!(change, Request::DeletePosition { .. }) { None } else { Some(7) };
            let answer = crash_after_on_handle(&mut machine, &change, turns);
            open(&mut machine, topic, 0).unwrap();
            let found = read(&mut machine);
            match answer {
                Some(_) => {
                    assert_eq!(found, after, "an acknowledged change is undone");
                    answered += 1;
                }
                None if found == after => kept += 1,
                None => {
                    assert_eq!(found, Some(3), "what was acknowledged before is there");
                    lost += 1;
                }
            }
            restart(&mut machine);
            open(&mut machine, topic, 0).unwrap();
            assert_eq!(read(&mut machine), found, "and it stays so");
        }
    }
    assert!(answered > 0 && kept > 0 && lost > 0, "{answered} {kept} {lost}");
}

/// A memory topic answers at once, its positions do not. Who sees one, or is told that it is kept, finds it after a crash
/// at that very moment.
#[test]
fn a_position_is_acknowledged_and_seen_when_it_is_durable_whatever_the_topics_level() {
    for durability in [Durability::Durable, Durability::Written, Durability::Memory] {
        for acknowledged in [false, true] {
            let mut machine = machine(small_log(), 2);
            let topic = filled(&mut machine, durability);
            assert_eq!(machine.request(LogId(0), CONN, 7, &commit(4)), Some(Taken::Done));
            assert!(machine.logs[0].actions.replies.is_empty(), "{durability:?}: no frame was written");
            assert_eq!(read_now(&mut machine), None);
            let mut turns = 0;
            while if acknowledged { answer(&mut machine).is_none() } else { read_now(&mut machine).is_none() }
            {
                machine.turn().unwrap();
                turns += 1;
            }
            assert!(turns > 1, "{durability:?}: after {turns} turns");
            restart(&mut machine);
            let opened = open(&mut machine, topic, 0).unwrap();
            assert_eq!(read(&mut machine), Some(4), "{durability:?}");
            assert!(opened.high_watermark >= 4, "what it has passed is there: {opened:?}");
        }
    }
}

fn answer(machine: &mut Machine) -> Option<()> {
    let reply = machine.logs[0].actions.replies.pop()?;
    assert_eq!((reply.correlation, reply.response), (7, Response::PositionCommitted));
    Some(())
}

/// What a read is answered with in the same turn; other answers stay.
fn read_now(machine: &mut Machine) -> Option<u64> {
    let (which, max_bytes) = (Which::One("reader"), 4096);
    let request = Request::ReadPositions { handle: 1, which, max_bytes };
    assert_eq!(machine.request(LogId(0), CONN, 99, &request), Some(Taken::Done));
    let reply = machine.logs[0].actions.replies.pop().expect("a read waits for nothing");
    match reply.response {
        Response::Positions(view) => view.positions.first().map(|position| position.offset),
        other => panic!("{other:?}"),
    }
}

/// Commits of one turn share a frame, and are answered together.
#[test]
fn a_burst_of_commits_is_one_frame() {
    let mut machine = machine(small_log(), 3);
    filled(&mut machine, Durability::Durable);
    let frames = |machine: &Machine| machine.shard().unwrap().status().storage.frames;
    let before = frames(&machine);
    let names: Vec<String> = (0..50).map(|at| format!("reader {at}")).collect();
    for (correlation, name) in (0..).zip(&names) {
        assert_eq!(machine.request(LogId(0), CONN, correlation, &commit_as(name, 5)), Some(Taken::Done));
    }
    let mut answers = 0;
    while answers < names.len() {
        machine.turn().unwrap();
        let replies = machine.logs[0].actions.replies.drain(..);
        answers += replies.filter(|reply| reply.response == Response::PositionCommitted).count();
    }
    assert!(frames(&machine) - before <= 2, "{} frames", frames(&machine) - before);
    assert_eq!(view(&mut machine, LogId(0), Which::After("")).positions.len(), 50);
}

#[test]
fn a_position_lies_within_what_is_there_and_says_so() {
    let mut machine = machine(small_log(), 4);
    let topic = filled(&mut machine, Durability::Memory);
    done(&mut machine, &commit(10));
    let beyond = Refusal::OffsetOutOfRange { offset: 11, log_start: 0, high_watermark: 10 };
    refused(&mut machine, &commit(11), beyond);
    for name in ["", "a\nb", &"x".repeat(256)] {
        refused(&mut machine, &commit_as(name, 1), Refusal::InvalidPositionName);
        refused(&mut machine, &Request::DeletePosition { handle: 1, name }, Refusal::InvalidPositionName);
    }
    let note = "x".repeat(256);
    let noted = |metadata, leader_epoch| Request::CommitPosition {
        handle: 1,
        name: "reader",
        offset: 6,
        leader_epoch,
        metadata,
    };
    refused(&mut machine, &noted(&note, None), Refusal::InvalidRequest);
    let current = Term(1);
    refused(&mut machine, &noted("", Some(Term(2))), Refusal::UnknownEpoch { current });
    done(&mut machine, &noted(&note[1..], Some(current)));
    let found = view(&mut machine, LogId(0), Which::One("reader")).positions;
    let [PositionView { offset: 6, leader_epoch: Some(Term(1)), metadata, .. }] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(**metadata, note[1..]);

    // The log falls back: who has read what is gone may not commit it, and is told from where on.
    let _ = produce_blindly(&mut machine, 1, &batch(topic, 0, 10..15, From::default()));
    assert_eq!(open(&mut machine, topic, 0).unwrap().high_watermark, 15);
    restart(&mut machine);
    let opened = open(&mut machine, topic, 0).unwrap();
    assert_eq!(opened.high_watermark, 10, "what a position has passed is there");
    let late = Request::CommitPosition {
        handle: 1,
        name: "reader",
        offset: 12,
        leader_epoch: Some(Term(1)),
        metadata: "",
    };
    assert_eq!(produce(&mut machine, &batch(topic, 0, 20..25, From::default())), Ok(10));
    refused(&mut machine, &late, Refusal::LogTruncated { offset: 10 });
    assert_eq!(read(&mut machine), Some(6));
}

#[test]
fn so_many_names_and_no_more() {
    let mut machine = machine(small_log(), 5);
    machine.crash();
    machine.logs[0].config.limits.positions = 3;
    machine.start_fully().unwrap();
    let topic = filled(&mut machine, Durability::Durable);
    for name in ["a", "b", "c"] {
        done(&mut machine, &commit_as(name, 1));
    }
    let full = Refusal::TooMany { what: Bounded::Positions, max: 3 };
    refused(&mut machine, &commit_as("d", 1), full);
    done(&mut machine, &commit_as("c", 2));
    restart(&mut machine);
    open(&mut machine, topic, 0).unwrap();
    refused(&mut machine, &commit_as("d", 1), full);
    done(&mut machine, &Request::DeletePosition { handle: 1, name: "b" });
    done(&mut machine, &commit_as("d", 1));
    let status = machine.shard().unwrap().status();
    assert_eq!(status.positions, 3);
    assert!((300..2_000).contains(&status.position_bytes), "{}", status.position_bytes);
}

/// The position of `reader` in every partition of a topic.
fn positions(machine: &mut Machine, name: &str) -> Vec<Option<u64>> {
    let topic = describe(machine, LogId(0), name).expect("created");
    let each = (0u32..).zip(topic.partitions).map(|(partition, home)| {
        open_at(machine, home.log, topic.topic, partition).expect("open there");
        let found = view(machine, home.log, Which::One("reader")).positions;
        found.first().map(|position| position.offset)
    });
    each.collect()
}

#[test]
fn positions_go_with_their_topic() {
    let mut machine = machine_of(3, &small_log(), 6);
    for round in 0..3 {
        let topic = create(&mut machine, "orders", 4, Durability::Durable);
        assert_eq!(positions(&mut machine, "orders"), [None; 4], "round {round}");
        let homes = describe(&mut machine, LogId(0), "orders").unwrap().partitions;
        for (partition, home) in (0u32..).zip(homes) {
            open_at(&mut machine, home.log, topic, partition).unwrap();
            let count = u64::from(partition) + 1;
            produce_at(&mut machine, home.log, &batch(topic, partition, 0..count, From::default())).unwrap();
            let answer = machine.ask_as(home.log, CONN, &commit(count)).0;
            assert_eq!(answer, Response::PositionCommitted, "{partition}");
        }
        restart(&mut machine);
        assert_eq!(positions(&mut machine, "orders"), [Some(1), Some(2), Some(3), Some(4)], "round {round}");
        assert_eq!(machine.ask(&Request::DeleteTopic { name: "orders" }).0, Response::TopicDeleted);
        for node in &machine.logs {
            assert_eq!(node.shard().unwrap().status().positions, 0);
        }
        if round == 1 {
            restart(&mut machine);
        }
    }
}

/// Four extents are kept, forty are written: positions outlive the extents their entries were in, those that change
/// and those that do not, and what was forgotten stays so.
#[test]
fn what_recycling_takes_is_written_forward() {
    let log =
        LogConfig { retention_bytes: Some(4 * EXTENT_BYTES), checkpoint_bytes: 32 << 10, ..small_log() };
    let mut machine = machine(log, 7);
    let topic = filled(&mut machine, Durability::Durable);
    done(&mut machine, &commit_as("quiet", 3));
    done(&mut machine, &commit_as("gone", 3));
    let sealed = batch(topic, 0, 0..20, From::default());
    let rounds = 40 * EXTENT_BYTES / sealed.len() as u64;
    let mut end = 10;
    for round in 0..rounds {
        assert_eq!(produce(&mut machine, &sealed), Ok(end));
        end += 20;
        if round % 8 == 0 {
            done(&mut machine, &commit_as("busy", end));
        }
        if round == rounds / 2 {
            done(&mut machine, &Request::DeletePosition { handle: 1, name: "gone" });
        }
        if round % (rounds / 5) == 0 {
            restart(&mut machine);
            open(&mut machine, topic, 0).unwrap();
        }
    }
    let busy = read_as(&mut machine, "busy").expect("committed");
    for _ in 0..2 {
        restart(&mut machine);
        let opened = open(&mut machine, topic, 0).unwrap();
        assert!(opened.log_start > end / 2, "retention has passed: {opened:?}");
        assert_eq!(read_as(&mut machine, "quiet"), Some(3), "below what is kept, and there");
        assert_eq!(read_as(&mut machine, "busy"), Some(busy));
        assert_eq!(read_as(&mut machine, "gone"), None);
    }
    let kept = machine.logs[0].disk.extents() as u64;
    assert!(kept <= 4 + 5, "{kept} extents for a cap of 4");
}

/// Commits alone fill extents, and give them back.
#[test]
fn a_log_of_nothing_but_commits_does_not_grow() {
    let mut machine = machine(small_log(), 8);
    filled(&mut machine, Durability::Durable);
    let mut most = 0;
    for round in 0..1_500 {
        done(&mut machine, &commit(round % 11));
        most = most.max(machine.logs[0].disk.extents());
    }
    assert_eq!(read(&mut machine), Some(1_499 % 11));
    // A frame each, of 4 KiB: more than ninety extents if all were kept.
    assert!(most < 30, "{most} extents");
}

/// A log that takes no more writes says so; what was under way is there after the next start, or not.
#[test]
fn a_commit_to_a_log_that_fails_is_answered_and_reads_go_on() {
    let mut machine = machine(small_log(), 9);
    let topic = filled(&mut machine, Durability::Durable);
    done(&mut machine, &commit(3));
    machine.logs[0].disk.faults.write_errors = 1_000_000;
    refused(&mut machine, &commit(4), Refusal::ReadOnly);
    refused(&mut machine, &commit(5), Refusal::ReadOnly);
    assert_eq!(read(&mut machine), Some(3), "nobody is shown what may go");
    machine.logs[0].disk.faults.stop();
    restart(&mut machine);
    open(&mut machine, topic, 0).unwrap();
    let found = read(&mut machine);
    assert!(matches!(found, Some(3 | 4)), "{found:?}");
}

/// A store that an older version can still serve gets no positions, until that is wanted; and then it keeps them.
#[test]
fn a_store_of_an_older_version_keeps_positions_once_it_is_final() {
    let mut machine = machine(LogConfig { features: 0, ..small_log() }, 11);
    let topic = filled(&mut machine, Durability::Durable);
    let frames = machine.shard().unwrap().status().storage.frames;
    refused(&mut machine, &commit(3), Refusal::NotFinal);
    done(&mut machine, &FORGET);
    assert_eq!(read(&mut machine), None);
    assert_eq!(machine.shard().unwrap().status().storage.frames, frames, "nothing was written");
    machine.crash();
    machine.logs[0].config.log.features = feature::ALL;
    machine.start_fully().unwrap();
    open(&mut machine, topic, 0).unwrap();
    loop {
        match machine.ask_as(LogId(0), CONN, &commit(3)).0 {
            Response::PositionCommitted => break,
            Response::Refused(Refusal::NotReady) => machine.turn().unwrap(),
            other => panic!("{other:?}"),
        }
    }
    // The log has it, whatever the next start is told.
    machine.crash();
    machine.logs[0].config.log.features = 0;
    machine.start_fully().unwrap();
    open(&mut machine, topic, 0).unwrap();
    assert_eq!(read(&mut machine), Some(3));
    done(&mut machine, &commit(4));
}
