//! `corelog position`: list, get, reset, delete.

use corelog_client::{Client, ClientError, Committed, Topic};
use serde_json::{Value, json};

use super::connect;
use crate::cli::{Begin, Format, Position};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// A position with the topic it is in.
struct Row {
    topic: String,
    committed: Committed,
}

pub(super) async fn run(arguments: &Position, format: Format) -> Result<(), Failure> {
    let mut output = Output::new();
    match arguments {
        Position::List { name, topic, server } => {
            let what = "the positions cannot be listed";
            let client = connect(server, what).await?;
            let rows = find(&client, name.as_deref(), topic.as_deref(), what).await?;
            list(&rows, format, &mut output)?;
        }
        Position::Get { name, topic, server } => {
            let what = format!("the positions of {name} in {topic} cannot be shown");
            let client = connect(server, &what).await?;
            let rows = find(&client, Some(name), Some(topic), &what).await?;
            list(&some(rows, &what)?, format, &mut output)?;
        }
        Position::Reset { name, topic, to, partition, server } => {
            let what = format!("the positions of {name} in {topic} cannot be reset");
            let client = connect(server, &what).await?;
            let rows = reset(&client, name, topic, *to, *partition, &what).await?;
            list(&rows, format, &mut output)?;
        }
        Position::Delete { name, topic, server } => {
            let what = format!("the positions of {name} cannot be deleted");
            let client = connect(server, &what).await?;
            let rows = some(find(&client, Some(name), topic.as_deref(), &what).await?, &what)?;
            delete(&client, &rows, &what).await?;
            match format {
                Format::Text => rows.iter().try_for_each(|row| {
                    output.line(&format!("deleted {name} in {}/{}", row.topic, row.committed.partition))
                })?,
                Format::Json => output.json(&json!({ "deleted": values(&rows) }))?,
            }
        }
    }
    output.flush()
}

/// The topics that are meant.
async fn topics(client: &Client, topic: Option<&str>, what: &str) -> Result<Vec<Topic>, Failure> {
    let found = match topic {
        Some(topic) => client.topic(topic).await.map(|topic| vec![topic]),
        None => client.topics().await,
    };
    found.map_err(|error| Failure::client(what, &error))
}

/// The positions that are meant. A topic that goes meanwhile has none.
async fn find(
    client: &Client,
    name: Option<&str>,
    topic: Option<&str>,
    what: &str,
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for known in topics(client, topic, what).await? {
        let found = match name {
            Some(name) => client.position(name, &known).list().await,
            None => client.positions(&known).await,
        };
        let found = match found {
            Err(ClientError::UnknownTopic) if topic.is_none() => continue,
            found => found.map_err(|error| Failure::client(what, &error))?,
        };
        rows.extend(found.into_iter().map(|committed| Row { topic: known.name().to_owned(), committed }));
    }
    rows.sort_by(|a, b| key(a).cmp(&key(b)));
    Ok(rows)
}

fn key(row: &Row) -> (&str, &str, u32) {
    (&row.committed.name, &row.topic, row.committed.partition)
}

fn some(rows: Vec<Row>, what: &str) -> Result<Vec<Row>, Failure> {
    if !rows.is_empty() {
        return Ok(rows);
    }
    let help = "`corelog position list` shows all names, `corelog consume TOPIC --as NAME` begins one";
    Err(Failure::new("UNKNOWN_POSITION", what, help).cause("there are none").exit(Exit::NotFound))
}

async fn reset(
    client: &Client,
    name: &str,
    topic: &str,
    to: Begin,
    partition: Option<u32>,
    what: &str,
) -> Result<Vec<Row>, Failure> {
    let failed = |error| Failure::client(what, &error);
    let topic = client.topic(topic).await.map_err(failed)?;
    let partitions = match partition {
        Some(partition) if partition >= topic.partition_count() => {
            return Err(failed(ClientError::UnknownPartition));
        }
        Some(partition) => partition..partition + 1,
        None => 0..topic.partition_count(),
    };
    let position = client.position(name, &topic);
    let mut rows = Vec::new();
    for partition in partitions {
        position.reset(partition, to.into()).await.map_err(failed)?;
        let committed = position.get(partition).await.map_err(failed)?;
        rows.extend(committed.map(|committed| Row { topic: topic.name().to_owned(), committed }));
    }
    Ok(rows)
}

/// Deletes what was found.
async fn delete(client: &Client, rows: &[Row], what: &str) -> Result<(), Failure> {
    let failed = |error| Failure::client(what, &error);
    let mut topic: Option<Topic> = None;
    for Row { topic: name, committed } in rows {
        let known = match topic.take().filter(|known| known.name() == name) {
            Some(known) => known,
            None => client.topic(name).await.map_err(failed)?,
        };
        let position = client.position(&committed.name, &known);
        position.delete(committed.partition).await.map_err(failed)?;
        topic = Some(known);
    }
    Ok(())
}

fn list(rows: &[Row], format: Format, output: &mut Output) -> Result<(), Failure> {
    if format == Format::Json {
        return output.json(&json!({ "positions": values(rows) }));
    }
    let width = |of: fn(&Row) -> usize, least| rows.iter().map(of).max().unwrap_or(0).max(least);
    let names = width(|row| row.committed.name.chars().count(), "name".len());
    let topics = width(|row| row.topic.len(), "topic".len());
    output.line(&format!(
        "{:names$}  {:topics$}  {:>9} {:>20} {:>20} {:>20}  committed",
        "name", "topic", "partition", "offset", "high watermark", "lag"
    ))?;
    rows.iter().try_for_each(|Row { topic, committed }| {
        let Committed { name, partition, offset, high_watermark, metadata, .. } = committed;
        // As `--from` takes it.
        let (seconds, us) =
            (committed.commit_timestamp_us / 1_000_000, committed.commit_timestamp_us % 1_000_000);
        let note = if metadata.is_empty() { String::new() } else { format!("  {metadata}") };
        output.line(&format!(
            "{name:names$}  {topic:topics$}  {partition:>9} {offset:>20} {high_watermark:>20} {:>20}  @{seconds}.{us:06}{note}",
            committed.lag()
        ))
    })
}

fn values(rows: &[Row]) -> Vec<Value> {
    let value = |Row { topic, committed }: &Row| {
        json!({
            "name": committed.name,
            "topic": topic,
            "partition": committed.partition,
            "offset": committed.offset,
            "leader_epoch": committed.leader_epoch,
            "log_start": committed.log_start,
            "high_watermark": committed.high_watermark,
            "lag": committed.lag(),
            "commit_timestamp_us": committed.commit_timestamp_us,
            "metadata": committed.metadata,
        })
    };
    rows.iter().map(value).collect()
}
