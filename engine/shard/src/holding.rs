//! The part that a log other than log 0 keeps of a topic: opened and closed when log 0 asks for it.
//!
//! An entry of this log's own metadata group says so, and log 0 is answered when that is durable. What cannot be
//! appended yet is tried again each turn; what cannot be appended at all is refused. Bounded by the changes that log 0
//! has in progress.

use std::collections::VecDeque;
use std::sync::Arc;

use corelog_model::{LogId, Now, TopicId};
use corelog_storage::feature;

use crate::event::Actions;
use crate::mail::Mail;
use crate::metadata::Command;
use crate::refusal::Refusal;
use crate::room::NoRoom;
use crate::shard::Shard;
use crate::spec::TopicSpec;

/// What log 0 asked for.
#[derive(Clone, Debug)]
enum Wish {
    Open(Arc<TopicSpec>),
    Close(TopicId),
    /// Nothing is to be open beyond this.
    Restore(Arc<TopicSpec>),
}

#[derive(Debug)]
struct Order {
    wish: Wish,
    /// The frame of its entry, once appended.
    frame: Option<u64>,
}

/// Orders of log 0 that are not answered yet, in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    orders: VecDeque<Order>,
}

impl Holdings {
    pub(crate) fn ask_to_open(&mut self, spec: Arc<TopicSpec>) {
        self.orders.push_back(Order { wish: Wish::Open(spec), frame: None });
    }

    /// What was to be opened and is not yet, because there was no room, is not opened any more.
    pub(crate) fn ask_to_close(&mut self, topic: TopicId) {
        self.undo(Wish::Close(topic));
    }

    /// The same for what an alteration adds.
    pub(crate) fn ask_to_restore(&mut self, spec: Arc<TopicSpec>) {
        self.undo(Wish::Restore(spec));
    }

    fn undo(&mut self, wish: Wish) {
        let topic = wish.topic();
        self.orders.retain(|order| order.frame.is_some() || order.wish.topic() != topic);
        self.orders.push_back(Order { wish, frame: None });
    }
}

impl Shard {
    /// Appends what log 0 asked for, and answers what is durable.
    pub(crate) fn step_holdings(&mut self, now: Now, out: &mut Actions) {
        let durable = self.log.durable_frame();
        for _ in 0..self.holdings.orders.len() {
            let Some(mut order) = self.holdings.orders.pop_front() else { return };
            if order.frame.is_none() {
                match self.fulfil(now, &order.wish, out) {
                    Ok(frame) => order.frame = Some(frame),
                    Err(NoRoom::Wait) => {}
                    // What is closed makes room, so it waits for the little that it needs itself.
                    Err(NoRoom::Refused(Refusal::StorageFull)) if !matches!(order.wish, Wish::Open(_)) => {}
                    Err(NoRoom::Refused(refusal)) => {
                        self.peers.post(LogId(0), Mail::Refused(order.wish.topic(), refusal));
                        continue;
                    }
                }
            }
            if order.frame.is_some_and(|frame| frame <= durable) {
                self.peers.post(LogId(0), order.wish.done());
            } else if self.log.is_read_only() {
                // What was appended may survive or not; the next start is asked again.
                self.peers.post(LogId(0), Mail::Refused(order.wish.topic(), Refusal::ReadOnly));
            } else {
                self.holdings.orders.push_back(order);
            }
        }
    }

    /// Appends the entry of one order and does what it says; its frame, 0 where nothing was left to be done.
    fn fulfil(&mut self, now: Now, wish: &Wish, out: &mut Actions) -> Result<u64, NoRoom> {
        let held = self.metadata.topics.get(&wish.topic()).map(|topic| Arc::clone(&topic.spec));
        match (wish, held) {
            // Log 0 may have lost what it knew of the other one. What is held of it is not thrown away here.
            (Wish::Open(spec), None) if self.metadata.names.contains_key(&spec.name) => {
                Err(NoRoom::Refused(Refusal::TopicExists))
            }
            (Wish::Open(spec), held) if held.as_ref() != Some(spec) => {
                if held.is_some() || !spec.is_plain() {
                    self.may_write(feature::ALTERED_TOPICS)?;
                }
                self.may_keep(spec.retention)?;
                let from = held.map_or(0, |held| held.partitions());
                let frame = self.append_command(now, &Command::Held(Arc::clone(spec)))?.frame;
                self.open_groups(spec, from..spec.partitions());
                Ok(frame)
            }
            (Wish::Close(topic), Some(held)) => self.drop_topic(now, *topic, &held, out),
            (Wish::Restore(spec), Some(held)) if *spec != held => {
                let own = self.config.log.log;
                if spec.partitions_in(own, 0..spec.partitions()).next().is_none() {
                    return self.drop_topic(now, spec.topic, &held, out);
                }
                let frame = self.append_command(now, &Command::Held(Arc::clone(spec)))?.frame;
                self.close_groups(now, &held, spec.partitions()..held.partitions(), out);
                Ok(frame)
            }
            _ => Ok(0),
        }
    }

    fn drop_topic(
        &mut self,
        now: Now,
        topic: TopicId,
        held: &TopicSpec,
        out: &mut Actions,
    ) -> Result<u64, NoRoom> {
        let frame = self.append_command(now, &Command::Dropped { topic })?.frame;
        self.close_groups(now, held, 0..held.partitions(), out);
        Ok(frame)
    }
}

impl Wish {
    fn topic(&self) -> TopicId {
        match self {
            Self::Open(spec) | Self::Restore(spec) => spec.topic,
            Self::Close(topic) => *topic,
        }
    }

    /// What log 0 is told when it is done.
    fn done(&self) -> Mail {
        match self {
            Self::Open(spec) => Mail::Opened(spec.topic),
            Self::Close(_) | Self::Restore(_) => Mail::Closed(self.topic()),
        }
    }
}
