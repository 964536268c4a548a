//! `PROTOCOL.md` is what other languages are written from: its tables and the constants are compared both ways.

use corelog_wire::api::{Api, reserved};
use corelog_wire::error::{ErrorCode, bound, part};
use corelog_wire::frame::{
    FRAME_ALIGN, FRAME_OVERHEAD_BYTES, FrameHeader, HEADER_BYTES, HELLO_FRAME_BYTES, MAX_FRAME_BYTES,
};
use corelog_wire::{Status, record_header, request};

const PAGE: &str = include_str!("../../PROTOCOL.md");

/// The rows of the table that has this head, as cells.
fn table(head: &str) -> Vec<Vec<String>> {
    let rows = PAGE.lines().skip_while(|line| *line != head).skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.map(cells).collect()
}

fn strings<const N: usize>(cells: [impl ToString; N]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

#[test]
fn the_header() {
    let header = FrameHeader {
        length: 0x0403_0201,
        head_bytes: 0x0807_0605,
        api: 0x0a09,
        version: 0x0b,
        flags: 0x0c,
        handle: 0x100f_0e0d,
        correlation: 0x1817_1615_1413_1211,
        payload_bytes: 0x1c1b_1a19,
    };
    let bytes = header.encode();
    assert!(
        bytes[..28].iter().zip(1..).all(|(&byte, place)| byte == place),
        "all fields, in order: {bytes:?}"
    );
    assert_eq!(bytes[28..], [0; 4]);

    let fields = [
        ("length", 4),
        ("head_bytes", 4),
        ("api", 2),
        ("version", 1),
        ("flags", 1),
        ("handle", 4),
        ("correlation", 8),
        ("payload_bytes", 4),
        ("reserved", 4),
    ];
    let mut offset = 0;
    let mut expected = Vec::new();
    for (name, bytes) in fields {
        expected.push(strings([offset.to_string(), bytes.to_string(), name.to_owned()]));
        offset += bytes;
    }
    assert_eq!(offset, HEADER_BYTES);
    let rows = table("| offset | bytes | field | meaning |").into_iter();
    assert_eq!(rows.map(|row| row[..3].to_vec()).collect::<Vec<_>>(), expected);
}

#[test]
fn the_limits() {
    let expected = [
        HEADER_BYTES,
        FRAME_ALIGN,
        HELLO_FRAME_BYTES,
        FRAME_OVERHEAD_BYTES,
        MAX_FRAME_BYTES,
        request::MAX_HANDLE as usize,
    ];
    let rows = table("| limit | bytes |");
    let found = rows.iter().map(|row| row[1].replace(',', "").parse::<usize>().expect("a number"));
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

#[test]
fn the_apis() {
    let expected = Api::ALL.iter().map(|&api| {
        let range = api.versions();
        strings([(api as u16).to_string(), api.name().to_owned(), format!("{}-{}", range.min, range.max)])
    });
    assert_eq!(table("| api | name | versions |"), expected.collect::<Vec<_>>());

    let later =
        [(reserved::AUTHENTICATE, "Authenticate"), (reserved::FIRST_BETWEEN_BROKERS, "FirstBetweenBrokers")];
    let expected = later.map(|(number, name)| strings([number.to_string(), name.to_owned()]));
    assert_eq!(table("| api | name |"), expected);
}

#[test]
fn the_error_codes() {
    let expected = ErrorCode::ALL.iter().map(|code| {
        let details = code.detail_names().join(", ");
        let details = if details.is_empty() { "-".to_owned() } else { details };
        let retryable = if code.retryable() { "yes" } else { "no" };
        strings([code.number().to_string(), code.name().to_owned(), retryable.to_owned(), details])
    });
    assert_eq!(table("| code | name | retryable | details |"), expected.collect::<Vec<_>>());
    for &code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_number(code.number(), !code.retryable()), code);
    }
}

#[test]
fn the_details() {
    let values = [
        ("part", part::LAYOUT, "LAYOUT"),
        ("part", part::HEADER_CRC, "HEADER_CRC"),
        ("part", part::BODY_CRC, "BODY_CRC"),
        ("what", bound::HANDLES, "HANDLES"),
        ("what", bound::WAITS, "WAITS"),
        ("what", bound::READS, "READS"),
        ("what", bound::PRODUCERS, "PRODUCERS"),
        ("what", bound::TOPICS, "TOPICS"),
        ("what", bound::PARTITIONS, "PARTITIONS"),
        ("what", bound::CHANGES, "CHANGES"),
        ("what", bound::CONNECTIONS, "CONNECTIONS"),
        ("what", bound::IN_FLIGHT, "IN_FLIGHT"),
        ("what", bound::POSITIONS, "POSITIONS"),
        ("what", bound::SUBSCRIPTIONS, "SUBSCRIPTIONS"),
    ];
    let expected = values.map(|(detail, value, name)| strings([detail, &value.to_string(), name]));
    assert_eq!(table("| detail | value | meaning |"), expected);
}

#[test]
fn the_counters() {
    let expected = Status::TAGS.iter().map(|&(tag, name)| strings([tag.to_string(), name.to_owned()]));
    assert_eq!(table("| tag | counter |"), expected.collect::<Vec<_>>());
}

#[test]
fn the_record_headers() {
    let rows = table("| name | meaning |");
    assert_eq!(rows.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), record_header::ALL);
    let ours = record_header::ALL.iter().filter(|name| name.starts_with(record_header::PREFIX));
    assert_eq!(ours.count(), 3, "the other two are W3C's");
}
