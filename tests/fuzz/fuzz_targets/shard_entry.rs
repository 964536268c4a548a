//! What a shard writes into entries, as a log may hand it back.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    corelog_shard::fuzz::shard_entry(bytes);
});
