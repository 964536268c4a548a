//! What goes wrong, told to people: `error[CODE]: what failed`, the cause, `help: what to do`. And the exit code.

use std::fmt::{self, Display, Write as _};
use std::io;
use std::process::ExitCode;

use corelog_client::{
    ClientError, CommitError, ConsumeError, ErrorCode, LinkError, ProduceError, Refused, TrySendError,
};
use corelog_load::LoadError;
use corelog_load::netns::NetnsError;

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
    pub help: String,
    /// How the process ends.
    pub exit: Exit,
}

/// What sets the words of help off that an error of the engine brings along.
const OWN_HELP: &str = "\nhelp: ";
/// What to do where nobody but us can do anything.
pub const REPORT: &str = "this is a bug of corelog: file an issue with the command line and what it printed";
const AGAIN: &str = "try again in a while";
const TOPICS: &str = "`corelog topic list` names all topics, `corelog topic create NAME` makes one";
const PARTITIONS: &str = "`corelog topic describe NAME` shows the partitions";
const VERSIONS: &str = "check that the port is corelog's, and the versions of client and broker";
const READ_TO_SEE: &str = "`corelog consume` shows whether it is there, before it is sent again";

impl Failure {
    /// With exit code 1 and no cause.
    pub fn new(code: &'static str, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, what: what.into(), cause: None, help: help.into(), exit: Exit::Failed }
    }

    /// A wrong call.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new("USAGE", what, "see `corelog --help` and `corelog COMMAND --help`").exit(Exit::Usage)
    }

    /// Adds why. A cause that says itself what to do knows better than who called it.
    #[must_use]
    pub fn cause(mut self, cause: impl Display) -> Self {
        let text = cause.to_string();
        let (cause, help) = match text.split_once(OWN_HELP) {
            Some((cause, help)) => (cause, Some(help)),
            None => (text.as_str(), None),
        };
        self.cause = Some(cause.to_owned());
        self.help = help.map_or(self.help, str::to_owned);
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
        let (code, help, exit) = match cause.kind() {
            io::ErrorKind::NotFound => ("NOT_FOUND", "check the path", Exit::NotFound),
            io::ErrorKind::PermissionDenied => {
                ("IO", "check the permissions of the file or directory", Exit::Failed)
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ("IO", "free some space, or use another disk", Exit::Failed)
            }
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                ("IO", "check that the file is whole and of the kind that is asked for", Exit::Failed)
            }
            _ => ("IO", "the system's words say what it objects to; `dmesg` may say more", Exit::Failed),
        };
        Self::new(code, what, help).cause(cause).exit(exit)
    }

    /// An administrative request, or the connection, failed. `what` was being done.
    pub fn client(what: impl Into<String>, error: &ClientError) -> Self {
        let start;
        let (code, exit, help) = match error {
            ClientError::NoServers => ("USAGE", Exit::Usage, "name a broker with --server"),
            ClientError::Unreachable { cause: LinkError::Version | LinkError::Protocol(_), .. } => {
                ("PROTOCOL", Exit::Failed, VERSIONS)
            }
            ClientError::Unreachable { server, .. } => {
                start = format!(
                    "start a broker with `corelog serve --listen {server}`, or name one with --server"
                );
                ("UNREACHABLE", Exit::Unreachable, start.as_str())
            }
            ClientError::Timeout => (
                "TIMEOUT",
                Exit::Unreachable,
                "the broker is there and does not answer: see its log, try again",
            ),
            ClientError::OutcomeUnknown => {
                ("OUTCOME_UNKNOWN", Exit::Unreachable, "see with `corelog topic list` whether it was done")
            }
            ClientError::UnknownTopic => ("UNKNOWN_TOPIC", Exit::NotFound, TOPICS),
            ClientError::UnknownPartition => ("UNKNOWN_PARTITION", Exit::NotFound, PARTITIONS),
            ClientError::TopicExists => {
                ("TOPIC_EXISTS", Exit::Failed, "`corelog topic describe NAME` shows it")
            }
            ClientError::Refused(refused) => return Self::refused(what, refused),
            ClientError::Closed => ("CLIENT", Exit::Failed, REPORT),
        };
        Self::new(code, what, help).cause(error).exit(exit)
    }

    /// A record was not acknowledged.
    pub fn produce(what: impl Into<String>, error: &ProduceError) -> Self {
        let (code, exit, help) = match error {
            ProduceError::RecordTooLarge => ("RECORD_TOO_LARGE", Exit::Failed, RECORD_TOO_LARGE),
            ProduceError::UnknownTopic => ("UNKNOWN_TOPIC", Exit::NotFound, TOPICS),
            ProduceError::UnknownPartition => ("UNKNOWN_PARTITION", Exit::NotFound, PARTITIONS),
            ProduceError::Seal(_) => {
                ("NOT_ACKNOWLEDGED", Exit::Failed, "another --codec, or a smaller --batch-bytes")
            }
            ProduceError::OffsetMismatch { .. } => {
                ("OFFSET_MISMATCH", Exit::Failed, "read on to its end and decide anew")
            }
            ProduceError::Refused { refused, maybe_appended } => {
                let failure = Self::refused(what, refused);
                let cause = match failure.cause {
                    Some(cause) if *maybe_appended => Some(format!("{cause} (it may have been appended)")),
                    cause => cause,
                };
                return Self { cause, ..failure };
            }
            ProduceError::Expired { .. } => {
                let help = "check that the broker runs; --deadline sets how long is tried";
                ("DEADLINE", Exit::Unreachable, help)
            }
            ProduceError::Unresolved => ("NOT_ACKNOWLEDGED", Exit::Failed, READ_TO_SEE),
            ProduceError::Closed => ("NOT_ACKNOWLEDGED", Exit::Failed, REPORT),
        };
        Self::new(code, what, help).cause(error).exit(exit)
    }

    /// A record was not even taken.
    pub fn try_send(what: impl Into<String>, error: TrySendError) -> Self {
        let (code, exit, help) = match error {
            TrySendError::RecordTooLarge => ("RECORD_TOO_LARGE", Exit::Failed, RECORD_TOO_LARGE),
            TrySendError::UnknownPartition => ("UNKNOWN_PARTITION", Exit::NotFound, PARTITIONS),
            TrySendError::Full => ("NOT_SENT", Exit::Failed, "check that the broker runs and acknowledges"),
            TrySendError::LaneTaken | TrySendError::Closed => ("NOT_SENT", Exit::Failed, REPORT),
        };
        Self::new(code, what, help).cause(error).exit(exit)
    }

    /// Reading cannot go on.
    pub fn consume(what: impl Into<String>, error: &ConsumeError) -> Self {
        let resume;
        let (code, exit, help) = match error {
            ConsumeError::OffsetOutOfRange { .. } => (
                "OFFSET_OUT_OF_RANGE",
                Exit::NotFound,
                "`--from start` begins at the first record kept, `--from end` with what comes",
            ),
            ConsumeError::LogTruncated { partition, offset } => {
                resume = format!("`--partition {partition} --from {offset}` goes on with what is there now");
                ("LOG_TRUNCATED", Exit::Failed, resume.as_str())
            }
            ConsumeError::Damaged { partition, last, .. } => {
                let behind = last.saturating_add(1);
                resume = format!("`--partition {partition} --from {behind}` goes on behind it");
                ("DAMAGED", Exit::Failed, resume.as_str())
            }
            ConsumeError::Batch { .. } => (
                "DAMAGED",
                Exit::Failed,
                "a newer version may have written it: check the versions of client and broker",
            ),
            ConsumeError::Refused { refused, .. } => return Self::refused(what, refused),
            ConsumeError::UnknownTopic => ("UNKNOWN_TOPIC", Exit::NotFound, TOPICS),
            ConsumeError::UnknownPartition => ("UNKNOWN_PARTITION", Exit::NotFound, PARTITIONS),
            ConsumeError::Closed => ("CONSUME", Exit::Failed, REPORT),
        };
        Self::new(code, what, help).cause(error).exit(exit)
    }

    /// What was read could not be committed.
    pub fn commit(what: impl Into<String>, error: &CommitError) -> Self {
        match error {
            CommitError::Refused { refused, .. } => Self::refused(what, refused),
            CommitError::NotNamed
            | CommitError::UnknownPartition
            | CommitError::NotGiven { .. }
            | CommitError::Closed => Self::new("NOT_COMMITTED", what, REPORT).cause(error),
        }
    }

    /// The broker's own code and words, and what its operator or the caller can do.
    fn refused(what: impl Into<String>, refused: &Refused) -> Self {
        let cause =
            if refused.message.is_empty() { refused.to_string() } else { refused.message.to_string() };
        Self::new(refused.code.name(), what, help_for(refused.code)).cause(cause)
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
            LoadError::NoSpace { .. } => {
                let help = "change to a directory on a larger file system, or free some space";
                Self::new("NO_SPACE", what, help).cause(error).exit(Exit::Usage)
            }
            LoadError::OpenFiles { .. } => {
                let help = "`ulimit -n` sets how many files may be open; or choose fewer --connections";
                Self::new("OPEN_FILES", what, help).cause(error).exit(Exit::Usage)
            }
            LoadError::Netns(error) => Self::netns(what, error),
            LoadError::System { cause, .. } => Self::io(what, cause),
            LoadError::Broker(_) => {
                Self::new("BROKER", what, "`corelog serve` shows why it does not run").cause(error)
            }
            LoadError::Device(_) => {
                Self::new("DEVICE", what, "--no-baselines goes on without measuring it").cause(error)
            }
            LoadError::Report(error) => Self::io(error.to_string(), &error.cause),
            LoadError::Interrupted => {
                let help = "a shorter --duration is over sooner; what the bench wrote is removed";
                Self::new("INTERRUPTED", what, help).cause("a signal came")
            }
        }
    }

    /// There are no network namespaces for a bench.
    fn netns(what: &str, error: &NetnsError) -> Self {
        let (help, exit) = match error {
            NetnsError::NotPermitted => ("run it as root, or without --netns over loopback", Exit::Usage),
            NetnsError::NoProgram => {
                ("install iproute2 (`apt-get install iproute2`), or leave --netns out", Exit::Usage)
            }
            NetnsError::Ip { .. } | NetnsError::Network(_) => (
                "the system's words say what it objects to; without --netns it goes over loopback",
                Exit::Failed,
            ),
        };
        Self::new("NETNS", what, help).cause(error).exit(exit)
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
        writeln!(f, "help: {}", self.help)
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
    let failure = Failure::usage(what);
    if help.is_empty() { failure } else { Failure { help: help.join("; "), ..failure } }
}

const RECORD_TOO_LARGE: &str =
    "--batch-bytes sets how large a batch may be, up to the broker's `limits.max_batch_bytes`";

/// What to do about a refusal of the broker's.
const fn help_for(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::UnsupportedVersion
        | ErrorCode::MalformedRequest
        | ErrorCode::HelloRequired
        | ErrorCode::UnknownHandle
        | ErrorCode::FencedEpoch
        | ErrorCode::UnknownEpoch
        | ErrorCode::Unrecognised { .. } => VERSIONS,
        ErrorCode::FrameTooLarge => {
            "a smaller --batch-bytes, or a larger `limits.max_frame_bytes` of the broker"
        }
        ErrorCode::BatchTooLarge => {
            "a smaller --batch-bytes, or a larger `limits.max_batch_bytes` of the broker"
        }
        ErrorCode::NotAuthorised => "call it on the broker's own machine, through 127.0.0.1",
        ErrorCode::NotReady | ErrorCode::NotHere | ErrorCode::Busy | ErrorCode::ShuttingDown => AGAIN,
        ErrorCode::SlowConsumer => "read faster, or set a larger `memory.slow_bytes` of the broker",
        ErrorCode::TooMany => "the broker's `limits` section sets how many there may be",
        ErrorCode::UnknownTopic | ErrorCode::UnknownTopicId => TOPICS,
        ErrorCode::UnknownPartition => PARTITIONS,
        ErrorCode::TopicExists => "`corelog topic describe NAME` shows it",
        ErrorCode::InvalidTopicName => "choose a name of 1 to 249 letters, digits, `.`, `_` and `-`",
        ErrorCode::NotFinal => "start the broker with --finalise once no older version is to serve the store",
        ErrorCode::InvalidPositionName => "choose a name of 1 to 255 bytes without control characters",
        ErrorCode::InvalidPartitions => "choose from 1 to 100000 --partitions",
        ErrorCode::FewerPartitions => {
            "partitions are only added: `corelog topic describe NAME` shows how many there are"
        }
        ErrorCode::CorruptBatch => "send it again; if it is refused again, test the memory of both machines",
        ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducerId | ErrorCode::FencedProducerEpoch => {
            READ_TO_SEE
        }
        ErrorCode::OffsetMismatch => "read on to its end and decide anew",
        ErrorCode::OffsetOutOfRange | ErrorCode::LogTruncated => {
            "`corelog topic describe NAME` shows which offsets there are"
        }
        ErrorCode::Damaged => {
            "`corelog topic describe NAME` names what is damaged; `--from` goes on behind it"
        }
        ErrorCode::ReadFailed => "a disk of the broker does not answer: its log says which; try again",
        ErrorCode::StorageFull => {
            "free space on the broker's disk, or set `log.retention_bytes`; `/healthz` says if it is `memory.max_bytes` instead"
        }
        ErrorCode::ReadOnly => {
            "a disk of the broker failed: its log says which; restart it when that is mended"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_client::BatchError;
    use corelog_load::WorkloadError;
    use corelog_load::broker::BrokerError;
    use corelog_load::report::ReportError;
    use corelog_uring::baseline::MeasureError;

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
        for netns in [NetnsError::NotPermitted, NetnsError::NoProgram] {
            assert_eq!(Failure::load(&LoadError::Netns(netns)).exit, Exit::Usage);
        }
    }

    /// Every failure that another crate's error can become.
    fn all() -> Vec<Failure> {
        let refused = |code| Refused { code, message: "".into(), detail: [1, 2] };
        let codes = || {
            ErrorCode::ALL.iter().copied().chain([ErrorCode::Unrecognised { number: 999, retryable: true }])
        };
        let unreachable = |cause| ClientError::Unreachable { server: "h:1".to_owned(), cause };
        let mut clients = vec![
            ClientError::NoServers,
            unreachable(LinkError::Version),
            unreachable(LinkError::NoAddress),
            ClientError::OutcomeUnknown,
            ClientError::Timeout,
            ClientError::UnknownTopic,
            ClientError::UnknownPartition,
            ClientError::TopicExists,
            ClientError::Closed,
        ];
        clients.extend(codes().map(|code| ClientError::Refused(refused(code))));
        let mut produces = vec![
            ProduceError::RecordTooLarge,
            ProduceError::UnknownPartition,
            ProduceError::UnknownTopic,
            ProduceError::Seal(BatchError::Empty),
            ProduceError::OffsetMismatch { expected: 1, actual: 2, maybe_appended: true },
            ProduceError::Expired { maybe_appended: true },
            ProduceError::Unresolved,
            ProduceError::Closed,
        ];
        produces.extend(
            codes().map(|code| ProduceError::Refused { refused: refused(code), maybe_appended: true }),
        );
        let mut consumes = vec![
            ConsumeError::LogTruncated { partition: 0, offset: 1 },
            ConsumeError::OffsetOutOfRange { partition: 0, offset: 1, log_start: 2, high_watermark: 3 },
            ConsumeError::Damaged { partition: 0, first: 1, last: 2 },
            ConsumeError::Batch { partition: 0, offset: 1, cause: BatchError::Truncated },
            ConsumeError::UnknownTopic,
            ConsumeError::UnknownPartition,
            ConsumeError::Closed,
        ];
        consumes.extend(codes().map(|code| ConsumeError::Refused { partition: 0, refused: refused(code) }));
        let mut commits = vec![
            CommitError::NotNamed,
            CommitError::UnknownPartition,
            CommitError::NotGiven { partition: 0, offset: 1 },
            CommitError::Closed,
        ];
        commits.extend(codes().map(|code| CommitError::Refused { partition: 0, refused: refused(code) }));
        let sends = [
            TrySendError::Full,
            TrySendError::RecordTooLarge,
            TrySendError::UnknownPartition,
            TrySendError::LaneTaken,
            TrySendError::Closed,
        ];
        let mut all: Vec<Failure> = clients.iter().map(|error| Failure::client("x", error)).collect();
        all.extend(produces.iter().map(|error| Failure::produce("x", error)));
        all.extend(consumes.iter().map(|error| Failure::consume("x", error)));
        all.extend(commits.iter().map(|error| Failure::commit("x", error)));
        all.extend(sends.map(|error| Failure::try_send("x", error)));
        all.extend(loads().iter().map(Failure::load));
        all.push(Failure::usage("x"));
        all
    }

    fn loads() -> [LoadError; 18] {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        [
            LoadError::Workload(WorkloadError::NoProducers),
            LoadError::Client(ClientError::Timeout),
            LoadError::Send(TrySendError::Closed),
            LoadError::Produce(ProduceError::Closed),
            LoadError::Consume(ConsumeError::Closed),
            LoadError::Payload { path: "x".into(), cause: Some(broken()) },
            LoadError::Payload { path: "x".into(), cause: None },
            LoadError::System { operation: "x", cause: broken() },
            LoadError::NoSpace { path: "x".into(), free: 1, needed: 2 },
            LoadError::OpenFiles { allowed: 1, needed: 2 },
            LoadError::Netns(NetnsError::NotPermitted),
            LoadError::Netns(NetnsError::NoProgram),
            LoadError::Netns(NetnsError::Ip { step: "x", said: "y".into() }),
            LoadError::Netns(NetnsError::Network(corelog_uring::Errno(1))),
            LoadError::Broker(BrokerError::Late),
            LoadError::Device(MeasureError::Thread),
            LoadError::Report(ReportError { path: "x".into(), cause: broken() }),
            LoadError::Interrupted,
        ]
    }

    #[test]
    fn every_failure_says_what_to_do_in_one_line() {
        let kinds = [
            io::ErrorKind::NotFound,
            io::ErrorKind::StorageFull,
            io::ErrorKind::InvalidData,
            io::ErrorKind::Other,
        ];
        let io = kinds.map(|kind| Failure::io("x", &io::Error::from(kind)));
        for failure in all().iter().chain(&io) {
            assert!(failure.help.len() > 10, "{failure:?}");
            assert_eq!(failure.help.lines().count(), 1, "{failure:?}");
            let text = failure.to_string();
            assert_eq!(text.matches("help: ").count(), 1, "{text}");
            assert_eq!(failure.json()["error"]["help"], failure.help.as_str());
        }
    }

    #[test]
    fn help_that_a_cause_brings_along_is_said_once_and_in_its_place() {
        let failure =
            Failure::new("X", "it failed", "in general").cause("the disk\nis full\nhelp: free some");
        assert_eq!(
            failure.to_string(),
            "error[X]: it failed\ncause: the disk\n       is full\nhelp: free some\n"
        );
        assert_eq!(failure.json()["error"]["cause"], "the disk\nis full");
        assert_eq!(failure.json()["error"]["help"], "free some");
    }
}
