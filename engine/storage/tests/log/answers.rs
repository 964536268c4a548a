//! Whatever a disk answers: to each kind of operation each kind of refusal, and answers that were never asked for, come
//! twice, late, with the block of another read, or without one. Nothing panics, and what was durable stays.

use crate::disk::{Disk, Random, append, config, now, open_with, read_all};
use crate::index::{checkpoints, listed};
use corelog_model::{Block, BlockId, GroupId};
use corelog_storage::{DiskCompletion, DiskError, DiskOp, Log, LogConfig, OpId, ReadRequest};

const A: GroupId = GroupId(16);
const DAY_US: u64 = 24 * 3_600 * 1_000_000;

/// What may be said instead of what is true.
const REFUSALS: [Result<u32, DiskError>; 6] = [
    Err(DiskError::Io { errno: 5 }),
    Err(DiskError::Io { errno: i32::MIN }),
    Err(DiskError::NoSpace),
    Err(DiskError::Short { expected: 4096, found: 512 }),
    Ok(0),
    Ok(u32::MAX),
];

fn kind(op: &DiskOp) -> usize {
    match op {
        DiskOp::WriteFrame { .. } => 0,
        DiskOp::Sync { .. } => 1,
        DiskOp::Read { .. } => 2,
        DiskOp::CreateExtent { .. } => 3,
        DiskOp::Zero { .. } => 4,
        DiskOp::WriteSuperblock { .. } => 5,
        DiskOp::Remove { .. } => 6,
    }
}

/// How an answer reaches the log, beside that it is a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    /// Once more, later, without a block.
    Twice,
    /// An answer to each id that there could be goes before it.
    BehindOthers,
    /// The block is another one, or none.
    WrongBlock,
    NoBlock,
}

const WAYS: [Way; 5] = [Way::Plain, Way::Twice, Way::BehindOthers, Way::WrongBlock, Way::NoBlock];

/// Answers an operation: one of the kind that is bad is refused, every third time.
fn answer(
    log: &mut Log,
    disk: &mut Disk,
    op: DiskOp,
    bad: (usize, Result<u32, DiskError>, Way),
    count: &mut u64,
    at: u64,
) {
    let (bad_kind, refusal, way) = bad;
    let hit = kind(&op) == bad_kind;
    *count += u64::from(hit);
    let mut completion = disk.run(op, |slice| log.bytes(slice));
    let id = completion.id;
    if hit && count.is_multiple_of(3) {
        completion.result = refusal;
        match way {
            Way::WrongBlock => completion.block = Some(Block::heap(BlockId(999), 4096)),
            Way::NoBlock => completion.block = None,
            Way::BehindOthers => {
                for value in [0, 1, 7, 1 << 20, (1 << 56) - 1] {
                    for purpose in 0..12_u64 {
                        let id = OpId(purpose << 56 | value);
                        let stray = id != completion.id && !is_under_way(id, completion.id);
                        if stray {
                            log.on(DiskCompletion { id, result: refusal, block: None }, now(at));
                        }
                    }
                }
            }
            Way::Plain | Way::Twice => {}
        }
    }
    log.on(completion, now(at));
    log.check();
    if hit && way == Way::Twice {
        log.on(DiskCompletion { id, result: refusal, block: None }, now(at));
        log.check();
    }
}

/// Only what nobody has asked for is stray: here one operation is answered at a time, so its id and the kinds that may be
/// under way beside it, with the values that those have, are left out.
fn is_under_way(id: OpId, answered: OpId) -> bool {
    // Frames, flushes, reads, extents, zeros, superblock copies, the scrubber: values of theirs are small.
    (1..=9).contains(&(id.0 >> 56)) && (id.0 & ((1 << 56) - 1) <= 7 || id.0 >> 56 == answered.0 >> 56)
}

#[test]
fn no_answer_of_a_disk_panics_or_loses_what_was_durable() {
    let mut sound = Disk::default();
    let base = LogConfig { scrub_us: Some(DAY_US), ..listed(&mut sound, config(), 3) };
    for bad_kind in 0..7 {
        for refusal in REFUSALS {
            for way in WAYS {
                // A write that says it went well has: a disk that lies about that is damage, not an answer.
                if bad_kind < 2 && refusal == Ok(0) && way != Way::Plain {
                    continue;
                }
                let what = format!("kind {bad_kind}, {refusal:?}, {way:?}");
                let mut disk = sound.clone();
                let (mut log, _) =
                    open_with(&mut disk, base.clone(), &mut Random::new(1)).expect("the log opens");
                let (mut ops, mut slices, mut count) = (Vec::new(), Vec::new(), 0);
                let slot = log.group(A).expect("replayed");
                let mut durable = log.log_end(slot);
                let mut awaited = Vec::new();
                for turn in 1..120_u64 {
                    let at = turn * 300_000_000;
                    if let Some(frame) = append(&mut log, A, 1, 3_000) {
                        awaited.push((frame, log.log_end(slot)));
                    }
                    if let Some(kind) = log.wants_checkpoint() {
                        log.moved_starts(&mut Vec::new());
                        log.checkpoint(kind, &mut crate::disk::state());
                    }
                    let offset = turn % log.log_end(slot);
                    let request = ReadRequest {
                        slot,
                        offset,
                        end_offset: log.log_end(slot),
                        max_bytes: 1,
                        token: turn,
                    };
                    let _ = log.read(&request, &mut slices, &mut ops);
                    slices.drain(..).for_each(|slice| log.unpin(slice.block));
                    for _ in 0..4 {
                        log.cut(now(at), &mut ops);
                        for op in std::mem::take(&mut ops) {
                            answer(&mut log, &mut disk, op, (bad_kind, refusal, way), &mut count, at);
                        }
                    }
                    for (_, end) in awaited.iter().filter(|(frame, _)| *frame <= log.durable_frame()) {
                        durable = durable.max(*end);
                    }
                }
                drop(log);
                let (mut log, told) =
                    open_with(&mut disk, base.clone(), &mut Random::new(1)).expect("and opens again");
                assert_eq!(told.damaged, [], "{what}");
                let slot = log.group(A).expect("replayed");
                assert!(log.log_end(slot) >= durable, "{what}: {} of {durable}", log.log_end(slot));
                assert!(read_all(&mut log, &mut disk, slot, 0).is_ok(), "{what}");
                checkpoints(&mut log, &mut disk, 1);
            }
        }
    }
}
