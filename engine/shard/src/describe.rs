//! The cold questions: open a handle, find an offset, list topics, report counters.

use corelog_model::TopicId;

use crate::event::{Actions, Taken};
use crate::metadata::Topic;
use crate::partition::PartitionId;
use crate::refusal::Refusal;
use crate::response::{DamageView, MetadataView, PartitionView, Response, TopicView};
use crate::shard::{Asker, Shard};
use crate::status::ShardStatus;

impl Shard {
    pub(crate) fn open(&mut self, asker: Asker, handle: u32, id: PartitionId, out: &mut Actions) -> Taken {
        if let Err(refusal) = self.sessions.open(asker.conn, handle, id) {
            return self.refuse(asker, refusal, out);
        }
        let partition = self.partitions.get(id).expect("a resolved partition exists");
        let cursors = partition.cursors();
        let opened = Response::Opened {
            topic: partition.topic,
            partition: partition.partition,
            log_start: cursors.log_start,
            high_watermark: cursors.high_watermark,
            leader_epoch: self.log.term(),
            durability: partition.durability,
        };
        asker.answer(opened, out);
        Taken::Done
    }

    pub(crate) fn describe(&mut self, asker: Asker, name: Option<&str>, out: &mut Actions) -> Taken {
        let mut view =
            MetadataView { version: self.metadata.next_index, logs: self.config.logs, topics: Vec::new() };
        if let Some(name) = name {
            let Some((id, topic)) = self.metadata.topic_by_name(name) else {
                return self.refuse(asker, Refusal::UnknownTopic, out);
            };
            if !self.changes.is_settled(id) {
                return self.refuse(asker, Refusal::NotReady, out);
            }
            view.topics.push(self.view(id, topic));
        } else {
            let settled = self.metadata.names.values().filter(|id| self.changes.is_settled(**id));
            view.topics.extend(settled.map(|id| self.view(*id, &self.metadata.topics[id])));
        }
        asker.answer(Response::Metadata(Box::new(view)), out);
        Taken::Done
    }

    fn view(&self, id: TopicId, topic: &Topic) -> TopicView {
        let leader_epoch = self.log.term();
        let partitions =
            topic.placement.iter().map(|log| PartitionView { log: *log, leader_epoch }).collect();
        let damage = self.damage_of(id);
        TopicView { name: topic.name.clone(), topic: id, durability: topic.durability, partitions, damage }
    }

    /// What retention has taken since is not missed any more.
    fn damage_of(&self, topic: TopicId) -> Vec<DamageView> {
        let known = self.log.damage().filter_map(|(slot, first, last)| {
            let partition = self.partitions.get(*self.by_log_slot.get(&slot)?)?;
            let missed = partition.topic == topic && last >= partition.cursors().log_start;
            missed.then_some(DamageView { partition: partition.partition, first, last })
        });
        let mut damage: Vec<DamageView> = known.collect();
        damage.sort_unstable();
        damage.dedup();
        damage
    }

    pub(crate) fn report(&mut self, asker: Asker, out: &mut Actions) -> Taken {
        asker.answer(Response::Status(Box::new(self.status())), out);
        Taken::Done
    }

    /// Counters and gauges, for the Status request and for the server's own log.
    pub fn status(&self) -> ShardStatus {
        let bounded = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        ShardStatus {
            log: self.config.log.log,
            term: self.log.term(),
            storage: self.log.stats(),
            counters: self.counters,
            connections: self.sessions.connected(),
            handles: self.sessions.handles(),
            topics: bounded(self.metadata.topics.len()),
            partitions: bounded(self.partitions.len()),
            producers: bounded(self.producers.len()),
            waits: self.waits.for_data(),
            reads: self.waits.for_disk(),
            pending: bounded(self.pending.len()),
        }
    }
}
