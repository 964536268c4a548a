//! A real broker for tests of the binary.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Buffers of a broker that shares its machine with others, on any file system, and nothing measured.
pub(crate) const SMALL: [&str; 8] = [
    "server.http=",
    "probe.mode=off",
    "log.buffered=true",
    "log.window_bytes=12 MiB",
    "log.extent_bytes=16 MiB",
    "log.zero_ahead_bytes=0",
    "memory.ingest_bytes=8 MiB",
    "memory.cold_bytes=4 MiB",
];

/// `corelog serve` as a child; killed when the test is over.
pub(crate) struct Broker {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
    store: tempfile::TempDir,
}

impl Broker {
    /// Starts one with small buffers, and these settings.
    pub(crate) fn start(settings: &[&str]) -> Self {
        // Not the system's temporary directory, which may be memory: next to the binary is a real file system.
        let store = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
        command.args([
            "serve",
            "--format",
            "json",
            "--with-parent",
            "--listen",
            "127.0.0.1:0",
            "--mode",
            "park",
        ]);
        command.arg("--data-dir").arg(store.path());
        for set in ["server.cpus=any"].iter().chain(&SMALL).chain(settings) {
            command.args(["--set", set]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut ready).expect("a ready line");
        let ready: serde_json::Value = serde_json::from_str(&ready).expect("JSON");
        let address = ready["ready"]["address"].as_str().expect("an address").to_owned();
        Self { child, address, store }
    }

    /// Its data directory.
    pub(crate) fn store(&self) -> &std::path::Path {
        self.store.path()
    }

    /// Stops it as an operator would and leaves its store.
    pub(crate) fn stop(mut self) -> tempfile::TempDir {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a child");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        assert!(self.child.wait().expect("a child").success(), "it ends well");
        let empty = tempfile::tempdir().expect("a temporary directory");
        std::mem::replace(&mut self.store, empty)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
