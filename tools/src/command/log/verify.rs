//! `corelog log verify`: everything that a stopped store holds, read and summed; nothing is changed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use corelog_model::{Block, BlockId, GroupId, LogId, Now};
use corelog_server::data_dir::DataDir;
use corelog_storage::{
    Checked, Container, LostRange, OpenError, Replayed, SuperblockCopy, Survey, Surveying,
};
use serde_json::{Value, json};

use super::entry::Names;
use super::offline::{Offline, configuration};
use super::{find, unopened, unread};
use crate::cli::Format;
use crate::failure::Failure;
use crate::output::Output;

/// What is read of a file at once, at least.
const READ_BYTES: usize = 4 << 20;

/// A log of a store: what its first look came to.
pub(super) struct Looked {
    pub(super) log: LogId,
    offline: Offline,
    copies: Vec<Option<SuperblockCopy>>,
    /// `Err`: a start refuses it, and why.
    survey: Result<Survey, OpenError>,
    /// Frames behind the end that nothing proves durable.
    tail_cut: u64,
    possibly_lost: Vec<(GroupId, u64)>,
}

/// What came of a whole log.
#[derive(Default)]
pub(super) struct Verdict {
    files: u64,
    frames: u64,
    batches: u64,
    /// Damaged frames, less those of files of which a loss was accepted.
    broken: u64,
    accepted: u64,
    wrong_indexes: u64,
    lost_sectors: u64,
    refused: u64,
    pub(super) lost: BTreeSet<(LogId, LostRange)>,
    possibly_lost: u64,
}

impl Verdict {
    fn is_clean(&self) -> bool {
        let Self { broken, wrong_indexes, lost_sectors, refused, possibly_lost, .. } = self;
        broken + wrong_indexes + lost_sectors + refused + possibly_lost == 0 && self.lost.is_empty()
    }
}

pub(super) fn run(dir: &Path, only: Option<u16>, format: Format) -> Result<(), Failure> {
    let (path, below) = find(dir)?;
    let store = DataDir::look(&path).map_err(|error| unopened(dir, &error))?;
    let only = only.map(LogId).or(below);
    if let Some(log) = only.filter(|log| log.0 >= store.logs()) {
        return Err(Failure::usage(format!("the store has no log {}: it has {}", log.0, store.logs())));
    }
    let began = Instant::now();
    let mut names = Names::default();
    // Names are in the logs that are not looked into, too.
    let looked = look(&store, &mut names)?;
    let mut report = Report { format, output: Output::new(), names, verdict: Verdict::default() };
    let mut bytes = 0;
    for mut log in looked.into_iter().filter(|looked| only.is_none_or(|only| only == looked.log)) {
        report.log(&mut log)?;
        bytes += log.offline.read_bytes;
    }
    report.end(bytes, began.elapsed())?;
    match report.verdict.is_clean() {
        true => Ok(()),
        false => Err(Failure::new(
            "DAMAGED",
            format!("{} is damaged", dir.display()),
            "take what is missing from another copy; `corelog log repair --accept-loss` ends the waiting for what is gone",
        )),
    }
}

/// Looks at all logs of a store as a start would.
pub(super) fn look(store: &DataDir, names: &mut Names) -> Result<Vec<Looked>, Failure> {
    (0..store.logs()).map(|log| look_at(store, LogId(log), names)).collect()
}

fn look_at(store: &DataDir, log: LogId, names: &mut Names) -> Result<Looked, Failure> {
    let path = store.log_path(log);
    let mut offline = Offline::to_read(path.clone());
    let listing = offline.listing().map_err(unread(&path))?;
    let copies = match offline.superblock() {
        Ok(copies) => copies,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(unread(&path)(error)),
    };
    let newest = copies.iter().flatten().max_by_key(|copy| copy.version);
    let (mut tail_cut, mut possibly_lost) = (0, Vec::new());
    let survey = match newest {
        None => Err(OpenError::NoSuperblock),
        Some(newest) => {
            let (config, memory) = configuration(log, store.store(), newest.extent_bytes);
            let surveying = Surveying::new(config, memory, listing, NOW);
            survey(surveying, &mut offline, &mut |event| match event {
                Replayed::Entry { header, payload, .. } => names.learn(&header, payload),
                Replayed::Checkpoint { bytes, .. } => names.learn_state(bytes),
                Replayed::TailCut { frames } => tail_cut += frames,
                Replayed::PossiblyLost { group, first } => possibly_lost.push((group, first)),
                Replayed::Damaged { .. } => {}
            })
        }
    };
    Ok(Looked { log, offline, copies, survey, tail_cut, possibly_lost })
}

/// Nothing that is only looked at depends on the time.
const NOW: Now = Now { mono_us: 0, wall_us: 0 };

fn survey(
    mut surveying: Surveying,
    offline: &mut Offline,
    replay: &mut dyn FnMut(Replayed<'_>),
) -> Result<Survey, OpenError> {
    let mut ops = Vec::new();
    surveying.start(&mut ops)?;
    while let Some(op) = ops.pop() {
        let completion = offline.run(op, |_| &[]);
        surveying.on(completion, NOW, replay, &mut ops)?;
    }
    Ok(surveying.end().expect("all that it asked for was answered"))
}

/// Reads a file of a log to its end.
fn check(
    survey: &mut Survey,
    offline: &mut Offline,
    container: &Container,
) -> Result<(Checked, Option<bool>), Failure> {
    let path = offline.path(container.file);
    let mut check = survey.check(container);
    let mut block = Block::heap(BlockId(0), READ_BYTES.max(survey.longest_frame_bytes()));
    while let Some((position, length)) = check.wanted(block.bytes().len() as u32) {
        let into = &mut block.bytes_mut()[..length as usize];
        offline.read(container.file, position, into).map_err(unread(&path))?;
        survey.take(&mut check, into);
    }
    let mut parts = Vec::new();
    for (file, position, length) in survey.index_parts(container) {
        // Whole sectors, past the page cache.
        let (from, end) = (position / 4096 * 4096, (position + u64::from(length)).next_multiple_of(4096));
        let mut block = Block::heap(BlockId(0), (end - from) as usize);
        offline.read(file, from, block.bytes_mut()).map_err(unread(&offline.path(file)))?;
        parts.push(block.bytes()[(position - from) as usize..][..length as usize].to_vec());
    }
    Ok(survey.finish(check, &parts))
}

impl Looked {
    /// All that is missing of one group, in order, without overlaps; why not, where a start refuses the log.
    pub(super) fn lost_of(&mut self, group: GroupId) -> Result<Vec<(u64, u64)>, Failure> {
        let survey = self.survey.as_mut().map_err(|error| refused(self.log, error))?;
        let mut all: BTreeSet<LostRange> = survey.damaged().into_iter().collect();
        for container in survey.containers() {
            all.extend(check(survey, &mut self.offline, &container)?.0.lost);
        }
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for range in all.into_iter().filter(|range| range.group == group) {
            match merged.last_mut() {
                Some(last) if range.first <= last.1.saturating_add(1) => last.1 = last.1.max(range.last),
                _ => merged.push((range.first, range.last)),
            }
        }
        Ok(merged)
    }

    /// Why a start refuses it, if it does.
    pub(super) fn refusal(&self) -> Option<(LogId, &OpenError)> {
        self.survey.as_ref().err().map(|error| (self.log, error))
    }

    /// Whether it keeps the group.
    pub(super) fn offsets(&self, group: GroupId) -> Option<(u64, u64)> {
        self.survey.as_ref().ok()?.offsets(group)
    }
}

/// A start refuses the log.
pub(super) fn refused(log: LogId, error: &OpenError) -> Failure {
    Failure::new("LOG_REFUSED", format!("log {} cannot be opened", log.0), what_to_do(error)).cause(error)
}

fn what_to_do(error: &OpenError) -> &'static str {
    match error {
        OpenError::NoSuperblock => {
            "put `superblock` back from a copy: the extents hold the records, but not what of them counts"
        }
        OpenError::Checkpoint { .. } => {
            "the records in the extents are as they are (`corelog log dump`), their index is lost: put the log back from a copy"
        }
        OpenError::Unreadable { .. } => {
            "nothing was changed: try again, and if it stays like that copy what can be read of the file to another disk"
        }
        OpenError::MissingExtent { .. } => "put the file back from a copy",
        OpenError::Features { .. } => "use the version of corelog that wrote it, or a later one",
        _ => "the cause says what is wrong with the file",
    }
}

struct Report {
    format: Format,
    output: Output,
    names: Names,
    verdict: Verdict,
}

impl Report {
    fn say(&mut self, text: &str, document: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Text => self.output.line(text),
            Format::Json => self.output.json(document),
        }
    }

    fn log(&mut self, looked: &mut Looked) -> Result<(), Failure> {
        let Looked { log, offline, copies, survey, tail_cut, possibly_lost } = looked;
        let sound = copies.iter().flatten().count();
        let version = copies.iter().flatten().map(|copy| copy.version).max();
        let said = version.map_or_else(String::new, |version| format!(", version {version}"));
        self.say(
            &format!("log {}  superblock: {sound} of {} copies verify{said}", log.0, copies.len()),
            &json!({ "log": log.0, "superblock_copies": copies.len(), "verify": sound, "version": version }),
        )?;
        // A copy that was being rewritten does not verify, and is written again at the next roll.
        let survey = match survey {
            Ok(survey) => survey,
            Err(error) => {
                self.verdict.refused += 1;
                return self.say(
                    &format!("  REFUSED  {error}\n           {}", what_to_do(error)),
                    &json!({ "log": log.0, "refused": error.to_string(), "help": what_to_do(error) }),
                );
            }
        };
        let mut lost: BTreeSet<LostRange> = survey.damaged().into_iter().collect();
        for container in survey.containers() {
            let before = offline.lost_sectors;
            let (checked, index) = check(survey, offline, &container)?;
            self.container(*log, &container, &checked, index, offline.lost_sectors - before)?;
            lost.extend(checked.lost);
        }
        if self.verdict.accepted == 0 {
            self.verdict.lost_sectors += offline.lost_sectors;
        }
        for range in lost {
            let LostRange { group, first, last } = range;
            let of = self.names.group(group);
            self.say(
                &format!("  DAMAGED  {of} offsets {first} to {last}"),
                &json!({ "log": log.0, "damaged": of, "group": group.0, "first": first, "last": last }),
            )?;
            self.verdict.lost.insert((*log, range));
        }
        for (group, first) in std::mem::take(possibly_lost) {
            self.verdict.possibly_lost += 1;
            let of = self.names.group(group);
            self.say(
                &format!("  POSSIBLY LOST  {of} from offset {first} on: frames are damaged, and nothing tells of it"),
                &json!({ "log": log.0, "possibly_lost": of, "group": group.0, "first": first }),
            )?;
        }
        if *tail_cut > 0 {
            self.say(
                &format!(
                    "  tail cut  {tail_cut} frames were under way when it stopped; none was acknowledged"
                ),
                &json!({ "log": log.0, "tail_cut": tail_cut }),
            )?;
        }
        Ok(())
    }

    fn container(
        &mut self,
        log: LogId,
        container: &Container,
        checked: &Checked,
        index: Option<bool>,
        lost_sectors: u64,
    ) -> Result<(), Failure> {
        let Checked { frames, batches, broken, lost, accepted } = checked;
        let Container { file, bytes, generation, .. } = container;
        self.verdict.files += 1;
        self.verdict.frames += frames;
        self.verdict.batches += batches;
        self.verdict.broken += if accepted.is_empty() { *broken } else { 0 };
        self.verdict.accepted += accepted.len() as u64;
        self.verdict.wrong_indexes += u64::from(index == Some(false));
        let mut faults = Vec::new();
        if *broken > 0 {
            faults.push(format!("{broken} DAMAGED frames"));
        }
        if !lost.is_empty() {
            faults.push(format!("{} DAMAGED ranges", lost.len()));
        }
        if !accepted.is_empty() {
            faults.push(format!("{} ranges whose loss is accepted", accepted.len()));
        }
        if lost_sectors > 0 {
            faults.push(format!("{lost_sectors} sectors DO NOT ANSWER"));
        }
        let index = match index {
            Some(true) => "sound",
            Some(false) => "DAMAGED",
            None => "not compared",
        };
        let verdict = if faults.is_empty() { "sound".to_owned() } else { faults.join(", ") };
        self.say(
            &format!(
                "  {file}  generation {generation}, {bytes} bytes, {frames} frames, {batches} batches: {verdict}; \
                 its index: {index}"
            ),
            &json!({
                "log": log.0,
                "file": file.to_string(),
                "generation": generation,
                "bytes": bytes,
                "frames": frames,
                "batches": batches,
                "damaged_frames": broken,
                "damaged_ranges": lost.len(),
                "accepted_ranges": accepted.len(),
                "unreadable_sectors": lost_sectors,
                "index": index,
            }),
        )
    }

    fn end(&mut self, bytes: u64, took: Duration) -> Result<(), Failure> {
        let Verdict { files, frames, batches, .. } = self.verdict;
        let (seconds, clean) = (took.as_secs_f64(), self.verdict.is_clean());
        let rate = bytes as f64 / 1e6 / seconds.max(1e-6);
        let said = if clean { "nothing is damaged" } else { "DAMAGED" };
        self.say(
            &format!(
                "{files} files, {frames} frames, {batches} batches, {bytes} bytes read in {seconds:.2} s, \
                 {rate:.0} MB/s: {said}"
            ),
            &json!({
                "files": files,
                "frames": frames,
                "batches": batches,
                "bytes": bytes,
                "seconds": seconds,
                "megabytes_per_second": rate,
                "damaged_ranges": self.verdict.lost.len(),
                "accepted_ranges": self.verdict.accepted,
                "possibly_lost": self.verdict.possibly_lost,
                "clean": clean,
            }),
        )?;
        self.output.flush()
    }
}
