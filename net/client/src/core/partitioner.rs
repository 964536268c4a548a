//! Which partition a record goes to: Kafka's rule, so that a producer that moves here keeps its order per key.

use crate::core::rng::Rng;

/// Kafka's murmur2 (32 bits, seed 0x9747b28c) as its Java client computes it.
pub(crate) fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Java counts an array's length in 31 bits; keys are far shorter.
    let mut hash: u32 = 0x9747_b28c ^ key.len() as u32;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, &byte) in tail.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of a key: the hash without its sign bit, modulo the number of partitions.
pub(crate) fn of_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// The partition of records without a key: one until its batch is closed, then another, so that batches fill.
#[derive(Debug, Default)]
pub(crate) struct Sticky {
    current: Option<u32>,
}

impl Sticky {
    pub(crate) fn partition(&mut self, partitions: u32, rng: &mut Rng) -> u32 {
        *self.current.get_or_insert_with(|| rng.below(partitions))
    }

    /// A batch of `partition` was closed: go on to any other one, if there is another.
    pub(crate) fn closed(&mut self, partition: u32, partitions: u32, rng: &mut Rng) {
        if self.current == Some(partition) && partitions > 1 {
            self.current = Some((partition + 1 + rng.below(partitions - 1)) % partitions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_that_of_kafkas_java_client() {
        let vectors: [(&str, i32); 7] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key:?}");
        }
    }

    #[test]
    fn a_key_keeps_its_partition() {
        assert_eq!(of_key(b"21", 6), (-973_932_308_i32 & 0x7fff_ffff) as u32 % 6);
        assert!((0..100_u32).all(|n| of_key(&n.to_le_bytes(), 7) < 7));
    }

    #[test]
    fn records_without_key_stay_until_the_batch_is_closed() {
        let mut rng = Rng::new(3);
        let mut sticky = Sticky::default();
        for _ in 0..50 {
            let first = sticky.partition(4, &mut rng);
            assert_eq!(sticky.partition(4, &mut rng), first);
            sticky.closed((first + 1) % 4, 4, &mut rng);
            assert_eq!(sticky.partition(4, &mut rng), first, "another partition's batch changes nothing");
            sticky.closed(first, 4, &mut rng);
            assert_ne!(sticky.partition(4, &mut rng), first);
        }
        let mut only = Sticky::default();
        only.partition(1, &mut rng);
        only.closed(0, 1, &mut rng);
        assert_eq!(only.partition(1, &mut rng), 0);
    }
}
