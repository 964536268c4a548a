//! A small ext4 of its own on a loop device, to be filled.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::skip::skipped;

/// Far longer than the kernel takes to let go of a ring's files.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mounted file system in a file; unmounted when dropped.
pub(crate) struct SmallDisk {
    directory: TempDir,
    mounted: bool,
}

impl SmallDisk {
    /// `None`, and a word why, without the right to mount, or without a loop device.
    pub(crate) fn mount(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
        let image = directory.path().join("image");
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("written");
        let mut disk = Self { directory, mounted: false };
        fs::create_dir(disk.path()).expect("made");
        let made = succeeds(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        disk.mounted =
            made && succeeds(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(disk.path()));
        if !disk.mounted {
            skipped("only root, with a loop device, mounts a small disk");
        }
        disk.mounted.then_some(disk)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The kernel lets go of a ring's files some time after its process has ended.
        let begin = Instant::now();
        while self.mounted && !succeeds(Command::new("umount").arg(self.path())) && begin.elapsed() < PATIENCE
        {
            std::thread::yield_now();
        }
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
