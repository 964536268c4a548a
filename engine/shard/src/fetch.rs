//! Fetch: what a reader may see, and what it waits for when it cannot see enough.
//!
//! Whatever a fetch waited for, it is then attempted anew from its offset: the log may have moved on meanwhile. A
//! subscription is a fetch whose offset moves on with each answer; what is its own stands in `subscription`.

use corelog_model::{Now, Term};
use corelog_storage::{Finished, Read, ReadRequest, TimeFound};

use crate::event::{Actions, ConnId, Taken};
use crate::partition::{Partition, PartitionId};
use crate::refusal::Refusal;
use crate::request::At;
use crate::response::Response;
use crate::shard::{Asker, Shard};
use crate::subscription::Push;
use crate::wait::{Fetch, Passed, Stream, WaitId, Waiters, Wanted};

pub(crate) const JUST_READ: &str = "the partition was just read";

/// What an attempt came to.
enum Outcome {
    Answer(Response),
    /// A subscription's: it goes on.
    Push(Push),
    /// Until the partition has shown this many bytes.
    AwaitData(u64),
    /// Until the read under the fetch's token is over.
    AwaitDisk,
    /// Until a read is free.
    AwaitTurn,
    /// Until the subscription is given credit.
    AwaitCredit,
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Self::Answer(Response::Refused(refusal))
    }
}

impl Shard {
    pub(crate) fn fetch(&mut self, now: Now, fetch: Fetch, out: &mut Actions) -> Taken {
        match self.waits.reserve(fetch) {
            Ok(id) => _ = self.attempt(now, id, out),
            Err(refusal) => {
                return self.refuse(Asker { conn: fetch.conn, correlation: fetch.correlation }, refusal, out);
            }
        }
        Taken::Done
    }

    /// Tries a fetch that waits for nothing: it is answered, or waits for something from then on.
    /// `false` when no read is free.
    pub(crate) fn attempt(&mut self, now: Now, id: WaitId, out: &mut Actions) -> bool {
        let fetch = self.waits.fetch(id);
        let outcome = match fetch.wanted {
            Wanted::Batches => self.read(now, id, fetch, out),
            Wanted::Time(time_us) => self.search(id, fetch.partition, time_us, out),
        };
        match outcome {
            Outcome::Answer(response) => self.end(id, response, out),
            Outcome::Push(push) => self.push(id, push, out),
            Outcome::AwaitCredit => {
                let partition = self.partitions.get_mut(fetch.partition).expect(JUST_READ);
                self.waits.await_credit(id, &mut partition.waiters);
            }
            Outcome::AwaitData(due_bytes) => {
                let partition = self.partitions.get_mut(fetch.partition).expect(JUST_READ);
                self.waits.await_data(id, &mut partition.waiters, due_bytes);
            }
            Outcome::AwaitDisk => self.waits.await_disk(id),
            Outcome::AwaitTurn => {
                self.waits.await_turn(id);
                return false;
            }
        }
        true
    }

    /// Answers a fetch that waits for nothing.
    fn end(&mut self, id: WaitId, response: Response, out: &mut Actions) {
        let Fetch { conn, correlation, stream, .. } = self.waits.take(id);
        if let Some(Stream { handle, .. }) = stream {
            self.sessions.forget_subscription(conn, handle, id);
        }
        let asker = Asker { conn, correlation };
        match response {
            Response::Refused(refusal) => _ = self.refuse(asker, refusal, out),
            response => {
                self.counters.fetches += 1;
                asker.answer(response, out);
            }
        }
    }

    fn read(&mut self, now: Now, id: WaitId, fetch: Fetch, out: &mut Actions) -> Outcome {
        if fetch.stream.is_some_and(|stream| stream.ended) {
            return Outcome::Answer(self.last_push(fetch.partition, out));
        }
        let Some(partition) = self.partitions.get(fetch.partition) else {
            return Refusal::UnknownTopicId.into();
        };
        let cursors = partition.cursors();
        if let Err(refusal) = self.visible(&fetch) {
            return refusal.into();
        }
        if let Some(Stream { begun: true, credit: ..=0, .. }) = fetch.stream {
            return Outcome::AwaitCredit;
        }
        let patient = now.mono_us < fetch.deadline_us;
        let wanted = u64::from(fetch.min_bytes.min(fetch.max_bytes));
        let visible_bytes = partition.visible_bytes;
        let is_empty = fetch.offset == cursors.high_watermark;
        match fetch.stream {
            // That it has begun is said at once, with what there is then or without anything.
            Some(Stream { begun: false, credit, .. }) if is_empty || credit <= 0 => {
                let slices = out.slices.len()..out.slices.len();
                return Outcome::Push(Push { slices, bytes: 0, next_offset: fetch.offset });
            }
            None if is_empty && (!patient || wanted == 0) => {
                return self.fetched(fetch.partition, out.slices.len(), out);
            }
            _ if is_empty => return Outcome::AwaitData(visible_bytes + wanted.max(1)),
            _ => {}
        }
        let max_bytes = fetch.stream.map_or(fetch.max_bytes, |stream| {
            u32::try_from(stream.credit).map_or(fetch.max_bytes, |credit| credit.min(fetch.max_bytes))
        });
        let request = ReadRequest {
            slot: partition.slot,
            offset: fetch.offset,
            end_offset: cursors.high_watermark,
            max_bytes,
            token: id.token(),
        };
        let from = out.slices.len();
        match self.log.read(&request, &mut out.slices, &mut out.disk) {
            Read::Ready { next_offset } => {
                let bytes: u64 = out.slices[from..].iter().map(|slice| u64::from(slice.length)).sum();
                if patient && bytes < wanted && next_offset == cursors.high_watermark {
                    self.give_back(from, out);
                    return Outcome::AwaitData(visible_bytes + wanted - bytes);
                }
                self.counters.fetched_bytes += bytes;
                if fetch.stream.is_some() {
                    return Outcome::Push(Push { slices: from..out.slices.len(), bytes, next_offset });
                }
                self.fetched(fetch.partition, from, out)
            }
            Read::Pending => Outcome::AwaitDisk,
            Read::Busy => Outcome::AwaitTurn,
            Read::BelowStart { log_start } => {
                let partition = self.partitions.get_mut(fetch.partition).expect(JUST_READ);
                partition.recycled(log_start);
                let cursors = partition.cursors();
                out_of_range(fetch.offset, cursors.log_start, cursors.high_watermark).into()
            }
            // All that is left before the watermark is lost, and that is accepted: it waits for what comes behind it.
            Read::Nothing if fetch.stream.is_some() || (patient && wanted > 0) => {
                Outcome::AwaitData(visible_bytes + 1)
            }
            Read::Nothing => self.fetched(fetch.partition, from, out),
            Read::Damaged { first, last } => Refusal::Damaged { first, last }.into(),
        }
    }

    /// Finds an offset by place, at once, or by time, for which the index may have to be read.
    pub(crate) fn offset_for(
        &mut self,
        now: Now,
        asker: Asker,
        id: PartitionId,
        at: At,
        out: &mut Actions,
    ) -> Taken {
        let cursors = self.partitions.get(id).expect("a resolved partition exists").cursors();
        let offset = match at {
            At::Start => cursors.log_start,
            At::End => cursors.high_watermark,
            At::Time(time_us) => {
                let Asker { conn, correlation } = asker;
                let (wanted, deadline_us) = (Wanted::Time(time_us), now.mono_us);
                let (offset, leader_epoch, max_bytes, min_bytes) = (0, None, 0, 0);
                return self.fetch(
                    now,
                    Fetch {
                        conn,
                        correlation,
                        partition: id,
                        wanted,
                        offset,
                        leader_epoch,
                        max_bytes,
                        min_bytes,
                        deadline_us,
                        stream: None,
                    },
                    out,
                );
            }
        };
        asker.answer(Response::OffsetFound { offset, timestamp_us: None }, out);
        Taken::Done
    }

    fn search(&mut self, id: WaitId, partition: PartitionId, time_us: u64, out: &mut Actions) -> Outcome {
        let Some(partition) = self.partitions.get(partition) else {
            return Refusal::UnknownTopicId.into();
        };
        let cursors = partition.cursors();
        match self.log.offset_for_time(partition.slot, time_us, id.token(), &mut out.disk) {
            // What is found above the watermark is not visible yet, and what is below the start is going away.
            TimeFound::At { offset, timestamp_us } if offset < cursors.high_watermark => {
                let offset = offset.max(cursors.log_start);
                Outcome::Answer(Response::OffsetFound { offset, timestamp_us: Some(timestamp_us) })
            }
            TimeFound::At { .. } | TimeFound::End => {
                Outcome::Answer(Response::OffsetFound { offset: cursors.high_watermark, timestamp_us: None })
            }
            TimeFound::Pending => Outcome::AwaitDisk,
            TimeFound::Busy => Outcome::AwaitTurn,
        }
    }

    /// Whether the fetch names offsets that the log has, and that the reader's past agrees with.
    fn visible(&self, fetch: &Fetch) -> Result<(), Refusal> {
        let partition = self.partitions.get(fetch.partition).ok_or(Refusal::UnknownTopicId)?;
        let cursors = partition.cursors();
        self.agrees(partition, fetch.offset, fetch.leader_epoch)?;
        if (cursors.log_start..=cursors.high_watermark).contains(&fetch.offset) {
            Ok(())
        } else {
            Err(out_of_range(fetch.offset, cursors.log_start, cursors.high_watermark))
        }
    }

    /// Whether what was read before `offset`, last in `leader_epoch`, is what the log has.
    pub(crate) fn agrees(
        &self,
        partition: &Partition,
        offset: u64,
        leader_epoch: Option<Term>,
    ) -> Result<(), Refusal> {
        let (cursors, current) = (partition.cursors(), self.log.term());
        let Some(epoch) = leader_epoch.filter(|epoch| *epoch != current) else { return Ok(()) };
        if epoch > current {
            return Err(Refusal::UnknownEpoch { current });
        }
        // Below the start there is nothing left that a reader could go back to.
        let end = partition.epochs.end_of(epoch, cursors.log_end).max(cursors.log_start);
        if offset > end { Err(Refusal::LogTruncated { offset: end }) } else { Ok(()) }
    }

    /// The answer with the slices from `from` on.
    fn fetched(&self, id: PartitionId, from: usize, out: &Actions) -> Outcome {
        let cursors = self.partitions.get(id).expect(JUST_READ).cursors();
        Outcome::Answer(Response::Fetched {
            log_start: cursors.log_start,
            high_watermark: cursors.high_watermark,
            leader_epoch: self.log.term(),
            slices: from..out.slices.len(),
        })
    }

    /// Unpins the slices from `from` on: nobody will send them.
    fn give_back(&mut self, from: usize, out: &mut Actions) {
        for slice in out.slices.drain(from..) {
            self.log.unpin(slice.block);
        }
    }

    /// The partitions that showed more data wake the fetches for which it is enough.
    pub(crate) fn wake_shown(&mut self, now: Now, out: &mut Actions) {
        while let Some(shown) = self.shown.pop() {
            if let Some(partition) = self.partitions.get_mut(shown) {
                partition.is_shown = false;
            }
            let mut passed = Passed::default();
            while let Some(id) = self.due_fetch(shown, &mut passed) {
                self.attempt(now, id, out);
            }
        }
    }

    fn due_fetch(&mut self, id: PartitionId, passed: &mut Passed) -> Option<WaitId> {
        let partition = self.partitions.get_mut(id)?;
        let due = self.waits.due(&partition.waiters, partition.visible_bytes, passed)?;
        self.waits.wake(due, &mut partition.waiters);
        Some(due)
    }

    /// Fetches whose time is over are answered with what there is.
    pub(crate) fn expire_waits(&mut self, now: Now, out: &mut Actions) {
        while let Some(id) = self.waits.expired(now.mono_us) {
            assert!(self.stop_waiting(id), "a fetch with a deadline waits for data");
            self.attempt(now, id, out);
        }
    }

    /// Fetches whose read is over, then those that waited for a free read, in their order.
    pub(crate) fn resume_reads(&mut self, now: Now, out: &mut Actions) {
        let mut finished = std::mem::take(&mut self.finished);
        self.log.finished(&mut finished);
        for Finished { token, failed } in finished.drain(..) {
            match self.waits.read_over(token) {
                Some(id) if failed => self.end(id, Response::Refused(Refusal::ReadFailed), out),
                Some(id) => _ = self.attempt(now, id, out),
                None => {}
            }
        }
        self.finished = finished;
        while let Some(id) = self.waits.next_queued() {
            if !self.attempt(now, id, out) {
                self.waits.keep_turn();
                return;
            }
        }
    }

    /// All that wait for something of a partition are tried again: it went.
    pub(crate) fn wake_all(&mut self, now: Now, waiters: &mut Waiters, out: &mut Actions) {
        while let Some(id) = self.waits.first(waiters) {
            self.waits.wake(id, waiters);
            self.attempt(now, id, out);
        }
    }

    /// Nobody will ask anything more on the connection: its fetches are answered with what there is, as soon as can be.
    /// Its subscriptions end.
    pub fn hurry(&mut self, now: Now, conn: ConnId, out: &mut Actions) {
        for id in self.waits.of_connection(conn) {
            let waited = self.stop_waiting(id);
            self.waits.hasten(id, now.mono_us);
            if waited {
                self.attempt(now, id, out);
            }
        }
    }

    /// The connection is gone: its fetches end without an answer.
    pub(crate) fn drop_waits(&mut self, conn: ConnId) {
        while let Some(id) = self.waits.first_of(conn) {
            self.stop_waiting(id);
            self.waits.abandon(id);
        }
    }

    /// It waits for nothing of its partition any more; `false` when it did not.
    pub(crate) fn stop_waiting(&mut self, id: WaitId) -> bool {
        if !self.waits.is_at_partition(id) {
            return false;
        }
        let partition = self.waits.fetch(id).partition;
        let partition =
            self.partitions.get_mut(partition).expect("a partition outlives the fetches that wait for it");
        self.waits.wake(id, &mut partition.waiters);
        true
    }
}

pub(crate) fn out_of_range(offset: u64, log_start: u64, high_watermark: u64) -> Refusal {
    Refusal::OffsetOutOfRange { offset, log_start, high_watermark }
}
