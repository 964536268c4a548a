//! The reactor: listeners, connections, configuration; turns the shard's actions into submissions.
#![forbid(unsafe_code)]

pub mod config;
pub mod core;
pub mod data_dir;
mod memory;
mod session;
pub mod status;
mod translate;

pub use config::{Config, ConfigError};
