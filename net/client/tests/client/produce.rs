//! The producer against a broker that fails: nothing lost, nothing twice, order kept, and the caller told the truth.

use std::time::{Duration, Instant};

use crate::broker::{Broker, Faults};
use crate::{client, record};
use corelog_client::{
    Client, Codec, Durability, ErrorCode, Linger, Partition, ProduceError, Producer, ProducerConfig,
    RecordRef, Topic, TrySendError,
};

async fn setup(faults: Faults, seed: u64, config: ProducerConfig) -> (Broker, Client, Producer, Topic) {
    let broker = Broker::start(faults, seed).await;
    let client = client(&broker).await;
    let topic = client.create_topic("t", 2, Durability::Durable).await.unwrap();
    let producer = client.producer(config);
    (broker, client, producer, topic)
}

fn small_batches() -> ProducerConfig {
    ProducerConfig { batch_bytes: 1024, ..ProducerConfig::default() }
}

#[tokio::test]
async fn a_record_is_acknowledged_with_its_place() {
    let (broker, _client, producer, topic) = setup(Faults::default(), 1, ProducerConfig::default()).await;
    for n in 0..3_u64 {
        let receipt = producer.send(&topic, Partition::Index(1), record(b"v")).await.unwrap();
        let acked = receipt.await.unwrap();
        assert_eq!((acked.partition, acked.offset), (1, n));
    }
    assert_eq!(broker.values("t", 1), vec![b"v".to_vec(); 3]);
    assert!(broker.values("t", 0).is_empty());
}

/// The broker of this test takes 2 MiB, which it says in its Hello.
#[tokio::test]
async fn a_batch_is_as_large_as_was_asked_for_and_the_broker_takes() {
    let rows =
        [(0, 1 << 10), (1 << 20, 1 << 20), (3 << 19, 3 << 19), (8 << 20, 2 << 20), (usize::MAX, 2 << 20)];
    for (batch_bytes, effective) in rows {
        let config = ProducerConfig { batch_bytes, ..ProducerConfig::default() };
        let (_broker, client, producer, topic) = setup(Faults::default(), 1, config).await;
        assert_eq!((producer.batch_bytes(), client.max_batch_bytes()), (effective, 2 << 20));
        let fits = vec![0; effective - 512];
        producer.send(&topic, Partition::Index(0), record(&fits)).await.unwrap().await.unwrap();
        let larger = vec![0; effective];
        let refused = producer.send(&topic, Partition::Index(0), record(&larger)).await.map(drop);
        assert_eq!(refused, Err(ProduceError::RecordTooLarge));
    }
}

/// The broker drops connections before and after it appended, refuses and dawdles; each record is there once, in order.
#[tokio::test]
async fn every_record_is_there_once_and_in_order_whatever_the_connection_does() {
    let (mut duplicates, mut losses) = (0, 0);
    for seed in 0..12 {
        let faults = Faults { lost_before: 23, lost_after: 19, busy: 11, slow: 13 };
        let codec = [Codec::None, Codec::Lz4, Codec::Zstd][seed as usize % 3];
        let config = ProducerConfig { codec, ..small_batches() };
        let (broker, _client, producer, topic) = setup(faults, seed, config).await;
        let mut receipts = Vec::new();
        for n in 0..3000_u32 {
            let partition = Partition::Index(n % 2);
            receipts.push(producer.send(&topic, partition, record(&n.to_le_bytes())).await.unwrap());
            if n % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        producer.flush().await.unwrap();
        for partition in 0..2 {
            let expected: Vec<Vec<u8>> =
                (0..3000_u32).filter(|n| n % 2 == partition).map(|n| n.to_le_bytes().to_vec()).collect();
            assert_eq!(broker.values("t", partition as usize), expected, "seed {seed}");
        }
        for (n, receipt) in receipts.into_iter().enumerate() {
            assert_eq!(receipt.await.unwrap().offset, n as u64 / 2, "the receipt says where it is");
        }
        duplicates += broker.store().duplicates;
        losses += broker.store().losses;
    }
    assert!(duplicates > 20 && losses > 50, "the story was told: {duplicates} duplicates, {losses} losses");
}

#[tokio::test]
async fn a_broker_that_restarts_is_waited_for() {
    let (mut broker, _client, producer, topic) = setup(Faults::default(), 1, small_batches()).await;
    for round in 0..5_u8 {
        for _ in 0..100 {
            producer.send(&topic, Partition::Index(0), record(&[round; 50])).await.unwrap();
        }
        broker.restart().await;
    }
    producer.flush().await.unwrap();
    let values = broker.values("t", 0);
    assert_eq!(values.len(), 500);
    assert!(values.is_sorted());
}

#[tokio::test]
async fn a_refusal_for_good_fails_its_batch_and_no_other() {
    let (broker, _client, producer, topic) = setup(Faults::default(), 1, small_batches()).await;
    producer.send(&topic, Partition::Index(0), record(b"before")).await.unwrap();
    producer.flush().await.unwrap();
    broker.store().produce_refusals.push_back((ErrorCode::NotAuthorised, [0, 0]));
    let mut receipts = Vec::new();
    for n in 0..200_u8 {
        receipts.push(producer.send(&topic, Partition::Index(0), record(&[n; 100])).await.unwrap());
    }
    assert!(matches!(producer.flush().await, Err(ProduceError::Refused { maybe_appended: false, .. })));
    let refused = receipts.iter().filter(|receipt| receipt.poll_now().unwrap().is_err()).count();
    let values = broker.values("t", 0);
    assert!(refused > 0 && refused < 20, "one batch of {refused}");
    assert_eq!(values.len(), 1 + 200 - refused);
    assert!(values[1..].is_sorted());
}

#[tokio::test]
async fn a_partition_that_is_not_ready_at_once_gets_its_record_soon_after() {
    let config = ProducerConfig { deadline: Duration::from_secs(20), ..small_batches() };
    let (broker, _client, producer, topic) = setup(Faults::default(), 1, config).await;
    broker.store().open_refusals.extend([(ErrorCode::NotReady, [0, 0]), (ErrorCode::TooMany, [0, 0])]);
    // Nothing closes the batch but the producer itself: no flush, no second record.
    let receipt = producer.send(&topic, Partition::Index(0), record(b"a")).await.unwrap();
    receipt.await.unwrap();
    assert_eq!(broker.values("t", 0), [b"a"]);
}

#[tokio::test]
async fn silence_ends_with_the_deadline_and_the_doubt_is_said() {
    let config = ProducerConfig { deadline: Duration::from_millis(80), ..small_batches() };
    let (broker, _client, producer, topic) = setup(Faults::default(), 1, config).await;
    producer.send(&topic, Partition::Index(0), record(b"a")).await.unwrap().await.unwrap();
    broker.store().silent = true;
    let silent = producer.send(&topic, Partition::Index(0), record(b"b")).await.unwrap();
    assert_eq!(silent.await, Err(ProduceError::Expired { maybe_appended: true }));
    broker.store().silent = false;
    let after = producer.send(&topic, Partition::Index(0), record(b"c")).await.unwrap();
    after.await.unwrap();
    assert_eq!(broker.values("t", 0), [b"a", b"c"]);
}

#[tokio::test]
async fn what_was_never_sent_expires_without_doubt() {
    let config = ProducerConfig { deadline: Duration::from_millis(50), ..small_batches() };
    let (broker, _client, producer, topic) = setup(Faults::default(), 1, config).await;
    drop(broker);
    let receipt = producer.send(&topic, Partition::Index(0), record(b"a")).await.unwrap();
    assert_eq!(receipt.await, Err(ProduceError::Expired { maybe_appended: false }));
}

#[tokio::test]
async fn a_full_buffer_makes_senders_wait_and_wakes_them() {
    let config = ProducerConfig { batch_bytes: 1024, max_buffer_bytes: 4096, ..ProducerConfig::default() };
    let (broker, _client, producer, topic) = setup(Faults::default(), 1, config).await;
    broker.store().silent = true;
    let mut taken = 0;
    while producer
        .try_send(&topic, Partition::Index(0), record(&[1; 100]))
        .map_err(|error| assert_eq!(error, TrySendError::Full))
        .is_ok()
    {
        taken += 1;
    }
    assert!((30..40).contains(&taken), "{taken} records of 116 bytes in 4096");
    let too_large = producer.try_send(&topic, Partition::Index(0), record(&[1; 5000]));
    assert!(matches!(too_large, Err(TrySendError::Full | TrySendError::RecordTooLarge)));
    let waiting = {
        let (producer, topic) = (producer.clone(), topic.clone());
        tokio::spawn(async move {
            for _ in 0..500 {
                producer.send(&topic, Partition::Index(0), record(&[2; 100])).await.unwrap();
            }
        })
    };
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    let mut broker = broker;
    broker.store().silent = false;
    // The requests that met silence are never answered; the next connection repeats them.
    broker.restart().await;
    waiting.await.unwrap();
    producer.flush().await.unwrap();
    assert_eq!(broker.values("t", 0).len(), taken + 500);
}

#[tokio::test]
async fn a_dropped_producer_still_sends_what_it_accepted_and_then_goes() {
    let (broker, client, producer, topic) = setup(Faults::default(), 1, ProducerConfig::default()).await;
    let receipts: Vec<_> =
        (0..100_u8).map(|n| producer.try_send(&topic, Partition::Index(0), record(&[n])).unwrap()).collect();
    drop(producer);
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert_eq!(broker.values("t", 0).len(), 100);
    drop(client);
    while broker.connections() > 0 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn receipts_are_answered_when_the_runtime_ends() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (receipt, producer, topic) = runtime.block_on(async {
        let (broker, _client, producer, topic) = setup(Faults::default(), 1, ProducerConfig::default()).await;
        broker.store().silent = true;
        let receipt = producer.send(&topic, Partition::Index(0), record(b"v")).await.unwrap();
        tokio::task::yield_now().await;
        (receipt, producer, topic)
    });
    drop(runtime);
    assert_eq!(receipt.poll_now(), Some(Err(ProduceError::Closed)));
    assert_eq!(
        producer.try_send(&topic, Partition::Index(0), record(b"v")).unwrap_err(),
        TrySendError::Closed
    );
}

#[tokio::test]
async fn keys_go_where_kafkas_java_client_sends_them() {
    let (broker, _client, producer, topic) = setup(Faults::default(), 1, ProducerConfig::default()).await;
    // The murmur2 hashes 0xc5f2_5a2c ("21") and 0x1c94_4c77 ("abc") without their signs, modulo 2.
    for (key, partition) in [("21", 0), ("foobar", 0), ("abc", 1), ("", 1)] {
        let keyed = RecordRef { key: Some(key.as_bytes()), value: Some(b"v"), ..RecordRef::default() };
        let acked = producer.send(&topic, Partition::Auto, keyed).await.unwrap().await.unwrap();
        assert_eq!(acked.partition, partition, "{key:?}");
    }
    drop(broker);
}

#[tokio::test]
async fn a_fixed_linger_is_kept() {
    let config = ProducerConfig { linger: Linger::Fixed(30_000), ..ProducerConfig::default() };
    let (broker, _client, producer, topic) = setup(Faults::default(), 1, config).await;
    producer.send(&topic, Partition::Index(0), record(b"a")).await.unwrap();
    producer.flush().await.unwrap();
    let since = Instant::now();
    let receipts: Vec<_> =
        (0..10).map(|_| producer.try_send(&topic, Partition::Index(0), record(b"b")).unwrap()).collect();
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert!(since.elapsed() >= Duration::from_millis(29), "{:?}", since.elapsed());
    assert_eq!(broker.store().appended, 2, "the ten went together");
}

/// A load generator spins between its records; the driver shares its thread and must not starve.
#[tokio::test(flavor = "current_thread")]
async fn a_spinning_task_does_not_starve_the_driver() {
    let (_broker, _client, producer, topic) = setup(Faults::default(), 1, ProducerConfig::default()).await;
    producer.send(&topic, Partition::Index(0), record(b"warm")).await.unwrap().await.unwrap();
    let mut delays = Vec::new();
    for _ in 0..200 {
        let since = Instant::now();
        let receipt = producer.try_send(&topic, Partition::Index(0), record(b"v")).unwrap();
        while receipt.poll_now().is_none() {
            tokio::task::yield_now().await;
        }
        delays.push(since.elapsed());
    }
    delays.sort_unstable();
    assert!(delays[100] < Duration::from_millis(5), "median {:?}", delays[100]);
}

#[tokio::test]
async fn a_lane_counts_every_record_of_every_batch() {
    let (broker, _client, producer, topic) =
        setup(Faults { busy: 9, lost_after: 9, ..Faults::default() }, 5, small_batches()).await;
    let mut lane = producer.lane(&topic, 0).unwrap();
    assert!(matches!(producer.lane(&topic, 0), Err(TrySendError::LaneTaken)));
    assert!(matches!(producer.lane(&topic, 2), Err(TrySendError::UnknownPartition)));
    let (mut pushed, mut acks, mut last) = (0_u64, Vec::new(), None);
    while pushed < 2000 {
        let result = lane.fill(|fill| {
            for _ in 0..10 {
                let at = fill.push(record(&pushed.to_le_bytes()))?;
                assert!(last < Some(at), "batches and indexes rise");
                last = Some(at);
                pushed += 1;
            }
            Ok::<_, TrySendError>(())
        });
        if result == Err(TrySendError::Full) {
            lane.room(16).await;
        }
        tokio::task::yield_now().await;
        lane.take_acks(&mut acks);
    }
    lane.seal();
    let mut seen: u64 = 0;
    while seen < pushed {
        lane.acknowledged().await;
        lane.take_acks(&mut acks);
        seen = acks.iter().map(|ack| u64::from(ack.records)).sum();
    }
    let mut offset = 0;
    for (number, ack) in acks.iter().enumerate() {
        assert_eq!(ack.batch, number as u64);
        assert_eq!(ack.result.as_ref().unwrap().offset, offset);
        assert!(ack.sent_at.unwrap() <= ack.answered_at);
        offset += u64::from(ack.records);
    }
    assert_eq!(broker.values("t", 0).len() as u64, pushed);
    drop(lane);
    producer.lane(&topic, 0).unwrap();
}

/// The broker lost acknowledged records (below durable) and with them the producer: the next ones are taken all the same.
#[tokio::test]
async fn a_broker_that_fell_back_is_written_to_under_a_fresh_name() {
    let (mut broker, _client, producer, topic) = setup(Faults::default(), 1, small_batches()).await;
    for _ in 0..3 {
        producer.send(&topic, Partition::Index(0), record(b"lost")).await.unwrap().await.unwrap();
    }
    broker.fall_back("t", 0, 0);
    broker.restart().await;
    let acked = producer.send(&topic, Partition::Index(0), record(b"kept")).await.unwrap().await.unwrap();
    assert_eq!(acked.offset, 0);
    assert_eq!(broker.values("t", 0), [b"kept"]);
}

#[tokio::test]
async fn a_deleted_topic_is_said_to_be_unknown() {
    let (_broker, client, producer, topic) = setup(Faults::default(), 1, ProducerConfig::default()).await;
    producer.send(&topic, Partition::Index(0), record(b"v")).await.unwrap().await.unwrap();
    client.delete_topic("t").await.unwrap();
    let receipt = producer.send(&topic, Partition::Index(0), record(b"v")).await.unwrap();
    assert_eq!(receipt.await, Err(ProduceError::UnknownTopic));
    let receipt = producer.send(&topic, Partition::Index(1), record(b"v")).await.unwrap();
    assert_eq!(receipt.await, Err(ProduceError::UnknownTopic));
}
