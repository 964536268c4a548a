//! Requests for logs of other cores, and of other cores for the logs here.
//!
//! **Invariants:** a connection's block is on one visit at a time, so what a core has of others is bounded by their
//! connections; the connection is not closed before the block is back; frames of one connection are taken in the order
//! they came.

use std::mem;

use corelog_model::time::Now;
use corelog_model::{BlockId, LogId, Slice};
use corelog_shard::{ConnId, Taken};
use corelog_wire::{Split, decode_request, split};

use super::connection::{Connection, Pause};
use super::inbox::Inbox;
use super::logs::Served;
use super::parcel::{Parcel, Visit, Visitor};
use super::reply::goes_on;
use super::{Core, Output};
use crate::status::Machine;
use crate::translate;

/// How long until other cores are asked again for the same block, in microseconds.
const EVICT_AGAIN_US: u64 = 10_000;

/// Who asked for room and got none, here or from another core, in the order in which that came up: whoever comes first in it
/// is served before all of the other kind, so neither kind keeps the other from its room.
#[derive(Debug, Default)]
pub(super) struct Line(u64);

impl Line {
    /// The place behind all others.
    pub(super) const fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// The frames of a connection that go to another core together.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) core: Option<usize>,
    pub(super) frames: Vec<Visitor>,
}

impl Core {
    /// Takes what another core sent.
    pub fn on_parcel(
        &mut self,
        now: Now,
        from: usize,
        parcel: Parcel,
        machine: &mut dyn FnMut() -> Machine,
        out: &mut Output,
    ) {
        match parcel {
            Parcel::Letter { from, to, mail } => {
                self.logs.deliver(now, from, to, mail).expect("a letter goes to the core of its log");
            }
            Parcel::Region(_) => unreachable!("the shell's"),
            Parcel::Known { conn, principal } => self.logs.connected(now, conn, principal),
            Parcel::Gone(conn) => self.forget_guest(now, from, conn),
            Parcel::Hurry(conn) => self.logs.hurry(now, conn),
            Parcel::Drained(conn) => self.logs.drained(now, conn),
            Parcel::Unsubscribe { conn, log, handle } => {
                assert!(self.logs.unsubscribe(now, log, conn, handle), "it goes to the core of the log");
            }
            Parcel::Visit(visit) => self.guests.push((from, visit)),
            Parcel::Back(visit) => self.on_back(*visit, out),
            Parcel::Reply { conn, correlation, response, slices } => {
                if !goes_on(&response) {
                    self.answered_abroad(conn);
                }
                self.reply(now, conn, correlation, &response, &slices, machine);
            }
            Parcel::StatusWanted { question } => {
                let status = Box::new(self.own_status(machine));
                self.logs.parcels.push((from, Parcel::Status { question, status }));
            }
            Parcel::Status { question, status } => self.on_status(question, &status),
            Parcel::Released(block) => self.logs.release(now, block),
            Parcel::Evict(block) => self.evict(now, block, out),
            Parcel::Aside { conn, slices } => self.copy_aside(now, from, conn, slices),
            Parcel::Copied { conn, slices, bytes } => self.on_copied(conn, &slices, &bytes),
        }
    }

    fn answered_abroad(&mut self, conn: ConnId) {
        let slot = self.slot_of(conn).expect("a connection of this core");
        let connection = self.connections[slot as usize].as_mut();
        if let Some(connection) = connection.filter(|connection| connection.id == conn) {
            connection.abroad -= 1;
        }
    }

    /// All cores but this one.
    pub(super) fn other_cores(&self) -> impl Iterator<Item = usize> + use<> {
        let me = self.me;
        (0..self.places.len()).filter(move |&core| core != me)
    }

    /// The core that serves a log.
    pub(super) fn core_of(&self, log: LogId) -> usize {
        self.homes[usize::from(log.0)]
    }

    /// Sends the connection's block to the core that its next frames are for.
    pub(super) fn send_visit(&mut self, slot: u32, inbox: &mut Inbox, run: Run) {
        let core = run.core.expect("a run goes somewhere");
        let connection = self.connections[slot as usize].as_mut().expect("the slot is in use");
        let (conn, principal, limit) = (connection.id, connection.principal, connection.frame_limit);
        connection.pause = Pause::Away;
        connection.is_away = true;
        if !connection.known_to.contains(&core) {
            connection.known_to.push(core);
            self.logs.parcels.push((core, Parcel::Known { conn, principal }));
        }
        connection.abroad += run.frames.len();
        let visit = Visit { conn, limit, block: inbox.lend(), frames: run.frames, taken: 0, in_line: None };
        self.logs.parcels.push((core, Parcel::Visit(Box::new(visit))));
    }

    /// A connection's block is back.
    fn on_back(&mut self, visit: Visit, out: &mut Output) {
        let slot = self.slot_of(visit.conn).expect("a block goes back where it came from");
        let connection =
            self.connections[slot as usize].as_mut().expect("it is kept until its block is back");
        assert_eq!(connection.id, visit.conn, "it is kept until its block is back");
        connection.inbox.returned(visit.block, 0);
        connection.is_away = false;
        connection.frames = visit.frames;
        connection.frames.clear();
        self.unpause(slot, Pause::Away);
        if self.stopping {
            // What it asked there may have begun to wait since the others were told not to.
            self.hurry_abroad(slot);
        }
        self.give_up_inbox(slot);
        self.finish_closing(slot, out);
    }

    /// Offers the frames of other cores' connections to the shards here.
    pub(super) fn serve_guests(&mut self, now: Now) {
        let mut guests = mem::take(&mut self.guests);
        for (_, visit) in &mut guests {
            self.serve_guest(now, visit);
        }
        for (core, visit) in guests.extract_if(.., |(_, visit)| visit.taken == visit.frames.len()) {
            self.logs.parcels.push((core, Parcel::Back(visit)));
        }
        // The list keeps its memory.
        self.guests = guests;
    }

    fn serve_guest(&mut self, now: Now, visit: &mut Visit) {
        while let Some(visitor) = visit.frames.get(visit.taken) {
            let bytes = &visit.block.bytes()[visitor.start as usize..visitor.end as usize];
            let Ok(Split::Frame(frame)) = split(bytes, bytes.len()) else {
                unreachable!("the core it came from has split it");
            };
            let request = decode_request(&frame.header, frame.body).ok();
            let request = request.as_ref().and_then(translate::request);
            let request = request.expect("the core it came from has decoded it");
            let place = self.logs.place_of(visitor.log).expect("it was sent to the core of its log");
            let Served { shard, actions, .. } = self.logs.at(place);
            let request = translate::bounded(request, visit.limit);
            match shard.request(now, visit.conn, visitor.correlation, &request, actions) {
                Taken::Done => {
                    visit.taken += 1;
                    visit.in_line = None;
                }
                Taken::Blocked => {
                    visit.in_line.get_or_insert_with(|| self.line.next());
                    return;
                }
            }
        }
    }

    /// Whether somebody from another core has waited for room for longer than anybody of this one.
    pub(super) fn are_guests_first(&self) -> bool {
        let Some(guest) = self.guests.iter().filter_map(|(_, visit)| visit.in_line).min() else {
            return false;
        };
        let own = |&slot: &u32| self.connections[slot as usize].as_ref()?.in_line;
        self.ready.iter().filter_map(own).min().is_none_or(|own| guest < own)
    }

    /// A connection of another core is gone: its block goes home, whatever is in it.
    fn forget_guest(&mut self, now: Now, from: usize, conn: ConnId) {
        self.logs.disconnected(now, conn);
        for (core, visit) in self.guests.extract_if(.., |(_, visit)| visit.conn == conn) {
            assert_eq!(core, from, "a connection has one core");
            self.logs.parcels.push((core, Parcel::Back(visit)));
        }
    }

    /// Other cores may be sending from this block. A log asks each turn as long as it waits; they are asked now and then.
    pub(super) fn evict_abroad(&mut self, now: Now, place: usize, block: BlockId) {
        let evicted = &mut self.logs.at(place).evicted;
        if evicted.iter().any(|&(asked, _)| asked == block) {
            return;
        }
        evicted.push((block, now.mono_us + EVICT_AGAIN_US));
        for core in self.other_cores() {
            self.logs.parcels.push((core, Parcel::Evict(block)));
        }
    }

    /// A connection of another core reads slowly, and memory of this one is wanted back: what is left of it there is copied
    /// here, as much as the other core keeps aside for that connection.
    fn copy_aside(&mut self, now: Now, from: usize, conn: ConnId, slices: Vec<Slice>) {
        let mut bytes = Vec::with_capacity(slices.iter().map(|slice| slice.length as usize).sum());
        for &slice in &slices {
            bytes.extend_from_slice(self.logs.bytes(slice));
            self.logs.release(now, slice.block);
        }
        self.logs.parcels.push((from, Parcel::Copied { conn, slices, bytes }));
    }

    /// What a connection of this core had queued of another one's memory has come; the connection may be gone by now.
    fn on_copied(&mut self, conn: ConnId, slices: &[Slice], bytes: &[u8]) {
        let slot = self.slot_of(conn).expect("a connection of this core");
        let Some(connection) = &mut self.connections[slot as usize] else { return };
        if connection.id == conn {
            connection.outbox.come(slices, bytes);
            self.recount(slot);
            self.mark_flush(slot);
        }
    }

    /// Whether requests of connections of this core are not answered by others, or theirs not taken here.
    pub(super) fn is_busy_abroad(&self) -> bool {
        let waits = |connection: &Connection| connection.is_away || connection.abroad > 0;
        !self.guests.is_empty() || self.connections.iter().flatten().any(waits)
    }

    /// A handle of the connection in `slot` does not lead to this log any more.
    pub(super) fn leave(&mut self, now: Now, slot: u32, log: LogId, handle: u32) {
        let conn = self.connection(slot).id;
        if !self.logs.unsubscribe(now, log, conn, handle) {
            self.logs.parcels.push((self.core_of(log), Parcel::Unsubscribe { conn, log, handle }));
        }
    }

    /// Fetches of the connection in `slot` that wait at other cores wait no longer.
    pub(super) fn hurry_abroad(&mut self, slot: u32) {
        let Some(connection) = &self.connections[slot as usize] else { return };
        let hurry = |&core: &usize| (core, Parcel::Hurry(connection.id));
        self.logs.parcels.extend(connection.known_to.iter().map(hurry));
    }
}
