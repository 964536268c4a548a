//! Crash images: what a loss of power can leave of a recorded run, and whether a start makes good of it.
//!
//! | file | owns |
//! |---|---|
//! | `image` | the files of a directory, cheap to copy |
//! | `medium` | a disk that knows what is confirmed and what is not |
//! | `engine` | one log on a medium |
//! | `ledger` | what was sent, and what was promised |
//! | `bench` | short rows of operations on a log, recorded |
//! | `damage` | one sector that is not what it was |
//! | `judge` | a start from an image, and what has to be there |
//! | `enumerate` | from a recording to its images |
//! | `shard` | the same with topics, producers and positions |
//!
//! **Invariant:** no chance but that of a seed: the same recording gives the same images.

pub mod bench;
pub mod damage;
pub mod engine;
pub mod enumerate;
pub mod image;
pub mod judge;
pub mod ledger;
pub mod medium;
pub mod shard;
