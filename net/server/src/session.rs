//! Who a connection is, and what it is told at Hello. The one place where a session becomes a principal.

use std::net::SocketAddr;

use corelog_model::Term;
use corelog_shard::Principal;
use corelog_wire::api::SERVED;
use corelog_wire::hello::negotiate_frame_bytes;
use corelog_wire::{Hello, HelloReply};

/// What a broker says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// The store's random id.
    pub(crate) store: u64,
    /// The longest frame taken, in bytes.
    pub(crate) max_frame_bytes: u32,
    /// The longest batch taken, in bytes.
    pub(crate) max_batch_bytes: u32,
}

/// On whose behalf a peer acts that has proved nothing: its address is all there is.
pub(crate) fn principal(peer: Option<SocketAddr>) -> Principal {
    match peer {
        Some(peer) if peer.ip().to_canonical().is_loopback() => Principal::Local,
        _ => Principal::Anonymous,
    }
}

/// The answer to Hello; `term` is that of log 0. Its `max_frame_bytes` is the connection's limit from then on.
pub(crate) fn greet(identity: Identity, term: Term, hello: &Hello<'_>) -> HelloReply<'static> {
    let Identity { store, max_frame_bytes, max_batch_bytes } = identity;
    HelloReply {
        server: concat!("corelog ", env!("CARGO_PKG_VERSION")),
        store,
        term,
        max_frame_bytes: negotiate_frame_bytes(hello.max_frame_bytes, max_frame_bytes, max_batch_bytes)
            .min(max_frame_bytes),
        max_batch_bytes,
        served: SERVED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_peers_of_this_machine_are_local() {
        for (peer, principal_expected) in [
            ("127.0.0.1:5", Principal::Local),
            ("[::1]:5", Principal::Local),
            ("[::ffff:127.0.0.1]:5", Principal::Local),
            ("10.0.0.1:5", Principal::Anonymous),
        ] {
            assert_eq!(principal(Some(peer.parse().expect("an address"))), principal_expected, "{peer}");
        }
        assert_eq!(principal(None), Principal::Anonymous);
    }
}
