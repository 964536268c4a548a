//! The same for a whole shard: topics, producers and positions on the images of a recorded row of requests.
//!
//! Each image lies between two requests that were answered, so whatever it holds is as it was before the second one, or as
//! after it, piece by piece.

use corelog_model::LogId;
use corelog_shard::{Request, Response};
use corelog_storage::{FileName, LogConfig, Recorded, Tape};

use super::image::Image;
use super::judge::Counts;
use super::medium::Medium;
use crate::disk::{Faults, SimDisk};
use crate::machine::Machine;
use crate::model::{Act, Contents, Model, Pair, look};
use crate::random::Random;
use crate::script::{CONN, From, batch, open, produce, restart};
use crate::trace::Trace;

/// Combinations at one moment.
const SOME: usize = 6;

/// A recorded row of requests.
pub struct Row {
    /// How the log is set up.
    pub config: LogConfig,
    /// What there has to be behind so many requests.
    pub models: Vec<Model>,
    /// What happened to the disk. Its marks say how many requests are answered.
    pub tape: Vec<Recorded>,
}

/// Asks a row of requests on an empty disk and records it.
pub fn record(config: &LogConfig, seed: u64, acts: &[Act]) -> Result<Row, String> {
    let mut pair = Pair::new(config, seed, false);
    let tape = Tape::default();
    pair.machine.logs[0].tape = Some(tape.clone());
    pair.machine.start_fully().map_err(|error| error.to_string())?;
    let mut models = vec![pair.model.clone()];
    tape.promised(0);
    // The simulated disk does not tell its recording what a loss of power takes.
    for act in acts.iter().filter(|act| !matches!(act, Act::PowerLoss | Act::Kill)) {
        pair.act(*act)?;
        tape.promised(models.len() as u64);
        models.push(pair.model.clone());
    }
    Ok(Row { config: config.clone(), models, tape: tape.events() })
}

/// Judges some images of each moment of a row.
pub fn judge(row: &Row, random: &mut Random, counts: &mut Counts) -> Result<(), String> {
    let (mut medium, mut answered) = (Medium::default(), 0);
    for (at, event) in row.tape.iter().enumerate() {
        medium.apply(event);
        if let Recorded::Promised(mark) = event {
            answered = *mark as usize;
        }
        if matches!(event, Recorded::Ended { .. }) {
            continue;
        }
        let certain = medium.pending().is_empty();
        for _ in 0..if certain { 1 } else { SOME } {
            let fates: Vec<_> = medium.pending().iter().map(|pending| random.pick(pending.fates())).collect();
            let before = &row.models[answered];
            let after = row.models.get(answered + 1).unwrap_or(before);
            counts.images += 1;
            start(&row.config, &medium.image(&fates), before, after, random)
                .map_err(|what| format!("event {at}, {answered} requests, fates {fates:?}: {what}"))?;
        }
    }
    Ok(())
}

/// Turns within which a start has finished or undone what its predecessor had begun with topics.
const TO_FINISH: usize = 60;

/// A machine whose disk holds an image.
fn machine(config: &LogConfig, image: &Image, random: &mut Random) -> Machine {
    let mut disk = SimDisk::new(random.fork(), Faults { delay_us: 60, ..Faults::default() });
    for (name, bytes) in image.listing().files {
        disk.put(name, image.bytes(name, 0, bytes as usize));
    }
    Machine::new(config, vec![disk], random.fork(), Trace::new(false))
}

fn start(
    config: &LogConfig,
    image: &Image,
    before: &Model,
    after: &Model,
    random: &mut Random,
) -> Result<(), String> {
    let mut machine = machine(config, image, random);
    // A directory that was never a log's is one that a log is made in.
    assert!(image.size(FileName::Superblock).is_some() || before.topics.is_empty());
    machine.start_fully().map_err(|error| format!("no start: {error}"))?;
    for _ in 0..TO_FINISH {
        machine.turn().map_err(|error| error.to_string())?;
    }
    let found = look(&mut machine)?;
    between(&found, &before.contents(), &after.contents())?;
    for (topic, partition, last, producer) in before.retries() {
        let Ok(opened) = open(&mut machine, topic, partition) else { continue };
        let sequence = last.producer.map_or(0, |(_, sequence)| sequence);
        let from = From { producer, epoch: 0, sequence };
        let again = produce(&mut machine, &batch(topic, partition, last.numbers.clone(), from));
        let now = open(&mut machine, topic, partition).map_err(|refusal| format!("{refusal:?}"))?;
        if again != Ok(last.base) || now.high_watermark != opened.high_watermark {
            return Err(format!("a retry of {last:?} is answered {again:?}"));
        }
    }
    let mut due = found;
    append(&mut machine, &mut due)?;
    restart(&mut machine);
    let found = look(&mut machine)?;
    if found == due { Ok(()) } else { Err(format!("after the second start there is {found:?}, not {due:?}")) }
}

/// Something new in each partition.
fn append(machine: &mut Machine, due: &mut Contents) -> Result<(), String> {
    let Response::Metadata(view) = machine.ask(&Request::Metadata { topic: None }).0 else {
        return Err("no metadata".to_owned());
    };
    for topic in view.topics {
        let partitions = due.get_mut(&topic.name).ok_or("a topic came from nowhere")?;
        for (number, (records, positions)) in (0..).zip(partitions) {
            open(machine, topic.topic, number).map_err(|refusal| format!("{refusal:?}"))?;
            let new = 1 << 40 | u64::from(number);
            let base = produce(machine, &batch(topic.topic, number, new..new + 1, From::default()));
            if base != Ok(records.len() as u64) {
                return Err(format!("a new record is answered {base:?}"));
            }
            records.push(new);
            let (name, offset) = ("after", records.len() as u64);
            let request =
                Request::CommitPosition { handle: 1, name, offset, leader_epoch: None, metadata: "" };
            if machine.ask_as(LogId(0), CONN, &request).0 != Response::PositionCommitted {
                return Err("a new position is refused".to_owned());
            }
            positions.insert(name.to_owned(), offset);
        }
    }
    Ok(())
}

/// Each piece is as before or as after.
fn between(found: &Contents, before: &Contents, after: &Contents) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{what}: there is {found:?}\nbetween {before:?}\nand {after:?}"));
    for name in found.keys().chain(before.keys()).chain(after.keys()) {
        let [now, then, next] = [found, before, after].map(|of| of.get(name));
        let lengths = [now, then, next].map(|of| of.map(Vec::len));
        if lengths[0] != lengths[1] && lengths[0] != lengths[2] {
            return wrong(format!("partitions of {name}"));
        }
        for (at, (records, positions)) in now.into_iter().flatten().enumerate() {
            let [then, next] = [then, next].map(|of| of.and_then(|partitions| partitions.get(at)));
            let as_one = [then, next].iter().flatten().any(|(other, _)| other == records);
            if !(as_one || then.is_none() && records.is_empty()) {
                return wrong(format!("records of {name}.{at}"));
            }
            let names = [then, next].into_iter().flatten().flat_map(|(_, positions)| positions.keys());
            for reader in names.chain(positions.keys()) {
                let position = positions.get(reader);
                let as_one =
                    [then, next].iter().any(|of| of.and_then(|(_, all)| all.get(reader)) == position);
                if !as_one {
                    return wrong(format!("position {reader} of {name}.{at}"));
                }
            }
        }
    }
    Ok(())
}
