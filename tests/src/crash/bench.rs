//! Short lives of one log, each a row of operations: what is recorded of them is what crash images are built from.

use corelog_model::batch::{
    AlignedVec, BatchBuilder, BatchHeader, Codec, Patch, RecordRef, Seal as BatchSeal,
};
use corelog_model::crc::crc32c;
use corelog_model::{GroupId, LogId, ProducerId, TopicId};
use corelog_storage::{
    CheckpointKind, DiskOp, DurableMethod, EntryKind, LogConfig, Parts, Preparation, Recorded,
};

use super::engine::{Ending, Engine};
use super::ledger::{Ack, Change, Ledger, Mark, Owner, Promise};
use super::medium::{FATES, Fate, Medium};

/// The topic of all batches.
pub const TOPIC: TopicId = TopicId(0x7001);
/// Bytes of a record whose frame has something in several sectors of one page, and of one that takes two pages.
const SMALL: usize = 900;
const LARGE: usize = 5_000;
/// Turns after which something is said to wait for ever.
const STUCK: usize = 2_000;
/// The two groups that every log has from its beginning.
const FIRST: [GroupId; 2] = [GroupId(16), GroupId(17)];

/// One thing that is done to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A batch that takes one sector of 4 KiB with its frame.
    Small,
    /// A batch that takes two.
    Large,
    /// Batches until the head is another extent.
    Roll,
    /// Batches until a checkpoint is due, and the checkpoint.
    Checkpoint,
    /// The head becomes another extent while the copies of the superblock take their time.
    Superblock,
    /// The same while making files and zeros takes its time.
    Prepare,
    /// A write or a flush fails; what it carried moves.
    Fail,
    /// A group comes.
    Create,
    /// The newest group goes.
    Delete,
    /// An entry of the owner that is no group's.
    Position,
    /// Batches until the oldest are let go, and their extent is used again.
    Recycle,
    /// The process is killed and starts again.
    Restart,
}

/// Every step.
pub const STEPS: [Step; 12] = [
    Step::Small,
    Step::Large,
    Step::Roll,
    Step::Checkpoint,
    Step::Superblock,
    Step::Prepare,
    Step::Fail,
    Step::Create,
    Step::Delete,
    Step::Position,
    Step::Recycle,
    Step::Restart,
];

/// When operations end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    Prompt,
    /// When there is no room for more, oldest first.
    Late,
    /// When there is no room for more, newest first.
    Reversed,
}

/// Every pace.
pub const PACES: [Pace; 3] = [Pace::Prompt, Pace::Late, Pace::Reversed];

/// How a life is led, besides its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// When operations end.
    pub pace: Pace,
    /// What makes frames durable.
    pub method: DurableMethod,
    /// What is left of a write that fails.
    pub failure: Fate,
}

impl Manner {
    /// Every manner, by number; the failures go round.
    pub fn number(at: usize) -> Self {
        let method = if (at / 3).is_multiple_of(2) { DurableMethod::Dsync } else { DurableMethod::Fdatasync };
        Self { pace: PACES[at % 3], method, failure: FATES[(at + at / 6) % FATES.len()] }
    }
}

/// The configuration of a life: extents of 32 KiB, frames of 4 or 8.
pub fn config(manner: Manner, steps: &[Step]) -> LogConfig {
    let recycles = steps.contains(&Step::Recycle);
    let prepares = steps.contains(&Step::Prepare);
    LogConfig {
        extent_bytes: 32 << 10,
        frame_target_bytes: 4096,
        max_batch_bytes: 6144,
        frames_in_flight: 3,
        parallel_frame_bytes: 0,
        preparation: if prepares { Preparation::ZeroAhead } else { Preparation::Unwritten },
        durable_method: manner.method,
        zero_ahead_bytes: 8 << 10,
        checkpoint_bytes: 24 << 10,
        settle_extents: 1,
        entries_in_window: 64,
        retention_bytes: recycles.then_some(64 << 10),
        ..LogConfig::new(LogId(3), 0xC0FFEE)
    }
}

/// A batch of one record that no other batch equals.
pub fn batch(group: GroupId, nonce: u64, bytes: usize) -> AlignedVec<16> {
    let mut value = format!("{group}/{nonce}/").into_bytes();
    value.resize(bytes.max(value.len()), nonce as u8 | 1);
    let mut builder = BatchBuilder::new(8 << 10);
    let record = RecordRef { key: None, value: Some(&value), timestamp_us: 1_000 + nonce, headers: &[] };
    builder.push(record).expect("a small batch");
    let seal = BatchSeal {
        topic: TOPIC,
        partition: group.0 as u32,
        producer_id: ProducerId::NONE,
        producer_epoch: 0,
        base_sequence: 0,
        codec: Codec::None,
    };
    let mut out = AlignedVec::new();
    builder.seal(&seal, &mut out).expect("a batch with a record");
    out
}

/// A log and all that is known of it.
pub struct Bench {
    /// The log on its medium.
    pub engine: Engine,
    /// What it was sent and has promised.
    pub ledger: Ledger,
    /// What its owner knows.
    pub owner: Owner,
    /// How it is set up.
    pub config: LogConfig,
    manner: Manner,
    /// Frames, and what is promised once they are durable.
    unacknowledged: Vec<(u64, Ack)>,
    now: Promise,
    nonce: u64,
    /// The next frame or flush that ends fails.
    fail: bool,
    hold_superblock: bool,
    hold_background: bool,
    /// Made so far.
    checkpoints: u32,
}

impl Bench {
    /// A log in an empty directory, with two groups.
    pub fn new(manner: Manner, config: LogConfig) -> Result<Self, String> {
        let mut rest = Medium::default();
        let opened = Engine::open(&config, Medium::default(), Vec::new(), None, &mut rest);
        let (engine, _) = opened.map_err(|stopped| format!("a new log: {stopped:?}"))?;
        let mut bench = Self {
            engine,
            ledger: Ledger::default(),
            owner: Owner::default(),
            config,
            manner,
            unacknowledged: Vec::new(),
            now: Promise::default(),
            nonce: 0,
            fail: false,
            hold_superblock: false,
            hold_background: false,
            checkpoints: 0,
        };
        bench.promise();
        for group in FIRST {
            bench.change(EntryKind::Metadata, GroupId::METADATA, Change::Opens(group))?;
            bench.engine.log.open_group(group, TOPIC, group.0 as u32);
        }
        bench.drain()?;
        Ok(bench)
    }

    /// Does one thing.
    pub fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Small => self.append(SMALL),
            Step::Large => self.append(LARGE),
            Step::Roll => self.roll(),
            Step::Checkpoint => self.checkpoint(),
            Step::Superblock => {
                self.hold_superblock = true;
                self.roll()?;
                self.append(SMALL)
            }
            Step::Prepare => {
                self.hold_background = true;
                self.roll()?;
                self.append(SMALL)
            }
            Step::Fail => {
                self.fail = true;
                self.append(SMALL)?;
                self.append(LARGE)?;
                self.drain()?;
                self.append(SMALL)
            }
            Step::Create => {
                let group = GroupId(16 + self.nonce + 10);
                self.change(EntryKind::Metadata, GroupId::METADATA, Change::Opens(group))?;
                self.engine.log.open_group(group, TOPIC, group.0 as u32);
                self.append_to(group, SMALL)
            }
            Step::Delete => self.delete(),
            Step::Position => {
                self.nonce += 1;
                self.change(EntryKind::Position, GroupId::POSITIONS, Change::Notes(self.nonce))
            }
            Step::Recycle => {
                for _ in 0..8 {
                    self.append(LARGE)?;
                }
                self.checkpoint()?;
                self.drain()?;
                self.roll()
            }
            Step::Restart => self.restart(),
        }
    }

    /// Everything under way comes to its end.
    pub fn drain(&mut self) -> Result<(), String> {
        (self.hold_superblock, self.hold_background) = (false, false);
        for _ in 0..STUCK {
            self.turn();
            if self.engine.waiting.is_empty() {
                return Ok(());
            }
            while !self.engine.waiting.is_empty() {
                self.end_next();
            }
        }
        Err("a log that is left alone does not come to rest".to_owned())
    }

    /// Nothing more is asked of it, and a beacon proves its last frame.
    pub fn rest(&mut self) -> Result<(), String> {
        self.drain()?;
        self.engine.clock_us += self.config.beacon_us + 1;
        self.drain()
    }

    fn turn(&mut self) {
        self.engine.turn();
        self.acknowledge();
    }

    /// Ends the operation that is next in this manner; whether there was one.
    fn end_next(&mut self) -> bool {
        let held = |op: &DiskOp| match op {
            DiskOp::WriteSuperblock { .. } => self.hold_superblock,
            DiskOp::CreateExtent { .. } | DiskOp::Zero { .. } => self.hold_background,
            _ => false,
        };
        let waiting = &self.engine.waiting;
        let at = match self.manner.pace {
            Pace::Prompt | Pace::Late => waiting.iter().position(|op| !held(op)),
            Pace::Reversed => waiting.iter().rposition(|op| !held(op)),
        };
        let Some(at) = at else { return false };
        // Where the two are apart, it is the flush that fails, but for two of the fates that a write may have.
        let of_flush = self.manner.method == DurableMethod::Fdatasync
            && !matches!(self.manner.failure, Fate::Header | Fate::Hole);
        let commit = match waiting[at] {
            DiskOp::WriteFrame { .. } => !of_flush,
            DiskOp::Sync { .. } => true,
            _ => false,
        };
        let fails = commit && std::mem::take(&mut self.fail);
        self.engine.end(at, if fails { Ending::Failed(self.manner.failure) } else { Ending::Done });
        self.acknowledge();
        true
    }

    /// After something was appended: as much happens as the pace wants.
    fn go_on(&mut self) -> Result<(), String> {
        self.turn();
        if self.manner.pace == Pace::Prompt {
            for _ in 0..STUCK {
                if !self.end_next() {
                    return Ok(());
                }
                self.turn();
            }
            return Err("operations never end".to_owned());
        }
        Ok(())
    }

    /// Something ends, to make room.
    fn make_room(&mut self) {
        if !self.end_next() {
            // What is held back is waited for.
            (self.hold_superblock, self.hold_background) = (false, false);
            if !self.end_next()
                && let Some(kind) = self.engine.log.wants_checkpoint()
            {
                // What is to be let go waits for one.
                self.write_checkpoint(kind);
            }
        }
        self.turn();
    }

    fn append(&mut self, bytes: usize) -> Result<(), String> {
        self.append_to(FIRST[self.nonce as usize % 2], bytes)
    }

    fn append_to(&mut self, group: GroupId, bytes: usize) -> Result<(), String> {
        self.nonce += 1;
        let sealed = batch(group, self.nonce, bytes);
        let mark = Mark::of(&BatchHeader::parse(&sealed).expect("just sealed"));
        for _ in 0..STUCK {
            let log = &mut self.engine.log;
            if log.room_for(1, sealed.len()).is_ok() {
                let slot = log.group(group).ok_or("the group is open")?;
                let base_offset = log.log_end(slot);
                let patch = Patch { base_offset, append_timestamp_us: 5, leader_epoch: log.term() };
                let frame = log.append_batch(slot, log.last_index(slot) + 1, &sealed, &patch).frame;
                self.ledger.sent.entry((group, base_offset)).or_default().push(mark);
                self.unacknowledged.push((frame, Ack::Batch { group, base: base_offset, mark }));
                return self.go_on();
            }
            self.make_room();
        }
        Err(format!("there is never room for a batch: {:?}", self.engine.log.stats()))
    }

    fn change(&mut self, kind: EntryKind, group: GroupId, change: Change) -> Result<(), String> {
        let payload = change.payload();
        for _ in 0..STUCK {
            let log = &mut self.engine.log;
            if log.room_for_change(payload.len()).is_ok() {
                let index = log.group(group).map_or(0, |slot| log.last_index(slot)) + 1;
                let frame = log.append_control(kind, group, index, &payload).frame;
                let sum = crc32c(0, &payload);
                self.ledger.controls.entry((group, index)).or_default().push(sum);
                self.unacknowledged.push((frame, Ack::Control { group, index, sum }));
                if let Change::Drops(dropped) = change {
                    self.now.dropping.insert(dropped);
                    self.unacknowledged.push((frame, Ack::Dropped(dropped)));
                    self.promise();
                }
                _ = self.owner.take(group, index, &payload)?;
                return self.go_on();
            }
            self.make_room();
        }
        Err("there is never room for a change".to_owned())
    }

    fn roll(&mut self) -> Result<(), String> {
        let before = self.engine.tape.len();
        for _ in 0..10 {
            self.append(LARGE)?;
            let first = |event: &Recorded| matches!(event, Recorded::Write { file, position: 0, .. } if *file != corelog_storage::FileName::Superblock);
            if self.engine.tape[before..].iter().any(first) {
                return Ok(());
            }
        }
        Err("the head stays the same".to_owned())
    }

    fn checkpoint(&mut self) -> Result<(), String> {
        let before = self.checkpoints;
        for at in 0..24 {
            if at % 8 == 7 {
                // It waits for indexes to be durable, and for files.
                self.drain()?;
            }
            if let Some(kind) = self.engine.log.wants_checkpoint() {
                self.write_checkpoint(kind);
            }
            if self.checkpoints > before {
                return self.go_on();
            }
            self.append(LARGE)?;
            if self.manner.pace != Pace::Prompt {
                self.make_room();
            }
        }
        Err("no checkpoint is ever due".to_owned())
    }

    fn write_checkpoint(&mut self, kind: CheckpointKind) {
        self.note_starts();
        self.checkpoints += 1;
        let mut parts = Parts::default();
        parts.push(&self.owner.encode());
        self.engine.log.checkpoint(kind, &mut parts);
    }

    fn delete(&mut self) -> Result<(), String> {
        let Some(&group) = self.owner.open.last().filter(|group| !FIRST.contains(group)) else {
            // There is none to go: one comes first.
            self.step(Step::Create)?;
            return self.delete();
        };
        self.change(EntryKind::Metadata, GroupId::METADATA, Change::Drops(group))?;
        self.drain()?;
        let slot = self.engine.log.group(group).ok_or("the group is open")?;
        self.engine.log.drop_group(slot);
        Ok(())
    }

    /// Every second operation under way happens, the others never do.
    fn restart(&mut self) -> Result<(), String> {
        let mut happens = true;
        while !self.engine.waiting.is_empty() {
            let ending = if happens { Ending::Done } else { Ending::Failed(Fate::Absent) };
            self.engine.end_unheard(0, ending);
            happens = !happens;
        }
        self.engine.note(Recorded::Killed);
        let (medium, tape) = (std::mem::take(&mut self.engine.medium), std::mem::take(&mut self.engine.tape));
        let (owner, acks) = (std::mem::take(&mut self.owner), self.ledger.acks.len());
        let mut rest = Medium::default();
        let opened = Engine::open(&self.config, medium, tape, None, &mut rest);
        let (engine, told) = opened.map_err(|stopped| format!("after a kill: {stopped:?}"))?;
        self.engine = engine;
        if !told.gaps.is_empty() || !told.damaged.is_empty() || !told.possibly_lost.is_empty() {
            return Err(format!("a kill is not damage: {told:?}"));
        }
        self.owner = told.owner;
        for (group, (index, _)) in owner.last {
            let known = self.owner.last.get(&group).map_or(0, |(index, _)| *index);
            if known > index {
                return Err(format!("entry {known} of group {group} was never sent"));
            }
        }
        assert_eq!(acks, self.ledger.acks.len(), "a start promises nothing");
        self.unacknowledged.clear();
        for &group in &self.owner.open {
            self.engine.log.open_group(group, TOPIC, group.0 as u32);
        }
        self.engine.log.drop_unopened();
        self.promise();
        self.go_on()
    }

    fn note_starts(&mut self) {
        let mut moved = Vec::new();
        self.engine.log.moved_starts(&mut moved);
        let log = &self.engine.log;
        for &group in &self.owner.open {
            let slot = log.group(group);
            if let Some((_, start)) = moved.iter().rev().find(|(moved, _)| Some(*moved) == slot) {
                self.now.starts.insert(group, *start);
            }
        }
        if !moved.is_empty() {
            self.promise();
        }
    }

    /// What is durable is promised.
    fn acknowledge(&mut self) {
        self.note_starts();
        let durable = self.engine.log.durable_frame();
        let before = self.ledger.acks.len();
        let acks = &mut self.ledger.acks;
        self.unacknowledged.retain(|(frame, ack)| {
            if *frame <= durable {
                acks.push(*ack);
            }
            *frame > durable
        });
        if acks.len() > before {
            self.promise();
        }
    }

    fn promise(&mut self) {
        self.now.acks = self.ledger.acks.len();
        self.now.term = self.engine.log.term().0;
        let mark = self.ledger.promises.len() as u64;
        self.ledger.promises.push(self.now.clone());
        self.engine.note(Recorded::Promised(mark));
    }
}
