//! The binary against a real broker, which is the binary too.

mod bench;
mod broker;
mod errors;
mod relay;
mod round_trip;
mod verdict;
