//! The result of a run, as `bench --format json` prints it: schema `corelog.bench/1`.
//!
//! The structs are the schema. Fields may be added; what is here keeps its name, place and unit.

use std::time::Duration;

use corelog_client::Status;
use serde::{Deserialize, Serialize};

use crate::cores::Sharing;
use crate::latency::Quantiles;
use crate::verify::Check;

/// Names the schema of [`Results`].
pub const SCHEMA: &str = "corelog.bench/1";

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: String,
    /// What was asked for.
    pub workload: WorkloadResult,
    /// Where it ran.
    pub machine: MachineResult,
    /// The producers' side.
    pub produce: ProduceResult,
    /// The consumers' side.
    pub consume: ConsumeResult,
    /// What the broker says of itself, over the window that the throughput is of.
    pub broker: BrokerResult,
    /// CPU time of the whole machine in that window, less the load's own and less what the idle machine takes.
    pub machine_cpu_seconds: f64,
    /// What the device can do; `None` with a broker that was already there.
    pub device: Option<DeviceResult>,
    /// How late the load's own loop ran in the phase that the latencies are of.
    pub hiccup_us: Option<Quantiles>,
    /// How late the turns of the broker's reactors ran in that phase; `None` with a broker that does not say.
    pub reactor_hiccup_us: Option<ReactorHiccup>,
    /// Whether, in a measured phase, the p99.9 of one of the two kinds of hiccups is more than half of a p99.9 that is
    /// claimed, of response, service or end to end: the tail is not to be trusted.
    pub flagged: bool,
    /// Whether everything came back.
    pub check: Check,
}

impl Results {
    /// Whether every acknowledged record is accounted for. What expired is so by a cap alone: a log without one recycles
    /// nothing.
    pub fn passed(&self) -> bool {
        self.check.passed() && self.wrongly_expired() == 0
    }

    /// Records that are said to have expired in a log that has no cap.
    pub fn wrongly_expired(&self) -> u64 {
        if self.workload.capped == Some(false) { self.check.expired } else { 0 }
    }
}

/// The workload, with every default filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkloadResult {
    /// `saturation`, `saturation+open-loop` or `open-loop`.
    pub phases: String,
    /// Length of each measured phase, when bounded by time.
    pub duration_seconds: Option<f64>,
    /// Records of each measured phase, when bounded by number.
    pub records: Option<u64>,
    /// Records a second of the open loop; `None` when there was none.
    pub rate: Option<f64>,
    /// Mean size of a value, in bytes.
    pub record_bytes: u64,
    /// The file whose lines were sent; `None` for generated content.
    pub payload_file: Option<String>,
    /// Producers, each with its place in the schedule.
    pub producers: u32,
    /// Connections that carry their records, to each shard.
    #[serde(default)]
    pub producer_connections: u32,
    /// Consumers.
    pub consumers: u32,
    /// Connections that carry records to them, each to the shards that serve its partitions.
    #[serde(default)]
    pub consumer_connections: u32,
    /// Partitions of the topic.
    pub partitions: u32,
    /// A batch is at most this large.
    pub batch_bytes: u64,
    /// `none`, `lz4` or `zstd`.
    pub codec: String,
    /// `durable`, `written` or `memory`.
    pub durability: String,
    /// `poll`, `adaptive` or `park`; `None` with a broker that was already there.
    pub mode: Option<String>,
    /// `recycled`, `growing`, or `server` with a broker that was already there.
    pub log: String,
    /// Whether the log has a cap, so that records may expire; `None` with a broker that was already there.
    pub capped: Option<bool>,
    /// Of the content.
    pub seed: u64,
    /// Address of the broker, when it was already there.
    pub server: Option<String>,
}

/// The machine, and what of it the load itself took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineResult {
    /// Model of the processor.
    pub cpu: String,
    /// Cores that may be used.
    pub cores: u32,
    /// Kernel release.
    pub kernel: String,
    /// Total memory.
    pub memory_bytes: u64,
    /// First core of the broker, when it was started for the run and is pinned.
    pub broker_core: Option<u32>,
    /// Cores of its shards, one each; none when they are not pinned or it was already there.
    #[serde(default)]
    pub broker_cores: Vec<u32>,
    /// Core of the load: the first one that it need not share.
    pub load_core: u32,
    /// All cores that the load's thread was pinned to; none when it was not.
    #[serde(default)]
    pub load_cores: Vec<u32>,
    /// What the two take from each other; `None` with a broker that was already there.
    #[serde(default)]
    pub shared: Option<Sharing>,
    /// What is between load and broker, `loopback` or `netns (veth)`; `None` with a broker that was already there.
    #[serde(default)]
    pub network: Option<String>,
    /// File system of the data, when the broker was started for the run.
    pub file_system: Option<String>,
    /// The ready line of the broker: refused registration, buffered files.
    pub broker_ready: Option<String>,
    /// CPU time of the load process in the window.
    pub load_cpu_seconds: f64,
    /// CPU seconds a second of the idle machine: the least of some windows before and after the run.
    pub idle_cpu_per_second: f64,
    /// Length of the window.
    pub window_seconds: f64,
}

/// Acknowledged records. Throughput is the saturation phase's where there is one, latency the open loop's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProduceResult {
    /// Acknowledged in the window.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Over the window.
    pub records_per_second: f64,
    /// Over the window.
    pub bytes_per_second: f64,
    /// Intended -> acknowledged; `None` without an open loop.
    pub response_us: Option<Quantiles>,
    /// Sent -> acknowledged, in the open loop where there is one, else in the saturation phase.
    pub service_us: Option<Quantiles>,
    /// Sent -> acknowledged in the saturation phase before an open loop; `None` unless there are both.
    pub saturation_service_us: Option<Quantiles>,
    /// Intended -> sent; `None` without an open loop.
    pub delay_us: Option<Quantiles>,
}

/// Verified records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConsumeResult {
    /// Consumed in the window.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Over the window.
    pub records_per_second: f64,
    /// Over the window.
    pub bytes_per_second: f64,
    /// Bytes of values acknowledged since the run began and not consumed when the window ended.
    pub lag_bytes: u64,
    /// Intended -> consumed; `None` without an open loop or without live consumers.
    pub end_to_end_us: Option<Quantiles>,
}

/// The broker, over the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BrokerResult {
    /// CPU time of its threads.
    pub cpu_seconds: f64,
    /// Of the larger of its own CPU time and the machine's, less polling, per byte produced.
    pub cpu_ns_per_byte: f64,
    /// The same per record produced.
    pub cpu_ns_per_record: f64,
    /// Turns of its loop that found work.
    pub busy_seconds: f64,
    /// Turns that found none.
    pub polling_seconds: f64,
    /// Frames written: group commits.
    pub frames: u64,
    /// Bytes written to the log.
    pub bytes_written: u64,
    /// Per byte produced.
    pub bytes_written_per_byte: f64,
    /// Resident memory at the end.
    pub resident_bytes: u64,
    /// Reads that the live window could not answer.
    pub cold_reads: u64,
    /// Requests taken.
    pub requests: u64,
    /// Over the window.
    pub requests_per_second: f64,
    /// System calls of its reactors, ring enters included.
    pub system_calls: u64,
    /// Ring enters.
    pub enters: u64,
    /// Its own hiccups, over the window that the throughput is of.
    pub turns: Turns,
}

/// How long the turns of a broker's reactors took. The load's own hiccups are another thing: [`Results::hiccup_us`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// Turns that found work.
    pub worked: u64,
    /// Turns that found none.
    pub idle: u64,
    /// Turns that took 100 us or longer.
    pub over_100us: u64,
    /// Turns that took 1 ms or longer.
    pub over_1ms: u64,
    /// Turns that took 10 ms or longer.
    pub over_10ms: u64,
}

/// How long whatever came had to wait for the next turn of an awake reactor: at every instant as long as it is from the next
/// turn, so that a stall counts by what it would have hit. Upper bounds, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReactorHiccup {
    /// At 99 % of the instants it was no longer.
    pub p99: f64,
    /// At 99.9 %.
    pub p999: f64,
}

/// What the device and the network can do, before and after the run, the better figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceResult {
    /// Large writes without a flush.
    pub write_bytes_per_second: f64,
    /// Large writes, each durable.
    pub durable_write_bytes_per_second: f64,
    /// One 4 KiB durable write at a time.
    pub durable_write_4k_us: SmallWrite,
    /// A bare stream from the load's core to the broker's, through the network of the run.
    pub tcp_bytes_per_second: f64,
    /// Bytes produced per second over the smaller of the durable write and the stream.
    pub utilization: f64,
}

/// Time of one durable write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SmallWrite {
    /// Median, in microseconds.
    pub p50: f64,
    /// 99 %, in microseconds.
    pub p99: f64,
}

/// CPU and bytes of one window, from which [`BrokerResult`] is made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BrokerUse {
    /// CPU time of the broker's threads.
    pub cpu_seconds: f64,
    /// Turns that found work.
    pub busy_seconds: f64,
    /// Turns that found none.
    pub polling_seconds: f64,
    /// Frames written.
    pub frames: u64,
    /// Bytes written to the log.
    pub bytes_written: u64,
    /// Resident memory at the end of the window.
    pub resident_bytes: u64,
    /// Reads that the live window could not answer.
    pub cold_reads: u64,
    /// Requests taken.
    pub requests: u64,
    /// System calls of its reactors.
    pub system_calls: u64,
    /// Ring enters.
    pub enters: u64,
    /// How long turns took.
    pub turns: Turns,
    /// How late turns ran.
    pub lateness: Lateness,
}

/// How late the turns of awake reactors ran, as it can be subtracted. In microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    /// From turn to turn, all together.
    awake: u64,
    /// Of each gap between two turns what is beyond each of [`Status::LATE_OVER_US`].
    over: [u64; Status::LATE_OVER_US.len()],
}

impl BrokerUse {
    /// What the broker's counters say it has used up to now.
    pub fn of(status: &Status) -> Self {
        let seconds = |microseconds: u64| microseconds as f64 / 1e6;
        Self {
            cpu_seconds: seconds(status.cpu_us),
            busy_seconds: seconds(status.busy_us),
            polling_seconds: seconds(status.polling_us),
            frames: status.frames,
            bytes_written: status.bytes_written,
            resident_bytes: status.resident_bytes,
            cold_reads: status.cold_reads,
            requests: status.requests,
            system_calls: status.system_calls,
            enters: status.enters,
            turns: Turns {
                worked: status.turns,
                idle: status.idle_turns,
                over_100us: status.turns_over_100us,
                over_1ms: status.turns_over_1ms,
                over_10ms: status.turns_over_10ms,
            },
            lateness: Lateness { awake: status.awake_us, over: status.late_us() },
        }
    }

    /// What was used since `start`; memory is as it is now.
    pub fn since(&self, start: &Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - start.cpu_seconds,
            busy_seconds: self.busy_seconds - start.busy_seconds,
            polling_seconds: self.polling_seconds - start.polling_seconds,
            frames: self.frames.saturating_sub(start.frames),
            bytes_written: self.bytes_written.saturating_sub(start.bytes_written),
            resident_bytes: self.resident_bytes,
            cold_reads: self.cold_reads.saturating_sub(start.cold_reads),
            requests: self.requests.saturating_sub(start.requests),
            system_calls: self.system_calls.saturating_sub(start.system_calls),
            enters: self.enters.saturating_sub(start.enters),
            turns: self.turns.since(&start.turns),
            lateness: self.lateness.since(&start.lateness),
        }
    }
}

impl Lateness {
    fn since(&self, start: &Self) -> Self {
        let over = std::array::from_fn(|at| self.over[at].saturating_sub(start.over[at]));
        Self { awake: self.awake.saturating_sub(start.awake), over }
    }

    /// `None` when no reactor was awake, or the broker does not say.
    pub fn quantiles(&self) -> Option<ReactorHiccup> {
        let at = |quantile: f64| self.within((1.0 - quantile) * self.awake as f64);
        (self.awake > 0).then(|| ReactorHiccup { p99: at(0.99), p999: at(0.999) })
    }

    /// How late it was at all instants but `left` of them, at most. Time beyond a bound falls less and less steeply as the
    /// bound grows: between two bounds that were measured it lies below the straight line.
    fn within(&self, left: f64) -> f64 {
        let mut before = (0.0, self.awake as f64);
        for (bound, over) in Status::LATE_OVER_US.into_iter().zip(self.over) {
            let (bound, over) = (bound as f64, over as f64);
            if over <= left {
                return before.0 + (bound - before.0) * ratio(before.1 - left, before.1 - over);
            }
            before = (bound, over);
        }
        // Beyond the last bound: as late as if all of it had been one gap.
        before.0 + before.1
    }
}

impl Turns {
    fn since(&self, start: &Self) -> Self {
        Self {
            worked: self.worked.saturating_sub(start.worked),
            idle: self.idle.saturating_sub(start.idle),
            over_100us: self.over_100us.saturating_sub(start.over_100us),
            over_1ms: self.over_1ms.saturating_sub(start.over_1ms),
            over_10ms: self.over_10ms.saturating_sub(start.over_10ms),
        }
    }
}

impl BrokerResult {
    /// Relates what the broker used to what was produced. The CPU charged is the larger of the broker's own figure
    /// and the rest of the machine's: kernel threads that work for the broker are not forgotten. Polling is apart.
    pub fn new(
        used: &BrokerUse,
        machine_cpu_seconds: f64,
        window: Duration,
        records: u64,
        bytes: u64,
    ) -> Self {
        let charged = (used.cpu_seconds.max(machine_cpu_seconds) - used.polling_seconds).max(0.0);
        Self {
            cpu_seconds: used.cpu_seconds,
            cpu_ns_per_byte: ratio(charged * 1e9, bytes as f64),
            cpu_ns_per_record: ratio(charged * 1e9, records as f64),
            busy_seconds: used.busy_seconds,
            polling_seconds: used.polling_seconds,
            frames: used.frames,
            bytes_written: used.bytes_written,
            bytes_written_per_byte: ratio(used.bytes_written as f64, bytes as f64),
            resident_bytes: used.resident_bytes,
            cold_reads: used.cold_reads,
            requests: used.requests,
            requests_per_second: ratio(used.requests as f64, window.as_secs_f64()),
            system_calls: used.system_calls,
            enters: used.enters,
            turns: used.turns,
        }
    }
}

impl DeviceResult {
    /// The better figure of each: a neighbour's noise makes a device look slower, never faster.
    pub fn better(self, other: Self) -> Self {
        Self {
            write_bytes_per_second: self.write_bytes_per_second.max(other.write_bytes_per_second),
            durable_write_bytes_per_second: self
                .durable_write_bytes_per_second
                .max(other.durable_write_bytes_per_second),
            durable_write_4k_us: SmallWrite {
                p50: self.durable_write_4k_us.p50.min(other.durable_write_4k_us.p50),
                p99: self.durable_write_4k_us.p99.min(other.durable_write_4k_us.p99),
            },
            tcp_bytes_per_second: self.tcp_bytes_per_second.max(other.tcp_bytes_per_second),
            utilization: 0.0,
        }
    }

    /// Sets `utilization` to what `bytes_per_second` is of the smaller baseline.
    pub fn used_by(mut self, bytes_per_second: f64) -> Self {
        let limit = self.durable_write_bytes_per_second.min(self.tcp_bytes_per_second);
        self.utilization = ratio(bytes_per_second, limit);
        self
    }
}

/// 0 where nothing was counted: JSON has no infinity.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_cpu_figure_is_charged_and_polling_is_apart() {
        let used = BrokerUse { cpu_seconds: 6.0, polling_seconds: 2.0, ..BrokerUse::default() };
        let result = |machine, records, bytes| {
            BrokerResult::new(&used, machine, Duration::from_secs(1), records, bytes)
        };
        assert_eq!(result(5.0, 1_000, 4_000_000_000).cpu_ns_per_byte, 1.0);
        assert_eq!(result(10.0, 1_000, 4_000_000_000).cpu_ns_per_byte, 2.0);
        assert_eq!(result(10.0, 0, 0).cpu_ns_per_record, 0.0);
    }

    #[test]
    fn a_window_has_its_own_turns_and_requests() {
        let status = |factor: u64| Status {
            requests: 300 * factor,
            turns: 200 * factor,
            turns_over_1ms: factor,
            ..Status::default()
        };
        let used = BrokerUse::of(&status(3)).since(&BrokerUse::of(&status(1)));
        let result = BrokerResult::new(&used, 0.0, Duration::from_secs(2), 1, 1);
        assert_eq!((result.requests, result.requests_per_second), (600, 300.0));
        assert_eq!(result.turns, Turns { worked: 400, over_1ms: 2, ..Turns::default() });
    }

    #[test]
    fn what_expired_is_accounted_for_by_a_cap_alone() {
        let passed = |capped, expired| {
            let check = Check { acknowledged: 10, verified: 10 - expired, expired, ..Check::default() };
            let workload = WorkloadResult { capped, ..WorkloadResult::default() };
            Results { workload, check, ..Results::default() }.passed()
        };
        assert!(passed(Some(true), 4) && passed(None, 4) && passed(Some(false), 0));
        assert!(!passed(Some(false), 1));
    }

    #[test]
    fn the_lateness_of_a_window_is_bounded_by_the_share_of_its_instants() {
        let status = |awake_us: u64, late: &[(usize, u64)]| {
            let mut late_us = [0; Status::LATE_OVER_US.len()];
            late.iter().for_each(|&(at, us)| late_us[at] = us);
            Status { awake_us, ..Status::default() }.with_late_us(late_us)
        };
        let lateness =
            |start: &Status, end: &Status| BrokerUse::of(end).since(&BrokerUse::of(start)).lateness;
        // One second of turns of 10 us, and in the second after it ten gaps of 200 us: what is left of them at the bounds.
        let start = status(1_000_000, &[]);
        let end = status(2_000_000, &[(0, 1_840), (1, 1_680), (2, 1_360), (3, 720), (4, 0)]);
        let found = lateness(&start, &end).quantiles().expect("it was awake");
        assert!(found.p99 <= 16.0, "{found:?}");
        // In truth 100 us: a thousandth of the second are 1,000 us, the last 100 of each gap.
        assert!((99.9..128.0).contains(&found.p999), "{found:?}");
        assert_eq!(lateness(&end, &end).quantiles(), None, "nothing was measured");
        let stalled = Status { awake_us: 1_000_000, ..Status::default() };
        let stalled = stalled.with_late_us(Status::LATE_OVER_US.map(|over_us| 1_000_000 - over_us));
        let found = lateness(&Status::default(), &stalled).quantiles().expect("it was awake");
        assert!((990_000.0..=1_000_000.0).contains(&found.p99), "one gap of a second: {found:?}");
    }

    #[test]
    fn utilization_is_of_the_smaller_baseline() {
        let before = DeviceResult {
            durable_write_bytes_per_second: 2.0e9,
            tcp_bytes_per_second: 2.5e9,
            durable_write_4k_us: SmallWrite { p50: 100.0, p99: 200.0 },
            ..DeviceResult::default()
        };
        let after = DeviceResult {
            durable_write_bytes_per_second: 2.2e9,
            durable_write_4k_us: SmallWrite { p50: 110.0, p99: 190.0 },
            ..before
        };
        let device = before.better(after).used_by(1.1e9);
        assert_eq!(device.utilization, 0.5);
        assert_eq!(device.durable_write_4k_us, SmallWrite { p50: 100.0, p99: 190.0 });
    }
}
