//! A real broker on a thread, with a temporary directory: for tests of programs that use corelog.
//!
//! ```
//! # fn main() -> Result<(), corelog_testing::BrokerError> {
//! let broker = corelog_testing::Broker::start()?;
//! println!("clients connect to {}", broker.address());
//! # Ok(())
//! # }
//! ```
//!
//! It is the broker that `corelog serve` runs, with small buffers and without the measurement of the disk; metrics and
//! health are off unless `server.http` is set, best to port 0 (`Broker::ready` has the address). The store lies in
//! `TMPDIR` if that is set, else beside the test's executable (in `target`), because a temporary directory in memory
//! has no O_DIRECT. **Must not** be used for figures.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{env, fmt, io};

use corelog_server::{Config, ConfigError, Ready, Running, Server, ServerError, Tape};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// What differs from the product's defaults.
const SETTINGS: [&str; 13] = [
    "server.listen=127.0.0.1:0",
    "server.http=",
    "server.mode=park",
    "server.cpus=any",
    "log.buffered=true",
    "log.window_bytes=12 MiB",
    "log.extent_bytes=16 MiB",
    "log.checkpoint_bytes=16 MiB",
    "log.zero_ahead_bytes=0",
    "memory.ingest_bytes=8 MiB",
    "memory.cold_bytes=4 MiB",
    "limits.connections=64",
    "probe.mode=off",
];

/// A broker that stops, and removes its store, when it is dropped.
#[derive(Debug)]
pub struct Broker {
    config: Config,
    tapes: Vec<Tape>,
    running: Option<Running>,
    address: SocketAddr,
    /// The port stays ours while the broker is down: the kernel gives it to nobody, a client that looks for the broker included.
    _port: Option<Socket>,
    store: PathBuf,
    /// Removed on drop; `None` when the directory was given.
    _directory: Option<TempDir>,
}

/// How a broker is to be started.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    settings: Vec<String>,
    directory: Option<PathBuf>,
    tapes: Vec<Tape>,
}

/// Why a broker did not start, or ended.
#[derive(Debug)]
pub enum BrokerError {
    /// No directory could be made.
    Directory(io::Error),
    /// No port could be had.
    Port(io::Error),
    /// A setting is not one.
    Config(ConfigError),
    /// The broker itself.
    Server(ServerError),
}

impl Broker {
    /// Starts a broker with an empty store; returns once it serves.
    pub fn start() -> Result<Self, BrokerError> {
        Self::builder().start()
    }

    /// A broker with other settings or in a directory that stays.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where clients connect. Stays the same over restarts.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The data directory.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// What the broker said when it was ready; `None` after [`Broker::kill`].
    pub fn ready(&self) -> Option<&Ready> {
        self.running.as_ref().map(Running::ready)
    }

    /// Stops it, without losing a record acknowledged at any level.
    pub fn stop(&mut self) -> Result<(), BrokerError> {
        self.running.take().map_or(Ok(()), Running::stop).map_err(BrokerError::Server)
    }

    /// Ends it at once, as a `kill -9` would: records that were acknowledged below `durable` may be lost.
    pub fn kill(&mut self) -> Result<(), BrokerError> {
        self.running.take().map_or(Ok(()), Running::kill).map_err(BrokerError::Server)
    }

    /// Stops it if it runs, and starts it again with the same store and address.
    pub fn restart(&mut self) -> Result<(), BrokerError> {
        self.stop()?;
        let running = Server::spawn_recorded(self.config.clone(), self.tapes.clone());
        self.running = Some(running.map_err(BrokerError::Server)?);
        Ok(())
    }
}

impl Builder {
    /// Sets `section.key=value`, as `corelog serve --set` does.
    #[must_use]
    pub fn set(mut self, setting: impl Into<String>) -> Self {
        self.settings.push(setting.into());
        self
    }

    /// Keeps the store in this directory and does not remove it.
    #[must_use]
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Records what the disk of the next log, from log 0 on, is asked and answers; for tests of the broker itself.
    #[must_use]
    pub fn record(mut self, tape: Tape) -> Self {
        self.tapes.push(tape);
        self
    }

    /// Starts the broker; returns once it serves.
    pub fn start(self) -> Result<Broker, BrokerError> {
        let directory = match self.directory {
            Some(_) => None,
            None => Some(temporary().map_err(BrokerError::Directory)?),
        };
        let given = self.directory.as_deref().or(directory.as_ref().map(TempDir::path));
        let store = given.expect("one of them is there").to_path_buf();
        let mut settings: Vec<String> = SETTINGS.iter().map(|&setting| setting.to_owned()).collect();
        settings.extend(self.settings);
        settings.push(format!("log.data_dir={}", store.display()));
        let mut config = Config::load(None, [], &settings).map_err(BrokerError::Config)?;
        let port = reserve(&mut config).map_err(BrokerError::Port)?;
        let running =
            Server::spawn_recorded(config.clone(), self.tapes.clone()).map_err(BrokerError::Server)?;
        let address = running.address();
        config.server.listen = address;
        config.server.http = running.ready().http;
        Ok(Broker {
            config,
            tapes: self.tapes,
            running: Some(running),
            address,
            _port: port,
            store,
            _directory: directory,
        })
    }
}

/// A free port where any is asked for, bound by a socket that does not listen: who binds this very port as well, as the
/// broker does, may.
fn reserve(config: &mut Config) -> io::Result<Option<Socket>> {
    let listen = &mut config.server.listen;
    if listen.port() != 0 {
        return Ok(None);
    }
    let socket = Socket::new(Domain::for_address(*listen), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&(*listen).into())?;
    if let Some(bound) = socket.local_addr()?.as_socket() {
        *listen = bound;
    }
    Ok(Some(socket))
}

fn temporary() -> io::Result<TempDir> {
    let beside = || env::current_exe().ok().and_then(|path| path.parent().map(Path::to_path_buf));
    let place = env::var_os("TMPDIR").map(PathBuf::from).or_else(beside).unwrap_or_else(env::temp_dir);
    tempfile::Builder::new().prefix("corelog-").tempdir_in(place)
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(error) => write!(f, "cannot make a temporary directory: {error}"),
            Self::Port(error) => write!(f, "cannot reserve a port: {error}"),
            Self::Config(error) => error.fmt(f),
            Self::Server(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BrokerError {}
