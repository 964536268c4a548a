//! What the shard costs a request: a produce from its bytes to the reply once it is durable, a fetch from the live
//! window. No socket, no disk.

mod support;

use corelog_model::{Durability, RetentionChange, TopicId};
use corelog_shard::{
    Access, Actions, ConnId, Event, Limits, Principal, Request, Response, Shard, ShardConfig, Starting, Taken,
};
use corelog_storage::Listing;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{NOW, batch, config, done, memory};

const CONN: ConnId = ConnId { slot: 1, generation: 1 };

/// A shard, and what it wants done.
struct Bench {
    shard: Shard,
    actions: Actions,
    topic: TopicId,
}

impl Bench {
    /// A shard with one topic of one partition, opened as handle 1.
    fn start() -> Self {
        let log = config();
        let memory = memory(&log);
        let config = ShardConfig { log, logs: 1, anonymous: Access::Nothing, limits: Limits::default() };
        let mut starting = Starting::new(config, memory, Listing::default(), NOW);
        let mut actions = Actions::default();
        starting.start(&mut actions).expect("an empty directory");
        let mut waiting = Vec::new();
        let shard = loop {
            waiting.append(&mut actions.disk);
            let op = waiting.pop().expect("a start waits for something");
            if let Some(mut shard) = starting.on(done(op), NOW, &mut actions).expect("it starts") {
                waiting.into_iter().for_each(|op| shard.on(NOW, Event::Disk(done(op))));
                break shard;
            }
        };
        let mut bench = Self { shard, actions, topic: TopicId(0) };
        bench.shard.on(NOW, Event::Connected { conn: CONN, principal: Principal::Local });
        let create = Request::CreateTopic {
            name: "bench",
            partitions: 1,
            durability: Durability::Durable,
            retention: RetentionChange::NONE,
        };
        let Response::TopicCreated { topic } = bench.ask(&create) else { panic!("a topic is made") };
        bench.topic = topic;
        let opened = bench.ask(&Request::Open { handle: 1, topic, partition: 0 });
        assert!(matches!(opened, Response::Opened { .. }), "{opened:?}");
        bench
    }

    /// One turn, and all that it asked of the disk.
    fn turn(&mut self) {
        self.shard.turn(NOW, &mut self.actions);
        let Self { shard, actions, .. } = self;
        actions.disk.drain(..).for_each(|op| shard.on(NOW, Event::Disk(done(op))));
    }

    fn ask(&mut self, request: &Request<'_>) -> Response {
        while self.shard.request(NOW, CONN, 1, request, &mut self.actions) == Taken::Blocked {
            self.turn();
        }
        loop {
            if let Some(reply) = self.actions.replies.pop() {
                return reply.response;
            }
            self.turn();
        }
    }

    /// `requests` requests of a turn, until each has its reply.
    fn produce(&mut self, batches: &[u8], requests: usize) -> u64 {
        let request = Request::Produce { handle: 1, expected_offset: None, batches };
        for _ in 0..requests {
            while self.shard.request(NOW, CONN, 1, &request, &mut self.actions) == Taken::Blocked {
                self.turn();
            }
        }
        while self.actions.replies.len() < requests {
            self.turn();
        }
        let Some(Response::Produced { base_offset, .. }) = self.actions.replies.last().map(|r| &r.response)
        else {
            panic!("{:?}", self.actions.replies)
        };
        let last = *base_offset;
        self.actions.replies.clear();
        last
    }

    /// One answer from the window, and the end of its send.
    fn fetch(&mut self, offset: u64, max_bytes: u32) {
        let (leader_epoch, min_bytes, max_wait_us) = (None, 1, 0);
        let request = Request::Fetch { handle: 1, offset, leader_epoch, max_bytes, min_bytes, max_wait_us };
        let taken = self.shard.request(NOW, CONN, 1, &request, &mut self.actions);
        let reply = self.actions.replies.pop().expect("it is in memory");
        assert!(taken == Taken::Done && matches!(reply.response, Response::Fetched { .. }), "{reply:?}");
        for slice in self.actions.slices.drain(..) {
            self.shard.on(NOW, Event::Released { block: slice.block });
        }
    }
}

fn produce(c: &mut Criterion) {
    let mut bench = Bench::start();
    let mut group = c.benchmark_group("shard/produce");
    for (name, bytes, requests) in [
        ("1x4KiB", 4 << 10, 1),
        ("240x4KiB", 4 << 10, 240),
        ("1x128KiB", 128 << 10, 1),
        ("7x128KiB", 128 << 10, 7),
    ] {
        let batch = batch(bench.topic, 0, bytes);
        group.throughput(Throughput::Bytes((batch.len() * requests) as u64));
        group.bench_function(name, |b| b.iter(|| bench.produce(&batch, requests)));
    }
}

fn fetch(c: &mut Criterion) {
    let mut bench = Bench::start();
    let mut group = c.benchmark_group("shard/fetch");
    for (name, bytes, batches) in
        [("1x4KiB", 4 << 10, 1), ("32x4KiB", 4 << 10, 32), ("8x128KiB", 128 << 10, 8)]
    {
        let batch = batch(bench.topic, 0, bytes);
        let offset = bench.produce(&batch, 1);
        (1..batches).for_each(|_| _ = bench.produce(&batch, 1));
        let max_bytes = batch.len() * batches;
        // A fetch touches no bytes of the batches: it costs per batch.
        group.throughput(Throughput::Elements(batches as u64));
        group.bench_function(name, |b| b.iter(|| bench.fetch(offset, max_bytes as u32)));
    }
}

criterion_group!(benches, produce, fetch);
criterion_main!(benches);
