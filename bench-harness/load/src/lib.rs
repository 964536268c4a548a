//! The load generator: schedules, histograms, verification, reports.
#![forbid(unsafe_code)]

pub mod assignment;
pub mod hiccup;
pub mod latency;
pub mod payload;
pub mod schedule;
pub mod verify;
