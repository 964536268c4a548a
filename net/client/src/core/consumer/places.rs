//! What partitions a topic has and where they are: asked over the first connection that there is, whenever what is known
//! has become old, a link was sent away, or somebody wants to know. Cursors move, and begin where partitions were added.

use super::Consumer;
use super::cursor::Cursor;
use crate::config::{ConsumerConfig, Partitions, Position};
use crate::core::effects::Effects;
use crate::error::ConsumeError;

/// What partitions the topic has is asked now and then, over the first connection that there is.
#[derive(Debug)]
pub(super) struct Refresh {
    /// Partitions that are added are read, too.
    follows: bool,
    /// How old what is known may become.
    age_us: u64,
    /// When it is asked for again, in microseconds, once that is known.
    due_us: Option<u64>,
    /// It is to be asked now.
    wanted: bool,
    /// The link that was asked and has not answered yet.
    pub(super) asked: Option<usize>,
    /// How often it was answered.
    answers: u64,
    /// How many partitions the topic has.
    partitions: u32,
}

impl Refresh {
    pub(super) fn new(config: &ConsumerConfig, age_us: u64) -> Self {
        Self {
            follows: config.partitions == Partitions::All,
            age_us,
            due_us: None,
            wanted: false,
            asked: None,
            answers: 0,
            partitions: config.topic.partition_count(),
        }
    }
}

impl Consumer {
    /// Whether the link is to ask now what partitions there are.
    pub(super) fn is_to_refresh(&mut self, link: usize, now_us: u64) -> bool {
        if self.links.iter().position(|link| link.connected) != Some(link) {
            return false;
        }
        let refresh = &mut self.refresh;
        let next_us = now_us.saturating_add(refresh.age_us);
        let due = refresh.follows && *refresh.due_us.get_or_insert(next_us) <= now_us && next_us < u64::MAX;
        if !due && !refresh.wanted {
            return false;
        }
        (refresh.due_us, refresh.wanted, refresh.asked) = (Some(next_us), false, Some(link));
        true
    }

    /// What partitions there are is to be asked; how often it was answered.
    pub(crate) fn refresh(&mut self) -> u64 {
        self.refresh.wanted = true;
        if let Some(link) = self.links.iter_mut().find(|link| link.connected) {
            link.kick = true;
        }
        self.refresh.answers
    }

    /// How often it was answered what partitions there are, and how many are read; `None`: nobody will answer.
    pub(crate) fn refreshed(&self) -> Option<(u64, u32)> {
        let count = u32::try_from(self.cursors.len()).expect("a topic has at most 100,000 partitions");
        (!self.closed).then_some((self.refresh.answers, count))
    }

    /// What a link asked is answered, whatever the answer is.
    pub(crate) fn on_place_answered(&mut self) {
        self.refresh.asked = None;
        self.refresh.answers += 1;
    }

    /// The partitions are served by these links, one per partition of the topic. A cursor moves only while nothing of
    /// it is open or on its way, so no answer can find it on another link. What was added is read from its start.
    pub(crate) fn on_located(&mut self, links: &[usize], effects: &mut Effects) {
        let count = u32::try_from(links.len()).expect("a topic has at most 100,000 partitions");
        for at in 0..self.cursors.len() {
            if self.cursors[at].missing && self.cursors[at].partition >= count {
                self.cursors[at].missing = false;
                self.stop(at, ConsumeError::UnknownPartition, effects);
            }
        }
        for partition in self.refresh.partitions..count {
            self.refresh.partitions = count;
            if !self.refresh.follows {
                break;
            }
            let link = links[partition as usize];
            self.handles[link] += 1;
            self.by_partition.insert(partition, self.cursors.len());
            let mut cursor = Cursor::new(partition, link, self.handles[link], Position::Start);
            if self.config.name.is_none() {
                cursor.go_to(Position::Start);
            }
            self.cursors.push(cursor);
            self.links[link].kick = true;
        }
        for cursor in &mut self.cursors {
            let Some(&link) = links.get(cursor.partition as usize) else { continue };
            if cursor.link == link || cursor.opened || cursor.is_waiting() {
                continue;
            }
            self.handles[link] += 1;
            (cursor.link, cursor.handle, cursor.not_before_us) = (link, self.handles[link], 0);
            self.links[link].kick = true;
        }
    }

    /// When the link is to ask what partitions there are, in microseconds.
    pub(super) fn refresh_at(&self, link: usize) -> Option<u64> {
        let first = self.links.iter().position(|link| link.connected) == Some(link);
        self.refresh.due_us.filter(|&due| first && self.refresh.follows && due < u64::MAX)
    }
}
