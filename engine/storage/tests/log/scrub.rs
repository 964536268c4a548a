//! The scrubber: what nobody reads is read all the same, at its rate, and damage in it is found.

use crate::disk::{Disk, Random, append, config, memory, now, open_with};
use crate::index::{checkpoints, listed, places};
use corelog_model::GroupId;
use corelog_storage::{
    CheckpointKind, DiskOp, ENTRY_HEADER_BYTES, EntryKind, FileName, Log, LogConfig, OpenError,
};

const A: GroupId = GroupId(16);
const B: GroupId = GroupId(17);
const DAY_US: u64 = 24 * 3_600 * 1_000_000;
/// In which everything is read once.
const PERIOD_US: u64 = 14 * DAY_US;
const BLOCK_BYTES: u64 = 32 << 10;

/// A log of four closed extents that starts read nothing of; the scrubber is on.
fn cold(disk: &mut Disk) -> LogConfig {
    LogConfig { scrub_us: Some(PERIOD_US), ..listed(disk, config(), 4) }
}

fn open(disk: &mut Disk, config: &LogConfig) -> Log {
    let (log, told) = open_with(disk, config.clone(), &mut Random::new(1)).expect("the log opens");
    assert_eq!(told.damaged, []);
    log
}

/// Time passes from one time to another, with nobody but the log itself; the reads it made.
fn pass(log: &mut Log, disk: &mut Disk, from_us: u64, to_us: u64) -> u64 {
    let (mut ops, mut at, mut reads) = (Vec::new(), from_us, 0);
    loop {
        log.cut(now(at), &mut ops);
        if ops.is_empty() {
            match log.next_deadline().filter(|due| *due <= to_us) {
                Some(due) => at = due.max(at + 1),
                None => return reads,
            }
        }
        for op in ops.drain(..) {
            reads += u64::from(matches!(op, DiskOp::Read { .. }));
            let completion = disk.run(op, |slice| log.bytes(slice));
            log.on(completion, now(at));
        }
    }
}

fn damage(log: &Log) -> Vec<(GroupId, u64, u64)> {
    let group = |slot| [A, B].into_iter().find(|group| log.group(*group) == Some(slot)).expect("a partition");
    let mut all: Vec<_> = log.damage().map(|(slot, first, last)| (group(slot), first, last)).collect();
    all.sort_unstable();
    all
}

#[test]
fn rot_where_nobody_reads_is_found_within_a_period_and_named_exactly() {
    let mut disk = Disk::default();
    let config = cold(&mut disk);
    let batches = places(&disk, EntryKind::Batch);
    // In every closed extent a body of A, a header of B, the header of a frame: each is one sector, one batch of each.
    for (extent, places) in batches[..4].iter().enumerate() {
        let mut disk = disk.clone();
        let mut log = open(&mut disk, &config);
        disk.damage(places.name, places.entries[2] + ENTRY_HEADER_BYTES + 500);
        disk.damage(places.name, places.entries[5] + 9);
        disk.damage(places.name, places.frames[places.frames.len() / 2] + 20);
        pass(&mut log, &mut disk, 0, PERIOD_US + DAY_US);
        let found = damage(&log);
        let of = |group| found.iter().filter(move |found| found.0 == group).map(|found| (found.1, found.2));
        let (of_a, of_b): (Vec<_>, Vec<_>) = (of(A).collect(), of(B).collect());
        assert!(of_a.len() <= 2 && of_b.len() <= 2 && of_a.len() + of_b.len() >= 2, "{extent}: {found:?}");
        assert!(found.iter().all(|(_, first, last)| first == last), "{extent}: single batches: {found:?}");
        let stats = log.stats();
        assert_eq!(stats.scrub_damaged_ranges, found.len() as u64, "{extent}");
        assert_eq!((stats.scrub_broken_frames, stats.cold_reads), (2, 0), "{extent}: nobody else read");
        // Another pass finds nothing new.
        pass(&mut log, &mut disk, PERIOD_US + DAY_US, 3 * PERIOD_US);
        assert_eq!(damage(&log), found, "{extent}");
        assert!(log.stats().scrub_passes >= 1);
    }
}

#[test]
fn what_is_sound_is_read_at_its_rate_and_nothing_is_named() {
    let mut disk = Disk::default();
    let config = cold(&mut disk);
    let mut log = open(&mut disk, &config);
    let (mut at, step) = (0, DAY_US / 3);
    // The closed extents, and what each start adds to them.
    let total = 6 * config.extent_bytes;
    while at < 2 * PERIOD_US {
        pass(&mut log, &mut disk, at, at + step);
        at += step;
        let earned = (u128::from(total) * u128::from(at) / u128::from(PERIOD_US)) as u64;
        let read = log.stats().scrubbed_bytes;
        assert!(read <= earned + 2 * BLOCK_BYTES, "{read} bytes after {at} us");
    }
    let stats = log.stats();
    assert!(stats.scrub_passes >= 1 && stats.scrub_passed_us > 0, "{stats:?}");
    assert!(stats.scrubbed_bytes >= 4 * config.extent_bytes, "{stats:?}");
    assert_eq!((stats.damaged_ranges, stats.scrub_broken_frames), (0, 0));
}

#[test]
fn without_a_period_or_a_block_nothing_is_read() {
    let mut disk = Disk::default();
    let config = LogConfig { scrub_us: None, ..cold(&mut disk) };
    let mut log = open(&mut disk, &config);
    assert_eq!(pass(&mut log, &mut disk, 0, 2 * PERIOD_US), 0);
    let small = corelog_storage::Memory {
        scrub: Some(corelog_model::Block::heap(corelog_model::BlockId(31), 4096)),
        ..memory()
    };
    let mut opening = corelog_storage::Opening::new(config, small, disk.listing(), now(0));
    assert!(matches!(opening.start(&mut Vec::new()), Err(OpenError::Config(_))), "a block takes a frame");
}

/// Commits go first; but a log that always commits is scrubbed, too.
#[test]
fn it_lets_commits_go_first_until_it_is_two_reads_behind() {
    let mut disk = Disk::default();
    let config = cold(&mut disk);
    let mut log = open(&mut disk, &config);
    pass(&mut log, &mut disk, 0, DAY_US);
    append(&mut log, A, 1, 100).expect("room");
    let (mut ops, mut held) = (Vec::new(), Vec::new());
    let before = log.stats().scrubbed_bytes;
    let mut first_read = None;
    for minute in 0..14 * 24 * 60 {
        let at = DAY_US + minute * 60_000_000;
        log.cut(now(at), &mut ops);
        for op in ops.drain(..) {
            match op {
                // The disk takes its time for the frame.
                DiskOp::WriteFrame { .. } | DiskOp::Sync { .. } => held.push(op),
                op => {
                    first_read = first_read.or(matches!(op, DiskOp::Read { .. }).then_some(at));
                    let completion = disk.run(op, |slice| log.bytes(slice));
                    log.on(completion, now(at));
                }
            }
        }
    }
    assert_eq!(held.len(), 1, "the frame is under way all the time");
    let closed = 5 * config.extent_bytes;
    let pause = PERIOD_US * BLOCK_BYTES / closed;
    let waited = first_read.expect("it reads in the end") - DAY_US;
    assert!(waited > pause / 2, "{waited} us: not while it is only one behind");
    assert!(
        log.stats().scrubbed_bytes - before >= 2 * config.extent_bytes,
        "and keeps its rate from then on"
    );
}

#[test]
fn a_sector_that_never_answers_is_found_and_a_dead_disk_is_not_taken_for_one() {
    let mut disk = Disk::default();
    let config = cold(&mut disk);
    let oldest = places(&disk, EntryKind::Batch).remove(0);
    let mut log = open(&mut disk, &config);
    disk.dead = true;
    pass(&mut log, &mut disk, 0, PERIOD_US);
    assert_eq!((log.stats().damaged_ranges, log.stats().lost_sectors), (0, 0));
    disk.dead = false;
    disk.unreadable = Some((oldest.name, oldest.entries[2]));
    pass(&mut log, &mut disk, PERIOD_US, 3 * PERIOD_US);
    assert_eq!(damage(&log), [(A, 1, 1), (B, 1, 1)]);
    assert!(log.stats().lost_sectors >= 1);
}

/// A checkpoint in which something has rotted would keep the next start from opening the log.
#[test]
fn a_rotten_checkpoint_is_replaced_before_a_start_needs_it() {
    let mut disk = Disk::default();
    let always = cold(&mut disk);
    // One full checkpoint from here on, unless something asks for another one.
    let config = LogConfig { checkpoint_bytes: 1 << 40, ..always };
    let mut log = open(&mut disk, &config);
    while log.stats().live_extents < 8 {
        append(&mut log, A, 1, 2_000).expect("room");
        checkpoints(&mut log, &mut disk, 1);
    }
    let all = places(&disk, EntryKind::Checkpoint);
    let rotten: Vec<(FileName, usize)> =
        all.iter().flat_map(|places| places.entries.iter().map(|at| (places.name, at + 40))).collect();
    rotten.iter().for_each(|(name, at)| disk.damage(*name, *at));
    let mut refused = disk.clone();
    let error = open_with(&mut refused, config.clone(), &mut Random::new(1)).err();
    assert!(matches!(error, Some(OpenError::Checkpoint { .. })), "{error:?}");

    assert_eq!(log.wants_checkpoint(), None);
    pass(&mut log, &mut disk, 1, PERIOD_US + DAY_US);
    assert_eq!(log.wants_checkpoint(), Some(CheckpointKind::Full));
    checkpoints(&mut log, &mut disk, PERIOD_US + DAY_US);
    assert_eq!(log.stats().checkpoints, 1);
    let end = log.log_end(log.group(A).expect("open"));
    drop(log);
    let log = open(&mut disk, &config);
    assert_eq!(log.log_end(log.group(A).expect("checkpointed")), end);
}
