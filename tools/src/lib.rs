//! What the binaries of this folder are made of, so that it can be tested.
#![forbid(unsafe_code)]

pub mod tidy;
