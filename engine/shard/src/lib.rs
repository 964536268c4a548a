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
//! | `subscription` | fetches that go on: pushes and credit |
//! | `room` | how long room is waited for |
//! | `pending`, `wait` | answers that wait: for a frame, for data, for the disk |
//! | `producer_state` | deduplication |
//! | `trim`, `expiry` | records that are taken away from the front of a partition: because somebody says so, because of their age or size |
//! | `position` | how far readers with a name have come |
//! | `metadata`, `spec` | topics and producer ids as a log of their own |
//! | `change`, `alter` | the steps by which they change |
//! | `mail`, `peers`, `holding` | what the shards of several logs say to each other, and what the others do for log 0 |
//! | `directory` | what clients may see of all logs |
//! | `session`, `authorise` | handles, principals |
//! | `describe` | the cold questions |
//! | `checkpoint`, `codec` | the state as bytes |
//! | `inspect` | the same bytes, for who looks into a stopped store |
//! | `status`, `check` | counters; invariants |
//!
//! **Invariants:** an answer that acknowledges a batch leaves only when its frame has the topic's level of safety;
//! readers see offsets below the high watermark only; offsets are never given twice within a term, and a reader who
//! names its epoch learns where a later term took another course; producing and fetching allocate nothing once warm.
#![forbid(unsafe_code)]

mod alter;
mod authorise;
mod change;
mod check;
mod checkpoint;
mod codec;
mod describe;
mod directory;
mod event;
mod expiry;
mod fetch;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod holding;
pub mod inspect;
mod mail;
mod metadata;
mod partition;
mod peers;
mod pending;
mod position;
mod produce;
mod producer_state;
mod refusal;
mod request;
mod response;
mod room;
mod session;
mod shard;
mod spec;
mod starting;
mod status;
mod subscription;
mod trim;
mod wait;

pub use authorise::{Access, Operation, Principal, Resource};
pub use event::{Actions, ConnId, Event, Reply, Taken};
pub use mail::{Letter, Mail, News};
pub use producer_state::ProducerLimits;
pub use refusal::{Bounded, Part, Refusal};
pub use request::{At, Request, Which};
pub use response::{
    DamageView, MetadataView, PartitionView, PositionView, PositionsView, Response, TopicView,
};
pub use session::MAX_HANDLE;
pub use shard::{Limits, Shard, ShardConfig};
pub use spec::{Span, TopicSpec};
pub use starting::{StartError, Starting};
pub use status::{Counters, ShardStatus};
