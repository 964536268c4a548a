//! What an operator has accepted as lost is passed over by readers, after every start, and named no more.

use crate::disk::{Disk, Random, TOPIC, append, config, open_with, read_all};
use crate::failures::settle;
use crate::index::{checkpoints, listed, places};
use corelog_model::GroupId;
use corelog_storage::{EntryKind, Log, LogConfig, LostRange, Read, ReadRequest, feature};

const A: GroupId = GroupId(16);
const B: GroupId = GroupId(17);

fn open(disk: &mut Disk, config: &LogConfig) -> Log {
    let mut log = open_with(disk, config.clone(), &mut Random::new(1)).expect("the log opens").0;
    // Until its superblock says what it can do.
    settle(&mut log, disk, 0);
    log
}

/// As for a log of which an operator accepts a loss.
fn accepting(config: LogConfig) -> LogConfig {
    LogConfig { features: feature::ALL | feature::ACCEPTED_LOSS, ..config }
}

/// The offsets of a group that a reader from the start gets, who never asks for what it was given already.
fn served(log: &mut Log, disk: &mut Disk, group: GroupId) -> Result<Vec<u64>, Read> {
    let slot = log.group(group).expect("replayed");
    let start = log.log_start(slot);
    let batches = read_all(log, disk, slot, start)?;
    Ok(batches.iter().flat_map(|batch| batch.base_offset..batch.next_offset()).collect())
}

/// Damages the first batches of A and B in the oldest extent: offset 1 of each, one frame.
fn damaged(disk: &mut Disk) -> LogConfig {
    let always = listed(disk, config(), 4);
    let oldest = places(disk, EntryKind::Batch).remove(0);
    for at in [2, 3] {
        disk.damage(oldest.name, oldest.entries[at] + 200);
    }
    accepting(always)
}

#[test]
fn what_is_accepted_is_passed_over_now_and_after_every_start() {
    let mut disk = Disk::default();
    let config = damaged(&mut disk);
    let mut log = open(&mut disk, &config);
    let lost = Read::Damaged { first: 1, last: 1 };
    assert_eq!((served(&mut log, &mut disk, A), served(&mut log, &mut disk, B)), (Err(lost), Err(lost)));
    assert_eq!(log.stats().damaged_ranges, 2);
    let end = log.log_end(log.group(A).expect("replayed"));
    log.accept_loss(&[LostRange { group: A, first: 1, last: 1 }]).expect("room");
    settle(&mut log, &mut disk, 1);
    let expected: Vec<u64> = (0..end).filter(|offset| *offset != 1).collect();
    // At once, after a start that replays the entry, and after starts from each kind of checkpoint.
    for round in 0..40 {
        assert_eq!(served(&mut log, &mut disk, A).expect("passed over"), expected, "round {round}");
        assert_eq!(served(&mut log, &mut disk, B), Err(lost), "round {round}: that of B is not accepted");
        let stats = log.stats();
        assert_eq!((stats.accepted_ranges, stats.damaged_ranges), (1, 1), "round {round}");
        // One that asks within is given what comes behind, alone.
        let slot = log.group(A).expect("open");
        let request = ReadRequest { slot, offset: 1, end_offset: 2, max_bytes: 1, token: 1 };
        assert_eq!(log.read(&request, &mut Vec::new(), &mut Vec::new()), Read::Nothing);
        if round % 3 > 0 {
            append(&mut log, B, 1, 2_000).expect("room");
            checkpoints(&mut log, &mut disk, round);
        }
        log = open(&mut disk, &config);
    }
    assert!(places(&disk, EntryKind::Checkpoint).iter().any(|places| !places.entries.is_empty()));
}

#[test]
fn it_goes_with_the_records_around_it() {
    let mut disk = Disk::default();
    let config = damaged(&mut disk);
    let mut log = open(&mut disk, &config);
    log.accept_loss(&[LostRange { group: A, first: 1, last: 1 }]).expect("room");
    settle(&mut log, &mut disk, 1);
    drop(log);
    let capped = LogConfig { retention_bytes: Some(2 * config.extent_bytes), ..config };
    let mut log = open(&mut disk, &capped);
    for turn in 0..200 {
        append(&mut log, A, 1, 2_000).expect("room");
        checkpoints(&mut log, &mut disk, turn);
    }
    assert!(log.stats().recycled_extents > 0 && log.log_start(log.group(A).expect("open")) > 1);
    assert_eq!(log.stats().accepted_ranges, 0);
    drop(log);
    let mut log = open(&mut disk, &capped);
    assert_eq!(log.stats().accepted_ranges, 0);
    assert!(served(&mut log, &mut disk, A).is_ok());
}

/// An older version would take the gap for damage, and the entry for nonsense.
#[test]
fn nothing_is_accepted_before_the_feature_is_durable() {
    let mut disk = Disk::default();
    let old = LogConfig { features: 0, ..config() };
    let mut log = open(&mut disk, &old);
    append(&mut log, A, 1, 100).expect("room");
    settle(&mut log, &mut disk, 1);
    assert!(!log.has(feature::ACCEPTED_LOSS));
    drop(log);
    let wants = LogConfig { features: feature::ACCEPTED_LOSS, ..config() };
    let mut log = open(&mut disk, &wants);
    settle(&mut log, &mut disk, 1);
    assert!(log.has(feature::ACCEPTED_LOSS) && !log.has(feature::POSITIONS), "that one alone");
    drop(log);
    let log = open(&mut disk, &old);
    assert!(log.has(feature::ACCEPTED_LOSS), "and it stays");
}

/// By hand, as FORMAT.md has it.
#[test]
fn the_entry_has_the_bytes_of_its_table() {
    let mut disk = Disk::default();
    let config = damaged(&mut disk);
    let mut log = open(&mut disk, &config);
    log.accept_loss(&[LostRange { group: A, first: 1, last: 7 }, LostRange { group: B, first: 1, last: 1 }])
        .expect("room");
    settle(&mut log, &mut disk, 1);
    let places = places(&disk, EntryKind::AcceptedLoss);
    let found: Vec<_> = places.iter().filter(|places| !places.entries.is_empty()).collect();
    assert_eq!((found.len(), found[0].entries.len()), (1, 1));
    let entry = &disk.files[&found[0].name].live[found[0].entries[0]..];
    assert_eq!((entry[4], entry[5], &entry[8..16], &entry[16..24]), (1, 13, &[0; 8][..], &[0; 8][..]));
    assert_eq!(entry[28..32], 48_u32.to_le_bytes());
    let numbers: Vec<u64> =
        entry[32..80].chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight"))).collect();
    assert_eq!(numbers, [16, 1, 7, 17, 1, 1]);
    assert_eq!(corelog_storage::accepted_ranges(&entry[32..80]).expect("sound").len(), 2);
    assert_eq!(corelog_storage::accepted_ranges(&entry[32..79]), None);
}

/// Batches in memory: an answer does not reach across the gap, so who counts on offsets without one is not confused.
#[test]
fn an_answer_ends_before_what_is_passed_over() {
    let mut disk = Disk::default();
    let mut log = open(&mut disk, &accepting(config()));
    for _ in 0..3 {
        append(&mut log, A, 2, 100).expect("room");
    }
    settle(&mut log, &mut disk, 1);
    let slot = log.open_group(A, TOPIC, A.0 as u32);
    log.accept_loss(&[LostRange { group: A, first: 2, last: 3 }]).expect("room");
    let mut slices = Vec::new();
    let request = ReadRequest { slot, offset: 0, end_offset: 6, max_bytes: 1 << 20, token: 1 };
    let before = log.read(&request, &mut slices, &mut Vec::new());
    assert_eq!(before, Read::Ready { next_offset: 2 });
    let from_gap = log.read(&ReadRequest { offset: 2, ..request }, &mut slices, &mut Vec::new());
    assert_eq!(from_gap, Read::Ready { next_offset: 6 });
    slices.drain(..).for_each(|slice| log.unpin(slice.block));
}
