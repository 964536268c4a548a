//! SIGINT and SIGTERM as a value: a run that is interrupted ends by returning, so that its broker and its
//! temporary data go as at any other end.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether a signal has come. Clones see the same.
#[derive(Clone, Debug)]
pub struct Interrupt {
    seen: watch::Receiver<bool>,
}

impl Interrupt {
    /// From now on the two signals no longer end the process. They are waited for on a thread of their own: the
    /// run may be measuring the device then, without a runtime.
    pub fn watch() -> io::Result<Self> {
        let (sender, seen) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut interrupt, mut terminate) = {
            let _entered = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                sender.send_replace(true);
                // Dropped, the channel would say that no signal can come any more.
                sender.closed().await;
            });
        })?;
        Ok(Self { seen })
    }

    /// One that never comes, for tests and callers with handlers of their own.
    pub fn never() -> Self {
        Self { seen: watch::channel(false).1 }
    }

    /// Whether a signal has come.
    pub fn is_seen(&self) -> bool {
        *self.seen.borrow()
    }

    /// Returns when a signal has come.
    pub async fn seen(&mut self) {
        if self.seen.wait_for(|seen| *seen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
