//! `corelog serve` as a child process: started on a store that stays, killed and stopped by its process id.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Small buffers and extents, no measurement of the disk; O_DIRECT, as `corelog serve` has it by default.
pub(crate) const SMALL: [&str; 9] = [
    "server.cpus=any",
    "server.http=127.0.0.1:0",
    "server.mode=park",
    "probe.mode=off",
    "log.window_bytes=12 MiB",
    "log.extent_bytes=8 MiB",
    "log.zero_ahead_bytes=0",
    "memory.ingest_bytes=8 MiB",
    "memory.cold_bytes=4 MiB",
];

/// A store, and how its brokers are started.
pub(crate) struct Place {
    /// Removed at the end; `None` when the store lies elsewhere.
    _directory: Option<TempDir>,
    store: PathBuf,
    settings: Vec<String>,
    /// What the broker is started by, with its arguments; the broker takes its place.
    run_by: Vec<String>,
}

/// A broker that has said it is ready. Killed when dropped.
pub(crate) struct Broker {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
    /// Where each of its shards listens, if there are several.
    pub(crate) addresses: Vec<String>,
    /// Where metrics and health are.
    pub(crate) http: Option<String>,
    /// What it said.
    pub(crate) ready: String,
}

/// A broker that did not start.
pub(crate) struct Refused {
    pub(crate) code: Option<i32>,
    pub(crate) message: String,
}

impl Place {
    /// An empty store beside the binary: a real file system, where the system's temporary directory may be memory.
    pub(crate) fn new(settings: &[&str]) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
        let store = directory.path().join("store");
        let mut place = Self::at(store, settings);
        place._directory = Some(directory);
        place
    }

    /// An empty store that keeps four extents of 1 MiB: what is written is soon in none of them any more.
    pub(crate) fn forgetful() -> Self {
        Self::new(&[
            "log.extent_bytes=1 MiB",
            "log.retention_bytes=4 MiB",
            "log.frame_bytes=64 KiB",
            "limits.max_batch_bytes=128 KiB",
            "limits.max_frame_bytes=256 KiB",
        ])
    }

    /// A store at this path, which is not removed.
    pub(crate) fn at(store: PathBuf, settings: &[&str]) -> Self {
        let settings = SMALL.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
        Self { _directory: None, store, settings, run_by: Vec::new() }
    }

    /// The same store, with more settings.
    pub(crate) fn again(&self, settings: &[String]) -> Self {
        let settings = self.settings.iter().chain(settings).cloned().collect();
        Self { _directory: None, store: self.store.clone(), settings, run_by: self.run_by.clone() }
    }

    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// The files of the store's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.store.join("log-0000")
    }

    pub(crate) fn set(&mut self, setting: String) {
        self.settings.push(setting);
    }

    /// The words of a command that ends in running another one.
    pub(crate) fn run_by(&mut self, words: &[&str]) {
        self.run_by = words.iter().map(|&word| word.to_owned()).collect();
    }

    /// `corelog serve` with this store, on any free port.
    pub(crate) fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_corelog");
        let mut command = match &self.run_by[..] {
            [] => Command::new(binary),
            [first, more @ ..] => {
                let mut command = Command::new(first);
                command.args(more).arg(binary);
                command
            }
        };
        command.args(["serve", "--with-parent", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&self.store);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command
    }

    /// Starts the process and does not wait for it.
    pub(crate) fn spawn(&self) -> Child {
        let errors = File::create(self.errors()).expect("a file for its words");
        self.command().stdout(Stdio::piped()).stderr(errors).spawn().expect("it starts")
    }

    /// Starts a broker; returns when it is ready, or when it has ended without being so.
    pub(crate) fn try_start(&self) -> Result<Broker, Refused> {
        let mut child = self.spawn();
        let mut ready = String::new();
        let output = child.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut ready).expect("text");
        let address = ready.strip_prefix("corelog ready: ").and_then(|rest| rest.split(' ').next());
        match address {
            Some(address) => {
                let ports = ready.split(" ports=").nth(1).and_then(|rest| rest.split(' ').next());
                let ports = ports.into_iter().flat_map(|ports| ports.split(','));
                let addresses = ports.map(|port| format!("127.0.0.1:{port}")).collect();
                let http = ready.split(" http=").nth(1).and_then(|rest| rest.split(' ').next());
                let http = http.map(str::to_owned);
                Ok(Broker { address: address.to_owned(), addresses, http, ready, child })
            }
            None => {
                let code = child.wait().expect("a child").code();
                Err(Refused { code, message: self.said() })
            }
        }
    }

    #[track_caller]
    pub(crate) fn start(&self) -> Broker {
        self.try_start().unwrap_or_else(|refused| panic!("{:?}: {}", refused.code, refused.message))
    }

    /// What a broker is refused with.
    #[track_caller]
    pub(crate) fn refused(&self) -> Refused {
        match self.try_start() {
            Ok(broker) => panic!("it starts: {}", broker.ready),
            Err(refused) => refused,
        }
    }

    /// What the last broker wrote to standard error.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.errors()).expect("text")
    }

    /// Not beside the store, whose disk may be full.
    fn errors(&self) -> PathBuf {
        let store = self.store.strip_prefix("/").unwrap_or(&self.store).to_string_lossy().replace('/', "-");
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{store}.stderr"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Absent when no broker was started.
        std::fs::remove_file(self.errors()).ok();
    }
}

impl Broker {
    /// The most memory it ever had resident, in bytes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a figure");
        let kib = peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
        kib * 1024
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, which comes by itself.
    pub(crate) fn ended(mut self) -> ExitStatus {
        self.child.wait().expect("a child")
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(mut self, signal: Signal) -> ExitStatus {
        kill_process(pid(&self.child), signal).expect("it runs");
        self.child.wait().expect("a child")
    }

    /// Stops it as an operator would.
    #[track_caller]
    pub(crate) fn stop(self) {
        let status = self.end(Signal::TERM);
        assert!(status.success(), "it ends well: {status}");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn pid(child: &Child) -> Pid {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id")
}

/// Runs another command of `corelog` to its end.
pub(crate) fn corelog(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_corelog")).args(arguments).output().expect("the binary runs")
}

/// Standard output of a command that succeeds.
#[track_caller]
pub(crate) fn output(arguments: &[&str]) -> String {
    let output = corelog(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
