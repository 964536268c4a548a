//! A conversation as it is kept: a text with one frame a line, in the order in which a proxy between the two saw them.
//!
//! **Invariant:** text and frames are two forms of the same bytes: a frame is kept only if it can be rebuilt from its
//! line, so its paddings and reserved fields are zeros.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::SocketAddr;

use corelog_model::batch::AlignedVec;
use corelog_model::limits::round_up;
use corelog_wire::frame::{FRAME_ALIGN, HEADER_BYTES, MAX_FRAME_BYTES};
use corelog_wire::{Api, FrameHeader, Response, encode_response};

use crate::script::Chapter;

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Broker,
}

/// A frame without its paddings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) head: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// What happened. Connections are numbered from 1, in the order in which they were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A whole frame.
    Said { connection: usize, by: Side, frame: Frame },
    /// This side sends no more.
    Ended { connection: usize, by: Side },
    /// The client's user was told something.
    Told(String),
}

/// All of it, and what is to be known to hear it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conversation {
    /// Version and commit of client and broker.
    pub(crate) release: String,
    /// The kept store that the broker began with.
    pub(crate) store: String,
    /// The address that the broker's metadata named.
    pub(crate) endpoint: SocketAddr,
    /// What the client did.
    pub(crate) chapters: Vec<Chapter>,
    pub(crate) entries: Vec<Entry>,
}

impl Frame {
    /// A frame of these parts; the lengths in `header` are made to fit them.
    pub(crate) fn new(header: FrameHeader, head: Vec<u8>, payload: Vec<u8>) -> Self {
        let padded = round_up(head.len(), FRAME_ALIGN) + round_up(payload.len(), FRAME_ALIGN);
        let bytes = |count: usize| u32::try_from(count).expect("frames are short");
        let length = bytes(HEADER_BYTES + padded);
        let (head_bytes, payload_bytes) = (bytes(head.len()), bytes(payload.len()));
        Self { header: FrameHeader { length, head_bytes, payload_bytes, ..header }, head, payload }
    }

    /// Takes the next frame off a stream; `None` where that ends between two.
    pub(crate) fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut start = [0; HEADER_BYTES];
        match stream.read_exact(&mut start[..1]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            began => began?,
        }
        stream.read_exact(&mut start[1..])?;
        let strange = || io::Error::from(io::ErrorKind::InvalidData);
        let header = FrameHeader::parse(&start, MAX_FRAME_BYTES).map_err(|_| strange())?;
        let mut body = vec![0; header.frame_bytes() - HEADER_BYTES];
        stream.read_exact(&mut body)?;
        let (head, payload) = body.split_at(round_up(header.head_bytes as usize, FRAME_ALIGN));
        let head = head[..header.head_bytes as usize].to_vec();
        let frame = Self::new(header, head, payload[..header.payload_bytes as usize].to_vec());
        let whole = [&start[..], &body[..]].concat();
        if frame.bytes() == whole { Ok(Some(frame)) } else { Err(strange()) }
    }

    /// The same answer with this in it.
    pub(crate) fn with(&self, response: &Response<'_>) -> Self {
        let mut bytes = Vec::new();
        encode_response(response, self.header.reply_to(), &mut bytes);
        Self::read(&mut bytes.as_slice()).ok().flatten().expect("what was just encoded")
    }

    /// As it goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.header.encode()[..], &self.body()[..]].concat()
    }

    /// All after the header, where batches can be read in place.
    pub(crate) fn body(&self) -> AlignedVec<16> {
        let mut body = AlignedVec::new();
        for part in [&self.head, &self.payload] {
            body.extend_from_slice(part);
            body.resize(round_up(body.len(), FRAME_ALIGN), 0);
        }
        body
    }

    /// Whether the two are the same but for the correlation.
    pub(crate) fn asks_the_same(&self, other: &Self) -> bool {
        let correlation = other.header.correlation;
        let header = FrameHeader { correlation, ..self.header };
        header == other.header && self.head == other.head && self.payload == other.payload
    }

    /// For people and for the file.
    pub(crate) fn line(&self) -> String {
        let FrameHeader { api, version, flags, handle, correlation, .. } = self.header;
        let name = Api::from_u16(api).map_or("Unknown", Api::name);
        let (head, payload) = (hex(&self.head), hex(&self.payload));
        format!("{name} {api} {version} {flags} {handle} {correlation:x} {head} {payload}")
    }

    /// What [`Self::line`] gave.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(' ').collect();
        let &[_, api, version, flags, handle, correlation, head, payload] = fields.as_slice() else {
            return None;
        };
        let header = FrameHeader {
            length: 0,
            head_bytes: 0,
            api: api.parse().ok()?,
            version: version.parse().ok()?,
            flags: flags.parse().ok()?,
            handle: handle.parse().ok()?,
            correlation: u64::from_str_radix(correlation, 16).ok()?,
            payload_bytes: 0,
        };
        Some(Self::new(header, unhex(head)?, unhex(payload)?))
    }
}

impl Side {
    const fn arrow(self) -> char {
        match self {
            Self::Client => '>',
            Self::Broker => '<',
        }
    }
}

impl Entry {
    fn line(&self) -> String {
        match self {
            Self::Said { connection, by, frame } => format!("{connection} {} {}", by.arrow(), frame.line()),
            Self::Ended { connection, by } => format!("{connection} {} end", by.arrow()),
            Self::Told(what) => format!("= {what}"),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        if let Some(what) = line.strip_prefix("= ") {
            return Some(Self::Told(what.to_owned()));
        }
        let (connection, rest) = line.split_once(' ')?;
        let connection = connection.parse().ok()?;
        let (arrow, rest) = rest.split_once(' ')?;
        let by = [Side::Client, Side::Broker].into_iter().find(|side| arrow == side.arrow().to_string())?;
        Some(match rest {
            "end" => Self::Ended { connection, by },
            said => Self::Said { connection, by, frame: Frame::parse(said)? },
        })
    }
}

impl Conversation {
    /// The text that is kept.
    pub(crate) fn text(&self) -> String {
        let Self { release, store, endpoint, chapters, entries } = self;
        let mut text = format!(
            "# What a client and a broker said to each other over a copy of tests/data/{store}; both were corelog {release}.\n\
             # It is never changed: tests/tests/conversations says how it is played again. One frame a line: connection,\n\
             # > from the client or < from the broker, api by name and number, version, flags, handle, correlation, head and\n\
             # payload in hexadecimal (- for none, paddings are zeros). `end`: that side sends no more. `=`: what the user of\n\
             # the client was told.\n"
        );
        let chapters: Vec<_> = chapters.iter().map(|chapter| chapter.name()).collect();
        let written = writeln!(
            text,
            "release {release}\nstore {store}\nendpoint {endpoint}\nchapters {}",
            chapters.join(" ")
        );
        written.expect("memory takes it");
        entries.iter().for_each(|entry| text.extend([entry.line().as_str(), "\n"]));
        text
    }

    /// The same from its text.
    pub(crate) fn parse(text: &str) -> Self {
        let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#'));
        let mut field = |name: &str| {
            let (number, line) = lines.next().expect("it begins with its fields");
            let value = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' '));
            value.unwrap_or_else(|| panic!("line {number} names its {name}")).to_owned()
        };
        let (release, store) = (field("release"), field("store"));
        let (endpoint, chapters) = (field("endpoint"), field("chapters"));
        let endpoint = endpoint.parse().expect("an address");
        let chapters = chapters.split(' ').map(|name| Chapter::from_name(name).expect("a chapter")).collect();
        let entry = |(number, line)| Entry::parse(line).unwrap_or_else(|| panic!("line {number}: {line}"));
        Self { release, store, endpoint, chapters, entries: lines.map(entry).collect() }
    }

    /// What the user of the client was told, in order.
    pub(crate) fn told(&self) -> Vec<&str> {
        let told = self.entries.iter().filter_map(|entry| match entry {
            Entry::Told(what) => Some(what.as_str()),
            Entry::Said { .. } | Entry::Ended { .. } => None,
        });
        told.collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("memory takes it");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text == "-" {
        return Some(Vec::new());
    }
    let digits = text.as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(pair).collect())?
}
