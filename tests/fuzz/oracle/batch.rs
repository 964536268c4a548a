//! What must hold for any bytes that claim to be a batch. Shared by the fuzz target and by the tests of
//! engine/model, which replay the corpus without a fuzzer.

use corelog_model::batch::{AlignedVec, BATCH_HEADER_BYTES, BatchHeader, BatchView, Patch};
use corelog_model::limits::{MAX_BATCH_BYTES_LIMIT, MAX_RECORDS_PER_BATCH};
use corelog_model::{Term, TopicId};

const TOPIC: TopicId = TopicId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
const PARTITION: u32 = 3;

/// What the broker does with a batch (header, CRCs, patch) and what a consumer does (open, read everything). Returns
/// whether there was anything to read.
pub(crate) fn check(bytes: &[u8]) -> bool {
    let mut batch = AlignedVec::<16>::with_capacity(bytes.len());
    batch.extend_from_slice(bytes);
    let Ok(header) = BatchHeader::parse(&batch) else {
        let mut scratch = AlignedVec::new();
        assert!(BatchView::open(&batch, &mut scratch).is_err(), "no header, no view");
        return false;
    };
    assert!(header.batch_bytes() <= MAX_BATCH_BYTES_LIMIT);
    assert!(header.padded_bytes() >= header.batch_bytes());
    assert!(header.record_count as usize <= MAX_RECORDS_PER_BATCH);
    if batch.len() >= header.batch_bytes() {
        header.verify_body(&batch);
        patched(&batch, header);
    }
    read(&batch, &header)
}

/// The broker's patch changes what it names and nothing else, and leaves a header that verifies.
fn patched(batch: &[u8], before: BatchHeader) {
    let patch = Patch {
        base_offset: before.base_offset / 2,
        append_timestamp_us: before.append_timestamp_us / 2 + 1,
        leader_epoch: Term(7),
    };
    let mut copy = batch.to_vec();
    BatchHeader::patch(&mut copy, &patch, TOPIC, PARTITION);
    assert!(BatchHeader::verify_header(&copy, TOPIC, PARTITION));
    assert!(!BatchHeader::verify_header(&copy, TOPIC, PARTITION + 1), "the CRC is seeded with the partition");
    let Patch { base_offset, append_timestamp_us, leader_epoch } = patch;
    let expected = BatchHeader { base_offset, append_timestamp_us, leader_epoch, ..before };
    assert_eq!(BatchHeader::parse(&copy), Ok(expected));
    assert_eq!(copy[BATCH_HEADER_BYTES..], batch[BATCH_HEADER_BYTES..], "the body is the producer's");
}

/// What opens can be read to the end, and says of itself what its header says.
fn read(batch: &[u8], header: &BatchHeader) -> bool {
    let mut scratch = AlignedVec::new();
    let Ok(view) = BatchView::open(batch, &mut scratch) else {
        return false;
    };
    let mut count = 0;
    let mut next_offset = header.base_offset;
    let mut bytes = 0;
    for record in view.records() {
        assert!(record.offset >= next_offset, "offsets rise");
        next_offset = record.offset + 1;
        assert!(
            record.timestamp_us >= header.base_timestamp_us && record.timestamp_us <= header.max_timestamp_us
        );
        bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        bytes += record.headers().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        count += 1;
    }
    assert_eq!(count, header.record_count);
    assert_eq!(next_offset, header.next_offset());
    assert!(bytes <= header.uncompressed_bytes as usize, "records are slices of the body");
    true
}
