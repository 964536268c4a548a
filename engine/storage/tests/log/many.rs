//! Many groups: checkpoints larger than the live window, cut short anywhere; recovery and index of a thousand.

use std::collections::BTreeMap;

use crate::disk::{Disk, Random, append, config, now, open_with, read_all};
use corelog_model::GroupId;
use corelog_storage::{CheckpointKind, DiskOp, EntryKind, Full, Log, LogConfig, Parts};

/// The window of these tests, all blocks together.
const WINDOW_BYTES: usize = 256 << 10;

fn settings() -> LogConfig {
    LogConfig { extent_bytes: 1 << 20, checkpoint_bytes: 1 << 20, entries_in_window: 1024, ..config() }
}

/// The disk does one operation; false when nothing is asked of it.
fn step(log: &mut Log, disk: &mut Disk, ops: &mut Vec<DiskOp>) -> bool {
    if ops.is_empty() {
        log.cut(now(1), ops);
    }
    if ops.is_empty() {
        return false;
    }
    let op = ops.remove(0);
    if let DiskOp::WriteFrame { source, .. } = &op {
        assert!(source.length as usize <= settings().max_frame_bytes(), "a frame is bounded");
    }
    let completion = disk.run(op, |slice| log.bytes(slice));
    log.on(completion, now(1));
    true
}

fn settle(log: &mut Log, disk: &mut Disk) {
    let mut ops = Vec::new();
    while step(log, disk, &mut ops) {}
}

/// Appends to every one of the groups, as often as there is no room letting the disk work.
fn append_to_all(log: &mut Log, disk: &mut Disk, groups: u64) {
    for group in 0..groups {
        while append(log, GroupId(16 + group), 1, 0).is_none() {
            settle(log, disk);
        }
    }
    settle(log, disk);
}

/// An owner's entry; gives back its index.
fn change(log: &mut Log, disk: &mut Disk) -> u64 {
    while log.room_for_change(8).is_err() {
        settle(log, disk);
    }
    let index = 1 + log.group(GroupId::METADATA).map_or(0, |slot| log.last_index(slot));
    log.append_control(EntryKind::Metadata, GroupId::METADATA, index, &index.to_le_bytes());
    index
}

/// The owner's state: the index of its last entry, in many parts.
fn owner_state(index: u64, parts: usize) -> Parts {
    let mut state = Parts::default();
    (0..parts).for_each(|_| state.push(&index.to_le_bytes().repeat(2500)));
    state
}

/// Ten thousand groups and more state of the owner than the window holds: the checkpoint is cut short after any number
/// of operations, with entries between its parts. The next start has the one before it or this one, whole, and every
/// entry behind its first part.
#[test]
fn a_checkpoint_that_is_cut_between_its_parts_leaves_the_one_before_it_in_force() {
    const GROUPS: u64 = 10_000;
    const PARTS: usize = 60;
    const { assert!(PARTS * 20_000 > 4 * WINDOW_BYTES, "it does not fit the window") };
    let (mut disk, mut random) = (Disk::default(), Random::new(4));
    let (mut log, _) = open_with(&mut disk, settings(), &mut random).expect("it opens");
    append_to_all(&mut log, &mut disk, GROUPS);
    let first = change(&mut log, &mut disk);
    assert_eq!(log.wants_checkpoint(), Some(CheckpointKind::Full));
    let mut state = owner_state(first, PARTS);
    log.checkpoint(CheckpointKind::Full, &mut state);
    settle(&mut log, &mut disk);
    assert_eq!(log.stats().checkpoints, 1);
    append_to_all(&mut log, &mut disk, GROUPS);
    drop(log);

    let (mut whole, mut cut, mut in_force) = (0, 0, first);
    for round in 0.. {
        let (mut log, told) =
            open_with(&mut disk, settings(), &mut random).expect("an incomplete one is ignored");
        assert_eq!(told.damaged, []);
        assert_eq!(log.stats().groups, GROUPS + 1);
        let ends = (0..GROUPS).map(|group| log.log_end(log.group(GroupId(16 + group)).expect("known")));
        assert!(ends.min() >= Some(2));
        assert_eq!(told.checkpoint.len(), PARTS * 20_000, "all parts or none");
        let (covered, rest) = told.checkpoint.split_first_chunk::<8>().expect("an index");
        assert!(rest.chunks(8).all(|index| index == covered || index.len() < 8), "parts of one checkpoint");
        let covered = u64::from_le_bytes(*covered);
        (whole, cut) = if covered > in_force { (whole + 1, cut) } else { (whole, cut + 1) };
        in_force = covered;
        let changes: Vec<u64> = told
            .entries
            .iter()
            .filter(|(kind, ..)| *kind == EntryKind::Metadata)
            .map(|entry| entry.2)
            .collect();
        let last = log.last_index(log.group(GroupId::METADATA).expect("known"));
        assert_eq!(changes, (covered + 1..=last).collect::<Vec<u64>>(), "what it does not hold is replayed");
        if whole > 2 && cut > 10 {
            break;
        }
        assert!(round < 100, "{whole} whole, {cut} cut");
        while log.wants_checkpoint().is_none() {
            append_to_all(&mut log, &mut disk, 2_000);
        }
        let mut state = owner_state(change(&mut log, &mut disk), PARTS);
        log.checkpoint(CheckpointKind::Full, &mut state);
        let (mut ops, mut left) = (Vec::new(), random.below(320));
        while left > 0 && step(&mut log, &mut disk, &mut ops) {
            if left % 7 == 0 && log.room_for_change(8).is_ok() {
                change(&mut log, &mut disk);
            }
            left -= 1;
        }
        drop((log, ops));
        disk.crash(&mut random);
    }
}

/// A thousand groups over many extents, restarted and recycled: every group is where it was, terms rise, and the index
/// in memory is bounded by what the log keeps, not by what it has seen.
#[test]
fn a_thousand_groups_are_recovered_and_their_index_is_bounded() {
    const GROUPS: u64 = 1_000;
    const KEPT: u64 = 4;
    let capped = LogConfig { retention_bytes: Some(KEPT << 20), ..settings() };
    let (mut disk, mut random) = (Disk::default(), Random::new(8));
    let mut ends = BTreeMap::new();
    let mut most_bytes = 0;
    for life in 1..=6 {
        let (mut log, told) = open_with(&mut disk, capped.clone(), &mut random).expect("it opens");
        assert_eq!((told.damaged.len(), log.term().0), (0, life));
        for (group, end) in &ends {
            let slot = log.group(GroupId(*group)).expect("it had records");
            assert_eq!(log.log_end(slot), *end, "group {group}");
            if group % 100 == 0 {
                let start = log.log_start(slot);
                let found = read_all(&mut log, &mut disk, slot, start).expect("served");
                assert_eq!(found.last().map(|batch| batch.next_offset()), (start < *end).then_some(*end));
                assert!(found.windows(2).all(|pair| pair[0].leader_epoch <= pair[1].leader_epoch));
                assert!(found.iter().all(|batch| batch.leader_epoch.0 < life), "epochs of their time");
            }
        }
        for _ in 0..12 {
            append_to_all(&mut log, &mut disk, GROUPS);
            if let Some(kind) = log.wants_checkpoint() {
                log.checkpoint(kind, &mut owner_state(life.into(), 1));
                settle(&mut log, &mut disk);
            }
        }
        for group in 16..16 + GROUPS {
            ends.insert(group, log.log_end(log.group(GroupId(group)).expect("open")));
        }
        most_bytes = most_bytes.max(log.stats().index_bytes);
        drop(log);
        disk.crash(&mut random);
    }
    // Rows of 32 bytes of each group and extent kept, runs of 48 bytes of the open extent and of nine closed ones; a
    // batch of these takes 400 bytes of an extent at least.
    let bound = (KEPT + 4) * GROUPS * 32 + 10 * ((1 << 20) / 400) * 64;
    assert!(most_bytes > GROUPS * 32 && most_bytes < bound, "{most_bytes} bytes, {bound} allowed");
    assert!(ends.values().all(|end| *end == 72));
}

/// Appends a batch of 2,000 bytes to every one of the groups until the log takes none.
fn fill(log: &mut Log, disk: &mut Disk, groups: std::ops::Range<u64>) -> Full {
    for group in groups.cycle() {
        while append(log, GroupId(group), 1, 2_000).is_none() {
            settle(log, disk);
            if let Some(kind) = log.wants_checkpoint() {
                log.checkpoint(kind, &mut owner_state(1, 1));
            }
            match log.room_for(1, 2_000) {
                Ok(()) | Err(Full::Window) => {}
                Err(full) => return full,
            }
        }
    }
    unreachable!("it goes round")
}

/// The memory of level 1 is bounded, whatever is on the disk: what would grow it is refused, what makes room is not, and
/// reads go on. A start with the same bound is where the last one was, one with a larger bound goes on.
#[test]
fn an_index_that_has_its_memory_refuses_batches_until_a_group_goes() {
    const GROUPS: u64 = 100;
    const ROWS: u64 = 1_500;
    let groups = 16..16 + GROUPS;
    // 32 bytes a row, for which 64 are reckoned, since lists grow by doubling.
    let bounded = |rows| LogConfig { index_bytes: Some(80 * rows), ..settings() };
    let (mut disk, mut random) = (Disk::default(), Random::new(11));
    let (mut log, _) = open_with(&mut disk, bounded(ROWS), &mut random).expect("it opens");
    assert_eq!(fill(&mut log, &mut disk, groups.clone()), Full::Index);
    settle(&mut log, &mut disk);
    let full = log.stats();
    assert!(full.index_full && !full.full, "{full:?}");
    // What was appended by then has its rows all the same.
    let rows = (full.live_extents - 1) * GROUPS;
    assert!((ROWS..=ROWS + 2 * GROUPS).contains(&rows), "{rows} rows");
    assert_eq!(log.room_for_change(100), Ok(()), "a topic can be deleted");
    let slot = |log: &Log, group| log.group(GroupId(group)).expect("known");
    for group in groups.clone().step_by(10) {
        let slot = slot(&log, group);
        let found = read_all(&mut log, &mut disk, slot, 0).expect("reads go on");
        assert_eq!(found.last().map(|batch| batch.next_offset()), Some(log.log_end(slot)));
    }
    drop(log);

    let (mut log, _) = open_with(&mut disk, bounded(ROWS), &mut random).expect("it opens");
    assert_eq!(log.room_for(1, 1000), Err(Full::Index), "it counts what is on the disk");
    for group in groups.clone().take(40) {
        let slot = slot(&log, group);
        log.drop_group(slot);
    }
    log.check();
    assert_eq!((log.room_for(1, 1000), log.stats().index_full), (Ok(()), false));
    assert_eq!(fill(&mut log, &mut disk, groups.start + 40..groups.end), Full::Index);
    log.check();
    drop(log);

    let (mut log, _) = open_with(&mut disk, bounded(10 * ROWS), &mut random).expect("it opens");
    assert_eq!((log.room_for(1, 1000), log.stats().index_full), (Ok(()), false));
}

/// Retention takes rows with the extents, and their memory with them.
#[test]
fn an_index_below_its_bound_by_retention_never_refuses() {
    const GROUPS: u64 = 50;
    let bounded =
        LogConfig { retention_bytes: Some(20 << 20), index_bytes: Some(80 * GROUPS * 24), ..settings() };
    let (mut disk, mut random) = (Disk::default(), Random::new(12));
    let (mut log, _) = open_with(&mut disk, bounded, &mut random).expect("it opens");
    for _ in 0..60 {
        for group in 16..16 + GROUPS {
            while append(&mut log, GroupId(group), 1, 20_000).is_none() {
                settle(&mut log, &mut disk);
                if let Some(kind) = log.wants_checkpoint() {
                    log.checkpoint(kind, &mut owner_state(1, 1));
                }
                assert_ne!(log.room_for(1, 20_000), Err(Full::Index), "{:?}", log.stats());
            }
        }
        log.check();
    }
    assert!(log.stats().recycled_extents > 20, "{:?}", log.stats());
}
