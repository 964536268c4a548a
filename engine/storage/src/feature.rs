//! What the format gained after its first release: one bit of the superblock's incompatible features each.
//!
//! A log that an older version made has none of them. A newer version serves it without writing what the older one could
//! not read, until an operator says that there is no way back: then the bits go to the superblock, and only when they are
//! durable there is the first such entry written. An older version refuses a log with a bit that it does not know.

/// Entries of kind `position`, and where they stand in checkpoints.
pub const POSITIONS: u64 = 1 << 0;
/// Topics whose groups are no single range, and those that are being altered.
pub const ALTERED_TOPICS: u64 = 1 << 1;
/// Log starts that are moved one by one, topics that say how long they keep records, rows that count bytes.
pub const RETENTION: u64 = 1 << 2;
/// Packs: files that hold the records of several extents, sorted by partition.
pub const PACKS: u64 = 1 << 3;
/// Entries of kind `accepted loss`, and where they stand in checkpoints. No store gets it before an operator accepts a
/// loss in it.
pub const ACCEPTED_LOSS: u64 = 1 << 4;
/// All that a new store gets.
pub const ALL: u64 = POSITIONS | ALTERED_TOPICS | RETENTION | PACKS;
/// All that this version knows.
pub const KNOWN: u64 = ALL | ACCEPTED_LOSS;

/// Each with its name, as the store's file has it.
pub const NAMES: [(u64, &str); 4] = [
    (POSITIONS, "positions"),
    (ALTERED_TOPICS, "altered-topics"),
    (RETENTION, "retention"),
    (PACKS, "packs"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_a_bit_and_a_name_of_its_own() {
        assert_eq!(NAMES.iter().fold(0, |bits, (bit, _)| bits | bit), ALL);
        assert_eq!(NAMES.len(), ALL.count_ones() as usize);
        assert!(NAMES.iter().all(|(bit, _)| bit.is_power_of_two()));
    }
}
