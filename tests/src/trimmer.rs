//! A client that deletes the oldest records of a partition, loses its connections, and remembers what it was told.
//!
//! What was answered holds for ever: the partition never starts before it again. What was not answered may have been done.

use corelog_shard::{Refusal, Request, Response};

use crate::oracle::Partition;
use crate::random::Random;

/// The handle that every trimmer uses for its one partition.
const HANDLE: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Closed,
    Opening,
    Open,
    Deleting { before_offset: u64 },
}

/// Deletes records of one partition.
#[derive(Debug)]
pub struct Trimmer {
    /// Which partition of the world.
    pub partition: usize,
    stage: Stage,
    waiting: bool,
    correlation: u64,
    log_start: u64,
    high_watermark: u64,
    /// Deletions acknowledged that moved the start.
    pub acknowledged: u64,
    /// Set when nothing more is to be deleted.
    pub draining: bool,
}

impl Trimmer {
    /// One that has deleted nothing.
    pub fn new(partition: usize) -> Self {
        Self {
            partition,
            stage: Stage::Closed,
            waiting: false,
            correlation: 0,
            log_start: 0,
            high_watermark: 0,
            acknowledged: 0,
            draining: false,
        }
    }

    /// Whether everything it asked is answered.
    pub fn is_done(&self) -> bool {
        !self.waiting
    }

    /// What it wants now, under which correlation. It takes its time, and now and then asks for what is not there yet.
    pub fn wants(&mut self, at: &mut Partition, random: &mut Random) -> Option<u64> {
        at.topic?;
        if self.waiting || self.draining || self.stage == Stage::Open && !random.chance(6) {
            return None;
        }
        self.stage = match self.stage {
            Stage::Closed => Stage::Opening,
            _ => {
                let beyond = u64::from(random.chance(10));
                let room = self.high_watermark.saturating_sub(self.log_start);
                let before_offset = self.log_start + random.below(room + 1) + beyond;
                at.may_be_trimmed(before_offset);
                Stage::Deleting { before_offset }
            }
        };
        self.waiting = true;
        self.correlation += 1;
        Some(self.correlation)
    }

    /// The request of the last `wants`.
    pub fn request(&self, at: &Partition) -> Request<'static> {
        match self.stage {
            Stage::Deleting { before_offset } => Request::DeleteRecords { handle: HANDLE, before_offset },
            _ => {
                let topic = at.topic.expect("a trimmer waits for its topic");
                Request::Open { handle: HANDLE, topic, partition: at.partition }
            }
        }
    }

    /// The answer to one request.
    pub fn answered(&mut self, response: &Response, at: &mut Partition) {
        self.waiting = false;
        match (response, self.stage) {
            (Response::Opened { log_start, high_watermark, .. }, _) => {
                at.starts_at(*log_start);
                (self.log_start, self.high_watermark) = (*log_start, *high_watermark);
                self.stage = Stage::Open;
            }
            (Response::RecordsDeleted { log_start }, Stage::Deleting { before_offset }) => {
                assert!(*log_start >= before_offset, "{before_offset} was asked for: {log_start}");
                self.acknowledged += u64::from(*log_start > self.log_start);
                at.starts_at(*log_start);
                // Where records also expire the log may start further on, which a crash can take back.
                at.was_trimmed(before_offset);
                // What came meanwhile it hears of when it opens again.
                self.stage = Stage::Closed;
            }
            (
                Response::Refused(Refusal::OffsetOutOfRange { log_start, high_watermark, .. }),
                Stage::Deleting { before_offset },
            ) => {
                assert!(before_offset > *high_watermark, "{before_offset} is there: {response:?}");
                at.starts_at(*log_start);
                self.stage = Stage::Closed;
            }
            (
                Response::Refused(
                    Refusal::NotReady | Refusal::ReadOnly | Refusal::StorageFull | Refusal::UnknownTopicId,
                ),
                _,
            ) => self.stage = Stage::Closed,
            other => panic!("no answer to a trimmer: {other:?}"),
        }
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.stage = Stage::Closed;
        self.waiting = false;
    }
}
