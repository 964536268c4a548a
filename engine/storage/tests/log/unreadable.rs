//! A start on a disk with a sector that cannot be read: what can be told without it is served, what cannot is refused by
//! name; and once it can be read again nothing is missing.

use std::collections::BTreeMap;

use crate::disk::{Disk, Random, append, config, open_with, read_all, state};
use crate::failures::settle;
use corelog_model::GroupId;
use corelog_storage::{FileName, Log, LogConfig, Needed, OpenError, Read};

const A: GroupId = GroupId(16);
const B: GroupId = GroupId(17);
const SECTOR: usize = 4096;

/// Frames of two batches in some extents, of which the first is listed by a checkpoint, and a tail that a beacon proves.
fn disk(config: &LogConfig) -> Disk {
    let mut disk = Disk::default();
    let (mut log, _) = open_with(&mut disk, config.clone(), &mut Random::new(1)).expect("a new log");
    let mut turn = 1;
    while log.stats().live_extents < 3 {
        append(&mut log, A, 2, 3_000).expect("room");
        append(&mut log, B, 2, 700).expect("room");
        settle(&mut log, &mut disk, turn);
        turn += 1;
        if log.stats().live_extents == 2
            && let Some(kind) = log.wants_checkpoint()
        {
            log.checkpoint(kind, &mut state());
        }
    }
    for _ in 0..3 {
        append(&mut log, A, 2, 3_000).expect("room");
        append(&mut log, B, 2, 700).expect("room");
        settle(&mut log, &mut disk, turn);
        turn += 1;
    }
    settle(&mut log, &mut disk, turn + 1_000_000);
    assert!(log.stats().checkpoints > 0);
    disk
}

fn ends(log: &Log) -> [u64; 2] {
    [A, B].map(|group| log.log_end(log.group(group).expect("replayed")))
}

/// Offsets that a reader of all groups is told are damaged.
fn missing(log: &mut Log, disk: &mut Disk) -> Vec<(GroupId, u64, u64)> {
    let mut met = Vec::new();
    for group in [A, B] {
        let slot = log.group(group).expect("replayed");
        let mut offset = log.log_start(slot);
        while offset < log.log_end(slot) {
            match read_all(log, disk, slot, offset) {
                Ok(_) => break,
                Err(Read::Damaged { first, last }) => {
                    met.push((group, first, last));
                    offset = last + 1;
                }
                Err(other) => panic!("{other:?} at {offset} of {group}"),
            }
        }
    }
    met
}

fn content(disk: &Disk) -> BTreeMap<FileName, Vec<u8>> {
    disk.files.iter().map(|(name, file)| (*name, file.live.clone())).collect()
}

/// Each sector of each extent, one at a time.
#[test]
fn a_sector_that_cannot_be_read_costs_what_was_in_it_for_as_long_as_that_lasts() {
    let config = config();
    let mut disk = disk(&config);
    let whole = {
        let mut disk = disk.clone();
        let (mut log, _) = open_with(&mut disk, config.clone(), &mut Random::new(1)).expect("it opens");
        assert_eq!(missing(&mut log, &mut disk), []);
        ends(&log)
    };
    let names: Vec<_> = disk.files.keys().copied().filter(|name| *name != FileName::Superblock).collect();
    let mut counts = [0; 5];
    for name in names {
        for position in (0..config.extent_bytes as usize).step_by(SECTOR) {
            disk.unreadable = Some((name, position + 600));
            let mut here = disk.clone();
            let opened = open_with(&mut here, config.clone(), &mut Random::new(1));
            let what = format!("{name} at {position}");
            match opened {
                Ok((mut log, told)) => {
                    assert_eq!((ends(&log), told.tail_cut), (whole, 0), "{what}");
                    let missing = missing(&mut log, &mut here);
                    assert!(missing.iter().all(|(_, first, last)| last - first < 2), "{what}: {missing:?}");
                    assert!(missing.len() <= 2, "a frame has one batch of each group: {what}: {missing:?}");
                    counts[usize::from(!missing.is_empty())] += 1;
                }
                Err(OpenError::Unreadable { extent, position: at, needed }) => {
                    assert_eq!((FileName::Extent(extent), at), (name, position as u64), "{what}");
                    assert_eq!(content(&here), content(&disk), "nothing was changed: {what}");
                    counts[2 + needed as usize] += 1;
                }
                Err(OpenError::Checkpoint { extent, .. }) if FileName::Extent(extent) == name => {}
                Err(error) => panic!("{what}: {error}"),
            }
            // The disk has changed its mind.
            here.unreadable = None;
            let (mut log, _) = open_with(&mut here, config.clone(), &mut Random::new(1)).expect("it opens");
            assert_eq!((ends(&log), missing(&mut log, &mut here)), (whole, vec![]), "{what}");
        }
    }
    let [sound, damaged, extent, end, frame] = counts;
    assert!(sound > 0 && damaged > 0 && extent > 0 && end > 0 && frame > 0, "{counts:?}");
    assert_eq!((Needed::Extent as u8, Needed::Frame as u8), (0, 2));
}

/// The frame may have been acknowledged: what a start cuts is gone for good.
#[test]
fn a_last_frame_that_cannot_be_read_is_not_cut() {
    let config = config();
    let mut disk = Disk::default();
    let (mut log, _) = open_with(&mut disk, config.clone(), &mut Random::new(1)).expect("a new log");
    append(&mut log, A, 2, 3_000).expect("room");
    settle(&mut log, &mut disk, 1);
    assert_eq!((log.durable_frame(), log.stats().beacons), (2, 0), "nothing proves it");
    drop(log);
    for sector in [SECTOR, 2 * SECTOR] {
        disk.unreadable = Some((FileName::Extent(0), sector));
        let mut here = disk.clone();
        let refused = open_with(&mut here, config.clone(), &mut Random::new(1)).err();
        let position = sector as u64;
        assert_eq!(refused, Some(OpenError::Unreadable { extent: 0, position, needed: Needed::End }));
        here.unreadable = None;
        let (log, told) = open_with(&mut here, config.clone(), &mut Random::new(1)).expect("it opens");
        assert_eq!((log.log_end(log.group(A).expect("replayed")), told.tail_cut), (2, 0));
    }
    // A frame that is torn elsewhere was never acknowledged, and what cannot be read is behind it.
    disk.unreadable = Some((FileName::Extent(0), 6 * SECTOR));
    let opened = open_with(&mut disk, config, &mut Random::new(1));
    assert!(opened.is_ok(), "{:?}", opened.err());
}

/// A disk that does not answer at all has lost nothing, and is not tried for long.
#[test]
fn a_disk_that_does_not_answer_refuses_the_log_as_before() {
    let config = config();
    let mut disk = disk(&config);
    disk.dead = true;
    let error = open_with(&mut disk, config, &mut Random::new(1)).err();
    assert_eq!(error, Some(OpenError::NoSuperblock));
}
