//! What a frame costs: the copy of its batches, its header, the bookkeeping until it is durable. No disk.

mod support;

use corelog_model::batch::Patch;
use corelog_model::{GroupId, TopicId};
use corelog_storage::{DiskOp, GroupSlot, Log, Opening};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{NOW, batch, config, done, memory};

const TOPIC: TopicId = TopicId(7);

fn open() -> Log {
    let config = config();
    let memory = memory(&config);
    let mut ops = Vec::new();
    let mut opening = Opening::new(config, memory, corelog_storage::Listing::default(), NOW);
    opening.start(&mut ops).expect("an empty directory");
    let mut waiting = Vec::new();
    loop {
        waiting.append(&mut ops);
        let op: DiskOp = waiting.pop().expect("an opening waits for something");
        if let Some(mut log) = opening.on(done(op), NOW, &mut |_| (), &mut ops).expect("it opens") {
            waiting.append(&mut ops);
            waiting.into_iter().for_each(|op| log.on(done(op), NOW));
            return log;
        }
    }
}

/// One group commit: `batches` batches, then the write and its completion.
fn commit(log: &mut Log, slot: GroupSlot, bytes: &[u8], batches: usize, ops: &mut Vec<DiskOp>) {
    for _ in 0..batches {
        while log.room_for(1, bytes.len()).is_err() {
            settle(log, ops);
        }
        let base_offset = log.log_end(slot);
        let patch = Patch { base_offset, append_timestamp_us: NOW.wall_us, leader_epoch: log.term() };
        let appended = log.append_batch(slot, log.last_index(slot) + 1, bytes, &patch);
        assert!(appended.frame > log.durable_frame());
    }
    settle(log, ops);
}

/// Everything that was asked of the disk is done.
fn settle(log: &mut Log, ops: &mut Vec<DiskOp>) {
    loop {
        log.cut(NOW, ops);
        if ops.is_empty() {
            return;
        }
        ops.drain(..).for_each(|op| log.on(done(op), NOW));
    }
}

fn frames(c: &mut Criterion) {
    let mut log = open();
    let slot = log.open_group(GroupId(16), TOPIC, 0);
    let mut ops = Vec::new();
    let mut group = c.benchmark_group("storage/frame");
    for (name, bytes, batches) in [
        ("1x4KiB", 4 << 10, 1),
        ("240x4KiB", 4 << 10, 240),
        ("1x128KiB", 128 << 10, 1),
        ("7x128KiB", 128 << 10, 7),
    ] {
        let batch = batch(TOPIC, 0, bytes);
        group.throughput(Throughput::Bytes((batch.len() * batches) as u64));
        group.bench_function(name, |b| {
            b.iter(|| commit(&mut log, slot, &batch, batches, &mut ops));
        });
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
