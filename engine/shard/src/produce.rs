//! Produce: from the bytes of a request to batches in the open frame.
//!
//! Checks in order: layout, header CRC, body CRC, sequence, expected end, room. Nothing changes before the last
//! check of a batch has passed, so that `Blocked` and every refusal leave the log as it was.

use corelog_model::batch::{BatchHeader, Patch};
use corelog_model::{Durability, Now, ProducerId};

use crate::event::{Actions, Taken};
use crate::partition::PartitionId;
use crate::pending::Pending;
use crate::producer_state::{Identity, Remembered, Verdict, sequence_after};
use crate::refusal::{Part, Refusal};
use crate::response::Response;
use crate::room::NoRoom;
use crate::shard::{Asker, Shard};

/// What was taken of a request so far.
struct Progress {
    base_offset: u64,
    /// The next batch belongs to the same answer only if it begins here.
    next_offset: u64,
    append_us: u64,
    frame: u64,
    /// Appended by this request, not counting duplicates.
    bytes: u64,
    batches: u32,
}

impl Progress {
    /// Adds a batch; `false` when it does not continue the ones before, which a retry across other producers'
    /// batches can bring about: one answer cannot name two places.
    fn add(&mut self, at: Remembered, records: u64) -> bool {
        if self.batches == 0 {
            self.base_offset = at.base_offset;
        } else if self.next_offset != at.base_offset {
            return false;
        }
        self.next_offset = at.base_offset + records;
        self.append_us = at.append_us;
        self.frame = self.frame.max(at.frame);
        self.batches += 1;
        true
    }
}

impl Shard {
    pub(crate) fn produce(
        &mut self,
        now: Now,
        asker: Asker,
        id: PartitionId,
        expected_offset: Option<u64>,
        batches: &[u8],
        out: &mut Actions,
    ) -> Taken {
        // Room first, as a hint: a blocked request comes again every turn and should not be summed each time.
        if self.pending.is_full() || matches!(self.room(now, batches.len()), Err(NoRoom::Wait)) {
            self.counters.blocked += 1;
            return Taken::Blocked;
        }
        let mut progress =
            Progress { base_offset: 0, next_offset: 0, append_us: 0, frame: 0, bytes: 0, batches: 0 };
        let mut rest = batches;
        while !rest.is_empty() || progress.batches == 0 {
            match self.take_batch(now, id, expected_offset, &mut rest, &mut progress) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if progress.batches > 0 => break,
                Err(NoRoom::Refused(refusal)) => return self.refuse(asker, refusal, out),
                Err(NoRoom::Wait) => {
                    self.counters.blocked += 1;
                    return Taken::Blocked;
                }
            }
        }
        self.settle(asker, id, &progress, out);
        Taken::Done
    }

    /// Takes the first batch of `rest`; `Ok(false)` when it cannot share an answer with those before.
    fn take_batch(
        &mut self,
        now: Now,
        id: PartitionId,
        expected_offset: Option<u64>,
        rest: &mut &[u8],
        progress: &mut Progress,
    ) -> Result<bool, NoRoom> {
        let max_bytes = self.config.log.max_batch_bytes as usize;
        let partition = self.partitions.get(id).ok_or(Refusal::UnknownTopicId)?;
        let (header, batch, after) = first_batch(rest, max_bytes)?;
        if !BatchHeader::verify_header(batch, partition.topic, partition.partition) {
            return Err(Refusal::Corrupt(Part::Header).into());
        }
        let group = partition.group;
        let identity = identity_of(&header);
        if !header.verify_body(batch) {
            if let Some(identity) = identity {
                self.producers.refused(group, identity, now);
            }
            return Err(Refusal::Corrupt(Part::Body).into());
        }
        if let Some(identity) = identity
            && let Verdict::Duplicate(at) = self.producers.judge(group, identity)?
        {
            let joined = progress.add(at, u64::from(header.record_count));
            self.counters.duplicates += u64::from(joined);
            *rest = after;
            return Ok(joined);
        }
        let log_end = partition.cursors().log_end;
        let expected = expected_offset.filter(|_| progress.batches == 0);
        if let Some(expected) = expected.filter(|expected| *expected != log_end) {
            return Err(Refusal::OffsetMismatch { expected, actual: log_end }.into());
        }
        if progress.batches > 0 && progress.next_offset != log_end {
            return Ok(false);
        }
        self.room(now, batch.len())?;
        if let Some(identity) = identity {
            self.producers.reserve(group, identity.producer, now)?;
        }
        let at = self.append(now, id, &header, batch);
        progress.bytes += batch.len() as u64;
        *rest = after;
        Ok(progress.add(at, u64::from(header.record_count)))
    }

    /// The batch gets its offset and enters the open frame; all state follows. Nothing fails from here on.
    fn append(&mut self, now: Now, id: PartitionId, header: &BatchHeader, batch: &[u8]) -> Remembered {
        let term = self.log.term();
        let partition = self.partitions.get_mut(id).expect("the partition was just found");
        let base_offset = partition.cursors().log_end;
        let append_us = partition.last_append_us.max(now.wall_us);
        let patch = Patch { base_offset, append_timestamp_us: append_us, leader_epoch: term };
        let index = partition.next_index;
        let appended = self.log.append_batch(partition.slot, index, batch, &patch);
        let next_offset = base_offset + u64::from(header.record_count);
        partition.appended(term, next_offset, append_us);
        let first = header.base_sequence;
        let last = identity_of(header).map_or(0, |identity| identity.last);
        let at = Remembered { first, last, base_offset, append_us, frame: appended.frame };
        if let Some(identity) = identity_of(header) {
            let time_us = self.producers.time_us(now);
            self.producers.appended(partition.group, index, identity, at, time_us);
        }
        self.counters.batches += 1;
        self.counters.records += u64::from(header.record_count);
        self.counters.produced_bytes += header.batch_bytes() as u64;
        at
    }

    /// Answers at once when the level is reached already, else when the frame has it.
    fn settle(&mut self, asker: Asker, id: PartitionId, progress: &Progress, out: &mut Actions) {
        let pending = Pending {
            frame: progress.frame,
            after: progress.frame,
            ticket: 0,
            partition: id,
            // Of duplicates too: the request that brought them may end in a later frame and be answered after this one.
            end_offset: progress.next_offset,
            bytes: progress.bytes,
            conn: asker.conn,
            correlation: asker.correlation,
            base_offset: progress.base_offset,
            append_timestamp_us: progress.append_us,
            batches: progress.batches,
        };
        let frontier = self.frontier();
        let Some(partition) = self.partitions.get_mut(id) else { return self.complete(pending, out) };
        let level = partition.durability;
        match partition.owed.stronger_than(level) {
            // It comes after what waits, and is not to wait for more than that.
            Some((stronger, after)) => {
                let after = after.min(pending.frame);
                self.await_level(stronger, Pending { after, ..pending });
            }
            None if frontier.reached(level, pending.frame) => self.complete(pending, out),
            None => self.await_level(level, pending),
        }
    }

    fn await_level(&mut self, level: Durability, pending: Pending) {
        let partition = self.partitions.get_mut(pending.partition).expect("it was just found");
        partition.owed.push(level, pending.after);
        self.pending.push(level, pending);
    }

    /// What a request waited for at `level` has happened: it is answered, unless it was only to come after another.
    pub(crate) fn on_level(&mut self, level: Durability, pending: Pending, out: &mut Actions) {
        let frontier = self.frontier();
        let Some(partition) = self.partitions.get_mut(pending.partition) else {
            return self.complete(pending, out);
        };
        partition.owed.answered(level);
        let now = partition.durability;
        if pending.after == pending.frame || frontier.reached(now, pending.frame) {
            return self.complete(pending, out);
        }
        let level = partition.owed.stronger_than(now).map_or(now, |(stronger, _)| stronger);
        self.await_level(level, Pending { after: pending.frame, ..pending });
    }

    /// The batches have their level: they become visible and are acknowledged.
    pub(crate) fn complete(&mut self, pending: Pending, out: &mut Actions) {
        let asker = Asker { conn: pending.conn, correlation: pending.correlation };
        let Some(partition) = self.partitions.get_mut(pending.partition) else {
            _ = self.refuse(asker, Refusal::UnknownTopicId, out);
            return;
        };
        partition.show(pending.end_offset, pending.bytes);
        let response = Response::Produced {
            base_offset: pending.base_offset,
            append_timestamp_us: pending.append_timestamp_us,
            log_start: partition.cursors().log_start,
            batches: pending.batches,
        };
        // Duplicates show nothing more.
        let is_awaited = pending.bytes > 0 && !partition.waiters.data.is_empty();
        if is_awaited && !std::mem::replace(&mut partition.is_shown, true) {
            self.shown.push(pending.partition);
        }
        asker.answer(response, out);
    }
}

/// The first batch of `bytes`, padded, and what follows it.
fn first_batch(bytes: &[u8], max_bytes: usize) -> Result<(BatchHeader, &[u8], &[u8]), Refusal> {
    let header = BatchHeader::parse(bytes).map_err(|_| Refusal::Corrupt(Part::Layout))?;
    // Only compaction leaves gaps; a producer's would use up offsets that nobody wrote.
    if header.last_offset_delta != header.record_count - 1 {
        return Err(Refusal::Corrupt(Part::Layout));
    }
    if header.batch_bytes() > max_bytes {
        let max = u32::try_from(max_bytes).unwrap_or(u32::MAX);
        return Err(Refusal::BatchTooLarge { bytes: header.batch_bytes() as u64, max });
    }
    let (batch, after) =
        bytes.split_at_checked(header.padded_bytes()).ok_or(Refusal::Corrupt(Part::Layout))?;
    Ok((header, batch, after))
}

/// What makes the batch known to its producer; `None` when it asks for no deduplication.
pub(crate) fn identity_of(header: &BatchHeader) -> Option<Identity> {
    (header.producer_id != ProducerId::NONE).then(|| Identity {
        producer: header.producer_id,
        epoch: header.producer_epoch,
        first: header.base_sequence,
        last: sequence_after(header.base_sequence, header.record_count - 1),
    })
}
