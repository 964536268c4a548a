//! One file: what a crash cannot take, what it can, what was there before, and what cannot be read.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

pub(super) const SECTOR: usize = 512;
/// Overwritten contents that are remembered.
const HISTORY: usize = 16;

/// A complete write that no flush has confirmed.
#[derive(Debug)]
pub(super) struct Unflushed {
    pub(super) position: usize,
    pub(super) bytes: Vec<u8>,
    /// A start cannot do without it.
    pub(super) guarded: bool,
}

#[derive(Debug, Default)]
pub(super) struct File {
    /// What a crash cannot take.
    pub(super) durable: Vec<u8>,
    /// Complete writes that no flush has confirmed, oldest first.
    pub(super) unflushed: Vec<Unflushed>,
    /// What was overwritten last, and where it was.
    history: VecDeque<(usize, Vec<u8>)>,
    /// Sectors that no read gets over.
    pub(super) latent: BTreeSet<usize>,
}

impl File {
    pub(super) fn new(bytes: usize) -> Self {
        Self { durable: vec![0; bytes], ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.durable.len()
    }

    /// What a read sees; shorter where the file ends.
    pub(super) fn read(&self, position: usize, length: usize) -> Vec<u8> {
        let end = (position + length).min(self.len());
        let mut seen = self.durable.get(position..end).unwrap_or(&[]).to_vec();
        for Unflushed { position: at, bytes, .. } in &self.unflushed {
            cover(position, &mut seen, *at, bytes);
        }
        seen
    }

    /// Takes a complete write over. Writes inside a file never make it longer: extents have one size.
    pub(super) fn write(&mut self, position: usize, bytes: Vec<u8>, durably: bool, guarded: bool) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((position, self.read(position, bytes.len())));
        self.relieve(position, bytes.len());
        if durably {
            // Its own bytes are confirmed now; older unflushed ones below them no longer matter.
            for older in &mut self.unflushed {
                cover(older.position, &mut older.bytes, position, &bytes);
            }
            self.settle(position, &bytes);
        } else {
            self.unflushed.push(Unflushed { position, bytes, guarded });
        }
    }

    /// These bytes are on the medium.
    pub(super) fn settle(&mut self, position: usize, bytes: &[u8]) {
        cover(0, &mut self.durable, position, bytes);
    }

    /// What was there before is there again, for good.
    pub(super) fn revert(&mut self, position: usize, old: &[u8]) {
        for newer in &mut self.unflushed {
            cover(newer.position, &mut newer.bytes, position, old);
        }
        self.settle(position, old);
    }

    /// What is written again can be read again.
    pub(super) fn relieve(&mut self, position: usize, length: usize) {
        let written = position.div_ceil(SECTOR)..(position + length) / SECTOR;
        if !self.latent.is_empty() {
            self.latent.retain(|sector| !written.contains(sector));
        }
    }

    /// Whether a read of these bytes meets a sector that cannot be read.
    pub(super) fn is_unreadable(&self, position: usize, length: usize) -> bool {
        self.latent.range(position / SECTOR..(position + length).div_ceil(SECTOR)).next().is_some()
    }

    /// What of the past lies in these bytes and is not there any more, the newest first.
    pub(super) fn past(&self, position: usize, length: usize) -> Vec<(Range<usize>, &[u8])> {
        let now = self.read(position, length);
        let end = position + now.len();
        let of = |(at, bytes): &'_ (usize, Vec<u8>)| {
            let range = (*at).max(position)..(at + bytes.len()).min(end);
            (range.start < range.end).then_some((range, *at))
        };
        let pieces = self.history.iter().rev().filter_map(|piece| Some((piece, of(piece)?)));
        let pieces = pieces.map(|(piece, (range, at))| {
            let old = &piece.1[range.start - at..range.end - at];
            (range, old)
        });
        pieces.filter(|(range, old)| now[range.start - position..range.end - position] != **old).collect()
    }
}

/// Bytes that lie over others show where they overlap.
pub(super) fn cover(at: usize, older: &mut [u8], position: usize, newer: &[u8]) {
    let from = at.max(position);
    let to = (at + older.len()).min(position + newer.len());
    if from < to {
        older[from - at..to - at].copy_from_slice(&newer[from - position..to - position]);
    }
}
