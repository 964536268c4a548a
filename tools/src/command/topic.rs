//! `corelog topic`: create, list, describe, alter, delete.

use corelog_client::{Client, Damage, Position, Topic as Known};
use serde_json::{Value, json};

use super::connect;
use crate::cli::{Durability, Format, Topic};
use crate::failure::Failure;
use crate::output::Output;

pub(super) async fn run(arguments: &Topic, format: Format) -> Result<(), Failure> {
    let mut output = Output::new();
    match arguments {
        Topic::Create { name, partitions, durability, server } => {
            let what = format!("topic {name} cannot be created");
            let client = connect(server, &what).await?;
            create(&client, name, *partitions, *durability, &what, format, &mut output).await?;
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
        Topic::Alter { name, partitions, durability, server } => {
            let what = format!("topic {name} cannot be altered");
            let client = connect(server, &what).await?;
            let altered = client.alter_topic(name, *partitions, durability.map(Into::into)).await;
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

async fn create(
    client: &Client,
    name: &str,
    partitions: u32,
    durability: Durability,
    what: &str,
    format: Format,
    output: &mut Output,
) -> Result<(), Failure> {
    let topic = client
        .create_topic(name, partitions, durability.into())
        .await
        .map_err(|error| Failure::client(what, &error))?;
    match format {
        Format::Text => output.line(&format!("created {}", summary(&topic))),
        Format::Json => output.json(&value(&topic)),
    }
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
    format!("{}  {count} partition{plural}, {}, id {}", topic.name(), topic.durability().name(), topic.id())
}

fn value(topic: &Known) -> Value {
    json!({
        "name": topic.name(),
        "id": topic.id().to_string(),
        "partitions": topic.partition_count(),
        "durability": topic.durability().name(),
    })
}
