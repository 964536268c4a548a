//! What the kernel says of the machine and of the load's own process: names, and CPU time by `/proc`.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::param::clock_ticks_per_second;
use rustix::process::{RawPid, Resource, Rlimit, getpid, getrlimit, setrlimit};

use crate::results::MachineResult;

/// CPU seconds used up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuUse {
    /// By the whole machine, idle and stolen time left out.
    pub machine: f64,
    /// By this process.
    pub load: f64,
}

impl CpuUse {
    /// Reads both counters; zeros where `/proc` cannot be read.
    pub fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let ticks = clock_ticks_per_second() as f64;
        Self {
            machine: machine_ticks(&read("/proc/stat")) / ticks,
            load: process_ticks(&read("/proc/self/stat")) / ticks,
        }
    }

    /// What was used since `start`.
    pub fn since(self, start: Self) -> Self {
        Self { machine: self.machine - start.machine, load: self.load - start.load }
    }

    /// What the machine used beside the load and beside what it uses when idle.
    pub fn others(self, idle_per_second: f64, window: Duration) -> f64 {
        (self.machine - self.load - idle_per_second * window.as_secs_f64()).max(0.0)
    }
}

/// CPU seconds of another process, all its threads together.
pub fn process_cpu_seconds(pid: RawPid) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(process_ticks(&stat) / clock_ticks_per_second() as f64)
}

/// user, nice, system, irq and softirq of the first line of `/proc/stat`.
fn machine_ticks(stat: &str) -> f64 {
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    [0, 1, 2, 5, 6].iter().filter_map(|&at| fields.get(at)).sum()
}

/// utime and stime of `/proc/PID/stat`; the name before them is in parentheses and may hold anything.
fn process_ticks(stat: &str) -> f64 {
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0.0 };
    rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum()
}

/// The machine's description; the measured fields are left for the run to fill in.
pub fn describe(load_core: u32) -> MachineResult {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let uname = rustix::system::uname();
    let info = rustix::system::sysinfo();
    MachineResult {
        cpu: cpu.map_or("unknown", |(_, name)| name.trim()).to_owned(),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
        memory_bytes: info.totalram as u64 * u64::from(info.mem_unit),
        load_core,
        ..MachineResult::default()
    }
}

/// Bytes that may still be written below `directory`.
pub fn free_bytes(directory: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// How many files this process may have open, once it has asked for as many as it may.
pub fn open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    allowed.unwrap_or(u64::MAX)
}

/// The type of the file system that holds `directory`, as the mount table names it.
pub fn file_system(directory: &Path) -> Option<String> {
    let directory = directory.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
            directory.starts_with(point).then_some((point.len(), kind))
        })
        .max_by_key(|(depth, _)| *depth)
        .map(|(_, kind)| kind.to_owned())
}

/// A number that differs from run to run and from call to call, for names and seeds: below 2^48, which every reader of
/// JSON takes.
pub fn run_number() -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
    let process = (getpid().as_raw_nonzero().get() as u64) << 24;
    (now + process + CALLS.fetch_add(1, Ordering::Relaxed)) & 0xffff_ffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_are_not_use() {
        let stat = "cpu  100 20 30 100000 500 6 4 7 0 0\ncpu0 1 1 1 1\n";
        assert_eq!(machine_ticks(stat), 160.0);
        assert_eq!(machine_ticks(""), 0.0);
    }

    #[test]
    fn a_process_whose_name_looks_like_fields_is_read_right() {
        let stat = "42 (a) 9 9 (b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(process_ticks(stat), 300.0);
    }

    #[test]
    fn own_cpu_time_grows_by_working() {
        let start = CpuUse::now();
        let mut spins = 0_u64;
        while CpuUse::now().since(start).load < 0.02 {
            spins = std::hint::black_box(spins + 1);
        }
        assert!(CpuUse::now().machine >= start.machine, "after {spins} spins");
    }

    #[test]
    fn run_numbers_of_one_moment_differ() {
        let numbers: std::collections::BTreeSet<u64> = (0..1_000).map(|_| run_number()).collect();
        assert_eq!(numbers.len(), 1_000);
        assert!(numbers.iter().all(|number| *number < 1 << 48));
    }

    #[test]
    fn what_others_used_is_never_negative() {
        let used = CpuUse { machine: 10.0, load: 4.0 };
        assert_eq!(used.others(0.1, Duration::from_secs(10)), 5.0);
        assert_eq!(used.others(2.0, Duration::from_secs(10)), 0.0);
    }
}
