//! The batch: sealed once by its producer, never re-encoded on its way to disk, replica and consumer.
//!
//! `BATCH.md` gives every byte. [`BatchBuilder`] writes a batch, [`BatchHeader`] is all that a broker reads of
//! it, [`BatchView`] validates a body and reads the records in place.
//!
//! **Invariants:** a batch starts 16-aligned and is padded with zeros to a multiple of 16 bytes; the body CRC is
//! the producer's and survives unchanged; bytes from outside are never asserted on and never make this panic.

mod build;
mod codec;
mod columns;
mod error;
mod header;
mod open;
mod timestamps;
mod view;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod spec;

pub use build::{BatchBuilder, Full, RecordRef, Seal};
pub use codec::Codec;
pub use error::BatchError;
pub use header::{
    BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, BodyFormat, FLAG_WIDE_TIMESTAMPS, Patch, SCHEMA_VERSION,
};
pub use rkyv::util::AlignedVec;
pub use view::{BatchView, Headers, Record, Records};
