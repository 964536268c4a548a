//! What must hold for any bytes that a peer of the native protocol sends. Shared by the fuzz targets and by the
//! tests of net/wire, which replay the corpus without a fuzzer.

use corelog_wire::{
    Call, ErrorBody, Frame, FrameHeader, Response, Split, WireError, decode_request, decode_response,
    encode_request, encode_response, split,
};

/// The frame limit that streams are cut with, in bytes.
const LIMIT: usize = 64 << 10;

/// `bytes` are a stream: it is cut into frames until it ends or is refused.
pub(crate) fn stream(bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        match split(rest, LIMIT) {
            Ok(Split::Need(needed)) => {
                assert!(needed > rest.len() && needed <= LIMIT, "{needed} with {} there", rest.len());
                return;
            }
            Ok(Split::Frame(frame)) => {
                assert_eq!(frame.header.frame_bytes() % 16, 0);
                decode(frame);
                rest = &rest[frame.header.frame_bytes()..];
            }
            Err(fault) => {
                assert!(fault.closes(), "{fault}: a header can only be refused by closing");
                return;
            }
        }
    }
}

/// `bytes` are one message in a frame that adds up, so that no input is wasted on headers: api, version and flags
/// in a byte each, the length of the head as u16, then head and payload.
pub(crate) fn message(bytes: &[u8]) {
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
        Ok(Split::Frame(frame)) => decode(frame),
        Ok(Split::Need(needed)) => panic!("{needed} bytes needed of a frame of {}", frame.len()),
        Err(fault) => assert_eq!(fault, WireError::UnknownFlags { flags: flags & 3 }),
    }
}

/// A whole frame: what decodes is encoded to something that decodes the same; what does not is answered.
fn decode(frame: Frame<'_>) {
    let Frame { header, body } = frame;
    let call = Call { correlation: header.correlation, version: header.version };
    match decode_request(&header, body) {
        Ok(request) => {
            let mut again = Vec::new();
            encode_request(&request, call, &mut again);
            let again = whole(&again);
            assert_eq!(decode_request(&again.header, again.body), Ok(request));
        }
        Err(fault) => answer(&header, &fault),
    }
    if let Ok(response) = decode_response(&header, body) {
        let mut again = Vec::new();
        encode_response(&response, header.reply_to(), &mut again);
        let again = whole(&again);
        assert_eq!(decode_response(&again.header, again.body), Ok(response));
    }
}

/// The broker's answer to a request that is none can be read by the client.
fn answer(request: &FrameHeader, fault: &WireError) {
    let text = fault.to_string();
    let error = Response::Error(ErrorBody::from_fault(fault, &text));
    let mut bytes = Vec::new();
    encode_response(&error, request.reply_to(), &mut bytes);
    let frame = whole(&bytes);
    assert_eq!(frame.header.correlation, request.correlation);
    assert_eq!(decode_response(&frame.header, frame.body), Ok(error));
}

fn whole(bytes: &[u8]) -> Frame<'_> {
    match split(bytes, usize::MAX) {
        Ok(Split::Frame(frame)) if frame.header.frame_bytes() == bytes.len() => frame,
        other => panic!("an encoder wrote {other:?}"),
    }
}
