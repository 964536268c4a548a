//! Hello: the first request of a connection. Who speaks, how long frames may be, which versions are served.

use corelog_model::Term;

use crate::api::ApiVersions;
use crate::fault::WireError;
use crate::frame::{FRAME_ALIGN, FRAME_OVERHEAD_BYTES, MAX_FRAME_BYTES};
use crate::reader::Reader;
use crate::writer::Writer;

/// What a client says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// What the client calls itself, for whoever looks at the connection.
    pub client: &'a str,
    /// The version of its software, likewise.
    pub client_version: &'a str,
    /// The longest frame the client takes, in bytes.
    pub max_frame_bytes: u32,
}

/// What the broker answers. From here on both sides send frames of at most `max_frame_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloReply<'a> {
    /// Name and version of the broker software.
    pub server: &'a str,
    /// The data directory's random number: another store than last time knows none of its topic ids.
    pub store: u64,
    /// The term this shard serves in: rises at every start.
    pub term: Term,
    /// The longest frame of this connection, in bytes, in both directions.
    pub max_frame_bytes: u32,
    /// The longest batch, header and padding included, in bytes.
    pub max_batch_bytes: u32,
    /// What is served; apis that this build does not know included.
    pub served: &'a [ApiVersions],
}

/// The frame size, in bytes, of a connection: the smaller of what both sides take, but always room for the
/// largest batch, without which a consumer could never read on. A multiple of 16.
pub const fn negotiate_frame_bytes(client: u32, server: u32, max_batch_bytes: u32) -> u32 {
    let smaller = if client < server { client } else { server } as usize;
    let least = max_batch_bytes as usize + FRAME_OVERHEAD_BYTES;
    let chosen = if smaller < least { least } else { smaller };
    let chosen = chosen.next_multiple_of(FRAME_ALIGN);
    (if chosen < MAX_FRAME_BYTES { chosen } else { MAX_FRAME_BYTES }) as u32
}

impl<'a> Hello<'a> {
    pub(crate) fn decode(mut head: Reader<'a>) -> Result<Self, WireError> {
        let max_frame_bytes = head.u32("max_frame_bytes")?;
        let client = head.text("client")?;
        let client_version = head.text("client_version")?;
        head.end()?;
        Ok(Self { client, client_version, max_frame_bytes })
    }

    pub(crate) fn encode(&self, head: &mut Writer<'_>) {
        head.u32(self.max_frame_bytes);
        head.text(self.client);
        head.text(self.client_version);
    }
}

impl<'a> HelloReply<'a> {
    pub(crate) fn decode(mut head: Reader<'a>) -> Result<Self, WireError> {
        let store = head.u64("store")?;
        let term = Term(head.u32("term")?);
        let max_frame_bytes = head.u32("max_frame_bytes")?;
        let max_batch_bytes = head.u32("max_batch_bytes")?;
        let server = head.text("server")?;
        let served = head.list("served")?;
        head.end()?;
        Ok(Self { server, store, term, max_frame_bytes, max_batch_bytes, served })
    }

    pub(crate) fn encode(&self, head: &mut Writer<'_>) {
        head.u64(self.store);
        head.u32(self.term.0);
        head.u32(self.max_frame_bytes);
        head.u32(self.max_batch_bytes);
        head.text(self.server);
        head.list(self.served);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_batch_always_fits_the_negotiated_frame() {
        assert_eq!(negotiate_frame_bytes(8 << 20, 4 << 20, 1 << 20), 4 << 20, "the smaller side decides");
        assert_eq!(negotiate_frame_bytes(2 << 20, 4 << 20, 1 << 20), 2 << 20);
        assert_eq!(negotiate_frame_bytes(100, 4 << 20, 1 << 20), (1 << 20) + 4096, "but a batch must fit");
        assert_eq!(negotiate_frame_bytes(u32::MAX, u32::MAX, 16 << 20), MAX_FRAME_BYTES as u32);
        assert_eq!(negotiate_frame_bytes(2_000_001, 4 << 20, 1 << 20) % 16, 0);
    }
}
