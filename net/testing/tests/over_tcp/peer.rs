//! A peer that speaks the protocol with nothing but the codec and a blocking socket.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use corelog_model::batch::{AlignedVec, BatchBuilder, BatchView, Codec, RecordRef, Seal};
use corelog_model::{Durability, ProducerId, RetentionChange, Term, TopicId};
use corelog_wire::frame::{HEADER_BYTES, MAX_FRAME_BYTES};
use corelog_wire::{
    Call, ErrorCode, FrameHeader, Hello, Request, Response, Status, decode_response, encode_request,
};

/// How long a peer waits for the broker before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub(crate) struct Peer {
    stream: TcpStream,
    correlation: u64,
}

/// An answer with the bytes it borrows from.
pub(crate) struct Answer {
    pub(crate) header: FrameHeader,
    body: AlignedVec<16>,
}

impl Answer {
    pub(crate) fn response(&self) -> Response<'_> {
        decode_response(&self.header, &self.body).expect("the broker speaks the protocol")
    }

    pub(crate) fn error(&self) -> Option<ErrorCode> {
        match self.response() {
            Response::Error(body) => Some(body.code),
            _ => None,
        }
    }
}

impl Peer {
    /// Connects without a Hello.
    pub(crate) fn silent(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).expect("the broker listens"))
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, correlation: 0 }
    }

    /// Connects and says Hello.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("the broker listens"))
    }

    /// Says Hello over a connection that is there.
    pub(crate) fn over(stream: TcpStream) -> Self {
        let mut peer = Self::of(stream);
        let hello = Hello { client: "peer", client_version: "1", max_frame_bytes: MAX_FRAME_BYTES as u32 };
        let answer = peer.ask(&Request::Hello(hello));
        assert!(matches!(answer.response(), Response::Hello(_)), "{:?}", answer.response());
        peer
    }

    /// Sends nothing more, and still reads.
    pub(crate) fn end_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("a socket");
    }

    /// Sends a request and does not wait.
    pub(crate) fn send(&mut self, request: &Request<'_>) -> u64 {
        self.correlation += 1;
        let mut bytes = Vec::new();
        encode_request(request, Call { correlation: self.correlation, version: 1 }, &mut bytes);
        self.send_bytes(&bytes);
        self.correlation
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker takes the bytes");
    }

    /// The next answer; `None` when the broker has closed the connection.
    pub(crate) fn receive(&mut self) -> Option<Answer> {
        let mut header = [0; HEADER_BYTES];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no answer in {PATIENCE:?}")
            }
            Err(_) => return None,
        }
        let header = FrameHeader::parse(&header, MAX_FRAME_BYTES).expect("a frame");
        let mut body = AlignedVec::new();
        body.resize(header.frame_bytes() - HEADER_BYTES, 0);
        self.stream.read_exact(&mut body).ok()?;
        Some(Answer { header, body })
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(&mut self, request: &Request<'_>) -> Answer {
        let correlation = self.send(request);
        let answer = self.receive().expect("an answer");
        assert_eq!(answer.header.correlation, correlation);
        answer
    }

    pub(crate) fn create_topic(&mut self, name: &str, partitions: u32, durability: Durability) -> TopicId {
        match self
            .ask(&Request::CreateTopic { name, partitions, durability, retention: RetentionChange::NONE })
            .response()
        {
            Response::TopicCreated { topic } => topic,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn delete_topic(&mut self, name: &str) {
        assert_eq!(self.ask(&Request::DeleteTopic { name }).error(), None);
    }

    pub(crate) fn producer_id(&mut self) -> ProducerId {
        match self.ask(&Request::ProducerId).response() {
            Response::ProducerId { id, .. } => id,
            other => panic!("{other:?}"),
        }
    }

    /// Opens a partition; where it starts and where it ends.
    pub(crate) fn open(&mut self, handle: u32, topic: TopicId, partition: u32) -> (u64, u64) {
        match self.ask(&Request::Open { handle, topic, partition }).response() {
            Response::Opened { log_start, high_watermark, .. } => (log_start, high_watermark),
            other => panic!("{other:?}"),
        }
    }

    /// All topics: name, id and number of partitions.
    pub(crate) fn topics(&mut self) -> Vec<(String, TopicId, usize)> {
        match self.ask(&Request::Metadata { topic: None }).response() {
            Response::Metadata(reply) => {
                let topics = reply.topics.iter();
                topics.map(|topic| (topic.name.to_owned(), topic.topic, topic.partitions.len())).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Appends and gives the offset of the first record.
    pub(crate) fn produce(&mut self, handle: u32, batches: &[u8]) -> Result<u64, ErrorCode> {
        match self.ask(&Request::Produce { handle, expected_offset: None, batches }).response() {
            Response::Produced { base_offset, .. } => Ok(base_offset),
            Response::Error(body) => Err(body.code),
            other => panic!("{other:?}"),
        }
    }

    /// The values of all records from `offset` on that one answer holds, and the high watermark.
    pub(crate) fn fetch(
        &mut self,
        handle: u32,
        offset: u64,
        max_bytes: u32,
    ) -> Result<(Vec<Vec<u8>>, u64), ErrorCode> {
        let fetch = Request::Fetch {
            handle,
            offset,
            leader_epoch: None,
            max_bytes,
            min_bytes: 1,
            max_wait_us: 5_000_000,
        };
        let answer = self.ask(&fetch);
        match answer.response() {
            Response::Fetched { batches, high_watermark, .. } => {
                Ok((values(batches, offset), high_watermark))
            }
            Response::Error(body) => Err(body.code),
            other => panic!("{other:?}"),
        }
    }

    /// What is there now for a reader that has read up to `offset` in this epoch: records, or the refusal and its detail.
    pub(crate) fn fetch_knowing(
        &mut self,
        handle: u32,
        offset: u64,
        epoch: u32,
    ) -> Result<Vec<Vec<u8>>, (ErrorCode, u64)> {
        let leader_epoch = Some(Term(epoch));
        let (max_bytes, min_bytes, max_wait_us) = (1, 1, 0);
        let fetch = Request::Fetch { handle, offset, leader_epoch, max_bytes, min_bytes, max_wait_us };
        match self.ask(&fetch).response() {
            Response::Fetched { batches, .. } => Ok(values(batches, offset)),
            Response::Error(body) => Err((body.code, body.details[0])),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn status(&mut self) -> Status {
        match self.ask(&Request::Status).response() {
            Response::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// Whether the broker ends the connection without another answer.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.receive().is_none()
    }
}

/// Whose batch it is: the producer, its epoch, and the sequence of the first record.
pub(crate) type From = (ProducerId, u16, u32);

/// One sealed batch of these values, of no producer.
pub(crate) fn batch(topic: TopicId, partition: u32, values: &[Vec<u8>]) -> Vec<u8> {
    batch_from((ProducerId::NONE, 0, 0), topic, partition, values)
}

/// One sealed batch of these values.
pub(crate) fn batch_from(from: From, topic: TopicId, partition: u32, values: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1 << 20);
    for value in values {
        let record = RecordRef { key: None, value: Some(value), timestamp_us: 1, headers: &[] };
        builder.push(record).expect("room for the record");
    }
    let (producer_id, producer_epoch, base_sequence) = from;
    let seal = Seal { topic, partition, producer_id, producer_epoch, base_sequence, codec: Codec::None };
    let mut out = AlignedVec::new();
    builder.seal(&seal, &mut out).expect("sealed");
    out.to_vec()
}

fn values(batches: &[u8], from: u64) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    let mut rest = batches;
    while !rest.is_empty() {
        let mut scratch = AlignedVec::new();
        let header = corelog_model::batch::BatchHeader::parse(rest).expect("a batch");
        assert!(header.verify_body(rest), "the body is what the producer sealed");
        let view = BatchView::open(rest, &mut scratch).expect("a batch");
        let wanted = view.records().filter(|record| record.offset >= from);
        values.extend(wanted.map(|record| record.value.expect("a value").to_vec()));
        rest = &rest[header.padded_bytes()..];
    }
    values
}
