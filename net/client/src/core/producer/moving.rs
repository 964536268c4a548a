//! Partitions that are served elsewhere than was thought, and partitions that were added: the link that was told so, or
//! whose knowledge has become old, asks where they are, and lanes move or are made.
//!
//! **Invariant:** a lane moves only while it is not open and nothing of it is out, so no answer can find it on another link.

use corelog_model::TopicId;

use super::{Ask, Link, Producer};
use crate::core::effects::Effects;
use crate::core::lane::Opened;
use crate::error::ProduceError;

impl Producer {
    /// The link's broker does not serve the lane's partition: ask it who does, once for all lanes of the topic.
    pub(super) fn is_astray(&mut self, at: usize) {
        let lane = &self.lanes[at];
        let link = &mut self.links[lane.link];
        if !link.astray.contains(&lane.topic) {
            link.astray.push(lane.topic);
            link.kick = true;
        }
    }

    /// The topic is to be looked at again. How often it was answered where its partitions are; `None` if it is not known.
    pub(crate) fn refresh(&mut self, topic: TopicId) -> Option<u64> {
        let topic = &self.topics[*self.by_topic.get(&topic)?];
        let lane = &self.lanes[*topic.lanes.first()?];
        let link = &mut self.links[lane.link];
        if !link.astray.contains(&lane.topic) {
            link.astray.push(lane.topic);
            link.kick = true;
        }
        Some(topic.located)
    }

    /// How often it was answered where a topic's partitions are, and how many these are.
    pub(crate) fn located(&self, topic: TopicId) -> (u64, u32) {
        let topic = self.by_topic.get(&topic).map(|&at| &self.topics[at]);
        topic.map_or((0, 0), |topic| (topic.located, topic.count()))
    }

    /// Whether nothing will be answered any more.
    pub(crate) const fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    pub(super) fn ask_places(&mut self, link: usize, now_us: u64, out: &mut Vec<Ask>) {
        if self.refresh_at(link).is_some_and(|due| due <= now_us) {
            self.links[link].refresh_us = now_us.saturating_add(self.metadata_age_us);
            for topic in &self.topics {
                let is_here = topic.lanes.first().is_some_and(|&lane| self.lanes[lane].link == link);
                let astray = &mut self.links[link].astray;
                if is_here && !astray.contains(&topic.topic) {
                    astray.push(topic.topic);
                }
            }
        }
        let Link { astray, locating, .. } = &mut self.links[link];
        out.extend(astray.iter().map(|&topic| Ask::Locate { topic }));
        locating.append(astray);
    }

    /// When the topics of a link are asked for again, in microseconds.
    pub(super) fn refresh_at(&self, link: usize) -> Option<u64> {
        let Link { connected, handles, refresh_us, .. } = self.links[link];
        (connected && handles > 0 && refresh_us < u64::MAX).then_some(refresh_us)
    }

    /// What a link asked about a topic is answered, whatever the answer is.
    pub(crate) fn on_place_answered(&mut self, link: usize, topic: TopicId) {
        let locating = &mut self.links[link].locating;
        if let Some(at) = locating.iter().position(|&other| other == topic) {
            locating.swap_remove(at);
        }
        if let Some(&at) = self.by_topic.get(&topic) {
            self.topics[at].located += 1;
        }
    }

    /// The topic's partitions are served by these links, one per partition.
    pub(crate) fn on_located(&mut self, topic: TopicId, links: &[usize], now_us: u64, effects: &mut Effects) {
        let Some(&known) = self.by_topic.get(&topic) else { return };
        self.add_topic(topic, links);
        for partition in 0..self.topics[known].lanes.len() {
            let at = self.topics[known].lanes[partition];
            match links.get(partition) {
                Some(&link) => self.move_lane(at, link),
                None if self.lanes[at].missing => {
                    self.close_batch(at, now_us, effects);
                    self.lanes[at].fail_all(&ProduceError::UnknownPartition, &mut self.done);
                    self.finish(at, now_us, effects);
                }
                None => {}
            }
        }
    }

    fn move_lane(&mut self, at: usize, link: usize) {
        let lane = &mut self.lanes[at];
        if lane.link == link || lane.opened != Opened::No || lane.in_flight() > 0 {
            return;
        }
        let old = &mut self.links[lane.link];
        old.ready.retain(|&listed| listed != at);
        old.unopened.retain(|&listed| listed != at);
        old.lingering.retain(|&listed| listed != at);
        let new = &mut self.links[link];
        new.handles += 1;
        (lane.link, lane.handle, lane.in_ready) = (link, new.handles, false);
        if lane.in_lingering {
            new.lingering.push_back(at);
        }
        // The pause that a refusal brought is over, and its timer is the old link's.
        lane.end_pause();
        lane.timer_us = None;
        self.enlist(at);
        self.arm(at);
    }
}
