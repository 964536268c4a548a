//! What must hold for any head and payload, of any api and version.

use corelog_wire::{FrameHeader, Split, WireError, split};

use super::wire_frame;

/// `bytes` are one message in a frame that adds up, so that no input is wasted on headers: api, version and flags
/// in a byte each, the length of the head as u16, then head and payload.
pub(crate) fn check(bytes: &[u8]) {
    let Some((&[api, version, flags, low, high], rest)) = bytes.split_first_chunk::<5>() else {
        return;
    };
    let (head, payload) = rest.split_at(rest.len().min(u16::from_le_bytes([low, high]).into()));
    let mut frame = vec![0; 32];
    for part in [head, payload] {
        frame.extend_from_slice(part);
        frame.resize(frame.len().next_multiple_of(16), 0xa5);
    }
    let header = FrameHeader {
        length: frame.len() as u32,
        head_bytes: head.len() as u32,
        api: api.into(),
        version,
        flags: flags & 3,
        handle: 1,
        correlation: 2,
        payload_bytes: payload.len() as u32,
    };
    frame[..32].copy_from_slice(&header.encode());
    match split(&frame, usize::MAX) {
        Ok(Split::Frame(frame)) => wire_frame::check(frame),
        Ok(Split::Need(needed)) => panic!("{needed} bytes needed of a frame of {}", frame.len()),
        Err(fault) => assert_eq!(fault, WireError::UnknownFlags { flags: flags & 3 }),
    }
}
