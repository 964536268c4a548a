//! The disk baseline beside what fio finds: the same writes, on the same core, one after the other.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::{Command, Stdio};

use corelog_load::device;
use serde_json::Value;

use crate::budget::Run;
use crate::child;
use crate::measure::Measure;
use crate::place::Place;
use crate::sample::Sample;

use std::time::Duration;

/// Bytes of fio's file, as of the baseline's.
const FILE: &str = "1g";

pub(super) fn measure(run: &Run, place: &Place) -> io::Result<Sample> {
    let directory = place.own()?;
    let core = place.cores.broker;
    let duration = Duration::from_secs(run.seconds);
    let own = device::measure(directory.path(), false, core, place.cores.load, duration)
        .map_err(io::Error::other)?
        .durable_write_bytes_per_second;
    // Written over once, so that the measured writes meet written blocks.
    fio(place, directory.path(), &[])?;
    let time = format!("--runtime={}", run.seconds);
    let mut fastest = 0.0_f64;
    for durable in ["--sync=dsync", "--fdatasync=1"] {
        fastest = fastest.max(fio(place, directory.path(), &[durable, "--time_based", &time])?);
    }
    let mut sample = Sample::default();
    sample.set(Measure::DiskRatio, (own / fastest).max(fastest / own));
    sample.say(format!("baseline {:.2} GB/s, fio {:.2} GB/s", own / 1e9, fastest / 1e9));
    Ok(sample)
}

/// Bytes a second of writes of 1 MiB, four in flight, from registered buffers.
fn fio(place: &Place, directory: &Path, further: &[&str]) -> io::Result<f64> {
    let mut command = Command::new("fio");
    command.args([
        "--name=disk",
        "--filename=fio.data",
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
        "--output-format=json",
    ]);
    command.args([&format!("--size={FILE}"), &format!("--cpus_allowed={}", place.cores.broker)]);
    command.args(further).current_dir(directory).stderr(Stdio::inherit());
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
