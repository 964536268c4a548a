//! `corelog serve`: the configuration from file, environment and flags; one ready line; runs until it is told to stop.

use std::ffi::OsString;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt as _;

use corelog_server::config::ENVIRONMENT_PREFIX;
use corelog_server::{Config, Ready, Server, ServerError, Stop};
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
    let config = Config::load(arguments.config.as_deref(), variables, &flags(arguments))
        .map_err(refused)?;
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
    [data_dir, listen, mode].into_iter().flatten().chain(arguments.set.iter().cloned()).collect()
}

fn say(ready: &Ready, format: Format) -> Result<(), Failure> {
    let mut output = Output::new();
    match format {
        Format::Text => output.line(&ready.to_string())?,
        Format::Json => output.json(&json!({
            "ready": { "address": ready.address.to_string(), "line": ready.to_string(), "buffered": ready.buffered },
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
        Err(Failure::new("PARENT", "the parent has ended"))
    }
}

fn log_to_standard_error() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A second subscriber is refused: then there is one, which is all that is wanted.
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init().ok();
}

fn refused(cause: impl Display) -> Failure {
    Failure::new("CONFIG", "the configuration is refused")
        .cause(cause)
        .exit(Exit::Usage)
        .help("`corelog config default` shows every key with what it takes")
}

fn failed(error: &ServerError) -> Failure {
    let failure = Failure::new("START", "the broker cannot run").cause(error);
    match error {
        ServerError::Ring(_) | ServerError::Host(_) => failure.help(
            "io_uring must be allowed (`sysctl kernel.io_uring_disabled` is 0) and `ulimit -l` at least 512",
        ),
        ServerError::File(_) => failure.help(
            "on a file system without O_DIRECT, `--set log.buffered=true` writes through the page cache",
        ),
        ServerError::Socket(_) => failure.help("--listen takes another address or port; port 0 any free one"),
        ServerError::DataDir(_) => {
            failure.help("--data-dir takes another directory; one broker at a time uses it")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn the_short_flags_stand_for_keys_and_set_wins() {
        let line = ["corelog", "serve", "--data-dir", "/d", "--mode", "poll", "--set", "server.mode=park"];
        let cli = crate::cli::Cli::try_parse_from(line).expect("a valid line");
        let crate::cli::Command::Serve(arguments) = cli.command else { panic!("it is serve") };
        assert_eq!(flags(&arguments), ["log.data_dir=/d", "server.mode=poll", "server.mode=park"]);
    }
}
