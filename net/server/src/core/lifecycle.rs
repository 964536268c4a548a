//! How connections begin and end, and how the core does.
//!
//! A connection ends in two steps: it is shut down, which ends its operations, and closed when they have ended.
//! With all slots taken nothing is accepted: new peers wait in the listener's queue.

use std::mem;

use corelog_model::BlockId;
use corelog_model::time::Now;
use corelog_shard::ConnId;
use corelog_uring::{Accepted, Completion, Submission};

use super::connection::{Connection, Pause, Pending, Phase};
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::{Bounds, Core, Op, Output, Parcel};
use crate::session;

const KIND_ACCEPT: u8 = 2;
const KIND_CLOSE: u8 = 5;
const KIND_CANCEL: u8 = 6;
/// Pause after an accept that failed for want of something.
const ACCEPT_RETRY_US: u64 = 100_000;
/// Generations of connections are kept to the bits that keys have, too.
const GENERATION_MASK: u32 = (1 << 24) - 1;

impl Core {
    /// Keeps one accept outstanding while a slot is free, from the time on that all logs of the store have started.
    pub(super) fn accept(&mut self, now: Now, out: &mut Output) {
        let waits = self.accept_at_us.is_some_and(|at_us| at_us > now.mono_us);
        let joined = self.joined || self.logs.are_joined();
        self.joined = joined;
        if self.accepting.is_some() || waits || !joined || self.stopping || self.free_slots.is_empty() {
            return;
        }
        self.accept_at_us = None;
        let key = self.ops.insert(KIND_ACCEPT, Op::Accept);
        self.accepting = Some(key);
        out.submissions.push(Submission::Accept { key, listener: self.listener });
    }

    /// A peer is there, or the system could not take one.
    pub(super) fn on_accept(&mut self, now: Now, completion: &Completion) {
        self.accepting = None;
        let Some(Accepted { socket, peer }) = completion.accepted else {
            self.accept_at_us = Some(now.mono_us + ACCEPT_RETRY_US);
            return;
        };
        let slot = self.free_slots.pop().expect("an accept is outstanding only while a slot is free");
        let generation = &mut self.generations[slot as usize];
        *generation = (*generation + 1) & GENERATION_MASK;
        let first = self.me as u32 * self.bounds.connections;
        let id = ConnId { slot: first + slot, generation: *generation };
        let mut block = || self.blocks.pop().expect("every slot has its two blocks");
        let requests = self.bounds.requests as usize;
        let (inbox, outbox) = (Inbox::new(block()), Outbox::new(block(), requests));
        let pending = Pending::new(requests);
        let principal = session::principal(peer);
        let connection = Connection::new(id, socket, principal, inbox, outbox, pending, now.mono_us);
        self.connections[slot as usize] = Some(connection);
        self.counters.accepted += 1;
        self.deadlines.push(now.mono_us + self.shortest_us(), id);
        self.make_ready(slot);
    }

    /// Looks at the connections whose time has come.
    pub(super) fn expire(&mut self, now: Now, out: &mut Output) {
        while let Some(id) = self.deadlines.pop_due(now.mono_us) {
            let slot = self.slot_of(id).expect("a connection of this core");
            let Some(connection) = &self.connections[slot as usize] else { continue };
            if connection.id != id || connection.phase == Phase::Closing {
                continue;
            }
            let (due, at_us) = self.next_look(connection, now.mono_us);
            match due {
                Due::Nothing => {}
                Due::Close => {
                    self.counters.timed_out += 1;
                    self.close(now, slot, out);
                    self.finish_closing(slot, out);
                    continue;
                }
                Due::CheckSend => self.check_send(slot, out),
            }
            self.deadlines.push(at_us, id);
        }
    }

    /// What is overdue, and when to look next: no later than the shortest time that could begin now and end.
    fn next_look(&self, connection: &Connection, now_us: u64) -> (Due, u64) {
        let Self { bounds, .. } = self;
        let after = |since_us: u64, limit_us: u64| if limit_us == 0 { u64::MAX } else { since_us + limit_us };
        let hello = match connection.phase {
            Phase::Greeting => after(connection.accepted_us, bounds.handshake_us),
            _ => u64::MAX,
        };
        let waits_for_us = connection.pause != Pause::No;
        let frame = match connection.inbox.is_partial() && connection.is_served() && !waits_for_us {
            true => after(connection.progress_us(), bounds.stalled_us),
            false => u64::MAX,
        };
        let quiet = connection.pending.is_empty() && connection.outbox.is_idle() && !waits_for_us;
        let idle = match quiet && connection.phase == Phase::Open {
            true => after(connection.requested_us.max(connection.sent_us), bounds.idle_us),
            false => u64::MAX,
        };
        let send = match connection.sending.is_some() {
            true => after(connection.sent_us, bounds.stalled_us),
            false => u64::MAX,
        };
        let due = match () {
            () if hello.min(frame).min(idle) <= now_us => Due::Close,
            () if send <= now_us => Due::CheckSend,
            () => Due::Nothing,
        };
        let next = [hello, frame, idle, send].into_iter().filter(|&at_us| at_us > now_us).min();
        (due, next.unwrap_or(u64::MAX).min(now_us + self.shortest_us()))
    }

    /// The shortest of the times a connection can run out of, in microseconds: looking that often misses none.
    fn shortest_us(&self) -> u64 {
        let Bounds { handshake_us, idle_us, stalled_us, .. } = self.bounds;
        [handshake_us, idle_us, stalled_us].into_iter().filter(|&us| us > 0).min().unwrap_or(handshake_us)
    }

    /// Cancels a send that has taken long: what it has sent by then tells whether the peer reads at all.
    fn check_send(&mut self, slot: u32, out: &mut Output) {
        let connection = self.connections[slot as usize].as_mut().expect("the slot is in use");
        if let Some(target) = connection.sending.filter(|_| !connection.send_cancelled) {
            connection.send_cancelled = true;
            connection.stall_checked = true;
            let key = self.ops.insert(KIND_CANCEL, Op::Aside);
            out.submissions.push(Submission::Cancel { key, target });
        }
    }

    /// The peer sends no more, but may still read: it gets the answers to what it asked, then the connection closes. Its
    /// fetches wait for data no longer, since a peer that is gone altogether looks the same and must not keep its place.
    pub(super) fn answer_rest(&mut self, now: Now, slot: u32) {
        let connection = self.connections[slot as usize].as_mut().expect("the slot is in use");
        connection.was_open = connection.phase == Phase::Open;
        connection.phase = Phase::Answering;
        if connection.was_open {
            self.logs.hurry(now, connection.id);
            self.hurry_abroad(slot);
        }
        self.mark_flush(slot);
    }

    /// Reads nothing more from the connection and closes it once everything queued is sent.
    pub(super) fn drain(&mut self, slot: u32) {
        let connection = self.connection(slot);
        if connection.is_answered() {
            connection.was_open |= connection.phase == Phase::Open;
            connection.phase = Phase::Draining;
        }
        self.mark_flush(slot);
    }

    /// Ends the connection: nothing more is read or sent, its memory comes back as its operations end.
    pub(super) fn close(&mut self, now: Now, slot: u32, out: &mut Output) {
        let Some(connection) = &mut self.connections[slot as usize] else { return };
        let was = mem::replace(&mut connection.phase, Phase::Closing);
        if was == Phase::Closing {
            return;
        }
        let logs = &mut self.logs;
        connection.outbox.discard(|block| logs.release(now, block));
        self.replies.forget(mem::take(&mut connection.extra_bytes));
        if was == Phase::Open || connection.was_open {
            logs.disconnected(now, connection.id);
            let conn = connection.id;
            logs.parcels.extend(connection.known_to.drain(..).map(|core| (core, Parcel::Gone(conn))));
        }
        self.ingest.forget(slot);
        if connection.receiving.is_some() || connection.sending.is_some() {
            let key = self.ops.insert(KIND_CLOSE, Op::Aside);
            out.submissions.push(Submission::Shutdown { key, socket: connection.socket });
        }
        self.finish_closing(slot, out);
    }

    /// Gives the socket up once nothing is in flight on it.
    pub(super) fn finish_closing(&mut self, slot: u32, out: &mut Output) {
        let Some(connection) = &mut self.connections[slot as usize] else { return };
        let ended = connection.receiving.is_none() && connection.sending.is_none() && !connection.is_away;
        // The inbox is away while its requests are served; the connection is finished after that.
        if connection.phase != Phase::Closing || !ended || mem::replace(&mut connection.close_sent, true) {
            return;
        }
        let key = self.ops.insert(KIND_CLOSE, Op::Close(slot));
        out.submissions.push(Submission::Close { key, socket: connection.socket });
    }

    /// The socket is gone: the slot and its memory are free again.
    pub(super) fn on_closed(&mut self, now: Now, slot: u32) {
        let mut connection = self.connections[slot as usize].take().expect("closed once");
        let logs = &mut self.logs;
        connection.outbox.discard(|block: BlockId| logs.release(now, block));
        self.replies.forget(connection.extra_bytes);
        self.routes -= connection.routes.len();
        let (small, large) = connection.inbox.into_blocks();
        self.blocks.push(small.expect("nothing is received any more"));
        self.blocks.push(connection.outbox.into_head().expect("nothing is sent any more"));
        large.into_iter().for_each(|block| self.ingest.give(block));
        self.free_slots.push(slot);
    }

    /// Begins to stop: nothing is accepted any more and new requests are refused. What was appended, at any
    /// level, is written and what was acknowledged is sent as the turns go on.
    pub fn stop(&mut self, out: &mut Output) {
        if mem::replace(&mut self.stopping, true) {
            return;
        }
        for slot in 0..self.connections.len() as u32 {
            self.hurry_abroad(slot);
        }
        if let Some(target) = self.accepting {
            let key = self.ops.insert(KIND_CANCEL, Op::Aside);
            out.submissions.push(Submission::Cancel { key, target });
        }
    }

    /// Whether everything appended has left for the disk and come back: after a turn that wanted no disk
    /// operation, with none in flight.
    pub fn is_settled(&self) -> bool {
        self.logs.are_settled()
    }

    /// Whether every reply is sent, and none is owed by another core or to one.
    pub fn is_flushed(&self) -> bool {
        !self.is_busy_abroad() && self.connections.iter().flatten().all(|open| open.outbox.is_idle())
    }

    /// Ends all connections.
    pub fn close_all(&mut self, now: Now, out: &mut Output) {
        for slot in 0..self.connections.len() as u32 {
            self.close(now, slot, out);
        }
    }
}

/// What has taken too long.
enum Due {
    Nothing,
    Close,
    CheckSend,
}
