//! A reader of batches written from `BATCH.md` alone: no rkyv, nothing of the crate under test. It is what another
//! language would write, so it shows that the page is enough and that the bytes are what the page says.

/// Everything that a batch says about one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlainRecord {
    pub(crate) offset: u64,
    pub(crate) timestamp_us: u64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// CRC-32C, bit by bit.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// The two CRCs as this page computes them, of a batch with a columns body.
pub(crate) fn crcs(batch: &[u8], topic: u128, partition: u32) -> (u32, u32) {
    let mut covered = topic.to_le_bytes().to_vec();
    covered.extend(partition.to_le_bytes());
    covered.extend(&batch[8..96]);
    (crc32c(&covered), crc32c(&batch[96..96 + u32_at(batch, 20) as usize]))
}

/// The two CRCs that the header holds.
pub(crate) fn stored_crcs(batch: &[u8]) -> (u32, u32) {
    (u32_at(batch, 4), u32_at(batch, 16))
}

fn plain_body(batch: &[u8]) -> Vec<u8> {
    let stored = &batch[96..96 + u32_at(batch, 20) as usize];
    let length = u32_at(batch, 24) as usize;
    let plain = match batch[9] {
        0 => stored.to_vec(),
        1 => lz4_flex::block::decompress(stored, length).expect("an LZ4 block"),
        2 => zstd::bulk::decompress(stored, length).expect("a Zstandard frame"),
        codec => panic!("codec {codec} is not on the page"),
    };
    assert_eq!(plain.len(), length);
    plain
}

/// The bytes of a column: a relative position and a number of items at this offset of the root.
fn column(body: &[u8], root: usize, offset_in_root: usize, item_bytes: usize) -> &[u8] {
    let field = root + offset_in_root;
    let relative = u32_at(body, field) as i32;
    let items = u32_at(body, field + 4) as usize;
    let start = usize::try_from(field as i64 + i64::from(relative)).expect("within the body");
    assert_eq!(start % item_bytes, 0, "a column starts on a multiple of its item size");
    &body[start..start + items * item_bytes]
}

fn u32_items(bytes: &[u8]) -> Vec<usize> {
    bytes.chunks_exact(4).map(|item| u32_at(item, 0) as usize).collect()
}

fn bit(bitmap: &[u8], index: usize) -> bool {
    bitmap.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

/// The records of a batch with a columns body.
pub(crate) fn records(batch: &[u8]) -> Vec<PlainRecord> {
    assert_eq!(&batch[..4], b"CLB1");
    assert_eq!((batch[8], u16_at(batch, 12)), (1, 1), "columns of schema 1");
    let wide = u16_at(batch, 10) & 1 == 1;
    let (count, root) = (u32_at(batch, 28) as usize, u32_at(batch, 36) as usize);
    let (base_offset, base_timestamp_us) = (u64_at(batch, 40), u64_at(batch, 48));
    let body = plain_body(batch);
    let ends = |offset_in_root| u32_items(column(&body, root, offset_in_root, 4));
    let bytes_of = |offset_in_root| column(&body, root, offset_in_root, 1);

    let deltas: Vec<u64> = if wide {
        column(&body, root, 8, 8).chunks_exact(8).map(|item| u64_at(item, 0)).collect()
    } else {
        ends(16).into_iter().map(|delta| delta as u64).collect()
    };
    let (offset_delta, key_end, value_end) = (ends(24), ends(32), ends(40));
    let (header_end, name_end, header_value_end) = (ends(48), ends(56), ends(64));
    let (key_null, value_null) = (bytes_of(72), bytes_of(80));
    let (names, values, bytes) = (bytes_of(88), bytes_of(96), bytes_of(0));

    let start = |ends: &[usize], index: usize| if index == 0 { 0 } else { ends[index - 1] };
    let header = |index: usize| {
        let name = names[start(&name_end, index)..name_end[index]].to_vec();
        let value = values[start(&header_value_end, index)..header_value_end[index]].to_vec();
        (String::from_utf8(name).expect("UTF-8"), value)
    };
    let record = |index: usize| {
        let record_start = start(&value_end, index);
        let value_start = key_end.get(index).copied().unwrap_or(record_start);
        let has_key = !key_end.is_empty() && !bit(key_null, index);
        let headers = match header_end.get(index) {
            Some(end) => (start(&header_end, index)..*end).map(header).collect(),
            None => Vec::new(),
        };
        PlainRecord {
            offset: base_offset + offset_delta.get(index).copied().unwrap_or(index) as u64,
            timestamp_us: base_timestamp_us + deltas[index],
            key: has_key.then(|| bytes[record_start..value_start].to_vec()),
            value: (!bit(value_null, index)).then(|| bytes[value_start..value_end[index]].to_vec()),
            headers,
        }
    };
    (0..count).map(record).collect()
}
