//! An in-process broker for users' tests.
#![forbid(unsafe_code)]
