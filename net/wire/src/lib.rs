//! The native protocol: a codec of bytes and values. `PROTOCOL.md` beside this crate describes every byte.
//!
//! A stream is cut into frames by [`frame::split`]; a frame is a [`FrameHeader`], a head (fixed fields of one
//! api version, then tagged fields) and a payload (batches). [`decode_request`] and [`decode_response`] turn a
//! frame into a value that borrows from it; the `encode_*` functions do the reverse into memory of the caller.
//!
//! **Invariants:** no I/O, no clock, no `unsafe`. No input makes a decoder panic, and none makes it reserve
//! memory that the input does not pay for with bytes. Hot messages (Produce, Fetch, Ping, offsets and their
//! replies) are decoded and encoded without allocation. Every frame is a multiple of 16 bytes long, so batches
//! that arrive in a 16-aligned stream buffer can be read in place.
//!
//! **Must not** judge what a request means: names, offsets and batches are checked where they are resolved.
#![forbid(unsafe_code)]

pub mod api;
pub mod error;
pub mod frame;
pub mod hello;
pub mod metadata;
pub mod position;
pub mod record_header;
pub mod request;
pub mod response;
pub mod status;

mod fault;
mod reader;
mod writer;

pub use api::{Api, ApiVersions, VersionRange};
pub use error::{ErrorBody, ErrorCode};
pub use fault::{Field, NoRoom, WireError};
pub use frame::{Frame, FrameHeader, Split, split};
pub use hello::{Hello, HelloReply};
pub use metadata::{DamagedRange, Endpoint, MetadataReply, PartitionPlace, TopicView};
pub use position::{PositionView, PositionsReply};
pub use request::{At, Call, Request, Which, decode_request, encode_request, encode_request_head};
pub use response::{ReplyTo, Response, decode_response, encode_response, encode_response_head};
pub use status::Status;
