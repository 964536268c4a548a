//! Records that are taken away from the front of a group: durably, wholly, and never more than was asked for.

use std::collections::BTreeMap;

use crate::disk::{Disk, Random, TOPIC, append, batch, config, now, open_with, read_all, state};
use corelog_model::GroupId;
use corelog_model::batch::{BatchHeader, Patch};
use corelog_storage::{
    DiskOp, DurableMethod, ENTRY_HEADER_BYTES, FileName, Finished, GroupSlot, Log, LogConfig, Read,
    ReadRequest, TimeFound, feature,
};

const A: GroupId = GroupId(16);
const B: GroupId = GroupId(17);

fn open(disk: &mut Disk, config: LogConfig) -> Log {
    let (log, told) = open_with(disk, config, &mut Random::new(1)).expect("the log opens");
    assert_eq!(told.damaged, []);
    log
}

/// One turn: a checkpoint where one is wanted, and whatever the disk is asked for.
fn turn(log: &mut Log, disk: &mut Disk, at: u64) {
    if let Some(kind) = log.wants_checkpoint() {
        log.moved_starts(&mut Vec::new());
        log.checkpoint(kind, &mut state());
    }
    let mut ops = Vec::new();
    log.cut(now(at), &mut ops);
    for op in ops {
        let completion = disk.run(op, |slice| log.bytes(slice));
        log.on(completion, now(at));
        log.check();
    }
}

fn settle(log: &mut Log, disk: &mut Disk, at: u64) {
    (0..30).for_each(|_| turn(log, disk, at));
}

/// Appends the trim if there is room: its frame.
fn trim(log: &mut Log, slot: GroupSlot, offset: u64) -> Option<u64> {
    log.room_for_change(Log::TRIM_BYTES).ok()?;
    Some(log.trim(slot, log.last_index(slot) + 1, offset).frame)
}

/// So many closed extents with records of both groups.
fn filled(log: &mut Log, disk: &mut Disk, extents: u64) {
    let mut at = 0;
    while log.stats().live_extents <= extents {
        append(log, A, 3, 1_000);
        append(log, B, 1, 500);
        turn(log, disk, at);
        at += 1;
    }
    settle(log, disk, at);
}

#[test]
fn a_log_start_moves_when_its_entry_is_durable_and_stays_over_restarts() {
    let mut disk = Disk::default();
    let mut log = open(&mut disk, config());
    filled(&mut log, &mut disk, 3);
    let slot = log.group(A).expect("open");
    let end = log.log_end(slot);
    trim(&mut log, slot, end / 2).expect("room");
    assert_eq!((log.log_start(slot), log.coming_start(slot)), (0, end / 2), "it may yet be lost");
    settle(&mut log, &mut disk, 1_000);
    assert_eq!(log.log_start(slot), end / 2);
    let mut moved = Vec::new();
    log.moved_starts(&mut moved);
    assert_eq!(moved, [(slot, end / 2)]);
    for life in 0..4 {
        drop(log);
        disk.crash(&mut Random::new(life));
        log = open(&mut disk, config());
        let slot = log.group(A).expect("known");
        assert_eq!((log.log_start(slot), log.log_end(slot)), (end / 2, end));
        let request = ReadRequest { slot, offset: end / 2 - 1, end_offset: end, max_bytes: 9, token: 1 };
        let below = log.read(&request, &mut Vec::new(), &mut Vec::new());
        assert_eq!(below, Read::BelowStart { log_start: end / 2 });
        let found = read_all(&mut log, &mut disk, slot, end / 2).expect("served");
        assert_eq!(found.last().map(BatchHeader::next_offset), Some(end));
        // From the checkpoint, the next time.
        let (mut at, made) = (0, log.stats().checkpoints);
        while life == 1 && log.stats().checkpoints == made {
            append(&mut log, B, 1, 5_000).expect("room");
            turn(&mut log, &mut disk, at);
            at += 1;
        }
        settle(&mut log, &mut disk, at);
    }
}

/// The start is in nothing but an incremental checkpoint: the entry lies before it, and the group has no new row in it.
#[test]
fn an_incremental_checkpoint_has_the_starts_that_moved() {
    let mut disk = Disk::default();
    let mut log = open(&mut disk, LogConfig { checkpoint_bytes: 1, ..config() });
    filled(&mut log, &mut disk, 2);
    let slot = log.group(A).expect("open");
    // Within the first row: nothing comes back, so nothing asks for a full checkpoint.
    trim(&mut log, slot, 5).expect("room");
    let made = log.stats().checkpoints;
    let mut at = 5_000;
    while log.stats().checkpoints < made + 2 {
        append(&mut log, B, 1, 3_000).expect("room");
        turn(&mut log, &mut disk, at);
        at += 1;
    }
    settle(&mut log, &mut disk, at);
    drop(log);
    let log = open(&mut disk, config());
    let slot = log.group(A).expect("known");
    assert_eq!(log.log_start(slot), 5);
}

#[test]
fn extents_below_all_log_starts_come_back_and_no_others() {
    let mut disk = Disk::default();
    let mut log = open(&mut disk, config());
    filled(&mut log, &mut disk, 6);
    let (a, b) = (log.group(A).expect("open"), log.group(B).expect("open"));
    let (end_a, end_b) = (log.log_end(a), log.log_end(b));
    trim(&mut log, a, end_a).expect("room");
    settle(&mut log, &mut disk, 5_000);
    assert_eq!(log.stats().recycled_extents, 0, "the other group has records in each");
    trim(&mut log, b, end_b).expect("room");
    settle(&mut log, &mut disk, 6_000);
    let stats = log.stats();
    assert!(stats.recycled_extents >= 5 && stats.live_extents <= 2, "{stats:?}");
    append(&mut log, A, 2, 10).expect("room");
    settle(&mut log, &mut disk, 7_000);
    drop(log);
    let mut log = open(&mut disk, config());
    let (a, b) = (log.group(A).expect("known"), log.group(B).expect("known"));
    assert_eq!((log.log_start(a), log.log_end(a)), (end_a, end_a + 2), "offsets go on");
    assert_eq!((log.log_start(b), log.log_end(b)), (end_b, end_b));
    assert_eq!(read_all(&mut log, &mut disk, a, end_a).expect("served").len(), 1);
}

/// The power fails behind every single operation from before the trim until the extents have come back.
#[test]
fn a_crash_at_any_point_leaves_the_old_start_or_the_new_one_and_the_new_one_once_it_was_durable() {
    for method in [DurableMethod::Dsync, DurableMethod::Fdatasync] {
        let config = LogConfig { durable_method: method, ..config() };
        let mut whole = Disk::default();
        drop({
            let mut log = open(&mut whole, config.clone());
            filled(&mut log, &mut whole, 4);
            log
        });
        let (mut outcomes, mut crash_at) = ([0, 0], 0);
        loop {
            let mut disk = whole.clone();
            let mut log = open(&mut disk, config.clone());
            let slot = log.group(A).expect("known");
            let (to, end) = (log.log_end(slot) * 2 / 3, log.log_end(slot));
            let other = log.group(B).expect("known");
            let end_of_other = log.log_end(other);
            trim(&mut log, slot, to).expect("room");
            trim(&mut log, other, end_of_other).expect("room");
            let ended = run_until(&mut log, &mut disk, crash_at);
            let durable = log.log_start(slot) == to;
            drop(log);
            disk.crash(&mut Random::new(crash_at));
            let mut log = open(&mut disk, config.clone());
            let slot = log.group(A).expect("known");
            let start = log.log_start(slot);
            assert!(start == to || (start == 0 && !durable), "{method:?}, crashed at {crash_at}: {start}");
            outcomes[usize::from(start == to)] += 1;
            let found = read_all(&mut log, &mut disk, slot, start).expect("everything is served");
            assert_eq!(found.last().map(BatchHeader::next_offset), Some(end));
            assert!(found.windows(2).all(|pair| pair[1].base_offset == pair[0].next_offset()));
            let other = log.group(B).expect("known");
            assert_eq!(log.log_end(other), end_of_other, "crashed at {crash_at}");
            crash_at += 1;
            if ended {
                break;
            }
        }
        assert!(crash_at > 10 && outcomes.iter().all(|count| *count > 0), "{crash_at}: {outcomes:?}");
    }
}

/// Carries out so many operations; whether there were no more.
fn run_until(log: &mut Log, disk: &mut Disk, crash_at: u64) -> bool {
    let mut done = 0;
    for at in 0..40 {
        if let Some(kind) = log.wants_checkpoint() {
            log.moved_starts(&mut Vec::new());
            log.checkpoint(kind, &mut state());
        }
        let mut ops = Vec::new();
        log.cut(now(at * 2_000), &mut ops);
        for op in ops {
            if done == crash_at {
                return false;
            }
            done += 1;
            let completion = disk.run(op, |slice| log.bytes(slice));
            log.on(completion, now(at * 2_000));
            log.check();
        }
    }
    true
}

/// What is known of a group: acknowledged up to `durable` and trimmed up to `start`, asked for up to `asked`.
#[derive(Clone, Copy, Default, Debug)]
struct Known {
    durable: u64,
    start: u64,
    asked: u64,
}

#[test]
fn storms_of_appends_trims_checkpoints_and_crashes_keep_what_was_promised() {
    let mut trimmed = 0;
    for seed in 1..=120 {
        let mut random = Random::new(seed);
        let mut config = config();
        config.frames_in_flight = 1 + random.below(4) as u8;
        if random.chance(50) {
            config.durable_method = DurableMethod::Fdatasync;
        }
        if random.chance(30) {
            config.retention_bytes = Some(6 * config.extent_bytes);
        }
        let (mut disk, mut known) = (Disk::default(), BTreeMap::new());
        for life in 0..6 {
            let turns = random.below(if life % 2 == 0 { 200 } else { 40 });
            trimmed += live(&mut disk, &config, &mut random, &mut known, turns);
        }
        live(&mut disk, &config, &mut random, &mut known, 0);
    }
    assert!(trimmed > 2_000, "{trimmed} trims were durable");
}

/// Everything acknowledged is there, from a start that is neither before the one that was durable nor behind what was
/// asked for.
fn compare(log: &mut Log, disk: &mut Disk, capped: bool, known: &mut BTreeMap<GroupId, Known>) {
    for (group, known) in known.iter_mut() {
        let slot = log.group(*group);
        let (start, end) = slot.map_or((0, 0), |slot| (log.log_start(slot), log.log_end(slot)));
        assert!(end >= known.durable, "{group}: acknowledged to {}, found {end}", known.durable);
        assert!(start >= known.start, "{group}: the start was at {}, and is at {start}", known.start);
        assert!(capped || start <= known.asked, "{group}: asked for {}, found {start}", known.asked);
        let Some(slot) = slot else { continue };
        let found = read_all(log, disk, slot, start).expect("everything is served");
        let next = found.iter().fold(start, |next, batch| {
            assert!(
                batch.base_offset == next || batch.base_offset < start && next == start,
                "{group}: no gap"
            );
            batch.next_offset()
        });
        assert_eq!(next, end);
        *known = Known {
            durable: end,
            start: if capped { known.start } else { start },
            asked: known.asked.max(start),
        };
    }
}

fn live(
    disk: &mut Disk,
    config: &LogConfig,
    random: &mut Random,
    known: &mut BTreeMap<GroupId, Known>,
    turns: u64,
) -> u64 {
    let (mut log, told) = open_with(disk, config.clone(), random).expect("it opens");
    assert_eq!(told.damaged, []);
    compare(&mut log, disk, config.retention_bytes.is_some(), known);
    let (mut ops, mut waiting, mut clock, mut done) = (Vec::new(), Vec::new(), 0, 0);
    let (mut sent, mut asked) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        clock += random.below(3_000);
        for _ in 0..random.below(4) {
            let group = GroupId(16 + random.below(4));
            let (records, filler) = (1 + random.below(20), random.below(900) as usize);
            let Some(frame) = append(&mut log, group, records, filler) else { continue };
            known.entry(group).or_default();
            sent.push((frame, group, log.log_end(log.group(group).expect("open"))));
        }
        if random.chance(15) {
            let group = GroupId(16 + random.below(4));
            if let Some(slot) = log.group(group) {
                let (start, end) = (log.coming_start(slot), log.log_end(slot));
                let to = start + random.below(end - start + 1);
                if to > start
                    && let Some(frame) = trim(&mut log, slot, to)
                {
                    known.entry(group).or_default().asked = to;
                    asked.push((frame, group, to));
                }
            }
        }
        if let Some(kind) = log.wants_checkpoint() {
            log.moved_starts(&mut Vec::new());
            log.checkpoint(kind, &mut state());
        }
        log.cut(now(clock), &mut ops);
        waiting.append(&mut ops);
        for _ in 0..random.below(5) {
            if waiting.is_empty() {
                break;
            }
            let op = waiting.swap_remove(random.below(waiting.len() as u64) as usize);
            let completion = disk.run(op, |slice| log.bytes(slice));
            log.on(completion, now(clock));
            log.check();
        }
        let durable = log.durable_frame();
        for (_, group, end) in sent.extract_if(.., |(frame, ..)| *frame <= durable) {
            let known = known.get_mut(&group).expect("it was sent to");
            known.durable = known.durable.max(end);
        }
        for (_, group, to) in asked.extract_if(.., |(frame, ..)| *frame <= durable) {
            let known = known.get_mut(&group).expect("it was trimmed");
            known.start = known.start.max(to);
            assert!(log.log_start(log.group(group).expect("open")) >= to);
            done += 1;
        }
    }
    drop(log);
    if random.chance(60) {
        disk.crash(random);
    }
    done
}

/// A log whose frames were all cut at times that are known: one a turn, `step_us` apart.
fn timed(disk: &mut Disk, config: &LogConfig, extents: u64, step_us: u64) -> (Log, Vec<(u64, u64)>) {
    let mut log = open(disk, config.clone());
    let (mut at, mut ends) = (0, Vec::new());
    while log.stats().live_extents <= extents {
        append(&mut log, A, 3, 1_000).expect("room");
        turn(&mut log, disk, at);
        ends.push((now(at).wall_us, log.log_end(log.group(A).expect("open"))));
        at += step_us;
    }
    (log, ends)
}

#[test]
fn what_is_old_or_too_much_goes_row_by_row_and_never_too_early() {
    let mut disk = Disk::default();
    let always = LogConfig { checkpoint_bytes: 1, ..config() };
    let (mut log, ends) = timed(&mut disk, &always, 5, 1_000);
    settle(&mut log, &mut disk, 1_000 * ends.len() as u64);
    drop(log);
    let mut log = open(&mut disk, always);
    let slot = log.group(A).expect("known");
    let end = log.log_end(slot);
    let (mut before, mut starts) = (0, Vec::new());
    for (cut_us, _) in &ends {
        let start = log.expire(slot, Some(*cut_us), None);
        let young = ends.iter().take_while(|(us, _)| us < cut_us).last().map_or(0, |(_, end)| *end);
        assert!(start >= before && start <= young, "what was cut at or after {cut_us} stays");
        if start != before {
            starts.push(start);
        }
        before = start;
    }
    assert!(starts.len() >= 4, "by rows: {starts:?}");
    let after = ends[ends.len() - 1].0 + 1;
    assert_eq!(log.expire(slot, Some(after), None), end, "all of it is old");
    assert_eq!(log.expire(slot, None, None), 0);

    let of_batch = |base: u64| batch(A, base, 3, 1_000).len() as u64 + ENTRY_HEADER_BYTES as u64;
    let bytes = |from: u64| (from..end).step_by(3).map(of_batch).sum::<u64>();
    let mut last = end;
    for keep in (0..60).map(|at| at * 20_000) {
        let start = log.expire(slot, None, Some(keep));
        assert!(start <= last, "more is kept");
        assert!(
            bytes(start) >= keep || start == 0,
            "{keep} are to be kept, from {start} on there are {}",
            bytes(start)
        );
        last = start;
    }
    assert_eq!(last, 0, "there is less than that");
    assert!(log.expire(slot, None, Some(300_000)) > 0);
    // One group's young records in the open extent keep the other's there: an extent is old as a whole.
    append(&mut log, B, 1, 10).expect("room");
    turn(&mut log, &mut disk, 90_000_000);
    let group_b = log.group(B).expect("open");
    assert_eq!(log.expire(group_b, Some(now(90_000_000).wall_us), None), 0);
    assert_eq!(log.expire(group_b, Some(now(90_000_001).wall_us), None), 1);
}

/// Bytes of what was voided and written once more count once.
#[test]
fn bytes_of_frames_that_moved_are_counted_once() {
    let mut disk = Disk::default();
    let mut log = open(&mut disk, config());
    (1..20).for_each(|at| {
        append(&mut log, A, 3, 1_000).expect("room");
        disk.fail_frame_in = (at == 10).then_some(0);
        turn(&mut log, &mut disk, at);
        disk.fail_frame_in = None;
    });
    settle(&mut log, &mut disk, 30);
    assert!(log.stats().moved_frames > 0);
    let slot = log.group(A).expect("open");
    let end = log.log_end(slot);
    let mut at = 40;
    while log.stats().live_extents < 4 {
        append(&mut log, B, 1, 5_000).expect("room");
        turn(&mut log, &mut disk, at);
        at += 1;
    }
    let least = |bytes| log.expire(slot, None, Some(bytes));
    assert_eq!(least(1), log.log_start(slot).max(least(1)), "the last row is needed for one byte");
    assert!(least(19 * 3_600) == 0 && least(0) == end, "{} {}", least(19 * 3_600), least(0));
}

/// Every time, after any trim: what a reader of all that is left would find, a frame's batches taken together.
#[test]
fn offsets_are_found_by_time_among_what_is_left() {
    let mut disk = Disk::default();
    let config = LogConfig { entries_in_window: 16, ..config() };
    let mut log = open(&mut disk, config.clone());
    let mut random = Random::new(5);
    // Times of the batches jump about; one frame a batch, so that a run is a batch.
    let mut batches: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while log.stats().live_extents < 6 {
        let slot = log.open_group(A, TOPIC, A.0 as u32);
        let base_offset = log.log_end(slot);
        let shift = random.below(400);
        let bytes = batch(A, base_offset + shift, 2, 2_000);
        let patch = Patch { base_offset, append_timestamp_us: 5, leader_epoch: log.term() };
        if log.room_for(1, bytes.len()).is_ok() {
            log.append_batch(slot, log.last_index(slot) + 1, &bytes, &patch);
            batches.push((base_offset, 1000 + base_offset + shift + 1));
        }
        turn(&mut log, &mut disk, at);
        at += 1;
    }
    settle(&mut log, &mut disk, at);
    let end = batches.len() as u64 * 2;
    for start in [0, 40, 41, end / 3, end / 2 + 1, end - 4, end - 1, end] {
        let slot = log.group(A).expect("known");
        if start > log.log_start(slot) {
            trim(&mut log, slot, start).expect("room");
        }
        settle(&mut log, &mut disk, at + start);
        for restarted in [false, true] {
            if restarted {
                drop(log);
                log = open(&mut disk, config.clone());
            }
            let slot = log.group(A).expect("known");
            for time_us in (900..1000 + end + 500).step_by(7) {
                let kept = batches.iter().filter(|(base, _)| base + 1 >= start);
                let expected = kept.clone().find(|(_, newest)| *newest >= time_us);
                let expected = expected.map(|(base, newest)| ((*base).max(start), *newest));
                assert_eq!(
                    by_time(&mut log, &mut disk, slot, time_us),
                    expected,
                    "{time_us}, from {start} on"
                );
            }
        }
    }
}

fn by_time(log: &mut Log, disk: &mut Disk, slot: GroupSlot, time_us: u64) -> Option<(u64, u64)> {
    let (mut ops, mut over) = (Vec::new(), Vec::<Finished>::new());
    for _ in 0..50 {
        match log.offset_for_time(slot, time_us, 3, &mut ops) {
            TimeFound::At { offset, timestamp_us } => return Some((offset, timestamp_us)),
            TimeFound::End => return None,
            TimeFound::Pending | TimeFound::Busy => {}
        }
        for op in std::mem::take(&mut ops) {
            let completion = disk.run(op, |slice| log.bytes(slice));
            log.on(completion, now(0));
        }
        log.finished(&mut over);
        turn(log, disk, 0);
    }
    panic!("an index is loaded in the end");
}

/// A store of an older version: nothing of this is written to it, and what it has is read with it as without it.
#[test]
fn without_the_feature_rows_are_what_they_were_and_with_it_both_kinds_are_read() {
    let without = LogConfig { features: feature::ALL & !feature::RETENTION, checkpoint_bytes: 1, ..config() };
    let mut disk = Disk::default();
    let (mut log, _) = timed(&mut disk, &without, 3, 1_000);
    let slot = log.group(A).expect("open");
    settle(&mut log, &mut disk, 900_000);
    assert!(!log.has(feature::RETENTION));
    drop(log);
    let mut older = open(&mut disk.clone(), without);
    let with = LogConfig { checkpoint_bytes: 1, ..config() };
    let mut log = open(&mut disk, with.clone());
    assert_eq!(log.log_end(slot), older.log_end(slot));
    assert_eq!(log.expire(slot, None, Some(300_000)), 0, "nobody has counted what is not read again");
    older.cut(now(0), &mut Vec::new());
    settle(&mut log, &mut disk, 900_000);
    assert!(log.has(feature::RETENTION), "it is final by now");
    let end = log.log_end(slot);
    let mut at = 1_000_000;
    while log.stats().live_extents < 8 {
        append(&mut log, A, 3, 1_000).expect("room");
        turn(&mut log, &mut disk, at);
        at += 1;
    }
    settle(&mut log, &mut disk, at);
    drop(log);
    let mut log = open(&mut disk, with);
    let slot = log.group(A).expect("known");
    assert!(log.expire(slot, None, Some(200_000)) >= end, "what is counted is enough");
    trim(&mut log, slot, end).expect("room");
    settle(&mut log, &mut disk, at);
    assert_eq!(log.log_start(slot), end);
}

#[test]
#[should_panic(expected = "an older version could not read it")]
fn no_trim_is_written_without_the_feature() {
    let without = LogConfig { features: feature::ALL & !feature::RETENTION, ..config() };
    let mut log = open(&mut Disk::default(), without);
    append(&mut log, A, 3, 10).expect("room");
    let slot = log.group(A).expect("open");
    trim(&mut log, slot, 1);
}

/// Frames below a trim that the disk lost are nobody's loss any more.
#[test]
fn damage_below_a_log_start_is_not_missed() {
    let mut disk = Disk::default();
    let mut log = open(&mut disk, config());
    for at in 0..6 {
        append(&mut log, A, 2, 100).expect("room");
        turn(&mut log, &mut disk, at);
    }
    let slot = log.group(A).expect("open");
    trim(&mut log, slot, 12).expect("room");
    settle(&mut log, &mut disk, 90_000);
    append(&mut log, A, 2, 100).expect("room");
    settle(&mut log, &mut disk, 99_000);
    drop(log);
    // The entries of the last batch that went, and the header of its frame.
    let extent = FileName::Extent(0);
    let frames: Vec<usize> =
        (0..64).map(|at| at * 4096).filter(|at| disk.files[&extent].live[*at..at + 4] == *b"CLF1").collect();
    disk.damage(extent, frames[6] + 20);
    disk.damage(extent, frames[6] + 140);
    let (mut log, told) = open_with(&mut disk, config(), &mut Random::new(1)).expect("it opens");
    let slot = log.group(A).expect("known");
    assert!(told.damaged.iter().all(|(group, ..)| group.is_none()), "{told:?}");
    assert_eq!((log.log_start(slot), log.log_end(slot)), (12, 14));
    assert_eq!(read_all(&mut log, &mut disk, slot, 12).expect("served").len(), 1);
}

/// Runs turns for a while: how many extents were made and removed.
fn churn(log: &mut Log, disk: &mut Disk, clock: &mut u64, turns: u64, step_us: u64) -> (u32, u32) {
    let (mut made, mut removed) = (0, 0);
    for _ in 0..turns {
        *clock += step_us;
        append(log, A, 2, 2_000);
        if let Some(kind) = log.wants_checkpoint() {
            log.moved_starts(&mut Vec::new());
            log.checkpoint(kind, &mut state());
        }
        let mut ops = Vec::new();
        log.cut(now(*clock), &mut ops);
        for op in ops {
            made += u32::from(matches!(op, DiskOp::CreateExtent { .. }));
            removed += u32::from(matches!(op, DiskOp::Remove { .. }));
            let completion = disk.run(op, |slice| log.bytes(slice));
            log.on(completion, now(*clock));
            log.check();
        }
    }
    (made, removed)
}

/// Under the log's own cap extents go round; none is made or removed once they do, however long it takes.
#[test]
fn under_the_logs_cap_no_extent_is_made_or_removed() {
    let mut disk = Disk::default();
    let capped =
        LogConfig { retention_bytes: Some(6 * config().extent_bytes), spare_idle_us: 1_000, ..config() };
    let (mut log, mut clock) = (open(&mut disk, capped), 0);
    churn(&mut log, &mut disk, &mut clock, 600, 100);
    let before = log.stats().recycled_extents;
    assert_eq!(churn(&mut log, &mut disk, &mut clock, 2_000, 100), (0, 0));
    assert!(log.stats().recycled_extents > before + 20);
}

/// All records go, and what held them is first kept, then given back one after the other, but for a few; also by a start.
#[test]
fn space_that_nobody_needs_for_a_while_goes_back_to_the_file_system() {
    let mut disk = Disk::default();
    let mut log = open(&mut disk, config());
    filled(&mut log, &mut disk, 12);
    let extents = |disk: &Disk| disk.files.keys().filter(|name| matches!(name, FileName::Extent(_))).count();
    for group in [A, B] {
        let slot = log.group(group).expect("open");
        let end = log.log_end(slot);
        trim(&mut log, slot, end).expect("room");
    }
    settle(&mut log, &mut disk, 9_000_000);
    assert!(log.stats().spare_extents >= 12 && extents(&disk) >= 13, "{:?}", log.stats());
    let due_us = log.next_deadline().expect("it is to be looked at");
    assert!(due_us <= 9_000_000 + 60_000_000, "{due_us}");
    settle(&mut log, &mut disk, 50_000_000);
    assert!(extents(&disk) >= 13, "they may be needed");
    settle(&mut log, &mut disk, 120_000_000);
    settle(&mut log, &mut disk, 190_000_000);
    let stats = log.stats();
    assert_eq!((stats.spare_extents, extents(&disk) as u64), (5, 5 + stats.live_extents));
    assert_eq!(log.next_deadline(), None, "nothing is left to do");
    drop(log);
    // A removal that a crash took back, as it were.
    for number in 90..95 {
        let other = disk.files.iter().find(|(name, _)| matches!(name, FileName::Extent(_)));
        let other = other.expect("there is one").1.clone();
        disk.files.insert(FileName::Extent(number), other);
    }
    let mut log = open(&mut disk, config());
    settle(&mut log, &mut disk, 10);
    settle(&mut log, &mut disk, 70_000_000);
    settle(&mut log, &mut disk, 140_000_000);
    assert_eq!(log.stats().spare_extents, 5, "{:?}", log.stats());
    append(&mut log, A, 1, 10).expect("room");
    settle(&mut log, &mut disk, 141_000_000);
    let slot = log.group(A).expect("known");
    let start = log.log_start(slot);
    assert_eq!(read_all(&mut log, &mut disk, slot, start).expect("served").len(), 1);
}

/// The power fails behind every single removal, and a removal that failed is not repeated with another file's place.
#[test]
fn a_crash_among_removals_leaves_a_log_that_opens() {
    let quick = LogConfig { spare_idle_us: 10_000, ..config() };
    let mut whole = Disk::default();
    let mut log = open(&mut whole, quick.clone());
    filled(&mut log, &mut whole, 9);
    let ends: Vec<u64> = [A, B].iter().map(|group| log.log_end(log.group(*group).expect("open"))).collect();
    drop(log);
    let mut crash_at = 0;
    loop {
        let mut disk = whole.clone();
        let mut log = open(&mut disk, quick.clone());
        for (group, end) in [A, B].iter().zip(&ends) {
            let slot = log.group(*group).expect("known");
            trim(&mut log, slot, *end).expect("room");
        }
        let ended = run_until(&mut log, &mut disk, crash_at);
        drop(log);
        disk.crash(&mut Random::new(crash_at));
        let mut log = open(&mut disk, quick.clone());
        for (group, end) in [A, B].iter().zip(&ends) {
            assert_eq!(log.log_end(log.group(*group).expect("known")), *end, "crashed at {crash_at}");
        }
        append(&mut log, A, 1, 10).expect("room");
        settle(&mut log, &mut disk, 1);
        crash_at += 1;
        if ended {
            break;
        }
    }
    assert!(crash_at > 15, "{crash_at}");
}
