//! Copying a batch from a receive buffer to the live window: past the cache against through it.

use std::hint::black_box;

use corelog_storage::plain_copy;
use corelog_uring::copy::past_cache;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// More than the caches of a core hold, as the live window.
const WINDOW_BYTES: usize = 256 << 20;
/// Receive buffers take turns.
const SOURCES: usize = 8;

fn window(c: &mut Criterion) {
    let mut window = vec![1_u8; WINDOW_BYTES];
    let mut group = c.benchmark_group("copy/window");
    for bytes in [1 << 10, 4 << 10, 16 << 10, 128 << 10] {
        let sources = vec![vec![3_u8; bytes]; SOURCES];
        group.throughput(Throughput::Bytes(bytes as u64));
        for (name, copy) in [("plain", plain_copy as fn(&mut [u8], &[u8])), ("past_cache", past_cache)] {
            let mut turn = 0;
            // Entries start on 16 bytes, not on lines.
            let places = WINDOW_BYTES / (bytes + 16);
            group.bench_function(BenchmarkId::new(name, bytes), |b| {
                b.iter(|| {
                    let at = turn % places * (bytes + 16);
                    copy(black_box(&mut window[at..at + bytes]), &sources[turn % SOURCES]);
                    turn += 1;
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, window);
criterion_main!(benches);
