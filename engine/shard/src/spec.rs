//! What a topic is: its name, its level, how long it keeps its records, and for each partition its group and the log that keeps it.
//!
//! A specification is never changed. A topic that is altered gets another one, of which the old one is the beginning:
//! partitions keep their groups and their logs for ever. The groups of partitions that were added at one time follow
//! each other; those of one time are a span.

use std::num::NonZeroU64;
use std::ops::Range;

use corelog_model::limits::{MAX_PARTITIONS_PER_TOPIC, is_topic_name};
use corelog_model::{Durability, GroupId, LogId, Retention, TopicId};

use crate::codec::{RISING_LIMIT, Reader, Writer};

/// A topic as it is from one change of it to the next. Shared by all who know the topic, on any core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its id, never used before.
    pub topic: TopicId,
    /// Its name.
    pub name: String,
    /// When its records are acknowledged and visible.
    pub durability: Durability,
    /// What takes its records away.
    pub retention: Retention,
    /// Its groups, at least one span. Partitions and groups rise from one to the next, and no two could be one.
    pub spans: Vec<Span>,
    /// The log of each partition.
    pub placement: Vec<LogId>,
}

/// Partitions whose groups follow each other: up to the first one of the next span, or to the last of the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first partition.
    pub partition: u32,
    /// The group of that one.
    pub group: GroupId,
}

/// The least that a span takes.
const SPAN_BYTES: usize = 4 + 8;

impl TopicSpec {
    /// A new topic, of one span.
    pub(crate) fn new(
        topic: TopicId,
        name: String,
        durability: Durability,
        first_group: GroupId,
        placement: Vec<LogId>,
    ) -> Self {
        let spans = vec![Span { partition: 0, group: first_group }];
        Self { topic, name, durability, retention: Retention::default(), spans, placement }
    }

    /// At this level, with partitions for the logs in `added`, whose groups begin with `first_group`.
    fn altered(
        &self,
        durability: Durability,
        retention: Retention,
        first_group: GroupId,
        added: &[LogId],
    ) -> Self {
        let mut altered = Self { durability, retention, ..self.clone() };
        if !added.is_empty() && first_group != self.groups_end() {
            altered.spans.push(Span { partition: self.partitions(), group: first_group });
        }
        altered.placement.extend_from_slice(added);
        altered
    }

    /// The topic after an alteration of it; `None` where that does not fit it.
    pub(crate) fn altered_by(&self, by: &Alteration) -> Option<Self> {
        let most = MAX_PARTITIONS_PER_TOPIC - self.partitions();
        let fits = self.topic == by.topic
            && by.partitions() <= most
            && (by.added.is_empty() || by.first_group >= self.groups_end());
        fits.then(|| self.altered(by.durability, by.retention, by.first_group, &by.added))
    }

    /// Whether `later` is this topic with more partitions, or with as many, at any level.
    pub(crate) fn begins(&self, later: &Self) -> bool {
        self.topic == later.topic
            && self.name == later.name
            && later.placement.starts_with(&self.placement)
            && later.spans.starts_with(&self.spans)
            && later.spans.get(self.spans.len()).is_none_or(|span| span.partition >= self.partitions())
    }

    /// The spans, each with its partitions.
    fn spans(&self) -> impl Iterator<Item = (Range<u32>, GroupId)> {
        let ends = self.spans.iter().skip(1).map(|span| span.partition).chain([self.partitions()]);
        self.spans.iter().zip(ends).map(|(span, end)| (span.partition..end, span.group))
    }

    /// The group of a partition.
    pub(crate) fn group(&self, partition: u32) -> GroupId {
        let after = self.spans.partition_point(|span| span.partition <= partition);
        let span = self.spans[after - 1];
        GroupId(span.group.0 + u64::from(partition - span.partition))
    }

    /// One past its last group.
    pub(crate) fn groups_end(&self) -> GroupId {
        self.group(self.partitions())
    }

    /// Whether this partition has this group.
    pub(crate) fn has(&self, partition: u32, group: GroupId) -> bool {
        partition < self.partitions() && self.group(partition) == group
    }

    /// How many partitions it has.
    pub(crate) fn partitions(&self) -> u32 {
        u32::try_from(self.placement.len()).expect("partitions of a topic are bounded")
    }

    /// Those of `partitions` that `log` keeps, with their groups.
    pub(crate) fn partitions_in(
        &self,
        log: LogId,
        partitions: Range<u32>,
    ) -> impl Iterator<Item = (u32, GroupId)> {
        self.spans().flat_map(move |(span, first)| {
            let wanted = span.start.max(partitions.start)..span.end.min(partitions.end);
            wanted
                .filter(move |&partition| self.placement[partition as usize] == log)
                .map(move |partition| (partition, GroupId(first.0 + u64::from(partition - span.start))))
        })
    }

    /// The logs that keep some of these partitions, each once, in order.
    pub(crate) fn logs(&self, partitions: Range<u32>) -> Vec<LogId> {
        let mut logs = self.placement[partitions.start as usize..partitions.end as usize].to_vec();
        logs.sort_unstable();
        logs.dedup();
        logs
    }

    /// Whether its groups are one span, and nothing else is to be said of it: then it is written as topics were before they
    /// could be altered.
    pub(crate) fn is_plain(&self) -> bool {
        self.spans.len() == 1 && !self.has_options()
    }

    /// Whether something is to be said of it that not every topic has.
    pub(crate) const fn has_options(&self) -> bool {
        !self.retention.is_none()
    }

    /// Writes a topic of one span.
    pub(crate) fn write_plain(&self, to: &mut Writer<'_>) {
        to.u128(self.topic.0);
        to.u64(self.spans[0].group.0);
        to.u8(self.durability as u8);
        to.text(&self.name);
        write_logs(to, &self.placement);
    }

    /// Writes any topic.
    pub(crate) fn write(&self, to: &mut Writer<'_>) {
        to.u128(self.topic.0);
        to.u8(self.durability as u8);
        to.text(&self.name);
        to.count(self.spans.len());
        for span in &self.spans {
            to.u32(span.partition);
            to.u64(span.group.0);
        }
        write_logs(to, &self.placement);
    }

    pub(crate) fn read_plain(from: &mut Reader<'_>) -> Option<Self> {
        let topic = TopicId(from.u128()?);
        let first_group = GroupId(from.u64()?);
        let durability = Durability::from_u8(from.u8()?)?;
        let name = from.text()?.to_owned();
        Self::new(topic, name, durability, first_group, read_logs(from)?).sound()
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Option<Self> {
        let topic = TopicId(from.u128()?);
        let durability = Durability::from_u8(from.u8()?)?;
        let name = from.text()?.to_owned();
        let spans = (0..from.count(SPAN_BYTES)?)
            .map(|_| Some(Span { partition: from.u32()?, group: GroupId(from.u64()?) }))
            .collect::<Option<Vec<_>>>()?;
        let retention = Retention::default();
        Self { topic, name, durability, retention, spans, placement: read_logs(from)? }.sound()
    }

    /// The specification, if it is one: what was read may say anything.
    fn sound(self) -> Option<Self> {
        let count = self.placement.len();
        let whole = is_topic_name(&self.name)
            && (1..=MAX_PARTITIONS_PER_TOPIC as usize).contains(&count)
            && (self.topic.0 as u64) < RISING_LIMIT
            && self.spans.first().is_some_and(|span| span.partition == 0)
            && self.spans.iter().all(|span| {
                GroupId::FIRST_PARTITION <= span.group && span.group.0 < RISING_LIMIT - count as u64
            });
        let rises = |pair: &[Span]| {
            let partitions = pair[1].partition.checked_sub(pair[0].partition).filter(|&more| more > 0);
            partitions.is_some_and(|more| pair[0].group.0 + u64::from(more) < pair[1].group.0)
        };
        let last = self.spans.last()?.partition as usize;
        (whole && last < count && self.spans.windows(2).all(rises)).then_some(self)
    }
}

/// What an alteration makes of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alteration {
    pub(crate) topic: TopicId,
    /// The level from then on.
    pub(crate) durability: Durability,
    /// What takes its records away from then on.
    pub(crate) retention: Retention,
    /// The group of the first partition added; 0 where none is.
    pub(crate) first_group: GroupId,
    /// The logs of the partitions added.
    pub(crate) added: Vec<LogId>,
}

impl Alteration {
    /// What makes a topic another one that it begins.
    pub(crate) fn between(from: &TopicSpec, to: &TopicSpec) -> Self {
        let added = to.placement[from.placement.len()..].to_vec();
        let first_group = if added.is_empty() { GroupId(0) } else { to.group(from.partitions()) };
        Self { topic: from.topic, durability: to.durability, retention: to.retention, first_group, added }
    }

    /// How many partitions are added.
    pub(crate) fn partitions(&self) -> u32 {
        u32::try_from(self.added.len()).expect("partitions of a topic are bounded")
    }

    pub(crate) fn write(&self, to: &mut Writer<'_>) {
        to.u128(self.topic.0);
        to.u64(self.first_group.0);
        to.u8(self.durability as u8);
        write_logs(to, &self.added);
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Option<Self> {
        let topic = TopicId(from.u128()?);
        let first_group = GroupId(from.u64()?);
        let durability = Durability::from_u8(from.u8()?)?;
        let added = read_logs(from)?;
        let groups_are_sound = match added.len() {
            0 => first_group == GroupId(0),
            more => {
                more <= MAX_PARTITIONS_PER_TOPIC as usize
                    && GroupId::FIRST_PARTITION <= first_group
                    && first_group.0 < RISING_LIMIT - more as u64
            }
        };
        let retention = Retention::default();
        groups_are_sound.then_some(Self { topic, durability, retention, first_group, added })
    }
}

/// Options of a topic: a tag each.
mod option {
    /// Microseconds, u64.
    pub(super) const RETENTION_TIME: u16 = 1;
    /// Bytes of each partition, u64.
    pub(super) const RETENTION_BYTES: u16 = 2;
    // 3 is for what is done with records of the same key.
}

/// The least that an option takes.
const OPTION_BYTES: usize = 2 + 2;

/// Writes what is to be said of a topic beside what every topic has: a count, and for each {tag u16, length u16, bytes}, in
/// the order of the tags. None is there that says what would be so without it.
pub(crate) fn write_options(to: &mut Writer<'_>, retention: &Retention) {
    let all = [(option::RETENTION_TIME, retention.time_us), (option::RETENTION_BYTES, retention.bytes)];
    let said = || all.iter().filter_map(|(tag, value)| value.map(|value| (*tag, value.get())));
    to.count(said().count());
    for (tag, value) in said() {
        to.u16(tag);
        to.u16(size_of::<u64>() as u16);
        to.u64(value);
    }
}

/// Reads them. One of an unknown tag is not passed over: what it says must not be ignored, and a version that does not know
/// it does not open the log.
pub(crate) fn read_options(from: &mut Reader<'_>) -> Option<Retention> {
    let (mut retention, mut last) = (Retention::default(), 0);
    for _ in 0..from.count(OPTION_BYTES)? {
        let (tag, length) = (from.u16()?, from.u16()?);
        if tag <= last || usize::from(length) != size_of::<u64>() {
            return None;
        }
        let value = Some(NonZeroU64::new(from.u64()?)?);
        match tag {
            option::RETENTION_TIME => retention.time_us = value,
            option::RETENTION_BYTES => retention.bytes = value,
            _ => return None,
        }
        last = tag;
    }
    Some(retention)
}

pub(crate) fn write_logs(to: &mut Writer<'_>, logs: &[LogId]) {
    to.count(logs.len());
    for log in logs {
        to.u16(log.0);
    }
}

pub(crate) fn read_logs(from: &mut Reader<'_>) -> Option<Vec<LogId>> {
    (0..from.count(2)?).map(|_| from.u16().map(LogId)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three partitions on logs 0, 1, 0, then two on logs 1 and 2 whose groups another topic's come before.
    fn grown() -> TopicSpec {
        let placement = vec![LogId(0), LogId(1), LogId(0)];
        let first =
            TopicSpec::new(TopicId(1), "orders".to_owned(), Durability::Durable, GroupId(16), placement);
        first.altered(Durability::Memory, Retention::default(), GroupId(30), &[LogId(1), LogId(2)])
    }

    #[test]
    fn partitions_keep_their_groups_when_others_are_added() {
        let grown = grown();
        let groups: Vec<_> = (0..5).map(|partition| grown.group(partition).0).collect();
        assert_eq!(groups, [16, 17, 18, 30, 31]);
        assert_eq!(grown.groups_end(), GroupId(32));
        let of = |log, partitions| grown.partitions_in(LogId(log), partitions).collect::<Vec<_>>();
        assert_eq!(of(1, 0..5), [(1, GroupId(17)), (3, GroupId(30))]);
        assert_eq!(of(1, 2..5), [(3, GroupId(30))]);
        assert_eq!(of(2, 0..3), []);
        assert_eq!(grown.logs(3..5), [LogId(1), LogId(2)]);
        assert_eq!(grown.logs(0..0), []);
    }

    #[test]
    fn options_survive_encoding_and_what_is_not_known_is_refused() {
        let bytes = |retention: &Retention| {
            let mut bytes = Vec::new();
            write_options(&mut Writer(&mut bytes), retention);
            bytes
        };
        let read = |bytes: &[u8]| {
            let mut from = Reader(bytes);
            read_options(&mut from).filter(|_| from.is_empty())
        };
        let (time_us, size) = (NonZeroU64::new(7_000_000), NonZeroU64::new(1 << 30));
        for (time_us, bytes_kept) in [(None, None), (time_us, None), (None, size), (time_us, size)] {
            let retention = Retention { time_us, bytes: bytes_kept };
            let written = bytes(&retention);
            assert_eq!(read(&written), Some(retention));
            (0..written.len()).for_each(|end| assert_eq!(read(&written[..end]), None, "{end} bytes"));
        }
        let both = bytes(&Retention { time_us, bytes: size });
        for (at, value) in [(4, 2), (4, 3), (4, 0), (6, 7), (16, 1), (16, 3), (18, 9)] {
            let mut other = both.clone();
            other[at] = value;
            assert_eq!(read(&other), None, "byte {at} is {value}");
        }
        let mut nothing = both;
        nothing[8..16].fill(0);
        assert_eq!(read(&nothing), None, "who keeps nothing says so by deleting");
    }

    /// What could be one span is one: the same topic is always the same bytes.
    #[test]
    fn groups_that_follow_on_stay_one_span() {
        let grown = grown().altered(Durability::Memory, Retention::default(), GroupId(32), &[LogId(0)]);
        assert_eq!(grown.spans.len(), 2);
        assert_eq!(grown.group(5), GroupId(32));
        let same = grown.altered(Durability::Written, Retention::default(), GroupId(0), &[]);
        assert_eq!((same.spans.len(), same.partitions()), (2, 6), "another level is not another span");
    }

    #[test]
    fn the_beginning_of_a_topic_is_told_from_another_topic() {
        let (later, first) = (grown(), TopicSpec { placement: vec![LogId(0); 3], ..grown() });
        let before = TopicSpec {
            spans: vec![later.spans[0]],
            placement: later.placement[..3].to_vec(),
            ..later.clone()
        };
        assert!(before.begins(&later) && later.begins(&later));
        assert!(!later.begins(&before) && !first.begins(&later));
        let shorter = TopicSpec { placement: later.placement[..2].to_vec(), ..before.clone() };
        let moved = TopicSpec { spans: vec![Span { partition: 0, group: GroupId(40) }], ..before };
        assert!(shorter.begins(&later) && !moved.begins(&later));
    }

    #[test]
    fn only_sound_specifications_are_read() {
        let write = |spec: &TopicSpec| {
            let mut bytes = Vec::new();
            spec.write(&mut Writer(&mut bytes));
            bytes
        };
        let sound = grown();
        assert_eq!(TopicSpec::read(&mut Reader(&write(&sound))), Some(sound.clone()));
        let span = |partition, group| Span { partition, group: GroupId(group) };
        let spans = [
            vec![],
            vec![span(1, 16)],
            vec![span(0, 15)],
            vec![span(0, 16), span(0, 30)],
            vec![span(0, 16), span(5, 30)],
            vec![span(0, 16), span(3, 19)],
            vec![span(0, 16), span(3, 18)],
            vec![span(0, 30), span(3, 16)],
            vec![span(0, 16), span(3, u64::MAX)],
        ];
        for spans in spans {
            let unsound = TopicSpec { spans, ..sound.clone() };
            assert_eq!(TopicSpec::read(&mut Reader(&write(&unsound))), None, "{unsound:?}");
        }
        let empty = TopicSpec { placement: vec![], ..sound };
        assert_eq!(TopicSpec::read(&mut Reader(&write(&empty))), None);
    }
}
