//! The disk baseline beside what fio finds: the same writes, on the same core, from memory of the same kind, onto a file
//! that was just made and filled, in turns.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::{Command, Stdio};

use corelog_load::device;
use corelog_uring::baseline;
use corelog_uring::limits::{DurableMethod, Preparation};
use serde_json::Value;

use crate::budget::Run;
use crate::child;
use crate::measure::Measure;
use crate::place::Place;
use crate::sample::Sample;
use crate::verdict::median;

use std::time::Duration;

/// fio's file: made anew for each turn as the baseline's is, for a disk may be a fifth slower where it has not written
/// lately.
const FILE: &str = "fio.data";
/// Its bytes, as of the baseline's.
const FILE_BYTES: &str = "1g";
/// Each is measured so often: a disk whose rate is limited gives more to whoever comes first.
const TURNS: u64 = 3;
/// Lets fio's buffers have huge pages, as the ring's have: with small ones a write of 1 MiB has 256 segments, which is
/// more than most disks take at once.
const HUGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

pub(super) fn measure(run: &Run, place: &Place) -> io::Result<Sample> {
    let directory = place.own()?;
    let seconds = run.seconds.div_ceil(TURNS);
    let time = format!("--runtime={seconds}");
    let (mut ratios, mut sample) = (Vec::new(), Sample::default());
    for _ in 0..TURNS {
        let own = own(place, directory.path(), seconds)?;
        // Written over once, so that the measured writes meet written blocks.
        fio(place, directory.path(), &[])?;
        let fio = fio(place, directory.path(), &["--sync=dsync", "--time_based", &time])?;
        fs::remove_file(directory.path().join(FILE))?;
        ratios.push((own / fio).max(fio / own));
        sample.say(format!("baseline {:.2} GB/s, fio {:.2} GB/s", own / 1e9, fio / 1e9));
    }
    sample.set(Measure::DiskRatio, median(&ratios).expect("there were turns"));
    Ok(sample)
}

/// The baseline with RWF_DSYNC, which is what fio can do too: its fdatasync waits for every single write.
fn own(place: &Place, directory: &Path, seconds: u64) -> io::Result<f64> {
    let (core, duration) = (place.cores.broker, Duration::from_secs(seconds));
    let measure = || baseline::disk(directory, Preparation::Written, DurableMethod::Dsync, duration);
    device::on_core(core, measure).map(|bytes| bytes as f64).map_err(io::Error::other)
}

/// Bytes a second of writes of 1 MiB, four in flight, from registered buffers.
fn fio(place: &Place, directory: &Path, further: &[&str]) -> io::Result<f64> {
    let mut command = Command::new("fio");
    command.args([
        "--name=disk",
        &format!("--filename={FILE}"),
        "--ioengine=io_uring",
        "--fixedbufs",
        "--registerfiles",
    ]);
    command.args([
        "--direct=1",
        "--rw=write",
        "--bs=1m",
        "--iodepth=4",
        "--overwrite=1",
        // As the baseline: one byte again and again, and nothing changed between two writes.
        "--buffer_pattern=0x5a",
        "--output-format=json",
    ]);
    command.args([&format!("--size={FILE_BYTES}"), &format!("--cpus_allowed={}", place.cores.broker)]);
    command.args(further).env(HUGE_PAGES.0, HUGE_PAGES.1).current_dir(directory).stderr(Stdio::inherit());
    let output = child::output(command, &place.interrupt).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            io::Error::new(ErrorKind::NotFound, "fio is not installed: apt-get install fio")
        }
        _ => error,
    })?;
    if !output.status.success() {
        return Err(io::Error::other(format!("fio ended with {}", output.status)));
    }
    bandwidth(&output.stdout).ok_or_else(|| io::Error::other("fio's output is not understood"))
}

fn bandwidth(output: &[u8]) -> Option<f64> {
    let document: Value = serde_json::from_slice(output).ok()?;
    document.pointer("/jobs/0/write/bw_bytes")?.as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bandwidth_is_found_in_bytes_and_an_error_is_none() {
        let output = br#"{"fio version":"fio-3.33","jobs":[{"jobname":"disk","write":{"bw_bytes":2147483648,"bw":2097152}}]}"#;
        assert_eq!(bandwidth(output), Some(2_147_483_648.0));
        assert_eq!(bandwidth(b"fio: engine io_uring not loadable"), None);
    }
}
