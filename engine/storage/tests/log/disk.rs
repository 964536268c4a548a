//! A disk in memory and a log on it.
//!
//! The fault model: what was flushed survives; of what was written and not flushed any subset of 512-byte sectors
//! survives a crash. The bytes of a frame are taken from the log when the write *completes*, so a buffer that is
//! reused too early is written as what it has become.

use std::collections::{BTreeMap, BTreeSet};

use corelog_model::batch::{AlignedVec, BatchBuilder, BatchHeader, Codec, Patch, RecordRef, Seal};
use corelog_model::time::Now;
use corelog_model::{Block, BlockId, GroupId, LogId, ProducerId, Slice, TopicId};
use corelog_storage::{
    DiskCompletion, DiskError, DiskOp, DurableMethod, FileName, Finished, GroupSlot, Listing, Log, LogConfig,
    Memory, OpenError, Opening, Parts, Preparation, Read, ReadRequest, Replayed, plain_copy,
};

pub(crate) const SECTOR: usize = 512;

/// Small deterministic generator (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Default)]
pub(crate) struct File {
    pub(crate) live: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

impl File {
    fn write(&mut self, position: usize, bytes: &[u8]) {
        if self.live.len() < position + bytes.len() {
            self.live.resize(position + bytes.len(), 0);
            self.durable.resize(position + bytes.len(), 0);
        }
        self.live[position..position + bytes.len()].copy_from_slice(bytes);
        self.dirty.extend(position / SECTOR..(position + bytes.len()).div_ceil(SECTOR));
    }

    fn flush(&mut self, from: usize, to: usize) {
        let sectors: Vec<usize> = self.dirty.range(from / SECTOR..to.div_ceil(SECTOR)).copied().collect();
        for sector in sectors {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.live.len());
            self.durable[range.clone()].copy_from_slice(&self.live[range]);
            self.dirty.remove(&sector);
        }
    }
}

#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) files: BTreeMap<FileName, File>,
    /// Operations to fail: counts down at each write or flush of a frame; 0 fails.
    pub(crate) fail_frame_in: Option<u32>,
    /// A place that no read gets over, and whether such a read gives what lies before it rather than an error.
    pub(crate) unreadable: Option<(FileName, usize)>,
    pub(crate) short: bool,
    /// No read is answered.
    pub(crate) dead: bool,
    /// No further file can be made.
    pub(crate) full: bool,
    /// No more extents than these can be made.
    pub(crate) most_extents: Option<usize>,
    /// Extents and packs take no more bytes than these.
    pub(crate) most_bytes: Option<usize>,
    /// What is said instead of that the disk is full.
    pub(crate) says: Option<DiskError>,
}

impl Disk {
    pub(crate) fn listing(&self) -> Listing {
        Listing { files: self.files.iter().map(|(name, file)| (*name, file.live.len() as u64)).collect() }
    }

    /// What extents and packs take.
    pub(crate) fn bytes(&self) -> usize {
        let files = self.files.iter().filter(|(name, _)| **name != FileName::Superblock);
        files.map(|(_, file)| file.live.len()).sum()
    }

    /// Power is lost: each sector that was not flushed survives or does not.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        for file in self.files.values_mut() {
            let keep = random.below(101);
            for sector in std::mem::take(&mut file.dirty) {
                let range = sector * SECTOR..((sector + 1) * SECTOR).min(file.live.len());
                if random.below(100) < keep {
                    file.durable[range.clone()].copy_from_slice(&file.live[range]);
                } else {
                    file.live[range.clone()].copy_from_slice(&file.durable[range]);
                }
            }
        }
    }

    pub(crate) fn damage(&mut self, name: FileName, at: usize) {
        let file = self.files.get_mut(&name).expect("the file exists");
        file.live[at] ^= 0x40;
        file.durable[at] ^= 0x40;
    }

    pub(crate) fn overwrite(&mut self, name: FileName, at: usize, bytes: &[u8]) {
        let file = self.files.get_mut(&name).expect("the file exists");
        file.live[at..at + bytes.len()].copy_from_slice(bytes);
        file.durable[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn frame_fails(&mut self) -> bool {
        match &mut self.fail_frame_in {
            Some(0) => true,
            Some(count) => {
                *count -= 1;
                false
            }
            None => false,
        }
    }

    fn read(&self, name: FileName, from: usize, into: &mut [u8]) -> Result<u32, DiskError> {
        let content = self.files.get(&name).map_or(&[][..], |file| &file.live);
        let available = content.get(from..).unwrap_or(&[]);
        if self.dead {
            return if self.short { Ok(0) } else { Err(DiskError::Io { errno: 5 }) };
        }
        let mut found = available.len().min(into.len());
        if let Some((bad, at)) = self.unreadable
            && bad == name
            && (from..from + found).contains(&at)
        {
            // What lies behind stays what it was in the block that is read into.
            found = (at - from) & !(SECTOR - 1);
            if !self.short {
                return Err(DiskError::Io { errno: 5 });
            }
        }
        into[..found].copy_from_slice(&available[..found]);
        Ok(found as u32)
    }

    /// Carries an operation out; `bytes` gives the bytes of a frame as they are now.
    pub(crate) fn run<'a>(&mut self, op: DiskOp, bytes: impl Fn(Slice) -> &'a [u8]) -> DiskCompletion {
        let id = op.id();
        let mut block = None;
        let result = match op {
            DiskOp::WriteFrame { file, position, source, flush, .. } => {
                if self.frame_fails() {
                    Err(DiskError::Io { errno: 5 })
                } else {
                    let file = self.files.get_mut(&file).expect("frames go into extents that exist");
                    let bytes = bytes(source);
                    assert!(position as usize + bytes.len() <= file.live.len(), "an extent never grows");
                    file.write(position as usize, bytes);
                    if flush {
                        file.flush(position as usize, position as usize + bytes.len());
                    }
                    Ok(bytes.len() as u32)
                }
            }
            DiskOp::Sync { file, .. } => {
                if self.frame_fails() {
                    Err(DiskError::Io { errno: 5 })
                } else {
                    self.files.get_mut(&file).expect("it was written to").flush(0, usize::MAX / 2);
                    Ok(0)
                }
            }
            DiskOp::Read { file, position, length, mut into, .. } => {
                let result = self.read(file, position as usize, &mut into.bytes_mut()[..length as usize]);
                block = Some(into);
                result
            }
            DiskOp::CreateExtent { file, bytes, .. } => {
                let extents = self.files.keys().filter(|file| matches!(file, FileName::Extent(_))).count();
                let bytes_after = self.bytes() + bytes as usize;
                let no_more = self.full
                    || self.most_extents.is_some_and(|most| extents >= most)
                    || self.most_bytes.is_some_and(|most| bytes_after > most);
                if no_more && file != FileName::Superblock {
                    Err(self.says.unwrap_or(DiskError::NoSpace))
                } else {
                    let zeros = vec![0; bytes as usize];
                    let made = File { live: zeros.clone(), durable: zeros, dirty: BTreeSet::new() };
                    self.files.insert(file, made);
                    Ok(0)
                }
            }
            DiskOp::Zero { file, position, bytes, .. } => {
                let file = self.files.get_mut(&file).expect("zeros go into extents that exist");
                file.write(position as usize, &vec![0; bytes as usize]);
                file.flush(position as usize, (position + bytes) as usize);
                Ok(bytes as u32)
            }
            DiskOp::WriteSuperblock { copy, source, .. } => {
                let file = self.files.get_mut(&FileName::Superblock).expect("it was made");
                let bytes = bytes(source);
                let position = usize::from(copy) * bytes.len();
                file.write(position, bytes);
                file.flush(position, position + bytes.len());
                Ok(bytes.len() as u32)
            }
            DiskOp::Remove { file, .. } => {
                self.files.remove(&file);
                Ok(0)
            }
        };
        DiskCompletion { id, result, block }
    }
}

/// A configuration small enough for thousands of runs.
pub(crate) fn config() -> LogConfig {
    LogConfig {
        extent_bytes: 256 << 10,
        frame_target_bytes: 16 << 10,
        max_batch_bytes: 24 << 10,
        frames_in_flight: 3,
        parallel_frame_bytes: 0,
        preparation: Preparation::ZeroAhead,
        durable_method: DurableMethod::Dsync,
        zero_ahead_bytes: 32 << 10,
        settle_extents: 0,
        checkpoint_bytes: 200 << 10,
        entries_in_window: 256,
        ..LogConfig::new(LogId(3), 0xC0FFEE)
    }
}

pub(crate) fn memory() -> Memory {
    let blocks = |ids: std::ops::Range<u32>, bytes| ids.map(|id| Block::heap(BlockId(id), bytes)).collect();
    let page = Block::heap(BlockId(30), 4096);
    let (window, cold, settle) =
        (blocks(10..14, 64 << 10), blocks(20..23, 32 << 10), blocks(40..46, 36 << 10));
    let scrub = Some(Block::heap(BlockId(31), 32 << 10));
    Memory { window, cold, settle, scrub, page, copy: plain_copy }
}

/// What an opening told its owner.
#[derive(Default, Debug)]
pub(crate) struct Told {
    /// The owner's blob, from checkpoints.
    pub(crate) checkpoint: Vec<u8>,
    /// Entries replayed: kind, group, index.
    pub(crate) entries: Vec<(corelog_storage::EntryKind, GroupId, u64)>,
    pub(crate) damaged: Vec<(Option<GroupId>, u64, u64)>,
    /// Groups, and from which offset on.
    pub(crate) possibly_lost: Vec<(GroupId, u64)>,
    pub(crate) tail_cut: u64,
}

pub(crate) fn now(mono_us: u64) -> Now {
    Now { mono_us, wall_us: 1_700_000_000_000_000 + mono_us }
}

/// Opens the log on the disk, completing operations at random.
pub(crate) fn open_with(
    disk: &mut Disk,
    config: LogConfig,
    random: &mut Random,
) -> Result<(Log, Told), OpenError> {
    let mut told = Told::default();
    let (mut ops, mut waiting) = (Vec::new(), Vec::new());
    let mut opening = Opening::new(config, memory(), disk.listing(), now(0));
    opening.start(&mut ops)?;
    loop {
        waiting.append(&mut ops);
        assert!(!waiting.is_empty(), "an opening log always waits for something");
        let op = waiting.swap_remove(random.below(waiting.len() as u64) as usize);
        let completion = disk.run(op, |slice| opening.bytes(slice));
        let mut replay = |event: Replayed<'_>| match event {
            Replayed::Checkpoint { kind, part, bytes } => {
                if part == 0 && kind == corelog_storage::CheckpointKind::Full {
                    told.checkpoint.clear();
                }
                told.checkpoint.extend_from_slice(bytes);
            }
            Replayed::Entry { header, .. } => told.entries.push((header.kind, header.group, header.index)),
            Replayed::Damaged { group, first, last } => told.damaged.push((group, first, last)),
            Replayed::PossiblyLost { group, first } => told.possibly_lost.push((group, first)),
            Replayed::TailCut { frames } => told.tail_cut += frames,
        };
        if let Some(mut log) = opening.on(completion, now(0), &mut replay, &mut ops)? {
            waiting.append(&mut ops);
            // What else the start asked for is carried out, so that nothing is left behind.
            for op in waiting {
                let completion = disk.run(op, |slice| log.bytes(slice));
                log.on(completion, now(0));
            }
            log.check();
            return Ok((log, told));
        }
    }
}

/// The owner's state in a checkpoint, where nobody looks into it.
pub(crate) fn state() -> Parts {
    let mut parts = Parts::default();
    parts.push(b"state");
    parts
}

pub(crate) const TOPIC: TopicId = TopicId(0x7001);

/// A sealed batch of `records` records with values that name group, offset and a filler.
pub(crate) fn batch(group: GroupId, base_offset: u64, records: u64, filler: usize) -> AlignedVec<16> {
    let mut builder = BatchBuilder::new(64 << 10);
    for offset in base_offset..base_offset + records {
        let value = value(group, offset, filler);
        let record = RecordRef { key: None, value: Some(&value), timestamp_us: 1000 + offset, headers: &[] };
        builder.push(record).expect("a small batch");
    }
    let seal = Seal {
        topic: TOPIC,
        partition: group.0 as u32,
        producer_id: ProducerId::NONE,
        producer_epoch: 0,
        base_sequence: 0,
        codec: Codec::None,
    };
    let mut out = AlignedVec::new();
    builder.seal(&seal, &mut out).expect("a batch");
    out
}

pub(crate) fn value(group: GroupId, offset: u64, filler: usize) -> Vec<u8> {
    let mut value = format!("{}/{offset}/", group.0).into_bytes();
    value.resize(value.len() + filler, (offset % 251) as u8);
    value
}

/// Appends one batch if there is room: its frame.
pub(crate) fn append(log: &mut Log, group: GroupId, records: u64, filler: usize) -> Option<u64> {
    let slot = log.open_group(group, TOPIC, group.0 as u32);
    let base_offset = log.log_end(slot);
    let bytes = batch(group, base_offset, records, filler);
    log.room_for(1, bytes.len()).ok()?;
    let patch = Patch { base_offset, append_timestamp_us: 5, leader_epoch: log.term() };
    Some(log.append_batch(slot, log.last_index(slot) + 1, &bytes, &patch).frame)
}

/// Reads a group from `offset` to its end, through memory and disk: batch headers in order, or what stopped it,
/// which is `Pending` where the disk did not answer.
pub(crate) fn read_all(
    log: &mut Log,
    disk: &mut Disk,
    slot: GroupSlot,
    mut offset: u64,
) -> Result<Vec<BatchHeader>, Read> {
    let mut found = Vec::new();
    let (mut slices, mut ops, mut over) = (Vec::new(), Vec::new(), Vec::new());
    // Turns in which an index of several parts is on its way, in a row.
    let mut waits = 0;
    let end_offset = log.log_end(slot);
    while offset < end_offset {
        let request = ReadRequest { slot, offset, end_offset, max_bytes: 10_000, token: 9 };
        let answer = log.read(&request, &mut slices, &mut ops);
        for op in ops.drain(..) {
            let completion = disk.run(op, |slice| log.bytes(slice));
            log.on(completion, now(0));
        }
        match answer {
            Read::Ready { next_offset } => (offset, waits) = (next_offset, 0),
            Read::Pending => {
                over.clear();
                // An index takes several reads, each issued by a cut. A sector that fails is asked for again after a while.
                for turn in 0.. {
                    let at = u64::try_from(turn - 20).map_or(0, |late| late * 100_000);
                    log.finished(&mut over);
                    match over.first() {
                        Some(Finished { failed: false, .. }) => break,
                        Some(_) => return Err(Read::Pending),
                        None => {}
                    }
                    assert!(over.is_empty() && turn < 1_000, "a pending read is finished once");
                    log.cut(now(at), &mut ops);
                    for op in ops.drain(..) {
                        let completion = disk.run(op, |slice| log.bytes(slice));
                        log.on(completion, now(at));
                    }
                }
            }
            Read::Busy => {
                waits += 1;
                assert!(waits < 100, "nobody else reads");
                log.cut(now(0), &mut ops);
                for op in ops.drain(..) {
                    let completion = disk.run(op, |slice| log.bytes(slice));
                    log.on(completion, now(0));
                }
            }
            other => return Err(other),
        }
        for slice in slices.drain(..) {
            let bytes = log.bytes(slice);
            let header = BatchHeader::parse(bytes).expect("a whole batch");
            assert!(header.verify_body(bytes) && bytes.len() == header.padded_bytes());
            found.push(header);
            log.unpin(slice.block);
        }
    }
    Ok(found)
}
