//! A broker in park mode with partitions and waiting connections, and nothing to do.

use std::io;
use std::time::{Duration, Instant};

use corelog_load::machine::process_cpu_seconds;
use corelog_wire::Request;

use crate::broker::Broker;
use crate::budget::Run;
use crate::child;
use crate::measure::Measure;
use crate::peer::Peer;
use crate::place::Place;
use crate::sample::Sample;

const PARTITIONS: u32 = 1_000;
const CONNECTIONS: u32 = 100;
/// Longer than the window: the fetches stay open.
const WAIT_US: u64 = 300_000_000;

pub(super) fn measure(run: &Run, place: &Place) -> io::Result<Sample> {
    let directory = place.own()?;
    let broker = Broker::start(place, &directory.path().join("store"), "park", &[])?;
    let mut first = Peer::connect(broker.address)?;
    let topic = first.create_topic("quiet", PARTITIONS)?;
    let mut waiting = Vec::new();
    for connection in 0..CONNECTIONS {
        let mut peer = Peer::connect(broker.address)?;
        // Together they wait for all partitions.
        for partition in (connection..PARTITIONS).step_by(CONNECTIONS as usize) {
            peer.open(topic, partition)?;
            peer.queue(&Request::Fetch {
                handle: partition + 1,
                offset: 0,
                leader_epoch: None,
                max_bytes: 1 << 20,
                min_bytes: 1,
                max_wait_us: WAIT_US,
            });
        }
        peer.flush()?;
        waiting.push(peer);
    }
    // The ready broker still makes its live window.
    child::settle(&place.interrupt, || Ok(first.status()?.resident_bytes))?;
    let (began, before, by_proc) = (Instant::now(), first.status()?, cpu(&broker)?);
    child::watch(Duration::from_secs(run.seconds), &place.interrupt)?;
    let (after, seconds) = (first.status()?, began.elapsed().as_secs_f64());
    // Its own clock is finer, the kernel's also has threads that end meanwhile.
    let used = ((after.cpu_us - before.cpu_us) as f64 / 1e6).max(cpu(&broker)? - by_proc);
    let mut sample = Sample::default();
    sample.set(Measure::Core, used / seconds);
    sample.say(format!(
        "{:.0} ms of CPU in {seconds:.0} s; {} connections, {} partitions, {} turns",
        used * 1e3,
        after.connections,
        after.partitions,
        after.turns - before.turns,
    ));
    if (after.connections, after.partitions) != (u64::from(CONNECTIONS) + 1, u64::from(PARTITIONS)) {
        sample.failed = Some("not every connection stayed".to_owned());
    }
    drop(waiting);
    broker.stop()?;
    Ok(sample)
}

fn cpu(broker: &Broker) -> io::Result<f64> {
    let pid = i32::try_from(broker.pid()).map_err(io::Error::other)?;
    process_cpu_seconds(pid).ok_or_else(|| io::Error::other("the broker is gone"))
}
