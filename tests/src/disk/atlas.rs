//! The fault atlas: which frame lies where, what must not be harmed, and what is left of it all after a fault.
//!
//! Reads frames by the tables of FORMAT.md alone, as they are handed to the disk. What a start cannot do without are
//! the entries of which there is one copy and no other way to tell them: metadata, positions, and the newest
//! checkpoints; and of the superblock at least one copy of the newest version, with the other copies whole. Packs hold
//! records alone, which are told by readers: they are harmed like extents, and say nothing about where a log ends.

use std::collections::BTreeMap;
use std::ops::Range;

use corelog_model::crc::crc32c;
use corelog_storage::{EntryKind, FileName, PartHeader};

const FRAME_HEADER: usize = 128;
const ENTRY_HEADER: usize = 32;
const PAGE: usize = 4096;
const COPIES: usize = 4;
/// Sequences of frames of packs begin here.
const PACKS: u64 = 1 << 55;

/// A frame as it was written, at its place.
#[derive(Clone, Debug)]
struct Frame {
    length: usize,
    sum: u32,
    generation: u64,
    sequence: u64,
    durable_sequence: u64,
    /// Which life of the process wrote it.
    life: u32,
    /// Numbers of operations: the write's own, and the last one when its durability was confirmed.
    submitted: u64,
    confirmed: Option<u64>,
    guarded: bool,
}

/// A checkpoint, which is read from its first frame to its last, and all between them.
#[derive(Clone, Copy, Debug)]
struct Checkpoint {
    life: u32,
    id: u64,
    /// Sequences of the frames of its first part and its last; parts may arrive in any order.
    first: Option<u64>,
    last: Option<u64>,
}

impl Checkpoint {
    fn holds(&self, frame: &Frame) -> bool {
        let (first, last) = (self.first.unwrap_or(0), self.last.unwrap_or(PACKS - 1));
        self.life == frame.life && (first..=last).contains(&frame.sequence)
    }
}

/// A superblock copy as it was written.
#[derive(Clone, Copy, Debug, Default)]
struct Copy {
    sum: u32,
    submitted: u64,
}

/// What was written where.
#[derive(Debug, Default)]
pub(super) struct Atlas {
    frames: BTreeMap<(FileName, usize), Frame>,
    copies: [Option<Copy>; COPIES],
    life: u32,
    /// Checkpoints that were written.
    checkpoints: Vec<Checkpoint>,
    /// What was harmed, or given to a read as it was before, since the last start began.
    misread: Vec<(FileName, Range<usize>)>,
}

impl Atlas {
    /// The process is gone.
    pub(super) fn ended(&mut self) {
        self.life += 1;
        // One that was cut short never counts.
        self.checkpoints.retain(|checkpoint| checkpoint.first.is_some() && checkpoint.last.is_some());
        self.misread.clear();
    }

    /// A frame is written, whatever becomes of it; whether it is guarded.
    pub(super) fn written(&mut self, file: FileName, position: usize, bytes: &[u8], submitted: u64) -> bool {
        self.forget(file, position..position + bytes.len());
        let frame = Frame {
            length: bytes.len(),
            sum: crc32c(0, bytes),
            generation: number(bytes, 16),
            sequence: number(bytes, 24),
            durable_sequence: number(bytes, 48),
            life: self.life,
            submitted,
            confirmed: None,
            guarded: self.holds_state(bytes),
        };
        let guarded = self.guards(&frame);
        self.frames.insert((file, position), frame);
        guarded
    }

    fn guards(&self, frame: &Frame) -> bool {
        frame.guarded || self.checkpoints.iter().any(|checkpoint| checkpoint.holds(frame))
    }

    /// A frame's write has failed, or the file was made anew: nothing is expected there.
    pub(super) fn forget(&mut self, file: FileName, range: Range<usize>) {
        let overlapping: Vec<_> = self.overlapping(file, &range).map(|(position, _)| position).collect();
        for position in overlapping {
            self.frames.remove(&(file, position));
        }
    }

    /// The disk says that what was asked for before `submitted` is durable.
    pub(super) fn confirm(&mut self, file: FileName, submitted: u64, now: u64) {
        let of_file = self.frames.range_mut((file, 0)..=(file, usize::MAX));
        for (_, frame) in of_file.filter(|(_, frame)| frame.submitted <= submitted) {
            frame.confirmed.get_or_insert(now);
        }
    }

    /// The disk says that one frame is durable.
    pub(super) fn confirm_one(&mut self, file: FileName, position: usize, now: u64) {
        if let Some(frame) = self.frames.get_mut(&(file, position)) {
            frame.confirmed = Some(now);
        }
    }

    /// A superblock copy is written, whatever becomes of it.
    pub(super) fn copied(&mut self, copy: u8, bytes: &[u8], submitted: u64) {
        self.copies[usize::from(copy)] = Some(Copy { sum: crc32c(0, bytes), submitted });
    }

    pub(super) fn misread(&mut self, file: FileName, range: Range<usize>) {
        self.misread.push((file, range));
    }

    /// Whether the bytes hold what a start cannot do without.
    pub(super) fn is_guarded(&self, file: FileName, range: &Range<usize>) -> bool {
        self.overlapping(file, range).any(|(_, frame)| self.guards(frame))
    }

    /// Frames that lie in these bytes.
    fn overlapping(&self, file: FileName, range: &Range<usize>) -> impl Iterator<Item = (usize, &Frame)> {
        let Range { start, end } = *range;
        let before =
            self.frames.range((file, 0)..(file, end)).map(|((_, position), frame)| (*position, frame));
        before.filter(move |(position, frame)| position + frame.length > start)
    }

    /// The place of one of the frames.
    pub(super) fn place(&self, number: u64) -> Option<(FileName, Range<usize>)> {
        let at = number as usize % self.frames.len().max(1);
        self.frames
            .iter()
            .nth(at)
            .map(|((file, position), frame)| (*file, *position..position + frame.length))
    }

    /// Whether a frame holds what there is one copy of: parts of checkpoints, metadata, positions.
    fn holds_state(&mut self, bytes: &[u8]) -> bool {
        let used = (number(bytes, 44) as u32 as usize).min(bytes.len());
        let (mut position, mut state) = (FRAME_HEADER, false);
        while position + ENTRY_HEADER <= used {
            let kind = EntryKind::from_u8(bytes[position + 5]);
            let length = number(bytes, position + 28) as u32 as usize;
            let payload = bytes.get(position + ENTRY_HEADER..).and_then(|rest| rest.get(..length));
            state |= !matches!(kind, Some(EntryKind::Batch | EntryKind::Footer | EntryKind::Beacon));
            if let (Some(EntryKind::Checkpoint), Some((part, _))) =
                (kind, payload.and_then(PartHeader::decode))
            {
                self.part(part, number(bytes, 24));
            }
            position += ENTRY_HEADER + length.next_multiple_of(16);
        }
        state
    }

    fn part(&mut self, part: PartHeader, sequence: u64) {
        let (life, id) = (self.life, part.id);
        let found =
            self.checkpoints.iter().position(|checkpoint| (checkpoint.life, checkpoint.id) == (life, id));
        let at = found.unwrap_or_else(|| {
            self.checkpoints.push(Checkpoint { life, id, first: None, last: None });
            self.checkpoints.len() - 1
        });
        let checkpoint = &mut self.checkpoints[at];
        if part.part == 0 {
            checkpoint.first = Some(sequence);
        }
        if part.part + 1 == part.parts {
            checkpoint.last = Some(sequence);
        }
    }

    /// What is left of all that was written, if the disk reads like this.
    pub(super) fn survey(&self, read: &dyn Fn(FileName, usize, usize) -> Vec<u8>) -> Survey {
        let of_extents = self.frames.iter().filter(|((file, _), _)| !matches!(file, FileName::Pack(_)));
        let frames = of_extents.map(|((file, position), frame)| {
            let intact = crc32c(0, &read(*file, *position, frame.length)) == frame.sum;
            let guarded = self.guards(frame);
            Surveyed { file: *file, position: *position, intact, frame: Frame { guarded, ..frame.clone() } }
        });
        let copies = self.copies.iter().zip(0..).filter_map(|(copy, at)| {
            let intact = |copy: &Copy| crc32c(0, &read(FileName::Superblock, at * PAGE, PAGE)) == copy.sum;
            copy.filter(intact).map(|copy| copy.submitted)
        });
        Survey { frames: frames.collect(), superblock: copies.max() }
    }

    /// What the start that is under way may not have seen although it was there before it.
    pub(super) fn misreads(&self) -> &[(FileName, Range<usize>)] {
        &self.misread
    }
}

/// Whether a superblock copy may be harmed: all others are whole, and one of them has its version or a newer one.
pub(super) fn may_harm_copy(file: &[u8], copy: usize) -> bool {
    let version = |page: &[u8]| {
        let sum = number(page, 8) as u32;
        (sum == crc32c(0, &page[12..])).then(|| number(page, 56))
    };
    let versions: Vec<_> = file.chunks_exact(PAGE).map(version).collect();
    let mine = versions.get(copy).copied().flatten().unwrap_or(0);
    let mut others = versions.iter().enumerate().filter(|(at, _)| *at != copy).map(|(_, version)| *version);
    let newest = others.clone().flatten().max();
    versions.len() == COPIES
        && others.all(|version| version.is_some())
        && newest.is_some_and(|newest| newest >= mine)
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    if let Some(found) = bytes.get(at..bytes.len().min(at + 8)) {
        number[..found.len()].copy_from_slice(found);
    }
    u64::from_le_bytes(number)
}

#[derive(Debug)]
struct Surveyed {
    file: FileName,
    position: usize,
    intact: bool,
    frame: Frame,
}

/// What is left of the frames of a log before a start.
#[derive(Debug)]
pub struct Survey {
    frames: Vec<Surveyed>,
    /// The operation of the newest superblock copy that is intact.
    superblock: Option<u64>,
}

/// What a start on such a disk may take for the end of the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Doubt {
    /// Operation of the newest frame that a start finds whole: what was acknowledged before it was asked for is proven.
    proof: u64,
    /// When the first frame that is not whole, and that no other one proves, was confirmed.
    unproven: Option<u64>,
    /// Some frame that was confirmed is not whole.
    pub marred: bool,
    /// And one that is guarded.
    pub guarded: bool,
}

impl Doubt {
    /// Whether anything that was confirmed may be gone and nobody can tell.
    pub const fn is_open(&self) -> bool {
        self.unproven.is_some()
    }

    /// Whether what was acknowledged at this operation may be gone and nobody can tell.
    pub fn may_take(&self, acknowledged: u64) -> bool {
        self.unproven.is_some_and(|confirmed| confirmed <= acknowledged) && acknowledged >= self.proof
    }
}

impl Survey {
    /// The verdict, when the start has read some places as they were before.
    pub fn doubt(&self, misreads: &[(FileName, Range<usize>)]) -> Doubt {
        let intact = |of: &&Surveyed| {
            let end = of.position + of.frame.length;
            let misread = |(file, range): &(FileName, Range<usize>)| {
                *file == of.file && range.start < end && of.position < range.end
            };
            of.intact && !misreads.iter().any(misread)
        };
        // A frame is found from the first one of its extent, or when the superblock names the extent.
        let found = |of: &&Surveyed| {
            let first = self.frames.iter().find(|first| {
                (first.file, first.position, first.frame.generation) == (of.file, 0, of.frame.generation)
            });
            let named = |first: &Surveyed| {
                first.frame.confirmed.is_some_and(|at| self.superblock.is_some_and(|written| written > at))
            };
            intact(of) && first.is_some_and(|first| intact(&first) || named(first))
        };
        let whole: Vec<_> = self.frames.iter().filter(found).collect();
        let confirmed = |of: &&Surveyed| of.frame.confirmed.is_some();
        let proven = |of: &Surveyed| {
            whole.iter().any(|proof| {
                let (proof, frame) = (&proof.frame, &of.frame);
                proof.life > frame.life
                    || proof.life == frame.life && proof.durable_sequence >= frame.sequence
            })
        };
        let marred = || self.frames.iter().filter(confirmed).filter(|of| !found(of));
        Doubt {
            proof: whole.iter().map(|of| of.frame.submitted).max().unwrap_or(0),
            unproven: marred().filter(|of| !proven(of)).filter_map(|of| of.frame.confirmed).min(),
            marred: marred().next().is_some(),
            guarded: marred().any(|of| of.frame.guarded),
        }
    }
}
