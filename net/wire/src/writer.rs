//! Writes the fields of a head into memory of the caller.
//!
//! A writer that runs out of room goes on counting, so that the same code measures and writes.

use corelog_model::limits::round_up;
use zerocopy::{Immutable, IntoBytes};

use crate::fault::NoRoom;
use crate::frame::{FRAME_ALIGN, FrameHeader, HEADER_BYTES, padding};

/// A frame's header and head in the making.
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    /// Starts a frame at the start of `out`: room for the header, which [`Self::finish`] fills in.
    pub(crate) const fn frame(out: &'a mut [u8]) -> Self {
        Self { out, at: HEADER_BYTES }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        if let Some(room) = self.out.get_mut(self.at..end) {
            room.copy_from_slice(bytes);
        }
        self.at = end;
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u128(&mut self, value: u128) {
        self.bytes(&value.to_le_bytes());
    }

    /// Text after its length in 16 bits. Longer text is cut at a character: names are far shorter (a name cut
    /// here is still one that no broker accepts), and of an error message the start is what counts.
    pub(crate) fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
        self.u16(text.len() as u16);
        self.bytes(text.as_bytes());
    }

    /// A list of fixed-size elements after its count in 32 bits.
    pub(crate) fn list<T: IntoBytes + Immutable>(&mut self, list: &[T]) {
        self.u32(list.len() as u32);
        self.bytes(list.as_bytes());
    }

    /// An item of a list after its length in 32 bits, which is only known at its end.
    pub(crate) fn item(&mut self, write: impl FnOnce(&mut Self)) {
        let start = self.at;
        self.u32(0);
        write(self);
        let count = (self.at - start - size_of::<u32>()) as u32;
        if let Some(room) = self.out.get_mut(start..start + size_of::<u32>()) {
            room.copy_from_slice(&count.to_le_bytes());
        }
    }

    /// A tagged field: `{tag u16, length u16, bytes}`.
    pub(crate) fn tagged(&mut self, tag: u16, write: impl FnOnce(&mut Self)) {
        self.u16(tag);
        let start = self.at;
        self.u16(0);
        write(self);
        let count = self.at - start - size_of::<u16>();
        debug_assert!(count <= usize::from(u16::MAX), "a tagged field fits its length");
        if let Some(room) = self.out.get_mut(start..start + size_of::<u16>()) {
            room.copy_from_slice(&(count as u16).to_le_bytes());
        }
    }

    /// Pads the head, writes the header with the lengths, and returns how many bytes now stand in `out`. The
    /// payload and its padding are the caller's to send after them.
    pub(crate) fn finish(self, header: FrameHeader, payload_bytes: usize) -> Result<usize, NoRoom> {
        let end = round_up(self.at, FRAME_ALIGN);
        let whole = end + round_up(payload_bytes, FRAME_ALIGN);
        let no_room = NoRoom { needed: end };
        let room = self.out.get_mut(..end).ok_or(no_room)?;
        let length = u32::try_from(whole).map_err(|_| NoRoom { needed: whole })?;
        room[self.at..].fill(0);
        let header = FrameHeader {
            length,
            head_bytes: (self.at - HEADER_BYTES) as u32,
            payload_bytes: payload_bytes as u32,
            ..header
        };
        room[..HEADER_BYTES].copy_from_slice(&header.encode());
        Ok(end)
    }
}

/// Appends a frame to `out`: the head as `encode` writes it, then `payload` with its padding. Returns the length.
pub(crate) fn append(
    out: &mut Vec<u8>,
    payload: &[u8],
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, NoRoom>,
) -> usize {
    let start = out.len();
    let mut room = HEADER_BYTES;
    loop {
        out.resize(start + room, 0);
        match encode(&mut out[start..]) {
            Ok(head) => {
                out.truncate(start + head);
                break;
            }
            Err(NoRoom { needed }) => {
                assert!(needed > room, "an encoder that has the room it asked for is content");
                room = needed;
            }
        }
    }
    out.extend_from_slice(payload);
    out.resize(out.len() + padding(payload.len()), 0);
    out.len() - start
}
