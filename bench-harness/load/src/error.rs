//! Why a run came to no result. Small values: the binary turns them into words and exit codes.

use std::fmt;
use std::io;
use std::path::PathBuf;

use corelog_client::{ClientError, ConsumeError, ProduceError, TrySendError};

use corelog_uring::baseline::MeasureError;

use crate::broker::BrokerError;
use crate::netns::NetnsError;
use crate::report::ReportError;
use crate::workload::WorkloadError;

/// Failure of a run.
#[derive(Debug)]
pub enum LoadError {
    /// The workload cannot be run.
    Workload(WorkloadError),
    /// The broker cannot be reached or refused an administrative request.
    Client(ClientError),
    /// The broker did not take a record.
    Send(TrySendError),
    /// A record was not acknowledged.
    Produce(ProduceError),
    /// A consumer cannot go on.
    Consume(ConsumeError),
    /// The file with the records cannot be read, or holds none.
    Payload {
        /// The file.
        path: PathBuf,
        /// What the system said; `None`: it is empty.
        cause: Option<io::Error>,
    },
    /// The runtime of the load, or a directory for it, cannot be had.
    System {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The run needs more disk than there is.
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// What is free, in bytes.
        free: u64,
        /// What is needed, in bytes.
        needed: u64,
    },
    /// The process may not have as many open files as the run has connections.
    OpenFiles {
        /// What it may have.
        allowed: u64,
        /// What is needed.
        needed: u64,
    },
    /// The namespaces of the run.
    Netns(NetnsError),
    /// The broker that was started for the run.
    Broker(BrokerError),
    /// The device or the loopback cannot be measured.
    Device(MeasureError),
    /// The report.
    Report(ReportError),
    /// SIGINT or SIGTERM.
    Interrupted,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(error) => error.fmt(f),
            Self::Client(error) => error.fmt(f),
            Self::Send(error) => error.fmt(f),
            Self::Produce(error) => error.fmt(f),
            Self::Consume(error) => error.fmt(f),
            Self::Payload { path, cause: Some(cause) } => {
                write!(f, "{} cannot be read: {cause}", path.display())
            }
            Self::Payload { path, cause: None } => write!(f, "{} holds no lines", path.display()),
            Self::System { operation, cause } => write!(f, "{operation}: {cause}"),
            Self::NoSpace { path, free, needed } => {
                write!(f, "{} has {free} bytes free, the run needs {needed}", path.display())
            }
            Self::OpenFiles { allowed, needed } => {
                write!(f, "the run needs {needed} open files, this process may have {allowed}")
            }
            Self::Netns(error) => error.fmt(f),
            Self::Broker(error) => error.fmt(f),
            Self::Device(error) => write!(f, "measuring the device: {error}"),
            Self::Report(error) => error.fmt(f),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for LoadError {}

macro_rules! from {
    ($($source:ty => $variant:ident),*) => {
        $(impl From<$source> for LoadError {
            fn from(error: $source) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

from!(
    WorkloadError => Workload, ClientError => Client, TrySendError => Send, ProduceError => Produce,
    ConsumeError => Consume, BrokerError => Broker, NetnsError => Netns, ReportError => Report,
    MeasureError => Device
);
