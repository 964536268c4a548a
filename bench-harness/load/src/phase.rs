//! One phase of a run from its first record to its last acknowledgement: counts, histograms, CPU.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::hiccup::is_flagged;
use crate::latency::{Latency, Quantiles};
use crate::machine::CpuUse;
use crate::progress::{Progress, Stage};
use crate::report::{Histograms, Kind};
use crate::results::{BrokerUse, ratio};
use crate::run::Usage;
use crate::shared::{Counts, Shared};
use crate::workload::{Length, Pace};

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

/// Where the histograms of a phase go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Nowhere: it is not measured.
    Not,
    /// To the kinds that the latencies of the run are of.
    AsLatency,
    /// To kinds of their own: an open loop follows, whose latencies are those of the run.
    AsSaturation,
}

impl Measured {
    /// Whether one of the 99.9th percentiles of this phase cannot be claimed: the load's own loop, or the turns of the
    /// broker's reactors, ran later than half of it.
    pub fn is_flagged(&self) -> bool {
        let p999 = |quantiles: Option<Quantiles>| quantiles.map(|quantiles| quantiles.p999);
        let reactor = self.broker.lateness.quantiles().map(|gaps| gaps.p999);
        let claimed = [self.response, self.service, self.end_to_end].map(p999);
        is_flagged(&[p999(self.hiccup), reactor], &claimed)
    }

    /// Acknowledged records over the window.
    pub fn records_per_second(&self) -> f64 {
        ratio(self.acknowledged as f64, self.window.as_secs_f64())
    }
}

pub(crate) struct Phase {
    shared: Rc<Shared>,
    stage: Stage,
    length: Length,
    keep: Keep,
    run_began: Instant,
    began: Instant,
    interval_began: Cell<Instant>,
    counts: Counts,
}

impl Phase {
    /// Of a run with this pace and these lengths, at `stage`.
    pub(crate) fn begin(
        shared: &Rc<Shared>,
        run_began: Instant,
        stage: Stage,
        length: Length,
        pace: Pace,
    ) -> Self {
        let began = Instant::now();
        let interval_began = Cell::new(began);
        let keep = match (stage, pace) {
            (Stage::Saturation, Pace::Half) => Keep::AsSaturation,
            (Stage::Saturation | Stage::OpenLoop, _) => Keep::AsLatency,
            _ => Keep::Not,
        };
        Self {
            shared: shared.clone(),
            stage,
            length,
            keep,
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
        self.each_latency(|kind, latency| {
            latency.end_interval(|interval| {
                if let Some(kind) = kind {
                    histograms.add_interval(kind, from, length, interval);
                }
            });
        });
    }

    pub(crate) fn end(&self, histograms: &mut Histograms, before: &Usage, after: &Usage) -> Measured {
        self.end_interval(histograms);
        let (counts, in_all) = (self.counted(), self.shared.counts());
        let [response, service, delay, end_to_end, hiccup] = self.each_latency(|kind, latency| {
            if let Some(kind) = kind {
                histograms.set_total(kind, latency.total());
            }
            latency.quantiles()
        });
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

    /// What `look` finds in response, service, delay, end to end and hiccup, each with where it is to be kept.
    fn each_latency<T>(&self, mut look: impl FnMut(Option<Kind>, &mut Latency) -> T) -> [T; 5] {
        let (service, hiccup) = match self.keep {
            Keep::AsSaturation => (Kind::SaturationService, Kind::SaturationHiccup),
            Keep::AsLatency | Keep::Not => (Kind::Service, Kind::Hiccup),
        };
        let kept = |kind| (self.keep != Keep::Not).then_some(kind);
        let mut latencies = self.shared.latencies();
        [
            look(kept(Kind::Response), &mut latencies.response),
            look(kept(service), &mut latencies.service),
            look(kept(Kind::Delay), &mut latencies.delay),
            look(kept(Kind::EndToEnd), &mut latencies.end_to_end),
            self.shared.watch.with(|latency| look(kept(hiccup), latency)),
        ]
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
