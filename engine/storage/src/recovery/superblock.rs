//! The first step of an opening: the four copies of the superblock, the newest of which says what the log is.

use super::{Opening, Replay, Stage};
use crate::error::OpenError;
use crate::op::{DiskCompletion, DiskOp, FileName, Purpose};
use crate::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_COPIES, Superblock};

impl Opening {
    pub(super) fn read_copy(&mut self, copy: u8, out: &mut Vec<DiskOp>) {
        let into = self.pool.pop().expect("the pool is whole between stages");
        out.push(DiskOp::Read {
            id: Purpose::OpeningRead { ticket: u64::from(copy) }.id(),
            file: FileName::Superblock,
            position: u64::from(copy) * SUPERBLOCK_BYTES as u64,
            length: SUPERBLOCK_BYTES as u32,
            into,
        });
    }

    pub(super) fn on_superblock(
        &mut self,
        completion: DiskCompletion,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        let Stage::Superblock { copy, file } = &mut self.stage else { return Ok(()) };
        let Some(block) = completion.block else { return Ok(()) };
        let found = completion.result.unwrap_or(0) as usize;
        // A copy that cannot be read, or is cut short, is one that does not verify.
        file.extend_from_slice(&block.bytes()[..found.min(SUPERBLOCK_BYTES)]);
        file.resize((usize::from(*copy) + 1) * SUPERBLOCK_BYTES, 0);
        self.pool.push(block);
        *copy += 1;
        let next = *copy;
        if next < SUPERBLOCK_COPIES {
            self.read_copy(next, out);
            return Ok(());
        }
        let mut pages = file.chunks(SUPERBLOCK_BYTES);
        self.whole_copies =
            std::array::from_fn(|_| pages.next().is_some_and(|page| Superblock::decode(page).is_some()));
        let extents = self.listing.files.iter().any(|(file, _)| matches!(file, FileName::Extent(_)));
        let Some((newest, superblock)) = Superblock::newest(file) else {
            if extents {
                return Err(OpenError::NoSuperblock);
            }
            // The first superblock never became whole, so there is no log yet.
            self.whole_copies = [true; SUPERBLOCK_COPIES as usize];
            self.found(out);
            return Ok(());
        };
        if (superblock.store, superblock.log) != (self.config.store, self.config.log) {
            return Err(OpenError::WrongStore { store: superblock.store, log: superblock.log.0 });
        }
        if superblock.unknown_features() != 0 {
            return Err(OpenError::Features { incompatible: superblock.unknown_features() });
        }
        if superblock.extent_bytes != self.config.extent_bytes {
            return Err(OpenError::ExtentBytes { found: superblock.extent_bytes });
        }
        if !extents && superblock.head_generation > 0 {
            // It has had a head: what was there is gone, and a log that begins anew in its place would hide that.
            return Err(OpenError::MissingExtent { extent: superblock.head_extent });
        }
        if !extents {
            // There is no log yet, and perhaps no other copy: one that has records does not hang on a single one.
            self.whole_copies = [true; SUPERBLOCK_COPIES as usize];
            self.found(out);
            return Ok(());
        }
        (self.superblock, self.newest_copy) = (superblock, newest);
        self.features = self.superblock.incompatible;
        self.superblock.incompatible |= self.config.features;
        self.term = self.superblock.term;
        self.generation = self.superblock.head_generation;
        self.probe(replay, out)
    }
}
