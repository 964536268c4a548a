//! Altering topics, killed at random moments, with another number of shards at every start: afterwards an alteration is
//! done or it is not, what was acknowledged durable is there, and all partitions work.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use corelog_client::{Client, ClientConfig, ClientError, Durability};

use crate::broker::Place;
use crate::random::Random;
use crate::story;

const ROUNDS: u64 = 30;
const TOPICS: usize = 3;
/// Far longer than an alteration takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a topic is: its partitions and its level.
type Shape = (u32, Durability);

/// What is known of one topic.
#[derive(Clone, Debug)]
struct Known {
    shape: Shape,
    /// What it may have become: the broker died before it answered.
    next: Option<Shape>,
    /// By partition, what was acknowledged while it was durable for certain.
    kept: Vec<Vec<(u64, Vec<u8>)>>,
}

fn name(topic: usize) -> String {
    format!("t{topic}")
}

#[test]
fn a_killed_broker_leaves_alterations_done_or_undone() {
    let mut random = Random::new(0x0a17_e4ed);
    let place = Place::new(&[]);
    let mut topics = Vec::new();
    let (mut open, mut done, mut undone) = (0, 0, 0);
    for round in 0..ROUNDS {
        let mut with = place.again(&[]);
        with.set(format!("server.shards={}", [1, 2, 4][random.within(0..3) as usize]));
        let broker = with.start();
        if topics.is_empty() {
            topics = story::run(create(&broker.address));
        }
        let address = broker.address.clone();
        let (begun, begins) = mpsc::channel();
        let choices = Random::from(random.next());
        let worker = thread::spawn(move || {
            story::run(alter(&address, choices, topics, &|| begun.send(()).expect("it waits")))
        });
        begins.recv().expect("it begins");
        // No synchronisation: the moment of the kill; an alteration takes about a millisecond.
        thread::sleep(Duration::from_micros(random.within(0..15_000)));
        broker.kill();
        topics = worker.join().expect("no panic");
        open += topics.iter().filter(|topic| topic.next.is_some()).count();

        let broker = with.start();
        for (number, known) in topics.iter_mut().enumerate() {
            if let Some(is_done) = story::run(check(&broker.address, number, known)) {
                done += usize::from(is_done);
                undone += usize::from(!is_done);
            }
        }
        // Every other store goes on from a stop, the rest from one more kill.
        if round % 2 == 0 { broker.stop() } else { broker.kill() }
    }
    let partitions: u32 = topics.iter().map(|topic| topic.shape.0).sum();
    println!("{ROUNDS} kills, {open} without an answer: {done} done, {undone} not; {partitions} partitions");
    assert!(open >= ROUNDS as usize / 2, "most kills fall into an alteration, {open} did");
}

async fn create(address: &str) -> Vec<Known> {
    let client = story::connect(address).await;
    let mut topics = Vec::new();
    for topic in 0..TOPICS {
        let shape = (1, Durability::Durable);
        client.create_topic(&name(topic), shape.0, shape.1).await.expect("a new name");
        topics.push(Known { shape, next: None, kept: vec![Vec::new()] });
    }
    topics
}

/// Alters topics until the broker is gone.
async fn alter(address: &str, mut random: Random, mut topics: Vec<Known>, begun: &dyn Fn()) -> Vec<Known> {
    let config = ClientConfig { request_timeout: Duration::from_secs(1), ..ClientConfig::new([address]) };
    let client = Client::connect(config).await.expect("the broker serves");
    begun();
    loop {
        let topic = random.within(0..TOPICS as u64) as usize;
        let (partitions, level) = topics[topic].shape;
        let more = if partitions < 60 { random.within(0..4) as u32 } else { 0 };
        let levels = [Durability::Durable, Durability::Written, Durability::Memory];
        let durability =
            (more == 0 || random.within(0..2) == 0).then(|| levels[random.within(0..3) as usize]);
        let wanted = (partitions + more, durability.unwrap_or(level));
        let named = (more > 0).then_some(wanted.0);
        match client.alter_topic(&name(topic), named, durability).await {
            Ok(altered) => {
                assert_eq!((altered.partition_count(), altered.durability()), wanted, "{topic}");
                topics[topic].shape = wanted;
                topics[topic].kept.resize_with(wanted.0 as usize, Vec::new);
            }
            Err(ClientError::OutcomeUnknown | ClientError::Unreachable { .. } | ClientError::Timeout) => {
                topics[topic].next = Some(wanted);
                return topics;
            }
            Err(error) => panic!("{topic}: {error}"),
        }
    }
}

/// Compares a topic with what is known of it, decides what was open, and uses it. Whether what was open was done.
async fn check(address: &str, topic: usize, known: &mut Known) -> Option<bool> {
    let client = story::connect(address).await;
    let next = known.next.take();
    let begin = Instant::now();
    // An alteration that had begun is brought to its end after the start; whoever asks for another one waits for it.
    let found = loop {
        match client.alter_topic(&name(topic), None, None).await {
            Ok(found) => break found,
            Err(ClientError::Refused(refused)) if refused.code.retryable() => {}
            Err(error) => panic!("{topic}: {error}"),
        }
        assert!(begin.elapsed() < PATIENCE, "{topic} is neither altered nor as it was");
    };
    let shape = (found.partition_count(), found.durability());
    assert!(shape == known.shape || Some(shape) == next, "{topic}: {shape:?} of {known:?} or {next:?}");
    let was_open = next.filter(|next| *next != known.shape).map(|_| shape != known.shape);
    known.shape = shape;
    known.kept.resize_with(shape.0 as usize, Vec::new);
    let producer = client.producer(Default::default());
    for (partition, kept) in (0..).zip(&mut known.kept) {
        let records = story::read(&client, &found, partition).await;
        assert!(records.len() >= kept.len(), "{topic}/{partition}: {} of {}", records.len(), kept.len());
        assert!(kept.iter().all(|record| records.contains(record)), "{topic}/{partition} has lost records");
        let value = format!("{topic} {partition} {}", records.len()).into_bytes();
        let offset = story::append(&producer, &found, partition, &value).await.expect("it takes records");
        assert_eq!(offset, records.len() as u64, "{topic}/{partition}");
        if shape.1 == Durability::Durable {
            kept.push((offset, value));
        }
    }
    was_open
}
