//! What is wrong with bytes of the peer, and whether the connection survives it.

use std::fmt;

use crate::error::ErrorCode;

/// The part of a message that a [`WireError`] is about; its name is what `PROTOCOL.md` calls it.
pub type Field = &'static str;

/// Bytes that are not a frame, or not a message of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The frame's length, in bytes, is smaller than a header or not a multiple of 16.
    BadLength {
        /// As the header has it, in bytes.
        length: u32,
    },
    /// The frame is longer than this connection allows now.
    FrameTooLarge {
        /// As the header has it, in bytes.
        length: u32,
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// Head and payload do not add up to the frame's length.
    LengthMismatch {
        /// Of the whole frame, in bytes.
        length: u32,
        /// Of the head, in bytes.
        head_bytes: u32,
        /// Of the payload, in bytes.
        payload_bytes: u32,
    },
    /// A flag that must be understood is set and not known.
    UnknownFlags {
        /// All flags of the frame.
        flags: u8,
    },
    /// A request where a response was due, or the reverse.
    WrongDirection,
    /// This build does not speak this api, or not this version of it. The answer lists what is served.
    Unsupported {
        /// As the header has it.
        api: u16,
        /// As the header has it.
        version: u8,
    },
    /// The head ends within a field.
    Truncated {
        /// The field that is cut off.
        field: Field,
    },
    /// A field has a value that this api version does not define.
    BadValue {
        /// The field.
        field: Field,
    },
    /// Text is not UTF-8.
    NotUtf8 {
        /// The field.
        field: Field,
    },
    /// A payload came with a message that has none.
    UnexpectedPayload,
}

impl WireError {
    /// Whether the place where the next frame starts is lost: answer, then close. All other faults leave the
    /// connection in order and are answered like any refusal.
    pub const fn closes(&self) -> bool {
        matches!(
            self,
            Self::BadLength { .. }
                | Self::FrameTooLarge { .. }
                | Self::LengthMismatch { .. }
                | Self::UnknownFlags { .. }
                | Self::WrongDirection
        )
    }

    /// The code to answer with.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::FrameTooLarge { .. } => ErrorCode::FrameTooLarge,
            Self::Unsupported { .. } => ErrorCode::UnsupportedVersion,
            _ => ErrorCode::MalformedRequest,
        }
    }

    /// The two detail numbers that belong to [`Self::code`].
    pub const fn details(&self) -> [u64; 2] {
        match *self {
            Self::FrameTooLarge { length, limit } => [length as u64, limit as u64],
            Self::Unsupported { api, version } => [api as u64, version as u64],
            _ => [0, 0],
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadLength { length } => {
                write!(f, "a frame of {length} bytes: below 32 or not a multiple of 16")
            }
            Self::FrameTooLarge { length, limit } => {
                write!(f, "a frame of {length} bytes, {limit} are allowed")
            }
            Self::LengthMismatch { length, head_bytes, payload_bytes } => {
                write!(f, "head of {head_bytes} and payload of {payload_bytes} bytes in a frame of {length}")
            }
            Self::UnknownFlags { flags } => write!(f, "unknown flags in {flags:#010b}"),
            Self::WrongDirection => f.write_str("a response in place of a request, or the reverse"),
            Self::Unsupported { api, version } => write!(f, "api {api} version {version} is not served"),
            Self::Truncated { field } => write!(f, "the head ends within `{field}`"),
            Self::BadValue { field } => write!(f, "`{field}` has no meaning in this version"),
            Self::NotUtf8 { field } => write!(f, "`{field}` is not UTF-8"),
            Self::UnexpectedPayload => f.write_str("a payload with a message that has none"),
        }
    }
}

impl std::error::Error for WireError {}

/// The memory given to an encoder is too small; nothing useful was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// Bytes that the message takes.
    pub needed: usize,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message takes {} bytes, more than there is room for", self.needed)
    }
}

impl std::error::Error for NoRoom {}
