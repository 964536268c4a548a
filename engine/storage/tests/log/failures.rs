//! Damage, failed writes, full disks and broken superblocks: what the log says, and that nothing else is harmed.

use crate::disk::{Disk, Random, append, config, now, open_with, read_all};
use corelog_model::{GroupId, LogId};
use corelog_storage::{
    CheckpointKind, DiskOp, EntryKind, FileName, Full, Log, LogConfig, OpenError, Parts, Read, ReadRequest,
};

const A: GroupId = GroupId(16);
const B: GroupId = GroupId(17);

fn open(disk: &mut Disk) -> (Log, crate::disk::Told) {
    open_with(disk, config(), &mut Random::new(1)).expect("the log opens")
}

/// Carries out everything the log asks for until it asks for nothing more.
pub(crate) fn settle(log: &mut Log, disk: &mut Disk, at: u64) {
    let mut ops = Vec::new();
    loop {
        log.cut(now(at), &mut ops);
        if ops.is_empty() {
            break;
        }
        for op in ops.drain(..) {
            let completion = disk.run(op, |slice| log.bytes(slice));
            log.on(completion, now(at));
            log.check();
        }
    }
}

/// Three frames of one batch for each group; the log as it was left, durable, with a beacon behind it.
fn three_frames() -> Disk {
    let mut disk = Disk::default();
    let (mut log, _) = open(&mut disk);
    for _ in 0..3 {
        append(&mut log, A, 4, 100).expect("room");
        append(&mut log, B, 4, 100).expect("room");
        settle(&mut log, &mut disk, 1);
    }
    settle(&mut log, &mut disk, 1_000_000);
    disk
}

/// Where something lies in the only extent with records: the frame at a sector, a byte in it.
fn damaged_at(disk: &mut Disk, frame: usize, byte: usize) {
    let (name, _) = disk
        .files
        .iter()
        .find(|(name, file)| matches!(name, FileName::Extent(_)) && file.live[4096..4100] == *b"CLF1")
        .expect("one extent holds the frames");
    let name = *name;
    disk.damage(name, frame * 4096 + byte);
}

/// Frame 0 is the start, 1..=3 hold the batches, 4 is the beacon.
#[test]
fn damage_below_the_durable_sequence_is_named_and_never_cut_or_served() {
    // Frame, byte in it, what is named: group (0: frames only), first, last.
    type Named = &'static [(u64, u64, u64)];
    let table: [(usize, usize, Named, &str); 5] = [
        (2, 128 + 32 + 300, &[(16, 4, 7)], "a body of A"),
        (3, 128 + 32 + 300, &[(16, 8, 11)], "the last body of A, which the beacon proves"),
        (2, 20, &[(0, 2, 3), (16, 4, 7), (17, 4, 7)], "a frame header in the middle"),
        (2, 128 + 9, &[(0, 3, 3), (16, 4, 7), (17, 4, 7)], "an entry header in the middle"),
        (1, 20, &[(0, 2, 2), (16, 0, 3), (17, 0, 3)], "the first frame with records"),
    ];
    for (frame, byte, named, what) in table {
        let mut disk = three_frames();
        damaged_at(&mut disk, frame, byte);
        let (mut log, told) = open(&mut disk);
        assert_eq!(told.tail_cut, 0, "{what}: damage is not a tail");
        let found: Vec<(u64, u64, u64)> = told
            .damaged
            .iter()
            .map(|(group, first, last)| (group.map_or(0, |group| group.0), *first, *last))
            .collect();
        let of_groups =
            |all: &[(u64, u64, u64)]| all.iter().copied().filter(|named| named.0 > 0).collect::<Vec<_>>();
        assert_eq!(of_groups(&found), of_groups(named), "{what}");
        let b = log.group(B).expect("replayed");
        assert_eq!((log.log_end(log.group(A).expect("replayed")), log.log_end(b)), (12, 12), "{what}");
        for (group, first, last) in of_groups(named) {
            let slot = log.group(GroupId(group)).expect("replayed");
            for from in [0, first] {
                let stopped = read_all(&mut log, &mut disk, slot, from);
                assert_eq!(stopped.unwrap_err(), Read::Damaged { first, last }, "{what}, read from {from}");
            }
            if last < 11 {
                assert!(read_all(&mut log, &mut disk, slot, last + 1).is_ok(), "{what}: the rest is served");
            }
        }
    }
}

#[test]
fn the_last_frame_without_a_successor_is_a_tail_and_is_reported() {
    let mut disk = three_frames();
    // The beacon's sector never arrived either: nothing proves frame 3.
    damaged_at(&mut disk, 4, 20);
    damaged_at(&mut disk, 3, 128 + 32 + 300);
    let (mut log, told) = open(&mut disk);
    assert_eq!((told.tail_cut, told.damaged.len()), (1, 0));
    let slot = log.group(A).expect("replayed");
    assert_eq!(log.log_end(slot), 8);
    assert_eq!(read_all(&mut log, &mut disk, slot, 0).expect("served").len(), 2);
    // What was cut stays cut, whatever is appended and however often the log starts.
    append(&mut log, A, 1, 10).expect("room");
    settle(&mut log, &mut disk, 1);
    drop(log);
    let (mut log, told) = open(&mut disk);
    assert_eq!((told.tail_cut, log.log_end(slot)), (0, 9));
    assert_eq!(read_all(&mut log, &mut disk, slot, 0).expect("served").len(), 3);
}

#[test]
fn damage_found_by_a_cold_read_is_named_and_its_neighbours_are_served() {
    let mut disk = three_frames();
    let (mut log, _) = open(&mut disk);
    damaged_at(&mut disk, 2, 128 + 32 + 300);
    let slot = log.group(A).expect("replayed");
    assert_eq!(read_all(&mut log, &mut disk, slot, 0).unwrap_err(), Read::Damaged { first: 4, last: 7 });
    assert_eq!(read_all(&mut log, &mut disk, slot, 8).expect("served").len(), 1);
    let b = log.group(B).expect("replayed");
    assert_eq!(read_all(&mut log, &mut disk, b, 0).expect("served").len(), 3);
}

#[test]
fn a_failed_write_moves_what_was_under_way_and_a_second_failure_stops_the_log() {
    for failures in 1..=2 {
        let mut disk = three_frames();
        let (mut log, _) = open(&mut disk);
        append(&mut log, A, 4, 100).expect("room");
        settle(&mut log, &mut disk, 1);
        let durable = log.durable_frame();
        let mut ops = Vec::new();
        let mut appended = 0;
        disk.fail_frame_in = Some(0);
        for failure in 0..failures {
            appended = append(&mut log, A, 4, 100).unwrap_or(appended);
            log.cut(now(2), &mut ops);
            for op in ops.drain(..) {
                let completion = disk.run(op, |slice| log.bytes(slice));
                log.on(completion, now(2));
            }
            assert_eq!(log.durable_frame(), durable, "failure {failure}: nothing counts");
        }
        if failures == 2 {
            settle(&mut log, &mut disk, 3);
            assert!(log.is_read_only());
            assert_eq!(log.room_for(1, 100), Err(Full::ReadOnly));
            let slot = log.group(A).expect("open");
            assert!(read_all(&mut log, &mut disk, slot, 0).is_ok(), "it still reads");
        } else {
            disk.fail_frame_in = None;
            settle(&mut log, &mut disk, 3);
            assert!(log.durable_frame() >= appended && log.stats().moved_frames == 1);
        }
        drop(log);
        disk.fail_frame_in = None;
        let (mut log, told) = open(&mut disk);
        assert_eq!(told.damaged, []);
        let slot = log.group(A).expect("replayed");
        let end = if failures == 1 { 20 } else { 16 };
        assert_eq!(log.log_end(slot), end);
        assert!(read_all(&mut log, &mut disk, slot, 0).is_ok());
    }
}

#[test]
fn a_full_disk_refuses_produce_early_goes_on_reading_and_starts_again() {
    let mut disk = Disk::default();
    let (mut log, _) = open(&mut disk);
    append(&mut log, A, 1, 10).expect("room");
    settle(&mut log, &mut disk, 1);
    assert!(!log.stats().full);
    disk.full = true;
    let mut refused = 0;
    for turn in 0..400 {
        let finds_none = append(&mut log, A, 10, 500).is_none();
        refused += u32::from(finds_none);
        settle(&mut log, &mut disk, turn);
        assert!(log.stats().full || !finds_none, "turn {turn}: what is refused is told");
    }
    assert!(refused > 100);
    assert_eq!(log.room_for(1, 1000), Err(Full::Extents));
    let end = log.log_end(log.group(A).expect("open"));
    for _ in 0..5 {
        let (mut log, _) = open(&mut disk);
        let slot = log.group(A).expect("replayed");
        assert_eq!(log.log_end(slot), end);
        assert!(read_all(&mut log, &mut disk, slot, 0).is_ok());
        assert_eq!(log.room_for(1, 1000), Err(Full::Extents));
        settle(&mut log, &mut disk, 1_000);
        assert!(log.stats().full, "the next start knows it too");
    }
    let (mut log, _) = open(&mut disk);
    disk.full = false;
    // Long after the last time that the disk refused an extent.
    (0..20).for_each(|second| settle(&mut log, &mut disk, 1_000_000 * second));
    assert!(!log.stats().full && log.room_for(1, 1000).is_ok(), "there is room again");
}

#[test]
fn recycling_keeps_the_cap_and_carries_the_owners_state_forward() {
    let capped = LogConfig { retention_bytes: Some(4 * config().extent_bytes), ..config() };
    let (mut disk, mut random) = (Disk::default(), Random::new(3));
    let (mut log, _) = open_with(&mut disk, capped.clone(), &mut random).expect("it opens");
    log.append_control(EntryKind::Metadata, GroupId::METADATA, 1, b"a topic, once, at the very start");
    let (mut written, mut turn, mut made) = (0, 0, 0);
    while written < 40 * capped.extent_bytes {
        if append(&mut log, A, 10, 1000).is_some() {
            written += 10_000;
        }
        if let Some(kind) = log.wants_checkpoint() {
            let mut moved = Vec::new();
            log.moved_starts(&mut moved);
            let mut parts = Parts::default();
            parts.push(b"topics, producers");
            parts.push(b", epochs");
            log.checkpoint(kind, &mut parts);
            made += 1;
            assert!(moved.is_empty() || kind == CheckpointKind::Full);
        }
        turn += 1;
        settle(&mut log, &mut disk, turn);
        assert!(log.stats().live_extents <= 6, "the cap holds");
    }
    assert!(made > 30 && log.stats().recycled_extents > 30);
    assert!(disk.files.len() <= 10, "{} files for a cap of 4 extents", disk.files.len());
    let slot = log.group(A).expect("open");
    let (start, end) = (log.log_start(slot), log.log_end(slot));
    let below = ReadRequest { slot, offset: 0, end_offset: end, max_bytes: 1, token: 0 };
    assert_eq!(log.read(&below, &mut Vec::new(), &mut Vec::new()), Read::BelowStart { log_start: start });
    drop(log);
    disk.crash(&mut random);
    let (mut log, told) = open_with(&mut disk, capped, &mut random).expect("it opens");
    assert_eq!(told.checkpoint, b"topics, producers, epochs".repeat(told.checkpoint.len() / 25));
    assert!(!told.checkpoint.is_empty() && told.damaged.is_empty());
    let slot = log.group(A).expect("checkpointed");
    assert_eq!(log.log_end(slot), end);
    let kept = log.log_start(slot);
    assert!(kept >= start);
    assert!(read_all(&mut log, &mut disk, slot, kept).is_ok());
}

/// Copies damaged, what opening says.
#[test]
fn broken_superblock_copies_are_survived_and_none_left_is_refused_by_name() {
    for mask in 0..16_usize {
        let mut disk = three_frames();
        for copy in (0..4).filter(|copy| mask & 1 << copy != 0) {
            disk.damage(FileName::Superblock, copy * 4096 + 60);
        }
        let opened = open_with(&mut disk, config(), &mut Random::new(2));
        match mask {
            15 => assert_eq!(opened.err(), Some(OpenError::NoSuperblock)),
            _ => {
                let (log, told) = opened.expect("a good copy is left");
                assert_eq!((log.log_end(log.group(A).expect("replayed")), told.damaged.len()), (12, 0));
            }
        }
    }
}

#[test]
fn a_log_of_another_store_size_or_number_is_refused_by_name() {
    let mut disk = three_frames();
    let mut refused = |config: LogConfig| open_with(&mut disk, config, &mut Random::new(2)).err();
    let store = LogConfig { store: 1, ..config() };
    assert_eq!(refused(store), Some(OpenError::WrongStore { store: 0xC0FFEE, log: 3 }));
    let log = LogConfig { log: LogId(4), ..config() };
    assert_eq!(refused(log), Some(OpenError::WrongStore { store: 0xC0FFEE, log: 3 }));
    let size = LogConfig { extent_bytes: 512 << 10, ..config() };
    assert_eq!(refused(size), Some(OpenError::ExtentBytes { found: 256 << 10 }));
    disk.files.remove(&FileName::Superblock);
    assert_eq!(open_with(&mut disk, config(), &mut Random::new(2)).err(), Some(OpenError::NoSuperblock));
}

#[test]
fn a_beacon_follows_the_last_frame_once() {
    let mut disk = Disk::default();
    let (mut log, _) = open(&mut disk);
    assert_eq!(log.next_deadline(), None, "a bare start needs no proof");
    append(&mut log, A, 1, 10).expect("room");
    settle(&mut log, &mut disk, 100);
    assert_eq!(log.next_deadline(), Some(5_100));
    settle(&mut log, &mut disk, 5_099);
    assert_eq!(log.stats().beacons, 0);
    settle(&mut log, &mut disk, 5_100);
    settle(&mut log, &mut disk, 90_000);
    assert_eq!((log.stats().beacons, log.next_deadline()), (1, None));
}

/// Until readers give blocks back there is nothing that time would change: who waits for a deadline must not spin.
#[test]
fn a_beacon_without_room_waits_for_readers_and_not_for_time() {
    let mut disk = Disk::default();
    let (mut log, _) = open(&mut disk);
    let (mut kept, mut end) = (Vec::new(), 0);
    // The last ones fill what is left of the last block.
    for bytes in [20_000, 1_000, 10] {
        while append(&mut log, A, 1, bytes).is_some() {
            settle(&mut log, &mut disk, 100);
            let slot = log.group(A).expect("open");
            let request = ReadRequest { slot, offset: end, end_offset: end + 1, max_bytes: 1, token: 1 };
            end += 1;
            assert_eq!(log.read(&request, &mut kept, &mut Vec::new()), Read::Ready { next_offset: end });
        }
    }
    assert_eq!(log.next_deadline(), Some(5_100));
    settle(&mut log, &mut disk, 5_100);
    assert_eq!((log.stats().beacons, log.next_deadline()), (0, None));
    kept.iter().for_each(|slice| log.unpin(slice.block));
    settle(&mut log, &mut disk, 5_101);
    assert_eq!((log.stats().beacons, log.next_deadline()), (1, None));
}

#[test]
fn a_time_leads_to_its_batch_in_memory_and_on_the_disk() {
    let mut disk = three_frames();
    let (mut log, _) = open(&mut disk);
    let slot = log.group(A).expect("replayed");
    // Record `o` carries the timestamp 1000 + o.
    let mut ops: Vec<DiskOp> = Vec::new();
    let found = log.offset_for_time(slot, 1005, 1, &mut ops);
    assert_eq!(found, corelog_storage::TimeFound::At { offset: 4, timestamp_us: 1007 });
    assert_eq!(log.offset_for_time(slot, 2000, 1, &mut ops), corelog_storage::TimeFound::End);
    append(&mut log, A, 4, 10).expect("room");
    let found = log.offset_for_time(slot, 1013, 1, &mut ops);
    assert_eq!(found, corelog_storage::TimeFound::At { offset: 12, timestamp_us: 1015 });
}
