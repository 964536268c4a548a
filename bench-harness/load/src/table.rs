//! The result of a run as text: one screen, every figure with its unit.

use std::fmt::Write as _;

use crate::cores::Sharing;
use crate::latency::Quantiles;
use crate::results::{DeviceResult, ReactorHiccup, Results, WorkloadResult};

/// The table that `corelog bench` prints and `report.txt` holds.
pub fn table(results: &Results) -> String {
    let mut out = String::new();
    workload(&results.workload, &mut out);
    machine(results, &mut out);
    throughput(results, &mut out);
    latency(results, &mut out);
    broker(results, &mut out);
    if let Some(device) = &results.device {
        baseline(device, &mut out);
    }
    verdict(results, &mut out);
    out
}

macro_rules! line {
    ($out:expr) => { $out.push('\n') };
    ($out:expr, $($argument:tt)*) => {
        writeln!($out, $($argument)*).expect("writing to a string cannot fail")
    };
}

fn workload(workload: &WorkloadResult, out: &mut String) {
    let length = match (workload.duration_seconds, workload.records) {
        (Some(seconds), _) => format!("{seconds} s"),
        (_, Some(records)) => format!("{records} records"),
        _ => String::new(),
    };
    line!(out, "corelog bench: {}, {length} each", workload.phases);
    line!(
        out,
        "  {} on {}, {} on {}, {}",
        counted(workload.producers, "producer"),
        counted(workload.producer_connections, "connection"),
        counted(workload.consumers, "consumer"),
        workload.consumer_connections,
        counted(workload.partitions, "partition"),
    );
    line!(
        out,
        "  {} B records, {} batches, codec {}, {}, log {}",
        workload.record_bytes,
        bytes(workload.batch_bytes as f64),
        workload.codec,
        workload.durability,
        workload.log,
    );
    if let Some(server) = &workload.server {
        line!(out, "  broker at {server}");
    }
}

fn machine(results: &Results, out: &mut String) {
    let machine = &results.machine;
    line!(out, "  {}, {}, {}", machine.cpu, counted(machine.cores, "core"), machine.kernel);
    let load = format!("load on {}", cores(&machine.load_cores));
    match (&results.workload.mode, &machine.network) {
        (Some(mode), Some(network)) => {
            let shared = match machine.shared {
                Some(Sharing::Cores) => ", shared with the broker",
                Some(Sharing::Siblings) => ", a sibling of the broker's",
                Some(Sharing::Nothing) | None => "",
            };
            let broker = cores(&machine.broker_cores);
            line!(out, "  broker on {broker}, mode {mode}; {load}{shared}; network: {network}");
        }
        _ => line!(out, "  {load}"),
    }
    if let Some(ready) = &machine.broker_ready {
        line!(out, "  {ready}");
    }
    line!(out);
}

/// `1 core`, `2 cores`.
fn counted(count: u32, name: &str) -> String {
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

/// Where a side runs.
fn cores(cores: &[u32]) -> String {
    match cores {
        [] => "any core".to_owned(),
        [one] => format!("core {one}"),
        _ => {
            let cores: Vec<String> = cores.iter().map(u32::to_string).collect();
            format!("cores {}", cores.join(", "))
        }
    }
}

fn throughput(results: &Results, out: &mut String) {
    let (produce, consume) = (&results.produce, &results.consume);
    line!(out, "{:<12}{:>14}{:>16}{:>14}", "throughput", "records", "records/s", "bytes/s");
    let mut row = |name, records, rate: f64, speed: f64| {
        line!(out, "{name:<12}{records:>14}{rate:>16.0}{:>14}", bytes(speed));
    };
    row("produce", produce.records, produce.records_per_second, produce.bytes_per_second);
    row("consume", consume.records, consume.records_per_second, consume.bytes_per_second);
    line!(out);
}

fn latency(results: &Results, out: &mut String) {
    let mut rows = vec![
        ("response", "intended -> acknowledged", results.produce.response_us),
        ("service", "sent -> acknowledged", results.produce.service_us),
        ("delay", "intended -> sent", results.produce.delay_us),
        ("end to end", "intended -> consumed", results.consume.end_to_end_us),
        ("hiccup", "the load's own loop", results.hiccup_us),
    ];
    if let service @ Some(_) = results.produce.saturation_service_us {
        rows.insert(2, ("", "the same, saturated", service));
    }
    let rate = results
        .workload
        .rate
        .map_or_else(|| "saturated".to_owned(), |rate| format!("at {rate:.0} records/s"));
    line!(
        out,
        "{:<12}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}   us, {rate}",
        "latency",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max"
    );
    for (name, meaning, quantiles) in rows {
        match quantiles {
            Some(Quantiles { p50, p90, p99, p999, p9999, max }) => line!(
                out,
                "{name:<12}{p50:>10.1}{p90:>10.1}{p99:>10.1}{p999:>10.1}{p9999:>10.1}{max:>10.1}   {meaning}"
            ),
            None => line!(out, "{name:<12}{:>60}   {meaning}", "-"),
        }
    }
    if let Some(ReactorHiccup { p99, p999 }) = results.reactor_hiccup_us {
        let blank = "";
        line!(
            out,
            "{blank:<12}{blank:>20}{p99:>10.1}{p999:>10.1}{blank:>20}   the turns of the broker's reactors"
        );
    }
    line!(out);
}

fn broker(results: &Results, out: &mut String) {
    let broker = &results.broker;
    line!(
        out,
        "broker      {:.2} s CPU ({:.2} s busy, {:.2} s polling), {:.3} ns/B, {:.1} ns/record; {} frames, {} written ({:.3} per byte), {} resident",
        broker.cpu_seconds,
        broker.busy_seconds,
        broker.polling_seconds,
        broker.cpu_ns_per_byte,
        broker.cpu_ns_per_record,
        broker.frames,
        bytes(broker.bytes_written as f64),
        broker.bytes_written_per_byte,
        bytes(broker.resident_bytes as f64),
    );
    let turns = broker.turns;
    line!(
        out,
        "            {:.0} requests/s; {} turns with work ({} enters), {} without; {} of 0.1 ms or longer, {} of 1 ms, {} of 10 ms",
        broker.requests_per_second,
        turns.worked,
        broker.enters,
        turns.idle,
        turns.over_100us,
        turns.over_1ms,
        turns.over_10ms,
    );
    line!(
        out,
        "machine     {:.2} s CPU beside the load's {:.2} s and {:.2} a second when idle, in {:.2} s",
        results.machine_cpu_seconds,
        results.machine.load_cpu_seconds,
        results.machine.idle_cpu_per_second,
        results.machine.window_seconds
    );
}

fn baseline(device: &DeviceResult, out: &mut String) {
    line!(
        out,
        "device      {}/s written, {}/s durable, 4 KiB durable {:.0} us (p99 {:.0}); stream {}/s; {:.0} % of the smaller used",
        bytes(device.write_bytes_per_second),
        bytes(device.durable_write_bytes_per_second),
        device.durable_write_4k_us.p50,
        device.durable_write_4k_us.p99,
        bytes(device.tcp_bytes_per_second),
        device.utilization * 100.0,
    );
}

fn verdict(results: &Results, out: &mut String) {
    let check = &results.check;
    line!(
        out,
        "check       {}: {} acknowledged = {} verified + {} expired + {} lost; {} duplicated, {} out of order, {} corrupted",
        if results.passed() { "passed" } else { "FAILED" },
        check.acknowledged,
        check.verified,
        check.expired,
        check.lost,
        check.duplicated,
        check.out_of_order,
        check.corrupted,
    );
    if results.wrongly_expired() > 0 {
        line!(out, "            a log without a cap recycles nothing: what expired is lost");
    }
    if results.flagged {
        line!(
            out,
            "FLAGGED     hiccups of the load's loop or the broker's turns are more than half of a p99.9 above: measure again on a quieter machine"
        );
    }
}

/// A number of bytes with a decimal unit, as disks and networks are sold.
pub fn bytes(count: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1e3;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} {}", units[unit]) } else { format!("{value:.2} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_fits() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(999.0), "999 B");
        assert_eq!(bytes(131_072.0), "131.07 kB");
        assert_eq!(bytes(2_150_000_000.0), "2.15 GB");
    }

    #[test]
    fn who_runs_where_and_over_what_is_said_at_the_top() {
        let mut results = Results::default();
        results.workload.mode = Some("park".to_owned());
        (results.workload.producers, results.workload.producer_connections) = (200, 1);
        results.machine.network = Some("netns (veth)".to_owned());
        (results.machine.broker_cores, results.machine.load_cores) = (vec![1], vec![0]);
        results.machine.shared = Some(Sharing::Nothing);
        let top = |results: &Results| table(results).lines().take(6).collect::<Vec<_>>().join("\n");
        assert!(
            top(&results).contains("  200 producers on 1 connection, 0 consumers on 0"),
            "{}",
            top(&results)
        );
        let apart = "  broker on core 1, mode park; load on core 0; network: netns (veth)";
        assert!(top(&results).lines().any(|line| line == apart), "{}", top(&results));
        (results.machine.broker_cores, results.machine.load_cores) = (vec![0, 1], vec![0, 1]);
        results.machine.shared = Some(Sharing::Cores);
        let shared = "broker on cores 0, 1, mode park; load on cores 0, 1, shared with the broker; network";
        assert!(top(&results).contains(shared), "{}", top(&results));
        (results.workload.mode, results.machine.network) = (None, None);
        results.machine.load_cores.clear();
        assert!(top(&results).contains("  load on any core"), "{}", top(&results));
    }

    #[test]
    fn the_service_of_a_saturation_phase_stands_below_that_of_the_open_loop() {
        let quantiles = |p50| Quantiles { p50, p90: p50, p99: p50, p999: p50, p9999: p50, max: p50 };
        let mut results = Results::default();
        results.produce.service_us = Some(quantiles(25.0));
        let alone = table(&results);
        assert!(alone.contains("25.0") && !alone.contains("the same, saturated"), "{alone}");
        results.produce.saturation_service_us = Some(quantiles(4_321.0));
        let both = table(&results);
        let lines: Vec<&str> = both.lines().skip_while(|line| !line.starts_with("service")).collect();
        assert!(lines[0].contains("25.0") && lines[1].contains("4321.0"), "{both}");
    }

    #[test]
    fn records_that_expired_without_a_cap_fail_the_run_in_words() {
        let mut results = Results::default();
        results.check.expired = 3;
        assert!(table(&results).contains("passed"));
        results.workload.capped = Some(false);
        let text = table(&results);
        assert!(text.contains("FAILED") && text.contains("a log without a cap"), "{text}");
    }
}
