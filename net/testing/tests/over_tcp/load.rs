//! Many requests, large ones, many peers: order, memory and the window's edge.

use crate::peer::{Peer, batch};
use corelog_model::Durability;
use corelog_testing::Broker;
use corelog_wire::{Request, Response};

#[test]
fn pipelined_requests_are_answered_each_and_kept_in_order() {
    for mode in ["poll", "adaptive", "park"] {
        let broker = Broker::builder().set(format!("server.mode={mode}")).start().expect("a broker");
        let mut peer = Peer::connect(broker.address());
        let topic = peer.create_topic("orders", 1, Durability::Durable);
        peer.open(1, topic, 0);
        let values: Vec<Vec<u8>> = (0..400_u32).map(|number| number.to_le_bytes().to_vec()).collect();
        for value in &values {
            let batches = batch(topic, 0, std::slice::from_ref(value));
            peer.send(&Request::Produce { handle: 1, expected_offset: None, batches: &batches });
        }
        for number in 0..values.len() as u64 {
            match peer.receive().expect("an answer").response() {
                Response::Produced { base_offset, .. } => assert_eq!(base_offset, number, "{mode}"),
                other => panic!("{mode}: {other:?}"),
            }
        }
        assert_eq!(peer.fetch(1, 0, 1 << 20), Ok((values, 400)), "{mode}");
        let status = peer.status();
        assert!(status.enters > 0 && status.frames < 400, "{mode}: frames are shared: {status:?}");
    }
}

#[test]
fn large_batches_of_many_peers_go_through_a_small_ingest_pool() {
    let broker = Broker::start().expect("a broker");
    let mut first = Peer::connect(broker.address());
    let topic = first.create_topic("large", 12, Durability::Durable);
    let address = broker.address();
    let threads: Vec<_> = (0..12)
        .map(|partition| {
            std::thread::spawn(move || {
                let mut peer = Peer::connect(address);
                peer.open(1, topic, partition);
                for round in 0..4_u64 {
                    let values = vec![vec![partition as u8; 100_000]; 9];
                    assert_eq!(peer.produce(1, &batch(topic, partition, &values)), Ok(round * 9));
                }
                peer
            })
        })
        .collect();
    for (partition, thread) in threads.into_iter().enumerate() {
        let mut peer = thread.join().expect("no peer failed");
        let mut offset = 0;
        while offset < 36 {
            let (values, high_watermark) = peer.fetch(1, offset, 4 << 20).expect("readable");
            assert!(!values.is_empty() && high_watermark == 36);
            assert!(values.iter().all(|value| value == &vec![partition as u8; 100_000]));
            offset += values.len() as u64;
        }
    }
}

#[test]
fn peers_that_do_not_read_stop_neither_producers_nor_each_other() {
    let broker = Broker::builder().set("memory.slow_bytes=64 KiB").start().expect("a broker");
    let mut producer = Peer::connect(broker.address());
    let topic = producer.create_topic("live", 1, Durability::Memory);
    producer.open(1, topic, 0);
    let values = vec![vec![5; 50_000]; 10];
    producer.produce(1, &batch(topic, 0, &values)).expect("appended");
    let mut stalled: Vec<Peer> = (0..20).map(|_| Peer::connect(broker.address())).collect();
    for peer in &mut stalled {
        peer.open(1, topic, 0);
        // More answers than the socket buffers hold, none of them read.
        for _ in 0..16 {
            peer.send(&Request::Fetch {
                handle: 1,
                offset: 0,
                leader_epoch: None,
                max_bytes: 1 << 20,
                min_bytes: 1,
                max_wait_us: 0,
            });
        }
    }
    // Ten times the window goes through while they hold its first blocks.
    for round in 1..240_u64 {
        assert_eq!(producer.produce(1, &batch(topic, 0, &values)), Ok(round * 10));
    }
    let status = producer.status();
    assert_eq!(status.slow_consumers, 20, "each of them held a block that was wanted back");
    for peer in &mut stalled {
        while let Some(answer) = peer.receive() {
            drop(answer);
        }
    }
}
