//! The indexes of closed extents: those still to be written into the log, and the few kept in memory.
//!
//! The footer of an extent lies in later extents, which recycling takes later: so an index is never longer on
//! the disk than what it points at needs it, and no room has to be kept free at the end of an extent.
//!
//! **Invariant:** the runs of a closed extent are in `pending` until every part of its footer is durable.

use std::collections::VecDeque;

use crate::append::Place;
use crate::derive::Derivation;
use crate::extent::{Extents, FooterAt};
use crate::groups::Groups;
use crate::index::{Run, Runs, runs_in};

/// Indexes of closed extents kept in memory beside the pending ones.
const CACHED: usize = 8;
/// One with more runs is not kept when it is closed; one that a reader asks for always is.
const CACHED_RUNS: usize = 32 << 10;
/// Buffers for the runs of whole extents beside the open one's: one is written down while the next one fills.
const BUFFERS: usize = 2;
/// Extents whose index is written down at once without an allocation, and parts of each.
const PENDING: usize = 4;
const PENDING_PARTS: usize = 32;
/// Payload of one footer part at most.
const PART_BYTES: usize = 256 << 10;

struct Part {
    sequence: u64,
    /// Of the entry header in its frame.
    offset: u32,
    length: u32,
    at: Option<FooterAt>,
}

/// An index that is being loaded.
pub(crate) struct Loading {
    pub(crate) generation: u64,
    pub(crate) source: Source,
    /// Of the footer parts read so far.
    pub(crate) runs: Runs,
    /// Of the reads that wait for it.
    pub(crate) tokens: Vec<u64>,
}

/// Where it comes from.
pub(crate) enum Source {
    /// The footer; this part is next.
    Footer { part: u32 },
    /// The extent's frames.
    Frames(Derivation),
}

struct Pending {
    generation: u64,
    runs: Runs,
    parts: Vec<Part>,
}

pub(crate) struct Footers {
    pending: VecDeque<Pending>,
    /// Oldest use first.
    cache: VecDeque<(u64, Runs)>,
    /// The index that is being loaded: `load.rs`.
    pub(crate) loading: Option<Loading>,
    /// When the last one failed to be loaded, if that was the last one, monotonic microseconds.
    pub(crate) failed_us: Option<u64>,
    part_bytes: usize,
    scratch: Vec<u8>,
    /// Memory that is used again: for all runs of an extent, for kept indexes, for the parts of pending ones.
    buffers: Vec<Vec<Run>>,
    unused: Vec<Vec<Run>>,
    part_lists: Vec<Vec<Part>>,
    most_runs: usize,
}

impl Footers {
    pub(crate) fn new(max_batch_bytes: u32, extent_bytes: u64) -> Self {
        let most_runs = runs_in(extent_bytes);
        Self {
            buffers: (0..BUFFERS).map(|_| Vec::with_capacity(most_runs)).collect(),
            unused: (0..CACHED).map(|_| Vec::with_capacity(CACHED_RUNS.min(most_runs))).collect(),
            part_lists: (0..PENDING).map(|_| Vec::with_capacity(PENDING_PARTS)).collect(),
            most_runs,
            pending: VecDeque::with_capacity(PENDING),
            cache: VecDeque::with_capacity(CACHED + 1),
            loading: None,
            failed_us: None,
            part_bytes: PART_BYTES.min(max_batch_bytes as usize),
            scratch: Vec::with_capacity(PART_BYTES.min(max_batch_bytes as usize)),
        }
    }

    pub(crate) const fn part_bytes(&self) -> usize {
        self.part_bytes
    }

    /// An extent was closed: its index has to be written down.
    pub(crate) fn closed(&mut self, generation: u64, runs: Runs) {
        let parts = self.part_lists.pop().unwrap_or_default();
        self.pending.push_back(Pending { generation, runs, parts });
    }

    /// Memory for the runs of an extent.
    pub(crate) fn buffer(&mut self) -> Vec<Run> {
        self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(self.most_runs))
    }

    /// A buffer is no longer needed.
    pub(crate) fn take_back(&mut self, buffer: Vec<Run>) {
        if buffer.capacity() >= self.most_runs && self.buffers.len() < BUFFERS {
            self.buffers.push(buffer);
        }
    }

    /// Recovery has met every part of a closed extent's footer.
    pub(crate) fn written(&mut self, generation: u64) {
        if let Some(at) = self.pending.iter().position(|pending| pending.generation == generation)
            && let Some(pending) = self.pending.remove(at)
        {
            self.keep_copy(generation, pending);
        }
    }

    /// The next part to append: its extent's generation and its number.
    pub(crate) fn next_part(&self) -> Option<(u64, usize)> {
        let part_bytes = self.part_bytes;
        let pending =
            self.pending.iter().find(|pending| pending.parts.len() < pending.runs.parts(part_bytes))?;
        Some((pending.generation, pending.parts.len()))
    }

    /// Encodes that part; the buffer comes back with [`Footers::appended`].
    pub(crate) fn encode(&mut self, part: usize, groups: &Groups) -> &mut Vec<u8> {
        let part_bytes = self.part_bytes;
        let pending =
            self.pending.iter().find(|pending| pending.parts.len() < pending.runs.parts(part_bytes));
        if let Some(pending) = pending {
            pending.runs.encode_part(pending.generation, part, part_bytes, groups, &mut self.scratch);
        }
        &mut self.scratch
    }

    pub(crate) fn appended(&mut self, scratch: Vec<u8>, sequence: u64, offset: u32, length: u32) {
        self.scratch = scratch;
        let part_bytes = self.part_bytes;
        let pending =
            self.pending.iter_mut().find(|pending| pending.parts.len() < pending.runs.parts(part_bytes));
        pending.expect("a part was encoded").parts.push(Part { sequence, offset, length, at: None });
    }

    /// A frame was given a place, perhaps not its first one.
    pub(crate) fn placed(&mut self, sequence: u64, place: Place) {
        let parts = self.pending.iter_mut().flat_map(|pending| &mut pending.parts);
        for part in parts.filter(|part| part.sequence == sequence) {
            part.at = Some(FooterAt {
                generation: place.generation,
                sequence,
                position: place.position as u32 + part.offset,
                length: part.length,
            });
        }
    }

    /// Frames up to `sequence` are durable: indexes that are whole in them need no longer be kept.
    pub(crate) fn durable(&mut self, sequence: u64, extents: &mut Extents) {
        let part_bytes = self.part_bytes;
        while let Some(pending) = self.pending.front() {
            let complete = pending.parts.len() == pending.runs.parts(part_bytes)
                && pending.parts.iter().all(|part| part.sequence <= sequence);
            if !complete {
                return;
            }
            let pending = self.pending.pop_front().expect("there is a front");
            if let Some(live) = extents.by_generation_mut(pending.generation) {
                live.footers.clear();
                live.footers.extend(pending.parts.iter().filter_map(|part| part.at));
                live.indexed = true;
                extents.changed = true;
                self.keep_copy(pending.generation, pending);
            }
        }
    }

    /// Writes an index that is in memory once more; its extent has a new one when that is durable. False when it has
    /// to be loaded first.
    pub(crate) fn move_index(&mut self, generation: u64) -> bool {
        let Some(at) = self.cache.iter().position(|(kept, _)| *kept == generation) else { return false };
        let (_, runs) = self.cache.remove(at).expect("it was just found");
        self.closed(generation, runs);
        true
    }

    /// Keeps an index in memory, at the cost of the one longest unused.
    pub(crate) fn keep(&mut self, generation: u64, runs: Runs) {
        self.forget(generation);
        if self.cache.len() == CACHED {
            let oldest = self.cache.pop_front();
            oldest.into_iter().for_each(|(_, runs)| self.keep_memory(runs));
        }
        self.cache.push_back((generation, runs));
    }

    /// Keeps what a written index said, and gives its buffers back.
    fn keep_copy(&mut self, generation: u64, pending: Pending) {
        let Pending { runs, mut parts, .. } = pending;
        if runs.sorted.len() <= CACHED_RUNS {
            if self.cache.len() == CACHED {
                let oldest = self.cache.pop_front();
                oldest.into_iter().for_each(|(_, runs)| self.keep_memory(runs));
            }
            let mut sorted = self.unused.pop().unwrap_or_default();
            sorted.clear();
            sorted.extend_from_slice(&runs.sorted);
            self.cache.push_back((generation, Runs { sorted, first_sequence: runs.first_sequence }));
        }
        self.take_back(runs.sorted);
        parts.clear();
        self.part_lists.push(parts);
    }

    fn keep_memory(&mut self, runs: Runs) {
        let most = CACHED_RUNS.min(self.most_runs);
        if self.unused.len() < CACHED && (most..=2 * most).contains(&runs.sorted.capacity()) {
            self.unused.push(runs.sorted);
        }
    }

    pub(crate) fn forget(&mut self, generation: u64) {
        while let Some(at) = self.cache.iter().position(|(kept, _)| *kept == generation)
            && let Some((_, runs)) = self.cache.remove(at)
        {
            self.keep_memory(runs);
        }
        while let Some(at) = self.pending.iter().position(|pending| pending.generation == generation)
            && let Some(Pending { runs, mut parts, .. }) = self.pending.remove(at)
        {
            self.take_back(runs.sorted);
            parts.clear();
            self.part_lists.push(parts);
        }
    }

    /// Bytes of runs in use, pending and kept.
    pub(crate) fn bytes(&self) -> u64 {
        let pending = self.pending.iter().map(|pending| pending.runs.sorted.len());
        let kept = self.cache.iter().map(|(_, runs)| runs.sorted.len());
        (pending.chain(kept).sum::<usize>() * size_of::<Run>()) as u64
    }

    /// Whether every closed extent's index is durable.
    pub(crate) fn settled(&self) -> bool {
        self.pending.is_empty()
    }

    pub(crate) fn get(&mut self, generation: u64) -> Option<&Runs> {
        if let Some(at) = self.pending.iter().position(|pending| pending.generation == generation) {
            return Some(&self.pending[at].runs);
        }
        let at = self.cache.iter().position(|(kept, _)| *kept == generation)?;
        let used = self.cache.remove(at).expect("it was just found");
        self.cache.push_back(used);
        self.cache.back().map(|(_, runs)| runs)
    }
}
