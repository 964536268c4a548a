//! What a peer can do wrong: cut a message anywhere, lie about lengths and counts, send values from the future.
//! Each ends in an error that names the fault, or in the message itself; none in a panic.

use crate::samples::{
    CALL, head_of, only_frame, request_frame, requests, response_frame, responses, with_head,
};
use corelog_wire::api::{SERVED, reserved};
use corelog_wire::frame::{FLAG_ERROR, FLAG_RESPONSE, HEADER_BYTES, HELLO_FRAME_BYTES};
use corelog_wire::{
    Call, ErrorBody, ErrorCode, FrameHeader, ReplyTo, Request, Response, Split, WireError, decode_request,
    decode_response, encode_request_head, encode_response, split,
};

/// A tagged field of a version to come.
const UNKNOWN_TAG: [u8; 9] = [0xfe, 0xff, 5, 0, b'f', b'r', b'e', b's', b'h'];

fn with_tag(frame: &[u8]) -> Vec<u8> {
    with_head(frame, &[head_of(frame), &UNKNOWN_TAG, &UNKNOWN_TAG].concat())
}

#[test]
fn unknown_tagged_fields_of_requests_are_skipped() {
    for (name, request) in requests() {
        let bytes = with_tag(&request_frame(&request));
        let frame = only_frame(&bytes);
        assert_eq!(decode_request(&frame.header, frame.body), Ok(request), "{name}");
    }
}

#[test]
fn unknown_tagged_fields_of_responses_are_skipped() {
    for (name, response) in responses() {
        let bytes = with_tag(&response_frame(&response));
        let frame = only_frame(&bytes);
        assert_eq!(decode_response(&frame.header, frame.body), Ok(response), "{name}");
    }
}

#[test]
fn tagged_fields_cut_short_are_errors_even_when_unknown() {
    for (name, request) in requests() {
        let bytes = with_tag(&request_frame(&request));
        let head = head_of(&bytes);
        let tags_at = head.len() - 2 * UNKNOWN_TAG.len();
        for cut in tags_at..head.len() {
            let bytes = with_head(&bytes, &head[..cut]);
            let frame = only_frame(&bytes);
            let result = decode_request(&frame.header, frame.body);
            if (cut - tags_at).is_multiple_of(UNKNOWN_TAG.len()) {
                assert_eq!(result, Ok(request), "{name} cut between tags");
            } else {
                assert!(
                    matches!(result, Err(WireError::Truncated { .. })),
                    "{name} cut at {cut}: {result:?}"
                );
            }
        }
    }
}

#[test]
fn unknown_fields_within_list_items_are_skipped() {
    let (_, metadata) = responses().swap_remove(2);
    let frame = response_frame(&metadata);
    let head = head_of(&frame);
    // version 8, logs 2, count 4: the first endpoint's length stands at 14.
    let at = 14;
    let length = u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let end = at + 4 + length as usize;
    let longer = (length + UNKNOWN_TAG.len() as u32).to_le_bytes();
    let head = [&head[..at], &longer, &head[at + 4..end], &UNKNOWN_TAG, &head[end..]].concat();
    let bytes = with_head(&frame, &head);
    let frame = only_frame(&bytes);
    assert_eq!(decode_response(&frame.header, frame.body), Ok(metadata));
}

#[test]
fn a_stream_cut_anywhere_waits_for_exactly_the_rest() {
    let frames = requests().into_iter().map(|(_, request)| request_frame(&request));
    for bytes in frames.chain(responses().into_iter().map(|(_, response)| response_frame(&response))) {
        for cut in 0..bytes.len() {
            let needed = if cut < HEADER_BYTES { HEADER_BYTES } else { bytes.len() };
            assert_eq!(split(&bytes[..cut], 1 << 20), Ok(Split::Need(needed)), "cut at {cut}");
        }
    }
}

#[test]
fn a_body_of_another_length_than_announced_is_an_error() {
    for (name, request) in requests() {
        let bytes = request_frame(&request);
        let header = only_frame(&bytes).header;
        for cut in HEADER_BYTES..bytes.len() {
            let result = decode_request(&header, &bytes[HEADER_BYTES..cut]);
            assert_eq!(result, Err(WireError::Truncated { field: "body" }), "{name} cut at {cut}");
        }
        let longer = [&bytes[HEADER_BYTES..], &[0; 16]].concat();
        assert_eq!(decode_request(&header, &longer), Err(WireError::Truncated { field: "body" }), "{name}");
    }
}

#[test]
fn a_request_whose_head_ends_early_is_an_error_or_lacks_tagged_fields() {
    for (name, request) in requests() {
        let frame = request_frame(&request);
        let head = head_of(&frame);
        for cut in 0..head.len() {
            let bytes = with_head(&frame, &head[..cut]);
            let frame = only_frame(&bytes);
            let result = decode_request(&frame.header, frame.body);
            let lacks = result.is_ok_and(|shorter| request.version() == 2 && shorter != request);
            let truncated = matches!(result, Err(WireError::Truncated { .. }));
            assert!(truncated || lacks, "{name} cut at {cut}: {result:?}");
        }
    }
}

#[test]
fn a_response_whose_head_ends_early_is_an_error_or_lacks_tagged_fields() {
    for (name, response) in responses() {
        let frame = response_frame(&response);
        let head = head_of(&frame);
        // Status is tagged fields of 12 bytes and nothing else; the list of an error is one tag after the text.
        let whole_without_tags = |cut: usize| match &response {
            Response::Status(_) => cut.is_multiple_of(12),
            Response::Error(error) => !error.served.is_empty() && cut == 26 + error.message.len(),
            _ => false,
        };
        for cut in 0..head.len() {
            let bytes = with_head(&frame, &head[..cut]);
            let frame = only_frame(&bytes);
            let result = decode_response(&frame.header, frame.body);
            if whole_without_tags(cut) {
                assert!(result.is_ok_and(|cut| cut != response), "{name} cut at {cut}: less, but readable");
            } else {
                assert!(
                    matches!(result, Err(WireError::Truncated { .. })),
                    "{name} cut at {cut}: {result:?}"
                );
            }
        }
    }
}

#[test]
fn a_count_is_believed_only_as_far_as_bytes_are_left() {
    let (_, metadata) = responses().swap_remove(2);
    let frame = response_frame(&metadata);
    for at in [10, head_of(&frame).len() - 12] {
        let mut head = head_of(&frame).to_vec();
        head[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let bytes = with_head(&frame, &head);
        let frame = only_frame(&bytes);
        let result = decode_response(&frame.header, frame.body);
        assert!(matches!(result, Err(WireError::Truncated { .. })), "count at {at}: {result:?}");
    }
}

#[test]
fn a_partition_at_no_endpoint_is_an_error() {
    let (_, metadata) = responses().swap_remove(2);
    let frame = response_frame(&metadata);
    let mut head = head_of(&frame).to_vec();
    let last_place = head.len() - 8;
    head[last_place] = 2;
    let bytes = with_head(&frame, &head);
    let frame = only_frame(&bytes);
    assert_eq!(decode_response(&frame.header, frame.body), Err(WireError::BadValue { field: "endpoint" }));
}

/// The frame of the reply that lists positions. Its head: flags 4, log start 8, high watermark 8, count 4; then the first
/// item's length at 24 and its flags at 28.
fn positions_frame() -> (Response<'static>, Vec<u8>) {
    let found = responses().into_iter().find(|(name, _)| *name == "read-positions");
    let (_, positions) = found.expect("a sample");
    let frame = response_frame(&positions);
    (positions, frame)
}

#[test]
fn a_position_of_a_version_to_come_is_read_as_far_as_it_is_known() {
    let (positions, frame) = positions_frame();
    let head = head_of(&frame);
    let length = u32::from_le_bytes(head[24..28].try_into().expect("four bytes"));
    let end = 28 + length as usize;
    let longer = (length + UNKNOWN_TAG.len() as u32).to_le_bytes();
    let head = [&head[..24], &longer, &head[28..end], &UNKNOWN_TAG, &head[end..]].concat();
    let bytes = with_head(&frame, &head);
    let frame = only_frame(&bytes);
    assert_eq!(decode_response(&frame.header, frame.body), Ok(positions));
}

#[test]
fn lists_of_positions_that_lie_are_refused() {
    let rows = [
        (0, 2, WireError::BadValue { field: "positions flags" }),
        (23, 0x7f, WireError::Truncated { field: "positions" }),
        (20, 3, WireError::Truncated { field: "positions" }),
        (27, 1, WireError::Truncated { field: "position" }),
        (28, 2, WireError::BadValue { field: "position flags" }),
        (54, 0xff, WireError::NotUtf8 { field: "name" }),
    ];
    for (at, value, fault) in rows {
        let (_, frame) = positions_frame();
        let mut head = head_of(&frame).to_vec();
        head[at] = value;
        let bytes = with_head(&frame, &head);
        let frame = only_frame(&bytes);
        assert_eq!(decode_response(&frame.header, frame.body), Err(fault), "byte {at}");
    }
}

/// Whoever asks for what follows nothing would ask for ever.
#[test]
fn a_list_that_goes_on_behind_nothing_is_refused() {
    let (_, frame) = positions_frame();
    let mut head = head_of(&frame)[..24].to_vec();
    head[20..24].fill(0);
    let bytes = with_head(&frame, &head);
    let frame = only_frame(&bytes);
    let fault = WireError::BadValue { field: "positions flags" };
    assert_eq!(decode_response(&frame.header, frame.body), Err(fault));
}

/// A row: what is wrong, how it is done to the frame of `fetch`, what the header's check says.
type Lie = (&'static str, fn(&mut FrameHeader), WireError);

#[test]
fn headers_that_lie_are_refused_before_anything_is_read() {
    let lies: [Lie; 9] = [
        ("empty", |h| h.length = 0, WireError::BadLength { length: 0 }),
        ("shorter than a header", |h| h.length = 16, WireError::BadLength { length: 16 }),
        ("not a multiple of 16", |h| h.length = 72, WireError::BadLength { length: 72 }),
        (
            "too long",
            |h| h.length = 1 << 20,
            WireError::FrameTooLarge { length: 1 << 20, limit: HELLO_FRAME_BYTES },
        ),
        ("head too long", |h| h.head_bytes = u32::MAX, mismatch(64, u32::MAX, 0)),
        ("payload too long", |h| h.payload_bytes = u32::MAX, mismatch(64, 32, u32::MAX)),
        ("bytes nobody owns", |h| h.length = 80, mismatch(80, 32, 0)),
        ("a flag from the future", |h| h.flags = 1 << 3, WireError::UnknownFlags { flags: 8 }),
        ("an error that answers nothing", |h| h.flags = FLAG_ERROR, WireError::UnknownFlags { flags: 2 }),
    ];
    let (_, fetch) = requests().swap_remove(9);
    for (what, lie, fault) in lies {
        let bytes = request_frame(&fetch);
        let mut header = only_frame(&bytes).header;
        lie(&mut header);
        assert_eq!(FrameHeader::parse(&header.encode(), HELLO_FRAME_BYTES), Err(fault), "{what}");
        assert!(fault.closes(), "{what}: the next frame cannot be found");
        assert_ne!(fault.to_string(), "");
    }
}

const fn mismatch(length: u32, head_bytes: u32, payload_bytes: u32) -> WireError {
    WireError::LengthMismatch { length, head_bytes, payload_bytes }
}

#[test]
fn flags_that_may_be_ignored_are_ignored() {
    let (name, fetch) = requests().swap_remove(9);
    let bytes = request_frame(&fetch);
    let frame = only_frame(&bytes);
    let header = FrameHeader { flags: 0b1010_0000, ..frame.header };
    let header =
        FrameHeader::parse(&header.encode(), HELLO_FRAME_BYTES).expect("only the low flags are critical");
    assert_eq!(decode_request(&header, frame.body), Ok(fetch), "{name}");
}

#[test]
fn what_is_not_served_is_answered_with_what_is() {
    let (_, fetch) = requests().swap_remove(9);
    let bytes = request_frame(&fetch);
    let frame = only_frame(&bytes);
    for (api, version) in
        [(8, 0), (8, 2), (8, 255), (1, 2), (0, 1), (reserved::AUTHENTICATE, 1), (u16::MAX, 1)]
    {
        let header = FrameHeader { api, version, ..frame.header };
        let fault = decode_request(&header, frame.body).expect_err("not served");
        assert_eq!(fault, WireError::Unsupported { api, version });
        assert!(!fault.closes(), "the next frame is where it was announced");

        let text = fault.to_string();
        let mut answer = Vec::new();
        let error = Response::Error(ErrorBody::from_fault(&fault, &text));
        encode_response(&error, header.reply_to(), &mut answer);
        let answer = only_frame(&answer);
        assert_eq!(
            (answer.header.api, answer.header.version),
            (api, version),
            "the client finds its request"
        );
        assert_eq!(answer.header.correlation, CALL.correlation);
        match decode_response(&answer.header, answer.body) {
            Ok(Response::Error(error)) => {
                assert_eq!(error.code, ErrorCode::UnsupportedVersion);
                assert_eq!(error.details, [u64::from(api), u64::from(version)]);
                assert_eq!(error.served, SERVED);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_error_from_the_future_says_whether_to_retry() {
    for retryable in [false, true] {
        let code = ErrorCode::Unrecognised { number: 60_000, retryable };
        let error = Response::Error(ErrorBody::new(code, "quota"));
        let bytes = response_frame(&error);
        let frame = only_frame(&bytes);
        assert_eq!(decode_response(&frame.header, frame.body), Ok(error));
        assert_eq!(code.to_string(), "UNRECOGNISED(60000)");
    }
}

#[test]
fn a_known_error_keeps_its_own_retry_rule() {
    let error = Response::Error(ErrorBody::new(ErrorCode::ReadOnly, ""));
    let mut bytes = response_frame(&error);
    bytes[HEADER_BYTES + 2] |= 1;
    let frame = only_frame(&bytes);
    assert_eq!(decode_response(&frame.header, frame.body), Ok(error));
}

#[test]
fn requests_and_responses_are_not_mistaken_for_each_other() {
    for (name, request) in requests() {
        let bytes = request_frame(&request);
        let frame = only_frame(&bytes);
        let result = decode_response(&frame.header, frame.body);
        assert_eq!(result, Err(WireError::WrongDirection), "{name}");
        let header = FrameHeader { flags: FLAG_RESPONSE, ..frame.header };
        assert_eq!(decode_request(&header, frame.body), Err(WireError::WrongDirection), "{name}");
    }
}

/// A row: the request, a byte of its head to change, the field that is then wrong.
type BadByte = (&'static str, usize, u8, WireError);

#[test]
fn values_without_a_meaning_are_named() {
    let rows: [BadByte; 15] = [
        ("metadata-one", 0, 2, WireError::BadValue { field: "metadata flags" }),
        ("metadata-one", 6, 0xff, WireError::NotUtf8 { field: "topic" }),
        ("create-topic", 4, 3, WireError::BadValue { field: "durability" }),
        ("alter-topic", 0, 4, WireError::BadValue { field: "alter flags" }),
        ("alter-topic", 8, 3, WireError::BadValue { field: "durability" }),
        ("alter-topic", 9, 9, WireError::Truncated { field: "name" }),
        ("produce", 0, 2, WireError::BadValue { field: "produce flags" }),
        ("fetch", 3, 0x80, WireError::BadValue { field: "fetch flags" }),
        ("offset-time", 0, 3, WireError::BadValue { field: "at" }),
        ("delete-topic", 0, 8, WireError::Truncated { field: "name" }),
        ("delete-topic", 0, 6, WireError::Truncated { field: "tag" }),
        ("commit-position", 0, 2, WireError::BadValue { field: "position flags" }),
        ("commit-position-note", 29, 0xff, WireError::NotUtf8 { field: "metadata" }),
        ("read-position", 1, 1, WireError::BadValue { field: "positions flags" }),
        ("delete-position", 2, 0xff, WireError::NotUtf8 { field: "name" }),
    ];
    for (name, at, value, fault) in rows {
        let (_, request) = requests().into_iter().find(|(known, _)| *known == name).expect("a sample");
        let mut bytes = request_frame(&request);
        bytes[HEADER_BYTES + at] = value;
        let frame = only_frame(&bytes);
        let result = decode_request(&frame.header, frame.body);
        assert_eq!(result, Err(fault), "{name} byte {at}");
        assert!(!fault.closes(), "{name}: the connection goes on");
        assert_eq!(fault.code(), ErrorCode::MalformedRequest);
    }
}

#[test]
fn a_handle_outside_its_range_is_not_opened() {
    let (_, open) = requests().swap_remove(6);
    let bytes = request_frame(&open);
    let frame = only_frame(&bytes);
    for handle in [0, 65_536, u32::MAX] {
        let header = FrameHeader { handle, ..frame.header };
        let result = decode_request(&header, frame.body);
        assert_eq!(result, Err(WireError::BadValue { field: "handle" }), "{handle}");
    }
}

#[test]
fn a_payload_where_none_belongs_is_an_error() {
    let (_, produce) = requests().swap_remove(7);
    let bytes = request_frame(&produce);
    let frame = only_frame(&bytes);
    let header = FrameHeader { api: 2, ..frame.header };
    assert_eq!(decode_request(&header, frame.body), Err(WireError::UnexpectedPayload));
    let header = FrameHeader { api: 2, flags: FLAG_RESPONSE, ..frame.header };
    assert_eq!(decode_response(&header, frame.body), Err(WireError::UnexpectedPayload));
}

#[test]
fn an_encoder_without_room_says_how_much_it_needs() {
    let call = Call { correlation: 1, version: 1 };
    for (name, request) in requests() {
        let mut room = [0u8; 256];
        let length = encode_request_head(&request, call, &mut room).expect("256 bytes are enough for a head");
        for short in 0..length {
            let error = encode_request_head(&request, call, &mut room[..short]).expect_err("no room");
            assert_eq!(error.needed, length, "{name} in {short} bytes");
        }
        assert_eq!(encode_request_head(&request, call, &mut room[..length]), Ok(length));
    }
}

#[test]
fn a_message_too_long_for_its_length_field_is_cut_at_a_character() {
    let text = "é".repeat(40_000);
    let mut bytes = Vec::new();
    let to = ReplyTo { api: 7, version: 1, handle: 1, correlation: 1 };
    encode_response(&Response::Error(ErrorBody::new(ErrorCode::Busy, &text)), to, &mut bytes);
    let frame = only_frame(&bytes);
    match decode_response(&frame.header, frame.body) {
        Ok(Response::Error(error)) => assert_eq!(error.message, "é".repeat(32_767)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn hot_messages_fit_the_room_that_is_promised() {
    use corelog_wire::{encode_response_head, request, response};
    for (name, sample) in requests() {
        if matches!(sample, Request::Produce { .. } | Request::Fetch { .. }) {
            let mut room = [0; request::HOT_REQUEST_BYTES];
            assert!(encode_request_head(&sample, CALL, &mut room).is_ok(), "{name}");
        }
    }
    let to = ReplyTo { api: 8, version: 1, handle: 1, correlation: 1 };
    for (name, sample) in responses() {
        let cold = matches!(
            sample,
            Response::Hello(_)
                | Response::Metadata(_)
                | Response::Status(_)
                | Response::Positions(_)
                | Response::Error(_)
        );
        let mut room = [0; response::HOT_RESPONSE_BYTES];
        assert!(cold || encode_response_head(&sample, to, 0, &mut room).is_ok(), "{name}");
    }
}
