//! The bound of the whole process, against peers that take and do not give back.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use corelog_client::{Durability, ErrorCode, ProducerConfig};
use corelog_model::TopicId;
use corelog_wire::{Call, Request, encode_request};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::broker::Place;
use crate::control::wait_for;
use crate::peer::{Peer, batch};
use crate::story;

/// Of each kind.
const PEERS: usize = 1_000;
/// What the kernel keeps for a peer that does not read: little, there are many.
const NARROW_BYTES: usize = 32 << 10;
const PARTITIONS: u32 = 2;

const SETTINGS: [&str; 6] = [
    "server.shards=2",
    "limits.connections=2100",
    "limits.requests=64",
    "memory.slow_bytes=128 KiB",
    "memory.reply_bytes=16 MiB",
    "memory.max_bytes=496 MiB",
];

fn narrow(address: SocketAddr) -> Peer {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    // Before connecting, because the window is agreed upon there.
    sockopt::set_socket_recv_buffer_size(&socket, NARROW_BYTES).expect("a socket");
    rustix::net::connect(&socket, &address).expect("the broker listens");
    Peer::over(TcpStream::from(socket))
}

/// A consumer that wants everything and reads nothing; every other one asks the core that does not have it.
fn stalled(addresses: &[SocketAddr], topic: TopicId, number: usize) -> Peer {
    let mut peer = narrow(addresses[number % 2]);
    peer.open(1, topic, (number / 2) as u32 % PARTITIONS);
    let subscribe =
        Request::Subscribe { handle: 1, offset: 0, leader_epoch: None, max_bytes: 1 << 20, credit: 1 << 30 };
    peer.send(&subscribe);
    peer
}

/// A producer that begins a batch of 48 KiB, for which it needs memory, and stops in the middle.
fn stopped(addresses: &[SocketAddr], topic: TopicId, number: usize) -> Peer {
    let mut peer = narrow(addresses[number % 2]);
    peer.open(1, topic, (number / 2) as u32 % PARTITIONS);
    let batches = vec![0; 48 << 10];
    let produce = Request::Produce { handle: 1, expected_offset: None, batches: &batches };
    let mut bytes = Vec::new();
    encode_request(&produce, Call { correlation: 7, version: 1 }, &mut bytes);
    peer.send_bytes(&bytes[..20 << 10]);
    peer
}

#[test]
fn a_thousand_consumers_and_a_thousand_producers_that_stop_take_no_more_than_there_is() {
    let place = Place::new(&SETTINGS);
    let broker = place.start();
    let addresses: Vec<SocketAddr> =
        broker.addresses.iter().map(|address| address.parse().expect("an address")).collect();
    story::run(async {
        let client = story::connect(&broker.address).await;
        let topic = client.create_topic("t", PARTITIONS, Durability::Durable).await.expect("it serves");
        let producer = client.producer(ProducerConfig { batch_bytes: 1 << 20, ..ProducerConfig::default() });
        // Three times the live window: consumers who begin at the start read the disk.
        for number in 0..36 {
            let appended = story::append(&producer, &topic, number % PARTITIONS, &[7; 1_000_000]).await;
            assert_eq!(appended, Ok(u64::from(number / PARTITIONS)));
        }
        let consumers: Vec<Peer> = (0..PEERS).map(|n| stalled(&addresses, topic.id(), n)).collect();
        let mut observer = Peer::connect(addresses[0]);
        // Nobody waited for an answer, and every other one has to go through another core.
        let begun = Instant::now();
        while observer.status().subscriptions != PEERS as u64 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", observer.status());
        }
        let producers: Vec<Peer> = (0..PEERS).map(|n| stopped(&addresses, topic.id(), n)).collect();

        // Small records need nothing that the others hold.
        let begun = Instant::now();
        for number in 0..500 {
            let offset = story::append(&producer, &topic, number % PARTITIONS, &[8; 1_000]).await;
            assert_eq!(offset, Ok(u64::from(18 + number / PARTITIONS)), "no reply is lost");
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        // Large ones wait for those who stopped, one after the other, but not for ever; the live window moves on.
        for number in 0..24 {
            let offset = story::append(&producer, &topic, number % PARTITIONS, &[9; 1_000_000]).await;
            assert_eq!(offset, Ok(u64::from(268 + number / PARTITIONS)), "no reply is lost");
        }
        let status = observer.status();
        let (limit, peak) = (status.memory_limit_bytes, broker.peak_bytes());
        assert_eq!(limit, 496 << 20);
        assert!(peak <= limit + limit / 10, "{peak} bytes, {limit} allowed");
        drop((consumers, producers));
        // The records are there for who reads them.
        for partition in 0..PARTITIONS {
            assert_eq!(story::read(&client, &topic, partition).await.len(), 280);
        }
    });
    broker.stop();
}

#[test]
fn a_bound_that_the_pools_alone_exceed_is_refused_with_the_figures() {
    let refused = Place::new(&["memory.max_bytes=64 MiB"]).refused();
    for part in ["`memory.max_bytes` is 64 MiB", "tables of", "log.window_bytes"] {
        assert!(refused.message.contains(part), "{part} in {}", refused.message);
    }
}

/// What a bound must be at least: the sum of what the refusal names, in MiB.
fn least_mib(settings: &[&str]) -> u64 {
    let settings: Vec<&str> = settings.iter().copied().chain(["memory.max_bytes=1 MiB"]).collect();
    let message = Place::new(&settings).refused().message;
    let figures =
        message.split("MiB").filter_map(|text| text.trim_end().rsplit(' ').next()?.parse::<u64>().ok());
    let figures: Vec<u64> = figures.collect();
    assert_eq!((figures.len(), figures[0]), (4, 1), "{message}");
    figures[1..].iter().sum()
}

/// Extents are small and there are many partitions: the index has what is left of the bound long before the disk is full. It
/// grows no more then, reads go on, and a topic that goes makes room.
#[test]
fn an_index_that_has_its_share_takes_no_more_until_a_topic_goes() {
    const MANY: u32 = 900;
    let settings = [
        "log.extent_bytes=1 MiB",
        "log.frame_bytes=64 KiB",
        "limits.max_batch_bytes=128 KiB",
        "limits.max_frame_bytes=256 KiB",
    ];
    let bound = format!("memory.max_bytes={} MiB", least_mib(&settings));
    let place = Place::new(&[&settings[..], &[&bound]].concat());
    let broker = place.start();
    let mut peer = Peer::connect(broker.address.parse().expect("an address"));
    let small = peer.create_topic("small", 1, Durability::Durable);
    peer.open(1, small, 0);
    assert_eq!(peer.produce(1, &batch(small, 0, &[vec![1; 100]])), Ok(0));
    let large = peer.create_topic("large", MANY, Durability::Memory);
    for partition in 0..MANY {
        peer.open(2 + partition, large, partition);
    }
    let mut appended = 0;
    let refused = loop {
        let batches = |partition| batch(large, partition, &[vec![2; 900]]);
        for partition in 0..MANY {
            let handle = 2 + partition;
            peer.send(&Request::Produce { handle, expected_offset: None, batches: &batches(partition) });
        }
        let answers: Vec<_> = (0..MANY).map(|_| peer.receive().expect("an answer").error()).collect();
        if let Some(&refused) = answers.iter().flatten().next() {
            break refused;
        }
        appended += 1;
        assert!(appended < 1_000, "its share is some MiB");
    };
    assert_eq!(refused, ErrorCode::StorageFull);
    assert!(appended > 50, "{appended} records in each partition");
    let why = "[-] log 0 of shard 0: full, `memory.max_bytes` leaves its index no more room\n";
    assert_eq!(wait_for(&broker, "/readyz", 503), why);
    let (records, end) = peer.fetch(2, 0, 1 << 10).expect("reads go on");
    assert!(records[0] == [2; 900] && end >= appended, "{end}");
    let status = peer.status();
    assert!(broker.peak_bytes() <= status.memory_limit_bytes, "{status:?}");

    peer.delete_topic("large");
    assert_eq!(wait_for(&broker, "/readyz", 200), "ok\n");
    assert_eq!(peer.produce(1, &batch(small, 0, &[vec![1; 100]])), Ok(1));
    broker.stop();
}
