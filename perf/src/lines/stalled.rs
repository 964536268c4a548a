//! What consumers that do not read cost the producers: the same load with a thousand of them and with none, in turns.
//!
//! They ask for the newest frames before the load begins and never read the answers; the load then pushes the live
//! window over what they hold, so that they are evicted while it is measured. The disk of a shared machine changes by more
//! than what is judged within seconds: hence short runs of both sides in turns, on one broker, and the median of the pairs.

use std::io;

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
use crate::verdict::median;

/// Of a side without and a side with stalled consumers each.
const PAIRS: usize = 3;
const CONSUMERS: usize = 1_000;
/// Batches that are there before: 64 MiB.
const BATCHES: usize = 512;
const RECORDS: u32 = 128;
const VALUE_BYTES: usize = 1_000;
/// What each asks for at a time, and how often.
const FETCH_BYTES: u32 = 1 << 20;
const FETCHES: u32 = 16;
/// Of the receive buffer of one that does not read.
const NARROW_BYTES: usize = 64 << 10;

/// What the load met on one side, or on both of a pair.
#[derive(Clone, Copy, Debug)]
struct Side {
    /// Of the response, in microseconds.
    p99: f64,
    /// It is not to be trusted.
    flagged: bool,
}

/// Without stalled consumers, and with them.
type Pair = (Side, Side);

pub(super) fn measure(run: &Run, place: &Place) -> io::Result<Sample> {
    let directory = place.own()?;
    let broker = Broker::start(place, &directory.path().join("store"), "adaptive", &[])?;
    let mut control = Peer::connect(broker.address)?;
    let mut sample = Sample::default();
    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        let mut once = |stalled| side(run, place, &broker, &mut control, stalled, &mut sample);
        // What drifts one way favours each side in turn.
        pairs.push(if number % 2 == 0 {
            (once(0)?, once(CONSUMERS)?)
        } else {
            let with = once(CONSUMERS)?;
            (once(0)?, with)
        });
    }
    broker.stop()?;
    judge(&pairs, &mut sample);
    Ok(sample)
}

/// The median ratio of the pairs that count; where less than half of them do, of all, and the sample is flagged. Only more
/// than without is judged: less is the disk's doing, but it shows how much of the figure is noise.
fn judge(pairs: &[Pair], sample: &mut Sample) {
    let ratio = |(without, with): &Pair| with.p99 / without.p99;
    let counts = |(without, with): &&Pair| !without.flagged && !with.flagged;
    let counted: Vec<f64> = pairs.iter().filter(counts).map(ratio).collect();
    sample.flagged = 2 * counted.len() < pairs.len();
    let ratios = if sample.flagged { pairs.iter().map(ratio).collect() } else { counted };
    if let Some(ratio) = median(&ratios) {
        sample.set(Measure::StalledP99Ratio, ratio);
        sample.say(format!("p99 with over without {ratio:.2}, without over with {:.2}", 1.0 / ratio));
    }
    for pair in pairs {
        let (without, with) = pair;
        let mark = if counts(&pair) { "" } else { "!" };
        sample.say(format!(
            "{:.0} us without, {:.0} us with {CONSUMERS}: {:.2}{mark}",
            without.p99,
            with.p99,
            ratio(pair)
        ));
    }
}

/// The load beside so many consumers that do not read.
fn side(
    run: &Run,
    place: &Place,
    broker: &Broker,
    control: &mut Peer,
    stalled: usize,
    sample: &mut Sample,
) -> io::Result<Side> {
    let before = control.status()?;
    let topic = control.create_topic(&format!("held-{}", before.topics), 1)?;
    control.open(topic, 0)?;
    let batch = batch(topic, 0, RECORDS, VALUE_BYTES)?;
    control.produce((0..BATCHES).map(|_| (0, &batch[..])), 16)?;
    let peers = (0..stalled).map(|_| stall(broker, topic)).collect::<io::Result<Vec<Peer>>>()?;
    // Nothing more is sent that anyone takes.
    child::settle(&place.interrupt, || Ok(control.status()?.bytes_fetched))?;
    let before = control.status()?;
    let results = bench(run, place, Some(broker.address))?;
    let after = control.status()?;
    let response =
        results.produce.response_us.ok_or_else(|| io::Error::other("the bench was no open loop"))?;
    let slow = after.slow_consumers - before.slow_consumers;
    if stalled > 0 {
        sample.say(format!("{slow} of {} stalled connections closed as too slow", before.connections - 1));
    }
    if before.connections != stalled as u64 + 1 {
        sample.failed = Some("not exactly the stalled consumers were there when the load began".to_owned());
    }
    drop(peers);
    // The next side finds none of them.
    child::settle(&place.interrupt, || Ok(control.status()?.connections))?;
    Ok(Side { p99: response.p99, flagged: results.flagged })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(pairs: &[(f64, f64, bool)]) -> Sample {
        let side = |p99, flagged| Side { p99, flagged };
        let pairs: Vec<Pair> = pairs
            .iter()
            .map(|&(without, with, flagged)| (side(without, flagged), side(with, false)))
            .collect();
        let mut sample = Sample::default();
        judge(&pairs, &mut sample);
        sample
    }

    #[test]
    fn one_bad_moment_of_the_disk_on_either_side_does_not_decide() {
        let sample =
            judged(&[(1_000.0, 1_100.0, false), (24_000.0, 1_200.0, false), (1_000.0, 1_300.0, false)]);
        assert_eq!((sample.figures[&Measure::StalledP99Ratio], sample.flagged), (1.1, false));
        let sample =
            judged(&[(1_000.0, 9_800.0, false), (1_000.0, 1_250.0, false), (1_000.0, 1_000.0, false)]);
        assert_eq!(sample.figures[&Measure::StalledP99Ratio], 1.25);
        assert!(sample.notes[0].contains("1.25") && sample.notes[0].contains("0.80"), "{:?}", sample.notes);
    }

    #[test]
    fn flagged_pairs_are_shown_and_count_only_when_there_are_hardly_others() {
        let sample =
            judged(&[(1_000.0, 9_000.0, true), (1_000.0, 1_000.0, false), (1_000.0, 1_200.0, false)]);
        assert_eq!((sample.figures[&Measure::StalledP99Ratio], sample.flagged), (1.1, false));
        assert!(sample.notes.iter().any(|note| note.ends_with("9.00!")), "{:?}", sample.notes);
        let sample = judged(&[(1_000.0, 9_000.0, true), (1_000.0, 1_500.0, true), (1_000.0, 1_200.0, false)]);
        assert_eq!((sample.figures[&Measure::StalledP99Ratio], sample.flagged), (1.5, true));
    }
}
