//! Creating and deleting topics, killed at random moments: afterwards a topic exists whole or not at all.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use corelog_client::{Client, ClientConfig, ClientError, Durability};

use crate::broker::Place;
use crate::random::Random;
use crate::story;

const ROUNDS: u64 = 40;
/// Far longer than a creation takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the broker must say about a topic after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Its creation was acknowledged.
    Exists,
    /// Its deletion was acknowledged.
    Absent,
    /// The broker died before it answered.
    Either,
}

/// By name: partitions asked for, and what is known.
type Topics = BTreeMap<String, (u32, Known)>;

#[test]
fn a_killed_broker_leaves_topics_whole_or_not_at_all() {
    let mut random = Random::new(0x0070_91c5);
    let place = Place::new(&[]);
    let mut topics = Topics::new();
    let mut open = 0;
    for round in 0..ROUNDS {
        let broker = place.start();
        let address = broker.address.clone();
        let (begun, begins) = mpsc::channel();
        let choices = Random::from(random.next());
        let worker = thread::spawn(move || {
            story::run(change(&address, round, choices, topics, &|| begun.send(()).expect("it waits")))
        });
        begins.recv().expect("it begins");
        // No synchronisation: the moment of the kill; a change takes about a millisecond.
        thread::sleep(Duration::from_micros(random.within(0..15_000)));
        broker.kill();
        topics = worker.join().expect("no panic");
        let undecided = topics.values().filter(|(_, known)| *known == Known::Either).count();
        open += undecided;

        let broker = place.start();
        story::run(check(&broker.address, &mut topics));
        // Every other store goes on from a stop, the rest from one more kill.
        if round % 2 == 0 { broker.stop() } else { broker.kill() }
    }
    println!("{ROUNDS} kills, {open} changes without an answer, {} topics", topics.len());
    assert!(open >= ROUNDS as usize / 2, "most kills fall into a change, {open} did");
}

/// Creates and deletes until the broker is gone.
async fn change(
    address: &str,
    round: u64,
    mut random: Random,
    mut topics: Topics,
    begun: &dyn Fn(),
) -> Topics {
    let config = ClientConfig { request_timeout: Duration::from_secs(1), ..ClientConfig::new([address]) };
    let client = Client::connect(config).await.expect("the broker serves");
    begun();
    for number in 0.. {
        let alive: Vec<_> = topics.iter().filter(|(_, (_, known))| *known == Known::Exists).collect();
        let victim = match random.within(0..3) {
            0 if !alive.is_empty() => Some(alive[random.within(0..alive.len() as u64) as usize].0.clone()),
            _ => None,
        };
        let (name, partitions, wanted, result) = match victim {
            Some(name) => {
                let partitions = topics[&name].0;
                let result = client.delete_topic(&name).await;
                (name, partitions, Known::Absent, result)
            }
            None => {
                let (name, partitions) = (format!("t-{round}-{number}"), random.within(1..9) as u32);
                let result = client.create_topic(&name, partitions, Durability::Durable).await.map(drop);
                (name, partitions, Known::Exists, result)
            }
        };
        match result {
            Ok(()) => drop(topics.insert(name, (partitions, wanted))),
            Err(ClientError::OutcomeUnknown | ClientError::Unreachable { .. } | ClientError::Timeout) => {
                topics.insert(name, (partitions, Known::Either));
                return topics;
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
    topics
}

/// Compares what the broker has with what is known, and decides what was open.
async fn check(address: &str, topics: &mut Topics) {
    let client = story::connect(address).await;
    // The broker may still be about to finish a change: whoever asks then waits for it and is not told to ask again.
    for name in topics.iter().filter(|(_, (_, known))| *known == Known::Either).map(|(name, _)| name) {
        match client.topic(name).await {
            Ok(_) | Err(ClientError::UnknownTopic) => {}
            Err(error) => panic!("{name}: {error}"),
        }
    }
    let listed = client.topics().await.expect("it answers");
    let found: BTreeMap<&str, u32> =
        listed.iter().map(|topic| (topic.name(), topic.partition_count())).collect();
    for name in found.keys() {
        assert!(topics.contains_key(*name), "nobody created {name}");
    }
    for (name, (partitions, known)) in topics.iter_mut() {
        let now = found.get(name.as_str());
        match known {
            Known::Exists => assert_eq!(now, Some(&*partitions), "{name} was created"),
            Known::Absent => assert_eq!(now, None, "{name} was deleted"),
            Known::Either => {
                assert!(now.is_none_or(|now| now == partitions), "{name} is not whole");
                if now.is_none() {
                    settle(&client, name, *partitions).await;
                }
                use_all_partitions(&client, name, *partitions).await;
                client.delete_topic(name).await.expect("what is there can be deleted");
                *known = Known::Absent;
            }
        }
    }
    // Old topics work as well as the undecided one.
    let alive = topics.iter().filter(|(_, (_, known))| *known == Known::Exists);
    for (name, (partitions, _)) in alive.rev().take(3) {
        use_all_partitions(&client, name, *partitions).await;
    }
}

/// Makes a topic that is not shown. A creation or deletion that had begun is brought to its end after the start, and
/// until then the name is taken; then it is there, or can be made.
async fn settle(client: &Client, name: &str, partitions: u32) {
    let begin = Instant::now();
    loop {
        match client.create_topic(name, partitions, Durability::Durable).await {
            Ok(_) => return,
            Err(ClientError::TopicExists) if client.topic(name).await.is_ok() => return,
            Err(ClientError::TopicExists) => {}
            Err(error) => panic!("{name}: {error}"),
        }
        assert!(begin.elapsed() < PATIENCE, "{name} is neither there nor can it be created");
    }
}

/// Each partition takes a record and gives it back.
async fn use_all_partitions(client: &Client, name: &str, partitions: u32) {
    let topic = client.topic(name).await.expect("it is there");
    assert_eq!(topic.partition_count(), partitions);
    let producer = client.producer(Default::default());
    for partition in 0..partitions {
        let value = format!("{name} {partition}").into_bytes();
        let offset = story::append(&producer, &topic, partition, &value).await.expect("it takes records");
        let records = story::read(client, &topic, partition).await;
        assert_eq!(records.last(), Some(&(offset, value)), "{name} {partition}");
        assert_eq!(records.len() as u64, offset + 1, "{name} {partition}");
    }
}
