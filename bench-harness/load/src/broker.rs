//! The broker that a run starts for itself: a child process on its own core, gone when the run is.

use std::fmt;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use rustix::process::{Pid, Signal, kill_process};

/// The disk is measured at first start, which takes some seconds; a large store is recovered in fewer.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A broker that was told to stop writes its last frames.
const STOPPED_WITHIN: Duration = Duration::from_secs(20);

/// Why the broker of a run is not there.
#[derive(Debug)]
pub enum BrokerError {
    /// The program cannot be started.
    Spawn(io::Error),
    /// It ended before it was ready; it said why on standard error.
    Ended(ExitStatus),
    /// It did not become ready in time.
    Late,
    /// What it printed is no ready line.
    NotReady(Box<str>),
    /// It ended although nobody had told it to; it said why on standard error.
    Died,
    /// It ended badly after it was told to stop.
    Stopped(ExitStatus),
    /// It cannot be waited for.
    Wait(io::Error),
}

/// A running broker. Dropped, it is killed.
#[derive(Debug)]
pub struct BrokerProcess {
    child: Child,
    ready: String,
    /// Its standard output has ended, and so has it.
    ended: watch::Receiver<bool>,
}

impl BrokerProcess {
    /// Starts `command`, in a process group of its own so that Ctrl-C is left to us, and waits for its ready line on standard output.
    pub fn start(mut command: Command) -> Result<Self, BrokerError> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let child = command.spawn().map_err(BrokerError::Spawn)?;
        let (tell_ended, ended) = watch::channel(false);
        let mut broker = Self { child, ready: String::new(), ended };
        let stdout = broker.child.stdout.take().expect("standard output is a pipe");
        let (sender, lines) = mpsc::channel();
        // Reads on after the first line, so that a broker that says more does not block, and to see it end.
        std::thread::spawn(move || {
            let mut first = Some(sender);
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // It is gone when nobody waits for it any more.
                first.take().map(|sender| sender.send(line));
            }
            drop(first);
            tell_ended.send_replace(true);
        });
        match lines.recv_timeout(READY_WITHIN) {
            Ok(line) => broker.ready = line,
            Err(mpsc::RecvTimeoutError::Timeout) => return Err(BrokerError::Late),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(broker.child.wait().map_or_else(BrokerError::Wait, BrokerError::Ended));
            }
        }
        Ok(broker)
    }

    /// What it printed first.
    pub fn ready_line(&self) -> &str {
        &self.ready
    }

    /// Returns when it has ended.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.clone();
        async move {
            // The thread that tells is there until it has told.
            drop(ended.wait_for(|ended| *ended).await);
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to stop and waits until it has.
    pub fn stop(mut self) -> Result<(), BrokerError> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a child has a positive id"), Signal::TERM)
            .map_err(|errno| BrokerError::Wait(errno.into()))?;
        let started = Instant::now();
        while started.elapsed() < STOPPED_WITHIN {
            match self.child.try_wait().map_err(BrokerError::Wait)? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(BrokerError::Stopped(status)),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        Err(BrokerError::Late)
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        // It may have ended long ago: then there is nothing to kill, and that is fine.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(error) => write!(f, "the broker cannot be started: {error}"),
            Self::Ended(status) => write!(f, "the broker did not start: {status}"),
            Self::Late => f.write_str("the broker did not answer in time"),
            Self::NotReady(line) => write!(f, "the broker's ready line is not understood: {line}"),
            Self::Died => f.write_str("the broker ended in the middle of the run"),
            Self::Stopped(status) => write!(f, "the broker did not end well: {status}"),
            Self::Wait(error) => write!(f, "the broker cannot be waited for: {error}"),
        }
    }
}

impl std::error::Error for BrokerError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_broker_is_ready_by_its_first_line_and_stops_when_told() {
        let script =
            "trap 'exit 0' TERM; echo ready on 127.0.0.1:1; while :; do read x < /dev/null || wait; done";
        let broker = BrokerProcess::start(shell(script)).expect("it starts");
        assert_eq!(broker.ready_line(), "ready on 127.0.0.1:1");
        broker.stop().expect("it ends well");
    }

    #[test]
    fn a_broker_that_ends_at_once_is_told_from_one_that_is_late() {
        let error = BrokerProcess::start(shell("exit 3")).expect_err("it ended");
        assert!(matches!(error, BrokerError::Ended(status) if status.code() == Some(3)), "{error}");
    }

    #[test]
    fn a_dropped_broker_is_gone() {
        let broker =
            BrokerProcess::start(shell("echo ready; exec cat /dev/zero > /dev/null")).expect("it starts");
        let pid = broker.pid();
        drop(broker);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}
