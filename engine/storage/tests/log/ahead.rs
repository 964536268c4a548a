//! Reading ahead: for who reads in order, for nobody else, and never in the way of anybody.

use crate::disk::{Disk, Random, append, config, now, open_with};
use corelog_model::GroupId;
use corelog_storage::{DiskOp, Log, LogConfig, Read, ReadRequest};

pub(crate) const A: GroupId = GroupId(16);
pub(crate) const BATCHES: u64 = 200;

/// A log with far more records of a group than its window names.
pub(crate) fn filled() -> (Log, Disk) {
    let small = LogConfig { entries_in_window: 16, ..config() };
    let (mut disk, mut random) = (Disk::default(), Random::new(3));
    let (mut log, _) = open_with(&mut disk, small, &mut random).expect("it opens");
    let mut ops = Vec::new();
    for at in 0..BATCHES {
        append(&mut log, A, 1, 4000).expect("room");
        for _ in 0..4 {
            log.cut(now(at), &mut ops);
            for op in ops.drain(..) {
                let completion = disk.run(op, |slice| log.bytes(slice));
                log.on(completion, now(at));
            }
        }
    }
    (log, disk)
}

/// One reader, and what it has the disk asked for.
struct Reader {
    log: Log,
    disk: Disk,
    /// Reads that it had to wait for, and reads that were issued.
    waited: u32,
    issued: u32,
}

impl Reader {
    fn new() -> Self {
        let (log, disk) = filled();
        Self { log, disk, waited: 0, issued: 0 }
    }

    /// The answer to a read from `offset` on, however long it takes; reads that it causes end when it has to wait.
    fn read(&mut self, offset: u64, under_way: &mut Vec<DiskOp>) -> u64 {
        let slot = self.log.group(A).expect("open");
        let request = ReadRequest { slot, offset, end_offset: BATCHES, max_bytes: 9_000, token: 1 };
        let mut slices = Vec::new();
        for _ in 0..100 {
            let before = under_way.len();
            let answer = self.log.read(&request, &mut slices, under_way);
            self.issued += (under_way.len() - before) as u32;
            if let Read::Ready { next_offset } = answer {
                slices.drain(..).for_each(|slice| self.log.unpin(slice.block));
                return next_offset;
            }
            assert!(matches!(answer, Read::Pending | Read::Busy), "{answer:?}");
            self.waited += u32::from(answer == Read::Pending);
            self.log.cut(now(1_000), under_way);
            for op in under_way.drain(..) {
                let completion = self.disk.run(op, |slice| self.log.bytes(slice));
                self.log.on(completion, now(1_000));
            }
        }
        panic!("a read of {offset} waits for ever");
    }
}

#[test]
fn who_reads_in_order_finds_the_next_piece_on_its_way() {
    let mut reader = Reader::new();
    let (mut offset, mut ahead, mut under_way) = (0, 0, Vec::new());
    while offset < 150 {
        offset = reader.read(offset, &mut under_way);
        // What is under way now was asked for before anybody wanted it.
        ahead += usize::from(!under_way.is_empty());
    }
    assert!(ahead >= 10, "{ahead} times something was read ahead of {} reads", reader.issued);
    // Each piece was read once: 32 KiB, of frames of 8 KiB with a batch each.
    assert!((38..=44).contains(&reader.issued), "{} reads", reader.issued);
    assert_eq!(reader.log.stats().damaged_ranges, 0);
}

#[test]
fn who_jumps_about_causes_no_read_but_its_own() {
    let mut reader = Reader::new();
    let mut under_way = Vec::new();
    for step in 0..40 {
        reader.read(step * 67 % 150, &mut under_way);
        assert!(under_way.is_empty(), "nobody reads on from there");
    }
}
