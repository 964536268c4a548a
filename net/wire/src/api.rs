//! Which requests exist, and which versions of them this build speaks. The one table of both.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The versions of an api that one side speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// The oldest.
    pub min: u8,
    /// The newest.
    pub max: u8,
}

impl VersionRange {
    /// Whether `version` is spoken.
    pub const fn contains(self, version: u8) -> bool {
        self.min <= version && version <= self.max
    }

    /// The newest version that both sides speak.
    pub fn common(self, other: Self) -> Option<u8> {
        let newest = self.max.min(other.max);
        (self.contains(newest) && other.contains(newest)).then_some(newest)
    }
}

macro_rules! apis {
    ($($(#[$doc:meta])* $number:literal $name:ident $min:literal..=$max:literal,)*) => {
        /// The kind of a request and of its response.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Api {
            $($(#[$doc])* $name = $number,)*
        }

        impl Api {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The api with this number, or `None`: the number came from outside.
            pub const fn from_u16(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The versions that this build speaks.
            pub const fn versions(self) -> VersionRange {
                match self {
                    $(Self::$name => VersionRange { min: $min, max: $max },)*
                }
            }

            /// The name that `PROTOCOL.md` gives it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }

        /// What this build serves: the list in a Hello reply and in an UNSUPPORTED_VERSION error.
        pub const SERVED: &[ApiVersions] = &[$(ApiVersions::new($number, $min, $max)),*];
    };
}

apis! {
    /// Names both sides, negotiates the frame size, lists the versions served. The first request.
    1 Hello 1..=1,
    /// Nothing; measures the way there and back.
    2 Ping 1..=1,
    /// Topics, their partitions and where these are served.
    3 Metadata 1..=1,
    /// Makes a topic; answered when it can be produced to.
    4 CreateTopic 1..=2,
    /// Removes a topic and its records.
    5 DeleteTopic 1..=1,
    /// Gives a partition a short name, the handle, for this connection.
    6 Open 1..=1,
    /// Appends batches.
    7 Produce 1..=1,
    /// Reads batches once, perhaps waiting for them.
    8 Fetch 1..=1,
    /// Finds an offset by time, or the ends of the log.
    9 OffsetForTime 1..=1,
    /// Hands out an id for an idempotent producer.
    10 ProducerId 1..=1,
    /// Counters of the broker.
    11 Status 1..=1,
    /// Has batches pushed as they become visible.
    12 Subscribe 1..=1,
    /// Gives a subscription room for more bytes, or ends it.
    13 Credit 1..=1,
    /// Keeps how far whoever reads a partition under a name has come; answered when that is durable.
    14 CommitPosition 1..=1,
    /// Reads the positions kept for a partition.
    15 ReadPositions 1..=1,
    /// Adds partitions to a topic, changes its level or how long it keeps its records, or all of it.
    17 AlterTopic 1..=2,
    /// Forgets a position.
    18 DeletePosition 1..=1,
    /// Takes the records of a partition below an offset away; answered when that is durable.
    19 DeleteRecords 1..=1,
}

/// Numbers kept for apis to come; a broker that does not serve them answers UNSUPPORTED_VERSION.
pub mod reserved {
    /// Proves who the client is.
    pub const AUTHENTICATE: u16 = 16;
    /// From here on: between brokers.
    pub const FIRST_BETWEEN_BROKERS: u16 = 256;
}

/// An api and its versions as they stand in a list on the wire: 4 bytes, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ApiVersions {
    api: U16,
    min: u8,
    max: u8,
}

impl ApiVersions {
    /// One element of the list; `api` may be a number that this build does not know.
    pub const fn new(api: u16, min: u8, max: u8) -> Self {
        Self { api: U16::new(api), min, max }
    }

    /// Number of the api.
    pub const fn api(self) -> u16 {
        self.api.get()
    }

    /// Its versions.
    pub const fn range(self) -> VersionRange {
        VersionRange { min: self.min, max: self.max }
    }
}

/// The version of `api` to use with a peer that serves `theirs`: the newest common one.
pub fn negotiate(api: Api, theirs: &[ApiVersions]) -> Option<u8> {
    let offer = theirs.iter().find(|offer| offer.api() == api as u16)?;
    api.versions().common(offer.range())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_chosen() {
        let range = |min, max| VersionRange { min, max };
        assert_eq!(range(1, 3).common(range(2, 9)), Some(3));
        assert_eq!(range(2, 9).common(range(1, 3)), Some(3));
        assert_eq!(range(1, 1).common(range(1, 1)), Some(1));
        assert_eq!(range(1, 2).common(range(3, 4)), None, "neither speaks the other's");
        assert_eq!(range(3, 4).common(range(1, 2)), None);
        assert_eq!(range(1, 9).common(range(9, 1)), None, "a reversed range holds nothing");
    }

    #[test]
    fn a_newer_broker_is_understood_as_far_as_both_know() {
        let newer = [ApiVersions::new(8, 1, 7), ApiVersions::new(4000, 1, 1)];
        assert_eq!(negotiate(Api::Fetch, &newer), Some(1));
        assert_eq!(negotiate(Api::Ping, &newer), None, "an api that is gone is not guessed");
    }

    #[test]
    fn numbers_lead_back_to_their_api() {
        for &api in Api::ALL {
            assert_eq!(Api::from_u16(api as u16), Some(api));
        }
        for number in [0, reserved::AUTHENTICATE, reserved::FIRST_BETWEEN_BROKERS] {
            assert_eq!(Api::from_u16(number), None);
        }
    }
}
