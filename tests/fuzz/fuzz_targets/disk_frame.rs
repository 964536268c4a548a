//! The header of a frame as an extent may hold it.
#![no_main]

#[path = "../oracle/disk_frame.rs"]
mod disk_frame;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    disk_frame::check(bytes);
});
