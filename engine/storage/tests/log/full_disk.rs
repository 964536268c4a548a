//! A disk that is full: the log always starts, reads, takes the few entries that make room, and does not grow.

use crate::disk::{Disk, Random, append, config, now, open_with, read_all};
use corelog_model::GroupId;
use corelog_storage::{DiskError, EntryKind, FileName, Full, Log, OpenError, Parts};

const A: GroupId = GroupId(16);
const B: GroupId = GroupId(17);
/// Extents that batches leave.
const RESERVE: u64 = 3;

/// A log on its disk, and what its owner does each turn.
struct Life {
    log: Log,
    clock: u64,
    /// Parts of 2,000 bytes of the owner's state.
    state_parts: usize,
}

impl Life {
    fn begin(disk: &mut Disk, seed: u64) -> Self {
        let (log, told) = open_with(disk, config(), &mut Random::new(seed)).expect("a full disk starts");
        assert_eq!((told.damaged.len(), told.tail_cut), (0, 0));
        Self { log, clock: 1, state_parts: 3 }
    }

    /// Turns until the disk is asked for nothing more, and some that try again to make extents.
    fn settle(&mut self, disk: &mut Disk) {
        for _ in 0..20 {
            self.clock += 500_000;
            self.turns(disk, u32::MAX);
        }
    }

    /// At most so many operations.
    fn turns(&mut self, disk: &mut Disk, mut operations: u32) {
        let mut ops = Vec::new();
        loop {
            if let Some(kind) = self.log.wants_checkpoint() {
                let mut parts = Parts::default();
                (0..self.state_parts).for_each(|_| parts.push(&[7; 2000]));
                self.log.checkpoint(kind, &mut parts);
            }
            self.log.cut(now(self.clock), &mut ops);
            if ops.is_empty() {
                return;
            }
            for op in ops.drain(..) {
                if operations == 0 {
                    return;
                }
                operations -= 1;
                let completion = disk.run(op, |slice| self.log.bytes(slice));
                self.log.on(completion, now(self.clock));
                self.log.check();
            }
        }
    }

    fn change(&mut self) -> Result<(), Full> {
        let payload = [9; 100];
        self.log.room_for_change(payload.len())?;
        let slot = self.log.group(GroupId::METADATA);
        let index = 1 + slot.map_or(0, |slot| self.log.last_index(slot));
        self.log.append_control(EntryKind::Metadata, GroupId::METADATA, index, &payload);
        Ok(())
    }

    fn fill(&mut self, disk: &mut Disk, group: GroupId) {
        for records in [10, 1] {
            while append(&mut self.log, group, records, 500).is_some() {
                self.settle(disk);
            }
        }
        assert_eq!(self.log.room_for(1, 1000), Err(Full::Extents));
    }

    fn end_of(&self, group: GroupId) -> u64 {
        self.log.group(group).map_or(0, |slot| self.log.log_end(slot))
    }

    fn reads(&mut self, disk: &mut Disk, group: GroupId) {
        let slot = self.log.open_group(group, crate::disk::TOPIC, group.0 as u32);
        let start = self.log.log_start(slot);
        let batches = read_all(&mut self.log, disk, slot, start).expect("served");
        assert_eq!(
            batches.iter().map(|batch| u64::from(batch.record_count)).sum::<u64>(),
            self.end_of(group)
        );
    }
}

/// A disk with room for so many extents, all of it taken by records of A and B.
fn full(extents: usize) -> (Disk, Life) {
    let mut disk = Disk { most_extents: Some(extents), ..Disk::default() };
    let mut life = Life::begin(&mut disk, 1);
    append(&mut life.log, B, 10, 500).expect("room");
    life.fill(&mut disk, A);
    assert_eq!(life.log.stats().spare_extents, RESERVE, "the reserve is whole");
    (disk, life)
}

fn extents(disk: &Disk) -> usize {
    disk.files.keys().filter(|file| matches!(file, FileName::Extent(_))).count()
}

/// Killed after every number of operations, thirty times in a row, with a change in every other life.
#[test]
fn a_full_disk_starts_again_and_again_and_does_not_grow() {
    for (seed, changes) in [(1, false), (2, true), (3, true)] {
        let (mut disk, life) = full(9);
        let (end, mut random) = (life.end_of(A), Random::new(seed));
        drop(life);
        let mut taken = 0;
        for round in 0..60 {
            let mut life = Life::begin(&mut disk, seed * 100 + round);
            assert_eq!(life.end_of(A), end);
            assert!(life.log.stats().spare_extents >= 1, "the next start finds one");
            if changes && random.chance(50) {
                // Where the last life's has not been given back yet, it is asked for again.
                if life.change().is_err() {
                    life.settle(&mut disk);
                    life.change().expect("room for a change");
                }
                taken += 1;
            }
            if round % 5 == 0 {
                life.settle(&mut disk);
                assert!(life.log.stats().spare_extents >= 2, "what the last life left was given back");
                assert_eq!(life.log.room_for(1, 1000), Err(Full::Extents));
                life.reads(&mut disk, A);
                life.reads(&mut disk, B);
            } else {
                life.turns(&mut disk, random.below(30) as u32);
            }
            drop(life);
            disk.crash(&mut random);
            assert_eq!(extents(&disk), 9);
        }
        assert_eq!(taken > 10, changes);
    }
}

/// More changes than one extent holds, in one life.
#[test]
fn changes_go_on_for_ever_on_a_full_disk() {
    let (mut disk, life) = full(7);
    drop(life);
    let mut life = Life::begin(&mut disk, 5);
    let (mut taken, mut asked) = (0, 0);
    while taken < 3_000 {
        asked += 1;
        match life.change() {
            Ok(()) => {
                taken += 1;
                life.turns(&mut disk, u32::MAX);
            }
            Err(_) => life.settle(&mut disk),
        }
        assert!(asked < 4_000, "{taken} changes were taken");
    }
    life.settle(&mut disk);
    assert!(life.log.stats().spare_extents >= 2);
    let index = life.log.last_index(life.log.group(GroupId::METADATA).expect("seen"));
    drop(life);
    let life = Life::begin(&mut disk, 6);
    assert_eq!(life.log.last_index(life.log.group(GroupId::METADATA).expect("seen")), index);
}

/// The owner's state is larger than what is left: its checkpoint is begun and does not end. The next start is no worse
/// off for it, and changes are refused before they are.
#[test]
fn a_checkpoint_that_does_not_fit_leaves_the_next_start_its_extent() {
    let (mut disk, life) = full(9);
    drop(life);
    let (mut random, mut refused) = (Random::new(12), 0);
    for round in 0..30 {
        let mut life = Life::begin(&mut disk, 50 + round);
        life.state_parts = 400;
        refused += u32::from(life.change().is_err());
        life.settle(&mut disk);
        assert!(life.log.stats().spare_extents >= 1, "the next start finds one, in life {round}");
        life.reads(&mut disk, A);
        drop(life);
        disk.crash(&mut random);
    }
    assert!(refused > 20, "{refused} changes were refused");
}

/// The records of a dropped group make room for others: in the same life, and when its owner says so after a start.
#[test]
fn what_is_dropped_makes_room() {
    for restart in [false, true] {
        let (mut disk, mut life) = full(9);
        let slot = life.log.group(A).expect("open");
        if restart {
            drop(life);
            life = Life::begin(&mut disk, 7);
            life.log.open_group(B, crate::disk::TOPIC, B.0 as u32);
            life.log.drop_unopened();
        } else {
            life.log.drop_group(slot);
        }
        life.settle(&mut disk);
        let recycled = life.log.stats().recycled_extents;
        assert!(recycled >= 3, "{recycled} extents held nothing but A, restart {restart}");
        append(&mut life.log, B, 10, 500).expect("it is writable again");
        life.settle(&mut disk);
        life.fill(&mut disk, B);
        life.reads(&mut disk, B);
        assert_eq!(extents(&disk), 9);
        let end = life.end_of(B);
        drop(life);
        let mut life = Life::begin(&mut disk, 8);
        assert_eq!(life.end_of(B), end);
        life.reads(&mut disk, B);
    }
}

#[test]
fn room_that_comes_back_is_used_without_being_told() {
    let (mut disk, life) = full(9);
    drop(life);
    let mut life = Life::begin(&mut disk, 9);
    life.settle(&mut disk);
    assert_eq!(life.log.room_for(1, 1000), Err(Full::Extents));
    disk.most_extents = Some(12);
    life.settle(&mut disk);
    let end = life.end_of(A);
    life.fill(&mut disk, A);
    assert!(life.end_of(A) > end);
    assert_eq!((life.log.stats().spare_extents, extents(&disk)), (RESERVE, 12));
}

/// A disk that has no room for head and reserve is refused by name, and taken as soon as it has.
#[test]
fn a_new_log_on_too_small_a_disk_is_refused_by_name() {
    let refused = OpenError::NoRoom { extents: RESERVE + 1, extent_bytes: config().extent_bytes };
    let mut disk = Disk::default();
    for most in 0..=RESERVE as usize {
        disk.most_extents = Some(most);
        let opened = open_with(&mut disk, config(), &mut Random::new(most as u64));
        assert_eq!(opened.err(), Some(refused), "{most} extents");
    }
    assert!(refused.to_string().contains("no space left"), "{refused}");
    // A disk that fails is not called full.
    let error = DiskError::Io { errno: 5 };
    disk.says = Some(error);
    let opened = open_with(&mut disk, config(), &mut Random::new(8));
    let file = FileName::Extent(RESERVE as u32);
    assert_eq!(opened.err(), Some(OpenError::Disk { file, position: 0, error }));
    disk.most_extents = Some(RESERVE as usize + 1);
    let (log, _) = open_with(&mut disk, config(), &mut Random::new(9)).expect("there is room");
    assert_eq!(log.stats().spare_extents, RESERVE);
}
