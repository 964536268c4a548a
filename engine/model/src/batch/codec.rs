//! Compression of a whole body. Decompression is bounded before anything is allocated.

use std::fmt;

use rkyv::util::AlignedVec;

use super::error::BatchError;

/// How a body is compressed. The numbers are on disk and on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// Not at all: consumers read in place.
    #[default]
    None = 0,
    /// An LZ4 block, without a frame.
    Lz4 = 1,
    /// One Zstandard frame.
    Zstd = 2,
}

impl Codec {
    /// The codec with this number, or `None`: the byte came from outside.
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The word used by the command line, the configuration and the reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Zstandard's level: 1 keeps up with a disk on one core, and larger ones gain little on records.
const ZSTD_LEVEL: i32 = 1;

/// Compresses bodies; keeps what is dear to build.
#[derive(Default)]
pub(super) struct Compressor {
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    /// Appends `plain` to `out`, compressed if that makes it smaller. How it was stored.
    pub(super) fn compress(
        &mut self,
        codec: Codec,
        plain: &[u8],
        out: &mut AlignedVec<16>,
    ) -> Result<Codec, BatchError> {
        let start = out.len();
        let worst = match codec {
            Codec::None => 0,
            Codec::Lz4 => lz4_flex::block::get_maximum_output_size(plain.len()),
            Codec::Zstd => zstd::zstd_safe::compress_bound(plain.len()),
        };
        out.resize(start + worst, 0);
        let room = &mut out[start..];
        let bytes = match codec {
            Codec::None => plain.len(),
            Codec::Lz4 => lz4_flex::block::compress_into(plain, room).map_err(|_| BatchError::Compress)?,
            Codec::Zstd => self.zstd()?.compress_to_buffer(plain, room).map_err(|_| BatchError::Compress)?,
        };
        if bytes < plain.len() {
            out.resize(start + bytes, 0);
            return Ok(codec);
        }
        out.resize(start, 0);
        out.extend_from_slice(plain);
        Ok(Codec::None)
    }

    fn zstd(&mut self) -> Result<&mut zstd::bulk::Compressor<'static>, BatchError> {
        if self.zstd.is_none() {
            let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(|_| BatchError::Compress)?;
            self.zstd = Some(compressor);
        }
        self.zstd.as_mut().ok_or(BatchError::Compress)
    }
}

/// Replaces `out` by the plain form of `stored`, which must be exactly `plain_bytes` long: the caller has bounded
/// that number, so no more than it is ever allocated.
pub(super) fn decompress(
    codec: Codec,
    stored: &[u8],
    plain_bytes: usize,
    out: &mut AlignedVec<16>,
) -> Result<(), BatchError> {
    out.clear();
    out.resize(plain_bytes, 0);
    let bytes = match codec {
        Codec::None => return Err(BatchError::Decompress),
        Codec::Lz4 => lz4_flex::block::decompress_into(stored, out).map_err(|_| BatchError::Decompress)?,
        Codec::Zstd => {
            let mut zstd = zstd::bulk::Decompressor::new().map_err(|_| BatchError::Decompress)?;
            zstd.decompress_to_buffer(stored, &mut out[..]).map_err(|_| BatchError::Decompress)?
        }
    };
    if bytes == plain_bytes { Ok(()) } else { Err(BatchError::Decompress) }
}
