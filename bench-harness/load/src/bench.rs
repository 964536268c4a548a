//! `corelog bench`: the broker of the run, the baselines around it, the run, and the results made of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use crate::broker::{BrokerError, BrokerProcess};
use crate::connections::Spread;
use crate::cores::Placement;
use crate::device;
use crate::error::LoadError;
use crate::interrupt::Interrupt;
use crate::machine::{self, CpuUse};
use crate::netns::{self, Inside, Netns};
use crate::phase::Measured;
use crate::progress::{Observer, Progress, Stage};
use crate::report::Histograms;
use crate::results::{
    BrokerResult, ConsumeResult, DeviceResult, MachineResult, ProduceResult, Results, SCHEMA, WorkloadResult,
    ratio,
};
use crate::run::{Outcome, run, run_until};
use crate::workload::{ContentSource, Length, Workload};

/// Below this a run does not start a broker of its own.
pub const FREE_BYTES_NEEDED: u64 = 4 << 30;
/// The cap of a recycled log; several share it, as long as each has enough.
pub const RETENTION_BYTES: u64 = 2 << 30;
/// The least cap of one of them: the four extents that a log which recycles has at least.
const LEAST_RETENTION_BYTES: u64 = 1 << 30;
/// Connections that a broker takes by default ...
const BROKER_CONNECTIONS: u32 = 1024;
/// ... of which some are for what is asked beside the load.
const OTHER_CONNECTIONS: u32 = 8;
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
    /// Shards; [`Placement::broker`] has the cores of them.
    pub shards: u16,
    /// Broker and load are in two network namespaces, instead of one and the same.
    pub netns: bool,
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

/// Runs `workload` from start to end. Blocks; pins the calling thread to the load's cores.
pub fn bench(
    workload: &Workload,
    which: &Which,
    placement: &Placement,
    interrupt: &mut Interrupt,
    observer: Observer<'_>,
) -> Result<Bench, LoadError> {
    workload.check()?;
    let mut machine = machine::describe(placement.apart().load as u32);
    machine.idle_cpu_per_second = idle_cpu_per_second();
    match which {
        Which::Server(server) => {
            machine.load_cores = numbers(&placement.pin_load());
            let outcome = run(workload, server, interrupt, observer)?;
            machine.idle_cpu_per_second = machine.idle_cpu_per_second.min(idle_cpu_per_second());
            Ok(conclude(workload, which, outcome, machine, None))
        }
        Which::Own(own) => run_own(workload, which, own, placement, machine, interrupt, observer),
    }
}

fn run_own(
    workload: &Workload,
    which: &Which,
    own: &OwnBroker,
    placement: &Placement,
    mut machine: MachineResult,
    interrupt: &mut Interrupt,
    observer: Observer<'_>,
) -> Result<Bench, LoadError> {
    let netns = if own.netns { Some(Netns::make()?) } else { None };
    let data = data_directory(&own.directory)?;
    let cores = placement.apart();
    machine.broker_cores = numbers(&placement.broker);
    machine.broker_core = machine.broker_cores.first().copied();
    machine.shared = Some(placement.shared);
    machine.network = Some(if own.netns { "netns (veth)" } else { "loopback" }.to_owned());
    machine.file_system = machine::file_system(data.path());
    let mut workload = workload.clone();
    if !own.growing {
        // One extent more than the cap: the first recycled one is in use when the window begins.
        workload.fill_bytes = own.retention_bytes() + (256 << 20) * u64::from(own.shards);
    }
    let measure = |observer: Observer<'_>| -> Result<Option<DeviceResult>, LoadError> {
        let Some(duration) = own.baseline else { return Ok(None) };
        observer(&Progress::of(Stage::Baseline));
        device::measure(data.path(), own.growing, cores, netns.as_ref(), duration).map(Some)
    };
    let before = measure(observer)?;
    if interrupt.is_seen() {
        return Err(LoadError::Interrupted);
    }
    // A process is where the thread is that starts it.
    let inside = netns.as_ref().map(|netns| Inside::enter(&netns.broker)).transpose()?;
    let broker = BrokerProcess::start(serve(own, &workload, placement, data.path()))?;
    drop(inside);
    let ready = Ready::parse(broker.ready_line())?;
    machine.broker_ready = Some(ready.line.clone());
    machine.load_cores = numbers(&placement.pin_load());
    let inside = netns.as_ref().map(|netns| Inside::enter(&netns.load)).transpose()?;
    let died = broker.ended();
    let stop = async {
        tokio::select! {
            () = interrupt.seen() => LoadError::Interrupted,
            () = died => LoadError::Broker(BrokerError::Died),
        }
    };
    let outcome = run_until(&workload, &ready.address, stop, observer)?;
    drop(inside);
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

fn serve(own: &OwnBroker, workload: &Workload, placement: &Placement, data: &Path) -> Command {
    let mut command = Command::new(&own.program);
    command.args([
        "serve",
        "--format",
        "json",
        "--with-parent",
        "--listen",
        &format!("{}:0", netns::broker_address(own.netns)),
        "--mode",
        &own.mode,
    ]);
    command.arg("--data-dir").arg(data.join("store"));
    // Two runs at a time, or one beside a broker, must not ask for the same port.
    command.args(["--set", "server.http="]);
    command.args(["--shards", &own.shards.to_string(), "--cpus", &placement.cpus()]);
    // Said in both cases: the environment may have a cap of its own.
    let cap = if own.growing { 0 } else { own.retention_bytes() };
    command.args(["--set", &format!("log.retention_bytes={cap}")]);
    let spread = Spread::new(workload);
    let connections = spread.writing() + spread.reading() + OTHER_CONNECTIONS;
    if connections > BROKER_CONNECTIONS {
        command.args(["--set", &format!("limits.connections={connections}")]);
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

/// Cores as the document has them.
fn numbers(cores: &[usize]) -> Vec<u32> {
    cores.iter().map(|&core| core as u32).collect()
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
    let spread = Spread::new(workload);
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
        producer_connections: spread.writing(),
        consumers: workload.consumers,
        consumer_connections: if workload.consumers == 0 { 0 } else { spread.reading() },
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

    fn own() -> OwnBroker {
        OwnBroker {
            program: "corelog".into(),
            directory: ".".into(),
            mode: "park".to_owned(),
            shards: 1,
            netns: false,
            growing: false,
            set: vec!["log.frame_bytes=1 MiB".to_owned()],
            baseline: None,
        }
    }

    /// What the broker is started with.
    fn arguments(own: &OwnBroker, workload: &Workload, cores: &[usize]) -> String {
        let placement = Placement { broker: cores.to_vec(), ..Placement::default() };
        let command = serve(own, workload, &placement, Path::new("/d"));
        let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
        arguments.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_recycled_log_is_capped_and_a_growing_one_is_not_whatever_the_environment_says() {
        let mut own = own();
        let arguments = |own: &OwnBroker, cores: &[usize]| arguments(own, &Workload::default(), cores);
        let recycled = arguments(&own, &[3]);
        assert!(recycled.contains("--set log.retention_bytes=2147483648"), "{recycled}");
        assert!(recycled.contains("--set server.http= "), "it asks for no port that another has: {recycled}");
        assert!(
            recycled.contains("--shards 1 --cpus 3-3") && recycled.contains("--set log.frame_bytes=1 MiB")
        );
        assert!(own.is_capped());
        own.growing = true;
        assert!(arguments(&own, &[3]).contains("--set log.retention_bytes=0 "));
        assert!(!own.is_capped());
        own.set.push("log.retention_bytes=1 GiB".to_owned());
        let both = arguments(&own, &[3]);
        assert!(
            both.find("retention_bytes=0") < both.find("retention_bytes=1 GiB"),
            "the last one counts: {both}"
        );
        assert!(own.is_capped());
        own.set.push("log.retention_bytes=0".to_owned());
        assert!(!own.is_capped(), "the last one counts, and 0 is none");
        (own.shards, own.growing) = (4, false);
        let shared = arguments(&own, &[0, 1, 2, 3]);
        assert!(shared.contains("--shards 4 --cpus 0-0,1-1,2-2,3-3 "), "{shared}");
        assert!(shared.contains("--set log.retention_bytes=4294967296"), "{shared}");
    }

    #[test]
    fn the_broker_listens_where_the_load_finds_it_and_takes_all_connections() {
        let mut own = own();
        let default = Workload::default();
        let loopback = arguments(&own, &default, &[]);
        assert!(loopback.contains("--listen 127.0.0.1:0 ") && loopback.contains("--cpus any "), "{loopback}");
        assert!(!loopback.contains("limits.connections"), "{loopback}");
        own.netns = true;
        assert!(arguments(&own, &default, &[]).contains("--listen 10.107.0.1:0 "));
        let many = Workload { producers: 1_500, connections: Some(1_500), ..default };
        assert!(arguments(&own, &many, &[]).contains("--set limits.connections=1512"));
    }
}
