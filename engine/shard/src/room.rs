//! Room in the log, and for how long it is waited for.
//!
//! A full window empties by itself, and an extent may be on its way: both are waited for. An extent that does not
//! come means a full disk, which whoever appends must hear of.

use corelog_model::Now;
use corelog_storage::Full;

use crate::refusal::Refusal;
use crate::shard::Shard;

/// How long an extent is waited for before the disk is called full, in microseconds.
const EXTENT_PATIENCE_US: u64 = 500_000;

/// Why nothing can be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Not yet: ask again next turn.
    Wait,
    /// Not at all.
    Refused(Refusal),
}

impl From<Refusal> for NoRoom {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// How long an extent has been waited for.
#[derive(Debug, Default)]
pub(crate) enum Patience {
    /// None is.
    #[default]
    Calm,
    /// Until then, in monotonic microseconds.
    Until(u64),
    /// Too long.
    Over,
}

impl Patience {
    fn judge(&mut self, now: Now, room: Result<(), Full>) -> Result<(), NoRoom> {
        if room != Err(Full::Extents) {
            *self = Self::Calm;
        }
        match room {
            Ok(()) => Ok(()),
            Err(Full::Window) => Err(NoRoom::Wait),
            Err(Full::ReadOnly) => Err(NoRoom::Refused(Refusal::ReadOnly)),
            // Nothing that is under way makes room there.
            Err(Full::Index) => Err(NoRoom::Refused(Refusal::StorageFull)),
            Err(Full::Extents) => {
                if let Self::Calm = self {
                    *self = Self::Until(now.mono_us + EXTENT_PATIENCE_US);
                }
                self.pass(now);
                Err(match self {
                    Self::Over => NoRoom::Refused(Refusal::StorageFull),
                    _ => NoRoom::Wait,
                })
            }
        }
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, now: Now) {
        if self.ends_us().is_some_and(|ends_us| ends_us <= now.mono_us) {
            *self = Self::Over;
        }
    }

    /// When it will be over: whoever waits is to be heard then, in monotonic microseconds.
    pub(crate) const fn ends_us(&self) -> Option<u64> {
        match self {
            Self::Until(ends_us) => Some(*ends_us),
            Self::Calm | Self::Over => None,
        }
    }
}

impl Shard {
    /// Whether one batch of `bytes`, or the first entry of something new, can be appended now.
    pub(crate) fn room(&mut self, now: Now, bytes: usize) -> Result<(), NoRoom> {
        let room = self.log.room_for(1, bytes);
        self.batch_patience.judge(now, room)
    }

    /// Whether one entry that ends something, or goes on with it, can be appended now: on a full disk too.
    pub(crate) fn room_for_change(&mut self, now: Now, bytes: usize) -> Result<(), NoRoom> {
        let room = self.log.room_for_change(bytes);
        self.change_patience.judge(now, room)
    }
}
