//! Checkpoints: entries of the log that make everything before them unnecessary for a restart.
//!
//! A checkpoint is a run of consecutive entries: the log's own parts (closed extents with level 1 of the index,
//! and in a full one the group table), then the owner's parts, opaque. It states the log as of its first entry.
//! A full one replaces all before it; incremental ones add to it. The superblock names the chain.
//!
//! **Invariant:** a checkpoint lists every closed extent with a durable footer, so it is made only when all
//! footers are durable; what it leaves out may be recycled once it and the superblock that names it are durable.

use corelog_model::GroupId;

use crate::append::Place;
use crate::error::Full;
use crate::extent::{Extents, FooterAt, Live};
use crate::frame::{EntryKind, RISING_LIMIT, field};
use crate::groups::{Groups, Row};
use crate::log::Log;
use crate::superblock::{CHECKPOINTS_MAX, CheckpointAt};

/// Bytes before the content of a part.
pub const PART_HEADER_BYTES: usize = 32;
/// Content of one part of the log's own at most.
const PART_BYTES: usize = 256 << 10;
/// Every so many checkpoints one is full.
const FULL_EVERY: usize = 8;
const _: () = assert!(FULL_EVERY <= CHECKPOINTS_MAX);

/// What a checkpoint replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointKind {
    /// Everything before it.
    Full,
    /// Nothing: it adds what changed since the one before.
    Incremental,
}

/// What a part says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartHeader {
    pub(crate) id: u64,
    pub(crate) part: u32,
    pub(crate) parts: u32,
    pub(crate) kind: CheckpointKind,
    /// Of the log's owner, not of the log.
    pub(crate) owner: bool,
}

impl PartHeader {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.id.to_le_bytes());
        out.extend(self.part.to_le_bytes());
        out.extend(self.parts.to_le_bytes());
        out.extend((self.kind as u32).to_le_bytes());
        out.extend(u32::from(self.owner).to_le_bytes());
        out.extend([0; 8]);
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, content) = bytes.split_at_checked(PART_HEADER_BYTES)?;
        let kind = match field!(head, 16, u32) {
            0 => CheckpointKind::Full,
            1 => CheckpointKind::Incremental,
            _ => return None,
        };
        let header = Self {
            id: field!(head, 0, u64),
            part: field!(head, 8, u32),
            parts: field!(head, 12, u32),
            kind,
            owner: field!(head, 20, u32) == 1,
        };
        (header.part < header.parts).then_some((header, content))
    }
}

struct Pending {
    id: u64,
    kind: CheckpointKind,
    first_sequence: u64,
    last_sequence: u64,
    at: Option<CheckpointAt>,
    /// Extents up to this generation are left out.
    recycles: Option<u64>,
    /// Extents up to this one are listed or left out.
    covers: u64,
}

pub(crate) struct Checkpoints {
    /// Log bytes since the last checkpoint was made.
    pub(crate) since_bytes: u64,
    pub(crate) next_id: u64,
    /// Newest generation that a durable checkpoint covers.
    pub(crate) listed: u64,
    interval_bytes: u64,
    pending: Option<Pending>,
    /// A superblock version and what may be recycled once it is settled.
    settling: Option<(u64, u64)>,
    scratch: Vec<u8>,
}

impl Checkpoints {
    pub(crate) const fn new(interval_bytes: u64, next_id: u64, listed: u64) -> Self {
        Self {
            since_bytes: 0,
            next_id,
            listed,
            interval_bytes,
            pending: None,
            settling: None,
            scratch: Vec::new(),
        }
    }

    pub(crate) fn placed(&mut self, sequence: u64, place: Place) {
        if let Some(pending) = self.pending.as_mut().filter(|pending| pending.first_sequence == sequence) {
            pending.at = Some(CheckpointAt {
                generation: place.generation,
                position: place.position,
                id: pending.id,
                extent: place.extent,
            });
        }
    }

    /// The generation up to which extents are no longer pointed at, once.
    pub(crate) fn recyclable(&mut self, settled: u64) -> Option<u64> {
        self.settling.take_if(|(version, _)| *version <= settled).map(|(_, generation)| generation)
    }
}

impl Log {
    /// Which checkpoint the log would like its owner to make now, if any. Take [`Log::moved_starts`] first.
    pub fn wants_checkpoint(&self) -> Option<CheckpointKind> {
        let checkpoints = &self.checkpoints;
        if checkpoints.pending.is_some() || checkpoints.settling.is_some() || !self.footers.settled() {
            return None;
        }
        let chain = self.superblock.current.checkpoints.len();
        if self.extents.doomed > 0 {
            return Some(CheckpointKind::Full);
        }
        if checkpoints.since_bytes < checkpoints.interval_bytes {
            return None;
        }
        Some(match chain {
            0 | FULL_EVERY.. => CheckpointKind::Full,
            _ => CheckpointKind::Incremental,
        })
    }

    /// Writes a checkpoint: `parts` are the owner's state as of now, in order, each at most `max_batch_bytes`
    /// less [`PART_HEADER_BYTES`]; for an incremental one, what changed since the one before. All of it has to
    /// fit into the live window at once.
    ///
    /// # Panics
    /// When [`Log::wants_checkpoint`] did not ask for it, or for this kind of it.
    pub fn checkpoint(&mut self, kind: CheckpointKind, parts: &[&[u8]]) -> Result<(), Full> {
        let wanted = self.wants_checkpoint().expect("a checkpoint is made when the log wants one");
        assert!(kind == CheckpointKind::Full || wanted == kind, "a full checkpoint is due");
        let doomed = match self.extents.doomed {
            0 => None,
            doomed => Some(self.extents.live[doomed - 1].generation),
        };
        let mut own = Vec::new();
        encode_state(kind, self.checkpoints.listed, doomed, &self.extents, &self.groups, &mut own);
        let own_bytes = PART_BYTES.min(self.config.max_batch_bytes as usize - PART_HEADER_BYTES);
        let own: Vec<&[u8]> = own.chunks(own_bytes).collect();
        let count = own.len() + parts.len();
        let content: usize = own.iter().chain(parts).map(|part| part.len() + PART_HEADER_BYTES + 16).sum();
        self.room(count, content, 0)?;

        let id = self.checkpoints.next_id;
        self.checkpoints.next_id += 1;
        let mut scratch = std::mem::take(&mut self.checkpoints.scratch);
        let (mut first, mut last) = (None, 0);
        let all = own.iter().map(|part| (false, *part)).chain(parts.iter().map(|part| (true, *part)));
        for (number, (owner, part)) in all.enumerate() {
            scratch.clear();
            PartHeader { id, part: number as u32, parts: count as u32, kind, owner }.encode(&mut scratch);
            scratch.extend_from_slice(part);
            let appended = self.append_control(EntryKind::Checkpoint, GroupId::LOG, 0, &scratch);
            first.get_or_insert(appended.frame);
            last = appended.frame;
        }
        self.checkpoints.scratch = scratch;
        self.checkpoints.since_bytes = 0;
        self.checkpoints.pending = Some(Pending {
            id,
            kind,
            first_sequence: first.expect("the log's own part is never empty"),
            last_sequence: last,
            at: None,
            recycles: doomed,
            covers: covers(self.checkpoints.listed, doomed, &self.extents),
        });
        Ok(())
    }

    /// Frames up to `sequence` are durable: the superblock may name a checkpoint in them.
    pub(crate) fn checkpoint_durable(&mut self, sequence: u64) {
        let Some(pending) = self.checkpoints.pending.take_if(|pending| pending.last_sequence <= sequence)
        else {
            return;
        };
        let at = pending.at.expect("a durable frame has a place");
        let chain = &mut self.superblock.current.checkpoints;
        if pending.kind == CheckpointKind::Full {
            chain.clear();
        }
        chain.push(at);
        self.note_written_extents();
        let version = self.superblock.touch();
        self.checkpoints.listed = self.checkpoints.listed.max(pending.covers);
        self.checkpoints.settling = pending.recycles.map(|generation| (version, generation));
        self.counters.checkpoints += 1;
    }
}

/// Bytes of a group in the log's own parts, of an extent, of a footer's place, of a row.
pub const GROUP_BYTES: usize = 32;
/// Bytes of a closed extent before its footers and rows.
pub const EXTENT_BYTES: usize = 64;
/// Bytes of the place of a footer part.
pub const FOOTER_AT_BYTES: usize = 24;
/// Bytes of a level 1 row.
pub const ROW_BYTES: usize = 32;

/// The newest generation that need not be scanned: it is listed, or taken by recycling. The checkpoint itself may
/// come to lie in an extent later than the next one.
fn covers(listed: u64, doomed: Option<u64>, extents: &Extents) -> u64 {
    let closed = extents.live.iter().filter(|live| !live.footers.is_empty());
    let newest = closed.map(|live| live.generation).max().unwrap_or(0);
    newest.max(listed).max(doomed.unwrap_or(0))
}

pub(crate) fn encode_state(
    kind: CheckpointKind,
    listed: u64,
    doomed: Option<u64>,
    extents: &Extents,
    groups: &Groups,
    out: &mut Vec<u8>,
) {
    let full = kind == CheckpointKind::Full;
    let from = if full { doomed.map_or(0, |generation| generation + 1) } else { listed + 1 };
    let chosen = || extents.live.iter().filter(|live| live.generation >= from && !live.footers.is_empty());
    let table = || groups.iter().filter(|(_, group)| full && !group.dropped);
    out.extend((table().count() as u32).to_le_bytes());
    out.extend((chosen().count() as u32).to_le_bytes());
    out.extend(covers(listed, doomed, extents).to_le_bytes());
    for (_, group) in table() {
        out.extend(group.id.0.to_le_bytes());
        out.extend(group.log_start.to_le_bytes());
        out.extend(group.log_end.to_le_bytes());
        out.extend(group.last_index.to_le_bytes());
    }
    for live in chosen() {
        encode_extent(live, groups, out);
    }
}

fn encode_extent(live: &Live, groups: &Groups, out: &mut Vec<u8>) {
    let rows = || {
        groups.iter().filter(|(_, group)| !group.dropped).filter_map(|(_, group)| {
            let at = group.rows.binary_search_by_key(&live.generation, |row| row.generation).ok()?;
            Some((group.id, group.rows[at]))
        })
    };
    out.extend(live.generation.to_le_bytes());
    out.extend(live.first_sequence.to_le_bytes());
    out.extend(live.last_sequence.to_le_bytes());
    out.extend(live.end.to_le_bytes());
    out.extend(live.extent.to_le_bytes());
    out.extend(u32::from(live.worthy).to_le_bytes());
    out.extend((live.footers.len() as u32).to_le_bytes());
    out.extend((rows().count() as u32).to_le_bytes());
    out.extend([0; 16]);
    for footer in &live.footers {
        out.extend(footer.generation.to_le_bytes());
        out.extend(footer.sequence.to_le_bytes());
        out.extend(footer.position.to_le_bytes());
        out.extend(footer.length.to_le_bytes());
    }
    for (group, row) in rows() {
        out.extend(group.0.to_le_bytes());
        out.extend(row.first_offset.to_le_bytes());
        out.extend(row.last_offset.to_le_bytes());
        out.extend(row.max_timestamp_us.to_le_bytes());
    }
}

/// Splits off `count` pieces of `size` bytes; `None` when there are fewer.
fn pieces<'a>(bytes: &mut &'a [u8], count: u32, size: usize) -> Option<std::slice::ChunksExact<'a, u8>> {
    let (pieces, rest) = bytes.split_at_checked((count as usize).checked_mul(size)?)?;
    *bytes = rest;
    Some(pieces.chunks_exact(size))
}

/// Applies the log's own parts of one checkpoint, joined, and gives back the newest generation it covers; `None`
/// when they do not make sense.
pub(crate) fn decode_state(mut bytes: &[u8], extents: &mut Extents, groups: &mut Groups) -> Option<u64> {
    let head = pieces(&mut bytes, 1, 16)?.next()?;
    let (table, closed, covers) = (field!(head, 0, u32), field!(head, 4, u32), field!(head, 8, u64));
    for piece in pieces(&mut bytes, table, GROUP_BYTES)? {
        let slot = groups.slot(GroupId(field!(piece, 0, u64)));
        let group = groups.at_mut(slot);
        group.log_start = field!(piece, 8, u64);
        group.log_end = field!(piece, 16, u64);
        group.last_index = field!(piece, 24, u64);
        let held = group.rows.back().is_none_or(|row| row.last_offset < group.log_end);
        if group.log_start > group.log_end || !held {
            return None;
        }
    }
    for _ in 0..closed {
        let piece = pieces(&mut bytes, 1, EXTENT_BYTES)?.next()?;
        let generation = field!(piece, 0, u64);
        let footers = pieces(&mut bytes, field!(piece, 40, u32), FOOTER_AT_BYTES)?;
        if extents.live.back().is_some_and(|live| live.generation >= generation) {
            return None;
        }
        let live = Live {
            generation,
            first_sequence: field!(piece, 8, u64),
            last_sequence: field!(piece, 16, u64),
            end: field!(piece, 24, u64),
            extent: field!(piece, 32, u32),
            worthy: field!(piece, 36, u32) != 0,
            prepared: 0,
            footers: footers
                .map(|footer| FooterAt {
                    generation: field!(footer, 0, u64),
                    sequence: field!(footer, 8, u64),
                    position: field!(footer, 16, u32),
                    length: field!(footer, 20, u32),
                })
                .collect(),
        };
        let ends = live.end <= extents.bytes && live.generation < RISING_LIMIT && !live.footers.is_empty();
        if !ends || live.first_sequence > live.last_sequence || live.last_sequence >= RISING_LIMIT {
            return None;
        }
        extents.live.push_back(live);
        for piece in pieces(&mut bytes, field!(piece, 44, u32), ROW_BYTES)? {
            decode_row(piece, generation, groups)?;
        }
    }
    bytes.is_empty().then_some(covers)
}

fn decode_row(piece: &[u8], generation: u64, groups: &mut Groups) -> Option<()> {
    let slot = groups.slot(GroupId(field!(piece, 0, u64)));
    let row = Row {
        generation,
        first_offset: field!(piece, 8, u64),
        last_offset: field!(piece, 16, u64),
        max_timestamp_us: field!(piece, 24, u64),
    };
    let group = groups.at_mut(slot);
    let follows = group
        .rows
        .back()
        .is_none_or(|last| last.last_offset < row.first_offset && last.generation < generation);
    if !follows || row.first_offset > row.last_offset || row.last_offset == u64::MAX {
        return None;
    }
    group.log_end = group.log_end.max(row.last_offset + 1);
    group.rows.push_back(row);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (Extents, Groups) {
        let (mut extents, mut groups) = (Extents::new(1 << 20), Groups::default());
        for at in 0..5_u64 {
            extents.live.push_back(Live {
                extent: at as u32,
                generation: at + 1,
                first_sequence: at * 10 + 1,
                last_sequence: at * 10 + 10,
                end: 8192,
                prepared: 0,
                worthy: true,
                footers: vec![
                    FooterAt { generation: at + 2, sequence: 3, position: 4, length: 5 };
                    at as usize % 3 + 1
                ],
            });
            for group in 0..=at {
                let slot = groups.slot(GroupId(16 + group));
                let group = groups.at_mut(slot);
                let first = group.log_end;
                group.log_end += 100;
                let last_offset = group.log_end - 1;
                group.rows.push_back(Row {
                    generation: at + 1,
                    first_offset: first,
                    last_offset,
                    max_timestamp_us: at,
                });
            }
        }
        extents.live.back_mut().expect("five").footers.clear();
        (extents, groups)
    }

    #[test]
    fn a_full_and_an_incremental_checkpoint_restore_what_one_full_one_does() {
        let (extents, groups) = state();
        let mut whole = Vec::new();
        encode_state(CheckpointKind::Full, 0, None, &extents, &groups, &mut whole);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let mut early = Extents::new(1 << 20);
        early.live.extend(extents.live.iter().take(2).cloned());
        encode_state(CheckpointKind::Full, 0, None, &early, &groups, &mut first);
        encode_state(CheckpointKind::Incremental, 2, None, &extents, &groups, &mut second);

        let (mut a, mut b) =
            ((Extents::new(1 << 20), Groups::default()), (Extents::new(1 << 20), Groups::default()));
        decode_state(&whole, &mut a.0, &mut a.1).expect("sound");
        decode_state(&first, &mut b.0, &mut b.1).expect("sound");
        decode_state(&second, &mut b.0, &mut b.1).expect("sound");
        assert_eq!(a.0.live, b.0.live);
        assert_eq!(a.0.live.len(), 4, "the head is not listed");
        for (slot, group) in a.1.iter() {
            let other = b.1.at(slot);
            assert_eq!((group.id, &group.rows, group.log_end), (other.id, &other.rows, other.log_end));
        }
    }

    #[test]
    fn a_checkpoint_that_is_cut_short_or_too_long_is_refused() {
        let (extents, groups) = state();
        let mut whole = Vec::new();
        encode_state(CheckpointKind::Full, 0, None, &extents, &groups, &mut whole);
        for length in 0..whole.len() {
            let (mut extents, mut groups) = (Extents::new(1 << 20), Groups::default());
            assert_eq!(decode_state(&whole[..length], &mut extents, &mut groups), None, "{length} bytes");
        }
        whole.push(0);
        assert_eq!(decode_state(&whole, &mut Extents::new(1 << 20), &mut Groups::default()), None);
    }

    #[test]
    fn what_recycling_takes_is_left_out() {
        let (extents, groups) = state();
        let mut bytes = Vec::new();
        encode_state(CheckpointKind::Full, 0, Some(2), &extents, &groups, &mut bytes);
        let mut restored = Extents::new(1 << 20);
        decode_state(&bytes, &mut restored, &mut Groups::default()).expect("sound");
        let generations: Vec<u64> = restored.live.iter().map(|live| live.generation).collect();
        assert_eq!(generations, [3, 4]);
    }
}
