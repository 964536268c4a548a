//! Taking records away from the front of a group: up to an offset that somebody names, or as far as they are old, or
//! more than is to be kept.
//!
//! A trim is an entry of the group. The log start moves when its frame is durable, so it never goes back: a start finds
//! the entry, or a checkpoint that was made behind it and states where the start was going. By then all records below
//! are durable too, whatever their level, since they come before it in the log.
//!
//! What holds no records of any group any more comes back as after a deletion: a full checkpoint leaves it out.
//!
//! **Invariant:** `log_start <= trim_to <= log_end` while a trim is under way; a row lies at or above the log start, or
//! straddles it.

use std::collections::VecDeque;

use crate::append::Appended;
use crate::feature;
use crate::frame::{EntryKind, RISING_LIMIT, field};
use crate::groups::GroupSlot;
use crate::log::Log;

/// Bytes of the entry: the first offset that stays.
const TRIM_BYTES: usize = 8;

/// What an entry of kind trim says; `None` where it says nothing that can be.
pub(crate) fn trimmed_to(payload: &[u8]) -> Option<u64> {
    let payload: &[u8; TRIM_BYTES] = payload.try_into().ok()?;
    Some(field!(payload, 0, u64)).filter(|offset| *offset < RISING_LIMIT)
}

#[derive(Clone, Copy, Debug)]
struct Trim {
    frame: u64,
    slot: GroupSlot,
    offset: u64,
}

/// Trims that are appended and not durable yet, in the order of their frames.
#[derive(Debug, Default)]
pub(crate) struct Trims(VecDeque<Trim>);

impl Log {
    /// Appends that the group's records below `offset` are gone; they are, for readers too, once its frame is durable.
    /// [`Log::room_for_change`] said yes to [`Log::TRIM_BYTES`].
    ///
    /// # Panics
    /// When the log has not the feature, or the offset is not above where the start is or is going, or beyond the end.
    pub fn trim(&mut self, slot: GroupSlot, index: u64, offset: u64) -> Appended {
        assert!(self.has(feature::RETENTION), "an older version could not read it");
        let group = self.groups.at(slot);
        assert!(
            group.coming_start() < offset && offset <= group.log_end,
            "a log start moves on, to what there is"
        );
        let id = group.id;
        let appended = self.append_control(EntryKind::Trim, id, index, &offset.to_le_bytes());
        let group = self.groups.at_mut(slot);
        (group.trim_to, group.moved) = (offset, true);
        self.trims.0.push_back(Trim { frame: appended.frame, slot, offset });
        appended
    }

    /// Payload of what [`Log::trim`] appends.
    pub const TRIM_BYTES: usize = TRIM_BYTES;

    /// The log start that the trims under way lead to; the log start where there are none.
    pub fn coming_start(&self, slot: GroupSlot) -> u64 {
        self.groups.at(slot).coming_start()
    }

    /// Frames up to `sequence` are durable: so are the log starts in them.
    pub(crate) fn trims_durable(&mut self, sequence: u64) {
        while let Some(trim) = self.trims.0.pop_front_if(|trim| trim.frame <= sequence) {
            let extents = &mut self.extents;
            let forget = |row| extents.forget_rows([row]);
            if self.groups.move_start(trim.slot, trim.offset, forget) {
                self.moved_starts.push_back((trim.slot, trim.offset));
            }
        }
    }

    /// Where the log start of a group may go: behind what was appended before `before_us` (by the clock of the frames, so
    /// of this broker), and behind what is more than the newest `keep_bytes` of it. It goes by whole rows, what one extent
    /// holds of the group, and never too far: a row stays as long as its extent was written to at or after `before_us`, and
    /// as long as without it fewer than `keep_bytes` would be left. What the open extent holds counts and stays, unless
    /// all that the extent holds is older than `before_us`: then it goes too, though its space comes back only when the
    /// extent is left. The offset is where the start is going already, or further.
    pub fn expire(&self, slot: GroupSlot, before_us: Option<u64>, keep_bytes: Option<u64>) -> u64 {
        let group = self.groups.at(slot);
        let mut start = group.coming_start();
        let mut all_old = before_us.is_some();
        if let Some(before_us) = before_us {
            for row in &group.rows {
                all_old = self.extents.written_by_us(row.generation).is_some_and(|us| us < before_us);
                if !all_old {
                    break;
                }
                start = start.max(row.last_offset + 1);
            }
            let open = self.extents.head().filter(|_| all_old).map(|head| head.newest_us);
            if let Some(last) = self.runs.last_offset(group.newest_run)
                && open.is_some_and(|us| us < before_us)
            {
                start = start.max(last + 1);
            }
        }
        if let Some(keep_bytes) = keep_bytes {
            let mut left = group.open_bytes;
            // From the newest on: the first row behind which there is enough goes, and all before it.
            for row in group.rows.iter().rev() {
                if left >= keep_bytes {
                    start = start.max(row.last_offset + 1);
                    break;
                }
                left = left.saturating_add(row.bytes);
            }
        }
        start
    }

    /// How many rows [`Log::expire`] looks at, at most.
    pub fn rows(&self, slot: GroupSlot) -> usize {
        self.groups.at(slot).rows.len()
    }
}
