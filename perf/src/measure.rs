//! The figures that lines are judged by, and where they stand in the result of a bench.

use corelog_load::results::{DeviceResult, Results};
use serde::Deserialize;

use crate::sample::Sample;

/// What the median response may be beyond one and a half durable writes, in microseconds.
const P50_GRACE_US: f64 = 60.0;

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Bytes produced a second over the smaller of durable writes and bare stream.
    Utilization,
    /// CPU of the broker per byte produced, in nanoseconds, polling apart.
    CpuNsPerByte,
    /// The same per record.
    CpuNsPerRecord,
    /// CPU of the broker per byte over that of others beside it.
    CpuRatio,
    /// Records acknowledged a second.
    RecordsPerSecond,
    /// Requests that the broker answered a second.
    RequestsPerSecond,
    /// Bytes that were acknowledged but not consumed when the window ended.
    LagBytes,
    /// Reads that the live window could not answer.
    ColdReads,
    /// Bytes consumed a second.
    ConsumedBytesPerSecond,
    /// Median response over 1.5 times the median durable write and 60 us.
    ResponseP50Ratio,
    /// 99th percentile of the response over 2.5 times that of the durable write.
    ResponseP99Ratio,
    /// The same with stalled consumers over that without.
    StalledP99Ratio,
    /// Bytes a second of a consumer of the cold log over the smaller of the disk's reads and the bare stream.
    ColdShare,
    /// Bytes read from the disk for several consumers of a stretch over its bytes.
    SharedReads,
    /// 99th percentile of the response beside a consumer that catches up over that without.
    ColdP99Ratio,
    /// Bytes a second of that consumer over the disk's reads.
    ColdLiveShare,
    /// The larger of two figures for the disk over the smaller.
    DiskRatio,
    /// CPU seconds a second.
    Core,
    /// Allocations on the shard's thread.
    Allocations,
    /// Enters of the shard's ring by an idle reactor.
    IdleEnters,
    /// Other system calls of its thread, a millisecond.
    IdleCallsPerMs,
    /// Those that are none of the named ones.
    UnnamedCalls,
    /// The most enters of the ring in one turn, under load.
    EntersPerTurn,
    /// Until all partitions are there.
    CreateSeconds,
    /// Until each has its first record.
    ProduceSeconds,
    /// From the start of a broker that finds its store to its first acknowledgement.
    RestartSeconds,
    /// From the same start until it is ready.
    ReadySeconds,
}

/// Where others use more of the machine than this, in cores, what the broker makes it work cannot be told.
const IDLE_MOST: f64 = 0.1;

/// The figures of a bench.
pub fn of_bench(results: &Results) -> Sample {
    let Results { produce, consume, broker, machine, device, .. } = results;
    let mut sample = Sample::default();
    let idle = machine.idle_cpu_per_second;
    if idle <= IDLE_MOST {
        sample.set(Measure::CpuNsPerByte, broker.cpu_ns_per_byte);
        sample.set(Measure::CpuNsPerRecord, broker.cpu_ns_per_record);
    } else {
        sample.say(format!("CPU is not shown: others used {idle:.2} cores before and after"));
    }
    sample.set(Measure::RecordsPerSecond, produce.records_per_second);
    sample.set(Measure::RequestsPerSecond, broker.requests_per_second);
    sample.set(Measure::ConsumedBytesPerSecond, consume.bytes_per_second);
    sample.set(Measure::LagBytes, consume.lag_bytes as f64);
    sample.set(Measure::ColdReads, broker.cold_reads as f64);
    // What a saturated run is judged by is no tail.
    sample.flagged = results.flagged && produce.response_us.is_some();
    if results.flagged && !sample.flagged {
        sample.say("its tail is not to be trusted".to_owned());
    }
    if let Some(device) = device {
        of_device(results, device, &mut sample);
    }
    if produce.response_us.is_none() {
        sample.say(format!(
            "{:.2} GB/s, {:.2} M records/s; CPU: broker {:.2} s, machine {:.2} s less load {:.2} s and {:.3} a second idle, \
             polling {:.2} s",
            produce.bytes_per_second / 1e9,
            produce.records_per_second / 1e6,
            broker.cpu_seconds,
            results.machine_cpu_seconds,
            machine.load_cpu_seconds,
            machine.idle_cpu_per_second,
            broker.polling_seconds,
        ));
    }
    sample.say(format!(
        "broker turns of 0.1 ms or longer {}, 1 ms {}, 10 ms {}, of {} with work",
        broker.turns.over_100us, broker.turns.over_1ms, broker.turns.over_10ms, broker.turns.worked,
    ));
    sample
}

fn of_device(results: &Results, device: &DeviceResult, sample: &mut Sample) {
    sample.stream = Some(device.tcp_bytes_per_second);
    sample.set(Measure::Utilization, device.utilization);
    let write = device.durable_write_4k_us;
    let Some(response) = results.produce.response_us else {
        return sample.say(format!(
            "disk {:.2} GB/s, stream {:.2} GB/s",
            device.durable_write_bytes_per_second / 1e9,
            device.tcp_bytes_per_second / 1e9
        ));
    };
    sample.set(Measure::ResponseP50Ratio, response.p50 / (1.5 * write.p50 + P50_GRACE_US));
    sample.set(Measure::ResponseP99Ratio, response.p99 / (2.5 * write.p99));
    sample.say(format!(
        "response p50 {:.0} us, p99 {:.0}, p99.9 {:.0}; durable 4 KiB write p50 {:.0}, p99 {:.0}",
        response.p50, response.p99, response.p999, write.p50, write.p99
    ));
    if let Some(hiccup) = results.hiccup_us {
        sample.say(format!("the load's own hiccups p99.9 {:.0} us", hiccup.p999));
    }
    if let Some(hiccup) = results.reactor_hiccup_us {
        sample.say(format!("the reactor's p99.9 {:.0} us", hiccup.p999));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratios_are_those_that_were_asked() {
        let quantiles = |p50: f64, p99: f64| {
            serde_json::json!({
                "p50": p50, "p90": p50, "p99": p99, "p999": p99, "p9999": p99, "max": p99,
            })
        };
        let mut document = serde_json::to_value(crate::sample::tests::results()).expect("a document");
        document["produce"]["response_us"] = quantiles(210.0, 500.0);
        document["device"] = serde_json::json!({
            "write_bytes_per_second": 3e9, "durable_write_bytes_per_second": 2e9,
            "durable_write_4k_us": { "p50": 100.0, "p99": 200.0 },
            "tcp_bytes_per_second": 1.25e9, "utilization": 0.5,
        });
        let results: Results = serde_json::from_value(document).expect("the schema");
        let sample = of_bench(&results);
        assert_eq!(sample.figures[&Measure::ResponseP50Ratio], 1.0);
        assert_eq!(sample.figures[&Measure::ResponseP99Ratio], 1.0);
        assert_eq!(sample.figures[&Measure::Utilization], 0.5);
        assert_eq!(sample.stream, Some(1.25e9));
    }

    #[test]
    fn cpu_is_not_shown_on_a_machine_that_others_use() {
        let mut results = crate::sample::tests::results();
        assert_eq!(of_bench(&results).figures[&Measure::CpuNsPerByte], 0.5);
        results.machine.idle_cpu_per_second = 1.9;
        assert_eq!(of_bench(&results).figures.get(&Measure::CpuNsPerByte), None);
    }

    #[test]
    fn only_a_run_that_is_judged_by_a_tail_is_flagged() {
        let mut results = crate::sample::tests::results();
        results.flagged = true;
        let sample = of_bench(&results);
        assert!(!sample.flagged && sample.notes.iter().any(|note| note.contains("tail")), "{sample:?}");
        let quantiles = serde_json::json!({
            "p50": 1.0, "p90": 1.0, "p99": 1.0, "p999": 1.0, "p9999": 1.0, "max": 1.0,
        });
        results.produce.response_us = serde_json::from_value(quantiles).expect("quantiles");
        assert!(of_bench(&results).flagged);
    }

    #[test]
    fn without_baselines_there_is_nothing_to_set_a_response_against() {
        let sample = of_bench(&crate::sample::tests::results());
        assert_eq!(sample.figures.get(&Measure::ResponseP99Ratio), None);
        assert_eq!((sample.stream, sample.figures.get(&Measure::Utilization)), (None, None));
    }
}
