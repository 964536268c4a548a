//! The data directory: who the store is, that one broker has it, what its log holds.
//!
//! ```text
//! DIR/store.toml    schema, id of the store, number of logs, features that its logs have or are to have
//! DIR/lock          locked while a broker runs
//! DIR/limits.toml   what the probe found (engine/uring/src/limits.rs)
//! DIR/log-0000/     the files of log 0 (engine/storage/FORMAT.md)
//! ```
//! **Invariant:** a file of this module appears whole or not at all: written aside, flushed, renamed, the
//! directory flushed. Must not look inside the log's files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::{error, fmt};

use corelog_model::LogId;
use corelog_storage::{FileName, feature};

const STORE_FILE: &str = "store.toml";
const LOCK_FILE: &str = "lock";
const SCHEMA: i64 = 1;

/// What was being done when the data directory failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making the directory.
    Create,
    /// Opening or taking the lock file.
    Lock,
    /// Reading a file.
    Read,
    /// Writing a file aside, flushing or renaming it.
    Write,
    /// Drawing the random id of a new store.
    Random,
}

/// Why a data directory cannot be used.
#[derive(Debug)]
pub enum DataDirError {
    /// The system refused.
    Io {
        /// What was being done.
        step: Step,
        /// To what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another broker has it.
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A log that the store has had is not there.
    LogMissing {
        /// Its superblock.
        path: PathBuf,
    },
    /// `store.toml` is not one.
    Malformed {
        /// The file.
        path: PathBuf,
        /// The key that is missing or wrong.
        key: &'static str,
    },
    /// A later version gave the store a feature.
    UnknownFeature {
        /// The file.
        path: PathBuf,
        /// The feature.
        name: Box<str>,
    },
    /// Written by a later version.
    UnknownSchema {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: i64,
    },
}

impl fmt::Display for DataDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { step, path, source } => {
                let what = match step {
                    Step::Create => "create",
                    Step::Lock => "lock",
                    Step::Read => "read",
                    Step::Write => "write",
                    Step::Random => "draw an id from",
                };
                write!(f, "cannot {what} {}: {source}", path.display())
            }
            Self::Locked { path } => {
                write!(f, "another broker uses this store: {} is locked", path.display())
            }
            Self::LogMissing { path } => write!(
                f,
                "{} is missing, and with it a log of this store; one begun anew would give other records the offsets of \
                 those that are gone",
                path.display()
            ),
            Self::Malformed { path, key } => write!(f, "{}: `{key}` is missing or wrong", path.display()),
            Self::UnknownFeature { path, name } => {
                write!(f, "{}: this version does not know `{name}`, which the store has", path.display())
            }
            Self::UnknownSchema { path, found } => {
                write!(f, "{}: schema {found} is not known, this version reads {SCHEMA}", path.display())
            }
        }
    }
}

impl error::Error for DataDirError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// An open data directory, locked until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    store: Store,
    first_start: bool,
    _lock: Option<File>,
}

/// What `store.toml` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Store {
    id: u64,
    logs: u16,
    /// Logs that have served, so that they are there: a store of an older version does not say.
    founded: u16,
    /// Of [`feature`]: a store of the first release has none, one that this version makes has all.
    features: u64,
}

impl DataDir {
    /// Makes the directory if need be, locks it, reads or draws the id of the store.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        fs::create_dir_all(path).map_err(at(Step::Create, path))?;
        let lock = lock(&path.join(LOCK_FILE))?;
        let store_file = path.join(STORE_FILE);
        let first_start = !store_file.exists();
        if first_start {
            write_store(path, Store { id: random_id()?, logs: 1, founded: 0, features: feature::ALL })?;
        }
        let store = read_store(&store_file)?;
        let directory = Self { path: path.to_path_buf(), store, first_start, _lock: Some(lock) };
        directory.find_logs()?;
        directory.make_logs(store.founded, store.logs)?;
        Ok(directory)
    }

    /// Locks a store that is there, to look at it: nothing is made or written, so it may be mounted to be read only. Where
    /// there is no lock file no broker has ever held it.
    pub fn look(path: &Path) -> Result<Self, DataDirError> {
        let lock_path = path.join(LOCK_FILE);
        let lock = match File::open(&lock_path) {
            Ok(file) => Some(held(file, &lock_path)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(at(Step::Lock, &lock_path)(error)),
        };
        let store = read_store(&path.join(STORE_FILE))?;
        let directory = Self { path: path.to_path_buf(), store, first_start: false, _lock: lock };
        directory.find_logs()?;
        Ok(directory)
    }

    /// An empty directory of a log would pass for a new one.
    fn find_logs(&self) -> Result<(), DataDirError> {
        let mut superblocks = (0..self.store.founded).map(|log| self.superblock_path(LogId(log)));
        match superblocks.find(|path| !path.exists()) {
            Some(path) => Err(DataDirError::LogMissing { path }),
            None => Ok(()),
        }
    }

    fn superblock_path(&self, log: LogId) -> PathBuf {
        self.log_path(log).join(FileName::Superblock.to_string())
    }

    /// All logs serve: from now on a start without one of them is refused.
    pub fn note_founded(&self) -> Result<(), DataDirError> {
        if self.store.founded == self.store.logs {
            return Ok(());
        }
        write_store(&self.path, Store { founded: self.store.logs, ..self.store })
    }

    /// Gives the store so many logs, unless it has them; what is in those it has stays there.
    pub fn have_logs(&mut self, logs: u16) -> Result<(), DataDirError> {
        if logs > self.store.logs {
            self.make_logs(self.store.logs, logs)?;
            self.store.logs = logs;
            write_store(&self.path, self.store)?;
        }
        Ok(())
    }

    /// Gives the store all features of this version: older versions cannot serve it from the next start of its logs on.
    pub fn finalise(&mut self) -> Result<(), DataDirError> {
        if !self.is_final() {
            self.store.features = feature::ALL;
            write_store(&self.path, self.store)?;
        }
        Ok(())
    }

    /// Whether it has all features of this version.
    pub const fn is_final(&self) -> bool {
        self.store.features == feature::ALL
    }

    /// Features that its logs have or are to have.
    pub const fn features(&self) -> u64 {
        self.store.features
    }

    fn make_logs(&self, from: u16, to: u16) -> Result<(), DataDirError> {
        for log in from..to {
            let folder = self.log_path(LogId(log));
            fs::create_dir_all(&folder).map_err(at(Step::Create, &folder))?;
        }
        sync_directory(&self.path)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store's random id: never 0.
    pub const fn store(&self) -> u64 {
        self.store.id
    }

    /// Logs in the store.
    pub const fn logs(&self) -> u16 {
        self.store.logs
    }

    /// Whether the store was made by this start.
    pub const fn first_start(&self) -> bool {
        self.first_start
    }

    /// The directory of one log.
    pub fn log_path(&self, log: LogId) -> PathBuf {
        self.path.join(format!("log-{:04}", log.0))
    }
}

fn at(step: Step, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_path_buf();
    move |source| DataDirError::Io { step, path, source }
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let options = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    held(options.map_err(at(Step::Lock, path))?, path)
}

fn held(file: File, path: &Path) -> Result<File, DataDirError> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataDirError::Locked { path: path.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(at(Step::Lock, path)(source)),
    }
}

fn random_id() -> Result<u64, DataDirError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 8];
    File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).map_err(at(Step::Random, source))?;
    Ok(u64::from_le_bytes(bytes).max(1))
}

fn write_store(path: &Path, store: Store) -> Result<(), DataDirError> {
    let Store { id, logs, founded, features } = store;
    let names = feature::NAMES.iter().filter(|(bit, _)| features & bit != 0);
    let names = names.map(|(_, name)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let text = format!(
        "# The identity of this store. Do not edit.\nschema = {SCHEMA}\nid = \"{id:016x}\"\nlogs = {logs}\nfounded = {founded}\n\
         features = [{names}]\n"
    );
    write_whole(path, STORE_FILE, text.as_bytes())
}

fn read_store(path: &Path) -> Result<Store, DataDirError> {
    let text = fs::read_to_string(path).map_err(at(Step::Read, path))?;
    let malformed = |key| DataDirError::Malformed { path: path.to_path_buf(), key };
    let table: toml::Table = text.parse().map_err(|_| malformed("schema"))?;
    let schema = table.get("schema").and_then(toml::Value::as_integer).ok_or(malformed("schema"))?;
    if schema != SCHEMA {
        return Err(DataDirError::UnknownSchema { path: path.to_path_buf(), found: schema });
    }
    let id = table.get("id").and_then(toml::Value::as_str).and_then(|id| u64::from_str_radix(id, 16).ok());
    let id = id.filter(|&id| id != 0).ok_or(malformed("id"))?;
    let logs = table.get("logs").and_then(toml::Value::as_integer).and_then(|logs| u16::try_from(logs).ok());
    let logs = logs.filter(|&logs| logs > 0).ok_or(malformed("logs"))?;
    let founded = table.get("founded").map_or(Some(0), toml::Value::as_integer);
    let founded = founded.and_then(|founded| u16::try_from(founded).ok()).filter(|&founded| founded <= logs);
    let founded = founded.ok_or(malformed("founded"))?;
    Ok(Store { id, logs, founded, features: read_features(path, &table)? })
}

/// The features by their names; a store of the first release has no such line.
fn read_features(path: &Path, table: &toml::Table) -> Result<u64, DataDirError> {
    let Some(names) = table.get("features") else { return Ok(0) };
    let malformed = || DataDirError::Malformed { path: path.to_path_buf(), key: "features" };
    let mut features = 0;
    for name in names.as_array().ok_or_else(malformed)? {
        let name = name.as_str().ok_or_else(malformed)?;
        let known = feature::NAMES.iter().find(|(_, known)| *known == name);
        let unknown = || DataDirError::UnknownFeature { path: path.to_path_buf(), name: name.into() };
        features |= known.ok_or_else(unknown)?.0;
    }
    Ok(features)
}

/// Writes a file that is there whole after a crash, or not at all.
pub(crate) fn write_whole(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
    let path = directory.join(name);
    let aside = directory.join(format!("{name}.new"));
    let failed = || at(Step::Write, &path);
    let mut file = File::create(&aside).map_err(failed())?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed())?;
    fs::rename(&aside, &path).map_err(failed())?;
    sync_directory(directory)
}

fn sync_directory(path: &Path) -> Result<(), DataDirError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(at(Step::Write, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_keeps_its_id_and_is_held_by_one_broker() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("store");
        let first = DataDir::open(&path).expect("made");
        assert!(first.first_start());
        assert_eq!(first.log_path(LogId(0)), path.join("log-0000"));
        let store = first.store();

        let second = DataDir::open(&path).expect_err("held by the first");
        assert!(matches!(second, DataDirError::Locked { .. }), "{second}");

        drop(first);
        let third = DataDir::open(&path).expect("free again");
        assert!(!third.first_start());
        assert_eq!((third.store(), third.logs()), (store, 1));
    }

    #[test]
    fn a_store_of_an_older_version_gets_features_when_told_to_and_keeps_them() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let text = "schema = 1\nid = \"000000000000002a\"\nlogs = 1\n";
        fs::write(place.path().join(STORE_FILE), text).expect("written");
        let mut directory = DataDir::open(place.path()).expect("an older store");
        assert_eq!((directory.store(), directory.features(), directory.is_final()), (42, 0, false));
        directory.have_logs(2).expect("written");
        assert!(!fs::read_to_string(place.path().join(STORE_FILE)).expect("there").contains("positions"));
        directory.finalise().expect("written");
        drop(directory);
        let directory = DataDir::open(place.path()).expect("of this version");
        assert_eq!((directory.features(), directory.logs()), (feature::ALL, 2));
        drop(directory);
        let new = DataDir::open(&place.path().join("new")).expect("made");
        assert!(new.is_final());
    }

    #[test]
    fn a_store_that_has_lost_a_log_is_refused_and_one_that_never_had_it_is_not() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let mut first = DataDir::open(place.path()).expect("made");
        first.have_logs(2).expect("made");
        let lost = first.log_path(LogId(1));
        drop(first);
        fs::remove_dir_all(&lost).expect("there");
        let killed = DataDir::open(place.path()).expect("its first start may have been cut short");
        (0..2).for_each(|log| {
            fs::write(killed.superblock_path(LogId(log)), "").expect("written");
        });
        killed.note_founded().expect("written");
        drop(killed);
        drop(DataDir::open(place.path()).expect("all are there"));
        fs::remove_file(lost.join(FileName::Superblock.to_string())).expect("there");
        let empty = DataDir::open(place.path()).expect_err("as if it were not mounted").to_string();
        assert!(empty.contains("log-0001") && empty.contains("missing"), "{empty}");
        fs::remove_dir(&lost).expect("empty");
        DataDir::open(place.path()).expect_err("lost");
        assert!(!lost.exists(), "it is not made again");
    }

    #[test]
    fn a_broken_or_later_store_file_is_refused_by_name() {
        let place = tempfile::tempdir().expect("a temporary directory");
        for (text, part) in [
            ("", "`schema`"),
            ("schema = 2\n", "schema 2"),
            ("schema = 1\nid = \"0\"\nlogs = 1\n", "`id`"),
            ("schema = 1\nid = \"zz\"\nlogs = 1\n", "`id`"),
            ("schema = 1\nid = \"1\"\nlogs = 70000\n", "`logs`"),
            ("schema = 1\nid = \"1\"\nlogs = 1\nfounded = 2\n", "`founded`"),
            ("schema = 1\nid = \"1\"\nlogs = 1\nfeatures = 7\n", "`features`"),
            ("schema = 1\nid = \"1\"\nlogs = 1\nfeatures = [\"positions\", \"telepathy\"]\n", "`telepathy`"),
        ] {
            fs::write(place.path().join(STORE_FILE), text).expect("written");
            let message = DataDir::open(place.path()).expect_err(text).to_string();
            assert!(message.contains("store.toml") && message.contains(part), "{message}");
        }
    }
}
