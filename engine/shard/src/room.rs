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

/// Since when an extent is waited for, in monotonic microseconds.
#[derive(Debug, Default)]
pub(crate) struct Patience(Option<u64>);

impl Patience {
    fn judge(&mut self, now: Now, room: Result<(), Full>) -> Result<(), NoRoom> {
        if room != Err(Full::Extents) {
            self.0 = None;
        }
        match room {
            Ok(()) => Ok(()),
            Err(Full::Window) => Err(NoRoom::Wait),
            Err(Full::ReadOnly) => Err(NoRoom::Refused(Refusal::ReadOnly)),
            Err(Full::Extents) => {
                let since_us = *self.0.get_or_insert(now.mono_us);
                let patient = now.mono_us.saturating_sub(since_us) < EXTENT_PATIENCE_US;
                Err(if patient { NoRoom::Wait } else { NoRoom::Refused(Refusal::StorageFull) })
            }
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
