//! The Rust client: a sans-I/O core and a tokio driver.
#![forbid(unsafe_code)]
