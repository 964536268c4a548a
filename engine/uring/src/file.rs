//! Opening, sizing, naming and listing files: the blocking calls made at start and by measurements. What runs
//! while a shard serves goes through its ring or its host.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, FallocateFlags, Mode, OFlags};

use crate::op::Errno;

/// A file operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileError {
    /// The file system does not do O_DIRECT.
    DirectRefused {
        /// The file.
        path: PathBuf,
    },
    /// Anything else.
    Failed {
        /// What was asked.
        operation: FileOperation,
        /// Of which file or directory.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
}

/// What can be asked of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOperation {
    /// Opening or creating.
    Open,
    /// Allocating space.
    Allocate,
    /// Asking for its length.
    Size,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Flushing to stable storage.
    Flush,
    /// Renaming.
    Rename,
    /// Removing.
    Remove,
    /// Listing a directory.
    List,
    /// Asking for free space.
    FreeSpace,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An existing file, past the page cache.
    Direct,
    /// Past the page cache, created when absent.
    DirectCreate,
    /// An existing file through the page cache.
    Buffered,
}

/// Opens a file to be read and written.
pub fn open(path: &Path, access: Access) -> Result<OwnedFd, FileError> {
    let flags = OFlags::RDWR
        | OFlags::CLOEXEC
        | match access {
            Access::Direct => OFlags::DIRECT,
            Access::DirectCreate => OFlags::DIRECT | OFlags::CREATE,
            Access::Buffered => OFlags::empty(),
        };
    match fs::open(path, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP) {
        Ok(file) => Ok(file),
        // The kernel's way to say that this file system has no O_DIRECT.
        Err(rustix::io::Errno::INVAL) if flags.contains(OFlags::DIRECT) => {
            Err(FileError::DirectRefused { path: path.to_owned() })
        }
        Err(errno) => Err(FileError::new(FileOperation::Open, path, errno)),
    }
}

/// Gives a file `bytes` of allocated, unwritten space and makes that its size.
pub fn allocate(file: impl AsFd, path: &Path, bytes: u64) -> Result<(), FileError> {
    fs::fallocate(file, FallocateFlags::empty(), 0, bytes)
        .map_err(|errno| FileError::new(FileOperation::Allocate, path, errno))
}

/// Length of a file in bytes.
pub fn size(path: &Path) -> Result<u64, FileError> {
    let status = fs::stat(path).map_err(|errno| FileError::new(FileOperation::Size, path, errno))?;
    Ok(u64::try_from(status.st_size).unwrap_or(0))
}

/// Renames within a file system; durable only after [`sync_directory`].
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(|errno| FileError::new(FileOperation::Rename, to, errno))
}

/// Makes the names in a directory durable.
pub fn sync_directory(path: &Path) -> Result<(), FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = fs::open(path, flags, Mode::empty())
        .map_err(|errno| FileError::new(FileOperation::Open, path, errno))?;
    fs::fsync(directory).map_err(|errno| FileError::new(FileOperation::Flush, path, errno))
}

/// The regular files of a directory: name and length in bytes, sorted by name. Names that are no text are no
/// files of ours and left out.
pub fn list(directory: &Path) -> Result<Vec<(String, u64)>, FileError> {
    let failed = |error: io::Error| FileError::new(FileOperation::List, directory, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let status = entry.metadata().map_err(failed)?;
        if let (true, Ok(name)) = (status.is_file(), entry.file_name().into_string()) {
            files.push((name, status.len()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Bytes that an unprivileged user can still allocate in the file system of `path`.
pub fn free_bytes(path: &Path) -> Result<u64, FileError> {
    let status = fs::statvfs(path).map_err(|errno| FileError::new(FileOperation::FreeSpace, path, errno))?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

impl FileError {
    /// Puts the error of one call together.
    pub fn new(operation: FileOperation, path: &Path, errno: impl Into<Errno>) -> Self {
        Self::Failed { operation, path: path.to_owned(), errno: errno.into() }
    }

    /// The kernel's number.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::DirectRefused { .. } => Errno(libc::EINVAL),
            Self::Failed { errno, .. } => *errno,
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DirectRefused { path } => write!(
                f,
                "the file system of {} does not support O_DIRECT\nhelp: put the data on ext4 or XFS, or do \
                 without by `--set log.buffered=true` (slower, through the page cache)",
                path.display()
            ),
            Self::Failed { operation, path, errno } => {
                write!(f, "cannot {} {}: {errno}", operation.verb(), path.display())?;
                match errno.0 {
                    libc::ENOSPC | libc::EDQUOT => {
                        f.write_str("\nhelp: free some space, or use another disk")
                    }
                    libc::EACCES | libc::EPERM => {
                        f.write_str("\nhelp: give the user of the process access to it")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl FileOperation {
    const fn verb(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Allocate => "allocate space for",
            Self::Size => "ask for the size of",
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Rename => "rename to",
            Self::Remove => "remove",
            Self::List => "list",
            Self::FreeSpace => "ask for the free space of",
        }
    }
}

impl std::error::Error for FileError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_directory;

    #[test]
    fn an_allocated_file_has_its_size_and_is_listed_under_its_new_name() {
        let directory = test_directory();
        let (temporary, name) = (directory.path().join("x.tmp"), directory.path().join("x"));
        let file = open(&temporary, Access::DirectCreate).expect("created");
        allocate(&file, &temporary, 1 << 20).expect("space");
        rename(&temporary, &name).expect("renamed");
        sync_directory(directory.path()).expect("durable");
        assert_eq!(list(directory.path()).expect("listed"), [("x".to_owned(), 1 << 20)]);
        assert_eq!(size(&name), Ok(1 << 20));
    }

    #[test]
    fn a_missing_file_is_named() {
        let directory = test_directory();
        let path = directory.path().join("missing");
        let error = open(&path, Access::Direct).expect_err("nothing there");
        assert_eq!(error.errno(), Errno(libc::ENOENT));
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }

    #[test]
    fn a_file_system_without_direct_access_says_what_to_type() {
        // procfs files refuse O_DIRECT on every kernel.
        let error = open(Path::new("/proc/self/comm"), Access::Direct).expect_err("procfs");
        assert!(matches!(error, FileError::DirectRefused { .. }), "{error:?}");
        assert!(error.to_string().contains("log.buffered=true"), "{error}");
    }
}
