//! What a consumer gives the broker leave to push, and what it takes back.

use std::time::Duration;

use corelog_client::{Client, ClientConfig, Codec, ConsumerConfig, Durability, Position, ProducerConfig};

use super::consume::{append, filled, take};

#[tokio::test]
async fn a_consumer_that_takes_nothing_is_pushed_no_more_than_it_has_room_for() {
    let (broker, client, topic) = filled(1, 1000, Codec::None).await;
    let (max_bytes, prefetch_bytes) = (1_000, 3_000);
    let config = ConsumerConfig { max_bytes, prefetch_bytes, ..ConsumerConfig::new(&topic, Position::Start) };
    let mut consumer = client.consumer(config).await.unwrap();
    assert_eq!(take(&mut consumer, 10).await.len(), 10);
    // Everything that was pushed before this is answered has been pushed.
    client.ping().await.unwrap();
    let most = prefetch_bytes + max_bytes as usize;
    broker.until(|store| store.pushed_bytes > most / 2).await;
    let batch_bytes = broker.store().batch_bytes();
    assert!(
        broker.store().pushed_bytes <= most + 2 * batch_bytes,
        "the credit, a batch beyond, a batch taken"
    );
    assert_eq!(take(&mut consumer, 990).await.len(), 990);
    assert_eq!(broker.store().subscribed, 1, "it went on under the same subscription");
}

#[tokio::test]
async fn a_seek_takes_back_what_was_subscribed_to() {
    let (broker, client, topic) = filled(1, 1000, Codec::None).await;
    let mut consumer = client.consumer(ConsumerConfig::new(&topic, Position::Start)).await.unwrap();
    assert_eq!(take(&mut consumer, 1).await[0], 0);
    for to in [700, 20, 400, 999] {
        assert_eq!(consumer.seek(0, Position::Offset(to)).await, Ok(to));
        assert_eq!(take(&mut consumer, 1).await[0], to);
    }
    consumer.seek(0, Position::End).await.unwrap();
    append(&client, &topic, 1000..1010, Codec::None).await;
    assert_eq!(take(&mut consumer, 10).await, (1000..1010).collect::<Vec<_>>());
    assert_eq!(broker.store().subscribed, 6);
    broker.until(|store| store.unsubscribed == 5).await;
}

#[tokio::test]
async fn who_wants_much_at_a_time_is_not_pushed_anything() {
    let (broker, client, topic) = filled(1, 100, Codec::None).await;
    let config = ConsumerConfig { min_bytes: 2_000, ..ConsumerConfig::new(&topic, Position::Start) };
    let mut consumer = client.consumer(config).await.unwrap();
    assert_eq!(take(&mut consumer, 100).await.len(), 100);
    assert_eq!(broker.store().subscribed, 0);
}

/// It fetches, whatever there is at once and what comes later, and subscribes as soon as there is room.
#[tokio::test]
async fn who_finds_no_place_for_a_subscription_fetches_until_there_is_one() {
    let (broker, client, topic) = filled(3, 1000, Codec::None).await;
    broker.store().is_crowded = true;
    let (max_bytes, prefetch_bytes) = (1_000, 3_000);
    let config = ConsumerConfig { max_bytes, prefetch_bytes, ..ConsumerConfig::new(&topic, Position::Start) };
    let mut consumer = client.consumer(config).await.unwrap();
    let mut taken = take(&mut consumer, 1000).await;
    taken.sort_unstable();
    assert_eq!(taken, (0..1000).collect::<Vec<_>>(), "each once");
    append(&client, &topic, 1000..1030, Codec::None).await;
    let mut taken = take(&mut consumer, 30).await;
    taken.sort_unstable();
    assert_eq!(taken, (1000..1030).collect::<Vec<_>>(), "also what came while nobody had anything");
    assert_eq!(broker.store().subscribed, 0);
    broker.store().is_crowded = false;
    broker.until(|store| store.subscribed == 3).await;
    append(&client, &topic, 1030..1060, Codec::None).await;
    assert_eq!(take(&mut consumer, 30).await.len(), 30);
    assert_eq!(broker.store().subscribed, 3, "each once");
}

/// Whatever the backoff: a refused subscription is followed by a fetch.
#[tokio::test]
async fn who_does_not_wait_between_attempts_fetches_all_the_same() {
    let (broker, client, topic) = filled(1, 100, Codec::None).await;
    broker.store().is_crowded = true;
    let mut config = ClientConfig::new([broker.address()]);
    (config.backoff.first, config.backoff.most) = (Duration::ZERO, Duration::ZERO);
    let impatient = Client::connect(config).await.unwrap();
    let mut consumer = impatient.consumer(ConsumerConfig::new(&topic, Position::Start)).await.unwrap();
    assert_eq!(take(&mut consumer, 100).await.len(), 100);
    append(&client, &topic, 100..110, Codec::None).await;
    assert_eq!(take(&mut consumer, 10).await.len(), 10);
    assert_eq!(broker.store().subscribed, 0);
}

/// A broker that is gone without a word is noticed although nothing is asked of it.
#[tokio::test]
async fn a_silent_broker_is_asked_whether_it_is_there_and_given_up_if_not() {
    let broker = super::broker().await;
    let mut config = ClientConfig::new([broker.address()]);
    config.request_timeout = Duration::from_millis(200);
    config.connect_timeout = Duration::from_millis(200);
    config.backoff.first = Duration::from_millis(1);
    let client = Client::connect(config).await.unwrap();
    let topic = client.create_topic("t", 1, Durability::Durable).await.unwrap();
    let max_wait = Duration::ZERO;
    let config = ConsumerConfig { max_wait, ..ConsumerConfig::new(&topic, Position::Start) };
    let mut consumer = client.consumer(config).await.unwrap();
    // While it answers, it is asked again and again and stays.
    broker.until(|store| store.pings >= 3).await;
    assert_eq!(broker.store().subscribed, 1);
    // The first is not answered, and so another connection says Hello.
    broker.store().deaf = true;
    broker.until(|store| store.ignored >= 2).await;
    broker.store().deaf = false;
    let other = crate::client(&broker).await;
    let producer = other.producer(ProducerConfig::default());
    producer
        .send(&topic, corelog_client::Partition::Index(0), crate::record(&0_u64.to_le_bytes()))
        .await
        .unwrap();
    assert_eq!(take(&mut consumer, 1).await, [0]);
    assert_eq!(broker.store().subscribed, 2);
}

/// Whatever comes and goes meanwhile: places, connections, seeks.
#[tokio::test]
async fn a_crowd_that_comes_and_goes_costs_no_record_and_repeats_none() {
    for seed in 0..4_u64 {
        let (mut broker, client, topic) = filled(2, 1000, Codec::None).await;
        let (max_bytes, prefetch_bytes) = (1_000, 3_000);
        let config =
            ConsumerConfig { max_bytes, prefetch_bytes, ..ConsumerConfig::new(&topic, Position::Start) };
        let mut consumer = client.consumer(config).await.unwrap();
        let mut rng = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |bound: u64| {
            rng ^= rng << 13;
            rng ^= rng >> 7;
            rng ^= rng << 17;
            rng % bound
        };
        let mut next = [0_u64; 2];
        for step in 0..300 {
            let crowded = below(2) == 0;
            broker.store().is_crowded = crowded;
            match below(12) {
                0 => broker.restart().await,
                1 | 2 => {
                    let (partition, to) = (below(2) as u32, below(400));
                    assert_eq!(consumer.seek(partition, Position::Offset(to)).await, Ok(to));
                    next[partition as usize] = to;
                }
                _ => {}
            }
            for _ in 0..below(4) {
                if next == [500, 500] {
                    break;
                }
                let batch = tokio::time::timeout(Duration::from_secs(20), consumer.next()).await;
                let mut batch = batch
                    .unwrap_or_else(|_| panic!("seed {seed}, step {step}: it stands still at {next:?}"))
                    .unwrap();
                let next = &mut next[batch.partition() as usize];
                for record in batch.records().unwrap() {
                    assert_eq!(record.offset, *next, "seed {seed}, step {step}");
                    *next += 1;
                }
            }
        }
    }
}
