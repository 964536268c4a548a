//! A start from an image, and what has to be there: then, after new appends, and after another start.

use std::collections::{BTreeMap, BTreeSet};

use corelog_model::batch::{BatchHeader, Patch};
use corelog_model::{GroupId, Term};
use corelog_storage::{EntryKind, FileName, LogConfig, OpenError, Parts};

use super::bench::{TOPIC, batch};
use super::engine::{Engine, Stopped, Told};
use super::image::Image;
use super::ledger::{Ack, Change, Ledger, Mark, Owner, Promise};
use super::medium::Medium;
use crate::random::Random;

/// What an image is held against.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// How the log is set up.
    pub config: &'a LogConfig,
    /// What was sent.
    pub ledger: &'a Ledger,
    /// What was promised by then.
    pub promise: &'a Promise,
    /// The medium has lost something that it had confirmed, in this file.
    pub damaged: Option<FileName>,
}

/// How often what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Images judged.
    pub images: u64,
    /// Starts of them that were interrupted by another loss of power.
    pub interrupted: u64,
    /// Images of damaged media among them.
    pub damaged: u64,
    /// Logs refused by name, where that is right.
    pub refused: u64,
    /// Images in which something acknowledged was named as damaged or perhaps lost.
    pub named: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.images += other.images;
        self.interrupted += other.interrupted;
        self.damaged += other.damaged;
        self.refused += other.refused;
        self.named += other.named;
    }
}

/// What one group holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    start: u64,
    end: u64,
    /// By first offset.
    batches: BTreeMap<u64, Mark>,
    /// Offsets named as damaged.
    lost: Vec<(u64, u64)>,
}

/// What a log holds.
#[derive(Debug)]
struct Found {
    groups: BTreeMap<GroupId, Held>,
    owner: Owner,
    term: u32,
}

/// Starts from the image, interrupted after each of `stops` operations in turn, and judges what is there. Everything that
/// is not as it has to be is told in words.
pub fn judge(
    case: Case<'_>,
    image: &Image,
    stops: &[usize],
    random: &mut Random,
    counts: &mut Counts,
) -> Result<(), String> {
    counts.images += 1;
    counts.damaged += u64::from(case.damaged.is_some());
    let mut medium = Medium::new(image.clone());
    for stop in stops {
        let mut rest = Medium::default();
        match Engine::open(case.config, medium, Vec::new(), Some(*stop), &mut rest) {
            Err(Stopped::Interrupted) => counts.interrupted += 1,
            Ok((engine, _)) => rest = engine.medium,
            Err(Stopped::Refused(error)) => return refused(case, error, counts),
            Err(Stopped::Wrong(what)) => return Err(what),
        }
        let fates: Vec<_> = rest.pending().iter().map(|pending| random.pick(pending.fates())).collect();
        medium = Medium::new(rest.image(&fates));
    }
    let (mut engine, told) = match Engine::open(case.config, medium, Vec::new(), None, &mut Medium::default())
    {
        Ok(opened) => opened,
        Err(Stopped::Refused(error)) => return refused(case, error, counts),
        Err(Stopped::Interrupted) => unreachable!("nobody asked for that"),
        Err(Stopped::Wrong(what)) => return Err(what),
    };
    let found = look(case, &mut engine, told, counts)?;
    let new = append(case, &mut engine, &found)?;
    // What is under way behind the last promise may be lost again.
    let fates: Vec<_> = engine.medium.pending().iter().map(|pending| random.pick(pending.fates())).collect();
    let medium = Medium::new(engine.medium.image(&fates));
    let (mut engine, told) = Engine::open(case.config, medium, Vec::new(), None, &mut Medium::default())
        .map_err(|stopped| format!("the second start: {stopped:?}"))?;
    compare(case, &mut engine, told, &found, &new).map_err(|what| format!("after the second start: {what}"))
}

/// A log may be refused by name only for damage of what says where the log is.
fn refused(case: Case<'_>, error: OpenError, counts: &mut Counts) -> Result<(), String> {
    let right = match (case.damaged, error) {
        (Some(_), OpenError::Checkpoint { .. }) => true,
        (Some(file), OpenError::NoSuperblock) => file == FileName::Superblock,
        _ => false,
    };
    counts.refused += u64::from(right);
    if right { Ok(()) } else { Err(format!("refused: {error}")) }
}

/// Opens the groups that are there, and holds all of them against what was promised.
fn look(case: Case<'_>, engine: &mut Engine, told: Told, counts: &mut Counts) -> Result<Found, String> {
    let Case { ledger, promise, .. } = case;
    let acks = &ledger.acks[..promise.acks];
    let named = !told.damaged.is_empty() || !told.possibly_lost.is_empty();
    if case.damaged.is_none() && (named || !told.gaps.is_empty()) {
        return Err(format!("a loss of power is not damage: {told:?}"));
    }
    if !named && !told.gaps.is_empty() {
        return Err(format!("entries are gone and nothing is said: {:?}", told.gaps));
    }
    let term = engine.log.term();
    if term <= Term(promise.term) {
        return Err(format!("term {term} is not behind {}", promise.term));
    }
    let mut open: BTreeSet<_> = told.owner.open.clone();
    if case.damaged.is_some() {
        // The entry that opened a group may be what is damaged; its records are to be named all the same.
        let groups = acks.iter().filter_map(|ack| match ack {
            Ack::Batch { group, .. } if !promise.dropping.contains(group) => Some(*group),
            _ => None,
        });
        open.extend(groups);
    }
    for &group in &open {
        engine.log.open_group(group, TOPIC, group.0 as u32);
    }
    engine.log.drop_unopened();
    engine.log.check();
    let mut groups = BTreeMap::new();
    for &group in &open {
        groups.insert(group, read(ledger, engine, group)?);
    }
    for (group, (index, sum)) in &told.owner.last {
        let sent = ledger.controls.get(&(*group, *index)).is_some_and(|sent| sent.contains(sum));
        if !sent {
            return Err(format!("nobody sent entry {index} of group {group}"));
        }
    }
    let possibly_lost: Vec<_> = engine.log.possibly_lost().collect();
    let of_log: BTreeMap<_, _> = possibly_lost.iter().map(|(slot, first)| (*slot, *first)).collect();
    let excused = |group: GroupId, offset: u64| {
        let of = |lost: &(u64, u64)| (lost.0..=lost.1).contains(&offset);
        groups.get(&group).is_some_and(|held| held.lost.iter().any(of))
            || told
                .damaged
                .iter()
                .any(|(of, first, last)| *of == Some(group) && (*first..=*last).contains(&offset))
            || engine
                .log
                .group(group)
                .and_then(|slot| of_log.get(&slot))
                .is_some_and(|first| offset >= *first)
    };
    let mut missing = false;
    for ack in acks {
        missing |= !keeps(case, ack, &groups, &told, named, &excused)?;
    }
    counts.named += u64::from(missing);
    Ok(Found { groups, owner: told.owner, term: term.0 })
}

/// Whether a promise is kept: `false` where what was promised is named as damaged or perhaps lost.
fn keeps(
    case: Case<'_>,
    ack: &Ack,
    groups: &BTreeMap<GroupId, Held>,
    told: &Told,
    named: bool,
    excused: &dyn Fn(GroupId, u64) -> bool,
) -> Result<bool, String> {
    match *ack {
        Ack::Batch { group, .. } if case.promise.dropping.contains(&group) => Ok(true),
        Ack::Batch { group, base, mark } => {
            let Some(held) = groups.get(&group) else { return Err(format!("group {group} is gone")) };
            if base < held.start {
                let recycled = case.promise.starts.get(&group).is_some_and(|start| base < *start);
                // A start makes one more extent, which may be one more than are to be kept.
                let may = recycled || case.config.retention_bytes.is_some();
                return if may { Ok(true) } else { Err(format!("group {group} begins behind {base}")) };
            }
            match held.batches.get(&base) {
                Some(found) if *found == mark => Ok(true),
                _ if case.damaged.is_some() && excused(group, base) => Ok(false),
                found => Err(format!(
                    "acknowledged offset {base} of group {group} is lost: {found:?}, not {mark:?}; {held:?}, {told:?}"
                )),
            }
        }
        Ack::Control { group, index, sum } => match told.owner.last.get(&group) {
            Some((found, other)) if *found == index && *other != sum => {
                Err(format!("entry {index} of group {group} is another"))
            }
            Some((found, _)) if *found >= index => Ok(true),
            _ if case.damaged.is_some() && named => Ok(false),
            found => Err(format!("acknowledged entry {index} of group {group} is lost: {found:?}")),
        },
        Ack::Dropped(group) if told.owner.open.contains(&group) && !named => {
            Err(format!("group {group} is back"))
        }
        Ack::Dropped(_) => Ok(true),
    }
}

/// Reads a whole group; every batch in it is one that was sent there.
fn read(ledger: &Ledger, engine: &mut Engine, group: GroupId) -> Result<Held, String> {
    let slot = engine.log.group(group).ok_or_else(|| format!("group {group} has no place"))?;
    // What a start goes on with, a pack or an index written once more, may take room that recycling has to find.
    engine.settle();
    let (start, end) = (engine.log.log_start(slot), engine.log.log_end(slot));
    let mut held = Held { start, end, ..Held::default() };
    let mut next = start;
    let mut each = |header: &BatchHeader, bytes: &[u8]| {
        let base = header.base_offset;
        let sound = header.verify_body(bytes) && BatchHeader::verify_header(bytes, TOPIC, group.0 as u32);
        if !sound {
            return Err(format!("group {group}: the batch at {base} does not verify"));
        }
        let mark = Mark::of(header);
        if !ledger.sent.get(&(group, base)).is_some_and(|sent| sent.contains(&mark)) {
            return Err(format!("group {group}: nobody sent the batch at {base}"));
        }
        if held.batches.insert(base, mark).is_some() {
            return Err(format!("group {group}: the batch at {base} comes twice"));
        }
        Ok(())
    };
    let mut lost = Vec::new();
    engine.read(slot, start, &mut each, &mut |first, last| lost.push((first, last)))?;
    // Each of these batches holds one record.
    for base in held
        .batches
        .keys()
        .copied()
        .chain(lost.iter().flat_map(|(first, last)| *first..=*last))
        .collect::<BTreeSet<_>>()
    {
        if base != next {
            return Err(format!("group {group}: {base} comes where {next} is due"));
        }
        next = base + 1;
    }
    if next != end {
        return Err(format!("group {group} ends at {next}, not at {end}"));
    }
    held.lost = lost;
    Ok(held)
}

/// The log takes new records, and shows them: what was appended, by group.
fn append(case: Case<'_>, engine: &mut Engine, found: &Found) -> Result<Vec<(GroupId, u64, Mark)>, String> {
    const NEW: u64 = 1 << 40;
    /// Checkpoints until there has to be room.
    const MADE_ROOM: usize = 4;
    let mut new = Vec::new();
    for &group in found.groups.keys() {
        let sealed = batch(group, NEW + group.0, 100);
        let mark = Mark::of(&BatchHeader::parse(&sealed).expect("just sealed"));
        for _ in 0..MADE_ROOM {
            if engine.log.room_for(1, sealed.len()).is_ok() {
                break;
            }
            // What is to be let go waits for a checkpoint.
            engine.settle();
            if let Some(kind) = engine.log.wants_checkpoint() {
                let mut parts = Parts::default();
                parts.push(&found.owner.encode());
                engine.log.checkpoint(kind, &mut parts);
            }
        }
        engine.log.room_for(1, sealed.len()).map_err(|full| format!("no room after a start: {full:?}"))?;
        let slot = engine.log.group(group).ok_or("the group is open")?;
        let base_offset = engine.log.log_end(slot);
        let patch = Patch { base_offset, append_timestamp_us: 6, leader_epoch: engine.log.term() };
        engine.log.append_batch(slot, engine.log.last_index(slot) + 1, &sealed, &patch);
        new.push((group, base_offset, mark));
    }
    let group = GroupId::POSITIONS;
    let payload = Change::Notes(NEW).payload();
    engine.log.room_for_change(payload.len()).map_err(|full| format!("no room for a change: {full:?}"))?;
    let index = engine.log.group(group).map_or(0, |slot| engine.log.last_index(slot)) + 1;
    let known = found.owner.last.get(&group).map_or(0, |(index, _)| *index);
    if index <= known || (case.damaged.is_none() && index != known + 1) {
        return Err(format!("entry {index} of group {group} is given behind {known}"));
    }
    engine.log.append_control(EntryKind::Position, group, index, &payload);
    let newest = engine.log.newest_frame();
    engine.settle();
    if engine.log.durable_frame() < newest || engine.log.is_read_only() {
        return Err("what is appended after a start never becomes durable".to_owned());
    }
    Ok(new)
}

/// What was there is there again, and what was appended since.
fn compare(
    case: Case<'_>,
    engine: &mut Engine,
    told: Told,
    found: &Found,
    new: &[(GroupId, u64, Mark)],
) -> Result<(), String> {
    let clean = told.damaged.is_empty() && told.possibly_lost.is_empty() && told.gaps.is_empty();
    if case.damaged.is_none() && !clean {
        return Err(format!("damage out of nothing: {told:?}"));
    }
    if engine.log.term().0 <= found.term {
        return Err(format!("term {} comes after {}", engine.log.term(), found.term));
    }
    for &group in found.groups.keys() {
        engine.log.open_group(group, TOPIC, group.0 as u32);
    }
    engine.log.drop_unopened();
    let mut known = Ledger::default();
    if case.damaged.is_some() {
        // Where a frame was written twice because a write had failed, a later start may find the other one.
        known.sent.clone_from(&case.ledger.sent);
    }
    for (group, held) in &found.groups {
        for (base, mark) in &held.batches {
            known.sent.entry((*group, *base)).or_default().push(*mark);
        }
    }
    for (group, base, mark) in new {
        known.sent.entry((*group, *base)).or_default().push(*mark);
    }
    for (group, before) in &found.groups {
        let now = read(&known, engine, *group)?;
        if now.end < before.end + 1 {
            return Err(format!("group {group} ended at {}, now at {}", before.end + 1, now.end));
        }
        let served = before.batches.keys().filter(|base| **base >= now.start);
        let gone = served.filter(|base| !now.batches.contains_key(base)).count();
        if gone > 0 || (case.config.retention_bytes.is_none() && now.start != before.start) {
            return Err(format!("group {group} held {before:?}, now {now:?}"));
        }
    }
    for (group, base, mark) in new {
        let slot = engine.log.group(*group).ok_or("the group is open")?;
        let mut same = false;
        let mut each = |header: &BatchHeader, _: &[u8]| {
            same |= header.base_offset == *base && Mark::of(header) == *mark;
            Ok(())
        };
        engine.read(slot, *base, &mut each, &mut |_, _| {})?;
        if !same {
            return Err(format!("group {group}: the new batch at {base} is lost"));
        }
    }
    Ok(())
}
