//! FORMAT.md is true: its tables are compared with the constants, and a reader that knows nothing but the tables
//! decodes what a log wrote. The sum of a small store is pinned: whoever changes it changes the format.

use std::collections::BTreeMap;

use crate::disk::{Disk, Random, append, config, now, open_with};
use corelog_model::GroupId;
use corelog_storage::format::*;
use corelog_storage::{EntryKind, FileName};

const FORMAT: &str = include_str!("../../FORMAT.md");

/// The rows `| at | bytes | field |` of a section: field (up to a colon or comma) -> (at, bytes).
fn table(section: &str) -> BTreeMap<String, (usize, usize)> {
    let (_, rest) = FORMAT.split_once(&format!("\n## {section}")).expect("the section is there");
    let text = rest.split_once("\n## ").map_or(rest, |(text, _)| text);
    let mut next = 0;
    let mut fields = BTreeMap::new();
    for row in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let (Ok(at), Some(bytes)) = (cells[0].parse::<usize>(), cells.get(1)) else { continue };
        let bytes = match bytes.strip_suffix(" each") {
            Some(each) => each.parse::<usize>().expect("a number") * CHECKPOINTS_MAX,
            None => bytes.parse().expect("a number"),
        };
        assert_eq!(at, next, "{section}: no hole and no overlap at {row}");
        next = at + bytes;
        fields.insert(cells[2].to_string(), (at, bytes));
    }
    fields.insert("end".into(), (next, 0));
    fields
}

/// The number in the field whose description starts with `name`.
fn number(table: &BTreeMap<String, (usize, usize)>, name: &str, bytes: &[u8]) -> u64 {
    let (at, width) = *table.iter().find(|(field, _)| field.starts_with(name)).expect(name).1;
    bytes[at..at + width].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// CRC-32C bit by bit, so that the reader shares no code with the log.
fn crc(seed: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!seed, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82F6_3B78 & (sum & 1).wrapping_neg()))
    })
}

/// Store and log, as every seed starts.
fn identity() -> Vec<u8> {
    [&0xC0FFEE_u64.to_le_bytes()[..], &3_u16.to_le_bytes()].concat()
}

fn written() -> Disk {
    let mut disk = Disk::default();
    let (mut log, _) = open_with(&mut disk, config(), &mut Random::new(1)).expect("it opens");
    for turn in 0..3 {
        append(&mut log, GroupId(16), 3, 50).expect("room");
        append(&mut log, GroupId(17), 1, 5_000).expect("room");
        log.room_for(1, 7).expect("room");
        log.append_control(EntryKind::Metadata, GroupId::METADATA, turn + 1, b"a topic");
        let mut ops = Vec::new();
        log.cut(now(turn), &mut ops);
        for op in ops {
            let completion = disk.run(op, |slice| log.bytes(slice));
            log.on(completion, now(turn));
        }
    }
    disk
}

#[test]
fn the_tables_have_the_sizes_of_the_code() {
    assert_eq!(table("Frame")["end"].0, FRAME_HEADER_BYTES);
    assert_eq!(table("Entry")["end"].0, ENTRY_HEADER_BYTES);
    let superblock = table("Superblock");
    assert_eq!(superblock["end"].0, SUPERBLOCK_BYTES);
    let field = |name: &str| superblock.iter().find(|(field, _)| field.starts_with(name)).expect(name).1.0;
    assert_eq!((field("checkpoints: generation"), field("one bit per extent")), (CHECKPOINTS_AT, WRITTEN_AT));
    for (text, bytes) in [
        ("Header, 128 bytes", FRAME_HEADER_BYTES),
        ("Level 2 of the index of one closed extent, in a later extent. 32 bytes", FOOTER_HEADER_BYTES),
        ("Then runs of 48 bytes", RUN_BYTES),
        ("32 bytes: id 8, part 4", PART_HEADER_BYTES),
        ("| each group | 40:", GROUP_BYTES),
        ("| each closed extent | 56:", EXTENT_BYTES),
        ("| its footer parts | 24:", FOOTER_AT_BYTES),
        ("| its rows (level 1) | 32:", ROW_BYTES),
        ("bytes of a row 2 (0: 32; 40 with", ROW_COUNTED_BYTES),
        ("Ranges of 24 bytes: group 8, first offset 8", ACCEPTED_BYTES),
        ("| its accepted ranges | 16:", ACCEPTED_ROW_BYTES),
        ("payload's first 128 bytes", ENTRY_COVERS_BYTES),
        ("A start skips 64", GENERATIONS_SKIPPED as usize),
        ("| 96 | 32 each | checkpoints", CHECKPOINT_BYTES),
    ] {
        assert!(FORMAT.contains(text) && text.contains(&bytes.to_string()), "{text}: {bytes}");
    }
    assert_eq!((SUPERBLOCK_COPIES, SUPERBLOCK_SCHEMA, FRAME_VERSION), (4, 1, 1));
    assert_eq!(FRAME_MAGIC.to_le_bytes(), *b"CLF1");
    assert_eq!(SUPERBLOCK_MAGIC.to_le_bytes(), *b"CLOGSUPR");
}

#[test]
fn a_reader_made_from_the_tables_alone_decodes_a_store() {
    let disk = written();
    let (frame_table, entry_table) = (table("Frame"), table("Entry"));
    let extent = &disk.files[&FileName::Extent(0)].live;
    let (mut position, mut sequence, mut previous, mut kinds) = (0, 1, None, Vec::new());
    while extent[position..position + 4] == *b"CLF1" {
        let frame = &extent[position..];
        let field = |name| number(&frame_table, name, frame);
        let place = [&field("generation of the extent").to_le_bytes()[..], &(position as u64).to_le_bytes()];
        let seed = crc(0, &[&identity()[..], &place.concat()].concat());
        assert_eq!(field("header CRC of bytes 8..128"), u64::from(crc(seed, &frame[8..128])));
        assert_eq!((field("sequence"), field("position in the extent")), (sequence, position as u64));
        assert!(previous.is_none_or(|crc| crc == field("header CRC of the previous frame")));
        assert_eq!(field("flags"), if sequence == 1 { u64::from(FLAG_FIRST | FLAG_START) } else { 0 });
        let (used, length) = (field("used") as usize, field("length") as usize);
        assert!(frame[used..length].iter().all(|byte| *byte == 0));
        let entry_seed = crc(0, &[&identity()[..], &sequence.to_le_bytes()].concat());
        let (mut at, mut sum) = (128, 0);
        for _ in 0..field("entries") {
            let entry = &frame[at..];
            let field = |name| number(&entry_table, name, entry);
            let (kind, payload) = (field("kind"), field("payload bytes") as usize);
            let covered = if kind == 1 { payload.min(128) } else { payload };
            assert_eq!(field("CRC of bytes 4.."), u64::from(crc(entry_seed, &entry[4..32 + covered])));
            sum = crc(sum, &entry[0..4]);
            kinds.push((kind, field("group"), field("index"), field("term")));
            if kind == 1 {
                assert_eq!(entry[32..36], *b"CLB1");
            }
            at += 32 + payload.next_multiple_of(16);
        }
        assert_eq!((at, u64::from(sum)), (used, field("CRC over the 4-byte CRCs")));
        previous = Some(field("header CRC of bytes 8..128"));
        (position, sequence) = (position + length, sequence + 1);
    }
    let expected: Vec<_> =
        (1..=3).flat_map(|index| [(1, 16, index, 1), (1, 17, index, 1), (8, 1, index, 1)]).collect();
    assert_eq!(kinds, expected);
}

#[test]
fn a_superblock_read_by_the_table_names_the_head() {
    let disk = written();
    let page = &disk.files[&FileName::Superblock].live[..4096];
    let table = table("Superblock");
    assert_eq!(number(&table, "CRC of bytes 12", page), u64::from(crc(0, &page[12..])));
    assert_eq!((number(&table, "store", page), number(&table, "log", page)), (0xC0FFEE, 3));
    assert_eq!(number(&table, "bytes of an extent", page), 256 << 10);
}

#[test]
fn the_bytes_of_a_store_are_those_of_the_released_format() {
    let disk = written();
    let sum = crc(0, &disk.files[&FileName::Extent(0)].live[..64 << 10]);
    assert_eq!(sum, 2_281_521_716, "a change here is a change of the format: old stores must still open");
}
