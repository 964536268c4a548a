//! What must hold for any frame that adds up, whatever stands in it. Shared, as all oracles here, by the fuzz
//! targets and by the tests of net/wire, which replay the corpus without a fuzzer.

use corelog_wire::{
    Call, ErrorBody, Frame, FrameHeader, Response, Split, WireError, decode_request, decode_response,
    encode_request, encode_response, split,
};

/// A whole frame: what decodes is encoded to something that decodes the same; what does not is answered.
pub(crate) fn check(frame: Frame<'_>) {
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
