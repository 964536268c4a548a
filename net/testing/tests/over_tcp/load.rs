//! Many requests, large ones, many peers: order, memory and the window's edge.

use crate::peer::{Peer, batch};
use corelog_model::Durability;
use corelog_testing::Broker;
use corelog_wire::{ErrorCode, Request, Response};

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

/// 100 consumers ask for more than they read. Each either has what is left of its answers kept aside, within the bound, or is
/// told that it is too slow; whoever writes does not notice, and the memory is what the bound allows.
#[test]
fn a_hundred_peers_that_do_not_read_stop_neither_producers_nor_each_other() {
    const STALLED: usize = 100;
    const SLOW_BYTES: u64 = 64 << 10;
    let settings = ["memory.slow_bytes=64 KiB", "limits.connections=128"];
    let broker = settings.into_iter().fold(Broker::builder(), |builder, setting| builder.set(setting));
    let broker = broker.start().expect("a broker");
    let mut producer = Peer::connect(broker.address());
    let topic = producer.create_topic("live", 1, Durability::Memory);
    producer.open(1, topic, 0);
    let values = vec![vec![5; 50_000]; 10];
    producer.produce(1, &batch(topic, 0, &values)).expect("appended");
    let mut stalled: Vec<Peer> = (0..STALLED).map(|_| Peer::connect(broker.address())).collect();
    for (number, peer) in stalled.iter_mut().enumerate() {
        peer.open(1, topic, 0);
        peer.take_little();
        // Every tenth asks for about what the sockets hold; the others for far more.
        for _ in 0..if number % 10 == 0 { 1 } else { 16 } {
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
    let before = producer.status();
    assert_eq!(before.slow_consumers, 0, "nothing is wanted back yet");
    // Ten times the window goes through while they hold its first blocks.
    for round in 1..240_u64 {
        assert_eq!(producer.produce(1, &batch(topic, 0, &values)), Ok(round * 10));
    }
    let after = producer.status();
    let kept = (STALLED as u64) * (SLOW_BYTES + (64 << 10));
    let grown = after.resident_bytes.saturating_sub(before.resident_bytes);
    assert!(grown <= kept + (32 << 20), "{grown} bytes more than before");
    let (mut served, mut told, mut cut) = (0, 0, 0);
    for (number, peer) in stalled.iter_mut().enumerate() {
        let (wanted, mut answers, mut last) = (if number % 10 == 0 { 1 } else { 16 }, 0, None);
        while answers < wanted && last.is_none() {
            match peer.receive() {
                Some(answer) => match answer.response() {
                    Response::Fetched { high_watermark, .. } => {
                        assert!(high_watermark >= 10);
                        answers += 1;
                    }
                    Response::Error(body) => last = Some((body.code, body.details)),
                    other => panic!("{other:?}"),
                },
                None => break,
            }
        }
        match last {
            Some((code, [bytes, max])) => {
                assert_eq!((code, max), (ErrorCode::SlowConsumer, SLOW_BYTES));
                assert!(bytes > max, "{bytes} bytes were too many");
                assert!(peer.is_closed(), "it is told once");
                told += 1;
            }
            None if answers == wanted => served += 1,
            None => cut += 1,
        }
    }
    assert_eq!(after.slow_consumers, told + cut, "{served} served, {told} told, {cut} cut off");
    assert!(told + cut >= 90, "those who asked for far too much were closed: {told} told, {cut} cut off");
    assert_eq!(producer.produce(1, &batch(topic, 0, &values)), Ok(2400));
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
