//! The files of a log as the system has them: opened for the ring, made and changed by the host.
//!
//! **Invariant:** the ring is told about a file after it exists and forgets it before it is removed or replaced.

use std::path::PathBuf;

use corelog_storage::{DiskCompletion, DiskError, DiskOp, FileName, Listing, OpId};
use corelog_uring::FileId;
use corelog_uring::file::{self, Access, FileError};
use corelog_uring::host::BackgroundOp;
use corelog_uring::ring::{Ring, RingError};

use crate::core::disk_error;

/// A log's directory.
#[derive(Debug)]
pub(crate) struct Files {
    directory: PathBuf,
    access: Access,
    /// Operations the host works on, by their key.
    working: Vec<Option<Working>>,
}

/// What the host was asked for.
#[derive(Clone, Copy, Debug)]
struct Working {
    id: OpId,
    creates: Option<FileName>,
}

/// What the end of a background operation means.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) completion: DiskCompletion,
    /// A file that exists now, as the ring knows it.
    pub(crate) opened: Option<(FileName, FileId)>,
}

/// A file cannot be opened or given to the ring.
#[derive(Debug)]
pub(crate) enum OpenFailed {
    File(FileError),
    Ring(RingError),
}

impl Files {
    /// The directory of a log, whose files are opened with `access`.
    pub(crate) const fn new(directory: PathBuf, access: Access) -> Self {
        Self { directory, access, working: Vec::new() }
    }

    /// How the files are opened: past or through the page cache.
    pub(crate) const fn access(&self) -> Access {
        self.access
    }

    /// What the directory holds. Names that are not a log's are left alone; what an unfinished creation left
    /// behind is removed.
    pub(crate) fn list(&self) -> Result<Listing, FileError> {
        let mut listing = Listing::default();
        for (name, bytes) in file::list(&self.directory)? {
            match name.parse::<FileName>() {
                Ok(file) => listing.files.push((file, bytes)),
                Err(_) => self.remove_unfinished(&name)?,
            }
        }
        Ok(listing)
    }

    fn remove_unfinished(&self, name: &str) -> Result<(), FileError> {
        let of_log = name.strip_suffix(UNFINISHED).is_some_and(|name| name.parse::<FileName>().is_ok());
        let path = self.directory.join(name);
        match of_log {
            true => std::fs::remove_file(&path)
                .map_err(|error| FileError::new(file::FileOperation::Remove, &path, error)),
            false => Ok(()),
        }
    }

    /// Opens an existing file for the ring.
    pub(crate) fn open(&self, name: FileName, ring: &mut Ring) -> Result<FileId, OpenFailed> {
        let file = file::open(&self.path(name), self.access).map_err(OpenFailed::File)?;
        ring.register_file(file).map_err(OpenFailed::Ring)
    }

    /// What the host is to do for a background operation, and under which key.
    pub(crate) fn begin(&mut self, op: DiskOp) -> (u32, BackgroundOp) {
        let name = op.file();
        let creates = matches!(op, DiskOp::CreateExtent { .. }).then_some(name);
        let working = Working { id: op.id(), creates };
        let key = self.working.iter().position(Option::is_none).unwrap_or_else(|| {
            self.working.push(None);
            self.working.len() - 1
        });
        self.working[key] = Some(working);
        let path = self.path(name);
        let op = match op {
            DiskOp::CreateExtent { bytes, .. } => BackgroundOp::CreateExtent {
                directory: self.directory.clone(),
                name: name.to_string(),
                bytes,
            },
            DiskOp::Zero { position, bytes, .. } => BackgroundOp::Zero { path, position, bytes },
            DiskOp::Remove { .. } => BackgroundOp::Remove { path },
            DiskOp::WriteFrame { .. }
            | DiskOp::Sync { .. }
            | DiskOp::WriteSuperblock { .. }
            | DiskOp::Read { .. } => {
                unreachable!("commit, cold and settle operations go to the ring")
            }
        };
        (u32::try_from(key).expect("few at a time"), op)
    }

    /// What the host's answer to the operation of this key means.
    pub(crate) fn end(&mut self, key: u32, result: &Result<u64, FileError>, ring: &mut Ring) -> Ended {
        let working = self.working.get_mut(key as usize).and_then(Option::take);
        let working = working.expect("the host answers what it was asked");
        let mut result = result.as_ref().map(|_| 0).map_err(refused);
        let mut opened = None;
        if let (Ok(_), Some(name)) = (result, working.creates) {
            match self.open(name, ring) {
                Ok(id) => opened = Some((name, id)),
                Err(OpenFailed::File(error)) => result = Err(refused(&error)),
                Err(OpenFailed::Ring(error)) => result = Err(DiskError::Io { errno: error.errno.0 }),
            }
        }
        Ended { completion: DiskCompletion { id: working.id, result, block: None }, opened }
    }

    fn path(&self, name: FileName) -> PathBuf {
        self.directory.join(name.to_string())
    }
}

/// What the host puts behind the name of a file that is not finished.
const UNFINISHED: &str = ".tmp";

fn refused(error: &FileError) -> DiskError {
    disk_error(error.errno())
}
