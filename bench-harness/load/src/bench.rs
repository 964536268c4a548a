//! `corelog bench`: the broker of the run, the baselines around it, the run, and the results made of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use corelog_uring::affinity;
use tempfile::TempDir;

use crate::broker::{BrokerError, BrokerProcess};
use crate::device;
use crate::error::LoadError;
use crate::interrupt::Interrupt;
use crate::machine::{self, CpuUse};
use crate::phase::Measured;
use crate::progress::{Observer, Progress, Stage};
use crate::report::Histograms;
use crate::results::{
    BrokerResult, ConsumeResult, DeviceResult, MachineResult, ProduceResult, Results, SCHEMA, WorkloadResult,
    ratio,
};
use crate::run::{Outcome, run};
use crate::workload::{ContentSource, Length, Workload};

/// Below this a run does not start a broker of its own.
pub const FREE_BYTES_NEEDED: u64 = 4 << 30;
/// The cap of a recycled log; several share it, as long as each has enough.
pub const RETENTION_BYTES: u64 = 2 << 30;
/// The least cap of one of them: the four extents that a log which recycles has at least.
const LEAST_RETENTION_BYTES: u64 = 1 << 30;
/// The idle machine is watched in windows of this length ...
const IDLE_WINDOW: Duration = Duration::from_millis(250);
/// ... so many before the run and as many after it.
const IDLE_WINDOWS: u32 = 4;

/// The broker that a run starts.
#[derive(Clone, Debug)]
pub struct OwnBroker {
    /// The `corelog` binary.
    pub program: PathBuf,
    /// Where its temporary directory is made.
    pub directory: PathBuf,
    /// `poll`, `adaptive` or `park`.
    pub mode: String,
    /// Shards, each on a core of its own.
    pub shards: u16,
    /// Cores for them, as `server.cpus`; without it those that the load leaves, or all if that is too few.
    pub cpus: Option<String>,
    /// No cap: every byte goes to an extent that was never written.
    pub growing: bool,
    /// Further `section.key=value`.
    pub set: Vec<String>,
    /// Measure the device before and after, the disk's throughput for this long each time.
    pub baseline: Option<Duration>,
}

impl OwnBroker {
    /// The cap of all logs together.
    fn retention_bytes(&self) -> u64 {
        RETENTION_BYTES.max(LEAST_RETENTION_BYTES * u64::from(self.shards))
    }

    /// The cores of the shards; `core` is that of the only one.
    fn cpus(&self, core: usize, load: usize) -> String {
        let left = affinity::cores().iter().filter(|&&other| other != load);
        let left: Vec<String> = left.map(|core| format!("{core}-{core}")).collect();
        match &self.cpus {
            Some(cpus) => cpus.clone(),
            None if self.shards == 1 => format!("{core}-{core}"),
            None if left.len() >= self.shards.into() => left[..self.shards.into()].join(","),
            None => "all".to_owned(),
        }
    }

    /// Whether old records are recycled: by the cap that a run sets, or one that was set beside it.
    fn is_capped(&self) -> bool {
        let cap = |set: &String| {
            let (key, value) = set.split_once('=')?;
            (key.trim() == "log.retention_bytes").then(|| value.contains(|digit| matches!(digit, '1'..='9')))
        };
        self.set.iter().rev().find_map(cap).unwrap_or(!self.growing)
    }
}

/// Against which broker.
#[derive(Clone, Debug)]
pub enum Which {
    /// One that is there.
    Server(String),
    /// One that is started for the run and gone after it.
    Own(OwnBroker),
}

/// A whole run.
pub struct Bench {
    /// The document.
    pub results: Results,
    /// For the report.
    pub histograms: Histograms,
    /// When it began.
    pub started: SystemTime,
}

/// Runs `workload` from start to end. Blocks; pins the calling thread to the load's core.
pub fn bench(
    workload: &Workload,
    which: &Which,
    interrupt: &mut Interrupt,
    observer: Observer<'_>,
) -> Result<Bench, LoadError> {
    workload.check()?;
    let cores = Cores::choose();
    let mut machine = machine::describe(cores.load as u32);
    machine.idle_cpu_per_second = idle_cpu_per_second();
    match which {
        Which::Server(server) => {
            cores.pin_load();
            let outcome = run(workload, server, interrupt, observer)?;
            machine.idle_cpu_per_second = machine.idle_cpu_per_second.min(idle_cpu_per_second());
            Ok(conclude(workload, which, outcome, machine, None))
        }
        Which::Own(own) => run_own(workload, which, own, cores, machine, interrupt, observer),
    }
}

fn run_own(
    workload: &Workload,
    which: &Which,
    own: &OwnBroker,
    cores: Cores,
    mut machine: MachineResult,
    interrupt: &mut Interrupt,
    observer: Observer<'_>,
) -> Result<Bench, LoadError> {
    let data = data_directory(&own.directory)?;
    machine.broker_core = Some(cores.broker as u32);
    machine.file_system = machine::file_system(data.path());
    let mut workload = workload.clone();
    if !own.growing {
        // One extent more than the cap: the first recycled one is in use when the window begins.
        workload.fill_bytes = own.retention_bytes() + (256 << 20) * u64::from(own.shards);
    }
    let measure = |observer: Observer<'_>| -> Result<Option<DeviceResult>, LoadError> {
        let Some(duration) = own.baseline else { return Ok(None) };
        observer(&Progress::of(Stage::Baseline));
        device::measure(data.path(), own.growing, cores.broker, cores.load, duration).map(Some)
    };
    let before = measure(observer)?;
    if interrupt.is_seen() {
        return Err(LoadError::Interrupted);
    }
    let broker = BrokerProcess::start(serve(own, data.path(), cores))?;
    let ready = Ready::parse(broker.ready_line())?;
    machine.broker_ready = Some(ready.line.clone());
    cores.pin_load();
    let outcome = run(&workload, &ready.address, interrupt, observer)?;
    broker.stop()?;
    machine.idle_cpu_per_second = machine.idle_cpu_per_second.min(idle_cpu_per_second());
    let after = measure(observer)?;
    let device = before.zip(after).map(|(before, after)| before.better(after));
    Ok(conclude(&workload, which, outcome, machine, device))
}

/// A directory of its own below `directory`, gone when it is dropped.
fn data_directory(directory: &Path) -> Result<TempDir, LoadError> {
    let system = |cause| LoadError::System { operation: "making a directory for the data", cause };
    let free = machine::free_bytes(directory).map_err(system)?;
    if free < FREE_BYTES_NEEDED {
        return Err(LoadError::NoSpace { path: directory.to_path_buf(), free, needed: FREE_BYTES_NEEDED });
    }
    tempfile::Builder::new().prefix("corelog-bench-").tempdir_in(directory).map_err(system)
}

fn serve(own: &OwnBroker, data: &Path, cores: Cores) -> Command {
    let mut command = Command::new(&own.program);
    command.args([
        "serve",
        "--format",
        "json",
        "--with-parent",
        "--listen",
        "127.0.0.1:0",
        "--mode",
        &own.mode,
    ]);
    command.arg("--data-dir").arg(data.join("store"));
    command.args(["--shards", &own.shards.to_string(), "--cpus", &own.cpus(cores.broker, cores.load)]);
    // Two runs at a time, or one beside a broker, must not ask for the same port.
    command.args(["--set", "server.http="]);
    if !own.growing {
        command.args(["--set", &format!("log.retention_bytes={}", own.retention_bytes())]);
    }
    for set in &own.set {
        command.args(["--set", set]);
    }
    command
}

/// The JSON ready line of `corelog serve`.
#[derive(serde::Deserialize)]
struct Ready {
    address: String,
    /// For people.
    line: String,
}

impl Ready {
    fn parse(line: &str) -> Result<Self, BrokerError> {
        #[derive(serde::Deserialize)]
        struct Document {
            ready: Ready,
        }
        let document: Result<Document, _> = serde_json::from_str(line);
        document.map(|document| document.ready).map_err(|_| BrokerError::NotReady(line.into()))
    }
}

/// Which core does what: as far apart as the machine allows.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// Of a broker that is started for a run.
    pub broker: usize,
    /// Of the threads that make load.
    pub load: usize,
}

impl Cores {
    /// Of those that this process may use.
    pub fn choose() -> Self {
        let cores = affinity::cores();
        let load = cores.first().copied().unwrap_or(0);
        Self { load, broker: cores.get(1).copied().unwrap_or(load) }
    }

    /// From here on the calling thread makes load. Where the system refuses, the load runs wherever it likes; the
    /// hiccups then tell what that costs.
    fn pin_load(self) {
        affinity::pin(self.load);
    }
}

/// CPU seconds a second of the machine while nothing of ours runs: the least of some windows. A neighbour's burst
/// makes an idle machine look busy, never the reverse, and what is subtracted too much would be the broker's.
fn idle_cpu_per_second() -> f64 {
    let window = |_| {
        let (start, began) = (CpuUse::now(), Instant::now());
        std::thread::sleep(IDLE_WINDOW);
        let used = CpuUse::now().since(start);
        ratio(used.machine - used.load, began.elapsed().as_secs_f64()).max(0.0)
    };
    (0..IDLE_WINDOWS).map(window).fold(f64::INFINITY, f64::min)
}

/// The document of a run. Throughput and CPU are of the saturation phase where there is one; latency is of the
/// open loop where there is one.
fn conclude(
    workload: &Workload,
    which: &Which,
    outcome: Outcome,
    mut machine: MachineResult,
    device: Option<DeviceResult>,
) -> Bench {
    let Outcome { started, saturation, open_loop, rate, record_bytes, check, histograms } = outcome;
    let phases = match (&saturation, &open_loop) {
        (Some(_), Some(_)) => "saturation+open-loop",
        (Some(_), None) => "saturation",
        _ => "open-loop",
    };
    let window = saturation.as_ref().or(open_loop.as_ref()).expect("a run has a phase");
    let latency = open_loop.as_ref().or(saturation.as_ref()).expect("a run has a phase");
    machine.load_cpu_seconds = window.cpu.load;
    machine.window_seconds = window.window.as_secs_f64();
    let machine_cpu_seconds = window.cpu.others(machine.idle_cpu_per_second, window.window);
    let produce = ProduceResult {
        // Where there is one phase, its service time has the name of the run's.
        saturation_service_us: open_loop.as_ref().and(saturation.as_ref()).and_then(|first| first.service),
        ..produce_result(window, latency)
    };
    let results = Results {
        schema: SCHEMA.to_owned(),
        workload: workload_result(workload, which, phases, rate, record_bytes),
        machine,
        consume: consume_result(window, latency),
        broker: BrokerResult::new(
            &window.broker,
            machine_cpu_seconds,
            window.window,
            window.acknowledged,
            window.acknowledged_bytes,
        ),
        machine_cpu_seconds,
        device: device.map(|device| device.used_by(produce.bytes_per_second)),
        produce,
        hiccup_us: latency.hiccup,
        reactor_hiccup_us: latency.broker.lateness.quantiles(),
        flagged: saturation.iter().chain(&open_loop).any(Measured::is_flagged),
        check,
    };
    Bench { results, histograms, started }
}

fn produce_result(window: &Measured, latency: &Measured) -> ProduceResult {
    let seconds = window.window.as_secs_f64();
    ProduceResult {
        records: window.acknowledged,
        bytes: window.acknowledged_bytes,
        records_per_second: ratio(window.acknowledged as f64, seconds),
        bytes_per_second: ratio(window.acknowledged_bytes as f64, seconds),
        response_us: latency.response,
        service_us: latency.service,
        saturation_service_us: None,
        delay_us: latency.delay,
    }
}

fn consume_result(window: &Measured, latency: &Measured) -> ConsumeResult {
    let seconds = window.window.as_secs_f64();
    ConsumeResult {
        records: window.consumed,
        bytes: window.consumed_bytes,
        records_per_second: ratio(window.consumed as f64, seconds),
        bytes_per_second: ratio(window.consumed_bytes as f64, seconds),
        lag_bytes: window.lag_bytes,
        end_to_end_us: latency.end_to_end,
    }
}

fn workload_result(
    workload: &Workload,
    which: &Which,
    phases: &str,
    rate: Option<f64>,
    record_bytes: u64,
) -> WorkloadResult {
    let (duration_seconds, records) = match workload.length {
        Length::Duration(duration) => (Some(duration.as_secs_f64()), None),
        Length::Records(records) => (None, Some(records)),
    };
    let (mode, log, server) = match which {
        Which::Server(server) => (None, "server", Some(server.clone())),
        Which::Own(own) => (Some(own.mode.clone()), if own.growing { "growing" } else { "recycled" }, None),
    };
    let capped = match which {
        Which::Server(_) => None,
        Which::Own(own) => Some(own.is_capped()),
    };
    WorkloadResult {
        phases: phases.to_owned(),
        duration_seconds,
        records,
        rate,
        record_bytes,
        payload_file: match &workload.content {
            ContentSource::Size(_) => None,
            ContentSource::Lines(path) => Some(path.display().to_string()),
        },
        producers: workload.producers,
        consumers: workload.consumers,
        partitions: workload.partitions,
        batch_bytes: workload.batch_bytes as u64,
        codec: format!("{:?}", workload.codec).to_lowercase(),
        durability: workload.durability.name().to_owned(),
        mode,
        log: log.to_owned(),
        capped,
        seed: workload.seed,
        server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_ready_line_and_anything_else_is_refused() {
        let ready = r#"{"ready":{"address":"127.0.0.1:4711","line":"corelog ready","buffered":false}}"#;
        let ready = Ready::parse(ready).expect("a ready line");
        assert_eq!((ready.address.as_str(), ready.line.as_str()), ("127.0.0.1:4711", "corelog ready"));
        for line in ["", "corelog is ready", "{\"ready\":{}}"] {
            assert!(matches!(Ready::parse(line), Err(BrokerError::NotReady(_))), "{line}");
        }
    }

    #[test]
    fn a_recycled_log_is_capped_and_a_growing_one_is_not() {
        let mut own = OwnBroker {
            program: "corelog".into(),
            directory: ".".into(),
            mode: "park".to_owned(),
            shards: 1,
            cpus: None,
            growing: false,
            set: vec!["log.frame_bytes=1 MiB".to_owned()],
            baseline: None,
        };
        let arguments = |own: &OwnBroker| {
            let command = serve(own, Path::new("/d"), Cores { broker: 3, load: 0 });
            command
                .get_args()
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let recycled = arguments(&own);
        assert!(recycled.contains("--set log.retention_bytes=2147483648"), "{recycled}");
        assert!(
            recycled.contains("--shards 1 --cpus 3-3") && recycled.contains("--set log.frame_bytes=1 MiB")
        );
        assert!(own.is_capped());
        own.growing = true;
        assert!(!arguments(&own).contains("retention"));
        assert!(!own.is_capped());
        own.set.push("log.retention_bytes=1 GiB".to_owned());
        assert!(own.is_capped());
        own.set.push("log.retention_bytes=0".to_owned());
        assert!(!own.is_capped(), "the last one counts, and 0 is none");
        (own.shards, own.cpus, own.growing) = (4, Some("0-7".to_owned()), false);
        let shared = arguments(&own);
        assert!(shared.contains("--shards 4 --cpus 0-7 --set log.retention_bytes=4294967296"), "{shared}");
    }
}
