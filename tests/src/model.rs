//! The reference: what a shard has to answer, as plain lists, and rows of requests that are held against it.
//!
//! One client asks one thing after the other, so everything is known: offsets, contents, refusals, duplicates, positions. The
//! power fails between requests; topics of the weaker levels may lose their newest batches then, whole ones, and the
//! reader who saw them is told.

use std::collections::BTreeMap;
use std::ops::Range;

use corelog_model::{Durability, LogId, ProducerId, RetentionChange, Term, TopicId};
use corelog_shard::{Refusal, Request, Response, Which};
use corelog_storage::LogConfig;

use crate::disk::{Faults, SimDisk};
use crate::machine::Machine;
use crate::oracle::read_batch;
use crate::random::Random;
use crate::script::{self, CONN, From, batch};
use crate::trace::Trace;

/// Topics that there may be.
const NAMES: [&str; 4] = ["orders", "events", "audit", "scratch"];
/// Names of positions.
const READERS: [&str; 2] = ["billing", "search"];
/// Batches that a retry is recognised by.
const REMEMBERED: usize = 5;

/// One request, by numbers that are taken modulo what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is a number that chooses what it is called")]
pub enum Act {
    /// A topic is made.
    Create { topic: u8, partitions: u8, level: u8 },
    /// A topic goes.
    Delete { topic: u8 },
    /// A topic gets more partitions, or is asked to have fewer.
    Alter { topic: u8, partitions: u8 },
    /// Records without a producer.
    Plain { at: Spot, records: u8 },
    /// Records that are taken only at this distance from the end.
    Conditional { at: Spot, records: u8, beside: u8 },
    /// Records of a producer, in order.
    Next { at: Spot, records: u8, producer: u8 },
    /// A batch of a producer once more, so many back.
    Again { at: Spot, producer: u8, back: u8 },
    /// A batch of a producer with one left out before it.
    Skip { at: Spot, producer: u8 },
    /// Reads from some offset.
    Read { at: Spot, offset: u8 },
    /// A position is committed.
    Commit { at: Spot, reader: u8, offset: u8 },
    /// A position is forgotten.
    Forget { at: Spot, reader: u8 },
    /// Another producer comes.
    Producer,
    /// The power fails and comes back.
    PowerLoss,
    /// The process is killed and starts again.
    Kill,
}

/// A partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Its topic, which may not be there.
    pub topic: u8,
    /// Its number.
    pub partition: u8,
}

impl Act {
    /// Something, by chance.
    pub fn any(random: &mut Random) -> Self {
        // A few partitions are asked most, so that something comes together there.
        let (topic, partition) = (random.pick(&[0, 0, 0, 0, 0, 1, 1, 2, 3]), random.pick(&[0, 0, 0, 1, 2]));
        let mut byte = |below: u64| random.below(below) as u8;
        let records = 1 + byte(4);
        let at = Spot { topic, partition };
        match byte(100) {
            0..12 => Self::Create { topic, partitions: 1 + byte(3), level: byte(4) },
            12..15 => Self::Delete { topic },
            15..18 => Self::Alter { topic, partitions: 1 + byte(4) },
            18..33 => Self::Plain { at, records },
            33..40 => Self::Conditional { at, records, beside: byte(4) },
            40..56 => Self::Next { at, records, producer: byte(3) },
            56..66 => Self::Again { at, producer: byte(3), back: byte(7).min(byte(7)) },
            66..69 => Self::Skip { at, producer: byte(3) },
            69..78 => Self::Read { at, offset: byte(40) },
            78..84 => Self::Commit { at, reader: byte(2), offset: byte(40) },
            84..87 => Self::Forget { at, reader: byte(2) },
            87..91 => Self::Producer,
            91..96 => Self::PowerLoss,
            _ => Self::Kill,
        }
    }
}

/// One batch of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The offset of its first record.
    pub base: u64,
    /// Its records.
    pub numbers: Range<u64>,
    /// Which producer's it is, and the sequence of its first record.
    pub producer: Option<(usize, u32)>,
}

impl Batch {
    fn end(&self) -> u64 {
        self.base + self.numbers.end - self.numbers.start
    }
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// What was taken, in order.
    pub batches: Vec<Batch>,
    /// Positions, by name.
    pub positions: BTreeMap<&'static str, u64>,
}

impl Partition {
    /// The offset behind the last record.
    pub fn end(&self) -> u64 {
        self.batches.last().map_or(0, Batch::end)
    }

    /// The numbers of its records, by offset.
    pub fn numbers(&self) -> Vec<u64> {
        self.batches.iter().flat_map(|batch| batch.numbers.clone()).collect()
    }

    /// The batches of a producer, and the sequence that comes next.
    fn of(&self, producer: usize) -> (Vec<&Batch>, u32) {
        let own = |batch: &&Batch| batch.producer.is_some_and(|(of, _)| of == producer);
        let batches: Vec<_> = self.batches.iter().filter(own).collect();
        let next =
            |batch: &&Batch| batch.producer.map_or(0, |(_, first)| first) + (batch.end() - batch.base) as u32;
        let sequence = batches.last().map_or(0, next);
        (batches, sequence)
    }
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// Its level.
    pub level: Durability,
    /// Its partitions.
    pub partitions: Vec<Partition>,
}

/// Everything that there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// By name.
    pub topics: BTreeMap<&'static str, Topic>,
    producers: Vec<ProducerId>,
    number: u64,
    /// Topics that are gone.
    gone: Vec<TopicId>,
}

/// A machine, and what it has to be like.
pub struct Pair {
    /// The real one.
    pub machine: Machine,
    /// The reference.
    pub model: Model,
    /// Weaker levels are chosen, too.
    pub weak: bool,
    /// What has happened.
    pub seen: Seen,
}

/// How often what happened, so that a test can tell that it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Batches taken.
    pub batches: u64,
    /// Retries that got the answer of their original.
    pub retries: u64,
    /// Requests refused.
    pub refusals: u64,
    /// Starts.
    pub starts: u64,
    /// Partitions that fell back.
    pub fallen_back: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.batches += other.batches;
        self.retries += other.retries;
        self.refusals += other.refusals;
        self.starts += other.starts;
        self.fallen_back += other.fallen_back;
    }
}

impl Pair {
    /// An empty machine of one log.
    pub fn new(log: &LogConfig, seed: u64, weak: bool) -> Self {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(random.fork(), Faults { delay_us: 60, ..Faults::default() });
        let machine = Machine::new(log, vec![disk], random, Trace::new(false));
        Self { machine, model: Model::default(), weak, seen: Seen::default() }
    }

    /// Asks one thing and holds the answer against the reference.
    pub fn act(&mut self, act: Act) -> Result<(), String> {
        match act {
            Act::Create { topic, partitions, level } => self.create(topic, partitions, level),
            Act::Delete { topic } => self.delete(topic),
            Act::Alter { topic, partitions } => self.alter(topic, partitions),
            Act::Plain { at, records } => self.plain(at, records, None),
            Act::Conditional { at, records, beside } => self.plain(at, records, Some(beside)),
            Act::Next { at, records, producer } => self.next(at, records, producer),
            Act::Again { at, producer, back } => self.again(at, producer, back),
            Act::Skip { at, producer } => self.skip(at, producer),
            Act::Read { at, offset } => self.read(at, offset),
            Act::Commit { at, reader, offset } => self.commit(at, reader, Some(offset)),
            Act::Forget { at, reader } => self.commit(at, reader, None),
            Act::Producer => self.producer(),
            Act::PowerLoss => {
                self.machine.crash();
                self.restarted()
            }
            Act::Kill => {
                self.machine.kill();
                self.restarted()
            }
        }
    }

    fn create(&mut self, topic: u8, partitions: u8, level: u8) -> Result<(), String> {
        let name = NAMES[usize::from(topic)];
        let level = match level {
            1 if self.weak => Durability::Written,
            2 if self.weak => Durability::Memory,
            _ => Durability::Durable,
        };
        let request = Request::CreateTopic {
            name,
            partitions: partitions.into(),
            durability: level,
            retention: RetentionChange::NONE,
        };
        let answer = self.machine.ask(&request).0;
        match (answer, self.model.topics.contains_key(name)) {
            (Response::TopicCreated { topic: id }, false) if !self.model.gone.contains(&id) => {
                let partitions = vec![Partition::default(); partitions.into()];
                self.model.topics.insert(name, Topic { id, level, partitions });
                Ok(())
            }
            (Response::Refused(Refusal::TopicExists), true) => Ok(()),
            (other, _) => Err(format!("create {name}: {other:?}")),
        }
    }

    fn delete(&mut self, topic: u8) -> Result<(), String> {
        let name = NAMES[usize::from(topic)];
        let answer = self.machine.ask(&Request::DeleteTopic { name }).0;
        match (answer, self.model.topics.remove(name)) {
            (Response::TopicDeleted, Some(topic)) => {
                self.model.gone.push(topic.id);
                let opened = script::open(&mut self.machine, topic.id, 0);
                same("a topic that is gone", opened.map(|_| ()), Err(Refusal::UnknownTopicId))
            }
            (Response::Refused(Refusal::UnknownTopic), None) => Ok(()),
            (other, _) => Err(format!("delete {name}: {other:?}")),
        }
    }

    fn alter(&mut self, topic: u8, partitions: u8) -> Result<(), String> {
        let name = NAMES[usize::from(topic)];
        let wanted = u32::from(partitions);
        let answer = script::alter(&mut self.machine, name, Some(wanted), None);
        let Some(topic) = self.model.topics.get_mut(name) else {
            return same("alter", answer, Err(Refusal::UnknownTopic));
        };
        let now = topic.partitions.len() as u32;
        if wanted < now {
            return same("alter", answer, Err(Refusal::FewerPartitions { partitions: wanted, now }));
        }
        topic.partitions.resize(wanted as usize, Partition::default());
        same("alter", answer, Ok((wanted, topic.level)))
    }

    /// Opens a partition as handle 1; `None` where it is not there, and the machine says so.
    fn open(&mut self, at: Spot) -> Result<Option<(&'static str, usize, TopicId)>, String> {
        let name = NAMES[usize::from(at.topic)];
        let Some(topic) = self.model.topics.get(name) else {
            same("a topic that is not there", script::find(&mut self.machine, name), None)?;
            return Ok(None);
        };
        let (id, partition) = (topic.id, usize::from(at.partition));
        let opened = script::open(&mut self.machine, id, partition as u32);
        let Some(partition_of) = topic.partitions.get(partition) else {
            same("a partition that is not there", opened.map(|_| ()), Err(Refusal::UnknownPartition))?;
            return Ok(None);
        };
        let found = opened.map(|opened| (opened.log_start, opened.high_watermark));
        same("open", found, Ok((0, partition_of.end())))?;
        Ok(Some((name, partition, id)))
    }

    fn partition(&mut self, name: &str, partition: usize) -> &mut Partition {
        &mut self.model.topics.get_mut(name).expect("just opened").partitions[partition]
    }

    fn numbers(&mut self, records: u8) -> Range<u64> {
        let first = self.model.number;
        self.model.number += u64::from(records);
        first..self.model.number
    }

    fn produce(&mut self, sealed: &[u8], expected_offset: Option<u64>) -> Result<u64, Refusal> {
        let request = Request::Produce { handle: 1, expected_offset, batches: sealed };
        let answer = match self.machine.ask_as(LogId(0), CONN, &request).0 {
            Response::Produced { base_offset, .. } => Ok(base_offset),
            Response::Refused(refusal) => Err(refusal),
            other => unreachable!("no answer to a produce: {other:?}"),
        };
        self.seen.batches += u64::from(answer.is_ok());
        self.seen.refusals += u64::from(answer.is_err());
        answer
    }

    fn plain(&mut self, at: Spot, records: u8, beside: Option<u8>) -> Result<(), String> {
        let Some((name, partition, id)) = self.open(at)? else { return Ok(()) };
        let numbers = self.numbers(records);
        let sealed = batch(id, partition as u32, numbers.clone(), From::default());
        let base = self.partition(name, partition).end();
        // Every second one is right.
        let expected =
            beside.map(|beside| (base + u64::from(beside / 2)).saturating_sub(u64::from(beside % 2)));
        let answer = self.produce(&sealed, expected);
        match expected {
            Some(expected) if expected != base => {
                return same("conditional", answer, Err(Refusal::OffsetMismatch { expected, actual: base }));
            }
            _ => same("produce", answer, Ok(base))?,
        }
        self.partition(name, partition).batches.push(Batch { base, numbers, producer: None });
        Ok(())
    }

    fn next(&mut self, at: Spot, records: u8, producer: u8) -> Result<(), String> {
        let Some((name, partition, id)) = self.open(at)? else { return Ok(()) };
        let Some(producer) = self.some_producer(producer) else { return Ok(()) };
        let numbers = self.numbers(records);
        let (_, sequence) = self.partition(name, partition).of(producer);
        let from = From { producer: self.model.producers[producer], epoch: 0, sequence };
        let base = self.partition(name, partition).end();
        let answer = self.produce(&batch(id, partition as u32, numbers.clone(), from), None);
        same("the next of a producer", answer, Ok(base))?;
        let producer = Some((producer, sequence));
        self.partition(name, partition).batches.push(Batch { base, numbers, producer });
        Ok(())
    }

    fn some_producer(&self, producer: u8) -> Option<usize> {
        usize::from(producer).checked_rem(self.model.producers.len())
    }

    /// One of the last five gets the answer that it got; an older one is out of order.
    fn again(&mut self, at: Spot, producer: u8, back: u8) -> Result<(), String> {
        let Some((name, partition, id)) = self.open(at)? else { return Ok(()) };
        // One that has sent something here, if there is one.
        let producers = self.model.producers.len();
        let mut others = (0..producers).map(|step| (usize::from(producer) + step) % producers);
        let has = |of: &usize| !self.model.topics[name].partitions[partition].of(*of).0.is_empty();
        let Some(producer) = others.find(has) else { return Ok(()) };
        let own = self.model.producers[producer];
        let (batches, expected) = self.partition(name, partition).of(producer);
        let Some(old) = batches.iter().rev().nth(back.into()).map(|&old| old.clone()) else { return Ok(()) };
        let sequence = old.producer.expect("a producer's").1;
        let from = From { producer: own, epoch: 0, sequence };
        let answer = self.produce(&batch(id, partition as u32, old.numbers, from), None);
        let known = usize::from(back) < REMEMBERED;
        self.seen.retries += u64::from(known);
        let refused = Refusal::OutOfOrderSequence { expected, actual: sequence };
        same("a retry", answer, if known { Ok(old.base) } else { Err(refused) })
    }

    fn skip(&mut self, at: Spot, producer: u8) -> Result<(), String> {
        let Some((name, partition, id)) = self.open(at)? else { return Ok(()) };
        let Some(producer) = self.some_producer(producer) else { return Ok(()) };
        let own = self.model.producers[producer];
        let (batches, expected) = self.partition(name, partition).of(producer);
        let known = !batches.is_empty();
        let actual = expected + 1;
        let numbers = self.numbers(1);
        let from = From { producer: own, epoch: 0, sequence: actual };
        let answer = self.produce(&batch(id, partition as u32, numbers, from), None);
        let refused = Refusal::OutOfOrderSequence { expected, actual };
        same("a gap", answer, Err(if known { refused } else { Refusal::UnknownProducerId }))
    }

    fn read(&mut self, at: Spot, offset: u8) -> Result<(), String> {
        let Some((name, partition, id)) = self.open(at)? else { return Ok(()) };
        let expected = self.partition(name, partition).clone();
        let (offset, end) = (u64::from(offset), expected.end());
        let answer = script::fetch(&mut self.machine, offset, None);
        if offset > end {
            let refused = Refusal::OffsetOutOfRange { offset, log_start: 0, high_watermark: end };
            return same("a read beyond the end", answer, Err(refused));
        }
        let mut places = Vec::new();
        for bytes in answer.map_err(|refusal| format!("read of {offset}: {refusal:?}"))? {
            read_batch(&bytes, id, partition as u32, &mut places);
        }
        let numbers = expected.numbers();
        let right = places.iter().all(|place| numbers.get(place.offset as usize) == Some(&place.number));
        let first = expected.batches.iter().find(|batch| batch.end() > offset).map(|batch| batch.base);
        let found = places.first().map(|place| place.offset);
        if right && first == found {
            Ok(())
        } else {
            Err(format!("read of {offset}: {places:?}, not {expected:?}"))
        }
    }

    fn commit(&mut self, at: Spot, reader: u8, offset: Option<u8>) -> Result<(), String> {
        let Some((name, partition, _)) = self.open(at)? else { return Ok(()) };
        let reader = READERS[usize::from(reader)];
        let end = self.partition(name, partition).end();
        let offset = offset.map(|offset| u64::from(offset) % (end + 1));
        let request = match offset {
            Some(offset) => {
                Request::CommitPosition { handle: 1, name: reader, offset, leader_epoch: None, metadata: "" }
            }
            None => Request::DeletePosition { handle: 1, name: reader },
        };
        let answer = self.machine.ask_as(LogId(0), CONN, &request).0;
        let positions = &mut self.partition(name, partition).positions;
        let due = match offset {
            Some(offset) => {
                positions.insert(reader, offset);
                Response::PositionCommitted
            }
            None => {
                positions.remove(reader);
                Response::PositionDeleted
            }
        };
        same("a position", answer, due)
    }

    fn producer(&mut self) -> Result<(), String> {
        match self.machine.ask(&Request::ProducerId).0 {
            Response::ProducerId { id, .. } if !self.model.producers.contains(&id) => {
                self.model.producers.push(id);
                Ok(())
            }
            other => Err(format!("a new producer: {other:?}")),
        }
    }

    /// The machine starts again: what may be gone by its level is looked for, and all else is there.
    fn restarted(&mut self) -> Result<(), String> {
        self.machine.start_fully().map_err(|error| format!("no start: {error}"))?;
        self.seen.starts += 1;
        for (name, topic) in &mut self.model.topics {
            for (number, partition) in (0..).zip(&mut topic.partitions) {
                let opened = script::open(&mut self.machine, topic.id, number)
                    .map_err(|refusal| format!("{name}.{number}: {refusal:?}"))?;
                let (before, end) = (partition.end(), opened.high_watermark);
                if end == before {
                    continue;
                }
                if topic.level == Durability::Durable || end > before {
                    return Err(format!("{name}.{number} ended at {before}, now at {end}"));
                }
                if partition.positions.values().any(|position| *position > end) {
                    return Err(format!(
                        "{name}.{number}: a position lies behind the end, {end}: {partition:?}"
                    ));
                }
                self.seen.fallen_back += 1;
                partition.batches.retain(|batch| batch.end() <= end);
                same("batches fall back whole", partition.end(), end)?;
                // Whoever has read what is gone knows it by the term before this one.
                let old = Some(Term(opened.epoch.0 - 1));
                let answer = script::fetch(&mut self.machine, before, old).map(|_| ());
                same("a reader who is ahead", answer, Err(Refusal::LogTruncated { offset: end }))?;
            }
        }
        self.compare()
    }

    /// Everything that there is, and nothing else.
    pub fn compare(&mut self) -> Result<(), String> {
        let found = look(&mut self.machine)?;
        let due = self.model.contents();
        if found == due { Ok(()) } else { Err(format!("there is {found:?}\nnot {due:?}")) }
    }
}

/// What a store holds, without what only its clients know: by topic and partition, records and positions.
pub type Contents = BTreeMap<String, Vec<(Vec<u64>, BTreeMap<String, u64>)>>;

impl Model {
    /// What the store has to hold.
    pub fn contents(&self) -> Contents {
        let positions = |partition: &Partition| {
            partition.positions.iter().map(|(name, offset)| ((*name).to_owned(), *offset)).collect()
        };
        let of = |topic: &Topic| {
            topic.partitions.iter().map(|partition| (partition.numbers(), positions(partition))).collect()
        };
        self.topics.iter().map(|(name, topic)| ((*name).to_owned(), of(topic))).collect()
    }

    /// Every producer's last batch of each partition: where it is, and how it is sealed.
    pub fn retries(&self) -> Vec<(TopicId, u32, Batch, ProducerId)> {
        let mut all = Vec::new();
        for topic in self.topics.values() {
            for (number, partition) in (0..).zip(&topic.partitions) {
                for (producer, id) in self.producers.iter().enumerate() {
                    if let Some(last) = partition.of(producer).0.last() {
                        all.push((topic.id, number, (*last).clone(), *id));
                    }
                }
            }
        }
        all
    }
}

/// Reads everything from a machine that runs.
pub fn look(machine: &mut Machine) -> Result<Contents, String> {
    let Response::Metadata(view) = machine.ask(&Request::Metadata { topic: None }).0 else {
        return Err("no metadata".to_owned());
    };
    let mut contents = Contents::new();
    for topic in view.topics {
        let mut partitions = Vec::new();
        for partition in 0..topic.partitions.len() as u32 {
            partitions.push(look_at(machine, topic.topic, partition)?);
        }
        contents.insert(topic.name, partitions);
    }
    Ok(contents)
}

fn look_at(
    machine: &mut Machine,
    topic: TopicId,
    partition: u32,
) -> Result<(Vec<u64>, BTreeMap<String, u64>), String> {
    let opened = script::open(machine, topic, partition).map_err(|refusal| format!("open: {refusal:?}"))?;
    let mut places = Vec::new();
    while (places.len() as u64) < opened.high_watermark {
        let at = places.len();
        let batches =
            script::fetch(machine, at as u64, None).map_err(|refusal| format!("{at}: {refusal:?}"))?;
        for bytes in batches {
            read_batch(&bytes, topic, partition, &mut places);
        }
        if places.len() == at {
            return Err(format!("nothing is read at {at} of {topic:?}.{partition}"));
        }
    }
    if (0..).zip(&places).any(|(offset, place)| place.offset != offset) {
        return Err(format!("offsets with gaps: {places:?}"));
    }
    let which = Which::After("");
    let Response::Positions(view) =
        machine.ask_as(LogId(0), CONN, &Request::ReadPositions { handle: 1, which, max_bytes: 1 << 20 }).0
    else {
        return Err("no positions".to_owned());
    };
    let positions =
        view.positions.iter().map(|position| (position.name.to_string(), position.offset)).collect();
    Ok((places.into_iter().map(|place| place.number).collect(), positions))
}

fn same<T: std::fmt::Debug + PartialEq>(what: &str, found: T, due: T) -> Result<(), String> {
    if found == due { Ok(()) } else { Err(format!("{what}: {found:?}, not {due:?}")) }
}

/// Does all of a row on an empty machine; the number of the act that goes wrong, and how.
pub fn run(log: &LogConfig, seed: u64, acts: &[Act]) -> Result<Pair, (usize, String)> {
    let mut pair = Pair::new(log, seed, true);
    pair.machine.start_fully().map_err(|error| (0, error.to_string()))?;
    for (at, act) in acts.iter().enumerate() {
        pair.act(*act).map_err(|what| (at, what))?;
    }
    pair.compare().map_err(|what| (acts.len(), what))?;
    Ok(pair)
}

/// A shorter row that goes wrong, too: whatever can be left out is.
pub fn shrink(mut acts: Vec<Act>, fails: impl Fn(&[Act]) -> bool) -> Vec<Act> {
    let mut length = acts.len() / 2;
    while length > 0 {
        let mut at = 0;
        while at < acts.len() {
            let mut fewer = acts.clone();
            fewer.drain(at..(at + length).min(acts.len()));
            if fails(&fewer) {
                acts = fewer;
            } else {
                at += length;
            }
        }
        length /= 2;
    }
    acts
}
