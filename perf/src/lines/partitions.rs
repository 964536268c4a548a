//! Ten thousand partitions: created, produced to, and there again after a restart.

use std::io;
use std::time::Instant;

use corelog_model::TopicId;

use crate::broker::Broker;
use crate::measure::Measure;
use crate::peer::{Peer, batch};
use crate::place::Place;
use crate::sample::Sample;

const PARTITIONS: u32 = 10_000;
/// Requests under way.
const DEPTH: usize = 64;
/// Records of a partition's first batch.
const RECORDS: u32 = 10;
const VALUE_BYTES: usize = 100;

pub(super) fn measure(place: &Place) -> io::Result<Sample> {
    let directory = place.own()?;
    let store = directory.path().join("store");
    let mut sample = Sample::default();
    let broker = Broker::start(place, &store, "adaptive", &[])?;
    let mut peer = Peer::connect(broker.address)?;
    let began = Instant::now();
    let topic = peer.create_topic("many", PARTITIONS)?;
    sample.set(Measure::CreateSeconds, began.elapsed().as_secs_f64());
    peer.open_all(topic, PARTITIONS)?;
    for measure in [Some(Measure::ProduceSeconds), None] {
        let seconds = produce(&mut peer, topic)?;
        match measure {
            Some(measure) => sample.set(measure, seconds),
            None => sample.say(format!("a second batch to each: {seconds:.2} s")),
        }
    }
    let status = peer.status()?;
    sample.say(format!(
        "{} partitions, {} MB resident",
        status.partitions,
        status.resident_bytes / 1_000_000
    ));
    broker.stop()?;

    let began = Instant::now();
    let broker = Broker::start(place, &store, "adaptive", &[])?;
    let ready = began.elapsed().as_secs_f64();
    let mut peer = Peer::connect(broker.address)?;
    let last = PARTITIONS - 1;
    peer.open(topic, last)?;
    let batch = batch(topic, last, RECORDS, VALUE_BYTES)?;
    peer.produce([(last, &batch[..])].into_iter(), 1)?;
    sample.set(Measure::RestartSeconds, began.elapsed().as_secs_f64());
    sample.say(format!("ready again after {ready:.2} s"));
    if peer.status()?.partitions != u64::from(PARTITIONS) {
        sample.failed = Some("the restarted broker has not all partitions".to_owned());
    }
    broker.stop()?;
    Ok(sample)
}

/// One batch to each partition; how long that took, in seconds.
fn produce(peer: &mut Peer, topic: TopicId) -> io::Result<f64> {
    let batches = (0..PARTITIONS)
        .map(|partition| Ok((partition, batch(topic, partition, RECORDS, VALUE_BYTES)?)))
        .collect::<io::Result<Vec<_>>>()?;
    let began = Instant::now();
    peer.produce(batches.iter().map(|(partition, batch)| (*partition, &batch[..])), DEPTH)?;
    Ok(began.elapsed().as_secs_f64())
}
