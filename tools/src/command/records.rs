//! `corelog records`: delete.

use serde_json::json;

use super::connect;
use crate::cli::{Format, Records};
use crate::failure::Failure;
use crate::output::Output;

pub(super) async fn run(arguments: &Records, format: Format) -> Result<(), Failure> {
    let Records::Delete { partition: (name, partition), before, server } = arguments;
    let what = format!("records of {name}/{partition} cannot be deleted");
    let client = connect(server, &what).await?;
    let failed = |error| Failure::client(&what, &error);
    let topic = client.topic(name).await.map_err(failed)?;
    let before = client.offset(&topic, *partition, (*before).into()).await.map_err(failed)?;
    let log_start = client.delete_records(&topic, *partition, before).await.map_err(failed)?;
    let mut output = Output::new();
    match format {
        Format::Text => {
            output.line(&format!("deleted the records of {name}/{partition} before offset {log_start}"))?;
        }
        Format::Json => {
            output.json(&json!({ "topic": name, "partition": partition, "log_start": log_start }))?;
        }
    }
    output.flush()
}
