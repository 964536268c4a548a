//! The consumer: a cursor per partition, and the batches that wait to be taken.
//!
//! Each partition is subscribed to: what the broker may still push and what waits in the queue are together at most
//! `prefetch_bytes` and one push. A broker that does not serve subscriptions is asked for one fetch after another, as
//! long as less than `prefetch_bytes` waits; and so is any when answers are to have `min_bytes`. **Invariants:** a
//! cursor's `next` is the offset after the last batch queued; answers to what was asked before a seek carry an earlier
//! generation and are dropped; what is queued before a seek is dropped with it; after a seek to a time no record comes
//! before the first that is at or after it; no offset is committed beyond the last batch taken.

mod committing;
mod cursor;
mod places;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use corelog_model::TopicId;
use corelog_model::batch::{BatchError, BatchHeader};
use corelog_wire::{At, ErrorBody, ErrorCode, Request, Response};

use crate::config::{Backoff, ConsumerConfig, Position, Reset};
use crate::core::backoff::{pause_us, to_us};
use crate::core::buffers::Chunk;
use crate::core::commits::{Reached, Ticket};
use crate::core::consumer::cursor::{Cursor, Place};
use crate::core::consumer::places::Refresh;
use crate::core::effects::Effects;
use crate::core::rng::Rng;
use crate::error::{ConsumeError, Refused};

/// Payloads smaller than this are copied, so that a small batch does not keep a large receive buffer.
const COPY_BELOW_BYTES: usize = 16 << 10;

/// A batch where it was received.
#[derive(Debug)]
pub(crate) struct RawBatch {
    pub(crate) partition: u32,
    pub(crate) high_watermark: u64,
    pub(crate) header: BatchHeader,
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) range: Range<usize>,
    /// The first offset that was asked for: earlier records of the batch are not wanted.
    pub(crate) from: u64,
    /// Nor are those before the first that is at or after this time; 0: all are.
    pub(crate) since_us: u64,
}

/// What a link is to send.
#[derive(Debug)]
pub(crate) enum Ask {
    /// For a cursor.
    Partition { token: Token, request: Request<'static> },
    /// For the subscription of a cursor, or for the connection: what is answered tells nothing.
    Aside(Request<'static>),
    /// The position committed under the consumer's name.
    Recall { token: Token, handle: u32 },
    /// To commit it.
    Commit { token: Token, handle: u32, reached: Reached },
    /// Where the partitions of the topic are served now.
    Locate,
}

/// What an answer belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    cursor: usize,
    generation: u32,
    commits: bool,
}

struct Queued {
    cursor: usize,
    bytes: usize,
    item: Result<RawBatch, ConsumeError>,
}

#[derive(Clone, Default)]
struct Link {
    connected: bool,
    /// Something new for the link's task to look at.
    kick: bool,
    /// When the last answer came or the last request went.
    alive_us: u64,
    /// It is asked whether it is still there.
    pinged: bool,
    /// No answers come any more.
    stuck: bool,
    /// The broker at the other end does not serve a partition that was thought to be there.
    astray: bool,
    /// It has no place for another subscription: until then it is asked for fetches, which need none.
    crowded_until_us: u64,
}

pub(crate) struct Consumer {
    config: ConsumerConfig,
    backoff: Backoff,
    topic: TopicId,
    cursors: Vec<Cursor>,
    by_partition: HashMap<u32, usize>,
    links: Vec<Link>,
    /// Handles given out, by link.
    handles: Vec<u32>,
    /// How long a connection may leave requests without any answer, beyond the wait they ask for.
    patience_us: u64,
    refresh: Refresh,
    queue: VecDeque<Queued>,
    waker: Option<Waker>,
    /// The last commit asked for, and who waits for commits.
    last_ticket: Ticket,
    committing: Option<Waker>,
    rng: Rng,
    closed: bool,
}

impl Consumer {
    /// Cursors for these partitions; each with the number of the link that serves it.
    pub(crate) fn new(
        config: ConsumerConfig,
        backoff: Backoff,
        (patience_us, metadata_age_us): (u64, u64),
        seed: u64,
        places: &[(u32, usize)],
        links: usize,
    ) -> Self {
        let wait_us = to_us(config.max_wait);
        let refresh = Refresh::new(&config, metadata_age_us);
        let mut handles = vec![0; links];
        let mut cursor = |&(partition, link): &(u32, usize)| {
            handles[link] += 1;
            let mut cursor = Cursor::new(partition, link, handles[link], config.from);
            if config.name.is_none() {
                cursor.go_to(config.from);
            }
            cursor
        };
        let cursors: Vec<Cursor> = places.iter().map(&mut cursor).collect();
        let by_partition = cursors.iter().enumerate().map(|(at, cursor)| (cursor.partition, at)).collect();
        Self {
            topic: config.topic.id(),
            config,
            backoff,
            cursors,
            by_partition,
            links: vec![Link::default(); links],
            handles,
            patience_us: patience_us.saturating_add(wait_us),
            refresh,
            queue: VecDeque::new(),
            waker: None,
            last_ticket: 0,
            committing: None,
            rng: Rng::new(seed),
            closed: false,
        }
    }

    /// Everything the link is to ask now, of a broker that serves subscriptions or not.
    pub(crate) fn poll(&mut self, link: usize, subscribes: bool, now_us: u64, out: &mut Vec<Ask>) {
        let silent = self.silent(link);
        let state = &mut self.links[link];
        state.kick = false;
        if !state.connected {
            return;
        }
        let astray = std::mem::take(&mut state.astray);
        if self.is_to_refresh(link, now_us) || astray {
            out.push(Ask::Locate);
        }
        let state = &mut self.links[link];
        match silent {
            Some(Silent::Stuck { at_us }) => state.stuck |= at_us <= now_us,
            Some(Silent::Doubted { at_us }) if at_us <= now_us => {
                (state.pinged, state.alive_us) = (true, now_us);
                out.push(Ask::Aside(Request::Ping));
            }
            _ => {}
        }
        let (topic, window) = (self.topic, self.window());
        let subscribes = subscribes && self.config.min_bytes <= 1;
        let crowded = self.links[link].crowded_until_us > now_us;
        for (at, cursor) in self.cursors.iter_mut().enumerate().filter(|(_, cursor)| cursor.link == link) {
            let handle = cursor.handle;
            if std::mem::take(&mut cursor.unsubscribes) {
                out.push(Ask::Aside(Request::Credit { handle, bytes: 0, ends: true }));
            }
            if let Some(bytes) = cursor.owed(window) {
                cursor.credit = cursor.credit.map(|credit| credit + i64::from(bytes));
                out.push(Ask::Aside(Request::Credit { handle, bytes, ends: false }));
            }
            if let Some(commit) = cursor.commit(at, now_us) {
                self.links[link].alive_us = now_us;
                out.push(commit);
            }
            let full = cursor.queued_bytes >= self.config.prefetch_bytes || cursor.next == Place::Stopped;
            let idle = full && !cursor.needs_handle(now_us);
            if cursor.asked || cursor.credit.is_some() || idle || cursor.not_before_us > now_us {
                continue;
            }
            let token = Token { cursor: at, generation: cursor.generation, commits: false };
            let request = match cursor.next {
                _ if !cursor.opened => Request::Open { handle, topic, partition: cursor.partition },
                Place::Stopped => continue,
                Place::Recall => {
                    cursor.asked = true;
                    self.links[link].alive_us = now_us;
                    out.push(Ask::Recall { token, handle });
                    continue;
                }
                Place::Find(at) => Request::OffsetForTime { handle, at },
                Place::At(offset) if subscribes && !crowded && !cursor.polls => {
                    let credit = window - cursor.queued_bytes as u32;
                    cursor.credit = Some(credit.into());
                    let (leader_epoch, max_bytes) = (cursor.epoch, self.config.max_bytes);
                    Request::Subscribe { handle, offset, leader_epoch, max_bytes, credit }
                }
                Place::At(offset) => {
                    cursor.polls = subscribes;
                    let max_wait_us = if cursor.polls { 0 } else { to_us(self.config.max_wait) };
                    let (leader_epoch, max_bytes) = (cursor.epoch, self.config.max_bytes);
                    let min_bytes = self.config.min_bytes;
                    Request::Fetch { handle, offset, leader_epoch, max_bytes, min_bytes, max_wait_us }
                }
            };
            cursor.asked = true;
            self.links[link].alive_us = now_us;
            out.push(Ask::Partition { token, request });
        }
    }

    /// Bytes of one partition that may be pushed and queued together.
    fn window(&self) -> u32 {
        let most = self.config.prefetch_bytes.saturating_add(self.config.max_bytes as usize);
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    /// What is to be thought of a link when nothing is heard from it, and when.
    fn silent(&self, link: usize) -> Option<Silent> {
        let Link { alive_us, pinged, .. } = self.links[link];
        let mut cursors = self.cursors.iter().filter(|cursor| cursor.link == link);
        if pinged || cursors.clone().any(Cursor::is_waiting) {
            return Some(Silent::Stuck { at_us: alive_us.saturating_add(self.patience_us) });
        }
        let doubted = Silent::Doubted { at_us: alive_us.saturating_add(self.patience_us / 2) };
        cursors.any(|cursor| cursor.credit.is_some()).then_some(doubted)
    }

    /// A connection to another address; its number.
    pub(crate) fn add_link(&mut self) -> usize {
        self.links.push(Link::default());
        self.handles.push(0);
        self.links.len() - 1
    }

    pub(crate) fn on_connected(&mut self, link: usize) {
        self.links[link] = Link { connected: true, kick: true, ..Link::default() };
    }

    pub(crate) fn on_lost(&mut self, link: usize) {
        self.links[link] = Link::default();
        if self.refresh.asked.take_if(|asked| *asked == link).is_some() {
            self.refresh();
        }
        for cursor in self.cursors.iter_mut().filter(|cursor| cursor.link == link) {
            (cursor.opened, cursor.asked, cursor.unsubscribes) = (false, false, false);
            cursor.credit = None;
            cursor.commits.again();
        }
    }

    /// The broker at the other end of a link has answered what tells nothing else.
    pub(crate) fn on_alive(&mut self, link: usize, now_us: u64) {
        let link = &mut self.links[link];
        (link.alive_us, link.pinged) = (now_us, false);
    }

    /// Takes an answer; the batches of a fetch or push lie in `chunk` at `payload`.
    pub(crate) fn on_answer(
        &mut self,
        token: Token,
        response: &Response<'_>,
        chunk: &Arc<Chunk>,
        payload: Range<usize>,
        now_us: u64,
        effects: &mut Effects,
    ) {
        self.on_alive(self.cursors[token.cursor].link, now_us);
        if token.commits {
            return self.on_commit_answer(token.cursor, response, now_us, effects);
        }
        let cursor = &mut self.cursors[token.cursor];
        let current = cursor.generation == token.generation;
        if let Response::Opened { leader_epoch, .. } = response {
            cursor.opened = true;
            cursor.asked = false;
            cursor.opened_epoch = Some(*leader_epoch);
            cursor.missing = false;
            self.links[cursor.link].kick |= cursor.commits.is_due(now_us);
            // Who starts at the end has read nothing, but knows up to where this epoch reached.
            if current && cursor.next == Place::Find(At::End) {
                cursor.epoch = Some(*leader_epoch);
            }
            return;
        }
        if !current {
            // Before it is opened nothing but the open can be on its way, and it was refused.
            cursor.asked &= cursor.opened;
            return;
        }
        cursor.asked = false;
        match *response {
            Response::OffsetFound { offset, .. } => {
                cursor.next = Place::At(offset);
                (cursor.position, cursor.position_epoch) = (Some(offset), None);
                cursor.failures = 0;
                effects.wake.extend(cursor.seeking.take());
            }
            Response::Fetched { high_watermark, .. } => {
                if std::mem::take(&mut cursor.polls) && payload.is_empty() {
                    cursor.failures += 1;
                    self.pause(token.cursor, 0, now_us);
                } else {
                    cursor.failures = 0;
                }
                self.on_batches(token.cursor, high_watermark, chunk, payload, effects);
            }
            Response::Pushed { high_watermark, is_last, .. } => {
                cursor.failures = 0;
                cursor.credit = cursor.credit.map(|credit| credit - payload.len() as i64);
                self.on_batches(token.cursor, high_watermark, chunk, payload, effects);
                if is_last {
                    self.cursors[token.cursor].credit = None;
                }
            }
            Response::Positions(ref reply) => {
                cursor.failures = 0;
                match reply.positions.first() {
                    Some(position) => cursor.recall(position.offset, position.leader_epoch),
                    None => {
                        cursor.go_to(cursor.from);
                        if cursor.next == Place::Find(At::End) {
                            cursor.epoch = cursor.opened_epoch;
                        }
                    }
                }
            }
            Response::Error(ref body) => self.on_error(token.cursor, body, now_us, effects),
            _ => {}
        }
    }

    fn on_error(&mut self, at: usize, body: &ErrorBody<'_>, now_us: u64, effects: &mut Effects) {
        let cursor = &mut self.cursors[at];
        let subscribed = cursor.credit.take().is_some();
        if subscribed && body.code == ErrorCode::TooMany {
            cursor.polls = true;
            let pause = pause_us(self.backoff, u32::MAX, &mut self.rng);
            self.links[cursor.link].crowded_until_us = now_us.saturating_add(pause);
            return;
        }
        let refused = Refused::from(body);
        if !cursor.opened && !refused.code.retryable() {
            cursor.commits.refused(&refused);
            effects.wake.extend(self.committing.take());
        }
        self.on_refused(at, refused, u64::from(body.retry_after_us), now_us, effects);
    }

    fn on_batches(
        &mut self,
        at: usize,
        high_watermark: u64,
        chunk: &Arc<Chunk>,
        payload: Range<usize>,
        effects: &mut Effects,
    ) {
        if payload.is_empty() {
            return;
        }
        let (chunk, mut range) = if payload.len() < COPY_BELOW_BYTES {
            (Arc::new(Chunk::copy_of(&chunk[payload.clone()])), 0..payload.len())
        } else {
            (Arc::clone(chunk), payload)
        };
        let partition = self.cursors[at].partition;
        let mut taken = false;
        while !range.is_empty() {
            let Place::At(from) = self.cursors[at].next else { return };
            let cause = match self.cut(&chunk[range.clone()], partition) {
                Ok(header) if header.base_offset > from && taken => Some(BatchError::Offsets),
                Ok(header) if header.next_offset() <= from => {
                    range.start += header.padded_bytes();
                    continue;
                }
                Ok(header) => {
                    let bytes = range.start..range.start + header.batch_bytes();
                    range.start += header.padded_bytes();
                    taken = true;
                    let cursor = &mut self.cursors[at];
                    cursor.next = Place::At(header.next_offset());
                    cursor.epoch = Some(header.leader_epoch);
                    let since_us = cursor.since_us;
                    if header.max_timestamp_us >= since_us {
                        cursor.since_us = 0;
                    } else if !range.is_empty() {
                        // The last of an answer is handed out, without records: who waits for an end must see it.
                        continue;
                    }
                    let bytes_taken = header.padded_bytes();
                    let chunk = Arc::clone(&chunk);
                    let range = bytes;
                    let batch = RawBatch { partition, high_watermark, header, chunk, range, from, since_us };
                    self.queue(at, bytes_taken, Ok(batch), effects);
                    None
                }
                Err(cause) => Some(cause),
            };
            if let Some(cause) = cause {
                self.stop(at, ConsumeError::Batch { partition, offset: from, cause }, effects);
                return;
            }
        }
        if !taken && let Place::At(offset) = self.cursors[at].next {
            let cause = BatchError::Offsets;
            self.stop(at, ConsumeError::Batch { partition, offset, cause }, effects);
        }
    }

    /// The header of the first batch, checked as far as it can be without touching the body.
    fn cut(&self, bytes: &[u8], partition: u32) -> Result<BatchHeader, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        if header.padded_bytes() > bytes.len() {
            return Err(BatchError::Truncated);
        }
        if !BatchHeader::verify_header(bytes, self.topic, partition) {
            return Err(BatchError::Magic);
        }
        Ok(header)
    }

    fn on_refused(
        &mut self,
        at: usize,
        refused: Refused,
        retry_after_us: u64,
        now_us: u64,
        effects: &mut Effects,
    ) {
        let cursor = &mut self.cursors[at];
        let partition = cursor.partition;
        let offset = if let Place::At(offset) = cursor.next { offset } else { 0 };
        match refused.code {
            ErrorCode::LogTruncated => {
                let offset = refused.detail[0];
                cursor.next = Place::At(offset);
                cursor.epoch = None;
                self.queue(at, 0, Err(ConsumeError::LogTruncated { partition, offset }), effects);
            }
            ErrorCode::OffsetOutOfRange => match self.config.reset {
                Reset::Start => cursor.restart(Place::Find(At::Start)),
                Reset::End => cursor.restart(Place::Find(At::End)),
                Reset::Fail => {
                    let [log_start, high_watermark] = refused.detail;
                    let error =
                        ConsumeError::OffsetOutOfRange { partition, offset, log_start, high_watermark };
                    self.stop(at, error, effects);
                }
            },
            ErrorCode::Damaged => {
                let [first, last] = refused.detail;
                self.stop(at, ConsumeError::Damaged { partition, first, last }, effects);
            }
            ErrorCode::FencedEpoch => cursor.epoch = None,
            ErrorCode::UnknownHandle => cursor.opened = false,
            ErrorCode::UnknownTopic | ErrorCode::UnknownTopicId => {
                self.stop(at, ConsumeError::UnknownTopic, effects)
            }
            // Another core may have told of a partition that this one has not heard of yet: it is there if the metadata
            // say so.
            code if code.retryable() || code == ErrorCode::UnknownPartition => {
                cursor.missing = code == ErrorCode::UnknownPartition;
                self.links[cursor.link].astray |= cursor.missing || code == ErrorCode::NotHere;
                cursor.failures += 1;
                self.pause(at, retry_after_us, now_us);
            }
            _ => self.stop(at, ConsumeError::Refused { partition, refused }, effects),
        }
    }

    /// It is asked for nothing until the backoff of its failures is over.
    fn pause(&mut self, at: usize, least_us: u64, now_us: u64) {
        let cursor = &mut self.cursors[at];
        let pause = pause_us(self.backoff, cursor.failures, &mut self.rng);
        cursor.not_before_us = now_us.saturating_add(pause.max(least_us));
    }

    fn stop(&mut self, at: usize, error: ConsumeError, effects: &mut Effects) {
        let cursor = &mut self.cursors[at];
        cursor.next = Place::Stopped;
        cursor.unsubscribe();
        self.links[cursor.link].kick |= cursor.unsubscribes;
        effects.wake.extend(self.cursors[at].seeking.take());
        self.queue(at, 0, Err(error), effects);
    }

    fn queue(
        &mut self,
        cursor: usize,
        bytes: usize,
        item: Result<RawBatch, ConsumeError>,
        effects: &mut Effects,
    ) {
        self.cursors[cursor].queued_bytes += bytes;
        self.queue.push_back(Queued { cursor, bytes, item });
        effects.wake.extend(self.waker.take());
    }

    /// The next batch, its body checked, or an error in its turn. `None`: `waker` is woken when there is one.
    pub(crate) fn next(&mut self, waker: Option<&Waker>) -> Option<Result<RawBatch, ConsumeError>> {
        let Some(queued) = self.queue.pop_front() else {
            if self.closed {
                return Some(Err(ConsumeError::Closed));
            }
            self.waker = waker.cloned();
            return None;
        };
        let (prefetch_bytes, window) = (self.config.prefetch_bytes, self.window());
        let cursor = &mut self.cursors[queued.cursor];
        let room = |cursor: &Cursor| (cursor.queued_bytes < prefetch_bytes, cursor.owed(window).is_some());
        let before = room(cursor);
        cursor.queued_bytes -= queued.bytes;
        self.links[cursor.link].kick |= before != room(cursor);
        match &queued.item {
            Ok(batch) => {
                cursor.position = Some(batch.header.next_offset());
                cursor.position_epoch = Some(batch.header.leader_epoch);
            }
            Err(ConsumeError::LogTruncated { offset, .. }) => {
                (cursor.position, cursor.position_epoch) = (Some(*offset), None);
            }
            Err(_) => {}
        }
        Some(queued.item)
    }

    /// The body of a batch that was just taken does not match its CRC: the partition stands still.
    pub(crate) fn on_damaged(&mut self, partition: u32) {
        if let Some(&at) = self.by_partition.get(&partition) {
            self.drop_queued(at);
            let cursor = &mut self.cursors[at];
            cursor.restart(Place::Stopped);
            self.links[cursor.link].kick |= cursor.unsubscribes;
        }
    }

    /// Goes on from there; false if the partition is not read here.
    pub(crate) fn seek(&mut self, partition: u32, to: Position) -> bool {
        let Some(&at) = self.by_partition.get(&partition) else { return false };
        self.drop_queued(at);
        let cursor = &mut self.cursors[at];
        cursor.restart(Place::Stopped);
        cursor.go_to(to);
        self.links[cursor.link].kick = true;
        true
    }

    /// The offset a seek has found, or the end of waiting for it; otherwise `waker` is woken later.
    pub(crate) fn sought(&mut self, partition: u32, waker: &Waker) -> Option<Option<u64>> {
        let at = *self.by_partition.get(&partition)?;
        let cursor = &mut self.cursors[at];
        match cursor.next {
            _ if self.closed => Some(None),
            Place::At(_) | Place::Stopped => Some(cursor.position),
            Place::Find(_) | Place::Recall => {
                cursor.seeking = Some(waker.clone());
                None
            }
        }
    }

    pub(crate) fn position(&self, partition: u32) -> Option<u64> {
        self.by_partition.get(&partition).and_then(|&at| self.cursors[at].position)
    }

    fn drop_queued(&mut self, at: usize) {
        self.queue.retain(|queued| queued.cursor != at);
        self.cursors[at].queued_bytes = 0;
    }

    pub(crate) fn close(&mut self, effects: &mut Effects) {
        self.closed = true;
        effects.wake.extend(self.waker.take());
        effects.wake.extend(self.committing.take());
        effects.wake.extend(self.cursors.iter_mut().filter_map(|cursor| cursor.seeking.take()));
    }

    /// Moves to `effects` which links have something new to look at.
    pub(crate) fn take_kicks(&mut self, effects: &mut Effects) {
        for (at, link) in self.links.iter_mut().enumerate() {
            if std::mem::take(&mut link.kick) {
                effects.kick(at);
            }
        }
    }

    /// When `poll` has something to ask although nothing happened, in microseconds.
    pub(crate) fn next_deadline(&self, link: usize, now_us: u64) -> Option<u64> {
        let paused = |cursor: &&Cursor| cursor.link == link && !cursor.asked && cursor.not_before_us > now_us;
        let paused = self.cursors.iter().filter(paused).map(|cursor| cursor.not_before_us).min();
        let silent = self.silent(link).map(|(Silent::Doubted { at_us } | Silent::Stuck { at_us })| at_us);
        let commits = self.cursors.iter().filter(|cursor| cursor.link == link);
        let commits = commits.filter_map(|cursor| cursor.commits.due_us().filter(|due_us| *due_us > now_us));
        paused.into_iter().chain(silent).chain(commits.min()).chain(self.refresh_at(link)).min()
    }

    /// The link's connection answers no more and is to be made anew.
    pub(crate) fn is_stuck(&self, link: usize) -> bool {
        self.links[link].stuck
    }
}

/// What silence of a link means from some time on, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silent {
    /// It has nothing to say, or is gone: it is to be asked.
    Doubted { at_us: u64 },
    /// It does not answer what it was asked.
    Stuck { at_us: u64 },
}
