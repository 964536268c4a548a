//! What consumers that do not read cost the producers: the same load with a hundred of them and with none.
//!
//! They ask for the newest frames before the load begins and never read the answers; the load then pushes the live
//! window over what they hold, so that they are evicted while it is measured.

use std::io;

use corelog_load::results::Results;
use corelog_model::TopicId;
use corelog_wire::Request;

use crate::broker::Broker;
use crate::budget::Run;
use crate::child;
use crate::lines::bench::bench;
use crate::measure::Measure;
use crate::peer::{Peer, batch};
use crate::place::Place;
use crate::sample::Sample;

const CONSUMERS: usize = 100;
/// Batches that are there before: 64 MiB.
const BATCHES: usize = 512;
const RECORDS: u32 = 128;
const VALUE_BYTES: usize = 1_000;
/// What each asks for at a time, and how often.
const FETCH_BYTES: u32 = 1 << 20;
const FETCHES: u32 = 16;
/// Of the receive buffer of one that does not read.
const NARROW_BYTES: usize = 64 << 10;

pub(super) fn measure(run: &Run, place: &Place) -> io::Result<Sample> {
    let mut sample = Sample::default();
    let without = p99(&side(run, place, 0, &mut sample)?, &mut sample)?;
    let with = p99(&side(run, place, CONSUMERS, &mut sample)?, &mut sample)?;
    sample.set(Measure::StalledP99Ratio, with / without);
    sample.say(format!("p99 {without:.0} us without, {with:.0} us with {CONSUMERS} stalled consumers"));
    Ok(sample)
}

fn p99(results: &Results, sample: &mut Sample) -> io::Result<f64> {
    sample.flagged |= results.flagged;
    let response =
        results.produce.response_us.ok_or_else(|| io::Error::other("the bench was no open loop"))?;
    Ok(response.p99)
}

/// The load against a broker of its own, with so many consumers that do not read.
fn side(run: &Run, place: &Place, stalled: usize, sample: &mut Sample) -> io::Result<Results> {
    let directory = place.own()?;
    let broker = Broker::start(place, &directory.path().join("store"), "adaptive", &[])?;
    let mut first = Peer::connect(broker.address)?;
    let topic = first.create_topic("held", 1)?;
    first.open(topic, 0)?;
    let batch = batch(topic, 0, RECORDS, VALUE_BYTES)?;
    first.produce((0..BATCHES).map(|_| (0, &batch[..])), 16)?;
    let peers = (0..stalled).map(|_| stall(&broker, topic)).collect::<io::Result<Vec<Peer>>>()?;
    // Nothing more is sent that anyone takes.
    child::settle(&place.interrupt, || Ok(first.status()?.bytes_fetched))?;
    let before = first.status()?;
    let results = bench(run, place, Some(broker.address))?;
    let after = first.status()?;
    if stalled > 0 {
        sample.say(format!(
            "{} connections stalled when the load began, {} of them closed as too slow meanwhile",
            before.connections - 1,
            after.slow_consumers - before.slow_consumers,
        ));
        if before.connections != stalled as u64 + 1 {
            sample.failed = Some("not every consumer was there when the load began".to_owned());
        }
    }
    drop(peers);
    broker.stop()?;
    Ok(results)
}

/// A consumer that asks for more than the sockets take, and reads none of it.
fn stall(broker: &Broker, topic: TopicId) -> io::Result<Peer> {
    let mut peer = Peer::connect_narrow(broker.address, NARROW_BYTES)?;
    peer.open(topic, 0)?;
    let each = BATCHES as u64 * u64::from(RECORDS) / u64::from(FETCHES);
    for at in 0..u64::from(FETCHES) {
        peer.queue(&Request::Fetch {
            handle: 1,
            offset: at * each,
            leader_epoch: None,
            max_bytes: FETCH_BYTES,
            min_bytes: 1,
            max_wait_us: 0,
        });
    }
    peer.flush()?;
    Ok(peer)
}
