//! A broker of two shards is told to stop while its clients go through the other core's port.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use corelog_client::{Durability, ErrorCode, TopicId};
use corelog_wire::{Call, Request, Response, encode_request};
use rustix::process::Signal;

use crate::broker::{Broker, Place};
use crate::peer::{Peer, batch};
use crate::random::Random;
use crate::story;

const ROUNDS: u32 = 8;
/// Half of them are kept by each log.
const PARTITIONS: u32 = 4;
/// One that nothing is written to.
const QUIET: u32 = PARTITIONS;
/// Unanswered requests of a producer.
const WINDOW: u64 = 32;
/// Far longer than a stop takes: peers that take their answers are waited for a second at most.
const IN_ITS_TIME: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);

/// What the peers count, and are told.
#[derive(Default)]
struct Shared {
    answered: AtomicU64,
    fetched: AtomicU64,
    /// Readers whose fetches and subscriptions wait.
    waiting: AtomicU64,
    stopping: AtomicBool,
    /// Answers of the other core's that came after the broker was told to stop.
    late: AtomicU64,
}

impl Shared {
    /// So much is answered, and every reader waits or reads.
    fn is_under_way(&self, wanted: u64) -> bool {
        let is_read = self.fetched.load(Ordering::Relaxed) > 0 && self.waiting.load(Ordering::Relaxed) == 2;
        is_read && self.answered.load(Ordering::Relaxed) >= wanted
    }
}

/// What the broker has said is there: partition and offset, and the value.
type Known = BTreeMap<(u32, u64), Vec<u8>>;

/// A topic, where the cores listen, and which of them has each partition.
struct Scene {
    topic: TopicId,
    addresses: Vec<String>,
    homes: Vec<usize>,
}

impl Scene {
    async fn new(broker: &Broker, name: &str) -> Self {
        let client = story::connect(&broker.address).await;
        let topic = client.create_topic(name, PARTITIONS + 1, Durability::Durable).await.expect("a new name");
        let addresses = broker.addresses.clone();
        let home = |address: &String| addresses.iter().position(|core| core == address).expect("a core's");
        let homes = topic.partitions().iter().map(|partition| home(&partition.address)).collect();
        Self { topic: topic.id(), addresses, homes }
    }
}

/// A connection whose end is an end and no failure.
struct Line {
    peer: Peer,
    stream: TcpStream,
    correlation: u64,
}

impl Line {
    /// With every partition of the topic open: partition `p` as handle `p + 1`.
    fn open(address: &str, topic: TopicId) -> Self {
        let stream = TcpStream::connect(address).expect("the broker listens");
        let mut peer = Peer::over(stream.try_clone().expect("a socket"));
        for partition in 0..=QUIET {
            peer.open(partition + 1, topic, partition);
        }
        Self { peer, stream, correlation: 1_000 }
    }

    /// The name of a request, if the connection still takes it.
    fn send(&mut self, request: &Request<'_>) -> Option<u64> {
        self.correlation += 1;
        let mut bytes = Vec::new();
        encode_request(request, Call { correlation: self.correlation, version: 1 }, &mut bytes);
        self.stream.write_all(&bytes).ok()?;
        Some(self.correlation)
    }
}

/// Appends to all partitions in turn until the broker refuses to or is gone; what it acknowledged.
fn produce(scene: &Scene, core: usize, me: usize, shared: &Shared) -> Known {
    let (mut line, topic) = (Line::open(&scene.addresses[core], scene.topic), scene.topic);
    let mut asked: BTreeMap<u64, (u32, Vec<u8>)> = BTreeMap::new();
    let mut known = Known::new();
    let (mut number, mut refused) = (0_u32, false);
    loop {
        while !refused && (asked.len() as u64) < WINDOW {
            let partition = number % PARTITIONS;
            let value = format!("{me}-{number}").into_bytes();
            let batches = batch(topic, partition, std::slice::from_ref(&value));
            let request =
                Request::Produce { handle: partition + 1, expected_offset: None, batches: &batches };
            match line.send(&request) {
                Some(name) => asked.insert(name, (partition, value)),
                None => break,
            };
            number += 1;
        }
        let Some(answer) = line.peer.receive() else { return known };
        let (partition, value) = asked.remove(&answer.header.correlation).expect("it was asked, once");
        match answer.response() {
            Response::Produced { base_offset, .. } => {
                let twice = known.insert((partition, base_offset), value);
                assert_eq!(twice, None, "an offset is given once");
                shared.answered.fetch_add(1, Ordering::Relaxed);
                let late = shared.stopping.load(Ordering::Relaxed) && scene.homes[partition as usize] != core;
                shared.late.fetch_add(u64::from(late), Ordering::Relaxed);
            }
            Response::Error(body) => {
                assert_eq!(body.code, ErrorCode::ShuttingDown);
                refused = true;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Reads a partition of the other core, and follows the quiet one there, until the broker is gone; what was in it.
fn consume(scene: &Scene, core: usize, shared: &Shared) -> Known {
    let mut line = Line::open(&scene.addresses[core], scene.topic);
    let abroad: Vec<u32> =
        (0..PARTITIONS).filter(|&partition| scene.homes[partition as usize] != core).collect();
    let &[partition, another] = &abroad[..] else { panic!("each log has half of them: {abroad:?}") };
    let max_bytes = 64 << 10;
    let fetch = |handle, offset, max_wait_us| Request::Fetch {
        handle,
        offset,
        leader_epoch: None,
        max_bytes,
        min_bytes: 1,
        max_wait_us,
    };
    let (handle, credit) = (another + 1, 1 << 30);
    let subscribe = Request::Subscribe { handle, offset: 0, leader_epoch: None, max_bytes, credit };
    let pushes = line.send(&subscribe).expect("it is taken");
    // For one of the two readers that, too, is at the other core.
    let quiet = line.send(&fetch(QUIET + 1, 0, 50_000_000)).expect("it is taken");
    shared.waiting.fetch_add(1, Ordering::Relaxed);
    let (mut known, mut next, mut pushed) = (Known::new(), 0, 0);
    let mut asked = line.send(&fetch(partition + 1, next, 50_000_000));
    while let Some(answer) = line.peer.receive() {
        let name = answer.header.correlation;
        match answer.response() {
            Response::Fetched { batches, .. } if name == quiet => assert!(batches.is_empty()),
            Response::Fetched { batches, .. } => {
                assert_eq!(Some(name), asked);
                for (offset, value) in records(batches) {
                    // The first batch may begin before what was asked for.
                    known.insert((partition, offset), value);
                    next = offset + 1;
                }
                shared.fetched.store(next, Ordering::Relaxed);
                asked = line.send(&fetch(partition + 1, next, 50_000_000));
            }
            Response::Pushed { batches, .. } => {
                assert_eq!(name, pushes);
                for (offset, value) in records(batches) {
                    assert_eq!(offset, pushed, "pushes go on where the last one ended");
                    pushed += 1;
                    known.insert((another, offset), value);
                }
            }
            Response::Error(body) => assert_eq!(body.code, ErrorCode::ShuttingDown),
            other => panic!("{other:?}"),
        }
    }
    known
}

/// Offset and value of all records in whole batches.
fn records(mut batches: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    while !batches.is_empty() {
        let mut scratch = corelog_model::batch::AlignedVec::new();
        let header = corelog_client::BatchHeader::parse(batches).expect("a batch");
        assert!(header.verify_body(batches), "the body is what was sealed");
        let view = corelog_model::batch::BatchView::open(batches, &mut scratch).expect("a batch");
        found.extend(view.records().map(|record| (record.offset, record.value.expect("a value").to_vec())));
        batches = &batches[header.padded_bytes()..];
    }
    found
}

/// Everything that was acknowledged or read is where it was said to be, and nothing is there twice.
async fn check(broker: &Broker, name: &str, known: &Known) {
    let client = story::connect(&broker.address).await;
    let topic = client.topic(name).await.expect("it is there");
    let mut found = Known::new();
    for partition in 0..=QUIET {
        for (offset, value) in story::read(&client, &topic, partition).await {
            found.insert((partition, offset), value);
        }
    }
    for (place, value) in known {
        assert_eq!(found.get(place), Some(value), "{name}: partition and offset {place:?}");
    }
    let mut values: Vec<_> = found.values().collect();
    values.sort_unstable();
    assert!(values.windows(2).all(|two| two[0] != two[1]), "{name}: a record is there twice");
}

#[test]
fn what_was_answered_through_the_other_cores_port_is_there_after_a_stop() {
    let mut random = Random::new(0x5109);
    let place = Place::new(&["server.shards=2"]);
    let (mut answered, mut late, mut longest) = (0, 0, Duration::ZERO);
    for round in 0..ROUNDS {
        let broker = place.start();
        let name = format!("t{round}");
        let scene = story::run(Scene::new(&broker, &name));
        let (shared, wanted) = (Shared::default(), random.within(100..2_000));
        let known = thread::scope(|scope| {
            let (shared, scene) = (&shared, &scene);
            let producers = (0..4).map(|me| scope.spawn(move || produce(scene, me % 2, me, shared)));
            let consumers = (0..2).map(|core| scope.spawn(move || consume(scene, core, shared)));
            let peers: Vec<_> = producers.chain(consumers).collect();
            let begin = Instant::now();
            while !shared.is_under_way(wanted) {
                assert!(begin.elapsed() < PATIENCE, "nothing is answered");
                thread::yield_now();
            }
            shared.stopping.store(true, Ordering::Relaxed);
            let stop = Instant::now();
            let status = broker.end(Signal::TERM);
            longest = longest.max(stop.elapsed());
            assert!(status.success(), "round {round}: it ends well: {status}");
            peers.into_iter().flat_map(|peer| peer.join().expect("no panic")).collect::<Known>()
        });
        assert!(longest < IN_ITS_TIME, "round {round}: it took {longest:?} to stop");
        (answered, late) = (answered + known.len(), late + shared.late.load(Ordering::Relaxed));
        let broker = place.start();
        story::run(check(&broker, &name, &known));
        broker.stop();
    }
    println!("{ROUNDS} stops of {longest:?} at most, {answered} records, {late} answered while it stopped");
    assert!(late > 0, "requests were under way at the other core");
}
