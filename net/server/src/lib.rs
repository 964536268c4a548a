//! The reactor: listeners, connections, configuration; turns the shard's actions into submissions.
//!
//! | file | owns |
//! |---|---|
//! | `config`, `default.toml` | every key an operator can set |
//! | `data_dir` | the store's directory, its id and its lock |
//! | `tuning` | how the log is written on this machine |
//! | `memory`, `budget` | how the arena is divided into pools; what the process may come to |
//! | `core` | the reactor's decisions, as a pure type |
//! | `reactor`, `files` | the shell around it: ring, host, files, waiting |
//! | `placement` | which cores the shards run on |
//! | `post` | the mail between cores |
//! | `roll`, `control` | metrics and health: how the cores are asked, and how that is served over HTTP |
//! | `server`, `stop` | from a configuration to a ready line, and back |
//! | `translate`, `session`, `status` | wire to shard and back; who a peer is; what Status shows |
//!
//! **Invariants:** nothing in `core` makes a system call or reads a clock; whatever a peer sends harms its own
//! connection at most; what is acknowledged at any level survives a stop.
#![forbid(unsafe_code)]

mod budget;
pub mod config;
mod control;
pub mod core;
pub mod data_dir;
mod files;
mod memory;
mod metrics;
pub mod placement;
mod post;
mod reactor;
mod roll;
mod server;
mod session;
pub mod status;
mod stop;
mod translate;
mod tuning;

pub use budget::OverBudget;
pub use config::{Config, ConfigError};
pub use control::ControlError;
pub use corelog_storage::Tape;
pub use server::{Ready, Running, Server, ServerError};
pub use stop::Stop;
pub use translate::Place;
pub use tuning::{Tuning, TuningError};
