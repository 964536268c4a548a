//! Budgets, the measurements that are set against them, and the gate that runs them all.
//!
//! [`budget`] is `budgets.toml`; [`lines`] holds one file per way to measure, each of which gives a
//! [`sample`]; [`verdict`] judges the rounds of a line, [`table`] shows them, [`gate`] runs the rounds.
//! Criterion benches of single functions are in `benches/`, checks of a broker in this process in `tests/`.
#![forbid(unsafe_code)]

pub mod broker;
pub mod budget;
pub mod child;
pub mod gate;
pub mod lines;
pub mod measure;
pub mod peer;
pub mod place;
pub mod sample;
pub mod table;
pub mod verdict;
