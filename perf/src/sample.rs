//! What one run of one measurement found.

use std::collections::BTreeMap;

use crate::measure::Measure;

/// Figures, and what must be known to judge them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The round it belongs to, from 1.
    pub round: usize,
    /// What was measured.
    pub figures: BTreeMap<Measure, f64>,
    /// Bytes a second of the bare stream, where it was measured with it.
    pub stream: Option<f64>,
    /// Hiccups of the load or of the broker's turns forbid the tail that is claimed.
    pub flagged: bool,
    /// Why there is no result, or none that counts.
    pub failed: Option<String>,
    /// For people.
    pub notes: Vec<String>,
}

impl Sample {
    /// One that came to nothing.
    pub fn failure(reason: String) -> Self {
        Self { failed: Some(reason), ..Self::default() }
    }

    /// Keeps a figure.
    pub fn set(&mut self, measure: Measure, figure: f64) {
        self.figures.insert(measure, figure);
    }

    /// Keeps a remark.
    pub fn say(&mut self, words: String) {
        self.notes.push(words);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use corelog_load::results::Results;
    use serde_json::json;

    /// The document of a bench without baselines and without an open loop.
    pub(crate) fn results() -> Results {
        let turns = json!({ "worked": 1, "idle": 1, "over_100us": 0, "over_1ms": 0, "over_10ms": 0 });
        serde_json::from_value(json!({
            "schema": "corelog.bench/1",
            "workload": {
                "phases": "saturation", "duration_seconds": 30.0, "records": null, "rate": null,
                "record_bytes": 1_000, "payload_file": null, "producers": 4, "consumers": 0, "partitions": 4,
                "batch_bytes": 131_072, "codec": "none", "durability": "durable", "mode": "adaptive",
                "log": "recycled", "seed": 1, "server": null,
            },
            "machine": {
                "cpu": "", "cores": 2, "kernel": "", "memory_bytes": 0, "broker_core": 1, "load_core": 0,
                "file_system": null, "broker_ready": null, "load_cpu_seconds": 1.0, "idle_cpu_per_second": 0.0,
                "window_seconds": 30.0,
            },
            "produce": {
                "records": 1_000, "bytes": 1_000_000, "records_per_second": 1e6, "bytes_per_second": 1e9,
                "response_us": null, "service_us": null, "delay_us": null,
            },
            "consume": {
                "records": 0, "bytes": 0, "records_per_second": 0.0, "bytes_per_second": 0.0, "lag_bytes": 600,
                "end_to_end_us": null,
            },
            "broker": {
                "cpu_seconds": 1.0, "cpu_ns_per_byte": 0.5, "cpu_ns_per_record": 500.0, "busy_seconds": 1.0,
                "polling_seconds": 0.0, "frames": 1, "bytes_written": 1, "bytes_written_per_byte": 1.0,
                "resident_bytes": 1, "cold_reads": 0, "requests": 10, "requests_per_second": 10.0,
                "system_calls": 1, "enters": 1, "turns": turns,
            },
            "machine_cpu_seconds": 1.0, "device": null, "hiccup_us": null, "flagged": false,
            "check": {
                "acknowledged": 0, "verified": 0, "expired": 0, "lost": 0, "duplicated": 0, "out_of_order": 0,
                "corrupted": 0,
            },
        }))
        .expect("the schema of a bench")
    }
}
