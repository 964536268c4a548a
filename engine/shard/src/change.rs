//! The steps by which topics come and go, and by which producer ids are reserved.
//!
//! A change appends one entry of the metadata group, waits until it is durable, and goes on to its next step; the
//! client is answered after the last. A restart finds the entries and goes on with the change after the last one
//! that survived, so a change is finished or, when not even its first entry survived, was never begun.
//! Bounded: [`Limits::changes`](crate::Limits) at a time; more are refused with `TooMany`.

use std::collections::VecDeque;

use corelog_model::limits::{MAX_PARTITIONS_PER_TOPIC, is_topic_name};
use corelog_model::{Durability, GroupId, Now, ProducerId, TopicId};
use corelog_storage::EntryKind;

use crate::event::{Actions, Taken};
use crate::metadata::{Command, Metadata, Topic, TopicState};
use crate::partition::Partition;
use crate::refusal::{Bounded, Refusal};
use crate::response::Response;
use crate::room::NoRoom;
use crate::shard::{Asker, Shard};

/// Producer ids reserved by one entry: a restart skips at most this many.
const PRODUCER_IDS_PER_ENTRY: u64 = 1000;

/// The next entry of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open,
    Ready,
    Close,
    Delete,
    /// None: the change is over.
    Answer,
}

#[derive(Debug)]
struct Change {
    topic: TopicId,
    next: Step,
    /// The frame of the last entry; the next step waits until it is durable. 0 after a restart.
    frame: u64,
    /// Who is to be answered; nobody after a restart.
    asker: Option<Asker>,
}

/// Producer ids below `durable_end` may be given.
#[derive(Debug)]
struct ProducerIds {
    next: u64,
    durable_end: u64,
    /// The reservation under way: its end and its frame.
    reserving: Option<(u64, u64)>,
    askers: VecDeque<Asker>,
}

/// All changes in progress.
#[derive(Debug)]
pub(crate) struct Changes {
    topics: Vec<Change>,
    ids: ProducerIds,
    bound: u32,
}

impl Changes {
    /// Goes on where the entries end; the ids reserved so far may have been given.
    pub(crate) fn new(metadata: &Metadata, bound: u32) -> Self {
        let resume = |(id, topic): (&TopicId, &Topic)| {
            let next = match topic.state {
                TopicState::Creating if topic.is_open() => Step::Ready,
                TopicState::Creating => Step::Open,
                TopicState::Deleting if topic.opened.is_empty() => Step::Delete,
                TopicState::Deleting => Step::Close,
                TopicState::Ready => return None,
            };
            Some(Change { topic: *id, next, frame: 0, asker: None })
        };
        let end = metadata.producer_ids_end;
        Self {
            topics: metadata.topics.iter().filter_map(resume).collect(),
            ids: ProducerIds { next: end, durable_end: end, reserving: None, askers: VecDeque::new() },
            bound,
        }
    }

    /// Whether clients may see and open the topic: its creation is answered and no deletion has begun.
    pub(crate) fn is_settled(&self, topic: TopicId) -> bool {
        self.topics.iter().all(|change| change.topic != topic)
    }

    /// Whether nobody waits for a change.
    pub(crate) fn is_idle(&self) -> bool {
        self.topics.is_empty() && self.ids.askers.is_empty()
    }

    fn is_full(&self) -> bool {
        self.topics.len() >= self.bound as usize
    }
}

impl Shard {
    pub(crate) fn create_topic(
        &mut self,
        now: Now,
        asker: Asker,
        name: &str,
        partitions: u32,
        durability: Durability,
        out: &mut Actions,
    ) -> Taken {
        let command = Command::Creating {
            topic: self.metadata.next_topic_id(),
            first_group: GroupId(self.metadata.next_group),
            durability,
            name: name.to_owned(),
            placement: vec![self.config.log.log; partitions.min(MAX_PARTITIONS_PER_TOPIC) as usize],
        };
        let topic = self.metadata.next_topic_id();
        let checked = self.check_new_topic(name, partitions);
        self.begin(now, asker, checked.map(|()| (topic, command, Step::Open)), out)
    }

    fn check_new_topic(&self, name: &str, partitions: u32) -> Result<(), Refusal> {
        if !is_topic_name(name) {
            return Err(Refusal::InvalidTopicName);
        }
        if !(1..=MAX_PARTITIONS_PER_TOPIC).contains(&partitions) {
            return Err(Refusal::InvalidPartitions { partitions, max: MAX_PARTITIONS_PER_TOPIC });
        }
        if self.metadata.topic_by_name(name).is_some() {
            return Err(Refusal::TopicExists);
        }
        let limits = &self.config.limits;
        if self.metadata.topics.len() >= limits.topics as usize {
            return Err(Refusal::TooMany { what: Bounded::Topics, max: limits.topics });
        }
        if self.metadata.partitions + partitions > limits.partitions {
            return Err(Refusal::TooMany { what: Bounded::Partitions, max: limits.partitions });
        }
        Ok(())
    }

    pub(crate) fn delete_topic(&mut self, now: Now, asker: Asker, name: &str, out: &mut Actions) -> Taken {
        let step = match self.metadata.topic_by_name(name) {
            None => Err(Refusal::UnknownTopic),
            Some((topic, _)) if !self.changes.is_settled(topic) => Err(Refusal::NotReady),
            Some((topic, _)) => Ok((topic, Command::Deleting { topic }, Step::Close)),
        };
        self.begin(now, asker, step, out)
    }

    /// Appends the first entry of a change. The entry must fit the log, and a part of a checkpoint later.
    fn begin(
        &mut self,
        now: Now,
        asker: Asker,
        step: Result<(TopicId, Command, Step), Refusal>,
        out: &mut Actions,
    ) -> Taken {
        let bound = self.changes.bound;
        let step = match step {
            Ok(_) if self.changes.is_full() => Err(Refusal::TooMany { what: Bounded::Changes, max: bound }),
            step => step,
        };
        let (topic, command, next) = match step {
            Ok(step) => step,
            Err(refusal) => return self.refuse(asker, refusal, out),
        };
        command.encode(&mut self.scratch);
        if self.scratch.len() > self.config.log.max_batch_bytes as usize / 2 {
            let placed = if let Command::Creating { placement, .. } = &command { placement.len() } else { 0 };
            let partitions = u32::try_from(placed).expect("the number is bounded");
            return self.refuse(asker, Refusal::InvalidPartitions { partitions, max: 0 }, out);
        }
        match self.append_command(now, &command) {
            Ok(frame) => {
                self.changes.topics.push(Change { topic, next, frame, asker: Some(asker) });
                Taken::Done
            }
            Err(NoRoom::Wait) => Taken::Blocked,
            Err(NoRoom::Refused(refusal)) => self.refuse(asker, refusal, out),
        }
    }

    /// Appends an entry of the metadata group and applies it; its frame.
    fn append_command(&mut self, now: Now, command: &Command) -> Result<u64, NoRoom> {
        let mut bytes = std::mem::take(&mut self.scratch);
        command.encode(&mut bytes);
        let room = match command {
            Command::Creating { .. } | Command::ProducerIds { .. } => self.room(now, bytes.len()),
            // What was begun is ended, and what is deleted makes room.
            _ => self.room_for_change(now, bytes.len()),
        };
        let result = room.map(|()| {
            let index = self.metadata.next_index;
            let appended = self.log.append_control(EntryKind::Metadata, GroupId::METADATA, index, &bytes);
            self.metadata.apply(command).expect("a command of our own continues the entries before it");
            appended.frame
        });
        self.scratch = bytes;
        result
    }

    /// Every change whose last entry is durable goes one step on, as far as there is room.
    pub(crate) fn step_changes(&mut self, now: Now, out: &mut Actions) {
        let durable = self.log.durable_frame();
        let mut at = 0;
        while at < self.changes.topics.len() {
            let Change { topic, next, frame, asker } = self.changes.topics[at];
            if frame > durable {
                at += 1;
            } else if next == Step::Answer {
                self.changes.topics.remove(at);
                self.answer_change(topic, asker, out);
            } else {
                match self.step(now, topic, next, out) {
                    Ok((next, frame)) => self.changes.topics[at] = Change { topic, next, frame, asker },
                    // A step that was begun is done when there is room again, or by the next start.
                    Err(NoRoom::Wait | NoRoom::Refused(_)) => {}
                }
                at += 1;
            }
        }
        self.step_producer_ids(now, durable, out);
    }

    /// Appends the entry of one step and does what it says; the step after it.
    fn step(
        &mut self,
        now: Now,
        topic: TopicId,
        step: Step,
        out: &mut Actions,
    ) -> Result<(Step, u64), NoRoom> {
        let log = self.config.log.log;
        match step {
            Step::Open => {
                let frame = self.append_command(now, &Command::Opened { topic, log })?;
                self.open_groups(topic);
                Ok((Step::Ready, frame))
            }
            Step::Ready => Ok((Step::Answer, self.append_command(now, &Command::Ready { topic })?)),
            Step::Close => {
                let frame = self.append_command(now, &Command::Closed { topic, log })?;
                self.close_groups(now, topic, out);
                Ok((Step::Delete, frame))
            }
            Step::Delete => Ok((Step::Answer, self.append_command(now, &Command::Deleted { topic })?)),
            Step::Answer => unreachable!("an answer appends nothing"),
        }
    }

    fn answer_change(&mut self, topic: TopicId, asker: Option<Asker>, out: &mut Actions) {
        let Some(asker) = asker else { return };
        let exists = self.metadata.topics.contains_key(&topic);
        asker.answer(if exists { Response::TopicCreated { topic } } else { Response::TopicDeleted }, out);
    }

    fn open_groups(&mut self, id: TopicId) {
        let topic = &self.metadata.topics[&id];
        for (partition, group) in topic.partitions_in(self.config.log.log) {
            let mut entry = Partition::new(group, id, partition, topic.durability);
            entry.slot = self.log.open_group(group, id, partition);
            let slot = entry.slot;
            let id = self.partitions.insert(entry);
            self.groups.insert(group, id);
            self.by_log_slot.insert(slot, id);
        }
    }

    /// The groups go, with their producers; whoever waits for their data learns that the topic is unknown.
    fn close_groups(&mut self, now: Now, id: TopicId, out: &mut Actions) {
        let topic = &self.metadata.topics[&id];
        let groups = topic.first_group..topic.group(topic.placement.len() as u32);
        let closed: Vec<_> = self.groups.range(groups).map(|(group, slot)| (*group, *slot)).collect();
        for (group, slot) in closed {
            self.groups.remove(&group);
            self.producers.drop_group(group);
            let mut partition = self.partitions.remove(slot).expect("a group names a partition");
            self.wake_all(now, &mut partition.waits, out);
            self.by_log_slot.remove(&partition.slot);
            self.log.drop_group(partition.slot);
        }
    }

    pub(crate) fn producer_id(&mut self, now: Now, asker: Asker, out: &mut Actions) -> Taken {
        let bound = self.changes.bound;
        let ids = &mut self.changes.ids;
        if ids.askers.len() >= bound as usize {
            return self.refuse(asker, Refusal::TooMany { what: Bounded::Changes, max: bound }, out);
        }
        ids.askers.push_back(asker);
        self.step_producer_ids(now, self.log.durable_frame(), out);
        Taken::Done
    }

    fn step_producer_ids(&mut self, now: Now, durable: u64, out: &mut Actions) {
        let ids = &mut self.changes.ids;
        if let Some((end, _)) = ids.reserving.take_if(|(_, frame)| *frame <= durable) {
            ids.durable_end = end;
        }
        while ids.next < ids.durable_end {
            let Some(asker) = ids.askers.pop_front() else { return };
            asker.answer(Response::ProducerId { id: ProducerId(ids.next), epoch: 0 }, out);
            ids.next += 1;
        }
        if ids.askers.is_empty() || ids.reserving.is_some() {
            return;
        }
        let end = ids.durable_end + PRODUCER_IDS_PER_ENTRY;
        match self.append_command(now, &Command::ProducerIds { end }) {
            Ok(frame) => self.changes.ids.reserving = Some((end, frame)),
            Err(NoRoom::Wait) => {}
            Err(NoRoom::Refused(refusal)) => self.refuse_producer_ids(refusal, out),
        }
    }

    fn refuse_producer_ids(&mut self, refusal: Refusal, out: &mut Actions) {
        while let Some(asker) = self.changes.ids.askers.pop_front() {
            _ = self.refuse(asker, refusal, out);
        }
    }

    /// The log takes no more entries: changes under way stop where they are, and their askers are told.
    pub(crate) fn stop_changes(&mut self, out: &mut Actions) {
        for at in 0..self.changes.topics.len() {
            if let Some(asker) = self.changes.topics[at].asker.take() {
                _ = self.refuse(asker, Refusal::ReadOnly, out);
            }
        }
        self.refuse_producer_ids(Refusal::ReadOnly, out);
    }
}
