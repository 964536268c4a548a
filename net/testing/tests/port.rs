//! The port of a broker that is down.

use std::io::ErrorKind;

use corelog_testing::Broker;
use socket2::{Domain, Socket, Type};

/// A client that looks for the broker, or another test, may else be given the port as its own.
#[test]
fn it_is_given_to_nobody() {
    let mut broker = Broker::start().expect("a broker");
    broker.kill().expect("killed");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let taken = socket.bind(&broker.address().into()).map_err(|error| error.kind());
    assert_eq!(taken, Err(ErrorKind::AddrInUse));
    broker.restart().expect("it may have it");
}
