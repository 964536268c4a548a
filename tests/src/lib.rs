//! SimDisk, SimNet, SimClock and the tests that need more than one crate.
#![forbid(unsafe_code)]
