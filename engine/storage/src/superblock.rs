//! The one page a start reads first: who the log belongs to, where its newest checkpoints lie, which extent is
//! its head. Four copies; FORMAT.md has the table.
//!
//! **Invariant:** one copy is rewritten at a time, so at least three are whole whatever happens; a rewrite raises
//! the version and goes through all four before anything an older version points at may be overwritten. The last whole copy
//! is not touched: a disk that fails for a while may tear one after the other. A copy of
//! the newest version is rewritten last: what only older ones point at may be overwritten already.

use corelog_model::crc::crc32c;
use corelog_model::{Block, BlockId, LogId, Now, Slice, Term};

use crate::feature;
use crate::frame::{RISING_LIMIT, field};
use crate::op::{DiskOp, Purpose, RETRY_US};

/// Bytes of one copy.
pub const SUPERBLOCK_BYTES: usize = 4096;
/// Copies in the file, one behind the other.
pub const SUPERBLOCK_COPIES: u8 = 4;
/// The first eight bytes of a copy.
pub const SUPERBLOCK_MAGIC: u64 = u64::from_le_bytes(*b"CLOGSUPR");
/// The layout's version.
pub const SUPERBLOCK_SCHEMA: u32 = 1;
/// Checkpoints a superblock can name: the last full one and the incremental ones after it.
pub const CHECKPOINTS_MAX: usize = 16;
/// Where the checkpoints start.
pub const CHECKPOINTS_AT: usize = 96;
/// Bytes of one checkpoint's place.
pub const CHECKPOINT_BYTES: usize = 32;
/// Where the bitmap of written extents starts; it goes to the end of the page.
pub const WRITTEN_AT: usize = 1024;

/// Read-only compatible features that this version knows: none yet.
const KNOWN_READ_ONLY_COMPATIBLE: u64 = 0;

/// Where a checkpoint starts: the frame that holds its first part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckpointAt {
    pub(crate) generation: u64,
    pub(crate) position: u64,
    pub(crate) id: u64,
    pub(crate) extent: u32,
    /// Generations later in which it ends.
    pub(crate) spans: u32,
}

impl CheckpointAt {
    /// Whether a part of it may lie in the extent of this generation.
    pub(crate) const fn is_in(&self, generation: u64) -> bool {
        self.generation <= generation && generation <= self.generation + self.spans as u64
    }
}

/// One page, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) incompatible: u64,
    pub(crate) read_only_compatible: u64,
    pub(crate) compatible: u64,
    pub(crate) store: u64,
    pub(crate) log: LogId,
    pub(crate) term: Term,
    /// Rises with every rewrite.
    pub(crate) version: u64,
    pub(crate) extent_bytes: u64,
    /// An extent whose first frame was durable when this was written, and the newest one then.
    pub(crate) head_generation: u64,
    pub(crate) head_extent: u32,
    /// The last full checkpoint, then the incremental ones after it.
    pub(crate) checkpoints: Vec<CheckpointAt>,
    /// One bit per extent: written to its end, so that overwriting it is cheap. A hint.
    pub(crate) written: Vec<u8>,
}

impl Superblock {
    pub(crate) fn new(store: u64, log: LogId, extent_bytes: u64) -> Self {
        Self {
            incompatible: 0,
            read_only_compatible: 0,
            compatible: 0,
            store,
            log,
            term: Term(0),
            version: 0,
            extent_bytes,
            head_generation: 0,
            head_extent: 0,
            checkpoints: Vec::with_capacity(CHECKPOINTS_MAX),
            written: vec![0; SUPERBLOCK_BYTES - WRITTEN_AT],
        }
    }

    /// Bits of features that this version must not write to.
    pub(crate) const fn unknown_features(&self) -> u64 {
        (self.incompatible & !feature::KNOWN) | (self.read_only_compatible & !KNOWN_READ_ONLY_COMPATIBLE)
    }

    pub(crate) fn is_written(&self, extent: u32) -> bool {
        self.written.get(extent as usize / 8).is_some_and(|byte| byte & 1 << (extent % 8) != 0)
    }

    pub(crate) fn set_written(&mut self, extent: u32, written: bool) {
        if let Some(byte) = self.written.get_mut(extent as usize / 8) {
            *byte = *byte & !(1 << (extent % 8)) | u8::from(written) << (extent % 8);
        }
    }

    /// Writes a copy to the first bytes of `page`.
    pub(crate) fn encode(&self, page: &mut [u8]) {
        let page = &mut page[..SUPERBLOCK_BYTES];
        page.fill(0);
        page[0..8].copy_from_slice(&SUPERBLOCK_MAGIC.to_le_bytes());
        page[12..16].copy_from_slice(&SUPERBLOCK_SCHEMA.to_le_bytes());
        page[16..24].copy_from_slice(&self.compatible.to_le_bytes());
        page[24..32].copy_from_slice(&self.read_only_compatible.to_le_bytes());
        page[32..40].copy_from_slice(&self.incompatible.to_le_bytes());
        page[40..48].copy_from_slice(&self.store.to_le_bytes());
        page[48..50].copy_from_slice(&self.log.0.to_le_bytes());
        page[52..56].copy_from_slice(&self.term.0.to_le_bytes());
        page[56..64].copy_from_slice(&self.version.to_le_bytes());
        page[64..72].copy_from_slice(&self.extent_bytes.to_le_bytes());
        page[72..80].copy_from_slice(&self.head_generation.to_le_bytes());
        page[80..84].copy_from_slice(&self.head_extent.to_le_bytes());
        page[84..88].copy_from_slice(&(self.checkpoints.len() as u32).to_le_bytes());
        assert!(self.checkpoints.len() <= CHECKPOINTS_MAX, "a full checkpoint starts the list anew");
        for (at, place) in self.checkpoints.iter().enumerate() {
            let out = &mut page[CHECKPOINTS_AT + at * CHECKPOINT_BYTES..][..CHECKPOINT_BYTES];
            out[0..8].copy_from_slice(&place.generation.to_le_bytes());
            out[8..16].copy_from_slice(&place.position.to_le_bytes());
            out[16..24].copy_from_slice(&place.id.to_le_bytes());
            out[24..28].copy_from_slice(&place.extent.to_le_bytes());
            out[28..32].copy_from_slice(&place.spans.to_le_bytes());
        }
        page[WRITTEN_AT..].copy_from_slice(&self.written);
        let crc = crc32c(0, &page[12..]);
        page[8..12].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a copy; `None` when it does not verify.
    pub(crate) fn decode(page: &[u8]) -> Option<Self> {
        let page: &[u8; SUPERBLOCK_BYTES] = page.first_chunk()?;
        let sound = field!(page, 0, u64) == SUPERBLOCK_MAGIC
            && field!(page, 8, u32) == crc32c(0, &page[12..])
            && field!(page, 12, u32) == SUPERBLOCK_SCHEMA;
        let count = field!(page, 84, u32) as usize;
        if !sound || count > CHECKPOINTS_MAX {
            return None;
        }
        let places = page[CHECKPOINTS_AT..].chunks_exact(CHECKPOINT_BYTES).take(count);
        // With room for all there will ever be.
        let mut checkpoints = Vec::with_capacity(CHECKPOINTS_MAX);
        checkpoints.extend(places.map(|place| CheckpointAt {
            generation: field!(place, 0, u64),
            position: field!(place, 8, u64),
            id: field!(place, 16, u64),
            extent: field!(place, 24, u32),
            spans: field!(place, 28, u32),
        }));
        let read = Self {
            compatible: field!(page, 16, u64),
            read_only_compatible: field!(page, 24, u64),
            incompatible: field!(page, 32, u64),
            store: field!(page, 40, u64),
            log: LogId(field!(page, 48, u16)),
            term: Term(field!(page, 52, u32)),
            version: field!(page, 56, u64),
            extent_bytes: field!(page, 64, u64),
            head_generation: field!(page, 72, u64),
            head_extent: field!(page, 80, u32),
            checkpoints,
            written: page[WRITTEN_AT..].to_vec(),
        };
        read.is_sound().then_some(read)
    }

    /// Whatever rises has room to rise.
    fn is_sound(&self) -> bool {
        self.term < Term(u32::MAX)
            && self.version < RISING_LIMIT
            && self.head_generation < RISING_LIMIT
            && self.checkpoints.iter().all(|place| place.generation < RISING_LIMIT)
    }

    /// The newest of the copies that verify in the bytes of the file, and which one it is.
    pub(crate) fn newest(file: &[u8]) -> Option<(u8, Self)> {
        let copies = (0..SUPERBLOCK_COPIES).zip(file.chunks(SUPERBLOCK_BYTES));
        let sound = copies.filter_map(|(copy, page)| Some((copy, Self::decode(page)?)));
        // What changes while the copies are written goes into those that follow, under the same version.
        let newest = |superblock: &Self| superblock.checkpoints.last().map(|place| place.id);
        sound.max_by_key(|(_, it)| (it.version, it.head_generation, newest(it)))
    }
}

/// The copy at the start of a block.
pub(crate) fn slice_of(page: &Block) -> Slice {
    Slice { block: page.id(), offset: 0, length: SUPERBLOCK_BYTES as u32 }
}

/// Rewrites the copies, one after the other, and says when a version is on all of them.
pub(crate) struct SuperblockWriter {
    pub(crate) current: Superblock,
    /// The copy under way, or the last one.
    page: Block,
    /// Something changed since `writing` was encoded.
    dirty: bool,
    /// When a rewrite that most copies refused is tried again, monotonic microseconds.
    retry_us: Option<u64>,
    writing: Option<Writing>,
    /// The newest version that went through all copies.
    settled: u64,
    /// A copy that holds the newest version.
    newest: u8,
    /// Copies that are whole, as far as is known: a write that fails may have torn what it was to replace.
    whole: [bool; SUPERBLOCK_COPIES as usize],
    failed_copies: u64,
    /// Incompatible features of the version that went through all copies.
    features: u64,
}

struct Writing {
    version: u64,
    copy: u8,
    /// Copies that are still to be written, this one included.
    left: u8,
    in_flight: bool,
    good: u8,
}

impl SuperblockWriter {
    /// Of a log whose copy `newest` holds `current`, but with these features; copies that are `whole` verify.
    pub(crate) fn new(
        current: Superblock,
        newest: u8,
        whole: [bool; SUPERBLOCK_COPIES as usize],
        features: u64,
        page: Block,
    ) -> Self {
        let (settled, dirty) = (current.version, current.incompatible != features);
        let (retry_us, writing, failed_copies) = (None, None, 0);
        Self { current, page, dirty, retry_us, writing, settled, newest, whole, failed_copies, features }
    }

    /// Incompatible features that no start can fail to see.
    pub(crate) const fn features(&self) -> u64 {
        self.features
    }

    /// Asks for a rewrite; gives back the version that will hold everything changed so far.
    pub(crate) fn touch(&mut self) -> u64 {
        self.dirty = true;
        self.current.version + 1
    }

    pub(crate) const fn settled(&self) -> u64 {
        self.settled
    }

    #[cfg(test)]
    const fn is_idle(&self) -> bool {
        !self.dirty && self.writing.is_none()
    }

    pub(crate) const fn failed_copies(&self) -> u64 {
        self.failed_copies
    }

    /// When `advance` has something to do even if nothing else happens, monotonic microseconds.
    pub(crate) const fn retry_us(&self) -> Option<u64> {
        self.retry_us
    }

    /// Issues the next copy's write when none is under way.
    pub(crate) fn advance(&mut self, now: Now, out: &mut Vec<DiskOp>) {
        let retry = self.retry_us.is_some_and(|at| at <= now.mono_us);
        if self.writing.is_none() && (self.dirty || retry) {
            self.dirty = false;
            self.retry_us = None;
            self.current.version += 1;
            self.writing = Some(Writing {
                version: self.current.version,
                copy: (self.newest + 1) % SUPERBLOCK_COPIES,
                left: SUPERBLOCK_COPIES,
                in_flight: false,
                good: 0,
            });
        }
        // The last whole copy is left alone until another one is: this round comes to nothing, and the next one tries the
        // others again.
        if let Some(copy) =
            self.writing.as_ref().filter(|writing| !writing.in_flight).map(|writing| writing.copy)
            && self.is_last_whole(copy)
        {
            self.end_copy(false, now);
        }
        let Some(writing) = self.writing.as_mut().filter(|writing| !writing.in_flight) else { return };
        writing.in_flight = true;
        // A change after the first copy keeps the version and makes the log rewrite all four once more; until
        // then each copy is whole and true by itself.
        let id = Purpose::Superblock { copy: writing.copy }.id();
        self.current.encode(self.page.bytes_mut());
        out.push(DiskOp::WriteSuperblock { id, copy: writing.copy, source: slice_of(&self.page) });
    }

    /// The bytes of the copy under way, when the block is that one's.
    pub(crate) fn bytes(&self, block: BlockId) -> Option<&[u8]> {
        (block == self.page.id()).then(|| self.page.bytes())
    }

    pub(crate) fn on_written(&mut self, copy: u8, good: bool, now: Now) {
        let Some(writing) = self.writing.as_mut().filter(|writing| writing.in_flight && writing.copy == copy)
        else {
            return;
        };
        writing.in_flight = false;
        self.whole[usize::from(copy)] = good;
        if good {
            self.newest = copy;
        } else {
            self.failed_copies += 1;
        }
        self.end_copy(good, now);
    }

    fn is_last_whole(&self, copy: u8) -> bool {
        self.whole[usize::from(copy)] && self.whole.iter().filter(|whole| **whole).count() == 1
    }

    /// The copy whose turn it was is written, or not; the next one follows.
    fn end_copy(&mut self, good: bool, now: Now) {
        let Some(writing) = &mut self.writing else { return };
        writing.copy = (writing.copy + 1) % SUPERBLOCK_COPIES;
        writing.left -= 1;
        writing.good += u8::from(good);
        if writing.left == 0 {
            // Two good copies outlive the loss of any one; fewer, and the older versions stay in force, which keeps
            // extents from being recycled: so it is tried until it succeeds.
            if writing.good >= 2 {
                self.settled = writing.version;
                // They do not change while the log runs.
                self.features = self.current.incompatible;
            } else {
                self.retry_us = Some(now.mono_us + RETRY_US);
            }
            self.writing = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(version: u64) -> Superblock {
        let mut superblock = Superblock::new(7, LogId(2), 1 << 20);
        superblock.version = version;
        superblock.term = Term(3);
        superblock.head_generation = 65;
        superblock.head_extent = 4;
        superblock.checkpoints.push(CheckpointAt {
            generation: 65,
            position: 4096,
            id: 9,
            extent: 4,
            spans: 1,
        });
        superblock.set_written(4, true);
        superblock.set_written(9, true);
        superblock.set_written(9, false);
        superblock
    }

    fn encoded(superblock: &Superblock) -> Vec<u8> {
        let mut page = vec![1; SUPERBLOCK_BYTES];
        superblock.encode(&mut page);
        page
    }

    fn now(mono_us: u64) -> Now {
        Now { mono_us, wall_us: 0 }
    }

    fn page() -> Block {
        Block::heap(BlockId(1), SUPERBLOCK_BYTES)
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let page = encoded(&superblock(5));
        assert_eq!(Superblock::decode(&page), Some(superblock(5)));
        assert!(superblock(5).is_written(4) && !superblock(5).is_written(9));
        for at in 0..SUPERBLOCK_BYTES {
            let mut damaged = page.clone();
            damaged[at] ^= 1;
            assert_eq!(Superblock::decode(&damaged), None, "byte {at}");
        }
        assert_eq!(Superblock::decode(&page[..4095]), None);
    }

    /// Which copies hold which version (0 = damaged), and which one is served.
    #[test]
    fn the_newest_good_copy_is_served_and_none_when_none_is_left() {
        let table: [([u64; 4], Option<u64>); 6] = [
            ([5, 5, 5, 5], Some(5)),
            ([6, 5, 5, 5], Some(6)),
            ([0, 5, 5, 5], Some(5)),
            ([6, 6, 0, 5], Some(6)),
            ([0, 0, 0, 5], Some(5)),
            ([0, 0, 0, 0], None),
        ];
        for (copies, served) in table {
            let mut file = Vec::new();
            for version in copies {
                let mut page = encoded(&superblock(version));
                page[100] ^= u8::from(version == 0);
                file.extend_from_slice(&page);
            }
            assert_eq!(
                Superblock::newest(&file).map(|(_, superblock)| superblock.version),
                served,
                "{copies:?}"
            );
        }
        assert_eq!(Superblock::newest(&[]), None);
    }

    #[test]
    fn of_copies_of_one_version_the_one_that_was_written_last_is_served() {
        let (earlier, mut later) = (superblock(6), superblock(6));
        (later.head_generation, later.head_extent) = (66, 5);
        for at in 0..4 {
            let copies = (0..4).map(|copy| encoded(if copy == at { &later } else { &earlier }));
            let file: Vec<u8> = copies.flatten().collect();
            assert_eq!(Superblock::newest(&file), Some((at, later.clone())));
        }
    }

    /// A disk that tears whatever it is given, for a while.
    #[test]
    fn the_last_whole_copy_is_not_touched_until_another_one_is_whole() {
        let mut writer = SuperblockWriter::new(superblock(5), 3, [true; 4], 0, page());
        let (mut out, mut torn) = (Vec::new(), Vec::new());
        writer.touch();
        for at in 0..5 {
            for _ in 0..SUPERBLOCK_COPIES {
                writer.advance(now(at * RETRY_US), &mut out);
                let Some(DiskOp::WriteSuperblock { copy, .. }) = out.pop() else { continue };
                torn.push(copy);
                writer.on_written(copy, false, now(at * RETRY_US));
            }
        }
        assert!(!torn.contains(&3) && torn.len() >= 12, "{torn:?}");
        for _ in 0..2 * SUPERBLOCK_COPIES {
            writer.advance(now(10 * RETRY_US), &mut out);
            let Some(DiskOp::WriteSuperblock { copy, .. }) = out.pop() else { continue };
            writer.on_written(copy, true, now(10 * RETRY_US));
        }
        assert!(writer.is_idle() && writer.settled() == writer.current.version, "the disk is well again");
    }

    #[test]
    fn a_version_is_settled_only_after_all_four_copies() {
        let mut writer = SuperblockWriter::new(superblock(5), 3, [true; 4], 0, page());
        let mut out = Vec::new();
        let version = writer.touch();
        for copy in 0..SUPERBLOCK_COPIES {
            assert!(writer.settled() < version);
            writer.advance(now(0), &mut out);
            writer.advance(now(0), &mut out);
            assert_eq!(out.len(), usize::from(copy) + 1, "one copy at a time");
            writer.on_written(copy, copy != 1, now(0));
        }
        assert_eq!((writer.settled(), writer.failed_copies()), (version, 1));
        assert!(writer.is_idle());
    }

    #[test]
    fn a_version_on_one_copy_only_settles_nothing_and_is_written_again() {
        let mut writer = SuperblockWriter::new(superblock(5), 3, [true; 4], 0, page());
        let mut out = Vec::new();
        let version = writer.touch();
        for copy in 0..SUPERBLOCK_COPIES {
            writer.advance(now(0), &mut out);
            writer.on_written(copy, copy == 0, now(7));
        }
        assert!(writer.settled() < version);
        out.clear();
        writer.advance(now(RETRY_US), &mut out);
        assert!(out.is_empty(), "not at once");
        assert_eq!(writer.retry_us(), Some(7 + RETRY_US));
        for _ in 0..SUPERBLOCK_COPIES {
            writer.advance(now(7 + RETRY_US), &mut out);
            let Some(DiskOp::WriteSuperblock { copy, .. }) = out.pop() else { panic!("a copy is due") };
            writer.on_written(copy, true, now(7 + RETRY_US));
        }
        assert!(writer.settled() >= version && writer.retry_us().is_none());
    }

    /// A rewrite that a crash cut short leaves one copy of its version. Were that copy the next one to be torn, the
    /// older version would be in force again, of which extents were reused meanwhile.
    #[test]
    fn the_copy_that_is_in_force_is_rewritten_last() {
        for newest in 0..SUPERBLOCK_COPIES {
            let mut writer = SuperblockWriter::new(superblock(5), newest, [true; 4], 0, page());
            let (mut out, mut order) = (Vec::new(), Vec::new());
            writer.touch();
            for _ in 0..SUPERBLOCK_COPIES {
                writer.advance(now(0), &mut out);
                let Some(DiskOp::WriteSuperblock { copy, .. }) = out.pop() else { panic!("a copy is due") };
                order.push(copy);
                writer.on_written(copy, true, now(0));
            }
            assert_eq!(order.pop(), Some(newest));
            assert!(writer.is_idle() && !order.contains(&newest));
        }
    }
}
