//! Starting and stopping a broker: from a configuration to a ready line, and back to an empty process.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use corelog_model::LogId;
use corelog_shard::{Access as Anonymous, Limits as ShardLimits, ShardConfig, StartError, Starting};
use corelog_storage::{DurableMethod, LogConfig, Preparation};
use corelog_uring::arena::ArenaError;
use corelog_uring::file::{self, Access, FileError};
use corelog_uring::host::{Host, HostConfig, HostError};
use corelog_uring::ring::{Registration, Ring, RingConfig, RingError};
use corelog_uring::socket::{self, SocketError, SocketOptions};
use corelog_uring::{affinity, clock};

use crate::config::{Config, Cpu, Mode};
use crate::core::{self, Bounds, Opening, Parts};
use crate::data_dir::{DataDir, DataDirError};
use crate::files::{Files, OpenFailed};
use crate::memory::{Mapped, Plan};
use crate::reactor::{Manners, Reactor, Shell};
use crate::stop::{Stop, Wanted};
use crate::translate::Place;
use crate::tuning::{self, Tuning};

/// What a broker says once it serves.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// How it waits.
    pub mode: Mode,
    /// The core it is pinned to.
    pub core: Option<usize>,
    /// Whether buffers are registered with the kernel.
    pub registration: Registration,
    /// What makes a frame durable.
    pub durable_method: DurableMethod,
    /// How extents are prepared.
    pub preparation: Preparation,
    /// Frames written at a time.
    pub frames_in_flight: u8,
    /// Whether the log goes through the page cache, because the file system has no O_DIRECT.
    pub buffered: bool,
    /// The store's id.
    pub store: u64,
    /// The term it serves in.
    pub term: u32,
    /// From the call to the first durable frame, in microseconds.
    pub start_us: u64,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, mode, registration, frames_in_flight, term, .. } = self;
        let mode = match mode {
            Mode::Poll => "poll",
            Mode::Adaptive => "adaptive",
            Mode::Park => "park",
        };
        let method = match self.durable_method {
            DurableMethod::Dsync => "dsync",
            DurableMethod::Fdatasync => "fdatasync",
        };
        write!(f, "corelog ready: {address} mode={mode}")?;
        match self.core {
            Some(core) => write!(f, " core={core}")?,
            None => f.write_str(" core=any")?,
        }
        write!(f, " durable={method} frames_in_flight={frames_in_flight}, {registration}")?;
        if self.buffered {
            f.write_str(" BUFFERED (no O_DIRECT)")?;
        }
        write!(f, " store={:016x} term={term} start={} ms", self.store, self.start_us / 1000)
    }
}

/// Why a broker did not start, or ended.
#[derive(Debug)]
pub enum ServerError {
    /// The data directory.
    DataDir(DataDirError),
    /// A file of the log.
    File(FileError),
    /// The values of the log do not fit together.
    Log(corelog_storage::ConfigError),
    /// Measuring the disk, or keeping what was measured.
    Tuning(tuning::TuningError),
    /// Memory.
    Arena(ArenaError),
    /// The ring.
    Ring(RingError),
    /// The executor.
    Host(HostError),
    /// The address.
    Socket(SocketError),
    /// The shard.
    Shard(StartError),
    /// Told to stop before it was ready.
    Stopped,
    /// The thread could not be started, or ended without a word.
    Thread,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataDir(error) => error.fmt(f),
            Self::File(error) => error.fmt(f),
            Self::Log(error) => write!(f, "the values of the log do not fit together: {error:?}"),
            Self::Tuning(error) => error.fmt(f),
            Self::Arena(error) => error.fmt(f),
            Self::Ring(error) => error.fmt(f),
            Self::Host(error) => error.fmt(f),
            Self::Socket(error) => error.fmt(f),
            Self::Shard(error) => error.fmt(f),
            Self::Stopped => f.write_str("stopped before it was ready"),
            Self::Thread => f.write_str("the thread of the broker ended"),
        }
    }
}

impl std::error::Error for ServerError {}

macro_rules! from {
    ($($variant:ident($error:ty)),* $(,)?) => {
        $(impl From<$error> for ServerError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

from! {
    DataDir(DataDirError), File(FileError), Log(corelog_storage::ConfigError), Tuning(tuning::TuningError),
    Arena(ArenaError), Ring(RingError), Host(HostError), Socket(SocketError), Shard(StartError),
}

impl From<OpenFailed> for ServerError {
    fn from(error: OpenFailed) -> Self {
        match error {
            OpenFailed::File(error) => Self::File(error),
            OpenFailed::Ring(error) => Self::Ring(error),
        }
    }
}

/// A broker.
#[derive(Debug)]
pub struct Server;

/// A broker on a thread of its own. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    ready: Ready,
    stop: Stop,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
}

impl Server {
    /// Runs a broker on the calling thread until `stop` says so. `ready` is called once it serves.
    pub fn run(config: &Config, stop: &Stop, ready: impl FnOnce(&Ready)) -> Result<(), ServerError> {
        let started_us = clock::now().mono_us;
        Host::check()?;
        let directory = DataDir::open(&config.log.data_dir)?;
        let core = match config.server.cpu {
            Cpu::First => affinity::cores().first().copied(),
            Cpu::Any => None,
            Cpu::Core(core) => Some(core),
        };
        let access = tuning::access(&directory.log_path(LogId(0)), config.log.buffered)?;
        let tuning = tuning::tune(config, &directory, access)?;
        Host::run(&HostConfig { core }, async |host| {
            let started = start(config, &directory, access, tuning, host, stop).await?;
            let Started { reactor, address, registration, term } = started;
            ready(&Ready {
                address,
                mode: config.server.mode,
                core,
                registration,
                durable_method: tuning.durable_method,
                preparation: tuning.preparation,
                frames_in_flight: tuning.frames_in_flight,
                buffered: access == Access::Buffered,
                store: directory.store(),
                term,
                start_us: clock::now().mono_us - started_us,
            });
            reactor.serve().await.map_err(ServerError::Ring)
        })?
    }

    /// Runs a broker on a thread of its own; returns once it serves.
    pub fn spawn(config: Config) -> Result<Running, ServerError> {
        let stop = Stop::new();
        let (sender, receiver) = mpsc::sync_channel(1);
        let of_thread = stop.clone();
        let thread = thread::Builder::new().name("corelog-shard-0".to_owned()).spawn(move || {
            Self::run(&config, &of_thread, |ready| {
                // The one who waits may be gone; the broker is stopped by its handle then.
                let _ = sender.send(ready.clone());
            })
        });
        let thread = thread.map_err(|_| ServerError::Thread)?;
        match receiver.recv() {
            Ok(ready) => Ok(Running { ready, stop, thread: Some(thread) }),
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) => Err(ServerError::Stopped),
                Err(_) => Err(ServerError::Thread),
            },
        }
    }
}

impl Running {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.ready.address
    }

    /// What it said when it was ready.
    pub const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Stops it without losing a record acknowledged at any level, and waits for the end.
    pub fn stop(mut self) -> Result<(), ServerError> {
        self.stop.stop();
        self.join()
    }

    /// Ends it as if it were killed: what is not on its way to the disk is lost.
    pub fn kill(mut self) -> Result<(), ServerError> {
        self.stop.abandon();
        self.join()
    }

    fn join(&mut self) -> Result<(), ServerError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(ServerError::Thread),
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.stop();
        if let Err(error) = self.join() {
            tracing::error!(%error, "the broker did not end well");
        }
    }
}

/// What the start of a reactor leads to.
struct Started {
    reactor: Reactor,
    address: SocketAddr,
    registration: Registration,
    term: u32,
}

async fn start(
    config: &Config,
    directory: &DataDir,
    access: Access,
    tuning: Tuning,
    host: Host,
    stop: &Stop,
) -> Result<Started, ServerError> {
    let log = log_config(config, directory, tuning);
    let Mapped { log: log_memory, core: memory, regions, later } = Plan::new(config, &log).map()?;
    log.check(&log_memory)?;
    let files = Files::new(directory.log_path(LogId(0)), access);
    let listing = files.list()?;
    let connections = config.limits.connections;
    let sockets = connections + 1;
    let room_for = file::free_bytes(directory.path())? / log.extent_bytes;
    let ring_config = RingConfig {
        operations: core::operations(connections),
        sockets,
        files: tuning::file_places(sockets, listing.files.len(), room_for),
        regions: (regions.len() + later.regions()) as u32,
        register_buffers: true,
    };
    let mut ring = Ring::new(&ring_config)?;
    for region in &regions {
        ring.register_region(region);
    }
    host.listen(ring.waker().signal())?;
    stop.wakes(ring.waker());
    let (listener, address) = socket::listen(config.server.listen, &SocketOptions::default())?;
    let names: Vec<_> = listing.files.iter().map(|&(name, _)| name).collect();
    let starting = Starting::new(shard_config(config, directory, log), log_memory, listing, clock::now());
    let mut opening = Opening::new(starting, ring_config.operations);
    for name in names {
        let id = files.open(name, &mut ring)?;
        opening.opened(name, id);
    }
    let mut shell = Shell::new(host, ring, files, ring_config.operations);
    shell.open(&mut opening, stop).await?;
    if stop.wanted() != Wanted::Run {
        return Err(ServerError::Stopped);
    }
    let listener = shell.ring.register_listener(listener)?;
    let place = place(config, address);
    let store = directory.store();
    let core =
        opening.into_core(|shard| Parts { shard, store, place, bounds: bounds(config), memory, listener });
    let growth = later.start(&shell.ring.waker()).map_err(|_| ServerError::Thread)?;
    let (registration, term) = (shell.ring.registration(), core.shard().term().0);
    let manners = Manners {
        mode: config.server.mode,
        spin_us: config.server.spin_us,
        buffered: access == Access::Buffered,
    };
    let reactor = Reactor::new(shell, core, growth, manners, stop.clone());
    Ok(Started { reactor, address, registration, term })
}

fn log_config(config: &Config, directory: &DataDir, tuning: Tuning) -> LogConfig {
    LogConfig {
        extent_bytes: config.log.extent_bytes,
        frame_target_bytes: config.log.frame_bytes as u32,
        max_batch_bytes: config.limits.max_batch_bytes as u32,
        retention_bytes: config.log.retention_bytes,
        provision_extents: config.log.provision,
        preparation: tuning.preparation,
        durable_method: tuning.durable_method,
        frames_in_flight: tuning.frames_in_flight,
        beacon_us: config.log.beacon_us,
        zero_ahead_bytes: config.log.zero_ahead_bytes,
        checkpoint_bytes: config.log.checkpoint_bytes,
        ..LogConfig::new(LogId(0), directory.store())
    }
}

fn shard_config(config: &Config, directory: &DataDir, log: LogConfig) -> ShardConfig {
    let limits = ShardLimits { connections: config.limits.connections, ..ShardLimits::default() };
    ShardConfig { log, logs: directory.logs(), anonymous: Anonymous::default(), limits }
}

fn bounds(config: &Config) -> Bounds {
    let limits = &config.limits;
    Bounds {
        connections: limits.connections,
        requests: limits.requests,
        max_frame_bytes: limits.max_frame_bytes as u32,
        max_batch_bytes: limits.max_batch_bytes as u32,
        slow_bytes: config.memory.slow_bytes as usize,
        handshake_us: limits.handshake_ms * 1000,
        idle_us: limits.idle_ms * 1000,
        stalled_us: limits.stalled_ms * 1000,
    }
}

fn place(config: &Config, address: SocketAddr) -> Place {
    let advertised = config.server.advertise.as_deref().and_then(|text| text.rsplit_once(':'));
    match advertised.and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => Place { host: host.to_owned(), port },
        None => Place { host: address.ip().to_string(), port: address.port() },
    }
}

/// Whether the file system of `directory` has O_DIRECT.
pub(crate) fn has_direct(directory: &Path) -> Result<bool, FileError> {
    let path = directory.join("direct.tmp");
    let tried = file::open(&path, Access::DirectCreate).map(drop);
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(FileError::new(file::FileOperation::Remove, &path, error));
    }
    match tried {
        Ok(()) => Ok(true),
        Err(FileError::DirectRefused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
