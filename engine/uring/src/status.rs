//! What this process and its threads use, read from the system when asked.

use std::fs;
use std::time::Duration;

use rustix::param::page_size;
use rustix::time::{ClockId, clock_gettime};

/// Context switches of a thread since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// It waited for something.
    pub voluntary: u64,
    /// Something else was given its core.
    pub involuntary: u64,
}

/// CPU time of the calling thread, user and kernel.
pub fn thread_cpu() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

/// CPU time of all threads of the process, user and kernel.
pub fn process_cpu() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

/// Resident memory of the process in bytes; 0 when /proc is not mounted.
pub fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok().and_then(|text| resident_pages(&text));
    pages.unwrap_or(0) * page_size() as u64
}

/// Anonymous memory of the process in huge pages, in bytes; 0 when the kernel does not say.
pub fn huge_page_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    field(&text, "AnonHugePages:") << 10
}

/// Context switches of the calling thread.
pub fn thread_switches() -> Switches {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    Switches {
        voluntary: field(&text, "voluntary_ctxt_switches:"),
        involuntary: field(&text, "nonvoluntary_ctxt_switches:"),
    }
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse().ok()
}

/// The number in the line that starts with `name`; 0 without one.
fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()).and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_the_start_of_their_line() {
        let text =
            "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t12\nAnonHugePages:    2048 kB\n";
        assert_eq!(field(text, "voluntary_ctxt_switches:"), 12);
        assert_eq!(field(text, "AnonHugePages:"), 2048);
        assert_eq!(field(text, "Missing:"), 0);
        assert_eq!(resident_pages("100 25 3 1 0 9 0"), Some(25));
        assert_eq!(resident_pages(""), None);
    }

    #[test]
    fn working_costs_cpu_and_memory() {
        let before = thread_cpu();
        let bytes = vec![1_u8; 8 << 20];
        assert!(resident_bytes() >= 8 << 20);
        assert_eq!(std::hint::black_box(&bytes).iter().map(|&byte| u64::from(byte)).sum::<u64>(), 8 << 20);
        assert!(thread_cpu() > before);
        assert!(process_cpu() >= thread_cpu());
    }
}
