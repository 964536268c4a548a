//! Programs that the gate runs: to their end, or until it is interrupted, never longer.

use std::io::{self, Read as _};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use corelog_load::Interrupt;
use rustix::process::{Pid, Signal, kill_process};

/// Between two looks at a child.
const LOOK: Duration = Duration::from_millis(20);
/// What stands still for so long has settled.
const SETTLED: Duration = Duration::from_millis(500);
/// A child that was told to end removes what it wrote; then it is killed.
const ENDED_WITHIN: Duration = Duration::from_secs(20);

/// The error of everything that was interrupted.
pub fn interrupted() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "interrupted")
}

/// What `command` prints on standard output; its standard error is ours.
pub fn output(mut command: Command, interrupt: &Interrupt) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut pipe = child.stdout.take().expect("standard output is a pipe");
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).map(|_| bytes)
    });
    loop {
        if let Some(status) = child.try_wait()? {
            let stdout = reader.join().expect("reading does not panic")?;
            // A terminal interrupts the child as well: its end may be seen before the signal is.
            return if interrupt.is_seen() {
                Err(interrupted())
            } else {
                Ok(Output { status, stdout, stderr: Vec::new() })
            };
        }
        if interrupt.is_seen() {
            end(child)?;
            return Err(interrupted());
        }
        thread::sleep(LOOK);
    }
}

/// An error when the gate is interrupted: for what takes long and does not wait.
pub fn go_on(interrupt: &Interrupt) -> io::Result<()> {
    if interrupt.is_seen() { Err(interrupted()) } else { Ok(()) }
}

/// Waits, unless the gate is interrupted.
pub fn watch(duration: Duration, interrupt: &Interrupt) -> io::Result<()> {
    let began = Instant::now();
    while began.elapsed() < duration {
        go_on(interrupt)?;
        thread::sleep(LOOK.min(duration.saturating_sub(began.elapsed())));
    }
    go_on(interrupt)
}

/// Waits until `figure` has not changed for half a second: a broker still makes memory after it is ready, and still
/// sends what was asked for.
pub fn settle(interrupt: &Interrupt, mut figure: impl FnMut() -> io::Result<u64>) -> io::Result<()> {
    let mut before = figure()?;
    loop {
        watch(SETTLED, interrupt)?;
        let now = figure()?;
        if now == before {
            return Ok(());
        }
        before = now;
    }
}

fn end(mut child: Child) -> io::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a child has a positive id");
    kill_process(pid, Signal::TERM)?;
    let began = Instant::now();
    while child.try_wait()?.is_none() {
        if began.elapsed() > ENDED_WITHIN {
            child.kill()?;
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_prints_and_how_it_ends_is_known() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo words; exit 3"]);
        let output = output(command, &Interrupt::never()).expect("it runs");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"words\n"[..]));
    }

    #[test]
    fn what_still_changes_has_not_settled() {
        let mut figures = [1, 2, 3, 3, 4].into_iter();
        let next = || Ok(figures.next().expect("not asked again"));
        settle(&Interrupt::never(), next).expect("it settles");
        assert_eq!(figures.next(), Some(4));
    }

    #[test]
    fn a_program_that_is_not_there_is_told_from_one_that_fails() {
        let error = output(Command::new("corelog-no-such-program"), &Interrupt::never()).expect_err("none");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
