//! What must hold for any bytes that stand where the disk should hold a structure of this log: the oracles of the
//! fuzz targets `superblock` and `log_entry`, and the replay of their corpora. Built for these two only.
//!
//! Sums are made right by the oracles, so that no input is wasted on them. What is read is written again and must be
//! the same; what is accepted is within bounds, so that arithmetic on it cannot overflow.

use corelog_model::LogId;
use corelog_model::crc::crc32c;

use crate::checkpoint::{
    CheckpointKind, EXTENT_BYTES, GROUP_BYTES, PART_HEADER_BYTES, PartHeader, decode_state, encode_state,
};
use crate::extent::Extents;
use crate::frame::{ENTRY_HEADER_BYTES, EntryHeader, FrameSeed, RISING_LIMIT};
use crate::groups::Groups;
use crate::index::{FOOTER_HEADER_BYTES, FooterHeader, RUN_BYTES, Runs};
use crate::superblock::{
    CHECKPOINT_BYTES, CHECKPOINTS_AT, SUPERBLOCK_BYTES, SUPERBLOCK_COPIES, SUPERBLOCK_MAGIC,
    SUPERBLOCK_SCHEMA, Superblock, WRITTEN_AT,
};

#[cfg(test)]
#[path = "../../../tests/fuzz/oracle/mutate.rs"]
mod mutate;

/// Size of the extents that checkpoints are about.
const EXTENT: u64 = 1 << 20;

/// `bytes` are which copies are damaged (a bit each), and the start of a page; the rest is zero. Returns whether that
/// is a superblock once magic, schema and sum are right.
pub fn superblock(bytes: &[u8]) -> bool {
    let Some((&damaged, page)) = bytes.split_first() else { return false };
    let _must_not_panic = Superblock::decode(page);
    let mut whole = vec![0; SUPERBLOCK_BYTES];
    let known = page.len().min(SUPERBLOCK_BYTES);
    whole[..known].copy_from_slice(&page[..known]);
    sum_page(&mut whole);
    let Some(read) = Superblock::decode(&whole) else { return false };
    assert!(read.version < RISING_LIMIT && read.head_generation < RISING_LIMIT && read.term.0 < u32::MAX);
    assert!(read.checkpoints.iter().all(|place| place.generation < RISING_LIMIT));
    let mut canonical = whole.clone();
    let last = CHECKPOINTS_AT + read.checkpoints.len() * CHECKPOINT_BYTES;
    for reserved in [50..52, 88..96, last..WRITTEN_AT] {
        canonical[reserved].fill(0);
    }
    sum_page(&mut canonical);
    let mut again = vec![1; SUPERBLOCK_BYTES];
    read.encode(&mut again);
    assert_eq!(again, canonical, "all of it is read");
    newest(&whole, damaged);
    true
}

fn sum_page(page: &mut [u8]) {
    page[0..8].copy_from_slice(&SUPERBLOCK_MAGIC.to_le_bytes());
    page[12..16].copy_from_slice(&SUPERBLOCK_SCHEMA.to_le_bytes());
    let crc = crc32c(0, &page[12..]);
    page[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// Of four copies, each newer than the one before it, the newest is served that is whole.
fn newest(page: &[u8], damaged: u8) {
    let mut file = Vec::new();
    let mut expected = None;
    for copy in 0..SUPERBLOCK_COPIES {
        let mut page = page.to_vec();
        page[56..64].copy_from_slice(&u64::from(copy).to_le_bytes());
        sum_page(&mut page);
        if damaged & 1 << copy == 0 {
            expected = Some(u64::from(copy));
        } else {
            page[8 + usize::from(damaged) * 7 % (SUPERBLOCK_BYTES - 8)] ^= 1;
        }
        file.extend_from_slice(&page);
    }
    let found =
        |file: &[u8]| Superblock::newest(file).map(|(copy, newest)| (u64::from(copy), newest.version));
    assert_eq!(found(&file), expected.map(|version| (version, version)));
    file.truncate(file.len() - 1);
    assert!(found(&file).is_none_or(|(copy, _)| copy < 3), "a page that is cut short");
}

/// The first of `bytes` says which structure the rest is: an entry, the head of a checkpoint's part, the log's own
/// state in checkpoints, an index. Returns whether it was accepted.
pub fn log_entry(bytes: &[u8]) -> bool {
    let Some((&which, bytes)) = bytes.split_first() else { return false };
    match which % 4 {
        0 => entry(bytes),
        1 => part(bytes),
        2 => state(bytes),
        _ => footer(bytes),
    }
}

fn entry(bytes: &[u8]) -> bool {
    let seed = FrameSeed { store: 0xA5, log: LogId(3) }.entries(77);
    let _must_not_panic = EntryHeader::decode(bytes, seed);
    let Some((header, _)) = EntryHeader::parse(bytes) else { return false };
    assert!(header.total_bytes() <= bytes.len(), "a payload lies within its frame");
    let mut again = bytes[..header.total_bytes()].to_vec();
    again[6..8].fill(0);
    let expected = again.clone();
    header.encode(seed, &mut again);
    assert_eq!(again[4..], expected[4..], "all of it is read");
    assert_eq!(EntryHeader::decode(&again, seed).map(|(header, _)| header), Some(header));
    assert_eq!(EntryHeader::decode(&again[..again.len() - 1], seed), None, "cut short");
    assert_eq!(EntryHeader::decode(&again, seed ^ 1), None, "of another frame");
    again[4 + header.index as usize % (ENTRY_HEADER_BYTES - 4)] ^= 1;
    assert_eq!(EntryHeader::decode(&again, seed), None, "a flipped bit");
    true
}

fn part(bytes: &[u8]) -> bool {
    let Some((header, content)) = PartHeader::decode(bytes) else { return false };
    assert!(header.part < header.parts);
    let mut again = vec![1; PART_HEADER_BYTES];
    header.encode(&mut again);
    again.extend_from_slice(content);
    assert_eq!(again.len(), bytes.len());
    assert_eq!(PartHeader::decode(&again), Some((header, content)));
    true
}

/// What a chain of checkpoints says, or `None` when one of them is refused.
fn restored<'a>(chain: impl IntoIterator<Item = &'a [u8]>) -> Option<(u64, Extents, Groups)> {
    let (mut extents, mut groups, mut covers) = (Extents::new(EXTENT), Groups::default(), 0);
    for state in chain {
        covers = decode_state(state, &mut extents, &mut groups)?;
    }
    Some((covers, extents, groups))
}

/// `bytes` are the length of a full checkpoint's state (u16), it, and an incremental one's.
fn state(bytes: &[u8]) -> bool {
    let Some((length, bytes)) = bytes.split_first_chunk::<2>() else { return false };
    let (full, more) = bytes.split_at(bytes.len().min(u16::from_le_bytes(*length).into()));
    let chain: &[&[u8]] = if more.is_empty() { &[full] } else { &[full, more] };
    let Some((covers, extents, groups)) = restored(chain.iter().copied()) else { return false };
    assert!(extents.live.len() * EXTENT_BYTES + groups.len() * GROUP_BYTES <= bytes.len(), "bounded");
    groups.check();
    for live in &extents.live {
        assert!(live.generation < RISING_LIMIT && live.end <= EXTENT && live.indexed);
        assert!(live.first_sequence <= live.last_sequence && live.last_sequence < RISING_LIMIT);
    }
    let mut again = Vec::new();
    encode_state(CheckpointKind::Full, 0, covers, true, &extents, &groups, &mut again);
    let (covers_again, extents_again, groups_again) = restored([&*again]).expect("what was written is read");
    assert_eq!((covers_again, &extents_again.live), (covers, &extents.live));
    for (slot, group) in groups.iter() {
        let other = groups_again.at(slot);
        let fields = (group.id, group.log_start, group.log_end, group.last_index, &group.rows);
        assert_eq!((other.id, other.log_start, other.log_end, other.last_index, &other.rows), fields);
    }
    let mut third = Vec::new();
    encode_state(CheckpointKind::Full, 0, covers_again, true, &extents_again, &groups_again, &mut third);
    assert_eq!(third, again, "the same state is the same bytes");
    true
}

fn footer(bytes: &[u8]) -> bool {
    let Some(header) = FooterHeader::decode(bytes) else { return false };
    let (mut runs, mut groups) = (Runs::default(), Groups::default());
    let other = runs.decode_part(bytes, header.generation ^ 1, header.part, &mut groups);
    assert_eq!(other, None, "of another extent");
    if runs.decode_part(bytes, header.generation, header.part, &mut groups).is_none() {
        return false;
    }
    let count = header.runs as usize;
    assert_eq!(runs.sorted.len(), count);
    let room = FOOTER_HEADER_BYTES + count.max(1) * RUN_BYTES;
    let mut again = Vec::new();
    runs.encode_part(header.generation, 0, room, &groups, &mut again);
    let mut expected = bytes[..FOOTER_HEADER_BYTES + count * RUN_BYTES].to_vec();
    expected[16..24].copy_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
    expected[28..32].fill(0);
    assert_eq!(again, expected, "all of it is read");
    runs.sort();
    let mut found = Vec::new();
    for run in &runs.sorted {
        assert!(run.first_offset <= run.last_offset && run.last_offset < u64::MAX && run.start <= run.end);
        found.clear();
        runs.runs_from(run.slot, run.first_offset, 3, &mut found);
        assert!(found.len() <= 3 && found.iter().all(|other| other.slot == run.slot));
    }
    true
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use corelog_model::limits::BATCH_ALIGN;
    use corelog_model::{GroupId, Term};

    use super::*;
    use crate::extent::{FooterAt, Live};
    use crate::frame::EntryKind;
    use crate::groups::Row;
    use crate::index::Run;
    use crate::superblock::CheckpointAt;

    /// Inputs beyond the corpus in one run of the tests.
    const MUTATIONS: u32 = 50_000;

    fn corpus(target: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(target)
    }

    /// Every seed is committed and accepted. `CORELOG_GOLDEN=write cargo test -p corelog-storage fuzz` adds missing
    /// ones.
    fn committed(target: &str, seeds: &[(&str, Vec<u8>)], check: fn(&[u8]) -> bool) {
        for (name, seed) in seeds {
            let path = corpus(target).join(name);
            if std::env::var_os("CORELOG_GOLDEN").is_some_and(|word| word == "write") && !path.exists() {
                fs::create_dir_all(corpus(target)).expect("the corpus can be made");
                fs::write(&path, seed).expect("the corpus can be written");
            }
            assert!(fs::read(&path).expect("the seed is there") == *seed, "{target}/{name}");
            assert!(check(seed), "{target}/{name}: a seed is accepted");
        }
        let files = mutate::replay(&corpus(target), MUTATIONS, |bytes| {
            check(bytes);
        });
        assert!(files >= seeds.len());
    }

    #[test]
    fn any_page_is_a_superblock_or_not() {
        let page = |damaged: u8, checkpoints: u64, end: usize| {
            let mut superblock = Superblock::new(7, LogId(2), EXTENT);
            (superblock.version, superblock.term) = (5, Term(3));
            (superblock.head_generation, superblock.head_extent) = (65, 4);
            for id in 1..=checkpoints {
                let (generation, position, extent) = (60 + id, 4096 * id, id as u32);
                let place = CheckpointAt { generation, position, id: 3 << 32 | id, extent, spans: 1 };
                superblock.checkpoints.push(place);
            }
            superblock.set_written(4, true);
            let mut page = vec![0; SUPERBLOCK_BYTES];
            superblock.encode(&mut page);
            [&[damaged], &page[..end]].concat()
        };
        let seeds = [
            ("fresh", page(0, 0, 96)),
            ("one-checkpoint", page(0b1000, 1, WRITTEN_AT + 8)),
            ("all-checkpoints", page(0b0101, 16, WRITTEN_AT)),
            ("all-damaged", page(0b1111, 3, SUPERBLOCK_BYTES)),
        ];
        committed("superblock", &seeds, superblock);
    }

    #[test]
    fn any_payload_of_the_logs_own_is_read_or_refused() {
        let mut seeds = Vec::new();
        let entries = [("batch", EntryKind::Batch, 300), ("metadata", EntryKind::Metadata, 40)];
        for (name, kind, length) in [("noop", EntryKind::Noop, 0), entries[0], entries[1]] {
            let header = EntryHeader { kind, group: GroupId(16), index: 9, term: Term(2), length };
            let mut bytes = vec![0x5A; header.total_bytes()];
            header.encode(1, &mut bytes);
            seeds.push((name, [&[0], &*bytes].concat()));
        }
        let header = PartHeader { id: 4, part: 1, parts: 3, kind: CheckpointKind::Incremental, owner: true };
        let mut bytes = [0; PART_HEADER_BYTES];
        header.encode(&mut bytes);
        seeds.push(("part", [&[1], &bytes[..], &[7; BATCH_ALIGN]].concat()));
        seeds.extend(states());
        seeds.extend(footers());
        committed("log_entry", &seeds, log_entry);
    }

    /// The state of a log with this many closed extents; each holds the groups of the one before it and one more.
    fn closed(extents: u64) -> (Extents, Groups) {
        let (mut all, mut groups) = (Extents::new(EXTENT), Groups::default());
        for at in 0..extents {
            let mut live = Live::begun(at as u32, at + 1, at * 10 + 1, 0);
            (live.last_sequence, live.end, live.worthy) = (at * 10 + 10, 8192, true);
            (live.groups, live.indexed) = (at as u32 + 1, true);
            let footer = FooterAt { generation: at + 2, sequence: 10 * at, position: 4096, length: 80 };
            live.footers = vec![footer; at as usize + 1];
            all.live.push_back(live);
            for group in 0..=at {
                let slot = groups.slot(GroupId(16 + group));
                let group = groups.at_mut(slot);
                let (first_offset, last_offset) = (group.log_end, group.log_end + 99);
                group.log_end += 100;
                let row =
                    Row { generation: at + 1, first_offset, last_offset, max_timestamp_us: at, bytes: 0 };
                group.rows.push_back(row);
            }
        }
        (all, groups)
    }

    fn states() -> Vec<(&'static str, Vec<u8>)> {
        let encoded = |kind, listed, extents: u64, wide| {
            let (all, groups) = closed(extents);
            let mut bytes = Vec::new();
            encode_state(kind, listed, extents, wide, &all, &groups, &mut bytes);
            bytes
        };
        let with = |full: Vec<u8>, more: &[u8]| {
            let length = u16::try_from(full.len()).expect("a seed is short").to_le_bytes();
            [&[2], &length[..], &full, more].concat()
        };
        let full = |extents| encoded(CheckpointKind::Full, 0, extents, false);
        let more = |wide| encoded(CheckpointKind::Incremental, 1, 3, wide);
        vec![
            ("state-empty", with(full(0), &[])),
            ("state-full", with(full(3), &[])),
            ("state-chain", with(full(1), &more(false))),
            ("state-counted", with(encoded(CheckpointKind::Full, 0, 2, true), &[])),
            ("state-chain-of-both", with(full(1), &more(true))),
        ]
    }

    fn footers() -> Vec<(&'static str, Vec<u8>)> {
        let mut groups = Groups::default();
        let mut runs = Runs { sorted: Vec::new(), first_sequence: 100 };
        let mut bytes = Vec::new();
        runs.encode_part(9, 0, 1000, &groups, &mut bytes);
        let mut seeds = vec![("footer-empty", [&[3], &*bytes].concat())];
        for at in 0..6_u64 {
            runs.sorted.push(Run {
                first_offset: at * 7,
                last_offset: at * 7 + 6,
                max_timestamp_us: at,
                slot: groups.slot(GroupId(16 + at % 2)),
                start: at as u32 * 4096,
                end: at as u32 * 4096 + 200,
                frame: at as u32,
                bytes: 0,
            });
        }
        runs.sort();
        runs.encode_part(9, 1, FOOTER_HEADER_BYTES + 4 * RUN_BYTES, &groups, &mut bytes);
        seeds.push(("footer-second-part", [&[3], &*bytes].concat()));
        runs.encode_part(9, 0, 1000, &groups, &mut bytes);
        seeds.push(("footer", [&[3], &*bytes].concat()));
        seeds
    }
}
