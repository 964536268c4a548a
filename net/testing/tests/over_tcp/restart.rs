//! A broker as its users meet it: over TCP, with a real disk.

use std::net::TcpStream;

use crate::peer::{Peer, batch};
use corelog_model::Durability;
use corelog_testing::Broker;
use corelog_wire::ErrorCode;

fn numbered(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    range.map(|number| format!("record {number}").into_bytes()).collect()
}

#[test]
fn records_are_there_again_after_a_restart() {
    let mut broker = Broker::start().expect("a broker");
    let mut peer = Peer::connect(broker.address());
    let topic = peer.create_topic("orders", 3, Durability::Durable);
    peer.open(1, topic, 2);
    assert_eq!(peer.produce(1, &batch(topic, 2, &numbered(0..100))), Ok(0));
    assert_eq!(peer.produce(1, &batch(topic, 2, &numbered(100..150))), Ok(100));
    assert_eq!(peer.fetch(1, 0, 1 << 20), Ok((numbered(0..150), 150)));
    assert_eq!(peer.fetch(1, 120, 1 << 20), Ok((numbered(120..150), 150)));

    let before = broker.ready().expect("running").term;
    broker.restart().expect("started again");
    assert!(broker.ready().expect("running").term > before, "a start is a new term");
    let mut peer = Peer::connect(broker.address());
    assert_eq!(peer.topics(), [("orders".to_owned(), topic, 3)]);
    assert_eq!(peer.open(9, topic, 2), (0, 150));
    assert_eq!(peer.fetch(9, 0, 1 << 20), Ok((numbered(0..150), 150)));
    assert_eq!(peer.produce(9, &batch(topic, 2, &numbered(150..151))), Ok(150));
    let others = "who has read that record in the term before has read another one";
    assert_eq!(peer.fetch_knowing(9, 151, before), Err((ErrorCode::LogTruncated, 150)), "{others}");
    assert_eq!(peer.fetch_knowing(9, 151, before + 1), Ok(Vec::new()));
}

#[test]
fn metrics_are_off_unless_asked_for_and_stay_where_they_are() {
    let broker = Broker::start().expect("a broker");
    assert_eq!(broker.ready().expect("running").http, None);
    let mut broker = Broker::builder().set("server.http=127.0.0.1:0").start().expect("a broker");
    let http = broker.ready().expect("running").http.expect("an address");
    let listens = || TcpStream::connect(http).is_ok();
    assert!(http.port() != 0 && listens());
    broker.restart().expect("started again");
    assert!(broker.ready().expect("running").http == Some(http) && listens());
    broker.kill().expect("killed");
    assert!(!listens(), "it ends with the broker, however that ends");
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged_as_durable() {
    let mut broker = Broker::start().expect("a broker");
    let mut peer = Peer::connect(broker.address());
    let topic = peer.create_topic("orders", 1, Durability::Durable);
    peer.open(1, topic, 0);
    for round in 0..50 {
        assert_eq!(peer.produce(1, &batch(topic, 0, &numbered(round..round + 1))), Ok(round.into()));
    }
    broker.kill().expect("killed");
    assert!(peer.is_closed());
    broker.restart().expect("started again");
    let mut peer = Peer::connect(broker.address());
    peer.open(1, topic, 0);
    assert_eq!(peer.fetch(1, 0, 1 << 20), Ok((numbered(0..50), 50)));
}

#[test]
fn a_stop_keeps_what_was_acknowledged_at_every_level() {
    let mut broker = Broker::start().expect("a broker");
    let mut peer = Peer::connect(broker.address());
    let levels = [Durability::Memory, Durability::Written, Durability::Durable];
    let topics = levels.map(|level| peer.create_topic(level.name(), 1, level));
    for (handle, &topic) in (1..).zip(&topics) {
        peer.open(handle, topic, 0);
        assert_eq!(peer.produce(handle, &batch(topic, 0, &numbered(0..10))), Ok(0));
    }
    broker.restart().expect("started again");
    let mut peer = Peer::connect(broker.address());
    for (handle, &topic) in (1..).zip(&topics) {
        peer.open(handle, topic, 0);
        assert_eq!(peer.fetch(handle, 0, 1 << 20), Ok((numbered(0..10), 10)));
    }
}

#[test]
fn the_disk_is_measured_at_the_first_start_and_never_again() {
    let mut broker = Broker::builder().set("probe.mode=auto").start().expect("a broker");
    let limits = broker.store().join("limits.toml");
    let measured = std::fs::metadata(&limits).expect("kept").modified().expect("a time");
    let mut peer = Peer::connect(broker.address());
    let topic = peer.create_topic("orders", 1, Durability::Durable);
    peer.open(1, topic, 0);
    assert_eq!(peer.produce(1, &batch(topic, 0, &numbered(0..10))), Ok(0));
    broker.restart().expect("started again");
    assert_eq!(std::fs::metadata(&limits).expect("kept").modified().expect("a time"), measured);
    let mut peer = Peer::connect(broker.address());
    peer.open(1, topic, 0);
    assert_eq!(peer.fetch(1, 0, 1 << 20), Ok((numbered(0..10), 10)));
}
