//! The corpus of the fuzz targets that read a disk, replayed with a bounded number of mutations: what a fuzzer once
//! found stays found, without nightly.
//!
//! `CORELOG_GOLDEN=write cargo test -p corelog-storage --test corpus` adds seeds that are missing.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../../../tests/fuzz/oracle/disk_frame.rs"]
mod disk_frame;

#[path = "../../../tests/fuzz/oracle/mutate.rs"]
mod mutate;

/// Inputs beyond the corpus in one run of the tests.
const MUTATIONS: u32 = 100_000;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(target)
}

/// Sector, then a header; what its oracle makes right is left zero.
fn frame(sector: u16, flags: u8, entries: u32, length: u32, used: u32) -> Vec<u8> {
    let mut bytes = vec![0; 2 + 128];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &sector.to_le_bytes());
    put(2 + 9, &[flags]);
    put(2 + 12, &entries.to_le_bytes());
    put(2 + 16, &9u64.to_le_bytes());
    put(2 + 24, &77u64.to_le_bytes());
    put(2 + 40, &length.to_le_bytes());
    put(2 + 44, &used.to_le_bytes());
    put(2 + 48, &70u64.to_le_bytes());
    put(2 + 56, &4u16.to_le_bytes());
    put(2 + 60, &5u32.to_le_bytes());
    bytes
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("first", frame(0, 1 | 2, 1, 4096, 500)),
        ("one-sector", frame(2, 0, 2, 4096, 1000)),
        ("large", frame(700, 0, 40, 1 << 20, (1 << 20) - 64)),
        ("beacon", frame(9, 4, 0, 4096, 128)),
    ]
}

#[test]
fn every_kind_of_frame_is_a_seed() {
    for (name, seed) in frames() {
        let path = corpus("disk_frame").join(name);
        if std::env::var_os("CORELOG_GOLDEN").is_some_and(|word| word == "write") && !path.exists() {
            fs::write(&path, &seed).expect("the corpus can be written");
        }
        assert_eq!(fs::read(&path).expect("the seed is there"), seed, "{name}");
        assert!(disk_frame::check(&seed), "{name}: a seed is a frame");
    }
}

#[test]
fn any_bytes_are_a_frame_or_not() {
    let files = mutate::replay(&corpus("disk_frame"), MUTATIONS, |bytes| {
        disk_frame::check(bytes);
    });
    assert!(files >= frames().len());
}
