//! A store that is served by another number of shards at every start: what it had is where it was, and all of it is served.

use corelog_client::{Client, ClientError, Durability, Topic};

use crate::broker::{Broker, Place, corelog, output};
use crate::story;

const PARTITIONS: u32 = 6;

fn start(place: &Place, shards: usize, more: &[&str]) -> Broker {
    let settings: Vec<String> = more.iter().map(|&more| more.to_owned()).collect();
    let mut place = place.again(&settings);
    place.set(format!("server.shards={shards}"));
    let broker = place.start();
    assert!(broker.ready.contains(&format!(" shards={shards} ")), "{}", broker.ready);
    broker
}

/// Appends one record to every partition of a topic.
async fn append_to_all(client: &Client, topic: &Topic, value: &str) {
    let producer = client.producer(Default::default());
    for partition in 0..PARTITIONS {
        let value = format!("{value} to {partition}");
        story::append(&producer, topic, partition, value.as_bytes()).await.expect("it is served");
    }
}

/// Each partition of the topic has these records and no others.
async fn check(client: &Client, topic: &Topic, values: &[String]) {
    for partition in 0..PARTITIONS {
        let found = story::read(client, topic, partition).await;
        let expected: Vec<_> =
            (0..).zip(values.iter().map(|value| format!("{value} to {partition}").into_bytes())).collect();
        assert!(found == expected, "partition {partition} of {}: {} records", topic.name(), found.len());
    }
}

/// Every change among one, two and four shards; each start has a topic of its own, made while the logs were as many as
/// they were then, and appends to all of them. Half of the brokers are killed.
#[test]
fn what_was_written_with_some_shards_is_served_by_others() {
    let place = Place::new(&[]);
    let mut written: Vec<Vec<String>> = Vec::new();
    for (at, shards) in [1, 2, 4, 1, 4, 2, 1, 2, 4, 2].into_iter().enumerate() {
        let broker = start(&place, shards, &[]);
        written.push(Vec::new());
        story::run(async {
            let client = story::connect(&broker.address).await;
            client
                .create_topic(&format!("t{at}"), PARTITIONS, Durability::Durable)
                .await
                .expect("a new name");
            for (number, values) in written.iter_mut().enumerate() {
                let topic = client.topic(&format!("t{number}")).await.expect("it is there");
                check(&client, &topic, values).await;
                values.push(format!("start {at}"));
                append_to_all(&client, &topic, &values[values.len() - 1]).await;
                check(&client, &topic, values).await;
            }
        });
        if at % 2 == 0 { broker.stop() } else { broker.kill() }
    }
}

/// All shards on one port: whoever answers, everything can be asked of it.
#[test]
fn one_port_serves_what_any_shard_has() {
    let place = Place::new(&[]);
    let broker = start(&place, 3, &["server.ports=one"]);
    assert!(broker.addresses.iter().all(|address| *address == broker.address), "{}", broker.ready);
    story::run(async {
        for round in 0..6 {
            // Each client's connections are dealt out anew.
            let client = story::connect(&broker.address).await;
            let name = format!("t{round}");
            client.create_topic(&name, PARTITIONS, Durability::Durable).await.expect("a new name");
            let again = client.create_topic(&name, 1, Durability::Durable).await;
            assert!(matches!(again, Err(ClientError::TopicExists)), "{again:?}");
            let topic = client.topic(&name).await.expect("it is there");
            append_to_all(&client, &topic, "first").await;
            check(&client, &topic, &["first".to_owned()]).await;
        }
    });
    let listed = output(&["topic", "list", "--server", &broker.address]);
    assert_eq!(listed.lines().filter(|line| line.starts_with('t')).count(), 6, "{listed}");
    broker.stop();
}

/// A client that begins at the port of any shard finds all of them.
#[test]
fn every_port_leads_to_every_partition() {
    let place = Place::new(&[]);
    let broker = start(&place, 3, &[]);
    assert_eq!(broker.addresses.len(), 3);
    story::run(async {
        for (number, address) in broker.addresses.iter().enumerate() {
            let client = story::connect(address).await;
            let name = format!("t{number}");
            client.create_topic(&name, PARTITIONS, Durability::Durable).await.expect("a new name");
            let topic = client.topic(&name).await.expect("it is there");
            append_to_all(&client, &topic, "first").await;
            check(&client, &topic, &["first".to_owned()]).await;
        }
    });
    broker.stop();
}

#[test]
fn shards_that_have_no_core_are_refused() {
    let place = Place::new(&["server.cpus=0-0", "server.shards=2"]);
    let refused = place.refused();
    assert_eq!(refused.code, Some(1));
    assert!(refused.message.contains("2 shards, and 1 may be used"), "{}", refused.message);
    let wrong = corelog(&["serve", "--shards", "none"]);
    assert_eq!(wrong.status.code(), Some(2));
}
