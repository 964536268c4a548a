//! The figures that lines are judged by, found in a document of schema `corelog.bench/1`.

use serde::Deserialize;
use serde_json::Value;

/// The stream at which absolute budgets hold, bytes a second.
const REFERENCE_STREAM: f64 = 2.5e9;

/// A figure of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Bytes produced a second over the smaller of durable writes and bare stream.
    Utilization,
    /// CPU of the broker per byte produced, in nanoseconds, polling apart.
    CpuNsPerByte,
    /// The same per record.
    CpuNsPerRecord,
    /// Records acknowledged a second.
    RecordsPerSecond,
    /// Bytes that were acknowledged but not consumed when the window ended.
    LagBytes,
    /// Reads that the live window could not answer.
    ColdReads,
    /// Median response over 1.5 times the median durable write and 60 us.
    ResponseP50Ratio,
    /// 99th percentile of the response over 2.5 times that of the durable write.
    ResponseP99Ratio,
}

impl Measure {
    /// The figure in `result`; `None` when the result does not hold it.
    pub fn of(self, result: &Value) -> Option<f64> {
        let at = |pointer: &str| result.pointer(pointer).and_then(Value::as_f64);
        match self {
            Self::Utilization => at("/device/utilization"),
            Self::CpuNsPerByte => at("/broker/cpu_ns_per_byte"),
            Self::CpuNsPerRecord => at("/broker/cpu_ns_per_record"),
            Self::RecordsPerSecond => at("/produce/records_per_second"),
            Self::LagBytes => Some((at("/produce/bytes")? - at("/consume/bytes")?).max(0.0)),
            Self::ColdReads => at("/broker/cold_reads"),
            Self::ResponseP50Ratio => {
                Some(at("/produce/response_us/p50")? / (1.5 * at("/device/durable_write_4k_us/p50")? + 60.0))
            }
            Self::ResponseP99Ratio => {
                Some(at("/produce/response_us/p99")? / (2.5 * at("/device/durable_write_4k_us/p99")?))
            }
        }
    }
}

/// What an absolute budget is multiplied by on the machine of `result`: never more than 1.
pub fn scale(result: &Value) -> Option<f64> {
    let stream = result.pointer("/device/tcp_bytes_per_second")?.as_f64()?;
    Some((stream / REFERENCE_STREAM).min(1.0))
}

/// Whether the load's own hiccups forbid the tail that the result claims.
pub fn is_flagged(result: &Value) -> bool {
    result.get("flagged").and_then(Value::as_bool).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_are_found_and_a_missing_one_is_none() {
        let result = json!({
            "produce": { "bytes": 1_000, "response_us": { "p50": 210.0, "p99": 500.0 } },
            "consume": { "bytes": 400 },
            "device": { "durable_write_4k_us": { "p50": 100.0, "p99": 200.0 }, "tcp_bytes_per_second": 1.25e9 },
        });
        assert_eq!(Measure::ResponseP50Ratio.of(&result), Some(1.0));
        assert_eq!(Measure::ResponseP99Ratio.of(&result), Some(1.0));
        assert_eq!(Measure::LagBytes.of(&result), Some(600.0));
        assert_eq!(Measure::ColdReads.of(&result), None);
        assert_eq!(scale(&result), Some(0.5));
        assert!(is_flagged(&result), "a result that does not say is not trusted");
    }
}
