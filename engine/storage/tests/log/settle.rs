//! Extents become packs: what was in them is read as before, whatever happens on the way.

use crate::disk::{Disk, Random, Told, append, config, now, open_with, read_all, state};
use corelog_model::GroupId;
use corelog_storage::{DiskError, DiskOp, FileName, Log, LogConfig, OpenError, Read};

const GROUPS: u64 = 5;

/// A log that settles two extents at a time, and what was appended to each group of it.
struct Bench {
    disk: Disk,
    random: Random,
    config: LogConfig,
    log: Log,
    clock: u64,
    told: Told,
}

impl Bench {
    fn new(config: LogConfig) -> Self {
        let (mut disk, mut random) = (Disk::default(), Random::new(7));
        let (log, told) = open_with(&mut disk, config.clone(), &mut random).expect("a new log opens");
        Self { disk, random, config, log, clock: 0, told }
    }

    fn settling() -> LogConfig {
        LogConfig { settle_extents: 2, ..config() }
    }

    /// Carries out what the log wants, checkpoints included, until it wants nothing; how many operations.
    fn quiet(&mut self) -> usize {
        self.quiet_with(|_, _| true)
    }

    /// The same; operations that `carry` declines are forgotten, as at a crash, and nothing after them is carried out.
    fn quiet_with(&mut self, mut carry: impl FnMut(usize, &DiskOp) -> bool) -> usize {
        let (mut ops, mut count) = (Vec::new(), 0);
        loop {
            self.clock += 1;
            self.log.moved_starts(&mut Vec::new());
            if let Some(kind) = self.log.wants_checkpoint() {
                self.log.checkpoint(kind, &mut state());
            }
            self.log.cut(now(self.clock), &mut ops);
            let again = self.log.next_deadline().is_some_and(|at| at <= self.clock);
            if ops.is_empty() && !again {
                return count;
            }
            for op in ops.drain(..) {
                if !carry(count, &op) {
                    return count;
                }
                count += 1;
                let completion = self.disk.run(op, |slice| self.log.bytes(slice));
                self.log.on(completion, now(self.clock));
                self.log.check();
            }
        }
    }

    /// Appends to all groups in turn, some bytes, until so many extents were begun.
    fn fill(&mut self, extents: u64) {
        let begun = |log: &Log| log.stats().live_extents + log.stats().recycled_extents;
        let until = begun(&self.log) + extents;
        for at in 0..100_000 {
            let group = GroupId(16 + at % GROUPS);
            append(&mut self.log, group, 1 + at % 7, (at * 37 % 500) as usize).expect("there is room");
            self.quiet();
            if begun(&self.log) >= until {
                return;
            }
        }
        panic!("extents do not come to an end");
    }

    /// Takes all records of every group but the first away.
    fn leave_the_first(&mut self) {
        for group in (17..16 + GROUPS).map(GroupId) {
            let slot = self.log.group(group).expect("it has records");
            self.log.room_for_change(Log::TRIM_BYTES).expect("there is room");
            self.log.trim(slot, self.log.last_index(slot) + 1, self.log.log_end(slot));
            self.quiet();
        }
    }

    /// What packs and extents take of the disk.
    fn on_disk(&self) -> u64 {
        self.disk.files.values().map(|file| file.live.len() as u64).sum()
    }

    fn crash(&mut self) {
        self.disk.crash(&mut self.random);
        self.open().expect("a log that was cut short opens");
    }

    fn open(&mut self) -> Result<(), OpenError> {
        (self.log, self.told) = open_with(&mut self.disk, self.config.clone(), &mut self.random)?;
        Ok(())
    }

    /// Every group is there from its start to its end, without a gap; how many records in all.
    fn compare(&mut self) -> u64 {
        let mut records = 0;
        for group in (16..16 + GROUPS).map(GroupId) {
            let slot = self.log.group(group).expect("it has records");
            let mut next = self.log.log_start(slot);
            for batch in read_all(&mut self.log, &mut self.disk, slot, next).expect("all is served") {
                assert_eq!(batch.base_offset, next, "group {group}: no gap and no repetition");
                next = batch.next_offset();
            }
            assert_eq!(next, self.log.log_end(slot));
            records += next;
        }
        records
    }

    fn packs(&self) -> Vec<FileName> {
        self.disk.files.keys().filter(|file| matches!(file, FileName::Pack(_))).copied().collect()
    }
}

#[test]
fn extents_of_many_groups_become_packs_and_come_back_to_the_pool() {
    let mut bench = Bench::new(Bench::settling());
    bench.fill(9);
    let stats = bench.log.stats();
    assert!(stats.packs_made >= 3 && stats.live_packs == stats.packs_made, "{stats:?}");
    assert_eq!((stats.packs_abandoned, stats.damaged_ranges), (0, 0));
    assert!(stats.recycled_extents >= 2 * (stats.packs_made - 1), "{stats:?}");
    let extents = bench.disk.files.keys().filter(|file| matches!(file, FileName::Extent(_))).count();
    assert!(extents <= 9, "{extents} extents: those that were settled are used again");
    // What is written a second time is no more than there is. With runs this short and memory for half of a pack, its
    // sources are read twice.
    let sources = 2 * stats.packs_made * bench.config.extent_bytes;
    assert!(stats.settled_bytes <= sources && stats.settle_read_bytes <= 2 * sources, "{stats:?}");
    let records = bench.compare();
    for _ in 0..2 {
        bench.crash();
        assert_eq!((bench.told.damaged.len(), bench.told.possibly_lost.len()), (0, 0));
        assert_eq!(bench.compare(), records);
    }
    assert_eq!(bench.log.stats().live_packs, stats.live_packs);
}

#[test]
fn while_the_log_is_written_settling_has_the_disk_a_tenth_of_the_time() {
    const TOOK_US: u64 = 200;
    let mut bench = Bench::new(LogConfig { settle_extents: 0, ..config() });
    bench.fill(4);
    bench.config = Bench::settling();
    bench.open().expect("it opens");
    let (mut free_us, mut begun, mut ops) = (0, 0, Vec::new());
    let paced = |op: &DiskOp| match op {
        DiskOp::Read { .. } => true,
        DiskOp::WriteFrame { file, .. } => matches!(file, FileName::Pack(_)),
        _ => false,
    };
    for at in 0..20_000 {
        append(&mut bench.log, GroupId(16 + at % GROUPS), 1, 100).expect("there is room");
        bench.log.moved_starts(&mut Vec::new());
        if let Some(kind) = bench.log.wants_checkpoint() {
            bench.log.checkpoint(kind, &mut state());
        }
        bench.log.cut(now(bench.clock), &mut ops);
        let of_settling: Vec<_> = ops.iter().filter(|op| paced(op)).collect();
        let sources_known = bench.log.stats().settle_read_bytes > 0;
        if sources_known && !of_settling.is_empty() {
            assert!(of_settling.len() == 1 && bench.clock >= free_us, "{of_settling:?} at {}", bench.clock);
            begun += 1;
            free_us = bench.clock + 10 * TOOK_US;
        }
        bench.clock += TOOK_US;
        for op in ops.drain(..) {
            let completion = bench.disk.run(op, |slice| bench.log.bytes(slice));
            bench.log.on(completion, now(bench.clock));
        }
        if bench.log.stats().packs_made > 0 {
            break;
        }
    }
    assert!(begun > 5 && bench.log.stats().packs_made == 1, "{begun} operations");
    bench.quiet();
    bench.compare();
}

/// Each operation of the making of a pack, its switch and what follows is the last one once.
#[test]
fn a_crash_at_any_operation_leaves_all_records_and_no_file_that_nobody_knows() {
    let mut grown = Bench::new(LogConfig { settle_extents: 0, ..Bench::settling() });
    grown.fill(4);
    let records = grown.compare();
    for at in 0.. {
        let mut bench = Bench::new(Bench::settling());
        bench.disk.clone_from(&grown.disk);
        bench.open().expect("a log that was stopped opens");
        let done = bench.quiet_with(|count, _| count < at) < at;
        let made = bench.log.stats().packs_made;
        bench.crash();
        assert_eq!((bench.told.damaged.len(), bench.told.possibly_lost.len()), (0, 0), "operation {at}");
        assert_eq!(bench.compare(), records, "operation {at}");
        bench.quiet();
        assert_eq!(bench.packs().len() as u64, bench.log.stats().live_packs, "operation {at}");
        assert_eq!(bench.compare(), records, "operation {at}");
        if done {
            assert!(made >= 1 && at > 30, "{made} packs by {at} operations");
            return;
        }
    }
}

#[test]
fn a_source_that_does_not_verify_stays_as_it_is() {
    let mut grown = Bench::new(LogConfig { settle_extents: 0, ..Bench::settling() });
    grown.fill(4);
    let damaged = grown.log.group(GroupId(17)).expect("it has records");
    let whole = grown.compare();
    let mut bench = Bench::new(Bench::settling());
    bench.disk.clone_from(&grown.disk);
    // In a body: headers, indexes and checkpoints are sound.
    bench.disk.damage(FileName::Extent(0), 10 * 4096 + 128 + 32 + 96 + 200);
    bench.open().expect("a log with damage opens");
    bench.quiet();
    let stats = bench.log.stats();
    assert_eq!((stats.packs_made, stats.live_packs), (0, 0), "{stats:?}");
    assert!(stats.packs_abandoned >= 1);
    assert_eq!(bench.packs(), [], "what was begun is removed");
    let lost = (16..16 + GROUPS).filter(|group| {
        let slot = bench.log.group(GroupId(*group)).expect("it has records");
        let read = read_all(&mut bench.log, &mut bench.disk, slot, 0);
        matches!(read, Err(Read::Damaged { .. }))
    });
    assert_eq!(lost.count(), 1, "one batch of {whole} records, group {damaged:?} or another");
}

#[test]
fn a_disk_that_refuses_the_pack_costs_nothing_but_the_attempt() {
    for fails in ["create", "write", "flush", "read"] {
        let mut grown = Bench::new(LogConfig { settle_extents: 0, ..Bench::settling() });
        grown.fill(4);
        let records = grown.compare();
        let mut bench = Bench::new(Bench::settling());
        bench.disk.clone_from(&grown.disk);
        bench.open().expect("it opens");
        let (mut ops, mut refused) = (Vec::new(), 0);
        for _ in 0..2_000 {
            bench.clock += 10_000;
            bench.log.moved_starts(&mut Vec::new());
            if let Some(kind) = bench.log.wants_checkpoint() {
                bench.log.checkpoint(kind, &mut state());
            }
            bench.log.cut(now(bench.clock), &mut ops);
            for op in ops.drain(..) {
                let of_pack = matches!(op.file(), FileName::Pack(_));
                let refuse = refused < 3
                    && match &op {
                        DiskOp::CreateExtent { .. } => of_pack && fails == "create",
                        DiskOp::WriteFrame { .. } => of_pack && fails == "write",
                        DiskOp::Sync { .. } => of_pack && fails == "flush",
                        DiskOp::Read { .. } => fails == "read" && refused < 1,
                        _ => false,
                    };
                let mut completion = bench.disk.run(op, |slice| bench.log.bytes(slice));
                if refuse {
                    refused += 1;
                    completion.result = Err(DiskError::Io { errno: 5 });
                }
                bench.log.on(completion, now(bench.clock));
                bench.log.check();
            }
        }
        let stats = bench.log.stats();
        assert!(refused > 0 && stats.packs_made >= 1, "{fails}: {stats:?}");
        assert_eq!(bench.packs().len() as u64, stats.live_packs, "{fails}");
        assert_eq!(bench.compare(), records, "{fails}");
    }
}

/// The disk has room for the pack and not for an extent besides, and an extent is needed while the pack is made.
#[test]
fn a_pack_gives_way_to_an_extent_that_finds_no_room() {
    let mut grown = Bench::new(LogConfig { settle_extents: 0, ..Bench::settling() });
    grown.fill(4);
    let mut bench = Bench::new(Bench::settling());
    bench.disk.clone_from(&grown.disk);
    bench.open().expect("it opens");
    let of_pack = |op: &DiskOp| matches!(op, DiskOp::CreateExtent { file: FileName::Pack(_), .. });
    let (mut ops, mut held, mut refused) = (Vec::new(), Vec::new(), false);
    for at in 0.. {
        assert!(at < 10_000, "no extent was refused");
        bench.clock += 1;
        bench.log.cut(now(bench.clock), &mut ops);
        for op in ops.drain(..) {
            let (making, reads) = (of_pack(&op), matches!(op, DiskOp::Read { .. }));
            if reads && bench.disk.most_bytes.is_some() {
                held.push(op);
                continue;
            }
            let completion = bench.disk.run(op, |slice| bench.log.bytes(slice));
            if making {
                // Not quite room for an extent besides.
                bench.disk.most_bytes = Some(bench.disk.bytes() + bench.config.extent_bytes as usize - 4096);
            }
            refused |= completion.result == Err(DiskError::NoSpace);
            bench.log.on(completion, now(bench.clock));
        }
        if refused {
            break;
        }
        // Far from the end of the reserve, which is not what this is about.
        append(&mut bench.log, GroupId(16 + at % GROUPS), 5, 400).expect("there is room");
    }
    assert!(!held.is_empty(), "its sources are being read");
    for op in held {
        let completion = bench.disk.run(op, |slice| bench.log.bytes(slice));
        bench.log.on(completion, now(bench.clock));
    }
    bench.quiet();
    assert_eq!(bench.packs(), [], "its room is given back");
    let (most, before) = (bench.disk.most_bytes, bench.log.stats());
    assert_eq!((before.packs_made, before.packs_abandoned), (0, 1));
    bench.clock += 1_000_000;
    bench.quiet();
    assert!(bench.log.stats().spare_extents > before.spare_extents, "the extent is made");
    assert!(bench.disk.bytes() <= most.expect("it was set"));

    // With room for both it is made after all.
    bench.disk.most_bytes = None;
    for _ in 0..10 {
        bench.clock += 1_000_000;
        bench.quiet();
    }
    assert!(bench.log.stats().packs_made >= 1);
    bench.compare();
    bench.crash();
    bench.compare();
}

#[test]
fn a_pack_that_is_gone_is_missed_by_name() {
    let mut bench = Bench::new(Bench::settling());
    bench.fill(5);
    let pack = bench.packs()[0];
    bench.disk.files.remove(&pack);
    let error = bench.open().expect_err("it is needed");
    assert_eq!(error, OpenError::MissingPack { pack: 0 });
    assert!(error.to_string().contains("pack-00000000"), "{error}");
}

#[test]
fn retention_removes_packs_whole() {
    let retention_bytes = Some(8 * (256 << 10));
    let mut bench = Bench::new(LogConfig { retention_bytes, ..Bench::settling() });
    bench.fill(30);
    let stats = bench.log.stats();
    assert!(stats.packs_made > stats.live_packs && stats.live_packs >= 1, "{stats:?}");
    assert_eq!(bench.packs().len() as u64, stats.live_packs);
    assert!(bench.on_disk() <= 15 * (256 << 10), "{} bytes on the disk", bench.on_disk());
    bench.compare();
    bench.crash();
    bench.compare();
}

#[test]
fn packs_of_which_little_is_left_are_written_once_more_with_what_is_left() {
    let mut bench = Bench::new(Bench::settling());
    bench.fill(9);
    let (packs, before) = (bench.packs(), bench.log.stats());
    assert!(packs.len() >= 3, "{before:?}");
    bench.leave_the_first();
    let after = bench.log.stats();
    assert!(bench.packs().iter().all(|pack| !packs.contains(pack)), "each has been written once more");
    assert!(2 * after.pack_bytes <= before.pack_bytes, "{} of {}", after.pack_bytes, before.pack_bytes);
    // What it cost is no more than it gave back, and is told.
    let (cost, gain) = (after.settled_bytes - before.settled_bytes, before.pack_bytes - after.pack_bytes);
    assert!(0 < cost && cost <= gain, "{cost} bytes were written for {gain}");
    assert_eq!(bench.packs().len() as u64, after.live_packs);
    let records = bench.compare();
    // Of what is left all is alive: nobody writes it a third time.
    bench.quiet();
    assert_eq!(bench.log.stats().packs_made, after.packs_made);
    bench.crash();
    assert_eq!((bench.told.damaged.len(), bench.told.possibly_lost.len()), (0, 0));
    assert_eq!(bench.compare(), records);
    bench.quiet();
    assert_eq!(bench.log.stats().packs_made, 0, "a start knows what is alive, too");
}

#[test]
fn a_crash_while_a_pack_is_written_once_more_leaves_all_that_is_left() {
    let mut grown = Bench::new(Bench::settling());
    grown.fill(5);
    grown.config.settle_extents = 0;
    grown.open().expect("it opens");
    grown.leave_the_first();
    let (records, packs) = (grown.compare(), grown.packs());
    for at in 0.. {
        let mut bench = Bench::new(Bench::settling());
        bench.disk.clone_from(&grown.disk);
        bench.open().expect("a log that was stopped opens");
        let done = bench.quiet_with(|count, _| count < at) < at;
        bench.crash();
        assert_eq!((bench.told.damaged.len(), bench.told.possibly_lost.len()), (0, 0), "operation {at}");
        assert_eq!(bench.compare(), records, "operation {at}");
        bench.quiet();
        assert_eq!(bench.packs().len() as u64, bench.log.stats().live_packs, "operation {at}");
        assert!(bench.packs().iter().all(|pack| !packs.contains(pack)), "operation {at}");
        assert_eq!(bench.compare(), records, "operation {at}");
        if done {
            assert!(at > 15, "{at} operations");
            return;
        }
    }
}

/// A log of one group is not settled for its order, but a start leaves an extent with next to nothing in it.
#[test]
fn extents_that_hold_little_come_back_though_nobody_reads_them_better() {
    let mut bench = Bench::new(Bench::settling());
    for _ in 0..6 {
        for _ in 0..5 {
            append(&mut bench.log, GroupId(16), 3, 300).expect("there is room");
            bench.quiet();
        }
        bench.crash();
        bench.quiet();
    }
    let stats = bench.log.stats();
    assert!(stats.live_packs >= 2 && stats.live_extents <= 3, "{stats:?}");
    let slot = bench.log.group(GroupId(16)).expect("it has records");
    let all = read_all(&mut bench.log, &mut bench.disk, slot, 0).expect("all is served");
    assert_eq!((all.len(), bench.log.log_end(slot)), (30, 90));
}
