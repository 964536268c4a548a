//! Hard limits, in bytes or counts, that several crates must agree on.

/// Disk frames start and end on this boundary; the sector size O_DIRECT is used with.
pub const FRAME_ALIGN: usize = 4096;
/// Entries in frames, batches on the wire and in client buffers start on this boundary.
pub const BATCH_ALIGN: usize = 16;
/// Largest sealed batch unless `max_batch_bytes` says otherwise: a 1 MiB body and its overhead.
pub const MAX_BATCH_BYTES_DEFAULT: usize = (1 << 20) + (64 << 10);
/// What `max_batch_bytes` may be set to.
pub const MAX_BATCH_BYTES_LIMIT: usize = 16 << 20;
/// Records in one batch.
pub const MAX_RECORDS_PER_BATCH: usize = 1 << 20;
/// A frame is cut when it reaches this size; one larger batch gets a frame of its own.
pub const FRAME_TARGET_BYTES: usize = 1 << 20;
/// Topic names: 1 to 249 of `[a-zA-Z0-9._-]`, as Kafka's, and neither `.` nor `..`.
pub const MAX_TOPIC_NAME_BYTES: usize = 249;
/// Names of positions: 1 to 255 bytes of text without control characters.
pub const MAX_POSITION_NAME_BYTES: usize = 255;
/// What a client may keep with a position: text of at most so many bytes.
pub const MAX_POSITION_METADATA_BYTES: usize = 255;
/// Partitions of one topic.
pub const MAX_PARTITIONS_PER_TOPIC: u32 = 100_000;

/// Rounds up to a multiple of `align`, a power of two.
pub const fn round_up(value: usize, align: usize) -> usize {
    assert!(align.is_power_of_two());
    (value + align - 1) & !(align - 1)
}

/// Whether `name` may be the name of a topic.
pub fn is_topic_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty()
        && name.len() <= MAX_TOPIC_NAME_BYTES
        && name != "."
        && name != ".."
        && name.bytes().all(allowed)
}

/// Whether `name` may be the name of a position. Wider than a topic's, so that names of Kafka's groups fit.
pub fn is_position_name(name: &str) -> bool {
    (1..=MAX_POSITION_NAME_BYTES).contains(&name.len()) && !name.contains(char::is_control)
}
