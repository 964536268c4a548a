//! Named positions: how far whoever reads under a name has come in each partition of this log.
//!
//! A position is kept by the log that keeps the partition, as an entry of that log's positions group, whatever the
//! topic's level: it is acknowledged when its frame is durable, and so are by then all records it has passed, which come
//! before it in the log. Commits of one turn share a frame. The last one counts, whoever made it. Readers are told what
//! is durable, never what a crash could take back. Checkpoints write positions forward, so that no extent is kept for
//! them. They go with their partition.
//!
//! Bounded by [`Limits::positions`](crate::Limits): names and notes are short, so their number bounds their memory.
//!
//! **Invariants:** versions of a position are in the order of their frames, and once who waited for a frame is answered
//! only the newest durable one is kept; whoever reads is told of durable ones only.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use corelog_model::limits::{MAX_POSITION_METADATA_BYTES, is_position_name};
use corelog_model::{GroupId, Now, Term};
use corelog_storage::{EntryKind, feature};

use crate::codec::{RISING_LIMIT, Reader, Writer};
use crate::event::{Actions, Taken};
use crate::fetch::out_of_range;
use crate::partition::PartitionId;
use crate::refusal::{Bounded, Refusal};
use crate::request::{Request, Which};
use crate::response::{PositionView, PositionsView, Response};
use crate::room::NoRoom;
use crate::shard::{Asker, Shard};

/// Version of the entries' encoding, the first byte of each.
const CHANGE_VERSION: u8 = 1;
/// What a position takes in an answer, at most, beside its name and its note.
const VIEW_BYTES: usize = 64;
/// What a position takes in memory, about, beside them.
const KEPT_BYTES: usize = 128;

/// How far somebody has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The next offset to be read.
    pub(crate) offset: u64,
    /// The epoch of what was read before it, where known.
    pub(crate) leader_epoch: Option<Term>,
    /// When it was committed, in microseconds since 1970.
    pub(crate) commit_us: u64,
    /// The client's note.
    pub(crate) metadata: Arc<str>,
}

/// One entry of the positions group. The layout is on disk; that of a commit, from the group on, is also a checkpoint's.
///
/// ```text
/// version u8 (1), kind u8 (1 = commit, 2 = forget), group u64, name
/// of a commit also: offset u64, epoch u32 (0 = none), committed u64, note
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) group: GroupId,
    pub(crate) name: Arc<str>,
    /// `None`: forgotten.
    pub(crate) position: Option<Position>,
}

impl Change {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        let mut to = Writer(out);
        to.u8(CHANGE_VERSION);
        match &self.position {
            Some(position) => {
                to.u8(1);
                write_position(&mut to, self.group, &self.name, position);
            }
            None => {
                to.u8(2);
                to.u64(self.group.0);
                to.text(&self.name);
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        if from.u8()? != CHANGE_VERSION {
            return None;
        }
        let change = match from.u8()? {
            1 => read_position(&mut from)?,
            2 => {
                let (group, name) = read_key(&mut from)?;
                Self { group, name, position: None }
            }
            _ => return None,
        };
        from.is_empty().then_some(change)
    }
}

/// What an item of a checkpoint holds as well.
pub(crate) fn write_position(to: &mut Writer<'_>, group: GroupId, name: &str, position: &Position) {
    to.u64(group.0);
    to.text(name);
    to.u64(position.offset);
    to.u32(position.leader_epoch.unwrap_or_default().0);
    to.u64(position.commit_us);
    to.text(&position.metadata);
}

pub(crate) fn read_position(from: &mut Reader<'_>) -> Option<Change> {
    let (group, name) = read_key(from)?;
    let offset = from.u64().filter(|offset| *offset <= RISING_LIMIT)?;
    let leader_epoch = Some(Term(from.u32()?)).filter(|term| *term != Term(0));
    let commit_us = from.u64()?;
    let metadata = from.text().filter(|text| text.len() <= MAX_POSITION_METADATA_BYTES)?.into();
    let position = Position { offset, leader_epoch, commit_us, metadata };
    Some(Change { group, name, position: Some(position) })
}

fn read_key(from: &mut Reader<'_>) -> Option<(GroupId, Arc<str>)> {
    let group = Some(GroupId(from.u64()?)).filter(|group| *group >= GroupId::FIRST_PARTITION)?;
    let name = from.text().filter(|name| is_position_name(name))?;
    Some((group, name.into()))
}

/// What a position became with one entry.
#[derive(Clone, Debug)]
struct Version {
    /// The entry's; 0 for what an earlier start wrote.
    frame: u64,
    position: Option<Position>,
}

/// One position: the durable version, if there is one, and those that are under way behind it.
#[derive(Clone, Debug, Default)]
struct Named {
    versions: Vec<Version>,
    /// Whether the last checkpoint says something else.
    changed: bool,
}

impl Named {
    fn newest(&self) -> Option<&Position> {
        self.versions.last().and_then(|version| version.position.as_ref())
    }

    /// What a crash does not take back.
    fn durable(&self, frame: u64) -> Option<&Position> {
        let durable = self.versions.iter().rev().find(|version| version.frame <= frame)?;
        durable.position.as_ref()
    }

    fn bytes(&self, name: &str) -> usize {
        KEPT_BYTES + name.len() + self.newest().map_or(0, |position| position.metadata.len())
    }
}

/// A change whose frame is not durable yet, and who waits for it.
#[derive(Clone, Debug)]
struct UnderWay {
    frame: u64,
    group: GroupId,
    name: Arc<str>,
    forgets: bool,
    asker: Asker,
}

/// All positions of a log.
#[derive(Debug)]
pub(crate) struct Positions {
    max: u32,
    groups: BTreeMap<GroupId, BTreeMap<Arc<str>, Named>>,
    count: u32,
    bytes: usize,
    /// Index of the group's next entry. Indexes start at 1.
    pub(crate) next_index: u64,
    /// `next_index` when the last checkpoint was written; 0 before the first.
    checkpointed: u64,
    /// Something is gone that the last checkpoint has: the next one says all anew.
    anew: bool,
    under_way: VecDeque<UnderWay>,
}

impl Positions {
    /// None, and room for `max`.
    pub(crate) const fn new(max: u32) -> Self {
        Self {
            max,
            groups: BTreeMap::new(),
            count: 0,
            bytes: 0,
            next_index: 1,
            checkpointed: 0,
            anew: true,
            under_way: VecDeque::new(),
        }
    }

    pub(crate) const fn len(&self) -> u32 {
        self.count
    }

    /// About what they take in memory.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.max);
    }

    fn named(&self, group: GroupId, name: &str) -> Option<&Named> {
        self.groups.get(&group)?.get(name)
    }

    /// Whether a position under this name fits.
    fn room(&self, group: GroupId, name: &str) -> Result<(), Refusal> {
        if self.count < self.max || self.named(group, name).is_some() {
            return Ok(());
        }
        Err(Refusal::TooMany { what: Bounded::Positions, max: self.max })
    }

    /// The state after one more entry, which is in `frame`; 0: it is durable.
    pub(crate) fn apply(&mut self, change: Change, frame: u64) {
        let Change { group, name, position } = change;
        self.anew |= position.is_none();
        if position.is_none() && self.named(group, &name).is_none() {
            return;
        }
        let of_group = self.groups.entry(group).or_default();
        let named = of_group.entry(Arc::clone(&name)).or_insert_with(|| {
            self.count += 1;
            self.bytes += KEPT_BYTES + name.len();
            Named::default()
        });
        self.bytes -= named.bytes(&name);
        named.changed = true;
        named.versions.push(Version { frame, position });
        self.bytes += named.bytes(&name);
        if frame == 0 {
            self.settle(group, &name, 0);
        }
    }

    /// Frames up to `durable` are: what came before the last of them is of no interest any more.
    fn settle(&mut self, group: GroupId, name: &str, durable: u64) {
        let Some(of_group) = self.groups.get_mut(&group) else { return };
        let Some(named) = of_group.get_mut(name) else { return };
        let after = named.versions.iter().rposition(|version| version.frame <= durable);
        named.versions.drain(..after.unwrap_or(0));
        if let [Version { position: None, frame }] = named.versions[..]
            && frame <= durable
        {
            self.bytes -= named.bytes(name);
            self.count -= 1;
            of_group.remove(name);
            if of_group.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// The partition is gone, and its positions with it. No checkpoint has to say so: they say which partitions there are.
    pub(crate) fn drop_group(&mut self, group: GroupId) {
        for (name, named) in self.groups.remove(&group).unwrap_or_default() {
            self.count -= 1;
            self.bytes -= named.bytes(&name);
        }
    }

    /// Drops the positions of partitions that are not there.
    pub(crate) fn retain(&mut self, is_open: impl Fn(GroupId) -> bool) {
        let closed: Vec<_> = self.groups.keys().copied().filter(|group| !is_open(*group)).collect();
        closed.into_iter().for_each(|group| self.drop_group(group));
    }

    /// Whether an incremental checkpoint has something to say.
    pub(crate) const fn has_changed(&self) -> bool {
        self.next_index != self.checkpointed || self.anew
    }

    /// Whether the next incremental checkpoint begins anew.
    pub(crate) const fn is_anew(&self) -> bool {
        self.anew
    }

    /// All positions, or those that changed since the last checkpoint, as the entries so far have them.
    pub(crate) fn iter(&self, all: bool) -> impl Iterator<Item = (GroupId, &str, &Position)> {
        self.groups.iter().flat_map(move |(group, of_group)| {
            let chosen = of_group.iter().filter(move |(_, named)| all || named.changed);
            chosen.filter_map(|(name, named)| Some((*group, &**name, named.newest()?)))
        })
    }

    /// A checkpoint holds all that is here.
    pub(crate) fn checkpointed(&mut self) {
        self.groups.values_mut().flat_map(BTreeMap::values_mut).for_each(|named| named.changed = false);
        self.checkpointed = self.next_index;
        self.anew = false;
    }

    /// The durable positions of a partition: what is asked for, as much as fits `max_bytes`, and at least one. Whether
    /// there are more.
    fn view(
        &self,
        group: GroupId,
        which: Which<'_>,
        durable: u64,
        max_bytes: u32,
    ) -> (Vec<PositionView>, bool) {
        let Some(of_group) = self.groups.get(&group) else { return (Vec::new(), false) };
        let from = match which {
            Which::One(name) => {
                let found = of_group.get_key_value(name);
                let view = found.and_then(|(name, named)| Some(view(name, named.durable(durable)?)));
                return (view.into_iter().collect(), false);
            }
            Which::After("") => Bound::Unbounded,
            Which::After(name) => Bound::Excluded(name),
        };
        let (mut views, mut bytes) = (Vec::new(), 0);
        for (name, named) in of_group.range::<str, _>((from, Bound::Unbounded)) {
            let Some(position) = named.durable(durable) else { continue };
            bytes += VIEW_BYTES + name.len() + position.metadata.len();
            if bytes > max_bytes as usize && !views.is_empty() {
                return (views, true);
            }
            views.push(view(name, position));
        }
        (views, false)
    }

    /// Counts are those of the table, versions rise, and whoever waits is in the order of the frames.
    pub(crate) fn check(&self, is_open: impl Fn(GroupId) -> bool) {
        let all = || self.groups.values().flatten();
        assert_eq!(all().count(), self.count as usize);
        assert_eq!(all().map(|(name, named)| named.bytes(name)).sum::<usize>(), self.bytes);
        assert!(self.groups.iter().all(|(group, of_group)| is_open(*group) && !of_group.is_empty()));
        for (name, named) in all() {
            assert!(is_position_name(name) && !named.versions.is_empty());
            assert!(named.versions.is_sorted_by_key(|version| version.frame), "{name}: {named:?}");
        }
        assert!(self.under_way.iter().is_sorted_by_key(|under_way| under_way.frame));
        assert!(self.checkpointed <= self.next_index);
    }
}

fn view(name: &Arc<str>, position: &Position) -> PositionView {
    PositionView {
        name: Arc::clone(name),
        offset: position.offset,
        leader_epoch: position.leader_epoch,
        commit_timestamp_us: position.commit_us,
        metadata: Arc::clone(&position.metadata),
    }
}

/// What a request says of a position.
#[derive(Clone, Copy, Debug)]
struct Commit<'a> {
    offset: u64,
    leader_epoch: Option<Term>,
    metadata: &'a str,
}

impl Shard {
    /// A request about positions of a partition.
    pub(crate) fn on_position(
        &mut self,
        now: Now,
        asker: Asker,
        id: PartitionId,
        request: &Request<'_>,
        out: &mut Actions,
    ) -> Taken {
        match *request {
            Request::CommitPosition { name, offset, leader_epoch, metadata, .. } => {
                let commit = Commit { offset, leader_epoch, metadata };
                self.change_position(now, asker, id, name, Some(commit), out)
            }
            Request::DeletePosition { name, .. } => self.change_position(now, asker, id, name, None, out),
            Request::ReadPositions { which, max_bytes, .. } => {
                self.read_positions(asker, id, which, max_bytes, out)
            }
            _ => unreachable!("it is about something else"),
        }
    }

    /// Takes a commit, or with `None` forgets the position; answered when that is durable.
    fn change_position(
        &mut self,
        now: Now,
        asker: Asker,
        id: PartitionId,
        name: &str,
        commit: Option<Commit<'_>>,
        out: &mut Actions,
    ) -> Taken {
        let group = match self.check_change(id, name, commit) {
            Ok(group) => group,
            Err(refusal) => return self.refuse(asker, refusal, out),
        };
        if commit.is_none() && self.positions.named(group, name).is_none() {
            asker.answer(Response::PositionDeleted, out);
            return Taken::Done;
        }
        if self.positions.under_way.len() >= self.config.limits.pending as usize {
            self.counters.blocked += 1;
            return Taken::Blocked;
        }
        let position = commit.map(|commit| Position {
            offset: commit.offset,
            leader_epoch: commit.leader_epoch,
            commit_us: now.wall_us,
            metadata: commit.metadata.into(),
        });
        let change = Change { group, name: name.into(), position };
        match self.append_change(now, change, asker) {
            Ok(()) => Taken::Done,
            Err(NoRoom::Wait) => {
                self.counters.blocked += 1;
                Taken::Blocked
            }
            Err(NoRoom::Refused(refusal)) => self.refuse(asker, refusal, out),
        }
    }

    /// The next offset to be read may be the high watermark, but not lie beyond it; one that retention has passed is the
    /// reader's to find out. What was read must be what is there.
    fn check_change(
        &self,
        id: PartitionId,
        name: &str,
        commit: Option<Commit<'_>>,
    ) -> Result<GroupId, Refusal> {
        let partition = self.partitions.get(id).ok_or(Refusal::UnknownTopicId)?;
        if !is_position_name(name) {
            return Err(Refusal::InvalidPositionName);
        }
        let Some(Commit { offset, leader_epoch, metadata }) = commit else { return Ok(partition.group) };
        if metadata.len() > MAX_POSITION_METADATA_BYTES {
            return Err(Refusal::InvalidRequest);
        }
        self.may_write(feature::POSITIONS)?;
        self.agrees(partition, offset, leader_epoch)?;
        let cursors = partition.cursors();
        if offset > cursors.high_watermark {
            return Err(out_of_range(offset, cursors.log_start, cursors.high_watermark));
        }
        self.positions.room(partition.group, name)?;
        Ok(partition.group)
    }

    /// Appends an entry of this log's positions group and applies it.
    fn append_change(&mut self, now: Now, change: Change, asker: Asker) -> Result<(), NoRoom> {
        let mut bytes = std::mem::take(&mut self.scratch);
        change.encode(&mut bytes);
        let room = self.room(now, bytes.len());
        if room.is_ok() {
            let index = self.positions.next_index;
            let (kind, group) = (EntryKind::Position, GroupId::POSITIONS);
            let frame = self.log.append_control(kind, group, index, &bytes).frame;
            self.positions.next_index += 1;
            let (group, name, forgets) = (change.group, Arc::clone(&change.name), change.position.is_none());
            self.positions.under_way.push_back(UnderWay { frame, group, name, forgets, asker });
            self.positions.apply(change, frame);
        }
        self.scratch = bytes;
        room
    }

    /// Answers the changes that are durable; once the log takes no more, all that wait.
    pub(crate) fn follow_positions(&mut self, out: &mut Actions) {
        let durable = self.log.durable_frame();
        while let Some(done) = self.positions.under_way.pop_front_if(|first| first.frame <= durable) {
            let UnderWay { group, name, forgets, asker, .. } = done;
            if !self.groups.contains_key(&group) {
                _ = self.refuse(asker, Refusal::UnknownTopicId, out);
                continue;
            }
            self.positions.settle(group, &name, durable);
            let response = if forgets { Response::PositionDeleted } else { Response::PositionCommitted };
            asker.answer(response, out);
        }
        if self.log.is_read_only() {
            while let Some(UnderWay { asker, .. }) = self.positions.under_way.pop_front() {
                _ = self.refuse(asker, Refusal::ReadOnly, out);
            }
        }
    }

    /// Answers with the durable positions of a partition.
    fn read_positions(
        &mut self,
        asker: Asker,
        id: PartitionId,
        which: Which<'_>,
        max_bytes: u32,
        out: &mut Actions,
    ) -> Taken {
        if matches!(which, Which::One(name) if !is_position_name(name)) {
            return self.refuse(asker, Refusal::InvalidPositionName, out);
        }
        let partition = self.partitions.get(id).expect("a resolved partition exists");
        let cursors = partition.cursors();
        let durable = self.log.durable_frame();
        let (positions, more) = self.positions.view(partition.group, which, durable, max_bytes);
        let (log_start, high_watermark) = (cursors.log_start, cursors.high_watermark);
        let view = PositionsView { log_start, high_watermark, positions, more };
        asker.answer(Response::Positions(Box::new(view)), out);
        Taken::Done
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    const GROUP: GroupId = GroupId(16);

    fn position(offset: u64) -> Position {
        Position { offset, leader_epoch: Some(Term(3)), commit_us: 5, metadata: "note".into() }
    }

    fn set(positions: &mut Positions, name: &str, offset: Option<u64>, frame: u64) {
        let change = Change { group: GROUP, name: name.into(), position: offset.map(position) };
        positions.next_index += 1;
        positions.apply(change, frame);
    }

    fn read(positions: &Positions, name: &str, durable: u64) -> Option<u64> {
        let (found, more) = positions.view(GROUP, Which::One(name), durable, 0);
        assert!(!more && found.len() <= 1);
        found.first().map(|view| view.offset)
    }

    /// What is under way is nobody's business yet: a crash could take it back.
    #[test]
    fn readers_see_the_newest_durable_version_whatever_is_under_way_behind_it() {
        let mut positions = Positions::new(10);
        for (frame, offset) in [(1, Some(10)), (2, Some(20)), (3, None), (4, Some(5))] {
            set(&mut positions, "a", offset, frame);
        }
        let expected = [None, Some(10), Some(20), None, Some(5)];
        for (durable, expected) in (0..).zip(expected) {
            assert_eq!(read(&positions, "a", durable), expected, "frame {durable} is durable");
            positions.settle(GROUP, "a", durable);
            assert_eq!(read(&positions, "a", durable), expected, "and nothing else is kept");
            positions.check(|_| true);
        }
        assert_eq!(positions.len(), 1);
        set(&mut positions, "a", None, 5);
        positions.settle(GROUP, "a", 5);
        assert_eq!((positions.len(), positions.bytes()), (0, 0));
    }

    #[test]
    fn the_bound_is_for_new_names_and_a_forgotten_one_makes_room_when_that_is_durable() {
        let mut positions = Positions::new(2);
        set(&mut positions, "a", Some(1), 0);
        set(&mut positions, "b", Some(1), 0);
        let full = Err(Refusal::TooMany { what: Bounded::Positions, max: 2 });
        assert_eq!(positions.room(GROUP, "c"), full);
        assert_eq!(positions.room(GROUP, "b"), Ok(()));
        assert_eq!(positions.room(GroupId(17), "b"), full, "another partition's is another one");
        set(&mut positions, "a", None, 7);
        assert_eq!(positions.room(GROUP, "c"), full, "it may come back");
        positions.settle(GROUP, "a", 7);
        assert_eq!(positions.room(GROUP, "c"), Ok(()));
        positions.drop_group(GROUP);
        positions.check(|_| false);
        assert_eq!((positions.len(), positions.bytes()), (0, 0));
    }

    #[test]
    fn a_long_list_comes_in_pieces_that_name_where_the_next_one_begins() {
        let mut positions = Positions::new(1000);
        let names: Vec<String> = (0..100).map(|at| format!("reader-{at:03}")).collect();
        names.iter().for_each(|name| set(&mut positions, name, Some(1), 0));
        set(&mut positions, "under way", Some(1), 9);
        for (max_bytes, pieces) in [(0, 100..=100), (1_000, 8..=12), (1 << 20, 1..=1)] {
            let (mut found, mut after, mut count) = (Vec::new(), String::new(), 0);
            loop {
                let (views, more) = positions.view(GROUP, Which::After(&after), 8, max_bytes);
                found.extend(views.iter().map(|view| view.name.as_ref().to_owned()));
                count += 1;
                if !more {
                    break;
                }
                after.clone_from(found.last().expect("at least one comes"));
            }
            assert_eq!(found, names);
            assert!(pieces.contains(&count), "{count} pieces of {max_bytes} bytes");
        }
    }

    fn change() -> impl Strategy<Value = Change> {
        let position = (0..RISING_LIMIT, option::of(1u32..), any::<u64>(), ".{0,60}");
        let position = position.prop_map(|(offset, epoch, commit_us, metadata)| Position {
            offset,
            leader_epoch: epoch.map(Term),
            commit_us,
            metadata: metadata.into(),
        });
        (16u64..19, "[a-cä]{1,2}", option::of(position)).prop_map(|(group, name, position)| Change {
            group: GroupId(group),
            name: name.into(),
            position,
        })
    }

    proptest! {
        #[test]
        fn entries_survive_encoding_and_no_prefix_of_them_is_one(change in change()) {
            let mut bytes = Vec::new();
            change.encode(&mut bytes);
            for end in 0..bytes.len() {
                prop_assert_eq!(Change::decode(&bytes[..end]), None);
            }
            prop_assert_eq!(Change::decode(&bytes), Some(change));
            bytes.push(0);
            prop_assert_eq!(Change::decode(&bytes), None);
        }

        /// Against a plain map of what is durable: whatever changes and settles, readers see that and no more.
        #[test]
        fn the_table_is_a_map_of_what_is_durable(changes in vec((change(), 0u64..4), 1..60)) {
            let mut positions = Positions::new(1000);
            let mut model: HashMap<(GroupId, Arc<str>), Option<Position>> = HashMap::new();
            let mut under_way: VecDeque<(u64, Change)> = VecDeque::new();
            let mut durable = 0;
            for (frame, (change, behind)) in (1u64..).zip(changes) {
                positions.apply(change.clone(), frame);
                under_way.push_back((frame, change));
                durable = durable.max(frame.saturating_sub(behind));
                while let Some((_, change)) = under_way.pop_front_if(|(frame, _)| *frame <= durable) {
                    positions.settle(change.group, &change.name, durable);
                    model.insert((change.group, change.name), change.position);
                }
                positions.check(|_| true);
                for ((group, name), expected) in &model {
                    let found = positions.view(*group, Which::One(name), durable, 0).0;
                    let expected = expected.as_ref().map(|position| view(name, position));
                    prop_assert_eq!(found.into_iter().next(), expected);
                }
            }
        }
    }
}
