//! A client that keeps a position: commits, forgets and reads it, loses its connections, and remembers what it was told.
//!
//! Everything it changes has a number, which the position carries as its note. One request is under way at a time, so the
//! shard takes them in the order of their numbers: what is there is never older than the last number that was
//! acknowledged or seen, and never one that was not sent.

use std::collections::BTreeMap;

use corelog_model::Term;
use corelog_shard::{PositionsView, Refusal, Request, Response, Which};

use crate::oracle::Partition;
use crate::random::Random;

/// The handle that every committer uses for its one partition.
const HANDLE: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Closed,
    Opening,
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Read,
    /// Change number so and so.
    Change(u64),
}

/// Keeps one position.
#[derive(Debug)]
pub struct Committer {
    /// Which partition of the world.
    pub partition: usize,
    name: String,
    stage: Stage,
    waiting: bool,
    wish: Wish,
    correlation: u64,
    epoch: Option<Term>,
    high_watermark: u64,
    /// The note of the change under way.
    note: String,
    /// Every change that may have been done, by its number: the offset, or that it forgets. Number 0: there never was one.
    changes: BTreeMap<u64, Option<u64>>,
    /// The last number that was acknowledged or seen.
    known: u64,
    last: u64,
    /// Commits acknowledged.
    pub acknowledged: u64,
    /// Set when nothing more is to be changed.
    pub draining: bool,
    /// The medium is harmed: what was acknowledged last may be gone, and positions ahead of what is left.
    pub harmed: bool,
}

impl Committer {
    /// One that has committed nothing.
    pub fn new(client: u64, partition: usize) -> Self {
        Self {
            partition,
            name: format!("reader {client}"),
            stage: Stage::Closed,
            waiting: false,
            wish: Wish::Nothing,
            correlation: 0,
            epoch: None,
            high_watermark: 0,
            note: String::new(),
            changes: BTreeMap::from([(0, None)]),
            known: 0,
            last: 0,
            acknowledged: 0,
            draining: false,
            harmed: false,
        }
    }

    /// Whether everything it asked is answered.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Open && !self.waiting
    }

    /// What it wants now, under which correlation.
    pub fn wants(&mut self, at: &Partition, random: &mut Random) -> Option<u64> {
        at.topic?;
        match self.stage {
            Stage::Closed => self.stage = Stage::Opening,
            Stage::Open if !self.waiting && !self.draining => self.choose(random),
            _ => return None,
        }
        self.correlation += 1;
        Some(self.correlation)
    }

    fn choose(&mut self, random: &mut Random) {
        self.waiting = true;
        self.wish = if random.chance(30) { Wish::Read } else { Wish::Change(self.last + 1) };
        let Wish::Change(number) = self.wish else { return };
        self.last = number;
        let offset = (!random.chance(10)).then(|| random.below(self.high_watermark + 1));
        self.note = number.to_string();
        self.changes.insert(number, offset);
    }

    /// The request of the last `wants`.
    pub fn request(&self, at: &Partition) -> Request<'_> {
        let (handle, name) = (HANDLE, self.name.as_str());
        match self.wish {
            _ if self.stage == Stage::Opening => {
                let topic = at.topic.expect("a committer waits for its topic");
                Request::Open { handle, topic, partition: at.partition }
            }
            Wish::Change(number) => match self.changes[&number] {
                Some(offset) => {
                    let (leader_epoch, metadata) = (self.epoch, self.note.as_str());
                    Request::CommitPosition { handle, name, offset, leader_epoch, metadata }
                }
                None => Request::DeletePosition { handle, name },
            },
            Wish::Read | Wish::Nothing => self.read(),
        }
    }

    /// To read its position.
    pub fn read(&self) -> Request<'_> {
        Request::ReadPositions { handle: HANDLE, which: Which::One(&self.name), max_bytes: 4096 }
    }

    /// The answer to one request.
    pub fn answered(&mut self, response: &Response) {
        match response {
            Response::Opened { high_watermark, leader_epoch, .. } => {
                self.stage = Stage::Open;
                (self.high_watermark, self.epoch) = (*high_watermark, Some(*leader_epoch));
                return;
            }
            Response::PositionCommitted | Response::PositionDeleted => {
                let Wish::Change(number) = self.wish else { panic!("nothing was to be changed") };
                let forgets = *response == Response::PositionDeleted;
                assert_eq!(self.changes[&number].is_none(), forgets, "the answer to another request");
                self.known = number;
                self.acknowledged += 1;
            }
            Response::Positions(view) => self.see(view),
            // It was not done.
            Response::Refused(Refusal::StorageFull) => _ = self.changes.remove(&self.last),
            // It may have been done, or nothing was asked for but to open.
            Response::Refused(Refusal::ReadOnly) => {}
            Response::Refused(Refusal::NotReady) => self.stage = Stage::Closed,
            other => panic!("no answer to a committer: {other:?}"),
        }
        self.wish = Wish::Nothing;
        self.waiting = false;
    }

    /// What is there is one of the changes that may be there, as it was sent.
    pub fn see(&mut self, view: &PositionsView) {
        self.high_watermark = view.high_watermark;
        let possible = self.changes.range(self.known..);
        let [position] = &view.positions[..] else {
            assert!(view.positions.is_empty(), "{}: more than one position: {view:?}", self.name);
            let forgets = possible.clone().any(|(_, offset)| offset.is_none());
            assert!(forgets, "{}: {} is lost, of {:?}", self.name, self.known, self.changes);
            return;
        };
        assert_eq!(*position.name, self.name);
        let number: u64 = position.metadata.parse().expect("its own note");
        assert!(number >= self.known, "{}: went back from {} to {number}", self.name, self.known);
        let sent = self.changes.get(&number).copied().flatten();
        assert_eq!(sent, Some(position.offset), "{}: nobody sent this as {number}", self.name);
        // The records it has passed lie before it in the log.
        let there = position.offset <= view.high_watermark;
        assert!(there || self.harmed, "{}: ahead of what is there: {view:?}", self.name);
        self.known = number;
        if !self.harmed {
            self.changes.retain(|kept, _| *kept >= number);
        }
    }

    /// A start may have lost the end of the log, and with it any number of changes.
    pub fn lost(&mut self) {
        self.known = 0;
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.stage = Stage::Closed;
        self.waiting = false;
        self.wish = Wish::Nothing;
    }
}
