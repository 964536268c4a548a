//! `corelog log`: a stopped store, looked into. `verify` reads and judges all of it,
//! `repair` notes what of it is given up.
//!
//! `corelog log dump`: the frames and entries of a stopped store, extent by extent, then pack by pack, and where a frame is
//! missing. Reads through the page cache and changes nothing in the logs.

mod entry;
mod extent;
mod offline;
mod repair;
mod verify;

use std::path::{Path, PathBuf};

use corelog_model::LogId;
use corelog_server::data_dir::{DataDir, DataDirError};
use corelog_storage::{
    ENTRY_HEADER_BYTES, EntryHeader, FRAME_HEADER_BYTES, FileName, FrameHeader, FrameSeed,
};
use serde_json::json;

use self::entry::Names;
use self::extent::{Extent, Found, Gap, Seals};
use crate::cli::{Format, Log};
use crate::failure::{Exit, Failure};
use crate::output::Output;

pub(super) fn run(arguments: &Log, format: Format) -> Result<(), Failure> {
    match arguments {
        Log::Dump { dir } => dump(dir, format),
        Log::Repair { dir, accept_loss } => repair::run(dir, accept_loss, format),
        Log::Verify { dir, log } => verify::run(dir, *log, format),
    }
}

fn dump(dir: &Path, format: Format) -> Result<(), Failure> {
    let (store, only) = find(dir)?;
    let store = DataDir::open(&store).map_err(|error| unopened(dir, &error))?;
    let mut dump = Dump { format, output: Output::new(), names: Names::default() };
    let mut logs = Vec::new();
    // Names are in the logs that are not shown, too.
    for log in (0..store.logs()).map(LogId) {
        let seed = FrameSeed { store: store.store(), log };
        let files = files(&store.log_path(log))?;
        let seals = dump.learn_all(&files, seed)?;
        logs.push((seed, files, seals));
    }
    for (seed, files, seals) in logs.iter().filter(|(seed, ..)| only.is_none_or(|only| only == seed.log)) {
        for (file, path) in files {
            if dump.output.is_reader_gone() {
                return Ok(());
            }
            dump.file(path, *file, *seed, seals)?;
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

/// Names and paths of the extents of one log, then of its packs, in the order of their numbers.
fn files(log: &Path) -> Result<Vec<(FileName, PathBuf)>, Failure> {
    let unread = |error| Failure::io(format!("{} cannot be listed", log.display()), &error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(log).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let name = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(file @ (FileName::Extent(_) | FileName::Pack(_))) = name {
            files.push((file, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

/// What a file is, and its number.
fn kind(file: FileName) -> (&'static str, u32) {
    match file {
        FileName::Pack(number) => ("pack", number),
        FileName::Extent(number) => ("extent", number),
        FileName::Superblock => unreachable!("it holds no frames"),
    }
}

fn unread(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::io(format!("{} cannot be read", path.display()), &error)
}

fn unopened(dir: &Path, error: &DataDirError) -> Failure {
    let help = match error {
        DataDirError::Locked { .. } => "stop the broker first: only a stopped store is looked into",
        DataDirError::Io { .. } => "give the user of the process access to the directory",
        DataDirError::LogMissing { .. } => "mount the directory of that log, or put it back from a copy",
        DataDirError::Malformed { .. } => "put store.toml back from a copy: it says whose store this is",
        DataDirError::UnknownSchema { .. } | DataDirError::UnknownFeature { .. } => {
            "dump it with the version of corelog that wrote it, or a later one"
        }
    };
    Failure::new("STORE", format!("{} cannot be opened", dir.display()), help).cause(error)
}

struct Dump {
    format: Format,
    output: Output,
    names: Names,
}

impl Dump {
    /// Takes the names of topics out of a log, oldest extent first: they may stand in a later one than the records, and a
    /// number that was given in a frame which is void may be given again. Answers where its extents end.
    fn learn_all(&mut self, files: &[(FileName, PathBuf)], seed: FrameSeed) -> Result<Seals, Failure> {
        let (mut seals, mut uses) = (Seals::default(), Vec::new());
        // A pack holds batches, no names, and seals nothing.
        for (_, path) in files.iter().filter(|(file, _)| matches!(file, FileName::Extent(_))) {
            let first = Extent::open(path, seed).and_then(|extent| extent.header(0)).map_err(unread(path))?;
            first.iter().for_each(|first| seals.add(first));
            uses.push((first.map(|first| first.generation), path));
        }
        uses.sort();
        uses.into_iter().try_for_each(|(_, path)| self.learn(path, seed, &seals))?;
        Ok(seals)
    }

    fn learn(&mut self, path: &Path, seed: FrameSeed, seals: &Seals) -> Result<(), Failure> {
        let extent = Extent::open(path, seed).map_err(unread(path))?;
        for frame in &extent.find(seals).map_err(unread(path))?.frames {
            let bytes = extent.read(frame).map_err(unread(path))?;
            entries(frame, &bytes, |entry, payload, whole| {
                if EntryHeader::verifies(whole, seed, frame.sequence) {
                    self.names.learn(entry, payload);
                }
                Ok::<(), Failure>(())
            })?;
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, file: FileName, seed: FrameSeed, seals: &Seals) -> Result<(), Failure> {
        let extent = Extent::open(path, seed).map_err(unread(path))?;
        let Found { frames, sealed } = extent.find(seals).map_err(unread(path))?;
        let (bytes, (kind, number)) = (extent.bytes, kind(file));
        match self.format {
            Format::Text => {
                self.output.line(&format!("{kind} {number}  {}  {bytes} bytes", path.display()))?
            }
            Format::Json => self.output.json(&json!({ kind: number, "log": seed.log.0, "bytes": bytes }))?,
        }
        let mut position = 0;
        for frame in &frames {
            if self.output.is_reader_gone() {
                return Ok(());
            }
            if let Some(gap) = extent.gap(position, frame.position).map_err(unread(path))? {
                self.gap(file, &gap)?;
            }
            let whole = extent.read(frame).map_err(unread(path))?;
            self.frame(file, frame)?;
            self.entries(frame, seed, &whole)?;
            position = frame.position + u64::from(frame.length);
        }
        if let Some(gap) = extent.gap(position, sealed.unwrap_or(position)).map_err(unread(path))? {
            self.gap(file, &gap)?;
        }
        let position = sealed.unwrap_or(position).max(position);
        let tail = extent.gap(position, bytes).map_err(unread(path))?;
        let why = match (&tail, sealed) {
            (None, _) if kind == "pack" => "the pack is full",
            (None, _) => "the extent is full",
            (Some(_), Some(_)) => "another extent goes on from here, what lies beyond is void",
            (Some(gap), None) => &gap.why,
        };
        match self.format {
            Format::Text => self.output.line(&format!("  end at {position}: {why}")),
            Format::Json => self.output.json(&json!({ kind: number, "end": position, "why": why })),
        }
    }

    /// A place without a frame and before the end. Where the log was not started again since, and so nothing says where its
    /// last extent ends, that can be among the frames that were under way when it stopped.
    fn gap(&mut self, file: FileName, gap: &Gap) -> Result<(), Failure> {
        let (kind, number) = kind(file);
        let Gap { position, bytes, why } = gap;
        match self.format {
            Format::Text => {
                self.output.line(&format!("  NO FRAME  at {position}, {bytes} bytes are passed over: {why}"))
            }
            Format::Json => {
                self.output.json(&json!({ kind: number, "no_frame": position, "bytes": bytes, "why": why }))
            }
        }
    }

    fn frame(&mut self, file: FileName, header: &FrameHeader) -> Result<(), Failure> {
        let (kind, number) = kind(file);
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
                kind: number,
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

    fn entries(&mut self, frame: &FrameHeader, seed: FrameSeed, bytes: &[u8]) -> Result<(), Failure> {
        let read = entries(frame, bytes, |entry, payload, whole| {
            self.entry(frame, entry, payload, EntryHeader::verifies(whole, seed, frame.sequence))
        })?;
        if read < frame.entries {
            return match self.format {
                Format::Text => self.output.line(&format!("    entry {read} and all behind it are DAMAGED")),
                Format::Json => self.output.json(&json!({ "frame": frame.sequence, "damaged_entry": read })),
            };
        }
        if bytes[frame.used as usize..].iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        match self.format {
            Format::Text => self.output.line("    the padding is DAMAGED"),
            Format::Json => self.output.json(&json!({ "frame": frame.sequence, "damaged_padding": true })),
        }
    }

    fn entry(
        &mut self,
        frame: &FrameHeader,
        entry: &EntryHeader,
        payload: &[u8],
        verifies: bool,
    ) -> Result<(), Failure> {
        let content = entry::content(entry, payload, &self.names);
        let group = self.names.group(entry.group);
        match self.format {
            Format::Text => {
                self.output.line(&format!(
                    "    {:?}  group {} ({group}), index {}, term {}, {} bytes{}{}",
                    entry.kind,
                    entry.group,
                    entry.index,
                    entry.term,
                    entry.length,
                    content.line,
                    if verifies { "" } else { ", DOES NOT VERIFY" },
                ))?;
                content.below.iter().try_for_each(|line| self.output.line(&format!("      {line}")))
            }
            Format::Json => {
                let mut document = json!({
                    "entry": format!("{:?}", entry.kind),
                    "frame": frame.sequence,
                    "group": entry.group.0,
                    "of": group,
                    "index": entry.index,
                    "term": entry.term.0,
                    "bytes": entry.length,
                    "verifies": verifies,
                });
                for (name, value) in content.fields {
                    document[name] = value;
                }
                self.output.json(&document)
            }
        }
    }
}

/// Hands `each` the entries of a frame: header, payload, and what begins with the entry. Answers how many it could tell apart.
fn entries<E>(
    frame: &FrameHeader,
    bytes: &[u8],
    mut each: impl FnMut(&EntryHeader, &[u8], &[u8]) -> Result<(), E>,
) -> Result<u32, E> {
    let mut rest = &bytes[FRAME_HEADER_BYTES..frame.used as usize];
    for place in 0..frame.entries {
        let Some((entry, _)) = EntryHeader::parse(rest) else { return Ok(place) };
        let payload = &rest[ENTRY_HEADER_BYTES..][..entry.length as usize];
        each(&entry, payload, rest)?;
        rest = &rest[entry.total_bytes()..];
    }
    Ok(frame.entries)
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
