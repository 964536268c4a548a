//! What the shards of one store say to each other.
//!
//! A letter goes from one log to another, on whatever cores they are. Whoever carries letters keeps the order of those
//! from one log to one other and loses none; one for a log that is still starting waits until it has started. A crash
//! takes all of them, with all shards: nothing is sent twice within a start, and a start begins with
//! [`Mail::Started`] from each log to each other.
//!
//! Log 0 decides on topics. It asks the logs that keep some of a topic to open or close their part, which they answer
//! when that is durable, and tells all logs what clients may see, which they confirm before a client is answered: so
//! who was told of a change finds it on any core.
//!
//! Letters are bounded by the changes that log 0 has in progress: for each a log is asked once a step and answers once,
//! and news are of one change at least. A specification is passed by reference, however many partitions it has.

use std::sync::Arc;

use corelog_model::{LogId, Term, TopicId};

use crate::refusal::Refusal;
use crate::response::DamageView;
use crate::spec::TopicSpec;

/// One letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mail {
    /// From each log to each other, once, before anything else.
    Started {
        /// The term it serves in.
        term: Term,
        /// What it knows to be damaged, by topic.
        damage: Vec<(TopicId, DamageView)>,
    },
    /// What is damaged has changed: all of it.
    Damaged(Vec<(TopicId, DamageView)>),
    /// From log 0: open your part of this topic, as far as it is not open.
    Open(Arc<TopicSpec>),
    /// To log 0: my part is open, durably.
    Opened(TopicId),
    /// From log 0: close your part of this topic, if you have one.
    Close(TopicId),
    /// From log 0: close what of this topic you have opened beyond this.
    Restore(Arc<TopicSpec>),
    /// To log 0: I have no part of it, or nothing beyond what I may have, durably.
    Closed(TopicId),
    /// To log 0: my part was not opened, or not closed.
    Refused(TopicId, Refusal),
    /// From log 0: what clients may see has changed.
    Told(Arc<News>),
    /// To log 0: I have heard of everything up to this version.
    Heard {
        /// The version of the news.
        version: u64,
    },
}

/// A change of what clients may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Rises with each, never falls, also over restarts.
    pub(crate) version: u64,
    /// Topics that can be used from now on, as they are from now on.
    pub(crate) appeared: Vec<Arc<TopicSpec>>,
    /// Topics that cannot be used any more.
    pub(crate) gone: Vec<TopicId>,
}

/// A letter and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The log it is for; never the sender's.
    pub to: LogId,
    /// What it says.
    pub mail: Mail,
}
