//! A store of five gigabytes whose broker is killed under load: how soon the next one acknowledges.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Instant;

use corelog_model::TopicId;
use corelog_model::batch::AlignedVec;
use corelog_wire::{Request, Response, Status};

use crate::broker::Broker;
use crate::child;
use crate::measure::Measure;
use crate::peer::{Peer, batch};
use crate::place::Place;
use crate::sample::Sample;

const PARTITIONS: u32 = 4;
/// A batch of 128 KiB, about.
const RECORDS: u32 = 130;
const VALUE_BYTES: usize = 1_000;
/// Values that are acknowledged before the kill, and in a quick run.
const STORE_BYTES: u64 = 5_000_000_000;
const QUICK_BYTES: u64 = 500_000_000;
/// Requests under way.
const DEPTH: usize = 64;
/// Batches between two looks at whether to end.
const ROUND: u64 = 256;
/// Batches of the load under which the broker is killed, before that happens.
const LOAD: usize = 1_000;

pub(super) fn measure(place: &Place) -> io::Result<Sample> {
    let directory = place.own()?;
    let store = directory.path().join("store");
    let broker = Broker::start(place, &store, "adaptive", &[])?;
    let mut peer = Peer::connect(broker.address)?;
    let topic = peer.create_topic("kept", PARTITIONS)?;
    peer.open_all(topic, PARTITIONS)?;
    let batches = (0..PARTITIONS)
        .map(|partition| batch(topic, partition, RECORDS, VALUE_BYTES))
        .collect::<io::Result<Vec<_>>>()?;
    let acknowledged = fill(&mut peer, place, &batches)?;
    let before = peer.status()?;
    kill_under_load(broker, topic, &batches)?;
    let mut sample = Sample::default();
    sample.say(format!(
        "{:.2} GB of records in {:.2} GB on disk, then {LOAD} batches and {DEPTH} under way at the kill",
        before.bytes_accepted as f64 / 1e9,
        before.bytes_written as f64 / 1e9,
    ));
    restart(place, &store, topic, &batches[0], &mut sample)
        .map(|(offset, status)| check(&mut sample, offset, &status, acknowledged))?;
    Ok(sample)
}

/// Writes the store; the records of each partition that are acknowledged.
fn fill(peer: &mut Peer, place: &Place, batches: &[AlignedVec<16>]) -> io::Result<u64> {
    let bytes = if place.quick { QUICK_BYTES } else { STORE_BYTES };
    let each = bytes.div_ceil(u64::from(RECORDS) * VALUE_BYTES as u64 * u64::from(PARTITIONS));
    let mut written = 0;
    while written < each {
        child::go_on(&place.interrupt)?;
        let round = ROUND.min(each - written);
        let again = (0..round).flat_map(|_| (0..).zip(batches));
        peer.produce(again.map(|(partition, batch)| (partition, &batch[..])), DEPTH)?;
        written += round;
    }
    Ok(each * u64::from(RECORDS))
}

/// Kills the broker while a producer that goes on for ever has requests under way.
fn kill_under_load(broker: Broker, topic: TopicId, batches: &[AlignedVec<16>]) -> io::Result<()> {
    let (sender, under_way) = mpsc::channel();
    let address = broker.address;
    thread::scope(|scope| {
        let load = scope.spawn(move || load(address, topic, batches, &sender));
        // Without a word the load has ended by itself.
        let loaded = under_way.recv().is_ok();
        broker.kill();
        match load.join() {
            Ok(Err(_)) if loaded => Ok(()),
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) | Err(_) => Err(io::Error::other("the load ended before the broker")),
        }
    })
}

/// Produces until the broker is gone; tells when it is well under way.
fn load(
    address: SocketAddr,
    topic: TopicId,
    batches: &[AlignedVec<16>],
    under_way: &Sender<()>,
) -> io::Result<()> {
    let mut peer = Peer::connect(address)?;
    peer.open_all(topic, PARTITIONS)?;
    let partitions = (0..).zip(batches).cycle().zip(0..);
    let told = partitions.inspect(|(_, sent)| {
        if *sent == LOAD {
            // Nobody listens any more when the gate is ending.
            under_way.send(()).ok();
        }
    });
    peer.produce(told.map(|((partition, batch), _)| (partition, &batch[..])), DEPTH)
}

/// Starts a broker with the store; the offset of its first acknowledgement, in partition 0, and its counters.
fn restart(
    place: &Place,
    store: &Path,
    topic: TopicId,
    batch: &[u8],
    sample: &mut Sample,
) -> io::Result<(u64, Status)> {
    let began = Instant::now();
    let broker = Broker::start(place, store, "adaptive", &[])?;
    sample.set(Measure::ReadySeconds, began.elapsed().as_secs_f64());
    let mut peer = Peer::connect(broker.address)?;
    peer.open(topic, 0)?;
    let request = Request::Produce { handle: 1, expected_offset: None, batches: batch };
    let offset = peer.ask(&request, |_, response| match response {
        Response::Produced { base_offset, .. } => Ok(base_offset),
        other => Err(io::Error::other(format!("the first batch was not taken: {other:?}"))),
    })??;
    sample.set(Measure::RestartSeconds, began.elapsed().as_secs_f64());
    let status = peer.status()?;
    broker.stop()?;
    Ok((offset, status))
}

/// A start that forgets is no start.
fn check(sample: &mut Sample, offset: u64, status: &Status, acknowledged: u64) {
    if offset < acknowledged || status.partitions != u64::from(PARTITIONS) {
        sample.failed = Some(format!(
            "after the restart partition 0 goes on at {offset}, and {acknowledged} records were acknowledged; there are \
             {} partitions",
            status.partitions
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_has_not_everything_that_was_acknowledged_fails() {
        let judged = |offset, partitions| {
            let mut sample = Sample::default();
            check(&mut sample, offset, &Status { partitions, ..Status::default() }, 1_000);
            sample.failed.is_none()
        };
        assert!(judged(1_000, u64::from(PARTITIONS)) && judged(1_130, u64::from(PARTITIONS)));
        assert!(!judged(999, u64::from(PARTITIONS)) && !judged(1_000, 0));
    }
}
