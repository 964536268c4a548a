//! Faults of a medium that says it is well: writes that go elsewhere, reads of older bytes, flipped bits, sectors that
//! cannot be read, flushes that confirm nothing. The atlas says what they leave alone.

use std::ops::Range;

use corelog_storage::FileName;

use super::atlas::may_harm_copy;
use super::file::SECTOR;
use super::weather::hits;
use super::{PAGE, SimDisk, Write};

/// Places that are looked at for one that may be harmed.
const TRIES: u32 = 8;

impl SimDisk {
    /// A write that may go somewhere else; what it was to overwrite stays then.
    pub(super) fn strays(&mut self, write: Write) -> Write {
        if self.faults.atlas && write.guarded || !hits(self.faults.misdirected, &mut self.odds) {
            return write;
        }
        if write.file == FileName::Superblock
            && !self.may_harm(write.file, &(write.position..write.position + PAGE))
        {
            return write;
        }
        for _ in 0..TRIES {
            let Some((file, range)) = self.any_place(write.bytes.len()) else { continue };
            if (file, range.start) != (write.file, write.position) && self.may_harm(file, &range) {
                self.injected.misdirected += 1;
                let asked = write.position..write.position + write.bytes.len();
                self.harm.push(("misdirected from", write.file, asked));
                self.harm.push(("misdirected to", file, range.clone()));
                self.atlas.misread(file, range.clone());
                return Write { file, position: range.start, ..write };
            }
        }
        write
    }

    /// Whether a flush confirms nothing.
    pub(super) fn lies_about(&mut self, name: FileName, covers: usize) -> bool {
        let Some(file) = self.files.get(&name) else { return false };
        let mut covered = file.unflushed.iter().take(covers);
        if covers == 0 || self.faults.atlas && covered.any(|write| write.guarded) {
            return false;
        }
        let lies = hits(self.faults.lies, &mut self.odds);
        if lies {
            self.injected.lies += 1;
            self.harm.push(("lying flush", name, 0..0));
        }
        lies
    }

    /// The same of a write through.
    pub(super) fn lies_about_write(&mut self, write: &Write) -> bool {
        let range = write.position..write.position + write.bytes.len();
        let guarded = self.faults.atlas && write.guarded
            || write.file == FileName::Superblock && !self.may_harm(write.file, &range);
        let lies = !guarded && hits(self.faults.lies, &mut self.odds);
        if lies {
            self.injected.lies += 1;
            self.harm.push(("lying write through", write.file, range));
        }
        lies
    }

    /// A read may see a part of what was there before.
    pub(super) fn age(&mut self, name: FileName, position: usize, found: &mut [u8]) {
        if !hits(self.faults.stale_reads, &mut self.odds) {
            return;
        }
        let Some(file) = self.files.get(&name) else { return };
        let superblock = |(file, _): &(FileName, Range<usize>)| *file == FileName::Superblock;
        if name == FileName::Superblock && self.atlas.misreads().iter().any(superblock) {
            // One copy at a time, here too.
            return;
        }
        let past = file.past(position, found.len());
        let harmed = past.into_iter().find(|(range, _)| self.may_harm(name, range));
        let Some((range, old)) = harmed.map(|(range, old)| (range, old.to_vec())) else { return };
        found[range.start - position..range.end - position].copy_from_slice(&old);
        if self.is_starting {
            let file = self.files.get_mut(&name).expect("just read");
            file.revert(range.start, &old);
        }
        self.injected.stale_reads += 1;
        self.harm.push(("stale read", name, range.clone()));
        self.atlas.misread(name, range);
    }

    /// Beside an operation: a bit flips, a sector becomes unreadable.
    pub(super) fn decay(&mut self) {
        if hits(self.faults.rot, &mut self.odds) {
            self.rot();
        }
        if hits(self.faults.latent, &mut self.odds) {
            self.lose_sector();
        }
    }

    /// The same between two lives, of a medium that decays.
    pub(super) fn decay_while_off(&mut self) {
        if self.faults.rot > 0 && self.odds.chance(20) {
            self.rot();
        }
        if self.faults.latent > 0 && self.odds.chance(20) {
            self.lose_sector();
        }
    }

    fn rot(&mut self) {
        let Some((name, range)) = self.any_sector() else { return };
        let byte = self.odds.between(range.start as u64, range.end as u64 - 1) as usize;
        let bit = self.odds.below(8);
        let file = self.files.get_mut(&name).expect("chosen from those that are there");
        file.durable[byte] ^= 1 << bit;
        self.injected.rot += 1;
        self.atlas.misread(name, range);
        self.harm.push(("rot", name, byte..byte + 1));
    }

    fn lose_sector(&mut self) {
        let Some((name, range)) = self.any_sector() else { return };
        let file = self.files.get_mut(&name).expect("chosen from those that are there");
        self.injected.latent += u64::from(file.latent.insert(range.start / SECTOR));
        self.atlas.misread(name, range.clone());
        self.harm.push(("unreadable", name, range));
    }

    /// How many sectors cannot be read.
    pub fn unreadable(&self) -> usize {
        self.files.values().map(|file| file.latent.len()).sum()
    }

    /// Somebody copies what can be read to another disk: what cannot is zeros there. How many sectors.
    pub fn rescue(&mut self) -> u64 {
        let mut lost = 0;
        for file in self.files.values_mut() {
            for sector in std::mem::take(&mut file.latent) {
                let zeros = [0; SECTOR];
                // Also in what was not flushed: the copy is made of what a reader sees.
                let position = sector * SECTOR;
                for older in &mut file.unflushed {
                    super::file::cover(older.position, &mut older.bytes, position, &zeros);
                }
                file.settle(position, &zeros);
                lost += 1;
            }
        }
        lost
    }

    /// A sector that may be harmed, mostly of a frame, now and then of anything.
    fn any_sector(&mut self) -> Option<(FileName, Range<usize>)> {
        for _ in 0..TRIES {
            let number = self.odds.bits();
            let place = match self.odds.chance(75) {
                true => self.atlas.place(number >> 1),
                false => self.any_place(SECTOR),
            };
            let Some((file, range)) = place else { continue };
            let sectors = (range.end - range.start) / SECTOR;
            let start = range.start + self.odds.below(sectors as u64) as usize * SECTOR;
            if self.may_harm(file, &(start..start + SECTOR)) {
                return Some((file, start..start + SECTOR));
            }
        }
        None
    }

    /// So many bytes of any file, from a sector or a page on; of the superblock one copy.
    fn any_place(&mut self, length: usize) -> Option<(FileName, Range<usize>)> {
        let at = self.odds.below(self.files.len().max(1) as u64) as usize;
        let (&name, file) = self.files.iter().nth(at)?;
        let align = if name == FileName::Superblock { PAGE } else { self.odds.pick(&[SECTOR, PAGE]) };
        let last = file.len().checked_sub(length)? / align;
        let start = self.odds.below(last as u64 + 1) as usize * align;
        Some((name, start..start + length))
    }

    /// Whether the atlas leaves these bytes to faults of the medium.
    fn may_harm(&self, name: FileName, range: &Range<usize>) -> bool {
        if !self.faults.atlas {
            return true;
        }
        let Some(file) = self.files.get(&name) else { return false };
        match name {
            FileName::Superblock => {
                let copy = range.start / PAGE;
                range.end <= (copy + 1) * PAGE
                    && file.unflushed.is_empty()
                    && may_harm_copy(&file.durable, copy)
            }
            _ => !self.atlas.is_guarded(name, range),
        }
    }
}
