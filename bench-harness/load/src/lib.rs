//! The load generator: schedules, histograms, verification, reports.
#![forbid(unsafe_code)]

pub mod assignment;
mod bench;
pub mod broker;
mod clock;
mod consumer;
pub mod device;
mod error;
pub mod hiccup;
mod interrupt;
pub mod latency;
pub mod machine;
mod pace;
pub mod payload;
mod phase;
mod producer;
mod progress;
pub mod report;
pub mod results;
mod run;
pub mod schedule;
mod shared;
mod table;
pub mod verify;
mod workload;

pub use bench::{Bench, Cores, FREE_BYTES_NEEDED, OwnBroker, RETENTION_BYTES, Which, bench};
pub use error::LoadError;
pub use interrupt::Interrupt;
pub use phase::Measured;
pub use progress::{Observer, Progress, Stage};
pub use run::{Outcome, run};
pub use table::{bytes, table};
pub use workload::{ContentSource, Length, Pace, Workload, WorkloadError};
