//! What an entry holds, as a document and as the rest of a line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use corelog_model::batch::{BATCH_HEADER_BYTES, BatchHeader};
use corelog_model::{GroupId, Retention, TopicId};
use corelog_shard::inspect::{self, Change, Fact, Step};
use corelog_storage::{
    CheckpointKind, EntryHeader, EntryKind, FooterHeader, LostRange, PartHeader, StateHead, accepted_ranges,
};
use serde_json::{Value, json};

/// The names behind the numbers of groups, from every entry of the store that tells them, in the order in
/// which they were written.
#[derive(Default)]
pub(super) struct Names {
    groups: BTreeMap<GroupId, (String, u32)>,
    topics: BTreeMap<TopicId, Named>,
}

/// A topic, how many partitions it has, and how many it gets.
struct Named {
    name: String,
    partitions: u32,
    added: u32,
}

impl Names {
    /// Learns what an entry tells.
    pub(super) fn learn(&mut self, entry: &EntryHeader, payload: &[u8]) {
        self.learn_facts(facts(entry, payload).unwrap_or_default());
    }

    /// Learns what a part of a shard's checkpoint tells.
    pub(super) fn learn_state(&mut self, content: &[u8]) {
        self.learn_facts(inspect::checkpoint(content).unwrap_or_default());
    }

    fn learn_facts(&mut self, facts: Vec<Fact>) {
        for fact in facts {
            match fact {
                Fact::Topic { topic, name, spans, partitions, next, .. } => {
                    let ends = spans.iter().skip(1).map(|span| span.partition).chain([partitions]);
                    for (span, end) in spans.iter().zip(ends) {
                        self.learn_groups(&name, span.partition..end, span.group);
                    }
                    let added = next.as_ref().map_or(0, |next| next.added);
                    if let Some(next) = next {
                        self.learn_groups(&name, partitions..partitions + added, next.first_group);
                    }
                    self.topics.insert(topic, Named { name, partitions, added });
                }
                Fact::Altering { topic, change } => {
                    let Some(named) = self.topics.get_mut(&topic) else { continue };
                    named.added = change.added;
                    let (name, first) = (named.name.clone(), named.partitions);
                    self.learn_groups(&name, first..first + change.added, change.first_group);
                }
                Fact::Step { topic, step, .. } => self.learn_step(topic, step),
                _ => {}
            }
        }
    }

    fn learn_groups(&mut self, name: &str, partitions: Range<u32>, first: GroupId) {
        for partition in partitions.clone() {
            let group = GroupId(first.0 + u64::from(partition - partitions.start));
            self.groups.insert(group, (name.to_owned(), partition));
        }
    }

    fn learn_step(&mut self, topic: TopicId, step: Step) {
        let Some(named) = self.topics.get_mut(&topic) else { return };
        match step {
            Step::Ready => named.partitions += std::mem::take(&mut named.added),
            Step::Reverted => named.added = 0,
            _ => {}
        }
    }

    /// The group of a partition.
    pub(super) fn find(&self, topic: &str, partition: u32) -> Option<GroupId> {
        // A topic of this name that was deleted comes before the one that there is.
        let of = |(name, number): &(String, u32)| name == topic && *number == partition;
        self.groups.iter().rev().find(|(_, partition)| of(partition)).map(|(group, _)| *group)
    }

    /// Topic and partition of a group, or what else it is.
    pub(super) fn group(&self, group: GroupId) -> String {
        match self.groups.get(&group) {
            Some((topic, partition)) => format!("{topic}/{partition}"),
            None if group == GroupId::LOG => "the log".to_owned(),
            None if group == GroupId::METADATA => "metadata".to_owned(),
            None if group == GroupId::POSITIONS => "positions".to_owned(),
            None => "unknown".to_owned(),
        }
    }

    fn topic(&self, topic: TopicId) -> &str {
        self.topics.get(&topic).map_or("unknown", |topic| &topic.name)
    }

    /// One fact in words.
    fn words(&self, fact: &Fact) -> String {
        match fact {
            Fact::Topic { topic, name, durability, retention, spans, partitions, step, next } => format!(
                "topic {name} (id {topic}) {}, {}{}, {partitions} partitions, groups from {}{}",
                step.name(),
                durability.name(),
                kept_words(retention),
                spans.iter().map(|span| span.group.to_string()).collect::<Vec<_>>().join(", "),
                next.as_ref().map_or_else(String::new, |next| format!("; {}", change_words(next))),
            ),
            Fact::Altering { topic, change } => {
                format!("topic {} altering: {}", self.topic(*topic), change_words(change))
            }
            Fact::Step { topic, step, log } => {
                let log = log.map_or_else(String::new, |log| format!(" by log {}", log.0));
                format!("topic {} {}{log}", self.topic(*topic), step.name())
            }
            Fact::ProducerIds { end } => format!("producer ids below {end} may have been given"),
            Fact::Counters { next_index, next_topic, next_group, producer_ids_end } => format!(
                "next metadata entry {next_index}, topic {next_topic}, group {next_group}, producer id {producer_ids_end}"
            ),
            Fact::Partition { group, log_start, log_end, epochs, .. } => {
                let mut text = format!("partition {}, offsets {log_start}..{log_end}", self.group(*group));
                for (term, start) in epochs {
                    write!(text, ", term {term} from {start}").expect("writing to a string cannot fail");
                }
                text
            }
            Fact::Producer { producer, epoch, group, next_sequence } => format!(
                "producer {} epoch {epoch} in {}, next sequence {next_sequence}",
                producer.0,
                self.group(*group)
            ),
            Fact::Position { name, group, offset, leader_epoch, metadata, .. } => {
                let mut text = format!("position {name:?} in {}, offset {offset}", self.group(*group));
                if let Some(term) = leader_epoch {
                    write!(text, " after term {term}").expect("writing to a string cannot fail");
                }
                if !metadata.is_empty() {
                    write!(text, ", note {metadata:?}").expect("writing to a string cannot fail");
                }
                text
            }
            Fact::Forgotten { name, group } => {
                format!("position {name:?} in {} forgotten", self.group(*group))
            }
            Fact::Positions { next_index, anew } => {
                let which = if *anew { "all positions" } else { "positions that changed" };
                format!("{which}, next entry {next_index}")
            }
        }
    }

    fn document(&self, fact: &Fact) -> Value {
        match fact {
            Fact::Topic { topic, name, durability, retention, spans, partitions, step, next } => json!({
                "topic": name,
                "id": topic.to_string(),
                "durability": durability.name(),
                "retention_us": retention.time_us,
                "retention_bytes": retention.bytes,
                "groups": spans
                    .iter()
                    .map(|span| json!({ "from_partition": span.partition, "first_group": span.group.0 }))
                    .collect::<Vec<_>>(),
                "partitions": partitions,
                "step": step.name(),
                "becomes": next.as_ref().map(change_document),
            }),
            Fact::Altering { topic, change } => json!({
                "topic": self.topic(*topic),
                "id": topic.to_string(),
                "step": Step::Altering.name(),
                "becomes": change_document(change),
            }),
            Fact::Step { topic, step, log } => json!({
                "topic": self.topic(*topic),
                "id": topic.to_string(),
                "step": step.name(),
                "log": log.map(|log| log.0),
            }),
            Fact::ProducerIds { end } => json!({ "producer_ids_end": end }),
            Fact::Counters { next_index, next_topic, next_group, producer_ids_end } => json!({
                "next_index": next_index,
                "next_topic": next_topic,
                "next_group": next_group,
                "producer_ids_end": producer_ids_end,
            }),
            Fact::Partition { group, topic, partition, log_start, log_end, epochs } => json!({
                "topic": self.topic(*topic),
                "partition": partition,
                "group": group.0,
                "log_start": log_start,
                "log_end": log_end,
                "epochs": epochs
                    .iter()
                    .map(|(term, start)| json!({ "term": term.0, "start": start }))
                    .collect::<Vec<_>>(),
            }),
            Fact::Producer { producer, epoch, group, next_sequence } => json!({
                "producer_id": producer.0,
                "producer_epoch": epoch,
                "partition": self.group(*group),
                "next_sequence": next_sequence,
            }),
            Fact::Position { name, group, offset, leader_epoch, commit_timestamp_us, metadata } => json!({
                "position": name,
                "partition": self.group(*group),
                "offset": offset,
                "leader_epoch": leader_epoch.map(|term| term.0),
                "commit_timestamp_us": commit_timestamp_us,
                "metadata": metadata,
            }),
            Fact::Forgotten { name, group } => {
                json!({ "forgotten": name, "partition": self.group(*group) })
            }
            Fact::Positions { next_index, anew } => {
                json!({ "positions_next_index": next_index, "anew": anew })
            }
        }
    }
}

fn change_words(change: &Change) -> String {
    let Change { durability, retention, added, first_group } = change;
    let (level, kept) = (durability.name(), kept_words(retention));
    match added {
        0 => format!("becomes {level}{kept}"),
        _ => format!("becomes {level}{kept}, {added} partitions more, groups from {first_group}"),
    }
}

fn kept_words(retention: &Retention) -> String {
    let time = retention.time_us.map(|us| format!(", kept for {us} us"));
    let bytes = retention.bytes.map(|bytes| format!(", {bytes} bytes a partition kept"));
    time.into_iter().chain(bytes).collect()
}

fn change_document(change: &Change) -> Value {
    let Change { durability, retention, added, first_group } = change;
    json!({
        "durability": durability.name(),
        "retention_us": retention.time_us,
        "retention_bytes": retention.bytes,
        "added": added,
        "first_group": first_group.0,
    })
}

/// What an entry says of topics, partitions and positions; `None` when it says nothing of them, or does not decode.
fn facts(entry: &EntryHeader, payload: &[u8]) -> Option<Vec<Fact>> {
    match entry.kind {
        EntryKind::Metadata => inspect::metadata(payload).map(|fact| vec![fact]),
        EntryKind::Position => inspect::position(payload).map(|fact| vec![fact]),
        EntryKind::Checkpoint => {
            let (_, content) = PartHeader::decode(payload).filter(|(part, _)| part.owner)?;
            inspect::checkpoint(content)
        }
        _ => None,
    }
}

/// What an entry holds.
pub(super) struct Content {
    /// Behind the entry's own numbers, on its line.
    pub(super) line: String,
    /// A line each, below it.
    pub(super) below: Vec<String>,
    /// The document's fields, beside the entry's own.
    pub(super) fields: Vec<(&'static str, Value)>,
}

/// Reads the payload of an entry.
pub(super) fn content(entry: &EntryHeader, payload: &[u8], names: &Names) -> Content {
    match entry.kind {
        EntryKind::Batch => batch(payload),
        EntryKind::Metadata => one_fact("metadata", entry, payload, names),
        EntryKind::Position => one_fact("position", entry, payload, names),
        EntryKind::Checkpoint => match PartHeader::decode(payload) {
            Some((part, content)) if part.owner => owners_part(&part, inspect::checkpoint(content), names),
            Some((part, content)) => own_part(&part, content),
            None => undecoded(),
        },
        EntryKind::Trim => trim(payload),
        EntryKind::AcceptedLoss => accepted_loss(payload, names),
        EntryKind::Footer => {
            FooterHeader::decode(payload).map_or_else(undecoded, |footer| footer_part(&footer))
        }
        _ => Content { line: String::new(), below: Vec::new(), fields: Vec::new() },
    }
}

fn one_fact(field: &'static str, entry: &EntryHeader, payload: &[u8], names: &Names) -> Content {
    match facts(entry, payload).as_deref() {
        Some([fact]) => Content {
            line: format!(", {}", names.words(fact)),
            below: Vec::new(),
            fields: vec![(field, names.document(fact))],
        },
        _ => undecoded(),
    }
}

fn undecoded() -> Content {
    Content { line: ", NOT DECODED".to_owned(), below: Vec::new(), fields: vec![("decoded", json!(false))] }
}

/// Records that were taken away.
fn trim(payload: &[u8]) -> Content {
    let Ok(offset) = payload.try_into().map(u64::from_le_bytes) else { return undecoded() };
    let line = format!(", records before offset {offset} are gone");
    Content { line, below: Vec::new(), fields: vec![("trim", json!({ "log_start": offset }))] }
}

/// A part that the shard wrote: its state.
fn owners_part(part: &PartHeader, facts: Option<Vec<Fact>>, names: &Names) -> Content {
    let Some(facts) = facts else { return undecoded() };
    let (line, mut document) = part_of_checkpoint(part, "the shard's");
    document["holds"] = facts.iter().map(|fact| names.document(fact)).collect();
    let below = facts.iter().map(|fact| names.words(fact)).collect();
    Content { line, below, fields: vec![("checkpoint", document)] }
}

/// A part that the log wrote: closed extents and where they hold which groups. What it begins with is in the first one.
fn own_part(part: &PartHeader, content: &[u8]) -> Content {
    let (line, mut document) = part_of_checkpoint(part, "the log's");
    let head = (part.part == 0).then(|| StateHead::decode(content)).flatten();
    let below = head.iter().map(|StateHead { groups, extents, covers }| {
        format!("{extents} closed extents and {groups} groups, up to generation {covers}")
    });
    let below = below.collect();
    if let Some(StateHead { groups, extents, covers }) = head {
        document["holds"] = json!({ "extents": extents, "groups": groups, "covers_generation": covers });
    }
    Content { line, below, fields: vec![("checkpoint", document)] }
}

fn part_of_checkpoint(part: &PartHeader, whose: &str) -> (String, Value) {
    let kind = match part.kind {
        CheckpointKind::Full => "full",
        CheckpointKind::Incremental => "incremental",
    };
    let line = format!(", {kind} checkpoint {}, part {} of {}, {whose}", part.id, part.part + 1, part.parts);
    let document = json!({
        "id": part.id,
        "kind": kind,
        "part": part.part,
        "parts": part.parts,
        "of": if part.owner { "shard" } else { "log" },
    });
    (line, document)
}

fn accepted_loss(payload: &[u8], names: &Names) -> Content {
    let Some(ranges) = accepted_ranges(payload) else { return undecoded() };
    let words = |range: &LostRange| {
        format!(
            "the loss of {} offsets {} to {} is accepted",
            names.group(range.group),
            range.first,
            range.last
        )
    };
    let document = |range: &LostRange| json!({ "of": names.group(range.group), "group": range.group.0, "first": range.first, "last": range.last });
    Content {
        line: String::new(),
        below: ranges.iter().map(words).collect(),
        fields: vec![("accepted_loss", ranges.iter().map(document).collect())],
    }
}

fn footer_part(footer: &FooterHeader) -> Content {
    let FooterHeader { generation, first_sequence, part, parts, runs } = *footer;
    let line = format!(", index of generation {generation}, part {} of {parts}, {runs} runs", part + 1);
    let document = json!({
        "generation": generation,
        "first_sequence": first_sequence,
        "part": part,
        "parts": parts,
        "runs": runs,
    });
    Content { line, below: Vec::new(), fields: vec![("footer", document)] }
}

fn batch(bytes: &[u8]) -> Content {
    let Ok(header) = BatchHeader::parse(&bytes[..bytes.len().min(BATCH_HEADER_BYTES)]) else {
        let document = json!({ "intact": false });
        return Content {
            line: ", DAMAGED".to_owned(),
            below: Vec::new(),
            fields: vec![("batch", document)],
        };
    };
    let intact = header.batch_bytes() <= bytes.len() && header.verify_body(bytes);
    let codec = format!("{:?}", header.codec).to_lowercase();
    let line = format!(
        ", offsets {}..{}, {} records, codec {codec}, producer {} epoch {} sequence {}{}",
        header.base_offset,
        header.next_offset(),
        header.record_count,
        header.producer_id.0,
        header.producer_epoch,
        header.base_sequence,
        if intact { "" } else { ", DAMAGED" },
    );
    let document = json!({
        "base_offset": header.base_offset,
        "next_offset": header.next_offset(),
        "records": header.record_count,
        "codec": codec,
        "producer_id": header.producer_id.0,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "base_timestamp_us": header.base_timestamp_us,
        "append_timestamp_us": header.append_timestamp_us,
        "leader_epoch": header.leader_epoch.0,
        "intact": intact,
    });
    Content { line, below: Vec::new(), fields: vec![("batch", document)] }
}
