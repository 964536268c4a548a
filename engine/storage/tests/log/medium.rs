//! A medium that says it is well: what it harmed is damage of its own place, and costs nothing else.

use crate::disk::{Disk, Random, Told, append, config, open_with, read_all};
use crate::failures::settle;
use corelog_model::{GroupId, LogId};
use corelog_storage::{FileName, FrameHeader, FrameSeed, Log, OpenError, Read};

const A: GroupId = GroupId(16);
/// Of header, entry header and batch header.
const BODY: usize = 128 + 32 + 96;

fn open(disk: &mut Disk) -> (Log, Told) {
    open_with(disk, config(), &mut Random::new(1)).expect("the log opens")
}

/// The first frame of an extent, if there is one.
fn first(disk: &Disk, extent: u32) -> Option<FrameHeader> {
    let seed = FrameSeed { store: 0xC0FFEE, log: LogId(3) };
    FrameHeader::decode(&disk.files[&FileName::Extent(extent)].live, seed, 0)
}

fn extents(disk: &Disk) -> Vec<u32> {
    let number = |name: &FileName| match name {
        FileName::Extent(number) => Some(*number),
        _ => None,
    };
    disk.files.keys().filter_map(number).collect()
}

/// Frames of one batch until there are three extents, the last of which is the head.
fn three_extents(disk: &mut Disk) -> Log {
    let (mut log, _) = open(disk);
    let mut turn = 1;
    while log.stats().live_extents < 3 {
        append(&mut log, A, 4, 2_000).expect("room");
        settle(&mut log, disk, turn);
        turn += 1;
    }
    append(&mut log, A, 4, 2_000).expect("room");
    settle(&mut log, disk, turn + 1_000_000);
    log
}

/// The first 4 KiB of one extent lie in another, and its own place holds what it held before.
fn stray(disk: &mut Disk, from: u32, to: u32, before: &[u8]) {
    let page = disk.files[&FileName::Extent(from)].live[..4096].to_vec();
    disk.overwrite(FileName::Extent(to), 0, &page);
    disk.overwrite(FileName::Extent(from), 0, before);
}

/// Runs are read from their first batch: one that is damaged was named again and again, and the reader of the one behind
/// it waited for ever.
#[test]
fn who_reads_behind_a_damaged_batch_of_the_same_frame_gets_what_follows() {
    let mut disk = Disk::default();
    let (mut log, _) = open(&mut disk);
    for _ in 0..3 {
        append(&mut log, A, 4, 100).expect("room");
    }
    settle(&mut log, &mut disk, 1);
    settle(&mut log, &mut disk, 1_000_000);
    drop(log);
    // The start finds it sound, and its index has it.
    let (mut log, told) = open(&mut disk);
    assert_eq!(told.damaged, []);
    disk.damage(FileName::Extent(0), 4096 + BODY + 50);
    let slot = log.group(A).expect("replayed");
    assert_eq!(read_all(&mut log, &mut disk, slot, 0).unwrap_err(), Read::Damaged { first: 0, last: 3 });
    assert_eq!(read_all(&mut log, &mut disk, slot, 4).expect("the rest is served").len(), 2);
    // Also when what comes before it is sound, and was read with it.
    assert_eq!(read_all(&mut log, &mut disk, slot, 8).expect("the rest is served").len(), 1);
}

/// A read that gives less leaves the block as the read before it did, which was of another extent: a start went on as if
/// that were the first frame of this one.
#[test]
fn a_first_frame_that_was_not_read_whole_is_not_believed() {
    let mut disk = Disk::default();
    drop(three_extents(&mut disk));
    let (end, mut refused) = (log_end(&mut disk.clone()), 0);
    for extent in extents(&disk) {
        (disk.unreadable, disk.short) = (Some((FileName::Extent(extent), 0)), true);
        match open_with(&mut disk.clone(), config(), &mut Random::new(1)) {
            Ok((log, _)) => assert_eq!(log.log_end(log.group(A).expect("replayed")), end),
            Err(error) => {
                assert!(
                    matches!(error, OpenError::Unreadable { extent: of, position: 0, .. } if of == extent)
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "of a spare nobody knows that it is one");
}

/// Where the log ends for the group.
fn log_end(disk: &mut Disk) -> u64 {
    let (log, _) = open(disk);
    log.log_end(log.group(A).expect("replayed"))
}

/// Sums know of no file: the first frame of an extent verifies in any other.
#[test]
fn a_first_frame_that_was_written_to_the_file_of_another_extent_is_damage_where_it_belongs() {
    let mut disk = Disk::default();
    drop(three_extents(&mut disk));
    let mut heads: Vec<_> =
        extents(&disk).into_iter().filter_map(|at| Some((first(&disk, at)?, at))).collect();
    heads.sort_unstable_by_key(|(first, _)| first.generation);
    let spare = extents(&disk).into_iter().find(|at| first(&disk, *at).is_none()).expect("a spare extent");
    let [.., (middle, second), (newest, third)] = heads[..] else { panic!("three extents") };
    let all = {
        let (log, _) = open(&mut disk.clone());
        let slot = log.group(A).expect("replayed");
        log.log_end(slot)
    };
    for (from, lost) in [(second, middle), (third, newest)] {
        for to in [spare, heads[0].1] {
            let mut disk = disk.clone();
            stray(&mut disk, from, to, &[0; 4096]);
            let (log, told) = open(&mut disk);
            let named = told
                .damaged
                .iter()
                .any(|(group, first, last)| group.is_none() && (*first..=*last).contains(&lost.sequence));
            assert!(named, "of extent {from} in {to}: {:?}", told.damaged);
            assert_eq!(log.log_end(log.group(A).expect("replayed")), all, "nothing behind it is lost");
        }
    }
}

/// A write that went elsewhere leaves the first frame that its extent had in an earlier use.
#[test]
fn the_first_frame_of_an_earlier_use_is_damage() {
    let mut disk = Disk::default();
    let always = corelog_storage::LogConfig { checkpoint_bytes: 1, ..config() };
    let (mut log, _) = open_with(&mut disk, always.clone(), &mut Random::new(1)).expect("a new log");
    let old = {
        append(&mut log, A, 4, 2_000).expect("room");
        settle(&mut log, &mut disk, 1);
        let mut page = disk.files[&FileName::Extent(0)].live[..4096].to_vec();
        page.truncate(4096);
        page
    };
    let mut turn = 2;
    while log.stats().live_extents < 3 {
        append(&mut log, A, 4, 2_000).expect("room");
        settle(&mut log, &mut disk, turn);
        turn += 1;
    }
    // Two extents are closed; a checkpoint lists them.
    for _ in 0..3 {
        if let Some(kind) = log.wants_checkpoint() {
            log.checkpoint(kind, &mut crate::disk::state());
        }
        turn += 1_000_000;
        settle(&mut log, &mut disk, turn);
    }
    drop(log);
    // As if the second one lay where the first had been before it.
    disk.overwrite(FileName::Extent(1), 0, &old);
    let (mut log, _) = open_with(&mut disk, always, &mut Random::new(1)).expect("one frame is damaged");
    let slot = log.group(A).expect("listed");
    match read_all(&mut log, &mut disk, slot, 0) {
        Err(Read::Damaged { first, last }) => {
            assert!(read_all(&mut log, &mut disk, slot, last + 1).is_ok(), "{first} to {last}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_owner_knows_of_and_the_log_has_not_found_is_damage() {
    let mut disk = Disk::default();
    let (mut log, _) = open(&mut disk);
    append(&mut log, A, 4, 100).expect("room");
    settle(&mut log, &mut disk, 1);
    let slot = log.group(A).expect("open");
    log.reaches(slot, 4);
    assert_eq!((log.log_end(slot), log.damaged_ranges()), (4, 0));
    log.reaches(slot, 10);
    assert_eq!(log.log_end(slot), 10);
    assert_eq!(read_all(&mut log, &mut disk, slot, 4).unwrap_err(), Read::Damaged { first: 4, last: 9 });
    append(&mut log, A, 2, 100).expect("room");
    assert_eq!(log.log_end(slot), 12, "its offsets are not given again");
}
