//! A batch as a producer or a disk may present it.
#![no_main]

#[path = "../oracle/batch.rs"]
mod batch;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    batch::check(bytes);
});
