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

impl Shard {
    /// Whether one entry of `bytes` can be appended now.
    pub(crate) fn room(&mut self, now: Now, bytes: usize) -> Result<(), NoRoom> {
        let result = self.log.room_for(1, bytes);
        if result != Err(Full::Extents) {
            self.no_extent_since_us = None;
        }
        match result {
            Ok(()) => Ok(()),
            Err(Full::Window) => Err(NoRoom::Wait),
            Err(Full::ReadOnly) => Err(NoRoom::Refused(Refusal::ReadOnly)),
            Err(Full::Extents) => {
                let since_us = *self.no_extent_since_us.get_or_insert(now.mono_us);
                let patient = now.mono_us.saturating_sub(since_us) < EXTENT_PATIENCE_US;
                Err(if patient { NoRoom::Wait } else { NoRoom::Refused(Refusal::StorageFull) })
            }
        }
    }
}
