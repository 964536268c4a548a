//! Consumers that do not read, in a process of their own: what the broker's memory grows by is theirs alone.

#[path = "../over_tcp/peer.rs"]
#[expect(dead_code, reason = "shared with tests that use all of it")]
mod peer;

use corelog_model::Durability;
use corelog_testing::Broker;
use corelog_wire::{ErrorCode, Request, Response};

use peer::{Peer, batch};

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
