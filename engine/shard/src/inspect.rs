//! What the entries of the metadata group and the parts of checkpoints say, for who looks into a stopped store.
//!
//! Each is read by itself and held against nothing: what stands before it may be damaged.

use corelog_model::{Durability, GroupId, LogId, ProducerId, Retention, Term, TopicId};

use crate::checkpoint::{Item, items};
use crate::metadata::{Command, TopicState};
use crate::position;
use crate::spec::{Alteration, Span, TopicSpec};

/// How far the creation, alteration or deletion of a topic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It begins to be made.
    Creating,
    /// A log has opened its part of it.
    Opened,
    /// It can be used.
    Ready,
    /// It begins to be altered.
    Altering,
    /// A log has refused its part of that: it begins to become what it was.
    Reverting,
    /// It is what it was.
    Reverted,
    /// It begins to be removed.
    Deleting,
    /// A log has closed its part of it.
    Closed,
    /// It is gone.
    Deleted,
    /// A log that does not decide on it keeps some of it.
    Held,
    /// A log that does not decide on it keeps nothing of it any more.
    Dropped,
}

impl Step {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Opened => "opened",
            Self::Ready => "ready",
            Self::Altering => "altering",
            Self::Reverting => "reverting",
            Self::Reverted => "reverted",
            Self::Deleting => "deleting",
            Self::Closed => "closed",
            Self::Deleted => "deleted",
            Self::Held => "held",
            Self::Dropped => "dropped",
        }
    }
}

/// What an alteration makes of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its level.
    pub durability: Durability,
    /// What takes its records away.
    pub retention: Retention,
    /// How many partitions are added.
    pub added: u32,
    /// The group of the first of them; 0 where none is added. Those of the others follow.
    pub first_group: GroupId,
}

impl From<&Alteration> for Change {
    fn from(alteration: &Alteration) -> Self {
        let Alteration { durability, retention, first_group, .. } = *alteration;
        Self { durability, retention, added: alteration.partitions(), first_group }
    }
}

/// One thing that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// There is this topic.
    Topic {
        /// Its id.
        topic: TopicId,
        /// Its name.
        name: String,
        /// When its records are acknowledged.
        durability: Durability,
        /// What takes its records away.
        retention: Retention,
        /// Its groups, in spans of partitions whose groups follow each other.
        spans: Vec<Span>,
        /// How many partitions it has.
        partitions: u32,
        /// How far it is.
        step: Step,
        /// What it becomes, while it is altered.
        next: Option<Change>,
    },
    /// A topic begins to be altered.
    Altering {
        /// Which topic.
        topic: TopicId,
        /// What it is to become.
        change: Change,
    },
    /// A topic is one step further.
    Step {
        /// Which topic.
        topic: TopicId,
        /// How far it is now.
        step: Step,
        /// The log whose step it is, where it is one log's.
        log: Option<LogId>,
    },
    /// Producer ids below `end` may have been given.
    ProducerIds {
        /// One past the last.
        end: u64,
    },
    /// The numbers that the metadata give next.
    Counters {
        /// Index of the metadata group's next entry.
        next_index: u64,
        /// Lower half of the next topic's id.
        next_topic: u64,
        /// The next topic's first group.
        next_group: u64,
        /// Producer ids below it may have been given.
        producer_ids_end: u64,
    },
    /// Where a partition stands.
    Partition {
        /// Its group.
        group: GroupId,
        /// Its topic.
        topic: TopicId,
        /// Its number.
        partition: u32,
        /// The first offset kept.
        log_start: u64,
        /// The next offset to be given.
        log_end: u64,
        /// Terms and the offsets they begin at.
        epochs: Vec<(Term, u64)>,
    },
    /// Where a producer stands in a partition.
    Producer {
        /// Its id.
        producer: ProducerId,
        /// Its epoch.
        epoch: u16,
        /// The partition's group.
        group: GroupId,
        /// The sequence of its next record.
        next_sequence: u32,
    },
    /// How far whoever reads a partition under a name has come.
    Position {
        /// The name.
        name: String,
        /// The partition's group.
        group: GroupId,
        /// The next offset to be read.
        offset: u64,
        /// The epoch of what was read before it, where that was said.
        leader_epoch: Option<Term>,
        /// When it was committed, in microseconds since 1970.
        commit_timestamp_us: u64,
        /// The client's note.
        metadata: String,
    },
    /// A position is forgotten.
    Forgotten {
        /// Its name.
        name: String,
        /// The partition's group.
        group: GroupId,
    },
    /// The positions that follow are as the entries before this one have them.
    Positions {
        /// Index of the positions group's next entry.
        next_index: u64,
        /// Those of earlier checkpoints do not count any more.
        anew: bool,
    },
}

/// What an entry of the metadata group says; `None` when it does not decode.
pub fn metadata(payload: &[u8]) -> Option<Fact> {
    let step = |topic, step, log| Fact::Step { topic, step, log };
    Some(match Command::decode(payload)? {
        Command::Creating(spec) => topic_fact(&spec, Step::Creating, None),
        Command::Held(spec) => topic_fact(&spec, Step::Held, None),
        Command::Dropped { topic } => step(topic, Step::Dropped, None),
        Command::Opened { topic, log } => step(topic, Step::Opened, Some(log)),
        Command::Altering(alteration) => {
            Fact::Altering { topic: alteration.topic, change: Change::from(&alteration) }
        }
        Command::Reverting { topic } => step(topic, Step::Reverting, None),
        Command::Reverted { topic } => step(topic, Step::Reverted, None),
        Command::Ready { topic } => step(topic, Step::Ready, None),
        Command::Deleting { topic } => step(topic, Step::Deleting, None),
        Command::Closed { topic, log } => step(topic, Step::Closed, Some(log)),
        Command::Deleted { topic } => step(topic, Step::Deleted, None),
        Command::ProducerIds { end } => Fact::ProducerIds { end },
    })
}

/// What an entry of the positions group says; `None` when it does not decode.
pub fn position(payload: &[u8]) -> Option<Fact> {
    position::Change::decode(payload).map(position_fact)
}

/// What the shard's part of a checkpoint says; `None` when it does not decode.
pub fn checkpoint(part: &[u8]) -> Option<Vec<Fact>> {
    Some(items(part)?.into_iter().map(Fact::from).collect())
}

fn topic_fact(spec: &TopicSpec, step: Step, next: Option<Change>) -> Fact {
    Fact::Topic {
        topic: spec.topic,
        name: spec.name.clone(),
        durability: spec.durability,
        retention: spec.retention,
        spans: spec.spans.clone(),
        partitions: spec.partitions(),
        step,
        next,
    }
}

fn position_fact(change: position::Change) -> Fact {
    let position::Change { group, name, position } = change;
    let name = name.as_ref().to_owned();
    match position {
        None => Fact::Forgotten { name, group },
        Some(position) => Fact::Position {
            name,
            group,
            offset: position.offset,
            leader_epoch: position.leader_epoch,
            commit_timestamp_us: position.commit_us,
            metadata: position.metadata.as_ref().to_owned(),
        },
    }
}

impl From<Item> for Fact {
    fn from(item: Item) -> Self {
        match item {
            Item::Counters(counters) => Self::Counters {
                next_index: counters.next_index,
                next_topic: counters.next_topic,
                next_group: counters.next_group,
                producer_ids_end: counters.producer_ids_end,
            },
            Item::Topic(topic) => {
                let step = match topic.state {
                    TopicState::Creating => Step::Creating,
                    TopicState::Ready => Step::Ready,
                    TopicState::Altering => Step::Altering,
                    TopicState::Reverting => Step::Reverting,
                    TopicState::Deleting => Step::Deleting,
                };
                let next = topic.next.map(|next| Alteration::between(&topic.spec, &next.spec));
                topic_fact(&topic.spec, step, next.as_ref().map(Change::from))
            }
            Item::Group(item) => Self::Partition {
                group: item.group,
                topic: item.topic,
                partition: item.partition,
                log_start: item.log_start,
                log_end: item.log_end,
                epochs: item.epochs,
            },
            Item::Producer(state) => Self::Producer {
                producer: state.producer,
                epoch: state.epoch,
                group: state.group,
                next_sequence: state.next_sequence,
            },
            Item::Positions { next_index, anew } => Self::Positions { next_index, anew },
            Item::Position(change) => position_fact(change),
        }
    }
}
