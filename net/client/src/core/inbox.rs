//! Bytes on their way in: cut into frames where they were received, so that batches can be read there.
//!
//! **Invariants:** every frame starts 16-aligned; a chunk that somebody still reads from is never written to.

use std::ops::Range;
use std::sync::Arc;

use corelog_wire::frame::HEADER_BYTES;
use corelog_wire::{FrameHeader, Split, WireError, split};

use crate::core::buffers::{Chunk, Pool};

/// From this size on a frame is received on its own: the read stops at its end, so that nothing behind it has to be
/// copied to another chunk when a consumer keeps this one.
const ALONE_BYTES: usize = 64 << 10;
/// With less room than this behind the last byte, what is left is moved to the front.
const LEAST_ROOM_BYTES: usize = 16 << 10;

/// Received bytes of one connection.
pub(crate) struct Inbox {
    pool: Arc<Pool>,
    chunk: Arc<Chunk>,
    chunk_bytes: usize,
    start: usize,
    end: usize,
    /// Bytes the frame at `start` takes, as far as known.
    need: usize,
    /// Longest frame allowed now.
    pub(crate) limit: usize,
}

/// A frame where it was received.
pub(crate) struct Received {
    pub(crate) header: FrameHeader,
    /// The bytes after the header, within the chunk.
    pub(crate) body: Range<usize>,
}

impl Inbox {
    /// An inbox that reads `chunk_bytes` at once, or a whole frame if that is longer.
    pub(crate) fn new(pool: Arc<Pool>, chunk_bytes: usize, limit: usize) -> Self {
        let chunk = Arc::new(sized(&pool, chunk_bytes));
        Self { pool, chunk, chunk_bytes, start: 0, end: 0, need: HEADER_BYTES, limit }
    }

    pub(crate) const fn chunk(&self) -> &Arc<Chunk> {
        &self.chunk
    }

    /// Where to put the next bytes. Never empty.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        let held = self.end - self.start;
        let room = self.chunk.len() - self.end;
        let cramped = room < LEAST_ROOM_BYTES && self.need < ALONE_BYTES;
        let fits = self.start + self.need <= self.chunk.len() && (!cramped || self.start == 0);
        if Arc::get_mut(&mut self.chunk).is_none() || self.need > self.chunk.len() {
            let mut fresh = sized(&self.pool, self.chunk_bytes.max(self.need));
            fresh[..held].copy_from_slice(&self.chunk[self.start..self.end]);
            self.chunk = Arc::new(fresh);
            (self.start, self.end) = (0, held);
        } else if held == 0 {
            (self.start, self.end) = (0, 0);
        } else if !fits {
            let chunk = Arc::get_mut(&mut self.chunk).expect("just seen");
            chunk.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, held);
        }
        let stop = if self.need >= ALONE_BYTES { self.start + self.need } else { self.chunk.len() };
        let chunk = Arc::get_mut(&mut self.chunk).expect("made so above");
        &mut chunk[self.end..stop]
    }

    /// This many bytes were put into `space`.
    pub(crate) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
        assert!(self.end <= self.chunk.len(), "no more is received than there is space for");
    }

    /// The next whole frame, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Received>, WireError> {
        let bytes = &self.chunk[self.start..self.end];
        let frame = match split(bytes, self.limit)? {
            Split::Need(need) => {
                self.need = need;
                return Ok(None);
            }
            Split::Frame(frame) => frame,
        };
        let length = frame.header.frame_bytes();
        let body = self.start + HEADER_BYTES..self.start + length;
        let header = frame.header;
        self.start += length;
        self.need = HEADER_BYTES;
        Ok(Some(Received { header, body }))
    }
}

/// A chunk whose length is its size: reads go into initialised memory. Zeroed when new, not when used again.
fn sized(pool: &Arc<Pool>, bytes: usize) -> Chunk {
    let mut chunk = pool.take(bytes);
    if chunk.len() < bytes {
        chunk.resize(bytes, 0);
    }
    chunk
}

#[cfg(test)]
mod tests {
    use corelog_wire::{ReplyTo, Response, encode_response};

    use super::*;
    use crate::core::rng::Rng;

    fn stream(rng: &mut Rng, frames: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (mut stream, mut payloads) = (Vec::new(), Vec::new());
        for correlation in 0..frames as u64 {
            let size = [0, 16, 4000, 70_000, 300_000][rng.below(5) as usize];
            let payload: Vec<u8> = (0..size).map(|i| (i as u64 * 31 + correlation) as u8).collect();
            let (log_start, high_watermark, leader_epoch) = (0, 9, corelog_model::Term(1));
            let fetched = Response::Fetched { log_start, high_watermark, leader_epoch, batches: &payload };
            encode_response(&fetched, ReplyTo { api: 8, version: 1, handle: 1, correlation }, &mut stream);
            payloads.push(payload);
        }
        (stream, payloads)
    }

    /// However the network cuts the stream, and whichever chunks a consumer keeps, each payload is intact and aligned.
    #[test]
    fn frames_survive_any_cut_while_chunks_are_kept() {
        for seed in 0..40 {
            let mut rng = Rng::new(seed);
            let (stream, payloads) = stream(&mut rng, 30);
            let pool = Pool::new(1 << 20);
            let mut inbox = Inbox::new(pool, 32 << 10, 1 << 20);
            let (mut at, mut kept, mut seen) = (0, Vec::new(), 0);
            while at < stream.len() {
                let space = inbox.space();
                let most = space.len().min(stream.len() - at).min(1 + rng.below(200_000) as usize);
                space[..most].copy_from_slice(&stream[at..at + most]);
                inbox.filled(most);
                at += most;
                while let Some(frame) = inbox.next().unwrap() {
                    assert_eq!(frame.header.correlation, seen as u64);
                    assert_eq!(inbox.chunk()[frame.body.clone()].as_ptr() as usize % 16, 0);
                    if rng.below(3) == 0 {
                        kept.push((Arc::clone(inbox.chunk()), frame, seen));
                    }
                    seen += 1;
                }
            }
            assert_eq!(seen, payloads.len());
            for (chunk, frame, n) in kept {
                let body = &chunk[frame.body];
                let from = body.len() - payloads[n].len().next_multiple_of(16);
                assert_eq!(&body[from..from + payloads[n].len()], &payloads[n][..], "seed {seed} frame {n}");
            }
        }
    }
}
