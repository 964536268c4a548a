//! A broker as its users meet it: over TCP, with a real ring and a real disk.

mod bad_input;
mod growth;
mod load;
mod peer;
mod restart;
#[path = "../../../../tools/tests/processes/skip.rs"]
mod skip;
#[path = "../../../../tools/tests/processes/small_disk.rs"]
mod small_disk;
