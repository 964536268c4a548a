//! What a broker costs while nobody asks it for anything, and how often it enters the kernel while somebody does.
//!
//! The checks run one after the other: each measures a thread, or the process, for a while.

mod support;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;
use std::{env, fs};

use corelog_perf::peer::Peer;
use corelog_testing::Broker;
use corelog_wire::{Request, Response, Status};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use support::alone;
use support::load::Load;
use support::task;

const CONNECTIONS: u32 = 100;
/// How long an idle broker is watched, unless the environment says otherwise.
const WATCHED: Duration = Duration::from_secs(2);
/// Names that time in seconds: the gate's is longer.
const WATCH_SECONDS: &str = "PERF_WATCH_SECONDS";
/// A poll-mode reactor may make this many system calls per millisecond beside those of its ring.
const CALLS_PER_MS: u128 = 5;
/// What they may be, while an extent is prepared: the executor's rings and what it asks of the file, and the opening
/// of it for the shard's ring.
const NAMED: [&str; 9] = [
    "io_uring_enter",
    "fcntl",
    "statfs",
    "futex",
    "membarrier",
    "open",
    "openat",
    "close",
    "io_uring_register",
];
/// A reactor enters its ring for a request and its answer at most so often: to take it, to send the answer and to hear of
/// that.
const ENTERS_OF_AN_ANSWER: u64 = 4;
/// A reactor that polls takes at least so many turns while it is watched.
const TURNS: u64 = 1_000;
/// More requests than the executor enters its rings for the background work of a start.
const PINGS: u32 = 500;
/// Longer than a check takes.
const WAIT_US: u64 = 60_000_000;

fn watched() -> Duration {
    let asked = env::var(WATCH_SECONDS).ok().map(|seconds| seconds.parse().expect("a number of seconds"));
    asked.map_or(WATCHED, Duration::from_secs)
}

/// A hundred connections that say nothing: the reactor looks at memory, not at the kernel, as its own counters say. What
/// else its thread calls is seen by strace alone, where that may look.
#[test]
fn an_idle_reactor_that_polls_does_not_enter_its_ring() {
    let (_alone, watched) = (alone(), watched());
    let broker = Broker::builder().set("server.mode=poll").set("limits.connections=128").start();
    let broker = broker.expect("a broker");
    let mut peers: Vec<Peer> = (0..CONNECTIONS).map(|_| connect(&broker)).collect();
    let ping = |_| {
        let answer = peers[0].ask(&Request::Ping, |_, response| assert_eq!(response, Response::Pong));
        answer.expect("an answer");
    };
    let busy = trace(task::shard(), || (0..PINGS).for_each(ping));
    let before = status(&mut peers[0]);
    // No synchronisation: the time over which it is watched.
    let watch = || thread::sleep(watched);
    let seen = match busy {
        Ok(busy) => Ok((busy, trace(task::shard(), watch).expect("it could be traced before"))),
        Err(refused) => {
            watch();
            Err(refused)
        }
    };
    let after = status(&mut peers[0]);
    let (enters, turns) = (after.enters - before.enters, after.idle_turns - before.idle_turns);
    assert!(turns >= TURNS, "it polls: {turns} turns in {watched:?}");
    assert!(enters <= ENTERS_OF_AN_ANSWER, "{enters} enters in {turns} turns without work");
    match seen {
        Ok((busy, idle)) => check_calls(&busy, &idle, watched),
        Err(refused) => {
            println!("gate: {enters} enters in {turns} turns; other calls are not seen: {refused}")
        }
    }
}

/// What strace saw while pings came and while nothing did. The shard's ring is the one that is entered for requests, which
/// also shows that the trace would see it entered.
fn check_calls(busy: &Calls, idle: &Calls, watched: Duration) {
    let (ring, entered) = busy.enters.iter().max_by_key(|(_, times)| **times).expect("a ring is entered");
    assert!(*entered >= PINGS, "each ping came alone: {busy:?}");
    println!("{CONNECTIONS} idle connections, {watched:?}: {idle:?}; {entered} enters for {PINGS} pings");
    let entered = idle.enters.get(ring).copied().unwrap_or(0);
    let others = idle.by_name.values().sum::<u32>() - entered;
    let unnamed = |name: &&String| !NAMED.contains(&name.as_str());
    println!("gate: idle_enters {entered}");
    println!("gate: idle_calls_per_ms {}", f64::from(others) / (watched.as_secs_f64() * 1e3));
    println!("gate: unnamed_calls {}", idle.by_name.keys().filter(unnamed).count());
    println!("gate: in {watched:?} its thread called {:?}", idle.by_name);
    assert_eq!(entered, 0, "the shard's ring {ring} is not entered: {idle:?}");
    assert!(u128::from(others) <= CALLS_PER_MS * watched.as_millis(), "few other calls: {idle:?}");
    assert_eq!(idle.by_name.keys().find(unnamed), None, "and known ones: {idle:?}");
}

#[test]
fn a_loaded_reactor_enters_its_ring_at_most_once_a_turn() {
    let _alone = alone();
    for mode in ["poll", "adaptive"] {
        let broker = Broker::builder().set(format!("server.mode={mode}")).start().expect("a broker");
        let mut other = connect(&broker);
        let mut load = Load::start(broker.address(), 2, 16);
        let before = status(&mut other);
        load.run(2_000);
        let after = status(&mut other);
        // Turns with work: that an idle one enters nothing is the other check's.
        let (enters, turns) = (after.enters - before.enters, after.turns - before.turns);
        println!("gate: {mode}: {enters} enters in {turns} turns for 4,000 batches");
        println!("gate: enters_per_turn {}", after.most_enters);
        assert!(enters > 0 && enters <= turns, "{mode}: {enters} enters in {turns} turns");
        assert_eq!(after.most_enters, 1, "{mode}: and no turn makes up for another");
        let others = |status: &Status| status.system_calls - status.enters;
        assert!(others(&before) > 0, "files and sockets were taken over by other calls");
        // Hardly anything is taken over meanwhile and nothing sleeps: it lets the disk's work run, often in each write.
        let called = others(&after) - others(&before);
        assert!(mode != "poll" || called > turns, "{mode}: {called} other calls in {turns} turns with work");
    }
}

/// A thousand partitions and a hundred consumers that wait for records: sleeping costs next to nothing.
#[test]
fn a_broker_that_parks_uses_less_than_a_hundredth_of_a_core() {
    let _alone = alone();
    let broker = Broker::builder().set("server.mode=park").set("limits.connections=128").start();
    let broker = broker.expect("a broker");
    let topic = connect(&broker).create_topic("quiet", 1_000).expect("a topic");
    let peers: Vec<Peer> = (0..CONNECTIONS)
        .map(|at| {
            let mut peer = connect(&broker);
            peer.open(topic, 10 * at).expect("its partition");
            peer.queue(&Request::Fetch {
                handle: 10 * at + 1,
                offset: 0,
                leader_epoch: None,
                max_bytes: 1 << 20,
                min_bytes: 1,
                max_wait_us: WAIT_US,
            });
            peer.flush().expect("the broker takes the bytes");
            peer
        })
        .collect();
    let mut other = connect(&broker);
    assert_eq!(status(&mut other).partitions, 1_000);
    let before = process_cpu();
    // No synchronisation: the time over which it is watched.
    thread::sleep(WATCHED);
    let used = process_cpu() - before;
    println!("{CONNECTIONS} waiting fetches on 1,000 partitions: {used:?} of {WATCHED:?}");
    assert!(used < WATCHED / 100, "{used:?} of CPU in {WATCHED:?}");
    drop(peers);
}

fn connect(broker: &Broker) -> Peer {
    Peer::connect(broker.address()).expect("the broker listens")
}

fn status(peer: &mut Peer) -> Status {
    peer.status().expect("the counters")
}

/// All threads of this process; those of the checks themselves sleep.
fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// System calls of one thread.
#[derive(Debug, Default)]
struct Calls {
    by_name: BTreeMap<String, u32>,
    /// Enters of each ring, by its descriptor.
    enters: BTreeMap<String, u32>,
}

/// The system calls that a thread of this process makes meanwhile; an error says why they cannot be seen here.
fn trace(thread: i32, meanwhile: impl FnOnce()) -> Result<Calls, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = directory.path().join("calls");
    let mut command = Command::new("strace");
    command.args(["-p", &thread.to_string(), "-o"]).arg(&path).stderr(Stdio::piped());
    let mut strace = match command.spawn() {
        Ok(strace) => strace,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err("there is no strace".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let attached = attached(&mut strace);
    if attached.is_ok() {
        meanwhile();
        let id = i32::try_from(strace.id()).ok().and_then(Pid::from_raw).expect("a child has an id");
        kill_process(id, Signal::INT).expect("a child can be interrupted");
    }
    strace.wait().expect("a child ends");
    attached?;
    let mut calls = Calls::default();
    for line in fs::read_to_string(&path).expect("strace has written it").lines() {
        let Some((name, arguments)) = line.split_once('(') else { continue };
        *calls.by_name.entry(name.to_owned()).or_default() += 1;
        if name == "io_uring_enter" {
            let ring = arguments.split(',').next().unwrap_or_default();
            *calls.enters.entry(ring.to_owned()).or_default() += 1;
        }
    }
    Ok(calls)
}

/// Waits until strace has the thread.
fn attached(strace: &mut Child) -> Result<(), String> {
    let mut said = BufReader::new(strace.stderr.take().expect("it is piped"));
    let mut line = String::new();
    said.read_line(&mut line).map_err(|error| error.to_string())?;
    if line.contains("attached") {
        // Kept open until its end, for it says that it detaches.
        thread::spawn(move || said.read_to_string(&mut line));
        return Ok(());
    }
    Err(line)
}
