//! The extents of a log: which are live and in which order, which are spare, how the next ones are prepared.
//!
//! **Invariants:** a file is in exactly one of `live`, `superseded`, `spare`, `creating`, `retiring` or `leftover`;
//! generations rise along `live`; the last live extent is the head while `open`. An extent becomes spare, and a pack is
//! removed, only when nothing on the disk points into it any more.
//!
//! **Packs** stand in `live` for the extents and packs they were made from, under the generation of the newest of these;
//! those wait in `superseded` for the full checkpoint that leaves them out.
//!
//! **A full disk.** Of the spares, batches leave [`RESERVE`], the owner's changes two and the log's own entries one:
//! the next start always finds an extent for its first frame. Two beside the head, because a head that holds a
//! change or a checkpoint is not given back by that start; the third is what the head itself was taken from. What
//! holds no records any more is given back by a full checkpoint at the head, after which there are two again.

use std::collections::{HashMap, VecDeque};

use corelog_model::limits::FRAME_ALIGN;

use crate::frame::Seal;
use crate::groups::{Groups, Row};
use crate::op::{DiskError, FileName};

/// Generations a start leaves out: more than extents that could have been begun, and left a frame behind,
/// without leaving a first frame that verifies. So no generation is ever used twice.
pub const GENERATIONS_SKIPPED: u64 = 64;
/// Spares that batches never take.
pub(crate) const RESERVE: usize = 3;
/// Extents kept ready beside the head.
pub(crate) const SPARES: usize = RESERVE + 1;

/// Extents that are listed, and footers of each, without an allocation.
const LIVE_RESERVED: usize = 1024;
const FOOTERS_RESERVED: usize = 8;

/// Who wants room, and how many spares that leaves untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Batches,
    /// Control entries of the log's owner.
    Changes,
    /// Footers, checkpoints, beacons.
    Own,
}

impl Claim {
    pub(crate) const fn leaves(self) -> usize {
        match self {
            Self::Batches => RESERVE,
            Self::Changes => 2,
            Self::Own => 1,
        }
    }
}

/// Whether an extent goes on being part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Stays,
    /// The next full checkpoint leaves it out.
    Doomed,
    /// The full checkpoint that is being written leaves it out: spare once that is settled.
    Leaving,
}

/// Where a footer part lies: the entry that holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FooterAt {
    pub(crate) generation: u64,
    /// Of the frame: the seed of the entry's CRC.
    pub(crate) sequence: u64,
    /// Of the entry header, in the extent.
    pub(crate) position: u32,
    /// Of the payload.
    pub(crate) length: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    /// Number of the extent, or of the pack.
    pub(crate) extent: u32,
    /// A pack: sorted by group, never a head, gone for good when it goes.
    pub(crate) pack: bool,
    pub(crate) generation: u64,
    pub(crate) first_sequence: u64,
    /// Of the newest frame in it.
    pub(crate) last_sequence: u64,
    /// When the newest frame with batches in it was cut, microseconds since 1970; 0 where nobody has noted it.
    pub(crate) newest_us: u64,
    /// Where the next frame goes; its end once closed.
    pub(crate) end: u64,
    /// Bytes from its start that are written blocks.
    pub(crate) prepared: u64,
    /// Holds something beside beacons, seals, footers and checkpoints.
    pub(crate) worthy: bool,
    /// Closed, and what it holds of several groups lies in short runs: worth settling.
    pub(crate) scattered: bool,
    /// Once closed: groups with records in it, dropped ones excepted.
    pub(crate) groups: u32,
    /// Once closed: bytes of the rows of these groups, and how many of the rows nobody has counted.
    pub(crate) alive_bytes: u64,
    pub(crate) uncounted: u32,
    /// Closed, and its index is written down, or has nothing in it: a checkpoint may list it.
    pub(crate) indexed: bool,
    pub(crate) fate: Fate,
    /// Once closed and written down: its index. No part where it never held records.
    pub(crate) footers: Vec<FooterAt>,
}

impl Live {
    /// An extent that begins.
    pub(crate) const fn begun(extent: u32, generation: u64, first_sequence: u64, prepared: u64) -> Self {
        Self {
            extent,
            pack: false,
            generation,
            first_sequence,
            last_sequence: first_sequence,
            newest_us: 0,
            end: 0,
            prepared,
            worthy: false,
            scattered: false,
            groups: 0,
            alive_bytes: 0,
            uncounted: 0,
            indexed: false,
            fate: Fate::Stays,
            footers: Vec::new(),
        }
    }

    pub(crate) const fn file(&self) -> FileName {
        if self.pack { FileName::Pack(self.extent) } else { FileName::Extent(self.extent) }
    }

    /// What it takes of the disk, where extents have `extent_bytes`.
    pub(crate) const fn disk_bytes(&self, extent_bytes: u64) -> u64 {
        if self.pack { self.end } else { extent_bytes }
    }

    /// One more row of a group lies in it.
    pub(crate) fn add_row(&mut self, row: &Row) {
        self.groups += 1;
        self.uncounted += u32::from(row.bytes == 0);
        self.alive_bytes = self.alive_bytes.wrapping_add(row.bytes);
    }

    /// A row of a group is of no use to anybody any more.
    fn forget_row(&mut self, row: &Row) {
        self.groups -= 1;
        self.uncounted = self.uncounted.saturating_sub(u32::from(row.bytes == 0));
        self.alive_bytes = self.alive_bytes.wrapping_sub(row.bytes);
    }

    /// Of a pack that held what is alive in it, about: frames are padded, and the index has frames of its own.
    fn settled_bytes(&self, frame_bytes: usize) -> u64 {
        let (sector, alive) = (FRAME_ALIGN as u64, self.alive_bytes);
        let frames = alive.next_multiple_of(sector) + (alive / frame_bytes as u64 + 1) * sector;
        let part = |footer: &FooterAt| u64::from(footer.length).next_multiple_of(sector) + sector;
        frames + self.footers.iter().map(part).sum::<u64>()
    }

    /// Whether writing what is alive in it once more gives at least as much back as it costs, in bytes of the disk, where
    /// extents have `extent_bytes`.
    pub(crate) fn is_mostly_dead(&self, extent_bytes: u64, frame_bytes: usize) -> bool {
        let bytes = self.disk_bytes(extent_bytes);
        let known = self.uncounted == 0 && self.alive_bytes < bytes;
        known && 2 * self.settled_bytes(frame_bytes) <= bytes
    }

    /// Closed, and without records that anybody may ask for.
    pub(crate) fn is_bare(&self) -> bool {
        self.indexed && self.groups == 0 && self.fate == Fate::Stays
    }

    pub(crate) const fn seal(&self) -> Seal {
        Seal {
            generation: self.generation,
            position: self.end,
            sequence: self.last_sequence,
            extent: self.extent,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spare {
    pub(crate) extent: u32,
    /// Bytes from its start that are written blocks.
    pub(crate) prepared: u64,
}

/// Zeros on their way: frames keep out of the range until they have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Zeroing {
    pub(crate) extent: u32,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// How many spares were not needed for a while.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shedding {
    /// The fewest there were since then.
    least: usize,
    since_us: Option<u64>,
    /// How many are to go.
    surplus: usize,
}

pub(crate) struct Extents {
    pub(crate) bytes: u64,
    pub(crate) live: VecDeque<Live>,
    /// What a pack has taken the place of, until a full checkpoint knows.
    pub(crate) superseded: Vec<Live>,
    /// Files that nothing points at and that are no spares: to be removed.
    pub(crate) leftover: Vec<FileName>,
    pub(crate) removing: Option<FileName>,
    /// After a failed removal, when to try again, monotonic microseconds.
    pub(crate) remove_retry_us: Option<u64>,
    /// The last live extent takes frames.
    pub(crate) open: bool,
    pub(crate) spare: VecDeque<Spare>,
    /// Memory for the footers of extents that are spare.
    footer_lists: Vec<Vec<FooterAt>>,
    pub(crate) creating: Option<u32>,
    pub(crate) zeroing: Option<Zeroing>,
    /// How many spares there were of late.
    pub(crate) shedding: Shedding,
    /// No longer of the log, but perhaps still needed by a crash before the next first frame is durable.
    pub(crate) retiring: Vec<Spare>,
    pub(crate) next_number: u32,
    /// Of packs: none is given twice while the log is open.
    pub(crate) next_pack: u32,
    pub(crate) next_generation: u64,
    /// After a failed creation, when to try again, monotonic microseconds.
    pub(crate) retry_us: Option<u64>,
    /// Why the last creation failed, if it did: until one succeeds the disk counts as full.
    pub(crate) refused: Option<DiskError>,
    /// The next frame goes to another extent: changes find no room in this one.
    pub(crate) leave_head: bool,
    /// A full checkpoint would give something back; looked at again when `changed`.
    pub(crate) frees: bool,
    pub(crate) changed: bool,
}

impl Extents {
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            bytes,
            live: VecDeque::with_capacity(LIVE_RESERVED),
            superseded: Vec::new(),
            leftover: Vec::new(),
            removing: None,
            remove_retry_us: None,
            open: false,
            spare: VecDeque::with_capacity(LIVE_RESERVED),
            footer_lists: (0..=SPARES).map(|_| Vec::with_capacity(FOOTERS_RESERVED)).collect(),
            creating: None,
            zeroing: None,
            shedding: Shedding::default(),
            retiring: Vec::new(),
            next_number: 0,
            next_pack: 0,
            next_generation: 1,
            retry_us: None,
            refused: None,
            leave_head: false,
            frees: false,
            changed: true,
        }
    }

    pub(crate) fn head(&self) -> Option<&Live> {
        self.live.back().filter(|_| self.open)
    }

    pub(crate) fn head_mut(&mut self) -> Option<&mut Live> {
        self.live.back_mut().filter(|_| self.open)
    }

    pub(crate) fn by_generation(&self, generation: u64) -> Option<&Live> {
        self.live.binary_search_by_key(&generation, |live| live.generation).ok().map(|at| &self.live[at])
    }

    pub(crate) fn by_generation_mut(&mut self, generation: u64) -> Option<&mut Live> {
        let at = self.live.binary_search_by_key(&generation, |live| live.generation).ok()?;
        self.live.get_mut(at)
    }

    /// Whether zeros are on their way to any byte of the range.
    pub(crate) fn is_zeroing(&self, extent: u32, from: u64, to: u64) -> bool {
        self.zeroing.is_some_and(|zero| zero.extent == extent && zero.from < to && from < zero.to)
    }

    /// Bytes that can still be placed for certain in the head and `spares` more extents, whatever the sizes of
    /// frames.
    pub(crate) fn room(&self, spares: u64, max_frame: u64) -> u64 {
        let head = self.head().map_or(0, |head| (self.bytes - head.end).saturating_sub(max_frame));
        head + spares * (self.bytes - max_frame)
    }

    /// Takes the first spare as the new head; `None` when there is none, or zeros are still on their way to
    /// its start. The old head is closed.
    pub(crate) fn roll(&mut self, first_sequence: u64, first_length: u64) -> Option<(Seal, &Live)> {
        let spare = *self.spare.front()?;
        if self.is_zeroing(spare.extent, 0, first_length) {
            return None;
        }
        self.spare.pop_front();
        let seal = self.live.back().map_or_else(Seal::default, Live::seal);
        let generation = self.next_generation;
        self.next_generation += 1;
        self.open = true;
        self.leave_head = false;
        self.changed = true;
        let mut live = Live::begun(spare.extent, generation, first_sequence, spare.prepared);
        live.footers = self.footer_lists.pop().unwrap_or_default();
        self.live.push_back(live);
        Some((seal, self.live.back().expect("just pushed")))
    }

    /// Chooses what recycling takes, the oldest first, so that what stays takes at most `cap` bytes, the newest excepted;
    /// gives back the newest generation taken.
    pub(crate) fn doom(&mut self, cap: u64) -> Option<u64> {
        let bytes = self.bytes;
        let staying = |live: &&Live| live.fate == Fate::Stays;
        let mut left: u64 = self.live.iter().filter(staying).map(|live| live.disk_bytes(bytes)).sum();
        let last = self.live.back().map_or(0, |live| live.generation);
        let mut newest = None;
        for live in self.live.iter_mut().filter(|live| live.fate == Fate::Stays) {
            if left <= cap || live.generation == last {
                break;
            }
            left -= live.disk_bytes(bytes);
            live.fate = Fate::Doomed;
            newest = Some(live.generation);
        }
        self.changed |= newest.is_some();
        newest
    }

    /// Extents that are on their way to be spare.
    pub(crate) fn coming(&self) -> usize {
        let leaving = self.live.iter().filter(|live| live.fate != Fate::Stays).chain(&self.superseded);
        leaving.filter(|live| !live.pack).count() + self.retiring.len()
    }

    /// A spare that goes back to the file system, where for `idle_us` there were always more than `keep`; the one whose last
    /// use is longest ago. Nothing points into a spare, so that a crash may leave it or not: a start finds it as a spare.
    pub(crate) fn shed(&mut self, keep: usize, idle_us: u64, now_us: u64) -> Option<u32> {
        let (count, shedding) = (self.spare.len(), &mut self.shedding);
        shedding.least = shedding.least.min(count);
        let since_us = *shedding.since_us.get_or_insert_with(|| {
            shedding.least = count;
            now_us
        });
        if now_us >= since_us.saturating_add(idle_us) {
            shedding.surplus = shedding.least.saturating_sub(keep);
            (shedding.least, shedding.since_us) = (count, Some(now_us));
        }
        shedding.surplus = shedding.surplus.min(count.saturating_sub(keep));
        if shedding.surplus == 0 || self.removing.is_some() || !self.leftover.is_empty() {
            return None;
        }
        let zeroing = self.zeroing.map(|zero| zero.extent);
        let extent = self.spare.pop_back_if(|spare| Some(spare.extent) != zeroing)?.extent;
        shedding.surplus -= 1;
        self.leftover.push(FileName::Extent(extent));
        Some(extent)
    }

    /// When it is to be looked whether there are still too many, monotonic microseconds.
    pub(crate) fn shedding_us(&self, keep: usize, idle_us: u64) -> Option<u64> {
        let since_us = self.shedding.since_us.filter(|_| self.spare.len() > keep)?;
        Some(since_us.saturating_add(idle_us))
    }

    /// Whether the disk is full and the pool is not.
    pub(crate) fn is_short(&self) -> bool {
        self.refused.is_some() && self.spare.len() < SPARES
    }

    /// Whether one more of the longest batches finds no place for certain, and the disk refuses to give one.
    pub(crate) fn is_full(&self, max_frame: u64) -> bool {
        let spares = self.spare.len().checked_sub(Claim::Batches.leaves());
        let placed = spares.is_some_and(|spares| self.room(spares as u64, max_frame) >= max_frame);
        self.refused.is_some() && !placed
    }

    /// Whether the index of an extent that is not bare lies in it.
    fn holds_index(&self, at: usize) -> bool {
        self.indexes_in(at).next().is_some()
    }

    /// Extents that stay, hold records, and have a part of their index in the one at `at`. Indexes lie in later
    /// extents.
    fn indexes_in(&self, at: usize) -> impl Iterator<Item = &Live> {
        let generation = self.live[at].generation;
        let earlier = self.live.iter().take(at);
        let staying = earlier.filter(|live| live.fate == Fate::Stays && live.groups > 0);
        staying.filter(move |live| live.footers.iter().any(|footer| footer.generation == generation))
    }

    /// Whether a full checkpoint would give something back that is wanted: always what held records, on a full
    /// disk anything.
    pub(crate) fn review(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let short = self.is_short();
        let wanted = |live: &Live| live.is_bare() && (short || !live.footers.is_empty());
        self.frees = self
            .live
            .iter()
            .enumerate()
            .any(|(at, live)| live.fate == Fate::Doomed || (wanted(live) && !self.holds_index(at)))
            || self.superseded.iter().any(|live| live.fate == Fate::Stays);
    }

    /// A closed extent or pack outside of the range of generations whose index lies in an extent of the range.
    pub(crate) fn index_in(&self, first: u64, last: u64) -> Option<u64> {
        let outside = self.live.iter().filter(|live| live.generation < first && live.groups > 0);
        let inside = |footer: &FooterAt| (first..=last).contains(&footer.generation);
        outside
            .filter(|live| live.fate == Fate::Stays)
            .find(|live| live.footers.iter().any(inside))
            .map(|live| live.generation)
    }

    /// A pack takes the place of everything from generation `first` to its own.
    pub(crate) fn supersede(&mut self, first: u64, pack: Live) {
        let from = self.live.partition_point(|live| live.generation < first);
        let to = self.live.partition_point(|live| live.generation <= pack.generation);
        self.superseded.extend(self.live.drain(from..to));
        self.live.insert(from, pack);
        self.changed = true;
    }

    /// On a full disk, an extent whose index is all that keeps a bare one.
    pub(crate) fn index_to_move(&self) -> Option<u64> {
        let bare = |at: &usize| self.live[*at].is_bare();
        let found = (0..self.live.len()).filter(bare).find_map(|at| self.indexes_in(at).next());
        found.filter(|_| self.is_short()).map(|live| live.generation)
    }

    /// A full checkpoint is made: it leaves out what is doomed, and what is bare and not needed. Whether that is
    /// anything. A bare extent that stays has no use for an index of its own.
    pub(crate) fn leave_out(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.live.len() {
            if self.live[at].fate == Fate::Doomed || (self.live[at].is_bare() && !self.holds_index(at)) {
                self.live[at].fate = Fate::Leaving;
                any = true;
            } else if self.live[at].is_bare() {
                self.live[at].footers.clear();
            }
        }
        for live in &mut self.superseded {
            live.fate = Fate::Leaving;
            any = true;
        }
        (self.frees, self.changed) = (false, true);
        any
    }

    /// Newest generation that is closed and indexed: a checkpoint made now covers everything up to it.
    pub(crate) fn indexed(&self) -> Option<u64> {
        self.live.iter().rev().find(|live| live.indexed).map(|live| live.generation)
    }

    /// Nothing points any more at what the last full checkpoint left out. The newest use of an extent comes first
    /// in the pool: its blocks are written, and the reserve stays as it is.
    pub(crate) fn recycle(&mut self) -> usize {
        let before = self.live.len() + self.superseded.len();
        let (spare, lists, leftover) = (&mut self.spare, &mut self.footer_lists, &mut self.leftover);
        let mut stays = |live: &mut Live| {
            let leaves = live.fate == Fate::Leaving;
            if leaves {
                live.footers.clear();
                lists.push(std::mem::take(&mut live.footers));
            }
            if leaves && live.pack {
                leftover.push(live.file());
            } else if leaves {
                spare.push_front(Spare { extent: live.extent, prepared: live.prepared.max(live.end) });
            }
            !leaves
        };
        self.live.retain_mut(&mut stays);
        self.superseded.retain_mut(stays);
        self.changed = true;
        before - self.live.len() - self.superseded.len()
    }

    /// A time at which the newest batch of the extent was there already: its own, or where an older version has not noted
    /// that, the one of the next extent that has one. `None`: nothing tells.
    pub(crate) fn written_by_us(&self, generation: u64) -> Option<u64> {
        let from = self.live.partition_point(|live| live.generation < generation);
        self.live.range(from..).map(|live| live.newest_us).find(|newest_us| *newest_us > 0)
    }

    /// What these rows stand for is of no use to anybody any more.
    pub(crate) fn forget_rows(&mut self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            if let Some(live) = self.by_generation_mut(row.generation) {
                live.forget_row(&row);
            }
        }
        self.changed = true;
    }

    /// What was retired may be used again: the log that needed it is superseded.
    pub(crate) fn release_retired(&mut self) {
        self.spare.extend(self.retiring.drain(..));
        self.changed = true;
    }

    pub(crate) fn check(&self) {
        let mut generation = 0;
        for live in &self.live {
            assert!(live.generation > generation, "generations rise along the log");
            assert!((live.pack || live.end <= self.bytes) && live.first_sequence <= live.last_sequence);
            generation = live.generation;
        }
        assert!(generation < self.next_generation, "a generation is never given twice");
        let all = self.live.iter().chain(&self.superseded).map(Live::file);
        let all = all.chain(self.spare.iter().map(|spare| FileName::Extent(spare.extent)));
        let all = all.chain(self.retiring.iter().map(|spare| FileName::Extent(spare.extent)));
        let mut all: Vec<FileName> = all.chain(self.leftover.iter().copied()).chain(self.removing).collect();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "an extent has one role");
        assert!(self.head().is_none_or(|head| head.fate == Fate::Stays && !head.indexed));
    }

    /// What extents and packs know of the rows in them is what the rows say.
    pub(crate) fn check_rows(&self, groups: &Groups) {
        let mut held: HashMap<u64, (u32, u64)> = HashMap::new();
        for row in groups.iter().flat_map(|(_, group)| &group.rows) {
            let (rows, bytes) = held.entry(row.generation).or_default();
            (*rows, *bytes) = (*rows + 1, bytes.wrapping_add(row.bytes));
        }
        for live in self.live.iter().filter(|live| live.indexed && live.fate == Fate::Stays) {
            let (rows, bytes) = held.get(&live.generation).copied().unwrap_or_default();
            assert_eq!((live.groups, live.alive_bytes), (rows, bytes), "rows of {}", live.generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(spares: u32) -> Extents {
        let mut extents = Extents::new(1 << 20);
        extents.spare.extend((0..spares).map(|extent| Spare { extent, prepared: 0 }));
        extents
    }

    #[test]
    fn a_new_head_seals_the_one_before_it() {
        let mut extents = extents(2);
        let (seal, _) = extents.roll(1, 4096).expect("a spare");
        assert_eq!(seal, Seal::default());
        let head = extents.head_mut().expect("open");
        (head.end, head.last_sequence) = (8192, 2);
        let (seal, head) = extents.roll(3, 4096).expect("a spare");
        assert_eq!(
            (seal, head.generation),
            (Seal { generation: 1, position: 8192, sequence: 2, extent: 0 }, 2)
        );
        assert!(extents.roll(4, 4096).is_none());
        extents.check();
    }

    #[test]
    fn no_frame_starts_where_zeros_are_on_their_way() {
        let mut extents = extents(1);
        extents.zeroing = Some(Zeroing { extent: 0, from: 0, to: 65_536 });
        assert!(extents.roll(1, 4096).is_none());
        extents.zeroing = Some(Zeroing { extent: 0, from: 65_536, to: 131_072 });
        assert!(extents.roll(1, 4096).is_some());
    }

    #[test]
    fn recycling_takes_the_oldest_and_never_the_head() {
        let mut extents = extents(5);
        for sequence in 1..=5 {
            extents.roll(sequence, 4096);
        }
        assert_eq!(extents.doom(2 << 20), Some(3));
        assert_eq!(extents.doom(2 << 20), None, "chosen already");
        assert!(extents.leave_out());
        assert_eq!((extents.recycle(), extents.spare.len()), (3, 3));
        assert_eq!(extents.doom(0), Some(4));
        extents.check();
    }

    /// Generation, groups left in it, where its index lies: a deleted topic's extents go, those that hold what others
    /// need stay.
    #[test]
    fn what_holds_no_records_goes_unless_an_index_that_is_needed_lies_in_it() {
        let mut extents = extents(5);
        for (sequence, groups, index) in [(1, 1, 2), (2, 0, 3), (3, 0, 4), (4, 0, 0)] {
            extents.roll(sequence, 4096);
            let live = extents.live.back_mut().expect("just begun");
            (live.groups, live.indexed) = (groups, true);
            if index > 0 {
                live.footers.push(FooterAt { generation: index, ..FooterAt::default() });
            }
        }
        extents.roll(5, 4096);
        extents.review();
        assert!(extents.frees, "3 held records once");
        assert_eq!(extents.index_to_move(), None, "the disk is not full");
        assert!(extents.leave_out());
        let left = |extents: &Extents| {
            extents.live.iter().filter(|live| live.fate == Fate::Stays).map(|live| live.generation).collect()
        };
        let staying: Vec<u64> = left(&extents);
        assert_eq!(staying, [1, 2, 5], "who would ask for the index of 2?");
        extents.recycle();
        extents.refused = Some(DiskError::NoSpace);
        extents.review();
        assert_eq!(extents.index_to_move(), Some(1), "only the index of 1 keeps 2");
    }
}
