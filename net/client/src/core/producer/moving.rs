//! Partitions that are served elsewhere than was thought: the link that was told so asks where, and the lanes move.
//!
//! **Invariant:** a lane moves only while it is not open and nothing of it is out, so no answer can find it on another link.

use corelog_model::TopicId;

use super::{Ask, Producer};
use crate::core::lane::Opened;

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

    pub(super) fn ask_places(&mut self, link: usize, out: &mut Vec<Ask>) {
        out.extend(self.links[link].astray.drain(..).map(|topic| Ask::Locate { topic }));
    }

    /// The topic's partitions are served by these links, one per partition.
    pub(crate) fn on_located(&mut self, topic: TopicId, links: &[usize]) {
        let Some(&at) = self.by_topic.get(&topic) else { return };
        let (first, count) = (self.topics[at].first, self.topics[at].count as usize);
        for (at, &link) in (first..first + count).zip(links) {
            let lane = &mut self.lanes[at];
            if lane.link == link || lane.opened != Opened::No || lane.in_flight() > 0 {
                continue;
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
}
