//! Making a connection: address, socket, Hello.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use corelog_wire::Response;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::ClientConfig;
use crate::core::buffers::Pool;
use crate::core::connection::{Connection, negotiate};
use crate::driver::link::{read_some, write_some};
use crate::error::LinkError;

/// How to reach one address, or one of several that are equally good.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) addresses: Vec<String>,
    name: String,
    connect_timeout: Duration,
    max_frame_bytes: u32,
    /// Bytes a connection reads at once.
    chunk_bytes: usize,
    pool: Arc<Pool>,
}

/// A connection that has said Hello.
pub(crate) struct Dialed<T> {
    pub(crate) stream: TcpStream,
    pub(crate) connection: Connection<T>,
    /// The longest batch that the broker takes.
    pub(crate) max_batch_bytes: u32,
}

impl Dialer {
    pub(crate) fn new(
        config: &ClientConfig,
        addresses: Vec<String>,
        chunk_bytes: usize,
        pool: Arc<Pool>,
    ) -> Self {
        let (name, connect_timeout) = (config.name.clone(), config.connect_timeout);
        Self { addresses, name, connect_timeout, max_frame_bytes: config.max_frame_bytes, chunk_bytes, pool }
    }

    /// The address of this attempt.
    pub(crate) fn address(&self, attempt: usize) -> &str {
        &self.addresses[attempt % self.addresses.len()]
    }

    /// One attempt. `token` names the Hello request while it is under way.
    pub(crate) async fn dial<T>(&self, attempt: usize, token: T) -> Result<Dialed<T>, LinkError> {
        let address = self.address(attempt);
        match timeout(self.connect_timeout, self.reach(address, token)).await {
            Ok(dialed) => dialed,
            Err(_) => Err(LinkError::Timeout),
        }
    }

    async fn reach<T>(&self, address: &str, token: T) -> Result<Dialed<T>, LinkError> {
        let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => LinkError::NoAddress,
            kind => LinkError::Io(kind),
        })?;
        stream.set_nodelay(true).map_err(|error| LinkError::Io(error.kind()))?;
        let mut connection = Connection::new(Arc::clone(&self.pool), self.chunk_bytes);
        connection.greet(&self.name, self.max_frame_bytes, token);
        while connection.outbox.bytes() > 0 {
            stream.writable().await.map_err(|error| LinkError::Io(error.kind()))?;
            write_some(&stream, &mut connection.outbox)?;
        }
        let (limit, max_batch_bytes, versions) = loop {
            if let Some(reply) = connection.next()? {
                match &reply.response {
                    Response::Hello(hello) => {
                        break (hello.max_frame_bytes, hello.max_batch_bytes, negotiate(hello)?);
                    }
                    Response::Error(_) => return Err(LinkError::Version),
                    _ => return Err(LinkError::Unexpected),
                }
            }
            stream.readable().await.map_err(|error| LinkError::Io(error.kind()))?;
            read_some(&stream, &mut connection.inbox)?;
        };
        connection.greeted(limit, versions);
        Ok(Dialed { stream, connection, max_batch_bytes })
    }
}
