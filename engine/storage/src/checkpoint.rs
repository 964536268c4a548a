//! Checkpoints: entries of the log that make everything before them unnecessary for a restart.
//!
//! A checkpoint is a row of entries: the log's own parts (closed extents, groups with level 1 of the index), then
//! the owner's parts, opaque. It states the log as of its first entry; the others follow as there is room, a bounded
//! number of bytes a frame, with whatever else is appended between them. A full one replaces all before it;
//! incremental ones add to it. The superblock names the chain, each one only when its last entry is durable: one that
//! was cut short is never looked at.
//!
//! **Invariant:** a checkpoint covers every closed extent, so it is made only when all footers are durable; what it
//! leaves out may be recycled once it and the superblock that names it are durable.

use corelog_model::{GroupId, Term};

use crate::accept::ACCEPTED_ROW_BYTES;
use crate::append::Place;
use crate::extent::{Claim, Extents, Fate, FooterAt, Live};
use crate::feature;
use crate::frame::{EntryKind, RISING_LIMIT, field};
use crate::groups::{Group, Groups, Row};
use crate::log::Log;
use crate::settle::PACK_BYTES_LIMIT;
use crate::superblock::{CHECKPOINTS_MAX, CheckpointAt};

/// Bytes before the content of a part.
pub const PART_HEADER_BYTES: usize = 32;
/// Content of one part of the log's own at most.
const PART_BYTES: usize = 64 << 10;
/// Of a checkpoint in one frame, at most, unless a single part is larger: batches wait no longer than for this much.
const FRAME_BYTES: usize = 256 << 10;
/// What the buffers have room for from the start; they grow with the number of groups and extents.
const BUFFER_BYTES: usize = 1 << 20;
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
pub struct PartHeader {
    /// Of its checkpoint; the upper half is the term.
    pub id: u64,
    /// Its number, from 0.
    pub part: u32,
    /// How many parts the checkpoint has.
    pub parts: u32,
    /// What the checkpoint replaces.
    pub kind: CheckpointKind,
    /// Of the log's owner, not of the log.
    pub owner: bool,
}

impl PartHeader {
    pub(crate) fn encode(&self, out: &mut [u8]) {
        out[0..8].copy_from_slice(&self.id.to_le_bytes());
        out[8..12].copy_from_slice(&self.part.to_le_bytes());
        out[12..16].copy_from_slice(&self.parts.to_le_bytes());
        out[16..20].copy_from_slice(&(self.kind as u32).to_le_bytes());
        out[20..24].copy_from_slice(&u32::from(self.owner).to_le_bytes());
        out[24..32].fill(0);
    }

    /// Reads the header at the start of a payload; the rest of it is the part's content.
    pub fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
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

/// The parts of a checkpoint, one behind the other in one buffer that is used again and again.
#[derive(Debug, Default)]
pub struct Parts {
    /// Each part behind room for its header.
    bytes: Vec<u8>,
    /// Where each part ends.
    ends: Vec<usize>,
}

impl Parts {
    /// No parts yet; room for about so many bytes of them.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(64) }
    }

    /// Adds a part: at most `max_batch_bytes` less [`PART_HEADER_BYTES`].
    pub fn push(&mut self, content: &[u8]) {
        self.bytes.extend([0; PART_HEADER_BYTES]);
        self.bytes.extend_from_slice(content);
        self.ends.push(self.bytes.len());
    }

    /// Forgets all parts and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    /// Where a part lies, its header included.
    fn range(&self, at: usize) -> std::ops::Range<usize> {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[at]
    }
}

/// A checkpoint from its first part until the superblock may name it.
struct Writing {
    id: u64,
    kind: CheckpointKind,
    /// Parts appended.
    appended: usize,
    /// Frames of the first part and of the last one appended, and the bytes of parts in the latter.
    first_sequence: u64,
    last_sequence: u64,
    in_frame: usize,
    at: Option<CheckpointAt>,
    /// It leaves extents out.
    leaves: bool,
    /// Extents up to this generation are listed or left out.
    covers: u64,
}

pub(crate) struct Checkpoints {
    /// Log bytes since the last checkpoint was made.
    pub(crate) since_bytes: u64,
    pub(crate) next_id: u64,
    /// Newest generation that a durable checkpoint covers.
    pub(crate) listed: u64,
    interval_bytes: u64,
    /// Content of a part of the log's own.
    part_bytes: usize,
    writing: Option<Writing>,
    /// The superblock version after which nothing points at what was left out.
    settling: Option<u64>,
    /// The log's own parts of the checkpoint that is being written, the owner's, and the former not yet cut up.
    own: Parts,
    owner: Parts,
    state: Vec<u8>,
}

impl Checkpoints {
    /// Ids are never given twice: they begin with the term.
    pub(crate) fn new(interval_bytes: u64, term: Term, listed: u64, max_batch_bytes: u32) -> Self {
        Self {
            since_bytes: 0,
            next_id: u64::from(term.0) << 32,
            listed,
            interval_bytes,
            part_bytes: PART_BYTES.min(max_batch_bytes as usize - PART_HEADER_BYTES),
            writing: None,
            settling: None,
            own: Parts::with_capacity(BUFFER_BYTES),
            owner: Parts::with_capacity(BUFFER_BYTES),
            state: Vec::with_capacity(BUFFER_BYTES),
        }
    }

    pub(crate) fn placed(&mut self, sequence: u64, place: Place) {
        let Some(writing) = &mut self.writing else { return };
        if writing.first_sequence == sequence {
            writing.at = Some(CheckpointAt {
                generation: place.generation,
                position: place.position,
                id: writing.id,
                extent: place.extent,
                spans: 0,
            });
        }
        if let Some(at) = writing.at.as_mut().filter(|_| writing.last_sequence == sequence) {
            at.spans = (place.generation - at.generation) as u32;
        }
    }

    /// Whether extents that were left out are no longer pointed at; once.
    pub(crate) fn recyclable(&mut self, settled: u64) -> bool {
        self.settling.take_if(|version| *version <= settled).is_some()
    }

    pub(crate) const fn is_idle(&self) -> bool {
        self.writing.is_none() && self.settling.is_none()
    }

    /// Payload of the next part to be appended, if there is one.
    fn next_part(&self) -> Option<usize> {
        let at = self.writing.as_ref()?.appended;
        let parts = if at < self.own.len() { &self.own } else { &self.owner };
        let at = if at < self.own.len() { at } else { at - self.own.len() };
        (at < parts.len()).then(|| parts.range(at).len())
    }
}

impl Log {
    /// Which checkpoint the log would like its owner to make now, if any; it has room for the beginning of it. Take
    /// [`Log::moved_starts`] first.
    pub fn wants_checkpoint(&mut self) -> Option<CheckpointKind> {
        let kind = self.due_checkpoint()?;
        self.room(1, PART_HEADER_BYTES + self.checkpoints.part_bytes, Claim::Own).ok()?;
        Some(kind)
    }

    fn due_checkpoint(&self) -> Option<CheckpointKind> {
        let checkpoints = &self.checkpoints;
        if !checkpoints.is_idle() || !self.footers.settled() || self.commit.read_only {
            return None;
        }
        if self.extents.frees {
            return Some(CheckpointKind::Full);
        }
        // The next start does not get the extent of a checkpoint back.
        let due = checkpoints.since_bytes >= checkpoints.interval_bytes || self.scrub.renews;
        if !due || self.extents.spare.len() < 2 {
            return None;
        }
        Some(match self.superblock.current.checkpoints.len() {
            0 | FULL_EVERY.. => CheckpointKind::Full,
            _ if self.extents.refused.is_some() || self.scrub.renews => CheckpointKind::Full,
            _ => CheckpointKind::Incremental,
        })
    }

    /// Begins a checkpoint: `parts` are the owner's state as of now, in order; for an incremental one, what changed
    /// since the one before. They are taken, and written in the turns that follow, 256 KiB a frame at most, as there is
    /// room; entries appended meanwhile are replayed after it.
    ///
    /// # Panics
    /// When [`Log::wants_checkpoint`] has not asked for it, or for this kind of it, in this turn.
    pub fn checkpoint(&mut self, kind: CheckpointKind, parts: &mut Parts) {
        let wanted = self.wants_checkpoint().expect("a checkpoint is made when the log wants one");
        assert!(kind == CheckpointKind::Full || wanted == kind, "a full checkpoint is due");
        let leaves = kind == CheckpointKind::Full && self.extents.leave_out();
        self.scrub.renews &= kind != CheckpointKind::Full;
        let checkpoints = &mut self.checkpoints;
        let covers = self.extents.indexed().unwrap_or(0).max(checkpoints.listed);
        checkpoints.state.clear();
        let wide = self.superblock.features() & feature::RETENTION != 0;
        encode_state(
            kind,
            checkpoints.listed,
            covers,
            wide,
            &self.extents,
            &self.groups,
            &mut checkpoints.state,
        );
        self.groups.checkpointed();
        checkpoints.own.clear();
        for part in checkpoints.state.chunks(checkpoints.part_bytes) {
            checkpoints.own.push(part);
        }
        std::mem::swap(&mut checkpoints.owner, parts);
        parts.clear();
        let id = checkpoints.next_id;
        checkpoints.next_id += 1;
        checkpoints.since_bytes = 0;
        checkpoints.writing = Some(Writing {
            id,
            kind,
            appended: 0,
            first_sequence: 0,
            last_sequence: 0,
            in_frame: 0,
            at: None,
            leaves,
            covers,
        });
        // The first part stands where the state was taken: nothing comes between.
        self.append_part();
    }

    /// Appends what the frame that is open, or the next one, takes of the checkpoint.
    pub(crate) fn write_checkpoint(&mut self) {
        while let Some(length) = self.checkpoints.next_part() {
            let Some(writing) = &self.checkpoints.writing else { return };
            let open = self.queue.open().is_some_and(|frame| frame.sequence == writing.last_sequence);
            let full = open && writing.in_frame + length > FRAME_BYTES;
            if full || self.room(1, length, Claim::Own).is_err() {
                return;
            }
            self.append_part();
        }
    }

    /// There is room for the next part.
    fn append_part(&mut self) {
        let checkpoints = &mut self.checkpoints;
        let Some(writing) = &checkpoints.writing else { return };
        let (own, count) = (checkpoints.own.len(), checkpoints.own.len() + checkpoints.owner.len());
        let number = writing.appended;
        let header = PartHeader {
            id: writing.id,
            part: number as u32,
            parts: count as u32,
            kind: writing.kind,
            owner: number >= own,
        };
        let parts = if number < own { &mut checkpoints.own } else { &mut checkpoints.owner };
        let range = parts.range(if number < own { number } else { number - own });
        let mut bytes = std::mem::take(&mut parts.bytes);
        header.encode(&mut bytes[range.start..range.start + PART_HEADER_BYTES]);
        let appended = self.append_control(EntryKind::Checkpoint, GroupId::LOG, 0, &bytes[range.clone()]);
        let checkpoints = &mut self.checkpoints;
        let parts = if number < own { &mut checkpoints.own } else { &mut checkpoints.owner };
        parts.bytes = bytes;
        let Some(writing) = &mut checkpoints.writing else { return };
        if number == 0 {
            writing.first_sequence = appended.frame;
        }
        let same = writing.last_sequence == appended.frame;
        writing.in_frame = if same { writing.in_frame } else { 0 } + range.len();
        writing.last_sequence = appended.frame;
        writing.appended += 1;
    }

    /// Frames up to `sequence` are durable: the superblock may name a checkpoint that ends in them.
    pub(crate) fn checkpoint_durable(&mut self, sequence: u64) {
        if self.checkpoints.next_part().is_some() {
            return;
        }
        let Some(done) = self.checkpoints.writing.take_if(|writing| writing.last_sequence <= sequence) else {
            return;
        };
        let at = done.at.expect("a durable frame has a place");
        let chain = &mut self.superblock.current.checkpoints;
        if done.kind == CheckpointKind::Full {
            chain.clear();
        }
        chain.push(at);
        self.note_written_extents();
        let version = self.superblock.touch();
        self.checkpoints.listed = self.checkpoints.listed.max(done.covers);
        self.checkpoints.settling = done.leaves.then_some(version);
        self.counters.checkpoints += 1;
    }
}

/// Bytes of a group in the log's own parts, of an extent, of a footer's place, of a row.
pub const GROUP_BYTES: usize = 40;
/// Bytes of a closed extent before its footers.
pub const EXTENT_BYTES: usize = 56;
/// Bytes of the place of a footer part.
pub const FOOTER_AT_BYTES: usize = 24;
/// Bytes of a level 1 row, and of one that counts the bytes it stands for.
pub const ROW_BYTES: usize = 32;
/// The latter.
pub const ROW_COUNTED_BYTES: usize = 40;

/// Flags of a closed extent: holds records or entries of the log's owner; is a pack; is worth settling.
pub const LISTED_WORTHY: u32 = 1;
/// See [`LISTED_WORTHY`].
pub const LISTED_PACK: u32 = 2;
/// See [`LISTED_WORTHY`].
pub const LISTED_SCATTERED: u32 = 4;

/// The extents and groups of a full checkpoint, or what came to them after generation `listed`; `covers` need not be
/// scanned. The checkpoint itself may come to lie in an extent later than the next one. Rows are `wide` where they may count
/// their bytes.
pub(crate) fn encode_state(
    kind: CheckpointKind,
    listed: u64,
    covers: u64,
    wide: bool,
    extents: &Extents,
    groups: &Groups,
    out: &mut Vec<u8>,
) {
    let full = kind == CheckpointKind::Full;
    let from = if full { 0 } else { listed + 1 };
    let staying = |live: &&Live| live.indexed && live.fate == Fate::Stays && live.generation >= from;
    let chosen = || extents.live.iter().filter(staying);
    let chosen_group = |group: &Group| {
        full || group.moved || !group.accepted.is_empty() || group.listed_rows(from).next().is_some()
    };
    let table = || groups.iter().filter(|(_, group)| !group.dropped && chosen_group(group));
    out.extend((table().count() as u32).to_le_bytes());
    out.extend((chosen().count() as u32).to_le_bytes());
    out.extend(covers.to_le_bytes());
    chosen().for_each(|live| encode_extent(live, out));
    for (_, group) in table() {
        let rows = group.listed_rows(from).count();
        out.extend(group.id.0.to_le_bytes());
        out.extend(group.coming_start().to_le_bytes());
        out.extend(group.log_end.to_le_bytes());
        out.extend(group.last_index.to_le_bytes());
        out.extend((rows as u32).to_le_bytes());
        out.extend((if wide { ROW_COUNTED_BYTES as u16 } else { 0 }).to_le_bytes());
        out.extend((group.accepted().count() as u16).to_le_bytes());
        for row in group.listed_rows(from) {
            out.extend(row.generation.to_le_bytes());
            out.extend(row.first_offset.to_le_bytes());
            out.extend(row.last_offset.to_le_bytes());
            out.extend(row.max_timestamp_us.to_le_bytes());
            if wide {
                out.extend(row.bytes.to_le_bytes());
            }
        }
        for (first, last) in group.accepted() {
            out.extend(first.to_le_bytes());
            out.extend(last.to_le_bytes());
        }
    }
}

fn encode_extent(live: &Live, out: &mut Vec<u8>) {
    out.extend(live.generation.to_le_bytes());
    out.extend(live.first_sequence.to_le_bytes());
    out.extend(live.last_sequence.to_le_bytes());
    out.extend(live.end.to_le_bytes());
    out.extend(live.extent.to_le_bytes());
    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
    let flags = flag(live.worthy, LISTED_WORTHY)
        | flag(live.pack, LISTED_PACK)
        | flag(live.scattered, LISTED_SCATTERED);
    out.extend(flags.to_le_bytes());
    out.extend((live.footers.len() as u32).to_le_bytes());
    out.extend([0; 4]);
    out.extend(live.newest_us.to_le_bytes());
    for footer in &live.footers {
        out.extend(footer.generation.to_le_bytes());
        out.extend(footer.sequence.to_le_bytes());
        out.extend(footer.position.to_le_bytes());
        out.extend(footer.length.to_le_bytes());
    }
}

/// What the log's own parts, joined, begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHead {
    /// Groups listed.
    pub groups: u32,
    /// Closed extents listed.
    pub extents: u32,
    /// Newest generation that is listed or left out: later ones are scanned by a start.
    pub covers: u64,
}

impl StateHead {
    /// Reads it at the start of the content of the first part.
    pub fn decode(content: &[u8]) -> Option<Self> {
        let head: &[u8; 16] = content.first_chunk()?;
        Some(Self {
            groups: field!(head, 0, u32),
            extents: field!(head, 4, u32),
            covers: field!(head, 8, u64),
        })
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
    let head = StateHead::decode(pieces(&mut bytes, 1, 16)?.next()?)?;
    for _ in 0..head.extents {
        let piece = pieces(&mut bytes, 1, EXTENT_BYTES)?.next()?;
        let generation = field!(piece, 0, u64);
        let footers = pieces(&mut bytes, field!(piece, 40, u32), FOOTER_AT_BYTES)?;
        if extents.live.back().is_some_and(|live| live.generation >= generation) {
            return None;
        }
        let mut live = Live::begun(field!(piece, 32, u32), generation, field!(piece, 8, u64), 0);
        live.last_sequence = field!(piece, 16, u64);
        live.end = field!(piece, 24, u64);
        let flags = field!(piece, 36, u32);
        live.worthy = flags & LISTED_WORTHY != 0;
        live.pack = flags & LISTED_PACK != 0;
        live.scattered = flags & LISTED_SCATTERED != 0;
        live.newest_us = field!(piece, 48, u64);
        live.indexed = true;
        live.footers.extend(footers.map(|footer| FooterAt {
            generation: field!(footer, 0, u64),
            sequence: field!(footer, 8, u64),
            position: field!(footer, 16, u32),
            length: field!(footer, 20, u32),
        }));
        let most = if live.pack { PACK_BYTES_LIMIT } else { extents.bytes };
        let ends = live.end <= most && live.first_sequence <= live.last_sequence;
        if !ends || generation >= RISING_LIMIT || live.last_sequence >= RISING_LIMIT {
            return None;
        }
        extents.live.push_back(live);
    }
    for _ in 0..head.groups {
        let piece = pieces(&mut bytes, 1, GROUP_BYTES)?.next()?;
        let slot = groups.slot(GroupId(field!(piece, 0, u64)));
        groups.move_start(slot, field!(piece, 8, u64), |row| extents.forget_rows([row]));
        let group = groups.at_mut(slot);
        group.log_start = field!(piece, 8, u64);
        group.log_end = field!(piece, 16, u64);
        group.last_index = field!(piece, 24, u64);
        let held = group.rows.back().is_none_or(|row| row.last_offset < group.log_end);
        if group.log_start > group.log_end || !held {
            return None;
        }
        let row_bytes = match field!(piece, 36, u16) {
            0 => ROW_BYTES,
            40 => ROW_COUNTED_BYTES,
            _ => return None,
        };
        for row in pieces(&mut bytes, field!(piece, 32, u32), row_bytes)? {
            decode_row(row, extents, group)?;
        }
        group.accepted.clear();
        for range in pieces(&mut bytes, field!(piece, 38, u16).into(), ACCEPTED_ROW_BYTES)? {
            let (first, last) = (field!(range, 0, u64), field!(range, 8, u64));
            let follows = group.accepted.last().is_none_or(|(_, before)| *before < last);
            if first > last || last >= group.log_end || !follows {
                return None;
            }
            group.accepted.push((first, last));
        }
    }
    bytes.is_empty().then_some(head.covers)
}

fn decode_row(piece: &[u8], extents: &mut Extents, group: &mut Group) -> Option<()> {
    let row = Row {
        generation: field!(piece, 0, u64),
        first_offset: field!(piece, 8, u64),
        last_offset: field!(piece, 16, u64),
        max_timestamp_us: field!(piece, 24, u64),
        bytes: if piece.len() == ROW_COUNTED_BYTES { field!(piece, 32, u64) } else { 0 },
    };
    let follows = group
        .rows
        .back()
        .is_none_or(|last| last.last_offset < row.first_offset && last.generation < row.generation);
    if !follows || row.first_offset > row.last_offset || row.last_offset >= group.log_end {
        return None;
    }
    let live = extents.by_generation_mut(row.generation)?;
    if row.last_offset >= group.log_start {
        live.add_row(&row);
        group.rows.push_back(row);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first `closed` of five extents are closed, the next one is the head.
    fn state(closed: u64) -> (Extents, Groups) {
        let (mut extents, mut groups) = (Extents::new(1 << 20), Groups::default());
        for at in 0..=closed {
            let mut live = Live::begun(at as u32, at + 1, at * 10 + 1, 0);
            (live.last_sequence, live.end, live.worthy) = (at * 10 + 10, 8192, true);
            if at == closed {
                extents.live.push_back(live);
                break;
            }
            (live.groups, live.indexed) = (at as u32 + 1, true);
            let footer = FooterAt { generation: at + 2, sequence: 3, position: 4, length: 5 };
            live.footers = vec![footer; at as usize % 3 + 1];
            extents.live.push_back(live);
            for group in 0..=at {
                let slot = groups.slot(GroupId(16 + group));
                let group = groups.at_mut(slot);
                let (first_offset, last_offset) = (group.log_end, group.log_end + 99);
                group.log_end += 100;
                group.rows.push_back(Row {
                    generation: at + 1,
                    first_offset,
                    last_offset,
                    max_timestamp_us: at,
                    bytes: 7 * at,
                });
            }
        }
        (extents, groups)
    }

    fn encoded(kind: CheckpointKind, listed: u64, (extents, groups): &(Extents, Groups)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let covers = extents.indexed().expect("closed ones");
        encode_state(kind, listed, covers, true, extents, groups, &mut bytes);
        bytes
    }

    #[test]
    fn a_full_and_an_incremental_checkpoint_restore_what_one_full_one_does() {
        let mut restored = Vec::new();
        let all = state(4);
        let first = (CheckpointKind::Full, 0, &state(2));
        for chain in
            [vec![(CheckpointKind::Full, 0, &all)], vec![first, (CheckpointKind::Incremental, 2, &all)]]
        {
            let (mut extents, mut groups) = (Extents::new(1 << 20), Groups::default());
            for (kind, listed, state) in chain {
                let bytes = encoded(kind, listed, state);
                let covers = state.0.indexed();
                assert_eq!(decode_state(&bytes, &mut extents, &mut groups), covers);
            }
            assert_eq!(extents.live.len(), 4, "the head is not listed");
            assert!(extents.live.iter().zip(1..).all(|(live, groups)| live.groups == groups));
            restored.push((extents, groups));
        }
        let (a, b) = (&restored[0], &restored[1]);
        assert_eq!(a.0.live, b.0.live);
        for (slot, group) in a.1.iter() {
            let other = b.1.at(slot);
            assert_eq!((group.id, &group.rows, group.log_end), (other.id, &other.rows, other.log_end));
        }
    }

    #[test]
    fn a_checkpoint_that_is_cut_short_or_too_long_is_refused() {
        let mut whole = encoded(CheckpointKind::Full, 0, &state(4));
        for length in 0..whole.len() {
            let (mut extents, mut groups) = (Extents::new(1 << 20), Groups::default());
            assert_eq!(decode_state(&whole[..length], &mut extents, &mut groups), None, "{length} bytes");
        }
        whole.push(0);
        assert_eq!(decode_state(&whole, &mut Extents::new(1 << 20), &mut Groups::default()), None);
    }

    #[test]
    fn what_recycling_takes_is_left_out() {
        let mut state = state(4);
        assert_eq!(state.0.doom(3 << 20), Some(2));
        state.1.slots().for_each(|slot| state.1.at_mut(slot).rows.retain(|row| row.generation > 2));
        assert!(state.0.leave_out());
        let bytes = encoded(CheckpointKind::Full, 0, &state);
        let mut restored = Extents::new(1 << 20);
        decode_state(&bytes, &mut restored, &mut Groups::default()).expect("sound");
        let generations: Vec<u64> = restored.live.iter().map(|live| live.generation).collect();
        assert_eq!(generations, [3, 4]);
    }

    #[test]
    fn parts_lie_one_behind_the_other_each_with_room_for_its_header() {
        let mut parts = Parts::default();
        for content in [&b"one"[..], b"", b"three"] {
            parts.push(content);
        }
        let found: Vec<&[u8]> =
            (0..parts.len()).map(|at| &parts.bytes[parts.range(at)][PART_HEADER_BYTES..]).collect();
        assert_eq!(found, [&b"one"[..], b"", b"three"]);
        parts.clear();
        assert_eq!(parts.len(), 0);
    }
}
