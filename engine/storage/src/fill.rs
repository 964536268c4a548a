//! What a read from the disk brought: verified, and kept for whoever asks next; or named as damaged.
//!
//! **Invariants:** a read that fails names nothing by itself. It is made once more in pieces (`salvage.rs`), and only
//! what no piece brings is missing. One damaged batch hides no other: what is sound around it is found and served.

use corelog_model::Slice;

use crate::cold::{ColdBatch, Filled, Job};
use crate::damage::Damages;
use crate::footer::Source;
use crate::frame::ENTRY_HEADER_BYTES;
use crate::groups::GroupSlot;
use crate::index::Run;
use crate::log::Log;
use crate::op::{DiskCompletion, DiskOp, Purpose};
use crate::salvage::{Salvage, Salvaged};
use crate::sound::{Sound, sound_entries};

/// What a run holds, in the order of its offsets.
enum Held {
    /// A batch that verifies: of its payload, where in the bytes and how long.
    Batch { start: u32, length: u32, first: u64, last: u64 },
    /// Offsets that nothing sound holds.
    Lost { first: u64, last: u64 },
}

impl Held {
    fn unless_named(self, damage: &Damages, slot: GroupSlot) -> Self {
        match self {
            Self::Batch { first, last, .. }
                if damage.at(slot, first).is_some() || damage.passed(slot, first).is_some() =>
            {
                Self::Lost { first, last }
            }
            held => held,
        }
    }
}

impl Log {
    pub(crate) fn on_cold_read(&mut self, at: u32, completion: DiskCompletion) {
        let (at, result) = (at as usize, completion.result);
        let Some(job) = self.cold.give_back(at, completion.block) else { return };
        if job == Job::Void {
            // What it was read from is superseded: whoever waited asks again.
            self.cold.blocks[at].salvage = None;
            return self.cold.finish(at, false);
        }
        let (now_us, footer) = (self.cold.now_us(), self.reads_footer(job));
        let cold = &mut self.cold.blocks[at];
        let found = match cold.salvage.take() {
            // Reads stay within extents, whose length the start has checked: one that is short has failed behind what came.
            None if result.is_ok_and(|found| found >= cold.length) => Some(cold.length),
            // What a footer says the frames say, too.
            None if footer => None,
            None => {
                let again = Salvage::new(cold.file, cold.position, cold.length);
                (cold.salvage, cold.job) = (Some(again), Some(job));
                return;
            }
            Some(mut salvage) => {
                let block = cold.block.as_mut();
                match block.map_or(Salvaged::Refused, |block| salvage.take(result, block, now_us)) {
                    Salvaged::More => {
                        (cold.salvage, cold.job) = (Some(salvage), Some(job));
                        return;
                    }
                    Salvaged::Refused => None,
                    Salvaged::Done { lost } => {
                        self.counters.lost_sectors += u64::from(lost);
                        Some(cold.length)
                    }
                }
            }
        };
        match (job, found) {
            (Job::Batches { slot, offset, generation, .. }, Some(found)) => {
                self.on_batches(at, slot, offset, generation, found);
                self.cold.finish(at, false);
            }
            (Job::Batches { .. }, None) => self.cold.finish(at, true),
            (Job::Index { generation }, found) => self.on_index(at, generation, found),
            (Job::Void, _) => {}
        }
    }

    fn reads_footer(&self, job: Job) -> bool {
        let loading = self.footers.loading.as_ref();
        matches!(job, Job::Index { .. })
            && loading.is_some_and(|loading| matches!(loading.source, Source::Footer { .. }))
    }

    /// Issues the next pieces of failed reads; part of every cut.
    pub(crate) fn go_on_salvaging(&mut self, out: &mut Vec<DiskOp>) {
        while let Some((at, wanted, into)) = self.cold.lend_piece() {
            self.counters.cold_reads += 1;
            self.counters.cold_bytes += u64::from(wanted.length);
            let id = Purpose::ColdRead { slot: at as u32 }.id();
            out.push(DiskOp::Read {
                id,
                file: wanted.file,
                position: wanted.position,
                length: wanted.length,
                into,
            });
        }
    }

    /// Verifies what came from the disk and keeps it for whoever asks next: consecutive batches, the one that holds
    /// `offset` among them if it is sound. Names all that is not, wherever it lies in the runs.
    fn on_batches(&mut self, at: usize, slot: GroupSlot, offset: u64, generation: u64, found: u32) {
        let Some(live) = self.extents.by_generation(generation) else { return };
        let (first_sequence, group) = (live.first_sequence, self.groups.at(slot).id);
        let cold = &mut self.cold.blocks[at];
        let Some((id, bytes)) =
            cold.block.as_ref().map(|block| (block.id(), &block.bytes()[..found as usize]))
        else {
            return;
        };
        let (mut next, mut ended) = (cold.runs.first().map_or(offset, |run| run.first_offset), false);
        let (damage, batches) = (&mut self.damage, &mut cold.batches);
        let (mut first_kept, mut end_kept) = (None, 0);
        // What is named or accepted stays so, also where the disk has found it again: readers were told to pass it over.
        let mut take = |held: Held| match held.unless_named(damage, slot) {
            Held::Lost { first, last } => {
                damage.name(slot, first, last);
                // What was kept is before it; it goes on behind it only for who asks there.
                ended |= last >= offset;
                if !ended {
                    batches.clear();
                    first_kept = None;
                }
            }
            Held::Batch { start, length, first, last } if !ended => {
                batches
                    .push(ColdBatch { slice: Slice { block: id, offset: start, length }, last_offset: last });
                first_kept.get_or_insert(first);
                end_kept = last + 1;
            }
            Held::Batch { .. } => {}
        };
        for run in &cold.runs {
            if run.first_offset > next {
                take(Held::Lost { first: next, last: run.first_offset - 1 });
            }
            let seed = self.seed.entries(first_sequence + u64::from(run.frame));
            held_by(run, bytes, cold.position, |of| of == group, seed, &mut take);
            next = run.last_offset + 1;
        }
        cold.filled = first_kept.map(|first| Filled { slot, first, next: end_kept });
    }
}

/// Goes through the batches of a run, whose extent's bytes from `position` on are `bytes`.
fn held_by(
    run: &Run,
    bytes: &[u8],
    position: u64,
    is_group: impl Fn(corelog_model::GroupId) -> bool,
    entry_seed: u32,
    each: &mut impl FnMut(Held),
) {
    let at = |place: u32| (u64::from(place) - position) as usize;
    let mut next = run.first_offset;
    sound_entries(bytes, at(run.start), at(run.end), entry_seed, |sound| {
        let Sound::Batch { entry, batch, position, whole } = sound else { return };
        let (first, last) = (batch.base_offset, batch.last_offset());
        if !is_group(entry.group) || first < next || last > run.last_offset {
            return;
        }
        if first > next {
            each(Held::Lost { first: next, last: first - 1 });
        }
        next = last + 1;
        each(match whole {
            true => {
                let start = (position + ENTRY_HEADER_BYTES) as u32;
                Held::Batch { start, length: entry.length, first, last }
            }
            false => Held::Lost { first, last },
        });
    });
    if next <= run.last_offset {
        each(Held::Lost { first: next, last: run.last_offset });
    }
}
