//! A pack that is whole takes the place of its sources: in the index, in the list of extents, for every reader.

use corelog_model::time::Now;

use super::{Stage, pack_sequence};
use crate::extent::{Fate, Live};
use crate::index::rows_of;
use crate::log::Log;

impl Log {
    /// From here on the pack is read. The sources stay on the disk until a checkpoint without them is durable.
    pub(super) fn switch(&mut self, now: Now) {
        let (first, last) = self.settle.generations();
        let loading = self.footers.loading.as_ref();
        if loading.is_some_and(|loading| (first..=last).contains(&loading.generation)) {
            return;
        }
        if self.commit.read_only || !self.are_sources_unchanged() {
            return self.give_up(now);
        }
        let pack = self.pack(last);
        self.extents.supersede(first, pack);
        self.cold.void(first..=last);
        self.scrub.supersede(first..=last);
        for source in &self.settle.sources {
            self.footers.forget(source.generation);
        }
        self.switch_rows(first, last);
        let settle = &mut self.settle;
        let runs = std::mem::take(&mut settle.runs);
        self.footers.keep(last, runs);
        (settle.made, settle.failures) = (false, 0);
        settle.pieces.clear();
        settle.sources.clear();
        // The checkpoint that leaves the sources out is for the next turn.
        (settle.stage, settle.again) = (Stage::Idle, true);
        self.counters.packs_made += 1;
    }

    /// Retention may have taken some of them meanwhile.
    pub(super) fn are_sources_unchanged(&self) -> bool {
        let (first, last) = self.settle.generations();
        let there = self.extents.live.iter().filter(|live| (first..=last).contains(&live.generation));
        let there: Vec<(u64, Fate)> = there.map(|live| (live.generation, live.fate)).collect();
        let wanted = self.settle.sources.iter().map(|source| (source.generation, Fate::Stays));
        there.into_iter().eq(wanted)
    }

    fn pack(&self, generation: u64) -> Live {
        let settle = &self.settle;
        let mut live = Live::begun(settle.pack, generation, pack_sequence(settle.pack), 0);
        live.pack = true;
        live.last_sequence = live.first_sequence + u64::from(settle.frame) - 1;
        live.end = settle.end;
        live.worthy = true;
        let (first, last) = settle.generations();
        let sources = self.extents.live.iter().filter(|live| (first..=last).contains(&live.generation));
        live.newest_us = sources.map(|live| live.newest_us).max().unwrap_or(0);
        live.indexed = true;
        live.footers.clone_from(&settle.footers);
        live
    }

    /// Gives every group with records in the pack one row for all that it had in the sources.
    fn switch_rows(&mut self, first: u64, last: u64) {
        let live = self.extents.by_generation_mut(last).expect("it has just been put there");
        let mut rows = rows_of(&self.settle.runs.sorted, last).peekable();
        for slot in self.groups.slots() {
            let row = rows.next_if(|(of, _)| *of == slot).map(|(_, row)| row);
            // What was trimmed meanwhile has no row any more.
            let row = row.filter(|row| self.groups.at(slot).keeps(row.last_offset));
            if self.groups.replace_rows(slot, first..=last, row) {
                row.iter().for_each(|row| live.add_row(row));
            }
        }
    }
}
