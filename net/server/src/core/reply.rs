//! From the shard's actions to sends: replies gather per connection, one send at a time carries them all.
//!
//! A send pins the blocks its slices are in. When the log wants one of them back, what is queued is copied aside
//! and what is in flight is cancelled first; a connection for which that is too much is closed with
//! SLOW_CONSUMER. So a consumer that does not read costs others nothing but its own bounded memory.

use std::mem;

use corelog_model::time::Now;
use corelog_model::{BlockId, Slice};
use corelog_shard::{ConnId, Event, Letter, Reply, Response};
use corelog_uring::{Completion, Submission};
use corelog_wire::{Api, ErrorBody, ErrorCode, ReplyTo};

use super::connection::{Connection, Pause, Phase};
use super::logs::Served;
use super::outbox::TooSlow;
use super::{Core, Op, Output, Parcel};
use crate::status::Machine;
use crate::translate::{self, Surroundings};

/// The kind of a send's key, for whoever reads traces.
const KIND_SEND: u8 = 4;
const KIND_CANCEL: u8 = 6;

impl Core {
    /// Carries out what the shard in `place` wants done.
    pub(super) fn act(
        &mut self,
        now: Now,
        place: usize,
        machine: &mut dyn FnMut() -> Machine,
        out: &mut Output,
    ) {
        let Served { log, shard, disk, actions, evicted } = self.logs.at(place);
        evicted.retain(|&(_, until_us)| until_us > now.mono_us);
        let (log, mut actions) = (*log, mem::take(actions));
        disk.record(&actions.disk, |slice| shard.bytes(slice));
        disk.start(place, &mut actions.disk, &mut self.ops, out);
        while let Some(answer) = disk.answered() {
            disk.record_end(&answer, |slice| shard.bytes(slice));
            shard.on(now, Event::Disk(answer));
            self.again = true;
        }
        for Reply { response, .. } in &actions.replies {
            if let Response::Produced { base_offset, .. } = response {
                disk.record_promise(*base_offset);
            }
        }
        self.answered |= !actions.replies.is_empty();
        for Reply { conn, correlation, response } in actions.replies.drain(..) {
            if self.slot_of(conn).is_some() {
                self.reply(now, conn, correlation, &response, slices_of(&response, &actions.slices), machine);
            } else {
                let core = (conn.slot / self.bounds.connections) as usize;
                let slices = slices_of(&response, &actions.slices).into();
                self.logs.parcels.push((core, Parcel::Reply { conn, correlation, response, slices }));
            }
        }
        actions.slices.clear();
        for block in actions.evict.drain(..) {
            self.evict(now, block, out);
            self.evict_abroad(now, place, block);
        }
        for Letter { to, mail } in actions.letters.drain(..) {
            match self.logs.deliver(now, log, to, mail) {
                Ok(()) => self.again = true,
                Err(mail) => {
                    let core = self.core_of(to);
                    self.logs.parcels.push((core, Parcel::Letter { from: log, to, mail }));
                }
            }
        }
        // The lists keep their memory.
        self.logs.at(place).actions = actions;
    }

    /// Queues the answer to a request of a connection of this core. Status is one of all cores.
    pub(super) fn reply(
        &mut self,
        now: Now,
        conn: ConnId,
        correlation: u64,
        response: &Response,
        slices: &[Slice],
        machine: &mut dyn FnMut() -> Machine,
    ) {
        if let Response::Status(_) = response {
            return self.inquire(conn, correlation, machine);
        }
        let slot = self.slot_of(conn).expect("a connection of this core");
        let connection = self.connections[slot as usize].as_mut();
        let connection = connection.filter(|connection| connection.id == conn && connection.is_answered());
        let Some(connection) = connection else {
            for slice in slices {
                self.logs.release(now, slice.block);
            }
            return;
        };
        connection.pushed |= matches!(response, Response::Pushed { .. });
        let goes_on = goes_on(response);
        let to = match goes_on {
            true => connection.pending.get(correlation),
            false => connection.pending.remove(correlation),
        };
        connection.subscriptions -= usize::from(to.api == Api::Subscribe as u16 && !goes_on);
        connection.long.take_if(|long| *long == correlation);
        let payload_bytes = slices.iter().map(|slice| slice.length as usize).sum();
        let around = Surroundings { homes: &self.homes, places: &self.places };
        connection.outbox.push_bytes(|out| translate::response(response, to, payload_bytes, around, out));
        for &slice in slices {
            connection.outbox.push_slice(slice);
        }
        self.recount(slot);
        self.mark_flush(slot);
        self.unpause(slot, Pause::Replies);
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
        let drained = connection.outbox.queued_bytes() == 0 && mem::take(&mut connection.pushed);
        self.recount(slot);
        if drained {
            self.drained(now, slot);
        }
    }

    /// All that was pushed to the connection in `slot` is being sent: its subscriptions may push again. What they push
    /// waits for the send in flight, so a slow peer is pushed what has gathered meanwhile.
    fn drained(&mut self, now: Now, slot: u32) {
        let connection = self.connections[slot as usize].as_ref().expect("the slot is in use");
        let conn = connection.id;
        let abroad = connection.known_to.iter().map(|&core| (core, Parcel::Drained(conn)));
        self.logs.parcels.extend(abroad);
        self.logs.drained(now, conn);
        self.again = true;
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
        let logs = &mut self.logs;
        connection.outbox.sent(head, sent, |block| logs.release(now, block));
        let wanted = mem::take(&mut connection.evict);
        let phase = connection.phase;
        self.recount(slot);
        if !whole && (!cancelled || stalled && sent == 0) {
            // The peer is gone, or has taken nothing for too long.
            self.counters.timed_out += u64::from(cancelled);
            self.close(now, slot, out);
        } else if phase != Phase::Closing {
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
    pub(super) fn evict(&mut self, now: Now, block: BlockId, out: &mut Output) {
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

    /// Copies what the connection has queued from `block` aside, or has the core copy it whose memory it is of, or closes
    /// it.
    fn move_away(&mut self, now: Now, slot: u32, block: BlockId, out: &mut Output) {
        let Some(connection) = &mut self.connections[slot as usize] else { return };
        let mut released = 0;
        let Connection { id: conn, outbox, .. } = connection;
        let bound = self.bounds.slow_bytes.min(outbox.own_bytes() + self.replies.left());
        let logs = &mut self.logs;
        let moved = match logs.abroad(block) {
            None => outbox.move_away(block, bound, |slice| logs.bytes(slice), |_| released += 1),
            Some(core) => outbox.ask_for(block, bound).map(|slices| {
                if !slices.is_empty() {
                    logs.parcels.push((core, Parcel::Aside { conn: *conn, slices }));
                }
            }),
        };
        self.recount(slot);
        // Who waits for the block is to be asked again at once.
        self.again |= released > 0;
        for _ in 0..released {
            self.logs.release(now, block);
        }
        if let Err(slow) = moved {
            self.close_slow(now, slot, slow, out);
        }
    }

    /// Closes a connection that reads too slowly. It is told why if that is possible: when no frame is cut.
    fn close_slow(&mut self, now: Now, slot: u32, slow: TooSlow, out: &mut Output) {
        let logs = &mut self.logs;
        let connection = self.connections[slot as usize].as_mut().expect("the slot is in use");
        // It may be found too slow once for what it had queued and once for what was in flight.
        self.counters.slow_consumers += u64::from(connection.is_answered());
        let (told, is_answered) = (!connection.outbox.is_cut(), connection.is_answered());
        connection.outbox.discard(|block| logs.release(now, block));
        self.recount(slot);
        // Who waits for those blocks is to be asked again at once.
        self.again = true;
        if told && is_answered {
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

/// Whether more answers to the same request come.
pub(super) const fn goes_on(response: &Response) -> bool {
    matches!(response, Response::Pushed { is_last: false, .. })
}

/// The bytes of a fetch or push: its part of all slices of a turn.
fn slices_of<'a>(response: &Response, slices: &'a [Slice]) -> &'a [Slice] {
    match response {
        Response::Fetched { slices: range, .. } | Response::Pushed { slices: range, .. } => {
            &slices[range.clone()]
        }
        _ => &[],
    }
}
