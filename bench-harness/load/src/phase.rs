//! One phase of a run from its first record to its last acknowledgement: counts, histograms, CPU.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::latency::Quantiles;
use crate::machine::CpuUse;
use crate::progress::{Progress, Stage};
use crate::report::{Histograms, Kind};
use crate::results::{BrokerUse, ratio};
use crate::run::Usage;
use crate::shared::{Counts, Shared};
use crate::workload::Length;

/// What was measured in one phase.
#[derive(Clone, Debug)]
pub struct Measured {
    /// From the first record to the last acknowledgement.
    pub window: Duration,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Bytes of their values.
    pub acknowledged_bytes: u64,
    /// Records consumed.
    pub consumed: u64,
    /// Bytes of their values.
    pub consumed_bytes: u64,
    /// Bytes acknowledged since the run began and not consumed when the phase ended.
    pub lag_bytes: u64,
    /// CPU time of machine and load.
    pub cpu: CpuUse,
    /// The broker's own figures.
    pub broker: BrokerUse,
    /// Intended -> acknowledged.
    pub response: Option<Quantiles>,
    /// Sent -> acknowledged.
    pub service: Option<Quantiles>,
    /// Intended -> sent.
    pub delay: Option<Quantiles>,
    /// Intended -> consumed.
    pub end_to_end: Option<Quantiles>,
    /// Lateness of the load's loop.
    pub hiccup: Option<Quantiles>,
}

impl Measured {
    /// Acknowledged records over the window.
    pub fn records_per_second(&self) -> f64 {
        ratio(self.acknowledged as f64, self.window.as_secs_f64())
    }
}

pub(crate) struct Phase {
    shared: Rc<Shared>,
    stage: Stage,
    length: Length,
    run_began: Instant,
    began: Instant,
    interval_began: Cell<Instant>,
    counts: Counts,
}

impl Phase {
    pub(crate) fn begin(shared: &Rc<Shared>, run_began: Instant, stage: Stage, length: Length) -> Self {
        let began = Instant::now();
        let interval_began = Cell::new(began);
        Self {
            shared: shared.clone(),
            stage,
            length,
            run_began,
            began,
            interval_began,
            counts: shared.counts(),
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        let counts = self.counted();
        let elapsed = self.began.elapsed();
        let fraction = match (self.stage, self.length) {
            (Stage::Verify, _) => None,
            (_, Length::Duration(duration)) => Some(ratio(elapsed.as_secs_f64(), duration.as_secs_f64())),
            (_, Length::Records(records)) => Some(ratio(counts.acknowledged as f64, records as f64)),
        };
        Progress {
            stage: self.stage,
            done: false,
            fraction: fraction.map(|fraction| fraction.min(1.0)),
            elapsed,
            acknowledged: counts.acknowledged,
            consumed: counts.consumed,
            records_per_second: ratio(counts.acknowledged as f64, elapsed.as_secs_f64()),
            bytes_per_second: ratio(counts.acknowledged_bytes as f64, elapsed.as_secs_f64()),
        }
    }

    /// Moves what was recorded since the last time to the totals, and for measured phases to the log.
    pub(crate) fn end_interval(&self, histograms: &mut Histograms) {
        let now = Instant::now();
        let start = self.interval_began.replace(now);
        let (from, length) = (start - self.run_began, now - start);
        let keep = self.is_measured();
        let pace = self.shared.pace();
        let mut hiccups = pace.hiccups();
        let mut latencies = self.shared.latencies();
        let latencies = &mut *latencies;
        let kinds = [
            (Kind::Response, &mut latencies.response),
            (Kind::Service, &mut latencies.service),
            (Kind::Delay, &mut latencies.delay),
            (Kind::EndToEnd, &mut latencies.end_to_end),
            (Kind::Hiccup, &mut hiccups.latency),
        ];
        for (kind, latency) in kinds {
            latency.end_interval(|interval| {
                if keep {
                    histograms.add_interval(kind, from, length, interval);
                }
            });
        }
    }

    pub(crate) fn end(&self, histograms: &mut Histograms, before: Usage, after: Usage) -> Measured {
        self.end_interval(histograms);
        let (counts, in_all) = (self.counted(), self.shared.counts());
        let pace = self.shared.pace();
        let hiccups = pace.hiccups();
        let latencies = self.shared.latencies();
        let kinds = [
            (Kind::Response, &latencies.response),
            (Kind::Service, &latencies.service),
            (Kind::Delay, &latencies.delay),
            (Kind::EndToEnd, &latencies.end_to_end),
            (Kind::Hiccup, &hiccups.latency),
        ];
        if self.is_measured() {
            for (kind, latency) in kinds {
                histograms.set_total(kind, latency.total());
            }
        }
        let [response, service, delay, end_to_end, hiccup] = kinds.map(|(_, latency)| latency.quantiles());
        Measured {
            window: after.at - before.at,
            acknowledged: counts.acknowledged,
            acknowledged_bytes: counts.acknowledged_bytes,
            consumed: counts.consumed,
            consumed_bytes: counts.consumed_bytes,
            lag_bytes: in_all.acknowledged_bytes.saturating_sub(in_all.consumed_bytes),
            cpu: after.cpu.since(before.cpu),
            broker: after.broker.since(&before.broker),
            response,
            service,
            delay,
            end_to_end,
            hiccup,
        }
    }

    fn is_measured(&self) -> bool {
        matches!(self.stage, Stage::Saturation | Stage::OpenLoop)
    }

    fn counted(&self) -> Counts {
        let now = self.shared.counts();
        Counts {
            acknowledged: now.acknowledged - self.counts.acknowledged,
            acknowledged_bytes: now.acknowledged_bytes - self.counts.acknowledged_bytes,
            consumed: now.consumed - self.counts.consumed,
            consumed_bytes: now.consumed_bytes - self.counts.consumed_bytes,
        }
    }
}
