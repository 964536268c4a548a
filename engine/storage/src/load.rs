//! Loading the index of a closed extent: from its footer, and where that does not verify, from its frames.
//!
//! **Invariants:** one index is loaded at a time; whoever waits for it hears of its end, also when the extent is
//! gone. An index derived from frames is written down again, as that of an extent just closed; so a frame that the
//! disk did not give ends the attempt: it is not known to be lost.

use corelog_model::limits::{FRAME_ALIGN, round_up};

use crate::cold::{Job, tell};
use crate::derive::Derivation;
use crate::footer::{Loading, Source};
use crate::frame::{ENTRY_HEADER_BYTES, EntryHeader};
use crate::groups::GroupSlot;
use crate::index::Runs;
use crate::log::Log;
use crate::op::{DiskOp, FileName};
use crate::read::{READ_BYTES, Read};

/// What loading needs next.
enum Piece {
    /// Part of the footer: where it lies, in bytes.
    Footer { file: FileName, position: u64, length: u32 },
    /// Frames of the extent itself.
    Frames { file: FileName },
    /// The footer is out of reach.
    NoFooter,
    /// The extent is recycled.
    Gone,
}

impl Log {
    /// Asks for the index of a closed extent on behalf of a reader of the group.
    pub(crate) fn load_index(
        &mut self,
        slot: GroupSlot,
        generation: u64,
        token: u64,
        out: &mut Vec<DiskOp>,
    ) -> Read {
        if self.extents.by_generation(generation).is_none() {
            return Read::BelowStart { log_start: self.groups.at(slot).log_start };
        }
        match &mut self.footers.loading {
            Some(loading) if loading.generation == generation => loading.tokens.push(token),
            // Two indexes at a time would drive each other out.
            Some(_) => return Read::Busy,
            None => self.begin_loading(generation, Some(token), out),
        }
        Read::Pending
    }

    /// Begins to load an index; no other one is being loaded.
    pub(crate) fn begin_loading(&mut self, generation: u64, token: Option<u64>, out: &mut Vec<DiskOp>) {
        assert!(self.footers.loading.is_none(), "one index at a time");
        let (source, runs) = (Source::Footer { part: 0 }, Runs::default());
        let tokens = token.into_iter().collect();
        self.footers.loading = Some(Loading { generation, source, runs, tokens });
        self.go_on_loading(out);
    }

    /// Issues the next read of the index that is being loaded, if none is under way; part of every cut.
    pub(crate) fn go_on_loading(&mut self, out: &mut Vec<DiskOp>) {
        let Some(loading) = &self.footers.loading else { return };
        let generation = loading.generation;
        if self.cold.is_loading() {
            return;
        }
        match self.next_piece(loading) {
            Piece::Footer { file, position, length } => {
                let Some(at) = self.cold.free(length) else { return };
                if self.cold.block_bytes(at) < length {
                    return self.derive(generation);
                }
                self.issue_read(at, Job::Index { generation }, file, position, length, out);
            }
            Piece::Frames { file } => {
                let Some(at) = self.cold.free(READ_BYTES) else { return };
                let bytes = self.cold.block_bytes(at) & !(FRAME_ALIGN as u32 - 1);
                let Some(Loading { source: Source::Frames(derivation), .. }) = &self.footers.loading else {
                    return;
                };
                match derivation.wanted(bytes) {
                    Some((position, length)) => {
                        self.issue_read(at, Job::Index { generation }, file, position, length, out);
                    }
                    None => self.derived(),
                }
            }
            Piece::NoFooter => self.derive(generation),
            Piece::Gone => self.end_loading(false),
        }
    }

    fn next_piece(&self, loading: &Loading) -> Piece {
        let Some(live) = self.extents.by_generation(loading.generation) else { return Piece::Gone };
        let part = match &loading.source {
            Source::Footer { part } => *part,
            Source::Frames(_) => return Piece::Frames { file: live.file() },
        };
        let Some(footer) = live.footers.get(part as usize) else { return Piece::NoFooter };
        let Some(holder) = self.extents.by_generation(footer.generation) else { return Piece::NoFooter };
        let position = u64::from(footer.position) & !(FRAME_ALIGN as u64 - 1);
        let end = u64::from(footer.position) + (ENTRY_HEADER_BYTES + footer.length as usize) as u64;
        let length = round_up((end - position) as usize, FRAME_ALIGN) as u32;
        Piece::Footer { file: holder.file(), position, length }
    }

    /// Takes what was read of an index; `None`: the disk did not answer.
    pub(crate) fn on_index(&mut self, at: usize, generation: u64, found: Option<u32>) {
        let Some(mut loading) = self.footers.loading.take_if(|loading| loading.generation == generation)
        else {
            return;
        };
        let cold = &self.cold.blocks[at];
        let length = found.unwrap_or(0) as usize;
        let bytes = cold.block.as_ref().map_or(&[][..], |block| &block.bytes()[..length]);
        match &mut loading.source {
            Source::Frames(_) if found.is_none() => {
                self.footers.loading = Some(loading);
                return self.end_loading(true);
            }
            Source::Frames(derivation) => derivation.take(bytes, cold.length, self.seed, &self.groups),
            Source::Footer { part } => {
                let part = *part;
                let Some(live) = self.extents.by_generation(generation) else {
                    // Recycled meanwhile: the next cut says so to whoever waits.
                    self.footers.loading = Some(loading);
                    return;
                };
                let parts = live.footers.len();
                let footer = live.footers.get(part as usize).copied().unwrap_or_default();
                let from = u64::from(footer.position).checked_sub(cold.position);
                let entry = from.and_then(|from| bytes.get(from as usize..)).unwrap_or(&[]);
                let decoded = EntryHeader::decode(entry, self.seed.entries(footer.sequence));
                let whole = decoded.and_then(|(header, _)| {
                    let payload = &entry[ENTRY_HEADER_BYTES..][..header.length as usize];
                    loading.runs.decode_part(payload, generation, part, &mut self.groups)
                });
                if whole.is_none() {
                    self.footers.loading = Some(loading);
                    return self.derive(generation);
                }
                if part as usize + 1 < parts {
                    loading.source = Source::Footer { part: part + 1 };
                } else {
                    loading.runs.sort();
                    self.footers.keep(generation, std::mem::take(&mut loading.runs));
                    self.footers.loading = Some(loading);
                    return self.end_loading(false);
                }
            }
        }
        self.footers.loading = Some(loading);
    }

    /// The footer cannot be had: the frames tell the same. Goes on at the next cut.
    fn derive(&mut self, generation: u64) {
        if let (Some(loading), Some(live)) =
            (&mut self.footers.loading, self.extents.by_generation(generation))
        {
            loading.source = Source::Frames(Derivation::new(live));
        }
    }

    /// All frames were read: level 1 knows which offsets they should have held.
    fn derived(&mut self) {
        let Some(loading) = &mut self.footers.loading else { return };
        let generation = loading.generation;
        let Source::Frames(derivation) = std::mem::replace(&mut loading.source, Source::Footer { part: 0 })
        else {
            return;
        };
        let runs = derivation.finish();
        for slot in self.groups.slots() {
            let Some(row) = self.groups.at(slot).row_of(generation) else { continue };
            let (mut next, end) = (row.first_offset, row.last_offset + 1);
            for run in runs.of_group(slot) {
                if run.first_offset > next {
                    self.damage.name(slot, next, run.first_offset - 1);
                }
                next = next.max(run.last_offset + 1);
            }
            if next < end {
                self.damage.name(slot, next, end - 1);
            }
        }
        self.counters.derived_indexes += 1;
        // The index of a pack is part of it and is not written again: it is kept while there is room.
        if self.extents.by_generation(generation).is_some_and(|live| live.pack) {
            self.footers.keep(generation, runs);
        } else {
            self.footers.closed(generation, runs);
        }
        self.end_loading(false);
    }

    /// Whoever waited may ask again, or hears that the disk did not answer.
    fn end_loading(&mut self, failed: bool) {
        if let Some(loading) = self.footers.loading.take() {
            self.footers.failed_us = failed.then_some(self.cold.now_us());
            tell(&mut self.cold.finished, loading.tokens, failed);
        }
    }
}
