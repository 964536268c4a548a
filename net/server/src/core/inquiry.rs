//! Status of the whole broker, asked at one core: every core says what it counts, the one that was asked adds it up.
//!
//! Bounded by the requests that connections have unanswered.

use corelog_model::LogId;
use corelog_shard::ConnId;
use corelog_wire::{Response, Status};

use super::connection::Pause;
use super::{Core, Parcel};
use crate::status::{Machine, wire_status};
use crate::translate;

/// A Status that is being gathered.
#[derive(Debug)]
pub(super) struct Inquiry {
    question: u64,
    conn: ConnId,
    correlation: u64,
    /// What the cores said so far, and how many have not.
    sum: Status,
    left: usize,
}

impl Core {
    /// Somebody asked this core for Status.
    pub(super) fn inquire(&mut self, conn: ConnId, correlation: u64, machine: &mut dyn FnMut() -> Machine) {
        let (question, left, sum) = (self.questions, self.places.len() - 1, self.own_status(machine));
        self.questions += 1;
        if left == 0 {
            return self.answer_inquiry(conn, correlation, Box::new(sum));
        }
        for core in self.other_cores() {
            self.logs.parcels.push((core, Parcel::StatusWanted { question }));
        }
        self.inquiries.push(Inquiry { question, conn, correlation, sum, left });
    }

    /// What this core counts, and what it knows of the process.
    pub(super) fn own_status(&self, machine: &mut dyn FnMut() -> Machine) -> Status {
        let mut shards = self.logs.status();
        shards.term = self.logs.term(LogId(0));
        wire_status(&shards, self.homes.len(), &self.counters(), &machine())
    }

    /// Another core has said what it counts.
    pub(super) fn on_status(&mut self, question: u64, status: &Status) {
        let at = self.inquiries.iter().position(|inquiry| inquiry.question == question);
        let at = at.expect("an answer to a question of this core");
        let inquiry = &mut self.inquiries[at];
        inquiry.sum.merge(status);
        inquiry.left -= 1;
        if inquiry.left == 0 {
            let Inquiry { conn, correlation, sum, .. } = self.inquiries.swap_remove(at);
            self.answer_inquiry(conn, correlation, Box::new(sum));
        }
    }

    fn answer_inquiry(&mut self, conn: ConnId, correlation: u64, status: Box<Status>) {
        let slot = self.slot_of(conn).expect("a connection of this core");
        let connection = self.connections[slot as usize].as_mut();
        let open = connection.filter(|connection| connection.id == conn && connection.is_answered());
        let Some(connection) = open else { return };
        let to = connection.pending.remove(correlation);
        let response = Response::Status(status);
        self.push_reply(slot, |out| translate::append(&response, to, 0, out));
        self.mark_flush(slot);
        self.unpause(slot, Pause::Replies);
    }
}
