//! The open-loop load generator: schedules, histograms, verification, reports.
#![forbid(unsafe_code)]
