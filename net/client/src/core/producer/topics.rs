//! The topics of a producer: which lane a record goes to. A topic only grows.

use corelog_model::TopicId;

use super::Producer;
use crate::core::lane::{Identity, Lane};
use crate::core::partitioner::{Sticky, of_key};
use crate::error::TrySendError;

pub(super) struct TopicLanes {
    pub(super) topic: TopicId,
    /// By partition.
    pub(super) lanes: Vec<usize>,
    pub(super) sticky: Sticky,
    /// How often it was answered where its partitions are.
    pub(super) located: u64,
}

impl TopicLanes {
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.lanes.len()).expect("a topic has at most 100,000 partitions")
    }
}

impl Producer {
    /// The lanes of a topic, one per element of `links`: the number of the link that serves the partition. Of a topic that
    /// is known already the lanes of partitions that were added.
    pub(crate) fn add_topic(&mut self, topic: TopicId, links: &[usize]) {
        let next = self.topics.len();
        let at = *self.by_topic.entry(topic).or_insert(next);
        if at == next {
            let (lanes, sticky) = (Vec::with_capacity(links.len()), Sticky::default());
            self.topics.push(TopicLanes { topic, lanes, sticky, located: 0 });
        }
        let known = self.topics[at].count();
        for (partition, &link) in (known..).zip(links.iter().skip(known as usize)) {
            self.links[link].handles += 1;
            let handle = self.links[link].handles;
            let mut lane = Lane::new(topic, partition, link, handle);
            lane.identity = (!self.config.idempotent).then_some(Identity::NONE);
            self.topics[at].lanes.push(self.lanes.len());
            self.lanes.push(lane);
        }
    }

    /// Whether the topic is known with at least so many partitions.
    pub(crate) fn knows(&self, topic: TopicId, partitions: u32) -> bool {
        let at = match self.recent {
            Some((recent, at)) if recent == topic => Some(at),
            _ => self.by_topic.get(&topic).copied(),
        };
        at.is_some_and(|at| self.topics[at].count() >= partitions)
    }

    /// The lane of a record; the topic is known.
    pub(crate) fn lane_for(
        &mut self,
        topic: TopicId,
        index: Option<u32>,
        key: Option<&[u8]>,
    ) -> Result<usize, TrySendError> {
        // Most producers send to the same topic again and again: that one is found without hashing.
        let at = match self.recent {
            Some((recent, at)) if recent == topic => at,
            _ => self.by_topic[&topic],
        };
        self.recent = Some((topic, at));
        let lanes = &mut self.topics[at];
        let count = lanes.count();
        if count == 0 {
            return Err(TrySendError::UnknownPartition);
        }
        let partition = match (index, key) {
            (Some(index), _) => index,
            (None, Some(key)) => of_key(key, count),
            (None, None) => lanes.sticky.partition(count, &mut self.rng),
        };
        lanes.lanes.get(partition as usize).copied().ok_or(TrySendError::UnknownPartition)
    }
}
