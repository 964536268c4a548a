//! A broker that has stopped leaves no memory behind. Alone in its process, whose memory is looked at.

use corelog_testing::Broker;

/// Less than the buffers of one broker, of which 20 could have stayed, and more than the heap keeps of what was freed
/// (15 MB after 20 brokers, 33 MB after 120).
const ALLOWED_BYTES: u64 = 48 << 20;
const PAGE_BYTES: u64 = 4096;

#[test]
fn twenty_brokers_that_start_and_stop_do_not_grow_the_process() {
    // The first ones make what a process keeps: heaps, thread stacks, tables.
    let mut running = 0;
    for _ in 0..4 {
        running = start_and_stop();
    }
    let before = resident_bytes();
    for round in 0..20 {
        running = running.max(start_and_stop());
        let after = resident_bytes();
        assert!(after < before + ALLOWED_BYTES, "after round {round}: from {before} to {after} bytes");
    }
    let after = resident_bytes();
    println!("{before} bytes before, {running} while one runs, {after} after 20 more");
    assert!(running > before + ALLOWED_BYTES, "a running broker is seen: {running} and {before} bytes");
}

/// What the process used while it ran.
fn start_and_stop() -> u64 {
    let mut broker = Broker::builder().set("log.window_bytes=48 MiB").start().expect("a broker");
    let running = resident_bytes();
    broker.stop().expect("it ends well");
    running
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .map_or(0, |pages: u64| pages * PAGE_BYTES)
}
