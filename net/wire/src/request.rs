//! What a client asks. One value per api; variable parts are borrowed from the frame.

use corelog_model::{Durability, RetentionChange, Term, TopicId};

use crate::api::Api;
use crate::fault::{NoRoom, WireError};
use crate::frame::FrameHeader;
use crate::hello::Hello;
use crate::reader::Reader;
use crate::writer::Writer;

/// Largest handle: a connection names at most this many partitions.
pub const MAX_HANDLE: u32 = 65_535;
/// Header and head of a Produce, Fetch, Subscribe or Credit request take at most this many bytes.
pub const HOT_REQUEST_BYTES: usize = 64;

const PRODUCE_EXPECTS_OFFSET: u32 = 1 << 0;
const FETCH_NAMES_EPOCH: u32 = 1 << 0;
const SUBSCRIBE_NAMES_EPOCH: u32 = 1 << 0;
const CREDIT_ENDS: u32 = 1 << 0;
const METADATA_NAMES_TOPIC: u32 = 1 << 0;
const COMMIT_NAMES_EPOCH: u32 = 1 << 0;
const READ_ONE_POSITION: u32 = 1 << 0;

const ALTER_NAMES_PARTITIONS: u32 = 1 << 0;
const ALTER_NAMES_DURABILITY: u32 = 1 << 1;

const AT_START: u32 = 0;
const AT_END: u32 = 1;
const AT_TIME: u32 = 2;

/// A request of the newest version of its api; [`Request::version`] says which older one is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// First on every connection.
    Hello(Hello<'a>),
    /// Nothing.
    Ping,
    /// Topics and where their partitions live.
    Metadata {
        /// One topic by name, or all.
        topic: Option<&'a str>,
    },
    /// Makes a topic.
    CreateTopic {
        /// Its name.
        name: &'a str,
        /// Number of partitions, from 1.
        partitions: u32,
        /// When its records are acknowledged and visible.
        durability: Durability,
        /// What takes its records away; what is not named does not.
        retention: RetentionChange,
    },
    /// Adds partitions to a topic, changes its level or how long it keeps its records, or all of it.
    AlterTopic {
        /// Its name.
        name: &'a str,
        /// How many partitions it is to have, not fewer than it has; `None`: as many as it has.
        partitions: Option<u32>,
        /// Its level from then on; `None`: as it is.
        durability: Option<Durability>,
        /// What takes its records away from then on; what is not named stays as it is.
        retention: RetentionChange,
    },
    /// Removes a topic and its records.
    DeleteTopic {
        /// Its name.
        name: &'a str,
    },
    /// Names a partition for this connection. Opening a handle again replaces what it named.
    Open {
        /// Chosen by the client, 1 to [`MAX_HANDLE`].
        handle: u32,
        /// The topic's id, from the metadata.
        topic: TopicId,
        /// Its partition, from 0.
        partition: u32,
    },
    /// Appends batches to the handle's partition.
    Produce {
        /// The partition.
        handle: u32,
        /// Append only if the log ends here.
        expected_offset: Option<u64>,
        /// Sealed batches, each padded to 16 bytes, back to back.
        batches: &'a [u8],
    },
    /// Reads batches of the handle's partition.
    Fetch {
        /// The partition.
        handle: u32,
        /// The first offset wanted; the first batch answered contains it.
        offset: u64,
        /// The epoch of what was read before `offset`, where known.
        leader_epoch: Option<Term>,
        /// Upper bound of the answer in bytes; one batch is answered even if it is larger.
        max_bytes: u32,
        /// Wait until this many bytes are visible, or until the time is over.
        min_bytes: u32,
        /// How long to wait for `min_bytes`, in microseconds; 0 answers at once.
        max_wait_us: u64,
    },
    /// Looks up an offset by position or time.
    OffsetForTime {
        /// The partition.
        handle: u32,
        /// What is looked for.
        at: At,
    },
    /// A fresh producer id.
    ProducerId,
    /// Counters of the broker.
    Status,
    /// Has batches of the handle's partition pushed, in place of the subscription that the handle has. Every push is a
    /// response to this request.
    Subscribe {
        /// The partition.
        handle: u32,
        /// The first offset wanted; the first batch pushed contains it.
        offset: u64,
        /// The epoch of what was read before `offset`, where known.
        leader_epoch: Option<Term>,
        /// Upper bound of one push in bytes; one batch is pushed even if it is larger.
        max_bytes: u32,
        /// Bytes that may be pushed until more credit is given; while there is some, one batch may go beyond it.
        credit: u32,
    },
    /// More credit for the handle's subscription, or its end.
    Credit {
        /// The partition.
        handle: u32,
        /// Bytes that may be pushed in addition.
        bytes: u32,
        /// The subscription is to end; its last push says so.
        ends: bool,
    },
    /// Keeps how far whoever reads the handle's partition under a name has come.
    CommitPosition {
        /// The partition.
        handle: u32,
        /// The name.
        name: &'a str,
        /// The next offset to be read.
        offset: u64,
        /// The epoch of what was read before it, where known.
        leader_epoch: Option<Term>,
        /// A note of the client's.
        metadata: &'a str,
    },
    /// Reads positions kept for the handle's partition.
    ReadPositions {
        /// The partition.
        handle: u32,
        /// Which of them.
        which: Which<'a>,
    },
    /// Forgets a position kept for the handle's partition, if there is one.
    DeletePosition {
        /// The partition.
        handle: u32,
        /// The name.
        name: &'a str,
    },
    /// Takes the records of the handle's partition below an offset away.
    DeleteRecords {
        /// The partition.
        handle: u32,
        /// The first offset that stays.
        before_offset: u64,
    },
}

/// Some of the positions of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// The one of this name.
    One(&'a str),
    /// Those whose names come after this one, by their bytes; all after the empty one.
    After(&'a str),
}

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The oldest record kept.
    Start,
    /// The high watermark.
    End,
    /// The first record at or after this time, in microseconds since 1970.
    Time(u64),
}

impl At {
    fn encode(self, head: &mut Writer<'_>) {
        let (kind, time) = match self {
            Self::Start => (AT_START, 0),
            Self::End => (AT_END, 0),
            Self::Time(time) => (AT_TIME, time),
        };
        head.u32(kind);
        head.u64(time);
    }
}

/// What a client adds to a request: how it wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Comes back with the response. Unique among the requests of a connection that are not answered yet.
    pub correlation: u64,
    /// The version of the api: one that [`crate::api::negotiate`] found.
    pub version: u8,
}

impl<'a> Request<'a> {
    /// Its api.
    pub const fn api(&self) -> Api {
        match self {
            Self::Hello(_) => Api::Hello,
            Self::Ping => Api::Ping,
            Self::Metadata { .. } => Api::Metadata,
            Self::CreateTopic { .. } => Api::CreateTopic,
            Self::AlterTopic { .. } => Api::AlterTopic,
            Self::DeleteTopic { .. } => Api::DeleteTopic,
            Self::Open { .. } => Api::Open,
            Self::Produce { .. } => Api::Produce,
            Self::Fetch { .. } => Api::Fetch,
            Self::OffsetForTime { .. } => Api::OffsetForTime,
            Self::ProducerId => Api::ProducerId,
            Self::Status => Api::Status,
            Self::Subscribe { .. } => Api::Subscribe,
            Self::Credit { .. } => Api::Credit,
            Self::CommitPosition { .. } => Api::CommitPosition,
            Self::ReadPositions { .. } => Api::ReadPositions,
            Self::DeletePosition { .. } => Api::DeletePosition,
            Self::DeleteRecords { .. } => Api::DeleteRecords,
        }
    }

    /// The oldest version of its api that says all of it.
    pub const fn version(&self) -> u8 {
        match self {
            Self::CreateTopic { retention, .. } | Self::AlterTopic { retention, .. }
                if !retention.is_none() =>
            {
                2
            }
            _ => 1,
        }
    }

    /// The handle it names, or 0.
    pub const fn handle(&self) -> u32 {
        match *self {
            Self::Open { handle, .. }
            | Self::Produce { handle, .. }
            | Self::Fetch { handle, .. }
            | Self::OffsetForTime { handle, .. }
            | Self::Subscribe { handle, .. }
            | Self::Credit { handle, .. }
            | Self::CommitPosition { handle, .. }
            | Self::ReadPositions { handle, .. }
            | Self::DeletePosition { handle, .. }
            | Self::DeleteRecords { handle, .. } => handle,
            _ => 0,
        }
    }

    /// The bytes that follow the head.
    pub const fn payload(&self) -> &'a [u8] {
        match self {
            Self::Produce { batches, .. } => batches,
            _ => &[],
        }
    }

    fn encode_head(&self, head: &mut Writer<'_>) {
        match *self {
            Self::Hello(ref hello) => hello.encode(head),
            Self::Ping | Self::ProducerId | Self::Status => {}
            Self::Metadata { topic } => {
                head.u32(if topic.is_some() { METADATA_NAMES_TOPIC } else { 0 });
                head.text(topic.unwrap_or_default());
            }
            Self::CreateTopic { name, partitions, durability, retention } => {
                head.u32(partitions);
                head.u8(durability as u8);
                head.text(name);
                encode_retention(head, retention);
            }
            Self::AlterTopic { name, partitions, durability, retention } => {
                let flag = |is_named: bool, flag: u32| if is_named { flag } else { 0 };
                let named = flag(partitions.is_some(), ALTER_NAMES_PARTITIONS);
                head.u32(named | flag(durability.is_some(), ALTER_NAMES_DURABILITY));
                head.u32(partitions.unwrap_or(0));
                head.u8(durability.unwrap_or_default() as u8);
                head.text(name);
                encode_retention(head, retention);
            }
            Self::DeleteTopic { name } => head.text(name),
            Self::Open { topic, partition, .. } => {
                head.u128(topic.0);
                head.u32(partition);
            }
            Self::Produce { expected_offset, .. } => {
                head.u32(if expected_offset.is_some() { PRODUCE_EXPECTS_OFFSET } else { 0 });
                head.u64(expected_offset.unwrap_or(0));
            }
            Self::Fetch { offset, leader_epoch, max_bytes, min_bytes, max_wait_us, .. } => {
                encode_epoch(head, FETCH_NAMES_EPOCH, leader_epoch);
                head.u64(offset);
                head.u64(max_wait_us);
                head.u32(max_bytes);
                head.u32(min_bytes);
            }
            Self::OffsetForTime { at, .. } => at.encode(head),
            Self::Subscribe { offset, leader_epoch, max_bytes, credit, .. } => {
                encode_epoch(head, SUBSCRIBE_NAMES_EPOCH, leader_epoch);
                head.u64(offset);
                head.u32(max_bytes);
                head.u32(credit);
            }
            Self::Credit { bytes, ends, .. } => {
                head.u32(if ends { CREDIT_ENDS } else { 0 });
                head.u32(bytes);
            }
            Self::CommitPosition { name, offset, leader_epoch, metadata, .. } => {
                encode_epoch(head, COMMIT_NAMES_EPOCH, leader_epoch);
                head.u64(offset);
                head.text(name);
                head.text(metadata);
            }
            Self::ReadPositions { which, .. } => {
                let (flags, name) = match which {
                    Which::One(name) => (READ_ONE_POSITION, name),
                    Which::After(name) => (0, name),
                };
                head.u32(flags);
                head.text(name);
            }
            Self::DeletePosition { name, .. } => head.text(name),
            Self::DeleteRecords { before_offset, .. } => head.u64(before_offset),
        }
    }
}

/// The flags of a request whose only one is that it names an epoch, and the epoch.
fn encode_epoch(head: &mut Writer<'_>, names: u32, leader_epoch: Option<Term>) {
    head.u32(if leader_epoch.is_some() { names } else { 0 });
    head.u32(leader_epoch.unwrap_or_default().0);
}

/// Reads a request. `header` is its frame's, `body` all bytes of the frame after it. Borrows from `body`;
/// allocates nothing. The answer to an error is [`crate::ErrorBody::from_fault`].
pub fn decode_request<'a>(header: &FrameHeader, body: &'a [u8]) -> Result<Request<'a>, WireError> {
    if header.is_response() {
        return Err(WireError::WrongDirection);
    }
    let (head, payload) = header.parts(body)?;
    let unsupported = WireError::Unsupported { api: header.api, version: header.version };
    let api = Api::from_u16(header.api).ok_or(unsupported)?;
    if !api.versions().contains(header.version) {
        return Err(unsupported);
    }
    if api != Api::Produce && !payload.is_empty() {
        return Err(WireError::UnexpectedPayload);
    }
    let handle = header.handle;
    let mut head = Reader::new(head);
    let request = match api {
        Api::Hello => return Hello::decode(head).map(Request::Hello),
        Api::Ping => Request::Ping,
        Api::Metadata => {
            let named = head.flags(METADATA_NAMES_TOPIC, "metadata flags")? != 0;
            let topic = head.text("topic")?;
            Request::Metadata { topic: named.then_some(topic) }
        }
        Api::CreateTopic => return decode_create_topic(head),
        Api::AlterTopic => return decode_alter_topic(head),
        Api::DeleteTopic => Request::DeleteTopic { name: head.text("name")? },
        Api::Open => {
            if handle == 0 || handle > MAX_HANDLE {
                return Err(WireError::BadValue { field: "handle" });
            }
            let topic = TopicId(head.u128("topic id")?);
            Request::Open { handle, topic, partition: head.u32("partition")? }
        }
        Api::Produce => decode_produce(&mut head, handle, payload)?,
        Api::Fetch => decode_fetch(&mut head, handle)?,
        Api::OffsetForTime => decode_offset_for_time(&mut head, handle)?,
        Api::ProducerId => Request::ProducerId,
        Api::Status => Request::Status,
        Api::Subscribe => decode_subscribe(&mut head, handle)?,
        Api::Credit => {
            let ends = head.flags(CREDIT_ENDS, "credit flags")? != 0;
            Request::Credit { handle, bytes: head.u32("bytes")?, ends }
        }
        Api::CommitPosition => decode_commit_position(&mut head, handle)?,
        Api::ReadPositions => {
            let one = head.flags(READ_ONE_POSITION, "positions flags")? != 0;
            let name = head.text("name")?;
            let which = if one { Which::One(name) } else { Which::After(name) };
            Request::ReadPositions { handle, which }
        }
        Api::DeletePosition => Request::DeletePosition { handle, name: head.text("name")? },
        Api::DeleteRecords => Request::DeleteRecords { handle, before_offset: head.u64("before_offset")? },
    };
    head.end()?;
    Ok(request)
}

/// Tags of a request that makes or alters a topic, of version 2: whoever does not know them answers that he does not, rather
/// than make a topic that keeps its records.
mod tag {
    /// Microseconds, u64; 0: whatever their age.
    pub(super) const RETENTION_TIME: u16 = 1;
    /// Bytes of each partition, u64; 0: however many.
    pub(super) const RETENTION_BYTES: u16 = 2;
}

fn encode_retention(head: &mut Writer<'_>, retention: RetentionChange) {
    for (tag, value) in [(tag::RETENTION_TIME, retention.time_us), (tag::RETENTION_BYTES, retention.bytes)] {
        if let Some(value) = value {
            head.tagged(tag, |field| field.u64(value));
        }
    }
}

fn decode_retention(head: Reader<'_>) -> Result<RetentionChange, WireError> {
    let (mut retention, mut tagged) = (RetentionChange::default(), head.tagged());
    while let Some((tag, mut field)) = tagged.next()? {
        match tag {
            tag::RETENTION_TIME => retention.time_us = Some(field.u64("retention time")?),
            tag::RETENTION_BYTES => retention.bytes = Some(field.u64("retention bytes")?),
            _ => {}
        }
    }
    Ok(retention)
}

fn decode_create_topic(mut head: Reader<'_>) -> Result<Request<'_>, WireError> {
    let partitions = head.u32("partitions")?;
    let durability = head.durability()?;
    let name = head.text("name")?;
    Ok(Request::CreateTopic { name, partitions, durability, retention: decode_retention(head)? })
}

fn decode_alter_topic(mut head: Reader<'_>) -> Result<Request<'_>, WireError> {
    let flags = head.flags(ALTER_NAMES_PARTITIONS | ALTER_NAMES_DURABILITY, "alter flags")?;
    let partitions = head.u32("partitions")?;
    let durability = head.durability()?;
    let name = head.text("name")?;
    Ok(Request::AlterTopic {
        name,
        partitions: (flags & ALTER_NAMES_PARTITIONS != 0).then_some(partitions),
        durability: (flags & ALTER_NAMES_DURABILITY != 0).then_some(durability),
        retention: decode_retention(head)?,
    })
}

fn decode_produce<'a>(
    head: &mut Reader<'a>,
    handle: u32,
    batches: &'a [u8],
) -> Result<Request<'a>, WireError> {
    let expects = head.flags(PRODUCE_EXPECTS_OFFSET, "produce flags")? != 0;
    let expected = head.u64("expected_offset")?;
    Ok(Request::Produce { handle, expected_offset: expects.then_some(expected), batches })
}

fn decode_fetch<'a>(head: &mut Reader<'a>, handle: u32) -> Result<Request<'a>, WireError> {
    let named = head.flags(FETCH_NAMES_EPOCH, "fetch flags")? != 0;
    let epoch = Term(head.u32("leader_epoch")?);
    let offset = head.u64("offset")?;
    let max_wait_us = head.u64("max_wait_us")?;
    let max_bytes = head.u32("max_bytes")?;
    let min_bytes = head.u32("min_bytes")?;
    let leader_epoch = named.then_some(epoch);
    Ok(Request::Fetch { handle, offset, leader_epoch, max_bytes, min_bytes, max_wait_us })
}

fn decode_subscribe<'a>(head: &mut Reader<'a>, handle: u32) -> Result<Request<'a>, WireError> {
    let named = head.flags(SUBSCRIBE_NAMES_EPOCH, "subscribe flags")? != 0;
    let epoch = Term(head.u32("leader_epoch")?);
    let offset = head.u64("offset")?;
    let max_bytes = head.u32("max_bytes")?;
    let credit = head.u32("credit")?;
    Ok(Request::Subscribe { handle, offset, leader_epoch: named.then_some(epoch), max_bytes, credit })
}

fn decode_offset_for_time<'a>(head: &mut Reader<'a>, handle: u32) -> Result<Request<'a>, WireError> {
    let kind = head.u32("at")?;
    let time = head.u64("time_us")?;
    let at = match kind {
        AT_START => At::Start,
        AT_END => At::End,
        AT_TIME => At::Time(time),
        _ => return Err(WireError::BadValue { field: "at" }),
    };
    Ok(Request::OffsetForTime { handle, at })
}

fn decode_commit_position<'a>(head: &mut Reader<'a>, handle: u32) -> Result<Request<'a>, WireError> {
    let named = head.flags(COMMIT_NAMES_EPOCH, "position flags")? != 0;
    let epoch = Term(head.u32("leader_epoch")?);
    let offset = head.u64("offset")?;
    let name = head.text("name")?;
    let metadata = head.text("metadata")?;
    Ok(Request::CommitPosition { handle, name, offset, leader_epoch: named.then_some(epoch), metadata })
}

/// Writes header and head to the start of `out` and returns how many bytes that are, a multiple of 16. What is to
/// be sent after them: [`Request::payload`] and its [`crate::frame::padding`]. Allocates nothing; an `out` of
/// [`HOT_REQUEST_BYTES`] is enough for Produce and Fetch.
pub fn encode_request_head(request: &Request<'_>, call: Call, out: &mut [u8]) -> Result<usize, NoRoom> {
    let mut head = Writer::frame(out);
    request.encode_head(&mut head);
    let header = FrameHeader {
        length: 0,
        head_bytes: 0,
        api: request.api() as u16,
        version: call.version,
        flags: 0,
        handle: request.handle(),
        correlation: call.correlation,
        payload_bytes: 0,
    };
    head.finish(header, request.payload().len())
}

/// Appends the whole frame to `out`, payload and paddings included, and returns its length in bytes.
pub fn encode_request(request: &Request<'_>, call: Call, out: &mut Vec<u8>) -> usize {
    let payload = request.payload();
    crate::writer::append(out, payload, |room| encode_request_head(request, call, room))
}
