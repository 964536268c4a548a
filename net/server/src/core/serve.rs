//! From received bytes to requests of the shard, and the reasons not to read a socket for a while.
//!
//! Requests are decoded and offered in place, in the order they came. A connection is read again only when all
//! whole frames it sent were taken, so what it can have in memory is one receive block.

use std::mem;
use std::ops::Range;

use corelog_model::LogId;
use corelog_model::time::Now;
use corelog_shard::{MAX_HANDLE, Refusal, Taken};
use corelog_uring::{Completion, Submission};
use corelog_wire::{
    ErrorBody, ErrorCode, Frame, Hello, ReplyTo, Request, Response, Split, WireError, decode_request, split,
};

use super::connection::{Pause, Phase};
use super::forward::Run;
use super::inbox::{Inbox, Want};
use super::logs::Served;
use super::parcel::Visitor;
use super::{Core, Op, Output};
use crate::{session, translate};

/// Subscriptions of one connection: one for each handle, and as many that were replaced and wait for their end.
const MAX_SUBSCRIPTIONS: usize = 2 * MAX_HANDLE as usize;
/// Queued reply bytes of one connection beyond which its further requests wait.
const QUEUED_BYTES: usize = 8 << 20;
/// The same for those that are not slices of the log. Of requests whose answers can be long one is answered at a time
/// besides.
pub(super) const OWN_QUEUED_BYTES: usize = 64 << 10;
/// How long a peer that stops in the middle of a request keeps its memory from one that waits for it, where
/// `limits.stalled_ms` does not say ...
const STALLED_US: u64 = 30_000_000;
/// ... and the least, however many wait.
const LEAST_PATIENCE_US: u64 = 100_000;
/// The kind of a receive's key, for whoever reads traces.
const KIND_RECV: u8 = 3;
const KIND_CANCEL: u8 = 6;

/// Whether its answer is far longer than the request and no slice of the log: what such answers of a turn are together is
/// known only after it, so hundreds of them would go beyond any bound.
const fn is_long(request: &corelog_shard::Request<'_>) -> bool {
    use corelog_shard::Request;
    matches!(request, Request::Metadata { .. } | Request::ReadPositions { .. })
}

/// What became of a frame.
enum Outcome {
    /// Taken, or answered with an error: its bytes are done with.
    Done,
    /// It has to wait: its bytes stay.
    Paused(Pause),
    /// Another core takes it: it goes there with the others of the run.
    Abroad,
}

impl Core {
    /// Bytes, or the end of the stream, came from the connection in `slot`.
    pub(super) fn on_received(&mut self, now: Now, slot: u32, completion: Completion, out: &mut Output) {
        let connection = self.connection(slot);
        connection.receiving = None;
        let cancelled = mem::take(&mut connection.recv_cancelled);
        let block = completion.block.expect("the ring gives back what moved in");
        let received = completion.result.map(|bytes| bytes as usize);
        let begins = !connection.inbox.is_partial();
        connection.inbox.returned(block, received.unwrap_or(0));
        match received {
            Ok(bytes) if bytes > 0 => {
                connection.heard(bytes, begins, now.mono_us);
                self.make_ready(slot);
            }
            Err(_) if cancelled && connection.is_served() => {
                self.shrink_inbox(slot);
                self.make_ready(slot);
            }
            Ok(_) if connection.is_served() => self.answer_rest(now, slot),
            _ if connection.phase == Phase::Draining && !connection.outbox.is_idle() => {}
            _ => self.close(now, slot, out),
        }
        self.give_up_inbox(slot);
        self.finish_closing(slot, out);
    }

    /// Puts the connection in line to be served in this turn.
    pub(super) fn make_ready(&mut self, slot: u32) {
        let Some(connection) = &mut self.connections[slot as usize] else { return };
        if !mem::replace(&mut connection.in_ready, true) {
            self.ready.push(slot);
        }
    }

    /// A reply of this connection was queued or sent: it may go on.
    pub(super) fn unpause(&mut self, slot: u32, because: Pause) {
        let Some(connection) = &mut self.connections[slot as usize] else { return };
        if connection.pause == because {
            connection.pause = Pause::No;
            self.make_ready(slot);
        }
    }

    /// Whether a turn could do something for it at once.
    pub(super) fn is_servable(&self, slot: u32) -> bool {
        self.connections[slot as usize].as_ref().is_some_and(|connection| connection.pause == Pause::No)
    }

    /// Serves every connection in line once, the longest waiting first: one that was told of an ingest block takes it
    /// before whoever comes later.
    pub(super) fn serve(&mut self, now: Now, out: &mut Output) {
        mem::swap(&mut self.ready, &mut self.serving);
        for at in 0..self.serving.len() {
            let slot = self.serving[at];
            if let Some(connection) = &mut self.connections[slot as usize] {
                connection.in_ready = false;
                self.serve_one(now, slot, out);
            }
        }
        self.serving.clear();
        if self.ingest.has_waiting() {
            self.serving.extend(self.ingest.owed());
            for at in 0..self.serving.len() {
                let slot = self.serving[at];
                if let Some(connection) = &mut self.connections[slot as usize] {
                    // It was not the peer who was waited for.
                    connection.received_us = now.mono_us;
                }
                self.unpause(slot, Pause::Memory);
            }
            self.serving.clear();
            self.reclaim_idle_blocks(out);
        }
        self.reclaim_stalled_blocks(now, out);
    }

    fn serve_one(&mut self, now: Now, slot: u32, out: &mut Output) {
        let connection = self.connection(slot);
        if !connection.is_served() || connection.inbox.is_receiving() {
            return;
        }
        // Taken out, so that requests can borrow its bytes while the rest of the core works on them.
        let mut inbox = mem::take(&mut connection.inbox);
        connection.pause = Pause::No;
        self.serve_frames(now, slot, &mut inbox);
        let connection = self.connection(slot);
        connection.inbox = inbox;
        match connection.pause {
            Pause::No if connection.is_served() => self.receive(slot, out),
            // Offered again next turn, but nothing changes before the next completion.
            Pause::Blocked => self.make_ready(slot),
            _ => {}
        }
        self.give_up_inbox(slot);
    }

    /// Serves what is whole, in order. Frames for another core are gathered until one comes that is not, and go there in
    /// their block; the rest is served when the block is back.
    fn serve_frames(&mut self, now: Now, slot: u32, inbox: &mut Inbox) {
        let mut run = Run { core: None, frames: mem::take(&mut self.connection(slot).frames) };
        while self.connection(slot).is_served() {
            let limit = self.connection(slot).frame_limit;
            let start = inbox.start();
            let (frame_bytes, outcome) = match split(inbox.unread(), limit) {
                Ok(Split::Need(bytes)) => {
                    inbox.need(bytes);
                    break;
                }
                Ok(Split::Frame(frame)) => {
                    (frame.header.frame_bytes(), self.serve_frame(now, slot, frame, start, &mut run))
                }
                Err(_) if run.core.is_some() => break,
                Err(fault) => {
                    self.refuse_stream(slot, inbox.unread(), &fault);
                    break;
                }
            };
            match outcome {
                Outcome::Done | Outcome::Abroad => {
                    inbox.consume(frame_bytes);
                    self.connection(slot).requested_us = now.mono_us;
                }
                Outcome::Paused(pause) => {
                    self.connection(slot).pause = pause;
                    break;
                }
            }
        }
        match run.core {
            Some(_) => self.send_visit(slot, inbox, run),
            None => self.connection(slot).frames = run.frames,
        }
    }

    fn serve_frame(&mut self, now: Now, slot: u32, frame: Frame<'_>, start: usize, run: &mut Run) -> Outcome {
        let requests = self.bounds.requests as usize;
        let connection = self.connections[slot as usize].as_mut().expect("the slot is in use");
        let outbox = &connection.outbox;
        let is_full = connection.unanswered() >= requests
            || outbox.queued_bytes() >= QUEUED_BYTES
            || outbox.own_bytes() >= OWN_QUEUED_BYTES
            || self.replies.is_full() && !outbox.is_idle();
        if is_full {
            return Outcome::Paused(Pause::Replies);
        }
        let to = frame.header.reply_to();
        let request = match decode_request(&frame.header, frame.body) {
            Ok(request) => request,
            Err(fault) => {
                self.refuse(slot, to, &fault);
                return Outcome::Done;
            }
        };
        match (&request, connection.phase) {
            (Request::Ping, _) => self.answer(slot, to, &Response::Pong),
            (Request::Hello(hello), Phase::Greeting) => self.greet(now, slot, to, hello),
            (Request::Hello(_), _) => {
                let body = ErrorBody::new(ErrorCode::MalformedRequest, "Hello comes once");
                self.answer(slot, to, &Response::Error(body));
            }
            (_, Phase::Greeting) => {
                let body = ErrorBody::new(ErrorCode::HelloRequired, "say Hello first");
                self.answer(slot, to, &Response::Error(body));
            }
            _ if self.stopping => {
                let body = ErrorBody::new(ErrorCode::ShuttingDown, "the broker is stopping");
                self.answer(slot, to, &Response::Error(body));
            }
            _ => {
                let place = start..start + frame.header.frame_bytes();
                return self.offer(now, slot, to, &request, place, run);
            }
        }
        Outcome::Done
    }

    /// Offers a request, which lies in `place` of its block, to the shard of its log.
    fn offer(
        &mut self,
        now: Now,
        slot: u32,
        to: ReplyTo,
        request: &Request<'_>,
        place: Range<usize>,
        run: &mut Run,
    ) -> Outcome {
        let Some(request) = translate::request(request) else { return Outcome::Done };
        let connection = self.connections[slot as usize].as_mut().expect("the slot is in use");
        let is_long = is_long(&request);
        if is_long && connection.long.is_some() {
            return Outcome::Paused(Pause::Replies);
        }
        let limit = connection.frame_limit;
        // Only an Open can lead a handle elsewhere.
        let led = match request {
            corelog_shard::Request::Open { handle, .. } => connection.routes.get(handle),
            _ => None,
        };
        if led.is_some_and(|led| run.core == Some(self.core_of(led))) {
            // What was asked on the handle so far has to be there before it leads elsewhere.
            return Outcome::Paused(Pause::Away);
        }
        let log = match self.route(slot, &request) {
            Ok(log) => log,
            Err(refusal) => return self.refuse_request(slot, to, &refusal),
        };
        if let Some(led) = led.filter(|&led| self.connection(slot).routes.get(to.handle) != Some(led)) {
            self.leave(now, slot, led, to.handle);
        }
        let core = self.core_of(log);
        if run.core.is_some_and(|run| run != core) {
            return Outcome::Paused(Pause::Away);
        }
        let connection = self.connections[slot as usize].as_mut().expect("the slot is in use");
        let subscribes = matches!(request, corelog_shard::Request::Subscribe { .. });
        if subscribes && connection.subscriptions >= MAX_SUBSCRIPTIONS {
            // Most of them have ended, and the peer does not take their last answers.
            return Outcome::Paused(Pause::Replies);
        }
        let correlation = connection.pending.insert(to);
        connection.subscriptions += usize::from(subscribes);
        if is_long {
            connection.long = Some(correlation);
        }
        let Some(here) = self.logs.place_of(log) else {
            run.core = Some(core);
            run.frames.push(Visitor { log, correlation, start: place.start as u32, end: place.end as u32 });
            self.counters.requests += 1;
            return Outcome::Abroad;
        };
        let request = translate::bounded(request, limit);
        let Served { shard, actions, .. } = self.logs.at(here);
        match shard.request(now, connection.id, correlation, &request, actions) {
            Taken::Done => {
                connection.in_line = None;
                self.counters.requests += 1;
                Outcome::Done
            }
            Taken::Blocked => {
                connection.in_line.get_or_insert_with(|| self.line.next());
                // A Subscribe is never blocked.
                connection.pending.remove(correlation);
                connection.long.take_if(|long| *long == correlation);
                Outcome::Paused(Pause::Blocked)
            }
        }
    }

    /// Refuses a request that no shard sees.
    fn refuse_request(&mut self, slot: u32, to: ReplyTo, refusal: &Refusal) -> Outcome {
        let message = translate::words(refusal);
        let body = translate::error_body(refusal, &message);
        self.answer(slot, to, &Response::Error(body));
        Outcome::Done
    }

    fn greet(&mut self, now: Now, slot: u32, to: ReplyTo, hello: &Hello<'_>) {
        let reply = session::greet(self.identity, self.logs.term(LogId(0)), hello);
        let connection = self.connection(slot);
        connection.phase = Phase::Open;
        connection.frame_limit = reply.max_frame_bytes as usize;
        let (conn, principal) = (connection.id, connection.principal);
        self.logs.connected(now, conn, principal);
        self.answer(slot, to, &Response::Hello(reply));
    }

    /// Queues an answer of the reactor's own.
    pub(super) fn answer(&mut self, slot: u32, to: ReplyTo, response: &Response<'_>) {
        let is_error = matches!(response, Response::Error(_));
        self.push_reply(slot, |out| translate::append(response, to, 0, out));
        self.counters.requests += u64::from(!is_error);
        self.counters.refused += u64::from(is_error);
        self.mark_flush(slot);
    }

    /// Answers a request that is not one. The connection goes on if it is known where the next frame starts.
    fn refuse(&mut self, slot: u32, to: ReplyTo, fault: &WireError) {
        let message = fault.to_string();
        self.answer(slot, to, &Response::Error(ErrorBody::from_fault(fault, &message)));
        if fault.closes() {
            self.drain(slot);
        }
    }

    /// Answers bytes whose end cannot be told. What little of the header can be echoed is.
    fn refuse_stream(&mut self, slot: u32, unread: &[u8], fault: &WireError) {
        let field = |at: usize, bytes: usize| {
            let mut value = [0; 8];
            value[..bytes].copy_from_slice(&unread[at..at + bytes]);
            u64::from_le_bytes(value)
        };
        let to = ReplyTo {
            api: field(8, 2) as u16,
            version: field(10, 1) as u8,
            handle: field(12, 4) as u32,
            correlation: field(16, 8),
        };
        self.refuse(slot, to, fault);
        self.drain(slot);
    }

    /// Submits the next receive, with a larger block if the frame needs one.
    pub(super) fn receive(&mut self, slot: u32, out: &mut Output) {
        if self.ingest.has_waiting() {
            // Between two requests is the time to take turns: a peer that never pauses would keep its block.
            self.shrink_inbox(slot);
        }
        let connection = self.connections[slot as usize].as_mut().expect("the slot is in use");
        let (offset, length) = loop {
            match connection.inbox.want() {
                Want::Bytes { offset, length } => break (offset, length),
                Want::Block(bytes) => match self.ingest.take(slot, bytes) {
                    Some(larger) => {
                        if let Some(old) = connection.inbox.grow(larger) {
                            self.ingest.give(old);
                        }
                    }
                    None => {
                        connection.pause = Pause::Memory;
                        return;
                    }
                },
            }
        };
        let key = self.ops.insert(KIND_RECV, Op::Recv(slot));
        connection.receiving = Some(key);
        let (socket, block) = (connection.socket, connection.inbox.lend());
        out.submissions.push(Submission::Recv { key, socket, block, offset, length });
    }

    /// Gives an ingest block that the connection can do without back to the pool.
    fn shrink_inbox(&mut self, slot: u32) {
        if let Some(block) = self.connection(slot).inbox.shrink() {
            self.ingest.give(block);
        }
    }

    /// Gives the ingest block of a connection back from which nothing is read any more: until its peer has taken the last
    /// answer it may be there for long.
    pub(super) fn give_up_inbox(&mut self, slot: u32) {
        let Some(connection) = &mut self.connections[slot as usize] else { return };
        if !connection.is_served()
            && let Some(block) = connection.inbox.give_up()
        {
            self.ingest.give(block);
        }
    }

    /// Ends connections that hold an ingest block which others wait for, and whose peer has not sent more of its request
    /// for long. How long that is, `limits.stalled_ms` for one, is shared by those who wait: with a thousand peers that stop
    /// in the middle of a request, who comes after them waits for seconds and not for hours.
    fn reclaim_stalled_blocks(&mut self, now: Now, out: &mut Output) {
        self.reclaim_at_us = None;
        if !self.ingest.has_waiting() {
            return;
        }
        let all_us = if self.bounds.stalled_us > 0 { self.bounds.stalled_us } else { STALLED_US };
        for slot in 0..self.connections.len() as u32 {
            let Some(connection) = &self.connections[slot as usize] else { continue };
            let inbox = &connection.inbox;
            let waiting = self.ingest.waiting_for(inbox.block_bytes());
            let holds = inbox.has_large() && inbox.is_partial() && connection.receiving.is_some();
            if !holds || waiting == 0 || !connection.is_served() {
                continue;
            }
            let patience_us = (all_us / (1 + waiting as u64)).max(LEAST_PATIENCE_US);
            let until_us = connection.progress_us() + patience_us;
            if until_us > now.mono_us {
                self.reclaim_at_us = Some(self.reclaim_at_us.map_or(until_us, |at_us| at_us.min(until_us)));
                continue;
            }
            self.counters.timed_out += 1;
            self.close(now, slot, out);
        }
    }

    /// Asks connections that hold an ingest block and wait for a first byte, or from which nothing is read any more, to hand it
    /// over: their receive is cancelled, nothing is lost by that.
    fn reclaim_idle_blocks(&mut self, out: &mut Output) {
        for connection in self.connections.iter_mut().flatten() {
            let unused = !connection.inbox.is_partial() || !connection.is_served();
            let unused = unused && connection.inbox.has_large();
            let Some(target) = connection.receiving.filter(|_| unused && !connection.recv_cancelled) else {
                continue;
            };
            connection.recv_cancelled = true;
            let key = self.ops.insert(KIND_CANCEL, Op::Aside);
            out.submissions.push(Submission::Cancel { key, target });
        }
    }
}
