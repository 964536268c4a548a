//! `corelog consume`: one record a line, the values as they are.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use corelog_client::{
    Batch, Client, ConsumeError, Consumer, ConsumerConfig, Partitions, Position, Record, Topic,
};
use serde_json::{Map, Value, json};

use super::connect;
use crate::cli::{Begin, Consume, Format};
use crate::failure::Failure;
use crate::output::Output;

pub(super) async fn run(arguments: &Consume, format: Format) -> Result<(), Failure> {
    let what = format!("topic {} cannot be consumed", arguments.topic);
    let failed = |error| Failure::client(&what, &error);
    let client = connect(&arguments.server, &what).await?;
    let topic = client.topic(&arguments.topic).await.map_err(failed)?;
    let partitions = match arguments.partition {
        Some(partition) if partition >= topic.partition_count() => {
            return Err(Failure::client(&what, &corelog_client::ClientError::UnknownPartition));
        }
        Some(partition) => vec![partition],
        None => (0..topic.partition_count()).collect(),
    };
    let from = match arguments.from {
        Begin::Start => Position::Start,
        Begin::End => Position::End,
        Begin::Offset(offset) => Position::Offset(offset),
        Begin::Time(microseconds) => Position::Time(microseconds),
    };
    let plan = Plan::make(arguments, &client, &topic, partitions, from, &what).await?;
    if arguments.count == Some(0) || plan.partitions.is_empty() {
        return Ok(());
    }
    let partitions = Partitions::Only(plan.partitions);
    let config = ConsumerConfig { partitions, ..ConsumerConfig::new(&topic, from) };
    let mut consumer = client.consumer(config).await.map_err(failed)?;
    for (partition, end) in plan.shorter {
        consumer.seek(partition, Position::Offset(end)).await.map_err(failed)?;
    }
    let first = if let Begin::Offset(offset) = arguments.from { offset } else { 0 };
    let mut printer =
        Printer { arguments, format, output: Output::new(), printed: 0, first, ends: plan.ends };
    tokio::select! {
        result = printer.follow(consumer, &what) => result?,
        _ = tokio::signal::ctrl_c() => {}
    }
    printer.output.flush()
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
    /// The offset to begin with.
    first: u64,
    /// By partition: where to end. A partition that has come there is removed.
    ends: Option<BTreeMap<u32, u64>>,
}

impl Printer<'_> {
    async fn follow(&mut self, mut consumer: Consumer, what: &str) -> Result<(), Failure> {
        while !self.is_done() {
            let batch = consumer.next().await.map_err(|error| Failure::consume(what, &error))?;
            self.print(batch, what)?;
            self.output.flush()?;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.output.is_reader_gone()
            || self.arguments.count.is_some_and(|count| self.printed >= count)
            || self.ends.as_ref().is_some_and(BTreeMap::is_empty)
    }

    fn print(&mut self, mut batch: Batch, what: &str) -> Result<(), Failure> {
        let partition = batch.partition();
        let next_offset = batch.next_offset();
        let end = match &self.ends {
            None => u64::MAX,
            Some(ends) => ends.get(&partition).copied().unwrap_or(0),
        };
        let records = batch.records().map_err(|error| Failure::consume(what, &error))?;
        for record in records {
            if record.offset >= end || self.is_done() {
                break;
            }
            if record.offset < self.first {
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
        Ok(())
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
