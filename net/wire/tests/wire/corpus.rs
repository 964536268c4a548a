//! The corpus of the fuzz targets, replayed with a bounded number of mutations: what a fuzzer once found stays
//! found, without nightly.
//!
//! `CORELOG_GOLDEN=write cargo test -p corelog-wire --test wire` adds seeds that are missing.

use std::fs;
use std::path::{Path, PathBuf};

use crate::fuzz::{mutate, wire_message, wire_stream};
use crate::samples::{head_of, only_frame, request_frame, requests, response_frame, responses};

/// Inputs beyond the corpus in one run of the tests.
const MUTATIONS: u32 = 100_000;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(target)
}

/// Every sample as a whole frame, with the name of its seed.
fn frames() -> impl Iterator<Item = (String, Vec<u8>)> {
    let requests =
        requests().into_iter().map(|(name, value)| (format!("request-{name}"), request_frame(&value)));
    let responses =
        responses().into_iter().map(|(name, value)| (format!("response-{name}"), response_frame(&value)));
    requests.chain(responses)
}

/// The frame as the target `wire_message` reads it: see its oracle.
fn message(frame: &[u8]) -> Vec<u8> {
    let header = only_frame(frame).header;
    let head = head_of(frame);
    let [low, high] = u16::try_from(head.len()).expect("a sample's head is short").to_le_bytes();
    let payload = &frame[frame.len() - header.payload_bytes as usize..];
    [&[header.api as u8, header.version, header.flags, low, high], head, payload].concat()
}

#[test]
fn every_sample_is_a_seed() {
    for (name, frame) in frames() {
        for (target, seed) in [("wire_stream", frame.clone()), ("wire_message", message(&frame))] {
            let path = corpus(target).join(&name);
            if std::env::var_os("CORELOG_GOLDEN").is_some_and(|word| word == "write") && !path.exists() {
                fs::write(&path, &seed).expect("the corpus can be written");
            }
            assert_eq!(fs::read(&path).expect("the seed is there"), seed, "{target}/{name}");
        }
    }
}

#[test]
fn streams_of_any_bytes_are_cut_or_refused() {
    let seeds = mutate::replay(&corpus("wire_stream"), MUTATIONS, wire_stream::check);
    assert!(seeds >= frames().count());
}

#[test]
fn messages_of_any_bytes_are_read_or_answered() {
    let seeds = mutate::replay(&corpus("wire_message"), MUTATIONS, wire_message::check);
    assert!(seeds >= frames().count());
}
