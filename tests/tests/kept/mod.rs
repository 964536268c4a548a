//! What the tests of kept data share: where it lies, and a broker over a copy of a kept store.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use corelog_testing::{Broker, Builder};
use flate2::read::GzDecoder;
use tempfile::TempDir;

/// Data of the tests, by its name.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

/// How the broker of a kept store is started: with small extents, so that its store is a small one of several.
pub(crate) fn builder(store: &Path) -> Builder {
    let settings = [
        "log.extent_bytes=1 MiB",
        "log.checkpoint_bytes=1 MiB",
        "log.frame_bytes=64 KiB",
        "limits.max_batch_bytes=128 KiB",
        "limits.max_frame_bytes=256 KiB",
    ];
    settings.into_iter().fold(Broker::builder(), Builder::set).directory(store)
}

/// The files of a store that belong to its format.
pub(crate) fn files(store: &Path) -> Vec<PathBuf> {
    let log = Path::new("log-0000");
    let names = fs::read_dir(store.join(log)).expect("a log").map(|entry| entry.expect("listed").file_name());
    let mut files: Vec<_> = names.map(|name| log.join(name)).collect();
    files.push(PathBuf::from("store.toml"));
    files
}

/// Makes a store of a packed one.
pub(crate) fn unpack(from: &Path, store: &Path) {
    for file in files(from) {
        let name = file.to_string_lossy();
        let unpacked = store.join(name.strip_suffix(".gz").unwrap_or(&name));
        let packed = if name.ends_with(".gz") { from.join(&*name) } else { from.join(format!("{name}.gz")) };
        fs::create_dir_all(unpacked.parent().expect("a folder")).expect("made");
        let mut bytes = Vec::new();
        GzDecoder::new(File::open(packed).expect("it is kept")).read_to_end(&mut bytes).expect("unpacked");
        fs::write(unpacked, bytes).expect("written");
    }
}

/// A place for a store, on a file system with O_DIRECT.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

/// Whether what is missing is to be written: never what is there.
pub(crate) fn writes() -> bool {
    std::env::var_os("CORELOG_GOLDEN").is_some_and(|word| word == "write")
}
