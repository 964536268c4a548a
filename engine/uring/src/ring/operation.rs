//! What the ring keeps alive for each operation until the kernel is done with it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr;

use corelog_model::Block;

use super::regions::Memory;
use crate::op::{Key, SEND_SLICES, SocketId};

/// Pieces of one message: the head and the slices.
const PIECES: usize = SEND_SLICES + 1;

/// What one slot holds while its operation is in flight.
#[derive(Default)]
pub(super) enum Held {
    /// Nothing in flight.
    #[default]
    Vacant,
    /// The kernel touches no memory of ours, or only pinned slices.
    Plain,
    /// The kernel writes to, or reads from, this block.
    Block(Block),
    /// A send with several pieces.
    Send { head: Option<Block>, message: Box<Message> },
    /// An accept into this place of the table.
    Accept { socket: SocketId, peer: Box<Peer> },
    /// A close of this place of the table.
    Close { socket: SocketId },
}

/// One slot of the op storage.
pub(super) struct Slot {
    pub(super) key: Key,
    pub(super) held: Held,
}

/// A message header and its pieces, boxed so that they stay where the kernel was told they are.
pub(super) struct Message {
    header: libc::msghdr,
    pieces: [libc::iovec; PIECES],
}

/// Where the kernel writes the address of an accepted connection.
pub(super) struct Peer {
    address: libc::sockaddr_storage,
    length: libc::socklen_t,
}

impl Slot {
    pub(super) const fn vacant() -> Self {
        Self { key: Key(0), held: Held::Vacant }
    }

    pub(super) const fn is_vacant(&self) -> bool {
        matches!(self.held, Held::Vacant)
    }
}

impl Message {
    #[expect(unsafe_code, reason = "msghdr has private padding on some targets, so it can only be zeroed")]
    pub(super) fn new() -> Box<Self> {
        let piece = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: msghdr is a C struct of integers and pointers, for which all zeroes is a valid value.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self { header, pieces: [piece; PIECES] })
    }

    /// Fills in the pieces and returns the header's address, valid as long as the box lives.
    pub(super) fn fill(&mut self, pieces: impl Iterator<Item = Memory>) -> *const libc::msghdr {
        let mut count = 0;
        for memory in pieces {
            self.pieces[count] =
                libc::iovec { iov_base: memory.address.cast(), iov_len: memory.bytes as usize };
            count += 1;
        }
        self.header.msg_iov = self.pieces.as_mut_ptr();
        self.header.msg_iovlen = count as _;
        &raw const self.header
    }
}

impl Peer {
    #[expect(unsafe_code, reason = "sockaddr_storage has private fields, so it can only be zeroed")]
    pub(super) fn new() -> Box<Self> {
        // SAFETY: sockaddr_storage is a C struct of integers, for which all zeroes is a valid value.
        let address = unsafe { std::mem::zeroed() };
        Box::new(Self { address, length: 0 })
    }

    /// Makes ready for one accept: where the address goes and where its length does.
    pub(super) fn prepare(&mut self) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        self.address.ss_family = libc::AF_UNSPEC as libc::sa_family_t;
        self.length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        ((&raw mut self.address).cast(), &raw mut self.length)
    }

    /// The address the kernel wrote, when it is one of IP.
    #[expect(unsafe_code, reason = "sockaddr_storage is a union by family")]
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let storage = &raw const self.address;
        match i32::from(self.address.ss_family) {
            libc::AF_INET => {
                // SAFETY: storage is longer than, and as aligned as, sockaddr_in, which any bytes are valid for.
                let v4 = unsafe { &*storage.cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: storage is longer than, and as aligned as, sockaddr_in6, which any bytes are valid for.
                let v6 = unsafe { &*storage.cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}
