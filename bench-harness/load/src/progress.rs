//! What a run tells while it runs.

use std::time::Duration;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Measuring the device, before or after the run.
    Baseline,
    /// Writing the log once over, so that the window sees recycled extents.
    Fill,
    /// As fast as back-pressure allows.
    Saturation,
    /// At a fixed rate.
    OpenLoop,
    /// Reading what is still to be verified.
    Verify,
}

impl Stage {
    /// A word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Fill => "fill",
            Self::Saturation => "saturation",
            Self::OpenLoop => "open loop",
            Self::Verify => "verify",
        }
    }
}

/// About once a second, and at the end of each stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Where the run is.
    pub stage: Stage,
    /// The stage is over.
    pub done: bool,
    /// How far the stage is, 0 to 1; `None` when it has no known end.
    pub fraction: Option<f64>,
    /// Since the stage began.
    pub elapsed: Duration,
    /// Acknowledged in this stage.
    pub acknowledged: u64,
    /// Consumed in this stage.
    pub consumed: u64,
    /// Acknowledged a second, over the stage so far.
    pub records_per_second: f64,
    /// Bytes acknowledged a second, over the stage so far.
    pub bytes_per_second: f64,
}

impl Progress {
    /// A stage that begins.
    pub const fn of(stage: Stage) -> Self {
        Self {
            stage,
            done: false,
            fraction: None,
            elapsed: Duration::ZERO,
            acknowledged: 0,
            consumed: 0,
            records_per_second: 0.0,
            bytes_per_second: 0.0,
        }
    }
}

/// Is told.
pub type Observer<'a> = &'a mut dyn FnMut(&Progress);
