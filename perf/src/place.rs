//! Where the gate works: the tree, the programs built from it, and a directory that is gone when the gate is.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use corelog_load::machine::free_bytes;
use corelog_load::{Cores, Interrupt};
use serde_json::Value;
use tempfile::TempDir;

use crate::child;

/// The checks of `tests/` that are lines of the gate.
const CHECKS: [&str; 2] = ["allocations", "idle"];

/// What every measurement is given.
pub struct Place {
    /// The measured binary.
    pub corelog: PathBuf,
    /// The built checks, by name; empty when no line needs them.
    pub checks: Vec<(String, PathBuf)>,
    /// Which core does what.
    pub cores: Cores,
    /// Whether to end.
    pub interrupt: Interrupt,
    /// Short windows.
    pub quick: bool,
    directory: TempDir,
}

impl Place {
    /// Builds what is measured and makes the directory.
    pub fn make(with_checks: bool, quick: bool, interrupt: Interrupt) -> io::Result<Self> {
        let corelog = build_corelog(&interrupt)?;
        let checks = if with_checks { build_checks(&interrupt)? } else { Vec::new() };
        let below = root().join("perf/out");
        fs::create_dir_all(&below)?;
        let directory = tempfile::Builder::new().prefix("gate-").tempdir_in(below.canonicalize()?)?;
        Ok(Self { corelog, checks, cores: Cores::choose(), interrupt, quick, directory })
    }

    /// Where everything is written.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A directory of its own for one measurement.
    pub fn own(&self) -> io::Result<TempDir> {
        TempDir::new_in(self.path())
    }

    /// The built check of this name.
    pub fn check(&self, name: &str) -> io::Result<&Path> {
        let found = self.checks.iter().find(|(built, _)| built == name);
        found.map(|(_, path)| path.as_path()).ok_or_else(|| io::Error::other("the check was not built"))
    }
}

/// The root of the tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Refuses when there is not as much disk as the largest run needs.
pub fn check_space(needed_gib: u64) -> io::Result<()> {
    let free = free_bytes(&root())?;
    if free >> 30 >= needed_gib {
        return Ok(());
    }
    let words = format!("{needed_gib} GiB of free disk are needed here, there are {}", free >> 30);
    Err(io::Error::new(ErrorKind::StorageFull, words))
}

/// The first line of what a program prints; empty when it cannot be asked.
pub fn line_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    let text = output.map_or_else(|_| Vec::new(), |output| output.stdout);
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

fn build_corelog(interrupt: &Interrupt) -> io::Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--release", "-p", "corelog", "--message-format=json-render-diagnostics"]);
    let built = executables(command, interrupt)?;
    let corelog = built.into_iter().find(|(name, _)| name == "corelog");
    corelog.map(|(_, path)| path).ok_or_else(|| io::Error::other("corelog was not built"))
}

fn build_checks(interrupt: &Interrupt) -> io::Result<Vec<(String, PathBuf)>> {
    let mut command = cargo();
    command.args(["test", "--release", "-p", "corelog-perf", "--no-run"]);
    command.arg("--message-format=json-render-diagnostics");
    CHECKS.iter().for_each(|check| {
        command.args(["--test", check]);
    });
    executables(command, interrupt)
}

/// Name and path of every program that cargo says it has built.
fn executables(command: Command, interrupt: &Interrupt) -> io::Result<Vec<(String, PathBuf)>> {
    let output = child::output(command, interrupt)?;
    if !output.status.success() {
        return Err(io::Error::other("cargo could not build what is to be measured"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs = messages.filter_map(|message| {
        let name = message.pointer("/target/name")?.as_str()?.to_owned();
        Some((name, PathBuf::from(message.get("executable")?.as_str()?)))
    });
    Ok(programs.collect())
}
