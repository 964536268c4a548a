//! From the shard's actions to sends: replies gather per connection, one send at a time carries them all.
//!
//! A send pins the blocks its slices are in. When the log wants one of them back, what is queued is copied aside
//! and what is in flight is cancelled first; a connection for which that is too much is closed with
//! SLOW_CONSUMER. So a consumer that does not read costs others nothing but its own bounded memory.

use std::mem;

use corelog_model::time::Now;
use corelog_model::{BlockId, Slice};
use corelog_shard::{Event, Reply, Response};
use corelog_uring::{Completion, Submission};
use corelog_wire::{ErrorBody, ErrorCode, ReplyTo};

use super::connection::{Pause, Phase};
use super::outbox::TooSlow;
use super::{Core, Op, Output};
use crate::status::Machine;
use crate::translate::{self, Surroundings};

/// The kind of a send's key, for whoever reads traces.
const KIND_SEND: u8 = 4;
const KIND_CANCEL: u8 = 6;

impl Core {
    /// Carries out what the shard wants done.
    pub(super) fn act(&mut self, now: Now, machine: &mut dyn FnMut() -> Machine, out: &mut Output) {
        let mut actions = mem::take(&mut self.actions);
        self.disk.start(&mut actions.disk, &mut self.ops, out);
        while let Some(answer) = self.disk.answered() {
            self.shard.on(now, Event::Disk(answer));
            self.again = true;
        }
        for reply in actions.replies.drain(..) {
            self.reply(now, &reply, &actions.slices, machine);
        }
        actions.slices.clear();
        for block in actions.evict.drain(..) {
            self.evict(now, block, out);
        }
        // The lists keep their memory.
        self.actions = actions;
    }

    fn reply(&mut self, now: Now, reply: &Reply, slices: &[Slice], machine: &mut dyn FnMut() -> Machine) {
        let slices = match &reply.response {
            Response::Fetched { slices: range, .. } => &slices[range.clone()],
            _ => &[],
        };
        let connection = self.connections[reply.conn.slot as usize].as_mut();
        let connection =
            connection.filter(|connection| connection.id == reply.conn && connection.is_answered());
        let Some(connection) = connection else {
            for slice in slices {
                self.shard.on(now, Event::Released { block: slice.block });
            }
            return;
        };
        let to = connection.pending.remove(reply.correlation);
        connection.long.take_if(|long| *long == reply.correlation);
        let payload_bytes = slices.iter().map(|slice| slice.length as usize).sum();
        let machine = match reply.response {
            Response::Status(_) => machine(),
            _ => Machine::default(),
        };
        let open = (self.bounds.connections as usize - self.free_slots.len()) as u32;
        let reactor = crate::status::Reactor { connections: open, ..self.counters };
        let around = Surroundings { place: &self.place, reactor: &reactor, machine: &machine };
        connection
            .outbox
            .push_bytes(|out| translate::response(&reply.response, to, payload_bytes, around, out));
        for &slice in slices {
            connection.outbox.push_slice(slice);
        }
        self.mark_flush(reply.conn.slot);
        self.unpause(reply.conn.slot, Pause::Replies);
    }

    /// Puts the connection in line to be sent to at the end of the turn.
    pub(super) fn mark_flush(&mut self, slot: u32) {
        let connection = self.connection(slot);
        if !mem::replace(&mut connection.in_flush, true) {
            self.flush.push(slot);
        }
    }

    /// One send for every connection that has something to send and no send in flight, in the order in which that came
    /// up: the shard acknowledges before it shows what it acknowledged to readers.
    pub(super) fn send_all(&mut self, now: Now, out: &mut Output) {
        let mut at = 0;
        while let Some(&slot) = self.flush.get(at) {
            at += 1;
            if let Some(connection) = &mut self.connections[slot as usize] {
                connection.in_flush = false;
                self.send(now, slot, out);
            }
        }
        self.flush.clear();
    }

    fn send(&mut self, now: Now, slot: u32, out: &mut Output) {
        let connection = self.connections[slot as usize].as_mut().expect("the slot is in use");
        if connection.phase == Phase::Closing {
            return;
        }
        let first = out.slices.len() as u32;
        let Some(send) = connection.outbox.next_send(&mut out.slices) else {
            if connection.is_done() {
                self.close(now, slot, out);
            }
            return;
        };
        let key = self.ops.insert(KIND_SEND, Op::Send(slot));
        connection.sending = Some(key);
        connection.sent_us = now.mono_us;
        self.counters.sends += 1;
        out.submissions.push(Submission::Send {
            key,
            socket: connection.socket,
            head: Some(send.head),
            head_offset: 0,
            head_length: send.head_length,
            slices: first..out.slices.len() as u32,
        });
    }

    /// The send of the connection in `slot` is over.
    pub(super) fn on_sent(&mut self, now: Now, slot: u32, completion: Completion, out: &mut Output) {
        let connection = self.connections[slot as usize].as_mut().expect("open while it sends");
        connection.sending = None;
        connection.sent_us = now.mono_us;
        let cancelled = mem::take(&mut connection.send_cancelled);
        let stalled = mem::take(&mut connection.stall_checked);
        let sent = completion.result.map_or(0, |bytes| bytes as usize);
        let whole = sent == connection.outbox.flight_bytes();
        let head = completion.block.expect("the ring gives back what moved in");
        let shard = &mut self.shard;
        connection.outbox.sent(head, sent, |block| shard.on(now, Event::Released { block }));
        let wanted = mem::take(&mut connection.evict);
        if !whole && (!cancelled || stalled && sent == 0) {
            // The peer is gone, or has taken nothing for too long.
            self.counters.timed_out += u64::from(cancelled);
            self.close(now, slot, out);
        } else if connection.phase != Phase::Closing {
            for &block in &wanted {
                self.move_away(now, slot, block, out);
            }
            if self.connections[slot as usize].as_ref().is_some_and(|open| open.phase != Phase::Closing) {
                self.mark_flush(slot);
                self.unpause(slot, Pause::Replies);
            }
        }
        self.finish_closing(slot, out);
    }

    /// The log wants `block` back.
    fn evict(&mut self, now: Now, block: BlockId, out: &mut Output) {
        for slot in 0..self.connections.len() as u32 {
            let Some(connection) = &mut self.connections[slot as usize] else { continue };
            if connection.outbox.is_sending_from(block) && !connection.evict.contains(&block) {
                connection.evict.push(block);
                if let Some(target) = connection.sending.filter(|_| !connection.send_cancelled) {
                    connection.send_cancelled = true;
                    let key = self.ops.insert(KIND_CANCEL, Op::Aside);
                    out.submissions.push(Submission::Cancel { key, target });
                }
            }
            self.move_away(now, slot, block, out);
        }
    }

    /// Copies what the connection has queued from `block` aside, or closes it.
    fn move_away(&mut self, now: Now, slot: u32, block: BlockId, out: &mut Output) {
        let Some(connection) = &mut self.connections[slot as usize] else { return };
        let mut released = 0;
        let shard = &self.shard;
        let moved = connection.outbox.move_away(
            block,
            self.bounds.slow_bytes,
            |slice| shard.bytes(slice),
            |_| released += 1,
        );
        // Who waits for the block is to be asked again at once.
        self.again |= released > 0;
        for _ in 0..released {
            self.shard.on(now, Event::Released { block });
        }
        if let Err(slow) = moved {
            self.close_slow(now, slot, slow, out);
        }
    }

    /// Closes a connection that reads too slowly. It is told why if that is possible: when no frame is cut.
    fn close_slow(&mut self, now: Now, slot: u32, slow: TooSlow, out: &mut Output) {
        let shard = &mut self.shard;
        let connection = self.connections[slot as usize].as_mut().expect("the slot is in use");
        // It may be found too slow once for what it had queued and once for what was in flight.
        self.counters.slow_consumers += u64::from(connection.is_answered());
        let told = !connection.outbox.is_cut();
        connection.outbox.discard(|block| shard.on(now, Event::Released { block }));
        // Who waits for those blocks is to be asked again at once.
        self.again = true;
        if told && connection.is_answered() {
            let details = [slow.bytes as u64, self.bounds.slow_bytes as u64];
            let message = format!(
                "{} bytes of answers are not read and their memory is needed, {} may be kept aside",
                details[0], details[1]
            );
            let body = ErrorBody { details, ..ErrorBody::new(ErrorCode::SlowConsumer, &message) };
            let to = ReplyTo { api: 0, version: 0, handle: 0, correlation: 0 };
            self.answer(slot, to, &corelog_wire::Response::Error(body));
            self.drain(slot);
        } else {
            self.close(now, slot, out);
        }
    }
}
