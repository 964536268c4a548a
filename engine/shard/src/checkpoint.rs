//! The state of a shard as bytes: what the log carries forward so that old extents can go.
//!
//! A checkpoint is a sequence of parts of bounded size, each a row of items; the first part of a full one is marked. An
//! incremental one holds the groups, producers and positions that changed, and all of the metadata if any of it did: a
//! counters item begins the metadata anew. Where a position was forgotten it holds all of them, anew. Items carry their
//! length, so that a reader passes over kinds it does not know, and the index of the last entry they include; replay
//! passes over entries up to it. Decoding never panics: the bytes come from a disk.
//!
//! ```text
//! part   magic u32 "CLSP", version u16, flags u16 (1 = begins a full one)
//! item   kind u8, length u32, body
//! 1      counters   store u64, next index u64, next topic u64, next group u64, producer ids end u64
//! 2      topic      id u128, first group u64, durability u8, name, placement, state u8, opened logs
//! 3      group      group u64, topic u128, partition u32, next index u64, log start u64, log end u64,
//!                   last append u64, epochs: (term u32, start u64)
//! 4      producer   group u64, producer u64, epoch u16, next sequence u32, index u64, last use u64,
//!                   batches: (first u32, last u32, base offset u64, append u64)
//! 5      positions  next index u64, flags u8 (1 = those before are forgotten)
//! 6      position   group u64, name, offset u64, epoch u32 (0 = none), committed u64, note
//! 7      topic      as 2, with spans: (first partition u32, its group u64) in place of the first group; while it is
//!                   altered also what it becomes (id u128, first group u64, durability u8, placement of what is
//!                   added) and the logs that have opened that. Written where 2 cannot say it.
//! 8      topic      as 7, with options behind the placement of the topic and behind that of what it becomes: a count, then
//!                   (tag u16, length u16, bytes). Written where 7 cannot say it.
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use corelog_model::{GroupId, LogId, ProducerId, Term, TopicId};
use corelog_storage::CheckpointKind;

use crate::codec::{RISING_LIMIT, Reader, Writer};
use crate::metadata::{Metadata, Next, Topic, TopicState};
use crate::partition::{Cursors, Partition};
use crate::position::{Change, Positions, read_position, write_position};
use crate::producer_state::{ProducerState, Producers, REMEMBERED, Remembered};
use crate::shard::Shard;
use crate::spec::{Alteration, TopicSpec, read_logs, read_options, write_logs, write_options};

const MAGIC: u32 = u32::from_le_bytes(*b"CLSP");
const VERSION: u16 = 1;
const FIRST: u16 = 1;
const ITEM_HEADER_BYTES: usize = 5;
/// What the log puts before a part, within its limit for entries.
const PART_OVERHEAD_BYTES: usize = 64;
/// Target size of a part.
const PART_BYTES: usize = 256 << 10;

/// Bytes that do not decode to a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Shard {
    /// Hands the state to the log when the log asks for it.
    pub(crate) fn write_checkpoint(&mut self) {
        let Some(kind) = self.log.wants_checkpoint() else { return };
        let part_bytes = (self.config.log.max_batch_bytes as usize - PART_OVERHEAD_BYTES).min(PART_BYTES);
        let view = View {
            metadata: &self.metadata,
            metadata_changed: self.metadata.next_index != self.metadata_checkpointed,
            producers: &self.producers,
            positions: &self.positions,
        };
        let groups = self.partitions.iter().map(|(_, partition)| partition);
        let CheckpointBuffers { parts, encoder } = &mut self.checkpoint;
        parts.clear();
        encode(kind, &view, groups, part_bytes, encoder, &mut |part| parts.push(part));
        self.log.checkpoint(kind, parts);
        self.metadata_checkpointed = self.metadata.next_index;
        self.producers.checkpointed();
        self.positions.checkpointed();
        self.partitions.iter_mut().for_each(|partition| partition.changed = false);
    }
}

/// Memory that one checkpoint leaves to the next.
#[derive(Debug)]
pub(crate) struct CheckpointBuffers {
    parts: corelog_storage::Parts,
    encoder: Encoder,
}

impl CheckpointBuffers {
    /// With room for the state of some thousands of partitions.
    pub(crate) fn new() -> Self {
        let encoder = Encoder { part: Vec::with_capacity(PART_BYTES), item: Vec::with_capacity(4096) };
        Self { parts: corelog_storage::Parts::with_capacity(4 * PART_BYTES), encoder }
    }
}

/// The part and the item that are being encoded.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    part: Vec<u8>,
    item: Vec<u8>,
}

/// Splits items into parts and hands each full part on.
struct Parts<'a> {
    encoder: &'a mut Encoder,
    max_bytes: usize,
    hand_on: &'a mut dyn FnMut(&[u8]),
}

impl Parts<'_> {
    fn begin(&mut self, flags: u16) {
        self.encoder.part.clear();
        let mut to = Writer(&mut self.encoder.part);
        to.u32(MAGIC);
        to.u16(VERSION);
        to.u16(flags);
    }

    fn add(&mut self, kind: u8, write: impl FnOnce(&mut Writer<'_>)) {
        self.encoder.item.clear();
        write(&mut Writer(&mut self.encoder.item));
        if self.encoder.part.len() + ITEM_HEADER_BYTES + self.encoder.item.len() > self.max_bytes {
            (self.hand_on)(&self.encoder.part);
            self.begin(0);
        }
        let Encoder { part, item } = &mut *self.encoder;
        let mut to = Writer(part);
        to.u8(kind);
        to.count(item.len());
        part.extend_from_slice(item);
    }
}

/// What a checkpoint is made from, the groups excepted.
pub(crate) struct View<'a> {
    pub(crate) metadata: &'a Metadata,
    pub(crate) metadata_changed: bool,
    pub(crate) producers: &'a Producers,
    pub(crate) positions: &'a Positions,
}

/// Encodes the state, or what changed of it, into parts of at most `part_bytes` (one larger item has a part of its
/// own).
pub(crate) fn encode<'a>(
    kind: CheckpointKind,
    view: &View<'_>,
    groups: impl Iterator<Item = &'a Partition>,
    part_bytes: usize,
    encoder: &mut Encoder,
    hand_on: &mut dyn FnMut(&[u8]),
) {
    let full = kind == CheckpointKind::Full;
    let mut parts = Parts { encoder, max_bytes: part_bytes, hand_on };
    parts.begin(if full { FIRST } else { 0 });
    if full || view.metadata_changed {
        parts.add(1, |to| write_counters(to, view.metadata));
        for topic in view.metadata.topics.values() {
            if topic.has_options() {
                parts.add(8, |to| write_altered_topic(to, topic, true));
            } else if topic.spec.is_plain() && topic.next.is_none() {
                parts.add(2, |to| write_topic_item(to, topic));
            } else {
                parts.add(7, |to| write_altered_topic(to, topic, false));
            }
        }
    }
    for group in groups.filter(|group| full || group.changed) {
        parts.add(3, |to| write_group(to, group));
    }
    let mut add_producer = |state: &ProducerState| {
        // One that was only ever refused has nothing that a restart must know.
        if state.count > 0 {
            parts.add(4, |to| write_producer(to, state));
        }
    };
    match kind {
        CheckpointKind::Full => view.producers.iter().for_each(&mut add_producer),
        CheckpointKind::Incremental => view.producers.changed().for_each(&mut add_producer),
    }
    encode_positions(full, view.positions, &mut parts);
    (parts.hand_on)(&parts.encoder.part);
}

fn encode_positions(full: bool, positions: &Positions, parts: &mut Parts<'_>) {
    let anew = full || positions.is_anew();
    if positions.next_index == 1 || !full && !positions.has_changed() {
        return;
    }
    parts.add(5, |to| {
        to.u64(positions.next_index);
        to.u8(u8::from(anew));
    });
    for (group, name, position) in positions.iter(anew) {
        parts.add(6, |to| write_position(to, group, name, position));
    }
}

/// What checkpoints say so far.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) metadata: Metadata,
    pub(crate) groups: BTreeMap<GroupId, Partition>,
    pub(crate) producers: Producers,
    pub(crate) positions: Positions,
}

impl State {
    /// Takes one part in. A first part begins anew.
    pub(crate) fn decode(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let (flags, mut from) = begin(bytes).ok_or(Malformed)?;
        if flags & FIRST != 0 {
            self.groups.clear();
            self.producers.clear();
            self.positions.clear();
        }
        while !from.is_empty() {
            if let Some(item) = read_item(&mut from).ok_or(Malformed)? {
                self.take(item).ok_or(Malformed)?;
            }
        }
        Ok(())
    }

    /// Takes one item in, if it fits what is there.
    fn take(&mut self, item: Item) -> Option<()> {
        match item {
            Item::Counters(counters) => self.set_counters(&counters),
            Item::Topic(topic) => self.metadata.insert(topic).ok(),
            Item::Group(item) => {
                let group = self.open_group(&item)?;
                self.groups.insert(group.group, group);
                Some(())
            }
            Item::Producer(state) => {
                self.producers.restore(state);
                Some(())
            }
            Item::Positions { next_index, anew } => {
                if anew {
                    self.positions.clear();
                }
                self.positions.next_index = next_index;
                Some(())
            }
            Item::Position(change) => {
                let begun = self.positions.next_index > 1;
                begun.then(|| self.positions.apply(change, 0))
            }
        }
    }

    fn set_counters(&mut self, counters: &Counters) -> Option<()> {
        if counters.store != self.metadata.store {
            return None;
        }
        self.metadata = Metadata::new(counters.store);
        self.metadata.next_index = counters.next_index;
        self.metadata.next_topic = counters.next_topic;
        self.metadata.next_group = counters.next_group;
        self.metadata.producer_ids_end = counters.producer_ids_end;
        Some(())
    }

    /// Forgets groups that a later checkpoint no longer lists as open, and their producers.
    pub(crate) fn drop_closed(&mut self, log: LogId) {
        let topics = &self.metadata.topics;
        let is_open = |partition: &Partition| {
            let topic = topics.get(&partition.topic);
            topic.is_some_and(|topic| topic.has_open(log, partition.partition, partition.group))
        };
        let closed: Vec<_> =
            self.groups.values().filter(|group| !is_open(group)).map(|group| group.group).collect();
        for group in &closed {
            self.groups.remove(group);
        }
        let groups = &self.groups;
        self.positions.retain(|group| groups.contains_key(&group));
        self.producers.drop_groups(|group| !groups.contains_key(&group));
    }

    fn open_group(&self, item: &GroupItem) -> Option<Partition> {
        let topic = self.metadata.topics.get(&item.topic)?;
        if !topic.coming().0.has(item.partition, item.group) {
            return None;
        }
        let durability = topic.spec.durability;
        let mut partition = Partition::new(item.group, item.topic, item.partition, durability);
        partition.next_index = item.next_index;
        partition.last_append_us = item.last_append_us;
        let (log_start, log_end) = (item.log_start, item.log_end);
        partition.set_cursors(Cursors { log_start, high_watermark: log_start, log_end });
        item.epochs.iter().for_each(|&(term, start)| partition.epochs.append(term, start));
        Some(partition)
    }
}

/// A group item, by itself.
pub(crate) struct GroupItem {
    pub(crate) group: GroupId,
    pub(crate) topic: TopicId,
    pub(crate) partition: u32,
    pub(crate) next_index: u64,
    pub(crate) log_start: u64,
    pub(crate) log_end: u64,
    pub(crate) last_append_us: u64,
    /// Terms and where they begin, both rising.
    pub(crate) epochs: Vec<(Term, u64)>,
}

fn read_group(from: &mut Reader<'_>) -> Option<GroupItem> {
    let mut item = GroupItem {
        group: GroupId(from.u64()?),
        topic: TopicId(from.u128()?),
        partition: from.u32()?,
        next_index: from.u64()?,
        log_start: from.u64()?,
        log_end: from.u64()?,
        last_append_us: from.u64()?,
        epochs: Vec::new(),
    };
    if item.log_start > item.log_end || item.log_end.max(item.next_index) > RISING_LIMIT {
        return None;
    }
    for _ in 0..from.count(12)? {
        let (term, start) = (Term(from.u32()?), from.u64()?);
        let rises = item.epochs.last().is_none_or(|&(before, at)| before < term && at < start);
        if !rises || start > item.log_end {
            return None;
        }
        item.epochs.push((term, start));
    }
    Some(item)
}

/// The numbers that the metadata give next, and whose they are.
pub(crate) struct Counters {
    pub(crate) store: u64,
    pub(crate) next_index: u64,
    pub(crate) next_topic: u64,
    pub(crate) next_group: u64,
    pub(crate) producer_ids_end: u64,
}

/// One item of a part, by itself: what it says is not held against what the others say.
pub(crate) enum Item {
    Counters(Counters),
    Topic(Topic),
    Group(GroupItem),
    Producer(ProducerState),
    /// Those that follow are of this state of the positions group.
    Positions {
        next_index: u64,
        anew: bool,
    },
    Position(Change),
}

/// The items of one part, those of unknown kinds left out.
pub(crate) fn items(part: &[u8]) -> Option<Vec<Item>> {
    let (_, mut from) = begin(part)?;
    let mut items = Vec::new();
    while !from.is_empty() {
        items.extend(read_item(&mut from)?);
    }
    Some(items)
}

/// The flags of a part, and its items.
fn begin(part: &[u8]) -> Option<(u16, Reader<'_>)> {
    let mut from = Reader(part);
    let (Some(MAGIC), Some(VERSION), Some(flags)) = (from.u32(), from.u16(), from.u16()) else { return None };
    Some((flags, from))
}

/// The next item; `Some(None)` where it is of an unknown kind.
fn read_item(from: &mut Reader<'_>) -> Option<Option<Item>> {
    let kind = from.u8()?;
    let length = from.count(1)?;
    let mut body = Reader(from.bytes(length)?);
    Some(Some(match kind {
        1 => Item::Counters(read_counters(&mut body)?),
        2 => Item::Topic(read_topic_item(&mut body)?),
        3 => Item::Group(read_group(&mut body)?),
        4 => Item::Producer(read_producer(&mut body)?),
        5 => read_positions(&mut body)?,
        6 => Item::Position(read_position(&mut body)?),
        7 => Item::Topic(read_altered_topic(&mut body, false)?),
        8 => Item::Topic(read_altered_topic(&mut body, true).filter(Topic::has_options)?),
        _ => return Some(None),
    }))
}

fn read_counters(from: &mut Reader<'_>) -> Option<Counters> {
    let store = from.u64()?;
    let (next_index, next_topic, next_group) = (from.u64()?, from.u64()?, from.u64()?);
    let producer_ids_end = from.u64()?;
    let rising = [next_index, next_topic, next_group, producer_ids_end];
    let counters = Counters { store, next_index, next_topic, next_group, producer_ids_end };
    rising.iter().all(|number| *number <= RISING_LIMIT).then_some(counters)
}

fn read_positions(from: &mut Reader<'_>) -> Option<Item> {
    let next_index = from.u64().filter(|index| (1..=RISING_LIMIT).contains(index))?;
    let anew = match from.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    Some(Item::Positions { next_index, anew })
}

fn write_counters(to: &mut Writer<'_>, metadata: &Metadata) {
    to.u64(metadata.store);
    to.u64(metadata.next_index);
    to.u64(metadata.next_topic);
    to.u64(metadata.next_group);
    to.u64(metadata.producer_ids_end);
}

fn write_topic_item(to: &mut Writer<'_>, topic: &Topic) {
    topic.spec.write_plain(to);
    write_state(to, topic);
}

fn write_state(to: &mut Writer<'_>, topic: &Topic) {
    to.u8(match topic.state {
        TopicState::Creating => 1,
        TopicState::Ready => 2,
        TopicState::Deleting => 3,
        TopicState::Altering => 4,
        TopicState::Reverting => 5,
    });
    write_logs(to, &topic.opened);
}

fn read_topic_item(from: &mut Reader<'_>) -> Option<Topic> {
    let spec = TopicSpec::read_plain(from)?;
    read_state(spec, from).filter(|topic| !topic.is_altered())
}

fn read_state(spec: TopicSpec, from: &mut Reader<'_>) -> Option<Topic> {
    let state = match from.u8()? {
        1 => TopicState::Creating,
        2 => TopicState::Ready,
        3 => TopicState::Deleting,
        4 => TopicState::Altering,
        5 => TopicState::Reverting,
        _ => return None,
    };
    Some(Topic::new(Arc::new(spec), state, read_logs(from)?))
}

fn write_altered_topic(to: &mut Writer<'_>, topic: &Topic, options: bool) {
    topic.spec.write(to);
    if options {
        write_options(to, &topic.spec.retention);
    }
    write_state(to, topic);
    if let Some(next) = &topic.next {
        Alteration::between(&topic.spec, &next.spec).write(to);
        if options {
            write_options(to, &next.spec.retention);
        }
        write_logs(to, &next.opened);
    }
}

fn read_altered_topic(from: &mut Reader<'_>, options: bool) -> Option<Topic> {
    let mut spec = TopicSpec::read(from)?;
    if options {
        spec.retention = read_options(from)?;
    }
    let mut topic = read_state(spec, from)?;
    if topic.is_altered() {
        let mut alteration = Alteration::read(from)?;
        if options {
            alteration.retention = read_options(from)?;
        }
        let spec = Arc::new(topic.spec.altered_by(&alteration)?);
        topic.next = Some(Next { spec, opened: read_logs(from)? });
    }
    Some(topic)
}

fn write_group(to: &mut Writer<'_>, partition: &Partition) {
    to.u64(partition.group.0);
    to.u128(partition.topic.0);
    to.u32(partition.partition);
    to.u64(partition.next_index);
    to.u64(partition.cursors().log_start);
    to.u64(partition.cursors().log_end);
    to.u64(partition.last_append_us);
    to.count(partition.epochs.entries().len());
    for epoch in partition.epochs.entries() {
        to.u32(epoch.term.0);
        to.u64(epoch.start);
    }
}

fn write_producer(to: &mut Writer<'_>, state: &ProducerState) {
    to.u64(state.group.0);
    to.u64(state.producer.0);
    to.u16(state.epoch);
    to.u32(state.next_sequence);
    to.u64(state.index);
    to.u64(state.last_us);
    to.u8(state.count);
    for batch in &state.batches[..usize::from(state.count)] {
        to.u32(batch.first);
        to.u32(batch.last);
        to.u64(batch.base_offset);
        to.u64(batch.append_us);
    }
}

fn read_producer(from: &mut Reader<'_>) -> Option<ProducerState> {
    let mut state = ProducerState {
        group: GroupId(from.u64()?),
        producer: ProducerId(from.u64()?),
        epoch: from.u16()?,
        next_sequence: from.u32()?,
        index: from.u64()?,
        last_us: from.u64()?,
        count: from.u8()?,
        batches: [Remembered::default(); REMEMBERED],
    };
    for batch in state.batches.get_mut(..usize::from(state.count))? {
        // Frame 0: whatever an earlier start wrote and this one has read back is as safe as it will ever be.
        let (first, last, base_offset, append_us) = (from.u32()?, from.u32()?, from.u64()?, from.u64()?);
        *batch = Remembered { first, last, base_offset, append_us, frame: 0 };
    }
    Some(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Command;
    use crate::position::Position;
    use crate::producer_state::{Identity, ProducerLimits};

    const LIMITS: ProducerLimits = ProducerLimits { pairs: 1000, expiry_us: 1000, keep_us: 100 };

    fn empty() -> State {
        let (metadata, producers) = (Metadata::new(7), Producers::new(LIMITS));
        State { metadata, groups: BTreeMap::new(), producers, positions: Positions::new(1000) }
    }

    /// One ready topic of three partitions with epochs and producers, one topic on its way.
    fn sample() -> State {
        let mut state = empty();
        let topic = state.metadata.next_topic_id();
        for name in ["orders", "payments"] {
            let spec = TopicSpec::new(
                state.metadata.next_topic_id(),
                name.to_owned(),
                corelog_model::Durability::Durable,
                GroupId(state.metadata.next_group),
                vec![LogId(0); 3],
            );
            state.metadata.apply(LogId(0), &Command::Creating(Arc::new(spec))).unwrap();
        }
        state.metadata.apply(LogId(0), &Command::Opened { topic, log: LogId(0) }).unwrap();
        state.metadata.apply(LogId(0), &Command::Ready { topic }).unwrap();
        let opened: Vec<_> = state.metadata.topics[&topic].open_in(LogId(0)).collect();
        for (partition, group) in opened {
            let entry = Partition::new(group, topic, partition, corelog_model::Durability::Durable);
            state.groups.insert(group, entry);
            for n in 0..20u32 {
                append(&mut state, group, n, Term(1 + n / 7));
            }
            commit(&mut state, group, "reader", Some(20));
            commit(&mut state, group, "größe: another", Some(7));
        }
        state
    }

    fn parts_of(state: &State, kind: CheckpointKind, part_bytes: usize) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        let State { metadata, producers, positions, .. } = state;
        let view = View { metadata, metadata_changed: true, producers, positions };
        let (groups, mut encoder) = (state.groups.values(), Encoder::default());
        encode(kind, &view, groups, part_bytes, &mut encoder, &mut |part| parts.push(part.to_vec()));
        parts
    }

    fn commit(state: &mut State, group: GroupId, name: &str, offset: Option<u64>) {
        let position = |offset| Position {
            offset,
            leader_epoch: (offset > 10).then_some(Term(2)),
            commit_us: 9,
            metadata: "a note".into(),
        };
        state.positions.next_index += 1;
        state.positions.apply(Change { group, name: name.into(), position: offset.map(position) }, 0);
    }

    fn positions_of(state: &State) -> Vec<(GroupId, String, Position)> {
        let all = state.positions.iter(true);
        all.map(|(group, name, position)| (group, name.to_owned(), position.clone())).collect()
    }

    fn append(state: &mut State, group: GroupId, n: u32, term: Term) {
        let entry = state.groups.get_mut(&group).unwrap();
        let (first, base_offset) = (n / 3, entry.cursors().log_end);
        let identity = Identity { producer: ProducerId(1 + u64::from(n % 3)), epoch: 0, first, last: first };
        let at = Remembered { first, last: first, base_offset, append_us: 5 + u64::from(n), frame: 0 };
        state.producers.appended(group, entry.next_index, identity, at, at.append_us);
        entry.appended(term, base_offset + 1, at.append_us);
    }

    #[test]
    fn the_state_survives_whatever_the_size_of_its_parts() {
        let state = sample();
        for part_bytes in [64, 500, 1 << 20] {
            let parts = parts_of(&state, CheckpointKind::Full, part_bytes);
            let mut back = sample();
            for part in &parts {
                back.decode(part).unwrap();
            }
            assert_eq!(back.metadata, state.metadata);
            assert_eq!(format!("{:?}", back.groups), format!("{:?}", state.groups));
            assert!(back.producers.iter().eq(state.producers.iter()));
            assert_eq!(positions_of(&back), positions_of(&state));
            assert_eq!((back.positions.len(), back.positions.next_index), (6, 7));
            assert_eq!(
                parts_of(&back, CheckpointKind::Full, part_bytes),
                parts,
                "the same state is the same bytes"
            );
        }
    }

    /// A full checkpoint, some appends and the end of a topic, an incremental one: together they are the state.
    #[test]
    fn an_incremental_checkpoint_adds_what_changed_and_no_more() {
        let mut state = sample();
        let mut back = empty();
        for part in parts_of(&state, CheckpointKind::Full, 500) {
            back.decode(&part).unwrap();
        }
        state.producers.checkpointed();
        state.positions.checkpointed();
        state.groups.values_mut().for_each(|group| group.changed = false);
        append(&mut state, GroupId(17), 20, Term(4));
        commit(&mut state, GroupId(17), "reader", Some(21));
        let parts = parts_of(&state, CheckpointKind::Incremental, 1 << 20);
        assert!(parts[0].len() < parts_of(&state, CheckpointKind::Full, 1 << 20)[0].len() / 2);
        back.decode(&parts[0]).unwrap();
        assert!(back.producers.iter().eq(state.producers.iter()), "in the same order of use");
        assert_eq!(positions_of(&back), positions_of(&state));
        assert_eq!(count_positions(&parts[0]), 1, "the one that changed");
        state.groups.values_mut().for_each(|group| group.changed = true);
        assert_eq!(format!("{:?}", back.groups), format!("{:?}", state.groups));

        let topic = *state.metadata.topics.keys().next().unwrap();
        state.metadata.apply(LogId(0), &Command::Deleting { topic }).unwrap();
        state.metadata.apply(LogId(0), &Command::Closed { topic, log: LogId(0) }).unwrap();
        back.decode(&parts_of(&state, CheckpointKind::Incremental, 1 << 20)[0]).unwrap();
        back.drop_closed(LogId(0));
        assert!(back.groups.is_empty() && back.producers.len() == 0);
        assert_eq!((back.positions.len(), back.positions.bytes()), (0, 0));
    }

    fn count_positions(part: &[u8]) -> usize {
        items(part).unwrap().iter().filter(|item| matches!(item, Item::Position(_))).count()
    }

    /// What was forgotten since the last checkpoint is in no other: the next one says all anew.
    #[test]
    fn a_forgotten_position_does_not_come_back_with_a_checkpoint() {
        let mut state = sample();
        let mut back = empty();
        for part in parts_of(&state, CheckpointKind::Full, 500) {
            back.decode(&part).unwrap();
        }
        state.positions.checkpointed();
        assert!(!state.positions.has_changed());
        commit(&mut state, GroupId(17), "reader", None);
        for part in parts_of(&state, CheckpointKind::Incremental, 500) {
            back.decode(&part).unwrap();
        }
        assert_eq!(positions_of(&back), positions_of(&state));
        assert_eq!((back.positions.len(), back.positions.next_index), (5, 8));
        back.positions.check(|_| true);
    }

    #[test]
    fn who_looks_into_a_part_finds_every_item_of_it() {
        use crate::inspect::{Fact, Step, checkpoint};
        let state = sample();
        let parts = parts_of(&state, CheckpointKind::Full, 500);
        assert!(parts.len() > 1);
        let facts: Vec<Fact> =
            parts.iter().flat_map(|part| checkpoint(part).expect("it was written so")).collect();
        let count = |wanted: fn(&Fact) -> bool| facts.iter().filter(|fact| wanted(fact)).count();
        assert_eq!(count(|fact| matches!(fact, Fact::Counters { next_index: 5, .. })), 1);
        assert_eq!(count(|fact| matches!(fact, Fact::Topic { step: Step::Ready, partitions: 3, .. })), 1);
        assert_eq!(count(|fact| matches!(fact, Fact::Topic { step: Step::Creating, .. })), 1);
        assert_eq!(count(|fact| matches!(fact, Fact::Partition { log_start: 0, log_end: 20, .. })), 3);
        assert_eq!(count(|fact| matches!(fact, Fact::Producer { .. })), state.producers.len());
        assert_eq!(count(|fact| matches!(fact, Fact::Positions { next_index: 7, anew: true })), 1);
        assert_eq!(count(|fact| matches!(fact, Fact::Position { offset: 20, .. })), 3);
        for end in 0..parts[0].len() {
            let _ = checkpoint(&parts[0][..end]);
        }
        assert_eq!(checkpoint(&parts[0][..7]), None);
    }

    #[test]
    fn damaged_parts_are_refused_not_believed() {
        let part = parts_of(&sample(), CheckpointKind::Full, 1 << 20).remove(0);
        for end in 0..part.len() {
            let _ = empty().decode(&part[..end]);
        }
        assert_eq!(empty().decode(&part[..7]), Err(Malformed));
        assert_eq!(empty().decode(&part[..part.len() - 1]), Err(Malformed));
        for at in 0..part.len() {
            let mut bent = part.clone();
            bent[at] ^= 0xff;
            let _ = empty().decode(&bent);
        }
    }
}
