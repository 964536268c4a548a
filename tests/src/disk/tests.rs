//! Each fault of the disk shows, and is counted.

use super::*;
use corelog_model::{Block, BlockId};
use corelog_storage::{EntryKind, OpId};

const EXTENT: FileName = FileName::Extent(0);

struct Bench {
    disk: SimDisk,
    block: Block,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let mut disk = SimDisk::new(Random::new(seed), Faults::default());
        disk.create(EXTENT, 64 << 10).unwrap();
        Self { disk, block: Block::heap(BlockId(0), PAGE) }
    }

    fn start(&mut self, op: DiskOp) {
        self.disk.submit(0, &mut vec![op]);
    }

    fn write(&mut self, id: u64, flush: bool) {
        let source = Slice { block: BlockId(0), offset: 0, length: PAGE as u32 };
        self.start(DiskOp::WriteFrame { id: OpId(id), file: EXTENT, position: 0, source, flush });
    }

    fn finish_one(&mut self) -> DiskCompletion {
        let all = self.block.bytes().to_vec();
        let bytes = move |slice: Slice| all[slice.offset as usize..slice.end() as usize].to_vec();
        self.disk.complete(u64::MAX, &bytes).expect("something was started")
    }

    fn crash(&mut self) -> Vec<u8> {
        let all = self.block.bytes().to_vec();
        self.disk.crash(&move |slice: Slice| all[slice.offset as usize..slice.end() as usize].to_vec());
        self.disk.file(EXTENT).unwrap()[..PAGE].to_vec()
    }
}

/// The next start finds it and goes on from there: a lost entry of the metadata made the log contradict itself.
#[test]
fn a_frame_that_was_under_way_and_arrived_whole_is_guarded_like_any_other() {
    let mut seen = [0; 2];
    for seed in 0..100 {
        let mut bench = Bench::new(seed);
        let bytes = bench.block.bytes_mut();
        bytes.fill(7);
        // A frame of one entry of the metadata.
        bytes[44..48].copy_from_slice(&160_u32.to_le_bytes());
        bytes[128 + 5] = EntryKind::Metadata as u8;
        bytes[128 + 28..128 + 32].fill(0);
        let written = bytes[..PAGE].to_vec();
        bench.write(1, true);
        let whole = bench.crash() == written;
        assert_eq!(bench.disk.atlas.is_guarded(EXTENT, &(0..PAGE)), whole, "seed {seed}");
        seen[usize::from(whole)] += 1;
    }
    assert!(seen[0] >= 10 && seen[1] >= 10, "{seen:?}");
}

/// Both outcomes of the fault model turn up: whole, gone, and torn between sectors.
#[test]
fn an_unflushed_write_may_vanish_in_any_subset_of_its_sectors() {
    let mut survivors = Vec::new();
    for seed in 0..100 {
        let mut bench = Bench::new(seed);
        bench.block.bytes_mut().fill(7);
        bench.write(1, false);
        bench.finish_one();
        let image = bench.crash();
        let sectors = image.chunks(SECTOR).filter(|sector| sector.iter().all(|byte| *byte == 7)).count();
        let untouched = image.chunks(SECTOR).filter(|sector| sector.iter().all(|byte| *byte == 0)).count();
        assert_eq!(sectors + untouched, PAGE / SECTOR, "a sector is whole or not there");
        survivors.push(sectors);
    }
    assert!(survivors.contains(&0) && survivors.contains(&8) && survivors.iter().any(|n| (1..8).contains(n)));
}

#[test]
fn a_flush_confirms_what_was_complete_when_it_began_and_nothing_else() {
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        bench.block.bytes_mut().fill(7);
        bench.write(1, false);
        bench.finish_one();
        bench.start(DiskOp::Sync { id: OpId(2), file: EXTENT });
        bench.finish_one();
        assert!(bench.crash().iter().all(|byte| *byte == 7));

        let mut late = Bench::new(seed);
        late.block.bytes_mut().fill(7);
        late.start(DiskOp::Sync { id: OpId(2), file: EXTENT });
        late.write(1, false);
        late.finish_one();
        late.finish_one();
        assert!(late.disk.files[&EXTENT].durable.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_buffer_that_is_reused_before_its_write_ends_shows() {
    let mut bench = Bench::new(1);
    bench.block.bytes_mut().fill(7);
    bench.write(1, true);
    bench.block.bytes_mut().fill(9);
    bench.finish_one();
    assert!(bench.crash().iter().all(|byte| *byte == 9));
}

#[test]
fn a_full_disk_refuses_extents() {
    let mut bench = Bench::new(1);
    bench.disk.faults.capacity = 100 << 10;
    bench.start(DiskOp::CreateExtent { id: OpId(1), file: FileName::Extent(1), bytes: 64 << 10 });
    assert_eq!(bench.finish_one().result, Err(DiskError::NoSpace));
    assert_eq!(bench.disk.extents(), 1);
}

const OTHER: FileName = FileName::Extent(1);

/// A disk with one fault, and another file beside the first.
fn harmed(seed: u64, set: fn(&mut Faults)) -> Bench {
    let mut bench = Bench::new(seed);
    bench.disk.create(OTHER, 64 << 10).unwrap();
    // The atlas would read what is no frame as one.
    bench.disk.faults.atlas = false;
    set(&mut bench.disk.faults);
    bench.block.bytes_mut().fill(7);
    bench
}

fn sevens(disk: &SimDisk, name: FileName) -> usize {
    disk.files[&name].read(0, 64 << 10).iter().filter(|byte| **byte == 7).count()
}

fn read(bench: &mut Bench) -> (Result<u32, DiskError>, Vec<u8>) {
    let into = Block::heap(BlockId(9), PAGE);
    bench.start(DiskOp::Read { id: OpId(9), file: EXTENT, position: 0, length: PAGE as u32, into });
    let done = bench.finish_one();
    (done.result, done.block.expect("a read gives its block back").bytes().to_vec())
}

#[test]
fn a_misdirected_write_lands_elsewhere_and_its_own_place_keeps_what_it_had() {
    let (mut here, mut there) = (0, 0);
    for seed in 0..50 {
        let mut bench = harmed(seed, |faults| faults.misdirected = 1_000_000);
        bench.write(1, true);
        assert_eq!(bench.finish_one().result, Ok(PAGE as u32), "the disk says that it is well");
        assert_eq!(bench.disk.injected.misdirected, 1);
        assert_eq!(sevens(&bench.disk, EXTENT) + sevens(&bench.disk, OTHER), PAGE, "somewhere");
        assert_ne!(bench.disk.files[&EXTENT].read(0, PAGE), [7; PAGE], "and not where it was to be");
        here += usize::from(sevens(&bench.disk, EXTENT) > 0);
        there += usize::from(sevens(&bench.disk, OTHER) > 0);
    }
    assert!(here > 5 && there > 5, "{here} in the same file, {there} in the other");
}

#[test]
fn a_stale_read_gives_what_was_there_before_and_for_a_start_it_stays_like_that() {
    for is_starting in [false, true] {
        let mut bench = harmed(1, |_| {});
        bench.write(1, true);
        bench.finish_one();
        bench.disk.faults.stale_reads = 1_000_000;
        bench.disk.is_starting = is_starting;
        assert_eq!(read(&mut bench), (Ok(PAGE as u32), vec![0; PAGE]));
        assert_eq!(bench.disk.injected.stale_reads, 1);
        bench.disk.faults.stop();
        let then = if is_starting { 0 } else { 7 };
        assert_eq!(read(&mut bench).1, [then; PAGE]);
    }
}

#[test]
fn one_bit_rots_at_a_time_also_while_the_disk_is_off() {
    let mut bench = harmed(1, |faults| faults.rot = 1_000_000);
    _ = read(&mut bench).0;
    let bits = |disk: &SimDisk| -> u32 {
        disk.files.values().flat_map(|file| &file.durable).map(|byte| byte.count_ones()).sum()
    };
    assert_eq!((bits(&bench.disk), bench.disk.injected.rot), (1, 1));
    for _ in 0..100 {
        bench.crash();
    }
    let rot = bench.disk.injected.rot;
    assert!((5..50).contains(&rot) && bits(&bench.disk) > 1, "{rot} of 100 times that it was off");
}

#[test]
fn a_latent_sector_fails_every_read_until_it_is_written_again_or_given_up() {
    let mut bench = harmed(1, |_| {});
    bench.disk.files.get_mut(&EXTENT).unwrap().latent.insert(3);
    for _ in 0..3 {
        assert_eq!(read(&mut bench).0, Err(DiskError::Io { errno: EIO }));
    }
    assert_eq!(bench.disk.injected.latent_reads, 3);
    bench.write(1, true);
    bench.finish_one();
    assert_eq!(read(&mut bench), (Ok(PAGE as u32), vec![7; PAGE]));
    bench.disk.files.get_mut(&EXTENT).unwrap().latent.insert(3);
    assert_eq!(bench.disk.rescue(), 1);
    let (result, bytes) = read(&mut bench);
    assert!(
        result.is_ok() && bytes.chunks(SECTOR).enumerate().all(|(at, sector)| (sector[0] == 0) == (at == 3))
    );

    let mut bench = harmed(2, |faults| faults.latent = 1_000_000);
    for _ in 0..10 {
        _ = read(&mut bench).0;
    }
    let lost = bench.disk.files.values().map(|file| file.latent.len() as u64).sum::<u64>();
    assert!(lost >= 5 && lost == bench.disk.injected.latent, "{lost}");
}

#[test]
fn a_short_write_says_how_much_arrived_and_a_short_read_gives_a_beginning() {
    let mut bench = harmed(1, |faults| faults.short_writes = 1_000_000);
    bench.write(1, true);
    let Err(DiskError::Short { expected, found }) = bench.finish_one().result else { panic!("not short") };
    assert!(expected == PAGE as u32 && found < expected && sevens(&bench.disk, EXTENT) <= found as usize);
    bench.disk.faults.stop();
    bench.write(2, true);
    bench.finish_one();
    bench.disk.faults.short_reads = 1_000_000;
    let (result, bytes) = read(&mut bench);
    let found = result.unwrap() as usize;
    assert!(found < PAGE && bytes[..found].iter().all(|byte| *byte == 7));
    assert!(bytes[found..].iter().all(|byte| *byte == 0), "what lies behind is what was in the block");
    assert_eq!((bench.disk.injected.short_writes, bench.disk.injected.short_reads), (1, 1));
}

#[test]
fn room_goes_and_comes_back() {
    let mut bench = harmed(1, |faults| faults.full = 10_000);
    let (mut refused, mut made) = (0, 0);
    for number in 2..2_000 {
        let file = FileName::Extent(number);
        bench.start(DiskOp::CreateExtent { id: OpId(1), file, bytes: PAGE as u64 });
        match bench.finish_one().result {
            Ok(_) => made += 1,
            Err(error) => {
                assert_eq!(error, DiskError::NoSpace);
                refused += 1;
            }
        }
    }
    assert!(refused > 100 && made > 100, "{refused} refused, {made} made");
    assert_eq!(bench.disk.injected.no_space, refused);
}

#[test]
fn a_slow_period_makes_operations_ten_to_a_hundred_times_as_long() {
    let mut bench = harmed(1, |faults| faults.slow = 10_000);
    let mut slow = 0;
    for id in 0..2_000 {
        bench.write(id, true);
        let due_us = bench.disk.next_due_us().unwrap();
        slow += u64::from(due_us > bench.disk.faults.delay_us);
        assert!(due_us <= 100 * bench.disk.faults.delay_us);
        bench.finish_one();
    }
    assert!(slow > 100 && slow <= bench.disk.injected.slow && bench.disk.injected.slow < 1_500, "{slow}");
}

#[test]
fn a_lying_flush_confirms_nothing_and_the_next_honest_one_confirms_all() {
    let mut gone = 0;
    for seed in 0..50 {
        for flush in [true, false] {
            let mut bench = harmed(seed, |faults| faults.lies = 1_000_000);
            bench.write(1, flush);
            bench.finish_one();
            if !flush {
                bench.start(DiskOp::Sync { id: OpId(2), file: EXTENT });
                assert_eq!(bench.finish_one().result, Ok(0));
            }
            assert_eq!(bench.disk.injected.lies, 1);
            assert_eq!(read(&mut bench).1, [7; PAGE], "it is seen while the power is on");
            if seed % 2 == 0 {
                bench.disk.faults.stop();
                bench.start(DiskOp::Sync { id: OpId(3), file: EXTENT });
                bench.finish_one();
            }
            let survived = bench.crash().iter().all(|byte| *byte == 7);
            assert!(survived || seed % 2 == 1);
            gone += u32::from(!survived);
        }
    }
    assert!(gone > 20, "{gone}");
}

#[test]
fn writes_end_in_another_order_than_they_were_asked_for() {
    let mut bench = harmed(1, |_| {});
    for id in 0..100 {
        bench.write(id, true);
    }
    let order: Vec<u64> = (0..100).map(|_| bench.finish_one().id.0).collect();
    assert!(!order.is_sorted());
    // Each that was overtaken by another is overtaken once more by those that come later.
    assert!(bench.disk.injected.reordered > 50);
}
