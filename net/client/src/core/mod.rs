//! Everything the client decides, without socket, clock or randomness of its own: bytes and answers go in, bytes
//! and effects come out, the time is an argument in microseconds since the client began.
//!
//! A [`connection`] cuts and makes frames. [`producer`] keeps a [`lane`] per partition; [`consumer`] keeps a cursor per
//! partition, with its [`commits`]; [`control`] keeps questions. What must happen outside (a receipt to settle, a task
//! to wake) is handed out in [`effects`], so that no lock is held when it does.

pub(crate) mod backoff;
pub(crate) mod buffers;
pub(crate) mod commits;
pub(crate) mod connection;
pub(crate) mod consumer;
pub(crate) mod control;
pub(crate) mod effects;
pub(crate) mod inbox;
pub(crate) mod lane;
pub(crate) mod outbox;
pub(crate) mod outcome;
pub(crate) mod partitioner;
pub(crate) mod producer;
pub(crate) mod rng;
pub(crate) mod waiters;

#[cfg(test)]
mod story;
