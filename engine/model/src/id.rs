//! Named ids. Offsets, indexes and byte positions stay `u64`, with the word in the name of the variable.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// A log of a data directory; its folder is `log-NNNN`.
    LogId(u16)
}
id! {
    /// The unit of order, and later of replication: one per partition, some for the system. Never reused.
    GroupId(u64)
}
id! {
    /// Rises by one at every start of a log; the leader epoch that clients see.
    Term(u32)
}
id! {
    /// An idempotent producer; 0 means none.
    ProducerId(u64)
}

impl GroupId {
    /// Entries that belong to the log itself: checkpoints, beacons, seals.
    pub const LOG: Self = Self(0);
    /// The metadata group: topics, configurations, producer-id ranges. Lives in log 0.
    pub const METADATA: Self = Self(1);
    /// The positions group: how far readers with a name have come. Each log has one, for the partitions it keeps.
    pub const POSITIONS: Self = Self(2);
    /// The first id given to a partition; smaller ones are the system's.
    pub const FIRST_PARTITION: Self = Self(16);
}

impl ProducerId {
    /// A batch whose producer does not ask for deduplication.
    pub const NONE: Self = Self(0);
}

/// A topic: the store's random 64 bits above, a counter below, so that an id is never used for a second topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u128);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// When a record is acknowledged and visible. The numbers are on disk and on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Durability {
    /// Its frame is in the contiguous durable prefix.
    #[default]
    Durable = 0,
    /// Its frame is written but perhaps not flushed; may fall back after a crash.
    Written = 1,
    /// It is appended in memory; may fall back after a crash.
    Memory = 2,
}

impl Durability {
    /// The level with this number, or `None`: the byte came from outside.
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Durable),
            1 => Some(Self::Written),
            2 => Some(Self::Memory),
            _ => None,
        }
    }

    /// The word used by the command line, the configuration and the reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Written => "written",
            Self::Memory => "memory",
        }
    }
}
