//! A page of the superblock as a disk may hold it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    corelog_storage::fuzz::superblock(bytes);
});
