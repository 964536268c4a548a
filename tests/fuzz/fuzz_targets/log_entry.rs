//! What the log itself writes into entries, as an extent may hold it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    corelog_storage::fuzz::log_entry(bytes);
});
