//! `corelog produce`: one record a line. Every record is acknowledged, or the command fails and says how many were.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use corelog_client::{
    Client, Linger, Partition, ProduceError, Producer, ProducerConfig, Receipt, RecordRef, Topic,
};
use serde_json::{Value, json};

use super::connect;
use crate::cli::{Format, Produce};
use crate::failure::{Exit, Failure};
use crate::lines;
use crate::output::Output;

pub(super) async fn run(arguments: &Produce, format: Format) -> Result<(), Failure> {
    let what = format!("topic {} cannot be produced to", arguments.topic);
    let source =
        arguments.file.as_ref().map_or("standard input".to_owned(), |path| path.display().to_string());
    let unreadable = |error| Failure::io(format!("{source} cannot be read"), &error);
    let mut chunks = lines::read(arguments.file.as_deref()).map_err(unreadable)?;
    let client = connect(&arguments.server, &what).await?;
    let topic = client.topic(&arguments.topic).await.map_err(|error| Failure::client(&what, &error))?;
    let producer = client.producer(config(arguments));
    takes_batches_of(arguments.batch_bytes, &producer, &client)?;
    let mut sender = Sender {
        arguments,
        topic,
        producer,
        headers: arguments.headers.iter().map(|(key, value)| (key.as_str(), value.as_bytes())).collect(),
        unacknowledged: VecDeque::new(),
        lines: 0,
        acknowledged: 0,
    };
    let sent = async {
        while let Some(chunk) = chunks.recv().await {
            for line in chunk.map_err(unreadable)? {
                sender.send(&line).await?;
            }
        }
        sender.finish().await
    };
    let result = sent.await;
    let (lines, acknowledged) = (sender.lines, sender.acknowledged);
    let mut output = Output::new();
    match format {
        Format::Text => output.line(&format!("{acknowledged} records acknowledged"))?,
        Format::Json => output.json(&json!({ "lines": lines, "acknowledged": acknowledged }))?,
    }
    output.flush()?;
    result
}

/// Refuses a size that was asked for and is not to be had, rather than take another one.
fn takes_batches_of(asked: Option<u64>, producer: &Producer, client: &Client) -> Result<(), Failure> {
    let Some(asked) = asked.filter(|asked| *asked != producer.batch_bytes() as u64) else { return Ok(()) };
    let most = client.max_batch_bytes();
    let help = "choose --batch-bytes between them, or set `limits.max_batch_bytes` of the broker";
    Err(Failure::new("BATCH_BYTES", format!("a batch cannot be of {asked} bytes"), help)
        .cause(format!("it has 1024 bytes at least, and this broker takes {most} at most"))
        .exit(Exit::Usage))
}

fn config(arguments: &Produce) -> ProducerConfig {
    let default = ProducerConfig::default();
    let batch_bytes = arguments.batch_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    ProducerConfig {
        batch_bytes: batch_bytes.unwrap_or(default.batch_bytes),
        linger: arguments.linger.map_or(Linger::Adaptive, Linger::Fixed),
        codec: arguments.codec.into(),
        deadline: arguments.deadline,
        ..default
    }
}

struct Sender<'a> {
    arguments: &'a Produce,
    topic: Topic,
    producer: Producer,
    headers: Vec<(&'a str, &'a [u8])>,
    /// In the order sent. Bounded: the producer takes only so many bytes before some are acknowledged.
    unacknowledged: VecDeque<Receipt>,
    lines: u64,
    acknowledged: u64,
}

impl Sender<'_> {
    async fn send(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.lines += 1;
        let key = self.key(line)?;
        let (key, value) = match &key {
            Key::None => (None, line),
            Key::Own(key) => (Some(key.as_slice()), line),
            Key::Before { key, value } => (Some(*key), *value),
        };
        let timestamp_us =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        let record = RecordRef { key, value: Some(value), timestamp_us, headers: &self.headers };
        let partition = self.arguments.partition.map_or(Partition::Auto, Partition::Index);
        let number = self.lines;
        let bytes = key.map_or(0, <[u8]>::len) + value.len();
        let most = self.producer.batch_bytes();
        let failed = |error| {
            let failure = Failure::produce(format!("line {number} was not sent"), &error);
            match error {
                ProduceError::RecordTooLarge => {
                    failure.cause(format!("a record of {bytes} bytes does not fit a batch of {most}"))
                }
                _ => failure,
            }
        };
        let receipt = self.producer.send(&self.topic, partition, record).await.map_err(failed)?;
        self.unacknowledged.push_back(receipt);
        self.count()
    }

    /// Counts the answers that have come in, in order.
    fn count(&mut self) -> Result<(), Failure> {
        while let Some(answer) = self.unacknowledged.front().and_then(Receipt::poll_now) {
            answer.map_err(|error| self.refused(&error))?;
            self.acknowledged += 1;
            self.unacknowledged.pop_front();
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        self.producer.flush().await.map_err(|error| self.refused(&error))?;
        while let Some(receipt) = self.unacknowledged.pop_front() {
            receipt.await.map_err(|error| self.refused(&error))?;
            self.acknowledged += 1;
        }
        Ok(())
    }

    fn refused(&self, error: &corelog_client::ProduceError) -> Failure {
        let missing = self.lines - self.acknowledged;
        Failure::produce(format!("{missing} of {} records are not acknowledged", self.lines), error)
    }

    fn key<'l>(&self, line: &'l [u8]) -> Result<Key<'l>, Failure> {
        let no_key =
            |cause, help| Failure::new("KEY", format!("line {} has no key", self.lines), help).cause(cause);
        if let Some(field) = &self.arguments.key_field {
            let help =
                "with --key-field every line is a JSON object; --key-separator takes the key of other lines";
            return field_of(line, field).map_err(|cause| no_key(cause, help));
        }
        if let Some(separator) = &self.arguments.key_separator {
            let help = "with --key-separator every line is a key, the separator and a value";
            return split(line, separator.as_bytes())
                .ok_or_else(|| no_key(format!("it does not hold `{separator}`"), help));
        }
        Ok(Key::None)
    }
}

enum Key<'l> {
    None,
    /// Beside the line, which is the value.
    Own(Vec<u8>),
    /// Both are parts of the line.
    Before {
        key: &'l [u8],
        value: &'l [u8],
    },
}

/// A text is its own bytes, a number, truth value or structure its JSON; null and a missing field are no key.
fn field_of<'l>(line: &[u8], field: &str) -> Result<Key<'l>, String> {
    let object: serde_json::Map<String, Value> =
        serde_json::from_slice(line).map_err(|error| format!("it is not a JSON object: {error}"))?;
    match object.get(field) {
        None | Some(Value::Null) => Ok(Key::None),
        Some(Value::String(text)) => Ok(Key::Own(text.clone().into_bytes())),
        Some(other) => Ok(Key::Own(other.to_string().into_bytes())),
    }
}

fn split<'l>(line: &'l [u8], separator: &[u8]) -> Option<Key<'l>> {
    let at = line.windows(separator.len()).position(|window| window == separator)?;
    Some(Key::Before { key: &line[..at], value: &line[at + separator.len()..] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_field_of_an_object() {
        let key = |line: &str| match field_of(line.as_bytes(), "carrier") {
            Ok(Key::Own(key)) => Some(String::from_utf8(key).expect("text")),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        assert_eq!(key(r#"{"carrier":"AA"}"#).as_deref(), Some("AA"));
        assert_eq!(key(r#"{"carrier":17}"#).as_deref(), Some("17"));
        assert_eq!(key(r#"{"carrier":null}"#), None);
        assert_eq!(key(r#"{"other":1}"#), None);
        assert!(key("[1]").is_some_and(|error| error.contains("not a JSON object")));
    }

    #[test]
    fn key_and_value_are_split_at_the_first_separator() {
        let parts = |line: &'static str, separator: &str| match split(line.as_bytes(), separator.as_bytes()) {
            Some(Key::Before { key, value }) => Some((key, value)),
            _ => None,
        };
        assert_eq!(parts("a::b::c", "::"), Some((b"a".as_slice(), b"b::c".as_slice())));
        assert_eq!(parts(":v", ":"), Some((b"".as_slice(), b"v".as_slice())));
        assert_eq!(parts("none", ":"), None);
        assert_eq!(parts("", "::"), None);
    }
}
