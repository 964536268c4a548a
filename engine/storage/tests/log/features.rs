//! What an older version could not read is written only after the superblock says so, and then it is said for good.

use crate::disk::{Disk, Random, config, now, open_with};
use corelog_storage::{Log, LogConfig, Parts, feature};

fn with(features: u64) -> LogConfig {
    LogConfig { features, ..config() }
}

fn open(disk: &mut Disk, features: u64) -> Log {
    open_with(disk, with(features), &mut Random::new(1)).expect("it opens").0
}

/// Turns until the disk is asked for nothing more. Answers after how many operations the log had all features.
fn settle(log: &mut Log, disk: &mut Disk) -> Option<u32> {
    let (mut ops, mut done, mut had) = (Vec::new(), 0, None);
    loop {
        if let Some(kind) = log.wants_checkpoint() {
            let mut parts = Parts::default();
            parts.push(&[7; 100]);
            log.checkpoint(kind, &mut parts);
        }
        log.cut(now(10), &mut ops);
        if ops.is_empty() {
            return had;
        }
        for op in ops.drain(..) {
            let completion = disk.run(op, |slice| log.bytes(slice));
            log.on(completion, now(10));
            done += 1;
            if had.is_none() && log.has(feature::ALL) {
                had = Some(done);
            }
        }
    }
}

#[test]
fn a_new_log_has_what_it_is_told_to_have() {
    let mut disk = Disk::default();
    assert!(open(&mut disk, feature::ALL).has(feature::ALL), "before anything can be written");
    let mut older = Disk::default();
    let log = open(&mut older, feature::POSITIONS);
    assert!(log.has(feature::POSITIONS) && !log.has(feature::ALL));
}

#[test]
fn a_log_of_an_older_version_gets_features_when_all_copies_say_so_and_keeps_them() {
    let mut disk = Disk::default();
    for _ in 0..3 {
        let mut log = open(&mut disk, 0);
        assert_eq!(settle(&mut log, &mut disk), None, "nobody has said that it is final");
        assert!(!log.has(feature::POSITIONS));
    }
    let mut log = open(&mut disk, feature::ALL);
    assert!(!log.has(feature::POSITIONS), "an older version would still open it");
    let after = settle(&mut log, &mut disk).expect("it becomes final");
    assert!(after >= 3, "the first copy belongs to the start, and {after} came after it");
    // A start that does not know of it.
    let mut log = open(&mut disk, 0);
    assert!(log.has(feature::ALL));
    settle(&mut log, &mut disk);
    assert!(open(&mut disk, 0).has(feature::ALL));
}

/// The power fails at any of the operations in between: what one start could rely on, the next one has.
#[test]
fn a_feature_that_was_there_is_there_after_a_crash_anywhere() {
    for crash_at in 0..40 {
        let mut disk = Disk::default();
        let mut log = open(&mut disk, 0);
        settle(&mut log, &mut disk);
        let mut log = open(&mut disk, feature::ALL);
        let (mut ops, mut done) = (Vec::new(), 0);
        'turns: loop {
            log.cut(now(10), &mut ops);
            if ops.is_empty() {
                break;
            }
            for op in ops.drain(..) {
                if done == crash_at {
                    break 'turns;
                }
                done += 1;
                let completion = disk.run(op, |slice| log.bytes(slice));
                log.on(completion, now(10));
            }
        }
        let had = log.has(feature::ALL);
        drop(log);
        disk.crash(&mut Random::new(crash_at));
        assert!(open(&mut disk, 0).has(feature::ALL) || !had, "crashed at {crash_at}");
    }
}
