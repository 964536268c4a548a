//! Properties of the batch that hold for any records and any bytes.

use corelog_model::batch::{
    AlignedVec, BATCH_HEADER_BYTES, BatchBuilder, BatchError, BatchHeader, BatchView, BodyFormat, Codec,
    Full, Patch, RecordRef, Seal,
};
use corelog_model::crc::crc32c;
use corelog_model::limits::MAX_RECORDS_PER_BATCH;
use corelog_model::{ProducerId, Term, TopicId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const TOPIC: TopicId = TopicId(77);
const PARTITION: u32 = 2;

/// A record that owns its bytes.
#[derive(Clone, Debug)]
struct Owned {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp_us: u64,
    headers: Vec<(String, Vec<u8>)>,
}

impl Owned {
    fn of(value: &[u8]) -> Self {
        Self { key: None, value: Some(value.to_vec()), timestamp_us: 1, headers: Vec::new() }
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    // Few distinct bytes, so that compression has something to do.
    prop_oneof![Just(Vec::new()), vec(0_u8..4, 0..200), vec(any::<u8>(), 0..40)]
}

fn record() -> impl Strategy<Value = Owned> {
    let timestamp_us = prop_oneof![8 => 1_000_000_u64..2_000_000, 1 => any::<u64>()];
    let headers = prop_oneof![3 => Just(Vec::new()), 1 => vec((".{0,6}", bytes()), 0..4)];
    (option::of(bytes()), option::weighted(0.8, bytes()), timestamp_us, headers)
        .prop_map(|(key, value, timestamp_us, headers)| Owned { key, value, timestamp_us, headers })
}

fn codec() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::None), Just(Codec::Lz4), Just(Codec::Zstd)]
}

fn push(builder: &mut BatchBuilder, record: &Owned) -> Result<(), Full> {
    let headers: Vec<(&str, &[u8])> =
        record.headers.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
    let (key, value) = (record.key.as_deref(), record.value.as_deref());
    builder.push(RecordRef { key, value, timestamp_us: record.timestamp_us, headers: &headers })
}

fn seal(codec: Codec) -> Seal {
    Seal { topic: TOPIC, partition: PARTITION, producer_id: ProducerId(9), codec, ..Seal::default() }
}

fn batch_of(records: &[Owned], codec: Codec) -> AlignedVec<16> {
    let mut builder = BatchBuilder::new(1 << 20);
    records.iter().for_each(|record| push(&mut builder, record).expect("1 MiB is enough"));
    let mut out = AlignedVec::new();
    builder.seal(&seal(codec), &mut out).expect("there are records");
    out
}

/// Whether what a broker does at ingress lets this batch pass.
fn passes(batch: &[u8]) -> bool {
    BatchHeader::parse(batch)
        .is_ok_and(|header| BatchHeader::verify_header(batch, TOPIC, PARTITION) && header.verify_body(batch))
}

/// Touches every byte that the view gives access to; the sum keeps the reads alive.
fn read_everything(batch: &[u8]) -> Result<usize, BatchError> {
    let mut scratch = AlignedVec::new();
    let view = BatchView::open(batch, &mut scratch)?;
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>();
    let of_record = |record: corelog_model::batch::Record<'_>| {
        let headers: usize = record.headers().map(|(name, value)| sum(name.as_bytes()) + sum(value)).sum();
        sum(record.key.unwrap_or_default()) + sum(record.value.unwrap_or_default()) + headers
    };
    let forwards: usize = view.records().map(of_record).sum();
    let backwards: usize = (0..view.len()).rev().map(|index| of_record(view.record(index))).sum();
    assert_eq!(forwards, backwards, "both ways of reading agree");
    Ok(forwards)
}

fn assert_same(view: &BatchView<'_>, records: &[Owned], base_offset: u64) {
    assert_eq!((view.len(), view.records().len()), (records.len(), records.len()));
    for ((index, expected), found) in records.iter().enumerate().zip(view.records()) {
        let by_index = view.record(index);
        assert_eq!(found.offset, base_offset + index as u64);
        assert_eq!(found.timestamp_us, expected.timestamp_us);
        assert_eq!((found.key, found.value), (expected.key.as_deref(), expected.value.as_deref()));
        assert_eq!((by_index.key, by_index.value, by_index.offset), (found.key, found.value, found.offset));
        let headers: Vec<_> =
            found.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
        assert_eq!(headers, expected.headers);
    }
}

proptest! {
    #[test]
    fn what_was_sealed_is_read(records in vec(record(), 1..60), codec in codec(), base_offset in 0..u64::MAX / 2) {
        let mut builder = BatchBuilder::new(1 << 20);
        records.iter().for_each(|record| push(&mut builder, record).expect("1 MiB is enough"));
        let estimated = builder.estimated_bytes();
        let mut out = AlignedVec::new();
        let sealed = builder.seal(&seal(codec), &mut out).expect("there are records");
        prop_assert!(out.len() <= estimated);
        prop_assert_eq!(out.len(), sealed.padded_bytes());
        prop_assert_eq!(BatchHeader::parse(&out), Ok(sealed));
        prop_assert!(passes(&out));
        prop_assert!(out[sealed.batch_bytes()..].iter().all(|byte| *byte == 0));

        let patch = Patch { base_offset, append_timestamp_us: 3, leader_epoch: Term(4) };
        BatchHeader::patch(&mut out, &patch, TOPIC, PARTITION);
        prop_assert!(passes(&out));
        let patched = BatchHeader { base_offset, append_timestamp_us: 3, leader_epoch: Term(4), ..sealed };
        prop_assert_eq!(BatchHeader::parse(&out), Ok(patched));

        let mut scratch = AlignedVec::new();
        let view = BatchView::open(&out, &mut scratch).expect("our own batch");
        assert_same(&view, &records, base_offset);
    }

    #[test]
    fn a_builder_is_as_new_after_sealing(first in vec(record(), 1..20), second in vec(record(), 1..20), codec in codec()) {
        let mut builder = BatchBuilder::new(1 << 20);
        let mut out = AlignedVec::new();
        first.iter().for_each(|record| push(&mut builder, record).expect("1 MiB is enough"));
        builder.seal(&seal(codec), &mut out).expect("there are records");
        prop_assert!(out[..] == batch_of(&first, codec)[..]);
        second.iter().for_each(|record| push(&mut builder, record).expect("1 MiB is enough"));
        builder.seal(&seal(codec), &mut out).expect("there are records");
        prop_assert!(out[..] == batch_of(&second, codec)[..]);
    }

    #[test]
    fn a_batch_never_outgrows_its_limit(records in vec(record(), 1..200), max_bytes in 300_usize..4000) {
        let mut builder = BatchBuilder::new(max_bytes);
        let mut out = AlignedVec::new();
        for record in &records {
            let before = (builder.record_count(), builder.estimated_bytes());
            if push(&mut builder, record).is_err() {
                prop_assert_eq!((builder.record_count(), builder.estimated_bytes()), before);
                if before.0 > 0 {
                    builder.seal(&seal(Codec::None), &mut out).expect("there are records");
                    prop_assert!(out.len() <= max_bytes);
                }
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..600), magic in any::<bool>()) {
        if magic && bytes.len() > 10 {
            bytes[..4].copy_from_slice(b"CLB1");
            (bytes[8], bytes[9]) = (1, bytes[9] % 3);
        }
        let mut batch = AlignedVec::<16>::new();
        batch.extend_from_slice(&bytes);
        prop_assert!(!passes(&batch));
        let _ = read_everything(&batch);
    }

    /// A hostile producer sums whatever it made up, so the view may not lean on a CRC.
    #[test]
    fn a_damaged_batch_never_panics_even_without_crcs(
        records in vec(record(), 1..12),
        codec in codec(),
        damage in vec((any::<prop::sample::Index>(), prop_oneof![Just(0_u32), Just(u32::MAX), 0_u32..300, any::<u32>()]), 1..6),
    ) {
        let mut batch = batch_of(&records, codec);
        for (position, value) in damage {
            let at = 8 + 4 * position.index((batch.len() - 8) / 4);
            batch[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let _ = read_everything(&batch);
    }
}

/// Null bitmaps grow only as far as the last null while records come, but must cover every record in the end.
#[test]
fn a_null_before_many_records_that_are_not() {
    let mut records = vec![Owned::of(b"value"); 20];
    (records[2].value, records[3].key) = (None, Some(b"first key".to_vec()));
    for codec in [Codec::None, Codec::Lz4] {
        let batch = batch_of(&records, codec);
        let mut scratch = AlignedVec::new();
        let view = BatchView::open(&batch, &mut scratch).expect("our own batch");
        assert_same(&view, &records, 0);
    }
}

/// A body as Kafka would send it, as far as the batch looks into it: 61 bytes and some records.
fn kafka_batch() -> AlignedVec<16> {
    let body: Vec<u8> = (0..100).collect();
    let header = BatchHeader {
        format: BodyFormat::KafkaV2,
        root_position: 0,
        body_crc: crc32c(0, &body[21..]),
        body_bytes: 100,
        uncompressed_bytes: 100,
        ..BatchHeader::parse(&batch_of(&[Owned::of(b"x")], Codec::None)).expect("our own batch")
    };
    let mut batch = AlignedVec::new();
    batch.resize(BATCH_HEADER_BYTES, 0);
    batch.extend_from_slice(&body);
    header.write(&mut batch, TOPIC, PARTITION);
    batch
}

#[test]
fn every_flipped_bit_is_found() {
    let text = b"the same words, the same words, the same words, the same words".repeat(3);
    let batches = [
        batch_of(
            &[Owned { headers: vec![("h".into(), vec![1])], ..Owned::of(b"one") }, Owned::of(b"two")],
            Codec::None,
        ),
        batch_of(&[Owned::of(&text)], Codec::Lz4),
        batch_of(&[Owned::of(&text)], Codec::Zstd),
        kafka_batch(),
    ];
    for mut batch in batches {
        assert!(passes(&batch));
        let header = BatchHeader::parse(&batch).expect("it passes");
        for bit in 0..8 * header.batch_bytes() {
            batch[bit / 8] ^= 1 << (bit % 8);
            assert!(!passes(&batch), "bit {bit} of a {:?} batch with {:?}", header.format, header.codec);
            batch[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_batch_does_not_pass_for_another_partition_or_topic() {
    let batch = batch_of(&[Owned::of(b"x")], Codec::None);
    assert!(BatchHeader::verify_header(&batch, TOPIC, PARTITION));
    assert!(!BatchHeader::verify_header(&batch, TOPIC, PARTITION + 1));
    assert!(!BatchHeader::verify_header(&batch, TopicId(TOPIC.0 + (1 << 64)), PARTITION));
}

#[test]
fn every_prefix_of_a_batch_is_refused() {
    let batch = batch_of(&[Owned::of(b"some value"), Owned::of(b"other")], Codec::None);
    let whole = BatchHeader::parse(&batch).expect("our own batch").batch_bytes();
    for length in 0..whole {
        assert!(!passes(&batch[..length]), "{length} bytes");
        assert!(read_everything(&batch[..length]).is_err(), "{length} bytes");
    }
    assert!(passes(&batch[..whole]));
}

#[test]
fn a_misaligned_body_is_refused_but_its_header_is_read() {
    let batch = batch_of(&[Owned::of(b"x")], Codec::None);
    let mut moved = AlignedVec::<16>::new();
    moved.resize(1, 0);
    moved.extend_from_slice(&batch);
    assert!(passes(&moved[1..]));
    assert_eq!(read_everything(&moved[1..]), Err(BatchError::Unaligned));
}

type Edit = fn(&mut BatchHeader);

#[test]
fn a_header_beyond_the_limits_is_refused_before_anything_is_allocated() {
    let valid = BatchHeader::parse(&batch_of(&[Owned::of(b"x")], Codec::None)).expect("our own batch");
    let table: [(&str, Edit, BatchError); 13] = [
        ("no body", |h| h.body_bytes = 0, BatchError::Length),
        (
            "a body beyond the limit",
            |h| (h.body_bytes, h.uncompressed_bytes) = (16 << 20, 16 << 20),
            BatchError::Length,
        ),
        ("a bomb", |h| (h.codec, h.uncompressed_bytes) = (Codec::Zstd, u32::MAX), BatchError::Length),
        ("lengths that differ without codec", |h| h.uncompressed_bytes += 1, BatchError::Length),
        ("a root outside", |h| h.root_position = h.uncompressed_bytes, BatchError::Length),
        ("no record", |h| h.record_count = 0, BatchError::Count),
        ("too many records", |h| h.record_count = MAX_RECORDS_PER_BATCH as u32 + 1, BatchError::Count),
        ("more records than offsets", |h| h.record_count += 1, BatchError::Offsets),
        ("offsets that overflow", |h| h.base_offset = u64::MAX, BatchError::Offsets),
        (
            "a minimum above the maximum",
            |h| h.base_timestamp_us = h.max_timestamp_us + 1,
            BatchError::Timestamps,
        ),
        (
            "a short Kafka body",
            |h| {
                (h.format, h.body_bytes, h.uncompressed_bytes, h.root_position) =
                    (BodyFormat::KafkaV2, 60, 60, 0)
            },
            { BatchError::Length },
        ),
        (
            "a compressed Kafka body",
            |h| (h.format, h.codec) = (BodyFormat::KafkaV2, Codec::Lz4),
            BatchError::Codec(1),
        ),
        (
            "a short body and many records",
            |h| (h.record_count, h.last_offset_delta) = (2, 0),
            BatchError::Offsets,
        ),
    ];
    for (what, edit, expected) in table {
        let mut header = valid;
        edit(&mut header);
        let mut batch = [0; 200];
        header.write(&mut batch, TOPIC, PARTITION);
        assert_eq!(BatchHeader::parse(&batch), Err(expected), "{what}");
    }
    for (at, expected) in [(0, BatchError::Magic), (8, BatchError::Format(9)), (9, BatchError::Codec(9))] {
        let mut batch = [0; 200];
        valid.write(&mut batch, TOPIC, PARTITION);
        batch[at] = 9;
        assert_eq!(BatchHeader::parse(&batch), Err(expected), "byte {at}");
    }
}

#[test]
fn decompression_stops_at_the_length_that_the_header_names() {
    for codec in [Codec::Lz4, Codec::Zstd] {
        let mut batch = batch_of(&[Owned::of(&[0; 100_000])], codec);
        let header = BatchHeader::parse(&batch).expect("our own batch");
        assert_eq!(header.codec, codec);
        for uncompressed_bytes in [header.uncompressed_bytes - 1, header.uncompressed_bytes + 1, 1 << 20] {
            let root_position = header.root_position.min(uncompressed_bytes - 1);
            BatchHeader { uncompressed_bytes, root_position, ..header }.write(&mut batch, TOPIC, PARTITION);
            assert_eq!(
                read_everything(&batch),
                Err(BatchError::Decompress),
                "{codec:?} to {uncompressed_bytes}"
            );
        }
    }
}

#[test]
fn a_body_that_does_not_shrink_is_stored_plain() {
    // Knuth's linear congruential generator: no repetition that a compressor could use.
    let noise: Vec<u8> = (0..5000_u64)
        .scan(1_u64, |x, _| {
            *x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some((*x >> 33) as u8)
        })
        .collect();
    for codec in [Codec::Lz4, Codec::Zstd] {
        let batch = batch_of(&[Owned::of(&noise)], codec);
        assert!(batch[..] == batch_of(&[Owned::of(&noise)], Codec::None)[..], "{codec:?}");
    }
}

#[test]
fn the_builder_says_whether_sealing_would_help() {
    let mut builder = BatchBuilder::new(1000);
    let too_large = push(&mut builder, &Owned::of(&[1; 1000]));
    assert!(matches!(too_large, Err(Full::Record { bytes, max_bytes: 1000 }) if bytes > 1000));
    assert!(builder.is_empty());
    push(&mut builder, &Owned::of(&[1; 500])).expect("half of it fits");
    assert_eq!(push(&mut builder, &Owned::of(&[1; 500])), Err(Full::Batch));
    assert_eq!(builder.record_count(), 1);
    builder.seal(&seal(Codec::None), &mut AlignedVec::new()).expect("there is a record");
    push(&mut builder, &Owned::of(&[1; 500])).expect("it fits the next one");
    builder.clear();
    assert_eq!(builder.seal(&seal(Codec::None), &mut AlignedVec::new()), Err(BatchError::Empty));
}
