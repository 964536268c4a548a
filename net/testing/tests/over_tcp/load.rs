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
    // Who reads so much while others still fill the small window may be found too slow.
    let peers: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no peer failed")).collect();
    for (partition, mut peer) in peers.into_iter().enumerate() {
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
fn a_peer_that_shuts_its_side_down_gets_all_its_answers() {
    let broker = Broker::start().expect("a broker");
    let mut other = Peer::connect(broker.address());
    let topic = other.create_topic("t", 1, Durability::Durable);
    for round in 0..20_u64 {
        let mut peer = Peer::connect(broker.address());
        peer.open(1, topic, 0);
        let batches = batch(topic, 0, &[vec![7; 20_000]]);
        for _ in 0..50 {
            peer.send(&Request::Produce { handle: 1, expected_offset: None, batches: &batches });
        }
        peer.send(&Request::Ping);
        peer.end_sending();
        let mut offsets = Vec::new();
        while let Some(answer) = peer.receive() {
            match answer.response() {
                Response::Produced { base_offset, .. } => offsets.push(base_offset),
                Response::Pong => {}
                other => panic!("{other:?}"),
            }
        }
        let first = round * 50;
        assert_eq!(offsets, (first..first + 50).collect::<Vec<_>>(), "round {round}: each, then the end");
    }
    assert_eq!(other.status().connections, 1, "nothing is left of them");
}
