//! A fuzzer's poor relation for `cargo test`: replays a corpus and a bounded number of seeded mutations of it.
//! Same seed, same inputs; a failure prints the input.

use std::fs;
use std::panic::{RefUnwindSafe, catch_unwind};
use std::path::Path;

/// Bytes worth trying wherever a length, count or flag may stand.
const INTERESTING: [u8; 8] = [0, 1, 0x0f, 0x10, 0x7f, 0x80, 0xfe, 0xff];

/// xorshift64*: enough for mutations, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Calls `check` with every file of `corpus` and with `mutations` mutated ones. Returns how many files there are.
pub(crate) fn replay(corpus: &Path, mutations: u32, check: impl Fn(&[u8]) + RefUnwindSafe) -> usize {
    let mut paths: Vec<_> = fs::read_dir(corpus)
        .expect("the corpus is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).expect("a seed can be read")).collect();
    assert!(!seeds.is_empty(), "{} is empty", corpus.display());
    for seed in &seeds {
        run(seed, &check);
    }
    let mut random = Random(0x636f_7265_6c6f_6701);
    for _ in 0..mutations {
        let mut input = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut input, &seeds, &mut random);
        }
        run(&input, &check);
    }
    seeds.len()
}

fn run(input: &[u8], check: &(impl Fn(&[u8]) + RefUnwindSafe)) {
    let result = catch_unwind(|| check(input));
    assert!(result.is_ok(), "this input fails: {input:?}");
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len());
    match random.below(6) {
        0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        1 if !input.is_empty() => input[at] = INTERESTING[random.below(INTERESTING.len())],
        2 => input.truncate(at),
        3 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        4 if !input.is_empty() => {
            let count = random.below(16).min(input.len() - at);
            let copy = input[at..at + count].to_vec();
            input.splice(at..at, copy);
        }
        _ => input.insert(at, random.next() as u8),
    }
}
