//! A `corelog serve` of a measurement's own, on the core of brokers.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use corelog_load::broker::BrokerProcess;
use serde_json::Value;

use crate::place::Place;

/// A running broker; dropped, it is killed.
pub struct Broker {
    process: BrokerProcess,
    /// Where clients connect.
    pub address: SocketAddr,
}

impl Broker {
    /// Starts one with its store at `store`, which may be there already, and `section.key=value` settings.
    pub fn start(place: &Place, store: &Path, mode: &str, settings: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(&place.corelog);
        command.args([
            "serve",
            "--format",
            "json",
            "--with-parent",
            "--listen",
            "127.0.0.1:0",
            "--mode",
            mode,
        ]);
        // What is measured is measured without it, and two brokers at a time do not ask for one port.
        command.args(["--set", "server.http="]);
        command.args(["--set", &format!("server.cpus={0}-{0}", place.cores.broker)]);
        command.arg("--data-dir").arg(store);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let process = BrokerProcess::start(command).map_err(io::Error::other)?;
        let address = address(process.ready_line())
            .ok_or_else(|| io::Error::other(format!("not a ready line: {}", process.ready_line())))?;
        Ok(Self { process, address })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills it, as `kill -9` would, and waits until it is gone.
    pub fn kill(self) {
        drop(self.process);
    }

    /// Tells it to stop and waits until it has.
    pub fn stop(self) -> io::Result<()> {
        self.process.stop().map_err(io::Error::other)
    }
}

fn address(ready_line: &str) -> Option<SocketAddr> {
    let document: Value = serde_json::from_str(ready_line).ok()?;
    document.pointer("/ready/address")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_and_nothing_else_is_taken_for_one() {
        let ready = r#"{"ready":{"address":"127.0.0.1:4711","line":"corelog ready"}}"#;
        assert_eq!(address(ready), Some(SocketAddr::from(([127, 0, 0, 1], 4711))));
        assert_eq!(address("corelog ready on 127.0.0.1:4711"), None);
        assert_eq!(address("{\"ready\":{}}"), None);
    }
}
