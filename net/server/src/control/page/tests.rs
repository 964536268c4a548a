//! The names that dashboards and alerts are built on, and how values are written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use corelog_model::{LogId, Term};
use corelog_shard::Counters;
use corelog_storage::LogStats;

use super::*;
use crate::status::{Lengths, Reactor, Turns};

/// What a shard may say, no two values of it alike.
fn says(number: u64, logs: &[u16]) -> Answer {
    let log = |&log: &u16| ShardStatus {
        log: LogId(log),
        term: Term(40 + u32::from(log)),
        storage: LogStats {
            frames: 100 + u64::from(log),
            bytes_written: 1 << 20,
            zeroed_bytes: 4096,
            window_bytes: 5000,
            window_limit_bytes: 9000,
            ..LogStats::default()
        },
        counters: Counters { records: 1000 + number, ..Counters::default() },
        topics: 3,
        partitions: 2,
        positions: 5,
        position_bytes: 700,
        ..ShardStatus::default()
    };
    let mut lengths = Lengths { sum_us: 1_500_000, longest_us: 200_000, ..Lengths::default() };
    (lengths.within[0], lengths.within[3], lengths.within[14]) = (7, 2, 1);
    let turns = Turns { uptime_us: 2_500_000 + number, busy_us: 1_250_000, lengths, ..Turns::default() };
    let ingest = Pool { used_bytes: 10, limit_bytes: 20 };
    Answer::Says(Arc::new(Snapshot {
        joined: true,
        logs: logs.iter().map(log).collect(),
        reactor: Reactor { requests: 70 + number, ..Reactor::default() },
        turns,
        ingest,
        ..Snapshot::default()
    }))
}

fn page(cores: Vec<Answer>, form: Form) -> String {
    let answers = Arc::new(Answers { cores, took: Duration::from_micros(250) });
    let process = Process { cpu_us: 3_000_000, resident_bytes: 1 << 30, logs: 3 };
    render(answers, process, form).expect("it is written")
}

/// Two shards, of which the first serves two logs.
fn whole(form: Form) -> String {
    page(vec![says(0, &[0, 2]), says(1, &[1])], form)
}

/// Samples by name and labels; each comes once.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        let value = value.parse().expect("a number");
        assert!(samples.insert(name.to_owned(), value).is_none(), "{name} comes once");
    }
    samples
}

#[test]
fn every_name_its_kind_and_what_it_means() {
    let page = whole(Form::Classic);
    let described = page.lines().filter_map(|line| line.strip_prefix("# "));
    let text: String = described.map(|line| format!("{line}\n")).collect();
    insta::assert_snapshot!("names", text);
}

#[test]
fn names_carry_the_prefix_their_unit_and_what_they_are() {
    let page = whole(Form::Classic);
    let mut kinds = BTreeMap::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a kind");
        assert!(kinds.insert(name, kind).is_none(), "{name} is described once");
        assert!(name.starts_with("corelog_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} {kind}");
        let mut words = name.split('_');
        assert!(
            !words.any(|word| ["us", "ms", "micros", "millis", "kib"].contains(&word)),
            "{name}: base units"
        );
    }
    for line in page.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        assert!(line.ends_with('.') && line.contains(' '), "{line}");
    }
    let parts = ["_bucket", "_sum", "_count"];
    for sample in samples(&page).keys() {
        let name = sample.split('{').next().expect("a name");
        let of_histogram = parts
            .iter()
            .any(|part| name.strip_suffix(part).is_some_and(|name| kinds.get(name) == Some(&"histogram")));
        assert!(kinds.contains_key(name) || of_histogram, "{name} is described");
    }
}

#[test]
fn what_a_shard_says_is_labelled_with_it_and_what_is_the_process_comes_once() {
    let samples = samples(&whole(Form::Classic));
    let expected = [
        ("corelog_build_info{version=\"0.1.0\"}", 1.0),
        ("corelog_shards", 2.0),
        ("corelog_logs", 3.0),
        ("corelog_topics", 3.0),
        ("corelog_scrape_complete", 1.0),
        ("corelog_scrape_seconds", 0.000_25),
        ("corelog_uptime_seconds", 2.500_001),
        ("corelog_process_cpu_seconds_total", 3.0),
        ("corelog_process_resident_bytes", 1_073_741_824.0),
        ("corelog_requests_total{shard=\"0\"}", 70.0),
        ("corelog_requests_total{shard=\"1\"}", 71.0),
        // Of two logs.
        ("corelog_produced_records_total{shard=\"0\"}", 2000.0),
        ("corelog_partitions{shard=\"0\"}", 4.0),
        ("corelog_positions{shard=\"0\"}", 10.0),
        ("corelog_position_bytes{shard=\"0\"}", 1400.0),
        ("corelog_log_frames_total{shard=\"0\",log=\"2\"}", 102.0),
        ("corelog_log_frames_total{shard=\"1\",log=\"1\"}", 101.0),
        ("corelog_log_written_bytes_total{shard=\"1\",log=\"1\"}", 1_052_672.0),
        ("corelog_log_term{shard=\"0\",log=\"0\"}", 40.0),
        ("corelog_reactor_busy_seconds_total{shard=\"1\"}", 1.25),
        ("corelog_reactor_mode{shard=\"0\",mode=\"adaptive\"}", 1.0),
        ("corelog_memory_used_bytes{shard=\"0\",pool=\"window\"}", 10_000.0),
        ("corelog_memory_limit_bytes{shard=\"1\",pool=\"ingest\"}", 20.0),
        ("corelog_reactor_late_seconds_total{shard=\"0\",over=\"0.131072\"}", 0.0),
        ("corelog_reactor_turn_seconds_sum{shard=\"1\"}", 1.5),
        ("corelog_reactor_turn_seconds_count{shard=\"1\"}", 10.0),
        ("corelog_reactor_turn_seconds_bucket{le=\"0.131072\",shard=\"1\"}", 9.0),
        ("corelog_reactor_turn_seconds_bucket{le=\"+Inf\",shard=\"1\"}", 10.0),
    ];
    for (name, value) in expected {
        let found = samples.get(name).copied();
        assert_eq!(found, Some(value), "{name} in {:#?}", samples.keys());
    }
}

/// A shard that does not answer has no values: a counter that falls to 0 would be taken for a restart.
#[test]
fn nothing_is_said_of_a_shard_that_does_not_answer() {
    let page = page(vec![says(0, &[0]), Answer::Silent, Answer::Starting, Answer::Gone], Form::Classic);
    let samples = samples(&page);
    assert_eq!((samples["corelog_scrape_complete"], samples["corelog_shards"]), (0.0, 4.0));
    let others = samples
        .keys()
        .filter(|name| ["1", "2", "3"].iter().any(|shard| name.contains(&format!("shard=\"{shard}\""))));
    assert!(others.clone().all(|name| name.starts_with("corelog_shard_answered{")) && others.count() == 3);
}

#[test]
fn both_forms_say_the_same() {
    let (classic, open) = (whole(Form::Classic), whole(Form::Open));
    assert_eq!(samples(&classic), samples(&open));
    assert!(open.ends_with("# EOF\n") && open.contains("# UNIT corelog_uptime_seconds seconds\n"));
    assert!(
        open.contains("# TYPE corelog_requests counter\n") && !open.contains("# TYPE corelog_requests_total")
    );
    assert!(!classic.contains("# EOF") && !classic.contains("# UNIT"));
    let accept = Some("application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5");
    assert_eq!(Form::accepted_by(accept), Form::Open);
    for plain in [None, Some("*/*"), Some("text/plain"), Some("")] {
        assert_eq!(Form::accepted_by(plain), Form::Classic, "{plain:?}");
    }
}

/// Every counter of Status, and where it stands here.
#[test]
fn whatever_status_shows_the_page_shows_too() {
    let shown: BTreeMap<&str, &str> = [
        ("mode", "reactor_mode"),
        ("refused", "registration_refused direct_refused"),
        ("uptime_us", "uptime_seconds"),
        ("cpu_us", "process_cpu_seconds_total"),
        ("busy_us", "reactor_busy_seconds_total"),
        ("polling_us", "reactor_polling_seconds_total"),
        ("system_calls", "reactor_system_calls_total"),
        ("enters", "reactor_ring_enters_total"),
        ("resident_bytes", "process_resident_bytes"),
        ("frames", "log_frames_total"),
        ("bytes_written", "log_written_bytes_total"),
        ("bytes_accepted", "produced_bytes_total"),
        ("batches", "produced_batches_total"),
        ("records", "produced_records_total"),
        ("bytes_fetched", "fetched_bytes_total"),
        ("requests", "requests_total"),
        ("refusals", "requests_refused_total"),
        ("window_bytes", "memory_used_bytes"),
        // What is not cold.
        ("window_reads", "fetches_total cold_reads_total"),
        ("cold_reads", "cold_reads_total"),
        ("cold_bytes", "cold_read_bytes_total"),
        ("slow_consumers", "connections_too_slow_total"),
        ("connections", "connections"),
        ("topics", "topics"),
        ("partitions", "partitions"),
        ("logs", "logs"),
        ("term", "log_term"),
        ("hiccup_count", "reactor_turn_seconds"),
        ("hiccup_p50_us", "reactor_turn_seconds"),
        ("hiccup_p99_us", "reactor_turn_seconds"),
        ("hiccup_p999_us", "reactor_turn_seconds"),
        ("hiccup_max_us", "reactor_longest_turn_seconds"),
        ("turns", "reactor_turns_total"),
        ("idle_turns", "reactor_idle_turns_total"),
        ("turns_over_100us", "reactor_turn_seconds"),
        ("turns_over_1ms", "reactor_turn_seconds"),
        ("turns_over_10ms", "reactor_turn_seconds"),
        ("awake_us", "reactor_awake_seconds_total"),
        ("most_enters", "reactor_most_ring_enters"),
        ("subscriptions", "subscriptions"),
        ("memory_limit_bytes", "process_memory_limit_bytes"),
        ("positions", "positions"),
        ("position_bytes", "position_bytes"),
    ]
    .into();
    let page = whole(Form::Classic);
    let names: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE corelog_")?.split(' ').next()).collect();
    for (_, counter) in Status::TAGS {
        let lateness = counter.starts_with("late_over_").then_some("reactor_late_seconds_total");
        let found = lateness.or_else(|| shown.get(counter).copied());
        let found = found.unwrap_or_else(|| panic!("{counter} is nowhere on the page"));
        assert!(found.split(' ').all(|name| names.contains(name)), "{found}, for {counter}, in {names:?}");
    }
}
