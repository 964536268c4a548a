//! The steps by which topics come and go, and by which producer ids are reserved.
//!
//! Only log 0 does this. A change appends one entry of the metadata group, waits until it is durable, and goes on to
//! its next step; what other logs have to do is asked for by letters. The client is answered after the last step, when
//! all logs have heard of it. A restart finds the entries and goes on with the change after the last one that survived,
//! so a change is finished or, when not even its first entry survived, was never begun. A creation that a log refuses
//! its part of is undone; so is an alteration, whose own steps are in `alter`. Bounded:
//! [`Limits::changes`](crate::Limits) at a time; more are refused with `TooMany`.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use corelog_model::limits::{MAX_PARTITIONS_PER_TOPIC, is_topic_name};
use corelog_model::{Durability, GroupId, LogId, Now, ProducerId, Retention, TopicId};
use corelog_storage::{EntryKind, feature};

use crate::alter::altered;
use crate::event::{Actions, Taken};
use crate::mail::{Mail, News};
use crate::metadata::{Command, Metadata, Topic, TopicState};
use crate::partition::Partition;
use crate::refusal::{Bounded, Refusal};
use crate::response::Response;
use crate::room::NoRoom;
use crate::shard::{Asker, Shard};
use crate::spec::TopicSpec;

/// Producer ids reserved by one entry: a restart skips at most this many.
const PRODUCER_IDS_PER_ENTRY: u64 = 1000;

/// What a change does next, once its last entry is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The logs open their parts.
    Open,
    /// All have: it is ready.
    Ready,
    /// Clients may see it.
    Show,
    /// A log refused: it is deleted, or stays as it was, before anybody saw it.
    Undo,
    /// The logs close what they had opened for an alteration.
    Withdraw,
    /// All have: it is as it was.
    Restore,
    /// Clients may not see it any more.
    Hide,
    /// The logs close their parts.
    Close,
    /// All have: it is gone.
    Delete,
    /// Once all logs have heard of it, the client is answered.
    Answer,
    Over,
}

/// What is made of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    Create,
    Alter,
    Delete,
}

#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) topic: TopicId,
    aim: Aim,
    pub(crate) next: Step,
    /// The frame of the last entry; the next step waits until it is durable. 0 after a restart.
    frame: u64,
    /// The index of that entry.
    index: u64,
    /// Who is to be answered; nobody after a restart.
    asker: Option<Asker>,
    /// Why it is undone. The asker hears it when the entry that says so is durable: no restart finishes it then.
    refusal: Option<Refusal>,
    /// Other logs that were asked for their part of this step, and those that have done it.
    pub(crate) asked: Vec<LogId>,
    pub(crate) done: Vec<LogId>,
    /// The version of the news of it.
    version: u64,
}

impl Change {
    fn new(topic: TopicId, aim: Aim, next: Step, asker: Option<Asker>) -> Self {
        let (asked, done) = (Vec::new(), Vec::new());
        Self { topic, aim, next, frame: 0, index: 0, asker, refusal: None, asked, done, version: 0 }
    }

    /// The step's entry is appended.
    pub(crate) fn go_on(&mut self, next: Step, entry: Appended) {
        (self.next, self.frame, self.index) = (next, entry.frame, entry.index);
    }
}

/// An entry of the metadata group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) frame: u64,
    index: u64,
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
    /// Who is to hear that another log refused.
    refused: Vec<(Asker, Refusal)>,
}

impl Changes {
    /// Goes on where the entries end; the ids reserved so far may have been given.
    pub(crate) fn new(metadata: &Metadata, bound: u32) -> Self {
        let resume = |(id, topic): (&TopicId, &Topic)| {
            let (aim, next) = match topic.state {
                TopicState::Creating => (Aim::Create, Step::Open),
                TopicState::Altering => (Aim::Alter, Step::Open),
                TopicState::Reverting => (Aim::Alter, Step::Withdraw),
                TopicState::Deleting => (Aim::Delete, Step::Close),
                TopicState::Ready => return None,
            };
            Some(Change::new(*id, aim, next, None))
        };
        let end = metadata.producer_ids_end;
        Self {
            topics: metadata.topics.iter().filter_map(resume).collect(),
            ids: ProducerIds { next: end, durable_end: end, reserving: None, askers: VecDeque::new() },
            bound,
            refused: Vec::new(),
        }
    }

    /// Whether nothing is being made of the topic: a change of it is answered, and no other has begun.
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

    /// A log has opened its part of a topic.
    pub(crate) fn part_opened(&mut self, topic: TopicId, log: LogId) {
        self.part_done(topic, log, &[Step::Open]);
    }

    /// A log has closed its part of a topic, or what it had opened for an alteration of it.
    pub(crate) fn part_closed(&mut self, topic: TopicId, log: LogId) {
        self.part_done(topic, log, &[Step::Close, Step::Withdraw]);
    }

    /// What a log has opened of a topic that is being closed by now, it closes again: it was asked to.
    fn part_done(&mut self, topic: TopicId, log: LogId, steps: &[Step]) {
        let asked = |change: &&mut Change| change.topic == topic && steps.contains(&change.next);
        if let Some(change) = self.topics.iter_mut().find(asked) {
            change.done.push(log);
        }
    }

    /// A log does not do its part: a creation or an alteration is undone, a deletion is finished by the next start.
    pub(crate) fn part_refused(&mut self, topic: TopicId, refusal: Refusal) {
        let Some(change) = self.topics.iter_mut().find(|change| change.topic == topic) else { return };
        if change.next == Step::Open {
            (change.next, change.refusal) = (Step::Undo, Some(refusal));
        } else if change.refusal.is_none()
            && let Some(asker) = change.asker.take()
        {
            self.refused.push((asker, refusal));
        }
    }
}

impl Shard {
    pub(crate) fn create_topic(
        &mut self,
        now: Now,
        asker: Asker,
        name: &str,
        partitions: u32,
        (durability, retention): (Durability, Retention),
        out: &mut Actions,
    ) -> Taken {
        let topic = self.metadata.next_topic_id();
        let placement = placement(topic, 0..partitions.min(MAX_PARTITIONS_PER_TOPIC), self.config.logs);
        let first_group = GroupId(self.metadata.next_group);
        let spec = TopicSpec::new(topic, name.to_owned(), durability, first_group, placement);
        let spec = TopicSpec { retention, ..spec };
        let checked = self.check_new_topic(name, partitions).and_then(|()| self.may_keep(retention));
        let command = Command::Creating(Arc::new(spec));
        self.begin(now, asker, checked.map(|()| (topic, command, Aim::Create)), out)
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
        self.check_more_partitions(partitions)
    }

    /// Whether a topic may say how long it keeps its records.
    pub(crate) fn may_keep(&self, retention: Retention) -> Result<(), Refusal> {
        if retention.is_none() { Ok(()) } else { self.may_write(feature::RETENTION) }
    }

    /// Whether so many partitions may be added to all that there are.
    pub(crate) fn check_more_partitions(&self, more: u32) -> Result<(), Refusal> {
        let max = self.config.limits.partitions;
        if self.metadata.partitions + more > max {
            return Err(Refusal::TooMany { what: Bounded::Partitions, max });
        }
        Ok(())
    }

    pub(crate) fn delete_topic(&mut self, now: Now, asker: Asker, name: &str, out: &mut Actions) -> Taken {
        let step = match self.metadata.topic_by_name(name) {
            None => Err(Refusal::UnknownTopic),
            Some((topic, _)) if !self.changes.is_settled(topic) => Err(Refusal::NotReady),
            Some((topic, _)) => Ok((topic, Command::Deleting { topic }, Aim::Delete)),
        };
        self.begin(now, asker, step, out)
    }

    /// Appends the first entry of a change. The entry must fit the log, and a part of a checkpoint later.
    pub(crate) fn begin(
        &mut self,
        now: Now,
        asker: Asker,
        step: Result<(TopicId, Command, Aim), Refusal>,
        out: &mut Actions,
    ) -> Taken {
        let bound = self.changes.bound;
        let step = match step {
            Ok(_) if self.changes.is_full() => Err(Refusal::TooMany { what: Bounded::Changes, max: bound }),
            step => step,
        };
        let (topic, command, aim) = match step {
            Ok(step) => step,
            Err(refusal) => return self.refuse(asker, refusal, out),
        };
        if let Err(refusal) = self.check_size(&command) {
            return self.refuse(asker, refusal, out);
        }
        match self.append_command(now, &command) {
            Ok(entry) => {
                let next = if aim == Aim::Delete { Step::Hide } else { Step::Open };
                let mut change = Change::new(topic, aim, next, Some(asker));
                change.go_on(next, entry);
                self.changes.topics.push(change);
                Taken::Done
            }
            Err(NoRoom::Wait) => Taken::Blocked,
            Err(NoRoom::Refused(refusal)) => self.refuse(asker, refusal, out),
        }
    }

    /// Whether the topic that a command makes fits an entry of a log, and twice a part of a checkpoint.
    fn check_size(&mut self, command: &Command) -> Result<(), Refusal> {
        let spec = match command {
            Command::Creating(spec) => Arc::clone(spec),
            Command::Altering(alteration) => {
                let spec = &self.metadata.topics[&alteration.topic].spec;
                Arc::new(spec.altered_by(alteration).expect("it was made for this topic"))
            }
            _ => return Ok(()),
        };
        let partitions = spec.partitions();
        Command::Held(spec).encode(&mut self.scratch);
        if self.scratch.len() > self.config.log.max_batch_bytes as usize / 2 {
            return Err(Refusal::InvalidPartitions { partitions, max: 0 });
        }
        Ok(())
    }

    /// Appends an entry of this log's metadata group and applies it.
    pub(crate) fn append_command(&mut self, now: Now, command: &Command) -> Result<Appended, NoRoom> {
        let mut bytes = mem::take(&mut self.scratch);
        command.encode(&mut bytes);
        let room = match command {
            Command::Creating(_) | Command::Altering(_) | Command::ProducerIds { .. } => {
                self.room(now, bytes.len())
            }
            Command::Held(spec) if self.adds_partitions(spec) => self.room(now, bytes.len()),
            // What was begun is ended, and what is deleted makes room.
            _ => self.room_for_change(now, bytes.len()),
        };
        let result = room.map(|()| {
            let index = self.metadata.next_index;
            let appended = self.log.append_control(EntryKind::Metadata, GroupId::METADATA, index, &bytes);
            let applied = self.metadata.apply(self.config.log.log, command);
            applied.expect("a command of our own continues the entries before it");
            Appended { frame: appended.frame, index }
        });
        self.scratch = bytes;
        result
    }

    /// Every change whose last entry is durable goes one step on, as far as there is room.
    pub(crate) fn step_changes(&mut self, now: Now, out: &mut Actions) {
        let durable = self.log.durable_frame();
        while let Some((asker, refusal)) = self.changes.refused.pop() {
            _ = self.refuse(asker, refusal, out);
        }
        // They are the shard's, and so is what they change.
        let mut changes = mem::take(&mut self.changes.topics);
        for change in changes.iter_mut().filter(|change| change.frame <= durable && change.next != Step::Undo)
        {
            if let Some(refusal) = change.refusal
                && let Some(asker) = change.asker.take()
            {
                _ = self.refuse(asker, refusal, out);
            }
        }
        self.tell(durable, &mut changes);
        for change in changes.iter_mut().filter(|change| change.frame <= durable) {
            match self.step(now, change, out) {
                // A step that was begun is done when there is room again, or by the next start.
                Ok(()) | Err(NoRoom::Wait | NoRoom::Refused(_)) => {}
            }
        }
        changes.retain(|change| change.next != Step::Over);
        self.changes.topics = changes;
        self.step_producer_ids(now, durable, out);
    }

    /// What clients may see from now on, or may not see any more, all at once: so the version, which comes from the
    /// last entry that this is about, rises each time.
    fn tell(&mut self, durable: u64, changes: &mut [Change]) {
        let due =
            |change: &&mut Change| change.frame <= durable && matches!(change.next, Step::Show | Step::Hide);
        let mut news = News::default();
        for change in changes.iter_mut().filter(due) {
            news.version = news.version.max(change.index + 1);
            match change.next {
                Step::Show => news.appeared.push(Arc::clone(&self.metadata.topics[&change.topic].spec)),
                _ => news.gone.push(change.topic),
            }
        }
        if news.version == 0 {
            return;
        }
        for change in changes.iter_mut().filter(due) {
            change.version = news.version;
            change.next = if change.next == Step::Show { Step::Answer } else { Step::Close };
        }
        let version = news.version;
        let frame = self.publish(news);
        for change in changes.iter_mut().filter(|change| change.version == version) {
            change.frame = change.frame.max(frame);
        }
    }

    /// Does one step of a change as far as it can be done now.
    fn step(&mut self, now: Now, change: &mut Change, out: &mut Actions) -> Result<(), NoRoom> {
        let topic = change.topic;
        match change.next {
            Step::Open => self.open_parts(now, change)?,
            Step::Close => self.close_parts(now, change, out)?,
            Step::Withdraw => self.withdraw_parts(now, change, out)?,
            Step::Undo => {
                let (next, command) = match change.aim {
                    Aim::Alter => (Step::Withdraw, Command::Reverting { topic }),
                    _ => (Step::Hide, Command::Deleting { topic }),
                };
                change.go_on(next, self.append_command(now, &command)?);
                change.asked.clear();
                change.done.clear();
            }
            Step::Answer if self.peers.have_heard(change.version) => {
                self.answer_change(change, out);
                change.next = Step::Over;
            }
            Step::Ready | Step::Restore | Step::Delete | Step::Answer | Step::Over => {}
            Step::Show | Step::Hide => unreachable!("told before"),
        }
        // The entries of the parts come before this one in the log: nothing is waited for.
        match change.next {
            Step::Ready => change.go_on(Step::Show, self.append_command(now, &Command::Ready { topic })?),
            // Nobody saw it, and who asked was told.
            Step::Restore => {
                change.go_on(Step::Over, self.append_command(now, &Command::Reverted { topic })?)
            }
            Step::Delete => {
                change.go_on(Step::Answer, self.append_command(now, &Command::Deleted { topic })?)
            }
            _ => {}
        }
        Ok(())
    }

    /// Opens this log's part and asks the others for theirs; what they have done is written down.
    fn open_parts(&mut self, now: Now, change: &mut Change) -> Result<(), NoRoom> {
        let (topic, own) = (change.topic, self.config.log.log);
        let (spec, partitions) = self.metadata.topics[&topic].coming();
        let spec = Arc::clone(spec);
        for log in spec.logs(partitions.clone()) {
            if self.metadata.topics[&topic].opened_coming().contains(&log) {
                continue;
            }
            if log == own {
                self.append_command(now, &Command::Opened { topic, log })?;
                self.open_groups(&spec, partitions.clone());
            } else if change.done.contains(&log) {
                self.append_command(now, &Command::Opened { topic, log })?;
            } else {
                self.ask(change, log, Mail::Open(Arc::clone(&spec)));
            }
        }
        if self.metadata.topics[&topic].is_open() {
            change.next = Step::Ready;
        }
        Ok(())
    }

    /// Closes this log's part and asks the others for theirs, also those that are not known to have one.
    fn close_parts(&mut self, now: Now, change: &mut Change, out: &mut Actions) -> Result<(), NoRoom> {
        let (topic, own) = (change.topic, self.config.log.log);
        let spec = Arc::clone(&self.metadata.topics[&topic].spec);
        let mut all = true;
        for log in spec.logs(0..spec.partitions()) {
            if log != own && !change.done.contains(&log) {
                self.ask(change, log, Mail::Close(topic));
                all = false;
            } else if self.metadata.topics[&topic].opened.contains(&log) {
                self.append_command(now, &Command::Closed { topic, log })?;
                if log == own {
                    self.close_groups(now, &spec, 0..spec.partitions(), out);
                }
            }
        }
        if all {
            change.next = Step::Delete;
        }
        Ok(())
    }

    /// Asks another log for its part once it has started, and once only.
    pub(crate) fn ask(&mut self, change: &mut Change, log: LogId, mail: Mail) {
        if self.peers.has_started(log) && !change.asked.contains(&log) {
            change.asked.push(log);
            self.peers.post(log, mail);
        }
    }

    fn answer_change(&mut self, change: &mut Change, out: &mut Actions) {
        let topic = change.topic;
        let Some(asker) = change.asker.take() else { return };
        let response = match change.aim {
            Aim::Create => Response::TopicCreated { topic },
            Aim::Alter => altered(&self.metadata.topics[&topic].spec),
            Aim::Delete => Response::TopicDeleted,
        };
        asker.answer(response, out);
    }

    /// Opens those of `partitions` that this log keeps.
    pub(crate) fn open_groups(&mut self, spec: &TopicSpec, partitions: Range<u32>) {
        for (partition, group) in spec.partitions_in(self.config.log.log, partitions) {
            let mut entry = Partition::new(group, spec.topic, partition, spec.durability);
            entry.slot = self.log.open_group(group, spec.topic, partition);
            let slot = entry.slot;
            let id = self.partitions.insert(entry);
            self.groups.insert(group, id);
            self.by_log_slot.insert(slot, id);
        }
    }

    /// The groups of `partitions` go, with their producers and positions; whoever waits for their data learns that the topic
    /// is unknown.
    pub(crate) fn close_groups(
        &mut self,
        now: Now,
        spec: &TopicSpec,
        partitions: Range<u32>,
        out: &mut Actions,
    ) {
        for (_, group) in spec.partitions_in(self.config.log.log, partitions) {
            let Some(slot) = self.groups.remove(&group) else { continue };
            self.positions.drop_group(group);
            let mut partition = self.partitions.remove(slot).expect("a group names a partition");
            self.expiry.set(&mut partition, Retention::default());
            self.wake_all(now, &mut partition.waiters, out);
            self.by_log_slot.remove(&partition.slot);
            self.log.drop_group(partition.slot);
        }
        let groups = &self.groups;
        self.producers.drop_groups(|group| !groups.contains_key(&group));
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
            Ok(entry) => self.changes.ids.reserving = Some((end, entry.frame)),
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

/// The logs of a topic's partitions. Each topic begins with the log after the one the topic before it began with.
pub(crate) fn placement(topic: TopicId, partitions: Range<u32>, logs: u16) -> Vec<LogId> {
    let first = (topic.0 as u64).wrapping_sub(1);
    let log = |at: u32| LogId((first.wrapping_add(at.into()) % u64::from(logs)) as u16);
    partitions.map(log).collect()
}
