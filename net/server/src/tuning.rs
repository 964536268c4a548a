//! How the log is written on this machine: what the operator says, else what was measured, else what is safe.

use std::fmt;
use std::path::Path;

use corelog_storage::{DurableMethod, Preparation};
use corelog_uring::file::{Access, FileError};

use crate::config::{self, Config};
use crate::data_dir::DataDir;
use crate::server::has_direct;

/// Places for files besides those of connections, if the limit of open files allows.
const FILE_PLACES: u32 = 8192;

/// How frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// What makes a frame durable.
    pub durable_method: DurableMethod,
    /// Frames written at a time.
    pub frames_in_flight: u8,
    /// How extents are prepared.
    pub preparation: Preparation,
}

/// The disk cannot be measured, or what was measured cannot be kept.
#[derive(Debug)]
pub enum TuningError {
    /// A file of the probe.
    File(FileError),
}

impl fmt::Display for TuningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TuningError {}

impl Tuning {
    /// Safe on every disk; nothing measured.
    pub const SAFE: Self = Self {
        durable_method: DurableMethod::Fdatasync,
        frames_in_flight: 1,
        preparation: Preparation::Unwritten,
    };

    /// What the operator says wins over what was measured.
    pub fn overridden(self, config: &Config) -> Self {
        let log = &config.log;
        Self {
            durable_method: log.durable_method.map_or(self.durable_method, |method| match method {
                config::DurableMethod::Dsync => DurableMethod::Dsync,
                config::DurableMethod::Fdatasync => DurableMethod::Fdatasync,
            }),
            frames_in_flight: log.frames_in_flight.unwrap_or(self.frames_in_flight),
            preparation: log.preparation.map_or(self.preparation, |preparation| match preparation {
                config::Preparation::Unwritten => Preparation::Unwritten,
                config::Preparation::Ahead => Preparation::ZeroAhead,
            }),
        }
    }
}

/// How files of the log are opened: past the page cache, or, if that is allowed and needed, through it.
pub(crate) fn access(directory: &Path, buffered: bool) -> Result<Access, FileError> {
    match has_direct(directory)? {
        true => Ok(Access::Direct),
        false if buffered => Ok(Access::Buffered),
        false => Err(FileError::DirectRefused { path: directory.to_path_buf() }),
    }
}

/// How this log is to be written.
pub(crate) fn tune(config: &Config, _directory: &DataDir, access: Access) -> Result<Tuning, TuningError> {
    if access == Access::Buffered {
        // Through the page cache only a flush of the file makes anything durable.
        return Ok(Tuning::SAFE);
    }
    Ok(Tuning::SAFE.overridden(config))
}

/// Places in the ring's table for files and listeners, within the limit of open files.
pub(crate) const fn file_places(_connections: u32) -> u32 {
    FILE_PLACES
}
