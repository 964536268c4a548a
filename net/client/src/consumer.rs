//! The consumer and the batches it yields.

use std::sync::Arc;

use corelog_model::{BatchHeader, BatchView};

use crate::config::Position;
use crate::error::{ClientError, ConsumeError};

/// Reads partitions in order, each on its own; among partitions in order of arrival.
///
/// Dropping it ends its fetches. Positions live in the consumer only: keep `Batch::next_offset` to resume.
pub struct Consumer {
    shared: Arc<()>,
}

impl Consumer {
    /// The next batch, as soon as there is one. Dropped while it waits, nothing is lost: the batch is in the next call.
    pub async fn next(&mut self) -> Result<Batch, ConsumeError> {
        todo!()
    }

    /// The next batch if one is there.
    pub fn try_next(&mut self) -> Option<Result<Batch, ConsumeError>> {
        todo!()
    }

    /// Goes on from `to` in this partition; batches fetched before are dropped. Answers the offset found. In force from the
    /// first poll on, even if the future is then dropped.
    pub async fn seek(&mut self, partition: u32, to: Position) -> Result<u64, ClientError> {
        todo!()
    }

    /// The offset after the last record yielded of this partition; `None` until it is known or if it is not read.
    pub fn position(&self, partition: u32) -> Option<u64> {
        todo!()
    }
}

/// A batch as the producer sealed it, in the memory it was received into.
pub struct Batch {
    bytes: Arc<()>,
}

/// The records of a batch, read in place.
pub struct Records<'a> {
    view: BatchView<'a>,
}

impl Batch {
    /// Its partition.
    pub fn partition(&self) -> u32 {
        todo!()
    }

    /// One past the last visible offset of the partition when the batch was served.
    pub fn high_watermark(&self) -> u64 {
        todo!()
    }

    /// Its header.
    pub fn header(&self) -> &BatchHeader {
        todo!()
    }

    /// One past its last offset: where to resume after it.
    pub fn next_offset(&self) -> u64 {
        todo!()
    }

    /// Its records from the position asked for on, in place (a compressed body is unpacked once, into the batch).
    /// Iterate over `&records`: `for record in &batch.records()?`.
    pub fn records(&mut self) -> Result<Records<'_>, ConsumeError> {
        todo!()
    }
}
