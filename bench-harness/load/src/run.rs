//! One run against a broker that is there: a topic of its own, producers and consumers on one thread, the phases,
//! the check, the results.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use corelog_client::{Client, ClientConfig, ConsumerConfig, Partitions, Position, ProducerConfig, Topic};
use tokio::task::{JoinSet, LocalSet};

use crate::assignment::Assignment;
use crate::clock::Clock;
use crate::connections::Spread;
use crate::consumer::LoadConsumer;
use crate::error::LoadError;
use crate::hiccup::Watch;
use crate::interrupt::Interrupt;
use crate::lanes::Lanes;
use crate::machine::{self, CpuUse, run_number};
use crate::payload::Payload;
use crate::phase::{Measured, Phase};
use crate::producer::{LoadProducer, Until};
use crate::progress::{Observer, Progress, Stage};
use crate::report::Histograms;
use crate::results::BrokerUse;
use crate::schedule::Schedule;
use crate::shared::Shared;
use crate::verify::Check;
use crate::workload::{ContentSource, Length, Pace, Workload};

/// Open files of the load beside its connections: more than it has.
const OTHER_FILES: u64 = 64;

/// What a run found; [`crate::bench`] makes the results of it.
pub struct Outcome {
    /// When it began.
    pub started: SystemTime,
    /// The closed phase.
    pub saturation: Option<Measured>,
    /// The open phase.
    pub open_loop: Option<Measured>,
    /// Its rate, in records a second.
    pub rate: Option<f64>,
    /// Mean size of a value, in bytes.
    pub record_bytes: u64,
    /// Whether everything came back.
    pub check: Check,
    /// For the report.
    pub histograms: Histograms,
}

/// Runs `workload` against the broker at `server` (`HOST:PORT`); blocks the calling thread, which is the one that makes the load.
pub fn run(
    workload: &Workload,
    server: &str,
    interrupt: &mut Interrupt,
    observer: Observer<'_>,
) -> Result<Outcome, LoadError> {
    let interrupted = async {
        interrupt.seen().await;
        LoadError::Interrupted
    };
    run_until(workload, server, interrupted, observer)
}

/// The same, until `stop` says why it cannot go on.
pub(crate) fn run_until(
    workload: &Workload,
    server: &str,
    stop: impl Future<Output = LoadError>,
    observer: Observer<'_>,
) -> Result<Outcome, LoadError> {
    workload.check()?;
    let clock = Clock::start();
    let watch = Watch::new(clock);
    let (parks, unparks) = (watch.clone(), watch.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || parks.parks())
        .on_thread_unpark(move || unparks.unparks())
        .build()
        .map_err(|cause| LoadError::System { operation: "starting the load's runtime", cause })?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut work = pin!(work(workload, server, clock, watch, observer));
        tokio::select! {
            outcome = &mut work => outcome,
            why = stop => Err(why),
        }
    })
}

async fn work(
    workload: &Workload,
    server: &str,
    clock: Clock,
    watch: Watch,
    observer: Observer<'_>,
) -> Result<Outcome, LoadError> {
    let payload = payload(workload)?;
    let record_bytes = payload.mean_bytes();
    let client = connect(server).await?;
    let name = format!("corelog-bench-{:012x}", run_number());
    let topic = client.create_topic(&name, workload.partitions, workload.durability).await?;
    let run_records = (workload.batch_bytes / record_bytes.max(1)).clamp(1, 1 << 20) as u32;
    let assignment = Assignment::new(workload.producers, workload.partitions, run_records);
    let spread = Spread::new(workload);
    allow_files(spread, &topic)?;
    let mut run = Run {
        workload,
        spread,
        client,
        topic,
        shared: Rc::new(Shared::new(clock, watch, payload, assignment)),
        producers: Vec::new(),
        consumers: JoinSet::new(),
        histograms: Histograms::default(),
        begun: Instant::now(),
        observer,
    };
    let started = SystemTime::now();
    run.connect_producers()?;
    if workload.consumers > 0 {
        run.connect_consumers().await?;
    }
    if workload.fill_bytes > 0 {
        let records = workload.fill_bytes.div_ceil(record_bytes as u64);
        run.phase(Stage::Fill, Length::Records(records), None).await?;
    }
    let mut saturation = None;
    if !matches!(workload.pace, Pace::Rate(_)) {
        saturation = Some(run.phase(Stage::Saturation, workload.length, None).await?);
    }
    let rate = match workload.pace {
        Pace::Saturation => None,
        Pace::Rate(rate) => Some(rate),
        Pace::Half => saturation.as_ref().map(|measured| (measured.records_per_second() / 2.0).max(1.0)),
    };
    let mut open_loop = None;
    if let Some(rate) = rate {
        open_loop = Some(run.phase(Stage::OpenLoop, workload.length, Some(rate)).await?);
    }
    let check = run.verify().await?;
    run.client.delete_topic(&name).await?;
    let histograms = std::mem::take(&mut run.histograms);
    Ok(Outcome { started, saturation, open_loop, rate, record_bytes: record_bytes as u64, check, histograms })
}

async fn connect(server: &str) -> Result<Client, LoadError> {
    let config = ClientConfig { name: "corelog-bench".to_owned(), ..ClientConfig::new([server]) };
    Ok(Client::connect(config).await?)
}

/// Every connection is an open file, one for each broker core.
fn allow_files(spread: Spread, topic: &Topic) -> Result<(), LoadError> {
    let cores: BTreeSet<&str> = topic.partitions().iter().map(|place| place.address.as_str()).collect();
    let needed =
        (u64::from(spread.writing()) + u64::from(spread.reading())) * cores.len() as u64 + OTHER_FILES;
    match machine::open_files() {
        allowed if allowed < needed => Err(LoadError::OpenFiles { allowed, needed }),
        _ => Ok(()),
    }
}

fn payload(workload: &Workload) -> Result<Payload, LoadError> {
    match &workload.content {
        ContentSource::Size(bytes) => Ok(Payload::generated(workload.seed, *bytes)),
        ContentSource::Lines(path) => Ok(Payload::lines(workload.seed, lines(path)?)),
    }
}

fn lines(path: &Path) -> Result<Vec<Box<[u8]>>, LoadError> {
    let fault = |cause| LoadError::Payload { path: path.to_path_buf(), cause };
    let bytes = std::fs::read(path).map_err(|cause| fault(Some(cause)))?;
    let lines: Vec<Box<[u8]>> =
        bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(Into::into).collect();
    if lines.is_empty() { Err(fault(None)) } else { Ok(lines) }
}

struct Run<'a> {
    workload: &'a Workload,
    spread: Spread,
    client: Client,
    topic: Topic,
    shared: Rc<Shared>,
    /// All of them between two phases, none during one.
    producers: Vec<LoadProducer>,
    /// Each returns when it is told by `Shared::stop`, or fails.
    consumers: JoinSet<Result<LoadConsumer, LoadError>>,
    histograms: Histograms,
    begun: Instant,
    observer: Observer<'a>,
}

impl Run<'_> {
    fn connect_producers(&mut self) -> Result<(), LoadError> {
        let config = ProducerConfig {
            batch_bytes: self.workload.batch_bytes,
            max_buffer_bytes: self.spread.buffer_bytes(),
            max_in_flight: self.workload.in_flight,
            codec: self.workload.codec,
            ..ProducerConfig::default()
        };
        let producers = (0..self.spread.writing()).map(|_| self.client.producer(config.clone())).collect();
        let mut lanes = Lanes::new(self.topic.clone(), self.spread, self.shared.clone(), producers);
        for index in 0..self.workload.producers {
            self.producers.push(LoadProducer::new(index, &mut lanes, self.shared.clone())?);
        }
        Ok(())
    }

    async fn connect_consumers(&mut self) -> Result<(), LoadError> {
        for connection in 0..self.spread.reading() {
            // Offset 0, not the start: a reader that comes too late is told how much has expired.
            let config = ConsumerConfig {
                partitions: Partitions::Only(self.spread.read_by(connection)),
                max_bytes: self.spread.fetch_bytes(),
                prefetch_bytes: self.spread.prefetch_bytes(),
                ..ConsumerConfig::new(&self.topic, Position::Offset(0))
            };
            let mut consumer = LoadConsumer::new(&self.client, config, self.shared.clone()).await?;
            let shared = self.shared.clone();
            self.consumers.spawn_local(async move {
                tokio::select! {
                    result = consumer.read() => result?,
                    () = shared.stopped() => {}
                }
                Ok(consumer)
            });
        }
        Ok(())
    }

    /// Drives all producers through one phase, with a rate for an open loop, and measures it.
    async fn phase(
        &mut self,
        stage: Stage,
        length: Length,
        rate: Option<f64>,
    ) -> Result<Measured, LoadError> {
        // Time for the tasks to start: the first intended time is not in the past.
        let start_ns = self.shared.clock.now_ns() + if rate.is_some() { 5_000_000 } else { 0 };
        let first = self.producers.iter().map(LoadProducer::sent).collect();
        self.shared.begin_phase(rate.map(|rate| Schedule::new(start_ns, rate, first)));
        let before = self.usage().await?;
        let phase = Phase::begin(&self.shared, self.begun, stage, length, self.workload.pace);

        let count = self.producers.len() as u64;
        let mut running = JoinSet::new();
        for (turn, mut producer) in (0..).zip(self.producers.drain(..)) {
            let until = match length {
                Length::Duration(duration) => Until::Time(start_ns + duration.as_nanos() as u64),
                Length::Records(records) => {
                    Until::Number(producer.sent() + records / count + u64::from(turn < records % count))
                }
            };
            running.spawn_local(async move {
                match rate {
                    None => producer.saturate(until).await,
                    Some(_) => producer.follow_schedule(until).await,
                }?;
                Ok::<_, LoadError>(producer)
            });
        }
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.tick().await;
        while !running.is_empty() {
            tokio::select! {
                Some(done) = running.join_next() => self.producers.push(joined(done)?),
                Some(ended) = self.consumers.join_next() => drop(joined(ended)?),
                _ = ticks.tick() => {
                    phase.end_interval(&mut self.histograms);
                    (self.observer)(&phase.progress());
                }
            }
        }
        self.producers.sort_by_key(LoadProducer::index);
        let after = self.usage().await?;
        let measured = phase.end(&mut self.histograms, &before, &after);
        (self.observer)(&Progress { done: true, ..phase.progress() });
        Ok(measured)
    }

    /// Waits until the consumers have come to the end of every partition, or nothing arrives any more.
    async fn verify(&mut self) -> Result<Check, LoadError> {
        if self.workload.consumers == 0 {
            self.shared.begin_phase(None);
            self.connect_consumers().await?;
        }
        let mut ends = Vec::new();
        for partition in 0..self.workload.partitions {
            ends.push(self.client.offset(&self.topic, partition, Position::End).await?);
        }
        let Workload { length, pace, .. } = self.workload;
        let phase = Phase::begin(&self.shared, self.begun, Stage::Verify, *length, *pace);
        let at_end =
            |shared: &Shared| (0..).zip(&ends).all(|(partition, end)| shared.position(partition) >= *end);
        let mut consumed = self.shared.counts().consumed;
        let mut progressed = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while !at_end(&self.shared) && progressed.elapsed() < self.workload.patience {
            tokio::select! {
                Some(ended) = self.consumers.join_next() => drop(joined(ended)?),
                _ = ticks.tick() => (self.observer)(&phase.progress()),
            }
            let now = self.shared.counts().consumed;
            if now != consumed {
                (consumed, progressed) = (now, Instant::now());
            }
        }
        self.shared.stop();
        let sent: Vec<u64> = self.producers.iter().map(LoadProducer::sent).collect();
        let mut check = Check::default();
        while let Some(ended) = self.consumers.join_next().await {
            joined(ended)?.checks().for_each(|partition| check.add(&partition.verdict(&sent)));
        }
        Ok(check)
    }

    async fn usage(&self) -> Result<Usage, LoadError> {
        let status = self.client.status().await?;
        Ok(Usage { at: Instant::now(), cpu: CpuUse::now(), broker: BrokerUse::of(&status) })
    }
}

/// What had been used up to an instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) at: Instant,
    pub(crate) cpu: CpuUse,
    pub(crate) broker: BrokerUse,
}

/// A task of ours that panics ends the process (panic = abort), and none is cancelled.
fn joined<T>(result: Result<Result<T, LoadError>, tokio::task::JoinError>) -> Result<T, LoadError> {
    result.expect("a task of the load runs to its end")
}
