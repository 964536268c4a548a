//! The state machine that joins partitions, sessions and storage: one shard over one log.
//!
//! Events and requests in, actions out, the time an argument. No socket, no system call, no clock, no randomness,
//! no `await`, no `unsafe`: the same shard runs under the reactor and under the simulator.
//!
//! | file | owns |
//! |---|---|
//! | `event`, `request`, `response`, `refusal` | the values of the seam |
//! | `shard` | dispatch, and nothing else |
//! | `starting` | from a directory's listing to a running shard |
//! | `partition` | cursors and epochs of one partition |
//! | `produce`, `fetch` | the two hot requests |
//! | `pending`, `wait` | answers that wait: for a frame, for data, for the disk |
//! | `producer_state` | deduplication |
//! | `metadata`, `change` | topics and producer ids as a log of their own, and the steps that change them |
//! | `session`, `authorise` | handles, principals |
//! | `checkpoint` | the state as bytes |
//! | `status`, `check` | counters; invariants |
//!
//! **Invariants:** an answer that acknowledges a batch leaves only when its frame has the topic's level of safety;
//! readers see offsets below the high watermark only; offsets are never given twice within a term, and a reader who
//! names its epoch learns where a later term took another course; producing and fetching allocate nothing once warm.
#![forbid(unsafe_code)]

pub mod authorise;
pub mod event;
pub mod refusal;
pub mod request;
pub mod response;
pub mod status;

pub use authorise::{Access, Operation, Principal, Resource};
pub use event::{Actions, ConnId, Event, Reply, Taken};
pub use refusal::{Bounded, Part, Refusal};
pub use request::{At, Request};
pub use response::{MetadataView, PartitionView, Response, TopicView};
pub use status::{Counters, ShardStatus};
