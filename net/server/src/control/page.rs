//! The metrics page: every name there is, what it counts, and how it is written.
//!
//! **Invariants:** names begin with `corelog_` and end in their base unit, counters in `_total` after it; what a shard
//! counts is labelled with it, so that sums over shards are the reader's; what is the process's comes once. A shard that
//! did not answer has no values, rather than old ones. A name is never given another meaning: it is removed.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use corelog_shard::ShardStatus;
use corelog_wire::Status;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::names::{LOG, Measure, Metric, SHARD, Value};
use crate::config::Mode;
use crate::roll::{Answer, Answers};
use crate::status::{Pool, Snapshot};

/// What the control plane adds to what the cores say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    /// CPU time of all threads, in microseconds.
    pub(crate) cpu_us: u64,
    /// Resident memory, in bytes.
    pub(crate) resident_bytes: u64,
    /// Logs of the store.
    pub(crate) logs: u16,
}

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Prometheus' own, 0.0.4.
    Classic,
    /// OpenMetrics, 1.0.0.
    Open,
}

impl Form {
    /// What a reader that accepts these gets.
    pub(crate) fn accepted_by(accept: Option<&str>) -> Self {
        let asks = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
        if asks { Self::Open } else { Self::Classic }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What one shard said, its logs added up.
pub(crate) struct Said {
    number: usize,
    pub(crate) all: ShardStatus,
    pub(crate) says: Arc<Snapshot>,
}

/// The page.
pub(crate) fn render(answers: Arc<Answers>, process: Process, form: Form) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("corelog");
    registry.register_collector(Box::new(Page { answers, process }));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(match form {
        Form::Open => page,
        Form::Classic => classic(&page),
    })
}

/// An OpenMetrics page as it was written before that: a counter's description carries the name of its samples, and units
/// and the end have no line.
fn classic(page: &str) -> String {
    let mut classic = String::with_capacity(page.len());
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let described =
            line.strip_prefix("# HELP ").and_then(|rest| Some((rest.split_once(' ')?, lines.peek()?)));
        if let Some(((name, help), kind)) = described
            && kind.ends_with(" counter")
        {
            // The kind's line comes next.
            lines.next();
            classic.push_str(&format!("# HELP {name}_total {help}\n# TYPE {name}_total counter\n"));
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            classic.push_str(line);
            classic.push('\n');
        }
    }
    classic
}

#[derive(Debug)]
struct Page {
    answers: Arc<Answers>,
    process: Process,
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let said: Vec<Said> = self.answers.cores.iter().enumerate().filter_map(Said::of).collect();
        self.encode_process(&said, &mut encoder)?;
        for metric in SHARD {
            let mut family = metric.describe(&mut encoder)?;
            for said in &said {
                metric.write(said, &mut family.encode_family(&[("shard", said.number)])?)?;
            }
        }
        for metric in LOG {
            let mut family = metric.describe(&mut encoder)?;
            for said in &said {
                for log in &said.says.logs {
                    let labels = [("shard", said.number), ("log", log.log.0.into())];
                    metric.write(log, &mut family.encode_family(&labels)?)?;
                }
            }
        }
        encode_modes(&said, &mut encoder)?;
        encode_pools(&said, &mut encoder)?;
        encode_lateness(&said, &mut encoder)?;
        encode_turns(&said, &mut encoder)
    }
}

impl Said {
    fn of((number, answer): (usize, &Answer)) -> Option<Self> {
        let Answer::Says(says) = answer else { return None };
        let mut logs = says.logs.iter().cloned();
        let mut all = logs.next().unwrap_or_default();
        logs.for_each(|log| all += log);
        Some(Self { number, all, says: Arc::clone(says) })
    }
}

impl<T> Metric<T> {
    fn describe<'s>(
        &'s self,
        encoder: &'s mut DescriptorEncoder<'_>,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        let unit = match self.measure {
            Measure::Bytes(_) => Some(&Unit::Bytes),
            Measure::Micros(_) => Some(&Unit::Seconds),
            Measure::Count(_) | Measure::Flag(_) => None,
        };
        let kind = if self.rises { MetricType::Counter } else { MetricType::Gauge };
        encoder.encode_descriptor(self.name, self.help, unit, kind)
    }

    fn write(&self, of: &T, sample: &mut MetricEncoder<'_>) -> fmt::Result {
        write_value(self.rises, self.measure.value(of), sample)
    }
}

fn write_value(rises: bool, value: Value, sample: &mut MetricEncoder<'_>) -> fmt::Result {
    match (rises, value) {
        (true, Value::Whole(value)) => sample.encode_counter::<NoLabelSet, _, u64>(&value, None),
        (true, Value::Seconds(value)) => sample.encode_counter::<NoLabelSet, _, u64>(&value, None),
        (false, Value::Whole(value)) => sample.encode_gauge(&value),
        (false, Value::Seconds(value)) => sample.encode_gauge(&value),
    }
}

pub(crate) fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

impl Page {
    /// What is of the process, or known without the shards.
    fn encode_process(&self, said: &[Said], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Self { answers, process } = self;
        let gauge = MetricType::Gauge;
        let mut info = encoder.encode_descriptor("build_info", "The broker that runs.", None, gauge)?;
        info.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?.encode_gauge(&1_u64)?;
        let whole: [(&str, &str, u64); 4] = [
            ("shards", "Shards of the broker.", answers.cores.len() as u64),
            ("logs", "Logs of the store.", process.logs.into()),
            (
                "scrape_complete",
                "Whether every shard has answered: values of those that have not are missing.",
                u64::from(said.len() == answers.cores.len()),
            ),
            ("topics", "Topics of the store.", most(said, |said| said.all.topics.into())),
        ];
        for (name, help, value) in whole {
            encoder.encode_descriptor(name, help, None, gauge)?.encode_gauge(&value)?;
        }
        let times = [
            ("scrape", "How long the shards took to answer.", answers.took.as_secs_f64()),
            ("uptime", "Since the ready line.", seconds(most(said, |said| said.says.turns.uptime_us))),
        ];
        for (name, help, value) in times {
            encoder.encode_descriptor(name, help, Some(&Unit::Seconds), gauge)?.encode_gauge(&value)?;
        }
        let help = "CPU time of all threads, user and system.";
        let mut cpu =
            encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
        cpu.encode_counter::<NoLabelSet, _, u64>(&seconds(process.cpu_us), None)?;
        let mut memory =
            encoder.encode_descriptor("process_resident", "Resident memory.", Some(&Unit::Bytes), gauge)?;
        memory.encode_gauge(&process.resident_bytes)?;
        let help = "What the process may come to, resident.";
        let mut limit = encoder.encode_descriptor("process_memory_limit", help, Some(&Unit::Bytes), gauge)?;
        limit.encode_gauge(&most(said, |said| said.says.turns.memory_limit_bytes))?;
        let help = "Whether the shard has answered.";
        let mut answered = encoder.encode_descriptor("shard_answered", help, None, gauge)?;
        for (shard, answer) in answers.cores.iter().enumerate() {
            let value = u64::from(matches!(answer, Answer::Says(_)));
            answered.encode_family(&[("shard", shard)])?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

/// What all shards say of the same thing, some perhaps later than others.
fn most(said: &[Said], of: impl Fn(&Said) -> u64) -> u64 {
    said.iter().map(of).max().unwrap_or(0)
}

fn encode_modes(said: &[Said], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "How the reactor waits when there is nothing to do.";
    let mut modes = encoder.encode_descriptor("reactor_mode", help, None, MetricType::Gauge)?;
    for said in said {
        let mode = match said.says.turns.mode {
            Mode::Poll => "poll",
            Mode::Adaptive => "adaptive",
            Mode::Park => "park",
        };
        let number = said.number.to_string();
        modes.encode_family(&[("shard", number.as_str()), ("mode", mode)])?.encode_gauge(&1_u64)?;
    }
    Ok(())
}

/// Memory by purpose; none can take from another.
fn pools(said: &Said) -> [(&'static str, Pool); 5] {
    let log = &said.all.storage;
    let of = |used_bytes, limit_bytes| Pool { used_bytes, limit_bytes };
    [
        ("connections", said.says.connections),
        ("ingest", said.says.ingest),
        ("replies", said.says.replies),
        ("window", of(log.window_bytes, log.window_limit_bytes)),
        ("cold", of(log.cold_used_bytes, log.cold_limit_bytes)),
    ]
}

fn encode_pools(said: &[Said], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    type Part = fn(&Pool) -> u64;
    let parts: [(&str, &str, Part); 2] = [
        ("memory_used", "Memory of a pool that is in use.", |pool| pool.used_bytes),
        ("memory_limit", "Memory of a pool, in use or not.", |pool| pool.limit_bytes),
    ];
    for (name, help, part) in parts {
        let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
        for said in said {
            let number = said.number.to_string();
            for (pool, bytes) in pools(said) {
                let labels = [("shard", number.as_str()), ("pool", pool)];
                family.encode_family(&labels)?.encode_gauge(&part(&bytes))?;
            }
        }
    }
    Ok(())
}

fn encode_lateness(said: &[Said], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Of the gaps between turns of an awake reactor, what is beyond so many seconds: what came while it was \
                awake waited longer than that in this part of the time awake.";
    let mut family =
        encoder.encode_descriptor("reactor_late", help, Some(&Unit::Seconds), MetricType::Counter)?;
    for said in said {
        let number = said.number.to_string();
        for (us, over_us) in said.says.turns.late_us.into_iter().zip(Status::LATE_OVER_US) {
            let mut over = String::new();
            write!(over, "{}", seconds(over_us))?;
            let labels = [("shard", number.as_str()), ("over", over.as_str())];
            let mut sample = family.encode_family(&labels)?;
            sample.encode_counter::<NoLabelSet, _, u64>(&seconds(us), None)?;
        }
    }
    Ok(())
}

fn encode_turns(said: &[Said], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "How long turns took: those with work, and those without that took 100 us or longer.";
    let mut family =
        encoder.encode_descriptor("reactor_turn", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for said in said {
        let lengths = said.says.turns.lengths;
        let bounds = Status::LATE_OVER_US.map(seconds).into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(lengths.within).collect();
        let count = lengths.within.iter().sum();
        let labels = [("shard", said.number)];
        let mut sample = family.encode_family(&labels)?;
        sample.encode_histogram::<NoLabelSet>(seconds(lengths.sum_us), count, &buckets, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
