//! The consumer and the batches it yields.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use corelog_model::batch::{self, AlignedVec, BatchHeader, BatchView, Record};

use crate::config::Position;
use crate::core::consumer::{Consumer as Core, RawBatch};
use crate::driver::consume::Shared;
use crate::error::{ClientError, CommitError, ConsumeError};

/// Reads partitions in order, each on its own; among partitions in order of arrival.
///
/// It lives through restarts of the broker; `next` then simply takes longer. Dropping it ends its fetches. With a name
/// ([`ConsumerConfig::named`](crate::ConsumerConfig::named)) the broker keeps how far it has come, as far as that is committed;
/// without one keep [`Batch::next_offset`] to resume. What is committed is up to the caller, after the records are dealt
/// with: then each is dealt with at least once, whoever dies when.
pub struct Consumer {
    shared: Arc<Shared>,
}

impl Consumer {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The next batch, as soon as there is one. Dropped while it waits, nothing is lost: the batch is in the next call.
    pub async fn next(&mut self) -> Result<Batch, ConsumeError> {
        let raw = poll_fn(|cx| match self.shared.with(|core, _| core.next(Some(cx.waker()))) {
            Some(item) => Poll::Ready(item),
            None => Poll::Pending,
        });
        let raw = raw.await;
        self.checked(raw)
    }

    /// The next batch if one is there.
    pub fn try_next(&mut self) -> Option<Result<Batch, ConsumeError>> {
        let raw = self.shared.with(|core, _| core.next(None))?;
        Some(self.checked(raw))
    }

    /// The one check that reads the body; made here so that it costs the task that reads it anyway.
    fn checked(&self, raw: Result<RawBatch, ConsumeError>) -> Result<Batch, ConsumeError> {
        let raw = raw?;
        if raw.header.verify_body(&raw.chunk[raw.range.clone()]) {
            return Ok(Batch { raw, scratch: AlignedVec::new() });
        }
        let partition = raw.partition;
        self.shared.with(|core, _| core.on_damaged(partition));
        let (first, last) = (raw.header.base_offset, raw.header.last_offset());
        Err(ConsumeError::Damaged { partition, first, last })
    }

    /// Goes on from `to` in this partition; batches fetched before are dropped. Answers the offset found, which for a time
    /// is at or before that of the first record that then comes. In force from the first poll on, even if the future is
    /// then dropped.
    pub async fn seek(&mut self, partition: u32, to: Position) -> Result<u64, ClientError> {
        if !self.shared.with(|core, _| core.seek(partition, to)) {
            return Err(ClientError::UnknownPartition);
        }
        let found = poll_fn(|cx| match self.shared.with(|core, _| core.sought(partition, cx.waker())) {
            Some(found) => Poll::Ready(found),
            None => Poll::Pending,
        });
        found.await.ok_or(ClientError::Closed)
    }

    /// Commits all that was yielded so far, of every partition, under the consumer's name; done when that is on stable
    /// storage. The records of the last batch count as dealt with, and so does a jump by [`seek`](Self::seek). What is under
    /// way already is waited for too. In force from the first poll on, even if the future is then dropped.
    pub async fn commit(&mut self) -> Result<(), CommitError> {
        let mut ticket = None;
        self.wait_for_commits(move |core| match ticket {
            Some(ticket) => Ok(ticket),
            None => core.commit().inspect(|asked| ticket = Some(*asked)),
        })
        .await
    }

    /// Commits what lies before `offset` of a partition, without waiting: at most one commit of a partition is on its way,
    /// and the newest of those that come meanwhile follows it. [`committed`](Self::committed) waits, and says what
    /// failed. An offset beyond the last batch yielded is refused here; and where an earlier commit of the partition was
    /// refused meanwhile, that is said in its place, once.
    pub fn commit_later(&mut self, partition: u32, offset: u64) -> Result<(), CommitError> {
        self.shared.with(|core, _| core.commit_to(partition, offset))
    }

    /// Waits until every commit asked for so far is on stable storage. A commit that was refused is said once, here or by
    /// [`commit`](Self::commit).
    pub async fn committed(&mut self) -> Result<(), CommitError> {
        self.wait_for_commits(|core| Ok(core.last_ticket())).await
    }

    async fn wait_for_commits(
        &self,
        mut ticket: impl FnMut(&mut Core) -> Result<u64, CommitError>,
    ) -> Result<(), CommitError> {
        poll_fn(|cx| {
            let result = self.shared.with(|core, _| match ticket(core) {
                Ok(ticket) => core.committed(ticket, cx.waker()),
                Err(error) => Some(Err(error)),
            });
            result.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Asks the broker what partitions the topic has now; how many are read from then on. With
    /// [`Partitions::All`](crate::Partitions::All) those that were added are among them, from their start; it is then also done
    /// by itself, when [`ClientConfig::metadata_age`](crate::ClientConfig::metadata_age) is over.
    pub async fn refresh(&mut self) -> Result<u32, ClientError> {
        self.shared.refresh().await
    }

    /// The offset after the last record yielded of this partition; `None` until it is known or if it is not read.
    pub fn position(&self, partition: u32) -> Option<u64> {
        self.shared.with(|core, _| core.position(partition))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.drop_handle();
    }
}

/// A batch as the producer sealed it, in the memory it was received into.
#[derive(Debug)]
pub struct Batch {
    raw: RawBatch,
    scratch: AlignedVec<16>,
}

/// The records of a batch, read in place.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    records: batch::Records<'a>,
    from: u64,
    /// Until a record at or after this time was yielded; 0 from then on.
    since_us: u64,
}

impl Batch {
    /// Its partition.
    pub const fn partition(&self) -> u32 {
        self.raw.partition
    }

    /// One past the last visible offset of the partition when the batch was served.
    pub const fn high_watermark(&self) -> u64 {
        self.raw.high_watermark
    }

    /// Its header, as the broker patched it.
    pub const fn header(&self) -> &BatchHeader {
        &self.raw.header
    }

    /// One past its last offset: where to resume after it.
    pub const fn next_offset(&self) -> u64 {
        self.raw.header.next_offset()
    }

    /// Its records from the position asked for on, read in place; a compressed body is unpacked first. None while a
    /// time is sought and all of them are older.
    pub fn records(&mut self) -> Result<Records<'_>, ConsumeError> {
        let RawBatch { partition, header, chunk, range, from, since_us, .. } = &self.raw;
        let opened = BatchView::open(&chunk[range.clone()], &mut self.scratch);
        let (partition, offset) = (*partition, header.base_offset);
        let view = opened.map_err(|cause| ConsumeError::Batch { partition, offset, cause })?;
        Ok(Records { records: view.records(), from: *from, since_us: *since_us })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (from, since_us) = (self.from, self.since_us);
        let found = self.records.find(|record| record.offset >= from && record.timestamp_us >= since_us)?;
        self.since_us = 0;
        Some(found)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.records.size_hint().1)
    }
}
