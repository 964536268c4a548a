//! A world without a machine: disk, clock, network and clients, all from one seed, around the real shard.
//!
//! | file | owns |
//! |---|---|
//! | `admin` | makes and alters the topics |
//! | `random` | the one source of chance |
//! | `clock` | time, which only the driver moves |
//! | `crash` | what a loss of power can leave, image by image |
//! | `disk` | an in-memory directory that forgets what was not flushed, and what else a medium does |
//! | `machine` | a clock, a disk, and the shard on them |
//! | `model` | what a shard has to answer, as plain lists |
//! | `net` | producers and consumers that lose their connections |
//! | `committer` | a client that keeps a position |
//! | `plan` | how a world is made, and what comes of it |
//! | `oracle` | what was promised, and whether the log keeps it |
//! | `regime` | which faults a world has |
//! | `script` | small steps for tests that tell one story |
//! | `world` | the driver: crashes, restarts, and the trace of it all |
//!
//! **Invariant:** the same seed gives the same trace, byte for byte, on every machine: no clock, no hash order, no
//! thread, no random crate whose numbers may change.
#![forbid(unsafe_code)]

mod admin;
pub mod clock;
pub mod committer;
pub mod crash;
pub mod disk;
pub mod machine;
pub mod model;
pub mod net;
pub mod node;
pub mod oracle;
mod plan;
pub mod random;
pub mod regime;
pub mod script;
pub mod trace;
pub mod trimmer;
pub mod world;
