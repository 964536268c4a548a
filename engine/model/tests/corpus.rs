//! The corpus of the fuzz target `batch`, replayed with a bounded number of mutations: what a fuzzer once found
//! stays found, without nightly.
//!
//! `CORELOG_GOLDEN=write cargo test -p corelog-model --test corpus` adds seeds that are missing.

use std::fs;
use std::path::{Path, PathBuf};

use corelog_model::batch::{AlignedVec, BatchBuilder, Codec, RecordRef, Seal};
use corelog_model::{ProducerId, TopicId};

#[path = "../../../tests/fuzz/oracle/batch.rs"]
mod oracle;

#[path = "../../../tests/fuzz/oracle/mutate.rs"]
mod mutate;

/// Inputs beyond the corpus in one run of the tests.
const MUTATIONS: u32 = 60_000;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/batch")
}

fn sealed(codec: Codec, records: &[RecordRef<'_>]) -> Vec<u8> {
    let seal = Seal {
        topic: TopicId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        partition: 3,
        producer_id: ProducerId(77),
        producer_epoch: 2,
        base_sequence: 9,
        codec,
    };
    let mut builder = BatchBuilder::new(64 << 10);
    for &record in records {
        builder.push(record).expect("a seed is small");
    }
    let mut out = AlignedVec::new();
    builder.seal(&seal, &mut out).expect("records make a batch");
    out.to_vec()
}

/// One batch for each column that may be there or not, and for each codec.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let plain = |timestamp_us| RecordRef {
        value: Some(b"a value of a record"),
        timestamp_us,
        ..RecordRef::default()
    };
    let keyed = |key| RecordRef { key, value: Some(b"value"), timestamp_us: 5, headers: &[] };
    let names = RecordRef { headers: &[("corelog-reply-to", b"answers"), ("n", b"")], ..plain(1_000) };
    let many: Vec<_> = (0..64).map(plain).collect();
    vec![
        ("one", sealed(Codec::None, &[plain(1)])),
        (
            "nulls",
            sealed(Codec::None, &[keyed(None), keyed(Some(b"key")), RecordRef::default(), keyed(Some(b""))]),
        ),
        ("headers", sealed(Codec::None, &[plain(1_000), names, names])),
        ("far-apart", sealed(Codec::None, &[plain(1), plain(1 << 40)])),
        ("many", sealed(Codec::None, &many)),
        ("lz4", sealed(Codec::Lz4, &many)),
        ("zstd", sealed(Codec::Zstd, &many)),
    ]
}

#[test]
fn every_kind_of_batch_is_a_seed() {
    for (name, seed) in seeds() {
        let path = corpus().join(name);
        if std::env::var_os("CORELOG_GOLDEN").is_some_and(|word| word == "write") && !path.exists() {
            fs::write(&path, &seed).expect("the corpus can be written");
        }
        // Versions of a codec may write other bytes for the same records; a seed of an older layout would no longer reach the columns.
        let committed = fs::read(&path).expect("the seed is there");
        assert!(oracle::check(&committed) && oracle::check(&seed), "{name}: a seed can be read");
    }
}

#[test]
fn any_bytes_are_a_batch_or_refused() {
    let files = mutate::replay(&corpus(), MUTATIONS, |bytes| {
        oracle::check(bytes);
    });
    assert!(files >= seeds().len());
}
