//! CRC-32C (Castagnoli), the one checksum of batches, frames and entries.
//!
//! **Invariant:** the same input gives the same sum whichever implementation runs; a property test compares them.

/// Continues `seed` (0 to start) over `bytes`: `crc32c(crc32c(0, a), b)` is the sum of `a` followed by `b`.
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, bytes)
}
