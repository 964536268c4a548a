//! The mail between cores: nothing is lost, turned round or left beside a core that sleeps.

use std::fs::File;
use std::time::{Duration, Instant};

use corelog_shard::ConnId;
use corelog_uring::ring::RingConfig;

use super::*;

/// Far longer than any test.
const LONG: Duration = Duration::from_secs(60);

/// Cores that are awake.
fn cores<const N: usize>() -> [Post; N] {
    posts(&Doors::new(N), LANE_PARCELS).try_into().expect("as many as doors")
}

fn parcel(number: u32) -> Parcel {
    Parcel::Hurry(ConnId { slot: number, generation: 0 })
}

/// Sends as many parcels as there are numbers to a core, without looking who sleeps.
fn send(from: &mut Post, to: usize, numbers: std::ops::Range<usize>) {
    let mut parcels = numbers.map(|number| (to, parcel(number as u32))).collect();
    from.put(&mut parcels);
    assert!(parcels.is_empty());
    from.fill();
}

/// What has come to a core: from which one, and its number.
fn collect(post: &mut Post) -> Vec<(usize, usize)> {
    let mut arrived = Vec::new();
    post.collect(&mut arrived);
    let number = |(from, parcel)| match parcel {
        Parcel::Hurry(conn) => (from, conn.slot as usize),
        other => panic!("{other:?}"),
    };
    arrived.into_iter().map(number).collect()
}

/// Whom a core has to wake.
fn to_wake(post: &mut Post) -> Vec<usize> {
    post.sleepers().map(|(core, _)| core).collect()
}

fn ring() -> Ring {
    let config = RingConfig { operations: 4, sockets: 1, files: 1, regions: 1, register_buffers: false };
    Ring::new(&config).expect("io_uring")
}

#[test]
fn every_core_gets_what_was_sent_to_it_in_order_and_nothing_else() {
    let mut cores = cores::<3>();
    // From each to each other, in parts that differ, collected now and then.
    let mut sent = [[0; 3]; 3];
    let mut got = [[0; 3]; 3];
    for round in 0..200 {
        let (from, to) = (round % 3, (round + 1 + round / 3 % 2) % 3);
        let next = sent[from][to] + round * 7 % 40;
        send(&mut cores[from], to, sent[from][to]..next);
        sent[from][to] = next;
        let reader = round / 2 % 3;
        for (from, number) in collect(&mut cores[reader]) {
            assert_eq!(number, got[from][reader], "from {from} to {reader}");
            got[from][reader] += 1;
        }
    }
    for (reader, post) in cores.iter_mut().enumerate() {
        for (from, number) in collect(post) {
            assert_eq!(number, got[from][reader], "from {from} to {reader}");
            got[from][reader] += 1;
        }
    }
    assert_eq!(got, sent);
    assert!((0..3).all(|core| sent[core][core] == 0 && sent[core].iter().sum::<usize>() > 500), "{sent:?}");
}

#[test]
fn what_a_full_lane_has_no_room_for_comes_later_and_in_order() {
    const ALL: usize = LANE_PARCELS + 2 * PARCELS_A_TURN + 1;
    let [mut here, mut there] = cores();
    send(&mut here, 1, 0..LANE_PARCELS);
    assert!(!here.is_behind(), "a lane holds so many");
    send(&mut here, 1, LANE_PARCELS..ALL - 1);
    assert!(here.is_behind() && !here.fill(), "there is no room");
    let mut got = Vec::new();
    while here.is_behind() {
        let arrived = collect(&mut there);
        assert_eq!(arrived.len(), PARCELS_A_TURN, "a turn's share");
        got.extend(arrived);
        assert!(here.fill(), "there is room again");
    }
    send(&mut here, 1, ALL - 1..ALL);
    assert!(here.is_behind(), "it is full again");
    for _ in 0..ALL / PARCELS_A_TURN {
        got.extend(collect(&mut there));
        here.fill();
    }
    assert_eq!(got, (0..ALL).map(|number| (0, number)).collect::<Vec<_>>());
    assert_eq!(collect(&mut there), []);
}

#[test]
fn a_core_that_sleeps_is_woken_once_and_one_that_is_awake_never() {
    let [mut here, mut there, mut third] = cores();
    send(&mut here, 1, 0..3);
    assert_eq!(to_wake(&mut here), [], "it is awake and will look");
    assert!(!there.may_sleep(), "something has come meanwhile");
    there.awake();
    assert_eq!(collect(&mut there).len(), 3);

    assert!(there.may_sleep());
    assert_eq!(to_wake(&mut here), [], "it has seen what was sent before it slept");
    send(&mut here, 1, 3..4);
    send(&mut third, 1, 0..1);
    assert_eq!(
        (to_wake(&mut here), to_wake(&mut third)),
        (vec![1], vec![]),
        "one of those who sent wakes it"
    );
    send(&mut here, 1, 4..5);
    assert_eq!(to_wake(&mut here), [], "it is on its way");
    there.awake();
    assert_eq!(collect(&mut there), [(0, 3), (0, 4), (2, 0)]);

    assert!(there.may_sleep() && third.may_sleep());
    send(&mut here, 2, 0..1);
    assert_eq!(to_wake(&mut here), [2], "the other has nothing to look at");
}

/// The receiver may be long in taking anything: while it starts, or where it shares a processor with who spins.
#[test]
fn a_core_that_waits_for_room_sleeps_until_there_is_some() {
    let [mut here, mut there, mut third] = cores();
    send(&mut here, 1, 0..LANE_PARCELS + 1);
    assert!(here.may_sleep(), "nothing can be done before the other takes something");
    assert_eq!(to_wake(&mut there), [], "it has not");
    send(&mut third, 0, 0..1);
    assert_eq!(to_wake(&mut third), [0], "others are heard");
    here.awake();
    assert_eq!(collect(&mut here), [(2, 0)]);

    assert!(here.may_sleep());
    assert_eq!(collect(&mut there).len(), PARCELS_A_TURN);
    assert_eq!(to_wake(&mut there), [0], "there is room");
    here.awake();
    assert!(!here.may_sleep(), "what there is room for is to be sent first");
    here.awake();
    assert!(here.fill() && !here.is_behind());
    assert_eq!(to_wake(&mut here), []);
    assert!(here.may_sleep());
    collect(&mut there);
    assert_eq!(to_wake(&mut there), [], "it waits for no room any more");
}

/// Two that have filled each other's lanes: neither sleeps, and taking in makes room.
#[test]
fn two_cores_that_are_both_behind_do_not_wait_for_each_other() {
    const ALL: usize = 3 * LANE_PARCELS;
    let mut cores = cores::<2>();
    let mut got = [0; 2];
    for (core, post) in cores.iter_mut().enumerate() {
        send(post, 1 - core, 0..ALL);
    }
    for _ in 0..=ALL / PARCELS_A_TURN {
        for (core, post) in cores.iter_mut().enumerate() {
            assert!(!post.may_sleep() || got[core] == ALL, "{got:?}");
            post.awake();
            got[core] += collect(post).len();
            post.fill();
        }
    }
    assert_eq!(got, [ALL; 2]);
    assert!(cores.iter_mut().all(|post| post.may_sleep() && !post.is_behind()));
}

#[test]
fn a_parcel_ends_the_sleep_of_the_core_it_is_for() {
    let [mut here, mut there] = cores();
    let (mut ring, mut sleeper) = (ring(), ring());
    there.open(&sleeper).expect("a descriptor");
    assert!(there.may_sleep());
    here.send(&mut vec![(1, parcel(7))], &mut ring);
    ring.submit().expect("submitted");
    let start = Instant::now();
    sleeper.park(LONG).expect("knocked at");
    assert!(start.elapsed() < LONG, "the sleep did not take its time");
    there.awake();
    assert_eq!(collect(&mut there), [(0, 7)]);
}

/// The kernel refuses a message to a ring, as it may for want of memory. Who sends next does not knock, since the core has
/// been told to wake as far as its word says.
#[test]
fn a_knock_that_does_not_arrive_is_made_up_for() {
    let doors = Doors::new(2);
    let [mut here, mut there] = <[Post; 2]>::try_from(posts(&doors, LANE_PARCELS)).expect("two");
    let (mut ring, mut sleeper) = (ring(), ring());
    let no_ring = OwnedFd::from(File::open("/dev/null").expect("it is there"));
    doors.0[1].ring.set(no_ring).expect("none so far");
    doors.0[1].waker.set(sleeper.waker()).expect("none so far");
    assert!(there.may_sleep());
    here.send(&mut vec![(1, parcel(7))], &mut ring);
    ring.submit().expect("submitted");
    ring.completions(&mut Vec::new());
    assert_eq!(ring.unheard(), Some(1));
    here.unheard(1);
    let start = Instant::now();
    sleeper.park(LONG).expect("woken");
    assert!(start.elapsed() < LONG, "the sleep did not take its time");
    there.awake();
    assert_eq!(collect(&mut there), [(0, 7)]);
}
