//! A directory without a log: the first superblock, copy by copy, and the extents it is provisioned with.

use super::{Opening, Replay, Stage};
use crate::error::OpenError;
use crate::op::{DiskCompletion, DiskOp, FileName, Purpose};
use crate::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_COPIES};

impl Opening {
    pub(super) fn found(&mut self, copy: u8, out: &mut Vec<DiskOp>) {
        self.superblock.version = 1;
        self.stage = Stage::Found { copy };
        let id = Purpose::Superblock { copy }.id();
        out.push(DiskOp::WriteSuperblock { id, copy, bytes: self.superblock.encode() });
    }

    pub(super) fn on_found(
        &mut self,
        copy: u8,
        completion: DiskCompletion,
        replay: &mut Replay<'_>,
        out: &mut Vec<DiskOp>,
    ) -> Result<(), OpenError> {
        if let Err(error) = completion.result {
            let position = u64::from(copy) * SUPERBLOCK_BYTES as u64;
            return Err(OpenError::Disk { file: FileName::Superblock, position, error });
        }
        if copy + 1 < SUPERBLOCK_COPIES {
            self.found(copy + 1, out);
            return Ok(());
        }
        self.provision(0, replay, out)
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
