//! Level 2 of the index: the runs of one extent. A run is what one frame holds of one group.
//!
//! While an extent is open its runs are in log order and linked back per group (the jump links of `window.rs`);
//! when it is closed they are sorted by group and offset, kept in a small cache and written to the log as
//! footers, from where they are loaded again on demand.
//!
//! **Invariant:** derivable from the frames of the extent and never trusted over them: whoever reads by a run
//! verifies the entries it finds.

use crate::frame::field;
use crate::groups::{GroupSlot, Groups, Row};
use corelog_model::GroupId;

/// A run that is shorter is not worth a read of its own.
const SHORT_RUN_BYTES: u64 = 128 << 10;

/// No run.
pub(crate) const NO_RUN: u32 = u32::MAX;
/// Bytes of a run in a footer.
pub const RUN_BYTES: usize = 48;
/// Bytes before the runs of a footer part.
pub const FOOTER_HEADER_BYTES: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first_offset: u64,
    pub(crate) last_offset: u64,
    pub(crate) max_timestamp_us: u64,
    pub(crate) slot: GroupSlot,
    /// First byte of the first entry header, in the extent.
    pub(crate) start: u32,
    /// After the last entry's payload, in the extent.
    pub(crate) end: u32,
    /// Of the frame, less the sequence of the extent's first frame.
    pub(crate) frame: u32,
    /// Of the group's own entries in it; 0 in indexes that were written before this was counted.
    pub(crate) bytes: u32,
}

impl Run {
    /// Bytes of the group's own entries, at most.
    pub(crate) const fn own_bytes(&self) -> u32 {
        if self.bytes == 0 { self.end - self.start } else { self.bytes }
    }

    /// What follows in the same frame is of the same run.
    pub(crate) fn extend(&mut self, next: &Self) {
        self.last_offset = next.last_offset;
        self.max_timestamp_us = self.max_timestamp_us.max(next.max_timestamp_us);
        self.end = next.end;
        self.bytes += next.bytes;
    }
}

#[derive(Clone, Copy)]
struct Links {
    previous: u32,
    jump: u32,
    depth: u32,
}

/// The runs of the extent that is being written.
pub(crate) struct OpenRuns {
    runs: Vec<Run>,
    links: Vec<Links>,
    first_sequence: u64,
    /// Of the extent; `None` once it is closed.
    generation: Option<u64>,
}

/// No batch takes less of an extent, entry header and padding included: so many runs are enough for any extent.
const SMALLEST_ENTRY_BYTES: u64 = 192;

/// Runs that an extent of this size can have.
pub(crate) const fn runs_in(extent_bytes: u64) -> usize {
    (extent_bytes / SMALLEST_ENTRY_BYTES) as usize
}

impl OpenRuns {
    /// With room for all runs of an extent from the start. What is not used costs no memory: nobody touches it.
    pub(crate) fn new(extent_bytes: u64) -> Self {
        Self {
            runs: Vec::with_capacity(runs_in(extent_bytes)),
            links: Vec::with_capacity(runs_in(extent_bytes)),
            first_sequence: 0,
            generation: None,
        }
    }

    /// Starts a new extent; the one before it was closed, or never came to be.
    pub(crate) fn restart(&mut self, generation: u64, first_sequence: u64, groups: &mut Groups) {
        self.clear(groups);
        self.first_sequence = first_sequence;
        self.generation = Some(generation);
    }

    fn clear(&mut self, groups: &mut Groups) {
        for run in &self.runs {
            let group = groups.at_mut(run.slot);
            (group.newest_run, group.open_bytes) = (NO_RUN, 0);
        }
        self.runs.clear();
        self.links.clear();
        self.generation = None;
    }

    /// The extent never came to be: its first frame was not written.
    pub(crate) fn abandon(&mut self, groups: &mut Groups) {
        self.clear(groups);
    }

    pub(crate) const fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// Bytes of runs and links in use.
    pub(crate) const fn bytes(&self) -> u64 {
        (self.runs.len() * (size_of::<Run>() + size_of::<Links>())) as u64
    }

    /// Adds one batch of a frame; batches arrive in log order.
    pub(crate) fn add(&mut self, groups: &mut Groups, mut batch: Run, sequence: u64) {
        batch.frame = u32::try_from(sequence - self.first_sequence).expect("an extent has fewer frames");
        let group = groups.at_mut(batch.slot);
        group.open_bytes += u64::from(batch.end - batch.start);
        let newest = group.newest_run;
        if let Some(run) = self.runs.get_mut(newest as usize).filter(|run| run.frame == batch.frame) {
            run.extend(&batch);
            return;
        }
        let links = match self.links.get(newest as usize) {
            Some(links) => {
                Links { previous: newest, jump: self.jump_from(newest, *links), depth: links.depth + 1 }
            }
            None => Links { previous: NO_RUN, jump: NO_RUN, depth: 0 },
        };
        groups.at_mut(batch.slot).newest_run = self.runs.len() as u32;
        self.runs.push(batch);
        self.links.push(links);
    }

    fn jump_from(&self, newest: u32, links: Links) -> u32 {
        let Some(first) = self.links.get(links.jump as usize) else { return newest };
        let Some(second) = self.links.get(first.jump as usize) else { return newest };
        if links.depth - first.depth == first.depth - second.depth { first.jump } else { newest }
    }

    /// Forgets the runs of frames after `sequence`: they were not written.
    pub(crate) fn void_after(&mut self, sequence: u64, groups: &mut Groups) {
        while let Some(run) = self.runs.last() {
            if self.first_sequence + u64::from(run.frame) <= sequence {
                break;
            }
            let links = self.links.pop().expect("one per run");
            groups.at_mut(run.slot).newest_run = links.previous;
            self.runs.pop();
        }
    }

    /// The runs of a group that hold `offset` or lie behind it, oldest first, at most `limit`.
    pub(crate) fn runs_from(&self, newest: u32, offset: u64, limit: usize, out: &mut Vec<Run>) {
        let mut best = newest;
        let Some(run) = self.runs.get(best as usize) else { return };
        if run.last_offset < offset {
            return;
        }
        while let Some(run) = self.runs.get(best as usize) {
            if run.first_offset <= offset {
                break;
            }
            let links = self.links[best as usize];
            let reaches = |at: u32| self.runs.get(at as usize).is_some_and(|run| run.last_offset >= offset);
            best = if reaches(links.jump) {
                links.jump
            } else if reaches(links.previous) {
                links.previous
            } else {
                break;
            };
        }
        // Forward is in log order; runs of other groups are skipped.
        let (slot, from) = (self.runs[best as usize].slot, best as usize);
        out.extend(self.runs[from..].iter().filter(|run| run.slot == slot).take(limit));
    }

    /// The last offset of a group in the open extent, by its newest run.
    pub(crate) fn last_offset(&self, newest: u32) -> Option<u64> {
        self.runs.get(newest as usize).map(|run| run.last_offset)
    }

    /// How many of these runs of the open extent, in log order, lie in frames up to `sequence`.
    pub(crate) fn durable(&self, runs: &[Run], sequence: u64) -> usize {
        runs.partition_point(|run| self.first_sequence + u64::from(run.frame) <= sequence)
    }

    /// The runs of a group, oldest first.
    pub(crate) fn of_group(&self, slot: GroupSlot) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.slot == slot)
    }

    /// Ends the extent: one row per group for level 1, and the runs, sorted, as level 2. Goes on with `buffer`.
    pub(crate) fn close(&mut self, groups: &mut Groups, mut buffer: Vec<Run>) -> (u64, Runs) {
        let generation = self.generation.expect("an extent is closed once");
        for run in &self.runs {
            groups.at_mut(run.slot).newest_run = NO_RUN;
        }
        buffer.clear();
        let mut sorted = std::mem::replace(&mut self.runs, buffer);
        sorted.sort_unstable_by_key(|run| (run.slot, run.first_offset));
        for (slot, mut row) in rows_of(&sorted, generation) {
            let group = groups.at_mut(slot);
            row.bytes = std::mem::take(&mut group.open_bytes);
            if group.keeps(row.last_offset) {
                groups.add_row(slot, row);
            }
        }
        self.clear(groups);
        (generation, Runs { sorted, first_sequence: self.first_sequence })
    }
}

/// Level 1 from level 2.
pub(crate) fn rows_of(sorted: &[Run], generation: u64) -> impl Iterator<Item = (GroupSlot, Row)> + '_ {
    sorted.chunk_by(|a, b| a.slot == b.slot).map(move |runs| {
        let row = Row {
            generation,
            first_offset: runs[0].first_offset,
            last_offset: runs[runs.len() - 1].last_offset,
            max_timestamp_us: runs.iter().map(|run| run.max_timestamp_us).max().unwrap_or(0),
            bytes: runs.iter().map(|run| u64::from(run.bytes)).sum(),
        };
        (runs[0].slot, row)
    })
}

/// The runs of a closed extent, sorted by group and offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    pub(crate) sorted: Vec<Run>,
    pub(crate) first_sequence: u64,
}

impl Runs {
    pub(crate) fn runs_from(&self, slot: GroupSlot, offset: u64, limit: usize, out: &mut Vec<Run>) {
        let from = self.sorted.partition_point(|run| (run.slot, run.last_offset) < (slot, offset));
        out.extend(self.sorted[from..].iter().take_while(|run| run.slot == slot).take(limit));
    }

    /// The runs of a group, in order.
    pub(crate) fn of_group(&self, slot: GroupSlot) -> impl Iterator<Item = &Run> {
        let from = self.sorted.partition_point(|run| run.slot < slot);
        self.sorted[from..].iter().take_while(move |run| run.slot == slot)
    }

    /// Whether what there is of several groups lies in runs that are short on average: a reader of one of them reads
    /// more of the others, or asks the disk more often, than it gets.
    pub(crate) fn is_scattered(&self) -> bool {
        let (Some(first), Some(last)) = (self.sorted.first(), self.sorted.last()) else { return false };
        let bytes: u64 = self.sorted.iter().map(|run| u64::from(run.own_bytes())).sum();
        first.slot != last.slot && bytes / (self.sorted.len() as u64) < SHORT_RUN_BYTES
    }

    /// The rows of the groups that have records here which somebody may ask for; they are those of this generation.
    pub(crate) fn rows<'a>(&self, generation: u64, groups: &'a Groups) -> impl Iterator<Item = &'a Row> {
        let each = self.sorted.chunk_by(|a, b| a.slot == b.slot);
        each.filter_map(move |runs| groups.at(runs[0].slot).row_of(generation))
    }

    /// How many footer parts of at most `part_bytes` the runs take: at least one.
    pub(crate) fn parts(&self, part_bytes: usize) -> usize {
        self.sorted.len().div_ceil(Self::runs_per_part(part_bytes)).max(1)
    }

    const fn runs_per_part(part_bytes: usize) -> usize {
        (part_bytes - FOOTER_HEADER_BYTES) / RUN_BYTES
    }

    /// Writes footer part `part` of an extent into `out`.
    pub(crate) fn encode_part(
        &self,
        generation: u64,
        part: usize,
        part_bytes: usize,
        groups: &Groups,
        out: &mut Vec<u8>,
    ) {
        let size = Self::runs_per_part(part_bytes);
        let runs = self.sorted.chunks(size).nth(part).unwrap_or(&[]);
        out.clear();
        out.extend(generation.to_le_bytes());
        out.extend(self.first_sequence.to_le_bytes());
        out.extend((part as u32).to_le_bytes());
        out.extend((self.parts(part_bytes) as u32).to_le_bytes());
        out.extend((runs.len() as u32).to_le_bytes());
        out.extend([0; 4]);
        for run in runs {
            out.extend(groups.at(run.slot).id.0.to_le_bytes());
            out.extend(run.first_offset.to_le_bytes());
            out.extend(run.last_offset.to_le_bytes());
            out.extend(run.max_timestamp_us.to_le_bytes());
            out.extend(run.start.to_le_bytes());
            out.extend(run.end.to_le_bytes());
            out.extend(run.frame.to_le_bytes());
            out.extend(run.bytes.to_le_bytes());
        }
    }

    /// Adds the runs of a footer part; `None` when it is not part `part` of this generation, or makes no sense.
    pub(crate) fn decode_part(
        &mut self,
        bytes: &[u8],
        generation: u64,
        part: u32,
        groups: &mut Groups,
    ) -> Option<()> {
        let header = FooterHeader::decode(bytes)?;
        if header.generation != generation || header.part != part {
            return None;
        }
        self.first_sequence = header.first_sequence;
        for run in bytes[FOOTER_HEADER_BYTES..].chunks_exact(RUN_BYTES).take(header.runs as usize) {
            let run = Run {
                slot: groups.slot(GroupId(field!(run, 0, u64))),
                first_offset: field!(run, 8, u64),
                last_offset: field!(run, 16, u64),
                max_timestamp_us: field!(run, 24, u64),
                start: field!(run, 32, u32),
                end: field!(run, 36, u32),
                frame: field!(run, 40, u32),
                bytes: field!(run, 44, u32),
            };
            let sound = run.start <= run.end && run.bytes <= run.end - run.start;
            if run.first_offset > run.last_offset || run.last_offset == u64::MAX || !sound {
                return None;
            }
            self.sorted.push(run);
        }
        Some(())
    }

    /// Slots are given anew at every start: after the last part the order is made whole again.
    pub(crate) fn sort(&mut self) {
        self.sorted.sort_unstable_by_key(|run| (run.slot, run.first_offset));
    }
}

/// What a footer part says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterHeader {
    /// Of the extent that it is the index of.
    pub generation: u64,
    /// Of that extent's first frame.
    pub first_sequence: u64,
    /// Its number, from 0.
    pub part: u32,
    /// How many parts the footer has.
    pub parts: u32,
    /// Runs in this part.
    pub runs: u32,
}

impl FooterHeader {
    /// Reads the header at the start of a payload.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; FOOTER_HEADER_BYTES] = bytes.first_chunk()?;
        let header = Self {
            generation: field!(header, 0, u64),
            first_sequence: field!(header, 8, u64),
            part: field!(header, 16, u32),
            parts: field!(header, 20, u32),
            runs: field!(header, 24, u32),
        };
        let room = (bytes.len() - FOOTER_HEADER_BYTES) / RUN_BYTES;
        (header.part < header.parts && header.runs as usize <= room).then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(groups: &mut Groups) -> OpenRuns {
        let mut open = OpenRuns::new(1 << 20);
        open.restart(9, 100, groups);
        let mut next = [0_u64; 3];
        for frame in 0..300_u64 {
            for batch in 0..5_u64 {
                let group = (frame * batch) as usize % 3;
                let slot = groups.slot(GroupId(16 + group as u64));
                let start = (frame * 4096 + batch * 200) as u32;
                let run = Run {
                    first_offset: next[group],
                    last_offset: next[group] + 6,
                    max_timestamp_us: frame,
                    slot,
                    start,
                    end: start + 200,
                    frame: 0,
                    bytes: 200,
                };
                next[group] += 7;
                open.add(groups, run, 100 + frame);
            }
        }
        open
    }

    #[test]
    fn an_open_extent_and_its_footers_find_the_same_runs() {
        let mut groups = Groups::default();
        let open = filled(&mut groups);
        let mut twin = Groups::default();
        let closed = filled(&mut twin).close(&mut twin, Vec::new()).1;
        let mut loaded = Runs::default();
        let mut part = Vec::new();
        for at in 0..closed.parts(1000) {
            closed.encode_part(9, at, 1000, &groups, &mut part);
            assert!(part.len() <= 1000);
            loaded.decode_part(&part, 9, at as u32, &mut groups).expect("its own part");
        }
        loaded.sort();
        assert_eq!(loaded, closed);
        for slot in groups.slots() {
            let newest = groups.at(slot).newest_run;
            let end = twin.at(slot).rows[0].last_offset + 1;
            for offset in 0..end {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                open.runs_from(newest, offset, 3, &mut a);
                loaded.runs_from(slot, offset, 3, &mut b);
                assert_eq!(a, b);
                assert!(a[0].first_offset <= offset && offset <= a[0].last_offset);
            }
            let mut none = Vec::new();
            open.runs_from(newest, end, 3, &mut none);
            loaded.runs_from(slot, end, 3, &mut none);
            assert!(none.is_empty());
        }
    }

    #[test]
    fn a_voided_frame_leaves_no_run_behind() {
        let mut groups = Groups::default();
        let mut open = filled(&mut groups);
        open.void_after(149, &mut groups);
        let closed = open.close(&mut groups, Vec::new()).1;
        assert!(closed.sorted.iter().all(|run| run.frame < 50));
        let slot = groups.slot(GroupId(16));
        let newest = groups.at(slot).newest_run;
        assert_eq!(newest, NO_RUN, "a closed extent is no longer linked to");
    }

    #[test]
    fn a_footer_of_another_generation_or_cut_short_is_refused() {
        let mut groups = Groups::default();
        let closed = filled(&mut groups).close(&mut groups, Vec::new()).1;
        let mut part = Vec::new();
        closed.encode_part(9, 0, 1000, &groups, &mut part);
        let mut loaded = Runs::default();
        assert_eq!(loaded.decode_part(&part, 8, 0, &mut groups), None);
        assert_eq!(loaded.decode_part(&part, 9, 1, &mut groups), None);
        assert_eq!(loaded.decode_part(&part[..part.len() - 1], 9, 0, &mut groups), None);
        assert_eq!(loaded.decode_part(&[], 9, 0, &mut groups), None);
    }
}
