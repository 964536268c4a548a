//! How the log is written on this machine: what the operator says, else what was measured, else what is safe.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use corelog_storage::{DurableMethod, Preparation};
use corelog_uring::file::{Access, FileError};
use corelog_uring::limits::{self, Limits, LimitsError};
use corelog_uring::probe::{self, MeasureError, ProbeConfig};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{self, Config, ProbeMode};
use crate::data_dir::DataDir;
use crate::server::has_direct;

/// How long the disk is measured at first start.
const PROBE_TIME: Duration = Duration::from_secs(3);
/// Files that are there besides the extents: superblock, listener, and what is on its way in or out.
const OTHER_FILES: u64 = 64;
/// Places for files at least, if the limit of open files allows: the disk may be given more room meanwhile.
const FILE_PLACES: u64 = 8192;
/// What the kernel takes at most.
const MOST_PLACES: u64 = 1 << 20;

/// How frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// What makes a frame durable.
    pub durable_method: DurableMethod,
    /// Frames that each log writes at a time.
    pub frames_in_flight: u8,
    /// How extents are prepared.
    pub preparation: Preparation,
}

/// The disk cannot be measured, or what was measured cannot be kept.
#[derive(Debug)]
pub enum TuningError {
    /// `limits.toml` cannot be read or written.
    Limits(LimitsError),
    /// The measurement failed.
    Measure(MeasureError),
}

impl fmt::Display for TuningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limits(error) => error.fmt(f),
            Self::Measure(error) => write!(f, "cannot measure the disk: {error}"),
        }
    }
}

impl std::error::Error for TuningError {}

impl From<&Limits> for Tuning {
    fn from(limits: &Limits) -> Self {
        Self {
            durable_method: match limits.durable_method {
                limits::DurableMethod::Dsync => DurableMethod::Dsync,
                limits::DurableMethod::Fdatasync => DurableMethod::Fdatasync,
            },
            frames_in_flight: limits.frames_in_flight,
            preparation: match limits.preparation {
                limits::Preparation::Written => Preparation::ZeroAhead,
                limits::Preparation::Unwritten => Preparation::Unwritten,
            },
        }
    }
}

impl Tuning {
    /// Safe on every disk; nothing measured.
    pub const SAFE: Self = Self {
        durable_method: DurableMethod::Fdatasync,
        frames_in_flight: 1,
        preparation: Preparation::Unwritten,
    };

    /// What is measured is the disk; its logs share the frames that it takes at a time.
    fn shared_by(self, logs: u16) -> Self {
        let each = u16::from(self.frames_in_flight) / logs.max(1);
        Self { frames_in_flight: u8::try_from(each).unwrap_or(u8::MAX).max(1), ..self }
    }

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

/// How this log is to be written. Measures the disk when it never was and the operator left something open.
pub(crate) fn tune(config: &Config, directory: &DataDir, access: Access) -> Result<Tuning, TuningError> {
    if access == Access::Buffered {
        // Through the page cache only a flush of the file makes anything durable.
        return Ok(Tuning::SAFE);
    }
    if config.probe == ProbeMode::Off {
        return Ok(Tuning::SAFE.overridden(config));
    }
    let limits = match Limits::load(directory.path()).map_err(TuningError::Limits)? {
        Some(limits) => limits,
        None => {
            let config = ProbeConfig { duration: PROBE_TIME };
            let limits = probe::measure(directory.path(), &config).map_err(TuningError::Measure)?;
            limits.store(directory.path()).map_err(TuningError::Limits)?;
            limits
        }
    };
    Ok(Tuning::from(&limits).shared_by(directory.logs()).overridden(config))
}

/// Places in the ring's table for files and listeners: for every extent that the disk has room for. The table counts
/// against the limit of open files, so that is raised as far as the process may; what it leaves is used, and where
/// that is too little for the files there are the ring says what to type.
pub(crate) fn file_places(sockets: u32, files: usize, room_for: u64) -> u32 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    places(current.unwrap_or(u64::MAX).min(MOST_PLACES), sockets.into(), files as u64, room_for)
}

fn places(allowed: u64, sockets: u64, files: u64, room_for: u64) -> u32 {
    let least = files + OTHER_FILES;
    let wanted = least.saturating_add(room_for).max(FILE_PLACES);
    let places = wanted.min(allowed.saturating_sub(sockets)).max(least);
    u32::try_from(places).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> Config {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Config::load(None, [], &flags).expect("good")
    }

    #[test]
    fn what_was_measured_is_kept_and_what_the_operator_says_wins() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let directory = DataDir::open(place.path()).expect("made");
        let limits = Limits {
            frames_in_flight: 3,
            durable_method: limits::DurableMethod::Dsync,
            ..Limits::unmeasured()
        };
        limits.store(place.path()).expect("kept");
        let measured = tune(&config(&[]), &directory, Access::Direct).expect("known");
        assert_eq!((measured.frames_in_flight, measured.durable_method), (3, DurableMethod::Dsync));
        let said = tune(&config(&["log.frames_in_flight=2"]), &directory, Access::Direct).expect("known");
        assert_eq!((said.frames_in_flight, said.durable_method), (2, DurableMethod::Dsync));
        let mut directory = directory;
        for (logs, each) in [(2, 1), (3, 1), (8, 1)] {
            directory.have_logs(logs).expect("more");
            let shared = tune(&config(&[]), &directory, Access::Direct).expect("known");
            assert_eq!(shared.frames_in_flight, each, "{logs} logs share the disk");
            let said = tune(&config(&["log.frames_in_flight=2"]), &directory, Access::Direct).expect("known");
            assert_eq!(said.frames_in_flight, 2, "what is said is of each log");
        }
        let off = tune(&config(&["probe.mode=off"]), &directory, Access::Direct).expect("nothing to measure");
        assert_eq!(off, Tuning::SAFE);
        let buffered =
            tune(&config(&["log.durable_method=dsync"]), &directory, Access::Buffered).expect("safe");
        assert_eq!(
            buffered.durable_method,
            DurableMethod::Fdatasync,
            "a page cache is flushed, not bypassed"
        );
    }

    #[test]
    fn the_table_of_files_has_room_for_what_the_disk_has_room_for() {
        assert_eq!(places(MOST_PLACES, 4_097, 10, 130_000), 130_074, "eight terabytes");
        assert_eq!(places(MOST_PLACES, 4_097, 10, 100), 8_192, "a small disk may grow");
        assert_eq!(places(20_000, 4_097, 10, 130_000), 15_903, "what the limit leaves");
        assert_eq!(
            places(1_024, 4_097, 3_000, 0),
            3_064,
            "refused by the ring, which says how many it takes"
        );
    }

    #[test]
    fn limits_of_another_version_stop_the_start_by_name() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let directory = DataDir::open(place.path()).expect("made");
        std::fs::write(place.path().join(limits::FILE_NAME), "schema = 2\n").expect("written");
        let refused = tune(&config(&[]), &directory, Access::Direct).expect_err("a later schema").to_string();
        assert!(refused.contains("limits.toml") && refused.contains("schema 2"), "{refused}");
    }
}
