//! Short requests for long answers: what peers do not read is held for them up to a bound.

use corelog_wire::Which;

use super::abroad::{ABROAD, HERE, Two};
use super::*;
use crate::core::serve::OWN_QUEUED_BYTES;

/// A connection that does not read them makes the broker hold few at a time.
#[test]
fn a_connection_that_asks_for_metadata_again_and_again_is_answered_as_it_reads() {
    let mut bed = Bed::new(7);
    let peer = bed.peer();
    bed.send(
        peer,
        1,
        &Request::CreateTopic {
            name: "t",
            partitions: 1_000,
            durability: Durability::Memory,
            retention: corelog_model::RetentionChange::NONE,
        },
    );
    bed.settle();
    assert!(matches!(bed.answers(peer)[..], [(1, Answer::TopicCreated(_))]));
    bed.fake.sockets[peer].window = 0;
    for correlation in 10..60 {
        bed.send(peer, correlation, &Request::Metadata { topic: None });
    }
    bed.settle();
    let most: usize = bed.core.connections.iter().flatten().map(|open| open.outbox.queued_bytes()).sum();
    bed.fake.sockets[peer].window = usize::MAX;
    bed.settle();
    let one = bed.fake.sockets[peer].outgoing.len() / 50;
    let expected: Vec<_> = (10..60).map(|correlation| (correlation, Answer::Other)).collect();
    assert_eq!(bed.answers(peer), expected, "each of them is answered in the end");
    assert!(one > 5_000 && most <= OWN_QUEUED_BYTES + one, "{most} bytes, {one} each");
}

/// The same with many connections: together they hold what the memory for replies is, and one reply each beyond it.
#[test]
fn connections_that_read_nothing_share_the_memory_for_replies() {
    let mut bed = Bed::new(8);
    let maker = bed.peer();
    for name in ["a", "b", "c", "d", "e"] {
        bed.send(
            maker,
            1,
            &Request::CreateTopic {
                name,
                partitions: 2_000,
                durability: Durability::Memory,
                retention: corelog_model::RetentionChange::NONE,
            },
        );
        bed.settle();
        assert!(matches!(bed.answers(maker)[..], [(1, Answer::TopicCreated(_))]));
    }
    bed.send(maker, 2, &Request::Metadata { topic: None });
    bed.settle();
    let one = bed.fake.sockets[maker].outgoing.len();
    assert!(one > OWN_QUEUED_BYTES, "{one}");
    bed.answers(maker);
    let peers: Vec<usize> = (1..CONNECTIONS).map(|_| bed.peer()).collect();
    for &peer in &peers {
        bed.fake.sockets[peer].window = 0;
        for correlation in 0..20 {
            bed.send(peer, correlation, &Request::Metadata { topic: None });
            bed.send(peer, 100 + correlation, &Request::Ping);
        }
    }
    bed.settle();
    let held = bed.core.replies.used();
    assert!(held >= REPLY_BYTES && held <= REPLY_BYTES + 2 * one * peers.len(), "{held} bytes, {one} each");
    for &peer in &peers {
        bed.fake.sockets[peer].window = usize::MAX;
    }
    bed.settle();
    for peer in peers {
        assert_eq!(bed.answers(peer).len(), 40, "each of them is answered in the end");
    }
    assert_eq!(bed.core.replies.used(), 0, "and the memory is given back");
}

/// Frames that commit more positions than one answer lists.
fn commits(handle: u32) -> Vec<u8> {
    let metadata = "m".repeat(255);
    let names = (100..140).map(|number| format!("{number}{}", "n".repeat(252)));
    let commit = |(correlation, name): (u64, String)| {
        let (offset, leader_epoch, metadata) = (0, None, &*metadata);
        let commit = Request::CommitPosition { handle, name: &name, offset, leader_epoch, metadata };
        encoded(correlation, &commit)
    };
    (0..).zip(names).flat_map(commit).collect()
}

/// A list of positions is shorter than the metadata of all topics, but as many as a connection may have requests come of
/// one turn, from whichever core.
#[test]
fn connections_that_read_no_lists_of_positions_share_the_memory_for_replies() {
    const LISTS: u64 = 50;
    for handle in [HERE, ABROAD] {
        let mut two = Two::new(10);
        let (maker, topic) = two.maker(Durability::Memory);
        two.beds[0].fake.sockets[maker].incoming.extend(commits(handle));
        two.settle();
        let committed: Vec<_> = (0..40).map(|correlation| (correlation, Answer::Other)).collect();
        assert_eq!(two.beds[0].answers(maker), committed);
        let list = Request::ReadPositions { handle, which: Which::After("") };
        two.beds[0].send(maker, 1, &list);
        two.settle();
        let one = two.beds[0].fake.sockets[maker].outgoing.len();
        assert!(one > 12 << 10, "{one}");
        assert_eq!(two.beds[0].answers(maker), [(1, Answer::Other)]);

        let peers: Vec<usize> = (1..CONNECTIONS).map(|_| two.peer(0)).collect();
        for &peer in &peers {
            two.open(peer, topic);
            two.beds[0].fake.sockets[peer].window = 0;
            (0..LISTS).for_each(|correlation| two.beds[0].send(peer, correlation, &list));
            two.beds[0].send(peer, LISTS, &Request::Ping);
        }
        two.settle();
        let core = &two.beds[0].core;
        let queued: usize = core.connections.iter().flatten().map(|open| open.outbox.own_bytes()).sum();
        assert!(core.replies.is_full(), "handle {handle}: {} bytes", core.replies.used());
        assert!(queued <= REPLY_BYTES + one * peers.len(), "handle {handle}: {queued} bytes, {one} each");
        for &peer in &peers {
            two.beds[0].fake.sockets[peer].window = usize::MAX;
        }
        two.settle();
        for peer in peers {
            let expected = (0..LISTS).map(|correlation| (correlation, Answer::Other));
            let mut answers = two.beds[0].answers(peer);
            // The last list may still be on its way from the other core when the request behind it is answered.
            let pong = answers.iter().position(|answer| *answer == (LISTS, Answer::Pong));
            answers.remove(pong.expect("it is answered, too"));
            let expected: Vec<_> = expected.collect();
            assert_eq!(answers, expected, "each of them is answered in the end, in order");
        }
        assert_eq!(two.beds[0].core.replies.used(), 0, "and the memory is given back");
    }
}
