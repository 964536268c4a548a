//! Readers of one group that start one after the other: they share what is read, and nobody waits for long.

use crate::ahead::{A, BATCHES, filled};
use crate::disk::{Disk, now};
use corelog_storage::{DiskOp, Log, Read, ReadRequest};

/// Behind these the window answers.
const END: u64 = 150;

struct Bed {
    log: Log,
    disk: Disk,
    under_way: Vec<DiskOp>,
    issued: usize,
    at_us: u64,
    /// Of each reader: what comes next, and whether it waits.
    readers: Vec<(u64, bool)>,
}

impl Bed {
    fn new(readers: usize) -> Self {
        let (log, disk) = filled();
        let readers = vec![(0, false); readers];
        Self { log, disk, under_way: Vec::new(), issued: 0, at_us: 1_000, readers }
    }

    /// A reader asks once, if it does not wait; then the disk answers.
    fn ask(&mut self, reader: usize) {
        let (offset, waits) = self.readers[reader];
        if !waits && offset < END {
            let slot = self.log.group(A).expect("open");
            let token = reader as u64;
            let request = ReadRequest { slot, offset, end_offset: BATCHES, max_bytes: 9_000, token };
            let mut slices = Vec::new();
            match self.log.read(&request, &mut slices, &mut self.under_way) {
                Read::Ready { next_offset } => self.readers[reader].0 = next_offset,
                Read::Pending => self.readers[reader].1 = true,
                answer => assert_eq!(answer, Read::Busy),
            }
            slices.drain(..).for_each(|slice| self.log.unpin(slice.block));
        }
        self.turn();
    }

    fn turn(&mut self) {
        self.log.cut(now(self.at_us), &mut self.under_way);
        self.issued += self.under_way.iter().filter(|op| matches!(op, DiskOp::Read { .. })).count();
        for op in self.under_way.drain(..) {
            let completion = self.disk.run(op, |slice| self.log.bytes(slice));
            self.log.on(completion, now(self.at_us));
        }
        self.log.cut(now(self.at_us), &mut self.under_way);
        let mut finished = Vec::new();
        self.log.finished(&mut finished);
        finished.iter().for_each(|read| self.readers[read.token as usize].1 = false);
    }

    /// All ask in turn until they have everything, each step a little later.
    fn run(&mut self) {
        for _ in 0..20_000 {
            if self.readers.iter().all(|(next, _)| *next >= END) {
                return;
            }
            self.at_us += 50;
            (0..self.readers.len()).for_each(|reader| self.ask(reader));
        }
        panic!("they never come to the end: {:?}", self.readers);
    }
}

fn alone() -> usize {
    let mut bed = Bed::new(1);
    bed.run();
    bed.issued
}

#[test]
fn who_starts_later_is_waited_for_and_then_reads_what_is_there() {
    let alone = alone();
    let mut bed = Bed::new(3);
    for _ in 0..400 {
        if bed.readers[0].0 >= 40 {
            break;
        }
        bed.ask(0);
    }
    assert!(bed.readers[0].0 >= 40);
    bed.run();
    // The first 40 batches are read twice, a little more than a quarter; without waiting nearly all would be.
    assert!(bed.issued <= alone * 3 / 2, "{} reads, {alone} of one alone", bed.issued);
}

#[test]
fn who_stops_reading_is_not_waited_for() {
    let mut bed = Bed::new(2);
    while bed.readers[0].0 < 80 {
        bed.ask(0);
    }
    while bed.readers[1].0 < 20 {
        bed.ask(1);
    }
    while !bed.readers[0].1 {
        bed.ask(0);
    }
    let deadline = bed.log.next_deadline().expect("it is looked whether the wait is over");
    assert!(deadline <= bed.at_us + 25_000, "{deadline}");
    bed.at_us += 99_000;
    bed.turn();
    assert!(bed.readers[0].1, "the other may still come");
    bed.at_us += 2_000;
    bed.turn();
    assert!(!bed.readers[0].1);
    while bed.readers[0].0 < END {
        bed.at_us += 10;
        bed.ask(0);
    }
}

#[test]
fn who_is_too_slow_is_waited_for_once_and_not_for_long() {
    let mut bed = Bed::new(2);
    while bed.readers[0].0 < 80 {
        bed.ask(0);
    }
    let began = bed.at_us;
    let mut waited_until = began;
    // The one behind asks every 90 ms, so that it needs twelve seconds; the one ahead whenever it can.
    while bed.readers[0].0 < END {
        bed.at_us += 90_000;
        bed.ask(1);
        for _ in 0..4 {
            bed.ask(0);
        }
        if bed.readers[0].1 {
            waited_until = bed.at_us;
        }
        assert!(bed.at_us < began + 6_000_000, "{:?}", bed.readers);
    }
    assert!(waited_until > began + 1_000_000, "it has waited");
    assert!(waited_until < began + 2_700_000, "{}", waited_until - began);
    assert!(bed.readers[1].0 < END);
}

#[test]
fn readers_that_jump_about_wait_for_nobody() {
    let mut bed = Bed::new(2);
    for step in 0..60 {
        for reader in 0..2_u64 {
            bed.readers[reader as usize].0 = (step * 67 + reader * 31) % END;
            bed.ask(reader as usize);
            assert!(!bed.readers[reader as usize].1, "its read has ended with the turn");
            bed.ask(reader as usize);
        }
    }
}
