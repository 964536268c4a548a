//! What a batch costs: summing, sealing, validating, reading. Per-record figures are the time divided by the
//! records of one 128 KiB batch; criterion prints them as elements a second.

use std::hint::black_box;

use corelog_model::batch::{AlignedVec, BatchBuilder, BatchHeader, BatchView, Codec, Patch, RecordRef, Seal};
use corelog_model::crc::crc32c;
use corelog_model::{Term, TopicId};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const BATCH_BYTES: usize = 128 << 10;
const SEAL: Seal = Seal {
    topic: TopicId(7),
    partition: 1,
    producer_id: corelog_model::ProducerId(1),
    producer_epoch: 0,
    base_sequence: 0,
    codec: Codec::None,
};
/// Values of one record, in bytes.
const RECORD_BYTES: [usize; 2] = [100, 1000];

fn crc(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc");
    for bytes in [56_usize, 96, 256, 512, 1 << 10, 4 << 10, 64 << 10, 1 << 20] {
        let mut input = AlignedVec::<16>::with_capacity(bytes);
        (0..bytes).for_each(|i| input.push(i as u8));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::new("crc32c", bytes), &input, |b, input| {
            b.iter(|| crc32c::crc32c(black_box(input)));
        });
        group.bench_with_input(BenchmarkId::new("crc-fast", bytes), &input, |b, input| {
            b.iter(|| crc_fast::crc32_iscsi(black_box(input)));
        });
        group.bench_with_input(BenchmarkId::new("model", bytes), &input, |b, input| {
            b.iter(|| crc32c(0, black_box(input)));
        });
    }
    group.finish();
}

/// Fills the builder; the number of records.
fn fill(builder: &mut BatchBuilder, value: &[u8]) -> usize {
    let mut timestamp_us = 1_795_305_600_000_000;
    loop {
        let record = RecordRef { key: None, value: Some(black_box(value)), timestamp_us, headers: &[] };
        if builder.push(record).is_err() {
            return builder.record_count();
        }
        timestamp_us += 1;
    }
}

fn sealed(value: &[u8]) -> (AlignedVec<16>, usize) {
    let mut builder = BatchBuilder::new(BATCH_BYTES);
    let records = fill(&mut builder, value);
    let mut batch = AlignedVec::new();
    builder.seal(&SEAL, &mut batch).expect("there are records");
    (batch, records)
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    for record_bytes in RECORD_BYTES {
        let value = vec![b'v'; record_bytes];
        let (_, records) = sealed(&value);
        group.throughput(Throughput::Elements(records as u64));
        let mut builder = BatchBuilder::new(BATCH_BYTES);
        let mut out = AlignedVec::<16>::with_capacity(BATCH_BYTES);
        group.bench_function(BenchmarkId::new("push and seal", record_bytes), |b| {
            b.iter(|| {
                out.clear();
                fill(&mut builder, &value);
                builder.seal(&SEAL, &mut out).expect("there are records")
            });
        });
        group.bench_function(BenchmarkId::new("push", record_bytes), |b| {
            b.iter(|| {
                builder.clear();
                fill(&mut builder, &value)
            });
        });
    }
    group.finish();
}

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    for record_bytes in RECORD_BYTES {
        let (batch, records) = sealed(&vec![b'v'; record_bytes]);
        let mut scratch = AlignedVec::new();
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(BenchmarkId::new("validate", record_bytes), |b| {
            b.iter(|| BatchView::open(black_box(&batch), &mut scratch).expect("our own batch").len());
        });
        group.bench_function(BenchmarkId::new("validate and iterate", record_bytes), |b| {
            b.iter(|| {
                let view = BatchView::open(black_box(&batch), &mut scratch).expect("our own batch");
                let bytes = |record: corelog_model::batch::Record<'_>| {
                    record.value.map_or(0, <[u8]>::len) as u64 + record.timestamp_us + record.offset
                };
                view.records().map(bytes).fold(0, u64::wrapping_add)
            });
        });
        let header = BatchHeader::parse(&batch).expect("our own batch");
        group.bench_function(BenchmarkId::new("body crc", record_bytes), |b| {
            b.iter(|| header.verify_body(black_box(&batch)));
        });
    }
    group.finish();
}

/// What the broker does to every batch beside the body CRC.
fn header(c: &mut Criterion) {
    let (batch, _) = sealed(&[b'v'; 100]);
    let mut group = c.benchmark_group("header");
    group.bench_function("parse", |b| b.iter(|| BatchHeader::parse(black_box(&batch))));
    group.bench_function("verify", |b| {
        b.iter(|| BatchHeader::verify_header(black_box(&batch), TopicId(7), 1))
    });
    group.bench_function("patch", |b| {
        let patch = Patch { base_offset: 9, append_timestamp_us: 8, leader_epoch: Term(7) };
        let head = || <[u8; 96]>::try_from(&batch[..96]).expect("a batch has a header");
        b.iter_batched_ref(
            head,
            |head| BatchHeader::patch(head, black_box(&patch), TopicId(7), 1),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, crc, seal, read, header);
criterion_main!(benches);
