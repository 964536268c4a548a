//! Topics and producer-id ranges: the state of the metadata group, and the commands that change it.
//!
//! A state machine over the group's entries: the state is what the entries so far say, applied when they are
//! appended and again when they are replayed. Ids of topics and groups only count up and are never used twice: one
//! that a crash took back was never told to anyone. The steps between the commands are in `change`.

use std::collections::BTreeMap;

use corelog_model::limits::{MAX_PARTITIONS_PER_TOPIC, is_topic_name};
use corelog_model::{Durability, GroupId, LogId, TopicId};

use crate::codec::{RISING_LIMIT, Reader, Writer};

/// Version of the commands' encoding, the first byte of each.
const COMMAND_VERSION: u8 = 1;

/// One entry of the metadata group. Numbers and layout are on disk.
///
/// A topic passes `Creating` -> `Opened` by each log that keeps some of it -> `Ready`, and `Deleting` -> `Closed`
/// by each log -> `Deleted`. What was answered to a client is durable; a restart goes on where the entries end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Creating {
        topic: TopicId,
        first_group: GroupId,
        durability: Durability,
        name: String,
        placement: Vec<LogId>,
    },
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
}

impl Command {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        let mut to = Writer(out);
        to.u8(COMMAND_VERSION);
        match self {
            Self::Creating { topic, first_group, durability, name, placement } => {
                to.u8(1);
                write_topic(&mut to, *topic, *first_group, *durability, name, placement);
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
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        if from.u8()? != COMMAND_VERSION {
            return None;
        }
        let kind = from.u8()?;
        if kind == 1 {
            let (topic, first_group, durability, name, placement) = read_topic(&mut from)?;
            return from.is_empty().then_some(Self::Creating {
                topic,
                first_group,
                durability,
                name,
                placement,
            });
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

pub(crate) fn write_topic(
    to: &mut Writer<'_>,
    topic: TopicId,
    first_group: GroupId,
    durability: Durability,
    name: &str,
    placement: &[LogId],
) {
    to.u128(topic.0);
    to.u64(first_group.0);
    to.u8(durability as u8);
    to.text(name);
    to.count(placement.len());
    for log in placement {
        to.u16(log.0);
    }
}

pub(crate) type TopicFields = (TopicId, GroupId, Durability, String, Vec<LogId>);

pub(crate) fn read_topic(from: &mut Reader<'_>) -> Option<TopicFields> {
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
    Some((topic, first_group, durability, name, placement))
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
    pub(crate) name: String,
    pub(crate) durability: Durability,
    pub(crate) first_group: GroupId,
    /// The log of each partition.
    pub(crate) placement: Vec<LogId>,
    pub(crate) state: TopicState,
    /// Logs that have opened their groups of it. Closing takes them out again.
    pub(crate) opened: Vec<LogId>,
}

impl Topic {
    pub(crate) fn group(&self, partition: u32) -> GroupId {
        GroupId(self.first_group.0 + u64::from(partition))
    }

    /// Whether the topic has this partition, in this group.
    pub(crate) fn has(&self, partition: u32, group: GroupId) -> bool {
        (partition as usize) < self.placement.len() && self.group(partition) == group
    }

    /// Partitions kept by `log`, with their groups.
    pub(crate) fn partitions_in(&self, log: LogId) -> impl Iterator<Item = (u32, GroupId)> {
        let own = self.placement.iter().zip(0u32..).filter(move |(at, _)| **at == log);
        own.map(|(_, partition)| (partition, self.group(partition)))
    }

    /// Whether all logs that keep some of it have opened it.
    pub(crate) fn is_open(&self) -> bool {
        self.placement.iter().all(|log| self.opened.contains(log))
    }
}

/// The state of the metadata group.
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

    /// The state after one more entry.
    pub(crate) fn apply(&mut self, command: &Command) -> Result<(), Contradiction> {
        match command {
            Command::Creating { topic, first_group, durability, name, placement } => {
                if (topic.0 as u64) < self.next_topic || first_group.0 < self.next_group {
                    return Err(Contradiction);
                }
                let topic_state = Topic {
                    name: name.clone(),
                    durability: *durability,
                    first_group: *first_group,
                    placement: placement.clone(),
                    state: TopicState::Creating,
                    opened: Vec::new(),
                };
                self.insert(*topic, topic_state)?;
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
                self.in_state(*topic, TopicState::Ready)?.state = TopicState::Deleting;
            }
            Command::Closed { topic, log } => {
                let entry = self.in_state(*topic, TopicState::Deleting)?;
                entry.opened.retain(|other| other != log);
            }
            Command::Deleted { topic } => {
                let gone = self.in_state(*topic, TopicState::Deleting)?;
                if !gone.opened.is_empty() {
                    return Err(Contradiction);
                }
                let gone = self.topics.remove(topic).ok_or(Contradiction)?;
                self.partitions -= partition_count(&gone);
                self.names.remove(&gone.name);
            }
            Command::ProducerIds { end } => {
                if *end < self.producer_ids_end {
                    return Err(Contradiction);
                }
                self.producer_ids_end = *end;
            }
        }
        self.next_index += 1;
        Ok(())
    }

    /// Adds a topic, new or from a checkpoint, and counts its ids as used.
    pub(crate) fn insert(&mut self, id: TopicId, topic: Topic) -> Result<(), Contradiction> {
        let of_this_store = id.0 >> 64 == u128::from(self.store);
        if !of_this_store || self.topics.contains_key(&id) || self.names.contains_key(&topic.name) {
            return Err(Contradiction);
        }
        let counter = id.0 as u64;
        self.next_topic = self.next_topic.max(counter.checked_add(1).ok_or(Contradiction)?);
        self.next_group = self.next_group.max(topic.first_group.0 + topic.placement.len() as u64);
        self.partitions += partition_count(&topic);
        self.names.insert(topic.name.clone(), id);
        self.topics.insert(id, topic);
        Ok(())
    }

    fn in_state(&mut self, id: TopicId, state: TopicState) -> Result<&mut Topic, Contradiction> {
        self.topics.get_mut(&id).filter(|topic| topic.state == state).ok_or(Contradiction)
    }

    /// Names and topics are one to one, and no id is ahead of its counter.
    pub(crate) fn check(&self) {
        assert_eq!(self.names.len(), self.topics.len());
        for (name, id) in &self.names {
            assert_eq!(&self.topics[id].name, name);
            assert!((id.0 as u64) < self.next_topic);
        }
        let groups_end =
            self.topics.values().map(|topic| topic.first_group.0 + topic.placement.len() as u64).max();
        assert!(groups_end.unwrap_or(0) <= self.next_group);
        assert_eq!(self.topics.values().map(partition_count).sum::<u32>(), self.partitions);
    }
}

fn partition_count(topic: &Topic) -> u32 {
    u32::try_from(topic.placement.len()).expect("partitions of a topic are bounded")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId(0);

    fn creating(metadata: &Metadata, name: &str) -> Command {
        Command::Creating {
            topic: metadata.next_topic_id(),
            first_group: GroupId(metadata.next_group),
            durability: Durability::Written,
            name: name.to_owned(),
            placement: vec![LOG; 3],
        }
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
            metadata.apply(&command).unwrap();
            metadata.check();
        }
        assert!(metadata.topics.is_empty());
        assert_ne!(metadata.next_topic_id(), first);
        let again = creating(&metadata, "orders");
        metadata.apply(&again).unwrap();
        assert_eq!(metadata.topics.values().next().map(|topic| topic.first_group), Some(GroupId(19)));
    }

    /// Every order of the six steps but the right one is refused, whatever came before.
    #[test]
    fn steps_out_of_order_contradict() {
        let steps = life(&Metadata::new(7), "orders");
        for done in 0..steps.len() {
            let mut metadata = Metadata::new(7);
            for command in &steps[..done] {
                metadata.apply(command).unwrap();
            }
            for (next, command) in steps.iter().enumerate() {
                let repeated_open = next == 1 && done == 2;
                let repeated_close = next == 4 && done == 5;
                if next != done && !repeated_open && !repeated_close {
                    let before = metadata.clone();
                    assert_eq!(metadata.apply(command), Err(Contradiction), "{next} after {done}");
                    assert_eq!(metadata, before);
                }
            }
        }
    }
}
