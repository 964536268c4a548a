//! How long a topic keeps its records.

use std::num::NonZeroU64;

/// What takes records of a topic away, beside whoever deletes them and the log's own cap. By default nothing does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Retention {
    /// Records that were appended longer ago may go, microseconds by the clock of the broker that appended them.
    pub time_us: Option<NonZeroU64>,
    /// Of each partition so many bytes stay, and what is older may go.
    pub bytes: Option<NonZeroU64>,
}

/// What is to be changed of it: 0 takes a bound away, `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetentionChange {
    /// Microseconds.
    pub time_us: Option<u64>,
    /// Bytes of each partition.
    pub bytes: Option<u64>,
}

impl Retention {
    /// Whether nothing takes records away.
    pub const fn is_none(&self) -> bool {
        self.time_us.is_none() && self.bytes.is_none()
    }

    /// It, after a change.
    pub fn changed(self, by: RetentionChange) -> Self {
        Self {
            time_us: by.time_us.map_or(self.time_us, NonZeroU64::new),
            bytes: by.bytes.map_or(self.bytes, NonZeroU64::new),
        }
    }
}

impl RetentionChange {
    /// Nothing is named.
    pub const NONE: Self = Self { time_us: None, bytes: None };

    /// Whether it names nothing.
    pub const fn is_none(&self) -> bool {
        self.time_us.is_none() && self.bytes.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays_and_what_is_0_goes() {
        let hour = RetentionChange { time_us: Some(3_600_000_000), bytes: None };
        let kept = Retention::default().changed(hour);
        assert_eq!((kept.time_us, kept.bytes), (NonZeroU64::new(3_600_000_000), None));
        let both = kept.changed(RetentionChange { time_us: None, bytes: Some(1 << 30) });
        assert_eq!((both.time_us, both.bytes), (kept.time_us, NonZeroU64::new(1 << 30)));
        assert_eq!(both.changed(RetentionChange::default()), both);
        let none = both.changed(RetentionChange { time_us: Some(0), bytes: Some(0) });
        assert!(none.is_none() && !both.is_none());
    }
}
