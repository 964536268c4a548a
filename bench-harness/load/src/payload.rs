//! What a record of the load looks like: its identity, and content that both ends derive from the seed.
//!
//! A value is `producer u32 | tag u32 | number u64 | content`, little-endian. The tag is the low half of the run's
//! mixed seed, so that a record of another run is told apart. The content is a function of (seed, producer,
//! number): the consumer regenerates and compares it, it never remembers what was sent. At six million records a
//! second each side has about 80 ns a record for everything, hence one addition a word and a comparison without
//! early exit, which the compiler turns into vector instructions.
//!
//! **Invariant:** pure; the same arguments give the same bytes on every machine.

use std::ops::Range;

/// Bytes before the content of a value.
pub const IDENTITY_BYTES: usize = 16;

/// The odd constant nearest to 2^64 / golden ratio: successive multiples are far apart in every bit.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Who wrote a record, and which of its records it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Index of the producer within the run.
    pub producer: u32,
    /// Counts from 0 per producer, over all phases and partitions.
    pub number: u64,
}

enum Content {
    Words { bytes: usize },
    Lines(Vec<Box<[u8]>>),
}

/// Makes the records of a run and recognises them.
pub struct Payload {
    seed: u64,
    tag: u32,
    content: Content,
}

impl Payload {
    /// Records of exactly `record_bytes` bytes; incompressible.
    ///
    /// # Panics
    /// When `record_bytes` is smaller than [`IDENTITY_BYTES`].
    pub fn generated(seed: u64, record_bytes: usize) -> Self {
        assert!(record_bytes >= IDENTITY_BYTES, "a record holds its identity");
        Self { seed, tag: tag(seed), content: Content::Words { bytes: record_bytes - IDENTITY_BYTES } }
    }

    /// Records that hold one of `lines` after their identity, chosen by the seed.
    ///
    /// # Panics
    /// When there are no lines.
    pub fn lines(seed: u64, lines: Vec<Box<[u8]>>) -> Self {
        assert!(!lines.is_empty(), "there is something to send");
        Self { seed, tag: tag(seed), content: Content::Lines(lines) }
    }

    /// Mean number of bytes of a value.
    pub fn mean_bytes(&self) -> usize {
        match &self.content {
            Content::Words { bytes } => IDENTITY_BYTES + bytes,
            Content::Lines(lines) => {
                IDENTITY_BYTES + lines.iter().map(|line| line.len()).sum::<usize>() / lines.len()
            }
        }
    }

    /// Bytes of the value of this record.
    pub fn bytes(&self, id: Identity) -> usize {
        IDENTITY_BYTES
            + match &self.content {
                Content::Words { bytes } => *bytes,
                Content::Lines(_) => self.line(self.base(id)).map_or(0, <[u8]>::len),
            }
    }

    /// Bytes of the values of `producer`'s records with these numbers, together.
    pub fn bytes_of(&self, producer: u32, numbers: Range<u64>) -> u64 {
        match &self.content {
            Content::Words { .. } => (numbers.end - numbers.start) * self.mean_bytes() as u64,
            Content::Lines(_) => numbers.map(|number| self.bytes(Identity { producer, number }) as u64).sum(),
        }
    }

    /// Writes the value of this record to `out`, which has [`Payload::bytes`] of it.
    pub fn fill(&self, id: Identity, out: &mut [u8]) {
        let base = self.base(id);
        out[0..4].copy_from_slice(&id.producer.to_le_bytes());
        out[4..8].copy_from_slice(&self.tag.to_le_bytes());
        out[8..16].copy_from_slice(&id.number.to_le_bytes());
        match self.line(base) {
            Some(line) => out[IDENTITY_BYTES..].copy_from_slice(line),
            None => fill_words(base, &mut out[IDENTITY_BYTES..]),
        }
    }

    /// Who wrote `value`, or `None` when it is no record of this run. The content is not looked at.
    pub fn identity(&self, value: &[u8]) -> Option<Identity> {
        let (producer, rest) = value.split_first_chunk::<4>()?;
        let (tag, rest) = rest.split_first_chunk::<4>()?;
        let (number, _) = rest.split_first_chunk::<8>()?;
        (u32::from_le_bytes(*tag) == self.tag).then_some(Identity {
            producer: u32::from_le_bytes(*producer),
            number: u64::from_le_bytes(*number),
        })
    }

    /// Whether `value` is, byte for byte, what [`Payload::fill`] makes for `id`.
    pub fn matches(&self, id: Identity, value: &[u8]) -> bool {
        if self.identity(value) != Some(id) {
            return false;
        }
        let base = self.base(id);
        let content = &value[IDENTITY_BYTES..];
        match self.line(base) {
            Some(line) => line == content,
            None => content.len() == self.word_bytes() && words_equal(base, content),
        }
    }

    const fn base(&self, id: Identity) -> u64 {
        mix(self.seed ^ mix((id.producer as u64) << 32 ^ id.number.wrapping_mul(STEP)))
    }

    fn line(&self, base: u64) -> Option<&[u8]> {
        match &self.content {
            Content::Words { .. } => None,
            Content::Lines(lines) => Some(&lines[(base % lines.len() as u64) as usize]),
        }
    }

    const fn word_bytes(&self) -> usize {
        match &self.content {
            Content::Words { bytes } => *bytes,
            Content::Lines(_) => 0,
        }
    }
}

/// The finaliser of splitmix64: each input bit changes half of the output bits.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

const fn tag(seed: u64) -> u32 {
    mix(seed) as u32
}

fn fill_words(base: u64, out: &mut [u8]) {
    let mut word = base;
    let mut chunks = out.chunks_exact_mut(8);
    for chunk in &mut chunks {
        chunk.copy_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(STEP);
    }
    let tail = chunks.into_remainder();
    tail.copy_from_slice(&word.to_le_bytes()[..tail.len()]);
}

fn words_equal(base: u64, content: &[u8]) -> bool {
    let mut word = base;
    let mut difference = 0;
    let (chunks, tail) = content.as_chunks::<8>();
    for chunk in chunks {
        difference |= u64::from_le_bytes(*chunk) ^ word;
        word = word.wrapping_add(STEP);
    }
    difference == 0 && tail == &word.to_le_bytes()[..tail.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value_of(payload: &Payload, id: Identity) -> Vec<u8> {
        let mut value = vec![0; payload.bytes(id)];
        payload.fill(id, &mut value);
        value
    }

    proptest! {
        #[test]
        fn a_record_is_recognised_and_any_flipped_bit_is_seen(
            seed: u64, producer: u32, number: u64, bytes in IDENTITY_BYTES..1_200, flip: prop::sample::Index, bit in 0_u8..8,
        ) {
            let payload = Payload::generated(seed, bytes);
            let id = Identity { producer, number };
            let mut value = value_of(&payload, id);
            prop_assert_eq!(value.len(), bytes);
            prop_assert_eq!(payload.identity(&value), Some(id));
            prop_assert!(payload.matches(id, &value));
            let at = flip.index(value.len());
            value[at] ^= 1 << bit;
            prop_assert!(!payload.matches(id, &value));
        }

        #[test]
        fn content_of_another_record_does_not_pass_for_this_one(seed: u64, producer: u32, number: u64, other: u64) {
            prop_assume!(number != other);
            let payload = Payload::generated(seed, 100);
            let id = Identity { producer, number };
            let mut value = value_of(&payload, id);
            let foreign = value_of(&payload, Identity { producer, number: other });
            value[IDENTITY_BYTES..].copy_from_slice(&foreign[IDENTITY_BYTES..]);
            prop_assert!(!payload.matches(id, &value));
        }
    }

    #[test]
    fn a_shorter_longer_or_foreign_value_is_refused() {
        let payload = Payload::generated(7, 100);
        let id = Identity { producer: 1, number: 2 };
        let value = value_of(&payload, id);
        assert!(!payload.matches(id, &value[..99]));
        assert!(!payload.matches(id, &[value.as_slice(), &[0]].concat()));
        assert_eq!(payload.identity(&value[..15]), None);
        assert_eq!(Payload::generated(8, 100).identity(&value), None, "the tag names the run");
    }

    #[test]
    fn lines_of_a_file_come_back_whole() {
        let payload = Payload::lines(
            3,
            vec![b"one".as_slice().into(), b"".as_slice().into(), b"three".as_slice().into()],
        );
        let mut seen = std::collections::HashSet::new();
        for number in 0..50 {
            let id = Identity { producer: 0, number };
            let value = value_of(&payload, id);
            assert!(payload.matches(id, &value));
            seen.insert(value[IDENTITY_BYTES..].to_vec());
        }
        assert_eq!(seen.len(), 3, "every line is used");
        let bytes = |number| payload.bytes(Identity { producer: 0, number }) as u64;
        assert_eq!(payload.bytes_of(0, 3..50), (3..50).map(bytes).sum::<u64>());
        assert_ne!(payload.bytes_of(0, 3..4), payload.mean_bytes() as u64, "no line is as long as the mean");
    }
}
