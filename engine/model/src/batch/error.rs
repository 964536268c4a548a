//! What can be wrong with a batch: always the peer's or the medium's doing, never a reason to stop.

use std::fmt;

/// Why bytes are not a batch, or not one that this version reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// Fewer bytes than the header, or than the header says.
    Truncated,
    /// The first four bytes are not [`super::BATCH_MAGIC`].
    Magic,
    /// An unknown body format.
    Format(u8),
    /// An unknown codec, or one that the body format does not allow.
    Codec(u8),
    /// A schema of the body that this version cannot read.
    Schema(u16),
    /// Flags that change the meaning of the body and that this version does not know.
    Flags(u16),
    /// A length beyond the limit, or lengths that contradict each other.
    Length,
    /// No record, or more than the limit.
    Count,
    /// Offsets that contradict the count, do not rise, or overflow.
    Offsets,
    /// Timestamps that contradict the header or overflow.
    Timestamps,
    /// The body does not start on a 16-byte boundary in memory.
    Unaligned,
    /// The body does not decompress to exactly the length that the header names.
    Decompress,
    /// The body is not a valid archive of columns.
    Archive,
    /// The columns do not agree with each other or with the record count.
    Columns,
    /// Header names that are not UTF-8.
    HeaderNames,
    /// A batch without a record cannot be sealed.
    Empty,
    /// The compressor refused; nothing that bytes from outside can cause.
    Compress,
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the batch is cut short"),
            Self::Magic => f.write_str("the batch has a wrong magic number"),
            Self::Format(format) => write!(f, "unknown body format {format}"),
            Self::Codec(codec) => write!(f, "unknown or misplaced codec {codec}"),
            Self::Schema(schema) => write!(f, "unknown schema version {schema}"),
            Self::Flags(flags) => write!(f, "unknown flags {flags:#06x}"),
            Self::Length => f.write_str("a length is out of bounds"),
            Self::Count => f.write_str("the record count is out of bounds"),
            Self::Offsets => f.write_str("the offsets contradict each other"),
            Self::Timestamps => f.write_str("the timestamps contradict each other"),
            Self::Unaligned => f.write_str("the body is not 16-aligned in memory"),
            Self::Decompress => f.write_str("the body does not decompress to its length"),
            Self::Archive => f.write_str("the body is not a valid archive"),
            Self::Columns => f.write_str("the columns of the body contradict each other"),
            Self::HeaderNames => f.write_str("a record header's name is not UTF-8"),
            Self::Empty => f.write_str("the batch has no record"),
            Self::Compress => f.write_str("the compressor failed"),
        }
    }
}

impl std::error::Error for BatchError {}
