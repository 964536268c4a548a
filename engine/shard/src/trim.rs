//! Records that are taken away from the front of a partition because somebody says so.
//!
//! The log writes it down and moves the log start when that is durable; then whoever asked is answered, and readers below
//! are told where the log starts. What is asked for again, and what is gone already, is answered as done: as soon as
//! what is under way is durable, where it needs that.
//!
//! Bounded by [`Limits::pending`](crate::Limits).

use std::collections::VecDeque;

use corelog_model::Now;
use corelog_storage::{Log, feature};

use crate::event::{Actions, Taken};
use crate::fetch::out_of_range;
use crate::partition::PartitionId;
use crate::refusal::Refusal;
use crate::response::Response;
use crate::room::NoRoom;
use crate::shard::{Asker, Shard};

/// Who waits for a log start to be durable.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    frame: u64,
    partition: PartitionId,
    asker: Asker,
}

/// All of them, in the order of their frames.
#[derive(Debug, Default)]
pub(crate) struct Trims {
    waiting: VecDeque<Waiting>,
}

impl Trims {
    /// Frames rise.
    pub(crate) fn check(&self) {
        assert!(self.waiting.iter().is_sorted_by_key(|waiting| waiting.frame));
    }
}

impl Shard {
    pub(crate) fn delete_records(
        &mut self,
        now: Now,
        asker: Asker,
        id: PartitionId,
        before_offset: u64,
        out: &mut Actions,
    ) -> Taken {
        let partition = self.partitions.get(id).expect("a resolved partition exists");
        let (cursors, coming) = (partition.cursors(), self.log.coming_start(partition.slot));
        if before_offset > cursors.high_watermark {
            let refusal = out_of_range(before_offset, cursors.log_start, cursors.high_watermark);
            return self.refuse(asker, refusal, out);
        }
        if before_offset <= cursors.log_start {
            asker.answer(Response::RecordsDeleted { log_start: cursors.log_start }, out);
            return Taken::Done;
        }
        if self.trims.waiting.len() >= self.config.limits.pending as usize {
            self.counters.blocked += 1;
            return Taken::Blocked;
        }
        let frame = if before_offset <= coming {
            // What is under way goes as far, or further.
            Ok(self.log.newest_frame())
        } else {
            self.trim(now, id, before_offset)
        };
        match frame {
            Ok(frame) => {
                self.trims.waiting.push_back(Waiting { frame, partition: id, asker });
                Taken::Done
            }
            Err(NoRoom::Wait) => {
                self.counters.blocked += 1;
                Taken::Blocked
            }
            Err(NoRoom::Refused(refusal)) => self.refuse(asker, refusal, out),
        }
    }

    /// Appends that a partition starts at `offset`, which is above where its start is going and not above the high
    /// watermark; the frame that makes it so.
    pub(crate) fn trim(&mut self, now: Now, id: PartitionId, offset: u64) -> Result<u64, NoRoom> {
        self.may_write(feature::RETENTION)?;
        self.room_for_change(now, Log::TRIM_BYTES)?;
        let partition = self.partitions.get_mut(id).expect("whoever asks has found it");
        assert!(offset <= partition.cursors().high_watermark, "only what is visible goes");
        let frame = self.log.trim(partition.slot, partition.next_index, offset).frame;
        partition.next_index += 1;
        partition.changed = true;
        Ok(frame)
    }

    /// Answers those whose log start is durable; once the log takes no more, all that wait.
    pub(crate) fn follow_trims(&mut self, out: &mut Actions) {
        let durable = self.log.durable_frame();
        while let Some(done) = self.trims.waiting.pop_front_if(|first| first.frame <= durable) {
            match self.partitions.get(done.partition).map(|partition| partition.cursors().log_start) {
                Some(log_start) => done.asker.answer(Response::RecordsDeleted { log_start }, out),
                None => _ = self.refuse(done.asker, Refusal::UnknownTopicId, out),
            }
        }
        if self.log.is_read_only() {
            while let Some(Waiting { asker, .. }) = self.trims.waiting.pop_front() {
                _ = self.refuse(asker, Refusal::ReadOnly, out);
            }
        }
    }
}
