//! Copying to memory that nobody on this core looks at soon: past its cache.
//!
//! A store to memory that is in no cache reads the line first and pushes out another one that may be of use; a
//! non-temporal store of whole lines does neither (Intel 64 and IA-32 Architectures Optimization Reference Manual,
//! "Non-temporal store instructions"). A frame is written by the disk and read by consumers later, out of a window many
//! times the cache: `perf/benches/copy.rs` shows what that saves on this machine.

/// Below this a copy goes through the cache: the fence and the ends cost more than the lines save.
const LEAST_BYTES: usize = 4 << 10;

/// Copies `from` to `to`, past the cache where the processor can and the length makes it pay.
///
/// # Panics
/// When the lengths differ.
pub fn past_cache(to: &mut [u8], from: &[u8]) {
    assert_eq!(to.len(), from.len(), "as much room as there is to copy");
    #[cfg(target_arch = "x86_64")]
    if to.len() >= LEAST_BYTES && is_x86_feature_detected!("avx512f") {
        #[expect(unsafe_code, reason = "the call of a function that needs a feature of the processor")]
        // SAFETY: the processor has the feature.
        return unsafe { x86::stream(to, from) };
    }
    to.copy_from_slice(from);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{_mm_sfence, _mm512_loadu_si512, _mm512_stream_si512};

    /// Bytes of a line, and of a vector.
    const LINE: usize = 64;

    #[target_feature(enable = "avx512f")]
    #[expect(unsafe_code, reason = "non-temporal stores take addresses")]
    pub(super) fn stream(to: &mut [u8], from: &[u8]) {
        let head = to.as_ptr().align_offset(LINE).min(to.len());
        let lines = (to.len() - head) / LINE * LINE;
        let (head_to, to) = to.split_at_mut(head);
        let (head_from, from) = from.split_at(head);
        head_to.copy_from_slice(head_from);
        let (lines_to, tail_to) = to.split_at_mut(lines);
        let (lines_from, tail_from) = from.split_at(lines);
        for (to, from) in lines_to.chunks_exact_mut(LINE).zip(lines_from.chunks_exact(LINE)) {
            // SAFETY: a chunk is as long as a vector, and a load needs no alignment.
            let line = unsafe { _mm512_loadu_si512(from.as_ptr().cast()) };
            // SAFETY: a chunk is as long as a vector, and this one starts on a line: it lies whole lines behind one.
            unsafe { _mm512_stream_si512(to.as_mut_ptr().cast(), line) };
        }
        tail_to.copy_from_slice(tail_from);
        // Such stores are not ordered with later ones: without this the kernel's thread that writes the frame might
        // not see them.
        _mm_sfence();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_arrives_at_every_alignment_and_nothing_beside_it() {
        let from: Vec<u8> = (0..9_000_u32).map(|at| (at * 7 % 251) as u8 + 1).collect();
        for length in [0, 1, 63, 4095, 4096, 4097, 4351, 4352, 6_000, 8_191, 8_192, 8_500] {
            for at in [0, 1, 16, 48, 63, 64] {
                let mut to = vec![0; 9_000];
                let source = &from[at / 2..at / 2 + length];
                past_cache(&mut to[at..at + length], source);
                assert_eq!(&to[at..at + length], source, "{length} bytes at {at}");
                assert!(
                    to[..at].iter().chain(&to[at + length..]).all(|&byte| byte == 0),
                    "{length} bytes at {at}"
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "as much room")]
    fn a_copy_to_less_room_is_refused() {
        past_cache(&mut [0; 3], &[0; 4]);
    }
}
