//! Two network namespaces joined by a pair of veth devices: the broker is in one of them, the load in the other.
//!
//! `ip` of iproute2 makes them, under names that say which process they are for. As soon as both are set up their names
//! are taken away: what keeps a namespace from then on are the processes and threads inside of it, so nothing is left of it
//! however they end. Names that are found all the same are of a process that was killed while it set its own up; the next
//! run removes them.

use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use corelog_uring::Errno;
use corelog_uring::network::Network;
use rustix::thread::{CapabilitySet, capabilities};

use crate::machine::run_number;

/// What the names begin with; the number of the process follows.
pub const NAME_PREFIX: &str = "corelog-bench-";
/// Where `ip` keeps names.
const NAMES: &str = "/var/run/netns";
/// The device on both sides.
const DEVICE: &str = "corelog0";
/// Nobody else is in these networks: any private range does.
const BROKER: Ipv4Addr = Ipv4Addr::new(10, 107, 0, 1);
const LOAD: Ipv4Addr = Ipv4Addr::new(10, 107, 0, 2);
const PREFIX_BITS: u8 = 30;

/// Why there are no namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetnsError {
    /// It takes CAP_NET_ADMIN and CAP_SYS_ADMIN.
    NotPermitted,
    /// `ip` is not installed.
    NoProgram,
    /// `ip` failed.
    Ip {
        /// What it was to do.
        step: &'static str,
        /// What it said.
        said: Box<str>,
    },
    /// One of them cannot be opened or entered.
    Network(Errno),
}

/// Both, ready for connections.
#[derive(Clone, Debug)]
pub struct Netns {
    /// Where the broker is.
    pub broker: Network,
    /// Where the load is.
    pub load: Network,
}

impl Netns {
    /// Makes two, and removes what others have left behind.
    pub fn make() -> Result<Self, NetnsError> {
        check_rights()?;
        remove_left_overs();
        let run = format!("{NAME_PREFIX}{}-{:06x}", std::process::id(), run_number() & 0xff_ffff);
        let broker = Name::add(format!("{run}-broker"))?;
        let load = Name::add(format!("{run}-load"))?;
        let near = ["link", "add", "name", DEVICE, "netns", &broker.0, "type", "veth"];
        let far = ["peer", "name", DEVICE, "netns", &load.0];
        ip("joining two network namespaces", &[&near[..], &far].concat())?;
        for (name, address) in [(&broker, BROKER), (&load, LOAD)] {
            let address = format!("{address}/{PREFIX_BITS}");
            let step = "giving a network namespace its address";
            ip(step, &["-n", &name.0, "address", "add", &address, "dev", DEVICE])?;
            ip(step, &["-n", &name.0, "link", "set", DEVICE, "up"])?;
            // What a broker serves to its own machine alone it serves here, too.
            ip(step, &["-n", &name.0, "link", "set", "lo", "up"])?;
        }
        // From here on they have no names any more.
        Ok(Self { broker: broker.open()?, load: load.open()? })
    }
}

/// Where the broker of a run listens: in its namespace, or on the loopback device.
pub const fn broker_address(has_netns: bool) -> Ipv4Addr {
    if has_netns { BROKER } else { Ipv4Addr::LOCALHOST }
}

/// The calling thread is in a network until this is dropped, and then where it was before.
#[derive(Debug)]
pub struct Inside {
    home: Network,
}

impl Inside {
    /// Enters.
    pub fn enter(network: &Network) -> Result<Self, NetnsError> {
        let home = Network::current().map_err(NetnsError::Network)?;
        network.enter().map_err(NetnsError::Network)?;
        Ok(Self { home })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // Refused, the thread stays where it is: what is left for it to do needs no network.
        let _ = self.home.enter();
    }
}

/// A namespace that has a name, until this is dropped.
struct Name(String);

impl Name {
    fn add(name: String) -> Result<Self, NetnsError> {
        ip("making a network namespace", &["netns", "add", &name])?;
        Ok(Self(name))
    }

    fn open(&self) -> Result<Network, NetnsError> {
        Network::open(&Path::new(NAMES).join(&self.0)).map_err(NetnsError::Network)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Refused, the next run tries again.
        let _ = ip("removing a name", &["netns", "delete", &self.0]);
    }
}

fn check_rights() -> Result<(), NetnsError> {
    let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
    match capabilities(None) {
        Ok(sets) if sets.effective.contains(needed) => Ok(()),
        _ => Err(NetnsError::NotPermitted),
    }
}

fn ip(step: &'static str, arguments: &[&str]) -> Result<(), NetnsError> {
    // In a group of its own: Ctrl-C is ours to see, between two of its steps.
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).process_group(0).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(NetnsError::Ip { step, said: String::from_utf8_lossy(&output.stderr).trim().into() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(NetnsError::NoProgram),
        Err(error) => Err(NetnsError::Ip { step, said: error.to_string().into() }),
    }
}

fn remove_left_overs() {
    let is_alive = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
    // There is no such directory before the first name.
    for entry in fs::read_dir(NAMES).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if owner(&name).is_some_and(|pid| !is_alive(pid)) {
            drop(Name(name.into_owned()));
        }
    }
}

/// The process that a namespace of this name is for, if it is one of ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(NAME_PREFIX)?.split_once('-')?.0.parse().ok()
}

impl fmt::Display for NetnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted => f.write_str("network namespaces take CAP_NET_ADMIN and CAP_SYS_ADMIN"),
            Self::NoProgram => f.write_str("network namespaces take `ip`, which is not installed"),
            Self::Ip { step, said } => write!(f, "{step}: {said}"),
            Self::Network(errno) => write!(f, "a network namespace cannot be entered: {errno}"),
        }
    }
}

impl std::error::Error for NetnsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is_and_others_are_nobodys() {
        assert_eq!(owner("corelog-bench-4242-0a1b2c-broker"), Some(4242));
        for other in ["corelog-bench-", "corelog-bench-x-1-load", "corelog-bench-4242", "docker-4242-1", ""] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn ip_fails_in_words() {
        let failed = ip("trying", &["netns", "delete", "corelog-bench-no-such-name"]);
        match failed {
            Err(NetnsError::Ip { step: "trying", said }) => assert!(!said.is_empty()),
            Err(NetnsError::NoProgram) => {}
            other => panic!("{other:?}"),
        }
    }
}
