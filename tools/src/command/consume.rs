//! `corelog consume`: one record a line, the values as they are.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use corelog_client::{
    Batch, Client, ClientError, ConsumeError, Consumer, ConsumerConfig, NamedPosition, Partitions, Position,
    Record, Topic,
};
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::connect;
use crate::cli::{Begin, Consume, Format};
use crate::failure::Failure;
use crate::output::Output;

/// How long the broker may take to keep the last position.
const LAST_COMMIT: Duration = Duration::from_secs(30);

pub(super) async fn run(arguments: &Consume, format: Format) -> Result<(), Failure> {
    let what = format!("topic {} cannot be consumed", arguments.topic);
    let mut interrupted = std::pin::pin!(interrupted()?);
    let begun = tokio::select! {
        begun = begin(arguments, format, &what) => begun?,
        () = &mut interrupted => None,
    };
    let Some((mut consumer, mut printer)) = begun else { return Ok(()) };
    let followed = tokio::select! {
        result = printer.follow(&mut consumer, &what) => result,
        () = interrupted => Ok(()),
    };
    let flushed = printer.output.flush();
    let committed = if arguments.name.is_some() { finish(&mut consumer, arguments).await } else { Ok(()) };
    followed.and(flushed).and(committed)
}

/// Finds out what is to be read and begins to; `None` when that is nothing.
async fn begin<'a>(
    arguments: &'a Consume,
    format: Format,
    what: &str,
) -> Result<Option<(Consumer, Printer<'a>)>, Failure> {
    let failed = |error| Failure::client(what, &error);
    let client = connect(&arguments.server, what).await?;
    let topic = client.topic(&arguments.topic).await.map_err(failed)?;
    let partitions = match arguments.partition {
        Some(partition) if partition >= topic.partition_count() => {
            return Err(failed(ClientError::UnknownPartition));
        }
        Some(partition) => vec![partition],
        None => (0..topic.partition_count()).collect(),
    };
    let from = Position::from(arguments.from);
    let named = arguments.name.as_ref().map(|name| client.position(name, &topic));
    let recalled = match &named {
        Some(position) => recall(position, &partitions, from).await.map_err(failed)?,
        None => BTreeMap::new(),
    };
    let plan = Plan::make(arguments, &client, &topic, partitions, from, &recalled, what).await?;
    if arguments.count == Some(0) || plan.partitions.is_empty() {
        return Ok(None);
    }
    let seeks = |partition: &u32| matches!(from, Position::Time(_)) && !recalled.contains_key(partition);
    let seeking = plan.partitions.iter().copied().filter(seeks).collect();
    // Who follows a whole topic follows what is added to it.
    let follows = arguments.partition.is_none() && !arguments.until_end;
    let partitions = if follows { Partitions::All } else { Partitions::Only(plan.partitions) };
    let name = arguments.name.clone();
    let config = ConsumerConfig { partitions, name, ..ConsumerConfig::new(&topic, from) };
    let mut consumer = client.consumer(config).await.map_err(failed)?;
    for &(partition, end) in &plan.shorter {
        consumer.seek(partition, Position::Offset(end)).await.map_err(failed)?;
    }
    let first = if let Begin::Offset(offset) = arguments.from { offset } else { 0 };
    let shorter = plan.shorter.iter().map(|&(partition, _)| (partition, first)).collect();
    let (output, ends) = (Output::new(), plan.ends);
    Ok(Some((consumer, Printer { arguments, format, output, printed: 0, shorter, seeking, ends })))
}

/// Done at the first signal that asks for the end. Signals are taken from now on.
fn interrupted() -> Result<impl Future<Output = ()>, Failure> {
    let take = |kind| signal(kind).map_err(|error| Failure::io("signals cannot be taken", &error));
    let (mut interrupt, mut terminate) = (take(SignalKind::interrupt())?, take(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Where the name goes on, by partition. A name that begins at the end begins there for good, whenever its first record
/// comes.
async fn recall(
    position: &NamedPosition,
    partitions: &[u32],
    from: Position,
) -> Result<BTreeMap<u32, u64>, ClientError> {
    let known = position.list().await?;
    let mut recalled: BTreeMap<u32, u64> =
        known.iter().map(|committed| (committed.partition, committed.offset)).collect();
    recalled.retain(|partition, _| partitions.contains(partition));
    for &partition in partitions.iter().filter(|_| from == Position::End) {
        if let Entry::Vacant(vacant) = recalled.entry(partition) {
            vacant.insert(position.reset(partition, from).await?);
        }
    }
    Ok(recalled)
}

/// The last commits are on stable storage: the next consumer of this name begins where the output ends.
async fn finish(consumer: &mut Consumer, arguments: &Consume) -> Result<(), Failure> {
    let name = arguments.name.as_deref().unwrap_or_default();
    let what = format!("how far {name} has come in {} is not kept", arguments.topic);
    match tokio::time::timeout(LAST_COMMIT, consumer.committed()).await {
        Ok(committed) => committed.map_err(|error| Failure::commit(what, &error)),
        Err(_) => Err(Failure::client(what, &ClientError::Timeout)),
    }
}

/// What is read of a topic.
struct Plan {
    /// Without those that have nothing to give before the end.
    partitions: Vec<u32>,
    /// With `--until-end`, where each ends.
    ends: Option<BTreeMap<u32, u64>>,
    /// Partitions that end before the offset to begin with, and where: from there they are read until they have grown to it.
    shorter: Vec<(u32, u64)>,
}

impl Plan {
    /// The ends are asked for before anything is read: they are "now", whatever is appended while the consumer begins.
    async fn make(
        arguments: &Consume,
        client: &Client,
        topic: &Topic,
        partitions: Vec<u32>,
        from: Position,
        recalled: &BTreeMap<u32, u64>,
        what: &str,
    ) -> Result<Self, Failure> {
        let failed = |error| Failure::client(what, &error);
        let mut plan = Self { partitions, ends: None, shorter: Vec::new() };
        if !arguments.until_end && !matches!(from, Position::Offset(_)) {
            return Ok(plan);
        }
        let mut ends = BTreeMap::new();
        for &partition in &plan.partitions {
            let end = client.offset(topic, partition, Position::End).await.map_err(failed)?;
            if let Some(&start) = recalled.get(&partition) {
                // One beyond the end is for the consumer to complain about.
                if start != end {
                    ends.insert(partition, end);
                }
                continue;
            }
            let start = client.offset(topic, partition, from).await.map_err(failed)?;
            if start > end && matches!(from, Position::Offset(_)) {
                if arguments.partition.is_some() {
                    let log_start = client.offset(topic, partition, Position::Start).await.map_err(failed)?;
                    let (offset, high_watermark) = (start, end);
                    let error =
                        ConsumeError::OffsetOutOfRange { partition, offset, log_start, high_watermark };
                    return Err(Failure::consume(what, &error));
                }
                plan.shorter.push((partition, end));
            } else if start < end {
                ends.insert(partition, end);
            }
        }
        if arguments.until_end {
            plan.partitions.retain(|partition| ends.contains_key(partition));
            plan.shorter.clear();
            plan.ends = Some(ends);
        }
        Ok(plan)
    }
}

struct Printer<'a> {
    arguments: &'a Consume,
    format: Format,
    output: Output,
    printed: u64,
    /// Partitions that did not reach the offset to begin with, and that offset.
    shorter: BTreeMap<u32, u64>,
    /// Partitions of which the first record at or after the time to begin with has not come.
    seeking: BTreeSet<u32>,
    /// By partition: where to end. A partition that has come there is removed.
    ends: Option<BTreeMap<u32, u64>>,
}

impl Printer<'_> {
    /// What is committed was printed and flushed before; in between nothing is waited for, so no signal comes there.
    async fn follow(&mut self, consumer: &mut Consumer, what: &str) -> Result<(), Failure> {
        while !self.is_done() {
            let batch = consumer.next().await.map_err(|error| self.failure(what, &error))?;
            let partition = batch.partition();
            let before = self.printed;
            let reached = self.print(batch, what)?;
            self.output.flush()?;
            if self.printed > before {
                self.seeking.remove(&partition);
            }
            if let Some(reached) = reached.filter(|reached| self.keeps(partition, *reached)) {
                let committed = consumer.commit_later(partition, reached);
                committed.map_err(|error| Failure::commit(what, &error))?;
            }
        }
        Ok(())
    }

    /// Whether this is a place to go on from: what comes before it was seen by the reader, and what comes after it is wanted.
    fn keeps(&self, partition: u32, reached: u64) -> bool {
        let begun = self.shorter.get(&partition).is_none_or(|first| *first <= reached);
        self.arguments.name.is_some()
            && begun
            && !self.seeking.contains(&partition)
            && !self.output.is_reader_gone()
    }

    fn failure(&self, what: &str, error: &ConsumeError) -> Failure {
        let failure = Failure::consume(what, error);
        let Some(name) = &self.arguments.name else { return failure };
        let to = match error {
            ConsumeError::OffsetOutOfRange { .. } => "start".to_owned(),
            ConsumeError::LogTruncated { offset, .. } => offset.to_string(),
            ConsumeError::Damaged { last, .. } => last.saturating_add(1).to_string(),
            _ => return failure,
        };
        let partition = match error {
            ConsumeError::OffsetOutOfRange { partition, .. }
            | ConsumeError::LogTruncated { partition, .. }
            | ConsumeError::Damaged { partition, .. } => partition,
            _ => return failure,
        };
        let topic = &self.arguments.topic;
        let help = format!(
            "`corelog position reset {name} {topic} --partition {partition} --to {to}` lets it go on there"
        );
        Failure { help, ..failure }
    }

    fn is_done(&self) -> bool {
        self.output.is_reader_gone()
            || self.arguments.count.is_some_and(|count| self.printed >= count)
            || self.ends.as_ref().is_some_and(BTreeMap::is_empty)
    }

    /// Prints what is wanted of a batch; the offset after it, unless the partition has come to its end before.
    fn print(&mut self, mut batch: Batch, what: &str) -> Result<Option<u64>, Failure> {
        let partition = batch.partition();
        let next_offset = batch.next_offset();
        let end = match &self.ends {
            None => u64::MAX,
            Some(ends) => match ends.get(&partition) {
                Some(end) => *end,
                None => return Ok(None),
            },
        };
        let first = self.shorter.get(&partition).copied().unwrap_or(0);
        let mut reached = next_offset;
        let records = batch.records().map_err(|error| self.failure(what, &error))?;
        for record in records {
            if record.offset >= end || self.is_done() {
                reached = record.offset;
                break;
            }
            if record.offset < first {
                continue;
            }
            match self.format {
                Format::Text => self.print_text(partition, &record)?,
                Format::Json => self.output.json(&document(partition, &record))?,
            }
            self.printed += 1;
        }
        if let Some(ends) = &mut self.ends
            && next_offset >= end
        {
            ends.remove(&partition);
        }
        Ok(Some(reached))
    }

    fn print_text(&mut self, partition: u32, record: &Record<'_>) -> Result<(), Failure> {
        if self.arguments.with_offset {
            self.output.bytes(format!("{partition}\t{}\t", record.offset).as_bytes())?;
        }
        if self.arguments.with_headers {
            for (at, (key, value)) in record.headers().enumerate() {
                if at > 0 {
                    self.output.bytes(b",")?;
                }
                self.output.bytes(key.as_bytes())?;
                self.output.bytes(b"=")?;
                self.output.bytes(value)?;
            }
            self.output.bytes(b"\t")?;
        }
        if self.arguments.with_key {
            self.output.bytes(record.key.unwrap_or_default())?;
            self.output.bytes(b"\t")?;
        }
        self.output.bytes(record.value.unwrap_or_default())?;
        self.output.bytes(b"\n")
    }
}

/// A record as JSON. Bytes that are text are a string; others are under the name with `_base64` behind it.
fn document(partition: u32, record: &Record<'_>) -> Value {
    let mut document = Map::new();
    document.insert("partition".to_owned(), json!(partition));
    document.insert("offset".to_owned(), json!(record.offset));
    document.insert("timestamp_us".to_owned(), json!(record.timestamp_us));
    insert(&mut document, "key", record.key);
    insert(&mut document, "value", record.value);
    let headers: Vec<Value> = record
        .headers()
        .map(|(key, value)| {
            let mut header = Map::new();
            header.insert("key".to_owned(), json!(key));
            insert(&mut header, "value", Some(value));
            Value::Object(header)
        })
        .collect();
    if !headers.is_empty() {
        document.insert("headers".to_owned(), Value::Array(headers));
    }
    Value::Object(document)
}

fn insert(document: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    let (name, value) = match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => (name.to_owned(), Value::Null),
        Some((_, Ok(text))) => (name.to_owned(), json!(text)),
        Some((bytes, Err(_))) => (format!("{name}_base64"), json!(STANDARD.encode(bytes))),
    };
    document.insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_base64_under_another_name() {
        let mut document = Map::new();
        insert(&mut document, "key", None);
        insert(&mut document, "value", Some(b"text"));
        insert(&mut document, "other", Some(&[0xff, 0]));
        assert_eq!(
            Value::Object(document).to_string(),
            r#"{"key":null,"other_base64":"/wA=","value":"text"}"#
        );
    }
}
