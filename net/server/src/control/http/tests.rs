//! What a peer gets, and what it may not do.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use corelog_shard::ShardStatus;
use corelog_storage::LogStats;

use super::*;
use crate::control::Control;
use crate::post::Doors;
use crate::roll::{Seat, roll};
use crate::status::Snapshot;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A control plane, and cores that answer it.
struct Bed {
    control: Control,
    stop: Stop,
    over: Arc<AtomicBool>,
    cores: Vec<JoinHandle<()>>,
    /// Of cores that take no turns.
    _seats: Vec<Seat>,
}

impl Bed {
    /// Each core says this, or takes no turns.
    fn start(limits: Limits, cores: Vec<Option<Snapshot>>) -> Self {
        let (roll, seats) = roll(cores.iter().map(|_| 1), Doors::new(cores.len()));
        let (stop, over) = (Stop::new(), Arc::new(AtomicBool::new(false)));
        let broker = Broker { roll, stop: stop.clone(), logs: cores.len() as u16, limits };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let control = Control::start(address, broker, Vec::new()).expect("a free port");
        let (mut threads, mut silent) = (Vec::new(), Vec::new());
        for (mut seat, says) in seats.into_iter().zip(cores) {
            seat.sit();
            let Some(says) = says else {
                silent.push(seat);
                continue;
            };
            let over = Arc::clone(&over);
            threads.push(thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if let Some(call) = seat.called() {
                        seat.answer(call, |place| place.clone_from(&says));
                    }
                    thread::yield_now();
                }
            }));
        }
        Self { control, stop, over, cores: threads, _seats: silent }
    }

    fn connect(&self) -> TcpStream {
        let peer = TcpStream::connect(self.control.address()).expect("it listens");
        peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        peer
    }

    /// The whole answer to a request line with these headers.
    fn ask(&self, line: &str, headers: &str) -> String {
        let mut peer = self.connect();
        write!(peer, "{line} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").expect("it is taken");
        let mut answer = String::new();
        peer.read_to_string(&mut answer).expect("an answer, and the end");
        answer
    }

    fn get(&self, path: &str) -> (u16, String) {
        let answer = self.ask(&format!("GET {path}"), "");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), body.to_owned())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.cores.drain(..).for_each(|core| core.join().expect("it ends"));
    }
}

fn well() -> Option<Snapshot> {
    Some(Snapshot { joined: true, logs: vec![ShardStatus::default()], ..Snapshot::default() })
}

#[test]
fn a_broker_that_is_well_says_so_on_every_path() {
    let bed = Bed::start(Limits::default(), vec![well(), well()]);
    for path in ["/livez", "/readyz", "/healthz", "/healthz?verbose=false"] {
        assert_eq!(bed.get(path), (200, "ok\n".to_owned()), "{path}");
    }
    let all = "[+] broker: running\n[+] shard 0: serving\n[+] log 0 of shard 0: writable\n[+] shard 1: serving\n\
               [+] log 0 of shard 1: writable\n";
    for query in ["verbose", "a=b&verbose=true", "verbose="] {
        assert_eq!(bed.get(&format!("/healthz?{query}")), (200, all.to_owned()), "{query}");
    }
    let (status, page) = bed.get("/metrics");
    assert!(status == 200 && page.contains("\ncorelog_shard_serving{shard=\"1\"} 1\n"), "{page}");
}

#[test]
fn a_page_is_written_as_its_reader_asks() {
    let bed = Bed::start(Limits::default(), vec![well()]);
    let classic = bed.ask("GET /metrics", "Accept: text/plain\r\n");
    assert!(classic.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{classic}");
    assert!(classic.contains("# TYPE corelog_requests_total counter\n") && !classic.contains("# EOF"));
    let open = bed.ask("GET /metrics", "Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n");
    let head = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(open.contains(head), "{open}");
    assert!(open.contains("# TYPE corelog_requests counter\n") && open.ends_with("# EOF\n"), "{open}");
    assert!(open.contains("cache-control: no-store\r\n"));
}

#[test]
fn other_paths_and_methods_are_refused() {
    let bed = Bed::start(Limits::default(), vec![well()]);
    for path in ["/", "/metric", "/metrics/", "/livez/0"] {
        assert_eq!(bed.get(path).0, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "NONSENSE"] {
        let answer = bed.ask(&format!("{method} /readyz"), "");
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET,HEAD\r\n"), "{answer}");
    }
    let head = bed.ask("HEAD /healthz", "");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let nonsense = bed.ask("nonsense", "");
    assert!(nonsense.starts_with("HTTP/1.1 400 "), "{nonsense}");
}

#[test]
fn why_a_broker_is_not_well_is_said() {
    let storage = LogStats { read_only: true, ..LogStats::default() };
    let failed =
        Snapshot { logs: vec![ShardStatus { storage, ..ShardStatus::default() }], ..well().expect("one") };
    let bed = Bed::start(Limits::default(), vec![well(), Some(failed)]);
    let why = "[-] log 0 of shard 1: read-only, its disk failed\n";
    assert_eq!(bed.get("/livez"), (200, "ok\n".to_owned()));
    // The other log takes records: clients are sent here, and the page says what they will not find.
    let named = "[!] log 0 of shard 1: read-only, its disk failed\n";
    assert_eq!(bed.get("/readyz"), (200, named.to_owned()));
    let (status, lines) = bed.get("/readyz?verbose");
    assert!(status == 200 && lines.ends_with(named) && lines.matches("[+]").count() == 4, "{lines}");
    let (status, lines) = bed.get("/healthz?verbose");
    assert!(status == 503 && lines.ends_with(why) && lines.lines().count() == 5, "{lines}");
    bed.stop.stop();
    assert_eq!(bed.get("/readyz"), (503, format!("[-] broker: stopping\n{named}")));
    assert_eq!(bed.get("/livez").0, 200, "it is left to stop");
}

#[test]
fn a_broker_none_of_whose_logs_takes_records_is_sent_no_clients() {
    let with = |storage| {
        let logs = vec![ShardStatus { storage, ..ShardStatus::default() }];
        Some(Snapshot { logs, ..well().expect("one") })
    };
    let (failed, full) =
        (LogStats { read_only: true, ..LogStats::default() }, LogStats { full: true, ..LogStats::default() });
    let bed = Bed::start(Limits::default(), vec![with(failed), with(full)]);
    let why = "[-] log 0 of shard 0: read-only, its disk failed\n\
               [-] log 0 of shard 1: full, its disk has no more room\n";
    assert_eq!(bed.get("/readyz"), (503, why.to_owned()));
    assert_eq!(bed.get("/healthz"), (503, why.to_owned()));
    assert_eq!(bed.get("/livez"), (200, "ok\n".to_owned()));
}

#[test]
fn a_core_that_takes_no_turns_is_named_and_the_page_says_that_it_is_not_whole() {
    let bed = Bed::start(Limits::default(), vec![well(), None]);
    assert_eq!(bed.get("/livez"), (503, "[-] shard 1: takes no turns\n".to_owned()));
    let (status, page) = bed.get("/metrics");
    assert_eq!(status, 200);
    let there = [
        "\ncorelog_scrape_complete 0\n",
        "\ncorelog_shard_answered{shard=\"0\"} 1\n",
        "\ncorelog_shard_answered{shard=\"1\"} 0\n",
        "\ncorelog_requests_total{shard=\"0\"} 0\n",
    ];
    assert!(there.iter().all(|line| page.contains(line)), "{page}");
    assert!(!page.contains("corelog_requests_total{shard=\"1\"}"), "{page}");
}

/// As many as there may be, that say nothing, or half of a head, or ask and do not read.
#[test]
fn peers_that_are_slow_lose_their_connection_and_others_get_their_turn() {
    let limits = Limits {
        connections: 3,
        head_time: Duration::from_millis(100),
        connection_time: Duration::from_millis(300),
    };
    let bed = Bed::start(limits, vec![well()]);
    let slow: Vec<TcpStream> = ["", "GET /livez HTTP/1.1\r\nHos", "\r\n"]
        .into_iter()
        .map(|said| {
            let mut peer = bed.connect();
            peer.write_all(said.as_bytes()).expect("it is taken");
            peer
        })
        .collect();
    assert_eq!(bed.get("/livez").0, 200);
    for mut peer in slow {
        let mut rest = Vec::new();
        // The end, or a reset: over in any case.
        let ended = peer.read_to_end(&mut rest);
        let waited = ended.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        assert!(!waited && !rest.starts_with(b"HTTP/1.1 200"), "{ended:?}");
    }
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let bed = Bed::start(Limits::default(), vec![well()]);
    let mut peer = bed.connect();
    let long = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(4 * HEAD_BYTES));
    // It may be refused, and the connection gone, before all of it is taken.
    let _ = peer.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _ = peer.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(bed.get("/livez").0, 200, "the others are served");
}

#[test]
fn a_control_plane_that_ends_leaves_nothing_and_one_that_cannot_begin_names_the_key() {
    let bed = Bed::start(Limits::default(), vec![well()]);
    let address = bed.control.address();
    let taken = || {
        let (roll, _) = roll([1], Doors::new(1));
        let broker = Broker { roll, stop: Stop::new(), logs: 1, limits: Limits::default() };
        Control::start(address, broker, Vec::new())
    };
    let error = taken().expect_err("it is taken").to_string();
    assert!(error.starts_with(&format!("`server.http`: cannot listen on {address}: ")), "{error}");
    // A request that is under way does not keep it.
    let mut half = bed.connect();
    half.write_all(b"GET /").expect("it is taken");
    drop(bed);
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
    drop(taken().expect("it is free again"));
}
