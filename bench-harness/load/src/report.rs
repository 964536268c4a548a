//! The report directory: `report.txt`, `report.json`, one `.hgrm` per histogram and `latency.hlog`.
//!
//! The `.hlog` holds one histogram per second and kind, tagged, in nanoseconds (HdrHistogram's interval log); a
//! `.hgrm` is the percentile distribution of one kind over its phase, in microseconds, as HdrHistogram's plotter
//! reads it.

use std::fmt;
use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::latency::microseconds;
use crate::results::Results;
use crate::table::table;

/// Steps per halving of the distance to 100 % in a `.hgrm`.
const TICKS_PER_HALF: u32 = 5;

/// A kind of latency that is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Intended -> acknowledged.
    Response,
    /// Sent -> acknowledged.
    Service,
    /// Intended -> sent.
    Delay,
    /// Intended -> consumed.
    EndToEnd,
    /// Lateness of the load's own loop.
    Hiccup,
    /// Sent -> acknowledged in a saturation phase that an open loop follows.
    SaturationService,
    /// Lateness of the load's own loop in such a phase.
    SaturationHiccup,
}

impl Kind {
    /// Name of its file and tag.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::Service => "service",
            Self::Delay => "delay",
            Self::EndToEnd => "end_to_end",
            Self::Hiccup => "hiccup",
            Self::SaturationService => "saturation_service",
            Self::SaturationHiccup => "saturation_hiccup",
        }
    }
}

/// One interval of one kind. Its histogram is as large as its largest value needs, not as the longest that could come: a
/// run of hours keeps one a second and kind.
pub struct Interval {
    kind: Kind,
    /// Since the start of the run.
    start: Duration,
    length: Duration,
    histogram: Histogram<u64>,
}

/// The histograms of a run.
#[derive(Default)]
pub struct Histograms {
    intervals: Vec<Interval>,
    totals: Vec<(Kind, Histogram<u64>)>,
}

impl Histograms {
    /// Keeps an interval for the `.hlog`; one without values is left out.
    pub fn add_interval(
        &mut self,
        kind: Kind,
        start: Duration,
        length: Duration,
        histogram: &Histogram<u64>,
    ) {
        if !histogram.is_empty() {
            // A copy of an interval's histogram takes 270 KB; resized to what it holds it is a few pages at most.
            let mut small =
                Histogram::new_with_bounds(1, histogram.max().max(2), 3).expect("the bounds are valid");
            small.add(histogram).expect("its largest value is the bound");
            self.intervals.push(Interval { kind, start, length, histogram: small });
        }
    }

    /// Keeps the histogram of a phase for its `.hgrm`. Measured phases have kinds of their own.
    pub fn set_total(&mut self, kind: Kind, histogram: &Histogram<u64>) {
        if !histogram.is_empty() {
            self.totals.push((kind, histogram.clone()));
        }
    }
}

/// A report that could not be written.
#[derive(Debug)]
pub struct ReportError {
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    pub cause: io::Error,
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be written: {}", self.path.display(), self.cause)
    }
}

impl std::error::Error for ReportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Makes `directory`, which may exist, and writes the whole report into it.
pub fn write(
    directory: &Path,
    results: &Results,
    histograms: &Histograms,
    started: SystemTime,
) -> Result<(), ReportError> {
    fs::create_dir_all(directory).map_err(|cause| ReportError { path: directory.to_path_buf(), cause })?;
    let file = |name: &str, write: &dyn Fn(&mut Vec<u8>) -> io::Result<()>| {
        let path = directory.join(name);
        let mut bytes = Vec::new();
        write(&mut bytes).and_then(|()| fs::write(&path, &bytes)).map_err(|cause| ReportError { path, cause })
    };
    file("report.txt", &|out| out.write_all(table(results).as_bytes()))?;
    file("report.json", &|out| {
        serde_json::to_writer_pretty(&mut *out, results)?;
        out.push(b'\n');
        Ok(())
    })?;
    file("latency.hlog", &|out| write_log(&histograms.intervals, started, out))?;
    for (kind, histogram) in &histograms.totals {
        file(&format!("{}.hgrm", kind.name()), &|out| write_distribution(histogram, out))?;
    }
    Ok(())
}

fn write_log(intervals: &[Interval], started: SystemTime, out: &mut Vec<u8>) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut out = BufWriter::new(out);
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("corelog bench; values in nanoseconds, maxima in microseconds")
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(1e3)
        .begin_log_with(&mut out, &mut serializer)?;
    for interval in intervals {
        let tag = Tag::new(interval.kind.name());
        log.write_histogram(&interval.histogram, interval.start, interval.length, tag)
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
    }
    out.flush()
}

/// HdrHistogram's percentile distribution. Values in microseconds.
fn write_distribution(histogram: &Histogram<u64>, out: &mut Vec<u8>) -> io::Result<()> {
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut counted = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        counted += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        let value = microseconds(step.value_iterated_to());
        if quantile < 1.0 {
            writeln!(out, "{value:>12.3} {quantile:>14.12} {counted:>10} {:>14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out, "{value:>12.3} {quantile:>14.12} {counted:>10}")?;
        }
    }
    writeln!(
        out,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]",
        histogram.mean() / 1e3,
        histogram.stdev() / 1e3
    )?;
    writeln!(
        out,
        "#[Max     = {:>12.3}, Total count    = {:>12}]",
        microseconds(histogram.max()),
        histogram.len()
    )?;
    let buckets = (histogram.high() as f64).log2().ceil() as u32;
    writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {:>12}]", 2048)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("valid bounds");
        for value in values {
            histogram.record(value).expect("within the bounds");
        }
        histogram
    }

    #[test]
    fn the_interval_log_is_read_back_with_tags_times_and_counts() {
        let mut histograms = Histograms::default();
        let second = Duration::from_secs(1);
        histograms.add_interval(Kind::Response, second, second, &histogram(1_000..2_000));
        histograms.add_interval(Kind::Response, second * 2, second, &histogram([]));
        histograms.add_interval(Kind::EndToEnd, second * 2, second, &histogram([5_000_000; 7]));
        let mut bytes = Vec::new();
        write_log(&histograms.intervals, SystemTime::UNIX_EPOCH, &mut bytes).expect("memory takes it");

        let mut deserializer = Deserializer::new();
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            if let LogEntry::Interval(interval) = entry.expect("a valid log") {
                let encoded = base64_decode(interval.encoded_histogram());
                let read: Histogram<u64> =
                    deserializer.deserialize(&mut encoded.as_slice()).expect("a histogram");
                let tag = interval.tag().map(|tag| tag.as_str().to_owned());
                found.push((tag, interval.start_timestamp(), read.len()));
            }
        }
        assert_eq!(
            found,
            vec![
                (Some("response".to_owned()), second, 1_000),
                (Some("end_to_end".to_owned()), second * 2, 7)
            ]
        );
    }

    #[test]
    fn the_distribution_ends_at_the_maximum_with_every_value_counted() {
        let mut bytes = Vec::new();
        write_distribution(&histogram((1..=1_000).map(|ms| ms * 1_000_000)), &mut bytes)
            .expect("memory takes it");
        let text = String::from_utf8(bytes).expect("text");
        let last = text.lines().rfind(|line| !line.starts_with('#')).expect("a last step");
        let fields: Vec<f64> =
            last.split_whitespace().map(|field| field.parse().expect("a number")).collect();
        assert!((fields[0] / 1e6 - 1.0).abs() < 0.001, "{last}");
        assert_eq!(fields[1..], [1.0, 1_000.0]);
    }

    /// Standard alphabet with padding: enough to read what the serialiser wrote.
    fn base64_decode(text: &str) -> Vec<u8> {
        let digit = |byte: u8| match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let mut bits = 0_u32;
        let mut held = 0;
        let mut bytes = Vec::new();
        for byte in text.bytes().filter(|&byte| byte != b'=') {
            bits = bits << 6 | u32::from(digit(byte));
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held) as u8);
            }
        }
        bytes
    }
}
