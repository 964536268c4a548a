//! What was promised, and whether the log keeps it.
//!
//! Knows every record by its number: the high half is the client, the low half counts. Contents follow from the
//! number, so a record that is read can be regenerated and compared.
//!
//! **The rules**, for records that were acknowledged as durable:
//! 1. Under faults that a power loss and failing operations make, each is there exactly once, in order, with its bytes,
//!    and nothing is named damaged or possibly lost.
//! 2. Under faults of the medium each is there, or its offset is named: as damaged, by an answer to a reader or by the
//!    log's list, or as possibly lost, by the start after which it is gone. What is read has its bytes, always.
//! 3. One copy cannot tell a damaged end from one that never was (FORMAT.md, "Of one copy"). So a start may lose, and
//!    not name, what lies at or behind a frame that the medium did not keep, if it was acknowledged before any frame was
//!    asked for that is whole and lies where the start finds it. [`Doubt`] says when that is; a lying flush that is
//!    followed by a power loss comes under the same rule, no other. It holds for deletions, too.
//! 4. What is lost by 2 or 3 is forgotten: its offsets may be given again, in a newer term, to readers who are told.
//!    A record whose place was named once may be there again and twice: its producer was told of nothing.

use std::collections::{BTreeMap, BTreeSet};

use corelog_model::batch::{AlignedVec, BatchHeader, BatchView};
use corelog_model::{Durability, LogId, Term, TopicId};

use crate::disk::Doubt;
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
    durable: BTreeMap<u64, Promise>,
    /// Those that were acknowledged since the last start.
    recent: Vec<(u64, u64)>,
    /// It is known to start here or later, and nobody has asked for more than that to go.
    starts_at: u64,
    /// Where it was known to start, and its disk's last operation then.
    trimmed: Vec<(u64, u64)>,
    may_start_at: u64,
    /// Records go by themselves, because of their age or of how many there are.
    pub expires: bool,
    /// The number of its disk's last operation.
    now: u64,
    /// Faults of the medium are under way: damage may be named.
    pub harmed: bool,
    /// Offsets that were ever named as damaged, first and last.
    named: BTreeSet<(u64, u64)>,
    /// Durable records that a start has lost, by rule or by name.
    lost: BTreeSet<u64>,
    /// A start has named its end as possibly lost, or could not tell that it is.
    uncertain: bool,
    /// Where the log ended for such a start, at its lowest.
    cut: u64,
}

/// A durable record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Promise {
    offset: u64,
    /// The number of its disk's last operation when it was durable for the client.
    at: u64,
}

/// What a start has lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Records in offsets that it named as possibly lost.
    pub named: u64,
    /// Records at the end that nothing proved.
    pub unproven: u64,
}

impl Partition {
    /// A partition that holds nothing.
    pub fn new(name: &'static str, partition: u32, durability: Durability) -> Self {
        let (acknowledged, durable, recent) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let was_weaker = !matches!(durability, Durability::Durable);
        let (topic, log, level) = (None, LogId(0), durability);
        let (starts_at, may_start_at, expires) = (0, 0, false);
        let (named, lost) = (BTreeSet::new(), BTreeSet::new());
        let (now, harmed, uncertain) = (0, false, false);
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
            trimmed: Vec::new(),
            may_start_at,
            expires,
            now,
            harmed,
            named,
            lost,
            uncertain,
            cut: u64::MAX,
        }
    }

    /// Its disk was last asked for this operation.
    pub const fn pass(&mut self, operation: u64) {
        self.now = operation;
    }

    /// The broker said that this record is safe at its level.
    pub fn acknowledge(&mut self, number: u64, offset: u64) {
        let before = self.acknowledged.insert(number, offset);
        assert_eq!(before, None, "record {number:x} was acknowledged twice");
        self.recent.push((number, offset));
        if self.level == Durability::Durable {
            self.durable.insert(number, Promise { offset, at: self.now });
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
            let at = self.now;
            self.durable.extend(self.recent.iter().map(|&(number, offset)| (number, Promise { offset, at })));
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
            self.was_trimmed(log_start);
        }
    }

    /// The broker acknowledged that it starts here.
    pub fn was_trimmed(&mut self, log_start: u64) {
        if log_start > self.starts_at {
            self.starts_at = log_start;
            self.trimmed.push((log_start, self.now));
        }
    }

    /// The broker was killed, or the power failed: records of weaker levels may be gone.
    pub fn restarted(&mut self) {
        self.recent.clear();
    }

    /// Whether acknowledged records may be gone.
    pub fn may_have_fallen_back(&self) -> bool {
        self.was_weaker || !self.lost.is_empty() || self.uncertain
    }

    /// Whether a producer may be told of a gap: acknowledged records are gone, or were not there for a start.
    pub fn may_have_forgotten(&self) -> bool {
        self.may_have_fallen_back() || !self.named.is_empty()
    }

    /// These offsets are said to be damaged.
    pub fn name(&mut self, first: u64, last: u64) {
        assert!(
            self.harmed,
            "{}: {first} to {last} are named as damaged, and nothing harms the medium",
            self.name
        );
        assert!(first <= last, "{}: damage from {first} to {last}", self.name);
        self.named.insert((first, last));
    }

    /// How many ranges were named.
    pub fn named(&self) -> u64 {
        self.named.len() as u64
    }

    fn is_named(&self, offset: u64) -> bool {
        let upto = self.named.range(..=(offset, u64::MAX));
        upto.rev().any(|(_, last)| offset <= *last)
    }

    /// A start has found the partition to end at `end`; behind `possibly` it can account for nothing. `doubts` are those
    /// of all starts since the last one that was judged, which may have lost something and died before they said so.
    pub fn started(&mut self, end: u64, possibly: Option<u64>, doubts: &[Doubt]) -> Lost {
        if let Some(first) = possibly {
            assert!(self.harmed, "{}: possibly lost from {first}, and nothing harms the medium", self.name);
            assert!(first >= end, "{}: {first} is possibly lost and there", self.name);
            self.uncertain = true;
        }
        if doubts.iter().any(Doubt::is_open) {
            // What readers have seen and its producer was not told of may be gone with it, and the term that said so.
            self.uncertain = true;
            self.cut = self.cut.min(end);
        }
        // A deletion is a record of the log, too.
        self.trimmed.retain(|(_, at)| !doubts.iter().any(|doubt| doubt.may_take(*at)));
        self.starts_at = self.trimmed.iter().map(|(log_start, _)| *log_start).max().unwrap_or(0);
        let mut lost = Lost::default();
        let gone: Vec<_> =
            self.durable.iter().filter(|(_, promise)| promise.offset >= end).map(|(n, p)| (*n, *p)).collect();
        for (number, Promise { offset, at }) in gone {
            // One that died before it spoke may have named everything behind a lost frame.
            let earlier = doubts.split_last().map_or(&[][..], |(_, earlier)| earlier);
            let unheard = earlier.iter().any(|doubt| doubt.marred);
            let named = possibly.is_some_and(|first| first <= offset) || self.is_named(offset);
            let unproven = doubts.iter().any(|doubt| doubt.may_take(at));
            assert!(
                self.harmed && (named || unproven || unheard),
                "{}: record {number:x} at {offset}, acknowledged at {at}, is lost: the start ends at {end} and names \
                 {possibly:?}; {doubts:?}",
                self.name
            );
            lost.named += u64::from(named);
            lost.unproven += u64::from(!named);
            self.durable.remove(&number);
            self.lost.insert(number);
        }
        lost
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// The end of all acknowledged durable records.
    pub fn durable_end(&self) -> u64 {
        self.durable.values().map(|promise| promise.offset + 1).max().unwrap_or(0)
    }

    /// Whether this is an acknowledged record that no crash may take.
    pub fn is_durable(&self, place: &Place) -> bool {
        self.durable.get(&place.number).is_some_and(|promise| promise.offset == place.offset)
    }

    /// Whether a reader may have seen it although it is not there now: damaged since, or lost.
    pub fn may_be_gone(&self, place: &Place) -> bool {
        self.is_named(place.offset) || self.lost.contains(&place.number) || place.offset >= self.cut
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
                offset == next
                    || place == &log[0] && offset <= log_start
                    || (next..offset).all(|missing| self.is_named(missing)),
                "{}: a hole before {place:x?}, at {next}",
                self.name
            );
            next = offset + 1;
            if self.is_named(offset) {
                // It was out of sight once, and its producer may have sent it again.
                seen.insert(number);
                continue;
            }
            assert!(
                seen.insert(number) || self.again(number),
                "{}: record {number:x} is there twice",
                self.name
            );
            let client = number >> 32;
            if let Some(before) = last_of_client.insert(client, number) {
                assert!(
                    before < number || self.again(number),
                    "{}: {number:x} comes after {before:x}",
                    self.name
                );
            }
            if let Some(promised) = self.acknowledged.get(&number) {
                assert!(
                    *promised == offset || self.again(number),
                    "{}: record {number:x} moved from {promised} to {offset}",
                    self.name
                );
            }
        }
        for (number, Promise { offset, .. }) in self.durable.iter() {
            assert!(
                *offset < log_start || seen.contains(number) || self.is_named(*offset),
                "{}: acknowledged record {number:x} at {offset} is lost",
                self.name
            );
        }
    }
}

impl Partition {
    /// Whether a record may be there again: its first place was lost, or named once.
    fn again(&self, number: u64) -> bool {
        let named = self.acknowledged.get(&number).is_some_and(|offset| self.is_named(*offset));
        named || self.lost.contains(&number)
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
