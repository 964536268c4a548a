//! Batches of every released format, kept as files: what was written once must be readable for ever, by us and by
//! whoever has only `BATCH.md`.
//!
//! After a deliberate change of the format: new files beside the old ones (`CORELOG_BLESS=1 cargo test -p
//! corelog-model --test golden` writes files that are missing), never changed ones.

mod plain;

use std::path::PathBuf;

use corelog_model::batch::{AlignedVec, BatchBuilder, BatchHeader, BatchView, Codec, Patch, RecordRef, Seal};
use corelog_model::{ProducerId, Term, TopicId};
use plain::PlainRecord;

const TOPIC: TopicId = TopicId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
const PARTITION: u32 = 5;
/// 2026-11-22T00:00:00Z.
const MIDNIGHT_US: u64 = 1_795_305_600_000_000;

struct Golden {
    name: &'static str,
    codec: Codec,
    records: Vec<PlainRecord>,
}

fn record(timestamp_us: u64, key: Option<&[u8]>, value: Option<&[u8]>) -> PlainRecord {
    let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
    PlainRecord { offset: 0, timestamp_us, key, value, headers: Vec::new() }
}

/// Nulls, empties, headers before and after records without: one of everything.
fn mixed() -> Vec<PlainRecord> {
    let headers = vec![("trace-id".into(), b"\x00\x01".to_vec()), ("größe".into(), Vec::new())];
    vec![
        record(MIDNIGHT_US + 2, None, Some(b"no key")),
        PlainRecord { headers, ..record(MIDNIGHT_US, Some(b"key"), Some(b"value")) },
        record(MIDNIGHT_US + 7, Some(b""), Some(b"")),
        record(MIDNIGHT_US + 7, Some(b"deleted"), None),
        PlainRecord { headers: vec![(String::new(), b"v".to_vec())], ..record(MIDNIGHT_US + 1, None, None) },
    ]
}

/// Values only, as a log of lines would be; long enough to compress.
fn lines() -> Vec<PlainRecord> {
    let line = |i: u64| format!("{{\"flight\":{},\"carrier\":\"AA\",\"delay\":{}}}", 1000 + i, i % 7);
    (0..40).map(|i| record(MIDNIGHT_US + 10 * i, None, Some(line(i).as_bytes()))).collect()
}

/// Timestamps further apart than 32 bits of microseconds.
fn ages() -> Vec<PlainRecord> {
    vec![record(MIDNIGHT_US, Some(b"now"), Some(b"b")), record(1, Some(b"once"), Some(b"a"))]
}

fn goldens() -> Vec<Golden> {
    vec![
        Golden { name: "v1-mixed-none", codec: Codec::None, records: mixed() },
        Golden { name: "v1-lines-none", codec: Codec::None, records: lines() },
        Golden { name: "v1-lines-lz4", codec: Codec::Lz4, records: lines() },
        Golden { name: "v1-lines-zstd", codec: Codec::Zstd, records: lines() },
        Golden { name: "v1-wide-none", codec: Codec::None, records: ages() },
    ]
}

/// The batch as this version writes it, patched as a broker would.
fn write(golden: &Golden) -> AlignedVec<16> {
    let mut builder = BatchBuilder::new(1 << 16);
    for record in &golden.records {
        let headers: Vec<(&str, &[u8])> =
            record.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder
            .push(RecordRef { key, value, timestamp_us: record.timestamp_us, headers: &headers })
            .expect("64 KiB are enough");
    }
    let seal = Seal {
        topic: TOPIC,
        partition: PARTITION,
        producer_id: ProducerId(42),
        producer_epoch: 3,
        base_sequence: 1000,
        codec: golden.codec,
    };
    let mut batch = AlignedVec::new();
    builder.seal(&seal, &mut batch).expect("there are records");
    let patch =
        Patch { base_offset: 7_000_000_000, append_timestamp_us: MIDNIGHT_US + 99, leader_epoch: Term(8) };
    BatchHeader::patch(&mut batch, &patch, TOPIC, PARTITION);
    batch
}

fn file(golden: &Golden) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(golden.name);
    let path = path.with_extension("batch");
    if std::env::var_os("CORELOG_BLESS").is_some() && !path.exists() {
        std::fs::write(&path, write(golden)).expect("the golden file is written");
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The records with the offsets that the broker gave them.
fn expected(golden: &Golden) -> Vec<PlainRecord> {
    let with_offset = |(i, record): (usize, &PlainRecord)| PlainRecord {
        offset: 7_000_000_000 + i as u64,
        ..record.clone()
    };
    golden.records.iter().enumerate().map(with_offset).collect()
}

#[test]
fn the_page_alone_is_enough_to_read_them() {
    for golden in goldens() {
        let batch = file(&golden);
        assert_eq!(plain::records(&batch), expected(&golden), "{}", golden.name);
        assert_eq!(plain::crcs(&batch, TOPIC.0, PARTITION), plain::stored_crcs(&batch), "{}", golden.name);
        assert_eq!(batch[9], golden.codec as u8, "{}", golden.name);
    }
}

#[test]
fn this_version_reads_them_in_place() {
    for golden in goldens() {
        let mut batch = AlignedVec::<16>::new();
        batch.extend_from_slice(&file(&golden));
        let header = BatchHeader::parse(&batch).expect(golden.name);
        assert!(BatchHeader::verify_header(&batch, TOPIC, PARTITION), "{}", golden.name);
        assert!(header.verify_body(&batch), "{}", golden.name);
        assert_eq!(header.padded_bytes(), batch.len(), "{}", golden.name);
        assert_eq!((header.producer_id, header.producer_epoch), (ProducerId(42), 3), "{}", golden.name);
        assert_eq!((header.base_sequence, header.leader_epoch), (1000, Term(8)), "{}", golden.name);
        assert_eq!(header.append_timestamp_us, MIDNIGHT_US + 99, "{}", golden.name);
        let mut scratch = AlignedVec::new();
        let view = BatchView::open(&batch, &mut scratch).expect(golden.name);
        let records: Vec<PlainRecord> = view
            .records()
            .map(|record| PlainRecord {
                offset: record.offset,
                timestamp_us: record.timestamp_us,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
            })
            .collect();
        assert_eq!(records, expected(&golden), "{}", golden.name);
    }
}

/// Compressors may find other encodings in later versions; what is not compressed may not change by a bit.
#[test]
fn this_version_writes_the_same_bytes() {
    for golden in goldens().iter().filter(|golden| golden.codec == Codec::None) {
        assert!(write(golden)[..] == file(golden)[..], "{}: the bytes of the format changed", golden.name);
    }
}
