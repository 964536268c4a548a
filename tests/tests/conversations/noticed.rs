//! Conversations that are altered: what was not said is noticed, on either side.

use std::collections::BTreeSet;

use corelog_model::TopicId;
use corelog_wire::{Api, ErrorCode, FrameHeader, Request, Response, Status, decode_request, decode_response};

use crate::compare::{Batches, Times, compare};
use crate::conversation::{Conversation, Entry, Frame, Side};
use crate::{answer, kept, play};

/// Apis that came after the last conversation was recorded. The next one is to have them, and this list is then empty.
const NOT_YET: [Api; 1] = [Api::DeleteRecords];
/// What a handle stands for.
const PLACE: (TopicId, u32) = (TopicId(1), 0);
/// Every so manieth byte of batches is altered.
const STRIDE: usize = 7;

fn said(conversation: &Conversation, side: Side) -> impl Iterator<Item = &Frame> {
    conversation.entries.iter().filter_map(move |entry| match entry {
        Entry::Said { by, frame, .. } if *by == side => Some(frame),
        _ => None,
    })
}

/// The conversation with the first frame of the broker's that `wanted` chooses altered, or left out.
fn altered(
    conversation: &Conversation,
    wanted: impl Fn(&Frame) -> bool,
    alter: impl FnOnce(Frame) -> Option<Frame>,
) -> Conversation {
    let mut altered = conversation.clone();
    let is_it = |entry: &Entry| matches!(entry, Entry::Said { by: Side::Broker, frame, .. } if wanted(frame));
    let at = altered.entries.iter().position(is_it).expect("it was said");
    if let Entry::Said { connection, by, frame } = altered.entries.remove(at)
        && let Some(frame) = alter(frame)
    {
        altered.entries.insert(at, Entry::Said { connection, by, frame });
    }
    altered
}

const fn is(frame: &Frame, api: Api) -> bool {
    frame.header.api == api as u16 && !frame.header.is_error()
}

fn flip(bytes: &mut [u8], at: usize) {
    bytes[at] ^= 1;
}

/// Bytes of the head that may be others, as PROTOCOL.md lays them out.
fn free(frame: &Frame) -> Vec<usize> {
    let all = 0..frame.head.len();
    let body = frame.body();
    match decode_response(&frame.header, &body).expect("it was said") {
        // Behind store, term and both limits: the broker's name, and what it serves.
        Response::Hello(_) => all.skip(8 + 4 + 4 + 4).collect(),
        Response::Produced { .. } => (8..16).collect(),
        // Behind code, flags, pause and details: words.
        Response::Error(body) if body.code == ErrorCode::InvalidPartitions => all.skip(16).collect(),
        Response::Error(_) => all.skip(24).collect(),
        Response::Status(_) => {
            let facts = ["batches", "records", "topics", "partitions", "logs", "term"];
            let tag = |name| Status::TAGS.iter().find(|(_, known)| *known == name).map(|(tag, _)| *tag);
            let facts: Vec<_> = facts.into_iter().filter_map(tag).collect();
            let is_free = |at: &usize| {
                let counter = &frame.head[at - at % 12..];
                !facts.contains(&u16::from_le_bytes([counter[0], counter[1]]))
            };
            all.filter(is_free).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn what_may_differ_is_a_short_list() {
    let mut apis = BTreeSet::new();
    for frame in kept().iter().flat_map(|(_, conversation)| said(conversation, Side::Broker)) {
        if is(frame, Api::Subscribe) {
            continue;
        }
        apis.insert((frame.header.api, frame.header.is_error()));
        let with = |now: &Frame| compare(frame, now, Some(PLACE), &mut Times::default());
        assert_eq!(with(frame), Ok(()));
        let free = free(frame);
        for at in (0..frame.head.len()).filter(|at| !free.contains(at)) {
            let mut now = frame.clone();
            flip(&mut now.head, at);
            assert!(with(&now).is_err(), "byte {at} of {}", frame.line());
        }
        let FrameHeader { version, handle, correlation, .. } = frame.header;
        let headers = [
            FrameHeader { version: version + 1, ..frame.header },
            FrameHeader { handle: handle + 1, ..frame.header },
            FrameHeader { correlation: correlation + 1, ..frame.header },
        ];
        for header in headers {
            assert!(with(&Frame { header, ..frame.clone() }).is_err(), "{}", frame.line());
        }
    }
    let [(_, first), ..] = kept() else { panic!("one at least is kept") };
    let mut unknown = said(first, Side::Broker).find(|frame| is(frame, Api::Status)).expect("asked").clone();
    let now = unknown.clone();
    unknown.head[1] = u8::MAX;
    assert!(
        compare(&unknown, &now, None, &mut Times::default()).is_err(),
        "a counter that has lost its meaning"
    );
    let answered = |api: &Api| apis.contains(&(*api as u16, false)) || *api == Api::Subscribe;
    for api in Api::ALL {
        assert!(answered(api) != NOT_YET.contains(api), "{api:?} was never answered");
    }
    assert!(apis.iter().filter(|(_, is_error)| *is_error).count() >= 6, "and many were refused: {apis:?}");
}

#[test]
fn an_altered_batch_is_noticed() {
    let times = Times::default();
    for conversation in kept().iter().map(|(_, conversation)| conversation) {
        let opened = said(conversation, Side::Client).find_map(|frame| {
            let body = frame.body();
            match decode_request(&frame.header, &body) {
                Ok(Request::Open { topic, partition: 0, .. }) => Some(topic),
                _ => None,
            }
        });
        let topic = opened.expect("a partition was opened");
        let read = said(conversation, Side::Broker).find(|frame| !frame.payload.is_empty());
        let recorded = read.expect("something was read").payload.clone();
        let batches = |now: Vec<u8>, may_go_on: bool| {
            let (recorded, partition) = (recorded.clone(), 0);
            Batches { topic, partition, recorded, now, may_go_on }.compare(&times)
        };
        assert_eq!(batches(recorded.clone(), false), Ok(()));
        for at in (0..recorded.len()).step_by(STRIDE) {
            let mut now = recorded.clone();
            flip(&mut now, at);
            assert!(batches(now, at % 2 == 0).is_err(), "byte {at}");
        }
        let twice = recorded.repeat(2);
        assert!(batches(twice.clone(), false).is_err(), "what was not there");
        assert!(batches(twice, true).is_err(), "what goes on, but from another offset");
        assert!(batches(Vec::new(), true).is_err(), "what is missing");
    }
}

#[test]
fn a_broker_that_answers_otherwise_is_noticed() {
    let [(_, first), (_, second), ..] = kept() else { panic!("two at least are kept") };
    let other = |mut frame: Frame| {
        flip(&mut frame.head, 4);
        Some(frame)
    };
    let found = play(&altered(first, |frame| is(frame, Api::OffsetForTime), other));
    assert!(found.is_err_and(|difference| difference.contains("answered OffsetForTime")));
    let found = play(&altered(first, |frame| is(frame, Api::Ping), |_| None));
    assert!(found.is_err_and(|difference| difference.starts_with("not recorded: Ping")));
    let other = |mut frame: Frame| {
        flip(&mut frame.payload, 100);
        Some(frame)
    };
    for (conversation, api) in [(first, Api::Fetch), (second, Api::Subscribe)] {
        let found = play(&altered(conversation, |frame| is(frame, api) && !frame.payload.is_empty(), other));
        assert!(found.is_err_and(|difference| difference.starts_with("batches of partition")));
    }
}

#[test]
fn a_client_that_asks_or_tells_otherwise_is_noticed() {
    let [(_, first), (_, second), ..] = kept() else { panic!("two at least are kept") };
    for conversation in [first, second] {
        let mut shorter = conversation.clone();
        let asks = |entry: &Entry| matches!(entry, Entry::Said { by: Side::Client, frame, .. } if is(frame, Api::Status));
        shorter.entries.retain(|entry| {
            !asks(entry) && !matches!(entry, Entry::Said { frame, .. } if is(frame, Api::Status))
        });
        let found = answer(&shorter);
        assert!(found.is_err_and(|difference| difference.starts_with("asked\nStatus 11 ")));
        let other = |mut frame: Frame| {
            flip(&mut frame.head, 4);
            Some(frame)
        };
        // The offset after the last record: only told, not used for another question.
        let is_end = |frame: &Frame| is(frame, Api::OffsetForTime) && frame.head[4] == 44;
        let found = answer(&altered(conversation, is_end, other));
        assert!(found.is_err_and(|difference| difference.contains("told: offset orders/0")));
    }
}
