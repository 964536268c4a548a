//! The shard's thread allocates nothing while it serves.
//!
//! A counting allocator stands before the system's; it counts on one thread, the shard's of a real broker, and
//! keeps where the first allocations came from, so that a failure names them.

mod counting;
mod support;

use corelog_perf::peer::Peer;
use corelog_testing::Broker;
use counting::Watch;
use support::load::Load;
use support::task;

const PRODUCERS: usize = 4;
const PARTITIONS: u32 = 1_000;
const WARM_UP: usize = 20_000;
const MEASURED: usize = 100_000;

/// Small batches of many partitions, four connections, a consumer that waits on all of them; what the warm-up
/// reserved is enough from then on. One request that has to allocate shows that the check would see it.
#[test]
fn the_shard_allocates_nothing_after_its_warm_up() {
    // One extent takes the whole run, and the log keeps one run of a partition per frame in memory until the extent
    // is full: it has room for one per 4 KiB from the start, and batches as small as these come closer together.
    let settings = ["log.extent_bytes=512 MiB", "log.checkpoint_bytes=512 MiB", "log.window_bytes=32 MiB"];
    let mut builder = Broker::builder().set("server.mode=poll");
    for setting in settings {
        builder = builder.set(setting);
    }
    let broker = builder.start().expect("a broker");
    let mut other = Peer::connect(broker.address()).expect("the broker listens");
    let mut load = Load::start(broker.address(), PRODUCERS, PARTITIONS);
    load.run(WARM_UP / PRODUCERS);

    let watch = Watch::thread(task::shard());
    load.run(MEASURED / PRODUCERS);
    let counted = watch.end();
    println!("gate: allocations {}", counted.allocations);
    assert_eq!(counted.allocations, 0, "in {MEASURED} batches:\n{counted}");

    let watch = Watch::thread(task::shard());
    other.status().expect("the counters");
    let counted = watch.end();
    assert!(counted.allocations > 0, "the answer to Status has a box of its own, and was counted");
}

/// The check can fail: one allocation is counted, and told apart from those of other threads.
#[test]
fn one_allocation_is_counted_where_it_happens() {
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
