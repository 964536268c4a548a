//! A directory without a log: the first superblock, copy by copy, and the extents it is provisioned with.

use super::{Opening, Replay, Stage};
use crate::error::OpenError;
use crate::op::{DiskCompletion, DiskOp, FileName, Purpose};
use crate::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_COPIES, slice_of};

impl Opening {
    pub(super) fn found(&mut self, out: &mut Vec<DiskOp>) {
        if self.surveys {
            // There is no log yet.
            self.stage = Stage::Done;
            return;
        }
        self.superblock.version = 1;
        self.superblock.incompatible = self.config.features;
        self.features = self.config.features;
        self.superblock.encode(self.page.as_mut().expect("the log does not have it yet").bytes_mut());
        self.stage = Stage::Found { copy: 0 };
        let (id, file) = (Purpose::Create { extent: 0 }.id(), FileName::Superblock);
        let bytes = u64::from(SUPERBLOCK_COPIES) * SUPERBLOCK_BYTES as u64;
        out.push(DiskOp::CreateExtent { id, file, bytes });
    }

    /// The file was made, or the copy before this one was written.
    pub(super) fn on_found(
        &mut self,
        copy: u8,
        completion: DiskCompletion,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        if let Err(error) = completion.result {
            return Err(OpenError::Disk { file: FileName::Superblock, position: 0, error });
        }
        if copy == SUPERBLOCK_COPIES {
            return self.provision(0, replay, out);
        }
        self.stage = Stage::Found { copy: copy + 1 };
        let source = slice_of(self.page.as_ref().expect("the log does not have it yet"));
        out.push(DiskOp::WriteSuperblock { id: Purpose::Superblock { copy }.id(), copy, source });
        Ok(())
    }

    fn provision(
        &mut self,
        extent: u32,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        if extent == self.config.provision_extents {
            return self.probe(replay, out);
        }
        self.stage = Stage::Provision { extent };
        let (file, bytes) = (FileName::Extent(extent), self.config.extent_bytes);
        out.push(DiskOp::CreateExtent { id: Purpose::Create { extent }.id(), file, bytes });
        Ok(())
    }

    pub(super) fn on_provisioned(
        &mut self,
        extent: u32,
        completion: DiskCompletion,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        let (file, bytes) = (FileName::Extent(extent), self.config.extent_bytes);
        if let Err(error) = completion.result {
            return Err(OpenError::Disk { file, position: 0, error });
        }
        if matches!(Purpose::of(completion.id), Some(Purpose::Create { .. })) {
            out.push(DiskOp::Zero { id: Purpose::Zero { extent }.id(), file, position: 0, bytes });
            return Ok(());
        }
        self.listing.files.push((file, bytes));
        self.superblock.set_written(extent, true);
        self.provision(extent + 1, replay, out)
    }
}
