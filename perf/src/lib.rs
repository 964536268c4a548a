//! Budgets, and what the results of benches measure against them.
//!
//! [`budget`] is `budgets.toml`, [`measure`] finds a figure in a result, [`verdict`] judges the rounds of a line.
//! The command (`main.rs`) runs the benches. Criterion benches of single functions are in `benches/`.
#![forbid(unsafe_code)]

pub mod budget;
pub mod measure;
pub mod verdict;
