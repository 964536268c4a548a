//! Reading one extent frame by frame, and the verdict on what does not verify. Pure: bytes in, findings out.
//!
//! | the frame at the cursor | a later frame proves it was durable | verdict |
//! |---|---|---|
//! | verifies, follows its predecessor | - | taken |
//! | does not | yes, or the extent is sealed behind it | damage: named, its sound entries taken, never cut |
//! | does not | no, after reading to the extent's end | the tail: cut here |
//!
//! Every header says up to which sequence all was durable, and lags its own sequence by at most the in-flight
//! limit; so a frame beyond what could have been in flight is a proof too. So is a checkpoint: the superblock names it
//! only once its last frame, and all before that, were durable.

use corelog_model::batch::BatchHeader;
use corelog_model::limits::FRAME_ALIGN;

use crate::frame::{
    ENTRY_HEADER_BYTES, EntryHeader, EntryKind, FRAME_BYTES_LIMIT, FRAME_HEADER_BYTES, FrameHeader,
    FrameSeed, chain,
};

/// Where a scan stands.
pub(crate) struct Scan {
    seed: FrameSeed,
    generation: u64,
    /// Next byte of the extent to be looked at.
    pub(crate) position: u64,
    /// Where the last frame taken ends.
    pub(crate) taken_to: u64,
    end: u64,
    /// Sequence and CRC of the last frame taken; unknown before the first one and after damage.
    last: Option<(u64, Option<u32>)>,
    /// Frames up to this sequence were durable: if they do not verify, that is damage.
    proven: u64,
    /// The extent is sealed: all of it was durable.
    sealed: bool,
    /// The extent's first frame was durable, whichever sequence it had.
    begun: bool,
    /// Sequence of the extent's first frame, once its header verified.
    first: Option<u64>,
    mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Taking frames.
    Taking,
    /// The frame at `from`, which reaches to `until`, is bad: looking for proof behind it.
    Suspecting { from: u64, until: u64, torn: u64 },
    /// The frame at the cursor is damaged: looking for the next one.
    Seeking,
}

/// What a step found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// More bytes are needed.
    NeedMore,
    /// A frame of this length at the cursor, whole or with damaged batches; take its entries, then go on.
    Frame { header: FrameHeader, damaged: bool },
    /// The cursor moved on over this many bytes that hold nothing usable.
    Skipped { bytes: usize },
    /// Frames from `first` to `last` are lost; the next one is at the cursor.
    Lost { first: u64, last: u64 },
    /// Read again from this position: the frame there is damage, and now that is known.
    Again { position: u64 },
    /// The log ends here; `torn` frames behind it were not proven durable and are cut. What is there instead of a next
    /// frame reaches to `until`.
    Tail { end: u64, until: u64, torn: u64 },
    /// The sealed end was reached.
    End,
}

impl Scan {
    /// Of a sealed extent: everything up to `end` was durable, the last frame being `sequence`.
    pub(crate) const fn sealed(seed: FrameSeed, generation: u64, end: u64, sequence: u64) -> Self {
        let mode = Mode::Taking;
        Self {
            seed,
            generation,
            position: 0,
            taken_to: 0,
            end,
            last: None,
            proven: sequence,
            sealed: true,
            begun: true,
            first: None,
            mode,
        }
    }

    /// Of the newest extent. `begun`: its first frame is known to have been durable; `proven`: all frames up to this
    /// sequence are.
    pub(crate) const fn tail(
        seed: FrameSeed,
        generation: u64,
        extent_bytes: u64,
        begun: bool,
        proven: u64,
    ) -> Self {
        let (end, mode) = (extent_bytes, Mode::Taking);
        Self {
            seed,
            generation,
            position: 0,
            taken_to: 0,
            end,
            last: None,
            proven,
            sealed: false,
            begun,
            first: None,
            mode,
        }
    }

    /// From a frame in the middle of an extent, for a checkpoint: everything is expected to verify.
    pub(crate) const fn at(seed: FrameSeed, generation: u64, position: u64, end: u64) -> Self {
        let mode = Mode::Taking;
        Self {
            seed,
            generation,
            position,
            taken_to: position,
            end,
            last: None,
            proven: 0,
            sealed: true,
            begun: true,
            first: None,
            mode,
        }
    }

    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn last_sequence(&self) -> Option<u64> {
        self.last.map(|(sequence, _)| sequence)
    }

    pub(crate) fn last_crc(&self) -> u32 {
        self.last.and_then(|(_, crc)| crc).unwrap_or(0)
    }

    /// Looks at the bytes from the cursor on. `at_end`: there are no more than these.
    pub(crate) fn step(&mut self, bytes: &[u8], at_end: bool) -> Step {
        match self.mode {
            Mode::Taking => self.take(bytes, at_end),
            Mode::Suspecting { from, until, torn } => self.suspect(bytes, at_end, from, until, torn),
            Mode::Seeking => self.seek(bytes, at_end),
        }
    }

    /// After the entries of a frame were taken.
    pub(crate) fn taken(&mut self, header: &FrameHeader) {
        self.last = Some((header.sequence, Some(header.crc)));
        self.position += u64::from(header.length);
        self.taken_to = self.position;
    }

    fn take(&mut self, bytes: &[u8], at_end: bool) -> Step {
        if self.position >= self.end {
            return self.finish(0);
        }
        let header = self.header(bytes);
        let length = header.map_or(FRAME_ALIGN, |header| header.length as usize);
        if bytes.len() < length && !at_end {
            return Step::NeedMore;
        }
        let follows = header.filter(|header| self.follows(header));
        if self.last.is_none() {
            self.first = follows.map(|header| header.sequence);
        }
        let proven = self.sealed
            || (self.begun && self.last.is_none())
            || self.expected().is_some_and(|expected| expected <= self.proven);
        match follows {
            Some(header) if bytes.len() >= length && frame_is_whole(&header, self.seed, &bytes[..length]) => {
                self.proven = self.proven.max(header.durable_sequence);
                Step::Frame { header, damaged: false }
            }
            _ if proven => match follows.filter(|_| bytes.len() >= length) {
                Some(header) => Step::Frame { header, damaged: true },
                None => {
                    self.mode = Mode::Seeking;
                    self.skip(bytes)
                }
            },
            // Its header was written, so the frame was on its way: it counts as torn.
            follows => {
                let (from, torn) = (self.position, u64::from(follows.is_some()));
                self.mode = Mode::Suspecting { from, until: from + length as u64, torn };
                self.skip(bytes)
            }
        }
    }

    /// The sequence of the frame at the cursor, as far as anything tells.
    fn expected(&self) -> Option<u64> {
        self.last.map(|(sequence, _)| sequence + 1).or(self.first)
    }

    fn header(&self, bytes: &[u8]) -> Option<FrameHeader> {
        let header = FrameHeader::decode(bytes, self.seed, self.position)?;
        let inside = self.position + u64::from(header.length) <= self.end;
        (header.generation == self.generation && inside).then_some(header)
    }

    fn follows(&self, header: &FrameHeader) -> bool {
        match self.last {
            None => true,
            Some((sequence, crc)) => {
                header.sequence == sequence + 1 && crc.is_none_or(|crc| crc == header.previous_crc)
            }
        }
    }

    fn skip(&mut self, bytes: &[u8]) -> Step {
        let skipped = FRAME_ALIGN.min(bytes.len());
        self.position += FRAME_ALIGN as u64;
        Step::Skipped { bytes: skipped }
    }

    fn finish(&self, torn: u64) -> Step {
        match self.sealed {
            true => Step::End,
            false => Step::Tail { end: self.position, until: self.position, torn },
        }
    }

    fn suspect(&mut self, bytes: &[u8], at_end: bool, from: u64, until: u64, torn: u64) -> Step {
        if self.position >= self.end || (at_end && bytes.is_empty()) {
            self.position = from;
            self.mode = Mode::Taking;
            return Step::Tail { end: from, until, torn };
        }
        if bytes.len() < FRAME_HEADER_BYTES {
            return Step::NeedMore;
        }
        let expected = self.expected().unwrap_or(1);
        if let Some(header) = self.header(bytes).filter(|header| header.sequence > expected) {
            if header.durable_sequence >= expected {
                self.proven = self.proven.max(header.durable_sequence);
                self.position = from;
                self.mode = Mode::Taking;
                return Step::Again { position: from };
            }
            self.mode = Mode::Suspecting { from, until, torn: torn + 1 };
        }
        self.skip(bytes)
    }

    fn seek(&mut self, bytes: &[u8], at_end: bool) -> Step {
        let expected = self.last.map(|(sequence, _)| sequence + 1);
        if self.position >= self.end || (at_end && bytes.is_empty()) {
            // Nothing was found behind the damage; what is lost is everything up to what was proven.
            self.mode = Mode::Taking;
            self.position = self.end;
            let (first, last) = (expected.unwrap_or(0), self.proven);
            self.last = Some((last, None));
            return Step::Lost { first, last };
        }
        if bytes.len() < FRAME_HEADER_BYTES {
            return Step::NeedMore;
        }
        match self.header(bytes).filter(|header| expected.is_none_or(|expected| header.sequence >= expected))
        {
            Some(header) => {
                self.mode = Mode::Taking;
                self.last = Some((header.sequence - 1, None));
                Step::Lost { first: expected.unwrap_or(0), last: header.sequence - 1 }
            }
            None => self.skip(bytes),
        }
    }
}

/// Whether every entry, every batch's body and the padding verify.
fn frame_is_whole(header: &FrameHeader, seed: FrameSeed, frame: &[u8]) -> bool {
    let (mut entries, mut crc) = (0, 0);
    let mut whole = true;
    let end = entries_of(header, seed, frame, |entry| {
        entries += 1;
        match entry {
            Entry::Sound { crc: sum, .. } => crc = chain(crc, sum),
            Entry::BadBatch { .. } => whole = false,
        }
    });
    whole
        && end == header.used as usize
        && entries == header.entries
        && crc == header.entries_crc
        && frame[header.used as usize..].iter().all(|byte| *byte == 0)
}

/// One entry of a frame.
pub(crate) enum Entry<'a> {
    /// Verified; `position` is that of its header in the frame.
    Sound { header: EntryHeader, crc: u32, payload: &'a [u8], position: usize },
    /// The header verifies and names the offsets; the body does not.
    BadBatch { header: EntryHeader, batch: BatchHeader },
}

/// Walks the entries of a frame as far as they verify; gives back where it stopped.
pub(crate) fn entries_of<'a>(
    header: &FrameHeader,
    seed: FrameSeed,
    frame: &'a [u8],
    mut each: impl FnMut(Entry<'a>),
) -> usize {
    let entry_seed = seed.entries(header.sequence);
    let mut position = FRAME_HEADER_BYTES;
    let used = (header.used as usize).min(frame.len());
    while position < used {
        let bytes = &frame[position..used];
        let Some((entry, crc)) = EntryHeader::decode(bytes, entry_seed) else { break };
        let payload = &bytes[ENTRY_HEADER_BYTES..][..entry.length as usize];
        let sound = match entry.kind {
            EntryKind::Batch => match BatchHeader::parse(payload) {
                Ok(batch) if batch.padded_bytes() == payload.len() => match batch.verify_body(payload) {
                    true => Entry::Sound { header: entry, crc, payload, position },
                    false => Entry::BadBatch { header: entry, batch },
                },
                _ => break,
            },
            _ => Entry::Sound { header: entry, crc, payload, position },
        };
        position += entry.total_bytes();
        each(sound);
    }
    position
}

const _: () = assert!(FRAME_BYTES_LIMIT < u32::MAX as usize);
