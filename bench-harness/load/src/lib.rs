//! The load generator: schedules, histograms, verification, reports.
#![forbid(unsafe_code)]

pub mod assignment;
pub mod hiccup;
pub mod latency;
pub mod machine;
pub mod payload;
pub mod report;
pub mod results;
pub mod schedule;
mod table;
pub mod verify;

pub use table::{bytes, table};
