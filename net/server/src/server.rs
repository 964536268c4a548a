//! Starting and stopping a broker: from a configuration to a ready line, and back to an empty process.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use corelog_model::LogId;
use corelog_shard::{
    Access as Anonymous, Limits as ShardLimits, ProducerLimits, ShardConfig, StartError, Starting,
};
use corelog_storage::{DurableMethod, Listing, LogConfig, Preparation, Tape};
use corelog_uring::arena::ArenaError;
use corelog_uring::file::{self, Access, FileError};
use corelog_uring::host::{Host, HostConfig, HostError};
use corelog_uring::ring::{Registration, Ring, RingConfig, RingError};
use corelog_uring::socket::{self, SocketError, SocketOptions};
use corelog_uring::topology::Topology;
use corelog_uring::{affinity, clock};

use crate::budget::{Budget, OverBudget};
use crate::config::{Config, Mode, Ports};
use crate::control::http::{Broker as Observed, Limits};
use crate::control::{Control, ControlError};
use crate::core::{self, Bounds, Opening, Parts, Start};
use crate::data_dir::{DataDir, DataDirError};
use crate::files::{Files, OpenFailed};
use crate::memory::{Mapped, Plan, Share};
use crate::placement::{self, PlacementError};
use crate::post::{self, Doors, LANE_PARCELS, Post};
use crate::reactor::{Manners, Reactor, Shell};
use crate::roll::{self, Roll, Seat};
use crate::stop::{Stop, Wanted};
use crate::translate::Place;
use crate::tuning::{self, Tuning};

/// What a broker says once it serves.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where each shard listens; clients begin with the first.
    pub addresses: Vec<SocketAddr>,
    /// Where metrics and health are served, if they are.
    pub http: Option<SocketAddr>,
    /// How it waits.
    pub mode: Mode,
    /// The cores its shards are pinned to; none where they are not pinned.
    pub cores: Vec<usize>,
    /// Its shards.
    pub shards: u16,
    /// Logs of the store.
    pub logs: u16,
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
    /// What the process may come to, resident, in bytes.
    pub memory_limit_bytes: u64,
    /// The store has all that this version can do; if not, an older version can still serve it.
    pub is_final: bool,
    /// From the call to the first durable frame, in microseconds.
    pub start_us: u64,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { addresses, mode, registration, frames_in_flight, term, .. } = self;
        let address = addresses[0];
        let mode = match mode {
            Mode::Poll => "poll",
            Mode::Adaptive => "adaptive",
            Mode::Park => "park",
        };
        let method = match self.durable_method {
            DurableMethod::Dsync => "dsync",
            DurableMethod::Fdatasync => "fdatasync",
        };
        write!(f, "corelog ready: {address}")?;
        if let Some(http) = self.http {
            write!(f, " http={http}")?;
        }
        write!(f, " mode={mode} shards={}", self.shards)?;
        if self.shards > 1 {
            write!(f, " ports={}", List(addresses.iter().map(SocketAddr::port)))?;
        }
        match self.cores.is_empty() {
            true => f.write_str(" cores=any")?,
            false => write!(f, " cores={}", List(self.cores.iter()))?,
        }
        write!(f, " durable={method} frames_in_flight={frames_in_flight}, {registration}")?;
        if !self.is_final {
            f.write_str(" NOT FINAL (an older version may still serve the store; --finalise)")?;
        }
        if self.buffered {
            f.write_str(" BUFFERED (no O_DIRECT)")?;
        }
        write!(f, " store={:016x} term={term} start={} ms", self.store, self.start_us / 1000)
    }
}

/// Values with commas between them.
struct List<I>(I);

impl<I: Iterator<Item: fmt::Display> + Clone> fmt::Display for List<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        self.0.clone().try_for_each(|value| {
            write!(f, "{comma}{value}")?;
            comma = ",";
            Ok(())
        })
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
    /// The shards cannot be placed on the cores.
    Placement(PlacementError),
    /// Metrics and health.
    Control(ControlError),
    /// The ports after that of the first shard end before each shard has one.
    NoPort,
    /// `memory.max_bytes` is less than what is configured needs.
    Memory(OverBudget),
    /// `server.advertise` is a list of another length than there are shards.
    Advertised {
        /// Its length.
        said: usize,
        /// The shards.
        shards: usize,
    },
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
            Self::Placement(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
            Self::Control(error) => error.fmt(f),
            Self::Advertised { said, shards } => {
                write!(f, "`server.advertise` names {said} places, one for each of {shards} shards is needed")
            }
            Self::NoPort => f.write_str("each shard takes a port, the next one after another, and they end"),
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
    Placement(PlacementError), Arena(ArenaError), Ring(RingError), Host(HostError), Socket(SocketError), Shard(StartError),
    Control(ControlError),
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
    /// Runs a broker, each shard on a thread of its own, until `stop` says so. `ready` is called once it serves.
    pub fn run(config: &Config, stop: &Stop, ready: impl FnOnce(&Ready)) -> Result<(), ServerError> {
        Self::run_recorded(config, &[], stop, ready)
    }

    /// The same with a tape for each of the first logs.
    fn run_recorded(
        config: &Config,
        tapes: &[Tape],
        stop: &Stop,
        ready: impl FnOnce(&Ready),
    ) -> Result<(), ServerError> {
        let started_us = clock::now().mono_us;
        Host::check()?;
        Host::prepare()?;
        let topology = Topology::read(Path::new("/"), affinity::cores());
        let cores = placement::place(&topology, config.server.shards, &config.server.cpus)?;
        let count = u16::try_from(cores.len()).expect("the number is bounded");
        let mut directory = DataDir::open(&config.log.data_dir)?;
        directory.have_logs(count)?;
        if config.log.finalise {
            directory.finalise()?;
        }
        let doors = Doors::new(cores.len());
        let logs_each = (0..cores.len()).map(|core| share(core, cores.len(), directory.logs()).logs_here);
        let (roll, seats) = roll::roll(logs_each, doors.clone());
        // Before the disk is measured: an address that is taken is heard of at once. Ends after all shards.
        let control = observe(config, roll, stop, directory.logs(), placement::beside(&topology, &cores))?;
        let access = tuning::access(&directory.log_path(LogId(0)), config.log.buffered)?;
        let tuning = tuning::tune(config, &directory, access)?;
        let budget = budget(config, &directory, tuning, cores.len())?;
        let broker = Broker { config, tapes, directory: &directory, access, tuning, budget, stop };
        let shards = broker.prepare(cores, &doors, seats)?;
        let say = |up: &[Up]| {
            if let Err(error) = directory.note_founded() {
                tracing::warn!("{error}");
            }
            ready(&Ready {
                addresses: up.iter().map(|up| up.address).collect(),
                http: control.as_ref().map(Control::address),
                mode: config.server.mode,
                cores: up.iter().filter_map(|up| up.core).collect(),
                shards: count,
                logs: directory.logs(),
                registration: up[0].registration,
                durable_method: tuning.durable_method,
                preparation: tuning.preparation,
                frames_in_flight: tuning.frames_in_flight,
                buffered: access == Access::Buffered,
                store: directory.store(),
                term: up[0].term,
                memory_limit_bytes: budget.total_bytes,
                is_final: directory.is_final(),
                start_us: clock::now().mono_us - started_us,
            });
        };
        thread::scope(|scope| {
            let (sender, events) = mpsc::channel();
            for shard in shards {
                let (events, broker) = (sender.clone(), &broker);
                let name = format!("corelog-shard-{}", shard.number);
                let thread = thread::Builder::new().name(name).spawn_scoped(scope, move || {
                    let run = || broker.run_shard(shard, events.clone());
                    let ended = panic::catch_unwind(AssertUnwindSafe(run));
                    // Who supervises waits for all of them.
                    let _ = events.send(Event::Ended(ended.unwrap_or(Err(ServerError::Thread))));
                });
                if thread.is_err() {
                    let _ = sender.send(Event::Ended(Err(ServerError::Thread)));
                }
            }
            supervise(count.into(), &events, stop, say)
        })
    }

    /// Runs a broker on threads of its own; returns once it serves.
    pub fn spawn(config: Config) -> Result<Running, ServerError> {
        Self::spawn_recorded(config, Vec::new())
    }

    /// The same for tests, with a tape for each of the first logs: on it is what the log's disk was asked and answered, and the
    /// base offset of each produce that was acknowledged. It takes memory for every byte written.
    pub fn spawn_recorded(config: Config, tapes: Vec<Tape>) -> Result<Running, ServerError> {
        let stop = Stop::new();
        let (sender, receiver) = mpsc::sync_channel(1);
        let of_thread = stop.clone();
        let thread = thread::Builder::new().name("corelog".to_owned()).spawn(move || {
            Self::run_recorded(&config, &tapes, &of_thread, |ready| {
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

/// What a shard says to who supervises.
enum Event {
    /// It lets clients in.
    Up(Up),
    /// It is over.
    Ended(Result<(), ServerError>),
}

/// A shard that serves.
struct Up {
    number: usize,
    address: SocketAddr,
    core: Option<usize>,
    registration: Registration,
    term: u32,
}

/// Waits until all shards have ended; calls `ready` once all serve. When one ends for a reason of its own, the others are
/// told to stop, and that reason is the broker's.
fn supervise(
    shards: usize,
    events: &mpsc::Receiver<Event>,
    stop: &Stop,
    ready: impl FnOnce(&[Up]),
) -> Result<(), ServerError> {
    let (mut up, mut ready, mut ended, mut result) = (Vec::new(), Some(ready), 0, Ok(()));
    while ended < shards {
        let Ok(event) = events.recv() else { return Err(ServerError::Thread) };
        match event {
            Event::Up(shard) => up.push(shard),
            Event::Ended(shard) => {
                ended += 1;
                if stop.wanted() == Wanted::Run {
                    stop.stop();
                }
                if result.is_ok() || matches!(result, Err(ServerError::Stopped)) && shard.is_err() {
                    result = shard;
                }
            }
        }
        if up.len() == shards
            && let Some(ready) = ready.take()
        {
            up.sort_by_key(|shard| shard.number);
            ready(&up);
        }
    }
    result
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.ready.addresses[0]
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

/// What all shards of a broker have in common.
struct Broker<'a> {
    config: &'a Config,
    /// By log; none for those behind the last.
    tapes: &'a [Tape],
    directory: &'a DataDir,
    access: Access,
    tuning: Tuning,
    budget: Budget,
    stop: &'a Stop,
}

/// What a shard's thread begins with.
struct Shard {
    number: usize,
    /// To be pinned to.
    core: Option<usize>,
    /// The logs it serves.
    logs: Vec<LogId>,
    listener: OwnedFd,
    address: SocketAddr,
    post: Post,
    seat: Seat,
    /// Of all shards, by number.
    places: Vec<Place>,
}

impl Broker<'_> {
    /// Takes the addresses, and deals the logs out.
    fn prepare(
        &self,
        cores: Vec<Option<usize>>,
        doors: &Doors,
        seats: Vec<Seat>,
    ) -> Result<Vec<Shard>, ServerError> {
        let Self { config, directory, .. } = *self;
        let shards = cores.len();
        let listeners = listen(config, shards)?;
        let places = places(config, listeners.iter().map(|&(_, address)| address))?;
        let mail = post::posts(doors, LANE_PARCELS).into_iter().zip(seats);
        let parts = listeners.into_iter().zip(mail).zip(cores).enumerate();
        let shard = |(number, (((listener, address), (post, seat)), core))| Shard {
            number,
            core,
            logs: (0..directory.logs()).map(LogId).filter(|&log| home(log, shards) == number).collect(),
            listener,
            address,
            post,
            seat,
            places: places.clone(),
        };
        Ok(parts.map(shard).collect())
    }

    /// A shard's thread, from its start to its end.
    fn run_shard(&self, shard: Shard, events: mpsc::Sender<Event>) -> Result<(), ServerError> {
        Host::run(&HostConfig { core: shard.core }, async |host| {
            let reactor = self.start(shard, host, events).await?;
            reactor.serve().await.map_err(ServerError::Ring)
        })?
    }

    async fn start(
        &self,
        shard: Shard,
        host: Host,
        events: mpsc::Sender<Event>,
    ) -> Result<Reactor, ServerError> {
        let Self { config, tapes, directory, access, tuning, budget, stop } = *self;
        let Shard { number, core, logs, listener, address, mut post, seat, places } = shard;
        let log = |&log| LogConfig {
            index_bytes: budget.index_bytes,
            ..log_config(config, directory, tuning, log)
        };
        let configs: Vec<_> = logs.iter().map(log).collect();
        let share = share(number, places.len(), directory.logs());
        let Mapped { logs: log_memory, core: memory, regions, later } =
            Plan::new(config, &configs[0], share).map()?;
        configs.iter().zip(&log_memory).try_for_each(|(log, memory)| log.check(memory))?;
        let files: Vec<_> = logs.iter().map(|&log| Files::new(directory.log_path(log), access)).collect();
        let listings = files.iter().map(Files::list).collect::<Result<Vec<_>, _>>()?;
        let mut ring = self.ring(&configs[0], &listings, regions.len() + later.regions())?;
        for region in &regions {
            ring.register_region(region);
        }
        host.listen(ring.waker().signal())?;
        stop.wakes(ring.waker());
        post.open(&ring)?;
        // Before anything of them can be named to another core.
        post.announce(&regions);
        let names: Vec<Vec<_>> = listings.iter().map(|listing| listing.names().collect()).collect();
        let starts = configs.into_iter().zip(log_memory).zip(listings).map(|((log, memory), listing)| {
            let (id, blocks) = (log.log, memory.blocks().collect());
            let config = shard_config(config, directory, budget, log, places.len());
            let starting = Starting::new(config, memory, listing, clock::now());
            Start { log: id, starting, blocks, tape: tapes.get(usize::from(id.0)).cloned() }
        });
        let operations = core::operations(config.limits.connections, files.len());
        let mut opening = Opening::new(starts.collect(), operations);
        for (place, (files, names)) in files.iter().zip(names).enumerate() {
            for name in names {
                opening.opened(place, name, files.open(name, &mut ring)?);
            }
        }
        let mut shell = Shell::new(host, ring, files, operations, post);
        shell.open(&mut opening, stop).await?;
        if stop.wanted() != Wanted::Run {
            return Err(ServerError::Stopped);
        }
        let listener = shell.ring.register_listener(listener)?;
        let (store, bounds) = (directory.store(), bounds(config, places.len()));
        let homes = (0..directory.logs()).map(|log| home(LogId(log), places.len())).collect();
        let served = opening.into_core(Parts { store, me: number, homes, places, bounds, memory, listener });
        let growth = later.start(&shell.ring.waker()).map_err(|_| ServerError::Thread)?;
        let registration = shell.ring.registration();
        let term = served.shards().next().map_or(0, |shard| shard.term().0);
        let joined = Box::new(move || {
            // Who supervises waits for this, or is gone.
            let _ = events.send(Event::Up(Up { number, address, core, registration, term }));
        });
        let manners = Manners {
            mode: config.server.mode,
            spin_us: config.server.spin_us,
            buffered: access == Access::Buffered,
            memory_limit_bytes: budget.total_bytes,
        };
        Ok(Reactor::new(shell, served, growth, manners, stop.clone(), seat, joined))
    }

    fn ring(&self, log: &LogConfig, listings: &[Listing], regions: usize) -> Result<Ring, ServerError> {
        let Self { config, directory, .. } = self;
        let connections = config.limits.connections;
        let sockets = connections + 1;
        let room_for = file::free_bytes(directory.path())? / log.extent_bytes;
        let open_files = listings.iter().map(|listing| listing.files.len()).sum();
        Ok(Ring::new(&RingConfig {
            operations: core::operations(connections, listings.len()),
            sockets,
            files: tuning::file_places(sockets, open_files, room_for),
            regions: regions as u32,
            register_buffers: true,
        })?)
    }
}

/// Serves metrics and health, unless that is off.
fn observe(
    config: &Config,
    roll: Roll,
    stop: &Stop,
    logs: u16,
    cores: Vec<usize>,
) -> Result<Option<Control>, ControlError> {
    let Some(address) = config.server.http else { return Ok(None) };
    Control::start(address, Observed { roll, stop: stop.clone(), logs, limits: Limits::default() }, cores)
        .map(Some)
}

/// The number of the shard that serves a log.
fn home(log: LogId, shards: usize) -> usize {
    usize::from(log.0) % shards
}

const DAY_US: u64 = 24 * 3_600 * 1_000_000;

fn log_config(config: &Config, directory: &DataDir, tuning: Tuning, log: LogId) -> LogConfig {
    let logs = u64::from(directory.logs());
    LogConfig {
        extent_bytes: config.log.extent_bytes,
        frame_target_bytes: config.log.frame_bytes as u32,
        max_batch_bytes: config.limits.max_batch_bytes as u32,
        retention_bytes: config
            .log
            .retention_bytes
            .map(|bytes| (bytes / logs).max(4 * config.log.extent_bytes)),
        provision_extents: config.log.provision.div_ceil(logs as u32),
        spare_idle_us: 2 * config.log.retention_check_s * 1_000_000,
        preparation: tuning.preparation,
        durable_method: tuning.durable_method,
        frames_in_flight: tuning.frames_in_flight,
        parallel_frame_bytes: config.log.parallel_frame_bytes as u32,
        beacon_us: config.log.beacon_us,
        zero_ahead_bytes: config.log.zero_ahead_bytes,
        checkpoint_bytes: config.log.checkpoint_bytes,
        settle_extents: config.log.settle_extents,
        scrub_us: Some(config.log.scrub_days * DAY_US).filter(|&period| period > 0),
        features: directory.features(),
        ..LogConfig::new(log, directory.store())
    }
}

/// What a core has of all that there is.
fn share(core: usize, cores: usize, logs: u16) -> Share {
    let logs_here = (0..logs).filter(|&log| home(LogId(log), cores) == core).count();
    Share { core, cores, logs: logs.into(), logs_here }
}

/// What so many shards may come to together.
fn budget(
    config: &Config,
    directory: &DataDir,
    tuning: Tuning,
    shards: usize,
) -> Result<Budget, ServerError> {
    let log = log_config(config, directory, tuning, LogId(0));
    let plan = |core| Plan::new(config, &log, share(core, shards, directory.logs()));
    let plans: Vec<Plan> = (0..shards).map(plan).collect();
    Budget::new(config, &plans, directory.logs().into()).map_err(ServerError::Memory)
}

fn shard_config(
    config: &Config,
    directory: &DataDir,
    budget: Budget,
    log: LogConfig,
    shards: usize,
) -> ShardConfig {
    // Those of all cores: any of them may ask.
    let connections = config.limits.connections * shards as u32;
    let defaults = ShardLimits::default();
    let producers = ProducerLimits { pairs: budget.producers, ..defaults.producers };
    let Budget { partitions, positions, subscriptions, .. } = budget;
    let retention_check_us = config.log.retention_check_s * 1_000_000;
    let limits = ShardLimits {
        connections,
        partitions,
        positions,
        subscriptions,
        producers,
        retention_check_us,
        ..defaults
    };
    ShardConfig { log, logs: directory.logs(), anonymous: Anonymous::default(), limits }
}

fn bounds(config: &Config, shards: usize) -> Bounds {
    let limits = &config.limits;
    Bounds {
        connections: limits.connections,
        requests: limits.requests,
        max_frame_bytes: limits.max_frame_bytes as u32,
        max_batch_bytes: limits.max_batch_bytes as u32,
        slow_bytes: config.memory.slow_bytes as usize,
        reply_bytes: config.memory.reply_bytes as usize / shards,
        handshake_us: limits.handshake_ms * 1000,
        idle_us: limits.idle_ms * 1000,
        stalled_us: limits.stalled_ms * 1000,
    }
}

/// A listener for each shard, and where it listens.
fn listen(config: &Config, shards: usize) -> Result<Vec<(OwnedFd, SocketAddr)>, ServerError> {
    let one = config.server.ports == Ports::One;
    let unsent_bytes = config.limits.unsent_bytes;
    let options = SocketOptions { share_port: one && shards > 1, unsent_bytes, ..SocketOptions::default() };
    if options.share_port {
        // Sharing it, a socket of ours would be let in beside those of another broker.
        socket::check_free(config.server.listen)?;
    }
    let mut listeners: Vec<(OwnedFd, SocketAddr)> = Vec::with_capacity(shards);
    for number in 0..shards {
        let mut address = config.server.listen;
        if let Some((_, first)) = listeners.first().filter(|_| one) {
            address = *first;
        } else if address.port() != 0 {
            let port = u16::try_from(usize::from(address.port()) + number);
            address.set_port(port.map_err(|_| ServerError::NoPort)?);
        }
        listeners.push(socket::listen(address, &options)?);
    }
    Ok(listeners)
}

/// What clients are told of each shard: where it listens, or what the operator says of it.
fn places(
    config: &Config,
    addresses: impl ExactSizeIterator<Item = SocketAddr>,
) -> Result<Vec<Place>, ServerError> {
    let advertised: Vec<_> = config.server.advertise.iter().collect();
    let shards = addresses.len();
    let said = |number: usize| match advertised[..] {
        [] => Ok(None),
        [(host, port)] if config.server.ports == Ports::One => {
            Ok(Some(Place { host: host.clone(), port: *port }))
        }
        [(host, base)] => {
            let port = u16::try_from(usize::from(*base) + number).map_err(|_| ServerError::NoPort)?;
            Ok(Some(Place { host: host.clone(), port }))
        }
        _ if advertised.len() != shards => Err(ServerError::Advertised { said: advertised.len(), shards }),
        _ => Ok(Some(Place { host: advertised[number].0.clone(), port: advertised[number].1 })),
    };
    let place = |(number, address): (usize, SocketAddr)| {
        let here = Place { host: address.ip().to_string(), port: address.port() };
        Ok(said(number)?.unwrap_or(here))
    };
    addresses.enumerate().map(place).collect()
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

#[cfg(test)]
mod tests {
    use corelog_uring::Errno;

    use super::*;

    /// With `server.ports = one` all shards listen on one port, but those of two brokers must not: each client would come to
    /// one of two stores.
    #[test]
    fn a_port_that_the_shards_of_another_broker_share_is_taken() {
        let config = |listen: &str| {
            let flags = ["server.ports=one".to_owned(), format!("server.listen={listen}")];
            Config::load(None, [], &flags).expect("good")
        };
        let first = listen(&config("127.0.0.1:0"), 2).expect("a free port");
        let taken = first[0].1;
        assert_eq!(first[1].1, taken);
        match listen(&config(&taken.to_string()), 2) {
            Err(ServerError::Socket(error)) => assert_eq!(error.errno, Errno(98), "{error}"),
            other => panic!("both listen: {other:?}"),
        }
        drop(first);
        listen(&config(&taken.to_string()), 2).expect("free again");
    }
}
