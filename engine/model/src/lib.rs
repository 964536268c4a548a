//! Ids, limits, memory and the batch: what every other crate speaks about.
//!
//! **Invariant:** no I/O, no clock, no randomness, no decisions, no `unsafe`.
#![forbid(unsafe_code)]

pub mod batch;
pub mod crc;
pub mod id;
pub mod limits;
pub mod memory;
pub mod retention;
pub mod time;

pub use id::{Durability, GroupId, LogId, ProducerId, Term, TopicId};
pub use memory::{Block, BlockId, Owner, Slice};
pub use retention::{Retention, RetentionChange};
pub use time::Now;
