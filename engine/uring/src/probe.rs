//! The measurement of a few seconds at first start: which way this disk likes durable writes.

use std::path::Path;
use std::time::Duration;

use crate::frames::{Done, IN_FLIGHT, LARGE, Run, Scratch, Writer};
use crate::limits::{DurableMethod, Limits, Measured, MethodRound, MethodRounds};

pub use crate::frames::MeasureError;

/// Bytes of each of the two files measured on.
const FILE_BYTES: u64 = 64 << 20;
/// Bytes of a small frame.
const SMALL: usize = 4096;
/// How often the two methods take turns, and everything else. Short runs, so that what disturbs the machine meets
/// all of them, and each of them is left alone once.
const METHOD_ROUNDS: u32 = 24;
const ROUNDS: u32 = 7;
/// Shares of the time: one for a run of a method, two for each other run, which needs its pipe full.
const SHARES: u32 = 2 * METHOD_ROUNDS + 2 * ROUNDS * (1 + 2 * IN_FLIGHT as u32);

/// How a probe measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// Time for all measurements together; preparing the files comes on top.
    pub duration: Duration,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self { duration: Duration::from_secs(3) }
    }
}

/// Measures the disk under `directory` with files that it removes again (128 MiB), on the calling thread.
///
/// Other work on the machine only ever makes a run slower. So of each measurement the best round counts, and a
/// method must win round after round.
pub fn measure(directory: &Path, config: &ProbeConfig) -> Result<Limits, MeasureError> {
    let mut probe = Probe::new(directory, config.duration / SHARES)?;
    let mut rounds = Vec::new();
    for _ in 0..METHOD_ROUNDS {
        let dsync_us = probe.overwrite(SMALL, 1, DurableMethod::Dsync, 1)?.median_us();
        let fdatasync_us = probe.overwrite(SMALL, 1, DurableMethod::Fdatasync, 1)?.median_us();
        rounds.push(MethodRound { dsync_us, fdatasync_us });
    }
    let methods = MethodRounds::of(&rounds);
    let method = DurableMethod::choose(methods);

    let mut small_unwritten_us = u32::MAX;
    let mut small_writes_per_second = [0; IN_FLIGHT];
    let mut large_bytes_per_second = [0; IN_FLIGHT];
    for _ in 0..ROUNDS {
        small_unwritten_us = small_unwritten_us.min(probe.once(method)?.median_us());
        for index in 0..IN_FLIGHT {
            let small = probe.overwrite(SMALL, index + 1, method, 2)?.per_second();
            small_writes_per_second[index] = small.max(small_writes_per_second[index]);
            let large = probe.overwrite(LARGE, index + 1, method, 2)?.per_second() * LARGE as u64;
            large_bytes_per_second[index] = large.max(large_bytes_per_second[index]);
        }
    }
    Ok(Limits::decide(Measured {
        methods,
        small_unwritten_us,
        small_writes_per_second,
        large_bytes_per_second,
    }))
}

/// What all runs of a probe share.
struct Probe {
    /// One share of the time.
    share: Duration,
    writer: Writer,
    written: Scratch,
    unwritten: Scratch,
    /// Where the blocks begin that are still unwritten.
    fresh: u64,
}

impl Probe {
    fn new(directory: &Path, share: Duration) -> Result<Self, MeasureError> {
        let mut writer = Writer::new()?;
        let written = Scratch::unwritten(directory, "written", FILE_BYTES)?;
        let unwritten = Scratch::unwritten(directory, "unwritten", FILE_BYTES)?;
        writer.fill(&written)?;
        Ok(Self { share, writer, written, unwritten, fresh: 0 })
    }

    /// A run of overwrites.
    fn overwrite(
        &mut self,
        frame_bytes: usize,
        in_flight: usize,
        method: DurableMethod,
        shares: u32,
    ) -> Result<Done, MeasureError> {
        let run = Run { frame_bytes, in_flight, method, duration: self.share * shares };
        self.writer.overwrite(&run, &self.written)
    }

    /// A run of small writes onto unwritten blocks, each of which is met only once.
    fn once(&mut self, method: DurableMethod) -> Result<Done, MeasureError> {
        let run = Run { frame_bytes: SMALL, in_flight: 1, method, duration: 2 * self.share };
        let file = self.writer.open(&self.unwritten)?;
        // A disk so fast that it uses a round's blocks up has said enough.
        let end = self.fresh + FILE_BYTES / u64::from(ROUNDS) / SMALL as u64 * SMALL as u64;
        let mut frames = (self.fresh..end).step_by(SMALL);
        let done = self
            .writer
            .run(&run, self.unwritten.path(), |_| Ok(frames.next().map(|position| (file, position))))?;
        self.fresh = end;
        self.writer.close(file)?;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_directory;

    #[test]
    fn a_short_probe_decides_and_leaves_nothing_behind() {
        let directory = test_directory();
        let config = ProbeConfig { duration: Duration::from_millis(300) };
        let limits = measure(directory.path(), &config).expect("a disk");
        assert!((1..=4).contains(&limits.frames_in_flight));
        let measured = limits.measured.expect("it measured");
        assert!(measured.methods.dsync_us > 0 && measured.methods.fdatasync_us > 0);
        assert!(measured.methods.rounds == METHOD_ROUNDS && measured.small_unwritten_us > 0);
        assert!(measured.small_writes_per_second.iter().all(|&figure| figure > 0));
        assert!(measured.large_bytes_per_second.iter().all(|&figure| figure > 0));
        assert_eq!(crate::file::list(directory.path()), Ok(Vec::new()));
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error =
            measure(Path::new("/nonexistent"), &ProbeConfig::default()).expect_err("no such directory");
        assert!(error.to_string().contains("/nonexistent/"), "{error}");
    }
}
