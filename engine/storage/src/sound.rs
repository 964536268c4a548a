//! What is sound of a frame of which something is damaged. Pure: bytes in, batches out.
//!
//! Entries stand one behind the other without a gap, so one whose header is damaged hides where the next one begins. It
//! is looked for: each entry carries a CRC seeded for its frame, which nothing else in the log verifies with.
//!
//! **Invariant:** what is given out verifies, but for the body of a batch that is said to be bad.

use corelog_model::batch::BatchHeader;
use corelog_model::limits::BATCH_ALIGN;

use crate::frame::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};

/// What stands at a place.
pub(crate) enum Sound {
    /// A batch, its header at `position`; `whole`: its body verifies, too.
    Batch { entry: EntryHeader, batch: BatchHeader, position: usize, whole: bool },
    /// Anything else.
    Control,
    /// Nothing that verifies. What follows is the next batch that does.
    Broken,
}

/// Goes through the entries from byte `from` to byte `end` of a frame's bytes.
pub(crate) fn sound_entries(
    bytes: &[u8],
    from: usize,
    end: usize,
    entry_seed: u32,
    mut each: impl FnMut(Sound),
) {
    let bytes = &bytes[..end.min(bytes.len())];
    let (mut position, mut broken) = (from, false);
    while position < end {
        let read = bytes.get(position..).and_then(|bytes| match broken {
            // Control entries are summed whole: looking for one could take the square of their length.
            true => EntryHeader::parse(bytes).filter(|(entry, _)| entry.kind == EntryKind::Batch),
            false => EntryHeader::parse(bytes),
        });
        let found = read.and_then(|_| entry_at(bytes, position, entry_seed));
        match found {
            Some((entry, sound)) => {
                position += entry.total_bytes();
                broken = false;
                each(sound);
            }
            None => {
                if !broken {
                    each(Sound::Broken);
                }
                broken = true;
                position += BATCH_ALIGN;
            }
        }
    }
}

fn entry_at(bytes: &[u8], position: usize, entry_seed: u32) -> Option<(EntryHeader, Sound)> {
    let (entry, _) = EntryHeader::decode(&bytes[position..], entry_seed)?;
    if entry.kind != EntryKind::Batch {
        return Some((entry, Sound::Control));
    }
    let payload = &bytes[position + ENTRY_HEADER_BYTES..][..entry.length as usize];
    let batch = BatchHeader::parse(payload).ok().filter(|batch| batch.padded_bytes() == payload.len())?;
    let whole = batch.verify_body(payload);
    Some((entry, Sound::Batch { entry, batch, position, whole }))
}
