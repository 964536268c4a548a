//! `corelog config`.

use serde_json::json;

use crate::cli::{Config, Format};
use crate::failure::Failure;
use crate::output::Output;

pub(super) fn run(arguments: &Config, format: Format) -> Result<(), Failure> {
    let Config::Default = arguments;
    let text = corelog_server::config::DEFAULT;
    let mut output = Output::new();
    match format {
        Format::Text => output.bytes(text.as_bytes())?,
        Format::Json => output.json(&json!({ "toml": text }))?,
    }
    output.flush()
}
