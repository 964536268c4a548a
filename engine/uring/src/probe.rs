//! The measurement of a few seconds at first start: which way this disk likes durable writes.

use std::path::Path;
use std::time::Duration;

use crate::frames::{IN_FLIGHT, LARGE, Run, Scratch, Writer};
use crate::limits::{DurableMethod, Limits, Measured};

pub use crate::frames::MeasureError;

/// Bytes of each of the two files measured on.
const FILE_BYTES: u64 = 64 << 20;
/// Bytes of a small frame.
const SMALL: usize = 4096;
/// How many measurements share the time.
const PARTS: u32 = 11;

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
pub fn measure(directory: &Path, config: &ProbeConfig) -> Result<Limits, MeasureError> {
    let duration = config.duration / PARTS;
    let mut writer = Writer::new()?;
    let written = Scratch::unwritten(directory, "written", FILE_BYTES)?;
    writer.fill(&written)?;
    let run = |frame_bytes, in_flight, method| Run { frame_bytes, in_flight, method, duration };

    let small_dsync_us = writer.overwrite(&run(SMALL, 1, DurableMethod::Dsync), &written)?.median_us();
    let small_fdatasync_us =
        writer.overwrite(&run(SMALL, 1, DurableMethod::Fdatasync), &written)?.median_us();
    let method =
        if small_dsync_us <= small_fdatasync_us { DurableMethod::Dsync } else { DurableMethod::Fdatasync };
    let small_unwritten_us = once(&mut writer, &run(SMALL, 1, method), directory)?;

    let mut small_writes_per_second = [0; IN_FLIGHT];
    let mut large_bytes_per_second = [0; IN_FLIGHT];
    for index in 0..IN_FLIGHT {
        let small = writer.overwrite(&run(SMALL, index + 1, method), &written)?;
        small_writes_per_second[index] = small.per_second();
        let large = writer.overwrite(&run(LARGE, index + 1, method), &written)?;
        large_bytes_per_second[index] = large.per_second() * LARGE as u64;
    }
    Ok(Limits::decide(Measured {
        small_dsync_us,
        small_fdatasync_us,
        small_unwritten_us,
        small_writes_per_second,
        large_bytes_per_second,
    }))
}

/// Median of writes onto unwritten blocks, each of which is met only once.
fn once(writer: &mut Writer, run: &Run, directory: &Path) -> Result<u32, MeasureError> {
    let unwritten = Scratch::unwritten(directory, "unwritten", FILE_BYTES)?;
    let file = writer.open(&unwritten)?;
    let mut frames = (0..FILE_BYTES).step_by(run.frame_bytes);
    let done = writer.run(run, directory, |_| Ok(frames.next().map(|position| (file, position))))?;
    writer.close(file)?;
    Ok(done.median_us())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_directory;

    #[test]
    fn a_short_probe_decides_and_leaves_nothing_behind() {
        let directory = test_directory();
        let config = ProbeConfig { duration: Duration::from_millis(110) };
        let limits = measure(directory.path(), &config).expect("a disk");
        assert!((1..=4).contains(&limits.frames_in_flight));
        let measured = limits.measured.expect("it measured");
        assert!(measured.small_dsync_us > 0 && measured.small_unwritten_us > 0);
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
