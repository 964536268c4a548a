//! `BATCH.md` against the code: the tables are what other languages read, so they may not drift.

use std::mem::offset_of;

use super::columns::{ArchivedColumns, Columns};
use super::header::ArchivedLayout;
use super::*;
use crate::limits::{MAX_BATCH_BYTES_LIMIT, MAX_RECORDS_PER_BATCH};

const PAGE: &str = include_str!("../../BATCH.md");

/// One row of a table: offset, width in bytes, name.
type Row = (usize, usize, String);

/// The rows of the table whose heading starts with this cell.
fn table(heading: &str) -> Vec<Row> {
    let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().to_owned()).collect() };
    let number = |cell: &str| cell.parse::<usize>().expect("a number");
    let rows = PAGE.lines().skip_while(|line| cells(line).get(1).is_none_or(|cell| cell != heading)).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(cells)
        .map(|cells| (number(&cells[1]), number(&cells[2]), cells[3].clone()))
        .collect()
}

macro_rules! fields {
    ($type:ty: $($field:ident $bytes:expr),* $(,)?) => {
        vec![$((offset_of!($type, $field), $bytes, stringify!($field).to_owned())),*]
    };
}

#[test]
fn the_header_table_is_the_header() {
    let fields: Vec<Row> = fields!(ArchivedLayout:
        magic 4, header_crc 4, format 1, codec 1, flags 2, schema_version 2, producer_epoch 2, body_crc 4,
        body_bytes 4, uncompressed_bytes 4, record_count 4, last_offset_delta 4, root_position 4, base_offset 8,
        base_timestamp_us 8, max_timestamp_us 8, append_timestamp_us 8, producer_id 8, base_sequence 4,
        leader_epoch 4, reserved 8,
    );
    assert_eq!(table("offset"), fields);
    let end = fields.iter().fold(0, |end, (offset, bytes, name)| {
        assert_eq!(*offset, end, "{name} follows its predecessor without a gap");
        offset + bytes
    });
    assert_eq!(end, BATCH_HEADER_BYTES);
    assert!(PAGE.contains(&format!("## Header: {BATCH_HEADER_BYTES} bytes")));
}

#[test]
fn the_column_table_is_the_root() {
    let columns: Vec<Row> = fields!(ArchivedColumns:
        bytes 1, wide_timestamp_delta 8, timestamp_delta 4, offset_delta 4, key_end 4, value_end 4, header_end 4,
        header_name_end 4, header_value_end 4, key_null 1, value_null 1, header_names 1, header_values 1,
    );
    assert_eq!(table("offset in root"), columns);
    assert_eq!(columns.len() * 8, Columns::ROOT_BYTES);
    assert!(PAGE.contains(&format!("The root takes {} bytes", Columns::ROOT_BYTES)));
    assert!(PAGE.contains(&format!("a table of {} columns", columns.len())));
}

#[test]
fn the_numbers_in_the_text_are_the_constants() {
    assert!(PAGE.contains(&format!("1 to {MAX_RECORDS_PER_BATCH} |")));
    assert!(PAGE.contains(&format!("({MAX_BATCH_BYTES_LIMIT} bytes)")));
    assert!(
        PAGE.contains(std::str::from_utf8(&BATCH_MAGIC.to_le_bytes()).expect("the magic number is text"))
    );
    assert!(PAGE.contains(&format!("of the columns: {SCHEMA_VERSION} |")));
    let (columns, kafka) = (BodyFormat::Columns as u8, BodyFormat::KafkaV2 as u8);
    assert!(PAGE.contains(&format!("{columns} columns, {kafka} a Kafka RecordBatch")));
    let (none, lz4, zstd) = (Codec::None as u8, Codec::Lz4 as u8, Codec::Zstd as u8);
    assert!(
        PAGE.contains(&format!("{none} none, {lz4} LZ4 block without frame, {zstd} one Zstandard frame"))
    );
    assert_eq!(FLAG_WIDE_TIMESTAMPS, 1 << 0, "bit 0: wide timestamps");
    assert_eq!(crate::crc::crc32c(0, b"123456789"), 0xE306_9283);
}
