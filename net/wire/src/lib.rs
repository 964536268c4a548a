//! The native protocol: a codec of bytes and values. No I/O.
#![forbid(unsafe_code)]
