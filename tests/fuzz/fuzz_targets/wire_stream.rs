//! A stream of frames as a peer may send it.
#![no_main]

#[path = "../oracle/wire_frame.rs"]
mod wire_frame;
#[path = "../oracle/wire_stream.rs"]
mod wire_stream;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire_stream::check(bytes));
