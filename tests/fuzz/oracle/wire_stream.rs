//! What must hold for any bytes that a peer of the native protocol sends.

use corelog_wire::{Split, split};

use super::wire_frame;

/// The frame limit that streams are cut with, in bytes.
const LIMIT: usize = 64 << 10;

/// `bytes` are a stream: it is cut into frames until it ends or is refused.
pub(crate) fn check(bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        match split(rest, LIMIT) {
            Ok(Split::Need(needed)) => {
                assert!(needed > rest.len() && needed <= LIMIT, "{needed} with {} there", rest.len());
                return;
            }
            Ok(Split::Frame(frame)) => {
                assert_eq!(frame.header.frame_bytes() % 16, 0);
                wire_frame::check(frame);
                rest = &rest[frame.header.frame_bytes()..];
            }
            Err(fault) => {
                assert!(fault.closes(), "{fault}: a header can only be refused by closing");
                return;
            }
        }
    }
}
