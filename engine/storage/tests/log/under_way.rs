//! Frames that are not durable yet: no flush counts for what another one lost, and no reader trips over them.

use crate::disk::{Disk, Random, append, config, now, open_with, read_all};
use corelog_model::GroupId;
use corelog_storage::{DiskOp, DurableMethod, Log, LogConfig, Read, ReadRequest};

const A: GroupId = GroupId(16);

/// Carries out what the log asks for, once.
fn turn(log: &mut Log, disk: &mut Disk, at: u64) {
    let mut ops = Vec::new();
    log.cut(now(at), &mut ops);
    for op in ops {
        let completion = disk.run(op, |slice| log.bytes(slice));
        log.on(completion, now(at));
        log.check();
    }
}

/// Found by seed 932 of the simulator: the frames were acknowledged, and gone after the next start.
#[test]
fn a_flush_that_succeeds_after_two_that_failed_makes_nothing_durable() {
    let flushed = LogConfig { durable_method: DurableMethod::Fdatasync, ..config() };
    let (mut disk, mut random) = (Disk::default(), Random::new(1));
    let (mut log, _) = open_with(&mut disk, flushed.clone(), &mut random).expect("it opens");
    append(&mut log, A, 4, 100).expect("room");
    (1..4).for_each(|at| turn(&mut log, &mut disk, at));
    let (durable, end) = (log.durable_frame(), log.log_end(log.group(A).expect("open")));

    append(&mut log, A, 4, 100).expect("room");
    // The write arrives, its flush fails; the frame moves to a fresh extent, and the same happens there.
    disk.fail_frame_in = Some(1);
    turn(&mut log, &mut disk, 4);
    turn(&mut log, &mut disk, 5);
    disk.fail_frame_in = Some(1);
    turn(&mut log, &mut disk, 6);
    turn(&mut log, &mut disk, 7);
    disk.fail_frame_in = None;
    (8..20).for_each(|at| turn(&mut log, &mut disk, at));
    assert!(log.is_read_only());
    assert_eq!((log.durable_frame(), log.written_frame()), (durable, durable), "the second loss is a loss");

    drop(log);
    disk.crash(&mut random);
    let (log, told) = open_with(&mut disk, flushed, &mut random).expect("it opens");
    assert_eq!(told.damaged, []);
    assert!(log.log_end(log.group(A).expect("replayed")) >= end, "what was durable is there");
}

/// The frames that a turn wants written; nothing is carried out.
fn cut(log: &mut Log, at: u64) -> Vec<DiskOp> {
    let mut ops = Vec::new();
    log.cut(now(at), &mut ops);
    ops.retain(|op| matches!(op, DiskOp::WriteFrame { .. }));
    ops
}

#[test]
fn small_frames_wait_for_the_one_in_flight_and_large_ones_are_written_beside_it() {
    let grouping = LogConfig { parallel_frame_bytes: 8 << 10, ..config() };
    let (mut disk, mut random) = (Disk::default(), Random::new(1));
    let (mut log, _) = open_with(&mut disk, grouping, &mut random).expect("it opens");
    (1..4).for_each(|at| turn(&mut log, &mut disk, at));

    append(&mut log, A, 1, 100).expect("room");
    let mut first = cut(&mut log, 4);
    assert_eq!(first.len(), 1, "nothing is in flight: it is not waited for more");
    append(&mut log, A, 1, 100).expect("room");
    assert_eq!(cut(&mut log, 5).len(), 0, "it waits, and what comes meanwhile is grouped with it");
    append(&mut log, A, 1, 100).expect("room");
    let end = log.newest_frame();
    let completion = disk.run(first.remove(0), |slice| log.bytes(slice));
    log.on(completion, now(6));
    let grouped = cut(&mut log, 6);
    assert_eq!((grouped.len(), log.newest_frame()), (1, end), "both in one frame");

    (0..9).for_each(|_| _ = append(&mut log, A, 1, 1000).expect("room"));
    assert_eq!(cut(&mut log, 7).len(), 1, "large enough: it goes beside the other");
}

/// Found by seeds 1297 and 1305: the reader had run over the frames under way and named them as damaged for ever.
#[test]
fn a_cold_read_stops_before_frames_that_are_on_their_way() {
    let small = LogConfig { entries_in_window: 16, ..config() };
    let (mut disk, mut random) = (Disk::default(), Random::new(1));
    let (mut log, _) = open_with(&mut disk, small, &mut random).expect("it opens");
    let ten = |log: &mut Log| (0..10).for_each(|_| _ = append(log, A, 1, 100).expect("room"));
    for at in 1..=2 {
        ten(&mut log);
        turn(&mut log, &mut disk, at);
    }
    let slot = log.group(A).expect("open");
    ten(&mut log);
    let mut writes = Vec::new();
    log.cut(now(3), &mut writes);
    assert!(writes.iter().any(|op| matches!(op, DiskOp::WriteFrame { .. })), "a frame is under way");

    // A reader far behind: its read covers the rest of the extent, as far as that is there.
    let end_offset = 20;
    let request = ReadRequest { slot, offset: 0, end_offset, max_bytes: 100_000, token: 1 };
    let mut reads = Vec::new();
    assert_eq!(log.read(&request, &mut Vec::new(), &mut reads), Read::Pending);
    let of_cold = |log: &Log| (log.stats().cold_used_bytes, log.stats().cold_limit_bytes);
    assert_eq!(of_cold(&log), (32 << 10, 3 * (32 << 10)), "a block is away");
    for op in reads.into_iter().chain(writes) {
        let completion = disk.run(op, |slice| log.bytes(slice));
        log.on(completion, now(4));
    }
    assert_eq!(log.stats().damaged_ranges, 0);
    assert_eq!(of_cold(&log).0, 0, "it is back, and nobody sends from it");
    assert_eq!(log.stats().window_limit_bytes, 4 * (64 << 10));
    log.finished(&mut Vec::new());
    // The window moves on over the frame, which has arrived meanwhile.
    for at in 5..=8 {
        ten(&mut log);
        turn(&mut log, &mut disk, at);
    }
    assert_eq!(read_all(&mut log, &mut disk, slot, 0).expect("all of it").len(), 70);
}

/// Readers that take nothing must not keep everybody else from reading: after a second their blocks are wanted back,
/// one at a time, while somebody waits.
#[test]
fn blocks_that_readers_keep_are_wanted_back_while_others_wait() {
    let small = LogConfig { entries_in_window: 16, ..config() };
    let (mut disk, mut random) = (Disk::default(), Random::new(1));
    let (mut log, _) = open_with(&mut disk, small, &mut random).expect("it opens");
    for at in 1..=40 {
        append(&mut log, A, 1, 20_000).expect("room");
        turn(&mut log, &mut disk, at);
    }
    let slot = log.group(A).expect("open");
    let request = |offset| ReadRequest { slot, offset, end_offset: offset + 1, max_bytes: 1, token: offset };
    let mut kept = Vec::new();
    let waits = (0..20).find(|offset| {
        let mut ops = Vec::new();
        if log.read(&request(*offset), &mut kept, &mut ops) == Read::Busy {
            return true;
        }
        for op in ops {
            let completion = disk.run(op, |slice| log.bytes(slice));
            log.on(completion, now(100));
        }
        let again = log.read(&request(*offset), &mut kept, &mut Vec::new());
        assert_eq!(again, Read::Ready { next_offset: offset + 1 });
        false
    });
    let waits = request(waits.expect("the blocks are used up"));
    let wanted = |log: &mut Log, at, readers_wait| {
        let mut wanted = Vec::new();
        log.cut(now(at), &mut Vec::new());
        log.wanted(readers_wait, &mut wanted);
        wanted
    };
    assert_eq!(wanted(&mut log, 1_000_039, true), [], "they are reading");
    assert_eq!(log.next_wanted_us(true), Some(1_000_040));
    assert_eq!(wanted(&mut log, 1_000_040, false), [], "nobody waits");
    let oldest = kept[0].block;
    assert_eq!(wanted(&mut log, 1_000_040, true), [oldest]);
    assert_eq!(log.next_wanted_us(true), None, "it has been said");
    kept.iter().filter(|slice| slice.block == oldest).for_each(|slice| log.unpin(slice.block));
    assert_eq!(wanted(&mut log, 1_000_041, true), [], "there is one");
    assert_eq!(log.read(&waits, &mut Vec::new(), &mut Vec::new()), Read::Pending);
}
