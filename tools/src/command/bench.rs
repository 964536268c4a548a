//! `corelog bench`: the load, its progress, the table and the report directory.

mod cores;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use corelog_load::results::Results;
use corelog_load::{
    ContentSource, Interrupt, Length, OwnBroker, Pace, Placement, Progress, Which, Workload, bench, bytes,
    report, table,
};
use corelog_server::placement::PlacementError;
use corelog_uring::affinity;
use corelog_uring::topology::Topology;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Bench, Format, Mode, Rate};
use crate::failure::{Failure, REPORT};
use crate::output::Output;

pub(super) fn run(arguments: &Bench, format: Format) -> Result<(), Failure> {
    let workload = workload(arguments);
    let which = which(arguments)?;
    let placement = placement(arguments)?;
    let mut interrupt =
        Interrupt::watch().map_err(|error| Failure::io("signals cannot be waited for", &error))?;
    let mut display = Display::new();
    let result = bench(&workload, &which, &placement, &mut interrupt, &mut |progress| display.show(progress));
    display.end();
    let run = result.map_err(|error| Failure::load(&error))?;

    let directory = arguments.report.clone().unwrap_or_else(|| report_directory(run.started));
    report::write(&directory, &run.results, &run.histograms, run.started)
        .map_err(|error| Failure::io(error.to_string(), &error.cause))?;
    let mut output = Output::new();
    match format {
        Format::Text => {
            output.bytes(table(&run.results).as_bytes())?;
            output.line(&format!("report      {}", directory.display()))?;
        }
        Format::Json => {
            let document = serde_json::to_value(&run.results)
                .map_err(|error| Failure::new("JSON", "the result cannot be written", REPORT).cause(error))?;
            output.json(&document)?;
            eprintln!("report: {}", directory.display());
        }
    }
    output.flush()?;
    verdict(&run.results)
}

/// A run whose records are not all accounted for is a failure.
fn verdict(results: &Results) -> Result<(), Failure> {
    if results.passed() {
        return Ok(());
    }
    let cause = match results.wrongly_expired() {
        0 => format!("{:?}", results.check),
        expired => format!("{expired} records expired in a log without a cap; {:?}", results.check),
    };
    let help = "this is a bug of corelog or damage on the way: keep the report and file an issue";
    Err(Failure::new("CHECK", "what came back is not what was acknowledged", help).cause(cause))
}

fn workload(arguments: &Bench) -> Workload {
    let default = Workload::default();
    let batch_bytes = usize::try_from(arguments.batch_bytes).unwrap_or(usize::MAX);
    Workload {
        length: arguments.records.map_or(Length::Duration(arguments.duration), Length::Records),
        pace: match arguments.rate {
            None => Pace::Half,
            Some(Rate::Max) => Pace::Saturation,
            Some(Rate::PerSecond(rate)) => Pace::Rate(rate),
        },
        content: match &arguments.payload_file {
            Some(path) => ContentSource::Lines(path.clone()),
            None => ContentSource::Size(usize::try_from(arguments.record_size).unwrap_or(usize::MAX)),
        },
        producers: arguments.producers.unwrap_or(default.producers.max(arguments.connections.unwrap_or(0))),
        // Fewer partitions than the default number of consumers is no mistake of the caller's.
        consumers: arguments.consumers.min(arguments.partitions),
        connections: arguments.connections,
        partitions: arguments.partitions,
        batch_bytes,
        buffer_bytes: default.buffer_bytes.max(batch_bytes.saturating_mul(4)),
        in_flight: arguments.in_flight.into(),
        codec: arguments.codec.into(),
        durability: arguments.durability.into(),
        seed: arguments.seed.unwrap_or(default.seed),
        ..default
    }
}

fn which(arguments: &Bench) -> Result<Which, Failure> {
    if let Some(server) = &arguments.server {
        return Ok(Which::Server(server.clone()));
    }
    let program =
        std::env::current_exe().map_err(|error| Failure::io("the corelog binary cannot be found", &error))?;
    Ok(Which::Own(OwnBroker {
        program,
        directory: PathBuf::from("."),
        mode: arguments.mode.unwrap_or(Mode::Adaptive).name().to_owned(),
        shards: arguments.shards,
        netns: arguments.netns,
        growing: arguments.growing,
        set: arguments.set.clone(),
        baseline: (!arguments.no_baselines).then_some(arguments.baseline),
    }))
}

/// The cores that were asked for, or the best ones.
fn placement(arguments: &Bench) -> Result<Placement, Failure> {
    let topology = Topology::read(Path::new("/"), affinity::cores());
    let shards = arguments.server.is_none().then_some(arguments.shards);
    let (broker, load) = (arguments.cpus.as_ref(), arguments.load_cpus.as_ref());
    cores::choose(&topology, shards, broker, load).map_err(|error| match error {
        cores::CoresError::Broker(error) => Failure::usage("the broker has no such cores").cause(error),
        cores::CoresError::Load(PlacementError::TooFew { shards: asked, cpus }) => {
            let cause = format!("{asked} processors are asked for, and {cpus} may be used");
            Failure::usage("the load has no such cores").cause(cause)
        }
        cores::CoresError::Load(error) => Failure::usage("the load has no such cores").cause(error),
    })
}

/// `./corelog-report-` and the date and time in UTC.
fn report_directory(started: SystemTime) -> PathBuf {
    let seconds = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    PathBuf::from(format!("./corelog-report-{}", date(seconds)))
}

/// `YYYYMMDD-HHMMSS` of a time in seconds since 1970, by the civil-from-days rule of the proleptic calendar.
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// Progress on standard error: a bar on a terminal, a line per stage elsewhere.
struct Display {
    bar: Option<ProgressBar>,
}

impl Display {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: None };
        }
        let bar = ProgressBar::new(1_000);
        let style =
            ProgressStyle::with_template("{prefix:>10} [{bar:30}] {msg}").expect("the template is valid");
        bar.set_style(style.progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar: Some(bar) }
    }

    fn show(&mut self, progress: &Progress) {
        let message = format!(
            "{:.0} records/s, {}/s, {} acknowledged, {} consumed",
            progress.records_per_second,
            bytes(progress.bytes_per_second),
            progress.acknowledged,
            progress.consumed,
        );
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(progress.stage.name());
                bar.set_position((progress.fraction.unwrap_or(1.0) * 1_000.0) as u64);
                bar.set_message(message);
            }
            None if progress.done => {
                eprintln!(
                    "{:>10}  {:.1} s, {message}",
                    progress.stage.name(),
                    progress.elapsed.as_secs_f64()
                );
            }
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn parsed(arguments: &[&str]) -> Bench {
        let cli = Cli::try_parse_from([&["corelog", "bench"][..], arguments].concat()).expect("a valid line");
        let Command::Bench(bench) = cli.command else { panic!("it is bench") };
        bench
    }

    #[test]
    fn there_are_producers_for_all_connections_unless_their_number_is_said() {
        let counts = |arguments: &[&str]| {
            let workload = workload(&parsed(arguments));
            (workload.producers, workload.connections, workload.check().is_ok())
        };
        assert_eq!(counts(&[]), (4, None, true));
        assert_eq!(counts(&["--connections", "1"]), (4, Some(1), true));
        assert_eq!(counts(&["--connections", "200"]), (200, Some(200), true));
        assert_eq!(counts(&["--connections", "8", "--producers", "2"]), (2, Some(8), true));
        assert_eq!(counts(&["--connections", "9", "--producers", "2"]), (2, Some(9), false));
    }

    #[test]
    fn records_that_expire_in_a_log_without_a_cap_are_a_failure_in_words() {
        let mut results = Results::default();
        results.check.expired = 3;
        assert_eq!(verdict(&results), Ok(()), "nobody said that it has none");
        results.workload.capped = Some(false);
        let failure = verdict(&results).expect_err("a failure");
        assert_eq!((failure.code, failure.exit), ("CHECK", crate::failure::Exit::Failed));
        let cause = failure.cause.expect("a cause");
        assert!(cause.contains("3 records expired in a log without a cap"), "{cause}");
    }

    #[test]
    fn report_directories_sort_by_time() {
        assert_eq!(date(0), "19700101-000000");
        assert_eq!(date(951_782_400), "20000229-000000");
        assert_eq!(date(1_795_365_999), "20261122-164639");
    }
}
