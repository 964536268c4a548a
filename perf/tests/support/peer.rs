//! One connection: requests gather until they are flushed, answers are read in place.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use corelog_model::{Durability, ProducerId, TopicId};
use corelog_wire::frame::MAX_FRAME_BYTES;
use corelog_wire::{
    Call, FrameHeader, Hello, Request, Response, Split, Status, decode_response, encode_request, split,
};

/// How long a peer waits for the broker before the check fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes read from the socket at a time.
const READ_BYTES: usize = 256 << 10;

/// One connection that has said Hello.
pub(crate) struct Peer {
    stream: TcpStream,
    correlation: u64,
    out: Vec<u8>,
    input: Vec<u8>,
    start: usize,
    end: usize,
}

impl Peer {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        let input = vec![0; 2 * MAX_FRAME_BYTES];
        let mut peer = Self { stream, correlation: 0, out: Vec::new(), input, start: 0, end: 0 };
        let hello = Hello { client: "perf", client_version: "1", max_frame_bytes: MAX_FRAME_BYTES as u32 };
        peer.ask(&Request::Hello(hello), |_, response| assert!(matches!(response, Response::Hello(_))));
        peer
    }

    /// Adds a request to those that go with the next flush.
    pub(crate) fn queue(&mut self, request: &Request<'_>) {
        self.correlation += 1;
        encode_request(request, Call { correlation: self.correlation, version: 1 }, &mut self.out);
    }

    /// Sends what was queued.
    pub(crate) fn flush(&mut self) {
        self.stream.write_all(&self.out).expect("the broker takes the bytes");
        self.out.clear();
    }

    /// Whether the next answer is here already.
    pub(crate) fn has_answer(&self) -> bool {
        matches!(split(&self.input[self.start..self.end], MAX_FRAME_BYTES), Ok(Split::Frame(_)))
    }

    /// Waits for the next answer.
    pub(crate) fn receive<T>(&mut self, take: impl FnOnce(&FrameHeader, Response<'_>) -> T) -> T {
        while !self.has_answer() {
            if self.start > 0 {
                self.input.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            let room = self.input.len().min(self.end + READ_BYTES);
            let read = self.stream.read(&mut self.input[self.end..room]).expect("the broker answers");
            assert!(read > 0, "the broker keeps the connection");
            self.end += read;
        }
        let Ok(Split::Frame(frame)) = split(&self.input[self.start..self.end], MAX_FRAME_BYTES) else {
            unreachable!("there was one");
        };
        self.start += frame.header.frame_bytes();
        let response = decode_response(&frame.header, frame.body).expect("the broker speaks the protocol");
        take(&frame.header, response)
    }

    /// Sends one request and waits for its answer; no other may be under way.
    pub(crate) fn ask<T>(
        &mut self,
        request: &Request<'_>,
        take: impl FnOnce(&FrameHeader, Response<'_>) -> T,
    ) -> T {
        self.queue(request);
        self.flush();
        self.receive(take)
    }

    pub(crate) fn create_topic(&mut self, name: &str, partitions: u32) -> TopicId {
        let request = Request::CreateTopic { name, partitions, durability: Durability::Durable };
        self.ask(&request, |_, response| match response {
            Response::TopicCreated { topic } => topic,
            other => panic!("{other:?}"),
        })
    }

    /// Opens all partitions of a topic; handle = partition + 1.
    pub(crate) fn open_all(&mut self, topic: TopicId, partitions: u32) {
        (0..partitions).for_each(|partition| self.open(topic, partition));
    }

    /// Opens one of them.
    pub(crate) fn open(&mut self, topic: TopicId, partition: u32) {
        let request = Request::Open { handle: partition + 1, topic, partition };
        self.ask(&request, |_, response| {
            assert!(matches!(response, Response::Opened { .. }), "{response:?}");
        });
    }

    pub(crate) fn producer_id(&mut self) -> (ProducerId, u16) {
        self.ask(&Request::ProducerId, |_, response| match response {
            Response::ProducerId { id, epoch } => (id, epoch),
            other => panic!("{other:?}"),
        })
    }

    pub(crate) fn status(&mut self) -> Status {
        self.ask(&Request::Status, |_, response| match response {
            Response::Status(status) => *status,
            other => panic!("{other:?}"),
        })
    }
}
