//! What was measured about a disk and decided from it, kept as `limits.toml` beside the data.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::file::{self, FileError, FileOperation};
use crate::op::Errno;

/// The name of the file in the data directory.
pub const FILE_NAME: &str = "limits.toml";
/// The only schema so far.
const SCHEMA: u32 = 1;

/// How a frame becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DurableMethod {
    /// One write with `RWF_DSYNC`.
    Dsync,
    /// A write, then an fdatasync.
    Fdatasync,
}

impl DurableMethod {
    /// The method for a disk with which the two took turns so.
    ///
    /// A disk that can make a single write durable is faster by that write (measured elsewhere: 11 against 16 us);
    /// one that must be flushed takes the same time for both, and then `RWF_DSYNC` is one operation where the other is
    /// two, one after the other. So fdatasync must be faster by a fifth in three rounds of four, as it is on drives that
    /// handle a forced write badly: noise is not so one-sided, and a tie goes to `RWF_DSYNC`.
    pub const fn choose(methods: MethodRounds) -> Self {
        if methods.rounds_fdatasync_won * 4 >= methods.rounds * 3 { Self::Fdatasync } else { Self::Dsync }
    }
}

/// Medians of 4 KiB writes onto written blocks, of two runs one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodRound {
    /// Of a write with `RWF_DSYNC`, microseconds.
    pub dsync_us: u32,
    /// Of a write and fdatasync, microseconds.
    pub fdatasync_us: u32,
}

/// The rounds in which the two methods took turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodRounds {
    /// How many.
    pub rounds: u32,
    /// In how many of them write and fdatasync were faster by a fifth.
    pub rounds_fdatasync_won: u32,
    /// The least median of a write with `RWF_DSYNC`, microseconds.
    pub dsync_us: u32,
    /// The least median of write and fdatasync, microseconds.
    pub fdatasync_us: u32,
}

impl MethodRounds {
    /// What counts of all rounds.
    pub fn of(rounds: &[MethodRound]) -> Self {
        let won = |round: &&MethodRound| u64::from(round.fdatasync_us) * 5 <= u64::from(round.dsync_us) * 4;
        let least = |of: fn(&MethodRound) -> u32| rounds.iter().map(of).min().unwrap_or(0);
        Self {
            rounds: u32::try_from(rounds.len()).expect("some dozens"),
            rounds_fdatasync_won: u32::try_from(rounds.iter().filter(won).count()).expect("some dozens"),
            dsync_us: least(|round| round.dsync_us),
            fdatasync_us: least(|round| round.fdatasync_us),
        }
    }

    /// The time of the method that was chosen, microseconds.
    const fn chosen_us(self) -> u32 {
        match DurableMethod::choose(self) {
            DurableMethod::Dsync => self.dsync_us,
            DurableMethod::Fdatasync => self.fdatasync_us,
        }
    }
}

/// What frames are written onto.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preparation {
    /// Blocks that were written before: an old extent, or zeros ahead of the head.
    Written,
    /// Blocks that are only allocated.
    Unwritten,
}

/// Decisions, and the measurements they come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Version of this file.
    pub schema: u32,
    /// How 4 KiB become durable: see [`DurableMethod::choose`].
    pub durable_method: DurableMethod,
    /// Whether zeroing ahead of the head pays.
    pub preparation: Preparation,
    /// Frames in flight: the fewest that get close to what the disk can do.
    pub frames_in_flight: u8,
    /// What the decisions come from; absent when nothing was measured.
    pub measured: Option<Measured>,
}

/// Figures of one disk, all of durable writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// 4 KiB writes onto written blocks by both methods.
    pub methods: MethodRounds,
    /// The least median of 4 KiB writes by the chosen method onto unwritten blocks, microseconds.
    pub small_unwritten_us: u32,
    /// 4 KiB writes a second with 1, 2, 3 and 4 in flight, each in its best round.
    pub small_writes_per_second: [u64; 4],
    /// Bytes a second in writes of 1 MiB with 1, 2, 3 and 4 in flight, each in its best round.
    pub large_bytes_per_second: [u64; 4],
}

/// The file of limits cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitsError {
    /// Reading or writing it failed.
    File(FileError),
    /// It is no TOML, or has other fields than this version knows.
    Syntax {
        /// The file.
        path: PathBuf,
        /// First line that is wrong, from 1; 0 when that is not known.
        line: usize,
    },
    /// It was written by another version.
    Schema {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// A value that cannot work.
    Value {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
    },
}

impl Limits {
    /// What is safe everywhere: used when nothing is to be measured.
    pub const fn unmeasured() -> Self {
        Self {
            schema: SCHEMA,
            durable_method: DurableMethod::Fdatasync,
            preparation: Preparation::Unwritten,
            frames_in_flight: 1,
            measured: None,
        }
    }

    /// Decides from figures. Few frames in flight keep groups large and latency low, so more must pay: the count
    /// is the fewest within a tenth of the best, for small and for large frames.
    pub fn decide(measured: Measured) -> Self {
        let written_us = measured.methods.chosen_us();
        let zeroing_pays = u64::from(measured.small_unwritten_us) * 10 > u64::from(written_us) * 11;
        let enough = enough(&measured.small_writes_per_second).max(enough(&measured.large_bytes_per_second));
        Self {
            schema: SCHEMA,
            durable_method: DurableMethod::choose(measured.methods),
            preparation: if zeroing_pays { Preparation::Written } else { Preparation::Unwritten },
            frames_in_flight: enough,
            measured: Some(measured),
        }
    }

    /// Reads the file of a data directory; `None` when there is none.
    pub fn load(directory: &Path) -> Result<Option<Self>, LimitsError> {
        let path = directory.join(FILE_NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LimitsError::File(FileError::new(FileOperation::Read, &path, error))),
        };
        Self::parse(&text, &path).map(Some)
    }

    /// Writes the file of a data directory, whole or not at all.
    pub fn store(&self, directory: &Path) -> Result<(), LimitsError> {
        let path = directory.join(FILE_NAME);
        let temporary = directory.join(format!("{FILE_NAME}.tmp"));
        let text = toml::to_string(self).expect("limits are numbers and words, which TOML has");
        let write = || -> Result<(), FileError> {
            let failed =
                |error: io::Error| FileError::new(FileOperation::Write, &temporary, Errno::from(error));
            let text = format!("# Measured by corelog. Delete this file to measure again.\n{text}");
            let mut file = fs::File::create(&temporary).map_err(failed)?;
            // Or its name could be durable before its bytes are, and an empty file stops the next start.
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            file::rename(&temporary, &path)?;
            file::sync_directory(directory)
        };
        write().map_err(LimitsError::File)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, LimitsError> {
        /// All that is read before the version is known.
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let syntax = |error: toml::de::Error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            LimitsError::Syntax { path: path.to_owned(), line }
        };
        let version: Version = toml::from_str(text).map_err(syntax)?;
        if version.schema != SCHEMA {
            return Err(LimitsError::Schema { path: path.to_owned(), found: version.schema });
        }
        let limits: Self = toml::from_str(text).map_err(syntax)?;
        if !(1..=4).contains(&limits.frames_in_flight) {
            return Err(LimitsError::Value { path: path.to_owned(), field: "frames_in_flight" });
        }
        Ok(limits)
    }
}

/// The fewest in flight that reach nine tenths of the best.
fn enough(by_count: &[u64; 4]) -> u8 {
    let best = by_count.iter().copied().max().unwrap_or(0);
    let index = by_count.iter().position(|&figure| figure >= best - best / 10).unwrap_or(0);
    u8::try_from(index + 1).expect("at most four")
}

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => return error.fmt(f),
            Self::Syntax { path, line } => write!(f, "{}:{line}: not understood", path.display()),
            Self::Schema { path, found } => {
                write!(f, "{} has schema {found}, this version knows {SCHEMA}", path.display())
            }
            Self::Value { path, field } => write!(f, "{}: {field} is out of range", path.display()),
        }?;
        f.write_str("\nhelp: delete the file to measure again")
    }
}

impl std::error::Error for LimitsError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_directory;

    fn rounds(times: &[(u32, u32)]) -> MethodRounds {
        let round = |&(dsync_us, fdatasync_us): &(u32, u32)| MethodRound { dsync_us, fdatasync_us };
        MethodRounds::of(&times.iter().map(round).collect::<Vec<_>>())
    }

    fn measured() -> Measured {
        Measured {
            methods: rounds(&[(100, 150); 8]),
            small_unwritten_us: 135,
            small_writes_per_second: [9_000, 15_000, 16_000, 16_100],
            large_bytes_per_second: [1_500_000_000, 2_000_000_000, 2_500_000_000, 2_600_000_000],
        }
    }

    #[test]
    fn the_faster_method_is_taken_and_frames_in_flight_must_pay() {
        let limits = Limits::decide(measured());
        assert_eq!(limits.durable_method, DurableMethod::Dsync);
        assert_eq!(limits.preparation, Preparation::Written, "unwritten blocks cost a third more");
        assert_eq!(limits.frames_in_flight, 3, "large frames gain by three, not by four");
        let consumer_drive =
            Measured { methods: rounds(&[(4000, 1700); 8]), small_unwritten_us: 1700, ..measured() };
        let limits = Limits::decide(consumer_drive);
        assert_eq!(limits.durable_method, DurableMethod::Fdatasync);
        assert_eq!(limits.preparation, Preparation::Unwritten, "zeroing gains nothing");
        let flat = Measured {
            small_writes_per_second: [10_000; 4],
            large_bytes_per_second: [1_000_000; 4],
            ..measured()
        };
        assert_eq!(Limits::decide(flat).frames_in_flight, 1, "one is enough");
    }

    /// A disk, what is to be chosen for it, and the microseconds of both methods in each round.
    type Case = (&'static str, DurableMethod, &'static [(u32, u32)]);

    #[test]
    fn a_method_is_not_chosen_by_what_disturbs_the_machine() {
        let cases: [Case; 6] = [
            ("a drive that is slow with forced writes", DurableMethod::Fdatasync, &[(4_000, 1_700); 8]),
            (
                "the same, disturbed in two rounds",
                DurableMethod::Fdatasync,
                &[(40, 16), (40, 16), (4_000, 17), (39, 4_000), (41, 15), (39, 16), (16, 90), (40, 17)],
            ),
            (
                "a disk that must be flushed",
                DurableMethod::Dsync,
                &[(56, 54), (52, 54), (54, 48), (50, 61), (54, 58), (52, 54), (56, 63), (53, 59)],
            ),
            (
                "the same, all cores busy: now the one is hit and now the other",
                DurableMethod::Dsync,
                &[(73, 158), (3_896, 55), (57, 1_307), (2_079, 58), (63, 132), (101, 53), (50, 61), (52, 90)],
            ),
            ("a tie", DurableMethod::Dsync, &[(100, 100); 8]),
            ("nearly a fifth", DurableMethod::Dsync, &[(100, 81); 8]),
        ];
        for (disk, chosen, times) in cases {
            let limits = Limits::decide(Measured { methods: rounds(times), ..measured() });
            assert_eq!(limits.durable_method, chosen, "{disk}");
        }
        let kept = rounds(&[(120, 90), (100, 80), (99, 300), (98, 81)]);
        let expected = MethodRounds { rounds: 4, rounds_fdatasync_won: 2, dsync_us: 98, fdatasync_us: 80 };
        assert_eq!(kept, expected, "both figures are kept, with what decided");
    }

    #[test]
    fn what_is_stored_is_what_is_loaded() {
        let directory = test_directory();
        assert_eq!(Limits::load(directory.path()), Ok(None), "nothing measured yet");
        for limits in [Limits::decide(measured()), Limits::unmeasured()] {
            limits.store(directory.path()).expect("stored");
            assert_eq!(Limits::load(directory.path()), Ok(Some(limits)));
        }
    }

    #[test]
    fn a_file_that_was_damaged_or_is_of_another_version_is_named() {
        let directory = test_directory();
        let path = directory.path().join(FILE_NAME);
        let good = toml::to_string(&Limits::unmeasured()).expect("TOML");
        let cases = [
            (good.replace("schema = 1", "schema = 9"), LimitsError::Schema { path: path.clone(), found: 9 }),
            (good.replace("fdatasync", "hope"), LimitsError::Syntax { path: path.clone(), line: 2 }),
            (
                good.replace("frames_in_flight = 1", "frames_in_flight = 0"),
                LimitsError::Value { path: path.clone(), field: "frames_in_flight" },
            ),
        ];
        for (text, expected) in cases {
            fs::write(&path, &text).expect("written");
            let error = Limits::load(directory.path()).expect_err(&text);
            assert_eq!(error, expected);
            assert!(error.to_string().contains("limits.toml"), "{error}");
        }
    }
}
