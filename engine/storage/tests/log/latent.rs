//! Sectors that never answer, and damage in the midst of a frame: exactly what is in them is named, all else is served.

use crate::disk::{Disk, Random, append, config, now, open_with, read_all};
use crate::failures::settle;
use crate::index::{damage_footers, listed, places};
use corelog_model::GroupId;
use corelog_storage::{ENTRY_HEADER_BYTES, EntryKind, FileName, Finished, Log, Read, ReadRequest};

const A: GroupId = GroupId(16);
const B: GroupId = GroupId(17);

fn open(disk: &mut Disk) -> Log {
    open_with(disk, config(), &mut Random::new(1)).expect("the log opens").0
}

/// Asserts that of the group just these offsets are missing, and named.
fn only_missing(log: &mut Log, disk: &mut Disk, group: GroupId, missing: &[(u64, u64)], what: &str) {
    let slot = log.group(group).expect("replayed");
    let (mut offset, mut met) = (log.log_start(slot), Vec::new());
    while offset < log.log_end(slot) {
        match read_all(log, disk, slot, offset) {
            Ok(_) => break,
            Err(Read::Damaged { first, last }) => {
                met.push((first, last));
                offset = last + 1;
            }
            Err(other) => panic!("{what}: {other:?} at {offset}"),
        }
    }
    assert_eq!(met, missing, "{what}: group {group}");
}

#[test]
fn a_sector_that_never_answers_is_lost_and_exactly_its_records_are_named() {
    let mut disk = Disk::default();
    let always = listed(&mut disk, config(), 4);
    // A frame here is a sector: one batch of each group.
    let oldest = places(&disk, EntryKind::Batch).remove(0);
    let place = (oldest.name, oldest.entries[2] + ENTRY_HEADER_BYTES);
    for (what, footers, short) in
        [("batches", false, false), ("batches, short", false, true), ("an index", true, false)]
    {
        let mut disk = Disk { short, ..disk.clone() };
        if footers {
            damage_footers(&mut disk);
        }
        let (mut log, _) = open_with(&mut disk, always.clone(), &mut Random::new(1)).expect("it opens");
        disk.unreadable = Some(place);
        only_missing(&mut log, &mut disk, A, &[(1, 1)], what);
        only_missing(&mut log, &mut disk, B, &[(1, 1)], what);
        let stats = log.stats();
        assert_eq!(stats.damaged_ranges, 2, "{what}");
        assert!(stats.lost_sectors >= 1, "{what}");
        // What is named stays named while the log is open, also when the disk changes its mind.
        disk.unreadable = None;
        only_missing(&mut log, &mut disk, A, &[(1, 1)], what);
    }
}

/// Where the batches of one frame of three of A, each of some sectors, with one of B before the last, lie.
fn frame_of_three(disk: &mut Disk) -> (FileName, Vec<usize>) {
    let mut log = open(disk);
    let sizes = [(A, 5_000), (A, 4_500), (B, 100), (A, 4_000)];
    for (group, bytes) in sizes {
        append(&mut log, group, 2, bytes / 2).expect("room");
    }
    settle(&mut log, disk, 1);
    settle(&mut log, disk, 1_000_000);
    let batches = places(disk, EntryKind::Batch).into_iter().find(|places| !places.entries.is_empty());
    let batches = batches.expect("one extent holds them");
    assert_eq!(batches.entries.len(), 4, "one frame");
    (batches.name, batches.entries)
}

#[test]
fn a_lost_sector_of_a_long_frame_takes_the_batches_that_reach_into_it() {
    let mut disk = Disk::default();
    let (name, entries) = frame_of_three(&mut disk);
    let ends: Vec<usize> = entries[1..].iter().copied().chain([entries[3] + 4_300]).collect();
    for sector in entries[0] / 4096..=(ends[3] - 1) / 4096 {
        let mut log = open(&mut disk);
        disk.unreadable = Some((name, sector * 4096 + 7));
        let reaches = |at: usize| entries[at] / 4096 <= sector && sector <= (ends[at] - 1) / 4096;
        let mut missing: Vec<(u64, u64)> = Vec::new();
        for (at, first) in [(0, 0), (1, 2), (3, 4)] {
            match missing.last_mut() {
                Some(last) if reaches(at) && last.1 + 1 == first => last.1 = first + 1,
                _ if reaches(at) => missing.push((first, first + 1)),
                _ => {}
            }
        }
        let slot = log.group(A).expect("replayed");
        let mut lost = Vec::new();
        for offset in 0..6 {
            match read_all(&mut log, &mut disk, slot, offset) {
                Err(Read::Damaged { first, last }) if (first..=last).contains(&offset) => lost.push(offset),
                Ok(_) | Err(Read::Damaged { .. }) => {}
                Err(other) => panic!("sector {sector}, offset {offset}: {other:?}"),
            }
        }
        let expected: Vec<u64> = missing.iter().flat_map(|(first, last)| *first..=*last).collect();
        assert_eq!(lost, expected, "sector {sector}, batches at {entries:?}");
        disk.unreadable = None;
    }
}

/// Before, the damaged batch ended the reading of its frame each time, and who asked behind it asked for ever.
#[test]
fn what_stands_behind_a_damaged_batch_in_its_frame_is_served() {
    for byte in [0, 9, ENTRY_HEADER_BYTES + 40, ENTRY_HEADER_BYTES + 1_000] {
        for (at, missing) in [(0, (0, 1)), (1, (2, 3)), (3, (4, 5))] {
            let mut disk = Disk::default();
            let (name, entries) = frame_of_three(&mut disk);
            let mut log = open(&mut disk);
            disk.damage(name, entries[at] + byte);
            let what = format!("byte {byte} of entry {at}");
            only_missing(&mut log, &mut disk, A, &[missing], &what);
            only_missing(&mut log, &mut disk, B, &[], &what);
            assert_eq!(log.stats().damaged_ranges, 1, "{what}");
        }
    }
}

/// A read that fails once, or for a moment, is made again before anybody hears of it.
#[test]
fn a_passing_error_names_nothing_and_is_not_seen() {
    let mut disk = Disk::default();
    let (name, entries) = frame_of_three(&mut disk);
    let mut log = open(&mut disk);
    let slot = log.group(A).expect("replayed");
    let request = ReadRequest { slot, offset: 0, end_offset: 6, max_bytes: 1 << 20, token: 4 };
    let (mut slices, mut ops, mut over) = (Vec::new(), Vec::new(), Vec::new());
    assert_eq!(log.read(&request, &mut slices, &mut ops), Read::Pending);
    disk.unreadable = Some((name, entries[1]));
    let mut failures = 0;
    let mut at = 0;
    while over.is_empty() {
        for op in ops.drain(..) {
            let completion = disk.run(op, |slice| log.bytes(slice));
            failures += u32::from(completion.result.is_err());
            log.on(completion, now(at));
        }
        log.cut(now(at), &mut ops);
        log.finished(&mut over);
        if ops.is_empty() && over.is_empty() {
            // It waits; until the time of the next try the sector has recovered.
            let due = log.next_deadline().expect("it tries again");
            assert!(due > at);
            (at, disk.unreadable) = (due, None);
            log.cut(now(at), &mut ops);
        }
    }
    assert!(failures > 2, "halves were tried: {failures}");
    assert_eq!(over, [Finished { token: 4, failed: false }]);
    assert_eq!(log.read(&request, &mut slices, &mut ops), Read::Ready { next_offset: 6 });
    assert_eq!((log.stats().damaged_ranges, log.stats().lost_sectors), (0, 0));
}
