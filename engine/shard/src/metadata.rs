//! Topics and producer-id ranges: the state of a log's metadata group, and the commands that change it.
//!
//! A state machine over the group's entries: the state is what the entries so far say, applied when they are
//! appended and again when they are replayed. The group of log 0 has all topics and decides on them; that of any other
//! log has the topics that the log keeps some of, so that it can be started without asking. Ids of topics and groups
//! only count up and are never used twice: one that a crash took back was never told to anyone. The steps between the
//! commands are in `change`, those of the other logs in `holding`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use corelog_model::{GroupId, LogId, TopicId};

use crate::codec::{RISING_LIMIT, Reader, Writer};
use crate::spec::{Alteration, TopicSpec, read_options, write_options};

/// Version of the commands' encoding, the first byte of each.
const COMMAND_VERSION: u8 = 1;

/// One entry of the metadata group. Numbers and layout are on disk.
///
/// In log 0 a topic passes `Creating` -> `Opened` by each log that keeps some of it -> `Ready`, and `Deleting` ->
/// `Closed` by each log -> `Deleted`; one that a log refuses to open goes from `Creating` to `Deleting`. In between it
/// may be altered: `Altering` -> `Opened` by each log that gets partitions -> `Ready`; where a log refuses,
/// `Altering` -> `Reverting` -> `Closed` by each log that had opened them -> `Reverted`. In every other log that keeps
/// some of it, it is `Held`, again with each change of its partitions, and then `Dropped`. What was answered to a client is
/// durable; a restart goes on where the entries end.
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
    /// In place of what was held of it before.
    Held(Arc<TopicSpec>),
    Dropped {
        topic: TopicId,
    },
    Altering(Alteration),
    Reverting {
        topic: TopicId,
    },
    Reverted {
        topic: TopicId,
    },
}

impl Command {
    /// The topic of which it opens or closes groups in `log`, if it does.
    pub(crate) fn opens_or_closes(&self, log: LogId) -> Option<TopicId> {
        match self {
            Self::Held(spec) => Some(spec.topic),
            Self::Dropped { topic } => Some(*topic),
            Self::Opened { topic, log: by } | Self::Closed { topic, log: by } => {
                (*by == log).then_some(*topic)
            }
            _ => None,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        let mut to = Writer(out);
        to.u8(COMMAND_VERSION);
        match self {
            Self::Creating(spec) if spec.has_options() => write_options_of(&mut to, 14, spec),
            Self::Creating(spec) => {
                to.u8(1);
                spec.write_plain(&mut to);
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
            Self::Held(spec) if spec.is_plain() => {
                to.u8(8);
                spec.write_plain(&mut to);
            }
            Self::Dropped { topic } => write_step(&mut to, 9, *topic, None),
            Self::Held(spec) if spec.has_options() => write_options_of(&mut to, 15, spec),
            Self::Held(spec) => {
                to.u8(10);
                spec.write(&mut to);
            }
            Self::Altering(alteration) => {
                let has_options = !alteration.retention.is_none();
                to.u8(if has_options { 16 } else { 11 });
                alteration.write(&mut to);
                if has_options {
                    write_options(&mut to, &alteration.retention);
                }
            }
            Self::Reverting { topic } => write_step(&mut to, 12, *topic, None),
            Self::Reverted { topic } => write_step(&mut to, 13, *topic, None),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        if from.u8()? != COMMAND_VERSION {
            return None;
        }
        let kind = from.u8()?;
        let command = match kind {
            1 => Self::Creating(Arc::new(TopicSpec::read_plain(&mut from)?)),
            7 => Self::ProducerIds { end: from.u64().filter(|end| *end <= RISING_LIMIT)? },
            8 => Self::Held(Arc::new(TopicSpec::read_plain(&mut from)?)),
            10 => Self::Held(Arc::new(TopicSpec::read(&mut from).filter(|spec| !spec.is_plain())?)),
            11 => Self::Altering(Alteration::read(&mut from)?),
            14 => {
                Self::Creating(Arc::new(read_with_options(&mut from).filter(|spec| spec.spans.len() == 1)?))
            }
            15 => Self::Held(Arc::new(read_with_options(&mut from)?)),
            16 => {
                let alteration = Alteration::read(&mut from)?;
                let retention = read_options(&mut from).filter(|retention| !retention.is_none())?;
                Self::Altering(Alteration { retention, ..alteration })
            }
            _ => Self::decode_step(kind, &mut from)?,
        };
        from.is_empty().then_some(command)
    }

    fn decode_step(kind: u8, from: &mut Reader<'_>) -> Option<Self> {
        let topic = TopicId(from.u128()?);
        let log = LogId(from.u16()?);
        Some(match kind {
            2 => Self::Opened { topic, log },
            5 => Self::Closed { topic, log },
            // The others name no log.
            _ if log != LogId(0) => return None,
            3 => Self::Ready { topic },
            4 => Self::Deleting { topic },
            6 => Self::Deleted { topic },
            9 => Self::Dropped { topic },
            12 => Self::Reverting { topic },
            13 => Self::Reverted { topic },
            _ => return None,
        })
    }
}

fn write_options_of(to: &mut Writer<'_>, kind: u8, spec: &TopicSpec) {
    to.u8(kind);
    spec.write(to);
    write_options(to, &spec.retention);
}

fn read_with_options(from: &mut Reader<'_>) -> Option<TopicSpec> {
    let spec = TopicSpec::read(from)?;
    let retention = read_options(from)?;
    Some(TopicSpec { retention, ..spec }).filter(TopicSpec::has_options)
}

/// The log is written for the steps that name one, and 0 for the others: all have one layout.
fn write_step(to: &mut Writer<'_>, kind: u8, topic: TopicId, log: Option<LogId>) {
    to.u8(kind);
    to.u128(topic.0);
    to.u16(log.unwrap_or_default().0);
}

/// How far a topic's creation, alteration or deletion is, by the entries that are appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TopicState {
    Creating,
    Ready,
    /// It is ready as it was; what it is to become is in [`Topic::next`].
    Altering,
    /// The same, but it will not become that.
    Reverting,
    Deleting,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) spec: Arc<TopicSpec>,
    pub(crate) state: TopicState,
    /// Logs that have opened their groups of it. Closing takes them out again.
    pub(crate) opened: Vec<LogId>,
    /// While it is altered, and only then.
    pub(crate) next: Option<Next>,
}

/// What a topic that is altered becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) spec: Arc<TopicSpec>,
    /// Logs that have opened their groups of what is added. Closing takes them out again.
    pub(crate) opened: Vec<LogId>,
}

impl Topic {
    pub(crate) fn new(spec: Arc<TopicSpec>, state: TopicState, opened: Vec<LogId>) -> Self {
        Self { spec, state, opened, next: None }
    }

    /// Whether something is to be said of it, or of what it becomes, that not every topic has.
    pub(crate) fn has_options(&self) -> bool {
        self.spec.has_options() || self.next.as_ref().is_some_and(|next| next.spec.has_options())
    }

    /// Whether clients may see it.
    pub(crate) const fn is_shown(&self) -> bool {
        matches!(self.state, TopicState::Ready | TopicState::Altering | TopicState::Reverting)
    }

    /// Whether it is being altered, or was to be.
    pub(crate) const fn is_altered(&self) -> bool {
        matches!(self.state, TopicState::Altering | TopicState::Reverting)
    }

    /// What is being opened: all of it, or what an alteration adds.
    pub(crate) fn coming(&self) -> (&Arc<TopicSpec>, Range<u32>) {
        match &self.next {
            Some(next) => (&next.spec, self.spec.partitions()..next.spec.partitions()),
            None => (&self.spec, 0..self.spec.partitions()),
        }
    }

    /// Logs that have opened their groups of [`Self::coming`].
    pub(crate) fn opened_coming(&self) -> &[LogId] {
        self.next.as_ref().map_or(&self.opened, |next| &next.opened)
    }

    fn opened_coming_mut(&mut self) -> &mut Vec<LogId> {
        self.next.as_mut().map_or(&mut self.opened, |next| &mut next.opened)
    }

    /// Whether all logs that keep some of what is being opened have opened it.
    pub(crate) fn is_open(&self) -> bool {
        let (spec, partitions) = self.coming();
        spec.logs(partitions).iter().all(|log| self.opened_coming().contains(log))
    }

    /// How many partitions it has or may get.
    fn partitions(&self) -> u32 {
        self.coming().1.end
    }

    /// One past the last group that it has or may get.
    fn groups_end(&self) -> u64 {
        self.coming().0.groups_end().0
    }

    /// The partitions that are open in `log`, with their groups.
    pub(crate) fn open_in(&self, log: LogId) -> impl Iterator<Item = (u32, GroupId)> {
        let own = self.opened.contains(&log).then(|| self.spec.partitions_in(log, 0..self.spec.partitions()));
        let next = self.next.as_ref().filter(|next| next.opened.contains(&log));
        let added = next.map(|next| next.spec.partitions_in(log, self.coming().1));
        own.into_iter().flatten().chain(added.into_iter().flatten())
    }

    /// Whether this partition has this group, and `log` has opened it.
    pub(crate) fn has_open(&self, log: LogId, partition: u32, group: GroupId) -> bool {
        let (spec, opened) = match &self.next {
            Some(next) if partition >= self.spec.partitions() => (&next.spec, &next.opened),
            _ => (&self.spec, &self.opened),
        };
        spec.has(partition, group) && opened.contains(&log)
    }

    /// Whether the parts fit each other.
    fn is_sound(&self) -> bool {
        self.is_altered() == self.next.is_some()
            && self.next.as_ref().is_none_or(|next| self.spec.begins(&next.spec) && self.is_open_before())
    }

    /// Whether what it is while it is altered is open.
    fn is_open_before(&self) -> bool {
        self.spec.logs(0..self.spec.partitions()).iter().all(|log| self.opened.contains(log))
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

    /// The state after one more entry of `log`'s group. A contradiction changes nothing.
    pub(crate) fn apply(&mut self, log: LogId, command: &Command) -> Result<(), Contradiction> {
        match command {
            Command::Creating(spec) => {
                if (spec.topic.0 as u64) < self.next_topic || spec.spans[0].group.0 < self.next_group {
                    return Err(Contradiction);
                }
                self.insert(Topic::new(Arc::clone(spec), TopicState::Creating, Vec::new()))?;
            }
            Command::Opened { topic, log } => {
                let entry = self.in_states(*topic, &[TopicState::Creating, TopicState::Altering])?;
                let opened = entry.opened_coming_mut();
                if !opened.contains(log) {
                    opened.push(*log);
                }
            }
            Command::Ready { topic } => self.ready(*topic)?,
            Command::Deleting { topic } => {
                let entry = self.in_states(*topic, &[TopicState::Creating, TopicState::Ready])?;
                entry.state = TopicState::Deleting;
            }
            Command::Closed { topic, log } => {
                let entry = self.in_states(*topic, &[TopicState::Deleting, TopicState::Reverting])?;
                entry.opened_coming_mut().retain(|other| other != log);
            }
            Command::Deleted { topic } => {
                if !self.in_states(*topic, &[TopicState::Deleting])?.opened.is_empty() {
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
            Command::Held(spec) => self.hold(log, spec)?,
            Command::Dropped { topic } => {
                self.in_states(*topic, &[TopicState::Ready])?;
                self.remove(*topic);
            }
            Command::Altering(alteration) => self.begin_to_alter(alteration)?,
            Command::Reverting { topic } => {
                self.in_states(*topic, &[TopicState::Altering])?.state = TopicState::Reverting;
            }
            Command::Reverted { topic } => {
                let entry = self.in_states(*topic, &[TopicState::Reverting])?;
                let next = entry.next.take_if(|next| next.opened.is_empty()).ok_or(Contradiction)?;
                entry.state = TopicState::Ready;
                self.partitions -= next.spec.partitions() - entry.spec.partitions();
            }
        }
        self.next_index += 1;
        Ok(())
    }

    fn ready(&mut self, topic: TopicId) -> Result<(), Contradiction> {
        let entry = self.in_states(topic, &[TopicState::Creating, TopicState::Altering])?;
        if !entry.is_open() {
            return Err(Contradiction);
        }
        entry.state = TopicState::Ready;
        if let Some(Next { spec, opened }) = entry.next.take() {
            entry.spec = spec;
            entry.opened.extend(opened);
            entry.opened.sort_unstable();
            entry.opened.dedup();
        }
        Ok(())
    }

    fn begin_to_alter(&mut self, alteration: &Alteration) -> Result<(), Contradiction> {
        let next_group = self.next_group;
        let entry = self.in_states(alteration.topic, &[TopicState::Ready])?;
        let more = alteration.partitions();
        if more > 0 && alteration.first_group.0 < next_group {
            return Err(Contradiction);
        }
        let spec = Arc::new(entry.spec.altered_by(alteration).ok_or(Contradiction)?);
        let groups_end = spec.groups_end().0;
        entry.next = Some(Next { spec, opened: Vec::new() });
        entry.state = TopicState::Altering;
        self.next_group = next_group.max(groups_end);
        self.partitions += more;
        Ok(())
    }

    /// A log that does not decide keeps what `spec` says, in place of what it kept before.
    fn hold(&mut self, log: LogId, spec: &Arc<TopicSpec>) -> Result<(), Contradiction> {
        if !self.topics.contains_key(&spec.topic) {
            return self.insert(Topic::new(Arc::clone(spec), TopicState::Ready, vec![log]));
        }
        let entry = self.in_states(spec.topic, &[TopicState::Ready])?;
        if !(entry.spec.begins(spec) || spec.begins(&entry.spec)) {
            return Err(Contradiction);
        }
        let before = std::mem::replace(&mut entry.spec, Arc::clone(spec));
        self.partitions = self.partitions - before.partitions() + spec.partitions();
        self.next_group = self.next_group.max(spec.groups_end().0);
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
        if !topic.is_sound() {
            return Err(Contradiction);
        }
        let counter = id.0 as u64;
        self.next_topic = self.next_topic.max(counter.checked_add(1).ok_or(Contradiction)?);
        self.next_group = self.next_group.max(topic.groups_end());
        self.partitions += topic.partitions();
        self.names.insert(spec.name.clone(), id);
        self.topics.insert(id, topic);
        Ok(())
    }

    fn remove(&mut self, topic: TopicId) {
        let gone = self.topics.remove(&topic).expect("a topic that was just found");
        self.partitions -= gone.partitions();
        self.names.remove(&gone.spec.name);
    }

    fn in_states(&mut self, id: TopicId, states: &[TopicState]) -> Result<&mut Topic, Contradiction> {
        self.topics.get_mut(&id).filter(|topic| states.contains(&topic.state)).ok_or(Contradiction)
    }

    /// Names and topics are one to one, topics are sound, and no id is ahead of its counter.
    pub(crate) fn check(&self) {
        assert_eq!(self.names.len(), self.topics.len());
        for (name, id) in &self.names {
            let topic = &self.topics[id];
            assert_eq!((&topic.spec.name, topic.spec.topic), (name, *id));
            assert!((id.0 as u64) < self.next_topic);
            assert!(topic.is_sound(), "{topic:?}");
        }
        let groups_end = self.topics.values().map(Topic::groups_end).max();
        assert!(groups_end.unwrap_or(0) <= self.next_group);
        assert_eq!(self.topics.values().map(Topic::partitions).sum::<u32>(), self.partitions);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use corelog_model::{Durability, Retention};

    use super::*;

    const LOG: LogId = LogId(0);

    fn spec(metadata: &Metadata, name: &str) -> TopicSpec {
        let first_group = GroupId(metadata.next_group);
        let (topic, name) = (metadata.next_topic_id(), name.to_owned());
        TopicSpec::new(topic, name, Durability::Written, first_group, vec![LOG; 3])
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

    /// The steps of an alteration of the topic that `life` would make.
    fn alteration(metadata: &Metadata, more: usize, refused: bool) -> Vec<Command> {
        let topic = metadata.next_topic_id();
        let first_group = GroupId(if more > 0 { metadata.next_group + 3 } else { 0 });
        let durability = Durability::Memory;
        let (retention, added) = (Retention::default(), vec![LOG; more]);
        let begin = Command::Altering(Alteration { topic, durability, retention, first_group, added });
        let opened = Command::Opened { topic, log: LOG };
        if refused {
            let closed = Command::Closed { topic, log: LOG };
            return vec![begin, opened, Command::Reverting { topic }, closed, Command::Reverted { topic }];
        }
        vec![begin, opened, Command::Ready { topic }]
    }

    #[test]
    fn commands_survive_encoding() {
        let metadata = Metadata::new(7);
        let mut commands = life(&metadata, "orders");
        commands.push(Command::ProducerIds { end: 1001 });
        commands.push(Command::Held(Arc::new(spec(&metadata, "orders"))));
        commands.push(Command::Dropped { topic: metadata.next_topic_id() });
        commands.extend(alteration(&metadata, 1, false));
        commands.extend(alteration(&metadata, 0, true));
        let retention = Retention { time_us: NonZeroU64::new(9), bytes: NonZeroU64::new(1 << 40) };
        let kept = Arc::new(TopicSpec { retention, ..spec(&metadata, "kept") });
        commands.extend([Command::Creating(Arc::clone(&kept)), Command::Held(kept)]);
        let Command::Altering(more) = &alteration(&metadata, 2, false)[0] else { unreachable!() };
        commands.push(Command::Altering(Alteration { retention, ..more.clone() }));
        let grown =
            spec(&metadata, "orders").altered_by(&Alteration { first_group: GroupId(90), ..more.clone() });
        commands.push(Command::Held(Arc::new(grown.expect("it fits"))));
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
        assert_eq!(metadata.topics.values().next().map(|topic| topic.spec.spans[0].group), Some(GroupId(19)));
    }

    /// A topic gets partitions, and then the same is taken back: it has what it had, and its groups are not used again.
    #[test]
    fn an_alteration_is_done_or_leaves_nothing() {
        let mut metadata = Metadata::new(7);
        let first = &life(&metadata, "orders")[..3];
        let (done, undone) = (alteration(&metadata, 2, false), alteration(&metadata, 2, true));
        let topic = metadata.next_topic_id();
        for command in first.iter().chain(&done) {
            metadata.apply(LOG, command).unwrap();
            metadata.check();
        }
        let ready = metadata.topics[&topic].clone();
        assert_eq!((ready.spec.partitions(), ready.spec.durability), (5, Durability::Memory));
        assert_eq!(ready.open_in(LOG).count(), 5);
        let again = |command: &Command| match command.clone() {
            Command::Altering(alteration) => {
                Command::Altering(Alteration { first_group: GroupId(metadata.next_group), ..alteration })
            }
            other => other,
        };
        let undone: Vec<_> = undone.iter().map(again).collect();
        for (step, command) in undone.iter().enumerate() {
            metadata.apply(LOG, command).unwrap();
            metadata.check();
            assert_eq!(metadata.topics[&topic].spec, ready.spec, "nobody sees it before it is ready");
            let open = metadata.topics[&topic].open_in(LOG).count();
            assert_eq!(open, if (1..3).contains(&step) { 7 } else { 5 }, "after step {step}");
        }
        assert_eq!(metadata.topics[&topic], ready);
        assert_eq!(metadata.next_group, 16 + 7);
    }

    /// Every order of an alteration's steps but the right ones is refused, and so is a deletion meanwhile.
    #[test]
    fn steps_of_an_alteration_out_of_order_contradict() {
        let before = Metadata::new(7);
        let topic = before.next_topic_id();
        let first = &life(&before, "orders")[..3];
        let steps = alteration(&before, 2, true);
        let ready = Command::Ready { topic };
        for done in 0..=steps.len() {
            let mut metadata = before.clone();
            for command in first.iter().chain(&steps[..done]) {
                metadata.apply(LOG, command).unwrap();
            }
            let is_allowed = |command: &Command| match command {
                Command::Deleting { .. } => done == 0 || done == steps.len(),
                Command::Opened { .. } => done == 1 || done == 2,
                Command::Ready { .. } => done == 2,
                Command::Reverting { .. } => done == 1 || done == 2,
                Command::Closed { .. } => done == 3 || done == 4,
                Command::Reverted { .. } => done == 4,
                // Its groups are used from the first time on.
                Command::Altering(_) => done == 0,
                _ => false,
            };
            for command in steps.iter().chain([&ready, &Command::Deleting { topic }]) {
                let mut after = metadata.clone();
                let applied = after.apply(LOG, command);
                assert_eq!(applied.is_ok(), is_allowed(command), "{command:?} after {done}");
                after.check();
                assert!(applied.is_ok() || after == metadata);
            }
        }
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
