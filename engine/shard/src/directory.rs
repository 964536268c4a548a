//! What clients may see of all logs: topics, where their partitions are, the terms, and what is damaged.
//!
//! Every shard has one, so that every core answers Metadata by itself. It is not durable: log 0 knows the topics, and
//! tells the others. **Invariant:** the version never falls; who has heard of a version has all of what it says.

use std::collections::BTreeMap;
use std::sync::Arc;

use corelog_model::{LogId, Term, TopicId};

use crate::mail::News;
use crate::metadata::Metadata;
use crate::response::{DamageView, MetadataView, PartitionView, TopicView};
use crate::spec::TopicSpec;

/// What is known of all logs.
#[derive(Debug)]
pub(crate) struct Directory {
    version: u64,
    topics: BTreeMap<TopicId, Arc<TopicSpec>>,
    names: BTreeMap<String, TopicId>,
    logs: Vec<KnownLog>,
}

/// What a log has said of itself.
#[derive(Clone, Debug, Default)]
struct KnownLog {
    /// 0 until it has started.
    term: Term,
    damage: Vec<(TopicId, DamageView)>,
}

impl Directory {
    /// One that knows of nothing but how many logs there are.
    pub(crate) fn new(logs: u16) -> Self {
        Self {
            version: 0,
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            logs: vec![KnownLog::default(); logs.into()],
        }
    }

    /// What log 0 knows when it starts.
    pub(crate) fn of_first(logs: u16, metadata: &Metadata) -> Self {
        let ready = metadata.topics.values().filter(|topic| topic.is_shown());
        let appeared = ready.map(|topic| Arc::clone(&topic.spec)).collect();
        let mut directory = Self::new(logs);
        directory.hear(&News { version: metadata.next_index, appeared, gone: Vec::new() });
        directory
    }

    /// A log has started, or has said anew what of it is damaged.
    pub(crate) fn know(&mut self, log: LogId, term: Option<Term>, damage: Vec<(TopicId, DamageView)>) {
        let Some(known) = self.logs.get_mut(usize::from(log.0)) else { return };
        known.term = term.unwrap_or(known.term);
        known.damage = damage;
    }

    /// Takes news in.
    pub(crate) fn hear(&mut self, news: &News) {
        assert!(news.version >= self.version, "news come in order");
        self.version = news.version;
        for topic in &news.gone {
            if let Some(gone) = self.topics.remove(topic) {
                self.names.remove(&gone.name);
            }
        }
        for spec in &news.appeared {
            self.names.insert(spec.name.clone(), spec.topic);
            let before = self.topics.insert(spec.topic, Arc::clone(spec));
            assert!(before.is_none_or(|before| before.begins(spec)), "a topic keeps the partitions it has");
        }
    }

    /// All of it, as news for a log that knows nothing.
    pub(crate) fn whole(&self) -> News {
        News { version: self.version, appeared: self.topics.values().cloned().collect(), gone: Vec::new() }
    }

    /// The version heard of last.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// How many topics there are.
    pub(crate) fn len(&self) -> usize {
        self.topics.len()
    }

    pub(crate) fn topic(&self, topic: TopicId) -> Option<&Arc<TopicSpec>> {
        self.topics.get(&topic)
    }

    pub(crate) fn topic_by_name(&self, name: &str) -> Option<&Arc<TopicSpec>> {
        self.topics.get(self.names.get(name)?)
    }

    /// One topic, or all of them by name, as clients see them.
    pub(crate) fn view(&self, one: Option<&TopicSpec>) -> MetadataView {
        let topics = match one {
            Some(spec) => vec![self.describe(spec)],
            None => self.names.values().map(|id| self.describe(&self.topics[id])).collect(),
        };
        let logs = u16::try_from(self.logs.len()).expect("made from a u16");
        MetadataView { version: self.version, logs, topics }
    }

    /// The term of a log, 0 before it has started.
    pub(crate) fn term(&self, log: LogId) -> Term {
        self.logs.get(usize::from(log.0)).map_or(Term(0), |known| known.term)
    }

    fn describe(&self, spec: &TopicSpec) -> TopicView {
        let partitions = spec.placement.iter();
        let partitions = partitions.map(|&log| PartitionView { log, leader_epoch: self.term(log) }).collect();
        let known = self.logs.iter().flat_map(|known| &known.damage);
        let mut damage: Vec<_> =
            known.filter(|(topic, _)| *topic == spec.topic).map(|(_, damage)| *damage).collect();
        damage.sort_unstable();
        let (name, durability) = (spec.name.clone(), spec.durability);
        let retention = spec.retention;
        TopicView { name, topic: spec.topic, durability, retention, partitions, damage }
    }

    /// Names and topics agree.
    pub(crate) fn check(&self) {
        assert_eq!(self.names.len(), self.topics.len());
        for (name, id) in &self.names {
            assert_eq!(&self.topics[id].name, name);
        }
    }
}
