//! The extents of a log: which are live and in which order, which are spare, how the next ones are prepared.
//!
//! **Invariant:** a file is in exactly one of `live`, `spare`, `creating` or `retiring`; generations rise along
//! `live`; the last live extent is the head while `open`. An extent becomes spare only when nothing on the disk
//! points into it any more.

use std::collections::VecDeque;

use crate::frame::Seal;

/// Generations a start leaves out: more than extents that could have been begun, and left a frame behind,
/// without leaving a first frame that verifies. So no generation is ever used twice.
pub const GENERATIONS_SKIPPED: u64 = 64;
/// Extents kept ready beside the head.
pub(crate) const SPARES: usize = 2;

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
    pub(crate) extent: u32,
    pub(crate) generation: u64,
    pub(crate) first_sequence: u64,
    /// Of the newest frame in it.
    pub(crate) last_sequence: u64,
    /// Where the next frame goes; its end once closed.
    pub(crate) end: u64,
    /// Bytes from its start that are written blocks.
    pub(crate) prepared: u64,
    /// Holds something beside beacons, seals, footers and checkpoints.
    pub(crate) worthy: bool,
    /// Once closed and written down: its index. One part at least.
    pub(crate) footers: Vec<FooterAt>,
}

impl Live {
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

pub(crate) struct Extents {
    pub(crate) bytes: u64,
    pub(crate) live: VecDeque<Live>,
    /// The last live extent takes frames.
    pub(crate) open: bool,
    pub(crate) spare: VecDeque<Spare>,
    pub(crate) creating: Option<u32>,
    pub(crate) zeroing: Option<Zeroing>,
    /// No longer of the log, but perhaps still needed by a crash before the next first frame is durable.
    pub(crate) retiring: Vec<Spare>,
    pub(crate) next_number: u32,
    pub(crate) next_generation: u64,
    /// Live extents at the front that recycling has chosen.
    pub(crate) doomed: usize,
    /// After a failed creation, when to try again, monotonic microseconds.
    pub(crate) retry_us: Option<u64>,
}

impl Extents {
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            bytes,
            live: VecDeque::new(),
            open: false,
            spare: VecDeque::new(),
            creating: None,
            zeroing: None,
            retiring: Vec::new(),
            next_number: 0,
            next_generation: 1,
            doomed: 0,
            retry_us: None,
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
        self.live.push_back(Live {
            extent: spare.extent,
            generation,
            first_sequence,
            last_sequence: first_sequence,
            end: 0,
            prepared: spare.prepared,
            worthy: false,
            footers: Vec::new(),
        });
        Some((seal, self.live.back().expect("just pushed")))
    }

    /// Chooses what recycling takes so that at most `keep` extents stay; gives back the newest generation taken.
    pub(crate) fn doom(&mut self, keep: usize) -> Option<u64> {
        let surplus = self.live.len().saturating_sub(keep.max(1));
        if surplus <= self.doomed {
            return None;
        }
        self.doomed = surplus;
        Some(self.live[surplus - 1].generation)
    }

    /// Recycles the live extents up to `generation`; nothing points at them any more.
    pub(crate) fn recycle(&mut self, generation: u64) -> usize {
        let mut recycled = 0;
        while self.live.front().is_some_and(|live| live.generation <= generation) && self.doomed > 0 {
            let live = self.live.pop_front().expect("there is a front");
            self.doomed -= 1;
            recycled += 1;
            self.spare.push_back(Spare { extent: live.extent, prepared: live.prepared.max(live.end) });
        }
        recycled
    }

    /// What was retired may be used again: the log that needed it is superseded.
    pub(crate) fn release_retired(&mut self) {
        self.spare.extend(self.retiring.drain(..));
    }

    pub(crate) fn check(&self) {
        let mut generation = 0;
        for live in &self.live {
            assert!(live.generation > generation, "generations rise along the log");
            assert!(live.end <= self.bytes && live.first_sequence <= live.last_sequence);
            generation = live.generation;
        }
        assert!(generation < self.next_generation, "a generation is never given twice");
        let all = self.live.iter().map(|live| live.extent);
        let all = all.chain(self.spare.iter().map(|spare| spare.extent));
        let mut all: Vec<u32> = all.chain(self.retiring.iter().map(|spare| spare.extent)).collect();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "an extent has one role");
        assert!(self.doomed < self.live.len().max(1));
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
        assert_eq!(extents.doom(2), Some(3));
        assert_eq!(extents.doom(2), None, "chosen already");
        assert_eq!(extents.recycle(3), 3);
        assert_eq!(extents.doom(0), Some(4));
        extents.check();
    }
}
