//! Frames whose headers are lost: what they held is named by whatever else tells of it, or called possible.

use crate::disk::{Disk, Random, Told, append, config, now, open_with, read_all, state};
use crate::failures::settle;
use crate::index::{checkpoints, damage_footers, places};
use corelog_model::{GroupId, LogId};
use corelog_storage::{CheckpointKind, EntryKind, FileName, FrameHeader, FrameSeed, Log, LogConfig, Read};

const A: GroupId = GroupId(16);
const B: GroupId = GroupId(17);
/// Has one batch, in frame 3.
const C: GroupId = GroupId(18);

fn open(disk: &mut Disk, config: LogConfig) -> (Log, Told) {
    open_with(disk, config, &mut Random::new(1)).expect("the log opens")
}

/// Frames 2 to 4 hold A and B, frame 3 also C; frame 1 is the start.
fn three_frames(disk: &mut Disk, config: LogConfig) -> Log {
    let (mut log, _) = open(disk, config);
    for frame in 2..=4 {
        append(&mut log, A, 4, 100).expect("room");
        append(&mut log, B, 4, 100).expect("room");
        if frame == 3 {
            append(&mut log, C, 4, 100).expect("room");
        }
        settle(&mut log, disk, 1);
        assert_eq!(log.durable_frame(), frame);
    }
    log
}

/// Flips a bit in the header of a frame.
fn lose(disk: &mut Disk, sequence: u64) {
    let seed = FrameSeed { store: 0xC0FFEE, log: LogId(3) };
    let holds = |file: &crate::disk::File| {
        let sectors = file.live.chunks(4096).enumerate();
        let mut headers =
            sectors.filter_map(|(at, bytes)| FrameHeader::decode(bytes, seed, at as u64 * 4096));
        headers.find(|header| header.sequence == sequence).map(|header| header.position)
    };
    let extents = disk.files.iter().filter(|(name, _)| matches!(name, FileName::Extent(_)));
    let mut found = extents.filter_map(|(name, file)| Some((*name, holds(file)?)));
    let (name, position) = found.next().expect("the frame is somewhere");
    assert!(found.next().is_none(), "and nowhere else");
    disk.damage(name, position as usize + 20);
}

fn of_groups(told: &Told) -> Vec<(GroupId, u64, u64)> {
    told.damaged.iter().filter_map(|(group, first, last)| Some(((*group)?, *first, *last))).collect()
}

fn damaged(log: &mut Log, disk: &mut Disk, group: GroupId, first: u64, last: u64) {
    let slot = log.group(group).expect("replayed");
    assert_eq!(read_all(log, disk, slot, first).unwrap_err(), Read::Damaged { first, last }, "group {group}");
}

#[test]
fn the_next_batch_of_each_group_tells_what_is_missing_and_without_one_it_stays_possible() {
    let mut disk = Disk::default();
    let mut log = three_frames(&mut disk, config());
    settle(&mut log, &mut disk, 1_000_000);
    drop(log);
    lose(&mut disk, 3);
    let (mut log, told) = open(&mut disk, config());
    assert_eq!((told.damaged[0], told.tail_cut), ((None, 3, 3), 0));
    assert_eq!(of_groups(&told), [(A, 4, 7), (B, 4, 7)]);
    assert_eq!(told.possibly_lost, [], "A and B go on; nothing is left that tells that C was ever there");
    damaged(&mut log, &mut disk, A, 4, 7);
    // Its owner knows that it is there, as it knows of D, which never had a record: of both that stays possible.
    let [c, d] = [C, GroupId(19)].map(|group| log.open_group(group, crate::disk::TOPIC, group.0 as u32));
    log.open_group(C, crate::disk::TOPIC, C.0 as u32);
    assert_eq!(log.possibly_lost().collect::<Vec<_>>(), [(c, 0), (d, 0)]);
    assert_eq!(log.stats().uncertain_groups, 2);
    log.drop_unopened();
    log.open_group(GroupId(20), crate::disk::TOPIC, 20);
    assert_eq!(log.possibly_lost().count(), 2, "what comes later has lost nothing");
}

#[test]
fn the_newest_records_of_a_group_are_called_possibly_lost_when_nothing_follows_them() {
    let mut disk = Disk::default();
    let mut log = three_frames(&mut disk, config());
    // The beacon proves frame 4, and tells nothing of what it held.
    settle(&mut log, &mut disk, 1_000_000);
    assert_eq!(log.stats().beacons, 1);
    drop(log);
    lose(&mut disk, 4);
    let (log, told) = open(&mut disk, config());
    assert_eq!((&told.damaged[..], told.tail_cut), (&[(None, 4, 4)][..], 0));
    assert_eq!(told.possibly_lost, [(A, 8), (B, 8), (C, 4)]);
    assert_eq!(log.stats().uncertain_groups, 3);
    let known: Vec<u64> = log.possibly_lost().map(|(_, first)| first).collect();
    assert_eq!(known, [8, 8, 4]);
}

#[test]
fn a_later_full_checkpoint_tells_where_every_group_ended() {
    let mut disk = Disk::default();
    let always = LogConfig { checkpoint_bytes: 1, ..config() };
    let mut log = three_frames(&mut disk, always.clone());
    assert_eq!(log.wants_checkpoint(), Some(CheckpointKind::Full));
    log.checkpoint(CheckpointKind::Full, &mut state());
    settle(&mut log, &mut disk, 1);
    append(&mut log, A, 4, 100).expect("room");
    settle(&mut log, &mut disk, 1_000_000);
    assert_eq!(log.stats().checkpoints, 1);
    drop(log);
    lose(&mut disk, 3);
    let (mut log, told) = open(&mut disk, always);
    assert_eq!(of_groups(&told), [(A, 4, 7), (B, 4, 7), (C, 0, 3)]);
    assert_eq!(told.possibly_lost, []);
    for (group, first) in [(A, 4), (B, 4), (C, 0)] {
        damaged(&mut log, &mut disk, group, first, first + 3);
    }
    let slot = log.group(A).expect("replayed");
    assert_eq!(read_all(&mut log, &mut disk, slot, 8).expect("the rest is served").len(), 2);
}

#[test]
fn the_index_of_the_extent_tells_what_its_lost_frames_held() {
    let mut disk = Disk::default();
    let mut log = three_frames(&mut disk, config());
    // On into a second extent, which holds the index of the first.
    let mut turn = 2;
    while log.stats().live_extents < 2 {
        append(&mut log, A, 4, 2_000).expect("room");
        settle(&mut log, &mut disk, turn);
        turn += 1;
    }
    settle(&mut log, &mut disk, turn);
    drop(log);
    lose(&mut disk, 3);
    lose(&mut disk, 4);
    let (mut log, told) = open(&mut disk, config());
    let mut named = of_groups(&told);
    named.sort_unstable();
    assert_eq!(named, [(A, 4, 11), (B, 4, 7), (B, 8, 11), (C, 0, 3)]);
    assert_eq!((told.possibly_lost, log.log_end(log.group(C).expect("told"))), (vec![], 4));
    damaged(&mut log, &mut disk, C, 0, 3);
}

#[test]
fn a_gap_that_an_earlier_start_named_is_never_passed_over_by_a_later_one() {
    let mut disk = Disk::default();
    let always = LogConfig { checkpoint_bytes: 1, ..config() };
    let mut log = three_frames(&mut disk, always.clone());
    settle(&mut log, &mut disk, 1_000_000);
    drop(log);
    lose(&mut disk, 3);
    // This start names it. Its checkpoints make the extent unnecessary for the starts after it.
    let (mut log, told) = open(&mut disk, always.clone());
    assert_eq!(of_groups(&told), [(A, 4, 7), (B, 4, 7)]);
    for turn in 0..4 {
        append(&mut log, A, 4, 100).expect("room");
        settle(&mut log, &mut disk, turn);
        if let Some(kind) = log.wants_checkpoint() {
            log.checkpoint(kind, &mut state());
        }
        settle(&mut log, &mut disk, 1_000_000 + turn);
    }
    drop(log);
    let (mut log, told) = open(&mut disk, always);
    assert_eq!(told.damaged, [], "the lost frame is before the checkpoint");
    damaged(&mut log, &mut disk, A, 4, 7);
    damaged(&mut log, &mut disk, B, 4, 7);
    let slot = log.group(A).expect("listed");
    assert_eq!(read_all(&mut log, &mut disk, slot, 0).unwrap_err(), Read::Damaged { first: 4, last: 7 });
    let after = read_all(&mut log, &mut disk, slot, 8).expect("the rest is served");
    assert_eq!(after.len(), 5);
}

/// A superblock names a checkpoint once all up to its end is durable. Where nothing but the checkpoint itself was written
/// behind a damaged frame, and its header was cut before that frame was known to be durable, the frame was taken for
/// the tail: what was acknowledged was gone, and with it the checkpoint, so that the start after this one was refused.
#[test]
fn what_lies_before_the_newest_checkpoint_is_never_the_tail() {
    let mut disk = Disk::default();
    let always = LogConfig { checkpoint_bytes: 1, ..config() };
    let (mut log, _) = open(&mut disk, always.clone());
    append(&mut log, A, 4, 100).expect("room");
    let mut ops = Vec::new();
    log.cut(now(1), &mut ops);
    let written = log.durable_frame() + 1;
    // The frame of the batch is on its way when the one of the checkpoint is cut.
    log.checkpoint(CheckpointKind::Full, &mut state());
    log.cut(now(1), &mut ops);
    for op in ops {
        let completion = disk.run(op, |slice| log.bytes(slice));
        log.on(completion, now(1));
    }
    settle(&mut log, &mut disk, 2);
    assert_eq!((log.stats().checkpoints, log.stats().beacons), (1, 0));
    drop(log);
    lose(&mut disk, written);
    for start in 1..=2 {
        let (mut log, told) = open(&mut disk, always.clone());
        assert_eq!(told.tail_cut, 0, "start {start}");
        assert_eq!(log.log_end(log.group(A).expect("listed")), 4, "start {start}");
        damaged(&mut log, &mut disk, A, 0, 3);
    }
}

/// The index was derived from the frames, found them, and readers were given the old ones in place of the new.
#[test]
fn what_a_start_could_not_tell_of_behind_damage_does_not_come_back_in_place_of_what_was_given_its_offsets() {
    let mut disk = Disk::default();
    let mut log = three_frames(&mut disk, config());
    settle(&mut log, &mut disk, 1_000_000);
    drop(log);
    // The first entry of frame 4 hides where the second one begins, which is whole.
    let of_first = places(&disk, EntryKind::Batch).remove(0);
    let [.., hides, _] = of_first.entries[..] else { panic!("{:?}", of_first.entries) };
    disk.damage(of_first.name, hides + 20);
    let always = LogConfig { checkpoint_bytes: 1, ..config() };
    let (mut log, _) = open(&mut disk, always.clone());
    let slot = log.group(B).expect("replayed");
    assert_eq!(log.log_end(slot), 8, "of the third batch of the group nothing tells");
    let mut turn = 0;
    while log.stats().live_extents <= 4 {
        append(&mut log, B, 4, 2_000).expect("room");
        checkpoints(&mut log, &mut disk, turn);
        turn += 1;
    }
    (turn..turn + 3).for_each(|turn| checkpoints(&mut log, &mut disk, turn));
    drop(log);
    assert!(damage_footers(&mut disk) >= 2);
    let (mut log, _) = open(&mut disk, always);
    let slot = log.group(B).expect("listed");
    let found = read_all(&mut log, &mut disk, slot, 0).expect("served");
    let terms: Vec<_> = found.iter().map(|batch| (batch.base_offset, batch.leader_epoch.0)).take(3).collect();
    assert_eq!(terms, [(0, 1), (4, 1), (8, 2)]);
    assert!(log.stats().derived_indexes > 0);
}
