//! One way to measure per file. Each runs once and gives one sample; rounds and judgement are others'.

mod bench;
mod catch_up;
mod checks;
mod cold;
mod cpu_ratio;
mod fio;
mod parked;
mod partitions;
mod restart;
mod stalled;
mod tail;

use std::io;

use crate::budget::{Kind, Run};
use crate::place::Place;
use crate::sample::Sample;

/// Measures `run` once. An error of kind `Interrupted` ends the gate; any other is the run's own failure.
pub fn measure(run: &Run, place: &Place) -> io::Result<Sample> {
    match run.kind {
        Kind::Bench => bench::measure(run, place),
        Kind::CpuRatio => cpu_ratio::measure(run, place),
        Kind::Fio => fio::measure(run, place),
        Kind::Cold => cold::measure(run, place),
        Kind::Tail => tail::measure(place),
        Kind::Stalled => stalled::measure(run, place),
        Kind::Parked => parked::measure(run, place),
        Kind::Partitions => partitions::measure(place),
        Kind::Restart => restart::measure(place),
        Kind::Allocations => checks::allocations(place),
        Kind::SystemCalls => checks::system_calls(run, place),
    }
}
