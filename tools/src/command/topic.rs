//! `corelog topic`: create, list, describe, alter, delete.

use std::time::Duration;

use corelog_client::{Client, Damage, Position, Topic as Known, TopicChange, TopicConfig};
use serde_json::{Value, json};

use super::connect;
use crate::cli::{Format, Topic};
use crate::failure::Failure;
use crate::output::Output;

pub(super) async fn run(arguments: &Topic, format: Format) -> Result<(), Failure> {
    let mut output = Output::new();
    match arguments {
        Topic::Create { name, partitions, durability, retention, retention_bytes, server } => {
            let what = format!("topic {name} cannot be created");
            let client = connect(server, &what).await?;
            let (partitions, durability) = (*partitions, (*durability).into());
            let (retention, retention_bytes) = (*retention, *retention_bytes);
            let config = TopicConfig { partitions, durability, retention, retention_bytes };
            let created = client.create_topic_with(name, config).await;
            let topic = created.map_err(|error| Failure::client(&what, &error))?;
            match format {
                Format::Text => output.line(&format!("created {}", summary(&topic)))?,
                Format::Json => output.json(&value(&topic))?,
            }
        }
        Topic::List { server } => {
            let what = "the topics cannot be listed";
            let client = connect(server, what).await?;
            let topics = client.topics().await.map_err(|error| Failure::client(what, &error))?;
            list(&topics, format, &mut output)?;
        }
        Topic::Describe { name, server } => {
            let what = format!("topic {name} cannot be described");
            let client = connect(server, &what).await?;
            describe(&client, name, &what, format, &mut output).await?;
        }
        Topic::Alter { name, partitions, durability, retention, retention_bytes, server } => {
            let what = format!("topic {name} cannot be altered");
            let client = connect(server, &what).await?;
            let (partitions, durability) = (*partitions, durability.map(Into::into));
            let (retention, retention_bytes) = (*retention, *retention_bytes);
            let change = TopicChange { partitions, durability, retention, retention_bytes };
            let altered = client.alter_topic_with(name, change).await;
            let topic = altered.map_err(|error| Failure::client(&what, &error))?;
            match format {
                Format::Text => output.line(&format!("altered {}", summary(&topic)))?,
                Format::Json => output.json(&value(&topic))?,
            }
        }
        Topic::Delete { name, server } => {
            let what = format!("topic {name} cannot be deleted");
            let client = connect(server, &what).await?;
            client.delete_topic(name).await.map_err(|error| Failure::client(&what, &error))?;
            match format {
                Format::Text => output.line(&format!("deleted {name}"))?,
                Format::Json => output.json(&json!({ "deleted": name }))?,
            }
        }
    }
    output.flush()
}

fn list(topics: &[Known], format: Format, output: &mut Output) -> Result<(), Failure> {
    match format {
        Format::Text => topics.iter().try_for_each(|topic| output.line(&summary(topic))),
        Format::Json => output.json(&json!({ "topics": topics.iter().map(value).collect::<Vec<_>>() })),
    }
}

async fn describe(
    client: &Client,
    name: &str,
    what: &str,
    format: Format,
    output: &mut Output,
) -> Result<(), Failure> {
    let failed = |error| Failure::client(what, &error);
    let topic = client.topic(name).await.map_err(failed)?;
    let first = client.offsets(&topic, Position::Start).await.map_err(failed)?;
    let next = client.offsets(&topic, Position::End).await.map_err(failed)?;
    let places = topic.partitions().iter().map(|partition| partition.address.as_str());
    let offsets = first.into_iter().zip(next);
    let partitions: Vec<(u32, &str, u64, u64)> =
        (0..).zip(places).zip(offsets).map(|((at, place), (first, next))| (at, place, first, next)).collect();
    match format {
        Format::Json => {
            let mut document = value(&topic);
            document["offsets"] = partitions
                .iter()
                .map(|(number, address, first, next)| {
                    json!({ "partition": number, "address": address, "log_start": first, "high_watermark": next })
                })
                .collect();
            document["damage"] = topic
                .damage()
                .iter()
                .map(
                    |range| json!({ "partition": range.partition, "first": range.first, "last": range.last }),
                )
                .collect();
            output.json(&document)
        }
        Format::Text => {
            output.line(&summary(&topic))?;
            output.line(&format!(
                "{:>9} {:>20} {:>20}  served by",
                "partition", "log start", "high watermark"
            ))?;
            partitions.iter().try_for_each(|(number, address, first, next)| {
                output.line(&format!("{number:>9} {first:>20} {next:>20}  {address}"))
            })?;
            topic.damage().iter().try_for_each(|Damage { partition, first, last }| {
                output.line(&format!("damaged: partition {partition}, offsets {first} to {last}"))
            })
        }
    }
}

fn summary(topic: &Known) -> String {
    let count = topic.partition_count();
    let plural = if count == 1 { "" } else { "s" };
    let mut kept = String::new();
    if let Some(time) = topic.retention() {
        kept.push_str(&format!(", for {}", words_of(time)));
    }
    if let Some(bytes) = topic.retention_bytes() {
        kept.push_str(&format!(", {bytes} bytes a partition"));
    }
    let (durability, id) = (topic.durability().name(), topic.id());
    format!("{}  {count} partition{plural}, {durability}{kept}, id {id}", topic.name())
}

fn value(topic: &Known) -> Value {
    json!({
        "name": topic.name(),
        "id": topic.id().to_string(),
        "partitions": topic.partition_count(),
        "durability": topic.durability().name(),
        "retention_us": topic.retention().map(|time| time.as_micros() as u64),
        "retention_bytes": topic.retention_bytes(),
    })
}

/// As it may be typed.
fn words_of(time: Duration) -> String {
    let us = time.as_micros();
    let units =
        [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"), (1_000, "ms")];
    match units.iter().find(|(unit, _)| us.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", us / unit),
        None => format!("{us}us"),
    }
}
