//! The reactor: listeners, connections, configuration; turns the shard's actions into submissions.
#![forbid(unsafe_code)]

pub mod config;
