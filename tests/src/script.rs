//! Small steps for tests that tell one story on one machine.

use corelog_model::batch::{AlignedVec, BatchBuilder, Codec, RecordRef, Seal};
use corelog_model::{Durability, LogId, ProducerId, RetentionChange, Term, TopicId};
use corelog_shard::{ConnId, Refusal, Request, Response, Taken, TopicView};
use corelog_storage::{DurableMethod, LogConfig, Preparation};

use crate::disk::{Faults, SimDisk};
use crate::machine::{Machine, STUCK};
use crate::oracle::{Place, read_batch, value_of};
use crate::random::Random;
use crate::trace::Trace;

/// The connection that scripts ask on.
pub const CONN: ConnId = ConnId { slot: 63, generation: 1 };
/// Size of the extents of [`small_log`], in bytes.
pub const EXTENT_BYTES: u64 = 64 << 10;

/// A log whose extents and frames are small, so that a test sees many of them.
pub fn small_log() -> LogConfig {
    LogConfig {
        extent_bytes: EXTENT_BYTES,
        frame_target_bytes: 8192,
        max_batch_bytes: 4096,
        preparation: Preparation::Unwritten,
        durable_method: DurableMethod::Fdatasync,
        frames_in_flight: 2,
        zero_ahead_bytes: 16 << 10,
        checkpoint_bytes: 100 << 10,
        entries_in_window: 256,
        ..LogConfig::new(LogId(0), 0x5eed)
    }
}

/// A machine of one log with an empty disk, ready.
pub fn machine(log: LogConfig, seed: u64) -> Machine {
    machine_of(1, &log, seed)
}

/// A machine of several logs with empty disks, ready.
pub fn machine_of(logs: u16, log: &LogConfig, seed: u64) -> Machine {
    let mut random = Random::new(seed);
    let disks = (0..logs).map(|_| SimDisk::new(random.fork(), Faults::default())).collect();
    let mut machine = Machine::new(log, disks, random, Trace::new(true));
    machine.start_fully().expect("an empty directory starts");
    machine
}

/// The power fails and comes back.
pub fn restart(machine: &mut Machine) {
    machine.crash();
    machine.start_fully().expect("a log that was cut short starts");
}

/// Sends log 0 a request, lets `turns` pass, crashes and starts again; the answer, if it came in time.
pub fn crash_after(machine: &mut Machine, request: &Request<'_>, turns: u32) -> Option<Response> {
    machine.connect(LogId(0), CONN);
    let _ = machine.request(LogId(0), CONN, 1, request);
    crash_in(machine, turns)
}

/// The same on the connection that has the handle the request names.
pub fn crash_after_on_handle(machine: &mut Machine, request: &Request<'_>, turns: u32) -> Option<Response> {
    assert_eq!(machine.request(LogId(0), CONN, 1, request), Some(Taken::Done));
    crash_in(machine, turns)
}

/// Lets `turns` pass, crashes and starts again; what log 0 has answered by then.
fn crash_in(machine: &mut Machine, turns: u32) -> Option<Response> {
    let mut answer = None;
    for _ in 0..turns {
        machine.turn().expect("a running shard does not start");
        answer = answer.or(machine.logs[0].actions.replies.pop().map(|reply| reply.response));
    }
    restart(machine);
    answer
}

/// Creates a topic and waits for it.
pub fn create(machine: &mut Machine, name: &str, partitions: u32, durability: Durability) -> TopicId {
    match machine
        .ask(&Request::CreateTopic { name, partitions, durability, retention: RetentionChange::NONE })
        .0
    {
        Response::TopicCreated { topic } => topic,
        other => panic!("{name}: {other:?}"),
    }
}

/// Alters a topic and waits for the answer: how many partitions it has, and its level.
pub fn alter(
    machine: &mut Machine,
    name: &str,
    partitions: Option<u32>,
    durability: Option<Durability>,
) -> Result<(u32, Durability), Refusal> {
    match machine
        .ask(&Request::AlterTopic { name, partitions, durability, retention: RetentionChange::NONE })
        .0
    {
        Response::TopicAltered { partitions, durability, .. } => Ok((partitions, durability)),
        Response::Refused(refusal) => Err(refusal),
        other => panic!("{name}: {other:?}"),
    }
}

/// The id of a topic, if it is there and ready.
pub fn find(machine: &mut Machine, name: &str) -> Option<TopicId> {
    describe(machine, LogId(0), name).map(|topic| topic.topic)
}

/// What the shard of a log knows of a topic, if it is there and ready.
pub fn describe(machine: &mut Machine, log: LogId, name: &str) -> Option<TopicView> {
    match machine.ask_at(log, &Request::Metadata { topic: Some(name) }).0 {
        Response::Metadata(mut view) => view.topics.pop(),
        Response::Refused(Refusal::UnknownTopic | Refusal::NotReady) => None,
        other => panic!("{name}: {other:?}"),
    }
}

/// What `Opened` says about a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The oldest offset kept.
    pub log_start: u64,
    /// The end of what is visible.
    pub high_watermark: u64,
    /// The term.
    pub epoch: Term,
}

/// Opens a partition as handle 1 of [`CONN`].
pub fn open(machine: &mut Machine, topic: TopicId, partition: u32) -> Result<Opened, Refusal> {
    open_at(machine, LogId(0), topic, partition)
}

/// The same at the shard of a log.
pub fn open_at(machine: &mut Machine, log: LogId, topic: TopicId, partition: u32) -> Result<Opened, Refusal> {
    match machine.ask_at(log, &Request::Open { handle: 1, topic, partition }).0 {
        Response::Opened { log_start, high_watermark, leader_epoch, .. } => {
            Ok(Opened { log_start, high_watermark, epoch: leader_epoch })
        }
        Response::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

/// Whose batch it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct From {
    /// The producer, or none.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: u16,
    /// Sequence of the first record.
    pub sequence: u32,
}

/// A sealed batch of the records with these numbers.
pub fn batch(topic: TopicId, partition: u32, numbers: std::ops::Range<u64>, from: From) -> AlignedVec<16> {
    let mut builder = BatchBuilder::new(4_000);
    let mut value = Vec::new();
    for number in numbers {
        value_of(number, &mut value);
        let record = RecordRef { key: None, value: Some(&value), timestamp_us: 1_000 + number, headers: &[] };
        builder.push(record).expect("a test's batch is small");
    }
    let From { producer: producer_id, epoch: producer_epoch, sequence: base_sequence } = from;
    let seal = Seal { topic, partition, producer_id, producer_epoch, base_sequence, codec: Codec::None };
    let mut sealed = AlignedVec::new();
    builder.seal(&seal, &mut sealed).expect("a batch with records seals");
    sealed
}

/// Appends sealed batches to handle 1 and waits for the answer: the first offset.
pub fn produce(machine: &mut Machine, batches: &[u8]) -> Result<u64, Refusal> {
    produce_at(machine, LogId(0), batches)
}

/// The same at the shard of a log.
pub fn produce_at(machine: &mut Machine, log: LogId, batches: &[u8]) -> Result<u64, Refusal> {
    match machine.ask_as(log, CONN, &Request::Produce { handle: 1, expected_offset: None, batches }).0 {
        Response::Produced { base_offset, .. } => Ok(base_offset),
        Response::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

/// Appends to handle 1 without waiting for the answer.
pub fn produce_blindly(machine: &mut Machine, correlation: u64, batches: &[u8]) -> Taken {
    let request = Request::Produce { handle: 1, expected_offset: None, batches };
    machine.request(LogId(0), CONN, correlation, &request).expect("the shard runs")
}

/// Reads from handle 1 at an offset, without waiting for more.
pub fn fetch(
    machine: &mut Machine,
    offset: u64,
    leader_epoch: Option<Term>,
) -> Result<Vec<Vec<u8>>, Refusal> {
    fetch_at(machine, LogId(0), offset, leader_epoch)
}

/// The same at the shard of a log.
pub fn fetch_at(
    machine: &mut Machine,
    log: LogId,
    offset: u64,
    leader_epoch: Option<Term>,
) -> Result<Vec<Vec<u8>>, Refusal> {
    let request =
        Request::Fetch { handle: 1, offset, leader_epoch, max_bytes: 4096, min_bytes: 0, max_wait_us: 0 };
    match machine.ask_as(log, CONN, &request) {
        (Response::Fetched { .. }, bytes) => Ok(bytes),
        (Response::Refused(refusal), _) => Err(refusal),
        (other, _) => panic!("{other:?}"),
    }
}

/// Writes to every partition where it is kept, and reads it back.
pub fn write_and_read(machine: &mut Machine, name: &str) {
    let view = describe(machine, LogId(0), name).expect("the topic is there");
    for (partition, place) in (0u32..).zip(&view.partitions) {
        let end = open_at(machine, place.log, view.topic, partition).expect("it is open there");
        let sealed = batch(view.topic, partition, 0..3, From::default());
        assert_eq!(produce_at(machine, place.log, &sealed), Ok(end.high_watermark));
        let mut places = Vec::new();
        let read = fetch_at(machine, place.log, end.high_watermark, None).unwrap();
        read_batch(&read[0], view.topic, partition, &mut places);
        assert_eq!(places[0], Place { offset: end.high_watermark, number: 0 });
    }
}

/// Every log says the same of a topic.
pub fn known_everywhere(machine: &mut Machine, name: &str) -> Option<TopicId> {
    let logs = (0..machine.logs.len() as u16).map(LogId);
    let views: Vec<_> = logs.map(|log| describe(machine, log, name)).collect();
    views.windows(2).for_each(|pair| assert_eq!(pair[0], pair[1]));
    views[0].as_ref().map(|view| view.topic)
}

/// Lets turns pass until it is so.
pub fn wait(machine: &mut Machine, mut until: impl FnMut(&mut Machine) -> bool) {
    for _ in 0..STUCK {
        if until(machine) {
            return;
        }
        machine.turn().expect("a running shard does not start");
    }
    panic!("it never comes");
}

/// Writes to the topic's first partition on a log until its disk is full.
pub fn fill(machine: &mut Machine, name: &str, log: LogId) {
    machine.logs[usize::from(log.0)].disk.faults.capacity = 6 * EXTENT_BYTES;
    let view = describe(machine, log, name).expect("created");
    let partition = view.partitions.iter().position(|at| at.log == log).expect("one is there") as u32;
    open_at(machine, log, view.topic, partition).expect("it is open");
    let sealed = batch(view.topic, partition, 0..20, From::default());
    wait(machine, |machine| produce_at(machine, log, &sealed) == Err(Refusal::StorageFull));
}
