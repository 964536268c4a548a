//! One connection that speaks the protocol with nothing but the codec: requests gather until they are flushed, answers
//! are read in place.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use corelog_model::batch::{AlignedVec, BatchBuilder, Codec, RecordRef, Seal};
use corelog_model::{Durability, ProducerId, RetentionChange, TopicId};
use corelog_wire::frame::{HELLO_FRAME_BYTES, MAX_FRAME_BYTES};
use corelog_wire::{
    Call, FrameHeader, Hello, Request, Response, Split, Status, decode_response, encode_request, split,
};
use rustix::net::{AddressFamily, SocketType, sockopt};

/// How long a peer waits for the broker.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes read from the socket at a time.
const READ_BYTES: usize = 256 << 10;

/// One connection that has said Hello.
pub struct Peer {
    stream: TcpStream,
    correlation: u64,
    out: Vec<u8>,
    input: Vec<u8>,
    start: usize,
    end: usize,
}

impl Peer {
    /// Connects and greets.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::greet(TcpStream::connect(address)?, 2 * MAX_FRAME_BYTES)
    }

    /// Connects and greets, with a receive buffer of about `bytes` in the kernel: a peer that does not read is soon
    /// one that the broker cannot send to.
    pub fn connect_narrow(address: SocketAddr, bytes: usize) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
        // Before connecting, because the window is agreed upon there.
        sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
        rustix::net::connect(&socket, &address)?;
        Self::greet(TcpStream::from(socket), HELLO_FRAME_BYTES)
    }

    /// Answers take up to `bytes`.
    fn greet(stream: TcpStream, bytes: usize) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let input = vec![0; bytes];
        let mut peer = Self { stream, correlation: 0, out: Vec::new(), input, start: 0, end: 0 };
        let hello = Hello { client: "perf", client_version: "1", max_frame_bytes: MAX_FRAME_BYTES as u32 };
        peer.ask(&Request::Hello(hello), |_, response| match response {
            Response::Hello(_) => Ok(()),
            other => Err(unexpected(&other)),
        })??;
        Ok(peer)
    }

    /// Adds a request to those that go with the next flush.
    pub fn queue(&mut self, request: &Request<'_>) {
        self.correlation += 1;
        encode_request(request, Call { correlation: self.correlation, version: 1 }, &mut self.out);
    }

    /// Sends what was queued.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Whether the next answer is here already.
    pub fn has_answer(&self) -> bool {
        matches!(split(&self.input[self.start..self.end], MAX_FRAME_BYTES), Ok(Split::Frame(_)))
    }

    /// Waits for the next answer.
    pub fn receive<T>(&mut self, take: impl FnOnce(&FrameHeader, Response<'_>) -> T) -> io::Result<T> {
        while !self.has_answer() {
            if self.start > 0 {
                self.input.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            let room = self.input.len().min(self.end + READ_BYTES);
            let read = self.stream.read(&mut self.input[self.end..room])?;
            if read == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection"));
            }
            self.end += read;
        }
        let Ok(Split::Frame(frame)) = split(&self.input[self.start..self.end], MAX_FRAME_BYTES) else {
            unreachable!("there was one");
        };
        self.start += frame.header.frame_bytes();
        let response = decode_response(&frame.header, frame.body).map_err(|error| unexpected(&error))?;
        Ok(take(&frame.header, response))
    }

    /// Sends one request and waits for its answer; no other may be under way.
    pub fn ask<T>(
        &mut self,
        request: &Request<'_>,
        take: impl FnOnce(&FrameHeader, Response<'_>) -> T,
    ) -> io::Result<T> {
        self.queue(request);
        self.flush()?;
        self.receive(take)
    }

    /// Creates a durable topic.
    pub fn create_topic(&mut self, name: &str, partitions: u32) -> io::Result<TopicId> {
        let request = Request::CreateTopic {
            name,
            partitions,
            durability: Durability::Durable,
            retention: RetentionChange::NONE,
        };
        self.ask(&request, |_, response| match response {
            Response::TopicCreated { topic } => Ok(topic),
            other => Err(unexpected(&other)),
        })?
    }

    /// Opens all partitions of a topic; handle = partition + 1.
    pub fn open_all(&mut self, topic: TopicId, partitions: u32) -> io::Result<()> {
        (0..partitions).try_for_each(|partition| self.open(topic, partition))
    }

    /// Opens one of them.
    pub fn open(&mut self, topic: TopicId, partition: u32) -> io::Result<()> {
        let request = Request::Open { handle: partition + 1, topic, partition };
        self.ask(&request, |_, response| match response {
            Response::Opened { .. } => Ok(()),
            other => Err(unexpected(&other)),
        })?
    }

    /// A producer id of its own.
    pub fn producer_id(&mut self) -> io::Result<(ProducerId, u16)> {
        self.ask(&Request::ProducerId, |_, response| match response {
            Response::ProducerId { id, epoch } => Ok((id, epoch)),
            other => Err(unexpected(&other)),
        })?
    }

    /// The broker's counters.
    pub fn status(&mut self) -> io::Result<Status> {
        self.ask(&Request::Status, |_, response| match response {
            Response::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        })?
    }

    /// Appends `batches` one after the other, at most `depth` of them unanswered; each partition must be open as
    /// handle = partition + 1.
    pub fn produce<'a>(
        &mut self,
        batches: impl Iterator<Item = (u32, &'a [u8])>,
        depth: usize,
    ) -> io::Result<()> {
        let mut batches = batches.peekable();
        let mut unanswered = 0;
        while batches.peek().is_some() || unanswered > 0 {
            for (partition, batches) in batches.by_ref().take(depth - unanswered) {
                self.queue(&Request::Produce { handle: partition + 1, expected_offset: None, batches });
                unanswered += 1;
            }
            self.flush()?;
            self.receive(|_, response| match response {
                Response::Produced { .. } => Ok(()),
                other => Err(unexpected(&other)),
            })??;
            unanswered -= 1;
        }
        Ok(())
    }
}

/// A sealed batch of `records` values of `value_bytes`, without a producer's id, so that it may be sent again and again.
pub fn batch(topic: TopicId, partition: u32, records: u32, value_bytes: usize) -> io::Result<AlignedVec<16>> {
    let mut builder = BatchBuilder::new(1 << 20);
    let value = vec![0x5a; value_bytes];
    for _ in 0..records {
        let record = RecordRef { key: None, value: Some(&value), timestamp_us: 1, headers: &[] };
        builder.push(record).map_err(|error| unexpected(&error))?;
    }
    let seal = Seal {
        topic,
        partition,
        producer_id: ProducerId::NONE,
        producer_epoch: 0,
        base_sequence: 0,
        codec: Codec::None,
    };
    let mut batch = AlignedVec::new();
    builder.seal(&seal, &mut batch).map_err(|error| unexpected(&error))?;
    Ok(batch)
}

fn unexpected(what: &dyn Debug) -> io::Error {
    io::Error::other(format!("not what was expected: {what:?}"))
}
