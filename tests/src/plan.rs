//! How a world is made, and what comes of it.

use std::ops::AddAssign;

use corelog_shard::StartError;

use crate::disk::Injected;
use crate::regime::Regime;
use crate::trace::Trace;

/// How a world is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides everything else.
    pub seed: u64,
    /// Logs of the store, each with a shard.
    pub logs: u16,
    /// Times that the power fails before the calm; the process is killed besides, with the power on.
    pub power_losses: u32,
    /// Clients that keep positions, besides those that append and read.
    pub committers: u32,
    /// Records are deleted, and topics keep theirs for a time, or so many bytes.
    pub trims: bool,
    /// Keep the text of the trace.
    pub keep_trace: bool,
    /// What can go wrong.
    pub regime: Regime,
}

impl Plan {
    /// The storm of this number, as a soak has it: half of them have one log, every third one clients that keep positions,
    /// every fourth one deletes records.
    pub fn storm(seed: u64) -> Self {
        Self {
            seed,
            logs: [1, 2, 1, 3, 1, 4][(seed % 6) as usize],
            power_losses: 10,
            committers: if seed % 3 == 2 { 4 } else { 0 },
            trims: seed % 4 == 3,
            keep_trace: false,
            regime: Regime::of(seed),
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// All that happened.
    pub trace: Trace,
    /// Records acknowledged, of all levels.
    pub acknowledged: usize,
    /// How often a reader was told to go back.
    pub truncations: u64,
    /// Cold reads of the last start.
    pub cold_reads: u64,
    /// Packs made by all starts.
    pub packs: u64,
    /// Kills with the power on.
    pub kills: u32,
    /// Changes of positions acknowledged.
    pub positions: u64,
    /// Deletions of records acknowledged, and partitions that do not start at their first record.
    pub trims: (u64, u64),
    /// What the disks did besides working.
    pub injected: Injected,
    /// How it ended.
    pub end: End,
    /// What was lost, by which rule of the oracle, and what was named.
    pub losses: Losses,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All was answered, read and judged.
    Judged,
    /// A start was refused by name: what it cannot do without is gone.
    Refused(StartError),
    /// What it cannot do without may be gone and nobody can tell: changes of topics are not told apart from then on.
    Uncertain,
}

/// What became of records on a medium that is harmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Durable records behind what a start could account for.
    pub possibly_lost: u64,
    /// Durable records at an end that nothing proved.
    pub unproven: u64,
    /// Ranges of offsets that were named as damaged.
    pub named: u64,
    /// Sectors that could not be read and were given up, for a start could not do without them.
    pub given_up: u64,
    /// Starts that came to their end with sectors that could not be read.
    pub starts_past: u64,
}

impl AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.possibly_lost += other.possibly_lost;
        self.unproven += other.unproven;
        self.named += other.named;
        self.given_up += other.given_up;
        self.starts_past += other.starts_past;
    }
}
