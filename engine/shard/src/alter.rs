//! Topics that change: partitions that are added, another level, another time or size that is kept.
//!
//! An alteration is one entry `altering` of log 0's metadata group. The logs that get partitions open them, as they do
//! for a new topic; then it is `ready`, and all shards are told. Until then the topic is what it was: nobody sees the new
//! partitions, and what is in use goes on. Where a log refuses, the others close what they had opened, and the topic
//! stays as it was. A restart goes on where the entries end.
//!
//! A level is log 0's to say: each shard takes it over with the news, from one request to the next.
//! - **What is appended from then on** is acknowledged and visible at the new level.
//! - **What waits already** is acknowledged at the stronger of both. Answers keep the order of their requests: so what
//!   is appended at a weaker level waits behind what waits at the stronger one, for as long as that does.
//! - **What is visible stays visible.** A shard confirms news that make a topic durable when all that it has appended
//!   before is durable: who is told that the topic is durable may rely on what can be read in it.

use std::sync::Arc;

use corelog_model::limits::MAX_PARTITIONS_PER_TOPIC;
use corelog_model::{Durability, GroupId, Now, RetentionChange};
use corelog_storage::feature;

use crate::change::{Aim, Change, Step, placement};
use crate::event::{Actions, Taken};
use crate::mail::{Mail, News};
use crate::metadata::Command;
use crate::refusal::Refusal;
use crate::response::Response;
use crate::room::NoRoom;
use crate::shard::{Asker, Shard};
use crate::spec::{Alteration, TopicSpec};

/// What the client is told of a topic that is as it asked for.
pub(crate) fn altered(spec: &TopicSpec) -> Response {
    Response::TopicAltered { topic: spec.topic, partitions: spec.partitions(), durability: spec.durability }
}

/// What is to become of a topic, as far as it is named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) partitions: Option<u32>,
    pub(crate) durability: Option<Durability>,
    pub(crate) retention: RetentionChange,
}

impl Shard {
    pub(crate) fn alter_topic(
        &mut self,
        now: Now,
        asker: Asker,
        name: &str,
        wish: Wish,
        out: &mut Actions,
    ) -> Taken {
        match self.alteration(name, wish) {
            Ok(None) => {
                let (_, topic) = self.metadata.topic_by_name(name).expect("it was just found");
                asker.answer(altered(&topic.spec), out);
                Taken::Done
            }
            Ok(Some(alteration)) => {
                let step = (alteration.topic, Command::Altering(alteration), Aim::Alter);
                self.begin(now, asker, Ok(step), out)
            }
            Err(refusal) => self.begin(now, asker, Err(refusal), out),
        }
    }

    /// What is to be changed of a topic; `None` where it is as it is to be.
    fn alteration(
        &self,
        name: &str,
        Wish { partitions, durability, retention }: Wish,
    ) -> Result<Option<Alteration>, Refusal> {
        let (id, topic) = self.metadata.topic_by_name(name).ok_or(Refusal::UnknownTopic)?;
        if !self.changes.is_settled(id) {
            return Err(Refusal::NotReady);
        }
        let spec = &topic.spec;
        let (now, partitions) = (spec.partitions(), partitions.unwrap_or(spec.partitions()));
        if !(1..=MAX_PARTITIONS_PER_TOPIC).contains(&partitions) {
            return Err(Refusal::InvalidPartitions { partitions, max: MAX_PARTITIONS_PER_TOPIC });
        }
        if partitions < now {
            return Err(Refusal::FewerPartitions { partitions, now });
        }
        self.check_more_partitions(partitions - now)?;
        let durability = durability.unwrap_or(spec.durability);
        let retention = spec.retention.changed(retention);
        if partitions == now && durability == spec.durability && retention == spec.retention {
            return Ok(None);
        }
        self.may_write(feature::ALTERED_TOPICS)?;
        self.may_keep(retention)?;
        let first_group = GroupId(if partitions > now { self.metadata.next_group } else { 0 });
        let added = placement(id, now..partitions, self.config.logs);
        Ok(Some(Alteration { topic: id, durability, retention, first_group, added }))
    }

    /// Closes what this log had opened for an alteration, and asks the others for the same, also those that are not
    /// known to have opened anything.
    pub(crate) fn withdraw_parts(
        &mut self,
        now: Now,
        change: &mut Change,
        out: &mut Actions,
    ) -> Result<(), NoRoom> {
        let (topic, own) = (change.topic, self.config.log.log);
        let before = Arc::clone(&self.metadata.topics[&topic].spec);
        let (spec, added) = self.metadata.topics[&topic].coming();
        let spec = Arc::clone(spec);
        let mut all = true;
        for log in spec.logs(added.clone()) {
            if log != own && !change.done.contains(&log) {
                self.ask(change, log, Mail::Restore(Arc::clone(&before)));
                all = false;
            } else if self.metadata.topics[&topic].opened_coming().contains(&log) {
                self.append_command(now, &Command::Closed { topic, log })?;
                if log == own {
                    self.close_groups(now, &spec, added.clone(), out);
                }
            }
        }
        if all {
            change.next = Step::Restore;
        }
        Ok(())
    }

    /// Whether a log that does not decide gets partitions by this specification: that needs room, the reverse makes it.
    pub(crate) fn adds_partitions(&self, spec: &TopicSpec) -> bool {
        let held = self.metadata.topics.get(&spec.topic).map(|topic| &topic.spec);
        held.is_none_or(|held| held.partitions() < spec.partitions())
    }

    /// Takes over the levels and the bounds that the news are about. The frame that must be durable before the news are confirmed.
    pub(crate) fn set_levels(&mut self, news: &News) -> u64 {
        let (own, mut strengthened) = (self.config.log.log, false);
        for spec in &news.appeared {
            let level = spec.durability;
            for (_, group) in spec.partitions_in(own, 0..spec.partitions()) {
                let Some(id) = self.groups.get(&group) else { continue };
                let partition = self.partitions.get_mut(*id).expect("a group names a partition");
                self.expiry.set(partition, spec.retention);
                strengthened |= level == Durability::Durable && partition.durability != level;
                partition.durability = level;
            }
        }
        if !strengthened {
            return 0;
        }
        let partitions = &mut self.partitions;
        self.pending.strengthen(|pending| {
            let partition = partitions.get_mut(pending.partition);
            let Some(partition) = partition.filter(|at| at.durability == Durability::Durable) else {
                return false;
            };
            partition.owed.strengthened(pending.frame);
            true
        });
        self.log.newest_frame()
    }
}
