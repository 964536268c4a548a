//! What of an answer may differ from the recorded one, and nothing else may.
//!
//! | answer | may differ |
//! |---|---|
//! | Hello | name and version of the broker; more apis and versions may be served |
//! | Produce | when the batch was appended |
//! | Fetch, Subscribe | of batches that the conversation itself appended: that time again |
//! | Subscribe | how batches are cut into pushes; more may be under way when the client ends it |
//! | ReadPositions | when a position was committed, of those that the conversation itself committed |
//! | Status | counters that are not facts of the store; unknown ones may come, known ones go on being sent |
//! | an error | its message; the largest number of partitions and the apis served, which may grow |
//!
//! Everything else is the same byte for byte.

use std::collections::{HashMap, HashSet};

use corelog_model::TopicId;
use corelog_model::batch::{AlignedVec, BatchHeader, Patch};
use corelog_wire::{
    ApiVersions, ErrorBody, ErrorCode, FrameHeader, HelloReply, PositionsReply, Response, Status,
    decode_response,
};

use crate::conversation::Frame;

/// What happened at another time than when it was recorded.
#[derive(Default)]
pub(crate) struct Times {
    /// When batches were appended: as recorded, and now.
    appended: HashMap<u64, u64>,
    /// Topic, partition and name of positions that were committed.
    committed: HashSet<(TopicId, u32, String)>,
}

/// Whether `now` is as good as `recorded`, batches apart; learns when a batch was appended. `place` is what the handle
/// stands for.
pub(crate) fn compare(
    recorded: &Frame,
    now: &Frame,
    place: Option<(TopicId, u32)>,
    times: &mut Times,
) -> Result<(), String> {
    let header = |frame: &Frame| FrameHeader { length: 0, head_bytes: 0, payload_bytes: 0, ..frame.header };
    let (before, after) = (recorded.body(), now.body());
    let same = header(recorded) == header(now)
        && match (decode(recorded, &before)?, decode(now, &after)?) {
            (Response::Error(before), Response::Error(after)) => {
                recorded.head[..ERROR_BEGIN_BYTES] == now.head[..ERROR_BEGIN_BYTES]
                    && same_error(&before, &after)
            }
            (Response::Hello(before), Response::Hello(after)) => same_hello(&before, &after),
            (Response::Status(before), Response::Status(after)) => same_status(recorded, &before, &after),
            (before @ Response::Produced { .. }, after) => times.learn(&before, &after),
            (Response::Positions(before), Response::Positions(after)) => {
                let expected = place.map(|place| times.positions(place, before, &after));
                expected
                    .is_some_and(|expected| recorded.with(&Response::Positions(expected)).head == now.head)
            }
            (Response::Fetched { .. }, _) => recorded.head == now.head,
            _ => recorded.head == now.head && recorded.payload == now.payload,
        };
    if same { Ok(()) } else { Err(format!("recorded {}\nanswered {}", recorded.line(), now.line())) }
}

fn decode<'a>(frame: &Frame, body: &'a AlignedVec<16>) -> Result<Response<'a>, String> {
    decode_response(&frame.header, body).map_err(|error| format!("{error:?}: {}", frame.line()))
}

/// Code, error flags and pause. Of a code that a client does not know the flags say what it means.
const ERROR_BEGIN_BYTES: usize = 2 + 2 + 4;

fn same_error(before: &ErrorBody<'_>, after: &ErrorBody<'_>) -> bool {
    let mut expected = ErrorBody { message: after.message, served: after.served, ..*before };
    if before.code == ErrorCode::InvalidPartitions {
        expected.details[1] = before.details[1].max(after.details[1]);
    }
    expected == *after && serves(before.served, after.served)
}

fn same_hello(before: &HelloReply<'_>, after: &HelloReply<'_>) -> bool {
    let expected = HelloReply { server: after.server, served: after.served, ..*before };
    expected == *after && serves(before.served, after.served)
}

/// Whether all that was served still is.
fn serves(before: &[ApiVersions], after: &[ApiVersions]) -> bool {
    before.iter().all(|old| {
        let new = after.iter().find(|new| new.api() == old.api()).map(|new| new.range());
        new.is_some_and(|new| new.contains(old.range().min) && new.contains(old.range().max))
    })
}

/// What a status says of the store, and of what was done to it so far, is the same; no counter has lost its meaning.
fn same_status(recorded: &Frame, before: &Status, after: &Status) -> bool {
    let facts = |of: &Status| [of.topics, of.partitions, of.logs, of.term, of.batches, of.records];
    let (counters, rest) = recorded.head.as_chunks::<COUNTER_BYTES>();
    let known = |counter: &[u8; COUNTER_BYTES]| {
        let tag = u16::from_le_bytes([counter[0], counter[1]]);
        Status::TAGS.iter().any(|&(known, _)| known == tag)
    };
    facts(before) == facts(after) && rest.is_empty() && counters.iter().all(known)
}

/// Tag, length and value of a counter.
const COUNTER_BYTES: usize = 2 + 2 + 8;

impl Times {
    /// A position is being committed.
    pub(crate) fn commits(&mut self, topic: TopicId, partition: u32, name: &str) {
        self.committed.insert((topic, partition, name.to_owned()));
    }

    /// The recorded positions of a partition as they are to be read now.
    fn positions<'a>(
        &self,
        (topic, partition): (TopicId, u32),
        before: PositionsReply<'a>,
        after: &PositionsReply<'_>,
    ) -> PositionsReply<'a> {
        let mut expected = before;
        for (before, after) in expected.positions.iter_mut().zip(&after.positions) {
            if self.committed.contains(&(topic, partition, before.name.to_owned())) {
                before.commit_timestamp_us = after.commit_timestamp_us;
            }
        }
        expected
    }

    fn learn(&mut self, before: &Response<'_>, after: &Response<'_>) -> bool {
        let (
            &Response::Produced { base_offset, append_timestamp_us: then_us, log_start, batches },
            &Response::Produced { append_timestamp_us, .. },
        ) = (before, after)
        else {
            return false;
        };
        let alone = self.appended.insert(then_us, append_timestamp_us).is_none();
        alone && *after == Response::Produced { base_offset, append_timestamp_us, log_start, batches }
    }

    /// The recorded batches of a partition as they are to be read now.
    fn expected(&self, recorded: &[u8], topic: TopicId, partition: u32) -> Result<Vec<u8>, String> {
        let mut bytes = recorded.to_vec();
        for (at, header) in cut(recorded)? {
            if let Some(&append_timestamp_us) = self.appended.get(&header.append_timestamp_us) {
                let BatchHeader { base_offset, leader_epoch, .. } = header;
                let patch = Patch { base_offset, append_timestamp_us, leader_epoch };
                BatchHeader::patch(&mut bytes[at..], &patch, topic, partition);
            }
        }
        Ok(bytes)
    }
}

/// Batches of a partition, as recorded and as they came now. They can be compared once all times are known.
pub(crate) struct Batches {
    pub(crate) topic: TopicId,
    pub(crate) partition: u32,
    pub(crate) recorded: Vec<u8>,
    pub(crate) now: Vec<u8>,
    /// They were pushed until their reader had enough: more may have come than he saw.
    pub(crate) may_go_on: bool,
}

impl Batches {
    pub(crate) fn compare(&self, times: &Times) -> Result<(), String> {
        let expected = times.expected(&self.recorded, self.topic, self.partition)?;
        let same = if self.may_go_on { self.now.starts_with(&expected) } else { self.now == expected };
        if !same {
            let place = format!("partition {} of topic {}", self.partition, self.topic);
            return Err(format!("batches of {place}: {:?} became {:?}", cut(&expected)?, cut(&self.now)?));
        }
        let mut next = None;
        for (at, header) in cut(&self.now)? {
            let whole = header.verify_body(&self.now[at..])
                && BatchHeader::verify_header(&self.now[at..], self.topic, self.partition);
            if !whole || next.is_some_and(|next| next != header.base_offset) {
                return Err(format!("a batch that does not follow at {next:?}: {header:?}"));
            }
            next = Some(header.next_offset());
        }
        Ok(())
    }
}

/// Where each batch begins, and its header.
fn cut(batches: &[u8]) -> Result<Vec<(usize, BatchHeader)>, String> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < batches.len() {
        let header = BatchHeader::parse(&batches[at..]).map_err(|error| format!("{error:?} at {at}"))?;
        found.push((at, header));
        at += header.padded_bytes();
    }
    if at == batches.len() { Ok(found) } else { Err(format!("{at} bytes of batches in {}", batches.len())) }
}
