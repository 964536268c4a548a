//! Whole runs against a real broker, short ones: what comes of the phases, and that every record is accounted for.

use std::fs;
use std::path::Path;

use corelog_load::payload::{Identity, Payload};
use corelog_load::results::Results;
use corelog_load::{ContentSource, Interrupt, Length, Measured, Outcome, Pace, Workload, report, run};
use corelog_testing::Broker;

const RECORDS: u64 = 20_000;

fn workload() -> Workload {
    Workload {
        length: Length::Records(RECORDS),
        content: ContentSource::Size(100),
        producers: 2,
        consumers: 2,
        partitions: 2,
        batch_bytes: 4_096,
        ..Workload::default()
    }
}

fn outcome(workload: &Workload) -> Outcome {
    let broker = Broker::start().expect("a broker");
    let server = broker.address().to_string();
    let outcome = run(workload, &server, &mut Interrupt::never(), &mut |_| {}).expect("a result");
    assert!(outcome.check.passed() && outcome.check.expired == 0, "{:?}", outcome.check);
    outcome
}

#[test]
fn a_run_without_a_rate_saturates_first_and_then_offers_half_of_it() {
    let workload = workload();
    let outcome = outcome(&workload);
    assert_eq!((outcome.check.acknowledged, outcome.check.verified), (2 * RECORDS, 2 * RECORDS));
    let (saturation, open_loop) = (outcome.saturation.expect("a phase"), outcome.open_loop.expect("a phase"));
    for phase in [&saturation, &open_loop] {
        assert_eq!((phase.acknowledged, phase.acknowledged_bytes), (RECORDS, RECORDS * 100));
        assert!(phase.service.is_some() && phase.hiccup.is_some(), "{phase:?}");
        assert!(phase.broker.lateness.quantiles().is_some(), "the broker tells how late it was: {phase:?}");
    }
    let has_intended =
        |phase: &Measured| [phase.response, phase.delay, phase.end_to_end].map(|kind| kind.is_some());
    assert_eq!(has_intended(&saturation), [false; 3], "nothing has a time at which it should be sent");
    assert_eq!(has_intended(&open_loop), [true; 3]);
    let half = outcome.rate.expect("an open loop") * 2.0 / saturation.records_per_second();
    assert!((0.999..1.001).contains(&half), "{half}");
    assert_ne!(saturation.service, open_loop.service, "each phase has its own");

    let directory = tempfile::tempdir().expect("a directory");
    report::write(directory.path(), &Results::default(), &outcome.histograms, outcome.started)
        .expect("written");
    let counted = |name: &str| counted(&directory.path().join(name));
    assert!(counted("service.hgrm") > 0 && counted("saturation_service.hgrm") > 0);
    assert_eq!(counted("response.hgrm"), RECORDS);
    let log = fs::read_to_string(directory.path().join("latency.hlog")).expect("the log");
    for tag in
        ["Tag=service,", "Tag=saturation_service,", "Tag=response,", "Tag=hiccup,", "Tag=saturation_hiccup,"]
    {
        assert!(log.contains(tag), "{tag}");
    }
}

/// How many values a `.hgrm` is of.
fn counted(path: &Path) -> u64 {
    let text = fs::read_to_string(path).expect("a distribution");
    let last = text.lines().rfind(|line| !line.starts_with('#')).expect("a last step");
    last.split_whitespace().nth(2).and_then(|count| count.parse().ok()).expect("a count")
}

#[test]
fn a_phase_that_stands_alone_has_the_plain_names() {
    let saturated = outcome(&Workload { pace: Pace::Saturation, ..workload() });
    assert!(saturated.saturation.is_some() && saturated.open_loop.is_none() && saturated.rate.is_none());
    let directory = tempfile::tempdir().expect("a directory");
    report::write(directory.path(), &Results::default(), &saturated.histograms, saturated.started)
        .expect("written");
    assert!(directory.path().join("service.hgrm").exists());
    assert!(!directory.path().join("saturation_service.hgrm").exists());

    let paced = outcome(&Workload { pace: Pace::Rate(100_000.0), ..workload() });
    assert!(paced.saturation.is_none());
    assert_eq!(paced.rate, Some(100_000.0));
    assert!(paced.open_loop.is_some_and(|phase| phase.response.is_some()));
}

/// Lines of very different lengths: their mean is none of them.
#[test]
fn the_bytes_of_lines_are_counted_and_not_estimated() {
    let lines = ["", "a line", &"a long line ".repeat(70)];
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), lines.join("\n")).expect("it can be written");
    let workload = Workload {
        pace: Pace::Saturation,
        content: ContentSource::Lines(file.path().to_path_buf()),
        producers: 1,
        consumers: 0,
        ..workload()
    };
    // Empty lines are left out.
    let kept = lines[1..].iter().map(|line| line.as_bytes().into()).collect();
    let payload = Payload::lines(workload.seed, kept);
    let bytes = |number| payload.bytes(Identity { producer: 0, number }) as u64;
    let phase = outcome(&workload).saturation.expect("a phase");
    assert_eq!(phase.acknowledged_bytes, (0..RECORDS).map(bytes).sum::<u64>());
    assert_eq!(
        (phase.consumed_bytes, phase.lag_bytes),
        (0, phase.acknowledged_bytes),
        "nobody has read them"
    );
}

/// Connections of this process to a port of its own machine, from the kernel's table: the remote address is the third
/// field of a line, in hexadecimal, and the state the fourth; 01 is that of one that is open.
fn open_connections(port: u16) -> usize {
    let table = fs::read_to_string("/proc/self/net/tcp").expect("the kernel's table");
    let remote = format!(":{port:04X}");
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields[2].ends_with(&remote) && fields[3] == "01").count()
}

#[test]
fn there_are_as_many_connections_as_were_asked_for_and_the_same_records_come_back() {
    for (connections, producers, reading) in
        [(None, 3, 2), (Some(1), 4, 1), (Some(2), 3, 2), (Some(8), 4, 2), (Some(200), 200, 2)]
    {
        let workload = Workload { producers, connections, ..workload() };
        let broker = Broker::builder().set("limits.connections=256").start().expect("a broker");
        let (server, mut open) = (broker.address(), 0);
        let outcome = run(&workload, &server.to_string(), &mut Interrupt::never(), &mut |progress| {
            if progress.done {
                open = open_connections(server.port());
            }
        })
        .expect("a result");
        // One more asks and administers.
        let writing = connections.unwrap_or(producers) as usize;
        assert_eq!(open, writing + reading + 1, "{connections:?}");
        assert!(outcome.check.passed() && outcome.check.expired == 0, "{connections:?}: {:?}", outcome.check);
        assert_eq!(outcome.check.verified, 2 * RECORDS, "{connections:?}");
        let phase = outcome.open_loop.expect("a phase");
        assert_eq!(phase.acknowledged, RECORDS, "{connections:?}");
        // So short a phase may be over before a record of it is read.
        assert!(phase.response.is_some());
    }
}

#[test]
fn what_another_run_wrote_is_none_of_this_runs_records() {
    let (one, other) = (workload(), workload());
    let payload = |workload: &Workload| Payload::generated(workload.seed, 100);
    let id = Identity { producer: 0, number: 0 };
    let mut value = [0; 100];
    payload(&one).fill(id, &mut value);
    assert!(payload(&one).matches(id, &value));
    assert_eq!(payload(&other).identity(&value), None);
    assert!(!payload(&other).matches(id, &value));
}
