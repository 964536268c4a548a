//! The Rust client: a sans-I/O core and a tokio driver.
//!
//! * [`Client`] connects, asks and administers; it is `Send + Sync + Clone` and needs only a `current_thread` runtime.
//! * [`Producer`] collects records into batches per partition; each record has a [`Receipt`].
//!   [`Lane`] is the same for a caller that feeds one partition at full speed: one lock for many records, one
//!   [`BatchAck`] for many receipts.
//! * [`Consumer`] yields [`Batch`]es that are read in place, and commits how far it has come if it has a name;
//!   [`NamedPosition`] is the same from outside.
//!
//! **Invariant:** everything that decides lives in `core/`, without socket, clock or randomness of its own;
//! `driver/` moves bytes. Every public future may be dropped at any point: what was reported accepted stays
//! accepted, nothing is sent twice, nothing is leaked.
#![forbid(unsafe_code)]

mod client;
mod config;
mod consumer;
mod core;
mod driver;
mod each;
mod error;
mod position;
mod producer;
mod topic;

pub use client::Client;
pub use config::{
    Backoff, ClientConfig, ConsumerConfig, Linger, Partitions, Position, ProducerConfig, Reset,
};
pub use consumer::{Batch, Consumer, Records};
pub use corelog_model::batch::{BatchError, BatchHeader, Codec, Record, RecordRef};
pub use corelog_model::{Durability, ProducerId, TopicId};
pub use corelog_wire::{ErrorCode, Status, WireError};
pub use driver::clock::wall_us;
pub use error::{ClientError, CommitError, ConsumeError, LinkError, ProduceError, Refused, TrySendError};
pub use position::{Committed, NamedPosition};
pub use producer::{Acked, BatchAck, Fill, Lane, Partition, Producer, Pushed, Receipt};
pub use topic::{Damage, PartitionInfo, Topic, TopicChange, TopicConfig};
