//! The broker's configuration: an embedded commented default, a file, the environment, flags, in this order.
//!
//! **Invariants:** every key has one place where it is parsed, whatever it came from; a key, variable or value
//! that is not understood stops the start and is named. Must not read the environment or a clock by itself.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use corelog_model::limits::{BATCH_ALIGN, FRAME_ALIGN, MAX_BATCH_BYTES_LIMIT};
use corelog_wire::frame::{FRAME_OVERHEAD_BYTES, MAX_FRAME_BYTES};

mod value;

use crate::placement::{Cpus, Shards};
use value::{at_least, bytes, flag, number, optional_number, within, word};

/// The default configuration with its comments, as `corelog config default` prints it.
pub const DEFAULT: &str = include_str!("default.toml");
/// Shards that a broker has at most.
pub const MAX_SHARDS: u16 = 256;
/// What the name of an environment variable that holds a key starts with.
pub const ENVIRONMENT_PREFIX: &str = "CORELOG_";

/// How the reactor waits when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Never sleeps.
    Poll,
    /// Spins for a while, then sleeps.
    #[default]
    Adaptive,
    /// Sleeps at once.
    Park,
}

/// Which ports the shards listen on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// Each on one of its own, so that clients dial the core that has what they want.
    #[default]
    Each,
    /// All on the same: the system deals connections out, and what they ask of another core is forwarded.
    One,
}

/// What the disk is told to do so that a frame is durable, when it is not left to the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurableMethod {
    /// Write with RWF_DSYNC.
    Dsync,
    /// Write, then fdatasync.
    Fdatasync,
}

/// How extents are prepared, when it is not left to the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// Allocated, never written before.
    Unwritten,
    /// Zeros are written ahead of the head of the log.
    Ahead,
}

/// Whether the disk is measured at first start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbeMode {
    /// Measured once, kept in `limits.toml`.
    #[default]
    Auto,
    /// Safe values, nothing measured.
    Off,
}

/// `[server]`: where clients connect and how the core is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSection {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Told to clients instead of `listen`: host and port of the first shard, those of the others have the ports after
    /// it; or of each shard. Empty: `listen`.
    pub advertise: Vec<(String, u16)>,
    /// Where metrics and health are served over HTTP; port 0 takes a free one, `None`: not at all.
    pub http: Option<SocketAddr>,
    /// How an idle reactor waits.
    pub mode: Mode,
    /// How long [`Mode::Adaptive`] spins, in microseconds.
    pub spin_us: u64,
    /// Which ports the shards listen on.
    pub ports: Ports,
    /// Shards, each on a core of its own.
    pub shards: Shards,
    /// The cores they may have.
    pub cpus: Cpus,
}

/// `[log]`: the store and its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSection {
    /// Directory of the store.
    pub data_dir: PathBuf,
    /// Size of an extent.
    pub extent_bytes: u64,
    /// Size of the live window in memory.
    pub window_bytes: u64,
    /// Size at which a frame is cut.
    pub frame_bytes: u64,
    /// Size of the log beyond which extents are recycled; `None`: never.
    pub retention_bytes: Option<u64>,
    /// So often, in seconds, it is looked for records that no topic keeps any more.
    pub retention_check_s: u64,
    /// Extents allocated at first start.
    pub provision: u32,
    /// How far zeros are written ahead; 0: not at all.
    pub zero_ahead_bytes: u64,
    /// Log written between two checkpoints.
    pub checkpoint_bytes: u64,
    /// Extents that are settled into one pack; 0: none ever.
    pub settle_extents: u32,
    /// Days in which all of the log on the disk is read once though nobody asks for it; 0: it is not.
    pub scrub_days: u64,
    /// Time after the last frame of a busy phase until a beacon proves it, in microseconds.
    pub beacon_us: u64,
    /// Whether a file system without O_DIRECT is accepted.
    pub buffered: bool,
    /// Whether the store gets what this version can do and older ones cannot read.
    pub finalise: bool,
    /// `None`: as measured.
    pub durable_method: Option<DurableMethod>,
    /// 1 to 4; `None`: as measured.
    pub frames_in_flight: Option<u8>,
    /// Size from which a frame is written beside others in flight; 0: always.
    pub parallel_frame_bytes: u64,
    /// `None`: as measured.
    pub preparation: Option<Preparation>,
}

/// `[memory]`: the pools of the arena, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemorySection {
    /// Receive blocks beyond the small one of every connection.
    pub ingest_bytes: u64,
    /// Blocks for reads from disk.
    pub cold_bytes: u64,
    /// Blocks for settling extents into packs; 0: nothing is settled.
    pub settle_bytes: u64,
    /// What may be copied aside for one slow connection.
    pub slow_bytes: u64,
    /// Replies that wait to be sent, beyond what every connection has for them, and what is copied aside.
    pub reply_bytes: u64,
    /// The whole process; 0: what the other bounds add up to.
    pub max_bytes: u64,
}

/// `[limits]`: what a peer may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsSection {
    /// Open connections.
    pub connections: u32,
    /// Unanswered requests of one connection.
    pub requests: u32,
    /// Largest sealed batch.
    pub max_batch_bytes: u64,
    /// Longest frame of a connection, either way.
    pub max_frame_bytes: u64,
    /// Bytes of answers that the kernel takes beyond those on their way; `None`: no bound but its own.
    pub unsent_bytes: Option<u32>,
    /// Time from the connection to its Hello, in milliseconds.
    pub handshake_ms: u64,
    /// Time without a request until the connection is closed, in milliseconds; 0: never.
    pub idle_ms: u64,
    /// Time without a byte taken from a send until the connection is closed, in milliseconds; 0: never.
    pub stalled_ms: u64,
}

/// Everything an operator can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[server]`
    pub server: ServerSection,
    /// `[log]`
    pub log: LogSection,
    /// `[memory]`
    pub memory: MemorySection,
    /// `[limits]`
    pub limits: LimitsSection,
    /// `[probe] mode`
    pub probe: ProbeMode,
}

/// Where a key was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The embedded default: a mistake of ours.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable, by name.
    Variable(String),
    /// `--set`, or a flag that stands for it.
    Flag,
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The file is not TOML.
    Syntax {
        /// Which file.
        origin: Origin,
        /// Line, column and what is wrong there.
        reason: Box<str>,
    },
    /// The file cannot be read.
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said; `None`: it is not UTF-8.
        errno: Option<i32>,
    },
    /// There is no such key.
    UnknownKey {
        /// Where it was given.
        origin: Origin,
        /// `section.key`, or the section alone.
        key: Box<str>,
    },
    /// The key exists, the value is not one it takes.
    BadValue {
        /// Where it was given.
        origin: Origin,
        /// `section.key`.
        key: Box<str>,
        /// What was given.
        value: Box<str>,
        /// What would have been good.
        expected: &'static str,
    },
    /// A flag that is not `section.key=value`.
    BadFlag {
        /// The flag.
        text: Box<str>,
    },
    /// Two values that are good alone do not fit together.
    Conflict {
        /// One of the keys.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// What must hold.
        rule: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the embedded default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "the environment variable {name}"),
            Self::Flag => f.write_str("a flag"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { origin, reason } => write!(f, "{origin} is not valid TOML: {reason}"),
            Self::Unreadable { path, errno } => {
                write!(f, "cannot read {}", path.display())?;
                errno.map_or(Ok(()), |errno| write!(f, ": {}", std::io::Error::from_raw_os_error(errno)))
            }
            Self::UnknownKey { origin, key } => write!(f, "{origin} sets `{key}`, which does not exist"),
            Self::BadValue { origin, key, value, expected } => {
                write!(f, "{origin} sets `{key}` to `{value}`; it takes {expected}")
            }
            Self::BadFlag { text } => write!(f, "`{text}` is not of the form section.key=value"),
            Self::Conflict { first, second, rule } => write!(f, "`{first}` and `{second}`: {rule}"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Default for Config {
    fn default() -> Self {
        let mut config = Self::empty();
        config.apply_toml(DEFAULT, &Origin::Default).expect("the embedded default is valid, a test loads it");
        config
    }
}

impl Config {
    /// What `default.toml` is applied to; never seen outside.
    fn empty() -> Self {
        Self {
            server: ServerSection {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                advertise: Vec::new(),
                http: None,
                mode: Mode::default(),
                spin_us: 0,
                ports: Ports::Each,
                shards: Shards::Auto,
                cpus: Cpus::All,
            },
            log: LogSection::default(),
            memory: MemorySection::default(),
            limits: LimitsSection::default(),
            probe: ProbeMode::default(),
        }
    }

    /// Default, then `file`, then `variables` (those that start with [`ENVIRONMENT_PREFIX`]), then `flags`
    /// (`section.key=value`).
    pub fn load(
        file: Option<&std::path::Path>,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: &[String],
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
                path: path.to_path_buf(),
                errno: error.raw_os_error(),
            })?;
            config.apply_toml(&text, &Origin::File(path.to_path_buf()))?;
        }
        for (name, value) in variables {
            config.apply_variable(&name, &value)?;
        }
        for flag in flags {
            config.apply_flag(flag)?;
        }
        config.check()?;
        Ok(config)
    }

    /// Sets every key of a TOML document.
    pub fn apply_toml(&mut self, text: &str, origin: &Origin) -> Result<(), ConfigError> {
        let document: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
            origin: origin.clone(),
            reason: error.to_string().into(),
        })?;
        for (section, keys) in &document {
            let toml::Value::Table(keys) = keys else {
                return Err(ConfigError::UnknownKey { origin: origin.clone(), key: section.as_str().into() });
            };
            if !SECTIONS.contains(&section.as_str()) {
                return Err(ConfigError::UnknownKey { origin: origin.clone(), key: section.as_str().into() });
            }
            for (key, value) in keys {
                let text = match value {
                    toml::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                self.set(section, key, &text, origin)?;
            }
        }
        Ok(())
    }

    /// Sets the key an environment variable stands for; variables of others are passed over.
    pub fn apply_variable(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else { return Ok(()) };
        let rest = rest.to_ascii_lowercase();
        let origin = Origin::Variable(name.to_owned());
        match rest.split_once('_') {
            Some((section, key)) => self.set(section, key, value, &origin),
            None => Err(ConfigError::UnknownKey { origin, key: rest.into() }),
        }
    }

    /// Sets the key of a `section.key=value` flag.
    pub fn apply_flag(&mut self, text: &str) -> Result<(), ConfigError> {
        let parts = text.split_once('=').and_then(|(name, value)| Some((name.split_once('.')?, value)));
        let Some(((section, key), value)) = parts else {
            return Err(ConfigError::BadFlag { text: text.into() });
        };
        self.set(section.trim(), key.trim(), value.trim(), &Origin::Flag)
    }

    fn set(&mut self, section: &str, key: &str, text: &str, origin: &Origin) -> Result<(), ConfigError> {
        let result = match section {
            "server" => self.server.set(key, text),
            "log" => self.log.set(key, text),
            "memory" => self.memory.set(key, text),
            "limits" => self.limits.set(key, text),
            "probe" => match key {
                "mode" => word(text, &[("auto", ProbeMode::Auto), ("off", ProbeMode::Off)], "auto or off")
                    .map(|mode| self.probe = mode),
                _ => Err(Bad::Key),
            },
            _ => Err(Bad::Key),
        };
        let name = || format!("{section}.{key}").into_boxed_str();
        result.map_err(|bad| match bad {
            Bad::Key => ConfigError::UnknownKey { origin: origin.clone(), key: name() },
            Bad::Value(expected) => {
                ConfigError::BadValue { origin: origin.clone(), key: name(), value: text.into(), expected }
            }
        })
    }

    /// The rules between keys.
    pub fn check(&self) -> Result<(), ConfigError> {
        let batch = self.limits.max_batch_bytes;
        let rules = [
            (
                "log.window_bytes",
                "limits.max_batch_bytes",
                "the window holds at least eight of the largest batches",
                self.log.window_bytes >= 8 * batch,
            ),
            (
                "log.extent_bytes",
                "limits.max_batch_bytes",
                "an extent holds at least four of the largest batches",
                self.log.extent_bytes >= 4 * batch,
            ),
            (
                "log.extent_bytes",
                "log.frame_bytes",
                "an extent holds at least four frames",
                self.log.extent_bytes >= 4 * self.log.frame_bytes,
            ),
            (
                "log.retention_bytes",
                "log.extent_bytes",
                "a log that recycles has at least four extents",
                self.log.retention_bytes.is_none_or(|bytes| bytes >= 4 * self.log.extent_bytes),
            ),
            (
                "limits.max_frame_bytes",
                "limits.max_batch_bytes",
                "a frame holds the largest batch and 4 KiB more",
                self.limits.max_frame_bytes >= batch + FRAME_OVERHEAD_BYTES as u64,
            ),
            (
                "memory.ingest_bytes",
                "limits.max_frame_bytes",
                "four of the longest frames can be received at a time",
                self.memory.ingest_bytes >= 4 * self.limits.max_frame_bytes,
            ),
            (
                "memory.cold_bytes",
                "limits.max_batch_bytes",
                "two of the largest frames can be read at a time",
                self.memory.cold_bytes >= 2 * batch.max(self.log.frame_bytes),
            ),
        ];
        match rules.into_iter().find(|(.., holds)| !holds) {
            Some((first, second, rule, _)) => Err(ConfigError::Conflict { first, second, rule }),
            None => Ok(()),
        }
    }
}

const SECTIONS: [&str; 5] = ["server", "log", "memory", "limits", "probe"];

/// What is wrong with a key; the caller knows its name.
enum Bad {
    Key,
    Value(&'static str),
}

impl ServerSection {
    fn set(&mut self, key: &str, text: &str) -> Result<(), Bad> {
        match key {
            "listen" => {
                self.listen = text.parse().map_err(|_| Bad::Value("an address such as 127.0.0.1:9600"))?
            }
            "advertise" => {
                let place = |text: &str| {
                    let (host, port) = text.trim().rsplit_once(':')?;
                    Some((host.to_owned(), port.parse().ok()?))
                };
                let places = text.split(',').filter(|part| !part.trim().is_empty());
                let places: Option<Vec<_>> = places.map(place).collect();
                self.advertise = places.ok_or(Bad::Value("HOST:PORT, a list of them, or nothing"))?;
            }
            "http" if text.is_empty() => self.http = None,
            "http" => {
                let address =
                    text.parse().map_err(|_| Bad::Value("an address such as 127.0.0.1:9680, or nothing"));
                self.http = Some(address?);
            }
            "mode" => {
                let words = [("poll", Mode::Poll), ("adaptive", Mode::Adaptive), ("park", Mode::Park)];
                self.mode = word(text, &words, "poll, adaptive or park")?;
            }
            "spin_us" => self.spin_us = within(number(text)?, 0, 1_000_000, "0 to 1000000 microseconds")?,
            "ports" => self.ports = word(text, &[("each", Ports::Each), ("one", Ports::One)], "each or one")?,
            "shards" => {
                let count = optional_number(text, 1, MAX_SHARDS.into(), "1 to 256, or auto")?;
                self.shards = count.map_or(Shards::Auto, |count| Shards::Count(count as u16));
            }
            "cpus" => {
                self.cpus = Cpus::parse(text)
                    .ok_or(Bad::Value("all, any, a number, a list such as 0-3,8, or numa:nodes=0;cores=4"))?;
            }
            _ => return Err(Bad::Key),
        }
        Ok(())
    }
}

impl LogSection {
    fn set(&mut self, key: &str, text: &str) -> Result<(), Bad> {
        match key {
            "data_dir" if text.is_empty() => return Err(Bad::Value("a directory")),
            "data_dir" => self.data_dir = PathBuf::from(text),
            "extent_bytes" => {
                let size = bytes(text)?;
                let whole = size % (1 << 20) == 0 && (1 << 20..=2 << 30).contains(&size);
                self.extent_bytes = whole.then_some(size).ok_or(Bad::Value("whole MiB, 1 MiB to 2 GiB"))?;
            }
            "window_bytes" => self.window_bytes = at_least(bytes(text)?, 4 << 20, "4 MiB or more")?,
            "frame_bytes" => {
                let size = within(bytes(text)?, 64 << 10, 16 << 20, "64 KiB to 16 MiB")?;
                let whole = size % FRAME_ALIGN as u64 == 0;
                self.frame_bytes = whole.then_some(size).ok_or(Bad::Value("a multiple of 4 KiB"))?;
            }
            "parallel_frame_bytes" => {
                self.parallel_frame_bytes = within(bytes(text)?, 0, 16 << 20, "up to 16 MiB, 0 for off")?;
            }
            "retention_bytes" => self.retention_bytes = Some(bytes(text)?).filter(|&size| size > 0),
            "retention_check_s" => {
                self.retention_check_s = within(number(text)?, 1, 86_400, "1 to 86400 seconds")?;
            }
            "provision" => self.provision = within(number(text)?, 0, 65_536, "0 to 65536 extents")? as u32,
            "zero_ahead_bytes" => {
                self.zero_ahead_bytes = within(bytes(text)?, 0, 1 << 30, "up to 1 GiB, 0 for off")?
            }
            "checkpoint_bytes" => self.checkpoint_bytes = at_least(bytes(text)?, 1 << 20, "1 MiB or more")?,
            "settle_extents" => {
                self.settle_extents = within(number(text)?, 0, 64, "up to 64 extents, 0 for off")? as u32;
            }
            "scrub_days" => self.scrub_days = within(number(text)?, 0, 3_650, "0 to 3650 days, 0 for off")?,
            "beacon_us" => {
                self.beacon_us = within(number(text)?, 100, 1_000_000, "100 to 1000000 microseconds")?
            }
            "finalise" => self.finalise = flag(text)?,
            "buffered" => self.buffered = flag(text)?,
            "durable_method" => {
                let words = [
                    ("auto", None),
                    ("dsync", Some(DurableMethod::Dsync)),
                    ("fdatasync", Some(DurableMethod::Fdatasync)),
                ];
                self.durable_method = word(text, &words, "auto, dsync or fdatasync")?;
            }
            "frames_in_flight" => {
                self.frames_in_flight =
                    optional_number(text, 1, 4, "1 to 4, or auto")?.map(|count| count as u8);
            }
            "preparation" => {
                let words = [
                    ("auto", None),
                    ("unwritten", Some(Preparation::Unwritten)),
                    ("ahead", Some(Preparation::Ahead)),
                ];
                self.preparation = word(text, &words, "auto, unwritten or ahead")?;
            }
            _ => return Err(Bad::Key),
        }
        Ok(())
    }
}

impl MemorySection {
    fn set(&mut self, key: &str, text: &str) -> Result<(), Bad> {
        match key {
            "ingest_bytes" => self.ingest_bytes = at_least(bytes(text)?, 1 << 20, "1 MiB or more")?,
            "cold_bytes" => self.cold_bytes = at_least(bytes(text)?, 1 << 20, "1 MiB or more")?,
            "settle_bytes" => self.settle_bytes = within(bytes(text)?, 0, 64 << 30, "up to 64 GiB")?,
            "reply_bytes" => self.reply_bytes = within(bytes(text)?, 1 << 20, 1 << 40, "at least 1 MiB")?,
            "max_bytes" => self.max_bytes = within(bytes(text)?, 0, 1 << 50, "a number of bytes")?,
            "slow_bytes" => self.slow_bytes = within(bytes(text)?, 0, 64 << 20, "up to 64 MiB")?,
            _ => return Err(Bad::Key),
        }
        Ok(())
    }
}

impl LimitsSection {
    fn set(&mut self, key: &str, text: &str) -> Result<(), Bad> {
        match key {
            "connections" => self.connections = within(number(text)?, 1, 7_000, "1 to 7000")? as u32,
            "requests" => self.requests = within(number(text)?, 1, 65_536, "1 to 65536")? as u32,
            "max_batch_bytes" => {
                let limit = MAX_BATCH_BYTES_LIMIT as u64;
                self.max_batch_bytes = within(bytes(text)?, 4 << 10, limit, "4 KiB to 16 MiB")?;
                if !self.max_batch_bytes.is_multiple_of(BATCH_ALIGN as u64) {
                    return Err(Bad::Value("a multiple of 16 bytes"));
                }
            }
            "max_frame_bytes" => {
                let limit = MAX_FRAME_BYTES as u64;
                self.max_frame_bytes = within(bytes(text)?, 64 << 10, limit, "64 KiB to 32 MiB and 4 KiB")?;
            }
            "unsent_bytes" => {
                let size = within(bytes(text)?, 0, 1 << 30, "up to 1 GiB, 0 for off")?;
                self.unsent_bytes = Some(size as u32).filter(|&size| size > 0);
            }
            "handshake_ms" => {
                self.handshake_ms = within(number(text)?, 10, 600_000, "10 to 600000 milliseconds")?
            }
            "idle_ms" => self.idle_ms = number(text)?,
            "stalled_ms" => self.stalled_ms = number(text)?,
            _ => return Err(Bad::Key),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
