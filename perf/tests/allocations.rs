//! The shard's thread allocates nothing while it serves.
//!
//! A counting allocator stands before the system's; it counts on one thread, the shard's of a real broker, and
//! keeps where the first allocations came from, so that a failure names them.

mod counting;
mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use corelog_perf::peer::Peer;
use corelog_testing::Broker;
use counting::Watch;
use support::alone;
use support::load::Load;
use support::task;

const PRODUCERS: usize = 4;
const PARTITIONS: u32 = 1_000;
/// The log has then been recycled once and more, so that every list and buffer is as long as it gets.
const WARM_UP: usize = 150_000;
const MEASURED: usize = 100_000;
/// Metrics are read meanwhile, at least so often.
const PAGES: u32 = 10;

/// Small batches of many partitions, four connections, a consumer that waits on all of them, metrics that are read all
/// the time; what the warm-up reserved is enough from then on. One request that has to allocate shows that the check would see it.
#[test]
fn the_shard_allocates_nothing_after_its_warm_up() {
    let allocations = serve("poll");
    println!("gate: allocations {allocations}");
}

/// Sleeping takes no memory either.
#[test]
fn a_shard_that_sleeps_between_its_turns_allocates_nothing() {
    serve("park");
}

/// Serves the batches and asserts that nothing was allocated for them.
fn serve(mode: &str) -> u64 {
    let _alone = alone();
    // Extents are rolled, recycled and checkpointed all the time; none is made, nor a pack, which is the host's work and
    // not free.
    let settings = [
        "log.extent_bytes=8 MiB",
        "log.retention_bytes=32 MiB",
        "log.settle_extents=0",
        "log.checkpoint_bytes=8 MiB",
        "log.window_bytes=32 MiB",
    ];
    let mut builder = Broker::builder().set(format!("server.mode={mode}")).set("server.http=127.0.0.1:0");
    for setting in settings {
        builder = builder.set(setting);
    }
    let broker = builder.start().expect("a broker");
    let mut other = Peer::connect(broker.address()).expect("the broker listens");
    let mut load = Load::start(broker.address(), PRODUCERS, PARTITIONS);
    load.run(WARM_UP / PRODUCERS);

    let before = Superblock::of(&broker);
    let http = broker.ready().and_then(|ready| ready.http).expect("metrics are served");
    let over = AtomicBool::new(false);
    let watch = Watch::thread(task::shard());
    let (counted, pages) = thread::scope(|scope| {
        let reader = scope.spawn(|| read_pages(http, &over));
        // However the load goes, the reader ends.
        let ends = Ends(&over);
        load.run(MEASURED / PRODUCERS);
        drop(ends);
        (watch.end(), reader.join().expect("it ends"))
    });
    assert!(pages >= PAGES, "{pages} pages of metrics were read meanwhile");
    let after = Superblock::of(&broker);
    assert!(after.head > before.head, "the log was rolled to another extent: {before:?}, {after:?}");
    assert!(after.checkpoint > before.checkpoint, "and checkpointed: {before:?}, {after:?}");
    assert_eq!(counted.allocations, 0, "in {MEASURED} batches:\n{counted}");

    let watch = Watch::thread(task::shard());
    other.status().expect("the counters");
    let seen = watch.end();
    assert!(seen.allocations > 0, "the answer to Status has a box of its own, and was counted");
    counted.allocations
}

/// Says so when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads the metrics as fast as they come; answers how often the shard had its part in them.
fn read_pages(http: SocketAddr, over: &AtomicBool) -> u32 {
    let mut pages = 0;
    while !over.load(Ordering::Relaxed) {
        let mut peer = TcpStream::connect(http).expect("it listens");
        peer.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is taken");
        let mut page = String::new();
        peer.read_to_string(&mut page).expect("a page");
        // On a busy machine a shard may not get to it in time.
        pages += u32::from(page.contains("\ncorelog_scrape_complete 1\n"));
    }
    pages
}

/// What the newest copy of the superblock says (`engine/storage/FORMAT.md`): generation of the head, and the id of the
/// newest checkpoint.
#[derive(Debug)]
struct Superblock {
    head: u64,
    checkpoint: u64,
}

impl Superblock {
    fn of(broker: &Broker) -> Self {
        let file = std::fs::read(broker.store().join("log-0000/superblock")).expect("it is there");
        let number =
            |page: &[u8], at: usize| u64::from_le_bytes(page[at..at + 8].try_into().expect("eight bytes"));
        let newest = file.chunks(4096).max_by_key(|page| number(page, 56)).expect("four copies");
        let checkpoints = (number(newest, 80) >> 32) as usize;
        let checkpoint = checkpoints.checked_sub(1).map_or(0, |last| number(newest, 96 + 32 * last + 16));
        Self { head: number(newest, 72), checkpoint }
    }
}

/// The check can fail: one allocation is counted, and told apart from those of other threads.
#[test]
fn one_allocation_is_counted_where_it_happens() {
    let _alone = alone();
    let watch = Watch::thread(rustix::thread::gettid().as_raw_nonzero().get());
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| vec![1_u8; 100]).join().expect("a vector"));
    let before = watch.so_far();
    let here = std::hint::black_box(vec![0_u8; 100]);
    let after = watch.so_far();
    assert_eq!(after - before, 1, "one vector is one allocation");
    let counted = watch.end();
    assert!(counted.to_string().contains("one_allocation_is_counted"), "it says where:\n{counted}");
    drop((here, elsewhere));
}
