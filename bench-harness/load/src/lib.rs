//! The load generator: schedules, histograms, verification, reports.
#![forbid(unsafe_code)]

pub mod assignment;
mod bench;
pub mod broker;
mod clock;
pub mod connections;
mod consumer;
mod cores;
pub mod device;
mod error;
pub mod hiccup;
mod interrupt;
mod lanes;
pub mod latency;
pub mod machine;
pub mod netns;
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

pub use bench::{Bench, FREE_BYTES_NEEDED, OwnBroker, RETENTION_BYTES, Which, bench};
pub use cores::{Cores, Placement, Sharing};
pub use error::LoadError;
pub use interrupt::Interrupt;
pub use phase::Measured;
pub use progress::{Observer, Progress, Stage};
pub use run::{Outcome, run};
pub use table::{bytes, table};
pub use workload::{ContentSource, Length, Pace, Workload, WorkloadError};
