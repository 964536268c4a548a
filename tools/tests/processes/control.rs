//! Metrics and health of a running broker, as its operator's tools ask for them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use corelog_client::Durability;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::broker::{Broker, Place, output};
use crate::peer::{Peer, batch};
use crate::story;

/// Far longer than an answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the broker answers to a GET: status and body.
#[track_caller]
fn get(broker: &Broker, path: &str) -> (u16, String) {
    let http = broker.http.as_ref().expect("the ready line names it");
    try_get(http, path).expect("it answers")
}

fn try_get(http: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut peer = TcpStream::connect(http)?;
    peer.set_read_timeout(Some(PATIENCE))?;
    write!(peer, "GET {path} HTTP/1.1\r\nHost: {http}\r\n\r\n")?;
    let mut answer = String::new();
    peer.read_to_string(&mut answer)?;
    // A broker that ends does not answer what it has taken.
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.expect("a status"), body.to_owned()))
}

/// A page of metrics, taken apart.
#[derive(Debug)]
struct Page {
    samples: BTreeMap<String, f64>,
    counters: Vec<String>,
}

impl Page {
    /// One that every shard had its part in: on a busy machine some may not get to it in time.
    #[track_caller]
    fn of(broker: &Broker) -> Self {
        let begin = Instant::now();
        loop {
            let (status, text) = get(broker, "/metrics");
            assert_eq!(status, 200, "{text}");
            let page = Self::parse(&text);
            if page.sum("corelog_scrape_complete") == 1.0 {
                return page;
            }
            assert!(begin.elapsed() < PATIENCE, "{text}");
        }
    }

    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        let counters = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"));
        Self { samples: samples.collect(), counters: counters.map(str::to_owned).collect() }
    }

    /// Of all samples with this name.
    #[track_caller]
    fn sum(&self, name: &str) -> f64 {
        let of_name = |sample: &str| sample.split('{').next() == Some(name);
        let values: Vec<f64> =
            self.samples.iter().filter(|(sample, _)| of_name(sample)).map(|(_, value)| *value).collect();
        assert!(!values.is_empty(), "there is {name}: {:?}", self.samples.keys());
        values.iter().sum()
    }

    /// Every counter that was there before is there, and no less.
    #[track_caller]
    fn assert_after(&self, before: &Self) {
        for (sample, value) in &before.samples {
            let name = sample.split('{').next().expect("a name");
            if before.counters.iter().any(|counter| counter == name) || name.contains("_seconds_bucket") {
                let now = self.samples.get(sample);
                assert!(now.is_some_and(|now| now >= value), "{sample}: {value}, then {now:?}");
            }
        }
    }
}

/// Asks until the answer is this, and gives back its body.
#[track_caller]
pub(crate) fn wait_for(broker: &Broker, path: &str, status: u16) -> String {
    let begin = Instant::now();
    loop {
        let (found, body) = get(broker, path);
        if found == status {
            return body;
        }
        assert!(begin.elapsed() < PATIENCE, "{path} answers {found}: {body}");
        thread::yield_now();
    }
}

/// Says so when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs until it is told that enough was seen; answers how many records were acknowledged.
fn load(address: &str, over: &AtomicBool) -> u64 {
    let mut peer = Peer::connect(address.parse().expect("an address"));
    let topic = peer.create_topic("load", 1, Durability::Durable);
    peer.open(1, topic, 0);
    let mut records = 0;
    while !over.load(Ordering::Relaxed) {
        peer.produce(1, &batch(topic, 0, &[vec![7; 1_000], vec![8; 1_000]])).expect("it is taken");
        records += 2;
    }
    records
}

#[test]
fn counters_rise_under_load_and_agree_with_status() {
    const PAGES: usize = 50;
    let place = Place::new(&[]);
    let broker = place.start();
    let over = AtomicBool::new(false);
    let records = thread::scope(|scope| {
        let load = scope.spawn(|| load(&broker.address, &over));
        // However this goes on, the load ends.
        let ends = Ends(&over);
        let mut before = Page::of(&broker);
        for _ in 0..PAGES {
            let page = Page::of(&broker);
            page.assert_after(&before);
            before = page;
        }
        let begin = Instant::now();
        while Page::of(&broker).sum("corelog_produced_records_total") < 1.0 {
            assert!(begin.elapsed() < PATIENCE, "the load produces");
        }
        drop(ends);
        load.join().expect("it ends")
    });
    let mut peer = Peer::connect(broker.address.parse().expect("an address"));
    // Status between two pages: what only rises lies between theirs.
    let before = Page::of(&broker);
    let status = peer.status();
    let after = Page::of(&broker);
    after.assert_after(&before);
    for (name, value) in [
        ("corelog_produced_records_total", status.records),
        ("corelog_produced_batches_total", status.batches),
        ("corelog_produced_bytes_total", status.bytes_accepted),
        ("corelog_topics", status.topics),
        ("corelog_partitions", status.partitions),
        ("corelog_connections", status.connections),
        ("corelog_logs", status.logs),
        ("corelog_log_term", status.term),
    ] {
        assert_eq!((before.sum(name), after.sum(name)), (value as f64, value as f64), "{name}");
    }
    for (name, value) in [
        ("corelog_log_frames_total", status.frames),
        ("corelog_log_written_bytes_total", status.bytes_written),
        ("corelog_requests_total", status.requests),
        ("corelog_requests_refused_total", status.refusals),
        ("corelog_reactor_turns_total", status.turns),
        ("corelog_reactor_idle_turns_total", status.idle_turns),
        ("corelog_reactor_ring_enters_total", status.enters),
        ("corelog_reactor_system_calls_total", status.system_calls),
        ("corelog_reactor_turn_seconds_count", status.hiccup_count),
    ] {
        let (low, high) = (before.sum(name), after.sum(name));
        assert!(low <= value as f64 && value as f64 <= high, "{name}: {low}, {value}, {high}");
    }
    for (name, us) in [
        ("corelog_uptime_seconds", status.uptime_us),
        ("corelog_process_cpu_seconds_total", status.cpu_us),
        ("corelog_reactor_busy_seconds_total", status.busy_us),
        ("corelog_reactor_polling_seconds_total", status.polling_us),
        ("corelog_reactor_awake_seconds_total", status.awake_us),
    ] {
        let (low, value, high) = (before.sum(name), us as f64 / 1e6, after.sum(name));
        assert!(low <= value && value <= high, "{name}: {low}, {value}, {high}");
    }
    assert_eq!(status.records, records);
    assert!(after.sum("corelog_process_resident_bytes") > 1e6);
    let (used, limit) = (after.sum("corelog_memory_used_bytes"), after.sum("corelog_memory_limit_bytes"));
    assert!(0.0 < used && used <= limit, "{used} of {limit}");
    broker.stop();
}

#[test]
fn every_shard_and_every_log_is_on_the_page() {
    let place = Place::new(&[]);
    // Three logs, of which the first of two shards serves two.
    place.again(&["server.shards=3".to_owned()]).start().stop();
    let broker = place.again(&["server.shards=2".to_owned()]).start();
    output(&["topic", "create", "t", "--partitions", "6", "--server", &broker.address]);
    let page = Page::of(&broker);
    for (name, value) in [("corelog_shards", 2.0), ("corelog_logs", 3.0), ("corelog_topics", 1.0)] {
        assert_eq!(page.sum(name), value, "{name}");
    }
    assert_eq!(page.sum("corelog_partitions"), 6.0);
    for sample in [
        "corelog_shard_serving{shard=\"0\"}",
        "corelog_shard_serving{shard=\"1\"}",
        "corelog_log_frames_total{shard=\"0\",log=\"0\"}",
        "corelog_log_frames_total{shard=\"1\",log=\"1\"}",
        "corelog_log_frames_total{shard=\"0\",log=\"2\"}",
    ] {
        assert!(page.samples.get(sample).is_some_and(|value| *value > 0.0), "{sample}");
    }
    let (status, lines) = get(&broker, "/healthz?verbose");
    let expected = "[+] broker: running\n[+] shard 0: serving\n[+] log 0 of shard 0: writable\n\
                    [+] log 2 of shard 0: writable\n[+] shard 1: serving\n[+] log 1 of shard 1: writable\n";
    assert_eq!((status, lines.as_str()), (200, expected));
    broker.stop();
}

/// Adaptive, with a spin that lasts: one that an answer began would have taken thousands of turns.
#[test]
fn a_broker_that_sleeps_answers_and_sleeps_on() {
    const PAGES: u32 = 20;
    for mode in ["park", "adaptive"] {
        let place = Place::new(&["server.shards=2", &format!("server.mode={mode}"), "server.spin_us=200000"]);
        let broker = place.start();
        let begin = Instant::now();
        let mut rested = false;
        let (before, after) = loop {
            let before = Page::of(&broker);
            let mut after = Page::of(&broker);
            for _ in 1..PAGES {
                let next = Page::of(&broker);
                next.assert_after(&after);
                after = next;
            }
            // What a start leaves to do, and the spin behind it, are over when nothing but the pages of a whole round woke
            // it: the round after that is looked at, if it had no other work either.
            let rose = |name: &str, shard: u32| {
                let sample = format!("{name}{{shard=\"{shard}\"}}");
                after.samples[&sample] > before.samples[&sample]
            };
            let slept = (0..2).all(|shard| rose("corelog_reactor_parks_total", shard));
            let quiet = slept && (0..2).all(|shard| !rose("corelog_reactor_turns_total", shard));
            if rested && quiet {
                break (before, after);
            }
            rested = quiet;
            assert!(begin.elapsed() < PATIENCE, "{mode}: it does not come to rest");
        };
        let turns = "corelog_reactor_idle_turns_total";
        let turns = after.sum(turns) - before.sum(turns);
        assert!(turns < f64::from(PAGES) * 100.0, "{mode}: {turns} turns for {PAGES} pages of two shards");
        broker.stop();
    }
}

/// What a broker says now of all samples with this name.
#[track_caller]
pub(crate) fn sum_of(broker: &Broker, name: &str) -> f64 {
    Page::of(broker).sum(name)
}

/// Every write fails from now on, with EFBIG: as a disk does that is gone, and without the right to make one.
fn forbid_writes(broker: &Broker) {
    let pid = Pid::from_raw(broker.pid() as i32).expect("a process id");
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    prlimit(Some(pid), Resource::Fsize, nothing).expect("a child's limits can be lowered");
}

#[test]
fn a_broker_whose_disk_fails_is_alive_and_not_ready() {
    let mut place = Place::new(&["server.shards=2"]);
    // The signal that goes with it would end the process.
    place.run_by(&["env", "--ignore-signal=XFSZ"]);
    let broker = place.start();
    assert_eq!(get(&broker, "/readyz"), (200, "ok\n".to_owned()));
    let mut peer = Peer::connect(broker.address.parse().expect("an address"));
    // Partition 0 is kept by log 0, partition 1 by log 1.
    let topic = peer.create_topic("t", 2, Durability::Durable);
    for partition in 0..2 {
        peer.open(1 + partition, topic, partition);
        peer.produce(1 + partition, &batch(topic, partition, &[vec![1; 100]])).expect("it is taken");
    }

    forbid_writes(&broker);
    for partition in 0..2 {
        peer.produce(1 + partition, &batch(topic, partition, &[vec![2; 100]])).expect_err("it is not");
        wait_for(&broker, "/healthz", 503);
    }
    let why = wait_for(&broker, "/readyz", 503);
    let of_log_0 = "[-] log 0 of shard 0: read-only, its disk failed\n";
    let of_log_1 = "[-] log 1 of shard 1: read-only, its disk failed\n";
    assert_eq!(why, format!("{of_log_0}{of_log_1}"));
    assert_eq!(get(&broker, "/livez"), (200, "ok\n".to_owned()), "a restart would not mend the disk");
    let (status, lines) = get(&broker, "/healthz?verbose");
    assert!(status == 503 && lines.contains(of_log_0) && lines.contains("[+] shard 1: serving\n"), "{lines}");
    let page = Page::of(&broker);
    assert_eq!(page.samples["corelog_log_read_only{shard=\"0\",log=\"0\"}"], 1.0);
    broker.kill();
}

#[test]
fn damaged_offsets_are_for_an_operator_and_not_for_a_balancer() {
    let place = Place::new(&[]);
    let broker = place.start();
    let mut peer = Peer::connect(broker.address.parse().expect("an address"));
    let topic = peer.create_topic("t", 1, Durability::Durable);
    peer.open(1, topic, 0);
    for value in ["the first record", "the second record"] {
        peer.produce(1, &batch(topic, 0, &[value.into()])).expect("it is taken");
    }
    broker.stop();
    crate::damage::spoil(&place, b"the first record");

    let broker = place.start();
    let found = story::run(async {
        let client = story::connect(&broker.address).await;
        let topic = client.topic("t").await.expect("it is there");
        let config = corelog_client::ConsumerConfig::new(&topic, corelog_client::Position::Start);
        let mut consumer = client.consumer(config).await.expect("it is served");
        consumer.next().await.map(|_| ())
    });
    assert!(found.is_err(), "it is not served");
    let (status, named) = get(&broker, "/readyz");
    assert!(status == 200 && named.starts_with("[!] log 0 of shard 0: damaged, "), "{named}");
    let (status, why) = get(&broker, "/healthz");
    assert!(
        status == 503 && why.starts_with("[-] log 0 of shard 0: damaged, ranges of offsets: 1, "),
        "{why}"
    );
    assert_eq!(Page::of(&broker).sum("corelog_log_damaged_ranges"), 1.0);
    broker.stop();
}

#[test]
fn an_address_that_is_taken_stops_the_start_and_one_that_is_off_is_not_served() {
    let place = Place::new(&[]);
    let broker = place.start();
    let http = broker.http.clone().expect("the ready line names it");
    let refused = Place::new(&[&format!("server.http={http}")]).refused();
    assert_eq!(refused.code, Some(1));
    for part in
        [&format!("cause: `server.http`: cannot listen on {http}: "), "help: another process has the port"]
    {
        assert!(refused.message.contains(part), "{part} in {}", refused.message);
    }
    // It ends with the broker, and the address is free for the next one at once.
    assert_eq!(get(&broker, "/livez").0, 200);
    broker.stop();
    assert!(try_get(&http, "/livez").is_err(), "nobody listens");
    let again = place.again(&[format!("server.http={http}")]).start();
    assert_eq!(again.http.as_ref(), Some(&http));
    again.stop();
    let off = place.again(&["server.http=".to_owned()]).start();
    assert_eq!(off.http, None, "{}", off.ready);
    off.stop();
}

/// Told to stop while peers hold connections for metrics that they do not use, and while others ask.
#[test]
fn a_signal_ends_a_broker_whatever_its_metrics_are_asked() {
    let place = Place::new(&["server.shards=2"]);
    let broker = place.start();
    let http = broker.http.clone().expect("the ready line names it");
    let idle: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(&http).expect("it listens")).collect();
    let asking = thread::spawn(move || {
        let mut last = None;
        while let Ok((status, _)) = try_get(&http, "/readyz") {
            assert!(
                status == 200 || last.is_none_or(|last| last == status || last == 200),
                "it does not come back"
            );
            last = Some(status);
        }
        last
    });
    let begin = Instant::now();
    let pid = Pid::from_raw(broker.pid() as i32).expect("a process id");
    kill_process(pid, Signal::TERM).expect("it runs");
    assert!(broker.ended().success());
    assert!(begin.elapsed() < PATIENCE);
    asking.join().expect("no panic");
    drop(idle);
}
