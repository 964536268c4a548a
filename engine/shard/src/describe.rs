//! The cold questions: open a handle, find an offset, list topics, report counters.

use std::ops::Range;

use corelog_model::{LogId, Term, TopicId};

use crate::event::{Actions, Taken};
use crate::partition::PartitionId;
use crate::refusal::Refusal;
use crate::response::Response;
use crate::shard::{Asker, Shard};
use crate::status::ShardStatus;

impl Shard {
    pub(crate) fn open(&mut self, asker: Asker, handle: u32, id: PartitionId, out: &mut Actions) -> Taken {
        if let Err(refusal) = self.sessions.open(asker.conn, handle, id) {
            self.sessions.forget(asker.conn, handle);
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
        let one = name.map(|name| self.directory.topic_by_name(name).cloned().ok_or(name)).transpose();
        match one {
            Ok(one) => {
                let view = self.directory.view(one.as_deref());
                asker.answer(Response::Metadata(Box::new(view)), out);
                Taken::Done
            }
            Err(name) if self.metadata.topic_by_name(name).is_some() => {
                self.refuse(asker, Refusal::NotReady, out)
            }
            Err(_) => self.refuse(asker, Refusal::UnknownTopic, out),
        }
    }

    /// The log that keeps a partition, as far as clients may see it.
    pub fn home(&self, topic: TopicId, partition: u32) -> Option<LogId> {
        self.directory.topic(topic)?.placement.get(partition as usize).copied()
    }

    /// The term that the shard of a log serves in; 0 before it has started.
    pub fn term_of(&self, log: LogId) -> Term {
        self.directory.term(log)
    }

    /// What a partition that this log keeps shows: from its start to its high watermark.
    pub fn offsets(&self, topic: TopicId, partition: u32) -> Option<Range<u64>> {
        let mut kept = self.groups.values().filter_map(|id| self.partitions.get(*id));
        let found = kept.find(|kept| (kept.topic, kept.partition) == (topic, partition))?;
        let cursors = found.cursors();
        Some(cursors.log_start..cursors.high_watermark)
    }

    /// Partitions whose newest records may have been in frames that the last start found lost, each with the first
    /// offset that it cannot account for.
    pub fn possibly_lost(&self) -> impl Iterator<Item = (TopicId, u32, u64)> {
        self.log.possibly_lost().filter_map(|(slot, first)| {
            let partition = self.partitions.get(*self.by_log_slot.get(&slot)?)?;
            Some((partition.topic, partition.partition, first))
        })
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
            topics: bounded(self.directory.len()),
            partitions: bounded(self.partitions.len()),
            producers: bounded(self.producers.len()),
            subscriptions: self.waits.streams(),
            positions: self.positions.len(),
            position_bytes: self.positions.bytes(),
            waits: self.waits.for_data(),
            reads: self.waits.for_disk(),
            pending: bounded(self.pending.len()),
        }
    }
}
