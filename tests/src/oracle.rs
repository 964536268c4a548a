//! What was promised, and whether the log keeps it.
//!
//! Knows every record by its number: the high half is the client, the low half counts. Contents follow from the
//! number, so a record that is read can be regenerated and compared.

use std::collections::{BTreeMap, BTreeSet};

use corelog_model::batch::{AlignedVec, BatchHeader, BatchView};
use corelog_model::{Durability, LogId, Term, TopicId};

use crate::random::Random;

/// A record in the order of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its offset.
    pub offset: u64,
    /// Which record it is.
    pub number: u64,
}

/// What is known of one partition.
#[derive(Debug)]
pub struct Partition {
    /// Its topic's name.
    pub name: &'static str,
    /// Its topic's id, once created.
    pub topic: Option<TopicId>,
    /// Its number in the topic.
    pub partition: u32,
    /// The log that keeps it, once created.
    pub log: LogId,
    /// The weakest level that its topic may have now.
    level: Durability,
    /// It had a weaker level than durable at some time.
    was_weaker: bool,
    /// Acknowledged records, and at which offset.
    acknowledged: BTreeMap<u64, u64>,
    /// Those of them that no crash may take.
    durable: BTreeMap<u64, u64>,
    /// Those that were acknowledged since the last start.
    recent: Vec<(u64, u64)>,
    /// It is known to start here or later, and nobody has asked for more than that to go.
    starts_at: u64,
    may_start_at: u64,
    /// Records go by themselves, because of their age or of how many there are.
    pub expires: bool,
}

impl Partition {
    /// A partition that holds nothing.
    pub fn new(name: &'static str, partition: u32, durability: Durability) -> Self {
        let (acknowledged, durable, recent) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let was_weaker = !matches!(durability, Durability::Durable);
        let (topic, log, level) = (None, LogId(0), durability);
        let (starts_at, may_start_at, expires) = (0, 0, false);
        Self {
            name,
            topic,
            partition,
            log,
            level,
            was_weaker,
            acknowledged,
            durable,
            recent,
            starts_at,
            may_start_at,
            expires,
        }
    }

    /// The broker said that this record is safe at its level.
    pub fn acknowledge(&mut self, number: u64, offset: u64) {
        let before = self.acknowledged.insert(number, offset);
        assert_eq!(before, None, "record {number:x} was acknowledged twice");
        self.recent.push((number, offset));
        if self.level == Durability::Durable {
            self.durable.insert(number, offset);
        }
    }

    /// The broker is asked for another level: until it answers, either may be in force.
    pub fn may_become(&mut self, level: Durability) {
        self.level = weaker(self.level, level);
        self.was_weaker |= level != Durability::Durable;
    }

    /// The broker said that its topic has this level now: what was acknowledged before is as safe as that.
    pub fn has_become(&mut self, level: Durability) {
        self.level = level;
        if level == Durability::Durable {
            self.durable.extend(self.recent.iter().copied());
        }
    }

    /// The broker is asked to let records below `offset` go.
    pub fn may_be_trimmed(&mut self, offset: u64) {
        self.may_start_at = self.may_start_at.max(offset);
    }

    /// The broker said that it starts here: it never goes back, and never went further than it was asked to.
    pub fn starts_at(&mut self, log_start: u64) {
        assert!(log_start >= self.starts_at, "{}: from {} back to {log_start}", self.name, self.starts_at);
        let asked = self.expires || log_start <= self.may_start_at;
        assert!(asked, "{}: {log_start}, where {} was asked for", self.name, self.may_start_at);
        // Recycling may be undone by a crash, unless it was asked for.
        if !self.expires {
            self.starts_at = log_start;
        }
    }

    /// The broker acknowledged that it starts here.
    pub fn was_trimmed(&mut self, log_start: u64) {
        self.starts_at = self.starts_at.max(log_start);
    }

    /// The broker was killed, or the power failed: records of weaker levels may be gone.
    pub fn restarted(&mut self) {
        self.recent.clear();
    }

    /// Whether acknowledged records may be gone.
    pub const fn may_have_fallen_back(&self) -> bool {
        self.was_weaker
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// The end of all acknowledged durable records.
    pub fn durable_end(&self) -> u64 {
        self.durable.values().max().map_or(0, |offset| offset + 1)
    }

    /// Whether this is an acknowledged record that no crash may take.
    pub fn is_durable(&self, place: &Place) -> bool {
        self.durable.get(&place.number) == Some(&place.offset)
    }

    /// Judges the whole log of the partition, from `log_start` on.
    pub fn judge(&self, log_start: u64, log: &[Place]) {
        assert!(log_start >= self.starts_at, "{}: from {} back to {log_start}", self.name, self.starts_at);
        assert!(self.expires || log_start <= self.may_start_at, "{}: {log_start}", self.name);
        let mut seen = BTreeSet::new();
        let mut last_of_client = BTreeMap::new();
        let mut next = log_start;
        for place in log {
            let Place { offset, number } = *place;
            assert!(
                offset == next || place == &log[0] && offset <= log_start,
                "a hole before {place:x?}, at {next}"
            );
            next = offset + 1;
            assert!(seen.insert(number), "{}: record {number:x} is there twice", self.name);
            let client = number >> 32;
            if let Some(before) = last_of_client.insert(client, number) {
                assert!(before < number, "{}: {number:x} comes after {before:x}", self.name);
            }
            if let Some(promised) = self.acknowledged.get(&number) {
                assert_eq!(*promised, offset, "{}: record {number:x} moved", self.name);
            }
        }
        for (number, offset) in self.durable.iter().filter(|(_, offset)| **offset >= log_start) {
            assert!(seen.contains(number), "acknowledged record {number:x} at {offset} is lost");
        }
    }
}

/// The weaker of two levels.
fn weaker(a: Durability, b: Durability) -> Durability {
    if a as u8 > b as u8 { a } else { b }
}

/// The value of a record: its number, and bytes that follow from it.
pub fn value_of(number: u64, out: &mut Vec<u8>) {
    let mut random = Random::new(number);
    let length = 8 + random.below(200) as usize;
    out.clear();
    out.extend_from_slice(&number.to_le_bytes());
    while out.len() < length {
        out.push(random.bits() as u8);
    }
}

/// Checks one batch as a reader gets it and lists its records; the term it was appended in.
pub fn read_batch(bytes: &[u8], topic: TopicId, partition: u32, places: &mut Vec<Place>) -> Term {
    let mut aligned = AlignedVec::<16>::new();
    aligned.extend_from_slice(bytes);
    assert!(
        BatchHeader::verify_header(&aligned, topic, partition),
        "a header for another partition, or damaged"
    );
    let mut scratch = AlignedVec::new();
    let view = BatchView::open(&aligned, &mut scratch).expect("a batch that was sealed here opens");
    assert!(view.header().verify_body(&aligned), "a damaged body");
    let mut expected = Vec::new();
    for record in view.records() {
        let value = record.value.expect("all records have a value");
        let number = u64::from_le_bytes(value[..8].try_into().expect("8 bytes"));
        value_of(number, &mut expected);
        assert_eq!(value, expected, "record {number:x} has other bytes than were sent");
        places.push(Place { offset: record.offset, number });
    }
    view.header().leader_epoch
}
