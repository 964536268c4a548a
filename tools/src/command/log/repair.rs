//! `corelog log repair --accept-loss`: an operator gives up records that are damaged.
//!
//! The log is opened as a start of the broker does, gets one entry that names the offsets, and is left again. Nothing that
//! is there is changed, and only what is damaged can be given up.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use corelog_model::{LogId, Now};
use corelog_server::data_dir::DataDir;
use corelog_storage::{DiskOp, Log, LogConfig, LostRange, Memory, OpenError, Opening, feature};
use serde_json::json;

use super::entry::Names;
use super::offline::{Offline, configuration};
use super::verify::{Looked, look, refused};
use super::{find, unopened, unread};
use crate::cli::Format;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    topic: String,
    partition: u32,
    first: u64,
    last: u64,
}

impl FromStr for Wanted {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let read = || {
            let (place, offsets) = text.rsplit_once(':')?;
            let (topic, partition) = place.rsplit_once('/')?;
            let (first, last) = offsets.split_once('-')?;
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            let wanted = Self { topic: topic.to_owned(), partition: partition.parse().ok()?, first, last };
            (!topic.is_empty() && first <= last).then_some(wanted)
        };
        read().ok_or_else(|| {
            Failure::usage(format!(
                "`{text}` is no range: it takes TOPIC/PARTITION:FIRST-LAST, as orders/2:17-19"
            ))
        })
    }
}

pub(super) fn run(dir: &Path, ranges: &[String], format: Format) -> Result<(), Failure> {
    let wanted: Vec<Wanted> = ranges.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let (path, _) = find(dir)?;
    let store = DataDir::open(&path).map_err(|error| unopened(dir, &error))?;
    let mut names = Names::default();
    let mut looked = look(&store, &mut names)?;
    // All of it is judged before any of it is written.
    let mut by_log: BTreeMap<LogId, Vec<LostRange>> = BTreeMap::new();
    for wanted in &wanted {
        let (log, range) = judge(wanted, &names, &mut looked)?;
        by_log.entry(log).or_default().push(range);
    }
    drop(looked);
    for (log, ranges) in &by_log {
        accept(&store, *log, ranges)?;
    }
    let mut output = Output::new();
    for Wanted { topic, partition, first, last } in &wanted {
        match format {
            Format::Text => output
                .line(&format!("{topic}/{partition} offsets {first} to {last}: their loss is accepted"))?,
            Format::Json => output
                .json(&json!({ "accepted": topic, "partition": partition, "first": first, "last": last }))?,
        }
    }
    output.flush()
}

/// The log that has the offsets, if all of them are damaged.
fn judge(wanted: &Wanted, names: &Names, looked: &mut [Looked]) -> Result<(LogId, LostRange), Failure> {
    let Wanted { topic, partition, first, last } = wanted;
    let unknown = |cause: &str| {
        Failure::new(
            "NOT_FOUND",
            format!("{topic}/{partition} is no partition of this store"),
            "`corelog log verify` names what is damaged",
        )
        .cause(cause)
        .exit(Exit::NotFound)
    };
    let group = names.find(topic, *partition).ok_or_else(|| unknown("no entry of the store names it"))?;
    if let Some((log, error)) = looked.iter().find_map(Looked::refusal) {
        return Err(refused(log, error));
    }
    let owner = looked.iter_mut().find(|looked| looked.offsets(group).is_some());
    let owner = owner.ok_or_else(|| unknown("no log has records of it"))?;
    let lost = owner.lost_of(group)?;
    if lost.iter().any(|(from, to)| from <= first && last <= to) {
        return Ok((owner.log, LostRange { group, first: *first, last: *last }));
    }
    let said: Vec<String> = lost.iter().map(|(first, last)| format!("{first} to {last}")).collect();
    let said = match said.len() {
        0 => "nothing of the partition is".to_owned(),
        _ => format!("damaged are {}", said.join(", ")),
    };
    Err(Failure::new(
        "NOT_DAMAGED",
        format!("offsets {first} to {last} of {topic}/{partition} are not all damaged"),
        "name only offsets that are: what is sound is never given up",
    )
    .cause(said))
}

fn now() -> Now {
    let wall_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    Now { mono_us: wall_us, wall_us }
}

/// Opens the log, appends the entry, and leaves when it is durable.
fn accept(store: &DataDir, log: LogId, ranges: &[LostRange]) -> Result<(), Failure> {
    let path = store.log_path(log);
    let mut offline = Offline::to_write(path.clone());
    let copies = offline.superblock().map_err(unread(&path))?;
    let newest = copies.into_iter().flatten().max_by_key(|copy| copy.version);
    let newest = newest.ok_or_else(|| refused(log, &OpenError::NoSuperblock))?;
    let (config, memory) = configuration(log, store.store(), newest.extent_bytes);
    let config = LogConfig { features: feature::ACCEPTED_LOSS, ..config };
    let mut opened = open(&mut offline, config, memory).map_err(|error| refused(log, &error))?;
    settle(&mut opened, &mut offline, now());
    let stuck = |cause: &dyn std::fmt::Display| {
        Failure::new(
            "NOT_WRITTEN",
            format!("log {} takes nothing", log.0),
            "see that its disk has room and answers, and try again: nothing was accepted",
        )
        .cause(cause)
    };
    if !opened.has(feature::ACCEPTED_LOSS) {
        return Err(stuck(&"its superblock cannot be written"));
    }
    let appended = opened.accept_loss(ranges).map_err(|full| stuck(&format!("{full:?}")))?;
    settle(&mut opened, &mut offline, now());
    if opened.durable_frame() < appended.frame {
        return Err(stuck(&"what was written did not become durable"));
    }
    // A beacon behind it proves the frame to the next start.
    let later = now();
    settle(&mut opened, &mut offline, Now { mono_us: later.mono_us + 10_000_000, ..later });
    Ok(())
}

fn open(offline: &mut Offline, config: LogConfig, memory: Memory) -> Result<Log, OpenError> {
    let listing = offline.listing().unwrap_or_default();
    let mut opening = Opening::new(config, memory, listing, now());
    let mut ops: Vec<DiskOp> = Vec::new();
    opening.start(&mut ops)?;
    loop {
        let op = ops.pop().expect("an opening log waits for something");
        let completion = offline.run(op, |slice| opening.bytes(slice));
        if let Some(mut log) = opening.on(completion, now(), &mut |_| {}, &mut ops)? {
            for op in ops {
                let completion = offline.run(op, |slice| log.bytes(slice));
                log.on(completion, now());
            }
            return Ok(log);
        }
    }
}

/// Carries out what the log asks for until it asks for nothing.
fn settle(log: &mut Log, offline: &mut Offline, at: Now) {
    let mut ops = Vec::new();
    loop {
        log.cut(at, &mut ops);
        if ops.is_empty() {
            return;
        }
        for op in ops.drain(..) {
            let completion = offline.run(op, |slice| log.bytes(slice));
            log.on(completion, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_names_topic_partition_and_both_ends() {
        let read: Wanted = "a/b:c/3:17-19".parse().expect("a range");
        assert_eq!(read, Wanted { topic: "a/b:c".into(), partition: 3, first: 17, last: 19 });
        for text in ["t/0:5", "t:1-2", "/0:1-2", "t/0:2-1", "t/x:1-2", "t/0:-1-2", ""] {
            let failure = text.parse::<Wanted>().expect_err(text);
            assert_eq!(failure.exit, Exit::Usage, "{text}");
        }
    }
}
