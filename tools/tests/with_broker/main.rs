//! The binary against a real broker, which is the binary too.

mod bench;
mod broker;
mod errors;
mod netns;
mod positions;
mod relay;
mod round_trip;
#[path = "../processes/skip.rs"]
mod skip;
mod verdict;
