//! A small broker for the client's own tests: the native protocol over loopback, logs in memory, deduplication as the
//! real one's, and faults by seed or by script.

mod fetching;
mod subscriptions;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use corelog_client::{BatchHeader, Durability, ErrorCode, ProducerId, TopicId};
use corelog_model::batch::Patch;
use corelog_model::{LogId, Retention, Term};
use corelog_wire::api::SERVED;
use corelog_wire::frame::HEADER_BYTES;
use corelog_wire::{
    Api, ApiVersions, At, Endpoint, ErrorBody, FrameHeader, HelloReply, MetadataReply, PartitionPlace,
    PositionView, PositionsReply, ReplyTo, Request, Response, Split, Status, TopicView, Which,
    decode_request, encode_response, split,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use crate::offsets::Untold;
use fetching::Fetching;
use subscriptions::Subscriptions;

/// What goes wrong with produce requests, each once in so many (0: never).
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    /// The connection ends before the request is looked at.
    pub(crate) lost_before: u32,
    /// The connection ends after the batch was appended, before the answer.
    pub(crate) lost_after: u32,
    /// The request is refused with BUSY.
    pub(crate) busy: u32,
    /// The answer takes 2 ms.
    pub(crate) slow: u32,
}

#[derive(Default)]
struct Log {
    batches: Vec<(BatchHeader, Vec<u8>)>,
    start: u64,
    end: u64,
    producers: HashMap<ProducerId, Known>,
    /// By name: offset, epoch, note.
    positions: BTreeMap<String, (u64, Option<Term>, String)>,
}

#[derive(Default)]
struct Known {
    next: u32,
    last: VecDeque<(u32, u32, u64)>,
}

struct Topic {
    name: String,
    id: TopicId,
    durability: Durability,
    retention: Retention,
    logs: Vec<Log>,
}

#[derive(Default)]
pub(crate) struct Store {
    topics: Vec<Topic>,
    term: u32,
    last_id: u64,
    pub(crate) faults: Faults,
    seed: u64,
    /// Answers to the next fetches, in place of the log's.
    pub(crate) fetch_refusals: VecDeque<(ErrorCode, [u64; 2])>,
    /// Answers to the next produce requests.
    pub(crate) produce_refusals: VecDeque<(ErrorCode, [u64; 2])>,
    /// Answers to the next opens.
    pub(crate) open_refusals: VecDeque<(ErrorCode, [u64; 2])>,
    /// Answers to the next commits.
    pub(crate) commit_refusals: VecDeque<(ErrorCode, [u64; 2])>,
    pub(crate) commits: usize,
    /// Positions in one answer, if not all.
    pub(crate) positions_at_a_time: Option<usize>,
    /// Questions for offsets are answered when a connection has asked so many, the last one first; 0: each at once.
    pub(crate) offsets_at_a_time: usize,
    /// Partitions opened on a connection whose offset was not told yet, the most at a time.
    pub(crate) most_untold: usize,
    /// The port of the core that serves all partitions, if not every one does.
    pub(crate) home: Option<u16>,
    /// Opens that were refused because another core serves the partition.
    pub(crate) astray: usize,
    /// No produce request is answered while this is set.
    pub(crate) silent: bool,
    /// It serves what the first release did, and nothing else.
    pub(crate) is_first_release: bool,
    /// Nothing is answered while this is set; requests that were not.
    pub(crate) deaf: bool,
    pub(crate) ignored: usize,
    pub(crate) pings: usize,
    /// Subscriptions begun, and those that were asked to end; bytes pushed to all of them.
    pub(crate) subscribed: usize,
    pub(crate) unsubscribed: usize,
    pub(crate) pushed_bytes: usize,
    /// It has no place for another subscription while this is set.
    pub(crate) is_crowded: bool,
    pub(crate) requests: usize,
    pub(crate) appended: usize,
    pub(crate) duplicates: usize,
    pub(crate) losses: usize,
}

/// Shared by the broker's tasks.
pub(crate) struct Shared {
    pub(crate) store: Arc<Mutex<Store>>,
    news: Arc<Notify>,
    port: u16,
    connections: AtomicUsize,
}

pub(crate) struct Broker {
    pub(crate) shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

enum Verdict {
    Answer(Response<'static>),
    Slow(Response<'static>),
    Silence,
    Lost,
}

impl Broker {
    pub(crate) async fn start(faults: Faults, seed: u64) -> Self {
        Self::of_store(Store { term: 1, faults, seed, ..Store::default() }).await
    }

    /// One of the first release.
    pub(crate) async fn first_release() -> Self {
        Self::of_store(Store { term: 1, seed: 1, is_first_release: true, ..Store::default() }).await
    }

    async fn of_store(store: Store) -> Self {
        Self::serving(Arc::new(Mutex::new(store)), Arc::default()).await
    }

    /// Another core of the same store.
    pub(crate) async fn another_core(&self) -> Self {
        Self::serving(Arc::clone(&self.shared.store), Arc::clone(&self.shared.news)).await
    }

    async fn serving(store: Arc<Mutex<Store>>, news: Arc<Notify>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = AtomicUsize::new(0);
        let shared = Arc::new(Shared { store, news, port, connections });
        let accepting = tokio::spawn(accept(Arc::clone(&shared), listener));
        Self { shared, accepting }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.shared.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.shared.port
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.shared.store.lock().unwrap()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Ends every connection and comes back on the same port, in the next term.
    pub(crate) async fn restart(&mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
        self.store().term += 1;
        let listener = loop {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            if socket.bind(([127, 0, 0, 1], self.shared.port).into()).is_ok() {
                break socket.listen(64).unwrap();
            }
            tokio::task::yield_now().await;
        };
        self.accepting = tokio::spawn(accept(Arc::clone(&self.shared), listener));
    }

    /// Waits until this is so.
    pub(crate) async fn until(&self, is_so: impl Fn(&Store) -> bool) {
        let wait = async {
            while !is_so(&self.store()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it comes to that");
    }

    /// The offsets and values of a partition, in order.
    pub(crate) fn values(&self, topic: &str, partition: usize) -> Vec<Vec<u8>> {
        let store = self.store();
        let topic = store.topics.iter().find(|known| known.name == topic).unwrap();
        let mut values = Vec::new();
        for (header, bytes) in &topic.logs[partition].batches {
            let mut aligned = corelog_model::batch::AlignedVec::<16>::new();
            aligned.extend_from_slice(bytes);
            let mut scratch = corelog_model::batch::AlignedVec::new();
            assert!(header.verify_body(bytes), "the body is what was sealed");
            let view = corelog_model::batch::BatchView::open(&aligned, &mut scratch).unwrap();
            values.extend(view.records().map(|record| record.value.unwrap().to_vec()));
        }
        values
    }

    /// A crash without the last records: what is from `end` on is gone.
    pub(crate) fn fall_back(&self, topic: &str, partition: usize, end: u64) {
        let mut store = self.store();
        let topic = store.topics.iter_mut().find(|known| known.name == topic).unwrap();
        let log = &mut topic.logs[partition];
        log.batches.retain(|(header, _)| header.base_offset < end);
        log.end = log.batches.last().map_or(log.start, |(header, _)| header.next_offset());
        log.producers.clear();
    }

    /// Retention: the records before `start` are gone.
    pub(crate) fn recycle(&self, topic: &str, partition: usize, start: u64) {
        let mut store = self.store();
        let topic = store.topics.iter_mut().find(|known| known.name == topic).unwrap();
        topic.logs[partition].batches.retain(|(header, _)| header.base_offset >= start);
        topic.logs[partition].start = start;
    }

    pub(crate) fn flip_a_bit(&self, topic: &str, partition: usize, batch: usize) {
        let mut store = self.store();
        let topic = store.topics.iter_mut().find(|known| known.name == topic).unwrap();
        topic.logs[partition].batches[batch].1[120] ^= 4;
    }
}

impl Shared {
    fn ignores(&self) -> bool {
        let mut store = self.store.lock().unwrap();
        store.ignored += usize::from(store.deaf);
        store.deaf
    }

    fn serves(&self, api: u16) -> bool {
        self.store.lock().unwrap().served().iter().any(|served| served.api() == api)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        connections.spawn(serve(Arc::clone(&shared), stream));
        while connections.try_join_next().is_some() {}
    }
}

struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn write(mut writer: OwnedWriteHalf, mut outgoing: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = outgoing.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    shared.connections.fetch_add(1, Ordering::SeqCst);
    let _counted = Counted(Arc::clone(&shared));
    stream.set_nodelay(true).unwrap();
    let (mut reader, writer) = stream.into_split();
    let (answers, outgoing) = mpsc::unbounded_channel::<Vec<u8>>();
    let mut tasks = JoinSet::new();
    tasks.spawn(write(writer, outgoing));
    let mut handles = HashMap::new();
    let mut subscriptions = Subscriptions::default();
    let mut untold = Untold::default();
    let mut stream = Vec::new();
    loop {
        let taken = match split(&stream, 64 << 20) {
            Ok(Split::Frame(frame)) => {
                let header = frame.header;
                let request = decode_request(&header, frame.body).expect("the client speaks the protocol");
                let reply = |response: &Response<'_>| answer(&answers, &header, response);
                match request {
                    _ if shared.ignores() => {}
                    _ if !shared.serves(header.api) => {
                        reply(&refusal(ErrorCode::UnsupportedVersion, [header.api.into(), 1]));
                    }
                    Request::Fetch { .. } => {
                        let fetch = Fetching::new(&request, &handles);
                        tasks.spawn(fetch.run(Arc::clone(&shared), answers.clone(), header));
                    }
                    Request::Subscribe { handle, credit, .. } => {
                        let pushing = Fetching::new(&request, &handles);
                        let subscription = subscriptions.begin(handle, credit);
                        let (shared, answers) = (Arc::clone(&shared), answers.clone());
                        shared.news.notify_waiters();
                        tasks.spawn(pushing.push(shared, answers, header, subscription));
                    }
                    Request::Credit { handle, bytes, ends } => {
                        reply(&Response::Credited);
                        shared.store.lock().unwrap().unsubscribed += usize::from(ends);
                        subscriptions.give(handle, bytes, ends);
                        shared.news.notify_waiters();
                    }
                    Request::Produce { handle, batches, .. } => {
                        match produce(&shared, handles.get(&handle).copied(), batches) {
                            Verdict::Answer(response) => reply(&response),
                            Verdict::Silence => {}
                            Verdict::Lost => return,
                            Verdict::Slow(response) => {
                                // Slow in turns of the runtime: others get ahead, whatever the machine does.
                                for _ in 0..200 {
                                    tokio::task::yield_now().await;
                                }
                                reply(&response);
                            }
                        }
                    }
                    request => ask(&shared, request, &mut handles, &mut untold, (&header, &answers)),
                }
                header.frame_bytes()
            }
            Ok(Split::Need(_)) => 0,
            Err(error) => panic!("the client sent what is no frame: {error}"),
        };
        if taken > 0 {
            stream.drain(..taken);
        } else if !matches!(reader.read_buf(&mut stream).await, Ok(1..)) {
            return;
        }
    }
}

fn answer(answers: &mpsc::UnboundedSender<Vec<u8>>, header: &FrameHeader, response: &Response<'_>) {
    // The connection may be gone.
    let _ = answers.send(encoded(header, response));
}

fn encoded(header: &FrameHeader, response: &Response<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    let FrameHeader { api, version, handle, correlation, .. } = *header;
    encode_response(response, ReplyTo { api, version, handle, correlation }, &mut bytes);
    bytes
}

fn refusal(code: ErrorCode, details: [u64; 2]) -> Response<'static> {
    Response::Error(ErrorBody { details, ..ErrorBody::new(code, "") })
}

type Handles = HashMap<u32, (TopicId, u32)>;

fn cold(shared: &Shared, request: Request<'_>, handles: &mut Handles, reply: impl Fn(&Response<'_>)) {
    let mut store = shared.store.lock().unwrap();
    match request {
        Request::Hello(hello) => reply(&Response::Hello(HelloReply {
            server: "test",
            store: 1,
            term: Term(store.term),
            max_frame_bytes: hello.max_frame_bytes,
            max_batch_bytes: 2 << 20,
            served: store.served(),
        })),
        Request::Ping => {
            store.pings += 1;
            reply(&Response::Pong);
        }
        Request::Status => reply(&Response::Status(Box::new(Status { requests: 7, ..Status::default() }))),
        Request::ProducerId => {
            store.last_id += 1;
            reply(&Response::ProducerId { id: ProducerId(store.last_id), epoch: 0 });
        }
        Request::CreateTopic { .. } | Request::AlterTopic { .. } | Request::DeleteTopic { .. } => {
            change_topics(&mut store, request, reply);
        }
        Request::Metadata { topic } => metadata(&store, store.home.unwrap_or(shared.port), topic, reply),
        Request::Open { handle, topic, partition } => {
            if let Some((code, details)) = store.open_refusal(shared.port) {
                return reply(&refusal(code, details));
            }
            let durability = match store.log(topic, partition) {
                Ok((_, durability)) => durability,
                Err(code) => return reply(&refusal(code, [0, 0])),
            };
            handles.insert(handle, (topic, partition));
            let leader_epoch = Term(store.term);
            let log = store.log(topic, partition).unwrap().0;
            let (log_start, high_watermark) = (log.start, log.end);
            reply(&Response::Opened {
                topic,
                partition,
                log_start,
                high_watermark,
                leader_epoch,
                durability,
            });
        }
        _ => positions(&mut store, request, handles, reply),
    }
}

/// What is not asked for records.
fn ask(
    shared: &Shared,
    request: Request<'_>,
    handles: &mut Handles,
    untold: &mut Untold,
    (header, answers): (&FrameHeader, &mpsc::UnboundedSender<Vec<u8>>),
) {
    if let Request::OffsetForTime { handle, at } = request {
        let answer = offset_at(shared, handles[&handle], at);
        return untold.ask(shared, encoded(header, &answer), answers);
    }
    untold.opened += usize::from(matches!(request, Request::Open { .. }));
    cold(shared, request, handles, |response| answer(answers, header, response));
}

fn offset_at(shared: &Shared, (topic, partition): (TopicId, u32), at: At) -> Response<'static> {
    let mut store = shared.store.lock().unwrap();
    let log = match store.log(topic, partition) {
        Ok((log, _)) => log,
        Err(code) => return refusal(code, [0, 0]),
    };
    let offset = match at {
        At::Start => log.start,
        At::End => log.end,
        At::Time(time) => log.offset_for(time),
    };
    Response::OffsetFound { offset, timestamp_us: None }
}

fn positions(store: &mut Store, request: Request<'_>, handles: &Handles, reply: impl Fn(&Response<'_>)) {
    let Some(&(topic, partition)) = handles.get(&request.handle()) else {
        return reply(&refusal(ErrorCode::UnknownHandle, [0, 0]));
    };
    let refused = match request {
        Request::CommitPosition { .. } => {
            store.commits += 1;
            store.commit_refusals.pop_front()
        }
        _ => None,
    };
    if let Some((code, details)) = refused {
        return reply(&refusal(code, details));
    }
    let most = store.positions_at_a_time.unwrap_or(usize::MAX);
    let log = match store.log(topic, partition) {
        Ok((log, _)) => log,
        Err(code) => return reply(&refusal(code, [0, 0])),
    };
    match request {
        Request::CommitPosition { offset, .. } if offset > log.end => {
            reply(&refusal(ErrorCode::OffsetOutOfRange, [log.start, log.end]));
        }
        Request::CommitPosition { name, offset, leader_epoch, metadata, .. } => {
            log.positions.insert(name.to_owned(), (offset, leader_epoch, metadata.to_owned()));
            reply(&Response::PositionCommitted);
        }
        Request::DeleteRecords { before_offset, .. } if before_offset > log.end => {
            reply(&refusal(ErrorCode::OffsetOutOfRange, [log.start, log.end]));
        }
        Request::DeleteRecords { before_offset, .. } => {
            log.start = log.start.max(before_offset);
            reply(&Response::RecordsDeleted { log_start: log.start });
        }
        Request::DeletePosition { name, .. } => {
            log.positions.remove(name);
            reply(&Response::PositionDeleted);
        }
        Request::ReadPositions { which, .. } => {
            let wanted = |name: &str| match which {
                Which::One(one) => name == one,
                Which::After(after) => name > after,
            };
            let all: Vec<_> = log.positions.iter().filter(|(name, _)| wanted(name)).collect();
            let views = all.iter().take(most).map(|(name, (offset, leader_epoch, metadata))| PositionView {
                name,
                offset: *offset,
                leader_epoch: *leader_epoch,
                commit_timestamp_us: 5,
                metadata,
            });
            let (log_start, high_watermark, more) = (log.start, log.end, all.len() > most);
            let positions = views.collect();
            reply(&Response::Positions(PositionsReply { log_start, high_watermark, more, positions }));
        }
        other => unreachable!("served elsewhere: {other:?}"),
    }
}

fn change_topics(store: &mut Store, request: Request<'_>, reply: impl Fn(&Response<'_>)) {
    match request {
        Request::CreateTopic { name, partitions, durability, retention } => {
            if store.topics.iter().any(|topic| topic.name == name) {
                return reply(&refusal(ErrorCode::TopicExists, [0, 0]));
            }
            store.last_id += 1;
            let id = TopicId(u128::from(store.last_id));
            let logs = (0..partitions).map(|_| Log::default()).collect();
            store.topics.push(Topic {
                name: name.to_owned(),
                id,
                durability,
                retention: Retention::default().changed(retention),
                logs,
            });
            reply(&Response::TopicCreated { topic: id });
        }
        Request::AlterTopic { name, partitions, durability, retention } => {
            let Some(topic) = store.topics.iter_mut().find(|topic| topic.name == name) else {
                return reply(&refusal(ErrorCode::UnknownTopic, [0, 0]));
            };
            let now = topic.logs.len() as u32;
            let partitions = partitions.unwrap_or(now);
            if partitions < now {
                let details = [partitions.into(), now.into()];
                return reply(&refusal(ErrorCode::FewerPartitions, details));
            }
            topic.logs.resize_with(partitions as usize, Log::default);
            topic.durability = durability.unwrap_or(topic.durability);
            topic.retention = topic.retention.changed(retention);
            let (topic, durability) = (topic.id, topic.durability);
            reply(&Response::TopicAltered { topic, partitions, durability });
        }
        Request::DeleteTopic { name } => {
            store.topics.retain(|topic| topic.name != name);
            reply(&Response::TopicDeleted);
        }
        _ => unreachable!("it changes no topic"),
    }
}

fn metadata(store: &Store, port: u16, wanted: Option<&str>, reply: impl Fn(&Response<'_>)) {
    let topics: Vec<&Topic> =
        store.topics.iter().filter(|topic| wanted.is_none_or(|name| topic.name == name)).collect();
    if topics.is_empty() && wanted.is_some() {
        return reply(&refusal(ErrorCode::UnknownTopic, [0, 0]));
    }
    let place = PartitionPlace::new(0, LogId(0), Term(store.term));
    let places: Vec<Vec<PartitionPlace>> = topics.iter().map(|topic| vec![place; topic.logs.len()]).collect();
    let views = topics.iter().zip(&places).map(|(topic, partitions)| TopicView {
        name: &topic.name,
        topic: topic.id,
        durability: topic.durability,
        retention: topic.retention,
        partitions,
        damage: &[],
    });
    let endpoints = vec![Endpoint { host: "127.0.0.1", port }];
    reply(&Response::Metadata(MetadataReply { version: 1, logs: 1, endpoints, topics: views.collect() }));
}

impl Store {
    /// Of the first batch.
    pub(crate) fn batch_bytes(&self) -> usize {
        self.topics[0].logs[0].batches[0].1.len()
    }

    /// What this broker speaks.
    fn served(&self) -> &'static [ApiVersions] {
        let later = SERVED.iter().position(|api| api.api() > Api::Status as u16);
        &SERVED[..later.filter(|_| self.is_first_release).unwrap_or(SERVED.len())]
    }

    /// Only so many partitions are left, which no broker does.
    pub(crate) fn shrink(&mut self, topic: &str, partitions: usize) {
        let topic = self.topics.iter_mut().find(|known| known.name == topic).unwrap();
        topic.logs.truncate(partitions);
    }

    /// Why the core at `port` does not open a partition now, if it does not.
    fn open_refusal(&mut self, port: u16) -> Option<(ErrorCode, [u64; 2])> {
        if self.home.is_some_and(|home| home != port) {
            self.astray += 1;
            return Some((ErrorCode::NotHere, [0, 0]));
        }
        self.open_refusals.pop_front()
    }

    fn log(&mut self, topic: TopicId, partition: u32) -> Result<(&mut Log, Durability), ErrorCode> {
        let topic =
            self.topics.iter_mut().find(|known| known.id == topic).ok_or(ErrorCode::UnknownTopicId)?;
        let durability = topic.durability;
        let log = topic.logs.get_mut(partition as usize).ok_or(ErrorCode::UnknownPartition)?;
        Ok((log, durability))
    }

    fn once_in(&mut self, n: u32) -> bool {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        n > 0 && (self.seed >> 33).is_multiple_of(u64::from(n))
    }
}

fn produce(shared: &Shared, place: Option<(TopicId, u32)>, batch: &[u8]) -> Verdict {
    let mut store = shared.store.lock().unwrap();
    store.requests += 1;
    let faults = store.faults;
    if store.once_in(faults.lost_before) {
        store.losses += 1;
        return Verdict::Lost;
    }
    if store.silent {
        return Verdict::Silence;
    }
    if store.once_in(faults.busy) {
        return Verdict::Answer(refusal(ErrorCode::Busy, [0, 0]));
    }
    if let Some((code, details)) = store.produce_refusals.pop_front() {
        return Verdict::Answer(refusal(code, details));
    }
    let Some((topic, partition)) = place else {
        return Verdict::Answer(refusal(ErrorCode::UnknownHandle, [0, 0]));
    };
    let term = Term(store.term);
    let response = match store.log(topic, partition) {
        Err(code) => refusal(code, [0, 0]),
        Ok((log, _)) => {
            assert!(
                BatchHeader::verify_header(batch, topic, partition),
                "the header names topic and partition"
            );
            match log.append(batch, topic, partition, term) {
                Ok((base_offset, fresh)) => {
                    *(if fresh { &mut store.appended } else { &mut store.duplicates }) += 1;
                    shared.news.notify_waiters();
                    Response::Produced { base_offset, append_timestamp_us: 5, log_start: 0, batches: 1 }
                }
                Err((code, detail)) => refusal(code, [detail, 0]),
            }
        }
    };
    if store.once_in(faults.lost_after) {
        store.losses += 1;
        return Verdict::Lost;
    }
    if store.once_in(faults.slow) { Verdict::Slow(response) } else { Verdict::Answer(response) }
}

impl Log {
    /// As with a real index, two batches are told apart only from the others.
    fn offset_for(&self, time: u64) -> u64 {
        let mut pairs = self.batches.chunks(2);
        let found = pairs.find(|pair| pair.iter().any(|(header, _)| header.max_timestamp_us >= time));
        found.map_or(self.end, |pair| pair[0].0.base_offset)
    }

    fn append(
        &mut self,
        batch: &[u8],
        topic: TopicId,
        partition: u32,
        term: Term,
    ) -> Result<(u64, bool), (ErrorCode, u64)> {
        let header = BatchHeader::parse(batch).expect("a sealed batch");
        let (first, last) = (header.base_sequence, header.base_sequence + header.record_count - 1);
        if header.producer_id != ProducerId::NONE {
            if !self.producers.contains_key(&header.producer_id) && first != 0 {
                return Err((ErrorCode::UnknownProducerId, 0));
            }
            let known = self.producers.entry(header.producer_id).or_default();
            if let Some(&(_, _, base)) = known.last.iter().find(|seen| (seen.0, seen.1) == (first, last)) {
                return Ok((base, false));
            }
            if first != known.next {
                return Err((ErrorCode::OutOfOrderSequence, u64::from(known.next)));
            }
            known.next = last + 1;
            known.last.push_back((first, last, self.end));
            if known.last.len() > 5 {
                known.last.pop_front();
            }
        }
        let base_offset = self.end;
        let mut bytes = batch.to_vec();
        let patch = Patch { base_offset, append_timestamp_us: 5, leader_epoch: term };
        BatchHeader::patch(&mut bytes, &patch, topic, partition);
        let header = BatchHeader::parse(&bytes).expect("patched");
        self.end = header.next_offset();
        self.batches.push((header, bytes));
        Ok((base_offset, true))
    }
}
