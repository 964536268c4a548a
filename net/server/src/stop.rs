//! How a running broker is told to stop: by another thread, or by SIGTERM and SIGINT.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use corelog_uring::waker::Waker;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

const RUN: u8 = 0;
const STOP: u8 = 1;
const ABANDON: u8 = 2;

/// Tells one broker to stop. Clones tell the same one.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    wanted: AtomicU8,
    /// Of every core; locked by who tells and at the start only.
    wakers: Mutex<Vec<Waker>>,
}

/// What a broker was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing: go on.
    Run,
    /// Keep everything acknowledged at any level, then end.
    Stop,
    /// End at once, as if killed.
    Abandon,
}

impl Stop {
    /// Nobody is told anything yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the broker without losing a record acknowledged at any level.
    pub fn stop(&self) {
        self.0.wanted.fetch_max(STOP, Ordering::SeqCst);
        self.wake();
    }

    /// Ends the broker at once: what is not on its way to the disk is lost, as by a `kill -9`. For tests.
    pub fn abandon(&self) {
        self.0.wanted.fetch_max(ABANDON, Ordering::SeqCst);
        self.wake();
    }

    /// Stops the broker at SIGTERM and SIGINT from now on; a second one ends the process with code 1.
    pub fn on_signals(&self) -> io::Result<()> {
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let stop = self.clone();
        thread::Builder::new().name("corelog-signals".to_owned()).spawn(move || {
            for (count, _) in signals.forever().enumerate() {
                if count > 0 {
                    std::process::exit(1);
                }
                stop.stop();
            }
        })?;
        Ok(())
    }

    /// A core of the broker sleeps on this waker.
    pub(crate) fn wakes(&self, waker: Waker) {
        self.wakers().push(waker);
    }

    fn wakers(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the broker was told so far.
    pub(crate) fn wanted(&self) -> Wanted {
        match self.0.wanted.load(Ordering::Relaxed) {
            RUN => Wanted::Run,
            STOP => Wanted::Stop,
            _ => Wanted::Abandon,
        }
    }

    fn wake(&self) {
        self.wakers().iter().for_each(Waker::wake);
    }
}
