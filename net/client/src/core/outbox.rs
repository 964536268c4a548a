//! Bytes on their way out: small heads, and sealed batches that are sent from where they were sealed.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use corelog_wire::request::HOT_REQUEST_BYTES;

use crate::core::buffers::Chunk;

enum Piece {
    Head { bytes: [u8; HOT_REQUEST_BYTES], length: usize },
    Long(Vec<u8>),
    Batch(Arc<Chunk>),
}

/// The unsent rest of a connection's stream.
#[derive(Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that are already sent.
    sent: usize,
    bytes: usize,
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Head { bytes, length } => &bytes[..*length],
            Self::Long(bytes) => bytes,
            Self::Batch(chunk) => chunk,
        }
    }
}

impl Outbox {
    pub(crate) fn head(&mut self, bytes: [u8; HOT_REQUEST_BYTES], length: usize) {
        self.bytes += length;
        self.pieces.push_back(Piece::Head { bytes, length });
    }

    pub(crate) fn long(&mut self, bytes: Vec<u8>) {
        self.bytes += bytes.len();
        self.pieces.push_back(Piece::Long(bytes));
    }

    /// A padded batch; it must not change until it is sent, which the shared reference sees to.
    pub(crate) fn batch(&mut self, chunk: Arc<Chunk>) {
        self.bytes += chunk.len();
        self.pieces.push_back(Piece::Batch(chunk));
    }

    /// Unsent bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Fills `slices` with the start of what is unsent, until that is `enough` bytes; how many were filled.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>], enough: usize) -> usize {
        let mut skip = self.sent;
        let (mut count, mut bytes) = (0, 0);
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            if bytes >= enough {
                break;
            }
            *slice = IoSlice::new(&piece.bytes()[skip..]);
            bytes += slice.len();
            skip = 0;
            count += 1;
        }
        count
    }

    /// The socket took this many bytes.
    pub(crate) fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes, "no more is sent than there is");
        self.bytes -= bytes;
        self.sent += bytes;
        while let Some(first) = self.pieces.front() {
            let length = first.bytes().len();
            if self.sent < length {
                return;
            }
            self.sent -= length;
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_writes_lose_and_repeat_nothing() {
        let mut outbox = Outbox::default();
        outbox.head([1; HOT_REQUEST_BYTES], 48);
        outbox.batch(Arc::new(Chunk::copy_of(&[2; 160])));
        outbox.long(vec![3; 100]);
        outbox.head([4; HOT_REQUEST_BYTES], 16);
        let mut received = Vec::new();
        for step in (1..).map(|n| n * 7 % 61 + 1) {
            let mut slices = [IoSlice::new(&[]); 2];
            let count = outbox.slices(&mut slices, usize::MAX);
            let stream: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            let taken = step.min(stream.len());
            received.extend_from_slice(&stream[..taken]);
            outbox.advance(taken);
            if outbox.bytes() == 0 {
                break;
            }
        }
        assert_eq!(received, [vec![1; 48], vec![2; 160], vec![3; 100], vec![4; 16]].concat());
        assert!(outbox.pieces.is_empty() && outbox.sent == 0);
    }
}
