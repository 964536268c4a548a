//! Subscriptions: fetches that go on. Each push moves the offset and takes from the credit.
//!
//! A subscription pushes what its credit allows, then waits until its connection has taken that, and so has at most one
//! push in the connection's queue: a client that is slow gets fewer and larger pushes. **Invariants:** a handle has one
//! subscription at most; one that was begun has exactly one last answer, which says why it ended, unless its connection
//! ends first; nothing is pushed while there is no credit, and one batch always while there is some.

use std::ops::Range;

use corelog_model::{Now, Term};

use crate::event::{Actions, ConnId, Taken};
use crate::fetch::JUST_READ;
use crate::partition::PartitionId;
use crate::response::Response;
use crate::shard::{Asker, Shard};
use crate::wait::{Fetch, Stream, WaitId, Wanted};

/// What a client wants pushed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscribe {
    pub(crate) handle: u32,
    pub(crate) partition: PartitionId,
    pub(crate) offset: u64,
    pub(crate) leader_epoch: Option<Term>,
    pub(crate) max_bytes: u32,
    pub(crate) credit: u32,
}

/// What a subscription has to push.
pub(crate) struct Push {
    /// A range of `Actions::slices`, perhaps empty.
    pub(crate) slices: Range<usize>,
    pub(crate) bytes: u64,
    pub(crate) next_offset: u64,
}

impl Shard {
    /// Begins a subscription, in place of the one that the handle has.
    pub(crate) fn subscribe(
        &mut self,
        now: Now,
        asker: Asker,
        wanted: Subscribe,
        out: &mut Actions,
    ) -> Taken {
        let Asker { conn, correlation } = asker;
        let Subscribe { handle, partition, offset, leader_epoch, max_bytes, credit } = wanted;
        self.end_subscription(now, conn, handle, out);
        let stream = Stream { handle, credit: credit.into(), begun: false, ended: false };
        let fetch = Fetch {
            conn,
            correlation,
            partition,
            wanted: Wanted::Batches,
            offset,
            leader_epoch,
            max_bytes,
            min_bytes: 1,
            deadline_us: u64::MAX,
            stream: Some(stream),
        };
        match self.waits.reserve(fetch) {
            Ok(id) => {
                self.sessions.subscribe(conn, handle, id);
                _ = self.attempt(now, id, out);
            }
            Err(refusal) => return self.refuse(asker, refusal, out),
        }
        Taken::Done
    }

    /// More credit for the handle's subscription, or its end. One that has ended meanwhile is left alone: its end and this
    /// have crossed.
    pub(crate) fn credit(
        &mut self,
        now: Now,
        asker: Asker,
        handle: u32,
        bytes: u32,
        ends: bool,
        out: &mut Actions,
    ) -> Taken {
        asker.answer(Response::Credited, out);
        if ends {
            self.end_subscription(now, asker.conn, handle, out);
        } else if let Some(id) = self.sessions.subscription(asker.conn, handle) {
            let stream = self.waits.stream_mut(id);
            stream.credit = stream.credit.saturating_add(bytes.into());
            if stream.credit > 0 && self.waits.is_without_credit(id) {
                self.stop_waiting(id);
                _ = self.attempt(now, id, out);
            }
        }
        Taken::Done
    }

    /// The handle's subscription ends: at once, or when the disk or the connection have done what it waits for.
    pub fn end_subscription(&mut self, now: Now, conn: ConnId, handle: u32, out: &mut Actions) {
        let Some(id) = self.sessions.unsubscribe(conn, handle) else { return };
        self.waits.stream_mut(id).ended = true;
        if self.stop_waiting(id) {
            _ = self.attempt(now, id, out);
        }
    }

    /// The connection has taken what was pushed to it: its subscriptions go on.
    pub fn drained(&mut self, now: Now, conn: ConnId, out: &mut Actions) {
        let mut pushed = self.waits.drain(conn);
        while let Some(id) = self.waits.drained(&mut pushed) {
            _ = self.attempt(now, id, out);
        }
    }

    /// Pushes, and waits until that is taken.
    pub(crate) fn push(&mut self, id: WaitId, push: Push, out: &mut Actions) {
        let Push { slices, bytes, next_offset } = push;
        let leader_epoch = self.log.term();
        let fetch = self.waits.fetch_mut(id);
        (fetch.offset, fetch.leader_epoch) = (next_offset, Some(leader_epoch));
        let Fetch { conn, correlation, partition, .. } = *fetch;
        let stream = self.waits.stream_mut(id);
        stream.begun = true;
        stream.credit -= i64::try_from(bytes).expect("a push is bounded");
        let cursors = self.partitions.get(partition).expect(JUST_READ).cursors();
        let pushed = Response::Pushed {
            log_start: cursors.log_start,
            high_watermark: cursors.high_watermark,
            leader_epoch,
            is_last: false,
            slices,
        };
        self.counters.pushes += 1;
        Asker { conn, correlation }.answer(pushed, out);
        self.waits.await_client(id);
    }

    /// The last answer of a subscription that was asked to end.
    pub(crate) fn last_push(&self, partition: PartitionId, out: &Actions) -> Response {
        let cursors = self.partitions.get(partition).map(|partition| partition.cursors()).unwrap_or_default();
        Response::Pushed {
            log_start: cursors.log_start,
            high_watermark: cursors.high_watermark,
            leader_epoch: self.log.term(),
            is_last: true,
            slices: out.slices.len()..out.slices.len(),
        }
    }
}
