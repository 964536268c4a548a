//! Append, crash at any moment, recover, again and again: what was durable is there, once and in order.

use std::collections::BTreeMap;

use crate::disk::{Disk, Random, append, config, memory, now, open_with, read_all};
use corelog_model::GroupId;
use corelog_storage::{
    CheckpointKind, DiskOp, DurableMethod, EntryKind, FileName, Log, LogConfig, OpenError, Opening, Parts,
    Preparation,
};

/// What the test knows about a group: offsets below `durable` were acknowledged.
#[derive(Clone, Copy, Default, Debug)]
struct Expected {
    durable: u64,
    appended: u64,
    start: u64,
}

struct Run {
    random: Random,
    disk: Disk,
    config: LogConfig,
    groups: BTreeMap<GroupId, Expected>,
    clock: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut config = config();
        config.frames_in_flight = 1 + random.below(4) as u8;
        // Two with small frames side by side, two that wait for one another as the product does.
        config.parallel_frame_bytes = [0, 0, 6 << 10, 4 << 10][usize::from(config.frames_in_flight) - 1];
        if random.chance(50) {
            config.durable_method = DurableMethod::Fdatasync;
        }
        if random.chance(50) {
            config.preparation = Preparation::Unwritten;
        }
        if random.chance(50) {
            config.retention_bytes = Some(4 * config.extent_bytes);
        }
        config.settle_extents = (seed % 4) as u32;
        Self { random, disk: Disk::default(), config, groups: BTreeMap::new(), clock: 0 }
    }

    /// One life of the log, from opening to a kill or to power loss.
    fn live(&mut self, turns: u64) {
        let (mut log, told) = open_with(&mut self.disk, self.config.clone(), &mut self.random)
            .expect("a crash leaves a log that opens");
        assert_eq!(told.damaged, [], "a crash is not damage");
        self.compare(&mut log);
        let mut ops: Vec<DiskOp> = Vec::new();
        let mut sent: Vec<(u64, GroupId, u64)> = Vec::new();
        let mut waiting = Vec::new();
        for _ in 0..turns {
            self.clock += self.random.below(3_000);
            for _ in 0..self.random.below(4) {
                let group = GroupId(16 + self.random.below(5));
                let (records, filler) = (1 + self.random.below(20), self.random.below(600) as usize);
                let Some(frame) = append(&mut log, group, records, filler) else { continue };
                let end = log.log_end(log.group(group).expect("open"));
                sent.push((frame, group, end));
                self.groups.entry(group).or_default().appended = end;
            }
            if let Some(kind) = log.wants_checkpoint() {
                self.checkpoint(&mut log, kind);
            }
            log.cut(now(self.clock), &mut ops);
            waiting.append(&mut ops);
            for _ in 0..self.random.below(4) {
                if waiting.is_empty() {
                    break;
                }
                let op = waiting.swap_remove(self.random.below(waiting.len() as u64) as usize);
                let completion = self.disk.run(op, |slice| log.bytes(slice));
                log.on(completion, now(self.clock));
                log.check();
            }
            let durable = log.durable_frame();
            sent.retain(|(frame, group, end)| {
                if *frame <= durable {
                    let expected = self.groups.get_mut(group).expect("it was sent to");
                    expected.durable = expected.durable.max(*end);
                }
                *frame > durable
            });
        }
        // Writes under way reach the disk in part.
        for op in waiting {
            if matches!(op, DiskOp::WriteFrame { .. }) && self.random.chance(50) {
                let DiskOp::WriteFrame { id, file, position, source, .. } = op else { unreachable!() };
                let op = DiskOp::WriteFrame { id, file, position, source, flush: false };
                self.disk.run(op, |slice| log.bytes(slice));
            }
        }
        drop(log);
        // Without it the process was killed with the power on: what it had written is there, flushed or not.
        if self.random.chance(60) {
            self.disk.crash(&mut self.random);
        }
    }

    fn checkpoint(&mut self, log: &mut Log, kind: CheckpointKind) {
        let mut moved = Vec::new();
        log.moved_starts(&mut moved);
        for (group, expected) in &mut self.groups {
            if let Some((_, start)) = moved.iter().rev().find(|(slot, _)| log.group(*group) == Some(*slot)) {
                expected.start = *start;
            }
        }
        let blob = vec![7; 100];
        let mut parts = Parts::default();
        parts.push(&blob);
        parts.push(&blob);
        log.checkpoint(kind, &mut parts);
    }

    fn compare(&mut self, log: &mut Log) {
        for (group, expected) in &mut self.groups {
            let Some(slot) = log.group(*group) else {
                assert_eq!(expected.durable, 0, "group {group} was forgotten");
                *expected = Expected::default();
                continue;
            };
            let (start, end) = (log.log_start(slot), log.log_end(slot));
            assert!(
                end >= expected.durable,
                "group {group}: acknowledged to {}, found {end}",
                expected.durable
            );
            assert!(end <= expected.appended, "group {group}: {end} was never appended");
            let found = read_all(log, &mut self.disk, slot, start).expect("everything is served");
            let mut next = start;
            for batch in &found {
                assert_eq!(batch.base_offset, next, "group {group}: no gap and no repetition");
                next = batch.next_offset();
            }
            assert_eq!(next, end);
            (expected.durable, expected.appended, expected.start) = (end, end, start);
        }
    }
}

#[test]
fn what_was_durable_survives_every_crash_once_and_in_order() {
    for seed in 1..=250 {
        let mut run = Run::new(seed);
        for life in 0..8 {
            let turns = run.random.below(if life % 3 == 0 { 250 } else { 40 });
            run.live(turns);
        }
        run.live(0);
    }
}

#[test]
fn a_log_that_is_only_restarted_grows_by_at_most_two_extents() {
    let mut run = Run::new(1);
    run.live(300);
    run.live(0);
    let before = run.disk.files.len();
    for _ in 0..100 {
        run.live(0);
    }
    assert!(run.disk.files.len() <= before + 2, "{before} files became {}", run.disk.files.len());
}

#[test]
fn the_term_rises_at_every_start_and_entries_are_replayed_in_order() {
    let (mut disk, mut random) = (Disk::default(), Random::new(5));
    for term in 1..20 {
        let (mut log, told) = open_with(&mut disk, config(), &mut random).expect("it opens");
        assert_eq!(log.term().0, term);
        let indexes: Vec<u64> = told.entries.iter().map(|(_, _, index)| *index).collect();
        assert_eq!(indexes, (1..u64::from(term)).collect::<Vec<u64>>());
        assert!(told.entries.iter().all(|(kind, ..)| *kind == EntryKind::Metadata));
        log.room_for(1, 64).expect("there is room");
        log.append_control(EntryKind::Metadata, GroupId::METADATA, u64::from(term), b"a topic");
        let mut ops = Vec::new();
        log.cut(now(1), &mut ops);
        for op in ops {
            let completion = disk.run(op, |slice| log.bytes(slice));
            log.on(completion, now(1));
        }
    }
}

/// A kill behind the first copy of the first superblock leaves one that verifies: a log must not grow that hangs on it.
#[test]
fn a_founding_that_was_cut_short_is_done_again() {
    const COPY: usize = 4096;
    let (mut disk, mut ops) = (Disk::default(), Vec::new());
    let mut opening = Opening::new(config(), memory(), disk.listing(), now(0));
    opening.start(&mut ops).expect("an empty directory is no trouble");
    // The file, and its first copy.
    for _ in 0..2 {
        let op = ops.pop().expect("one thing after the other");
        let completion = disk.run(op, |slice| opening.bytes(slice));
        let log = opening.on(completion, now(0), &mut |_| {}, &mut ops).expect("all is well");
        assert!(log.is_none(), "there is no log yet");
    }
    drop(open_with(&mut disk, config(), &mut Random::new(2)).expect("begun anew"));
    for copy in 0..3 {
        disk.damage(FileName::Superblock, copy * COPY + 100);
    }
    drop(open_with(&mut disk, config(), &mut Random::new(3)).expect("the last copy is whole"));
}

/// Somebody has put a store back and forgotten its extents, or another file system is mounted where they were. The superblock
/// knows that there was a log: one that begins anew would give its offsets and terms to other records.
#[test]
fn a_log_whose_extents_are_gone_is_refused_and_not_begun_anew() {
    let mut disk = Disk::default();
    drop(open_with(&mut disk, config(), &mut Random::new(1)).expect("a new log"));
    disk.files.retain(|name, _| *name == FileName::Superblock);
    let before = disk.files[&FileName::Superblock].live.clone();
    let refused = open_with(&mut disk, config(), &mut Random::new(2)).err();
    assert!(matches!(refused, Some(OpenError::MissingExtent { .. })), "{refused:?}");
    assert_eq!(disk.files.len(), 1, "nothing is made in its place");
    assert!(disk.files[&FileName::Superblock].live == before, "nor is its superblock written over");
}
