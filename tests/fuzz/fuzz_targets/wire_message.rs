//! One request or response in a frame that adds up.
#![no_main]

#[path = "../oracle/wire_frame.rs"]
mod wire_frame;
#[path = "../oracle/wire_message.rs"]
mod wire_message;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire_message::check(bytes));
