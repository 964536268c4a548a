//! `corelog serve`: the configuration from file, environment and flags; one ready line; runs until it is told to stop.

use std::ffi::OsString;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt as _;

use corelog_server::config::ENVIRONMENT_PREFIX;
use corelog_server::data_dir::DataDirError;
use corelog_server::{Config, Ready, Server, ServerError, Stop};
use corelog_shard::StartError;
use corelog_storage::OpenError;
use corelog_uring::affinity;
use serde_json::json;

use crate::cli::{Format, Serve};
use crate::failure::{Exit, Failure};
use crate::output::Output;

pub(super) fn run(arguments: &Serve, format: Format) -> Result<(), Failure> {
    // Before anything pins a thread: a pinned one sees only its own core.
    affinity::cores();
    log_to_standard_error();
    if arguments.with_parent {
        end_with_parent()?;
    }
    let variables = variables(std::env::vars_os())?;
    let config = Config::load(arguments.config.as_deref(), variables, &flags(arguments)).map_err(refused)?;
    let stop = Stop::new();
    stop.on_signals().map_err(|error| Failure::io("signals cannot be waited for", &error))?;
    let mut said = Ok(());
    let ran = Server::run(&config, &stop, |ready| said = say(ready, format));
    said?;
    ran.map_err(|error| failed(&error))
}

/// The variables that set keys. Others may hold anything; these are text, or refused by name.
fn variables(all: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>, Failure> {
    let ours = |name: &OsString| name.as_bytes().starts_with(ENVIRONMENT_PREFIX.as_bytes());
    let mut variables = Vec::new();
    for (name, value) in all.filter(|(name, _)| ours(name)) {
        match (name.to_str(), value.to_str()) {
            (Some(name), Some(value)) => variables.push((name.to_owned(), value.to_owned())),
            _ => {
                let cause = format!("the environment variable {} is not UTF-8", name.to_string_lossy());
                return Err(refused(cause));
            }
        }
    }
    Ok(variables)
}

/// Flags of their own stand for keys; `--set` comes last and wins.
fn flags(arguments: &Serve) -> Vec<String> {
    let data_dir = arguments.data_dir.as_ref().map(|path| format!("log.data_dir={}", path.display()));
    let listen = arguments.listen.as_ref().map(|listen| format!("server.listen={listen}"));
    let mode = arguments.mode.map(|mode| format!("server.mode={}", mode.name()));
    let shards = arguments.shards.as_ref().map(|shards| format!("server.shards={shards}"));
    let cpus = arguments.cpus.as_ref().map(|cpus| format!("server.cpus={cpus}"));
    let finalise = arguments.finalise.then(|| "log.finalise=true".to_owned());
    [data_dir, listen, mode, shards, cpus, finalise]
        .into_iter()
        .flatten()
        .chain(arguments.set.iter().cloned())
        .collect()
}

fn say(ready: &Ready, format: Format) -> Result<(), Failure> {
    let mut output = Output::new();
    match format {
        Format::Text => output.line(&ready.to_string())?,
        Format::Json => output.json(&json!({
            "ready": {
                "address": ready.addresses[0].to_string(),
                "addresses": ready.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "http": ready.http.map(|http| http.to_string()),
                "line": ready.to_string(),
                "buffered": ready.buffered,
                "final": ready.is_final,
            },
        }))?,
    }
    output.flush()
}

/// A broker that `bench` started must not outlive it, however that ends.
fn end_with_parent() -> Result<(), Failure> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(|error| Failure::io("the parent cannot be watched", &error.into()))?;
    // It may have ended just before it was watched.
    if rustix::process::getppid() == parent {
        Ok(())
    } else {
        let help = "without --with-parent it runs on its own";
        Err(Failure::new("PARENT", "the parent has ended", help))
    }
}

fn log_to_standard_error() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A second subscriber is refused: then there is one, which is all that is wanted.
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init().ok();
}

fn refused(cause: impl Display) -> Failure {
    let help = "`corelog config default` shows every key with what it takes";
    Failure::new("CONFIG", "the configuration is refused", help).cause(cause).exit(Exit::Usage)
}

/// What is said here counts where the error itself does not know what to do.
fn failed(error: &ServerError) -> Failure {
    let made_for;
    let help = match error {
        ServerError::DataDir(DataDirError::LogMissing { .. }) => {
            "mount the directory of that log, or put it back from a copy"
        }
        ServerError::DataDir(_) => "--data-dir takes another directory; one broker at a time uses it",
        ServerError::File(_) => "look into the file system and the disk of the data directory (`dmesg`)",
        ServerError::Log(_) | ServerError::Shard(StartError::Log(OpenError::Config(_))) => {
            "`corelog config default` shows what the keys of `log` and `memory` take"
        }
        ServerError::Tuning(_) => "`--set probe.mode=off` starts without measuring the disk",
        ServerError::Arena(_) => {
            "free some memory, or set a smaller `log.window_bytes`, `memory.ingest_bytes` or `memory.cold_bytes`"
        }
        ServerError::Ring(_) | ServerError::Host(_) => {
            "io_uring must be allowed (`sysctl kernel.io_uring_disabled` is 0) and `ulimit -l` at least 512"
        }
        ServerError::Socket(_) => "--listen takes another address or port; port 0 any free one",
        ServerError::Shard(StartError::Log(OpenError::ExtentBytes { found })) => {
            made_for = format!("`--set log.extent_bytes={found}` starts it as it was made");
            made_for.as_str()
        }
        ServerError::Shard(StartError::Log(OpenError::NoRoom { .. })) => {
            "free some space, or set a smaller `log.extent_bytes`"
        }
        ServerError::Shard(StartError::Log(OpenError::Disk { .. })) => {
            "look into the disk of the data directory (`dmesg`); no record of the store was changed"
        }
        ServerError::Shard(StartError::Log(OpenError::Unreadable { .. })) => {
            "nothing was changed: try again; if it stays like that (`dmesg`), copy what can be read of the file to another disk"
        }
        ServerError::Shard(StartError::Log(OpenError::Features { .. })) => {
            "start the version of corelog that wrote the store, or a later one"
        }
        ServerError::Shard(_) => {
            "put the store back from a copy; `corelog log dump` shows what is left of this one, which was not changed"
        }
        ServerError::Memory(_) => {
            "give it more, or lower `log.window_bytes`, `limits.connections` or `limits.requests`"
        }
        ServerError::Placement(_) => {
            "--shards takes fewer, --cpus others; `taskset` says what the process may use"
        }
        ServerError::NoPort => "--listen takes a lower port, or 0 for free ones",
        ServerError::Control(_) => {
            "`--set server.http=` takes another address or port, port 0 any free one, nothing switches it off"
        }
        ServerError::Advertised { .. } => {
            "`server.advertise` takes the first shard's place, or as many places as there are shards"
        }
        ServerError::Stopped => "start it again: it was told to stop",
        ServerError::Thread => "look into what the broker logged before",
    };
    Failure::new("START", "the broker cannot run", help).cause(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use corelog_server::placement::PlacementError;
    use corelog_server::{ControlError, TuningError};
    use corelog_storage::{ConfigError, Needed};
    use corelog_uring::arena::ArenaError;
    use corelog_uring::file::{FileError, FileOperation};
    use corelog_uring::host::HostError;
    use corelog_uring::limits::LimitsError;
    use corelog_uring::op::Errno;
    use corelog_uring::ring::{RingError, RingOperation};
    use corelog_uring::socket::{SocketError, SocketOperation};

    #[test]
    fn the_short_flags_stand_for_keys_and_set_wins() {
        let line = [
            "corelog",
            "serve",
            "--data-dir",
            "/d",
            "--mode",
            "poll",
            "--shards",
            "2",
            "--cpus",
            "0-1",
            "--finalise",
            "--set",
            "server.mode=park",
        ];
        let cli = crate::cli::Cli::try_parse_from(line).expect("a valid line");
        let crate::cli::Command::Serve(arguments) = cli.command else { panic!("it is serve") };
        let expected = [
            "log.data_dir=/d",
            "server.mode=poll",
            "server.shards=2",
            "server.cpus=0-1",
            "log.finalise=true",
            "server.mode=park",
        ];
        assert_eq!(flags(&arguments), expected);
    }

    const fn over_budget() -> corelog_server::OverBudget {
        corelog_server::OverBudget { pool_bytes: 3, reply_bytes: 2, table_bytes: 1, max_bytes: 5 }
    }

    #[test]
    fn whatever_keeps_a_broker_from_running_it_says_once_what_to_do() {
        let path = || std::path::PathBuf::from("/srv/x");
        let refused = |errno| RingError { operation: RingOperation::Setup, errno: Errno(errno) };
        let file = |errno: i32| FileError::new(FileOperation::Open, &path(), Errno(errno));
        let address = "127.0.0.1:9600".parse().expect("an address");
        let socket = |errno| SocketError { operation: SocketOperation::Bind, address, errno: Errno(errno) };
        let log = |error| ServerError::Shard(StartError::Log(error));
        let errors = [
            (ServerError::DataDir(DataDirError::Locked { path: path() }), "--data-dir"),
            (ServerError::File(FileError::DirectRefused { path: path() }), "log.buffered=true"),
            (ServerError::File(file(5)), "dmesg"),
            (ServerError::File(file(28)), "free some space"),
            (ServerError::Log(ConfigError::MaxBatchBytes), "corelog config default"),
            (ServerError::Tuning(TuningError::Limits(LimitsError::File(file(5)))), "probe.mode=off"),
            (
                ServerError::Tuning(TuningError::Limits(LimitsError::Syntax { path: path(), line: 1 })),
                "delete the file",
            ),
            (ServerError::Arena(ArenaError::Map { bytes: 1, errno: Errno(12) }), "log.window_bytes"),
            (ServerError::Ring(refused(1)), "kernel.io_uring_disabled=0"),
            (ServerError::Ring(refused(5)), "ulimit -l"),
            (ServerError::Host(HostError::LockedMemory { bytes: 65_536 }), "ulimit -l unlimited"),
            (ServerError::Host(HostError::Ring(refused(1))), "kernel.io_uring_disabled=0"),
            (ServerError::Host(HostError::NoSuchCore { core: 99 }), "taskset"),
            (ServerError::Socket(socket(98)), "sport = :9600"),
            (ServerError::Socket(socket(99)), "--listen"),
            (log(OpenError::ExtentBytes { found: 77 }), "log.extent_bytes=77"),
            (log(OpenError::NoRoom { extents: 3, extent_bytes: 5 }), "free some space"),
            (log(OpenError::Features { incompatible: 2 }), "version"),
            (
                log(OpenError::Unreadable { extent: 3, position: 4096, needed: Needed::End }),
                "copy what can be read",
            ),
            (log(OpenError::NoSuperblock), "corelog log dump"),
            (ServerError::Shard(StartError::Checkpoint), "corelog log dump"),
            (ServerError::Placement(PlacementError::NoSuchCpu { cpu: 99 }), "taskset"),
            (ServerError::Memory(over_budget()), "log.window_bytes"),
            (ServerError::NoPort, "--listen"),
            (ServerError::Control(ControlError::Listen(socket(98))), "sport = :9600"),
            (ServerError::Control(ControlError::Listen(socket(99))), "server.http="),
            (ServerError::Advertised { said: 2, shards: 3 }, "as many places"),
            (ServerError::Stopped, "start it again"),
            (ServerError::Thread, "logged"),
        ];
        for (error, help) in errors {
            let failure = failed(&error);
            assert!(failure.help.contains(help), "{help} in {failure}");
            assert_eq!(failure.to_string().matches("help: ").count(), 1, "{failure}");
            assert_eq!(failure.to_string().lines().count(), 3, "{failure}");
        }
    }
}
