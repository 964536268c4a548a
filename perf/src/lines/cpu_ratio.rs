//! What the broker's CPU per byte comes to in one way of serving, over that in others: benches in turns, one after the
//! other, so that what the machine does meanwhile meets all of them.

use std::io;

use crate::budget::Run;
use crate::lines::bench::bench;
use crate::measure::{Measure, of_bench};
use crate::place::Place;
use crate::sample::Sample;

pub(super) fn measure(run: &Run, place: &Place) -> io::Result<Sample> {
    let mut sample = Sample::default();
    let mut one = |arguments: &Vec<String>| -> io::Result<Option<f64>> {
        let results = bench(&run.with(arguments), place, None)?;
        let cpu = of_bench(&results).figures.get(&Measure::CpuNsPerByte).copied();
        let rate = results.produce.bytes_per_second / 1e9;
        sample.say(match cpu {
            Some(cpu) => format!("{}: {cpu:.3} ns a byte at {rate:.2} GB/s", arguments.join(" ")),
            None => format!("{}: others used the machine", arguments.join(" ")),
        });
        Ok(cpu)
    };
    // In the middle of the others: what drifts one way favours nobody.
    let half = run.beside.len() / 2;
    let sides = run.beside[..half].iter().chain([&run.judged]).chain(&run.beside[half..]);
    let figures = sides.map(&mut one).collect::<io::Result<Vec<_>>>()?;
    if let Some(mut others) = figures.into_iter().collect::<Option<Vec<f64>>>() {
        let judged = others.remove(half);
        sample.set(Measure::CpuRatio, ratio(judged, &others));
    }
    Ok(sample)
}

/// Over the mean of the others.
fn ratio(judged: f64, others: &[f64]) -> f64 {
    judged * others.len() as f64 / others.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_judged_is_set_against_the_mean_of_the_others() {
        assert_eq!(ratio(1.5, &[1.0, 2.0]), 1.0);
        assert_eq!(ratio(0.5, &[0.25]), 2.0);
    }
}
