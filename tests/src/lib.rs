//! A world without a machine: disk, clock, network and clients, all from one seed, around the real shard.
//!
//! | file | owns |
//! |---|---|
//! | `random` | the one source of chance |
//! | `clock` | time, which only the driver moves |
//! | `disk` | an in-memory directory that forgets what was not flushed |
//! | `net` | producers and consumers that lose their connections |
//! | `oracle` | what was promised, and whether the log keeps it |
//! | `world` | the driver: crashes, restarts, and the trace of it all |
//!
//! **Invariant:** the same seed gives the same trace, byte for byte, on every machine: no clock, no hash order, no
//! thread, no random crate whose numbers may change.
#![forbid(unsafe_code)]

pub mod clock;
pub mod disk;
pub mod net;
pub mod oracle;
pub mod random;
pub mod trace;
pub mod world;
