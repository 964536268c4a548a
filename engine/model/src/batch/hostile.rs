//! Batches that no builder of ours would write: columns that disagree, and compacted ones.
//!
//! Each lie is told alone, in a batch that is otherwise in order, so that a check which is missing shows.

use rkyv::rancor::Failure;
use rkyv::ser::Serializer;
use rkyv::ser::allocator::SubAllocator;

use super::columns::{Columns, InPlace};
use super::*;
use crate::id::{ProducerId, Term, TopicId};

const BYTES: &[u8] = b"abcde";

/// Three records: ("a", "bcd"), (null, ""), ("e", null), the first with two headers.
fn columns() -> Columns {
    Columns {
        timestamp_delta: vec![5, 0, 9],
        key_end: vec![1, 4, 5],
        value_end: vec![4, 4, 5],
        header_end: vec![2, 2, 2],
        header_name_end: vec![2, 3],
        header_value_end: vec![0, 2],
        key_null: vec![0b010],
        value_null: vec![0b100],
        header_names: "éx".into(),
        header_values: b"yz".into(),
        bytes: InPlace { bytes: BYTES.len() },
        ..Columns::default()
    }
}

fn header() -> BatchHeader {
    BatchHeader {
        format: BodyFormat::Columns,
        codec: Codec::None,
        flags: 0,
        schema_version: SCHEMA_VERSION,
        body_crc: 0,
        body_bytes: 0,
        uncompressed_bytes: 0,
        record_count: 3,
        last_offset_delta: 2,
        root_position: 0,
        base_offset: 100,
        base_timestamp_us: 1000,
        max_timestamp_us: 1009,
        append_timestamp_us: 0,
        producer_id: ProducerId::NONE,
        producer_epoch: 0,
        base_sequence: 0,
        leader_epoch: Term(0),
    }
}

/// The batch of these columns under this header, lengths and root filled in.
fn assemble(mut header: BatchHeader, columns: &Columns) -> AlignedVec<16> {
    let mut batch = AlignedVec::new();
    batch.resize(BATCH_HEADER_BYTES, 0);
    batch.extend_from_slice(BYTES);
    batch.resize(BATCH_HEADER_BYTES + columns.bytes.bytes, 0);
    let mut serializer = Serializer::new(&mut batch, SubAllocator::empty(), ());
    let root = rkyv::api::serialize_using::<_, Failure>(columns, &mut serializer).expect("memory is enough");
    header.root_position = (root - BATCH_HEADER_BYTES) as u32;
    header.body_bytes = (batch.len() - BATCH_HEADER_BYTES) as u32;
    header.uncompressed_bytes = header.body_bytes;
    header.body_crc = crate::crc::crc32c(0, &batch[BATCH_HEADER_BYTES..]);
    header.write(&mut batch, TopicId(7), 3);
    batch
}

type Lie = (&'static str, fn(&mut BatchHeader, &mut Columns), BatchError);

const LIES: &[Lie] = &[
    ("fewer timestamps than records", |_, c| c.timestamp_delta.truncate(2), BatchError::Columns),
    ("more timestamps than records", |_, c| c.timestamp_delta.push(1), BatchError::Columns),
    ("both kinds of timestamps", |_, c| c.wide_timestamp_delta = vec![5, 0, 9], BatchError::Columns),
    ("the flag says wide, the column is narrow", |h, _| h.flags = FLAG_WIDE_TIMESTAMPS, BatchError::Columns),
    ("the base timestamp is not the minimum", |_, c| c.timestamp_delta[1] = 1, BatchError::Timestamps),
    ("a timestamp beyond the maximum", |_, c| c.timestamp_delta[0] = 10, BatchError::Timestamps),
    ("a maximum that no record has", |h, _| h.max_timestamp_us += 1, BatchError::Timestamps),
    ("timestamps that overflow", |h, _| (h.base_timestamp_us, h.max_timestamp_us) = (u64::MAX, u64::MAX), {
        BatchError::Timestamps
    }),
    ("more records than columns hold", |h, _| (h.record_count, h.last_offset_delta) = (4, 3), {
        BatchError::Columns
    }),
    ("a gap of offsets without the column", |h, _| h.last_offset_delta = 3, BatchError::Offsets),
    ("offsets that do not rise", |_, c| c.offset_delta = vec![0, 0, 2], BatchError::Offsets),
    ("offsets that end elsewhere", |_, c| c.offset_delta = vec![0, 1, 3], BatchError::Offsets),
    ("too few offsets", |_, c| c.offset_delta = vec![0, 2], BatchError::Offsets),
    ("no value ends", |_, c| c.value_end.clear(), BatchError::Columns),
    ("too few value ends", |_, c| c.value_end = vec![4, 5], BatchError::Columns),
    ("values that fall", |_, c| c.value_end = vec![4, 3, 5], BatchError::Columns),
    ("values beyond the bytes", |_, c| c.value_end[2] = 6, BatchError::Columns),
    ("bytes that nobody owns", |_, c| c.bytes.bytes += 1, BatchError::Columns),
    ("too few key ends", |_, c| c.key_end.truncate(2), BatchError::Columns),
    ("a key that ends behind its value", |_, c| c.key_end[0] = 5, BatchError::Columns),
    ("a key that ends before it starts", |_, c| c.key_end[1] = 3, BatchError::Columns),
    ("key nulls without keys", |_, c| c.key_end.clear(), BatchError::Columns),
    ("a bitmap that is too long", |_, c| c.key_null.push(0), BatchError::Columns),
    ("a null key with bytes", |_, c| c.key_null[0] = 0b011, BatchError::Columns),
    ("a null value with bytes", |_, c| c.value_null[0] = 0b001, BatchError::Columns),
    ("too few ends of headers", |_, c| c.header_end.truncate(2), BatchError::Columns),
    ("ends of headers that fall", |_, c| c.header_end = vec![2, 1, 2], BatchError::Columns),
    ("more headers than there are", |_, c| c.header_end[2] = 3, BatchError::Columns),
    ("headers that no record has", |_, c| c.header_end.clear(), BatchError::Columns),
    ("a header without value", |_, c| c.header_value_end = vec![2], BatchError::Columns),
    ("header names that fall", |_, c| c.header_name_end = vec![4, 3], BatchError::Columns),
    ("header values that fall", |_, c| c.header_value_end = vec![3, 2], BatchError::Columns),
    ("a name cut within a character", |_, c| c.header_name_end[0] = 1, BatchError::HeaderNames),
    ("names that are not UTF-8", |_, c| c.header_names[0] = 0xFF, BatchError::HeaderNames),
    ("a newer schema", |h, _| h.schema_version = 2, BatchError::Schema(2)),
    ("a flag that changes the body", |h, _| h.flags = 0x80, BatchError::Flags(0x80)),
];

#[test]
fn every_lie_is_refused_and_named() {
    for (what, tell, expected) in LIES {
        let (mut header, mut columns) = (header(), columns());
        tell(&mut header, &mut columns);
        let batch = assemble(header, &columns);
        let mut scratch = AlignedVec::new();
        let found = BatchView::open(&batch, &mut scratch).map(|view| view.records().count());
        assert_eq!(found, Err(*expected), "{what}");
    }
}

#[test]
fn the_same_batch_without_a_lie_is_read() {
    let batch = assemble(BatchHeader { flags: 0x0100, ..header() }, &columns());
    let mut scratch = AlignedVec::new();
    let view = BatchView::open(&batch, &mut scratch).expect("a flag of the upper byte may be ignored");
    let records: Vec<_> = view.records().collect();
    let pairs: Vec<_> = records.iter().map(|record| (record.key, record.value)).collect();
    assert_eq!(
        pairs,
        [(Some(&b"a"[..]), Some(&b"bcd"[..])), (None, Some(&b""[..])), (Some(&b"e"[..]), None)]
    );
    assert_eq!(records[0].headers().collect::<Vec<_>>(), [("é", &b""[..]), ("x", &b"yz"[..])]);
    assert_eq!(records[1].headers().len() + records[2].headers().len(), 0);
    assert_eq!(records.iter().map(|record| record.timestamp_us).collect::<Vec<_>>(), [1005, 1000, 1009]);
}

#[test]
fn a_compacted_batch_keeps_its_offsets() {
    let columns = Columns { offset_delta: vec![2, 3, 70], ..columns() };
    let batch = assemble(BatchHeader { last_offset_delta: 70, ..header() }, &columns);
    let mut scratch = AlignedVec::new();
    let view = BatchView::open(&batch, &mut scratch).expect("a compacted batch is a batch");
    assert_eq!(view.records().map(|record| record.offset).collect::<Vec<_>>(), [102, 103, 170]);
    assert_eq!((view.record(2).offset, view.header().next_offset()), (170, 171));
}
