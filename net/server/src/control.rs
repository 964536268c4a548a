//! The control plane: one thread that serves metrics and health over HTTP, beside the shards and never in their way.
//!
//! | file | owns |
//! |---|---|
//! | `http` | paths, limits, connections |
//! | `health` | what `/livez`, `/readyz` and `/healthz` answer, as a pure function of what the cores say |
//! | `names`, `page` | every metric, and how the page is written |
//!
//! It asks the cores by [`crate::roll`] and shares nothing else with them. It runs on cores that no shard runs on where
//! there are such, else wherever the system puts it.
//!
//! **Invariants:** it is there from before the first shard starts until after the last has ended; whatever goes wrong in it
//! once it serves costs a request, never the broker. Decides nothing about logs or clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::{fmt, io};

use corelog_uring::affinity;
use corelog_uring::socket::{self, SocketError, SocketOptions};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

mod health;
pub(crate) mod http;
mod names;
mod page;

use http::Broker;

/// Connections that may wait for their accept.
const BACKLOG: i32 = 128;

/// Why the control plane could not begin.
#[derive(Debug)]
pub enum ControlError {
    /// The address.
    Listen(SocketError),
    /// Its runtime or its thread.
    Runtime {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) => write!(f, "`server.http`: {error}"),
            Self::Runtime { address, source } => write!(f, "`server.http`: cannot serve {address}: {source}"),
        }
    }
}

impl std::error::Error for ControlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen(error) => Some(error),
            Self::Runtime { source, .. } => Some(source),
        }
    }
}

/// A control plane that serves. Dropped, it has ended.
#[derive(Debug)]
pub(crate) struct Control {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Takes the address and serves it from a thread on these cores; on any if there are none.
    pub(crate) fn start(
        address: SocketAddr,
        broker: Broker,
        cores: Vec<usize>,
    ) -> Result<Self, ControlError> {
        let options = SocketOptions { backlog: BACKLOG, ..SocketOptions::default() };
        let (fd, address) = socket::listen(address, &options).map_err(ControlError::Listen)?;
        let refused = |source| ControlError::Runtime { address, source };
        let runtime = Builder::new_current_thread().enable_io().enable_time().build().map_err(refused)?;
        let listener = {
            let _entered = runtime.enter();
            http::listener(fd).map_err(refused)?
        };
        let (end, ended) = oneshot::channel();
        let run = move || run(&runtime, listener, broker, &cores, ended);
        let thread = thread::Builder::new().name("corelog-control".to_owned()).spawn(run).map_err(refused)?;
        Ok(Self { address, end: Some(end), thread: Some(thread) })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

fn run(
    runtime: &Runtime,
    listener: TcpListener,
    broker: Broker,
    cores: &[usize],
    ended: oneshot::Receiver<()>,
) {
    if !cores.is_empty() && !affinity::pin_to(cores) {
        tracing::warn!(?cores, "the control plane cannot be kept on the cores that no shard has");
    }
    runtime.block_on(async {
        tokio::select! {
            () = http::serve(listener, Arc::new(broker)) => {}
            // Told to end, or whoever could tell is gone.
            _ = ended => {}
        }
    });
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the control plane did not end well");
        }
    }
}
