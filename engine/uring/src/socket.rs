//! Listening and connecting. What happens on a connection after that is the ring's.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use socket2::SockRef;

use crate::op::Errno;

/// Options of a socket. Accepted connections inherit them from their listener, so they cost no call each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Send small pieces at once instead of collecting them; the reactor coalesces replies itself.
    pub nodelay: bool,
    /// Bytes that the kernel takes beyond those that are on their way to the peer, about; `None` lets it take as many as
    /// its send buffer has grown to, which stays as large for a peer that stops reading.
    pub unsent_bytes: Option<u32>,
    /// Connections that may wait for their accept.
    pub backlog: i32,
    /// Several sockets of this process listen on the same port, and each connection comes to one of them.
    pub share_port: bool,
}

/// A socket was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketError {
    /// What was asked.
    pub operation: SocketOperation,
    /// For which address.
    pub address: SocketAddr,
    /// What the kernel said.
    pub errno: Errno,
}

/// The calls of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketOperation {
    /// Creating the socket.
    Create,
    /// Setting an option.
    Option,
    /// Taking the address.
    Bind,
    /// Listening.
    Listen,
    /// Connecting.
    Connect,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { nodelay: true, unsent_bytes: None, backlog: 1024, share_port: false }
    }
}

/// Listens on `address`; port 0 takes a free one. Returns the address that was taken.
pub fn listen(address: SocketAddr, options: &SocketOptions) -> Result<(OwnedFd, SocketAddr), SocketError> {
    let refused =
        |operation| move |errno: rustix::io::Errno| SocketError { operation, address, errno: errno.into() };
    let socket = bound(address, options)?;
    net::listen(&socket, options.backlog).map_err(refused(SocketOperation::Listen))?;
    let taken = net::getsockname(&socket).map_err(refused(SocketOperation::Bind))?;
    Ok((socket, SocketAddr::try_from(taken).unwrap_or(address)))
}

/// Connects to `address`, blocking the thread: for tools and measurements.
pub fn connect(address: SocketAddr, options: &SocketOptions) -> Result<OwnedFd, SocketError> {
    let socket = create(address, options)?;
    net::connect(&socket, &address).map_err(|errno| SocketError {
        operation: SocketOperation::Connect,
        address,
        errno: errno.into(),
    })?;
    Ok(socket)
}

/// Refused while anybody listens on `address`, also one who shares its port. Takes nothing.
pub fn check_free(address: SocketAddr) -> Result<(), SocketError> {
    bound(address, &SocketOptions::default()).map(drop)
}

fn bound(address: SocketAddr, options: &SocketOptions) -> Result<OwnedFd, SocketError> {
    let refused =
        |operation| move |errno: rustix::io::Errno| SocketError { operation, address, errno: errno.into() };
    let socket = create(address, options)?;
    // A restart must not wait for the connections of the process before it.
    sockopt::set_socket_reuseaddr(&socket, true).map_err(refused(SocketOperation::Option))?;
    if options.share_port {
        sockopt::set_socket_reuseport(&socket, true).map_err(refused(SocketOperation::Option))?;
    }
    net::bind(&socket, &address).map_err(refused(SocketOperation::Bind))?;
    Ok(socket)
}

fn create(address: SocketAddr, options: &SocketOptions) -> Result<OwnedFd, SocketError> {
    let refused =
        |operation| move |errno: rustix::io::Errno| SocketError { operation, address, errno: errno.into() };
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))
        .map_err(refused(SocketOperation::Create))?;
    sockopt::set_tcp_nodelay(&socket, options.nodelay).map_err(refused(SocketOperation::Option))?;
    if let Some(bytes) = options.unsent_bytes {
        let set = SockRef::from(&socket).set_tcp_notsent_lowat(bytes);
        set.map_err(|error| SocketError {
            operation: SocketOperation::Option,
            address,
            errno: error.into(),
        })?;
    }
    Ok(socket)
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, address, errno } = self;
        match operation {
            SocketOperation::Create => write!(f, "cannot create a socket for {address}: {errno}"),
            SocketOperation::Option => write!(f, "cannot set an option of the socket for {address}: {errno}"),
            SocketOperation::Bind | SocketOperation::Listen => {
                write!(f, "cannot listen on {address}: {errno}")
            }
            SocketOperation::Connect => write!(f, "cannot connect to {address}: {errno}"),
        }?;
        match errno.0 {
            libc::EADDRINUSE => {
                write!(f, "\nhelp: another process has the port (`ss -ltnp 'sport = :{}'`)", address.port())
            }
            libc::EACCES => f.write_str("\nhelp: ports below 1024 need CAP_NET_BIND_SERVICE"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for SocketError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel takes for a peer that reads nothing.
    fn taken_by_nobody(unsent_bytes: Option<u32>) -> usize {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let options = SocketOptions { unsent_bytes, ..SocketOptions::default() };
        let (listener, address) = listen(any, &options).expect("a port");
        let _peer = connect(address, &SocketOptions::default()).expect("it listens");
        let accepted = net::accept(&listener).expect("a connection");
        let (chunk, mut taken) = (vec![0; 64 << 10], 0);
        while let Ok(bytes) = net::send(&accepted, &chunk, net::SendFlags::DONTWAIT) {
            taken += bytes;
        }
        taken
    }

    #[test]
    fn a_peer_that_does_not_read_holds_no_more_of_the_kernel_than_it_may() {
        let (bounded, tuned) = (taken_by_nobody(Some(64 << 10)), taken_by_nobody(None));
        assert!(2 * bounded < tuned, "{bounded} bytes were taken, {tuned} without a bound");
    }

    #[test]
    fn a_port_that_is_taken_is_refused_with_its_number() {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let options = SocketOptions::default();
        let (_listener, taken) = listen(any, &options).expect("a free port");
        assert_ne!(taken.port(), 0);
        let error = listen(taken, &options).expect_err("the port is taken");
        assert_eq!(error.errno, Errno(libc::EADDRINUSE));
        assert!(error.to_string().contains(&format!("sport = :{}", taken.port())), "{error}");
    }
}
