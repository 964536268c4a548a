//! Frames: how a stream of bytes is cut, and the 32 bytes each frame starts with.
//!
//! Order of a frame: header, head (padded to 16), payload (padded to 16). **Invariant:** a [`FrameHeader`] that
//! came from [`FrameHeader::parse`] adds up: its parts fill its length exactly.

use std::mem::size_of;

use corelog_model::limits::{BATCH_ALIGN, MAX_BATCH_BYTES_LIMIT, round_up};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::fault::WireError;

/// Length of a frame header, in bytes.
pub const HEADER_BYTES: usize = size_of::<RawHeader>();
/// Frames, heads and payloads end on this boundary: that of batches.
pub const FRAME_ALIGN: usize = BATCH_ALIGN;
/// Largest frame, in bytes, before Hello has negotiated another size.
pub const HELLO_FRAME_BYTES: usize = 16 << 10;
/// What a frame may take beyond the largest batch: header, head and room for tagged fields to come.
pub const FRAME_OVERHEAD_BYTES: usize = 4096;
/// Largest frame, in bytes, that any configuration allows.
pub const MAX_FRAME_BYTES: usize = 2 * MAX_BATCH_BYTES_LIMIT + FRAME_OVERHEAD_BYTES;

/// The frame answers a request.
pub const FLAG_RESPONSE: u8 = 1 << 0;
/// The frame is a response whose head is an error body.
pub const FLAG_ERROR: u8 = 1 << 1;
/// Flags that a receiver must understand; the others may be ignored by who does not know them.
pub const FLAGS_CRITICAL: u8 = 0x0f;

const _: () = assert!(HEADER_BYTES == 32);
const _: () = assert!(HEADER_BYTES.is_multiple_of(FRAME_ALIGN));
const _: () = assert!(MAX_FRAME_BYTES <= u32::MAX as usize);

/// The header as it stands on the wire.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    length: U32,
    head_bytes: U32,
    api: U16,
    version: u8,
    flags: u8,
    handle: U32,
    correlation: U64,
    payload_bytes: U32,
    reserved: U32,
}

/// What a frame is, how long, and whom it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Of the whole frame with header and paddings, in bytes.
    pub length: u32,
    /// Of the head without its padding, in bytes.
    pub head_bytes: u32,
    /// Number of the api, known or not.
    pub api: u16,
    /// Version of the api, spoken or not.
    pub version: u8,
    /// [`FLAG_RESPONSE`], [`FLAG_ERROR`].
    pub flags: u8,
    /// The connection's short name for a partition; 0 where none is meant.
    pub handle: u32,
    /// Chosen by the client, echoed by the broker.
    pub correlation: u64,
    /// Of the payload without its padding, in bytes.
    pub payload_bytes: u32,
}

impl FrameHeader {
    /// Reads a header and checks all lengths against each other and against `limit`, the longest frame this
    /// connection allows now. Nothing about api and version is checked: their frames must be skippable.
    pub fn parse(bytes: &[u8; HEADER_BYTES], limit: usize) -> Result<Self, WireError> {
        let raw: &RawHeader = zerocopy::transmute_ref!(bytes);
        let header = Self {
            length: raw.length.get(),
            head_bytes: raw.head_bytes.get(),
            api: raw.api.get(),
            version: raw.version,
            flags: raw.flags,
            handle: raw.handle.get(),
            correlation: raw.correlation.get(),
            payload_bytes: raw.payload_bytes.get(),
        };
        let Self { length, head_bytes, payload_bytes, flags, .. } = header;
        if (length as usize) < HEADER_BYTES || !(length as usize).is_multiple_of(FRAME_ALIGN) {
            return Err(WireError::BadLength { length });
        }
        if length as usize > limit {
            return Err(WireError::FrameTooLarge { length, limit });
        }
        if header.parts_bytes() != u64::from(length) {
            return Err(WireError::LengthMismatch { length, head_bytes, payload_bytes });
        }
        if flags & FLAGS_CRITICAL & !(FLAG_RESPONSE | FLAG_ERROR) != 0
            || header.is_error() && !header.is_response()
        {
            return Err(WireError::UnknownFlags { flags });
        }
        Ok(header)
    }

    /// The 32 bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        zerocopy::transmute!(RawHeader {
            length: self.length.into(),
            head_bytes: self.head_bytes.into(),
            api: self.api.into(),
            version: self.version,
            flags: self.flags,
            handle: self.handle.into(),
            correlation: self.correlation.into(),
            payload_bytes: self.payload_bytes.into(),
            reserved: U32::ZERO,
        })
    }

    /// Whether the frame answers a request.
    pub const fn is_response(&self) -> bool {
        self.flags & FLAG_RESPONSE != 0
    }

    /// Whether the head is an error body.
    pub const fn is_error(&self) -> bool {
        self.flags & FLAG_ERROR != 0
    }

    /// Length of the whole frame, in bytes: where the next one starts.
    pub const fn frame_bytes(&self) -> usize {
        self.length as usize
    }

    /// Header, padded head and padded payload in 64 bits, so that no value of the parts overflows.
    const fn parts_bytes(&self) -> u64 {
        let align = FRAME_ALIGN as u64;
        HEADER_BYTES as u64
            + (self.head_bytes as u64).next_multiple_of(align)
            + (self.payload_bytes as u64).next_multiple_of(align)
    }

    /// Head and payload within `body`, the bytes after the header; fails when `body` is not exactly as long as
    /// the header says.
    pub(crate) fn parts<'a>(&self, body: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), WireError> {
        let whole = body.len() as u64 + HEADER_BYTES as u64;
        if whole != u64::from(self.length) || whole != self.parts_bytes() {
            return Err(WireError::Truncated { field: "body" });
        }
        let (head, payload) = body.split_at(round_up(self.head_bytes as usize, FRAME_ALIGN));
        Ok((&head[..self.head_bytes as usize], &payload[..self.payload_bytes as usize]))
    }
}

/// Zero bytes that follow `bytes` of head or payload.
pub const fn padding(bytes: usize) -> usize {
    bytes.next_multiple_of(FRAME_ALIGN) - bytes
}

/// A whole frame in a stream buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Checked; `header.frame_bytes()` further on the next frame starts.
    pub header: FrameHeader,
    /// Everything after the header.
    pub body: &'a [u8],
}

/// What stands at the start of a stream buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// No whole frame yet: the buffer must hold at least this many bytes, counted from its start. More than
    /// there are now, and never more than the limit.
    Need(usize),
    /// The first frame.
    Frame(Frame<'a>),
}

/// Cuts the first frame off `stream`, which starts where a frame starts: 16-aligned when batches are to be read
/// in place, and then the next frame starts 16-aligned too. `limit` is the longest frame allowed, in bytes.
/// Reads nothing but the header, so a frame that is too long is refused before memory is found for it.
pub fn split(stream: &[u8], limit: usize) -> Result<Split<'_>, WireError> {
    let Some((header, rest)) = stream.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(Split::Need(HEADER_BYTES));
    };
    let header = FrameHeader::parse(header, limit)?;
    match rest.get(..header.frame_bytes() - HEADER_BYTES) {
        Some(body) => Ok(Split::Frame(Frame { header, body })),
        None => Ok(Split::Need(header.frame_bytes())),
    }
}
