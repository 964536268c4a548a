//! One shard, one client, one story each: what is acknowledged when, what is refused how, and what waits for what.

use corelog_model::{Durability, LogId, ProducerId, RetentionChange, TopicId};
use corelog_shard::{At, ConnId, Event, Part, Principal, Refusal, Request, Response, Taken};
use corelog_storage::{DurableMethod, LogConfig};
use corelog_tests::machine::Machine;
use corelog_tests::oracle::{Place, read_batch};
use corelog_tests::script::{
    CONN, EXTENT_BYTES, From, batch, create, fetch, machine, open, produce, produce_blindly, restart,
    small_log,
};

fn topic(machine: &mut Machine, durability: Durability) -> TopicId {
    let topic = create(machine, "orders", 2, durability);
    open(machine, topic, 0).unwrap();
    topic
}

fn started(durability: Durability) -> (Machine, TopicId) {
    let mut machine = machine(small_log(), 1);
    let topic = topic(&mut machine, durability);
    (machine, topic)
}

fn producer(machine: &mut Machine) -> ProducerId {
    match machine.ask_as(LogId(0), CONN, &Request::ProducerId).0 {
        Response::ProducerId { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

/// The answers so far, by correlation.
fn answers(machine: &mut Machine) -> Vec<(u64, Response)> {
    machine.logs[0].actions.replies.drain(..).map(|reply| (reply.correlation, reply.response)).collect()
}

fn turns_until_answered(machine: &mut Machine) -> Vec<(u64, Response)> {
    for _ in 0..10_000 {
        let found = answers(machine);
        if !found.is_empty() {
            return found;
        }
        machine.turn().unwrap();
    }
    panic!("no answer");
}

fn base_offset(response: &Response) -> u64 {
    match response {
        Response::Produced { base_offset, .. } => *base_offset,
        other => panic!("{other:?}"),
    }
}

/// The durable answer comes after the flush and not before; until then nobody can read the record.
#[test]
fn a_record_is_visible_when_it_is_acknowledged() {
    for durable_method in [DurableMethod::Fdatasync, DurableMethod::Dsync] {
        let mut machine = machine(LogConfig { durable_method, ..small_log() }, 1);
        let topic = topic(&mut machine, Durability::Durable);
        machine.logs[0].disk.faults.hold_flushes = true;
        assert_eq!(produce_blindly(&mut machine, 7, &batch(topic, 0, 0..3, From::default())), Taken::Done);
        for _ in 0..1_000 {
            machine.turn().unwrap();
            assert!(answers(&mut machine).is_empty(), "{durable_method:?}: no answer before the flush");
        }
        assert_eq!(machine.logs[0].disk.held(), 1, "{durable_method:?}: nothing but the flush is waited for");
        assert_eq!(fetch(&mut machine, 0, None), Ok(Vec::new()), "nothing is visible yet");
        machine.logs[0].disk.faults.hold_flushes = false;
        let found = turns_until_answered(&mut machine);
        assert_eq!((found[0].0, base_offset(&found[0].1)), (7, 0));
        assert_eq!(machine.logs[0].disk.held(), 0);
        assert_eq!(fetch(&mut machine, 0, None).unwrap().len(), 1);
    }
}

#[test]
fn a_memory_topic_answers_at_once() {
    let (mut machine, topic) = started(Durability::Memory);
    assert_eq!(produce_blindly(&mut machine, 7, &batch(topic, 0, 0..3, From::default())), Taken::Done);
    let found = answers(&mut machine);
    assert_eq!((found[0].0, base_offset(&found[0].1)), (7, 0));
}

/// The answer is lost, the client sends the batch again while the original is still on its way to the disk: one
/// record, one offset, and no answer that comes before the original is durable.
#[test]
fn a_retry_under_way_waits_for_its_original() {
    let (mut machine, topic) = started(Durability::Durable);
    let sealed = batch(topic, 0, 0..3, From { producer: producer(&mut machine), ..From::default() });
    let _ = produce_blindly(&mut machine, 1, &sealed);
    let _ = produce_blindly(&mut machine, 2, &sealed);
    assert!(answers(&mut machine).is_empty(), "the retry must not be faster than the disk");
    let mut found = turns_until_answered(&mut machine);
    if found.len() < 2 {
        found.extend(turns_until_answered(&mut machine));
    }
    assert_eq!(found.iter().map(|(_, response)| base_offset(response)).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(open(&mut machine, topic, 0).unwrap().high_watermark, 3);
}

/// Five requests are in flight and the first is damaged on the way: the others must not overtake it.
#[test]
fn a_refused_batch_stops_its_producer_until_it_is_sent_again() {
    let (mut machine, topic) = started(Durability::Durable);
    let producer = producer(&mut machine);
    let sealed = |n: u32| {
        let from = From { producer, epoch: 0, sequence: 2 * n };
        batch(topic, 0, u64::from(2 * n)..u64::from(2 * n + 2), from)
    };
    let mut damaged = sealed(0);
    let body_end = 96 + u32::from_le_bytes(damaged[20..24].try_into().unwrap()) as usize;
    damaged[body_end - 1] ^= 1;
    assert_eq!(produce(&mut machine, &damaged), Err(Refusal::Corrupt(Part::Body)));
    for n in 1..5 {
        assert_eq!(
            produce(&mut machine, &sealed(n)),
            Err(Refusal::OutOfOrderSequence { expected: 0, actual: 2 * n })
        );
    }
    for n in 0..5 {
        assert_eq!(produce(&mut machine, &sealed(n)), Ok(u64::from(2 * n)));
    }
    assert_eq!(produce(&mut machine, &sealed(3)), Ok(6), "one of the last five is known");
}

/// Retries are recognised for a day. A producer that is idle for longer is told so, also by a broker that has started
/// anew and reads of it in the log; it is neither taken for a new one nor for one that lost a batch.
#[test]
fn a_producer_that_was_idle_for_a_day_is_told_so() {
    let (mut machine, topic) = started(Durability::Durable);
    let producer = producer(&mut machine);
    let sealed = |sequence: u32| {
        batch(topic, 0, u64::from(sequence)..u64::from(sequence + 2), From { producer, epoch: 0, sequence })
    };
    let day_us = machine.logs[0].config.limits.producers.expiry_us;
    assert_eq!(produce(&mut machine, &sealed(0)), Ok(0));
    machine.clock.advance(day_us / 2);
    machine.turn().unwrap();
    assert_eq!(produce(&mut machine, &sealed(2)), Ok(2), "half a day is not a day");
    // A restart may set the wall clock back by some seconds.
    machine.clock.advance(day_us + 10_000_000);
    machine.turn().unwrap();
    assert_eq!(produce(&mut machine, &sealed(4)), Err(Refusal::UnknownProducerId));
    // After a start it has some minutes to show that it was the clock that moved.
    restart(&mut machine);
    machine.clock.advance(machine.logs[0].config.limits.producers.keep_us);
    machine.turn().unwrap();
    open(&mut machine, topic, 0).unwrap();
    assert_eq!(produce(&mut machine, &sealed(4)), Err(Refusal::UnknownProducerId));
}

/// A row each: what is sent, and why it is refused. Nothing of it may leave a trace.
#[test]
fn bad_batches_are_refused_by_name() {
    let (mut machine, topic) = started(Durability::Durable);
    let good = batch(topic, 0, 0..3, From::default());
    let other_partition = batch(topic, 1, 0..3, From::default());
    let stale_topic = batch(TopicId(topic.0 + 1), 0, 0..3, From::default());
    let unknown = batch(topic, 0, 0..3, From { producer: ProducerId(99), epoch: 0, sequence: 7 });
    let mut magic = good.clone();
    magic[0] ^= 1;
    let mut gap = good.clone();
    gap[32..36].copy_from_slice(&9_u32.to_le_bytes());
    let rows: [(&str, &[u8], Refusal); 7] = [
        ("nothing", &[], Refusal::Corrupt(Part::Layout)),
        ("cut short", &good[..good.len() - 16], Refusal::Corrupt(Part::Layout)),
        ("another magic number", &magic, Refusal::Corrupt(Part::Layout)),
        ("a gap in its offsets", &gap, Refusal::Corrupt(Part::Layout)),
        ("for another partition", &other_partition, Refusal::Corrupt(Part::Header)),
        ("for another topic", &stale_topic, Refusal::Corrupt(Part::Header)),
        ("the middle of an unknown producer", &unknown, Refusal::UnknownProducerId),
    ];
    for (what, bytes, refusal) in rows {
        assert_eq!(produce(&mut machine, bytes), Err(refusal), "{what}");
        assert_eq!(open(&mut machine, topic, 0).unwrap().high_watermark, 0, "{what}");
    }
    assert_eq!(produce(&mut machine, &good), Ok(0));
}

/// The third of four batches is damaged: two are taken, and the client learns that it was two.
#[test]
fn batches_are_taken_up_to_the_first_that_is_refused() {
    let (mut machine, topic) = started(Durability::Durable);
    let mut request = Vec::new();
    for n in 0..4_u64 {
        let mut sealed = batch(topic, 0, n..n + 1, From::default());
        if n == 2 {
            sealed[90] ^= 1;
        }
        request.extend_from_slice(&sealed);
    }
    let ask = Request::Produce { handle: 1, expected_offset: None, batches: &request };
    let Response::Produced { base_offset: 0, batches: 2, .. } = machine.ask_as(LogId(0), CONN, &ask).0 else {
        panic!("two batches are taken");
    };
    assert_eq!(open(&mut machine, topic, 0).unwrap().high_watermark, 2);
}

#[test]
fn a_conditional_append_meets_its_condition_or_changes_nothing() {
    let (mut machine, topic) = started(Durability::Durable);
    let sealed = batch(topic, 0, 0..3, From::default());
    let at =
        |expected: u64| Request::Produce { handle: 1, expected_offset: Some(expected), batches: &sealed };
    assert_eq!(base_offset(&machine.ask_as(LogId(0), CONN, &at(0)).0), 0);
    let refused = Response::Refused(Refusal::OffsetMismatch { expected: 0, actual: 3 });
    assert_eq!(machine.ask_as(LogId(0), CONN, &at(0)).0, refused);
    assert_eq!(base_offset(&machine.ask_as(LogId(0), CONN, &at(3)).0), 3);
}

/// A reader at the end waits; it is woken by enough bytes, or answered empty when its time is over.
#[test]
fn a_fetch_waits_for_enough_or_for_its_deadline() {
    let (mut machine, topic) = started(Durability::Memory);
    let small = batch(topic, 0, 0..1, From::default());
    let min_bytes = 2 * small.len() as u32;
    let wait = |max_wait_us| Request::Fetch {
        handle: 1,
        offset: 0,
        leader_epoch: None,
        max_bytes: 10_000,
        min_bytes,
        max_wait_us,
    };
    let reader = ConnId { slot: 5, generation: 1 };
    machine.connect(LogId(0), reader);
    machine.ask_as(LogId(0), reader, &Request::Open { handle: 1, topic, partition: 0 });
    let _ = machine.request(LogId(0), reader, 50, &wait(1_000_000));
    assert_eq!(produce_blindly(&mut machine, 1, &small), Taken::Done);
    machine.turn().unwrap();
    assert_eq!(answers(&mut machine).len(), 1, "the producer's; one batch is not enough for the reader");
    let _ = produce_blindly(&mut machine, 2, &small);
    machine.turn().unwrap();
    let woken = answers(&mut machine);
    assert!(woken.iter().any(|(correlation, _)| *correlation == 50), "{woken:?}");

    let _ = machine.request(
        LogId(0),
        reader,
        51,
        &Request::Fetch {
            handle: 1,
            offset: 2,
            leader_epoch: None,
            max_bytes: 10_000,
            min_bytes: 1,
            max_wait_us: 2_000,
        },
    );
    let from_us = machine.clock.now().mono_us;
    let expired = turns_until_answered(&mut machine);
    assert!(
        matches!(&expired[0], (51, Response::Fetched { slices, .. }) if slices.is_empty()),
        "{expired:?}"
    );
    assert!((2_000..9_000).contains(&(machine.clock.now().mono_us - from_us)));
}

/// The disk is slow and the window fills: produce is blocked without a trace, and goes on when there is room.
#[test]
fn a_full_window_blocks_and_changes_nothing() {
    let (mut machine, topic) = started(Durability::Durable);
    machine.logs[0].disk.faults.delay_us = 1_000_000;
    let sealed = batch(topic, 0, 0..20, From::default());
    let mut taken = 0;
    while produce_blindly(&mut machine, 100 + taken, &sealed) == Taken::Done {
        taken += 1;
        assert!(taken < 1_000, "the window is bounded");
    }
    let before = machine.shard().unwrap().status();
    assert_eq!(produce_blindly(&mut machine, 1, &sealed), Taken::Blocked);
    let after = machine.shard().unwrap().status();
    assert_eq!((before.counters.batches, before.pending), (after.counters.batches, after.pending));
    machine.logs[0].disk.faults.delay_us = 100;
    assert!(produce(&mut machine, &sealed).is_ok());
}

/// The disk is slower than the producers, who fill the window again and again: nothing is put where a write under way
/// still takes its bytes from.
#[test]
fn a_full_window_leaves_what_is_under_way_alone() {
    // The window is to be full, not the extents or the list of requests that wait.
    let mut machine = machine(LogConfig { extent_bytes: 1 << 20, ..small_log() }, 1);
    machine.logs[0].config.limits.pending = 1_024;
    restart(&mut machine);
    let topic = topic(&mut machine, Durability::Durable);
    machine.logs[0].disk.faults.delay_us = 5_000;
    let (mut taken, mut blocked) = (0, 0);
    while taken < 300 {
        let sealed = batch(topic, 0, taken * 20..taken * 20 + 20, From::default());
        match produce_blindly(&mut machine, 100 + taken, &sealed) {
            Taken::Done => taken += 1,
            Taken::Blocked => blocked += 1,
        }
        machine.turn().unwrap();
    }
    machine.logs[0].disk.faults.delay_us = 100;
    for _ in 0..10_000 {
        machine.turn().unwrap();
    }
    restart(&mut machine);
    let end = open(&mut machine, topic, 0).unwrap().high_watermark;
    let (mut places, mut offset) = (Vec::new(), 0);
    while offset < end {
        for bytes in fetch(&mut machine, offset, None).expect("what was acknowledged is undamaged") {
            read_batch(&bytes, topic, 0, &mut places);
        }
        offset = places.last().unwrap().offset + 1;
    }
    let expected: Vec<_> = (0..taken * 20).map(|n| Place { offset: n, number: n }).collect();
    assert_eq!(places, expected);
    assert!(blocked > 100, "blocked {blocked} times, the window was hardly full");
}

/// Everything written is read back from the disk, long after it left memory, by offset and by time.
#[test]
fn old_records_are_read_from_the_disk() {
    let (mut machine, topic) = started(Durability::Durable);
    for n in 0..200 {
        produce(&mut machine, &batch(topic, 0, n * 10..n * 10 + 10, From::default())).unwrap();
    }
    let (mut places, mut offset) = (Vec::new(), 0);
    while offset < 2_000 {
        for bytes in fetch(&mut machine, offset, None).unwrap() {
            read_batch(&bytes, topic, 0, &mut places);
        }
        offset = places.last().unwrap().offset + 1;
    }
    let expected: Vec<_> = (0..2_000).map(|n| Place { offset: n, number: n }).collect();
    assert_eq!(places, expected);
    assert!(machine.shard().unwrap().status().storage.cold_reads > 0);

    let at = |time| Request::OffsetForTime { handle: 1, at: At::Time(time) };
    for number in [0, 15, 777, 1_999] {
        // A record's time is 1,000 more than its number; what is found is the start of its batch or run.
        let Response::OffsetFound { offset, timestamp_us } =
            machine.ask_as(LogId(0), CONN, &at(1_000 + number)).0
        else {
            panic!("no offset");
        };
        assert!(
            offset <= number && timestamp_us.is_some_and(|found| found >= 1_000 + number),
            "{number}: {offset}"
        );
    }
    let end = Response::OffsetFound { offset: 2_000, timestamp_us: None };
    assert_eq!(machine.ask_as(LogId(0), CONN, &at(1 << 40)).0, end);
}

/// The disk is full: produce says so, what is there can be read, and space that comes back is used.
#[test]
fn a_full_disk_refuses_produce_and_goes_on_reading() {
    let mut machine = machine(small_log(), 3);
    machine.logs[0].disk.faults.capacity = 6 * EXTENT_BYTES;
    let topic = topic(&mut machine, Durability::Durable);
    let sealed = batch(topic, 0, 0..20, From::default());
    let mut acknowledged = 0;
    loop {
        match produce(&mut machine, &sealed) {
            Ok(offset) => acknowledged = offset + 20,
            Err(refusal) => {
                assert_eq!(refusal, Refusal::StorageFull);
                break;
            }
        }
    }
    assert!(acknowledged > 100);
    assert_eq!(open(&mut machine, topic, 0).unwrap().high_watermark, acknowledged);
    assert_eq!(fetch(&mut machine, 0, None).unwrap().len(), 1);
    machine.logs[0].disk.faults.capacity = u64::MAX;
    for _ in 0..50_000 {
        machine.turn().unwrap();
    }
    assert_eq!(produce(&mut machine, &sealed), Ok(acknowledged));
}

/// Every write fails: the log becomes read-only, says so to those who wait, and still answers readers.
#[test]
fn a_disk_that_fails_twice_makes_the_log_read_only() {
    let (mut machine, topic) = started(Durability::Durable);
    let sealed = batch(topic, 0, 0..20, From::default());
    assert_eq!(produce(&mut machine, &sealed), Ok(0));
    machine.logs[0].disk.faults.write_errors = 1_000_000;
    assert_eq!(produce(&mut machine, &sealed), Err(Refusal::ReadOnly));
    assert_eq!(fetch(&mut machine, 0, None).unwrap().len(), 1);
    assert!(machine.shard().unwrap().status().storage.read_only);
}

#[test]
fn a_principal_without_rights_is_refused_everything() {
    let (mut machine, topic) = started(Durability::Durable);
    let stranger = ConnId { slot: 4, generation: 1 };
    machine.event(LogId(0), Event::Connected { conn: stranger, principal: Principal::Anonymous });
    let create = Request::CreateTopic {
        name: "mine",
        partitions: 1,
        durability: Durability::Durable,
        retention: RetentionChange::NONE,
    };
    for request in [
        Request::Open { handle: 1, topic, partition: 0 },
        Request::Metadata { topic: None },
        Request::Status,
        create,
    ] {
        assert_eq!(machine.ask_as(LogId(0), stranger, &request).0, Response::Refused(Refusal::NotAuthorised));
    }
}

/// A log that is told to keep two extents' worth answers a reader who is behind with the oldest offset it has.
#[test]
fn a_reader_overtaken_by_retention_learns_where_the_log_starts() {
    let log = LogConfig { retention_bytes: Some(2 * EXTENT_BYTES), ..small_log() };
    let mut machine = machine(log, 1);
    let topic = topic(&mut machine, Durability::Durable);
    for _ in 0..200 {
        produce(&mut machine, &batch(topic, 0, 0..20, From::default())).unwrap();
    }
    let opened = open(&mut machine, topic, 0).unwrap();
    assert!(opened.log_start > 0);
    let behind = Refusal::OffsetOutOfRange {
        offset: 0,
        log_start: opened.log_start,
        high_watermark: opened.high_watermark,
    };
    assert_eq!(fetch(&mut machine, 0, None), Err(behind));
    assert_eq!(fetch(&mut machine, opened.log_start, None).unwrap().len(), 1);
}
