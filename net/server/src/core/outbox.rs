//! The sending half of a connection: everything that waits to be sent, in order, as one send at a time.
//!
//! Replies of a turn gather here, so many replies are one send. Their heads are bytes of this outbox; batches are
//! slices of the log's memory, pinned until the send is over. Slices of another core's memory cannot be read here: when
//! that is wanted back they are asked for, and nothing behind them is sent before their bytes have come.
//!
//! **Invariants:** the connection's own head block is the only memory a send needs, so a consumer that reads slowly takes
//! nothing from others; bytes copied away from memory that is wanted back, those that are still to come included, stay
//! below a bound; memory beyond that for the heads of hot replies is given back when what was in it is gone.

use std::collections::VecDeque;

use corelog_model::{Block, BlockId, Slice};
use corelog_uring::SEND_SLICES;
use corelog_wire::response::HOT_RESPONSE_BYTES;

/// Bytes in one send beyond which no further slice is added.
const SEND_BYTES: usize = 4 << 20;

/// Part of what waits to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// At the front of [`Outbox::bytes`].
    Bytes(u32),
    /// Pinned.
    Slice(Slice),
    /// Asked for: the core whose memory it is of copies it, lets go of it, and sends the bytes.
    Coming(Slice),
}

impl Piece {
    const fn len(self) -> usize {
        match self {
            Self::Bytes(length) => length as usize,
            Self::Slice(slice) | Self::Coming(slice) => slice.length as usize,
        }
    }
}

/// What waits to be sent, and what is being sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Behind `taken` bytes that are already handed to the ring: those go when they are the larger part.
    bytes: Vec<u8>,
    taken: usize,
    /// Memory of `bytes` that is kept for good.
    floor_bytes: usize,
    pieces: VecDeque<Piece>,
    queued_bytes: usize,
    /// Of them, those that are asked for.
    coming_bytes: usize,
    /// Bytes ever pushed, and where in them the frames start that are not sent yet.
    pushed: u64,
    starts: VecDeque<u64>,
    /// `None` while the ring has it.
    head: Option<Block>,
    /// The pieces of the send in flight, in order.
    flight: Vec<Piece>,
    flight_bytes: usize,
}

/// One send, ready to be submitted.
#[derive(Debug)]
pub(crate) struct Send {
    /// Holds all bytes that are not slices of the log.
    pub(crate) head: Block,
    /// Bytes at the start of `head` that go first.
    pub(crate) head_length: u32,
}

/// There is more to copy aside than a connection may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooSlow {
    /// What would have to be kept aside, in bytes.
    pub(crate) bytes: usize,
}

impl Outbox {
    /// An outbox that owns the connection's head block and has room for the heads of `replies` hot replies.
    pub(crate) fn new(head: Block, replies: usize) -> Self {
        let floor_bytes = replies * HOT_RESPONSE_BYTES;
        Self {
            bytes: Vec::with_capacity(floor_bytes),
            floor_bytes,
            pieces: VecDeque::with_capacity(2 * replies),
            starts: VecDeque::with_capacity(replies),
            flight: Vec::with_capacity(2 * SEND_SLICES),
            head: Some(head),
            ..Self::default()
        }
    }

    /// Bytes that are not handed to the ring yet.
    pub(crate) const fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// The part of them that is not slices, or not for long.
    pub(crate) fn own_bytes(&self) -> usize {
        self.queued().len() + self.coming_bytes
    }

    /// Memory beyond that for the heads of hot replies, in bytes, with that for what is to come.
    pub(crate) fn extra_bytes(&self) -> usize {
        self.spare_bytes() + self.coming_bytes
    }

    fn spare_bytes(&self) -> usize {
        self.bytes.capacity().saturating_sub(self.floor_bytes)
    }

    /// Whether a send is in flight.
    pub(crate) const fn is_sending(&self) -> bool {
        self.head.is_none()
    }

    /// Whether everything has been sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.pieces.is_empty() && !self.is_sending()
    }

    /// Lets `write` append the start of a frame: header and head. Its slices follow.
    pub(crate) fn push_bytes(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        let length = self.bytes.len() - before;
        self.starts.push_back(self.pushed);
        self.pushed += length as u64;
        self.queued_bytes += length;
        match self.pieces.back_mut() {
            Some(Piece::Bytes(last)) => *last += length as u32,
            _ if length == 0 => {}
            _ => self.pieces.push_back(Piece::Bytes(length as u32)),
        }
    }

    /// Appends a pinned slice.
    pub(crate) fn push_slice(&mut self, slice: Slice) {
        self.pushed += u64::from(slice.length);
        self.queued_bytes += slice.length as usize;
        self.pieces.push_back(Piece::Slice(slice));
    }

    /// Builds the next send if there is something to send and no send in flight. `slices` is what the submission
    /// names besides the head.
    pub(crate) fn next_send(&mut self, slices: &mut Vec<Slice>) -> Option<Send> {
        if matches!(self.pieces.front(), None | Some(Piece::Coming(_))) {
            return None;
        }
        let mut head = self.head.take()?;
        let (mut filled, mut used, mut head_length, named_before) = (0, 0, 0, slices.len());
        while let Some(piece) = self.pieces.pop_front() {
            let full = slices.len() - named_before == SEND_SLICES || self.flight_bytes >= SEND_BYTES;
            let taken = match piece {
                _ if full => 0,
                Piece::Coming(_) => 0,
                Piece::Slice(slice) => {
                    slices.push(slice);
                    slice.length as usize
                }
                Piece::Bytes(length) => (length as usize).min(head.len() - filled),
            };
            if taken == 0 {
                self.pieces.push_front(piece);
                break;
            }
            self.flight_bytes += taken;
            let Piece::Bytes(length) = piece else {
                self.flight.push(piece);
                continue;
            };
            head.bytes_mut()[filled..filled + taken].copy_from_slice(&self.queued()[used..used + taken]);
            if self.flight.is_empty() {
                head_length = taken as u32;
            } else {
                slices.push(Slice { block: head.id(), offset: filled as u32, length: taken as u32 });
            }
            self.flight.push(Piece::Bytes(taken as u32));
            (filled, used) = (filled + taken, used + taken);
            if taken < length as usize {
                self.pieces.push_front(Piece::Bytes(length - taken as u32));
                break;
            }
        }
        self.taken += used;
        if 2 * self.taken > self.bytes.len() {
            self.bytes.drain(..self.taken);
            self.taken = 0;
            if self.spare_bytes() > self.bytes.len() {
                self.bytes.shrink_to(self.floor_bytes);
            }
        }
        self.queued_bytes -= self.flight_bytes;
        Some(Send { head, head_length })
    }

    /// The bytes that are not slices and not handed to the ring yet.
    fn queued(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Bytes that were handed to the ring and not sent are the first ones again.
    fn put_back(&mut self, unsent: &[u8]) {
        match self.taken.checked_sub(unsent.len()) {
            Some(from) => {
                self.bytes[from..self.taken].copy_from_slice(unsent);
                self.taken = from;
            }
            None => {
                self.bytes.splice(..self.taken, unsent.iter().copied());
                self.taken = 0;
            }
        }
    }

    /// Bytes of the send in flight.
    pub(crate) const fn flight_bytes(&self) -> usize {
        self.flight_bytes
    }

    /// The send is over: `sent` bytes are gone, the rest goes back to the front. `release` is called for every
    /// slice that is gone.
    pub(crate) fn sent(&mut self, head: Block, sent: usize, mut release: impl FnMut(BlockId)) {
        assert!(sent <= self.flight_bytes, "no more is sent than was asked for");
        self.queued_bytes += self.flight_bytes - sent;
        let mut left = self.flight_bytes - sent;
        let (mut filled, mut unsent) = (0, 0);
        while let Some(piece) = self.flight.pop() {
            let rest = piece.len().min(left);
            left -= rest;
            match piece {
                Piece::Bytes(length) => {
                    filled += length as usize;
                    unsent += rest;
                    if rest > 0 {
                        self.pieces.push_front(Piece::Bytes(rest as u32));
                    }
                }
                Piece::Slice(slice) if rest == 0 => release(slice.block),
                Piece::Slice(slice) => {
                    let length = rest as u32;
                    let rest = Slice { offset: slice.end() - length, length, ..slice };
                    self.pieces.push_front(Piece::Slice(rest));
                }
                Piece::Coming(_) => unreachable!("it is sent when it is here"),
            }
        }
        self.put_back(&head.bytes()[filled - unsent..filled]);
        self.flight_bytes = 0;
        self.head = Some(head);
        let front = self.front();
        while self.starts.front().is_some_and(|&start| start < front) {
            self.starts.pop_front();
        }
    }

    /// The place in the stream where the queue starts.
    const fn front(&self) -> u64 {
        self.pushed - self.queued_bytes as u64
    }

    /// Whether a frame would be left cut if the queue were dropped: no error can be told then.
    pub(crate) fn is_cut(&self) -> bool {
        self.queued_bytes > 0 && !self.starts.contains(&self.front())
    }

    /// Whether the send in flight pins `block`.
    pub(crate) fn is_sending_from(&self, block: BlockId) -> bool {
        self.flight.iter().any(|piece| matches!(piece, Piece::Slice(slice) if slice.block == block))
    }

    /// What may be moved out of `block`: all of it that is queued, if all that is aside then stays within `bound`.
    fn movable(&self, block: BlockId, bound: usize) -> Result<usize, TooSlow> {
        let of_block = |piece: &&Piece| matches!(piece, Piece::Slice(slice) if slice.block == block);
        let moved: usize = self.pieces.iter().filter(of_block).map(|piece| piece.len()).sum();
        let bytes = moved + self.own_bytes();
        if moved > 0 && bytes > bound { Err(TooSlow { bytes }) } else { Ok(moved) }
    }

    /// Makes bytes of the pieces for which `take` gives some.
    fn fill<'a>(&mut self, filled: usize, mut take: impl FnMut(Piece) -> Option<&'a [u8]>) {
        let mut bytes = Vec::with_capacity((filled + self.queued().len()).max(self.floor_bytes));
        let mut used = 0;
        for piece in &mut self.pieces {
            if let Piece::Bytes(length) = *piece {
                bytes.extend_from_slice(&self.bytes[self.taken + used..][..length as usize]);
                used += length as usize;
            } else if let Some(taken) = take(*piece) {
                assert_eq!(taken.len(), piece.len(), "a piece is copied whole");
                bytes.extend_from_slice(taken);
                *piece = Piece::Bytes(taken.len() as u32);
            }
        }
        (self.bytes, self.taken) = (bytes, 0);
    }

    /// Copies the queued slices of `block` aside, if all that is aside then stays within `bound`. `release` is
    /// called once per slice that is no longer needed.
    pub(crate) fn move_away<'a>(
        &mut self,
        block: BlockId,
        bound: usize,
        read: impl Fn(Slice) -> &'a [u8],
        mut release: impl FnMut(BlockId),
    ) -> Result<(), TooSlow> {
        let moved = self.movable(block, bound)?;
        if moved > 0 {
            self.fill(moved, |piece| match piece {
                Piece::Slice(slice) if slice.block == block => {
                    release(block);
                    Some(read(slice))
                }
                _ => None,
            });
        }
        Ok(())
    }

    /// The same for a block that cannot be read here: the slices to be asked for, which whoever is asked releases. Their
    /// bytes are to be given to [`Outbox::come`].
    pub(crate) fn ask_for(&mut self, block: BlockId, bound: usize) -> Result<Vec<Slice>, TooSlow> {
        self.coming_bytes += self.movable(block, bound)?;
        let mut asked = Vec::new();
        for piece in &mut self.pieces {
            if let Piece::Slice(slice) = *piece
                && slice.block == block
            {
                *piece = Piece::Coming(slice);
                asked.push(slice);
            }
        }
        Ok(asked)
    }

    /// The bytes of slices that were asked for, one after the other. Those of two requests may be the same: one that was
    /// being sent when the others were asked for stands before them, and its bytes are what theirs are.
    pub(crate) fn come(&mut self, slices: &[Slice], copied: &[u8]) {
        let mut at = 0;
        let mut known: Vec<(Slice, &[u8])> = Vec::with_capacity(slices.len());
        for &slice in slices {
            known.push((slice, &copied[at..at + slice.length as usize]));
            at += slice.length as usize;
        }
        let mut came = 0;
        self.fill(copied.len(), |piece| {
            let Piece::Coming(slice) = piece else { return None };
            let &(_, bytes) = known.iter().find(|&&(known, _)| known == slice)?;
            came += bytes.len();
            Some(bytes)
        });
        self.coming_bytes -= came;
    }

    /// Drops what is queued; the send in flight stays. `release` is called for every slice dropped, but for those that
    /// somebody was asked for.
    pub(crate) fn discard(&mut self, mut release: impl FnMut(BlockId)) {
        for piece in self.pieces.drain(..) {
            if let Piece::Slice(slice) = piece {
                release(slice.block);
            }
        }
        self.bytes.clear();
        self.bytes.shrink_to(self.floor_bytes);
        self.taken = 0;
        self.pushed -= self.queued_bytes as u64;
        (self.queued_bytes, self.coming_bytes) = (0, 0);
        let front = self.pushed;
        self.starts.retain(|&start| start < front);
    }

    /// The head block, when the connection is over.
    pub(crate) fn into_head(self) -> Option<Block> {
        self.head
    }
}

#[cfg(test)]
mod tests;
