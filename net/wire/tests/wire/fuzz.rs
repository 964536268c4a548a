//! The oracles of the fuzz targets, shared with them.

#[path = "../../../../tests/fuzz/oracle/mutate.rs"]
pub(crate) mod mutate;
#[path = "../../../../tests/fuzz/oracle/wire_frame.rs"]
mod wire_frame;
#[path = "../../../../tests/fuzz/oracle/wire_message.rs"]
pub(crate) mod wire_message;
#[path = "../../../../tests/fuzz/oracle/wire_stream.rs"]
pub(crate) mod wire_stream;
