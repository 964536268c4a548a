//! SimAdmin: creates the topics of a world, alters them, and learns where their partitions are.
//!
//! What it has begun it asks for again until it is answered: the power may have failed at any point of it.

use corelog_model::{Durability, LogId, RetentionChange, Term, TopicId};
use corelog_shard::{MetadataView, Refusal, Request, Response};

use crate::oracle::Partition;
use crate::random::Random;

/// The topics of every world, each created with [`PARTITIONS`] partitions.
pub(crate) const TOPICS: [(&str, Durability); 3] =
    [("kept", Durability::Durable), ("written", Durability::Written), ("passing", Durability::Memory)];
pub(crate) const PARTITIONS: u32 = 2;
/// Alterations of a world that has some.
const ALTERATIONS: u64 = 8;

/// One alteration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alteration {
    /// Which of [`TOPICS`].
    topic: usize,
    partitions: Option<u32>,
    durability: Option<Durability>,
    retention: RetentionChange,
}

/// What some worlds make of their topics; `keeping` says how long they keep their records, where that is altered too.
pub(crate) fn alterations(random: &mut Random, mut keeping: Option<&mut Random>) -> Vec<Alteration> {
    let mut partitions = [PARTITIONS; TOPICS.len()];
    let mut one = || {
        let topic = random.below(TOPICS.len() as u64) as usize;
        let level = random.pick(&[Durability::Durable, Durability::Written, Durability::Memory]);
        let grows = random.chance(40);
        partitions[topic] += u32::from(grows);
        let partitions = grows.then_some(partitions[topic]);
        let retention = keeping.as_mut().map_or(RetentionChange::NONE, |random| RetentionChange {
            time_us: random.chance(40).then(|| random.pick(&[0, 20_000, 200_000, 2_000_000])),
            bytes: random.chance(40).then(|| random.pick(&[0, 1, 20_000, 100_000])),
        });
        let durability = (!grows || random.chance(50)).then_some(level);
        Alteration { topic, partitions, durability, retention }
    };
    (0..ALTERATIONS).map(|_| one()).collect()
}

/// How many partitions each topic ends with.
pub(crate) fn most_partitions(alterations: &[Alteration]) -> [u32; TOPICS.len()] {
    let mut most = [PARTITIONS; TOPICS.len()];
    for alteration in alterations {
        most[alteration.topic] = alteration.partitions.unwrap_or(most[alteration.topic]);
    }
    most
}

/// What it does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Create(usize),
    Alter(usize),
    Rest,
}

/// Creates and alters the topics, and learns their ids and places.
pub(crate) struct Admin {
    alterations: Vec<Alteration>,
    task: Task,
    waiting: bool,
    /// It asks what there is, not for anything to be made.
    asking: bool,
    /// Where it asks: of log 0 alone for anything but what there is.
    pub(crate) at: LogId,
    /// What was answered: whoever is asked knows it.
    answered: Option<Known>,
    correlation: u64,
    /// What each topic is by all that was answered.
    levels: [Durability; TOPICS.len()],
    partitions: [u32; TOPICS.len()],
}

/// A topic as it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    topic: TopicId,
    partitions: u32,
    durability: Durability,
}

impl Admin {
    pub(crate) fn new(alterations: Vec<Alteration>) -> Self {
        Self {
            alterations,
            task: Task::Create(0),
            waiting: false,
            asking: false,
            at: LogId(0),
            answered: None,
            correlation: 0,
            levels: TOPICS.map(|topic| topic.1),
            partitions: [PARTITIONS; TOPICS.len()],
        }
    }

    /// Whether all that it was to do is answered.
    pub(crate) fn is_done(&self) -> bool {
        self.task == Task::Rest
    }

    pub(crate) fn disconnected(&mut self) {
        self.waiting = false;
    }

    /// Alterations take their time: they are to fall between other things.
    pub(crate) fn wants(&mut self, partitions: &mut [Partition], random: &mut Random) -> Option<u64> {
        if self.waiting || self.task == Task::Rest {
            return None;
        }
        if let (Task::Alter(at), false) = (self.task, self.asking) {
            if !random.chance(5) {
                return None;
            }
            let Alteration { topic, durability, .. } = self.alterations[at];
            if let Some(level) = durability {
                // From now on it may be the weaker of both.
                of_topic(partitions, topic).for_each(|partition| partition.may_become(level));
            }
        }
        self.waiting = true;
        self.correlation += 1;
        Some(self.correlation)
    }

    fn topic(&self) -> usize {
        match self.task {
            Task::Create(topic) => topic,
            Task::Alter(at) => self.alterations[at].topic,
            Task::Rest => unreachable!("who rests asks for nothing"),
        }
    }

    pub(crate) fn request(&self) -> Request<'static> {
        let (name, durability) = TOPICS[self.topic()];
        match self.task {
            _ if self.asking => Request::Metadata { topic: Some(name) },
            Task::Create(_) => Request::CreateTopic {
                name,
                partitions: PARTITIONS,
                durability,
                retention: RetentionChange::NONE,
            },
            Task::Alter(at) => {
                let Alteration { partitions, durability, retention, .. } = self.alterations[at];
                Request::AlterTopic { name, partitions, durability, retention }
            }
            Task::Rest => unreachable!("who rests asks for nothing"),
        }
    }

    /// Takes an answer in; `place` is where it would ask next.
    pub(crate) fn answered(
        &mut self,
        response: &Response,
        partitions: &mut [Partition],
        logs: u16,
        place: LogId,
    ) {
        self.waiting = false;
        match response {
            Response::TopicCreated { topic } => {
                let known =
                    Known { topic: *topic, partitions: PARTITIONS, durability: TOPICS[self.topic()].1 };
                self.knows(known, partitions, logs, place);
            }
            Response::TopicAltered { topic, partitions: count, durability } => {
                let known = Known { topic: *topic, partitions: *count, durability: *durability };
                assert_eq!((*count, *durability), self.expected(), "another alteration");
                of_topic(partitions, self.topic()).for_each(|partition| partition.has_become(*durability));
                self.knows(known, partitions, logs, place);
            }
            Response::Metadata(view) => self.told(view, partitions),
            Response::Refused(Refusal::TopicExists) => (self.asking, self.at) = (true, place),
            Response::Refused(Refusal::UnknownTopic) => {
                let known = self.answered.is_some() || matches!(self.task, Task::Alter(_));
                assert!(!known, "an answered creation is known everywhere");
                (self.asking, self.at) = (false, LogId(0));
            }
            Response::Refused(Refusal::NotReady | Refusal::ReadOnly | Refusal::StorageFull) => {}
            other => panic!("no answer to an admin: {other:?}"),
        }
    }

    /// What the topic is once its alteration is answered.
    fn expected(&self) -> (u32, Durability) {
        let topic = self.topic();
        let (mut partitions, mut level) = (self.partitions[topic], self.levels[topic]);
        if let Task::Alter(at) = self.task {
            partitions = self.alterations[at].partitions.unwrap_or(partitions);
            level = self.alterations[at].durability.unwrap_or(level);
        }
        (partitions, level)
    }

    /// With one log there is one place to ask, and nothing to learn there.
    fn knows(&mut self, known: Known, partitions: &mut [Partition], logs: u16, place: LogId) {
        if logs == 1 {
            return self.found(known, &[], partitions);
        }
        (self.answered, self.asking, self.at) = (Some(known), true, place);
    }

    fn told(&mut self, view: &MetadataView, partitions: &mut [Partition]) {
        let found = &view.topics[0];
        let known = Known {
            topic: found.topic,
            partitions: found.partitions.len() as u32,
            durability: found.durability,
        };
        if let Some(answered) = self.answered {
            assert_eq!(known, answered, "what was answered is known everywhere");
        }
        assert!(found.partitions.iter().all(|partition| partition.leader_epoch > Term(0)));
        let homes: Vec<_> = found.partitions.iter().map(|partition| partition.log).collect();
        self.found(known, &homes, partitions);
    }

    fn found(&mut self, known: Known, homes: &[LogId], partitions: &mut [Partition]) {
        let topic = self.topic();
        for partition in of_topic(partitions, topic).filter(|at| at.partition < known.partitions) {
            partition.topic = Some(known.topic);
            partition.log = homes.get(partition.partition as usize).copied().unwrap_or_default();
        }
        (self.partitions[topic], self.levels[topic]) = self.expected();
        (self.asking, self.at, self.answered) = (false, LogId(0), None);
        self.task = match self.task {
            Task::Create(at) if at + 1 < TOPICS.len() => Task::Create(at + 1),
            Task::Alter(at) if at + 1 < self.alterations.len() => Task::Alter(at + 1),
            Task::Create(_) if !self.alterations.is_empty() => Task::Alter(0),
            _ => Task::Rest,
        };
    }
}

fn of_topic(partitions: &mut [Partition], topic: usize) -> impl Iterator<Item = &mut Partition> {
    partitions.iter_mut().filter(move |partition| partition.name == TOPICS[topic].0)
}
