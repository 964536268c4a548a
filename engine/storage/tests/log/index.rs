//! Indexes of closed extents: loaded from footers, derived from frames where a footer is damaged.

use crate::disk::{Disk, Random, append, config, now, open_with, read_all, state};
use crate::failures::settle;
use corelog_model::{GroupId, LogId};
use corelog_storage::{
    DiskOp, ENTRY_HEADER_BYTES, EntryHeader, EntryKind, FRAME_HEADER_BYTES, FileName, Finished, FrameHeader,
    FrameSeed, Log, LogConfig, Read, ReadRequest,
};

const A: GroupId = GroupId(16);
const B: GroupId = GroupId(17);

fn open(disk: &mut Disk, config: LogConfig) -> Log {
    let (log, told) = open_with(disk, config, &mut Random::new(1)).expect("the log opens");
    assert_eq!(told.damaged, []);
    log
}

/// Makes every checkpoint the log wants.
pub(crate) fn checkpoints(log: &mut Log, disk: &mut Disk, at: u64) {
    settle(log, disk, at);
    if let Some(kind) = log.wants_checkpoint() {
        log.moved_starts(&mut Vec::new());
        log.checkpoint(kind, &mut state());
    }
    settle(log, disk, at);
}

/// A log of `extents` closed extents, all of them listed by its newest checkpoint, so that a start reads no frame
/// of theirs; every batch has one record.
pub(crate) fn listed(disk: &mut Disk, config: LogConfig, extents: u64) -> LogConfig {
    let always = LogConfig { checkpoint_bytes: 1, ..config };
    let mut log = open(disk, always.clone());
    let mut turn = 0;
    while log.stats().live_extents <= extents {
        append(&mut log, A, 1, 2_000).expect("room");
        append(&mut log, B, 1, 500).expect("room");
        checkpoints(&mut log, disk, turn);
        turn += 1;
    }
    (turn..turn + 3).for_each(|turn| checkpoints(&mut log, disk, turn));
    always
}

/// What an extent holds of one kind of entry: where their headers and those of the frames are.
pub(crate) struct Places {
    pub(crate) name: FileName,
    generation: u64,
    pub(crate) frames: Vec<usize>,
    pub(crate) entries: Vec<usize>,
}

/// Of every extent, in the order of the log.
pub(crate) fn places(disk: &Disk, kind: EntryKind) -> Vec<Places> {
    let seed = FrameSeed { store: 0xC0FFEE, log: LogId(3) };
    let mut all = Vec::new();
    for (name, file) in &disk.files {
        let header = |at: usize| FrameHeader::decode(file.live.get(at..)?, seed, at as u64);
        let Some(first) = header(0) else { continue };
        let (frames, entries) = (Vec::new(), Vec::new());
        let mut places = Places { name: *name, generation: first.generation, frames, entries };
        let mut at = 0;
        while let Some(frame) = header(at).filter(|frame| frame.generation == first.generation) {
            places.frames.push(at);
            let mut entry = at + FRAME_HEADER_BYTES;
            while entry < at + frame.used as usize {
                let (found, _) = EntryHeader::parse(&file.live[entry..]).expect("an entry");
                if found.kind == kind {
                    places.entries.push(entry);
                }
                entry += found.total_bytes();
            }
            at += frame.length as usize;
        }
        all.push(places);
    }
    all.sort_unstable_by_key(|places| places.generation);
    all
}

/// Damages every footer but those in the newest extent, whose frames a start reads.
pub(crate) fn damage_footers(disk: &mut Disk) -> usize {
    let mut all = places(disk, EntryKind::Footer);
    all.pop();
    for places in &all {
        places.entries.iter().for_each(|at| disk.damage(places.name, at + ENTRY_HEADER_BYTES + 40));
    }
    all.iter().map(|places| places.entries.len()).sum()
}

pub(crate) fn all(log: &mut Log, disk: &mut Disk, group: GroupId) -> Result<usize, Read> {
    let slot = log.group(group).expect("listed");
    let start = log.log_start(slot);
    let found = read_all(log, disk, slot, start)?;
    assert!(found.windows(2).all(|pair| pair[1].base_offset == pair[0].next_offset()));
    Ok(found.len())
}

#[test]
fn a_damaged_footer_is_derived_from_the_frames_and_written_once_more() {
    let mut disk = Disk::default();
    let always = listed(&mut disk, config(), 4);
    let mut sound = disk.clone();
    let mut log = open(&mut sound, always.clone());
    let records =
        (all(&mut log, &mut sound, A).expect("served"), all(&mut log, &mut sound, B).expect("served"));
    assert_eq!(log.stats().derived_indexes, 0);
    assert!(damage_footers(&mut disk) >= 3);

    let mut log = open(&mut disk, always.clone());
    let found =
        (all(&mut log, &mut disk, A).expect("derived"), all(&mut log, &mut disk, B).expect("derived"));
    assert_eq!(found, records);
    let stats = log.stats();
    assert!(stats.derived_indexes >= 3 && stats.damaged_ranges == 0, "{stats:?}");

    // Both kinds of checkpoint find the new footers: a start that lists them, and one that scans them.
    for turn in 0..10 {
        append(&mut log, A, 1, 10).expect("room");
        checkpoints(&mut log, &mut disk, turn);
    }
    drop(log);
    let mut log = open(&mut disk, always);
    assert_eq!(all(&mut log, &mut disk, A).expect("served"), records.0 + 10);
    assert_eq!(all(&mut log, &mut disk, B).expect("served"), records.1);
    assert_eq!(log.stats().derived_indexes, 0, "once is enough");
}

#[test]
fn what_the_frames_no_longer_tell_is_named_and_the_rest_is_served() {
    let mut disk = Disk::default();
    let always = listed(&mut disk, config(), 4);
    damage_footers(&mut disk);
    // The header of the frame with the second batch of each group.
    let oldest = places(&disk, EntryKind::Batch).remove(0);
    let frame = oldest.frames.iter().rfind(|frame| **frame < oldest.entries[2]).expect("it lies in a frame");
    disk.damage(oldest.name, frame + 20);
    let mut log = open(&mut disk, always);
    let lost = Read::Damaged { first: 1, last: 1 };
    assert_eq!(all(&mut log, &mut disk, A), Err(lost));
    assert_eq!(all(&mut log, &mut disk, B), Err(lost));
    for group in [A, B] {
        let slot = log.group(group).expect("listed");
        let end = log.log_end(slot);
        assert_eq!(read_all(&mut log, &mut disk, slot, 2).expect("served").len() as u64, end - 2);
    }
    assert_eq!(log.stats().damaged_ranges, 2, "named once each");
}

/// A disk that gives nothing while an index is derived has lost nothing: nothing is named or written down without it, and
/// when the disk answers again everything is there.
#[test]
fn a_disk_that_does_not_answer_is_not_taken_for_damage() {
    let mut disk = Disk::default();
    let always = listed(&mut disk, config(), 4);
    let mut sound = disk.clone();
    let records = all(&mut open(&mut sound, always.clone()), &mut sound, A).expect("served");

    let cases = [("batches", false, false), ("frames of an index", true, false), ("short", true, true)];
    for (what, footers, short) in cases {
        let mut disk = Disk { short, ..disk.clone() };
        if footers {
            damage_footers(&mut disk);
        }
        let mut log = open(&mut disk, always.clone());
        disk.dead = true;
        for _ in 0..3 {
            assert_eq!(all(&mut log, &mut disk, A), Err(Read::Pending), "{what}");
        }
        for turn in 0..10 {
            append(&mut log, A, 1, 10).expect("room");
            checkpoints(&mut log, &mut disk, turn);
        }
        disk.dead = false;
        assert_eq!(all(&mut log, &mut disk, A).expect("the disk answers again"), records + 10, "{what}");
        assert_eq!((log.stats().damaged_ranges, log.stats().lost_sectors), (0, 0), "{what}");
        drop(log);
        let mut log = open(&mut disk, always.clone());
        assert_eq!(all(&mut log, &mut disk, A).expect("nor was it written down"), records + 10, "{what}");
    }
}

#[test]
fn a_reader_whose_extent_is_recycled_while_its_index_is_loaded_hears_so() {
    let mut disk = Disk::default();
    let capped = LogConfig { retention_bytes: Some(4 * config().extent_bytes), ..config() };
    let always = listed(&mut disk, capped, 3);
    let mut log = open(&mut disk, always);
    let slot = log.group(A).expect("listed");
    let (offset, end_offset) = (log.log_start(slot), log.log_end(slot));
    let request = ReadRequest { slot, offset, end_offset, max_bytes: 1, token: 7 };
    let mut held: Vec<DiskOp> = Vec::new();
    assert_eq!(log.read(&request, &mut Vec::new(), &mut held), Read::Pending);
    assert_eq!(held.len(), 1, "the index is being read");

    let mut turn = 0;
    while log.stats().recycled_extents < 3 {
        append(&mut log, A, 1, 2_000).expect("room");
        checkpoints(&mut log, &mut disk, turn);
        turn += 1;
        assert!(turn < 5_000, "recycling goes on");
    }
    for op in held {
        let completion = disk.run(op, |slice| log.bytes(slice));
        log.on(completion, now(turn));
    }
    settle(&mut log, &mut disk, turn);
    let mut over = Vec::new();
    log.finished(&mut over);
    assert_eq!(over, [Finished { token: 7, failed: false }], "nobody waits for ever");
    let log_start = log.log_start(slot);
    assert!(log_start > offset);
    let again = log.read(&request, &mut Vec::new(), &mut Vec::new());
    assert_eq!(again, Read::BelowStart { log_start });
    assert!(all(&mut log, &mut disk, A).is_ok(), "and the next index is loaded");
}
