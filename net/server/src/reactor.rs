//! The loop of one core: completions in, decisions, submissions out, and how to wait when there is nothing.
//!
//! **Invariants:** the clock is read once a turn; at most one ring enter a turn, none in an idle one; nothing is
//! awaited within a turn. Decides nothing about connections or the log: that is `core`.

use std::time::Duration;

use corelog_model::time::Now;
use corelog_storage::{DiskOp, FileName};
use corelog_uring::clock;
use corelog_uring::host::{BackgroundDone, Host};
use corelog_uring::ring::{Registration, Ring, RingError};
use corelog_uring::{Completion, FileId, affinity, status};

use crate::config::Mode;
use crate::core::{Core, Opening, Output, Parcel, Turn};
use crate::files::{Ended, Files};
use crate::memory::{Growth, Next};
use crate::metrics::Metrics;
use crate::post::Post;
use crate::roll::Seat;
use crate::server::ServerError;
use crate::status::{Machine, Turns};
use crate::stop::{Stop, Wanted};

/// How long a stopping broker waits for peers to take their replies, in microseconds.
const FAREWELL_US: u64 = 1_000_000;
/// The longest sleep: a reactor that is told nothing looks up once in a while.
const LONGEST_PARK: Duration = Duration::from_secs(1);

/// What drives the core: ring, host and files.
pub(crate) struct Shell {
    pub(crate) host: Host,
    pub(crate) ring: Ring,
    /// By the place of their log on this core.
    pub(crate) files: Vec<Files>,
    pub(crate) out: Output,
    pub(crate) completions: Vec<Completion>,
    pub(crate) done: Vec<BackgroundDone>,
    post: Post,
    /// Came from other cores.
    arrived: Vec<(usize, Parcel)>,
}

/// How a reactor waits, and what it says of its surroundings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    pub(crate) mode: Mode,
    pub(crate) spin_us: u64,
    pub(crate) buffered: bool,
    pub(crate) memory_limit_bytes: u64,
}

/// The running loop.
pub(crate) struct Reactor {
    shell: Shell,
    core: Core,
    /// The rest of the live windows' memory, until all of it is there.
    growth: Option<Growth>,
    manners: Manners,
    stop: Stop,
    metrics: Metrics,
    /// Where the control plane asks.
    seat: Seat,
    ready_us: u64,
    /// Who is to be told once clients are let in.
    joined: Option<Box<dyn FnOnce()>>,
    /// A turn is to be taken although nothing happened.
    again: bool,
    /// When to give up on peers that do not take their replies, once stopping.
    farewell_us: Option<u64>,
}

impl Shell {
    /// A shell around a ring for so many operations, and the directories of logs.
    pub(crate) fn new(host: Host, ring: Ring, files: Vec<Files>, operations: u32, post: Post) -> Self {
        let (out, done) = (Output::sized(operations), Vec::new());
        let completions = Vec::with_capacity(operations as usize);
        Self { host, ring, files, out, completions, done, post, arrived: Vec::new() }
    }

    /// Takes in what has completed; whether that was anything.
    fn collect(&mut self) -> bool {
        self.complete();
        self.post.collect(&mut self.arrived);
        for (_, parcel) in &self.arrived {
            if let Parcel::Region(region) = parcel {
                self.ring.know_region(region);
            }
        }
        !self.completions.is_empty() || !self.done.is_empty() || !self.arrived.is_empty()
    }

    /// Takes in what ring and host have completed.
    fn complete(&mut self) {
        self.ring.completions(&mut self.completions);
        while let Some(core) = self.ring.unheard() {
            self.post.unheard(core as usize);
        }
        self.host.finished(&mut self.done);
    }

    /// Hands over what the decisions want done. A file that is to be replaced or removed is forgotten first.
    fn perform(
        &mut self,
        mut forget: impl FnMut(usize, FileName) -> Option<FileId>,
    ) -> Result<(), RingError> {
        let Self { host, ring, files, out, post, .. } = self;
        for submission in out.submissions.drain(..) {
            ring.push(submission, &out.slices);
        }
        out.slices.clear();
        for (place, op) in out.background.drain(..) {
            if let DiskOp::CreateExtent { file, .. } | DiskOp::Remove { file, .. } = op
                && let Some(id) = forget(place, file)
            {
                ring.release_file(id)?;
            }
            let files = &mut files[place];
            let (key, op) = files.begin(op);
            host.background(key_of(place, key), files.access(), op);
        }
        post.send(&mut out.parcels, ring);
        ring.submit()
    }

    /// What the end of the background operation at this place of the list means, and to the log in which place.
    fn end(&mut self, at: usize) -> (usize, Ended) {
        let BackgroundDone { key, result } = &self.done[at];
        let (place, key) = place_of(*key);
        (place, self.files[place].end(key, result, &mut self.ring))
    }

    /// Drives the start of the shard until the first frame of its term is durable.
    pub(crate) async fn open(&mut self, opening: &mut Opening, stop: &Stop) -> Result<(), ServerError> {
        opening.start(clock::now(), &mut self.out)?;
        loop {
            self.perform(|place, file| opening.forget_file(place, file))?;
            if opening.is_open() || stop.wanted() != Wanted::Run {
                return Ok(());
            }
            // What comes from other cores is for the shards that will have started: it stays in its lanes.
            self.complete();
            if self.completions.is_empty() && self.done.is_empty() {
                park(&mut self.ring, &self.host, LONGEST_PARK).await?;
                continue;
            }
            let now = clock::now();
            for completion in self.completions.drain(..) {
                opening.on(now, completion, &mut self.out)?;
            }
            for at in 0..self.done.len() {
                let (place, ended) = self.end(at);
                opening.on_background(now, place, ended.completion, ended.opened, &mut self.out)?;
            }
            self.done.clear();
        }
    }
}

impl Reactor {
    /// A reactor that is ready now.
    pub(crate) fn new(
        shell: Shell,
        core: Core,
        growth: Option<Growth>,
        manners: Manners,
        stop: Stop,
        seat: Seat,
        joined: Box<dyn FnOnce()>,
    ) -> Self {
        Self {
            shell,
            core,
            growth,
            manners,
            stop,
            metrics: Metrics::new(),
            seat,
            ready_us: clock::now().mono_us,
            joined: Some(joined),
            again: true,
            farewell_us: None,
        }
    }

    /// Serves until it is told to stop.
    pub(crate) async fn serve(mut self) -> Result<(), RingError> {
        self.seat.sit();
        let mut now = clock::now();
        let mut worked_us = now.mono_us;
        loop {
            let (began_us, enters) = (now.mono_us, self.shell.ring.counters().enters);
            let worked = self.turn(now)?;
            self.metrics.entered(self.shell.ring.counters().enters - enters);
            if self.is_over(now) {
                return self.end(now);
            }
            let ended = clock::now();
            self.metrics.turn(ended.mono_us - now.mono_us, worked);
            now = ended;
            if worked {
                worked_us = now.mono_us;
            }
            let spins = self.spins(now.mono_us - worked_us);
            if self.shell.host.need_yield() {
                self.shell.host.yield_now().await;
                now = clock::now();
            } else if !worked && !self.again && spins && !self.core.is_settled() {
                // What makes a write durable ends in a thread of the kernel, on the core the disk's interrupt goes to,
                // most likely this one. A thread that spins is not preempted for it before its slice is over.
                affinity::give_way();
                self.metrics.gave_way();
                now = clock::now();
            } else if worked || spins || self.again {
                std::hint::spin_loop();
            } else {
                self.metrics.gap(now.mono_us - began_us);
                self.sleep(now).await?;
                let woke = clock::now();
                self.metrics.slept(woke.mono_us - now.mono_us);
                now = woke;
                continue;
            }
            self.metrics.gap(now.mono_us - began_us);
        }
    }

    /// Whether to look again rather than sleep, so long after there was something to do.
    fn spins(&self, idle_us: u64) -> bool {
        match self.manners.mode {
            Mode::Poll => true,
            Mode::Adaptive => idle_us < self.manners.spin_us,
            Mode::Park => false,
        }
    }

    /// One turn; whether there was anything to do.
    fn turn(&mut self, now: Now) -> Result<bool, RingError> {
        self.answer_call(now);
        // First what has completed: a wake that is collected tells of memory that is there by then.
        let collected = self.shell.collect();
        let happened = self.grow(now) || collected;
        let due = self.core.next_deadline().is_some_and(|at_us| at_us <= now.mono_us);
        if !happened && !due && !self.again && self.stop.wanted() == Wanted::Run {
            let Shell { post, ring, .. } = &mut self.shell;
            let caught_up = post.is_behind() && post.catch_up(ring);
            // The kernel may have work of ours to finish; a turn that let it do so was not idle.
            let enters = ring.counters().enters;
            ring.submit()?;
            return Ok(caught_up || ring.counters().enters > enters);
        }
        let Self { shell, core, metrics, manners, ready_us, .. } = self;
        for completion in shell.completions.drain(..) {
            core.on(now, completion, &mut shell.out);
        }
        for at in 0..shell.done.len() {
            let (place, ended) = shell.end(at);
            core.on_background(now, place, ended.completion, ended.opened);
        }
        shell.done.clear();
        let ring = &shell.ring;
        let mut machine = || Machine {
            turns: turns(metrics, *manners, ring, now.mono_us - *ready_us),
            cpu_us: status::process_cpu().as_micros() as u64,
            resident_bytes: status::resident_bytes(),
            hiccups: metrics.hiccups(),
        };
        for (from, parcel) in shell.arrived.drain(..) {
            match parcel {
                Parcel::Region(_) => {}
                parcel => core.on_parcel(now, from, parcel, &mut machine, &mut shell.out),
            }
        }
        self.again = core.turn(now, &mut machine, &mut shell.out) == Turn::Again;
        if let Some(joined) = self.joined.take_if(|_| core.is_joined()) {
            joined();
        }
        let acted = !shell.out.is_empty();
        shell.perform(|place, file| core.forget_file(place, file))?;
        Ok(happened || acted)
    }

    /// Tells the control plane what this core counts, if it asks. That is no work: who looks at a broker that sleeps
    /// does not keep it awake.
    fn answer_call(&mut self, now: Now) {
        let Some(call) = self.seat.called() else { return };
        self.metrics.answered();
        let Self { seat, core, metrics, manners, ready_us, shell, .. } = self;
        seat.answer(call, |says| {
            core.say(says);
            says.turns = turns(metrics, *manners, &shell.ring, now.mono_us - *ready_us);
        });
    }

    /// Takes in the next part of a window's memory, if there is one; at most one a turn.
    fn grow(&mut self, now: Now) -> bool {
        let Some(growth) = &mut self.growth else { return false };
        match growth.next() {
            Next::Part(place, region, blocks) => {
                let before = self.shell.ring.registration();
                self.shell.ring.register_region(&region);
                let after = self.shell.ring.registration();
                if after != before {
                    tracing::warn!("{after}, from now on");
                }
                self.shell.post.announce(std::slice::from_ref(&region));
                self.core.grow(now, place, blocks);
                true
            }
            Next::NotYet => false,
            Next::Done => {
                self.growth = None;
                false
            }
        }
    }

    async fn sleep(&mut self, now: Now) -> Result<(), RingError> {
        let deadline = self.core.next_deadline();
        let left = deadline.map(|at_us| Duration::from_micros(at_us.saturating_sub(now.mono_us)));
        let limit = left.map_or(LONGEST_PARK, |left| left.min(LONGEST_PARK));
        if limit.is_zero() {
            return Ok(());
        }
        let Shell { post, ring, host, .. } = &mut self.shell;
        if post.may_sleep() && self.seat.called().is_none() {
            self.metrics.parked();
            park(ring, host, limit).await?;
        }
        self.shell.post.awake();
        Ok(())
    }

    /// Whether it was told to stop and everything that must be kept is on disk and told.
    fn is_over(&mut self, now: Now) -> bool {
        match self.stop.wanted() {
            Wanted::Run => false,
            Wanted::Abandon => true,
            Wanted::Stop => {
                let Some(farewell_us) = self.farewell_us else {
                    self.core.stop(&mut self.shell.out);
                    self.farewell_us = Some(now.mono_us + FAREWELL_US);
                    self.again = true;
                    return false;
                };
                // The others may still ask something of this core, or it of them.
                let settled = self.core.is_settled();
                let all = self.shell.post.settle(settled && self.core.is_flushed());
                self.again = true;
                settled && (all || now.mono_us >= farewell_us)
            }
        }
    }

    /// Says goodbye to the peers. Dropping the ring waits for what is in flight.
    fn end(mut self, now: Now) -> Result<(), RingError> {
        if self.stop.wanted() == Wanted::Stop {
            self.core.close_all(now, &mut self.shell.out);
            let Self { shell, core, .. } = &mut self;
            shell.perform(|place, file| core.forget_file(place, file))?;
        }
        Ok(())
    }
}

/// What the loop has counted in `uptime_us`.
fn turns(metrics: &Metrics, manners: Manners, ring: &Ring, uptime_us: u64) -> Turns {
    let counters = ring.counters();
    let beside = metrics.times_given_way() + metrics.answers();
    Turns {
        mode: manners.mode,
        registration_refused: matches!(ring.registration(), Registration::Refused(_)),
        buffered: manners.buffered,
        memory_limit_bytes: manners.memory_limit_bytes,
        uptime_us,
        busy_us: metrics.busy_us(),
        polling_us: metrics.polling_us(),
        asleep_us: metrics.asleep_us(),
        parks: metrics.parks(),
        enters: counters.enters,
        other_calls: counters.registrations + counters.parks + beside,
        most_enters: metrics.most_enters(),
        busy: metrics.turns(),
        idle: metrics.idle_turns(),
        lengths: metrics.lengths(),
        awake_us: metrics.awake_us(),
        late_us: metrics.late_us(),
    }
}

/// The host's name for a background operation: the place of its log, and the log's own name for it.
fn key_of(place: usize, key: u32) -> u64 {
    (place as u64) << 32 | u64::from(key)
}

fn place_of(key: u64) -> (usize, u32) {
    ((key >> 32) as usize, key as u32)
}

/// Sleeps until the ring, the host or the stop handle has something, or the time is over. In the ring itself unless
/// something else has to run on this core meanwhile: that takes one system call and no memory.
async fn park(ring: &mut Ring, host: &Host, limit: Duration) -> Result<(), RingError> {
    if host.is_alone() {
        return ring.park(limit);
    }
    if ring.arm()? {
        host.park(Some(limit)).await;
    }
    ring.disarm();
    Ok(())
}
