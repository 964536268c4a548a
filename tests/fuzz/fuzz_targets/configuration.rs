//! A configuration as an operator may write it.
#![no_main]

#[path = "../oracle/configuration.rs"]
mod configuration;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    configuration::check(bytes);
});
