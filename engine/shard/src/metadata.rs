//! Topics and producer-id ranges: the state of a log's metadata group, and the commands that change it.
//!
//! A state machine over the group's entries: the state is what the entries so far say, applied when they are
//! appended and again when they are replayed. The group of log 0 has all topics and decides on them; that of any other
//! log has the topics that the log keeps some of, so that it can be started without asking. Ids of topics and groups
//! only count up and are never used twice: one that a crash took back was never told to anyone. The steps between the
//! commands are in `change`, those of the other logs in `holding`.

use std::collections::BTreeMap;
use std::sync::Arc;

use corelog_model::limits::{MAX_PARTITIONS_PER_TOPIC, is_topic_name};
use corelog_model::{Durability, GroupId, LogId, TopicId};

use crate::codec::{RISING_LIMIT, Reader, Writer};

/// Version of the commands' encoding, the first byte of each.
const COMMAND_VERSION: u8 = 1;

/// One entry of the metadata group. Numbers and layout are on disk.
///
/// In log 0 a topic passes `Creating` -> `Opened` by each log that keeps some of it -> `Ready`, and `Deleting` ->
/// `Closed` by each log -> `Deleted`; one that a log refuses to open goes from `Creating` to `Deleting`. In every other
/// log that keeps some of it, it is `Held` and then `Dropped`. What was answered to a client is durable; a restart goes
/// on where the entries end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Creating(Arc<TopicSpec>),
    Opened {
        topic: TopicId,
        log: LogId,
    },
    Ready {
        topic: TopicId,
    },
    Deleting {
        topic: TopicId,
    },
    Closed {
        topic: TopicId,
        log: LogId,
    },
    Deleted {
        topic: TopicId,
    },
    /// Producer ids below `end` may have been given.
    ProducerIds {
        end: u64,
    },
    Held(Arc<TopicSpec>),
    Dropped {
        topic: TopicId,
    },
}

/// What stays as it is while there is a topic. Shared by all who know the topic, on any core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its id, never used before.
    pub topic: TopicId,
    /// Its name.
    pub name: String,
    /// When its records are acknowledged and visible.
    pub durability: Durability,
    /// The group of its partition 0; those of the others follow.
    pub first_group: GroupId,
    /// The log of each partition.
    pub placement: Vec<LogId>,
}

impl TopicSpec {
    /// The group of a partition.
    pub(crate) fn group(&self, partition: u32) -> GroupId {
        GroupId(self.first_group.0 + u64::from(partition))
    }

    /// Its groups: those from the first up to the second.
    pub(crate) fn groups(&self) -> std::ops::Range<GroupId> {
        self.first_group..self.group(self.partitions())
    }

    /// How many partitions it has.
    pub(crate) fn partitions(&self) -> u32 {
        u32::try_from(self.placement.len()).expect("partitions of a topic are bounded")
    }

    /// Whether the topic has this partition, in this group.
    pub(crate) fn has(&self, partition: u32, group: GroupId) -> bool {
        partition < self.partitions() && self.group(partition) == group
    }

    /// Partitions kept by `log`, with their groups.
    pub(crate) fn partitions_in(&self, log: LogId) -> impl Iterator<Item = (u32, GroupId)> {
        let own = self.placement.iter().zip(0u32..).filter(move |(at, _)| **at == log);
        own.map(|(_, partition)| (partition, self.group(partition)))
    }

    /// The logs that keep some of it, each once, in order.
    pub(crate) fn logs(&self) -> Vec<LogId> {
        let mut logs = self.placement.clone();
        logs.sort_unstable();
        logs.dedup();
        logs
    }

    pub(crate) fn write(&self, to: &mut Writer<'_>) {
        to.u128(self.topic.0);
        to.u64(self.first_group.0);
        to.u8(self.durability as u8);
        to.text(&self.name);
        to.count(self.placement.len());
        for log in &self.placement {
            to.u16(log.0);
        }
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Option<Self> {
        let topic = TopicId(from.u128()?);
        let first_group = GroupId(from.u64()?);
        let durability = Durability::from_u8(from.u8()?)?;
        let name = from.text().filter(|name| is_topic_name(name))?.to_owned();
        let count = from.count(2)?;
        if count == 0 || count > MAX_PARTITIONS_PER_TOPIC as usize || first_group < GroupId::FIRST_PARTITION {
            return None;
        }
        if first_group.0.checked_add(count as u64)?.max(topic.0 as u64) >= RISING_LIMIT {
            return None;
        }
        let placement = (0..count).map(|_| from.u16().map(LogId)).collect::<Option<_>>()?;
        Some(Self { topic, name, durability, first_group, placement })
    }
}

impl Command {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        let mut to = Writer(out);
        to.u8(COMMAND_VERSION);
        match self {
            Self::Creating(spec) => {
                to.u8(1);
                spec.write(&mut to);
            }
            Self::Opened { topic, log } => write_step(&mut to, 2, *topic, Some(*log)),
            Self::Ready { topic } => write_step(&mut to, 3, *topic, None),
            Self::Deleting { topic } => write_step(&mut to, 4, *topic, None),
            Self::Closed { topic, log } => write_step(&mut to, 5, *topic, Some(*log)),
            Self::Deleted { topic } => write_step(&mut to, 6, *topic, None),
            Self::ProducerIds { end } => {
                to.u8(7);
                to.u64(*end);
            }
            Self::Held(spec) => {
                to.u8(8);
                spec.write(&mut to);
            }
            Self::Dropped { topic } => write_step(&mut to, 9, *topic, None),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        if from.u8()? != COMMAND_VERSION {
            return None;
        }
        let kind = from.u8()?;
        if kind == 1 || kind == 8 {
            let spec = Arc::new(TopicSpec::read(&mut from)?);
            let command = if kind == 1 { Self::Creating(spec) } else { Self::Held(spec) };
            return from.is_empty().then_some(command);
        }
        if kind == 7 {
            let end = from.u64().filter(|end| *end <= RISING_LIMIT)?;
            return from.is_empty().then_some(Self::ProducerIds { end });
        }
        let topic = TopicId(from.u128()?);
        let log = LogId(from.u16()?);
        let command = match kind {
            2 => Self::Opened { topic, log },
            3 if log == LogId(0) => Self::Ready { topic },
            4 if log == LogId(0) => Self::Deleting { topic },
            5 => Self::Closed { topic, log },
            6 if log == LogId(0) => Self::Deleted { topic },
            9 if log == LogId(0) => Self::Dropped { topic },
            _ => return None,
        };
        from.is_empty().then_some(command)
    }
}

/// The log is written for the steps that name one, and 0 for the others: all have one layout.
fn write_step(to: &mut Writer<'_>, kind: u8, topic: TopicId, log: Option<LogId>) {
    to.u8(kind);
    to.u128(topic.0);
    to.u16(log.unwrap_or_default().0);
}

/// How far a topic's creation or deletion is, by the entries that are appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TopicState {
    Creating,
    Ready,
    Deleting,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) spec: Arc<TopicSpec>,
    pub(crate) state: TopicState,
    /// Logs that have opened their groups of it. Closing takes them out again.
    pub(crate) opened: Vec<LogId>,
}

impl Topic {
    /// Whether all logs that keep some of it have opened it.
    pub(crate) fn is_open(&self) -> bool {
        self.spec.placement.iter().all(|log| self.opened.contains(log))
    }
}

/// The state of a metadata group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Random bits of the store, the upper half of its topic ids.
    pub(crate) store: u64,
    /// Index of the group's next entry; also the version that clients see.
    pub(crate) next_index: u64,
    pub(crate) next_topic: u64,
    pub(crate) next_group: u64,
    /// Producer ids below this one may have been given.
    pub(crate) producer_ids_end: u64,
    pub(crate) topics: BTreeMap<TopicId, Topic>,
    pub(crate) names: BTreeMap<String, TopicId>,
    pub(crate) partitions: u32,
}

/// An entry that contradicts the ones before it: the log is not one this code wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contradiction;

impl Metadata {
    pub(crate) fn new(store: u64) -> Self {
        Self {
            store,
            next_index: 1,
            next_topic: 1,
            next_group: GroupId::FIRST_PARTITION.0,
            producer_ids_end: 1,
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            partitions: 0,
        }
    }

    pub(crate) fn topic_by_name(&self, name: &str) -> Option<(TopicId, &Topic)> {
        let id = *self.names.get(name)?;
        Some((id, &self.topics[&id]))
    }

    /// The id that the next topic will have.
    pub(crate) fn next_topic_id(&self) -> TopicId {
        TopicId(u128::from(self.store) << 64 | u128::from(self.next_topic))
    }

    /// The state after one more entry of `log`'s group.
    pub(crate) fn apply(&mut self, log: LogId, command: &Command) -> Result<(), Contradiction> {
        match command {
            Command::Creating(spec) => {
                if (spec.topic.0 as u64) < self.next_topic || spec.first_group.0 < self.next_group {
                    return Err(Contradiction);
                }
                let spec = Arc::clone(spec);
                self.insert(Topic { spec, state: TopicState::Creating, opened: Vec::new() })?;
            }
            Command::Opened { topic, log } => {
                let entry = self.in_state(*topic, TopicState::Creating)?;
                if !entry.opened.contains(log) {
                    entry.opened.push(*log);
                }
            }
            Command::Ready { topic } => {
                let entry = self.in_state(*topic, TopicState::Creating)?;
                if !entry.is_open() {
                    return Err(Contradiction);
                }
                entry.state = TopicState::Ready;
            }
            Command::Deleting { topic } => {
                let entry = self.topics.get_mut(topic).ok_or(Contradiction)?;
                if entry.state == TopicState::Deleting {
                    return Err(Contradiction);
                }
                entry.state = TopicState::Deleting;
            }
            Command::Closed { topic, log } => {
                let entry = self.in_state(*topic, TopicState::Deleting)?;
                entry.opened.retain(|other| other != log);
            }
            Command::Deleted { topic } => {
                if !self.in_state(*topic, TopicState::Deleting)?.opened.is_empty() {
                    return Err(Contradiction);
                }
                self.remove(*topic);
            }
            Command::ProducerIds { end } => {
                if *end < self.producer_ids_end {
                    return Err(Contradiction);
                }
                self.producer_ids_end = *end;
            }
            Command::Held(spec) => {
                let spec = Arc::clone(spec);
                self.insert(Topic { spec, state: TopicState::Ready, opened: vec![log] })?;
            }
            Command::Dropped { topic } => {
                self.in_state(*topic, TopicState::Ready)?;
                self.remove(*topic);
            }
        }
        self.next_index += 1;
        Ok(())
    }

    /// Adds a topic, new or from a checkpoint, and counts its ids as used.
    pub(crate) fn insert(&mut self, topic: Topic) -> Result<(), Contradiction> {
        let spec = &topic.spec;
        let id = spec.topic;
        let of_this_store = id.0 >> 64 == u128::from(self.store);
        if !of_this_store || self.topics.contains_key(&id) || self.names.contains_key(&spec.name) {
            return Err(Contradiction);
        }
        let counter = id.0 as u64;
        self.next_topic = self.next_topic.max(counter.checked_add(1).ok_or(Contradiction)?);
        self.next_group = self.next_group.max(spec.groups().end.0);
        self.partitions += spec.partitions();
        self.names.insert(spec.name.clone(), id);
        self.topics.insert(id, topic);
        Ok(())
    }

    fn remove(&mut self, topic: TopicId) {
        let gone = self.topics.remove(&topic).expect("a topic that was just found");
        self.partitions -= gone.spec.partitions();
        self.names.remove(&gone.spec.name);
    }

    fn in_state(&mut self, id: TopicId, state: TopicState) -> Result<&mut Topic, Contradiction> {
        self.topics.get_mut(&id).filter(|topic| topic.state == state).ok_or(Contradiction)
    }

    /// Names and topics are one to one, and no id is ahead of its counter.
    pub(crate) fn check(&self) {
        assert_eq!(self.names.len(), self.topics.len());
        for (name, id) in &self.names {
            let spec = &self.topics[id].spec;
            assert_eq!((&spec.name, spec.topic), (name, *id));
            assert!((id.0 as u64) < self.next_topic);
        }
        let groups_end = self.topics.values().map(|topic| topic.spec.groups().end.0).max();
        assert!(groups_end.unwrap_or(0) <= self.next_group);
        assert_eq!(self.topics.values().map(|topic| topic.spec.partitions()).sum::<u32>(), self.partitions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId(0);

    fn spec(metadata: &Metadata, name: &str) -> TopicSpec {
        TopicSpec {
            topic: metadata.next_topic_id(),
            name: name.to_owned(),
            durability: Durability::Written,
            first_group: GroupId(metadata.next_group),
            placement: vec![LOG; 3],
        }
    }

    fn creating(metadata: &Metadata, name: &str) -> Command {
        Command::Creating(Arc::new(spec(metadata, name)))
    }

    fn life(metadata: &Metadata, name: &str) -> Vec<Command> {
        let topic = metadata.next_topic_id();
        vec![
            creating(metadata, name),
            Command::Opened { topic, log: LOG },
            Command::Ready { topic },
            Command::Deleting { topic },
            Command::Closed { topic, log: LOG },
            Command::Deleted { topic },
        ]
    }

    #[test]
    fn commands_survive_encoding() {
        let metadata = Metadata::new(7);
        let mut commands = life(&metadata, "orders");
        commands.push(Command::ProducerIds { end: 1001 });
        commands.push(Command::Held(Arc::new(spec(&metadata, "orders"))));
        commands.push(Command::Dropped { topic: metadata.next_topic_id() });
        let mut bytes = Vec::new();
        for command in commands {
            command.encode(&mut bytes);
            assert_eq!(Command::decode(&bytes), Some(command));
            for end in 0..bytes.len() {
                assert_eq!(Command::decode(&bytes[..end]), None, "a shorter one is not a command");
            }
        }
    }

    #[test]
    fn a_topic_created_again_gets_another_id_and_other_groups() {
        let mut metadata = Metadata::new(7);
        let first = metadata.next_topic_id();
        for command in life(&metadata, "orders") {
            metadata.apply(LOG, &command).unwrap();
            metadata.check();
        }
        assert!(metadata.topics.is_empty());
        assert_ne!(metadata.next_topic_id(), first);
        let again = creating(&metadata, "orders");
        metadata.apply(LOG, &again).unwrap();
        assert_eq!(metadata.topics.values().next().map(|topic| topic.spec.first_group), Some(GroupId(19)));
    }

    /// Every order of the six steps but the right one is refused, whatever came before.
    #[test]
    fn steps_out_of_order_contradict() {
        let steps = life(&Metadata::new(7), "orders");
        for done in 0..steps.len() {
            let mut metadata = Metadata::new(7);
            for command in &steps[..done] {
                metadata.apply(LOG, command).unwrap();
            }
            for (next, command) in steps.iter().enumerate() {
                let repeated_open = next == 1 && done == 2;
                let repeated_close = next == 4 && done == 5;
                // What a log refused to open, or what was opened and not told yet, is taken back.
                let undone = next == 3 && (done == 1 || done == 2);
                if next != done && !repeated_open && !repeated_close && !undone {
                    let before = metadata.clone();
                    assert_eq!(metadata.apply(LOG, command), Err(Contradiction), "{next} after {done}");
                    assert_eq!(metadata, before);
                }
            }
        }
    }
}
