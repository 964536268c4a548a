//! The codec against itself, against the bytes of released versions, against its description and against peers
//! that do everything wrong.

mod corpus;
mod description;
mod fuzz;
mod golden;
mod hostile;
mod roundtrip;
mod samples;
