//! What must hold for any bytes that stand where a frame may start in an extent. Written from FORMAT.md, not from
//! the code: it makes the sums right by itself, so that inputs get past them.

use corelog_model::LogId;
use corelog_model::crc::crc32c;
use corelog_storage::{FrameHeader, FrameSeed};

const HEADER_BYTES: usize = 128;
const SECTOR: u64 = 4096;
/// No frame is longer than the largest batch, its headers and what rounds it up to a sector.
const LONGEST: u64 = (16 << 20) + SECTOR;

const SEED: FrameSeed = FrameSeed { store: 0x0102_0304_0506_0708, log: LogId(3) };

/// `bytes` are the number of a sector (u16) and what stands there. Returns whether that is a frame once its sums
/// are right.
pub(crate) fn check(bytes: &[u8]) -> bool {
    let Some((sector, frame)) = bytes.split_first_chunk::<2>() else {
        return false;
    };
    let position = u64::from(u16::from_le_bytes(*sector)) * SECTOR;
    if let Some(header) = FrameHeader::decode(frame, SEED, position) {
        sound(&header, position);
    }
    let mut whole = [0; HEADER_BYTES];
    let known = frame.len().min(HEADER_BYTES);
    whole[..known].copy_from_slice(&frame[..known]);
    make_right(&mut whole, position);
    let decoded = FrameHeader::decode(&whole, SEED, position);
    if let Some(header) = &decoded {
        sound(header, position);
        let elsewhere = FrameSeed { store: SEED.store ^ 1, ..SEED };
        assert_eq!(FrameHeader::decode(&whole, elsewhere, position), None, "of another store");
        assert_eq!(FrameHeader::decode(&whole, SEED, position + SECTOR), None, "misdirected");
        assert_eq!(FrameHeader::decode(&whole[..HEADER_BYTES - 1], SEED, position), None, "cut short");
        whole[8 + known % (HEADER_BYTES - 8)] ^= 1;
        assert_eq!(FrameHeader::decode(&whole, SEED, position), None, "a flipped bit");
    }
    decoded.is_some()
}

/// Arithmetic that recovery does on a header cannot overflow or leave the frame.
fn sound(header: &FrameHeader, position: u64) {
    let (length, used) = (u64::from(header.length), u64::from(header.used));
    assert_eq!((header.position, header.log), (position, SEED.log));
    assert!(length.is_multiple_of(SECTOR) && length <= LONGEST && length > 0, "{length}");
    assert!(used >= HEADER_BYTES as u64 && used <= length && length - used < SECTOR, "{used} of {length}");
    assert!(header.durable_sequence < header.sequence, "a frame does not prove itself durable");
    for rising in [header.sequence, header.generation] {
        assert!(rising < 1 << 56, "{rising} has room to rise");
    }
    assert!(header.term.0.checked_add(1).is_some(), "the next start has a term");
    assert!(header.seal.generation < header.generation, "seals lead back");
}

/// Puts in what a frame of this log at this position has, and the CRC over it.
fn make_right(header: &mut [u8; HEADER_BYTES], position: u64) {
    header[0..4].copy_from_slice(b"CLF1");
    header[8] = 1;
    header[10..12].copy_from_slice(&SEED.log.0.to_le_bytes());
    header[32..40].copy_from_slice(&position.to_le_bytes());
    let generation = &header[16..24];
    let seed =
        [&SEED.store.to_le_bytes(), &SEED.log.0.to_le_bytes()[..], generation, &position.to_le_bytes()];
    let crc = crc32c(crc32c(0, &seed.concat()), &header[8..]);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
}
