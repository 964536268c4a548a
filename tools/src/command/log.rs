//! `corelog log dump`: the frames and entries of a stopped store, extent by extent, up to the first frame that does
//! not verify. Reads through the page cache and changes nothing in the logs.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use corelog_model::LogId;
use corelog_model::batch::{BATCH_HEADER_BYTES, BatchHeader};
use corelog_server::data_dir::{DataDir, DataDirError};
use corelog_storage::{EntryHeader, EntryKind, FileName, FrameHeader, FrameSeed};
use serde_json::{Value, json};

use crate::cli::{Format, Log};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// A frame starts and ends at a multiple of this.
const SECTOR: u64 = corelog_model::limits::FRAME_ALIGN as u64;
/// Bytes of a frame's own header.
const FRAME_HEADER_BYTES: usize = corelog_storage::FRAME_HEADER_BYTES;
/// Bytes of an entry's own header.
const ENTRY_HEADER_BYTES: usize = corelog_storage::ENTRY_HEADER_BYTES;

pub(super) fn run(arguments: &Log, format: Format) -> Result<(), Failure> {
    let Log::Dump { dir } = arguments;
    let (store, only) = find(dir)?;
    let store = DataDir::open(&store).map_err(|error| unopened(dir, &error))?;
    let mut dump = Dump { format, output: Output::new() };
    for log in (0..store.logs()).map(LogId).filter(|log| only.is_none_or(|only| only == *log)) {
        let seed = FrameSeed { store: store.store(), log };
        for (number, path) in extents(&store.log_path(log))? {
            dump.extent(&path, number, seed)?;
        }
    }
    dump.output.flush()
}

/// The store, and the log when only one was named.
fn find(dir: &Path) -> Result<(PathBuf, Option<LogId>), Failure> {
    let is_store = |path: &Path| path.join("store.toml").is_file();
    if is_store(dir) {
        return Ok((dir.to_path_buf(), None));
    }
    let number = dir.file_name().and_then(|name| name.to_str()?.strip_prefix("log-")?.parse().ok());
    match (number, dir.parent()) {
        (Some(number), Some(parent)) if is_store(parent) => Ok((parent.to_path_buf(), Some(LogId(number)))),
        _ => {
            let help = "name the directory that `log.data_dir` of the broker names, or a log-NNNN below it";
            Err(Failure::new("NO_STORE", format!("{} is no store", dir.display()), help)
                .cause("neither it nor the directory above it holds a store.toml")
                .exit(Exit::NotFound))
        }
    }
}

/// Numbers and paths of the extents of one log, in the order of their numbers.
fn extents(log: &Path) -> Result<Vec<(u32, PathBuf)>, Failure> {
    let unread = |error| Failure::io(format!("{} cannot be listed", log.display()), &error);
    let mut extents = Vec::new();
    for entry in std::fs::read_dir(log).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        if let Some(FileName::Extent(number)) = entry.file_name().to_str().and_then(|name| name.parse().ok())
        {
            extents.push((number, entry.path()));
        }
    }
    extents.sort();
    Ok(extents)
}

fn unopened(dir: &Path, error: &DataDirError) -> Failure {
    let help = match error {
        DataDirError::Locked { .. } => "stop the broker first: only a stopped store is dumped",
        DataDirError::Io { .. } => "give the user of the process access to the directory",
        DataDirError::Malformed { .. } => "put store.toml back from a copy: it says whose store this is",
        DataDirError::UnknownSchema { .. } => "dump it with the version of corelog that wrote it, or a later one",
    };
    Failure::new("STORE", format!("{} cannot be opened", dir.display()), help).cause(error)
}

struct Dump {
    format: Format,
    output: Output,
}

impl Dump {
    fn extent(&mut self, path: &Path, number: u32, seed: FrameSeed) -> Result<(), Failure> {
        let unread = |error| Failure::io(format!("{} cannot be read", path.display()), &error);
        let file = File::open(path).map_err(unread)?;
        let bytes = file.metadata().map_err(unread)?.len();
        match self.format {
            Format::Text => {
                self.output.line(&format!("extent {number}  {}  {bytes} bytes", path.display()))?
            }
            Format::Json => {
                self.output.json(&json!({ "extent": number, "log": seed.log.0, "bytes": bytes }))?
            }
        }
        let mut position = 0;
        let mut generation = None;
        let mut frame = Vec::new();
        while position + SECTOR <= bytes && !self.output.is_reader_gone() {
            frame.resize(FRAME_HEADER_BYTES, 0);
            file.read_exact_at(&mut frame, position).map_err(unread)?;
            let header = FrameHeader::decode(&frame, seed, position);
            // What an earlier use of the extent left beyond the end of this one is not the log's any more.
            let header =
                header.filter(|header| generation.is_none_or(|generation| generation == header.generation));
            let Some(header) = header.filter(|header| position + u64::from(header.length) <= bytes) else {
                break;
            };
            generation = Some(header.generation);
            frame.resize(header.used as usize, 0);
            file.read_exact_at(&mut frame, position).map_err(unread)?;
            self.frame(number, &header)?;
            self.entries(&header, &frame[FRAME_HEADER_BYTES..])?;
            position += u64::from(header.length);
        }
        match self.format {
            Format::Text => self.output.line(&format!("  end at {position}")),
            Format::Json => self.output.json(&json!({ "extent": number, "end": position })),
        }
    }

    fn frame(&mut self, extent: u32, header: &FrameHeader) -> Result<(), Failure> {
        match self.format {
            Format::Text => self.output.line(&format!(
                "  frame {}  at {}, {} bytes, generation {}, term {}, {} entries, durable {}, in flight {}, flags {:#x}",
                header.sequence,
                header.position,
                header.length,
                header.generation,
                header.term,
                header.entries,
                header.durable_sequence,
                header.in_flight_limit,
                header.flags,
            )),
            Format::Json => self.output.json(&json!({
                "frame": header.sequence,
                "extent": extent,
                "position": header.position,
                "bytes": header.length,
                "generation": header.generation,
                "term": header.term.0,
                "entries": header.entries,
                "durable_sequence": header.durable_sequence,
                "in_flight_limit": header.in_flight_limit,
                "flags": header.flags,
                "wall_us": header.wall_us,
            })),
        }
    }

    fn entries(&mut self, frame: &FrameHeader, mut rest: &[u8]) -> Result<(), Failure> {
        for place in 0..frame.entries {
            let Some((entry, _)) = EntryHeader::parse(rest) else {
                return match self.format {
                    Format::Text => self.output.line(&format!("    entry {place} is damaged")),
                    Format::Json => {
                        self.output.json(&json!({ "frame": frame.sequence, "damaged_entry": place }))
                    }
                };
            };
            let payload = &rest[ENTRY_HEADER_BYTES..ENTRY_HEADER_BYTES + entry.length as usize];
            self.entry(frame, &entry, payload)?;
            rest = &rest[entry.total_bytes()..];
        }
        Ok(())
    }

    fn entry(&mut self, frame: &FrameHeader, entry: &EntryHeader, payload: &[u8]) -> Result<(), Failure> {
        let batch = (entry.kind == EntryKind::Batch).then(|| batch(payload));
        match self.format {
            Format::Text => {
                let detail = batch.map_or_else(String::new, |batch| {
                    let text = |name: &str| match batch.get(name) {
                        None => "?".to_owned(),
                        Some(Value::String(text)) => text.clone(),
                        Some(other) => other.to_string(),
                    };
                    format!(
                        ", offsets {}..{}, {} records, codec {}, producer {} epoch {} sequence {}{}",
                        text("base_offset"),
                        text("next_offset"),
                        text("records"),
                        text("codec"),
                        text("producer_id"),
                        text("producer_epoch"),
                        text("base_sequence"),
                        if batch["intact"] == true { "" } else { ", DAMAGED" },
                    )
                });
                self.output.line(&format!(
                    "    {:?}  group {}, index {}, term {}, {} bytes{detail}",
                    entry.kind, entry.group, entry.index, entry.term, entry.length,
                ))
            }
            Format::Json => self.output.json(&json!({
                "entry": format!("{:?}", entry.kind),
                "frame": frame.sequence,
                "group": entry.group.0,
                "index": entry.index,
                "term": entry.term.0,
                "bytes": entry.length,
                "batch": batch,
            })),
        }
    }
}

fn batch(bytes: &[u8]) -> Value {
    let Ok(header) = BatchHeader::parse(&bytes[..bytes.len().min(BATCH_HEADER_BYTES)]) else {
        return json!({ "intact": false });
    };
    let intact = header.batch_bytes() <= bytes.len() && header.verify_body(bytes);
    json!({
        "base_offset": header.base_offset,
        "next_offset": header.next_offset(),
        "records": header.record_count,
        "codec": format!("{:?}", header.codec).to_lowercase(),
        "producer_id": header.producer_id.0,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "base_timestamp_us": header.base_timestamp_us,
        "append_timestamp_us": header.append_timestamp_us,
        "leader_epoch": header.leader_epoch.0,
        "intact": intact,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_no_store_is_not_turned_into_one() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let failure = find(place.path()).expect_err("no store");
        assert_eq!((failure.code, failure.exit), ("NO_STORE", Exit::NotFound));
        assert_eq!(std::fs::read_dir(place.path()).expect("it is there").count(), 0);
    }

    #[test]
    fn a_log_below_a_store_is_found() {
        let place = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(place.path().join("store.toml"), "").expect("written");
        let found = find(&place.path().join("log-0002")).expect("its store is above it");
        assert_eq!(found, (place.path().to_path_buf(), Some(LogId(2))));
        assert_eq!(find(place.path()).expect("itself").1, None);
    }
}
