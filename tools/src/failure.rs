//! What goes wrong, told to people: `error[CODE]: what failed`, the cause, `help: what to do`. And the exit code.

use std::fmt::{self, Display, Write as _};
use std::io;
use std::process::ExitCode;

use corelog_client::{ClientError, ConsumeError, ErrorCode, LinkError, ProduceError, Refused, TrySendError};
use corelog_load::LoadError;

use crate::cli::Format;

/// The exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It failed.
    Failed = 1,
    /// It was called wrongly.
    Usage = 2,
    /// What it was to work on does not exist.
    NotFound = 3,
    /// No broker answered.
    Unreachable = 4,
}

/// A command that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For scripts and search: upper case, stable.
    pub code: &'static str,
    /// What failed.
    pub what: String,
    /// Why.
    pub cause: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// How the process ends.
    pub exit: Exit,
}

impl Failure {
    /// With exit code 1, and neither cause nor help.
    pub fn new(code: &'static str, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), cause: None, help: None, exit: Exit::Failed }
    }

    /// A wrong call.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new("USAGE", what).exit(Exit::Usage).help("see `corelog --help` and `corelog COMMAND --help`")
    }

    /// Adds why.
    #[must_use]
    pub fn cause(mut self, cause: impl Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets the exit code.
    #[must_use]
    pub const fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Something of the system's that did not work.
    pub fn io(what: impl Into<String>, cause: &io::Error) -> Self {
        let failure = Self::new("IO", what).cause(cause);
        match cause.kind() {
            io::ErrorKind::NotFound => Self { code: "NOT_FOUND", exit: Exit::NotFound, ..failure },
            io::ErrorKind::PermissionDenied => failure.help("check the permissions of the file or directory"),
            _ => failure,
        }
    }

    /// An administrative request, or the connection, failed. `what` was being done.
    pub fn client(what: impl Into<String>, error: &ClientError) -> Self {
        let failure = Self::new("CLIENT", what).cause(error);
        match error {
            ClientError::Unreachable { cause: LinkError::Version | LinkError::Protocol(_), .. } => Self {
                code: "PROTOCOL",
                ..failure.help("check that the port is corelog's, and the versions of client and broker")
            },
            ClientError::Unreachable { server, .. } => Self {
                code: "UNREACHABLE",
                exit: Exit::Unreachable,
                ..failure.help(format!(
                    "start a broker with `corelog serve --listen {server}`, or name one with --server"
                ))
            },
            ClientError::Timeout => Self { code: "TIMEOUT", exit: Exit::Unreachable, ..failure },
            ClientError::OutcomeUnknown => Self {
                code: "OUTCOME_UNKNOWN",
                exit: Exit::Unreachable,
                ..failure.help("see with `corelog topic list` whether it was done")
            },
            ClientError::UnknownTopic => Self {
                code: "UNKNOWN_TOPIC",
                exit: Exit::NotFound,
                ..failure.help("`corelog topic list` names all topics, `corelog topic create NAME` makes one")
            },
            ClientError::UnknownPartition => Self {
                code: "UNKNOWN_PARTITION",
                exit: Exit::NotFound,
                ..failure.help("`corelog topic describe NAME` shows the partitions")
            },
            ClientError::TopicExists => {
                Self { code: "TOPIC_EXISTS", ..failure.help("`corelog topic describe NAME` shows it") }
            }
            ClientError::Refused(refused) => Self { help: None, ..failure }.refused(refused),
            _ => failure,
        }
    }

    /// A record was not acknowledged.
    pub fn produce(what: impl Into<String>, error: &ProduceError) -> Self {
        let failure = Self::new("NOT_ACKNOWLEDGED", what).cause(error);
        match error {
            ProduceError::RecordTooLarge => record_too_large(failure),
            ProduceError::UnknownTopic => Self { code: "UNKNOWN_TOPIC", exit: Exit::NotFound, ..failure },
            ProduceError::UnknownPartition => {
                Self { code: "UNKNOWN_PARTITION", exit: Exit::NotFound, ..failure }
            }
            ProduceError::Expired { .. } => Self {
                code: "DEADLINE",
                exit: Exit::Unreachable,
                ..failure.help("check that the broker runs; --deadline sets how long is tried")
            },
            ProduceError::OffsetMismatch { .. } => {
                Self { code: "OFFSET_MISMATCH", ..failure.help("read on to its end and decide anew") }
            }
            ProduceError::Refused { refused, maybe_appended } => {
                let failure = failure.refused(refused);
                match (maybe_appended, &failure.cause) {
                    (true, Some(cause)) => {
                        Self { cause: Some(format!("{cause} (it may have been appended)")), ..failure }
                    }
                    _ => failure,
                }
            }
            _ => failure,
        }
    }

    /// A record was not even taken.
    pub fn try_send(what: impl Into<String>, error: TrySendError) -> Self {
        let failure = Self::new("NOT_SENT", what).cause(error);
        match error {
            TrySendError::RecordTooLarge => record_too_large(failure),
            TrySendError::UnknownPartition => {
                Self { code: "UNKNOWN_PARTITION", exit: Exit::NotFound, ..failure }
            }
            TrySendError::Full | TrySendError::LaneTaken | TrySendError::Closed => failure,
        }
    }

    /// Reading cannot go on.
    pub fn consume(what: impl Into<String>, error: &ConsumeError) -> Self {
        let failure = Self::new("CONSUME", what).cause(error);
        match error {
            ConsumeError::OffsetOutOfRange { .. } => Self {
                code: "OFFSET_OUT_OF_RANGE",
                exit: Exit::NotFound,
                ..failure.help("`--from start` begins at the first record kept")
            },
            ConsumeError::LogTruncated { offset, .. } => Self {
                code: "LOG_TRUNCATED",
                ..failure.help(format!("`--from {offset}` goes on with what is there now"))
            },
            ConsumeError::Damaged { partition, last, .. } => Self {
                code: "DAMAGED",
                ..failure.help(format!(
                    "`--partition {partition} --from {}` goes on behind it",
                    last.saturating_add(1)
                ))
            },
            ConsumeError::Batch { .. } => Self { code: "DAMAGED", ..failure },
            ConsumeError::Refused { refused, .. } => failure.refused(refused),
            ConsumeError::UnknownTopic => Self { code: "UNKNOWN_TOPIC", exit: Exit::NotFound, ..failure },
            ConsumeError::UnknownPartition => {
                Self { code: "UNKNOWN_PARTITION", exit: Exit::NotFound, ..failure }
            }
            _ => failure,
        }
    }

    /// The broker's own code and words, and what its operator or the caller can do.
    fn refused(self, refused: &Refused) -> Self {
        let cause =
            if refused.message.is_empty() { refused.to_string() } else { refused.message.to_string() };
        let help = match refused.code {
            ErrorCode::BatchTooLarge => {
                "a smaller --batch-bytes, or a larger `limits.max_batch_bytes` of the broker"
            }
            ErrorCode::StorageFull => "free space on the broker's disk, or set `log.retention_bytes`",
            ErrorCode::ReadOnly => {
                "a disk of the broker failed: its log says which; restart it when that is mended"
            }
            ErrorCode::NotReady | ErrorCode::NotHere | ErrorCode::Busy | ErrorCode::ShuttingDown => {
                "try again in a while"
            }
            ErrorCode::TooMany => "the broker's `limits` section sets how many there may be",
            ErrorCode::InvalidTopicName => "choose a name of 1 to 249 letters, digits, `.`, `_` and `-`",
            _ => return Self { code: refused.code.name(), cause: Some(cause), ..self },
        };
        Self { code: refused.code.name(), cause: Some(cause), help: Some(help.to_owned()), ..self }
    }

    /// A bench came to no result.
    pub fn load(error: &LoadError) -> Self {
        let what = "the bench came to no result";
        match error {
            LoadError::Workload(error) => Self::usage(what).cause(error),
            LoadError::Client(error) => Self::client(what, error),
            LoadError::Send(error) => Self::try_send(what, *error),
            LoadError::Produce(error) => Self::produce(what, error),
            LoadError::Consume(error) => Self::consume(what, error),
            LoadError::Payload { cause: Some(cause), path } => {
                Self::io(format!("{} cannot be read", path.display()), cause)
            }
            LoadError::Payload { cause: None, .. } => Self::usage(what).cause(error),
            LoadError::NoSpace { .. } => Self::new("NO_SPACE", what)
                .exit(Exit::Usage)
                .cause(error)
                .help("change to a directory on a larger file system, or free some space"),
            LoadError::System { cause, .. } => Self::io(what, cause),
            LoadError::Broker(_) => {
                Self::new("BROKER", what).cause(error).help("`corelog serve` shows why it does not run")
            }
            LoadError::Device(_) => {
                Self::new("DEVICE", what).cause(error).help("--no-baselines goes on without measuring it")
            }
            LoadError::Report(error) => Self::io(error.to_string(), &error.cause),
            LoadError::Interrupted => Self::new("INTERRUPTED", what).cause("a signal came"),
        }
    }

    /// Tells it on standard error.
    pub fn print(&self, format: Format) {
        match format {
            Format::Text => eprint!("{self}"),
            Format::Json => eprintln!("{}", self.json()),
        }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({"error": {"code": self.code, "what": self.what, "cause": self.cause, "help": self.help}})
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error[{}]: {}", self.code, self.what)?;
        if let Some(cause) = &self.cause {
            for (at, line) in cause.lines().enumerate() {
                writeln!(f, "{}{line}", if at == 0 { "cause: " } else { "       " })?;
            }
        }
        match &self.help {
            Some(help) => writeln!(f, "help: {help}"),
            None => Ok(()),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What clap found wrong with the command line, in our form.
pub fn from_clap(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let mut what = String::new();
    let mut help = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix("error: ") {
            Some(rest) => what.push_str(rest),
            None if line.starts_with("tip: ")
                || line.starts_with("Usage: ")
                || line.starts_with("For more") =>
            {
                help.push(line.trim_start_matches("tip: ").to_owned());
            }
            None => write!(what, " {line}").expect("writing to a string cannot fail"),
        }
    }
    Failure::new("USAGE", what).exit(Exit::Usage).help(help.join("; "))
}

fn record_too_large(failure: Failure) -> Failure {
    let help = "--batch-bytes sets how large a batch may be, up to the broker's `limits.max_batch_bytes`";
    Failure { code: "RECORD_TOO_LARGE", ..failure.help(help) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_code_a_cause_and_what_to_do() {
        let error = ClientError::Unreachable {
            server: "127.0.0.1:1".to_owned(),
            cause: LinkError::Io(io::ErrorKind::ConnectionRefused),
        };
        let failure = Failure::client("the topics cannot be listed", &error);
        assert_eq!(failure.exit, Exit::Unreachable);
        assert_eq!(
            failure.to_string(),
            "error[UNREACHABLE]: the topics cannot be listed\n\
             cause: 127.0.0.1:1 cannot be reached: connection refused\n\
             help: start a broker with `corelog serve --listen 127.0.0.1:1`, or name one with --server\n"
        );
        assert_eq!(failure.json()["error"]["code"], "UNREACHABLE");
    }

    #[test]
    fn exit_codes_tell_what_kind_of_failure_it_was() {
        let exit = |error: &ClientError| Failure::client("", error).exit;
        assert_eq!(exit(&ClientError::UnknownTopic), Exit::NotFound);
        assert_eq!(exit(&ClientError::Timeout), Exit::Unreachable);
        assert_eq!(exit(&ClientError::TopicExists), Exit::Failed);
        let missing = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(Failure::io("x", &missing).exit, Exit::NotFound);
        let full = LoadError::NoSpace { path: "x".into(), free: 1, needed: 2 };
        assert_eq!(Failure::load(&full).exit, Exit::Usage);
    }
}
